/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtqueue_test.c - a virtqueue's life on its loop: what a predecessor left is completed even if
 * the queue is stopped at once, and a stop waits for what was popped
 */
#include "frontend/virtio/virtqueue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/virtio/device.h"
#include "memory/memory.h"
#include "util/error.h"
#include "util/log.h"

#define SIZE 64u
#define MS   1000000ull

/* A device type that pops one chain a poll, and gives it back a millisecond later. */
static struct fixture {
	struct loop *loop;
	struct loop_message start;
	struct loop_timer limit, complete;
	struct virtio_device dev;
	struct queue_stats stats;
	struct virtqueue *vq;
	struct chain held[SIZE];
	unsigned count, popped;
	bool stop_at_once, late, broke;
	uint32_t final_base;

	_Alignas(64) struct vring_desc desc[SIZE];
	_Alignas(64) uint16_t avail[3 + SIZE];
	_Alignas(64) unsigned char used[4 + 8 * SIZE + 2];
	_Alignas(64) unsigned char inflight[16 + 16 * SIZE];
} f;

static unsigned outstanding(struct virtqueue *vq)
{
	(void)vq;
	return f.count;
}

static int queue_start(struct virtio_device *dev, struct virtqueue *vq)
{
	(void)dev;
	vq->outstanding = outstanding;
	return 0;
}

static void queue_stop(struct virtqueue *vq)
{
	(void)vq;
}

static bool queue_poll(struct virtqueue *vq)
{
	struct iovec vec[4];

	if (f.count == SIZE || virtqueue_pop(vq, &f.held[f.count], vec, 4) <= 0)
		return false;
	f.popped++;
	if (!f.count++)
		loop_timer_set(f.loop, &f.complete, loop_now(f.loop) + MS);
	if (f.popped == SIZE && !f.stop_at_once)
		virtqueue_stop(vq); /* with all of them out */
	return true;
}

static void complete(struct loop_timer *timer)
{
	(void)timer;
	while (f.count)
		virtqueue_push(f.vq, &f.held[--f.count], 1);
	virtqueue_flush(f.vq);
}

static const struct virtio_device_ops ops = {
	.name = "test",
	.queue_start = queue_start,
	.queue_stop = queue_stop,
	.queue_poll = queue_poll,
};

static void stopped(struct virtqueue *vq)
{
	f.final_base = vq->final_base;
	virtqueue_destroy(vq);
	loop_stop(f.loop);
}

static void broke(struct virtqueue *vq)
{
	f.broke = true;
	virtqueue_stop(vq);
}

static void begin(struct loop_message *message)
{
	struct virtqueue_setup setup = {
		.size = SIZE,
		.features = 1ull << VIRTIO_F_VERSION_1,
		.descriptors = f.desc,
		.driver = f.avail,
		.device = f.used,
		.inflight = f.inflight,
		.memory = memory_empty(),
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};

	(void)message;
	f.vq = virtqueue_create(&f.dev, 0, &setup, f.loop, f.loop, &f.stats);
	f.vq->stopped = stopped;
	f.vq->broke = broke;
	virtqueue_start(f.vq);
	if (f.stop_at_once)
		virtqueue_stop(f.vq);
}

static void too_late(struct loop_timer *timer)
{
	(void)timer;
	f.late = true;
	loop_stop(f.loop);
}

/* Chains of one empty descriptor, all made available. */
static void fill_ring(void)
{
	f = (struct fixture){ .dev.ops = &ops };
	f.dev.device = (struct device){ .label = (char *)"test", .vm = (char *)"test" };
	for (uint16_t i = 0; i < SIZE; i++)
		f.avail[2 + i] = i;
	f.avail[1] = SIZE;
}

static void run(void)
{
	struct loop_config config = { .name = "test", .engine = LOOP_THREADS, .cpu = -1 };

	f.loop = loop_create(&config, NULL);
	assert_non_null(f.loop);
	f.start.run = begin;
	loop_timer_init(&f.limit, too_late);
	loop_timer_init(&f.complete, complete);
	loop_timer_set(f.loop, &f.limit, loop_now(f.loop) + 5000 * MS);
	loop_send(f.loop, &f.start);
	assert_int_equal(loop_run(f.loop, NULL), 0);
	loop_destroy(f.loop);
	assert_false(f.late);
	assert_false(f.broke);
}

/* Each once. */
static void check_used(uint16_t count)
{
	const struct vring_used *used = (void *)f.used;
	bool seen[SIZE] = { false };

	assert_int_equal(used->idx, count);
	for (unsigned i = 0; i < count; i++) {
		assert_in_range(used->ring[i].id, 0, SIZE - 1);
		assert_false(seen[used->ring[i].id]);
		seen[used->ring[i].id] = true;
	}
}

static void a_stop_waits(void **unused)
{
	(void)unused;
	fill_ring();
	run();
	check_used(SIZE);
	assert_int_equal(f.final_base, SIZE);
}

/* The predecessor had popped 40 of 64; of those the VMM will count as taken, none may be lost. */
static void a_stop_completes_what_was_left(void **unused)
{
	struct {
		uint64_t features;
		uint16_t version, desc_num, last_batch_head, used_idx;
		struct {
			uint8_t inflight, padding[5];
			uint16_t next;
			uint64_t counter;
		} desc[SIZE];
	} *region = (void *)f.inflight;

	(void)unused;
	fill_ring();
	f.stop_at_once = true;
	region->version = 1;
	region->desc_num = SIZE;
	for (unsigned i = 0; i < 40; i++) {
		region->desc[i].inflight = 1;
		region->desc[i].counter = i;
	}
	run();
	/* It may have taken more, but what it says it took it has completed. */
	assert_true(f.final_base >= 40);
	check_used((uint16_t)f.final_base);
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(region->desc[i].inflight, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stop_waits),
		cmocka_unit_test(a_stop_completes_what_was_left),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("virtqueue", tests, NULL, NULL);
}
