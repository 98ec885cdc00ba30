/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_test.c - the virtio-scsi device as an honest driver sees it: requests, addresses, residuals,
 * task management, events, rings of all kinds, restarts
 *
 * What the units make of the commands is the affair of the target's own tests.
 */
#include "scsi_scene.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* --- negotiation -------------------------------------------------------------------- */

static void test_what_is_offered(void **state)
{
	struct driver_options options = scene_options(0);
	uint8_t payload[12 + 4] = { [4] = 4 };
	struct vu_message answer;

	(void)state;
	scene_open(&options);
	assert_int_equal(driver->queues_max, SCENE_QUEUES);
	assert_int_equal(driver->offered & 0xffffff, FEATURE(VIRTIO_SCSI_F_INOUT) |
							     FEATURE(VIRTIO_SCSI_F_HOTPLUG) |
							     FEATURE(VIRTIO_SCSI_F_CHANGE));
	assert_false(driver->protocol_offered & VU_PF_CONFIG);
	/* Asked all the same, it says no; and the connection stays. */
	must(driver, vu_query(&driver->vu, VU_GET_CONFIG, payload, sizeof(payload), &answer, NULL));
	assert_int_equal(answer.size, 0);
	assert_int_equal(scene_test_unit_ready(0, 0).status, 0);
}

/* --- requests ----------------------------------------------------------------------- */

static void test_write_reaches_the_image(void **state)
{
	static uint8_t out[65536], in[65536];
	struct driver_options options = scene_options(0);

	(void)state;
	scene_open(&options);
	scene_fill(out, sizeof(out), 1);
	must(driver, scsi_write(request_queue(0), 8, out, sizeof(out) / 512));
	must(driver, scsi_read(request_queue(1), 8, in, sizeof(in) / 512));
	assert_memory_equal(in, out, sizeof(in));
	static const uint8_t synchronize[10] = { 0x35 };
	struct scsi_answer answer =
		scene_command(request_queue(2), 0, 0, synchronize, sizeof(synchronize), 0);
	assert_int_equal(answer.response | answer.status, 0);
	must(driver, driver_stop(driver));
	driver_disconnect(driver);
	assert_int_equal(daemon_stop(&scene_daemon), 0);

	int fd = open(daemon_path(&scene_daemon, "disk.img"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, in, sizeof(in), 8 * 512), sizeof(in));
	close(fd);
	assert_memory_equal(in, out, sizeof(in));
}

static void test_lengths(void **state)
{
	struct driver_options options = scene_options(0);
	uint8_t cdb[10], inquiry[6] = { 0x12, [4] = 96 };
	struct scsi_answer answer;
	uint64_t bytes;

	(void)state;
	scene_open(&options);
	must(driver, scsi_capacity(request_queue(0), &bytes));
	assert_int_equal(bytes, SCENE_BYTES);

	/* All of the buffer is used; the response counts as written, too. */
	scsi_cdb_rw(cdb, false, SCENE_BLOCKS - 8, 8);
	answer = scene_command(request_queue(0), 0, 0, cdb, sizeof(cdb), 4096);
	assert_int_equal(answer.response | answer.status, 0);
	assert_int_equal(answer.residual, 0);
	assert_int_equal(answer.used, sizeof(struct virtio_scsi_cmd_resp) + 4096);
	/* Less than there is room for. */
	answer = scene_command(request_queue(0), 0, 0, cdb, sizeof(cdb), 8192);
	assert_int_equal(answer.response | answer.status, 0);
	assert_int_equal(answer.residual, 4096);
	assert_int_equal(answer.used, sizeof(struct virtio_scsi_cmd_resp) + 4096);
	answer = scene_command(request_queue(0), 0, 0, inquiry, sizeof(inquiry), 96);
	assert_int_equal(answer.response | answer.status, 0);
	assert_in_range(96 - answer.residual, 36, 96);
	/* More than there is room for. */
	answer = scene_command(request_queue(0), 0, 0, cdb, sizeof(cdb), 2048);
	assert_int_equal(answer.response, VIRTIO_SCSI_S_OVERRUN);
	answer = scene_command(request_queue(0), 0, 0, cdb, sizeof(cdb), 0);
	assert_int_equal(answer.response, VIRTIO_SCSI_S_OVERRUN);
	/* Beyond the end: sense data, and nothing moved. */
	scsi_cdb_rw(cdb, false, SCENE_BLOCKS - 7, 8);
	answer = scene_command(request_queue(0), 0, 0, cdb, sizeof(cdb), 4096);
	assert_int_equal(answer.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(answer.status, 2);
	assert_int_equal(answer.key << 16 | answer.asc << 8 | answer.ascq, 0x052100);
	assert_int_equal(answer.residual, 4096);
}

/* A read with room to send, too: both buffers count. */
static void both_ways(bool negotiated, struct scsi_answer *answer)
{
	struct driver_options options = scene_options(0);
	uint8_t cdb[10];
	uint16_t done;

	options.decline = negotiated ? 0 : FEATURE(VIRTIO_SCSI_F_INOUT);
	scene_open(&options);
	struct virtq *queue = request_queue(0);
	int index = virtq_take(queue);
	struct slot *slot = &queue->slot[index];
	scsi_cdb_rw(cdb, false, 0, 1);
	scsi_format(queue, (uint16_t)index, 0, 0, cdb, sizeof(cdb), SCSI_IN, 512, 1);
	struct piece response = slot->piece[1], data = slot->piece[2];
	slot->piece[1] = (struct piece){ .address = slot->data_guest + 4096, .length = 1000 };
	slot->piece[2] = response;
	slot->piece[3] = data;
	slot->pieces = 4;
	virtq_format_pieces(queue, (uint16_t)index);
	virtq_push(queue, (uint16_t)index);
	virtq_publish(queue);
	must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
	assert_int_equal(virtq_reap(queue, &done, 1), 1);
	*answer = scsi_answer(slot);
}

static void test_both_ways(void **state)
{
	struct scsi_answer answer;

	(void)state;
	both_ways(true, &answer);
	assert_int_equal(answer.response | answer.status, 0);
	assert_int_equal(answer.residual, 1000);
}

static void test_both_ways_not_negotiated(void **state)
{
	struct scsi_answer answer;

	(void)state;
	both_ways(false, &answer);
	assert_int_equal(answer.response, VIRTIO_SCSI_S_FAILURE);
	assert_int_equal(scene_test_unit_ready(0, 0).status, 0);
}

/* Header, response and data may be cut anywhere, and response and data be one piece. */
static void test_odd_cuts(void **state)
{
	static uint8_t out[4096];
	struct driver_options options = scene_options(0);
	uint8_t cdb[10];
	uint16_t done;

	(void)state;
	scene_open(&options);
	scene_fill(out, sizeof(out), 3);
	must(driver, scsi_write(request_queue(0), 100, out, 8));
	struct virtq *queue = request_queue(0);
	int index = virtq_take(queue);
	struct slot *slot = &queue->slot[index];
	scsi_cdb_rw(cdb, false, 100, 8);
	scsi_format(queue, (uint16_t)index, 0, 0, cdb, sizeof(cdb), SCSI_IN, 4096, 1);
	slot->piece[0].length = 7;
	slot->piece[1] = (struct piece){ .address = slot->header_guest + 7,
					 .length = sizeof(*slot->command) - 7 };
	/* The response's first bytes in its place, the rest of it before the data. */
	slot->piece[2] = (struct piece){ .address = slot->status_guest,
					 .length = 13,
					 .flags = VRING_DESC_F_WRITE };
	slot->piece[3] = (struct piece){ .address = slot->data_guest,
					 .length = sizeof(*slot->response) - 13 + 1000,
					 .flags = VRING_DESC_F_WRITE };
	slot->piece[4] = (struct piece){ .address = slot->data_guest + 8192,
					 .length = 4096 - 1000,
					 .flags = VRING_DESC_F_WRITE };
	slot->pieces = 5;
	virtq_format_pieces(queue, (uint16_t)index);
	virtq_push(queue, (uint16_t)index);
	virtq_publish(queue);
	must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
	assert_int_equal(virtq_reap(queue, &done, 1), 1);
	struct scsi_answer answer = scsi_answer(slot);
	assert_int_equal(answer.response | answer.status, 0);
	assert_int_equal(answer.residual, 0);
	assert_memory_equal(slot->data + sizeof(*slot->response) - 13, out, 1000);
	assert_memory_equal(slot->data + 8192, out + 1000, 4096 - 1000);
}

/* --- addresses ---------------------------------------------------------------------- */

/* TEST UNIT READY to a raw address. */
static struct scsi_answer at_address(const uint8_t address[8], uint8_t attribute)
{
	static const uint8_t cdb[6] = { 0 };
	struct virtq *queue = request_queue(0);
	uint16_t index = (uint16_t)virtq_take(queue), done;

	scsi_format(queue, index, 0, 0, cdb, sizeof(cdb), SCSI_NONE, 0, 1);
	memcpy(queue->slot[index].command->lun, address, 8);
	queue->slot[index].command->task_attr = attribute;
	virtq_push(queue, index);
	virtq_publish(queue);
	must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
	assert_int_equal(virtq_reap(queue, &done, 1), 1);
	virtq_release(queue, index);
	return scsi_answer(&queue->slot[index]);
}

static void test_addresses(void **state)
{
	static const struct {
		uint8_t address[8];
		bool there;
	} rows[] = {
		{ { 1, 0, 0x40, 0 }, true },    /* flat */
		{ { 1, 0, 0, 0 }, true },       /* peripheral */
		{ { 1, 1, 0, 5 }, true },       /* another LUN */
		{ { 1, 1, 0x40, 5 }, true },    /* the same */
		{ { 1, 3, 0x41, 0x2c }, true }, /* 300 */
		{ { 1, 7, 0, 0 }, false },      /* no such target */
		{ { 1, 255, 0x40, 0 }, false }, /* nor that */
		{ { 0, 0, 0x40, 0 }, false },   /* not our form */
		{ { 2, 0, 0x40, 0 }, false },   /* nor that */
		{ { 0xc1, 1 }, false },         /* REPORT LUNS well-known unit */
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, false },
	};
	struct driver_options options = scene_options(0);

	(void)state;
	scene_open(&options);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct scsi_answer answer = at_address(rows[i].address, 0);
		assert_int_equal(answer.response,
				 rows[i].there ? VIRTIO_SCSI_S_OK : VIRTIO_SCSI_S_BAD_TARGET);
		assert_int_equal(answer.status, 0);
	}
	/* A LUN that is not there, of a target that is: the target says so. */
	struct scsi_answer answer = scene_test_unit_ready(1, 9);
	assert_int_equal(answer.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(answer.status, 2);
	assert_int_equal(answer.key << 16 | answer.asc << 8 | answer.ascq, 0x052500);
	/* More levels than one. */
	answer = at_address((const uint8_t[8]){ 1, 1, 0x40, 5, 0, 1 }, 0);
	assert_true(answer.response || answer.status);
}

static void test_attributes(void **state)
{
	static const uint8_t address[8] = { 1, 0, 0x40, 0 };
	struct driver_options options = scene_options(0);

	(void)state;
	scene_open(&options);
	for (uint8_t attribute = 0; attribute < 3; attribute++) {
		struct scsi_answer answer = at_address(address, attribute);
		assert_int_equal(answer.response | answer.status, 0);
	}
	assert_int_equal(at_address(address, 4).response, VIRTIO_SCSI_S_FAILURE);
	assert_int_equal(at_address(address, 0xff).response, VIRTIO_SCSI_S_FAILURE);
}

/* --- task management ---------------------------------------------------------------- */

enum {
	ABORT_TASK = VIRTIO_SCSI_T_TMF_ABORT_TASK,
	ABORT_TASK_SET = VIRTIO_SCSI_T_TMF_ABORT_TASK_SET,
	CLEAR_ACA = VIRTIO_SCSI_T_TMF_CLEAR_ACA,
	CLEAR_TASK_SET = VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET,
	NEXUS_RESET = VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET,
	UNIT_RESET = VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET,
	QUERY_TASK = VIRTIO_SCSI_T_TMF_QUERY_TASK,
	QUERY_TASK_SET = VIRTIO_SCSI_T_TMF_QUERY_TASK_SET,
};

static void test_task_management_at_rest(void **state)
{
	static const struct {
		uint32_t subtype;
		uint8_t target, lun;
		int response;
	} rows[] = {
		{ ABORT_TASK, 0, 0, VIRTIO_SCSI_S_OK },
		{ ABORT_TASK_SET, 1, 5, VIRTIO_SCSI_S_OK },
		{ CLEAR_TASK_SET, 0, 0, VIRTIO_SCSI_S_OK },
		{ CLEAR_ACA, 0, 0, VIRTIO_SCSI_S_FUNCTION_REJECTED },
		{ QUERY_TASK, 0, 0, VIRTIO_SCSI_S_OK },
		{ QUERY_TASK_SET, 0, 0, VIRTIO_SCSI_S_OK },
		{ QUERY_TASK_SET, 1, 7, VIRTIO_SCSI_S_INCORRECT_LUN },
		{ UNIT_RESET, 1, 7, VIRTIO_SCSI_S_INCORRECT_LUN },
		{ UNIT_RESET, 9, 0, VIRTIO_SCSI_S_BAD_TARGET },
		{ NEXUS_RESET, 9, 0, VIRTIO_SCSI_S_BAD_TARGET },
		{ 8, 0, 0, VIRTIO_SCSI_S_FUNCTION_REJECTED },
		{ 0xffffffff, 0, 0, VIRTIO_SCSI_S_FUNCTION_REJECTED },
	};
	struct driver_options options = scene_options(0);

	(void)state;
	scene_open(&options);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		assert_int_equal(scsi_task(control_queue(), rows[i].subtype, rows[i].target,
					   rows[i].lun, 4711),
				 rows[i].response);
	/* The unit says that it was reset; its neighbour was not. */
	assert_int_equal(scsi_task(control_queue(), UNIT_RESET, 1, 0, 0), VIRTIO_SCSI_S_OK);
	assert_int_equal(scene_test_unit_ready(1, 5).status, 0);
	struct scsi_answer answer = scene_test_unit_ready(1, 0);
	assert_int_equal(answer.key << 8 | answer.asc, 0x0629);
	assert_int_equal(scene_test_unit_ready(1, 0).status, 0);
	assert_int_equal(scsi_task(control_queue(), NEXUS_RESET, 1, 0, 0), VIRTIO_SCSI_S_OK);
	answer = scene_test_unit_ready(1, 5);
	assert_int_equal(answer.key << 8 | answer.asc, 0x0629);
	assert_int_equal(scene_test_unit_ready(0, 0).status, 0);
}

/* Reads of one block of the slow unit, so many on a queue; tags are slots. */
static void push_slow(struct virtq *queue, unsigned count)
{
	uint8_t cdb[10];

	scsi_cdb_rw(cdb, false, 0, 1);
	for (unsigned i = 0; i < count; i++) {
		uint16_t slot = (uint16_t)virtq_take(queue);
		scsi_format(queue, slot, SLOW_TARGET, 0, cdb, sizeof(cdb), SCSI_IN, 512, 1);
		queue->slot[slot].command->tag = queue->index * 100 + slot;
		virtq_push(queue, slot);
	}
	virtq_publish(queue);
}

/* How many have come already; those that were ended before their time, as @ended, are counted. */
static unsigned reap_all(struct virtq *queue, uint8_t ended, unsigned *aborted)
{
	uint16_t done[8];
	int count = virtq_reap(queue, done, 8);

	assert_true(count >= 0);
	for (int i = 0; i < count; i++) {
		uint8_t response = queue->slot[done[i]].response->response;
		assert_true(response == VIRTIO_SCSI_S_OK || response == ended);
		*aborted += response == ended;
		virtq_release(queue, done[i]);
	}
	return (unsigned)count;
}

static void test_abort_one(void **state)
{
	struct driver_options options = scene_options(0);
	struct virtq *queue;

	(void)state;
	scene_open(&options);
	queue = request_queue(1);
	push_slow(queue, 2);
	sleep_ms(20);
	uint64_t tag = queue->index * 100;
	assert_int_equal(scsi_task(control_queue(), QUERY_TASK, SLOW_TARGET, 0, tag),
			 VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	assert_int_equal(scsi_task(control_queue(), QUERY_TASK, SLOW_TARGET, 0, tag + 50),
			 VIRTIO_SCSI_S_OK);
	assert_int_equal(scsi_task(control_queue(), QUERY_TASK, 0, 0, tag), VIRTIO_SCSI_S_OK);
	assert_int_equal(scsi_task(control_queue(), QUERY_TASK_SET, SLOW_TARGET, 0, 0),
			 VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	assert_int_equal(scsi_task(control_queue(), ABORT_TASK, SLOW_TARGET, 0, tag),
			 VIRTIO_SCSI_S_OK);
	must(driver, virtq_wait(queue, 1));
	uint16_t done[2];
	int count = virtq_reap(queue, done, 2);
	assert_true(count >= 1);
	while (count < 2) {
		must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
		count += virtq_reap(queue, done + count, 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		const struct slot *slot = &queue->slot[done[i]];
		assert_int_equal(slot->response->response, slot->command->tag == tag
								   ? VIRTIO_SCSI_S_ABORTED
								   : VIRTIO_SCSI_S_OK);
		virtq_release(queue, done[i]);
	}
	assert_int_equal(scene_test_unit_ready(SLOW_TARGET, 0).status, 0);
}

/* Everything of the unit, on all queues, has come back before the answer; nothing else is hurt. */
static void ends_all(uint32_t subtype)
{
	bool resets = subtype == UNIT_RESET || subtype == NEXUS_RESET;
	uint8_t ended = resets ? VIRTIO_SCSI_S_RESET : VIRTIO_SCSI_S_ABORTED;
	struct driver_options options = scene_options(0);
	unsigned count = 0, aborted = 0;

	scene_open(&options);
	for (unsigned i = 0; i < 4; i++)
		push_slow(request_queue(i), 5);
	sleep_ms(20); /* to be taken before the function is */
	must(driver, scsi_task(control_queue(), subtype, SLOW_TARGET, 0, 0));
	for (unsigned i = 0; i < 4; i++)
		count += reap_all(request_queue(i), ended, &aborted);
	assert_int_equal(count, 20);
	assert_in_range(aborted, 5, 20); /* the others were faster */
	scene_settle();
}

static void test_abort_set(void **state)
{
	(void)state;
	ends_all(ABORT_TASK_SET);
}

static void test_clear_set(void **state)
{
	(void)state;
	ends_all(CLEAR_TASK_SET);
}

static void test_unit_reset(void **state)
{
	(void)state;
	ends_all(UNIT_RESET);
}

static void test_nexus_reset(void **state)
{
	(void)state;
	ends_all(NEXUS_RESET);
}

static void test_notifications(void **state)
{
	struct driver_options options = scene_options(0);
	unsigned aborted = 0;
	uint32_t actual;

	(void)state;
	scene_open(&options);
	for (uint32_t type = VIRTIO_SCSI_T_AN_QUERY; type <= VIRTIO_SCSI_T_AN_SUBSCRIBE; type++) {
		assert_int_equal(scsi_notifications(control_queue(), type, 0, 0, &actual),
				 VIRTIO_SCSI_S_OK);
		assert_int_equal(actual, 0);
		assert_int_equal(scsi_notifications(control_queue(), type, 9, 0, &actual),
				 VIRTIO_SCSI_S_BAD_TARGET);
		assert_int_equal(scsi_notifications(control_queue(), type, 1, 9, &actual),
				 VIRTIO_SCSI_S_INCORRECT_LUN);
	}
	/* Also while commands are under way. */
	push_slow(request_queue(0), 1);
	sleep_ms(20);
	assert_int_equal(scsi_notifications(control_queue(), VIRTIO_SCSI_T_AN_QUERY, SLOW_TARGET, 0,
					    &actual),
			 VIRTIO_SCSI_S_OK);
	must(driver, virtq_wait(request_queue(0), DRIVER_WAIT_MS));
	assert_int_equal(reap_all(request_queue(0), VIRTIO_SCSI_S_ABORTED, &aborted), 1);
	assert_int_equal(aborted, 0);
}

/* --- events ------------------------------------------------------------------------- */

static void resize(const char *disk, const char *size)
{
	const char *args[] = { "resize", disk, size, "--api", daemon_path(&scene_daemon, "api"),
			       NULL };

	assert_int_equal(daemon_command(&scene_daemon, args), 0);
}

static void expect_resize_event(unsigned target, unsigned lun, bool missed)
{
	struct virtio_scsi_event event;
	const uint8_t address[8] = { 1, (uint8_t)target, lun < 256 ? 0 : (uint8_t)(0x40 | lun >> 8),
				     (uint8_t)lun };

	must(driver, scsi_wait_event(event_queue(), &event, 5000));
	assert_int_equal(event.event,
			 VIRTIO_SCSI_T_PARAM_CHANGE | (missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0));
	assert_int_equal(event.reason, 0x092a);
	assert_memory_equal(event.lun, address, 8);
}

static void test_events(void **state)
{
	struct driver_options options = scene_options(0);
	struct virtio_scsi_event event;
	int64_t cpu;

	(void)state;
	scene_open(&options);
	for (unsigned i = 0; i < 4; i++)
		must(driver, scsi_give_event_buffer(event_queue()));
	/* Buffers that lie there keep nobody busy. */
	sleep_ms(50);
	cpu = daemon_cpu_ms(&scene_daemon);
	assert_int_equal(scsi_wait_event(event_queue(), &event, 300), -ETIMEDOUT);
	assert_in_range(daemon_cpu_ms(&scene_daemon) - cpu, 0, 100);
	resize("one", "9M");
	expect_resize_event(1, 0, false);
	resize("far", "2M");
	expect_resize_event(3, 300, false);
	/* They outlive a stop of the rings; those that were not used are still the device's. */
	must(driver, driver_stop(driver));
	assert_int_equal(event_queue()->base, event_queue()->packed ? 0 : 2);
	for (unsigned i = 0; i < driver->queues; i++)
		must(driver, driver_start_queue(driver, &driver->queue[i]));
	resize("one", "10M");
	expect_resize_event(1, 0, false);
}

static void test_events_missed(void **state)
{
	struct driver_options options = scene_options(0);
	struct virtio_scsi_event event;

	(void)state;
	scene_open(&options);
	/* No buffer: all that is left of them is that there were some. */
	resize("one", "9M");
	resize("five", "5M");
	sleep_ms(50);
	must(driver, scsi_give_event_buffer(event_queue()));
	must(driver, scsi_wait_event(event_queue(), &event, 5000));
	assert_int_equal(event.event, VIRTIO_SCSI_T_NO_EVENT | VIRTIO_SCSI_T_EVENTS_MISSED);
	must(driver, scsi_give_event_buffer(event_queue()));
	resize("one", "10M");
	expect_resize_event(1, 0, false);
	/* Nor when they come while the rings are stopped. */
	must(driver, driver_stop(driver));
	resize("one", "11M");
	must(driver, scsi_give_event_buffer(event_queue()));
	for (unsigned i = 0; i < driver->queues; i++)
		must(driver, driver_start_queue(driver, &driver->queue[i]));
	must(driver, scsi_wait_event(event_queue(), &event, 5000));
	assert_int_equal(event.event, VIRTIO_SCSI_T_NO_EVENT | VIRTIO_SCSI_T_EVENTS_MISSED);
}

static void test_events_not_negotiated(void **state)
{
	struct driver_options options = scene_options(0);
	struct virtio_scsi_event event;

	(void)state;
	options.decline = FEATURE(VIRTIO_SCSI_F_CHANGE) | FEATURE(VIRTIO_SCSI_F_HOTPLUG);
	scene_open(&options);
	must(driver, scsi_give_event_buffer(event_queue()));
	resize("one", "9M");
	assert_int_equal(scsi_wait_event(event_queue(), &event, 100), -ETIMEDOUT);
}

/* A command of penstock's control API: whether it was done. */
static bool ask(const char *verb, const char *unit, const char *disk)
{
	char name[64];
	const char *args[] = { verb, "guest", name, "--api", daemon_path(&scene_daemon, "api"),
			       disk, NULL };

	snprintf(name, sizeof(name), "virtio-scsi0/%s", unit);
	return daemon_command(&scene_daemon, args) == 0;
}

static void expect_transport_event(uint32_t reason, unsigned target)
{
	const uint8_t address[8] = { 1, (uint8_t)target };
	struct virtio_scsi_event event;

	must(driver, scsi_wait_event(event_queue(), &event, 5000));
	assert_int_equal(event.event, VIRTIO_SCSI_T_TRANSPORT_RESET);
	assert_int_equal(event.reason, reason);
	assert_memory_equal(event.lun, address, 8);
}

static void test_hot_plug(void **state)
{
	struct driver_options options = scene_options(0);
	uint8_t cdb[10];

	(void)state;
	scene_open(&options);
	for (unsigned i = 0; i < 6; i++)
		must(driver, scsi_give_event_buffer(event_queue()));
	assert_int_equal(scene_test_unit_ready(5, 0).response, VIRTIO_SCSI_S_BAD_TARGET);
	assert_false(ask("attach", "0:0", "spare")); /* there is one */
	assert_true(ask("attach", "5:0", "spare"));
	expect_transport_event(VIRTIO_SCSI_EVT_RESET_RESCAN, 5);
	must(driver, scsi_settle(request_queue(0), 5, 0));
	scsi_cdb_rw(cdb, false, 0, 8);
	for (unsigned i = 0; i < 4; i++) {
		struct scsi_answer answer =
			scene_command(request_queue(i), 5, 0, cdb, sizeof(cdb), 4096);
		assert_int_equal(answer.response | answer.status, 0);
	}
	assert_false(ask("attach", "6:0", "spare")); /* it is in use */
	assert_true(ask("detach", "5:0", NULL));
	expect_transport_event(VIRTIO_SCSI_EVT_RESET_REMOVED, 5);
	assert_int_equal(scene_test_unit_ready(5, 0).response, VIRTIO_SCSI_S_BAD_TARGET);
	/* Also with commands under way: they come back first. */
	for (unsigned i = 0; i < 4; i++)
		push_slow(request_queue(i), 5);
	assert_true(ask("detach", "4:0", NULL));
	for (unsigned i = 0; i < 4; i++) {
		unsigned aborted = 0;
		assert_int_equal(reap_all(request_queue(i), VIRTIO_SCSI_S_ABORTED, &aborted), 5);
	}
	expect_transport_event(VIRTIO_SCSI_EVT_RESET_REMOVED, 4);
	assert_int_equal(scene_test_unit_ready(4, 0).response, VIRTIO_SCSI_S_BAD_TARGET);
	/* And back. */
	assert_true(ask("attach", "4:0", "spare"));
	expect_transport_event(VIRTIO_SCSI_EVT_RESET_RESCAN, 4);
	scene_settle();
	assert_int_equal(scene_test_unit_ready(0, 0).status, 0);
}

/* --- rings, queues, restarts --------------------------------------------------------- */

/* Writes and reads back, on all request queues at once, each in its part of the disk. */
static void load(unsigned rounds, unsigned seed)
{
	enum { DEPTH = 6, BLOCKS = 16 };
	unsigned queues = driver->queues - SCSI_REQUESTS;
	uint8_t cdb[10];
	static uint8_t expected[BLOCKS * 512];
	uint16_t done[DEPTH];

	for (unsigned round = 0; round < 2 * rounds; round++) {
		bool write = !(round & 1);

		for (unsigned q = 0; q < queues; q++) {
			struct virtq *queue = request_queue(q);
			for (unsigned i = 0; i < DEPTH; i++) {
				uint16_t slot = (uint16_t)virtq_take(queue);
				uint32_t lba = (q * 100 + i) * BLOCKS;
				scsi_cdb_rw(cdb, write, lba, BLOCKS);
				scsi_format(queue, slot, 0, 0, cdb, sizeof(cdb),
					    write ? SCSI_OUT : SCSI_IN, BLOCKS * 512, 1 + i % 6);
				queue->slot[slot].time = lba;
				if (write)
					scene_fill(queue->slot[slot].data, BLOCKS * 512,
						   lba + round / 2 + seed);
				else
					memset(queue->slot[slot].data, 0, BLOCKS * 512);
				virtq_push(queue, slot);
			}
			virtq_publish(queue);
		}
		for (unsigned q = 0; q < queues; q++) {
			struct virtq *queue = request_queue(q);
			for (unsigned left = DEPTH; left;) {
				must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
				int count = virtq_reap(queue, done, DEPTH);
				assert_true(count > 0);
				left -= (unsigned)count;
				while (count--) {
					struct slot *slot = &queue->slot[done[count]];
					struct scsi_answer a = scsi_answer(slot);
					assert_int_equal(a.response | a.status, 0);
					scene_fill(expected, sizeof(expected),
						   (unsigned)slot->time + round / 2 + seed);
					if (!write)
						assert_memory_equal(slot->data, expected,
								    sizeof(expected));
					virtq_release(queue, done[count]);
				}
			}
		}
	}
}

/* A unit is busy until all queues know of its last change: then it is asked again. */
static bool ask_until(const char *verb, const char *disk)
{
	for (unsigned i = 0; i < 100; i++) {
		if (ask(verb, "6:0", disk))
			return true;
		sleep_ms(10);
	}
	return false;
}

static void *plug(void *result)
{
	bool good = true;

	for (unsigned i = 0; i < 15 && good; i++)
		good = ask_until("attach", "spare") && ask_until("detach", NULL);
	atomic_store((atomic_int *)result, good ? 1 : -1);
	return NULL;
}

/* Units that come and go under load disturb nobody. */
static void test_hot_plug_under_load(void **state)
{
	struct driver_options options = scene_options(0);
	atomic_int result = 0;
	pthread_t thread;

	(void)state;
	scene_open(&options);
	assert_int_equal(pthread_create(&thread, NULL, plug, &result), 0);
	for (unsigned i = 0; !atomic_load(&result); i++)
		load(5, i);
	pthread_join(thread, NULL);
	assert_int_equal(result, 1);
}

static void test_all_rings(void **state)
{
	(void)state;
	for (unsigned ring = 0; ring < 8; ring++) {
		for (unsigned queues = SCSI_REQUESTS + 1; queues <= SCENE_QUEUES; queues += 3) {
			struct driver_options options = scene_options(queues);

			options.features = (ring & 1 ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
					   (ring & 2 ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
					   (ring & 4 ? FEATURE(VIRTIO_RING_F_EVENT_IDX) : 0);
			options.inflight = queues > SCSI_REQUESTS + 1;
			scene_open(&options);
			must(driver, scsi_give_event_buffer(event_queue()));
			load(20, ring * 8 + queues);
			must(driver, scsi_task(control_queue(), ABORT_TASK_SET, 0, 0, 0));
			resize("one", (const char *const[]){ "9M", "10M", "11M", "12M", "13M",
							     "14M", "15M", "16M", "17M", "18M",
							     "19M", "20M", "21M", "22M", "23M",
							     "24M" }[ring * 2 + (queues > 3)]);
			expect_resize_event(1, 0, false);
			must(driver, driver_stop(driver));
			driver_close(driver);
			driver = NULL;
		}
	}
}

static void test_reset(void **state)
{
	static const uint8_t prevent[6] = { 0x1e, [4] = 1 };
	struct driver_options options = scene_options(0);

	(void)state;
	scene_open(&options);
	must(driver, scsi_settle(request_queue(0), 2, 0));
	for (unsigned i = 0; i < 3; i++) {
		must(driver, scsi_give_event_buffer(event_queue()));
		push_slow(request_queue(i), 3);
		/* What the guest set is forgotten, too. */
		scene_command(request_queue(i), 2, 0, prevent, sizeof(prevent), 0);
		assert_false(ask("eject", "2:0", NULL));
		must(driver, vu_request(&driver->vu, VU_RESET_DEVICE, NULL, 0, NULL, 0));
		driver_forget(driver);
		must(driver, vu_request_u64(&driver->vu, VU_SET_FEATURES, driver->features));
		must(driver, driver_start(driver));
		assert_true(ask("eject", "2:0", NULL));
		assert_true(ask("insert", "2:0", "spare"));
		scene_settle();
		must(driver, scsi_settle(request_queue(0), 2, 0));
		load(2, i);
	}
}

/* Killed with commands on the way: they are executed again, each once. */
static void survives(bool packed)
{
	struct driver_options options = scene_options(0);

	options.inflight = true;
	options.features = packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0;
	scene_open(&options);
	must(driver, scsi_give_event_buffer(event_queue()));
	load(5, 1);
	for (unsigned i = 0; i < 4; i++)
		push_slow(request_queue(i), 5);
	int task = scsi_task_push(control_queue(), UNIT_RESET, SLOW_TARGET, 0, 0);
	assert_true(task >= 0);
	sleep_ms(SLOW_MS / 4);
	daemon_kill(&scene_daemon);
	daemon_restart(&scene_daemon);
	driver_disconnect(driver);
	driver_restore_bases(driver);
	must(driver, driver_connect(driver));
	must(driver, driver_start(driver));
	assert_int_equal(scsi_wait(control_queue()), task);
	virtq_release(control_queue(), (uint16_t)task);
	for (unsigned i = 0; i < 4; i++)
		must(driver, blk_drain(request_queue(i)));
	scene_settle();
	load(5, 2);
	resize("one", "9M");
	expect_resize_event(1, 0, false);
	must(driver, driver_stop(driver));
}

static void test_survives_a_crash_split(void **state)
{
	(void)state;
	survives(false);
}

static void test_survives_a_crash_packed(void **state)
{
	(void)state;
	survives(true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_start, scene_stop)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_what_is_offered),
		TEST(test_write_reaches_the_image),
		TEST(test_lengths),
		TEST(test_both_ways),
		TEST(test_both_ways_not_negotiated),
		TEST(test_odd_cuts),
		TEST(test_addresses),
		TEST(test_attributes),
		TEST(test_task_management_at_rest),
		TEST(test_abort_one),
		TEST(test_abort_set),
		TEST(test_clear_set),
		TEST(test_unit_reset),
		TEST(test_nexus_reset),
		TEST(test_notifications),
		TEST(test_events),
		TEST(test_events_missed),
		TEST(test_events_not_negotiated),
		TEST(test_hot_plug),
		TEST(test_hot_plug_under_load),
		TEST(test_all_rings),
		TEST(test_reset),
		TEST(test_survives_a_crash_split),
		TEST(test_survives_a_crash_packed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
