/* SPDX-License-Identifier: BSD-3-Clause */
/* hostile.c - the scene for a guest that lies: two VMs on one daemon; see hostile.h */
#include "hostile.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum {
	DISK_BYTES = 16 << 20,
	SETTLE_MS = 5000,
	QUIET_MS = 30,
	PROGRESS = 20, /* requests the honest VM must get done after a lie */
};

struct daemon hostile_daemon;
struct driver *liar;

static struct {
	struct driver *driver;
	struct load load;
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_ullong completed;
	atomic_int failed; /* -errno of the load */
} honest;

/* No cmocka here: its assertions belong to the test's thread. */
static void *be_honest(void *unused)
{
	while (!atomic_load(&honest.stop)) {
		int ret = load_run(&honest.load, 1, 10);
		if (ret) {
			atomic_store(&honest.failed, ret);
			break;
		}
		atomic_store(&honest.completed, honest.load.completed);
	}
	return unused;
}

static int start(bool memory)
{
	char liar_disk[160];

	daemon_prepare(&hostile_daemon);
	daemon_deadline(60);
	daemon_make_image(&hostile_daemon, "liar.img", DISK_BYTES);
	daemon_make_image(&hostile_daemon, "honest.img", DISK_BYTES);
	snprintf(liar_disk, sizeof(liar_disk),
		 memory ? "memory: {size: 16M}" : "file: {path: %s/liar.img}", hostile_daemon.dir);
	daemon_write_file(&hostile_daemon, "config.yaml",
			  "disks:\n"
			  "  liar:\n"
			  "    stack:\n"
			  "      - %s\n"
			  "  honest:\n"
			  "    stack:\n"
			  "      - file: {path: %s/honest.img}\n"
			  "vms:\n"
			  "  liar:\n"
			  "    - {virtio-blk: liar, socket: %s/liar, queues: 2, queue-size: 256}\n"
			  "  honest:\n"
			  "    - {virtio-blk: honest, socket: %s/honest}\n",
			  liar_disk, hostile_daemon.dir, hostile_daemon.dir, hostile_daemon.dir);
	const char *args[] = { "run", daemon_path(&hostile_daemon, "config.yaml"), "--api",
			       daemon_path(&hostile_daemon, "api"), NULL };
	daemon_start(&hostile_daemon, args);

	struct driver_options options = { .socket = daemon_path(&hostile_daemon, "honest"),
					  .slots = 8,
					  .slot_bytes = 16384 };
	int ret = driver_open(&honest.driver, &options);
	must(honest.driver, ret);
	honest.load = (struct load){ .queue = &honest.driver->queue[0],
				     .sectors = DISK_BYTES / 512,
				     .block = 512,
				     .max_bytes = 16384,
				     .max_segments = 1,
				     .seed = 4711 };
	assert_int_equal(load_open(&honest.load), 0);
	atomic_store(&honest.stop, false);
	atomic_store(&honest.failed, 0);
	atomic_store(&honest.completed, 0);
	assert_int_equal(pthread_create(&honest.thread, NULL, be_honest, NULL), 0);
	honest.running = true;
	return 0;
}

int hostile_start(void **state)
{
	(void)state;
	return start(false);
}

int hostile_start_memory(void **state)
{
	(void)state;
	return start(true);
}

static void stop_honest(void)
{
	if (!honest.running)
		return;
	atomic_store(&honest.stop, true);
	pthread_join(honest.thread, NULL);
	honest.running = false;
}

int hostile_stop(void **state)
{
	(void)state;
	stop_honest();
	load_close(&honest.load);
	driver_close(honest.driver);
	driver_close(liar);
	liar = honest.driver = NULL;
	daemon_clean(&hostile_daemon);
	return 0;
}

static void open_liar(uint64_t features)
{
	struct driver_options options = { .socket = daemon_path(&hostile_daemon, "liar"),
					  .features = features,
					  .queues = 2,
					  .queue_size = 64,
					  .segments = 6,
					  .slots = 8 };
	int ret = driver_open(&liar, &options);
	must(liar, ret);
}

struct virtq *liar_attach(uint64_t features)
{
	uint8_t bytes[512];

	open_liar(features);
	must(liar, blk_read(&liar->queue[0], 0, bytes, sizeof(bytes)));
	daemon_mark_log(&hostile_daemon);
	return &liar->queue[0];
}

void liar_good_read(struct virtq *queue, struct piece piece[3])
{
	struct slot *slot = &queue->slot[0];

	*slot->header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
	*slot->status = 0xff;
	memset(slot->data, 0x5a, 4096);
	piece[0] = (struct piece){ .address = slot->header_guest,
				   .length = sizeof(*slot->header),
				   .flags = VRING_DESC_F_NEXT };
	piece[1] = (struct piece){ .address = slot->data_guest,
				   .length = 4096,
				   .flags = VRING_DESC_F_WRITE | VRING_DESC_F_NEXT };
	piece[2] = (struct piece){ .address = slot->status_guest,
				   .length = 1,
				   .flags = VRING_DESC_F_WRITE };
}

void expect_reason(void)
{
	if (!daemon_logged(&hostile_daemon, "liar", SETTLE_MS)) {
		daemon_show_log(&hostile_daemon);
		fail_msg("the log has no warning that names the liar");
	}
}

static bool is_broken(void)
{
	uint64_t status;

	return !vu_query_u64(&liar->vu, VU_GET_STATUS, &status) && status & STATUS_NEEDS_RESET;
}

void expect_needs_reset(void)
{
	int64_t end = clock_ms() + SETTLE_MS;

	while (!is_broken()) {
		if (clock_ms() > end)
			fail_msg("the device status lacks DEVICE_NEEDS_RESET");
		sleep_ms(1);
	}
}

static bool signalled(int event, int timeout_ms)
{
	struct pollfd pollfd = { .fd = event, .events = POLLIN };

	return poll(&pollfd, 1, timeout_ms) == 1;
}

void expect_broken(struct virtq *queue)
{
	expect_reason();
	expect_needs_reset();
	if (!signalled(queue->err, SETTLE_MS))
		fail_msg("the ring's error event was not signalled");
	/* At rest: a good request on the other queue is not served either. */
	struct virtq *other = &liar->queue[1];
	int slot = virtq_take(other);
	virtq_format(other, (uint16_t)slot, VIRTIO_BLK_T_IN, 0, 512, 1, false);
	virtq_push(other, (uint16_t)slot);
	virtq_publish(other);
	virtq_kick(other);
	if (virtq_wait(other, QUIET_MS) != -ETIMEDOUT)
		fail_msg("the broken device still serves a ring");
}

void expect_outcome(struct virtq *queue, enum outcome outcome)
{
	volatile uint8_t *status = queue->slot[0].status;
	int64_t end = clock_ms() + SETTLE_MS;

	if (outcome == BREAKS) {
		expect_broken(queue);
		return;
	}
	while (*status == 0xff && clock_ms() < end) {
		if (outcome != FAILS && outcome != SERVED && is_broken()) {
			expect_broken(queue);
			return;
		}
		sleep_ms(1);
	}
	if (*status == 0xff)
		fail_msg("neither an answer nor a broken device");
	if (outcome == SERVED)
		assert_int_equal(*status, VIRTIO_BLK_S_OK);
	else if (outcome != SETTLED && *status == VIRTIO_BLK_S_OK)
		fail_msg("the lie was answered with OK");
	assert_in_range(*status, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP);
}

void expect_others_go_on(void)
{
	unsigned long long before = atomic_load(&honest.completed);
	int64_t end = clock_ms() + 2 * SETTLE_MS;

	while (clock_ms() < end && !atomic_load(&honest.failed) &&
	       atomic_load(&honest.completed) < before + PROGRESS)
		sleep_ms(1);
	if (!daemon_alive(&hostile_daemon)) {
		daemon_show_log(&hostile_daemon);
		fail_msg("the daemon died");
	}
	if (atomic_load(&honest.failed))
		fail_msg("the honest VM: %s", honest.load.error);
	if (atomic_load(&honest.completed) < before + PROGRESS)
		fail_msg("the honest VM stands still");
	stop_honest();
	must_load(&honest.load, load_verify(&honest.load));
	atomic_store(&honest.stop, false);
	assert_int_equal(pthread_create(&honest.thread, NULL, be_honest, NULL), 0);
	honest.running = true;
}

static void work(void)
{
	uint8_t out[4096], in[4096];

	for (unsigned i = 0; i < 2; i++) {
		memset(out, (int)(i + 1), sizeof(out));
		must(liar, blk_write(&liar->queue[i], 64, out, sizeof(out)));
		must(liar, blk_read(&liar->queue[i], 64, in, sizeof(in)));
		assert_memory_equal(in, out, sizeof(in));
	}
}

void expect_recovery(bool memory_lost)
{
	uint64_t features = liar->options.features, status;

	if (!memory_lost && liar->vu.fd >= 0) {
		must(liar, vu_request_u64(&liar->vu, VU_SET_STATUS, 0));
		must(liar, vu_query_u64(&liar->vu, VU_GET_STATUS, &status));
		assert_int_equal(status, 0);
		driver_forget(liar);
		must(liar, vu_request_u64(&liar->vu, VU_SET_FEATURES, liar->features));
		must(liar, driver_start(liar));
		work();
	}
	driver_close(liar);
	liar = NULL;
	open_liar(features);
	work();
}
