/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * matrix_test.c - an honest guest over every kind of ring
 *
 * split and packed × direct and indirect × with and without EVENT_IDX × 1, 4 and 32 queues × rings
 * of 16 to 1,024 entries: a random load of all request types on all queues at once, each read
 * checked against the model, then the whole disk. On the memory back-end; and, for each engine,
 * some of it on a file.
 */
#include "check.h"

#include <stdio.h>

enum {
	DISK_BYTES = 32 << 20,
	SLOT_BYTES = 32 * 1024,
	SLOTS = 64,
};

struct combination {
	char name[96];
	bool packed, indirect, event_idx, odd;
	unsigned queues, size;
	uint32_t block;
};

struct group {
	struct daemon daemon;
	struct driver *driver;
	struct load load[32];
	uint64_t seed;
};

static struct group group;

static int start_daemon(const char *path, const char *engine, const char *block)
{
	daemon_prepare(&group.daemon);
	daemon_make_image(&group.daemon, "disk.img", DISK_BYTES);
	const char *args[] = { "serve",
			       strcmp(path, "memory:") ? daemon_path(&group.daemon, path) : path,
			       "--socket",
			       daemon_path(&group.daemon, "s"),
			       "size=32M",
			       "queues=32",
			       "queue-size=1024",
			       block,
			       "--engine",
			       engine,
			       NULL };
	daemon_start(&group.daemon, args);
	group.seed = choose_seed();
	return 0;
}

static int start_memory(void **state)
{
	(void)state;
	return start_daemon("memory:", "auto", "block-size=512");
}

static int start_file_uring(void **state)
{
	(void)state;
	return start_daemon("disk.img", "uring", "block-size=4096");
}

static int start_file_threads(void **state)
{
	(void)state;
	return start_daemon("disk.img", "threads", "block-size=512");
}

static int stop_daemon(void **state)
{
	(void)state;
	daemon_clean(&group.daemon);
	return 0;
}

static void run_combination(void **state)
{
	const struct combination *c = *state;
	struct driver_options options = {
		.socket = daemon_path(&group.daemon, "s"),
		.features = (c->packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
			    (c->indirect ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
			    (c->event_idx ? FEATURE(VIRTIO_RING_F_EVENT_IDX) : 0),
		.queues = c->queues,
		.queue_size = c->size,
		.segments = c->size < 64 ? 3 : 8,
		.slots = SLOTS,
		.slot_bytes = SLOT_BYTES,
		.inflight = c->size == 256,
		.add_regions = c->size == 64,
	};
	uint64_t sectors = DISK_BYTES / 512 / c->queues;

	daemon_deadline(60);
	int ret = driver_open(&group.driver, &options);
	struct driver *driver = group.driver;
	must(driver, ret);
	assert_int_equal(driver->config.capacity, DISK_BYTES / 512);
	zero_disk(driver, DISK_BYTES / 512);
	for (unsigned i = 0; i < c->queues; i++) {
		struct load *load = &group.load[i];
		*load = (struct load){
			.queue = &driver->queue[i],
			.first = i * sectors,
			.sectors = sectors,
			.block = c->block,
			.max_bytes = SLOT_BYTES,
			.max_segments = options.segments,
			.odd = c->odd,
			.seed = group.seed + i,
		};
		assert_int_equal(load_open(load), 0);
	}
	ret = load_run(group.load, c->queues, 2400 / c->queues + 100);
	for (unsigned i = 0; i < c->queues; i++)
		must_load(&group.load[i], group.load[i].error[0] ? -EIO : 0);
	must(driver, ret);
	for (unsigned i = 0; i < c->queues; i += 7)
		must_load(&group.load[i], load_verify(&group.load[i]));
	must(driver, driver_stop(driver));
}

static int end_combination(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 32; i++)
		load_close(&group.load[i]);
	driver_close(group.driver);
	group.driver = NULL;
	memset(group.load, 0, sizeof(group.load));
	daemon_deadline(0);
	return 0;
}

static size_t add(struct CMUnitTest *tests, struct combination *combinations, size_t count,
		  struct combination new, const char *where)
{
	struct combination *c = &combinations[count];

	*c = new;
	snprintf(c->name, sizeof(c->name), "%s: %s%s%s, %u queues of %u%s", where,
		 c->packed ? "packed" : "split", c->indirect ? ", indirect" : "",
		 c->event_idx ? ", event_idx" : "", c->queues, c->size, c->odd ? ", odd cuts" : "");
	tests[count] = (struct CMUnitTest){ .name = c->name,
					    .test_func = run_combination,
					    .teardown_func = end_combination,
					    .initial_state = c };
	return count + 1;
}

/* Every combination on memory; on files those with 4 queues of 128. */
static size_t make_tests(struct CMUnitTest *tests, struct combination *all, const char *where,
			 bool file, uint32_t block)
{
	static const unsigned queues[] = { 1, 4, 32 }, sizes[] = { 16, 64, 256, 1024 };
	size_t count = 0;

	for (unsigned ring = 0; ring < 8; ring++) {
		struct combination c = { .packed = ring & 1,
					 .indirect = ring & 2,
					 .event_idx = ring & 4,
					 .queues = 4,
					 .size = 128,
					 .block = block };
		for (unsigned odd = 0; file && odd < 2; odd++) {
			c.odd = odd;
			count = add(tests, all, count, c, where);
		}
		for (unsigned q = 0; !file && q < 3; q++) {
			for (unsigned s = 0; s < 4; s++) {
				c.queues = queues[q];
				c.size = sizes[s];
				c.odd = (ring + q + s) % 2;
				count = add(tests, all, count, c, where);
			}
		}
	}
	return count;
}

int main(void)
{
	enum { MOST = 96 };
	static struct CMUnitTest tests[MOST];
	static struct combination all[MOST];
	int failed = 0;

	failed += _cmocka_run_group_tests("matrix, memory", tests,
					  make_tests(tests, all, "memory", false, 512),
					  start_memory, stop_daemon);
	failed += _cmocka_run_group_tests("matrix, file, uring", tests,
					  make_tests(tests, all, "file, uring, 4096", true, 4096),
					  start_file_uring, stop_daemon);
	failed += _cmocka_run_group_tests("matrix, file, threads", tests,
					  make_tests(tests, all, "file, threads, 512", true, 512),
					  start_file_threads, stop_daemon);
	return failed;
}
