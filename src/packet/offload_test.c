/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * offload_test.c - large packets are cut as a simple reference cuts them, which builds each segment
 * from what the packet was made of and sums a byte pair at a time; and requests that make no sense
 * are refused
 */
#include "packet/offload.h"

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "packet/frame.h"

#define TCP4  VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6  VIRTIO_NET_HDR_GSO_TCPV6
#define ECN   VIRTIO_NET_HDR_GSO_ECN
#define USO   5
#define NEEDS VIRTIO_NET_HDR_F_NEEDS_CSUM

enum { FIN = 1, SYN = 2, PSH = 8, ACK = 16, ECE = 64, CWR = 128 };

/* What a packet is made of. */
struct recipe {
	unsigned version, protocol;
	unsigned vlans, ip_options, tcp_options,
		extensions; /* bytes of each, multiples of 4 or 8 */
	unsigned id, flags;
	uint32_t sequence;
	uint8_t *payload;
	unsigned length;
};

static struct recipe recipe;
static uint8_t payload[65536], frame[70000];
static unsigned frame_length, l3, l4, l5; /* offsets of the last frame that was built */

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Host order, not inverted. */
static unsigned naive(const uint8_t *data, size_t length, unsigned sum)
{
	for (size_t i = 0; i < length; i++) {
		sum += i & 1 ? data[i] : (unsigned)data[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* Of layer 4's pseudo header, by what the frame says. */
static unsigned pseudo(const uint8_t *data, unsigned length)
{
	unsigned sum = recipe.version == 4 ? naive(data + l3 + 12, 8, 0)
					   : naive(data + l3 + 8, 32, 0);

	sum += recipe.protocol + length;
	return (sum & 0xffff) + (sum >> 16);
}

/* Builds the frame of @length bytes of the payload from @offset: number @number of those that a
 * large one is cut into. @final: with its sum; else that of the pseudo header. */
static void build(unsigned offset, unsigned length, unsigned number, unsigned flags, bool final)
{
	uint8_t *at = frame;
	unsigned sum, header = recipe.protocol == IPPROTO_TCP ? 20 + recipe.tcp_options : 8;

	memset(frame, 0, 400);
	memcpy(at, "\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02", 12);
	at += 12;
	for (unsigned i = 0; i < recipe.vlans; i++, at += 4) {
		put16(at, 0x8100);
		put16(at + 2, 7 + i);
	}
	put16(at, recipe.version == 4 ? 0x800 : 0x86dd);
	at += 2;
	l3 = (unsigned)(at - frame);
	if (recipe.version == 4) {
		unsigned ip = 20 + recipe.ip_options;

		at[0] = (uint8_t)(0x40 | ip / 4);
		put16(at + 2, ip + header + length);
		put16(at + 4, recipe.id + number);
		put16(at + 6, 0x4000);
		at[8] = 63;
		at[9] = (uint8_t)recipe.protocol;
		memcpy(at + 12, "\x0a\x00\x00\x01\xc0\xa8\x01\x02", 8);
		memset(at + 20, 1, recipe.ip_options);
		put16(at + 10, ~naive(at, ip, 0));
		at += ip;
	} else {
		at[0] = 0x60;
		put16(at + 4, recipe.extensions + header + length);
		at[6] = recipe.extensions ? IPPROTO_DSTOPTS : (uint8_t)recipe.protocol;
		at[7] = 63;
		for (unsigned i = 8; i < 40; i++)
			at[i] = (uint8_t)(i * 37);
		at += 40;
		if (recipe.extensions) {
			at[0] = (uint8_t)recipe.protocol;
			at[1] = (uint8_t)(recipe.extensions / 8 - 1);
			at += recipe.extensions;
		}
	}
	l4 = (unsigned)(at - frame);
	put16(at, 1234);
	put16(at + 2, 80);
	if (recipe.protocol == IPPROTO_TCP) {
		put16(at + 4, (recipe.sequence + offset) >> 16);
		put16(at + 6, recipe.sequence + offset);
		put16(at + 8, 77);
		at[12] = (uint8_t)(header / 4 << 4);
		at[13] = (uint8_t)flags;
		put16(at + 14, 5000);
		memset(at + 20, 1, recipe.tcp_options);
	} else {
		put16(at + 4, 8 + length);
	}
	at += header;
	l5 = (unsigned)(at - frame);
	memcpy(at, recipe.payload + offset, length);
	frame_length = l5 + length;
	sum = pseudo(frame, header + length);
	if (final) {
		sum = (unsigned)(uint16_t)~naive(frame + l4, header + length, sum);
		if (!sum && recipe.protocol == IPPROTO_UDP)
			sum = 0xffff;
	}
	put16(frame + l4 + (recipe.protocol == IPPROTO_TCP ? 16 : 6), sum);
}

static void draw_recipe(void)
{
	recipe = (struct recipe){
		.version = rand() & 1 ? 4 : 6,
		.protocol = rand() % 3 ? IPPROTO_TCP : IPPROTO_UDP,
		.vlans = rand() % 4 ? 0 : (unsigned)rand() % 4,
		.ip_options = rand() % 3 ? 0 : (unsigned)rand() % 11 * 4,
		.tcp_options = rand() % 3 ? 12 : (unsigned)rand() % 11 * 4,
		.extensions = rand() % 3 ? 0 : (unsigned)rand() % 8 * 8,
		.id = (unsigned)rand() & 0xffff,
		.flags = (unsigned)rand() & 0xfb,
		.sequence = (uint32_t)rand() * 3u,
		.payload = payload,
	};
}

/* --- packets of them ------------------------------------------------------------------------ */

static struct burst *burst;
static uint8_t *memory;

static void release(struct burst *which)
{
	(void)which;
}

static int open_all(void **state)
{
	(void)state;
	burst = burst_create(release, NULL);
	for (unsigned i = 0; i < sizeof payload; i++)
		payload[i] = (uint8_t)rand();
	return burst ? 0 : -1;
}

static int close_all(void **state)
{
	(void)state;
	free(memory);
	memory = NULL;
	burst_free(burst);
	return 0;
}

/* The frame that was built last, @padding bytes behind it, in iovecs of up to about @piece bytes.
 */
static struct packet *receive(unsigned piece, unsigned padding)
{
	unsigned length = frame_length + padding, count = 0;
	struct packet *packet;

	free(memory);
	memory = malloc(length);
	memcpy(memory, frame, frame_length);
	memset(memory + frame_length, 0x5a, padding);
	burst_begin(burst);
	for (unsigned at = 0; at < length; count++) {
		unsigned n = (unsigned)rand() % (piece + 1), left = length - at;

		if (n > left || count == BURST_IOVECS - 1)
			n = left;
		burst_vec(burst)[count] = (struct iovec){ memory + at, n };
		at += n;
	}
	packet = burst_add(burst, count, 0, length);
	assert_non_null(packet);
	return packet;
}

static void ask(struct packet *packet, unsigned type, unsigned size)
{
	packet->offload = (struct packet_offload){
		.flags = NEEDS,
		.gso_type = (uint8_t)type,
		.gso_size = (uint16_t)size,
		.csum_start = (uint16_t)l4,
		.csum_offset = recipe.protocol == IPPROTO_TCP ? 16 : 6,
	};
}

/* The packet of the recipe's payload, all of it, as a guest sends it. */
static struct packet *large(unsigned type, unsigned size)
{
	struct packet *packet;

	build(0, recipe.length, 0, recipe.flags, false);
	packet = receive(3000, 0);
	ask(packet, type, size);
	return packet;
}

/* What comes out is what the reference makes. */
struct expectation {
	unsigned size, number, offset, batches;
	bool final;
};

static void compare(void *data, struct packet_batch *batch)
{
	struct expectation *expected = data;
	static uint8_t flat[PACKET_MAX];
	unsigned i;

	expected->batches++;
	assert_true(batch->count && batch->count <= PACKET_BURST);
	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];
		unsigned left = recipe.length - expected->offset;
		unsigned length = left < expected->size ? left : expected->size;
		unsigned flags = recipe.flags;

		if (expected->offset + length < recipe.length)
			flags &= ~(unsigned)(FIN | PSH);
		if (expected->offset)
			flags &= ~(unsigned)CWR;
		build(expected->offset, length, expected->number, flags, expected->final);
		assert_int_equal(packet->length, frame_length);
		packet_copy_out(packet, 0, flat, packet->length);
		if (!expected->final) { /* a sum of zero has two forms */
			uint8_t *at =
				flat + packet->offload.csum_start + packet->offload.csum_offset;
			uint8_t *there =
				frame + packet->offload.csum_start + packet->offload.csum_offset;

			assert_int_equal((at[0] << 8 | at[1]) % 0xffff,
					 (there[0] << 8 | there[1]) % 0xffff);
			memcpy(at, there, 2);
			assert_int_equal(packet->offload.flags, NEEDS);
			assert_int_equal(packet->offload.csum_start, l4);
		} else {
			assert_int_equal(packet->offload.flags, 0);
		}
		assert_int_equal(packet->offload.gso_type, 0);
		assert_memory_equal(flat, frame, frame_length);
		assert_int_equal(packet->frame.end, frame_length);
		assert_int_equal(packet->frame.l4, l4);
		assert_int_equal(packet->tag, 0x2005);
		assert_ptr_equal(packet->burst, burst);
		expected->offset += length;
		expected->number++;
	}
}

static void resolve(struct packet *packet, unsigned size, unsigned accepts)
{
	struct expectation expected = { .size = size, .final = !(accepts & OFFLOAD_CSUM) };
	struct packet before;
	uint8_t head[PACKET_HEAD];
	unsigned count;

	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_int_equal(packet->offload.header_length, l5);
	assert_false(offload_fits(packet, accepts));
	packet->tag = 0x2005;
	before = *packet;
	memcpy(head, packet->head, packet->head_length);
	count = offload_resolve(packet, accepts, compare, &expected);
	assert_int_equal(count, expected.number);
	assert_int_equal(expected.offset, recipe.length);
	assert_int_equal(expected.batches, (expected.number + 63) / 64);
	/* Another port may want it as it was. */
	assert_memory_equal(&before, packet, sizeof before);
	assert_memory_equal(head, packet->head, packet->head_length);
}

static unsigned type_of_recipe(void)
{
	if (recipe.protocol == IPPROTO_UDP)
		return USO;
	return (recipe.version == 4 ? TCP4 : TCP6) | (recipe.flags & CWR ? ECN : 0);
}

/* --- cutting -------------------------------------------------------------------------------- */

static void random_packets(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 1500; round++) {
		unsigned size, headers;
		struct packet *packet;

		draw_recipe();
		size = 1 + (unsigned)rand() % (round % 4 ? 1460 : 9000);
		build(0, 0, 0, 0, false);
		headers = l5 - l3;
		recipe.length = size + 1 + (unsigned)rand() % 40000;
		if (recipe.length > 65535 - headers)
			recipe.length = 65535 - headers;
		if (recipe.length > size * (recipe.protocol == IPPROTO_TCP ? 2048 : 128))
			recipe.length = size * (recipe.protocol == IPPROTO_TCP ? 2048 : 128);
		if (recipe.length <= size)
			continue;
		build(0, recipe.length, 0, recipe.flags, false);
		packet = receive(round % 3 ? 5000 : 100, round % 5 ? 0 : 7);
		ask(packet, type_of_recipe(), size);
		if (round & 1)
			packet_pull(packet, 100 + (unsigned)rand() % 157);
		resolve(packet, size, round & 2 ? OFFLOAD_CSUM : 0);
	}
}

/* The largest, the smallest, and sizes that go into it without a rest. */
static void edges(void **state)
{
	static const struct {
		unsigned length, size;
	} cases[] = { { 2, 1 },          { 2048, 1 },           { 65495, 32 },
		      { 65495, 65494 },  { 1448 * 45, 1448 },   { 1448 * 45 + 1, 1448 },
		      { 64 * 100, 100 }, { 64 * 100 + 1, 100 }, { 128 * 8, 8 } };

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		recipe = (struct recipe){ .version = 4,
					  .protocol = IPPROTO_TCP,
					  .id = 0xfffe,
					  .sequence = 0xffffff00,
					  .flags = FIN | PSH | ACK,
					  .payload = payload,
					  .length = cases[i].length };
		resolve(large(TCP4, cases[i].size), cases[i].size, 0);
	}
}

static uint8_t seen_flags[100];
static unsigned seen_count;

static void note(void *data, struct packet_batch *batch)
{
	unsigned i;

	(void)data;
	for_each_packet (batch, i)
		seen_flags[seen_count++] = batch->packet[i]->head[l4 + 13];
}

/* Written out, without the reference: RFC 3168, 6.1.2 and RFC 9293, 3.8.6.1. */
static void flags(void **state)
{
	(void)state;
	recipe = (struct recipe){ .version = 4,
				  .protocol = IPPROTO_TCP,
				  .flags = CWR | ECE | ACK | PSH | FIN,
				  .payload = payload,
				  .length = 2500 };
	seen_count = 0;
	offload_resolve(large(TCP4 | ECN, 1000), 0, note, NULL);
	assert_int_equal(seen_count, 3);
	assert_int_equal(seen_flags[0], CWR | ECE | ACK);
	assert_int_equal(seen_flags[1], ECE | ACK);
	assert_int_equal(seen_flags[2], ECE | ACK | PSH | FIN);
}

/* No byte of the payload is copied: it is where the large packet has it. */
static void look_where(void *data, struct packet_batch *batch)
{
	const struct packet *large_one = data;
	unsigned i;

	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];
		uint32_t length = packet->head_length;

		assert_int_equal(packet->head_length, l5);
		for (unsigned k = 0; k < packet->body_count; k++) {
			const uint8_t *at = packet->body[k].iov_base;

			assert_true((at >= large_one->head && at < large_one->head + PACKET_HEAD) ||
				    (at >= memory && at < memory + frame_length));
			length += (uint32_t)packet->body[k].iov_len;
		}
		assert_int_equal(packet->length, length);
	}
}

static void nothing_copied(void **state)
{
	struct packet *packet;

	(void)state;
	recipe = (struct recipe){
		.version = 4, .protocol = IPPROTO_TCP, .payload = payload, .length = 30000
	};
	packet = large(TCP4, 1000);
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_int_equal(offload_resolve(packet, 0, look_where, packet), 30);
}

/* --- sums only ------------------------------------------------------------------------------ */

static void sums(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 1500; round++) {
		struct packet *packet;

		draw_recipe();
		recipe.length = (unsigned)rand() % 3000;
		packet = large(0, 0);
		resolve(packet, 65535, 0);
	}
}

/* UDP has another zero. RFC 768 */
static void zero_of_udp(void **state)
{
	static uint8_t two[2];

	(void)state;
	recipe = (struct recipe){
		.version = 4, .protocol = IPPROTO_UDP, .payload = two, .length = 2
	};
	build(0, 2, 0, 0, true);
	memcpy(two, frame + l4 + 6, 2); /* this makes the sum zero */
	build(0, 2, 0, 0, true);
	assert_memory_equal(frame + l4 + 6, "\xff\xff", 2);
	resolve(large(0, 0), 65535, 0);

	recipe.protocol = IPPROTO_TCP; /* and TCP has not */
	memset(two, 0, 2);
	build(0, 2, 0, 0, true);
	memcpy(two, frame + l4 + 16, 2);
	build(0, 2, 0, 0, true);
	assert_memory_equal(frame + l4 + 16, "\0\0", 2);
	resolve(large(0, 0), 65535, 0);
}

/* A sum anywhere: of a tunnel's inner packet, for example. */
static void flatten(void *data, struct packet_batch *batch)
{
	assert_int_equal(batch->count, 1);
	assert_int_equal(batch->packet[0]->length, frame_length);
	packet_copy_out(batch->packet[0], 0, data, frame_length);
}

static void sum_of_anything(void **state)
{
	static uint8_t flat[400];
	struct packet *packet;

	(void)state;
	recipe = (struct recipe){
		.version = 4, .protocol = IPPROTO_UDP, .payload = payload, .length = 300
	};
	for (unsigned start = 14; start < 200; start += 3) {
		build(0, 300, 0, 0, true);
		packet = receive(50, 0);
		packet->offload.flags = NEEDS;
		packet->offload.csum_start = (uint16_t)start;
		packet->offload.csum_offset = 17;
		assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
		assert_int_equal(offload_resolve(packet, 0, flatten, flat), 1);
		put16(frame + start + 17, ~naive(frame + start, frame_length - start, 0));
		assert_memory_equal(flat, frame, frame_length);
	}
}

/* --- requests ------------------------------------------------------------------------------- */

static struct packet *good(unsigned version, unsigned protocol, unsigned type)
{
	recipe = (struct recipe){ .version = version,
				  .protocol = protocol,
				  .flags = ACK,
				  .payload = payload,
				  .length = 3000 };
	return large(type, 1000);
}

static void nothing_asked(void **state)
{
	struct packet *packet = good(4, IPPROTO_TCP, 0);

	(void)state;
	packet->offload = (struct packet_offload){ 0 };
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_false(packet->frame.parsed); /* nor looked at */
	assert_true(offload_fits(packet, 0));
	/* What is no request asks for nothing, whatever else it says. */
	packet->offload = (struct packet_offload){ .flags = VIRTIO_NET_HDR_F_DATA_VALID,
						   .csum_start = 9999,
						   .gso_size = 7 };
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_true(offload_fits(packet, 0));
	packet->offload.flags = 0x84;
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_int_equal(packet->offload.flags, 0);
	assert_true(offload_fits(packet, 0));
}

static void bad_sums(void **state)
{
	struct packet *packet = good(4, IPPROTO_TCP, 0);
	static const struct {
		unsigned start, offset;
		enum offload_fault fault;
	} cases[] = {
		{ 13, 1, OFFLOAD_BAD_CSUM },     { 14, 0, OFFLOAD_GOOD },
		{ 0, 50, OFFLOAD_BAD_CSUM },     { 254, 0, OFFLOAD_GOOD },
		{ 255, 0, OFFLOAD_BAD_CSUM },    { 34, 65535, OFFLOAD_BAD_CSUM },
		{ 65535, 16, OFFLOAD_BAD_CSUM }, { 65535, 65535, OFFLOAD_BAD_CSUM },
		{ 14, 240, OFFLOAD_GOOD },       { 14, 241, OFFLOAD_BAD_CSUM },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		packet->offload.csum_start = (uint16_t)cases[i].start;
		packet->offload.csum_offset = (uint16_t)cases[i].offset;
		assert_int_equal(offload_check(packet), cases[i].fault);
	}
	/* The end of a short frame. */
	recipe.length = 20;
	packet = large(0, 0);
	packet->offload.csum_start = (uint16_t)(packet->length - 18);
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	packet->offload.csum_start++;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_CSUM);
}

static void bad_sizes(void **state)
{
	struct packet *packet;

	(void)state;
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.gso_size = 0;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	/* One segment is no large packet. */
	for (unsigned size = 3000; size < 65536; size += 62535) {
		packet = good(4, IPPROTO_TCP, TCP4);
		packet->offload.gso_size = (uint16_t)size;
		assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
		assert_int_equal(packet->offload.gso_type, 0);
		assert_true(offload_fits(packet, OFFLOAD_CSUM));
	}
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.gso_size = 2999;
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_int_equal(packet->offload.gso_type, TCP4);
	/* More segments than anybody means. */
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.gso_size = 1;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_UDP, USO);
	packet->offload.gso_size = 23;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet->offload.gso_size = 24;
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	packet = good(4, IPPROTO_TCP, TCP4);
	recipe.length = 2049;
	assert_int_equal(offload_check(large(TCP4, 1)), OFFLOAD_BAD_GSO);
	/* No payload at all. */
	recipe.length = 0;
	packet = large(TCP4, 1000);
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	assert_int_equal(packet->offload.gso_type, 0);
	assert_int_equal(offload_check(large(TCP4, 0)), OFFLOAD_BAD_GSO);
}

static void bad_types(void **state)
{
	static const unsigned versions[] = { 4, 6 }, protocols[] = { IPPROTO_TCP, IPPROTO_UDP };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		unsigned version = versions[i & 1], protocol = protocols[i >> 1];

		for (unsigned type = 1; type < 256; type++) {
			bool fine = protocol == IPPROTO_UDP ? type == USO
				    : version == 4          ? type == TCP4 || type == (TCP4 | ECN)
							    : type == TCP6 || type == (TCP6 | ECN);

			assert_int_equal(offload_check(good(version, protocol, type)),
					 fine ? OFFLOAD_GOOD : OFFLOAD_BAD_GSO);
		}
	}
}

static void bad_headers(void **state)
{
	struct packet *packet;

	(void)state;
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.flags = 0; /* a large one that is summed */
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.csum_start += 2;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->offload.csum_offset -= 2;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->head[l3 + 6] = 0x20; /* a fragment */
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->head[l4 + 12] = 0x40; /* a TCP header of 16 bytes */
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->head[l3] = 0x44;
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	put16(packet->head + l3 + 2, 30); /* it ends in the TCP header */
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	packet = good(4, IPPROTO_TCP, TCP4);
	packet->head[12] = 0x12; /* no IP */
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_GSO);
	/* Headers that are too far away. */
	recipe.version = 6;
	recipe.extensions = 200;
	packet = large(TCP6, 1000);
	assert_int_equal(offload_check(packet), OFFLOAD_BAD_CSUM);
}

/* What a layer has spoiled after it was checked is not cut. */
static void spoiled(void **state)
{
	struct packet *packet = good(4, IPPROTO_TCP, TCP4);

	(void)state;
	assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
	packet->frame.parsed = false;
	packet->head[l3 + 9] = IPPROTO_UDP;
	assert_int_equal(offload_resolve(packet, 0, note, NULL), 0);
}

static void fits(void **state)
{
	static const struct {
		unsigned version, protocol, type, wanted;
	} cases[] = {
		{ 4, IPPROTO_TCP, 0, OFFLOAD_CSUM },
		{ 6, IPPROTO_UDP, 0, OFFLOAD_CSUM },
		{ 4, IPPROTO_TCP, TCP4, OFFLOAD_CSUM | OFFLOAD_TSO4 },
		{ 4, IPPROTO_TCP, TCP4 | ECN, OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_ECN },
		{ 6, IPPROTO_TCP, TCP6, OFFLOAD_CSUM | OFFLOAD_TSO6 },
		{ 6, IPPROTO_TCP, TCP6 | ECN, OFFLOAD_CSUM | OFFLOAD_TSO6 | OFFLOAD_ECN },
		{ 4, IPPROTO_UDP, USO, OFFLOAD_CSUM | OFFLOAD_USO4 },
		{ 6, IPPROTO_UDP, USO, OFFLOAD_CSUM | OFFLOAD_USO6 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct packet *packet = good(cases[i].version, cases[i].protocol, cases[i].type);

		assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
		for (unsigned accepts = 0; accepts < 128; accepts++)
			assert_int_equal(offload_fits(packet, accepts),
					 (accepts & cases[i].wanted) == cases[i].wanted ||
						 ((accepts & OFFLOAD_ANY_TCP) &&
						  cases[i].protocol == IPPROTO_TCP));
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
	const struct CMUnitTest tests[] = {
		TEST(random_packets),  TEST(edges),         TEST(flags),
		TEST(nothing_copied),  TEST(sums),          TEST(zero_of_udp),
		TEST(sum_of_anything), TEST(nothing_asked), TEST(bad_sums),
		TEST(bad_sizes),       TEST(bad_types),     TEST(bad_headers),
		TEST(spoiled),         TEST(fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
