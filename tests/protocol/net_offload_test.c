/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_offload_test.c - sums and segments that a card leaves to others
 *
 * Card a sends packets without their sums, and TCP and UDP packets too long for any wire. Card b
 * takes all that; c takes none of it; d takes missing sums only; e all but TCP with ECN. What
 * arrives at b is what a sent, still asking for the same; at c and d packets are cut with right
 * headers, and summed. All is checked by code of the tests' own.
 */
#include "lan.h"

#include <stdio.h>

enum { A, B, C, D, E, SEGMENT = 1400 };

static const uint64_t cutting = FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
				FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN) |
				FEATURE(VIRTIO_NET_F_GUEST_UFO) | FEATURE(NET_F_GUEST_USO4) |
				FEATURE(NET_F_GUEST_USO6);

struct scenery {
	const char *loops;
	bool packed, plain; /* plain: buffers are not merged */
};

static const struct scenery sceneries[] = {
	{ "1", false, false }, { "2", true, false }, { "1", true, true }, { "2", false, true }
};

static unsigned chosen;

static int start(void **state)
{
	const struct scenery *s = &sceneries[chosen];

	(void)state;
	const struct lan_plan place = {
		.loops = s->loops,
		.card = { { "a" }, { "b" }, { "c" }, { "d" }, { "e" } },
	};
	struct net_options options = {
		.packed = s->packed,
		.queue_size = 512,
		.decline = FEATURE(VIRTIO_NET_F_MQ) |
			   (s->plain ? FEATURE(VIRTIO_NET_F_MRG_RXBUF) : 0),
	};
	static const char *const names[] = { "a", "b", "c", "d", "e" };
	const uint64_t declined[] = { 0, 0, cutting | FEATURE(VIRTIO_NET_F_GUEST_CSUM), cutting,
				      FEATURE(VIRTIO_NET_F_GUEST_ECN) };

	lan_open(&place);
	for (unsigned i = 0; i < 5; i++) {
		struct net_options own = options;
		own.decline |= declined[i];
		lan_plug(i, names[i], own);
	}
	for (unsigned i = 0; i < 5; i++) {
		uint8_t mac[6];
		mac_make(mac, i + 1);
		lan_learn(i, mac);
	}
	return 0;
}

/* ---- what arrives ---- */

static void receive(unsigned card)
{
	must_net(&lan.card[card], net_receive(&lan.card[card], 0, &lan.frame, NET_WAIT_MS));
}

static void check(unsigned card, const char *wrong)
{
	if (wrong)
		fail_msg("card %u got a frame of %u bytes: %s", card, lan.frame.length, wrong);
}

/* A packet that arrived as it was sent. */
static void expect_whole(unsigned card, const uint8_t *sent, uint32_t length,
			 const struct virtio_net_hdr_v1 *header)
{
	const struct virtio_net_hdr_v1 *got = &lan.frame.header;

	receive(card);
	assert_int_equal(lan.frame.length, length);
	assert_memory_equal(lan.frame.bytes, sent, length);
	assert_int_equal(got->flags, header->flags);
	assert_int_equal(got->csum_start, header->csum_start);
	assert_int_equal(got->csum_offset, header->csum_offset);
	/* What is one segment only need not be called a long packet. */
	if (!got->gso_type && header->gso_type && length <= header->hdr_len + header->gso_size)
		return;
	assert_int_equal(got->gso_type, header->gso_type);
	assert_int_equal(got->gso_size, header->gso_size);
	if (header->gso_type)
		assert_int_equal(got->hdr_len, header->hdr_len);
}

/* The packet in segments of at most `segment` bytes (0: as one), each summed, or, with `partial`,
 * asking for it. */
static void expect_cut(unsigned card, const struct ip_packet *packet, uint32_t segment,
		       bool partial)
{
	uint32_t at = 0;
	uint8_t flags = packet->tcp_flags ? packet->tcp_flags : 0x18;
	unsigned number = 0;
	uint16_t first_id = 0;

	do {
		struct ip_found found;
		receive(card);
		bool asks = lan.frame.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
		if (asks && !partial)
			fail_msg("card %u is asked for a sum", card);
		assert_int_equal(lan.frame.header.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		check(card, ip_check(lan.frame.bytes, lan.frame.length, asks, &found));
		assert_int_equal(found.version, packet->version);
		assert_int_equal(found.tcp, packet->tcp);
		uint32_t rest = packet->payload - at;
		bool last = !segment || rest <= segment;
		assert_int_equal(found.payload, last ? rest : segment);
		/* No bytes behind the packet: no frame here is short. */
		assert_ptr_equal(found.bytes + found.payload, lan.frame.bytes + lan.frame.length);
		for (uint32_t i = 0; i < found.payload; i++)
			if (found.bytes[i] != ip_byte(packet->seed, at + i))
				fail_msg("card %u: segment %u differs at byte %u", card, number, i);
		if (packet->tcp) {
			assert_int_equal(found.sequence, packet->sequence + at);
			uint8_t wanted = flags;
			if (!last)
				wanted &= (uint8_t)~0x09; /* FIN, PSH */
			if (number)
				wanted &= (uint8_t)~0x80; /* CWR */
			assert_int_equal(found.tcp_flags, wanted);
		}
		if (packet->version == 4) {
			first_id = number ? first_id : found.id;
			assert_int_equal(found.id, (uint16_t)(first_id + number));
		}
		at += found.payload;
		number++;
	} while (at < packet->payload);
	assert_int_equal(
		number, segment && packet->payload ? (packet->payload + segment - 1) / segment : 1);
}

static void send(uint32_t length, const struct virtio_net_hdr_v1 *header)
{
	must_net(&lan.card[A], net_send(&lan.card[A], 0, header, lan.out, length));
}

static void address(struct ip_packet *packet, unsigned to)
{
	static uint32_t seed = 1;

	mac_make(packet->from, A + 1);
	mac_make(packet->to, to + 1);
	packet->seed = seed++;
}

/* ---- tests ---- */

/* All kinds of packets that fit a wire, with payloads odd and even, for a function to send. */
static void each_packet(void (*send_one)(struct ip_packet *packet))
{
	static const uint32_t payloads[] = { 18, 19, 100, 255, 256, 257, 1001, 1380 };

	for (unsigned kind = 0; kind < 4; kind++) {
		for (unsigned i = 0; i < sizeof(payloads) / sizeof(*payloads); i++) {
			struct ip_packet packet = { .version = kind & 1 ? 6 : 4,
						    .tcp = kind & 2,
						    .payload = payloads[i],
						    .tcp_options = i % 3 * 4,
						    .extension = i % 2,
						    .sequence = 0xfffffff0u };
			send_one(&packet);
		}
	}
}

static void send_unsummed(struct ip_packet *packet)
{
	struct virtio_net_hdr_v1 header;

	for (unsigned to = B; to <= D; to++) {
		address(packet, to);
		uint32_t length = ip_make_partial(lan.out, packet, 0, &header);
		send(length, &header);
		if (to == C)
			expect_cut(to, packet, 0, false);
		else
			expect_whole(to, lan.out, length, &header);
	}
}

static void missing_sums(void **state)
{
	(void)state;
	each_packet(send_unsummed);
}

static void send_summed(struct ip_packet *packet)
{
	struct virtio_net_hdr_v1 header;

	for (unsigned to = B; to <= D; to++) {
		address(packet, to);
		uint32_t length = ip_make(lan.out, packet, &header);
		send(length, &header);
		expect_whole(to, lan.out, length, &header);
	}
}

static void sums_that_are_there(void **state)
{
	(void)state;
	each_packet(send_summed);
}

static bool takes(unsigned card, const struct ip_packet *packet)
{
	unsigned bit = packet->tcp            ? packet->version == 4 ? VIRTIO_NET_F_GUEST_TSO4
								     : VIRTIO_NET_F_GUEST_TSO6
		       : packet->version == 4 ? NET_F_GUEST_USO4
					      : NET_F_GUEST_USO6;

	return net_has(&lan.card[card], bit) &&
	       (!(packet->tcp_flags & 0x80) || net_has(&lan.card[card], VIRTIO_NET_F_GUEST_ECN));
}

/* Sends a packet to be cut, to a card that takes it or not. */
static void send_long(struct ip_packet *packet, unsigned to, uint16_t segment)
{
	struct virtio_net_hdr_v1 header;

	address(packet, to);
	uint32_t length = ip_make_partial(lan.out, packet, segment, &header);
	if (packet->tcp_flags & 0x80)
		header.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	send(length, &header);
	if (takes(to, packet))
		expect_whole(to, lan.out, length, &header);
	else
		expect_cut(to, packet, segment, net_has(&lan.card[to], VIRTIO_NET_F_GUEST_CSUM));
}

static void long_packets(bool tcp, unsigned version)
{
	static const uint32_t payloads[] = { 1,    SEGMENT,      SEGMENT + 1, 2 * SEGMENT,
					     9999, 20 * SEGMENT, 65000,       65400 };

	for (unsigned i = 0; i < sizeof(payloads) / sizeof(*payloads); i++) {
		for (unsigned to = B; to <= E; to++) {
			struct ip_packet packet = { .version = version,
						    .tcp = tcp,
						    .payload = payloads[i],
						    .tcp_options = i % 2 ? 12 : 0,
						    .sequence = 0xffff8000u };
			send_long(&packet, to, SEGMENT);
		}
	}
}

static void tcp_of_ipv4(void **state)
{
	(void)state;
	assert_true(net_has(&lan.card[A], VIRTIO_NET_F_HOST_TSO4));
	long_packets(true, 4);
}

static void tcp_of_ipv6(void **state)
{
	(void)state;
	assert_true(net_has(&lan.card[A], VIRTIO_NET_F_HOST_TSO6));
	long_packets(true, 6);
}

static void udp_of_ipv4(void **state)
{
	(void)state;
	if (!net_has(&lan.card[A], NET_F_HOST_USO))
		skip();
	long_packets(false, 4);
}

static void udp_of_ipv6(void **state)
{
	(void)state;
	if (!net_has(&lan.card[A], NET_F_HOST_USO))
		skip();
	long_packets(false, 6);
}

/* FIN and PSH belong to the last segment, CWR to the first. */
static void flags_of_segments(void **state)
{
	static const uint8_t flags[] = { 0x10, 0x11, 0x19, 0x18, 0x38, 0x90, 0xd9 };

	(void)state;
	for (unsigned i = 0; i < sizeof(flags); i++) {
		for (unsigned to = B; to <= E; to++) {
			struct ip_packet packet = { .version = i % 2 ? 6 : 4,
						    .tcp = true,
						    .tcp_flags = flags[i],
						    .payload = 5 * SEGMENT + 7 };
			send_long(&packet, to, SEGMENT);
		}
	}
}

/* One packet for all: whole where it is taken, cut where not. */
static void flooded(void **state)
{
	struct ip_packet packet = { .version = 4, .tcp = true, .payload = 30000, .sequence = 5 };
	struct virtio_net_hdr_v1 header;

	(void)state;
	address(&packet, B);
	memcpy(packet.to, mac_broadcast, 6);
	uint32_t length = ip_make_partial(lan.out, &packet, SEGMENT, &header);
	send(length, &header);
	expect_cut(C, &packet, SEGMENT, false);
	expect_cut(D, &packet, SEGMENT, true);
	expect_whole(B, lan.out, length, &header);
	expect_whole(E, lan.out, length, &header);
}

/* Segments of a few bytes: many of them, of odd length. */
static void small_segments(void **state)
{
	(void)state;
	for (unsigned version = 4; version <= 6; version += 2) {
		struct ip_packet packet = { .version = version, .tcp = true, .payload = 1501 };
		send_long(&packet, C, 67);
		send_long(&packet, D, 101);
	}
}

/* Plain frames pass as before, from all to all. */
static void still_there(void **state)
{
	(void)state;
	for (unsigned card = A; card <= E; card++) {
		uint8_t from[6];
		mac_make(from, card + 1);
		lan_send(card, mac_broadcast, from, 100, card);
		for (unsigned other = A; other <= E; other++)
			if (other != card)
				lan_expect(other, mac_broadcast, from, 100, card);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_that_are_there), cmocka_unit_test(missing_sums),
		cmocka_unit_test(tcp_of_ipv4),         cmocka_unit_test(tcp_of_ipv6),
		cmocka_unit_test(udp_of_ipv4),         cmocka_unit_test(udp_of_ipv6),
		cmocka_unit_test(flags_of_segments),   cmocka_unit_test(flooded),
		cmocka_unit_test(small_segments),      cmocka_unit_test(still_there),
	};
	static struct CMUnitTest copies[4][10];
	static char titles[4][10][80];
	int failed = 0;

	for (unsigned i = 0; i < 4; i++) {
		const struct scenery *s = &sceneries[i];
		chosen = i;
		for (unsigned t = 0; t < 10; t++) {
			copies[i][t] = tests[t];
			snprintf(titles[i][t], sizeof(titles[i][t]), "%s, %s loop(s), %s%s",
				 tests[t].name, s->loops, s->packed ? "packed" : "split",
				 s->plain ? "" : ", merged");
			copies[i][t].name = titles[i][t];
		}
		failed += _cmocka_run_group_tests("offloads", copies[i], 10, start, lan_close);
	}
	return failed;
}
