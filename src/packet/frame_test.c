/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame_test.c - sums against a naive one and the example of RFC 1071; frames that are good, cut
 * off at every byte, or made to be misread
 */
#include "packet/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct burst *burst;
static uint8_t *memory; /* of the body: an allocation as long as the frame, for the sanitizer */

static void release(struct burst *which)
{
	(void)which;
}

static int open_all(void **state)
{
	(void)state;
	burst = burst_create(release, NULL);
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

/* A packet of @length bytes, in iovecs of up to @piece bytes; piece 0: of random lengths, also 0.
 */
static struct packet *receive(const uint8_t *frame, unsigned length, unsigned piece)
{
	struct packet *packet;
	unsigned count = 0;

	free(memory);
	memory = malloc(length);
	memcpy(memory, frame, length);
	burst_begin(burst);
	for (unsigned at = 0; at < length; count++) {
		unsigned n = piece ? piece : (unsigned)rand() % 40, left = length - at;

		if (n > left || count == BURST_IOVECS - 1)
			n = left;
		burst_vec(burst)[count] = (struct iovec){ memory + at, n };
		at += n;
	}
	packet = burst_add(burst, count, 0, length);
	assert_non_null(packet);
	return packet;
}

static void mac_addresses(void **state)
{
	static const char *const wrong[] = { "",
					     "52:54:00:12:34",
					     "52:54:00:12:34:5",
					     "52:54:00:12:34:56:",
					     "52:54:00:12:34:56 ",
					     "52-54-00-12-34-56",
					     "52:54:00:12:34:5g",
					     "5:254:00:12:34:56",
					     "525400123456" };
	uint8_t mac[6];
	char text[18];

	(void)state;
	assert_int_equal(mac_parse("52:54:00:aB:Cd:0f", mac), 0);
	assert_memory_equal(mac, "\x52\x54\x00\xab\xcd\x0f", 6);
	assert_string_equal(mac_format(mac, text), "52:54:00:ab:cd:0f");
	assert_true(mac_number(mac) == 0x525400abcd0f);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(mac_parse(wrong[i], mac), -EINVAL);
}

/* --- sums ------------------------------------------------------------------------------- */

/* RFC 1071 in its own words: 16 bits at a time, a zero behind an odd byte. Host order. */
static uint16_t naive(const uint8_t *data, size_t length, uint16_t start)
{
	uint32_t sum = start;

	for (size_t i = 0; i < length; i++) {
		sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

static void example_of_the_rfc(void **state)
{
	static const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

	(void)state;
	assert_int_equal(ntohs((uint16_t)sum_bytes(data, sizeof data, 0)), 0xddf2);
	assert_int_equal(sum_bytes(data, 0, 0), 0);
	assert_int_equal(sum_bytes(data, 0, 0xffff), 0xffff);
}

static void sums_of_memory(void **state)
{
	uint8_t data[300];

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		size_t length = (size_t)rand() % 260, at = (size_t)rand() % 32;
		uint16_t start = (uint16_t)rand();

		for (unsigned i = 0; i < sizeof data; i++)
			data[i] = round % 3 ? (uint8_t)rand() : 0xff;
		assert_int_equal(ntohs((uint16_t)sum_bytes(data + at, length, start)),
				 naive(data + at, length, ntohs(start)));
		assert_in_range(sum_bytes(data + at, length, start), 0, 0xffff);
	}
	memset(data, 0xff, sizeof data); /* all carries at once */
	assert_int_equal(sum_bytes(data, sizeof data, 0xffffffff), 0xffff);
}

static void sums_of_frames(void **state)
{
	static uint8_t data[3000];

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		unsigned length = 14 + (unsigned)rand() % (sizeof data - 14);
		unsigned at = (unsigned)rand() % length, n = (unsigned)rand() % (length - at + 1);
		struct packet *packet;

		for (unsigned i = 0; i < length; i++)
			data[i] = (uint8_t)rand();
		packet = receive(data, length, round % 5 * 7);
		if (round & 1)
			packet_pull(packet, 14 + (unsigned)rand() % 243);
		assert_int_equal(ntohs((uint16_t)frame_sum(packet, at, n, htons(0x1234))),
				 naive(data + at, n, 0x1234));
	}
}

/* --- headers ----------------------------------------------------------------------------- */

static uint8_t made[1024];
static unsigned made_length;

static void bytes(const char *data, unsigned length)
{
	memcpy(made + made_length, data, length);
	made_length += length;
}
#define BYTES(text) bytes(text, sizeof text - 1)

static void word(unsigned value)
{
	made[made_length++] = (uint8_t)(value >> 8);
	made[made_length++] = (uint8_t)value;
}

static void fill(unsigned count, int byte)
{
	memset(made + made_length, byte, count);
	made_length += count;
}

static void ethernet(unsigned type)
{
	made_length = 0;
	BYTES("\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02");
	word(type);
}

static void vlan(unsigned tag, unsigned type)
{
	word(tag);
	word(type);
}

/* @words: of the header; @total: its length field; @offset: flags and fragment offset. */
static void ipv4(unsigned words, unsigned total, unsigned offset, unsigned protocol)
{
	word(0x4000 | words << 8);
	word(total);
	word(0x1111);
	word(offset);
	word(64 << 8 | protocol);
	word(0);
	BYTES("\x0a\x00\x00\x01\x0a\x00\x00\x02");
	fill(words * 4 - 20, 1); /* no-operations */
}

static void ipv6(unsigned payload, unsigned next)
{
	BYTES("\x60\x00\x00\x00");
	word(payload);
	word(next << 8 | 64);
	BYTES("\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01");
	BYTES("\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02");
}

/* An extension header of @eights + 1 times eight bytes. */
static void extension(unsigned next, unsigned eights)
{
	word(next << 8 | eights);
	fill(eights * 8 + 6, 0);
}

static void ports(void)
{
	word(1000);
	word(80);
}

static void tcp(unsigned words)
{
	ports();
	fill(8, 7);
	word(words << 12 | 0x10);
	fill(6, 0);
	if (words > 5)
		fill(words * 4 - 20, 1);
}

static bool same(const struct frame *a, const struct frame *b)
{
	return a->version == b->version && a->protocol == b->protocol &&
	       a->fragment == b->fragment && a->first == b->first && a->type == b->type &&
	       a->l3 == b->l3 && a->l4 == b->l4 && a->payload == b->payload && a->end == b->end;
}

static struct frame parse(void)
{
	struct packet *packet;
	struct frame other;

	/* What is in the head's room behind the frame makes no difference. */
	memset(burst->heads, 0x45, PACKET_BURST * sizeof *burst->heads);
	packet = receive(made, made_length, made_length);
	frame_parse(packet);
	other = packet->frame;
	memset(burst->heads, 0, PACKET_BURST * sizeof *burst->heads);
	packet = receive(made, made_length, made_length % 3 ? 9 : 0);
	frame_parse(packet);
	assert_true(same(&other, &packet->frame));
	assert_true(packet->frame.parsed);
	assert_true(packet->frame.end <= packet->length);
	if (packet->frame.version == 4)
		assert_true(packet->frame.end >=
			    packet->frame.l3 + (made[packet->frame.l3] & 15) * 4u);
	assert_true(packet->frame.l3 <= packet->head_length);
	assert_true(packet->frame.l4 <= packet->head_length);
	assert_true(packet->frame.payload <= packet->head_length);
	assert_memory_equal(packet->head, made, packet->head_length);
	return packet->frame;
}

#define assert_frame(frame_, version_, protocol_, l3_, l4_, payload_, end_)                        \
	do {                                                                                       \
		struct frame f_ = frame_;                                                          \
		assert_int_equal(f_.version, version_);                                            \
		assert_int_equal(f_.protocol, protocol_);                                          \
		assert_int_equal(f_.l3, l3_);                                                      \
		assert_int_equal(f_.l4, l4_);                                                      \
		assert_int_equal(f_.payload, payload_);                                            \
		assert_int_equal(f_.end, end_);                                                    \
	} while (0)

static void good_ipv4(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x800);
	ipv4(5, 20 + 8 + 3, 0x4000, IPPROTO_UDP);
	ports();
	word(11);
	word(0);
	fill(3 + 15, 'x'); /* padded to 60 bytes */
	frame = parse();
	assert_frame(frame, 4, IPPROTO_UDP, 14, 34, 42, 45);
	assert_int_equal(frame.type, 0x800);
	assert_true(frame.first && !frame.fragment);

	ethernet(0x800);
	ipv4(15, 60 + 60 + 500, 0, IPPROTO_TCP);
	tcp(15);
	fill(500, 'x');
	assert_frame(parse(), 4, IPPROTO_TCP, 14, 74, 134, 634);

	ethernet(0x800);
	ipv4(5, 28, 0, IPPROTO_ICMP);
	fill(8, 0);
	assert_frame(parse(), 4, IPPROTO_ICMP, 14, 34, 0, 42);
}

static void good_ipv6(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x86dd);
	ipv6(32 + 4, IPPROTO_TCP);
	tcp(8);
	fill(4, 'x');
	frame = parse();
	assert_frame(frame, 6, IPPROTO_TCP, 14, 54, 86, 90);
	assert_true(frame.first && !frame.fragment);

	ethernet(0x86dd);
	ipv6(8 + 16 + 24 + 24 + 8, IPPROTO_HOPOPTS);
	extension(IPPROTO_ROUTING, 0);
	extension(IPPROTO_DSTOPTS, 1);
	extension(IPPROTO_AH, 2);
	word(IPPROTO_UDP << 8 | 4); /* of AH: in words, less two */
	fill(22, 0);
	ports();
	word(8);
	word(0);
	assert_frame(parse(), 6, IPPROTO_UDP, 14, 126, 134, 134);

	ethernet(0x86dd);
	ipv6(0, IPPROTO_NONE);
	assert_frame(parse(), 6, IPPROTO_NONE, 14, 0, 0, 54);
}

static void tags(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x88a8);
	vlan(100, 0x8100);
	vlan(0x2005, 0x9100);
	vlan(5, 0x800);
	ipv4(5, 40, 0, IPPROTO_TCP);
	tcp(5);
	frame = parse();
	assert_frame(frame, 4, IPPROTO_TCP, 26, 46, 66, 66);
	assert_int_equal(frame.type, 0x800);

	/* Tags as far as the head goes, and farther. */
	for (unsigned count = 1; count < 200; count++) {
		ethernet(0x8100);
		for (unsigned i = 0; i < count; i++)
			vlan(1, i == count - 1 ? 0x800 : 0x8100);
		ipv4(5, 40, 0, IPPROTO_TCP);
		tcp(5);
		frame = parse();
		if (14 + 4 * count <= PACKET_HEAD)
			assert_int_equal(frame.l3, 14 + 4 * count);
		else
			assert_int_equal(frame.type, 0x8100);
		assert_int_equal(frame.version, 14 + 4 * count + 20 <= PACKET_HEAD ? 4 : 0);
	}
}

static void other_frames(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x806);
	fill(46, 0);
	frame = parse();
	assert_frame(frame, 0, 0, 14, 0, 0, 0);
	assert_int_equal(frame.type, 0x806);
	ethernet(46); /* 802.3 */
	fill(46, 0);
	assert_int_equal(parse().type, 46);
	ethernet(0x800); /* says IP, is none */
	ipv6(20, IPPROTO_TCP);
	tcp(5);
	assert_frame(parse(), 0, 0, 14, 0, 0, 0);
	ethernet(0x86dd);
	ipv4(5, 40, 0, IPPROTO_TCP);
	tcp(5);
	assert_frame(parse(), 0, 0, 14, 0, 0, 0);
}

static void fragments(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x800);
	ipv4(5, 40, 0x2000, IPPROTO_TCP); /* first */
	tcp(5);
	frame = parse();
	assert_frame(frame, 4, IPPROTO_TCP, 14, 34, 54, 54);
	assert_true(frame.first && frame.fragment);
	ethernet(0x800);
	ipv4(5, 40, 0x0001, IPPROTO_TCP); /* last */
	tcp(5);
	frame = parse();
	assert_frame(frame, 4, IPPROTO_TCP, 14, 0, 0, 54);
	assert_true(!frame.first && frame.fragment);
	made[20] = 0x10;
	made[21] = 0;
	assert_false(parse().first);

	ethernet(0x86dd);
	ipv6(8 + 20, IPPROTO_FRAGMENT);
	word(IPPROTO_TCP << 8);
	word(0x0001); /* more */
	fill(4, 1);
	tcp(5);
	frame = parse();
	assert_frame(frame, 6, IPPROTO_TCP, 14, 62, 82, 82);
	assert_true(frame.first && frame.fragment);
	ethernet(0x86dd);
	ipv6(8 + 20, IPPROTO_FRAGMENT);
	word(IPPROTO_TCP << 8);
	word(0x0008);
	fill(4, 1);
	tcp(5);
	frame = parse();
	assert_frame(frame, 6, IPPROTO_TCP, 14, 0, 0, 82);
	assert_true(!frame.first && frame.fragment);
}

/* What lengths say is believed inside the frame only. */
static void wrong_lengths(void **state)
{
	struct frame frame;

	(void)state;
	ethernet(0x800);
	ipv4(5, 65535, 0, IPPROTO_TCP); /* longer than the frame */
	tcp(5);
	assert_frame(parse(), 4, IPPROTO_TCP, 14, 34, 54, 54);
	ethernet(0x800);
	ipv4(5, 19, 0, IPPROTO_TCP); /* shorter than its header */
	tcp(5);
	assert_frame(parse(), 0, 0, 14, 0, 0, 0);
	ethernet(0x800);
	ipv4(5, 39, 0, IPPROTO_TCP); /* ends in the TCP header */
	tcp(5);
	assert_frame(parse(), 4, IPPROTO_TCP, 14, 0, 0, 53);
	ethernet(0x800);
	ipv4(5, 40, 0, IPPROTO_TCP);
	tcp(6); /* with options, which are behind the end */
	assert_frame(parse(), 4, IPPROTO_TCP, 14, 34, 0, 54);
	ethernet(0x800);
	ipv4(5, 40, 0, IPPROTO_TCP);
	tcp(4);
	assert_frame(parse(), 4, IPPROTO_TCP, 14, 34, 0, 54);
	ethernet(0x800);
	ipv4(5, 27, 0, IPPROTO_UDP);
	fill(20, 0);
	assert_frame(parse(), 4, IPPROTO_UDP, 14, 0, 0, 41);
	for (unsigned words = 0; words < 5; words++) {
		ethernet(0x800);
		ipv4(5, 40, 0, IPPROTO_TCP);
		tcp(5);
		made[14] = (uint8_t)(0x40 | words);
		assert_frame(parse(), 0, 0, 14, 0, 0, 0);
	}
	ethernet(0x86dd);
	ipv6(19, IPPROTO_TCP);
	tcp(5);
	assert_frame(parse(), 6, IPPROTO_TCP, 14, 0, 0, 73);
	ethernet(0x86dd);
	ipv6(8, IPPROTO_HOPOPTS); /* the extension header is longer than the packet */
	extension(IPPROTO_TCP, 1);
	tcp(5);
	assert_frame(parse(), 6, 0, 14, 0, 0, 62);

	/* Extension headers as far as the head goes, and farther. */
	for (unsigned count = 1; count < 100; count++) {
		ethernet(0x86dd);
		ipv6(count * 8 + 20, IPPROTO_HOPOPTS);
		for (unsigned i = 0; i < count; i++)
			extension(i == count - 1 ? IPPROTO_TCP : IPPROTO_DSTOPTS, 0);
		tcp(5);
		frame = parse();
		if (54 + count * 8 + 20 <= PACKET_HEAD)
			assert_int_equal(frame.l4, 54 + count * 8);
		else
			assert_int_equal(frame.l4, 0);
	}
}

/* Any beginning of a good frame, and any byte of it changed, is read without a step outside. */
static void cut_off_and_changed(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 3; kind++) {
		unsigned whole;

		ethernet(0x8100);
		vlan(1, kind ? 0x86dd : 0x800);
		if (!kind) {
			ipv4(7, 28 + 24 + 20, 0, IPPROTO_TCP);
		} else {
			ipv6(24 + 24 + 20, IPPROTO_DSTOPTS);
			extension(kind == 1 ? IPPROTO_TCP : IPPROTO_AH, 2);
		}
		tcp(6);
		fill(20, 'x');
		whole = made_length;
		for (made_length = 14; made_length <= whole; made_length++)
			parse();
		made_length = whole;
		for (unsigned i = 12; i < whole; i++)
			for (unsigned bit = 0; bit < 8; bit++) {
				made[i] ^= (uint8_t)(1 << bit);
				parse();
				made[i] ^= (uint8_t)(1 << bit);
			}
	}
}

/* --- flows ------------------------------------------------------------------------------- */

static uint32_t hash(void)
{
	struct packet *packet = receive(made, made_length, 0);
	uint32_t value = frame_hash(packet);

	assert_int_not_equal(value, 0);
	assert_int_equal(value, packet->hash);
	packet->hash = 99;
	assert_int_equal(frame_hash(packet), 99); /* kept */
	return value;
}

static void flows(void **state)
{
	uint32_t first, second;

	(void)state;
	ethernet(0x800);
	ipv4(5, 40 + 10, 0, IPPROTO_TCP);
	tcp(5);
	fill(10, 'x');
	first = hash();
	made[made_length - 1] = 'y'; /* the payload; the sequence number; the time to live */
	made[34 + 7]++;
	made[14 + 8]--;
	assert_int_equal(hash(), first);
	for (unsigned at = 26; at < 38; at++) { /* addresses and ports */
		made[at]++;
		assert_int_not_equal(hash(), first);
		made[at]--;
	}
	made[14 + 9] = IPPROTO_UDP;
	assert_int_not_equal(hash(), first);
	made[14 + 9] = IPPROTO_TCP;
	assert_int_equal(hash(), first);

	/* Fragments: the first, and one without ports. */
	made[14 + 6] = 0x20;
	second = hash();
	made[34]++;
	assert_int_equal(hash(), second);
	made[14 + 6] = 0;
	made[14 + 7] = 9;
	assert_int_equal(hash(), second);

	ethernet(0x86dd);
	ipv6(20, IPPROTO_TCP);
	tcp(5);
	first = hash();
	for (unsigned at = 22; at < 58; at++) {
		made[at]++;
		assert_int_not_equal(hash(), first);
		made[at]--;
	}

	ethernet(0x806);
	first = hash();
	for (unsigned at = 0; at < 14; at++) {
		made[at]++;
		assert_int_not_equal(hash(), first);
		made[at]--;
	}
}

/* Flows that differ in one port are spread over few places evenly. */
static void spread(void **state)
{
	unsigned places[16] = { 0 };

	(void)state;
	ethernet(0x800);
	ipv4(5, 40, 0, IPPROTO_TCP);
	tcp(5);
	for (unsigned port = 0; port < 4096; port++) {
		made[34] = (uint8_t)(port >> 8);
		made[35] = (uint8_t)port;
		places[hash() % 16]++;
	}
	for (unsigned i = 0; i < 16; i++)
		assert_in_range(places[i], 150, 370); /* 256 each */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mac_addresses),
		cmocka_unit_test(example_of_the_rfc),
		cmocka_unit_test(sums_of_memory),
		cmocka_unit_test_setup_teardown(sums_of_frames, open_all, close_all),
		cmocka_unit_test_setup_teardown(good_ipv4, open_all, close_all),
		cmocka_unit_test_setup_teardown(good_ipv6, open_all, close_all),
		cmocka_unit_test_setup_teardown(tags, open_all, close_all),
		cmocka_unit_test_setup_teardown(other_frames, open_all, close_all),
		cmocka_unit_test_setup_teardown(fragments, open_all, close_all),
		cmocka_unit_test_setup_teardown(wrong_lengths, open_all, close_all),
		cmocka_unit_test_setup_teardown(cut_off_and_changed, open_all, close_all),
		cmocka_unit_test_setup_teardown(flows, open_all, close_all),
		cmocka_unit_test_setup_teardown(spread, open_all, close_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
