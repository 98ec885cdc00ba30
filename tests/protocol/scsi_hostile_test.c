/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_hostile_test.c - a guest that lies to its virtio-scsi device
 *
 * What no request can be breaks the device, with a reason in the log; the guest resets it, and it
 * works. What is a request, however strange, gets an answer. The daemon goes on in any case.
 */
#include "scsi_scene.h"

#include <linux/virtio_ring.h>

enum { W = VRING_DESC_F_WRITE, SETTLE_MS = 5000 };

enum outcome {
	BREAKS,
	ANSWERED, /* with a response that is not OK, or a status that is not GOOD */
	SERVED,   /* OK or not: it is a request like others */
};

/* What a lie makes of a good READ(10) of 4 KiB in slot 0: pieces header, response, data. */
typedef void lie(struct slot *slot, struct piece *piece);

static void short_header(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[0].length = sizeof(struct virtio_scsi_cmd_req) - 1;
}

static void no_header(struct slot *slot, struct piece *piece)
{
	piece[0] = piece[1];
	piece[1] = piece[2];
	slot->pieces = 2;
}

static void header_outside(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[0].address = 0x700000000ull;
}

static void header_across_the_end(struct slot *slot, struct piece *piece)
{
	const struct region *region = &driver->region[driver->rings_region];

	(void)slot;
	piece[0].address = region->guest + region->size - 8;
}

static void short_response(struct slot *slot, struct piece *piece)
{
	slot->pieces = 2;
	piece[1].length = sizeof(struct virtio_scsi_cmd_resp) - 1;
}

static void no_response(struct slot *slot, struct piece *piece)
{
	(void)piece;
	slot->pieces = 1;
}

static void readable_response(struct slot *slot, struct piece *piece)
{
	slot->pieces = 2;
	piece[1].flags = 0;
}

static void response_outside(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[1].address = UINT64_MAX - 50;
}

static void readable_after_writable(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[2].flags = 0;
}

static void data_outside(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[2].address = 0x700000000ull;
}

static void data_larger_than_memory(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[2].length = 0xffffffff;
}

static void data_over_the_response(struct slot *slot, struct piece *piece)
{
	piece[2].address = slot->status_guest & ~4095ull;
	piece[2].length = 4096;
}

static void one_byte_of_data(struct slot *slot, struct piece *piece)
{
	(void)slot;
	piece[2].length = 1;
}

static void no_data(struct slot *slot, struct piece *piece)
{
	(void)piece;
	slot->pieces = 2;
}

static void largest_read(struct slot *slot, struct piece *piece)
{
	static const uint8_t cdb[16] = { 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };

	(void)piece;
	memcpy(slot->command->cdb, cdb, sizeof(cdb));
}

static void last_address(struct slot *slot, struct piece *piece)
{
	static const uint8_t cdb[16] = { 0x88, 0,    0xff, 0xff, 0xff, 0xff, 0xff,
					 0xff, 0xff, 0xff, 0,    0,    0,    8 };

	(void)piece;
	memcpy(slot->command->cdb, cdb, sizeof(cdb));
}

static void unknown_command(struct slot *slot, struct piece *piece)
{
	(void)piece;
	memset(slot->command->cdb, 0xff, sizeof(slot->command->cdb));
}

static void unmap_without_data(struct slot *slot, struct piece *piece)
{
	(void)piece;
	slot->command->cdb[0] = 0x42;
	scsi_put(slot->command->cdb + 7, 2, 0xffff);
}

static void write_without_data(struct slot *slot, struct piece *piece)
{
	(void)piece;
	slot->command->cdb[0] = 0x2a;
}

static void everyone(struct slot *slot, struct piece *piece)
{
	(void)piece;
	memset(slot->command->lun, 0xff, 8);
}

static const struct row {
	const char *name;
	lie *lie;
	enum outcome outcome;
} rows[] = {
	{ "short header", short_header, BREAKS },
	{ "no header", no_header, BREAKS },
	{ "header outside memory", header_outside, BREAKS },
	{ "header across the end of memory", header_across_the_end, BREAKS },
	{ "short response", short_response, BREAKS },
	{ "no response", no_response, BREAKS },
	{ "response that the device may not write", readable_response, BREAKS },
	{ "response outside memory", response_outside, BREAKS },
	{ "readable behind writable", readable_after_writable, BREAKS },
	{ "data outside memory", data_outside, BREAKS },
	{ "data larger than memory", data_larger_than_memory, BREAKS },
	{ "data over the response", data_over_the_response, SERVED },
	{ "one byte of data", one_byte_of_data, ANSWERED },
	{ "no data", no_data, ANSWERED },
	{ "largest READ(16)", largest_read, ANSWERED },
	{ "READ(16) of the last address", last_address, ANSWERED },
	{ "unknown command", unknown_command, ANSWERED },
	{ "UNMAP without its data", unmap_without_data, ANSWERED },
	{ "WRITE without its data", write_without_data, ANSWERED },
	{ "address of all ones", everyone, ANSWERED },
};

static bool is_broken(void)
{
	uint64_t status;

	return !vu_query_u64(&driver->vu, VU_GET_STATUS, &status) && status & STATUS_NEEDS_RESET;
}

static void expect_broken(void)
{
	int64_t end = clock_ms() + SETTLE_MS;

	while (!is_broken()) {
		if (clock_ms() > end)
			fail_msg("the device status lacks DEVICE_NEEDS_RESET");
		sleep_ms(1);
	}
	if (!daemon_logged(&scene_daemon, "virtio-scsi0", SETTLE_MS))
		fail_msg("the log has no reason");
}

/* The guest resets its device, and works. */
static void expect_recovery(void)
{
	uint8_t bytes[512];

	assert_true(daemon_alive(&scene_daemon));
	must(driver, vu_request_u64(&driver->vu, VU_SET_STATUS, 0));
	driver_forget(driver);
	must(driver, vu_request_u64(&driver->vu, VU_SET_FEATURES, driver->features));
	must(driver, driver_start(driver));
	must(driver, scsi_settle(request_queue(0), 0, 0));
	must(driver, scsi_read(request_queue(0), 0, bytes, 1));
	daemon_mark_log(&scene_daemon);
}

static void expect(struct virtq *queue, enum outcome outcome)
{
	uint16_t done;

	if (outcome == BREAKS) {
		expect_broken();
		return;
	}
	must(driver, virtq_wait(queue, SETTLE_MS));
	assert_int_equal(virtq_reap(queue, &done, 1), 1);
	struct scsi_answer answer = scsi_answer(&queue->slot[done]);
	if (outcome == ANSWERED)
		assert_true(answer.response || answer.status);
}

static void open_with(bool packed, bool indirect)
{
	struct driver_options options = scene_options(0);

	options.features = (packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
			   (indirect ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0);
	scene_open(&options);
}

static void tell_lies(bool packed, bool indirect)
{
	uint8_t cdb[10];

	open_with(packed, indirect);
	scsi_cdb_rw(cdb, false, 0, 8);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct virtq *queue = request_queue(i % 4);
		uint16_t slot = (uint16_t)virtq_take(queue);

		print_message("# %s\n", rows[i].name);
		scsi_format(queue, slot, 0, 0, cdb, sizeof(cdb), SCSI_IN, 4096, 1);
		rows[i].lie(&queue->slot[slot], queue->slot[slot].piece);
		virtq_format_pieces(queue, slot);
		virtq_push(queue, slot);
		virtq_publish(queue);
		virtq_kick(queue);
		expect(queue, rows[i].outcome);
		expect_recovery();
	}
}

static void test_requests_split(void **state)
{
	(void)state;
	tell_lies(false, false);
}

static void test_requests_packed(void **state)
{
	(void)state;
	tell_lies(true, false);
}

static void test_requests_indirect(void **state)
{
	(void)state;
	tell_lies(false, true);
}

/* --- the control and event queues ---------------------------------------------------- */

/* A control request of so many bytes each way, of this type. */
static void push_control(uint32_t type, uint32_t readable, uint32_t writable)
{
	struct virtq *queue = control_queue();
	uint16_t index = (uint16_t)virtq_take(queue);
	struct slot *slot = &queue->slot[index];

	memset(slot->task, 0, sizeof(*slot->task));
	slot->task->type = type;
	slot->pieces = 0;
	if (readable)
		slot->piece[slot->pieces++] =
			(struct piece){ .address = slot->header_guest, .length = readable };
	if (writable)
		slot->piece[slot->pieces++] = (struct piece){ .address = slot->status_guest,
							      .length = writable,
							      .flags = W };
	virtq_format_pieces(queue, index);
	virtq_push(queue, index);
	virtq_publish(queue);
}

static void test_control(void **state)
{
	static const struct {
		uint32_t type, readable, writable;
	} lies[] = {
		{ VIRTIO_SCSI_T_TMF, 23, 1 },
		{ VIRTIO_SCSI_T_TMF, 24, 0 },
		{ VIRTIO_SCSI_T_TMF, 3, 1 },
		{ VIRTIO_SCSI_T_TMF, 0, 1 },
		{ VIRTIO_SCSI_T_AN_QUERY, 15, 5 },
		{ VIRTIO_SCSI_T_AN_SUBSCRIBE, 16, 4 },
		{ 3, 24, 5 },
		{ 0xffffffff, 24, 5 },
	};

	(void)state;
	open_with(false, false);
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		push_control(lies[i].type, lies[i].readable, lies[i].writable);
		expect_broken();
		expect_recovery();
	}
}

static void test_event_buffer_too_small(void **state)
{
	const char *args[] = { "resize", "one", "9M", "--api", daemon_path(&scene_daemon, "api"),
			       NULL };

	(void)state;
	open_with(false, false);
	struct virtq *queue = event_queue();
	uint16_t index = (uint16_t)virtq_take(queue);
	queue->slot[index].piece[0] = (struct piece){ .address = queue->slot[index].status_guest,
						      .length = 15,
						      .flags = W };
	queue->slot[index].pieces = 1;
	virtq_format_pieces(queue, index);
	virtq_push(queue, index);
	virtq_publish(queue);
	assert_int_equal(daemon_command(&scene_daemon, args), 0);
	expect_broken();
	expect_recovery();
}

/* A chain made available again while it is under way, and more of them than the ring has room for.
 */
static void test_the_same_chain_twice(void **state)
{
	uint8_t cdb[10];

	(void)state;
	open_with(false, false);
	struct virtq *queue = request_queue(0);
	uint16_t slot = (uint16_t)virtq_take(queue);
	scsi_cdb_rw(cdb, false, 0, 1);
	scsi_format(queue, slot, SLOW_TARGET, 0, cdb, sizeof(cdb), SCSI_IN, 512, 1);
	for (unsigned i = 0; i <= queue->size; i++) {
		virtq_push(queue, slot);
		virtq_publish(queue);
		virtq_kick(queue);
		if (i % 16 == 0)
			sleep_ms(1);
	}
	expect_broken();
	expect_recovery();
}

/* The device breaks with commands and task management under way. */
static void test_broken_under_load(void **state)
{
	uint8_t cdb[10];

	(void)state;
	open_with(false, false);
	scsi_cdb_rw(cdb, false, 0, 1);
	for (unsigned q = 0; q < 4; q++) {
		struct virtq *queue = request_queue(q);
		for (unsigned i = 0; i < 5; i++) {
			uint16_t slot = (uint16_t)virtq_take(queue);
			scsi_format(queue, slot, SLOW_TARGET, 0, cdb, sizeof(cdb), SCSI_IN, 512, 1);
			virtq_push(queue, slot);
		}
		virtq_publish(queue);
	}
	sleep_ms(20);
	assert_true(scsi_task_push(control_queue(), VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET,
				   SLOW_TARGET, 0, 0) >= 0);
	sleep_ms(5);
	push_control(77, 24, 5);
	expect_broken();
	expect_recovery();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_start, scene_stop)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_requests_split),         TEST(test_requests_packed),
		TEST(test_requests_indirect),      TEST(test_control),
		TEST(test_event_buffer_too_small), TEST(test_the_same_chain_twice),
		TEST(test_broken_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
