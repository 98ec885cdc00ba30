/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport_test.c - an honest VMM: what happens to a device between its first message and its last
 *
 * Resize, memory that comes and goes, rings stopped and started again in the middle of a load,
 * resets, reconnections, several devices on one daemon, messages that arrive in pieces.
 */
#include "check.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DISK_BYTES = 16 << 20, SECTORS = DISK_BYTES / 512 };

static struct daemon daemon_;
static struct driver *driver, *second;
static struct load load, second_load;

/* Two disks, two VMs, a control socket. */
static int start(void **state)
{
	(void)state;
	daemon_prepare(&daemon_);
	daemon_make_image(&daemon_, "a.img", DISK_BYTES);
	daemon_make_image(&daemon_, "b.img", DISK_BYTES);
	daemon_write_file(&daemon_, "config.yaml",
			  "disks:\n"
			  "  a:\n"
			  "    stack:\n"
			  "      - file: {path: %s/a.img}\n"
			  "  b:\n"
			  "    stack:\n"
			  "      - file: {path: %s/b.img}\n"
			  "vms:\n"
			  "  one:\n"
			  "    - {virtio-blk: a, socket: %s/a, queues: 4}\n"
			  "  two:\n"
			  "    - {virtio-blk: b, socket: %s/b, queues: 4}\n",
			  daemon_.dir, daemon_.dir, daemon_.dir, daemon_.dir);
	const char *args[] = { "run", daemon_path(&daemon_, "config.yaml"), "--api",
			       daemon_path(&daemon_, "api"), NULL };
	daemon_start(&daemon_, args);
	daemon_deadline(60);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	load_close(&load);
	load_close(&second_load);
	driver_close(driver);
	driver_close(second);
	driver = second = NULL;
	memset(&load, 0, sizeof(load));
	memset(&second_load, 0, sizeof(second_load));
	daemon_clean(&daemon_);
	return 0;
}

static struct driver *attach(const char *name, struct driver_options options)
{
	struct driver *new;

	options.socket = daemon_path(&daemon_, name);
	options.slots = options.slots ? options.slots : 16;
	options.slot_bytes = 16 * 1024;
	int ret = driver_open(&new, &options);
	if (!driver)
		driver = new;
	else
		second = new;
	must(new, ret);
	return new;
}

static void open_load(struct load *on, struct driver *with)
{
	*on = (struct load){
		.queue = &with->queue[0],
		.sectors = SECTORS,
		.block = 512,
		.max_bytes = 16 * 1024,
		.max_segments = with->options.segments,
		.seed = choose_seed(),
	};
	assert_int_equal(load_open(on), 0);
}

static void test_resize_reaches_the_guest(void **state)
{
	uint8_t bytes[512] = { 1 };

	(void)state;
	attach("a", (struct driver_options){ 0 });
	assert_int_equal(driver->config.capacity, SECTORS);
	const char *args[] = { "resize", "a", "32M", "--api", daemon_path(&daemon_, "api"), NULL };
	assert_int_equal(daemon_command(&daemon_, args), 0);
	assert_int_equal(driver_backend_message(driver, 5000), VU_BACKEND_CONFIG_CHANGE);
	must(driver, driver_read_config(driver));
	assert_int_equal(driver->config.capacity, 2 * SECTORS);
	must(driver, blk_write(&driver->queue[0], 2 * SECTORS - 1, bytes, sizeof(bytes)));
}

static void test_two_devices(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	attach("b", (struct driver_options){ .features = FEATURE(VIRTIO_F_RING_PACKED) });
	open_load(&load, driver);
	open_load(&second_load, second);
	struct load *loads[] = { &load, &second_load };
	for (unsigned round = 0; round < 50; round++)
		for (unsigned i = 0; i < 2; i++)
			must_load(loads[i], load_run(loads[i], 1, 20));
	must_load(&load, load_verify(&load));
	must_load(&second_load, load_verify(&second_load));
}

/* A second VMM on the socket is not let in while the first is attached, nor does it hurt. */
static void test_second_connection(void **state)
{
	struct vu_client client;
	uint64_t features;
	uint8_t bytes[512];

	(void)state;
	attach("a", (struct driver_options){ 0 });
	assert_int_equal(vu_connect(&client, daemon_path(&daemon_, "a")), 0);
	struct vu_message question = { .request = VU_GET_FEATURES, .flags = VU_VERSION };
	int ret = vu_send_raw(&client, &question, VU_HEADER_BYTES, NULL, 0);
	if (!ret)
		ret = vu_receive(client.fd, &question, NULL, 300);
	vu_disconnect(&client);
	must(driver, blk_read(&driver->queue[0], 0, bytes, sizeof(bytes)));
	/* Refused or kept waiting: never served at the same time. */
	assert_true(ret == -ECONNRESET || ret == -ETIMEDOUT);
	must(driver, vu_query_u64(&driver->vu, VU_GET_FEATURES, &features));
}

static void test_reconnect(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	for (unsigned i = 0; i < 5; i++) {
		must_load(&load, load_run(&load, 1, 100));
		/* With and without a clean stop: the VMM may just die. */
		if (i % 2)
			must(driver, driver_stop(driver));
		driver_disconnect(driver);
		driver_forget(driver);
		must(driver, driver_connect(driver));
		must(driver, driver_start(driver));
	}
	must_load(&load, load_verify(&load));
}

static void test_disconnect_under_load(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ .inflight = true });
	open_load(&load, driver);
	for (unsigned i = 0; i < 20; i++) {
		must_load(&load, load_run(&load, 1, 50));
		load_issue(&load, 16);
		driver_disconnect(driver);
		/* What was in flight is finished or done again through the inflight region. */
		sleep_ms(i % 4);
		driver_restore_bases(driver);
		must(driver, driver_connect(driver));
		must(driver, driver_start(driver));
		must_load(&load, load_drain(&load));
	}
	must_load(&load, load_verify(&load));
}

static void stop_and_start(struct driver_options options)
{
	(void)attach("a", options);
	open_load(&load, driver);
	struct virtq *queue = &driver->queue[0];
	for (unsigned i = 0; i < 100; i++) {
		load_issue(&load, 1 + (unsigned)load_random(&load, 16));
		must(driver, driver_stop_queue(driver, queue));
		/* Stopped means stopped: what the daemon took is finished, nothing moves any more.
		 */
		while (load_collect(&load, 0) > 0)
			;
		load.error[0] = '\0';
		load_issue(&load, 3);
		virtq_kick(queue);
		sleep_ms(1);
		uint64_t completed = load.completed;
		if (load_collect(&load, 1) > 0)
			fail_msg("%llu requests completed on a stopped ring",
				 (unsigned long long)(load.completed - completed));
		load.error[0] = '\0';
		must(driver, driver_start_queue(driver, queue));
		virtq_kick(queue);
		must_load(&load, load_drain(&load));
	}
	must_load(&load, load_verify(&load));
}

static void test_stop_and_start_split(void **state)
{
	(void)state;
	stop_and_start((struct driver_options){ .features = FEATURE(VIRTIO_RING_F_EVENT_IDX) });
}

static void test_stop_and_start_packed(void **state)
{
	(void)state;
	stop_and_start((struct driver_options){ .features = FEATURE(VIRTIO_F_RING_PACKED) |
							    FEATURE(VIRTIO_RING_F_INDIRECT_DESC) });
}

static void test_disabled_ring_waits(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 50));
	must(driver, vu_request_state(&driver->vu, VU_SET_VRING_ENABLE, 0, 0));
	load_issue(&load, 8);
	assert_int_equal(load_collect(&load, 100), -ETIMEDOUT);
	load.error[0] = '\0';
	must(driver, vu_request_state(&driver->vu, VU_SET_VRING_ENABLE, 0, 1));
	must_load(&load, load_drain(&load));
	must_load(&load, load_verify(&load));
}

/* Regions added and removed while the ring runs; requests go to the new memory. */
static void test_memory_comes_and_goes(void **state)
{
	uint16_t done;

	(void)state;
	attach("a", (struct driver_options){ .add_regions = true });
	open_load(&load, driver);
	struct virtq *queue = &driver->queue[0];
	for (unsigned i = 0; i < 20; i++) {
		load_issue(&load, 15);
		int number = driver_add_region(driver, 0x2000000000ull + i * 0x100000, 65536);
		assert_true(number > 0);
		struct region *region = &driver->region[number];
		must(driver, driver_send_region(driver, region));
		must_load(&load, load_drain(&load));

		/* One read into the new region. */
		uint16_t slot = (uint16_t)virtq_take(queue);
		virtq_format(queue, slot, VIRTIO_BLK_T_IN, 0, 4096, 1, false);
		queue->slot[slot].piece[1].address = region->guest + 8192;
		virtq_format_pieces(queue, slot);
		virtq_push(queue, slot);
		virtq_publish(queue);
		must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		assert_int_equal(*queue->slot[slot].status, VIRTIO_BLK_S_OK);
		virtq_release(queue, slot);

		load_issue(&load, 15);
		must(driver, driver_remove_region(driver, region));
		must_load(&load, load_drain(&load));
		driver_drop_region(driver);
	}
	must_load(&load, load_verify(&load));
}

static void test_new_table_under_load(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	for (unsigned i = 0; i < 50; i++) {
		load_issue(&load, 16);
		must(driver, driver_send_memory(driver));
		must_load(&load, load_run(&load, 1, 20));
	}
	must_load(&load, load_verify(&load));
}

static void test_reset_device(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	for (unsigned i = 0; i < 5; i++) {
		must_load(&load, load_run(&load, 1, 50));
		must(driver, vu_request(&driver->vu, VU_RESET_DEVICE, NULL, 0, NULL, 0));
		driver_forget(driver);
		must(driver, vu_request_u64(&driver->vu, VU_SET_FEATURES, driver->features));
		must(driver, driver_start(driver));
	}
	must_load(&load, load_verify(&load));
}

static void test_status_zero_resets(void **state)
{
	uint64_t status;

	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 50));
	must(driver, vu_query_u64(&driver->vu, VU_GET_STATUS, &status));
	assert_int_equal(status, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
					 STATUS_DRIVER_OK);
	must(driver, driver_stop(driver));
	must(driver, vu_request_u64(&driver->vu, VU_SET_STATUS, 0));
	must(driver, vu_query_u64(&driver->vu, VU_GET_STATUS, &status));
	assert_int_equal(status, 0);
	driver_forget(driver);
	must(driver, vu_request_u64(&driver->vu, VU_SET_FEATURES, driver->features));
	must(driver, driver_start(driver));
	must_load(&load, load_run(&load, 1, 50));
	must_load(&load, load_verify(&load));
}

/* QEMU enables rings the guest never set up; and uses fewer than the device has. */
static void test_enable_of_unused_rings(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	for (unsigned i = 1; i < 4; i++)
		must(driver, vu_request_state(&driver->vu, VU_SET_VRING_ENABLE, i, 1));
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 100));
	for (unsigned i = 1; i < 4; i++)
		must(driver, vu_request_state(&driver->vu, VU_SET_VRING_ENABLE, i, 0));
	must_load(&load, load_run(&load, 1, 100));
}

/* libblkio sets NEED_REPLY on questions too: one answer, not two. */
static void test_need_reply_on_questions(void **state)
{
	uint64_t value;

	(void)state;
	attach("a", (struct driver_options){ .add_regions = true });
	driver->vu.ack_gets = true;
	for (unsigned i = 0; i < 3; i++) {
		must(driver, vu_query_u64(&driver->vu, VU_GET_FEATURES, &value));
		assert_int_equal(value, driver->offered);
		must(driver, driver_read_config(driver));
		must(driver, vu_query_u64(&driver->vu, VU_GET_QUEUE_NUM, &value));
		assert_int_equal(value, 4);
	}
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 100));
	must(driver, driver_stop(driver));
}

static void test_no_protocol_features(void **state)
{
	(void)state;
	/* Only what cannot be done without: no acknowledgements, one table, no status. */
	attach("a", (struct driver_options){ .protocol = VU_PF_CONFIG });
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 200));
	must_load(&load, load_verify(&load));
	must(driver, driver_stop(driver));
}

/* A message may arrive a byte at a time, and two in one piece. */
static void test_messages_in_pieces(void **state)
{
	struct vu_client client;
	struct vu_message answer;
	struct vu_message question = { .request = VU_GET_FEATURES, .flags = VU_VERSION };
	uint8_t twice[2 * VU_HEADER_BYTES];

	(void)state;
	assert_int_equal(vu_connect(&client, daemon_path(&daemon_, "a")), 0);
	for (unsigned i = 0; i < VU_HEADER_BYTES; i++) {
		assert_int_equal(vu_send_raw(&client, (char *)&question + i, 1, NULL, 0), 0);
		sleep_ms(2);
	}
	assert_int_equal(vu_receive(client.fd, &answer, NULL, 5000), 0);
	assert_int_equal(answer.request, VU_GET_FEATURES);
	memcpy(twice, &question, VU_HEADER_BYTES);
	question.request = VU_GET_PROTOCOL_FEATURES;
	memcpy(twice + VU_HEADER_BYTES, &question, VU_HEADER_BYTES);
	assert_int_equal(vu_send_raw(&client, twice, sizeof(twice), NULL, 0), 0);
	assert_int_equal(vu_receive(client.fd, &answer, NULL, 5000), 0);
	assert_int_equal(answer.request, VU_GET_FEATURES);
	assert_int_equal(vu_receive(client.fd, &answer, NULL, 5000), 0);
	assert_int_equal(answer.request, VU_GET_PROTOCOL_FEATURES);
	vu_disconnect(&client);
}

/* A ring with a backlog is looked at when it starts: after a reconnection nobody kicks. */
/* Who comes while the daemon has no descriptors is served when it has. */
static void test_no_descriptors(void **state)
{
	struct vu_message question = { .request = VU_GET_FEATURES, .flags = VU_VERSION }, answer;
	struct rlimit before, none;
	struct vu_client client;

	(void)state;
	assert_int_equal(prlimit(daemon_.pid, RLIMIT_NOFILE, NULL, &before), 0);
	none = before;
	none.rlim_cur = 3;
	assert_int_equal(prlimit(daemon_.pid, RLIMIT_NOFILE, &none, NULL), 0);
	daemon_mark_log(&daemon_);
	assert_int_equal(vu_connect(&client, daemon_path(&daemon_, "a")), 0);
	assert_int_equal(vu_send_raw(&client, &question, VU_HEADER_BYTES, NULL, 0), 0);
	assert_true(daemon_logged(&daemon_, "cannot accept a VMM", 5000));
	assert_int_equal(prlimit(daemon_.pid, RLIMIT_NOFILE, &before, NULL), 0);
	assert_int_equal(vu_receive(client.fd, &answer, NULL, 5000), 0);
	assert_int_equal(answer.request, VU_GET_FEATURES);
	vu_disconnect(&client);
}

static void test_backlog_needs_no_kick(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 20));
	must(driver, driver_stop(driver));
	driver_disconnect(driver);
	load_issue(&load, 16);
	/* The kick of that issue, if any, is not to be seen by the daemon. */
	uint64_t count;
	if (read(driver->queue[0].kick, &count, sizeof(count)) < 0)
		assert_int_equal(errno, EAGAIN);
	must(driver, driver_connect(driver));
	must(driver, driver_start(driver));
	must_load(&load, load_drain(&load));
	must_load(&load, load_verify(&load));
}

static void test_idle_costs_nothing(void **state)
{
	uint8_t bytes[512];

	(void)state;
	attach("a", (struct driver_options){ 0 });
	must(driver, blk_read(&driver->queue[0], 0, bytes, sizeof(bytes)));
	sleep_ms(300);
	int64_t before = daemon_cpu_ms(&daemon_);
	sleep_ms(1000);
	assert_in_range(daemon_cpu_ms(&daemon_) - before, 0, 20);
}

static void test_sigterm_drains(void **state)
{
	(void)state;
	attach("a", (struct driver_options){ 0 });
	open_load(&load, driver);
	must_load(&load, load_run(&load, 1, 100));
	load_issue(&load, 16);
	assert_int_equal(daemon_stop(&daemon_), 0);
	/* The rings may hold requests it never took; those it took are completed. */
	while (load_collect(&load, 0) > 0)
		;
	assert_true(access(daemon_path(&daemon_, "a"), F_OK) != 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_resize_reaches_the_guest),
		TEST(test_two_devices),
		TEST(test_second_connection),
		TEST(test_reconnect),
		TEST(test_disconnect_under_load),
		TEST(test_stop_and_start_split),
		TEST(test_stop_and_start_packed),
		TEST(test_disabled_ring_waits),
		TEST(test_memory_comes_and_goes),
		TEST(test_new_table_under_load),
		TEST(test_reset_device),
		TEST(test_status_zero_resets),
		TEST(test_enable_of_unused_rings),
		TEST(test_need_reply_on_questions),
		TEST(test_no_protocol_features),
		TEST(test_messages_in_pieces),
		TEST(test_no_descriptors),
		TEST(test_backlog_needs_no_kick),
		TEST(test_idle_costs_nothing),
		TEST(test_sigterm_drains),
	};

	return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
