/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crash_test.c - the daemon dies and comes back; the guest must not notice more than a pause
 *
 * Killed with SIGKILL at random instants under load, for split and packed rings, both engines, with
 * and without a delay in the stack that keeps many requests in flight. The guest keeps its rings
 * and the inflight region, and goes on: every request completes once, and the data is right.
 *
 * The instants a random kill seldom hits are made by hand: the daemon is stopped at rest, and rings
 * and region are put in the state of a crash there, by the text of the specification.
 */
#include "check.h"
#include "inflight_format.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DISK_BYTES = 16 << 20, SECTORS = DISK_BYTES / 512, QUEUES = 2, KILLS = 6 };

struct variant {
	char name[80];
	bool packed, indirect, delay;
	const char *engine;
};

static struct daemon daemon_;
static struct driver *driver;
static struct load load[QUEUES];

static int prepare(void **state)
{
	(void)state;
	daemon_prepare(&daemon_);
	daemon_make_image(&daemon_, "disk.img", DISK_BYTES);
	daemon_deadline(120);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	for (unsigned i = 0; i < QUEUES; i++)
		load_close(&load[i]);
	memset(load, 0, sizeof(load));
	driver_close(driver);
	driver = NULL;
	daemon_clean(&daemon_);
	return 0;
}

static void start(bool delay, const char *engine)
{
	daemon_write_file(&daemon_, "config.yaml",
			  "disks:\n"
			  "  d:\n"
			  "    stack:\n"
			  "%s"
			  "      - file: {path: %s/disk.img}\n"
			  "vms:\n"
			  "  v:\n"
			  "    - {virtio-blk: d, socket: %s/s, queues: 2, queue-size: 256}\n",
			  delay ? "      - flaky: {delay: 1ms}\n" : "", daemon_.dir, daemon_.dir);
	const char *args[] = { "run",      daemon_path(&daemon_, "config.yaml"),
			       "--api",    daemon_path(&daemon_, "api"),
			       "--engine", engine,
			       NULL };
	daemon_start(&daemon_, args);
}

static void open_driver(bool packed, bool indirect, unsigned queue_size)
{
	struct driver_options options = {
		.socket = daemon_path(&daemon_, "s"),
		.features = (packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
			    (indirect ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
			    FEATURE(VIRTIO_RING_F_EVENT_IDX),
		.queues = QUEUES,
		.queue_size = queue_size,
		.segments = 2,
		.slots = 32,
		.slot_bytes = 16384,
		.inflight = true,
	};
	int ret = driver_open(&driver, &options);

	must(driver, ret);
}

static void open_loads(uint64_t seed)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		load[i] = (struct load){
			.queue = &driver->queue[i],
			.first = i * (SECTORS / QUEUES),
			.sectors = SECTORS / QUEUES,
			.block = 512,
			.max_bytes = 16384,
			.max_segments = 2,
			.seed = seed + i,
		};
		assert_int_equal(load_open(&load[i]), 0);
	}
}

/* What a VMM does when the socket closes on it, and the daemon is there again. */
static void reconnect(void)
{
	driver_disconnect(driver);
	driver_restore_bases(driver);
	must(driver, driver_connect(driver));
	must(driver, driver_start(driver));
}

/* ---- at random instants ---- */

struct shot {
	pid_t pid;
	uint64_t microseconds;
};

static void *shoot(void *argument)
{
	const struct shot *shot = argument;

	usleep((useconds_t)shot->microseconds);
	kill(shot->pid, SIGKILL);
	return NULL;
}

/* Collects for a moment; that nothing comes is no error while the daemon is being killed. */
static void collect_some(struct load *from)
{
	int ret = load_collect(from, 1);

	if (ret == -ETIMEDOUT || ret == -ENOMSG)
		from->error[0] = '\0';
	else if (ret < 0)
		must_load(from, ret);
}

static void load_until_killed(struct load *dice)
{
	struct shot shot = { .pid = daemon_.pid, .microseconds = load_random(dice, 20000) };
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, shoot, &shot), 0);
	while (daemon_alive(&daemon_)) {
		for (unsigned i = 0; i < QUEUES; i++) {
			load_issue(&load[i], 1 + (unsigned)load_random(&load[i], 16));
			collect_some(&load[i]);
		}
	}
	pthread_join(thread, NULL);
	/* The guest knows nothing of it and goes on submitting. */
	for (unsigned i = 0; i < QUEUES; i++)
		load_issue(&load[i], 4);
}

static void test_killed_under_load(void **state)
{
	const struct variant *variant = *state;
	struct load dice = { .seed = choose_seed() };
	unsigned busy = 0;

	start(variant->delay, variant->engine);
	open_driver(variant->packed, variant->indirect, 128);
	open_loads(dice.seed);
	for (unsigned kill = 0; kill < KILLS; kill++) {
		load_until_killed(&dice);
		for (unsigned i = 0; i < QUEUES; i++)
			busy += (unsigned)(load[i].issued - load[i].completed);
		daemon_restart(&daemon_);
		reconnect();
		for (unsigned i = 0; i < QUEUES; i++)
			must_load(&load[i], load_drain(&load[i]));
		/* Once, and not again. */
		for (unsigned i = 0; i < QUEUES; i++)
			assert_int_equal(virtq_wait(&driver->queue[i], 10), -ETIMEDOUT);
	}
	for (unsigned i = 0; i < QUEUES; i++)
		must_load(&load[i], load_verify(&load[i]));
	print_message("# %u kills, %u requests in flight over them\n", KILLS, busy);
	assert_true(busy > 0);
}

/* ---- at chosen instants ---- */

/* Queue 0's region stands first. */
static void *map_region(void)
{
	void *bytes = mmap(NULL, driver->inflight.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			   driver->inflight_fd, (off_t)driver->inflight.mmap_offset);

	assert_true(bytes != MAP_FAILED);
	return bytes;
}

static void unmap_region(void *region)
{
	munmap(region, driver->inflight.mmap_size);
}

/* Some honest requests, so that rings and region are no longer new; then the daemon is gone. */
static void work_then_die(bool packed)
{
	start(false, "auto");
	open_driver(packed, false, 64);
	open_loads(choose_seed());
	load[0].plain = true;
	must_load(&load[0], load_run(&load[0], 1, 40));
	daemon_kill(&daemon_);
}

static void come_back_and_check(unsigned expected)
{
	uint64_t before = load[0].completed;

	daemon_restart(&daemon_);
	reconnect();
	must_load(&load[0], load_drain(&load[0]));
	assert_int_equal(load[0].completed - before, expected);
	assert_int_equal(virtq_wait(&driver->queue[0], 50), -ETIMEDOUT);
	must_load(&load[0], load_run(&load[0], 1, 200));
	must_load(&load[0], load_verify(&load[0]));
}

/* Died between taking three requests from the ring and finishing them. */
static void test_split_died_after_taking(void **state)
{
	(void)state;
	work_then_die(false);
	struct virtq *queue = &driver->queue[0];
	struct split_region *region = map_region();
	assert_int_equal(region->version, 1);
	assert_int_equal(region->desc_num, 64);
	assert_int_equal(region->used_idx, queue->used->idx);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(region->desc[i].inflight, 0);
	uint16_t first = queue->avail_next;
	assert_int_equal(load_issue(&load[0], 3), 3);
	for (unsigned i = 0; i < 3; i++) {
		uint16_t head = queue->avail->ring[(first + i) % 64];
		region->desc[head].inflight = 1;
		region->desc[head].counter = 1000 - i;
	}
	unmap_region(region);
	/* And two more it never took. */
	assert_int_equal(load_issue(&load[0], 2), 2);
	come_back_and_check(5);
}

/* Died after it moved the used index over a batch of four, before it noted that in the region. */
static void test_split_died_after_publishing(void **state)
{
	(void)state;
	work_then_die(false);
	struct virtq *queue = &driver->queue[0];
	struct split_region *region = map_region();
	region->used_idx = queue->used->idx - 4;
	region->last_batch_head = 0;
	uint16_t previous = 0;
	for (unsigned i = 4; i > 0; i--) {
		uint16_t head = (uint16_t)queue->used->ring[(queue->used->idx - i) % 64].id;
		region->desc[head].inflight = 1;
		region->desc[head].next = previous;
		previous = head;
	}
	region->last_batch_head = previous;
	unmap_region(region);
	assert_int_equal(load_issue(&load[0], 2), 2);
	come_back_and_check(2);
}

/* As the text says to, when the next available chain is taken. */
static void take_packed_chain(struct virtq *queue, struct packed_region *region, unsigned *position,
			      uint64_t counter)
{
	uint16_t head = region->old_free_head;
	uint16_t last = head;
	bool more = true;

	region->desc[head].num = 0;
	region->desc[head].counter = counter;
	region->desc[head].inflight = 1;
	while (more) {
		const struct vring_packed_desc *d = &queue->ring[*position];
		last = region->free_head;
		region->desc[head].num++;
		region->desc[last].addr = d->addr;
		region->desc[last].len = d->len;
		region->desc[last].flags = d->flags;
		region->desc[last].id = d->id;
		region->free_head = region->desc[last].next;
		more = d->flags & VRING_DESC_F_NEXT;
		*position = (*position + 1) % queue->size;
	}
	region->desc[head].last = last;
	region->old_free_head = region->free_head;
}

static void test_packed_died_after_taking(void **state)
{
	(void)state;
	work_then_die(true);
	struct virtq *queue = &driver->queue[0];
	struct packed_region *region = map_region();
	assert_int_equal(region->version, 1);
	assert_int_equal(region->desc_num, 64);
	assert_int_equal(region->used_idx, queue->last_used);
	assert_int_equal(region->used_wrap, queue->used_wrap);
	assert_int_equal(region->old_used_idx, queue->last_used);
	assert_int_equal(region->free_head, region->old_free_head);
	unsigned position = queue->avail_next;
	assert_int_equal(load_issue(&load[0], 3), 3);
	for (unsigned i = 0; i < 3; i++)
		take_packed_chain(queue, region, &position, 1000 + i);
	unmap_region(region);
	assert_int_equal(load_issue(&load[0], 2), 2);
	come_back_and_check(5);
}

/* Died after the used descriptor was written, before the old indexes in the region followed. */
static void test_packed_died_after_publishing(void **state)
{
	(void)state;
	start(false, "auto");
	open_driver(true, false, 64);
	open_loads(choose_seed());
	load[0].plain = true;
	must_load(&load[0], load_run(&load[0], 1, 40));
	struct virtq *queue = &driver->queue[0];
	struct packed_region *region = map_region();
	uint16_t used_idx = region->used_idx, free_head = region->free_head;
	uint8_t used_wrap = region->used_wrap;

	assert_int_equal(queue->avail_next, used_idx);
	assert_int_equal(load_issue(&load[0], 1), 1);
	must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
	sleep_ms(20); /* the region follows the ring */
	daemon_kill(&daemon_);
	assert_int_not_equal(region->used_idx, used_idx);
	assert_int_equal(region->desc[free_head].inflight, 0);

	/* The entry was taken from the free list before, so that was its head then. */
	region->old_free_head = region->desc[region->desc[free_head].last].next;
	region->old_used_idx = used_idx;
	region->old_used_wrap = used_wrap;
	region->desc[free_head].inflight = 1;
	unmap_region(region);
	come_back_and_check(1);
}

/* The used descriptor is on the ring, but its interrupt was never sent: the guest sleeps on. */
static void interrupt_is_made_up_for(bool packed)
{
	uint64_t count;

	start(false, "auto");
	open_driver(packed, false, 64);
	open_loads(choose_seed());
	struct virtq *queue = &driver->queue[0];
	must_load(&load[0], load_run(&load[0], 1, 20));
	virtq_interrupts(queue, true); /* before it can complete */
	load_issue(&load[0], 1);
	struct pollfd pollfd = { .fd = queue->call, .events = POLLIN };
	assert_int_equal(poll(&pollfd, 1, 5000), 1);
	daemon_kill(&daemon_);
	assert_int_equal(read(queue->call, &count, sizeof(count)), sizeof(count));
	daemon_restart(&daemon_);
	reconnect();
	if (poll(&pollfd, 1, 3000) != 1)
		fail_msg("after its restart the daemon sent no interrupt");
	must_load(&load[0], load_drain(&load[0]));
	must_load(&load[0], load_run(&load[0], 1, 20));
}

static void test_lost_interrupt_split(void **state)
{
	(void)state;
	interrupt_is_made_up_for(false);
}

static void test_lost_interrupt_packed(void **state)
{
	(void)state;
	interrupt_is_made_up_for(true);
}

/* A restart in peace: nothing in flight, the region is kept, and nothing happens twice. */
static void test_stopped_and_restarted(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		if (!round) {
			start(false, "auto");
			open_driver(false, false, 64);
			open_loads(choose_seed());
		} else {
			daemon_restart(&daemon_);
			reconnect();
		}
		must_load(&load[0], load_run(&load[0], 1, 100));
		assert_int_equal(daemon_stop(&daemon_), 0);
	}
	daemon_restart(&daemon_);
	reconnect();
	must_load(&load[0], load_verify(&load[0]));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clean)

int main(void)
{
	static const struct CMUnitTest fixed[] = {
		TEST(test_split_died_after_taking),  TEST(test_split_died_after_publishing),
		TEST(test_packed_died_after_taking), TEST(test_packed_died_after_publishing),
		TEST(test_lost_interrupt_split),     TEST(test_lost_interrupt_packed),
		TEST(test_stopped_and_restarted),
	};
	enum { FIXED = sizeof(fixed) / sizeof(fixed[0]), VARIANTS = 16 };
	static struct variant variants[VARIANTS];
	static struct CMUnitTest tests[FIXED + VARIANTS];

	memcpy(tests, fixed, sizeof(fixed));
	for (unsigned i = 0; i < VARIANTS; i++) {
		struct variant *v = &variants[i];
		*v = (struct variant){ .packed = i & 1,
				       .delay = i & 2,
				       .engine = i & 4 ? "threads" : "uring",
				       .indirect = i & 8 };
		snprintf(v->name, sizeof(v->name), "killed under load: %s%s, %s%s",
			 v->packed ? "packed" : "split", v->indirect ? ", indirect" : "", v->engine,
			 v->delay ? ", 1 ms delay" : "");
		tests[FIXED + i] = (struct CMUnitTest){ .name = v->name,
							.test_func = test_killed_under_load,
							.setup_func = prepare,
							.teardown_func = clean,
							.initial_state = v };
	}
	return _cmocka_run_group_tests("crashes", tests, FIXED + VARIANTS, NULL, NULL);
}
