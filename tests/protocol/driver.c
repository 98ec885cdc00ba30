/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * driver.c - the device as its driver sees it: made, connected, started, stopped, reconnected
 *
 * The order of messages is QEMU's: negotiation at once on connecting; then, when the driver is
 * ready, features, inflight region, memory table, each ring's size, base, addresses and
 * descriptors, and the enabling. Memory and rings belong to the driver and outlive a connection, as
 * a guest's do.
 */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE = 4096, CACHE_LINE = 64 };

static const uint64_t GUEST_SLOTS = 0x100000000ull; /* behind a hole, as above a PC's PCI hole */
static const uint64_t GUEST_DATA[2] = { 0x800000000ull, 0x1000000000ull };
/* GUEST_USO4, GUEST_USO6, HOST_USO (virtio 1.3, 5.1.3): those of the high ones that net.c knows. */
static const uint64_t NET_HIGH_FEATURES = 7ull << 54;

#define ROUND_UP(value, to) (((value) + (to)-1) / (to) * (to))

static int fail(struct driver *driver, int error, const char *what)
{
	snprintf(driver->error, sizeof(driver->error), "%s: %s", what, strerror(-error));
	return error;
}

static void set_defaults(struct driver_options *options)
{
	if (!options->queues)
		options->queues = 1;
	if (!options->queue_size)
		options->queue_size = 128;
	if (!options->segments)
		options->segments = 1;
	if (!options->slot_bytes)
		options->slot_bytes = 64 * 1024;
	if (!options->protocol)
		options->protocol = VU_PF_ALL;
	bool indirect = options->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
	unsigned fit = indirect ? options->queue_size
				: options->queue_size / (options->segments + 2);
	if (!options->slots || options->slots > fit)
		options->slots = fit;
}

/*
 * Where a slot's response is, and where all of header and response end. As in Linux's drivers they
 * are neighbours: with virtio-scsi, what is written of most responses shares the header's line.
 */
static size_t status_offset(const struct driver_options *options)
{
	return options->scsi ? ROUND_UP(sizeof(struct virtio_scsi_cmd_req), 4)
			     : sizeof(struct virtio_blk_outhdr);
}

static size_t line_bytes(const struct driver_options *options)
{
	return options->scsi
		       ? ROUND_UP(status_offset(options) + sizeof(struct virtio_scsi_cmd_resp),
				  CACHE_LINE)
		       : CACHE_LINE;
}

/* A slot's line in the slots region: header, status, and the indirect table behind them. */
static size_t slot_stride(const struct driver_options *options)
{
	size_t table = 0;

	if (options->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC))
		table = (options->segments + 2) * sizeof(struct vring_desc);
	return line_bytes(options) + ROUND_UP(table, CACHE_LINE);
}

static int place_slots(struct driver *driver, struct virtq *queue, unsigned data_region)
{
	const struct driver_options *options = &driver->options;
	size_t stride = slot_stride(options);
	struct region *slots = &driver->region[driver->slots_region];
	struct region *data = &driver->region[data_region];
	/* Queues alternate between the two data regions. */
	size_t data_index = (size_t)(queue->index / 2) * queue->slots;

	queue->slot = calloc(queue->slots, sizeof(*queue->slot));
	queue->free = calloc(queue->slots, sizeof(*queue->free));
	if (!queue->slot || !queue->free)
		return -ENOMEM;
	for (uint16_t i = 0; i < queue->slots; i++) {
		struct slot *slot = &queue->slot[i];
		size_t at = ((size_t)queue->index * queue->slots + i) * stride;
		size_t data_at = (data_index + i) * ROUND_UP(options->slot_bytes, PAGE);

		slot->header = (struct virtio_blk_outhdr *)(slots->host + at);
		slot->header_guest = slots->guest + at;
		slot->status = slots->host + at + status_offset(options);
		slot->status_guest = slots->guest + at + status_offset(options);
		slot->response = (struct virtio_scsi_cmd_resp *)slot->status;
		if (options->scsi)
			slot->status = &slot->response->response;
		slot->table = slots->host + at + line_bytes(options);
		slot->table_guest = slots->guest + at + line_bytes(options);
		slot->data = data->host + data_at;
		slot->data_guest = data->guest + data_at;
		slot->piece = calloc(options->segments + 2, sizeof(*slot->piece));
		if (!slot->piece)
			return -ENOMEM;
	}
	return 0;
}

static void restart_queue(struct virtq *queue)
{
	for (uint16_t i = 0; i < queue->slots; i++) {
		queue->slot[i].busy = false;
		queue->free[i] = (uint16_t)(queue->slots - 1 - i);
	}
	queue->free_count = queue->slots;
	queue->avail_next = queue->published = queue->last_used = queue->added = 0;
	queue->ring_free = queue->size;
	queue->avail_wrap = queue->used_wrap = true;
	queue->base = queue->packed ? 0x80008000u : 0;
	if (queue->packed)
		packed_restart(queue);
	else
		split_restart(queue);
}

static int make_queue(struct driver *driver, unsigned index, size_t ring_bytes)
{
	const struct driver_options *options = &driver->options;
	struct virtq *queue = &driver->queue[index];
	uint8_t *host = driver->region[driver->rings_region].host + index * ring_bytes;

	*queue = (struct virtq){
		.driver = driver,
		.index = index,
		.size = (uint16_t)options->queue_size,
		.packed = options->features & FEATURE(VIRTIO_F_RING_PACKED),
		.indirect = options->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC),
		.event_idx = options->features & FEATURE(VIRTIO_RING_F_EVENT_IDX),
		.slots = (uint16_t)options->slots,
		.chain = (uint16_t)(options->segments + 2),
		.kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	if (queue->kick < 0 || queue->call < 0 || queue->err < 0)
		return -errno;
	if (queue->packed)
		packed_place(queue, host);
	else
		split_place(queue, host);
	int ret = place_slots(driver, queue, driver->slots_region + 1 + index % 2);
	if (!ret)
		restart_queue(queue);
	return ret;
}

struct driver *driver_new(const struct driver_options *options)
{
	struct driver *driver = calloc(1, sizeof(*driver));

	if (!driver)
		return NULL;
	driver->options = *options;
	driver->vu.fd = driver->backend = driver->inflight_fd = -1;
	set_defaults(&driver->options);
	options = &driver->options;

	size_t ring_bytes = options->features & FEATURE(VIRTIO_F_RING_PACKED)
				    ? packed_ring_bytes((uint16_t)options->queue_size)
				    : split_ring_bytes((uint16_t)options->queue_size);
	ring_bytes = ROUND_UP(ring_bytes, PAGE);
	size_t slots = (size_t)options->queues * options->slots;
	size_t data = (size_t)(options->queues + 1) / 2 * options->slots *
		      ROUND_UP(options->slot_bytes, PAGE);

	driver->rings_region = 0;
	driver->slots_region = 1;
	if (driver_add_region(driver, 0, options->queues * ring_bytes) < 0 ||
	    driver_add_region(driver, GUEST_SLOTS, ROUND_UP(slots * slot_stride(options), PAGE)) <
		    0 ||
	    driver_add_region(driver, GUEST_DATA[0], data) < 0 ||
	    driver_add_region(driver, GUEST_DATA[1], data) < 0)
		goto failed;

	driver->queue = calloc(options->queues, sizeof(*driver->queue));
	if (!driver->queue)
		goto failed;
	driver->queues = options->queues;
	for (unsigned i = 0; i < driver->queues; i++)
		if (make_queue(driver, i, ring_bytes))
			goto failed;
	return driver;
failed:
	driver_close(driver);
	return NULL;
}

static int negotiate_protocol(struct driver *driver)
{
	int ret = vu_query_u64(&driver->vu, VU_GET_PROTOCOL_FEATURES, &driver->protocol_offered);

	if (ret)
		return fail(driver, ret, "GET_PROTOCOL_FEATURES");
	driver->protocol = driver->protocol_offered & driver->options.protocol;
	if (driver->options.inflight && !(driver->protocol & VU_PF_INFLIGHT))
		return fail(driver, -ENOTSUP, "inflight tracking");
	if (driver->options.add_regions && !(driver->protocol & VU_PF_MEM_SLOTS))
		return fail(driver, -ENOTSUP, "memory slots");
	ret = vu_request_u64(&driver->vu, VU_SET_PROTOCOL_FEATURES, driver->protocol);
	if (ret)
		return fail(driver, ret, "SET_PROTOCOL_FEATURES");
	driver->vu.reply_ack = driver->protocol & VU_PF_REPLY_ACK;

	driver->queues_max = 1;
	if (driver->protocol & VU_PF_MQ)
		ret = vu_query_u64(&driver->vu, VU_GET_QUEUE_NUM, &driver->queues_max);
	if (ret)
		return fail(driver, ret, "GET_QUEUE_NUM");
	if (driver->queues_max < (driver->options.net ? driver->queues / 2 : driver->queues))
		return fail(driver, -ENOTSUP, "so many queues");
	if (driver->protocol & VU_PF_MEM_SLOTS)
		ret = vu_query_u64(&driver->vu, VU_GET_MAX_MEM_SLOTS, &driver->memory_slots);
	return ret ? fail(driver, ret, "GET_MAX_MEM_SLOTS") : 0;
}

static int set_backend_channel(struct driver *driver)
{
	int pair[2];

	if (!(driver->protocol & VU_PF_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return fail(driver, -errno, "socketpair");
	int ret = vu_request(&driver->vu, VU_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
	close(pair[1]);
	if (ret) {
		close(pair[0]);
		return fail(driver, ret, "SET_BACKEND_REQ_FD");
	}
	driver->backend = pair[0];
	return 0;
}

static int set_status(struct driver *driver, uint64_t status)
{
	if (!(driver->protocol & VU_PF_STATUS))
		return 0;
	int ret = vu_request_u64(&driver->vu, VU_SET_STATUS, status);
	return ret ? fail(driver, ret, "SET_STATUS") : 0;
}

int driver_connect(struct driver *driver)
{
	const struct driver_options *options = &driver->options;
	/* The device's own features (bits 0 to 23, and 50 on) are taken as offered. */
	uint64_t wanted = 0xffffff | (options->net ? NET_HIGH_FEATURES : 0) |
			  FEATURE(VIRTIO_F_VERSION_1) | VU_F_PROTOCOL_FEATURES | options->features;
	int ret = vu_connect(&driver->vu, options->socket);

	if (ret)
		return fail(driver, ret, options->socket);
	ret = vu_query_u64(&driver->vu, VU_GET_FEATURES, &driver->offered);
	if (ret)
		return fail(driver, ret, "GET_FEATURES");
	if (options->features & ~driver->offered)
		return fail(driver, -ENOTSUP, "a ring feature");
	driver->features = driver->offered & wanted & ~options->decline;
	if (driver->features & VU_F_PROTOCOL_FEATURES) {
		ret = negotiate_protocol(driver);
		if (!ret)
			ret = set_backend_channel(driver);
		if (ret)
			return ret;
	}
	ret = vu_request(&driver->vu, VU_SET_OWNER, NULL, 0, NULL, 0);
	if (ret)
		return fail(driver, ret, "SET_OWNER");
	if (driver->protocol & VU_PF_CONFIG)
		ret = driver_read_config(driver);
	if (ret)
		return fail(driver, ret, "GET_CONFIG");
	ret = set_status(driver, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	if (ret)
		return ret;
	ret = vu_request_u64(&driver->vu, VU_SET_FEATURES, driver->features);
	if (ret)
		return fail(driver, ret, "SET_FEATURES");
	return set_status(driver, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
}

static int set_inflight(struct driver *driver)
{
	struct vu_inflight wanted = { .queues = (uint16_t)driver->queues,
				      .queue_size = (uint16_t)driver->options.queue_size };
	struct vu_message answer;
	int ret;

	if (driver->inflight_fd < 0) {
		ret = vu_query(&driver->vu, VU_GET_INFLIGHT_FD, &wanted, sizeof(wanted), &answer,
			       &driver->inflight_fd);
		if (!ret && (driver->inflight_fd < 0 || answer.size != sizeof(wanted) ||
			     !answer.payload.inflight.mmap_size))
			ret = -EBADMSG;
		if (ret)
			return fail(driver, ret, "GET_INFLIGHT_FD");
		driver->inflight = answer.payload.inflight;
		driver->inflight.queues = wanted.queues;
		driver->inflight.queue_size = wanted.queue_size;
	}
	ret = vu_request(&driver->vu, VU_SET_INFLIGHT_FD, &driver->inflight,
			 sizeof(driver->inflight), &driver->inflight_fd, 1);
	return ret ? fail(driver, ret, "SET_INFLIGHT_FD") : 0;
}

static int set_vring_fd(struct driver *driver, uint32_t request, unsigned index, int fd)
{
	uint64_t payload = index;

	return vu_request(&driver->vu, request, &payload, sizeof(payload), &fd, 1);
}

int driver_start_queue(struct driver *driver, struct virtq *queue)
{
	struct vu_client *vu = &driver->vu;
	struct vu_vring_addr addr = {
		.index = queue->index,
		.descriptor =
			(uintptr_t)(queue->packed ? (void *)queue->ring : (void *)queue->desc),
		.available = (uintptr_t)(queue->packed ? (void *)queue->driver_event
						       : (void *)queue->avail),
		.used = (uintptr_t)(queue->packed ? (void *)queue->device_event
						  : (void *)queue->used),
	};
	int ret = vu_request_state(vu, VU_SET_VRING_NUM, queue->index, queue->size);

	if (!ret)
		ret = vu_request_state(vu, VU_SET_VRING_BASE, queue->index, queue->base);
	if (!ret)
		ret = vu_request(vu, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	if (!ret)
		ret = set_vring_fd(driver, VU_SET_VRING_ERR, queue->index, queue->err);
	if (!ret)
		ret = set_vring_fd(driver, VU_SET_VRING_KICK, queue->index, queue->kick);
	if (!ret)
		ret = set_vring_fd(driver, VU_SET_VRING_CALL, queue->index, queue->call);
	if (!ret && (driver->features & VU_F_PROTOCOL_FEATURES))
		ret = vu_request_state(vu, VU_SET_VRING_ENABLE, queue->index, 1);
	return ret ? fail(driver, ret, "setting up a ring") : 0;
}

int driver_start(struct driver *driver)
{
	int ret = driver->options.inflight ? set_inflight(driver) : 0;

	if (ret)
		return ret;
	ret = driver_send_memory(driver);
	if (ret)
		return fail(driver, ret, "the memory table");
	for (unsigned i = 0; i < driver->queues && !ret; i++)
		ret = driver_start_queue(driver, &driver->queue[i]);
	if (ret)
		return ret;
	return set_status(driver, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
					  STATUS_DRIVER_OK);
}

int driver_open(struct driver **driver, const struct driver_options *options)
{
	*driver = driver_new(options);
	if (!*driver)
		return -ENOMEM;
	int ret = driver_connect(*driver);
	return ret ? ret : driver_start(*driver);
}

int driver_stop_queue(struct driver *driver, struct virtq *queue)
{
	struct vu_vring_state state = { .index = queue->index };
	struct vu_message answer;
	int ret = vu_query(&driver->vu, VU_GET_VRING_BASE, &state, sizeof(state), &answer, NULL);

	if (!ret && (answer.size != sizeof(state) || answer.payload.state.index != queue->index))
		ret = -EBADMSG;
	if (ret)
		return fail(driver, ret, "GET_VRING_BASE");
	queue->base = answer.payload.state.num;
	return 0;
}

int driver_stop(struct driver *driver)
{
	int ret = 0;

	for (unsigned i = 0; i < driver->queues && !ret; i++)
		ret = driver_stop_queue(driver, &driver->queue[i]);
	return ret;
}

void driver_disconnect(struct driver *driver)
{
	vu_disconnect(&driver->vu);
	if (driver->backend >= 0)
		close(driver->backend);
	driver->backend = -1;
}

void driver_restore_bases(struct driver *driver)
{
	for (unsigned i = 0; i < driver->queues; i++) {
		struct virtq *queue = &driver->queue[i];
		/* QEMU reads a split ring's base from its used ring; a packed ring's is lost. */
		if (!queue->packed)
			queue->base = queue->used->idx;
	}
}

void driver_forget(struct driver *driver)
{
	for (unsigned i = 0; i < driver->queues; i++)
		restart_queue(&driver->queue[i]);
	if (driver->inflight_fd >= 0)
		close(driver->inflight_fd);
	driver->inflight_fd = -1;
}

int driver_read_config(struct driver *driver)
{
	uint32_t size = driver->options.net
				? offsetof(struct virtio_net_config, speed)
				: offsetof(struct virtio_blk_config, max_secure_erase_sectors);
	uint32_t whole = offsetof(struct vu_config, bytes) + size;
	struct vu_config wanted = { .size = size };
	struct vu_message answer;
	int ret = vu_query(&driver->vu, VU_GET_CONFIG, &wanted, whole, &answer, NULL);

	if (ret)
		return ret;
	if (answer.size != whole || answer.payload.config.size != size)
		return -EBADMSG;
	memcpy(&driver->config, answer.payload.config.bytes, size);
	return 0;
}

int driver_write_config(struct driver *driver, uint32_t offset, const void *bytes, uint32_t count)
{
	struct vu_config config = { .offset = offset, .size = count };

	if (count > sizeof(config.bytes))
		return -EINVAL;
	memcpy(config.bytes, bytes, count);
	return vu_request(&driver->vu, VU_SET_CONFIG, &config,
			  (uint32_t)offsetof(struct vu_config, bytes) + count, NULL, 0);
}

int driver_backend_message(struct driver *driver, int timeout_ms)
{
	struct vu_message message;
	int ret = vu_receive(driver->backend, &message, NULL, timeout_ms);

	if (ret)
		return ret;
	int request = (int)message.request;
	if (message.flags & VU_NEED_REPLY) {
		struct vu_message answer = { .request = message.request,
					     .flags = VU_VERSION | VU_REPLY,
					     .size = sizeof(uint64_t) };
		if (send(driver->backend, &answer, VU_HEADER_BYTES + answer.size, MSG_NOSIGNAL) < 0)
			return -errno;
	}
	return request;
}

void driver_close(struct driver *driver)
{
	if (!driver)
		return;
	driver_disconnect(driver);
	for (unsigned i = 0; i < driver->queues; i++) {
		struct virtq *queue = &driver->queue[i];
		for (unsigned s = 0; queue->slot && s < queue->slots; s++)
			free(queue->slot[s].piece);
		free(queue->slot);
		free(queue->free);
		close(queue->kick);
		close(queue->call);
		close(queue->err);
	}
	free(driver->queue);
	while (driver->regions)
		driver_drop_region(driver);
	if (driver->inflight_fd >= 0)
		close(driver->inflight_fd);
	free(driver);
}
