/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blk_test.c - the virtio-blk device: every request, the configuration, what it must refuse
 *
 * Each test starts a daemon of its own with the options it is about.
 */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_BYTES = 16 << 20, SECTORS = DISK_BYTES / 512 };

static struct daemon daemon_;
static struct driver *driver;

static int prepare(void **state)
{
	(void)state;
	daemon_prepare(&daemon_);
	daemon_make_image(&daemon_, "disk.img", DISK_BYTES);
	daemon_deadline(60);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	driver_close(driver);
	driver = NULL;
	daemon_clean(&daemon_);
	return 0;
}

/* penstock serve disk.img with up to three options, and a driver on it. */
static struct virtq *serve(const char *a, const char *b, const char *c)
{
	const char *args[] = { "serve",
			       daemon_path(&daemon_, "disk.img"),
			       "--socket",
			       daemon_path(&daemon_, "s"),
			       a,
			       a ? b : NULL,
			       b ? c : NULL,
			       NULL };
	struct driver_options options = { .socket = daemon_path(&daemon_, "s") };

	daemon_start(&daemon_, args);
	int ret = driver_open(&driver, &options);
	must(driver, ret);
	return &driver->queue[0];
}

static void fill(uint8_t *bytes, size_t count, unsigned seed)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)((i * 31 + seed * 7 + (i >> 8)) | 1);
}

static void assert_zero(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i])
			fail_msg("byte %zu is %u, not 0", i, bytes[i]);
}

static void test_write_reaches_the_image(void **state)
{
	static uint8_t out[65536], in[65536];
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	fill(out, sizeof(out), 1);
	must(driver, blk_write(queue, 8, out, sizeof(out)));
	must(driver, blk_flush(queue));
	must(driver, blk_read(queue, 8, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
	must(driver, driver_stop(driver));
	driver_disconnect(driver);
	assert_int_equal(daemon_stop(&daemon_), 0);

	int fd = open(daemon_path(&daemon_, "disk.img"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, in, sizeof(in), 8 * 512), sizeof(in));
	close(fd);
	assert_memory_equal(in, out, sizeof(in));
}

static void test_last_block(void **state)
{
	uint8_t out[512], in[512];
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	fill(out, sizeof(out), 2);
	must(driver, blk_write(queue, SECTORS - 1, out, sizeof(out)));
	must(driver, blk_read(queue, SECTORS - 1, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
}

static void test_get_id(void **state)
{
	char id[VIRTIO_BLK_ID_BYTES + 1];
	struct virtq *queue = serve("serial=a-serial-of-20-bytes", NULL, NULL);

	(void)state;
	must(driver, blk_get_id(queue, id));
	assert_string_equal(id, "a-serial-of-20-bytes");
}

static void test_write_zeroes(void **state)
{
	static uint8_t out[65536], in[65536];
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_true(driver->features & FEATURE(VIRTIO_BLK_F_WRITE_ZEROES));
	for (int unmap = 0; unmap < 2; unmap++) {
		fill(out, sizeof(out), 3);
		must(driver, blk_write(queue, 0, out, sizeof(out)));
		must(driver, blk_write_zeroes(queue, 3, 100, unmap));
		must(driver, blk_read(queue, 0, in, sizeof(in)));
		assert_memory_equal(in, out, 3 * 512);
		assert_zero(in + 3 * 512, 100 * 512);
		assert_memory_equal(in + 103 * 512, out + 103 * 512, sizeof(in) - 103 * 512);
	}
}

static void test_discard_frees_space(void **state)
{
	static uint8_t out[65536], in[65536];
	struct virtq *queue = serve(NULL, NULL, NULL);
	struct stat before, after;

	(void)state;
	assert_true(driver->features & FEATURE(VIRTIO_BLK_F_DISCARD));
	fill(out, sizeof(out), 4);
	for (unsigned i = 0; i < 16; i++)
		must(driver, blk_write(queue, i * 128, out, sizeof(out)));
	must(driver, blk_flush(queue));
	assert_int_equal(stat(daemon_path(&daemon_, "disk.img"), &before), 0);
	must(driver, blk_discard(queue, 128, 14 * 128));
	must(driver, blk_flush(queue));
	assert_int_equal(stat(daemon_path(&daemon_, "disk.img"), &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, before.st_size);
	must(driver, blk_read(queue, 2 * 128, in, sizeof(in)));
	assert_zero(in, sizeof(in));
	must(driver, blk_read(queue, 0, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
	must(driver, blk_read(queue, 15 * 128, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
}

static void test_many_ranges_in_one_request(void **state)
{
	static uint8_t out[65536], in[65536];
	struct virtio_blk_discard_write_zeroes ranges[2] = { { .sector = 2, .num_sectors = 3 },
							     { .sector = 64, .num_sectors = 5 } };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	if (driver->config.max_write_zeroes_seg < 2) {
		/* One range is the most it says: then two must be refused. */
		assert_int_not_equal(blk_request(queue, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges,
						 sizeof(ranges), true),
				     VIRTIO_BLK_S_OK);
		return;
	}
	fill(out, sizeof(out), 5);
	must(driver, blk_write(queue, 0, out, sizeof(out)));
	must(driver,
	     blk_request(queue, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, sizeof(ranges), true));
	must(driver, blk_read(queue, 0, in, sizeof(in)));
	memset(out + 2 * 512, 0, 3 * 512);
	memset(out + 64 * 512, 0, 5 * 512);
	assert_memory_equal(in, out, sizeof(in));
}

static void test_config_fields(void **state)
{
	struct virtq *queue = serve("queues=3", "queue-size=64", "block-size=4096");
	const struct virtio_blk_config *config = &driver->config;
	uint64_t needed = FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_SIZE_MAX) |
			  FEATURE(VIRTIO_BLK_F_BLK_SIZE) | FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
			  FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_CONFIG_WCE) |
			  FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES) |
			  FEATURE(VIRTIO_BLK_F_MQ) | FEATURE(VIRTIO_F_RING_PACKED) |
			  FEATURE(VIRTIO_RING_F_INDIRECT_DESC) | FEATURE(VIRTIO_RING_F_EVENT_IDX) |
			  FEATURE(VIRTIO_F_VERSION_1) | VU_F_PROTOCOL_FEATURES;

	(void)state;
	(void)queue;
	assert_int_equal(driver->offered & needed, needed);
	assert_false(driver->offered & FEATURE(VIRTIO_BLK_F_RO));
	assert_false(driver->offered & FEATURE(VIRTIO_F_ACCESS_PLATFORM));
	assert_int_equal(driver->protocol_offered & VU_PF_ALL, VU_PF_ALL & ~VU_PF_NET);
	assert_int_equal(driver->protocol_offered & ~(uint64_t)0x1ffff, 0);
	assert_int_equal(config->capacity, SECTORS);
	assert_in_range(config->seg_max, 1, 64);
	assert_in_range(config->size_max, 65536, UINT32_MAX);
	assert_int_equal(config->blk_size, 4096);
	assert_int_equal(config->alignment_offset, 0);
	assert_int_equal(config->wce, 1);
	assert_int_equal(config->num_queues, 3);
	assert_int_equal(driver->queues_max, 3);
	assert_true(driver->memory_slots >= 32);
	assert_in_range(config->max_discard_sectors, 8, UINT32_MAX);
	assert_in_range(config->max_discard_seg, 1, 1024);
	assert_in_range(config->discard_sector_alignment, 8, 65536);
	assert_in_range(config->max_write_zeroes_sectors, 8, UINT32_MAX);
	assert_in_range(config->max_write_zeroes_seg, 1, 1024);
}

static void test_config_beyond_its_end(void **state)
{
	struct vu_config wanted = { .offset = 4000, .size = 8 };
	struct vu_message answer;

	(void)state;
	serve(NULL, NULL, NULL);
	int ret = vu_query(&driver->vu, VU_GET_CONFIG, &wanted, 12 + 8, &answer, NULL);
	/* An error is an answer with no configuration in it. */
	must(driver, ret);
	assert_true(answer.size == 0 || answer.payload.config.size == 0);
	must(driver, driver_read_config(driver));
}

static void test_block_size_4096(void **state)
{
	static uint8_t out[8192], in[8192];
	struct virtq *queue = serve("block-size=4096", NULL, NULL);

	(void)state;
	fill(out, sizeof(out), 6);
	must(driver, blk_write(queue, 16, out, sizeof(out)));
	must(driver, blk_read(queue, 16, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
	/* Not whole blocks. */
	assert_int_equal(blk_read(queue, 1, in, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_read(queue, 0, in, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_write(queue, 0, out, 4096 + 512), VIRTIO_BLK_S_IOERR);
	must(driver, blk_read(queue, 16, in, sizeof(in)));
	assert_memory_equal(in, out, sizeof(in));
}

static void test_sizes_not_of_whole_sectors(void **state)
{
	uint8_t bytes[1024] = { 0 };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_int_equal(blk_read(queue, 0, bytes, 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_write(queue, 0, bytes, 513), VIRTIO_BLK_S_IOERR);
	must(driver, blk_write(queue, 0, bytes, 1024));
}

static void test_out_of_capacity(void **state)
{
	uint8_t bytes[4096] = { 0 };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_int_equal(blk_read(queue, SECTORS, bytes, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_write(queue, SECTORS, bytes, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_write(queue, SECTORS - 1, bytes, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_read(queue, UINT64_MAX, bytes, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_read(queue, UINT64_MAX / 512, bytes, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_read(queue, UINT64_MAX / 512 + 1, bytes, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_discard(queue, SECTORS - 8, 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_write_zeroes(queue, UINT64_MAX - 7, 16, false), VIRTIO_BLK_S_IOERR);
	must(driver, blk_read(queue, SECTORS - 1, bytes, 512));
}

static void test_read_only(void **state)
{
	uint8_t bytes[4096], in[4096];
	struct virtq *queue = serve("read-only=true", NULL, NULL);

	(void)state;
	fill(bytes, sizeof(bytes), 7);
	assert_true(driver->offered & FEATURE(VIRTIO_BLK_F_RO));
	assert_int_equal(blk_write(queue, 0, bytes, sizeof(bytes)), VIRTIO_BLK_S_IOERR);
	/* Their features are not offered. */
	assert_int_equal(blk_write_zeroes(queue, 0, 8, false), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_discard(queue, 0, 8), VIRTIO_BLK_S_UNSUPP);
	must(driver, blk_read(queue, 0, in, sizeof(in)));
	assert_zero(in, sizeof(in));
}

static void test_unsupported_requests(void **state)
{
	uint8_t bytes[512] = { 0 };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_int_equal(blk_request(queue, 0x7777, 0, bytes, 512, true), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_request(queue, VIRTIO_BLK_T_SCSI_CMD, 0, bytes, 512, true),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_request(queue, VIRTIO_BLK_T_SECURE_ERASE, 0, bytes, 16, true),
			 VIRTIO_BLK_S_UNSUPP);
	must(driver, blk_read(queue, 0, bytes, 512));
}

/* Virtio 1.2, 5.2.6.2: reserved flag bits, and unmap in a discard, are answered with UNSUPP. */
static void test_range_flags(void **state)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = 0,
							 .num_sectors = 8,
							 .flags = 1 };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_int_equal(blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range), true),
			 VIRTIO_BLK_S_UNSUPP);
	range.flags = 0x80;
	assert_int_equal(blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range), true),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(
		blk_request(queue, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range), true),
		VIRTIO_BLK_S_UNSUPP);
}

static void assert_refused(int status)
{
	assert_in_range(status, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP);
}

static void test_ranges_of_wrong_size(void **state)
{
	uint8_t bytes[64] = { 0 };
	struct virtio_blk_discard_write_zeroes huge = { .sector = 0, .num_sectors = UINT32_MAX };
	struct virtq *queue = serve(NULL, NULL, NULL);

	(void)state;
	assert_refused(blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, bytes, 15, true));
	assert_refused(blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, bytes, 17, true));
	assert_refused(blk_request(queue, VIRTIO_BLK_T_WRITE_ZEROES, 0, bytes, 0, true));
	assert_refused(blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, &huge, sizeof(huge), true));
	must(driver, blk_flush(queue));
}

static void test_get_id_into_a_short_buffer(void **state)
{
	char id[8] = "";
	struct virtq *queue = serve("serial=0123456789abcdef", NULL, NULL);

	(void)state;
	/* The id as far as it fits, or a refusal; nothing behind the buffer. */
	memset(queue->slot[queue->free[queue->free_count - 1]].data, 0x55, 64);
	uint8_t *data = queue->slot[queue->free[queue->free_count - 1]].data;
	int status = blk_request(queue, VIRTIO_BLK_T_GET_ID, 0, id, 4, false);
	assert_in_range(status, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR);
	if (status == VIRTIO_BLK_S_OK)
		assert_memory_equal(id, "0123", 4);
	assert_int_equal(data[4], 0x55);
}

static void test_write_cache_toggles(void **state)
{
	uint8_t wce = 0, bytes[4096];
	struct virtq *queue = serve(NULL, NULL, NULL);
	uint32_t offset = offsetof(struct virtio_blk_config, wce);

	(void)state;
	fill(bytes, sizeof(bytes), 8);
	assert_int_equal(driver->config.wce, 1);
	must(driver, driver_write_config(driver, offset, &wce, 1));
	must(driver, driver_read_config(driver));
	assert_int_equal(driver->config.wce, 0);
	must(driver, blk_write(queue, 0, bytes, sizeof(bytes)));
	wce = 1;
	must(driver, driver_write_config(driver, offset, &wce, 1));
	must(driver, driver_read_config(driver));
	assert_int_equal(driver->config.wce, 1);
	must(driver, blk_flush(queue));
}

static void test_read_only_config_fields(void **state)
{
	uint64_t capacity = 1;

	(void)state;
	serve(NULL, NULL, NULL);
	assert_int_not_equal(driver_write_config(driver, 0, &capacity, sizeof(capacity)), 0);
	/* Whether refused or the connection ended, the capacity is what it was. */
	driver_disconnect(driver);
	driver_forget(driver);
	must(driver, driver_connect(driver));
	assert_int_equal(driver->config.capacity, SECTORS);
}

static void test_writethrough_says_so(void **state)
{
	(void)state;
	serve("cache=writethrough", NULL, NULL);
	assert_int_equal(driver->config.wce, 0);
}

static void test_disk_larger_than_the_image(void **state)
{
	uint8_t bytes[4096], in[4096];
	struct virtq *queue = serve("size=32M", NULL, NULL);

	(void)state;
	assert_int_equal(driver->config.capacity, 2 * SECTORS);
	fill(bytes, sizeof(bytes), 9);
	must(driver, blk_read(queue, SECTORS + 8, in, sizeof(in)));
	assert_zero(in, sizeof(in));
	assert_int_equal(blk_write(queue, SECTORS + 8, bytes, sizeof(bytes)), VIRTIO_BLK_S_IOERR);
	/* Across the end: the image's part and zeroes. */
	must(driver, blk_write(queue, SECTORS - 4, bytes, 2048));
	must(driver, blk_read(queue, SECTORS - 4, in, sizeof(in)));
	assert_memory_equal(in, bytes, 2048);
	assert_zero(in + 2048, 2048);
}

static void test_disk_smaller_than_the_image(void **state)
{
	uint8_t bytes[512] = { 0 };
	struct virtq *queue = serve("size=8M", NULL, NULL);

	(void)state;
	assert_int_equal(driver->config.capacity, SECTORS / 2);
	assert_int_equal(blk_read(queue, SECTORS / 2, bytes, 512), VIRTIO_BLK_S_IOERR);
	must(driver, blk_read(queue, SECTORS / 2 - 1, bytes, 512));
}

static void test_many_segments(void **state)
{
	struct driver_options options = {
		.segments = SEGMENTS_MAX,
		.queue_size = 256,
		.slots = 1,
		.slot_bytes = 256 * 1024,
		.features = FEATURE(VIRTIO_RING_F_INDIRECT_DESC),
	};
	uint16_t done;

	(void)state;
	serve("queue-size=256", NULL, NULL);
	driver_close(driver);
	options.socket = daemon_path(&daemon_, "s");
	int ret = driver_open(&driver, &options);
	must(driver, ret);
	struct virtq *queue = &driver->queue[0];
	struct slot *slot = &queue->slot[0];
	unsigned segments = driver->config.seg_max < SEGMENTS_MAX ? driver->config.seg_max
								  : SEGMENTS_MAX;
	assert_true(segments >= 64);
	for (unsigned odd = 0; odd < 2; odd++) {
		uint16_t index = (uint16_t)virtq_take(queue);
		assert_int_equal(index, 0);
		fill(slot->data, options.slot_bytes, 10 + odd);
		virtq_format(queue, 0, VIRTIO_BLK_T_OUT, 1, options.slot_bytes, segments, odd);
		assert_int_equal(slot->pieces, segments + 2);
		virtq_push(queue, 0);
		virtq_publish(queue);
		must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		assert_int_equal(*slot->status, VIRTIO_BLK_S_OK);
		uint8_t *copy = malloc(options.slot_bytes);
		memcpy(copy, slot->data, options.slot_bytes);
		memset(slot->data, 0, options.slot_bytes);
		virtq_format(queue, 0, VIRTIO_BLK_T_IN, 1, options.slot_bytes, segments, !odd);
		virtq_push(queue, 0);
		virtq_publish(queue);
		must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		assert_int_equal(*slot->status, VIRTIO_BLK_S_OK);
		int differs = memcmp(copy, slot->data, options.slot_bytes);
		free(copy);
		assert_int_equal(differs, 0);
		virtq_release(queue, 0);
	}
}

/* A ring can be full of indirect requests; storage that takes its time is no lie of the guest's. */
static void test_a_full_ring(void **state)
{
	struct driver_options options = {
		.queue_size = 16,
		.slots = 16,
		.slot_bytes = 4096,
		.features = FEATURE(VIRTIO_RING_F_INDIRECT_DESC),
	};
	uint16_t done[16];
	unsigned reaped = 0;

	(void)state;
	daemon_write_file(&daemon_, "c.yaml",
			  "disks: {d: {stack: [delay: {delay: 300ms}, null]}}\n"
			  "vms: {v: [{virtio-blk: d, queue-size: 16, socket: %s}]}\n",
			  daemon_path(&daemon_, "s"));
	const char *args[] = { "run", daemon_path(&daemon_, "c.yaml"), NULL };
	daemon_start(&daemon_, args);
	options.socket = daemon_path(&daemon_, "s");
	int ret = driver_open(&driver, &options);
	must(driver, ret);
	struct virtq *queue = &driver->queue[0];
	for (unsigned i = 0; i < 16; i++) {
		uint16_t slot = (uint16_t)virtq_take(queue);

		virtq_format(queue, slot, VIRTIO_BLK_T_IN, i, 4096, 1, 0);
		virtq_push(queue, slot);
		/* Each is seen alone, and the last one when the ring is full of requests. */
		virtq_publish(queue);
	}
	while (reaped < 16) {
		must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
		int n = virtq_reap(queue, done, 16);
		assert_true(n >= 0);
		reaped += (unsigned)n;
	}
	assert_false(daemon_logged(&daemon_, "stopped", 0));
}

/* Any piece of a request may be cut anywhere: header in three, status alone, data with holes
 * between. */
static void test_any_layout(void **state)
{
	struct driver_options options = { .segments = 6 };
	uint16_t done;

	(void)state;
	serve(NULL, NULL, NULL);
	driver_close(driver);
	options.socket = daemon_path(&daemon_, "s");
	int ret = driver_open(&driver, &options);
	must(driver, ret);
	struct virtq *queue = &driver->queue[0];
	uint16_t index = (uint16_t)virtq_take(queue);
	struct slot *slot = &queue->slot[index];
	fill(slot->data, 8192, 12);
	virtq_format(queue, index, VIRTIO_BLK_T_OUT, 24, 1024, 1, false);
	slot->piece[0] = (struct piece){ .address = slot->header_guest, .length = 3 };
	slot->piece[1] = (struct piece){ .address = slot->header_guest + 3, .length = 12 };
	slot->piece[2] = (struct piece){ .address = slot->header_guest + 15, .length = 1 };
	slot->piece[3] = (struct piece){ .address = slot->data_guest, .length = 1 };
	slot->piece[4] = (struct piece){ .address = slot->data_guest + 4097, .length = 1000 };
	slot->piece[5] = (struct piece){ .address = slot->data_guest + 2000, .length = 23 };
	slot->piece[6] = (struct piece){ .address = slot->status_guest,
					 .length = 1,
					 .flags = VRING_DESC_F_WRITE };
	slot->pieces = 7;
	virtq_format_pieces(queue, index);
	virtq_push(queue, index);
	virtq_publish(queue);
	must(driver, virtq_wait(queue, DRIVER_WAIT_MS));
	assert_int_equal(virtq_reap(queue, &done, 1), 1);
	assert_int_equal(*slot->status, VIRTIO_BLK_S_OK);
	uint8_t expected[1024], in[1024];
	expected[0] = slot->data[0];
	memcpy(expected + 1, slot->data + 4097, 1000);
	memcpy(expected + 1001, slot->data + 2000, 23);
	virtq_release(queue, index);
	must(driver, blk_read(queue, 24, in, sizeof(in)));
	assert_memory_equal(in, expected, sizeof(in));
}

static void test_unsafe_cache_takes_flushes(void **state)
{
	struct virtq *queue = serve("cache=unsafe", NULL, NULL);

	(void)state;
	must(driver, blk_flush(queue));
}

static void test_null_backend(void **state)
{
	const char *args[] = { "serve",   "null:", "--socket", daemon_path(&daemon_, "s"),
			       "size=1G", NULL };
	struct driver_options options = { .socket = daemon_path(&daemon_, "s") };
	uint8_t bytes[4096] = { 1 };

	(void)state;
	daemon_start(&daemon_, args);
	int ret = driver_open(&driver, &options);
	must(driver, ret);
	assert_int_equal(driver->config.capacity, (1u << 30) / 512);
	must(driver, blk_write(&driver->queue[0], 0, bytes, sizeof(bytes)));
	must(driver, blk_read(&driver->queue[0], 8, bytes, sizeof(bytes)));
	assert_int_equal(daemon_stop(&daemon_), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_reaches_the_image),
		TEST(test_last_block),
		TEST(test_get_id),
		TEST(test_write_zeroes),
		TEST(test_discard_frees_space),
		TEST(test_many_ranges_in_one_request),
		TEST(test_config_fields),
		TEST(test_config_beyond_its_end),
		TEST(test_block_size_4096),
		TEST(test_sizes_not_of_whole_sectors),
		TEST(test_out_of_capacity),
		TEST(test_read_only),
		TEST(test_unsupported_requests),
		TEST(test_range_flags),
		TEST(test_ranges_of_wrong_size),
		TEST(test_get_id_into_a_short_buffer),
		TEST(test_write_cache_toggles),
		TEST(test_read_only_config_fields),
		TEST(test_writethrough_says_so),
		TEST(test_disk_larger_than_the_image),
		TEST(test_disk_smaller_than_the_image),
		TEST(test_many_segments),
		TEST(test_a_full_ring),
		TEST(test_any_layout),
		TEST(test_unsafe_cache_takes_flushes),
		TEST(test_null_backend),
	};

	return cmocka_run_group_tests_name("virtio-blk", tests, NULL, NULL);
}
