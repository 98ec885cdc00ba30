/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay_test.c - a store over a base: what is written, kept, refused, thrown away */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/overlay_format.h"
#include "layer/overlay_testing.h"
#include "util/crc32c.h"
#include "util/log.h"

#define MAP_OFFSET 65536u /* of a new store */

/* --- what a disk shows ----------------------------------------------------------------------- */

static void keeps_what_is_written(void **unused)
{
	struct disk *disk = open_disk();

	(void)unused;
	assert_int_equal(disk->size, BASE_BYTES);
	expect(disk, 0, 1 << 20, BASE);
	write_at(disk, 8192, 4096, 'a');
	write_at(disk, 1 << 20, 1 << 20, 'b');
	expect(disk, 0, 8192, BASE);
	expect(disk, 8192, 4096, 'a');
	expect(disk, 12288, (1 << 20) - 12288, BASE);
	expect(disk, 1 << 20, 1 << 20, 'b');
	flush(disk);
	write_at(disk, 8192, 4096, 'c'); /* not flushed, but the end is in good order */
	write_at(disk, BASE_BYTES - 4096, 4096, 'd');
	disk_close(disk);
	disk = open_disk();
	expect(disk, 0, 8192, BASE);
	expect(disk, 8192, 4096, 'c');
	expect(disk, 1 << 20, 1 << 20, 'b');
	expect(disk, 2 << 20, 1 << 20, BASE);
	expect(disk, BASE_BYTES - 4096, 4096, 'd');
	disk_close(disk);
}

static void completes_parts_of_blocks(void **unused)
{
	struct disk *disk = open_disk();

	(void)unused;
	write_at(disk, 4096 + 512, 512, 'a');       /* inside a block */
	write_at(disk, 3 * 4096 - 1024, 8192, 'b'); /* the end of one, one, the start of one */
	write_at(disk, 4096 + 1024, 512, 'c');      /* in the store by now */
	expect(disk, 4096, 512, BASE);
	expect(disk, 4096 + 512, 512, 'a');
	expect(disk, 4096 + 1024, 512, 'c');
	expect(disk, 4096 + 1536, 4096 - 1536, BASE);
	expect(disk, 2 * 4096, 3072, BASE);
	expect(disk, 3 * 4096 - 1024, 8192, 'b');
	expect(disk, 5 * 4096 - 1024, 1024, BASE);
	assert_int_equal(change(disk, IO_ZEROES, 0, 65536 + 512, 3 * 4096, 0), 0);
	expect(disk, 65536, 512, BASE);
	expect(disk, 65536 + 512, 3 * 4096, 0);
	expect(disk, 65536 + 512 + 3 * 4096, 4096 - 512, BASE);
	write_at(disk, 65536 + 4096 + 512, 512, 'd'); /* of zeroes */
	expect(disk, 65536 + 4096, 512, 0);
	expect(disk, 65536 + 4096 + 512, 512, 'd');
	expect(disk, 65536 + 4096 + 1024, 512, 0);
	disk_close(disk);
	disk = open_disk();
	expect(disk, 4096 + 512, 512, 'a');
	expect(disk, 65536, 512, BASE);
	expect(disk, 65536 + 512, 4096, 0);
	expect(disk, 65536 + 4096 + 512, 512, 'd');
	disk_close(disk);
}

static void zeroes_and_discards(void **unused)
{
	struct disk *disk = open_disk();
	struct stat before, after;

	(void)unused;
	write_at(disk, 0, 4 << 20, 'a');
	flush(disk);
	assert_int_equal(stat(store_path, &before), 0);
	assert_int_equal(change(disk, IO_ZEROES, IO_UNMAP, 1 << 20, 2 << 20, 0), 0);
	assert_int_equal(change(disk, IO_ZEROES, IO_UNMAP | IO_FUA, 5 << 20, 1 << 20, 0), 0);
	assert_int_equal(change(disk, IO_DISCARD, 0, 3 << 20, 3 << 20, 0), 0);
	expect(disk, 0, 1 << 20, 'a');
	expect(disk, 1 << 20, 2 << 20, 0);
	expect(disk, 3 << 20, 3 << 20, 0);
	expect(disk, 6 << 20, 2 << 20, BASE);
	flush(disk);
	assert_int_equal(stat(store_path, &after), 0);
	assert_true(after.st_blocks * 512 < before.st_blocks * 512 - (2 << 20));
	disk_close(disk);
	disk = open_disk();
	expect(disk, 1 << 20, 5 << 20, 0);
	expect(disk, 6 << 20, 2 << 20, BASE);
	disk_close(disk);
}

static void disks_of_other_sizes(void **unused)
{
	const char *const larger[] = { "size", "9M", NULL }, *const more[] = { "size", "100M",
									       NULL };
	struct disk *disk = open_with(larger);
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(disk->size, 9 << 20);
	expect(disk, 7 << 20, 1 << 20, BASE);
	expect(disk, 8 << 20, 1 << 20, 0);
	write_at(disk, (8 << 20) - 4096, 8192, 'a');
	assert_int_equal(disk_resize(disk, 20 << 20, &err), 0);
	expect(disk, 9 << 20, 11 << 20, 0);
	write_at(disk, (20 << 20) - 512, 512, 'b');
	disk_close(disk);
	disk = open_disk();
	assert_int_equal(disk->size, 20 << 20);
	expect(disk, (8 << 20) - 4096, 8192, 'a');
	expect(disk, (20 << 20) - 512, 512, 'b');
	expect(disk, 19 << 20, (1 << 20) - 512, 0);
	disk_close(disk);
	assert_null(try_over(store_path, base_path, false, &err, larger));
	assert_non_null(strstr(err.text, "cannot shrink"));
	disk = open_with(more);
	assert_int_equal(disk->size, 100 << 20);
	write_at(disk, 99 << 20, 4096, 'c'); /* in a page of the map that was not there before */
	flush(disk);
	disk_close(disk);
	disk = open_disk();
	expect(disk, 99 << 20, 4096, 'c');
	expect(disk, (20 << 20) - 512, 512, 'b');
	disk_close(disk);
}

static void one_base_for_many(void **unused)
{
	struct error err = { 0 };
	struct disk *disks[3];
	char paths[3][300];

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		snprintf(paths[i], sizeof paths[i], "%s/%u.ovl", directory, i);
		disks[i] = try_over(paths[i], base_path, false, &err, NULL);
		assert_non_null(disks[i]);
		write_at(disks[i], 4096, 4096, '0' + (int)i);
	}
	for (unsigned i = 0; i < 3; i++) {
		expect(disks[i], 0, 4096, BASE);
		expect(disks[i], 4096, 4096, '0' + (int)i);
	}
	/* A store has one owner. */
	assert_null(try_over(paths[0], base_path, false, &err, NULL));
	assert_non_null(strstr(err.text, "in use"));
	for (unsigned i = 0; i < 3; i++) {
		disk_close(disks[i]);
		unlink(paths[i]);
	}
}

static void undo_at_exit(void **unused)
{
	const char *const at_exit[] = { "undo", "at-exit", NULL };
	struct disk *disk = open_disk();
	struct stat before, after;

	(void)unused;
	write_at(disk, 0, 1 << 20, 'a');
	disk_close(disk);
	assert_int_equal(stat(store_path, &before), 0);
	disk = open_with(at_exit); /* what is there is thrown away */
	assert_int_equal(stat(store_path, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	expect(disk, 0, 1 << 20, BASE);
	write_at(disk, 4096, 4096, 'b');
	flush(disk);
	expect(disk, 4096, 4096, 'b');
	disk_close(disk);
	disk = open_disk();
	expect(disk, 0, 1 << 20, BASE);
	write_at(disk, 8192, 4096, 'c'); /* pages that count again come after the floor */
	disk_close(disk);
	disk = open_disk();
	expect(disk, 0, 8192, BASE);
	expect(disk, 8192, 4096, 'c');
	disk_close(disk);
}

static void copies_on_read(void **unused)
{
	const char *const copy[] = { "copy-on-read", "true", NULL };
	struct disk *disk = open_with(copy);

	(void)unused;
	expect(disk, 512, 16384 + 1024, BASE); /* three whole blocks */
	expect(disk, 512, 16384 + 1024, BASE);
	assert_int_equal(stored(disk), 3 * 4096);
	write_at(disk, 1 << 20, 4096, 'a');
	expect(disk, (1 << 20) - 4096, 4096, BASE);
	expect(disk, 2 << 20, 1 << 20, BASE);
	expect(disk, 1 << 20, 4096, 'a');
	assert_int_equal(stored(disk), 5 * 4096 + (1 << 20));
	disk_close(disk);
	disk = open_disk();
	assert_int_equal(stored(disk), 5 * 4096 + (1 << 20));
	expect(disk, 2 << 20, 1 << 20, BASE);
	disk_close(disk);
}

static void read_only_writes_nothing(void **unused)
{
	struct error err = { 0 };
	struct disk *disk = open_disk();
	struct stat before, after;

	(void)unused;
	write_at(disk, 0, 4096, 'a');
	disk_close(disk);
	assert_int_equal(stat(store_path, &before), 0);
	disk = try_over(store_path, base_path, true, &err, NULL);
	assert_non_null(disk);
	expect(disk, 0, 4096, 'a');
	expect(disk, 4096, 4096, BASE);
	assert_int_equal(change(disk, IO_WRITE, 0, 0, 4096, 'b'), -EROFS);
	disk_close(disk);
	assert_int_equal(stat(store_path, &after), 0);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
}

/* --- what is refused ------------------------------------------------------------------------- */

static void expect_refusal(const char *why)
{
	struct error err = { 0 };
	struct stat before, after;

	assert_int_equal(stat(store_path, &before), 0);
	assert_null(try_over(store_path, base_path, false, &err, NULL));
	if (!strstr(err.text, why))
		fail_msg("'%s' does not say '%s'", err.text, why);
	/* Nothing was written to it. */
	assert_int_equal(stat(store_path, &after), 0);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
}

static void another_base_is_refused(void **unused)
{
	unsigned char was, other;

	(void)unused;
	disk_close(open_disk());
	get(base_path, 1000, &was, 1);
	other = was ^ 1;
	put(base_path, 1000, &other, 1);
	expect_refusal("written to since");
	put(base_path, 1000, &was, 1);
	disk_close(open_disk());
	assert_int_equal(truncate(base_path, BASE_BYTES + 4096), 0);
	expect_refusal("made over a base of 8M");
	assert_int_equal(truncate(base_path, BASE_BYTES), 0);
	disk_close(open_disk());
}

static void what_is_no_store_is_refused(void **unused)
{
	char bytes[8192];

	(void)unused;
	memset(bytes, 'x', sizeof bytes);
	put(store_path, 0, bytes, sizeof bytes);
	expect_refusal("something else");
}

static void flip(uint64_t offset)
{
	unsigned char byte;

	get(store_path, offset, &byte, 1);
	byte ^= 0x10;
	put(store_path, offset, &byte, 1);
}

static void damage_is_refused(void **unused)
{
	const uint64_t page = MAP_OFFSET;
	struct disk *disk = open_disk();

	(void)unused;
	write_at(disk, 0, 4096, 'a');
	flush(disk);
	write_at(disk, 65536, 4096, 'a');
	flush(disk);
	disk_close(disk);
	/* One copy of the header is enough, and mends the other. */
	flip(40);
	disk_close(open_disk());
	flip(4096 + 100);
	disk_close(open_disk());
	flip(48);
	flip(4096 + 100);
	expect_refusal("header of the store is damaged");
	flip(48);
	flip(4096 + 100);
	/* The page that counts now is in the first slot: the second write of it. */
	flip(page + 600);
	expect_refusal("page 0 of the map is damaged");
	flip(page + 600);
	disk_close(open_disk());
	/* What is damaged in the other one is older for sure. */
	flip(page + 16 * 4096 + 600);
	disk = open_disk();
	expect(disk, 65536, 4096, 'a');
	disk_close(disk);
	/* A file that was cut. */
	assert_int_equal(truncate(store_path, 2 << 20), 0);
	expect_refusal("a part of it is missing");
}

static void another_version_is_refused(void **unused)
{
	struct overlay_header header = { .sequence = 1, .base_size = BASE_BYTES };
	unsigned char bytes[OVERLAY_HEADER_BYTES];
	uint32_t crc;

	(void)unused;
	overlay_header_lay_out(&header, BASE_BYTES, 4096);
	overlay_header_encode(&header, bytes);
	bytes[12] = 2;
	crc = crc32c(0, bytes + 12, sizeof bytes - 12);
	memcpy(bytes + 8, &crc, sizeof crc);
	put(store_path, 0, bytes, sizeof bytes);
	put(store_path, 4096, bytes, sizeof bytes);
	assert_int_equal(truncate(store_path, 8192), 0);
	expect_refusal("version 2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVERLAY_TEST(keeps_what_is_written),   OVERLAY_TEST(completes_parts_of_blocks),
		OVERLAY_TEST(zeroes_and_discards),     OVERLAY_TEST(disks_of_other_sizes),
		OVERLAY_TEST(one_base_for_many),       OVERLAY_TEST(undo_at_exit),
		OVERLAY_TEST(copies_on_read),          OVERLAY_TEST(read_only_writes_nothing),
		OVERLAY_TEST(another_base_is_refused), OVERLAY_TEST(what_is_no_store_is_refused),
		OVERLAY_TEST(damage_is_refused),       OVERLAY_TEST(another_version_is_refused),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("overlay", tests, NULL, NULL);
}
