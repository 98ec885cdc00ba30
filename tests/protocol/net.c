/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.c - a virtio-net card's driver: rings filled, frames sent and received, commands; see net.h
 */
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int broken(struct net *net, const char *format, unsigned a, unsigned b)
{
	snprintf(net->driver->error, sizeof(net->driver->error), format, a, b);
	return -EPROTO;
}

/* ---- made, connected, started ---- */

static void set_defaults(struct net_options *options)
{
	if (!options->pairs)
		options->pairs = 1;
	if (options->pairs_max < options->pairs)
		options->pairs_max = options->pairs;
	if (!options->queue_size)
		options->queue_size = 256;
	if (!options->segments)
		options->segments = 1;
}

int net_new(struct net *net, const struct net_options *wanted)
{
	memset(net, 0, sizeof(*net));
	net->options = *wanted;
	set_defaults(&net->options);
	const struct net_options *options = &net->options;
	struct driver_options driver = {
		.socket = options->socket,
		.features = (options->packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
			    (options->indirect ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
			    (options->event_idx ? FEATURE(VIRTIO_RING_F_EVENT_IDX) : 0) |
			    (options->control ? FEATURE(VIRTIO_NET_F_CTRL_VQ) : 0),
		.decline = options->decline |
			   (options->control ? 0 : FEATURE(VIRTIO_NET_F_CTRL_VQ)),
		.protocol = options->protocol,
		.queues = 2 * options->pairs_max + (options->control ? 1 : 0),
		.queue_size = options->queue_size,
		.segments = options->segments,
		.slots = options->slots,
		.slot_bytes = NET_HEADER + NET_FRAME_MAX,
		.add_regions = options->add_regions,
		.net = true,
	};
	net->driver = driver_new(&driver);
	if (!net->driver)
		return -ENOMEM;
	net->pairs = options->pairs;
	for (unsigned i = 0; i < net->pairs; i++) {
		struct net_pair *pair = &net->pair[i];
		pair->rx = &net->driver->queue[2 * i];
		pair->tx = &net->driver->queue[2 * i + 1];
		pair->sent = calloc(pair->tx->size, sizeof(*pair->sent));
		if (!pair->sent)
			return -ENOMEM;
	}
	if (options->control)
		net->control = &net->driver->queue[net->driver->queues - 1];
	return 0;
}

bool net_has(const struct net *net, unsigned bit)
{
	return net->driver->features & FEATURE(bit);
}

const uint8_t *net_mac(const struct net *net)
{
	return net->driver->net_config.mac;
}

static void add_piece(struct slot *slot, uint64_t address, uint32_t length, uint16_t flags)
{
	slot->piece[slot->pieces++] =
		(struct piece){ .address = address, .length = length, .flags = flags };
}

void net_format(struct net *net, struct virtq *queue, uint16_t index, uint32_t bytes,
		uint16_t flags)
{
	struct slot *slot = &queue->slot[index];
	uint32_t at = 0;

	slot->pieces = 0;
	slot->length = bytes;
	if (net->options.header_apart) {
		add_piece(slot, slot->header_guest, NET_HEADER, flags);
		at = NET_HEADER;
	}
	for (unsigned left = net->options.segments; left && at < bytes; left--) {
		uint32_t size = left == 1 ? bytes - at : (bytes - at) / left;
		if (left > 1 && net->options.odd)
			size |= 1;
		if (size > bytes - at)
			size = bytes - at;
		if (!size)
			continue;
		add_piece(slot, slot->data_guest + at, size, flags);
		at += size;
	}
	virtq_format_pieces(queue, index);
}

static uint32_t receive_bytes(const struct net *net)
{
	if (net->options.rx_bytes)
		return net->options.rx_bytes;
	return net->merged ? 2048 : NET_HEADER + NET_FRAME_MAX;
}

/* All free receive slots into the ring. */
static void fill(struct net *net, struct net_pair *pair)
{
	int slot;

	while ((slot = virtq_take(pair->rx)) >= 0) {
		net_format(net, pair->rx, (uint16_t)slot, receive_bytes(net), VRING_DESC_F_WRITE);
		virtq_push(pair->rx, (uint16_t)slot);
	}
	virtq_publish(pair->rx);
}

static int use_pairs(struct net *net)
{
	uint16_t pairs = (uint16_t)net->pairs;

	if (!net->control || net->pairs == 1)
		return 0;
	int ret = net_control(net, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs,
			      sizeof(pairs));
	return ret == VIRTIO_NET_OK ? 0
	       : ret < 0            ? ret
				    : broken(net, "%u pairs of queues were refused", pairs, 0);
}

int net_start(struct net *net)
{
	int ret = driver_start(net->driver);

	if (ret)
		return ret;
	net->merged = net_has(net, VIRTIO_NET_F_MRG_RXBUF);
	for (unsigned i = 0; i < net->pairs; i++)
		fill(net, &net->pair[i]);
	return use_pairs(net);
}

int net_open(struct net *net, const struct net_options *options)
{
	int ret = net_new(net, options);

	if (!ret)
		ret = driver_connect(net->driver);
	return ret ? ret : net_start(net);
}

int net_reconnect(struct net *net)
{
	driver_disconnect(net->driver);
	driver_restore_bases(net->driver);
	int ret = driver_connect(net->driver);
	if (!ret)
		ret = driver_start(net->driver);
	if (ret)
		return ret;
	/* A kick may have gone to the process that died. */
	for (unsigned i = 0; i < net->pairs; i++) {
		virtq_kick(net->pair[i].rx);
		virtq_kick(net->pair[i].tx);
	}
	return use_pairs(net);
}

void net_close(struct net *net)
{
	for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
		free(net->pair[i].sent);
	driver_close(net->driver);
	memset(net, 0, sizeof(*net));
}

/* ---- transmitting ---- */

int net_reap(struct net *net, unsigned index)
{
	struct net_pair *pair = &net->pair[index];
	uint16_t done[NET_BATCH];
	int count = virtq_reap(pair->tx, done, NET_BATCH);

	for (int i = 0; i < count; i++) {
		uint16_t wanted = pair->sent[pair->sent_first++ % pair->tx->size];
		if (done[i] != wanted)
			return broken(net,
				      "frame %u was completed, but %u was sent before it: a "
				      "network device completes in order",
				      done[i], wanted);
		virtq_release(pair->tx, done[i]);
	}
	return count;
}

/* Waits for the device to use something of the ring. */
static int wait_for(struct net *net, struct virtq *queue, int64_t deadline)
{
	struct timespec pause = { .tv_nsec = 20000 };
	int64_t left = deadline - now_ms();

	if (left <= 0)
		return -ETIMEDOUT;
	if (net->options.sleeping)
		return virtq_wait(queue, (int)left);
	nanosleep(&pause, NULL);
	return 0;
}

int net_put(struct net *net, unsigned index, const struct virtio_net_hdr_v1 *header,
	    const void *bytes, uint32_t length)
{
	static const struct virtio_net_hdr_v1 nothing;
	struct net_pair *pair = &net->pair[index];
	int64_t deadline = 0;
	int slot;

	while ((slot = virtq_take(pair->tx)) < 0) {
		int count = net_reap(net, index);
		if (count < 0)
			return count;
		if (count)
			continue;
		if (!deadline)
			net_publish(net, index);
		deadline = deadline ? deadline : now_ms() + NET_WAIT_MS;
		int ret = wait_for(net, pair->tx, deadline);
		if (ret == -ETIMEDOUT)
			snprintf(net->driver->error, sizeof(net->driver->error),
				 "the transmit ring stays full");
		if (ret)
			return ret;
	}
	struct slot *to = &pair->tx->slot[slot];
	uint8_t *head = net->options.header_apart ? (uint8_t *)to->header : to->data;
	memcpy(head, header ? header : &nothing, NET_HEADER);
	memcpy(to->data + NET_HEADER, bytes, length);
	net_format(net, pair->tx, (uint16_t)slot, NET_HEADER + length, 0);
	pair->sent[pair->sent_last++ % pair->tx->size] = (uint16_t)slot;
	virtq_push(pair->tx, (uint16_t)slot);
	net->sent++;
	return 0;
}

void net_publish(struct net *net, unsigned index)
{
	virtq_publish(net->pair[index].tx);
}

int net_send(struct net *net, unsigned index, const struct virtio_net_hdr_v1 *header,
	     const void *bytes, uint32_t length)
{
	int ret = net_put(net, index, header, bytes, length);

	if (!ret)
		net_publish(net, index);
	return ret;
}

int net_drain(struct net *net, unsigned index)
{
	struct net_pair *pair = &net->pair[index];
	int64_t deadline = now_ms() + NET_WAIT_MS;

	while (pair->sent_first != pair->sent_last) {
		int count = net_reap(net, index);
		if (count < 0)
			return count;
		int ret = count ? 0 : wait_for(net, pair->tx, deadline);
		if (ret)
			return ret;
	}
	return 0;
}

/* ---- receiving ---- */

/* One more slot that the device has used, or -EAGAIN. */
static int next_slot(struct net_pair *pair)
{
	if (pair->ready_first == pair->ready_count) {
		int count = virtq_reap(pair->rx, pair->ready, NET_BATCH);
		if (count < 0)
			return count;
		pair->ready_first = 0;
		pair->ready_count = (unsigned)count;
		if (!count)
			return -EAGAIN;
	}
	return pair->ready[pair->ready_first++];
}

/* Appends what a slot holds behind `skip` bytes to the frame, and gives the slot back. */
static int take_slot(struct net *net, struct net_pair *pair, uint16_t index, uint32_t skip,
		     struct net_frame *frame)
{
	struct slot *slot = &pair->rx->slot[index];

	if (slot->used > slot->length)
		return broken(net, "%u bytes were written to a buffer of %u", slot->used,
			      slot->length);
	if (slot->used < skip)
		return broken(net, "a buffer of %u bytes has no header of %u", slot->used, skip);
	uint32_t bytes = slot->used - skip;
	if (bytes > sizeof(frame->bytes) - frame->length)
		return broken(net, "a frame of more than %u bytes", NET_FRAME_MAX, 0);
	const uint8_t *from = slot->data;
	if (net->options.header_apart && !skip) {
		/* A buffer that continues a frame: its first bytes are where a header would be. */
		uint32_t first = bytes < NET_HEADER ? bytes : NET_HEADER;
		memcpy(frame->bytes + frame->length, slot->header, first);
		memcpy(frame->bytes + frame->length + first, from + NET_HEADER, bytes - first);
	} else {
		memcpy(frame->bytes + frame->length, from + skip, bytes);
	}
	frame->length += bytes;
	virtq_push(pair->rx, index);
	return 0;
}

static int take_frame(struct net *net, struct net_pair *pair, struct net_frame *frame)
{
	int slot = next_slot(pair);

	if (slot < 0)
		return slot;
	struct slot *first = &pair->rx->slot[slot];
	const void *head = net->options.header_apart ? (const void *)first->header : first->data;
	memcpy(&frame->header, head, NET_HEADER);
	frame->length = 0;
	unsigned buffers = frame->header.num_buffers;
	if (buffers == 0 || (buffers > 1 && !net->merged))
		return broken(net, "a frame in %u buffers", buffers, 0);
	int ret = take_slot(net, pair, (uint16_t)slot, NET_HEADER, frame);
	for (unsigned i = 1; i < buffers && !ret; i++) {
		slot = next_slot(pair);
		if (slot == -EAGAIN && net->may_miss) {
			net->may_miss--; /* as Linux does: it is dropped */
			virtq_publish(pair->rx);
			return -EAGAIN;
		}
		if (slot == -EAGAIN)
			return broken(net, "%u of a frame's %u buffers are there", i, buffers);
		ret = slot < 0 ? slot : take_slot(net, pair, (uint16_t)slot, 0, frame);
	}
	if (ret)
		return ret;
	net->received++;
	virtq_publish(pair->rx);
	return 0;
}

int net_receive(struct net *net, unsigned index, struct net_frame *frame, int timeout_ms)
{
	struct net_pair *pair = &net->pair[index];
	int64_t deadline = now_ms() + timeout_ms;

	for (;;) {
		int ret = take_frame(net, pair, frame);
		if (ret != -EAGAIN)
			return ret;
		ret = wait_for(net, pair->rx, deadline);
		if (ret)
			return ret;
	}
}

int net_receive_any(struct net *net, unsigned *index, struct net_frame *frame, int timeout_ms)
{
	struct timespec pause = { .tv_nsec = 20000 };
	int64_t deadline = now_ms() + timeout_ms;

	for (;;) {
		for (*index = 0; *index < net->pairs; ++*index) {
			int ret = take_frame(net, &net->pair[*index], frame);
			if (ret != -EAGAIN)
				return ret;
		}
		if (now_ms() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
}

/* ---- commands ---- */

int net_control(struct net *net, uint8_t class, uint8_t command, const void *data, uint32_t bytes)
{
	struct virtq *queue = net->control;
	uint8_t header[2] = { class, command };
	uint16_t done;
	int taken = virtq_take(queue);

	if (taken < 0)
		return taken;
	struct slot *slot = &queue->slot[taken];
	memcpy(slot->header, header, sizeof(header));
	if (bytes)
		memcpy(slot->data, data, bytes);
	slot->pieces = 0;
	add_piece(slot, slot->header_guest, sizeof(header), 0);
	if (bytes)
		add_piece(slot, slot->data_guest, bytes, 0);
	add_piece(slot, slot->status_guest, 1, VRING_DESC_F_WRITE);
	virtq_format_pieces(queue, (uint16_t)taken);
	virtq_push(queue, (uint16_t)taken);
	virtq_publish(queue);
	int ret = virtq_wait(queue, NET_WAIT_MS);
	if (ret)
		return ret;
	ret = virtq_reap(queue, &done, 1);
	if (ret < 0)
		return ret;
	virtq_release(queue, done);
	if (slot->used != 1)
		return broken(net, "%u bytes of an answer of %u", slot->used, 1);
	return *slot->status;
}
