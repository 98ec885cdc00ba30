/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hostile_memory_test.c - a VMM that takes memory away, or forges what it gives back
 *
 * Memory table changed under running rings; files behind the memory truncated, so that touching it
 * raises SIGBUS in the daemon; inflight regions with invented content.
 */
#include "hostile.h"
#include "inflight_format.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory taken away ---- */

/* Requests in flight and more to come; then `take` removes something. */
static struct virtq *under_load(uint64_t features)
{
	struct virtq *queue = liar_attach(features);

	for (unsigned i = 0; i < 7; i++) {
		uint16_t slot = (uint16_t)virtq_take(queue);
		virtq_format(queue, slot, VIRTIO_BLK_T_IN, 8 * slot, 65536, 1, false);
		virtq_push(queue, slot);
	}
	virtq_publish(queue);
	return queue;
}

static void push_one_more(struct virtq *queue)
{
	int slot = virtq_take(queue);

	assert_true(slot >= 0);
	virtq_format(queue, (uint16_t)slot, VIRTIO_BLK_T_IN, 0, 4096, 1, false);
	virtq_push(queue, (uint16_t)slot);
	virtq_publish(queue);
	virtq_kick(queue);
}

static void rings_removed(uint64_t features)
{
	struct virtq *queue = under_load(features);
	int ret = driver_remove_region(liar, &liar->region[liar->rings_region]);

	/* It may refuse to give up the ground it stands on; or break. */
	if (!ret) {
		push_one_more(queue);
		expect_reason();
	} else {
		assert_true(ret == -EREMOTEIO || ret == -ECONNRESET);
		expect_reason();
	}
	expect_others_go_on();
	expect_recovery(true);
}

static void test_rings_removed_split(void **state)
{
	(void)state;
	rings_removed(0);
}

static void test_rings_removed_packed(void **state)
{
	(void)state;
	rings_removed(FEATURE(VIRTIO_F_RING_PACKED));
}

static void test_data_removed(void **state)
{
	struct virtq *queue = under_load(0);

	(void)state;
	must(liar, driver_remove_region(liar, &liar->region[2]));
	push_one_more(queue);
	expect_broken(queue);
	expect_others_go_on();
	expect_recovery(true);
}

static void test_empty_table(void **state)
{
	struct vu_memory table = { 0 };
	struct virtq *queue = under_load(0);

	(void)state;
	int ret = vu_request(&liar->vu, VU_SET_MEM_TABLE, &table, 8, NULL, 0);
	if (!ret)
		push_one_more(queue);
	expect_reason();
	expect_others_go_on();
	expect_recovery(true);
}

static void truncate_region(unsigned number)
{
	assert_int_equal(ftruncate(liar->region[number].fd, 0), 0);
}

/* The ring's pages are gone: reading the available index faults. */
static void rings_truncated(uint64_t features)
{
	struct virtq *queue = under_load(features);

	truncate_region(liar->rings_region);
	virtq_kick(queue);
	expect_reason();
	expect_others_go_on();
	expect_recovery(true);
}

static void test_rings_truncated_split(void **state)
{
	(void)state;
	rings_truncated(0);
}

static void test_rings_truncated_packed(void **state)
{
	(void)state;
	rings_truncated(FEATURE(VIRTIO_F_RING_PACKED) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
}

/* Headers, status bytes and indirect tables live in the region after the rings. */
static void headers_truncated(uint64_t features)
{
	struct virtq *queue = liar_attach(features);
	uint16_t slot = (uint16_t)virtq_take(queue);

	virtq_format(queue, slot, VIRTIO_BLK_T_IN, 0, 4096, 1, false);
	virtq_push(queue, slot);
	truncate_region(liar->slots_region);
	virtq_publish(queue);
	virtq_kick(queue);
	expect_reason();
	expect_others_go_on();
	expect_recovery(true);
}

static void test_headers_truncated(void **state)
{
	(void)state;
	headers_truncated(0);
}

static void test_indirect_tables_truncated(void **state)
{
	(void)state;
	headers_truncated(FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
}

/* Data pages are gone: the request fails, or the device breaks; if it went well, the log knows
 * better. */
static void test_data_truncated(void **state)
{
	struct virtq *queue = liar_attach(0);

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		uint16_t slot = (uint16_t)virtq_take(queue);
		assert_int_equal(slot, 0);
		virtq_format(queue, slot, i ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 0, 4096, 1,
			     false);
		if (!i)
			truncate_region(2);
		virtq_push(queue, slot);
		virtq_publish(queue);
		expect_outcome(queue, SETTLED);
		if (*queue->slot[0].status == VIRTIO_BLK_S_OK)
			expect_reason();
		if (virtq_wait(queue, 100))
			break; /* broken: no more to come */
		uint16_t done;
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		virtq_release(queue, done);
	}
	expect_others_go_on();
	expect_recovery(true);
}

static void test_inflight_truncated(void **state)
{
	struct driver_options options = { .socket = daemon_path(&hostile_daemon, "liar"),
					  .inflight = true,
					  .slots = 8 };

	(void)state;
	int ret = driver_open(&liar, &options);
	must(liar, ret);
	must(liar, driver_stop(liar));
	driver_disconnect(liar);

	/* Like the daemon's own, which may be sealed; this one is not. */
	close(liar->inflight_fd);
	liar->inflight_fd = memfd_create("inflight", MFD_CLOEXEC);
	assert_int_equal(ftruncate(liar->inflight_fd,
				   (off_t)(liar->inflight.mmap_offset + liar->inflight.mmap_size)),
			 0);
	must(liar, driver_connect(liar));
	must(liar, driver_start(liar));
	daemon_mark_log(&hostile_daemon);
	assert_int_equal(ftruncate(liar->inflight_fd, 0), 0);
	push_one_more(&liar->queue[0]);
	expect_reason();
	expect_others_go_on();
}

/* ---- forged inflight regions ---- */

/*
 * An honest start, to get a region; then content of the test's choice in it, and a new start on
 * that. The device may do what it likes with nonsense, but it answers or says why not.
 */
static void forge(uint64_t features, void (*fill)(void *bytes, unsigned kind), unsigned kind)
{
	struct driver_options options = { .socket = daemon_path(&hostile_daemon, "liar"),
					  .features = features,
					  .queue_size = 64,
					  .inflight = true,
					  .slots = 8 };
	uint8_t bytes[512];

	int ret = driver_open(&liar, &options);
	must(liar, ret);
	must(liar, blk_read(&liar->queue[0], 0, bytes, sizeof(bytes)));
	must(liar, driver_stop(liar));
	driver_disconnect(liar);

	void *region = mmap(NULL, liar->inflight.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			    liar->inflight_fd, (off_t)liar->inflight.mmap_offset);
	assert_true(region != MAP_FAILED);
	fill(region, kind);
	munmap(region, liar->inflight.mmap_size);

	daemon_mark_log(&hostile_daemon);
	must(liar, driver_connect(liar));
	ret = driver_start(liar);
	if (!ret && kind != 0) {
		/* Either it refuses to go on, or it makes sense of it and serves. */
		struct virtq *queue = &liar->queue[0];
		int slot = virtq_take(queue);
		virtq_format(queue, (uint16_t)slot, VIRTIO_BLK_T_IN, 0, 512, 1, false);
		virtq_push(queue, (uint16_t)slot);
		virtq_publish(queue);
		virtq_kick(queue);
		if (virtq_wait(queue, 1000))
			expect_reason();
	} else {
		expect_reason();
	}
	expect_others_go_on();
	driver_close(liar);
	liar = NULL;
}

static void split_nonsense(void *bytes, unsigned kind)
{
	struct split_region *region = bytes;

	region->version = 1;
	region->desc_num = 64;
	switch (kind) {
	case 0: /* must be refused: a version unknown */
		region->version = 77;
		break;
	case 1: /* every descriptor in flight, in a random order, most of them empty */
		for (unsigned i = 0; i < 64; i++) {
			region->desc[i].inflight = 1;
			region->desc[i].counter = i * 7919 % 64;
		}
		break;
	case 2: /* the last batch is a loop, and its size is a lie */
		region->used_idx += 40000;
		region->last_batch_head = 3;
		region->desc[3].next = 3;
		break;
	case 3: /* indexes out of the table */
		region->used_idx -= 3;
		region->last_batch_head = 60000;
		for (unsigned i = 0; i < 64; i++)
			region->desc[i].next = 60000;
		break;
	case 4: /* all bits set */
		memset(region->desc, 0xff, 64 * sizeof(region->desc[0]));
		break;
	default:
		region->desc_num = 65535;
	}
}

static void packed_nonsense(void *bytes, unsigned kind)
{
	struct packed_region *region = bytes;

	region->version = 1;
	region->desc_num = 64;
	switch (kind) {
	case 0:
		region->version = 77;
		break;
	case 1: /* all in flight, chains that overlap */
		for (unsigned i = 0; i < 64; i++) {
			region->desc[i].inflight = 1;
			region->desc[i].num = 64;
			region->desc[i].last = (uint16_t)(63 - i);
			region->desc[i].counter = i * 7919 % 64;
		}
		break;
	case 2: /* free lists that loop */
		region->free_head = region->old_free_head = 5;
		for (unsigned i = 0; i < 64; i++)
			region->desc[i].next = 5;
		break;
	case 3: /* indexes out of the table */
		region->free_head = region->old_free_head = 60000;
		region->used_idx = region->old_used_idx = 60000;
		region->desc[0].inflight = 1;
		region->desc[0].last = region->desc[0].next = region->desc[0].num = 60000;
		break;
	case 4:
		memset(region->desc, 0xff, 64 * sizeof(region->desc[0]));
		break;
	default:
		region->desc_num = 65535;
	}
}

enum { KINDS = 6 };

static void test_forged_split_region(void **state)
{
	forge(0, split_nonsense, *(const unsigned *)*state);
}

static void test_forged_packed_region(void **state)
{
	forge(FEATURE(VIRTIO_F_RING_PACKED), packed_nonsense, *(const unsigned *)*state);
}

#define TEST(name, start)                                                                          \
	{                                                                                          \
#name ", " #start, name, start, hostile_stop, NULL                                 \
	}

int main(void)
{
	static const char *const nonsense[KINDS] = {
		"unknown version", "all in flight", "loops",
		"wild indexes",    "all bits set",  "wild size"
	};
	static unsigned kinds[KINDS] = { 0, 1, 2, 3, 4, 5 };
	static char names[2 * KINDS][64];
	static const struct CMUnitTest fixed[] = {
		TEST(test_rings_removed_split, hostile_start),
		TEST(test_rings_removed_packed, hostile_start),
		TEST(test_data_removed, hostile_start),
		TEST(test_empty_table, hostile_start),
		TEST(test_rings_truncated_split, hostile_start),
		TEST(test_rings_truncated_packed, hostile_start),
		TEST(test_headers_truncated, hostile_start),
		TEST(test_indirect_tables_truncated, hostile_start),
		TEST(test_data_truncated, hostile_start),
		TEST(test_data_truncated, hostile_start_memory),
		TEST(test_rings_truncated_split, hostile_start_memory),
		TEST(test_inflight_truncated, hostile_start),
	};
	enum { FIXED = sizeof(fixed) / sizeof(fixed[0]) };
	static struct CMUnitTest tests[FIXED + 2 * KINDS];
	size_t count = FIXED;

	memcpy(tests, fixed, sizeof(fixed));
	for (unsigned packed = 0; packed < 2; packed++) {
		for (unsigned kind = 0; kind < KINDS; kind++) {
			char *name = names[packed * KINDS + kind];
			snprintf(name, sizeof(names[0]), "forged %s inflight region: %s",
				 packed ? "packed" : "split", nonsense[kind]);
			tests[count++] =
				(struct CMUnitTest){ .name = name,
						     .test_func = packed ? test_forged_packed_region
									 : test_forged_split_region,
						     .setup_func = hostile_start,
						     .teardown_func = hostile_stop,
						     .initial_state = &kinds[kind] };
		}
	}
	return _cmocka_run_group_tests("lies in memory", tests, count, NULL, NULL);
}
