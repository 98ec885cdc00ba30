/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay_test.c - a store over a base: what is written, kept, refused, thrown away */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/change.h"
#include "layer/overlay_format.h"
#include "layer/testing_stack.h"
#include "testing.h"
#include "util/crc32c.h"
#include "util/log.h"

#define BASE_BYTES (8u << 20)
#define MAP_OFFSET 65536u /* of a new store */

static char directory[200], base_path[256], store_path[256];

/* --- files -------------------------------------------------------------------------------------
 */

static void put(const char *path, uint64_t offset, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

static void get(const char *path, uint64_t offset, void *bytes, size_t length)
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

/* What the base has at @offset. */
static unsigned char base_byte(uint64_t offset)
{
	return (unsigned char)(offset / 512 * 7 + offset % 251 + 1);
}

static int make_files(void **unused)
{
	unsigned char *bytes = malloc(BASE_BYTES);

	(void)unused;
	testing_directory(directory);
	snprintf(base_path, sizeof base_path, "%s/base.img", directory);
	snprintf(store_path, sizeof store_path, "%s/store.ovl", directory);
	for (uint64_t i = 0; i < BASE_BYTES; i++)
		bytes[i] = base_byte(i);
	put(base_path, 0, bytes, BASE_BYTES);
	free(bytes);
	return 0;
}

static int remove_files(void **unused)
{
	struct stat st;

	(void)unused;
	/* Nobody ever writes to it. */
	assert_int_equal(stat(base_path, &st), 0);
	for (uint64_t at = 0; at < (uint64_t)st.st_size && st.st_size == BASE_BYTES; at += 65536) {
		unsigned char bytes[65536];

		get(base_path, at, bytes, sizeof bytes);
		for (unsigned i = 0; i < sizeof bytes; i += 113)
			assert_int_equal(bytes[i], base_byte(at + i));
	}
	unlink(base_path);
	unlink(store_path);
	rmdir(directory);
	return 0;
}

/* --- disks -------------------------------------------------------------------------------------
 */

/* Options of the overlay: up to three, names and values in turn, ended by NULL. */
static struct disk *try_over(const char *store, const char *base, bool read_only, struct error *err,
			     const char *const *options)
{
	struct layer_setting in_store[] = { { (char *)"path", (char *)store, 0 },
					    { (char *)"create", (char *)"true", 0 } };
	struct layer_setting in_base[] = { { (char *)"path", (char *)base, 0 } };
	struct layer_setting settings[3];
	struct layer_config leg = { .ops = layer_find("file"), .settings = in_store, .count = 2 };
	struct stack_config legs = { &leg, 1 };
	struct layer_config list[] = {
		{ .ops = layer_find("overlay"),
		  .settings = settings,
		  .legs = &legs,
		  .leg_count = 1 },
		{ .ops = layer_find("file"), .settings = in_base, .count = 1 },
	};

	for (; options && options[2 * list[0].count]; list[0].count++)
		settings[list[0].count] =
			(struct layer_setting){ (char *)options[2 * list[0].count],
						(char *)options[2 * list[0].count + 1], 0 };
	return testing_open("test", &(struct disk_config){ .read_only = read_only }, list, 2, NULL,
			    err);
}

static struct disk *open_with(const char *const *options)
{
	struct error err = { 0 };
	struct disk *disk = try_over(store_path, base_path, false, &err, options);

	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static struct disk *open_disk(void)
{
	return open_with(NULL);
}

static int change(struct disk *disk, enum io_op op, uint8_t flags, uint64_t offset, uint64_t length,
		  int value)
{
	unsigned char *bytes = malloc(length + 1);
	int ret;

	memset(bytes, value, length);
	ret = testing_io(disk, LOOP_AUTO, op, flags, offset, length, bytes);
	free(bytes);
	return ret;
}

static void write_at(struct disk *disk, uint64_t offset, uint64_t length, int value)
{
	assert_int_equal(change(disk, IO_WRITE, 0, offset, length, value), 0);
}

static void flush(struct disk *disk)
{
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_FLUSH, 0, 0, 0, NULL), 0);
}

#define BASE -1 /* the value of what the base has */

static void expect(struct disk *disk, uint64_t offset, uint64_t length, int value)
{
	unsigned char *bytes = malloc(length);

	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, offset, length, bytes), 0);
	for (uint64_t i = 0; i < length; i++) {
		unsigned char wanted = value == BASE ? base_byte(offset + i) : (unsigned char)value;

		if (bytes[i] != wanted)
			fail_msg("byte %llu is %02x, expected %02x", (unsigned long long)offset + i,
				 bytes[i], wanted);
	}
	free(bytes);
}

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

/* --- tests -------------------------------------------------------------------------------------
 */

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

static uint64_t stored(struct disk *disk)
{
	json_t *report = disk->top->ops->report(disk->top);
	uint64_t bytes = (uint64_t)json_integer_value(json_object_get(report, "stored"));

	json_decref(report);
	return bytes;
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

/* --- while it is in use --------------------------------------------------------------------------
 */

static struct in_use {
	struct disk *disk;
	struct disk_queue *queue;
	struct loop *serving, *control;
	struct loop_message begin, stop, close, over, commit;
	struct change *change;
	struct change_end end;
	struct error err;
	struct iovec vec;
	bool ending;
	uint64_t writes;
} in_use;

static void write_next(void);

static void written(struct layer *layer, struct io *io)
{
	(void)layer;
	if (io->status)
		in_use.err.code = -io->status;
	in_use.writes++;
	io_put(io);
	if (in_use.ending)
		loop_send(in_use.serving, &in_use.close);
	else
		write_next();
}

static void close_queue(struct loop_message *message)
{
	(void)message;
	disk_queue_close(in_use.queue);
	loop_send(in_use.control, &in_use.over);
}

static void write_next(void)
{
	struct io *io = io_get(&in_use.queue->ios);

	io->op = in_use.writes % 16 == 15 ? IO_FLUSH : IO_WRITE;
	io->flags = 0;
	io->offset = io->op == IO_FLUSH ? 0 : in_use.writes * 11 % 2000 * 4096;
	io->length = io->op == IO_FLUSH ? 0 : 4096;
	io->data = (struct io_data){ .vec = &in_use.vec, .count = 1 };
	disk_submit(in_use.queue, io, written);
}

static void begin_writing(struct loop_message *message)
{
	(void)message;
	in_use.queue = disk_queue_open(in_use.disk, in_use.serving, 4, 1);
	write_next();
	loop_send(in_use.control, &in_use.commit);
}

static void end_writing(struct loop_message *message)
{
	(void)message;
	in_use.ending = true;
}

static void all_over(struct loop_message *message)
{
	(void)message;
	loop_stop(in_use.control);
}

static void undo_ended(struct change_end *end, struct error *err)
{
	(void)end;
	if (err->code)
		in_use.err = *err;
	loop_send(in_use.serving, &in_use.stop);
}

static void commit_undo(struct loop_message *message)
{
	(void)message;
	change_commit(in_use.change, in_use.control, &in_use.end);
}

/* Requests that come meanwhile wait; none fails, and all that was written before is gone. */
static void undo_while_in_use(void **unused)
{
	const struct loop_config config = { .name = "undo", .cpu = -1 };
	unsigned char bytes[4096];
	struct error err = { 0 };
	uint64_t before;

	(void)unused;
	memset(bytes, 'x', sizeof bytes);
	in_use = (struct in_use){ .begin.run = begin_writing,
				  .stop.run = end_writing,
				  .close.run = close_queue,
				  .over.run = all_over,
				  .commit.run = commit_undo,
				  .end.done = undo_ended,
				  .vec = { bytes, sizeof bytes } };
	in_use.disk = open_disk();
	write_at(in_use.disk, 0, BASE_BYTES, 'a');
	flush(in_use.disk);
	before = stored(in_use.disk);
	in_use.change = change_prepare_undo(in_use.disk, &err);
	assert_non_null(in_use.change);
	in_use.serving = loop_create(&config, &err);
	in_use.control = loop_create(&config, &err);
	loop_send(in_use.serving, &in_use.begin);
	assert_int_equal(loop_start(in_use.serving, &err), 0);
	assert_int_equal(loop_run(in_use.control, &err), 0);
	loop_stop(in_use.serving);
	loop_destroy(in_use.serving);
	loop_destroy(in_use.control);
	change_finish(in_use.change);
	assert_int_equal(in_use.err.code, 0);
	assert_int_equal(before, BASE_BYTES);
	assert_true(stored(in_use.disk) < BASE_BYTES);
	/* Nobody wrote there since. */
	expect(in_use.disk, 2000 * 4096, BASE_BYTES - 2000 * 4096, BASE);
	disk_close(in_use.disk);
	in_use.disk = open_disk();
	expect(in_use.disk, 2000 * 4096, BASE_BYTES - 2000 * 4096, BASE);
	disk_close(in_use.disk);
}

/* An overlay that comes while the disk is in use. */
static void its_base_is_written_to_until_it_is_there(void **unused)
{
	const struct loop_config config = { .name = "change", .engine = LOOP_THREADS, .cpu = -1 };
	struct error err = { 0 };
	struct testing_change t = { .begin.run = testing_change_begin,
				    .end.done = testing_change_ended,
				    .err = &err };
	struct stack_config stack;
	unsigned char bytes[512];
	struct disk *disk;
	char text[700];

	(void)unused;
	snprintf(text, sizeof text, "file path=%s", base_path);
	disk = testing_disk(text);
	snprintf(text, sizeof text, "overlay [file path=%s create=true] | file path=%s", store_path,
		 base_path);
	stack = testing_stack(text);
	t.change = change_prepare(disk, &stack, &err);
	stack_config_release(&stack);
	if (!t.change)
		fail_msg("%s", err.text);
	write_at(disk, 0, sizeof bytes, 'b');
	t.loop = loop_create(&config, NULL);
	assert_non_null(t.loop);
	loop_send(t.loop, &t.begin);
	assert_int_equal(loop_run(t.loop, NULL), 0);
	loop_destroy(t.loop);
	change_finish(t.change);
	assert_int_equal(err.code, 0);
	write_at(disk, 65536, sizeof bytes, 'o');
	disk_close(disk);
	disk = open_disk();
	expect(disk, 0, sizeof bytes, 'b');
	expect(disk, 65536, sizeof bytes, 'o');
	disk_close(disk);
	get(base_path, 0, bytes, sizeof bytes);
	assert_int_equal(bytes[0], 'b');
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = base_byte(i);
	put(base_path, 0, bytes, sizeof bytes);
}

static void only_an_overlay_can_undo(void **unused)
{
	struct layer_config list[] = { { .ops = layer_find("memory") } };
	struct error err = { 0 };
	struct disk *disk = testing_open("test", &(struct disk_config){ 0 }, list, 1, NULL, &err);

	(void)unused;
	assert_null(change_prepare_undo(disk, &err));
	assert_int_equal(err.code, ENOTSUP);
	disk_close(disk);
}

/* --- on several loops
 * ------------------------------------------------------------------------------- */

#define LOOPS   3u
#define SECTORS 1536u /* that they share: each third one is one's own */
#define DEPTH   8u

/* One loop writes its own sectors, so that in each block others write, too; and reads them back. */
static struct writer {
	struct disk *disk;
	struct loop *loop, *control;
	struct disk_queue *queue;
	struct loop_message begin, end;
	unsigned number, issued, out;
	uint64_t random;
	unsigned char now[SECTORS]; /* what is in a sector; 0: what the base has */
	bool busy[SECTORS];
	struct slot {
		bool out;
		unsigned sector;
		unsigned char bytes[512];
		struct iovec vec;
	} slot[DEPTH];
	bool wrong;
} writers[LOOPS];
static _Atomic unsigned writing;

static void write_more(struct writer *w);

static void sector_done(struct layer *layer, struct io *io)
{
	struct writer *w = io->queue->owner;
	struct slot *slot = &w->slot[io_frame(io)->note[0]];

	(void)layer;
	w->wrong |= io->status != 0;
	if (io->op != IO_FLUSH)
		w->busy[slot->sector] = false;
	for (unsigned i = 0; io->op == IO_READ && i < 512; i++)
		w->wrong |= slot->bytes[i] != (w->now[slot->sector]
						       ? w->now[slot->sector]
						       : base_byte(slot->sector * 512 + i));
	slot->out = false;
	w->out--;
	io_put(io);
	write_more(w);
}

static void write_more(struct writer *w)
{
	while (w->out < DEPTH && w->issued < 3000) {
		unsigned slot = 0, sector;
		struct io *io;

		w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
		sector = (unsigned)(w->random >> 33) % (SECTORS / LOOPS) * LOOPS + w->number;
		w->issued++;
		if (w->busy[sector])
			continue;
		while (w->slot[slot].out)
			slot++;
		io = io_get(&w->queue->ios);
		w->slot[slot].out = true;
		w->slot[slot].sector = sector;
		w->slot[slot].vec = (struct iovec){ w->slot[slot].bytes, 512 };
		io->op = w->issued % 3 == 0 ? IO_READ : w->issued % 64 == 1 ? IO_FLUSH : IO_WRITE;
		io->flags = io->op == IO_WRITE && w->issued % 32 == 1 ? IO_FUA : 0;
		io->offset = io->op == IO_FLUSH ? 0 : sector * 512;
		io->length = io->op == IO_FLUSH ? 0 : 512;
		io->data = (struct io_data){ .vec = &w->slot[slot].vec, .count = 1 };
		if (io->op != IO_FLUSH)
			w->busy[sector] = true;
		if (io->op == IO_WRITE) {
			w->now[sector] = (unsigned char)(w->issued % 255 + 1);
			memset(w->slot[slot].bytes, w->now[sector], 512);
		}
		w->out++;
		disk_submit(w->queue, io, sector_done)->note[0] = slot;
	}
	if (!w->out)
		loop_send(w->loop, &w->end);
}

static void writer_begins(struct loop_message *message)
{
	struct writer *w = container_of(message, struct writer, begin);

	w->queue = disk_queue_open(w->disk, w->loop, DEPTH, 1);
	w->queue->ios.owner = w;
	write_more(w);
}

static struct layer_stop writers_stop;

static void writers_over(struct loop_message *message)
{
	(void)message;
	loop_stop(writers_stop.loop);
}

static void all_written(struct loop_message *message)
{
	(void)message;
	writers_stop.done.run = writers_over;
	assert_int_equal(disk_stop(writers[0].disk, &writers_stop), 0);
}

static struct loop_message written_all;

static void writer_ends(struct loop_message *message)
{
	struct writer *w = container_of(message, struct writer, end);

	disk_queue_close(w->queue);
	if (atomic_fetch_sub(&writing, 1) == 1)
		loop_send(w->control, &written_all);
}

static void expect_sectors(struct disk *disk)
{
	unsigned char bytes[512];

	for (unsigned sector = 0; sector < SECTORS; sector++) {
		const struct writer *w = &writers[sector % LOOPS];

		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, sector * 512, 512, bytes),
				 0);
		for (unsigned i = 0; i < 512; i++)
			assert_int_equal(bytes[i], w->now[sector] ? w->now[sector]
								  : base_byte(sector * 512 + i));
	}
}

static void parts_of_blocks_on_several_loops(void **unused)
{
	const struct loop_config config = { .name = "overlay", .cpu = -1 };
	const char *const copy[] = { "copy-on-read", "true", NULL };
	struct disk *disk = open_with(copy);
	struct error err = { 0 };

	(void)unused;
	written_all.run = all_written;
	writers_stop.loop = loop_create(&config, &err);
	atomic_store(&writing, LOOPS);
	for (unsigned i = 0; i < LOOPS; i++) {
		writers[i] = (struct writer){ .disk = disk,
					      .control = writers_stop.loop,
					      .begin.run = writer_begins,
					      .end.run = writer_ends,
					      .number = i,
					      .random = i };
		writers[i].loop = loop_create(&config, &err);
		loop_send(writers[i].loop, &writers[i].begin);
		assert_int_equal(loop_start(writers[i].loop, &err), 0);
	}
	assert_int_equal(loop_run(writers_stop.loop, &err), 0);
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_stop(writers[i].loop);
		loop_destroy(writers[i].loop);
		assert_false(writers[i].wrong);
	}
	loop_destroy(writers_stop.loop);
	expect_sectors(disk);
	disk_close(disk);
	disk = open_disk();
	expect_sectors(disk);
	disk_close(disk);
}

/* The write number @n of the child: to which of 64 places, and what. */
static unsigned place_of(unsigned n)
{
	return n * 7 % 64;
}

static int value_of(unsigned n)
{
	return (int)(n % 250 + 1);
}

static void write_until_killed(int tell)
{
	struct disk *disk = open_disk();

	for (unsigned n = 1;; n++) {
		write_at(disk, place_of(n) * 65536 + 4096, 8192, value_of(n));
		if (write(tell, &n, sizeof n) != sizeof n)
			_exit(1);
		if (n % 40 == 0)
			flush(disk);
	}
}

/* A guest goes on when the daemon is killed: all that was completed must be there, flushed or not.
 */
static void a_killed_daemon_loses_nothing(void **unused)
{
	unsigned n = 0, value;
	struct disk *disk;
	int pipes[2];
	pid_t child;

	(void)unused;
	disk_close(open_disk());
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (!child)
		write_until_killed(pipes[1]);
	close(pipes[1]);
	while (n < 150 && read(pipes[0], &n, sizeof n) == sizeof n)
		;
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	while (read(pipes[0], &value, sizeof value) == sizeof value)
		n = value;
	close(pipes[0]);
	assert_true(n >= 150);
	for (unsigned again = 0; again < 2; again++) {
		disk = open_disk();
		/* The next one may have been done, or a part of it; that it was is not said. */
		for (unsigned k = n; k > n - 63; k--) {
			if (place_of(k) == place_of(n + 1))
				continue;
			expect(disk, place_of(k) * 65536, 4096, BASE);
			expect(disk, place_of(k) * 65536 + 4096, 8192, value_of(k));
		}
		disk_close(disk);
	}
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, make_files, remove_files)
	const struct CMUnitTest tests[] = {
		test(keeps_what_is_written),
		test(completes_parts_of_blocks),
		test(zeroes_and_discards),
		test(disks_of_other_sizes),
		test(one_base_for_many),
		test(another_base_is_refused),
		test(what_is_no_store_is_refused),
		test(damage_is_refused),
		test(another_version_is_refused),
		test(undo_at_exit),
		test(copies_on_read),
		test(undo_while_in_use),
		test(its_base_is_written_to_until_it_is_there),
		test(only_an_overlay_can_undo),
		test(parts_of_blocks_on_several_loops),
		test(read_only_writes_nothing),
		test(a_killed_daemon_loses_nothing),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("overlay", tests, NULL, NULL);
}
