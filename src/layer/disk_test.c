/* SPDX-License-Identifier: BSD-3-Clause */
/* disk_test.c - a disk's own size, block size, write cache; what it refuses; how it grows */
#include "layer/disk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "testing.h"
#include "util/log.h"

/* --- a back-end that notes what reaches it ------------------------------------------- */

static struct {
	unsigned count, flags;
	enum io_op op;
	uint64_t offset, length;
} seen;

struct recorder {
	struct layer layer;
	uint64_t size;
	uint32_t block;
};

static uint64_t recorder_size;
static uint32_t recorder_block;
static bool can_grow;

static int recorder_open(struct layer *layer, struct error *err)
{
	(void)err;
	((struct recorder *)layer)->size = recorder_size;
	return 0;
}

static void recorder_limits(struct layer *layer, struct limits *limits)
{
	limits->size = ((struct recorder *)layer)->size;
	limits->block_size = limits->physical_block_size = recorder_block;
	limits->read_only = layer->read_only;
}

static int recorder_resize(struct layer *layer, uint64_t size, struct error *err)
{
	if (!can_grow)
		return error_set(err, ENOSPC, "recorder is full");
	((struct recorder *)layer)->size = size;
	return 0;
}

static void recorder_submit(struct layer *layer, struct io *io)
{
	(void)layer;
	seen.count++;
	seen.op = io->op;
	seen.flags = io->flags;
	seen.offset = io->offset;
	seen.length = io->length;
	if (io->op == IO_READ)
		memset(io->data.vec->iov_base, 'r', io->length);
	io_finish(io, 0);
}

static const struct layer_ops recorder_ops = {
	.name = "recorder",
	.size = sizeof(struct recorder),
	.backend = true,
	.open = recorder_open,
	.limits = recorder_limits,
	.resize = recorder_resize,
	.submit = recorder_submit,
};

/* --- helpers ------------------------------------------------------------------------- */

static struct disk *try_disk(const struct disk_config *config, uint64_t size, uint32_t block,
			     struct error *err)
{
	struct layer_config stack = { .ops = &recorder_ops };

	recorder_size = size;
	recorder_block = block;
	return testing_open("test", config, &stack, 1, NULL, err);
}

static struct disk *make_disk(const struct disk_config *config, uint64_t size)
{
	struct error err = { 0 };
	struct disk *disk = try_disk(config, size, 512, &err);

	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static char bytes[8192];

static int act(struct disk *disk, enum io_op op, uint8_t flags, uint64_t offset, uint64_t length)
{
	seen.count = 0;
	memset(bytes, 'b', sizeof bytes);
	return testing_io(disk, LOOP_THREADS, op, flags, offset, length, bytes);
}

/* --- tests --------------------------------------------------------------------------- */

static void caches(void **unused)
{
	/* What comes in with which flags, and whether and with which flags it arrives. */
	static const struct {
		int cache;
		enum io_op op;
		uint8_t flags;
		bool arrives;
		uint8_t as;
	} rows[] = {
		{ DISK_WRITEBACK, IO_WRITE, 0, true, 0 },
		{ DISK_WRITEBACK, IO_WRITE, IO_FUA, true, IO_FUA },
		{ DISK_WRITEBACK, IO_ZEROES, IO_UNMAP, true, IO_UNMAP },
		{ DISK_WRITEBACK, IO_FLUSH, 0, true, 0 },
		{ DISK_WRITETHROUGH, IO_WRITE, 0, true, IO_FUA },
		{ DISK_WRITETHROUGH, IO_ZEROES, IO_UNMAP, true, IO_FUA | IO_UNMAP },
		{ DISK_WRITETHROUGH, IO_FLUSH, 0, true, 0 },
		{ DISK_UNSAFE, IO_WRITE, 0, true, 0 },
		{ DISK_UNSAFE, IO_WRITE, IO_FUA, true, 0 },
		{ DISK_UNSAFE, IO_ZEROES, IO_FUA | IO_UNMAP, true, IO_UNMAP },
		{ DISK_UNSAFE, IO_FLUSH, 0, false, 0 },
	};

	(void)unused;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct disk_config config = { .cache = rows[i].cache };
		struct disk *disk = make_disk(&config, 1 << 20);

		assert_int_equal(
			act(disk, rows[i].op, rows[i].flags, 0, rows[i].op == IO_FLUSH ? 0 : 4096),
			0);
		if (seen.count != rows[i].arrives)
			fail_msg("row %u: %u requests arrived", i, seen.count);
		if (rows[i].arrives && rows[i].op != IO_FLUSH && seen.flags != rows[i].as)
			fail_msg("row %u: arrived with flags %u", i, seen.flags);
		disk_close(disk);
	}
}

static void refuses(void **unused)
{
	struct disk_config config = { .block_size = DISK_BLOCK_4096 };
	struct disk *disk = make_disk(&config, 65536);

	(void)unused;
	assert_int_equal(act(disk, IO_READ, 0, 65536 - 4096, 4096), 0);
	assert_int_equal(seen.count, 1);
	assert_int_equal(act(disk, IO_READ, 0, 65536, 4096), -ERANGE);
	assert_int_equal(act(disk, IO_READ, 0, 65536 - 4096, 8192), -ERANGE);
	assert_int_equal(act(disk, IO_DISCARD, 0, 4096, UINT64_MAX - 4095), -ERANGE);
	assert_int_equal(act(disk, IO_READ, 0, UINT64_MAX - 4095, 4096), -ERANGE);
	assert_int_equal(act(disk, IO_READ, 0, 512, 4096), -EINVAL);
	assert_int_equal(act(disk, IO_WRITE, 0, 4096, 512), -EINVAL);
	assert_int_equal(act(disk, IO_READ, 0, 4096, 0), 0);
	assert_int_equal(seen.count, 0); /* none of those arrived */
	disk_close(disk);
}

static void read_only_is_kept(void **unused)
{
	struct disk_config config = { .read_only = true };
	struct disk *disk = make_disk(&config, 65536);
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(act(disk, IO_WRITE, 0, 0, 512), -EROFS);
	assert_int_equal(act(disk, IO_DISCARD, 0, 0, 512), -EROFS);
	assert_int_equal(act(disk, IO_ZEROES, 0, 0, 512), -EROFS);
	assert_int_equal(seen.count, 0);
	assert_int_equal(act(disk, IO_READ, 0, 0, 512), 0);
	assert_int_equal(act(disk, IO_FLUSH, 0, 0, 0), 0);
	assert_int_equal(disk_resize(disk, 1 << 20, &err), -EROFS);
	disk_close(disk);
}

static void smaller_than_its_back_end(void **unused)
{
	struct disk_config config = { .size = 8192 };
	struct disk *disk = make_disk(&config, 65536);

	(void)unused;
	assert_int_equal(atomic_load(&disk->size), 8192);
	assert_int_equal(act(disk, IO_READ, 0, 4096, 4096), 0);
	assert_int_equal(act(disk, IO_READ, 0, 8192, 512), -ERANGE);
	disk_close(disk);
}

static void larger_than_its_back_end(void **unused)
{
	struct disk_config config = { .size = 65536 };
	struct disk *disk = make_disk(&config, 8192);

	(void)unused;
	assert_int_equal(atomic_load(&disk->size), 65536);
	/* Across the end: what is there, then zeroes. */
	assert_int_equal(act(disk, IO_READ, 0, 4096, 8192), 0);
	assert_int_equal(seen.length, 4096);
	assert_int_equal(bytes[4095], 'r');
	assert_int_equal(bytes[4096], 0);
	assert_int_equal(bytes[8191], 0);
	assert_int_equal(act(disk, IO_READ, 0, 16384, 512), 0);
	assert_int_equal(bytes[0], 0);
	assert_int_equal(act(disk, IO_WRITE, 0, 4096, 8192), -ENOSPC);
	assert_int_equal(act(disk, IO_WRITE, 0, 8192, 512), -ENOSPC);
	assert_int_equal(seen.count, 0);
	assert_int_equal(act(disk, IO_ZEROES, 0, 4096, 8192), 0);
	assert_int_equal(seen.length, 4096);
	assert_int_equal(act(disk, IO_DISCARD, 0, 32768, 4096), 0);
	assert_int_equal(seen.count, 0);
	assert_int_equal(act(disk, IO_WRITE, 0, 0, 8192), 0);
	disk_close(disk);
}

static void sizes_that_make_no_sense(void **unused)
{
	struct error err = { 0 };

	(void)unused;
	assert_null(
		try_disk(&(struct disk_config){ .block_size = DISK_BLOCK_512 }, 65536, 4096, &err));
	assert_non_null(strstr(err.text, "block-size"));
	assert_null(try_disk(&(struct disk_config){ .size = 4097 }, 65536, 512, &err));
	assert_non_null(strstr(err.text, "multiple"));
	assert_null(
		try_disk(&(struct disk_config){ .block_size = DISK_BLOCK_4096 }, 4095, 512, &err));
	assert_non_null(strstr(err.text, "no room"));
	assert_null(testing_open("test", &(struct disk_config){ 0 },
				 &(struct layer_config){ .ops = layer_find("pass") }, 1, NULL,
				 &err));
	assert_non_null(strstr(err.text, "back-end must be below"));
}

static unsigned told;

static void resized(struct disk_listener *listener)
{
	(void)listener;
	told++;
}

static void grows(void **unused)
{
	struct disk *disk = make_disk(&(struct disk_config){ .size = 8192 }, 65536);
	struct disk_listener listener = { .resized = resized };
	struct error err = { 0 };

	(void)unused;
	told = 0;
	can_grow = false;
	disk_listen(disk, &listener);
	assert_int_equal(disk_resize(disk, 4096, &err), -EINVAL); /* shrinks */
	assert_int_equal(disk_resize(disk, 9000, &err), -EINVAL);
	assert_int_equal(disk_resize(disk, 8192, &err), 0);
	assert_int_equal(told, 0);
	assert_int_equal(disk_resize(disk, 65536, &err), 0); /* its back-end has room */
	assert_int_equal(told, 1);
	assert_int_equal(act(disk, IO_READ, 0, 65536 - 512, 512), 0);
	assert_int_not_equal(disk_resize(disk, 1 << 20, &err), 0);
	assert_int_equal(atomic_load(&disk->size), 65536);
	can_grow = true;
	assert_int_equal(disk_resize(disk, 1 << 20, &err), 0);
	assert_int_equal(told, 2);
	assert_int_equal(act(disk, IO_WRITE, 0, (1 << 20) - 512, 512), 0);
	assert_int_equal(seen.count, 1);
	disk_unlisten(&listener);
	disk_close(disk);
}

static void a_layer_that_cannot_open(void **unused)
{
	struct layer_setting bad[] = { { (char *)"errors", (char *)"200%", 7 } };
	struct layer_setting odd[] = { { (char *)"colour", (char *)"red", 9 } };
	struct layer_config stack[] = { { layer_find("flaky"), bad, 1, NULL, 0 },
					{ layer_find("memory"), NULL, 0, NULL, 0 } };
	struct error err = { 0 };
	unsigned line = 0;

	(void)unused;
	assert_null(testing_open("test", &(struct disk_config){ 0 }, stack, 2, &line, &err));
	assert_int_equal(line, 7);
	assert_non_null(strstr(err.text, "errors"));
	stack[0].settings = odd;
	assert_null(testing_open("test", &(struct disk_config){ 0 }, stack, 2, &line, &err));
	assert_int_equal(line, 9);
	assert_non_null(strstr(err.text, "colour"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caches),
		cmocka_unit_test(refuses),
		cmocka_unit_test(read_only_is_kept),
		cmocka_unit_test(smaller_than_its_back_end),
		cmocka_unit_test(larger_than_its_back_end),
		cmocka_unit_test(sizes_that_make_no_sense),
		cmocka_unit_test(grows),
		cmocka_unit_test(a_layer_that_cannot_open),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
