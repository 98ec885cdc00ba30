/* SPDX-License-Identifier: BSD-3-Clause */
/* aggregate_test.c - stripe, concat and slice: where bytes go, what is refused, how they grow */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/testing_stack.h"
#include "testing.h"
#include "util/log.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static unsigned char out[4 * MIB], in[4 * MIB];

/* Each block of 512 bytes says where on the disk it is. */
static void stamp(uint64_t offset, uint64_t length)
{
	for (uint64_t at = 0; at < length; at += 512) {
		memset(out + at, (int)((offset + at) / 512 % 251), 512);
		memcpy(out + at, &(uint64_t){ offset + at }, 8);
	}
}

/* The stamp at @offset of a leg. */
static uint64_t found(struct layer *leg, uint64_t offset)
{
	uint64_t where;

	assert_int_equal(testing_read(leg, offset, in, 512), 0);
	memcpy(&where, in, 8);
	return where;
}

static void write_and_read(struct disk *disk, uint64_t offset, uint64_t length)
{
	stamp(offset, length);
	assert_int_equal(testing_write(disk->top, offset, out, length), 0);
	memset(in, 0, length);
	assert_int_equal(testing_read(disk->top, offset, in, length), 0);
	assert_memory_equal(in, out, length);
}

static void assert_refused(const char *stack, uint32_t block, const char *says)
{
	struct error err = { 0 };

	assert_null(testing_disk_of("test", stack, block, false, &err));
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

/* --- stripe -------------------------------------------------------------------------- */

static void chunks_in_turn(void **unused)
{
	struct disk *disk =
		testing_disk("stripe chunk=8K [memory size=1M] [memory size=1M] [memory size=1M]");
	struct layer *stripe = disk->top;

	(void)unused;
	assert_int_equal(disk->size, 3 * MIB / (24 * KIB) * 24 * KIB);
	/* 350 pieces, far more than a window. */
	write_and_read(disk, 0, 350 * 8 * KIB);
	for (uint64_t chunk = 0; chunk < 350; chunk++) {
		assert_int_equal(found(stripe->legs[chunk % 3], chunk / 3 * 8 * KIB),
				 chunk * 8 * KIB);
		assert_int_equal(found(stripe->legs[chunk % 3], chunk / 3 * 8 * KIB + 7680),
				 chunk * 8 * KIB + 7680);
	}
	write_and_read(disk, 3 * KIB, 17 * KIB);
	write_and_read(disk, disk->size - 41 * KIB, 41 * KIB);
	disk_close(disk);
}

static void zeroes_are_ranges(void **unused)
{
	struct disk *disk = testing_disk("stripe chunk=4K [memory size=1M] [memory size=1M]");

	(void)unused;
	/* Every start and end within three rows of chunks. */
	for (uint64_t start = 0; start < 12 * KIB; start += 1536)
		for (uint64_t end = start + 512; end < 24 * KIB; end += 1024) {
			stamp(0, 32 * KIB);
			assert_int_equal(testing_write(disk->top, 0, out, 32 * KIB), 0);
			assert_int_equal(testing_do(disk->top, IO_ZEROES, start, end - start), 0);
			memset(out + start, 0, end - start);
			assert_int_equal(testing_read(disk->top, 0, in, 32 * KIB), 0);
			assert_memory_equal(in, out, 32 * KIB);
		}
	assert_int_equal(testing_do(disk->top, IO_DISCARD, 0, disk->size), 0);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), 0);
	disk_close(disk);
}

static void a_leg_that_fails(void **unused)
{
	struct disk *disk = testing_disk(
		"stripe chunk=4K [memory size=1M] [flaky errors=100% | memory size=1M]");

	(void)unused;
	assert_int_equal(testing_read(disk->top, 0, in, 4 * KIB), 0);
	assert_int_equal(testing_read(disk->top, 4 * KIB, in, 4 * KIB), -EIO);
	assert_int_equal(testing_write(disk->top, 0, out, MIB), -EIO);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), -EIO);
	assert_int_equal(testing_do(disk->top, IO_ZEROES, 0, MIB), -EIO);
	disk_close(disk);
}

static void stripe_geometry(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	assert_refused("stripe chunk=6K [memory size=1M] [memory size=1M]", 4096,
		       "stripe: chunk: 6K is not a multiple of the block size, 4096 bytes");
	assert_refused("stripe chunk=2M [memory size=1M] [memory size=4M]", 512,
		       "the smallest leg is smaller than 2M");
	assert_refused("stripe [memory size=1M]", 512, "expected 2 to 16 stacks");
	/* The smallest leg decides. */
	disk = testing_disk("stripe chunk=64K [memory size=1000K] [memory size=3M]");
	assert_int_equal(disk->size, 2 * 960 * KIB);
	assert_int_equal(disk->top->limits.optimal_io, 128 * KIB);
	assert_true(disk->top->limits.discard);
	assert_int_equal(disk_resize(disk, 3 * MIB + 512, &err), 0);
	assert_true(disk->size >= 3 * MIB + 512);
	assert_true(disk->top->legs[0]->limits.size >= MIB + MIB / 2);
	write_and_read(disk, 3 * MIB - 4 * KIB, 4 * KIB);
	disk_close(disk);
}

/* --- concat -------------------------------------------------------------------------- */

static void one_after_another(void **unused)
{
	struct disk *disk =
		testing_disk("concat [memory size=513K] [memory size=1M] [memory size=20K]");
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(disk->size, 513 * KIB + MIB + 20 * KIB);
	write_and_read(disk, 0, disk->size);
	assert_int_equal(found(disk->top->legs[0], 512 * KIB), 512 * KIB);
	assert_int_equal(found(disk->top->legs[1], 0), 513 * KIB);
	assert_int_equal(found(disk->top->legs[1], MIB - 512), 513 * KIB + MIB - 512);
	assert_int_equal(found(disk->top->legs[2], 0), 513 * KIB + MIB);
	assert_int_equal(testing_do(disk->top, IO_ZEROES, 512 * KIB, 2 * KIB), 0);
	assert_int_equal(found(disk->top->legs[0], 512 * KIB), 0);
	assert_int_equal(found(disk->top->legs[1], 512), 0);
	assert_int_equal(found(disk->top->legs[1], KIB), 514 * KIB);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), 0);
	/* It grows at its end. */
	assert_int_equal(disk_resize(disk, 513 * KIB + MIB + 100 * KIB, &err), 0);
	assert_int_equal(disk->size, 513 * KIB + MIB + 100 * KIB);
	write_and_read(disk, disk->size - 90 * KIB, 90 * KIB);
	assert_int_equal(found(disk->top->legs[1], KIB), 514 * KIB);
	disk_close(disk);
}

static void blocks_are_not_cut(void **unused)
{
	struct error err = { 0 };
	struct disk *disk = testing_disk_of("test", "concat [memory size=9K] [memory size=9K]",
					    4096, false, &err);

	(void)unused;
	assert_non_null(disk);
	assert_int_equal(disk->size, 16 * KIB);
	write_and_read(disk, 0, 16 * KIB);
	assert_int_equal(found(disk->top->legs[1], 0), 8 * KIB);
	disk_close(disk);
}

static void a_leg_is_added(void **unused)
{
	struct disk *disk = testing_disk("concat [memory size=1M]");
	struct error err;

	(void)unused;
	write_and_read(disk, 0, MIB);
	assert_int_equal(testing_change(disk, "concat [memory size=1M] [memory size=513K]", &err),
			 0);
	assert_int_equal(disk_resize(disk, MIB + 513 * KIB, &err), 0);
	write_and_read(disk, MIB - 4 * KIB, 517 * KIB);
	assert_int_equal(found(disk->top->legs[0], 4 * KIB), 4 * KIB);
	assert_int_equal(found(disk->top->legs[1], 0), MIB);
	/* None can go. */
	assert_int_equal(testing_change(disk, "concat [memory size=1M]", &err), -EINVAL);
	assert_non_null(strstr(err.text, "cannot become fewer"));
	disk_close(disk);
}

static void geometry_stays(void **unused)
{
	struct disk *disk = testing_disk("stripe chunk=4K [memory size=1M] [memory size=1M]");
	struct error err;

	(void)unused;
	write_and_read(disk, 0, MIB);
	assert_int_equal(
		testing_change(disk, "stripe chunk=8K [memory size=1M] [memory size=1M]", &err),
		-EINVAL);
	assert_non_null(strstr(err.text, "stripe: the size of its chunks"));
	assert_int_equal(testing_change(disk,
					"stripe chunk=4K [memory size=1M] [memory size=1M] [memory "
					"size=1M]",
					&err),
			 -EINVAL);
	/* Something over a leg is nothing to it. */
	assert_int_equal(testing_change(disk,
					"stripe chunk=4K [pass | memory size=1M] [memory size=1M]",
					&err),
			 0);
	assert_int_equal(found(disk->top, 4 * KIB), 4 * KIB);
	disk_close(disk);
}

/* --- slice --------------------------------------------------------------------------- */

static void a_range(void **unused)
{
	struct disk *disk = testing_disk("slice offset=1M size=512K | memory size=2M");
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(disk->size, 512 * KIB);
	write_and_read(disk, 64 * KIB, 4 * KIB);
	assert_int_equal(found(disk->top->below, MIB + 64 * KIB), 64 * KIB);
	assert_int_equal(testing_do(disk->top, IO_ZEROES, 64 * KIB, 512), 0);
	assert_int_equal(found(disk->top->below, MIB + 64 * KIB), 0);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), 0);
	assert_int_equal(disk_resize(disk, MIB, &err), -ENOSPC);
	disk_close(disk);
	/* Without a size it is the rest, and grows with that. */
	disk = testing_disk("slice offset=1M | memory size=1536K");
	assert_int_equal(disk->size, 512 * KIB);
	assert_int_equal(disk_resize(disk, MIB, &err), 0);
	assert_int_equal(disk->top->below->limits.size, 2 * MIB);
	write_and_read(disk, MIB - 4 * KIB, 4 * KIB);
	disk_close(disk);
	assert_refused("slice offset=100 | memory size=1M", 512, "offset: 100 is not a multiple");
	assert_refused("slice offset=4K size=5K | memory size=1M", 4096, "size: 5K is not");
	assert_refused("slice offset=1M | memory size=1M", 512, "not inside what is below");
	assert_refused("slice offset=512K size=513K | memory size=1M", 512, "there are not 513K");
}

static struct disk *slice_of(const char *path, const char *range, struct error *err)
{
	char text[400];

	snprintf(text, sizeof text, "%s file path=%s create=true size=4M", range, path);
	return testing_disk_of("test", text, 512, false, err);
}

static int change_slice(struct disk *disk, const char *range, const char *path, struct error *err)
{
	char text[400];

	snprintf(text, sizeof text, "%s file path=%s create=true size=4M", range, path);
	return testing_change(disk, text, err);
}

/* As QEMU does it: a read lock on one byte. */
static int lock_byte(const char *path, off_t byte)
{
	struct flock lock = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

static bool is_locked(const char *path, off_t byte)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};
	int fd = open(path, O_RDWR);

	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	close(fd);
	return lock.l_type != F_UNLCK;
}

struct attempt {
	pthread_t thread;
	const char *path, *range;
	struct error err;
};

static void *attempt(void *data)
{
	struct attempt *a = data;

	return slice_of(a->path, a->range, &a->err);
}

/* Both at once, because each is patient. */
static void both_are_refused(struct attempt *a, struct attempt *b)
{
	void *disk;

	pthread_create(&a->thread, NULL, attempt, a);
	pthread_create(&b->thread, NULL, attempt, b);
	pthread_join(a->thread, &disk);
	assert_null(disk);
	assert_int_equal(a->err.code, EBUSY);
	pthread_join(b->thread, &disk);
	assert_null(disk);
	assert_int_equal(b->err.code, EBUSY);
}

static void slices_of_one_file(void **unused)
{
	struct error err = { 0 };
	char directory[200], path[250];
	struct disk *a, *b, *c;
	struct attempt whole = { .path = path, .range = "" };
	struct attempt overlaps = { .path = path, .range = "slice offset=512K size=1M |" };
	int fd;

	(void)unused;
	snprintf(path, sizeof path, "%s/image", testing_directory(directory));
	a = slice_of(path, "slice offset=0 size=1M |", &err);
	b = slice_of(path, "slice offset=1M size=1M |", &err);
	c = slice_of(path, "slice offset=2M |", &err);
	assert_non_null(a);
	assert_non_null(b);
	assert_non_null(c);
	write_and_read(a, 0, 4 * KIB);
	write_and_read(b, 8 * KIB, 4 * KIB);
	assert_int_equal(found(a->top, 512), 512);
	/* QEMU would find that somebody writes, and that nobody else may read (200) or write. */
	assert_true(is_locked(path, 101));
	assert_true(is_locked(path, 200));
	assert_true(is_locked(path, 201));
	/* What overlaps, and the whole image, are in use. */
	both_are_refused(&whole, &overlaps);
	assert_non_null(strstr(overlaps.err.text, "image from 512K on, 1M: this is in use"));
	disk_close(b);
	/* QEMU that reads has byte 100. */
	fd = lock_byte(path, 100);
	overlaps.range = "slice offset=1M size=1M |";
	both_are_refused(&whole, &overlaps);
	close(fd);
	b = slice_of(path, "slice offset=1M size=1M |", &err);
	assert_non_null(b);
	/* It grows where nobody else is. */
	disk_close(a);
	assert_int_equal(change_slice(b, "slice offset=1M size=1536K |", path, &err), -EBUSY);
	disk_close(c);
	assert_int_equal(change_slice(b, "slice offset=1M size=1536K |", path, &err), 0);
	assert_int_equal(disk_resize(b, 1536 * KIB, &err), 0);
	write_and_read(b, MIB, 512 * KIB);
	assert_int_equal(found(b->top, 8 * KIB), 8 * KIB);
	a = slice_of(path, "slice offset=2560K |", &err);
	assert_non_null(a);
	disk_close(b);
	disk_close(a);
	/* Who has the whole image keeps slices out. */
	a = slice_of(path, "", &err);
	assert_non_null(a);
	both_are_refused(&whole, &overlaps);
	disk_close(a);
	assert_false(is_locked(path, 101));
	unlink(path);
	rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_in_turn),    cmocka_unit_test(zeroes_are_ranges),
		cmocka_unit_test(a_leg_that_fails),  cmocka_unit_test(stripe_geometry),
		cmocka_unit_test(one_after_another), cmocka_unit_test(blocks_are_not_cut),
		cmocka_unit_test(a_leg_is_added),    cmocka_unit_test(geometry_stays),
		cmocka_unit_test(a_range),           cmocka_unit_test(slices_of_one_file),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("aggregate", tests, NULL, NULL);
}
