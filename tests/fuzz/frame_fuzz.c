/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame_fuzz.c - frames and offload requests of a guest that writes anything
 *
 * The frame is received, parsed, hashed, judged by antispoof, checked, and, if the receiver does
 * not take it as it is, cut and summed. Each iovec of its body is an allocation of its own, so that
 * the sanitizer sees a step outside; what is in the head's room behind the frame must make no
 * difference. What comes out must be whole: the payload in order, lengths that are true, IPv4
 * headers with their sums, and TCP and UDP sums that are as right as the one that the sender began.
 *
 *     bytes 0-7   flags, gso_type, gso_size, csum_start, csum_offset
 *     byte 8      what the receiver accepts; 128: the guest changes its memory meanwhile
 *     byte 9      pieces: how the body is divided
 *     bytes 10-11 bytes behind what the input has, up to PACKET_MAX in all
 *     from 12     the frame
 */
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "packet/frame.h"
#include "packet/offload.h"
#include "packet/packet_layer.h"
#include "util/error.h"

#define SCRIBBLE 128

static struct burst *burst;
static uint8_t whole[PACKET_MAX]; /* the frame as the guest wrote it */
static uint32_t whole_length;
static struct {
	uint8_t *memory;
	size_t length;
} piece[BURST_IOVECS];
static unsigned pieces;
static const struct packet_layer_ops *antispoof;
static void *rules[2]; /* of antispoof */

static void require(bool it)
{
	if (!it)
		abort();
}

static void release(struct burst *which)
{
	(void)which;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	const struct port_facts facts = { .mac = { 0x52, 0x54, 0, 0, 0, 2 }, .has_mac = true };
	struct error err = { 0 };

	(void)count;
	(void)arguments;
	burst = burst_create(release, NULL);
	antispoof = packet_layer_find("antispoof");
	for (unsigned i = 0; i < 2; i++) {
		void *settings = calloc(1, antispoof->settings_size);

		options_init(antispoof->options, settings);
		if (i) {
			options_set(antispoof->options, settings, "ipv4", "10.0.0.0/24", &err);
			options_set(antispoof->options, settings, "ipv6", "fd00::/8", &err);
			options_set(antispoof->options, settings, "router", "true", &err);
		}
		if (antispoof->compile(settings, &facts, &rules[i], &err))
			return 1;
		options_release(antispoof->options, settings);
		free(settings);
	}
	return burst ? 0 : 1;
}

static void divide(unsigned how)
{
	uint32_t at = 0;

	for (pieces = 0; at < whole_length; pieces++) {
		size_t n = how ? how * (pieces % 7) : whole_length;

		if (n > whole_length - at || pieces == BURST_IOVECS - 1)
			n = whole_length - at;
		piece[pieces].memory = malloc(n);
		piece[pieces].length = n;
		memcpy(piece[pieces].memory, whole + at, n);
		at += (uint32_t)n;
	}
}

/* Once more: pulling has changed the iovecs. */
static struct packet *receive(int behind)
{
	burst_begin(burst);
	memset(burst->heads, behind, PACKET_BURST * sizeof *burst->heads);
	for (unsigned i = 0; i < pieces; i++)
		burst_vec(burst)[i] = (struct iovec){ piece[i].memory, piece[i].length };
	return burst_add(burst, pieces, 0, whole_length);
}

static bool same(const struct frame *a, const struct frame *b)
{
	return a->version == b->version && a->protocol == b->protocol &&
	       a->fragment == b->fragment && a->first == b->first && a->type == b->type &&
	       a->l3 == b->l3 && a->l4 == b->l4 && a->payload == b->payload && a->end == b->end;
}

static void check_frame(const struct packet *packet)
{
	const struct frame *frame = &packet->frame;

	require(frame->parsed && frame->l3 >= ETHERNET_HEADER && frame->l3 <= packet->head_length);
	require(frame->l4 <= packet->head_length && frame->payload <= packet->head_length);
	require(frame->end <= packet->length);
	if (frame->l4)
		require(frame->version && frame->first && frame->l4 >= frame->l3 + 20 &&
			frame->l4 < frame->end);
	if (frame->payload)
		require(frame->l4 && frame->payload >= frame->l4 + 8 &&
			frame->payload <= frame->end);
	require(!memcmp(packet->head, whole, packet->head_length));
}

/* Host order, not inverted; bytes one by one. */
static unsigned naive(const uint8_t *data, size_t length, unsigned sum)
{
	for (size_t i = 0; i < length; i++) {
		sum += i & 1 ? data[i] : (unsigned)data[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* --- what comes out ------------------------------------------------------------------------- */

static struct outcome {
	const struct packet *large;
	struct packet_offload asked;
	unsigned accepts, packets;
	uint32_t offset; /* payload bytes seen */
	bool changing;
} outcome;

/* Of the pseudo header with @length bytes of layer 4. */
static unsigned pseudo(const uint8_t *head, const struct frame *frame, uint32_t length)
{
	unsigned sum = frame->version == 4 ? naive(head + frame->l3 + 12, 8, 0)
					   : naive(head + frame->l3 + 8, 32, 0);

	return (sum + frame->protocol + length) % 0xffff;
}

/* By how much the sender's sum of the pseudo header is wrong. */
static unsigned error_of_sender(void)
{
	const struct frame *frame = &outcome.large->frame;
	unsigned has = get16(whole + frame->l4 + outcome.asked.csum_offset) % 0xffff;

	return (has + 0xffff - pseudo(whole, frame, frame->end - frame->l4)) % 0xffff;
}

static void check_segment(const struct packet *packet, const uint8_t *flat, bool last)
{
	const struct frame *frame = &outcome.large->frame;
	const uint8_t *sum_at = flat + frame->l4 + outcome.asked.csum_offset;
	uint32_t payload = packet->length - frame->payload;
	unsigned sum;

	require(payload && payload <= outcome.asked.gso_size);
	require(last || payload == outcome.asked.gso_size);
	require(packet->head_length == frame->payload);
	if (frame->version == 4) {
		unsigned header = (flat[frame->l3] & 15) * 4u;

		require(get16(flat + frame->l3 + 2) == packet->length - frame->l3);
		require(naive(flat + frame->l3, header, 0) == 0xffff);
		require(get16(flat + frame->l3 + 4) ==
			((get16(whole + frame->l3 + 4) + outcome.packets) & 0xffff));
	} else {
		require(get16(flat + frame->l3 + 4) == packet->length - frame->l3 - 40);
	}
	if (frame->protocol == IPPROTO_UDP)
		require(get16(flat + frame->l4 + 4) == packet->length - frame->l4);
	else
		require(get32(flat + frame->l4 + 4) ==
			get32(whole + frame->l4 + 4) + outcome.offset);
	if (outcome.changing)
		return;
	require(!memcmp(flat + frame->payload, whole + frame->payload + outcome.offset, payload));
	/* What the sender's error was, it still is: no more, no less. */
	sum = pseudo(flat, frame, packet->length - frame->l4) + error_of_sender();
	if (packet->offload.flags)
		require(get16(sum_at) % 0xffff == sum % 0xffff);
	else
		require(!((sum + naive(flat + frame->l4, packet->length - frame->l4, 0)) % 0xffff));
	if (frame->protocol == IPPROTO_UDP && !packet->offload.flags)
		require(get16(sum_at));
}

static void check_sum(const struct packet *packet, const uint8_t *flat)
{
	unsigned start = outcome.asked.csum_start, place = start + outcome.asked.csum_offset;
	uint8_t expected[2];
	unsigned sum = (uint16_t)~naive(whole + start, whole_length - start, 0);

	if (!sum && outcome.asked.csum_offset == 6)
		sum = 0xffff;
	expected[0] = (uint8_t)(sum >> 8);
	expected[1] = (uint8_t)sum;
	require(packet->length == whole_length);
	require(!memcmp(flat, whole, place < packet->head_length ? place : packet->head_length));
	if (!outcome.changing)
		require(!memcmp(flat + place, expected, 2) &&
			!memcmp(flat + place + 2, whole + place + 2, whole_length - place - 2));
}

static void look(void *data, struct packet_batch *batch)
{
	static uint8_t flat[PACKET_MAX];
	unsigned i;

	(void)data;
	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];
		uint32_t left =
			outcome.large->frame.end - outcome.large->frame.payload - outcome.offset;

		require(offload_fits(packet, outcome.accepts) && !packet->offload.gso_type);
		packet_copy_out(packet, 0, flat, packet->length);
		if (outcome.asked.gso_type) {
			uint32_t payload = packet->length - outcome.large->frame.payload;

			require(payload <= left);
			check_segment(packet, flat, payload == left);
			outcome.offset += payload;
		} else {
			check_sum(packet, flat);
		}
		outcome.packets++;
	}
	if (outcome.changing)
		for (unsigned k = 0; k < pieces; k++)
			memset(piece[k].memory, (int)outcome.packets, piece[k].length);
}

/* Bit i: the rules i let it pass. */
static unsigned judge(struct packet *packet)
{
	unsigned passes = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct layer_place place = { .rules = rules[i] };
		struct packet_batch batch;

		batch_init(&batch);
		batch_add(&batch, packet);
		antispoof->process(&place, PACKET_IN, &batch);
		passes |= (unsigned)batch.live << i;
	}
	return passes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct packet_offload offload = { 0 };
	uint8_t accepts, how;
	struct packet *packet;
	struct frame frame;
	uint16_t more;
	uint32_t hash;
	unsigned count, passes;

	offload.flags = input_byte(&in);
	offload.gso_type = input_byte(&in);
	input_bytes(&in, &offload.gso_size, 2);
	input_bytes(&in, &offload.csum_start, 2);
	input_bytes(&in, &offload.csum_offset, 2);
	accepts = input_byte(&in);
	how = input_byte(&in);
	input_bytes(&in, &more, 2);
	whole_length = (uint32_t)(in.size < PACKET_MAX ? in.size : PACKET_MAX);
	if (whole_length < ETHERNET_HEADER)
		return 0;
	input_bytes(&in, whole, whole_length);
	for (; more && whole_length < PACKET_MAX; more--, whole_length++)
		whole[whole_length] = (uint8_t)(whole_length * 7);
	divide(how);

	packet = receive(0x45);
	frame_parse(packet);
	check_frame(packet);
	frame = packet->frame;
	hash = frame_hash(packet);
	passes = judge(packet);
	packet = receive(0);
	require(hash && frame_hash(packet) == hash);
	require(judge(packet) == passes);
	check_frame(packet);
	require(same(&frame, &packet->frame));

	packet = receive(0);
	packet->offload = offload;
	if (offload_check(packet) == OFFLOAD_GOOD) {
		struct packet_offload checked = packet->offload;

		require(offload_check(packet) == OFFLOAD_GOOD &&
			!memcmp(&checked, &packet->offload, sizeof checked));
		if (!offload_fits(packet, accepts & 127)) {
			outcome = (struct outcome){ .large = packet,
						    .asked = packet->offload,
						    .accepts = accepts & 127,
						    .changing = accepts & SCRIBBLE };
			check_frame(packet);
			count = offload_resolve(packet, accepts & 127, look, NULL);
			require(count && count == outcome.packets);
			if (checked.gso_type)
				require(outcome.offset ==
					packet->frame.end - packet->frame.payload);
			require(!memcmp(packet->head, whole, packet->head_length));
		}
	}
	while (pieces)
		free(piece[--pieces].memory);
	return 0;
}
