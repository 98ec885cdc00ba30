/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_fuzz.c - what a guest's network card is asked to do: frames with their headers, and commands
 *
 * Three cards are on a switch. The first sends what the input says; the second takes all that a
 * guest can be left to do, the third nothing of it. What arrives there must make sense to a driver:
 * an offset outside the frame would be the receiver's harm.
 *
 *     byte 0     1: commands, else frames; 2: all on packed rings
 *     then, for each frame
 *       1 byte   pieces that it is cut into (modulo 8)
 *       2 bytes  bytes of it, header (virtio_net_hdr) and frame; that follow
 *       2 bytes  zeroes behind those
 *     then, for each command
 *       1 byte   pieces
 *       1 byte   bytes of it, that follow
 *
 * Commands go to the rules (net_rules.h), and the rules judge some addresses. Rings and descriptors
 * that lie are chain_fuzz's.
 */
#include <stdlib.h>
#include <string.h>

#include "frontend/virtio/net_private.h"
#include "frontend/virtio/net_testing.h"
#include "fuzz.h"

#define BIT(n)  (1ull << (n))
#define HEADER  12u
#define BUFFER  15872u /* of a receive ring's 64 */
#define FRAMES  16u    /* at most, in one input */
#define PIECES  8u
#define LONGEST (HEADER + 65562u)
#define OFFLOADS                                                                                   \
	(NET_GUEST_OFFLOADS | BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |               \
	 BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(NET_F_HOST_USO))

/* Cards on split rings, and cards on packed ones, each kind on a switch of its own. */
static struct scene {
	struct rig rig;
	struct guest *from, *takes, *plain;
} scenes[2];

static struct guest *make(struct rig *rig, const char *name, uint8_t mac, uint64_t features)
{
	const struct guest_plan plan = { .name = name, .mac = mac };
	struct guest *guest = guest_make(rig, &plan);

	guest_negotiate(guest, features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF));
	return guest;
}

static void give_buffer(struct guest_queue *q, unsigned place)
{
	struct guest_piece piece = { place * BUFFER, BUFFER, true };

	guest_give(q, &piece, 1);
}

static void fill(struct guest *guest)
{
	struct guest_queue *q = guest_start(guest, 0);

	for (unsigned i = 0; i < RING_SIZE; i++)
		give_buffer(q, i);
	guest_kick(q);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	for (unsigned packed = 0; packed < 2; packed++) {
		struct scene *scene = &scenes[packed];
		uint64_t rings = packed ? BIT(VIRTIO_F_RING_PACKED) : 0;
		rig_begin(&scene->rig, 1, NULL);
		scene->from = make(&scene->rig, "from", 1, rings | OFFLOADS);
		scene->takes = make(&scene->rig, "takes", 2, rings | OFFLOADS);
		scene->plain = make(&scene->rig, "plain", 3, rings);
		guest_start(scene->from, 1);
		fill(scene->takes);
		fill(scene->plain);
	}
	return 0;
}

/* ---- what arrives ---- */

static void check(const struct virtio_net_hdr_mrg_rxbuf *header, uint32_t length, bool plain)
{
	const struct virtio_net_hdr *h = &header->hdr;

	if (length < ETHERNET_HEADER || length > PACKET_MAX)
		abort();
	if (plain && (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || h->gso_type))
		abort();
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
	    (uint32_t)h->csum_start + h->csum_offset + 2 > length)
		abort();
	if (h->gso_type && (!h->gso_size || !(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
			    h->hdr_len > length || h->hdr_len <= h->csum_start))
		abort();
}

static void receive(struct guest *guest, bool plain)
{
	struct guest_queue *q = &guest->queue[0];
	uint32_t written, length;
	int first;

	while ((first = guest_take(q, &written)) >= 0) {
		struct virtio_net_hdr_mrg_rxbuf header;
		memcpy(&header, guest_at(q, (uint32_t)first * BUFFER), sizeof header);
		length = written - HEADER;
		if (written < HEADER || !header.num_buffers)
			abort();
		give_buffer(q, (unsigned)first);
		for (unsigned i = 1; i < header.num_buffers; i++) {
			first = guest_take(q, &written);
			if (first < 0 || written > BUFFER)
				abort(); /* a merged frame is shown as a whole */
			length += written;
			give_buffer(q, (unsigned)first);
		}
		check(&header, length, plain);
	}
}

/* ---- what is sent ---- */

/* Puts the frame's bytes at @at of the ring's buffers and makes it available: bytes used. */
static uint32_t give_frame(struct guest_queue *q, struct input *in, uint32_t at)
{
	unsigned count = 1 + input_byte(in) % PIECES;
	struct guest_piece piece[PIECES];
	uint16_t bytes, zeroes;
	uint32_t done = 0;

	input_bytes(in, &bytes, sizeof bytes);
	input_bytes(in, &zeroes, sizeof zeroes);
	uint32_t length = bytes < in->size ? bytes : (uint32_t)in->size;
	input_bytes(in, guest_at(q, at), length);
	length = length + zeroes < LONGEST + 2 ? length + zeroes : LONGEST + 2;
	memset(guest_at(q, at) + (length - (length < zeroes ? length : zeroes)), 0,
	       length < zeroes ? length : zeroes);
	for (unsigned i = 0; i < count; i++) {
		uint32_t size = i + 1 < count ? (length - done) / (count - i) : length - done;
		piece[i] = (struct guest_piece){ at + done, size, false };
		done += size;
	}
	guest_give(q, piece, count);
	return length;
}

static void send_frames(struct scene *scene, struct input *in)
{
	struct guest_queue *q = &scene->from->queue[1];
	unsigned frames = 0, descriptors = 0;
	uint32_t at = 0, written;

	vswitch_forget(scene->rig.vswitch, NULL);
	while (in->size && frames < FRAMES && descriptors + PIECES <= RING_SIZE &&
	       at + LONGEST + 2 <= QUEUE_BYTES - QUEUE_RINGS) {
		at += give_frame(q, in, at);
		frames++;
		descriptors += PIECES;
	}
	guest_kick(q);
	receive(scene->takes, false);
	receive(scene->plain, true);
	guest_kick(&scene->takes->queue[0]);
	guest_kick(&scene->plain->queue[0]);
	receive(scene->takes, false);
	receive(scene->plain, true);
	while (frames && guest_take(q, &written) >= 0)
		frames--;
	/* A guest that breaks its card starts another. */
	if (q->reason[0]) {
		guest_stop(q);
		memset(q->memory, 0, QUEUE_RINGS);
		*q = (struct guest_queue){ 0 };
		guest_start(scene->from, 1);
	} else if (frames) {
		abort(); /* it keeps a frame */
	}
}

/* ---- commands ---- */

static void command(struct net_rules *rules, struct input *in)
{
	struct iovec vec[PIECES];
	uint8_t data[255];
	unsigned count = 1 + input_byte(in) % PIECES;
	size_t length = input_byte(in), done = 0;

	length = length < in->size ? length : in->size;
	input_bytes(in, data, length);
	for (unsigned i = 0; i < count; i++) {
		size_t size = i + 1 < count ? (length - done) / (count - i) : length - done;
		/* An allocation of its own: the sanitizer sees a step outside. */
		vec[i] = (struct iovec){ malloc(size ? size : 1), size };
		memcpy(vec[i].iov_base, data + done, size);
		done += size;
	}
	net_rules_command(rules, ~0ull, 4, (struct io_data){ .vec = vec, .count = count }, length);
	for (unsigned i = 0; i < count; i++)
		free(vec[i].iov_base);
	if (!rules->pairs || rules->pairs > 4 || rules->unicast.count > NET_MACS ||
	    rules->multicast.count > NET_MACS)
		abort();
}

static void command_all(struct input *in)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };
	struct net_rules rules;
	uint8_t head[ETHERNET_HEADER] = { 0 };

	net_rules_init(&rules, ~0ull, 4, mac);
	while (in->size) {
		command(&rules, in);
		for (unsigned i = 0; i < 4; i++) {
			memset(head, i & 1 ? 0xff : 2, 6);
			net_rules_wants_slow(&rules, head, i & 2, 0xffff);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t flags = input_byte(&in);

	if (flags & 1)
		command_all(&in);
	else
		send_frames(&scenes[flags >> 1 & 1], &in);
	return 0;
}
