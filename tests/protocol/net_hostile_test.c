/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile_test.c - a guest that lies by its network card, and one that floods
 *
 * One test for each kind of lie: what a header asks for, what descriptors describe, what receive
 * buffers are, what commands carry; each on split and packed rings where both can tell it. Then
 * floods, and a VMM that takes memory away. See net_hostile.h for what has to come of it.
 */
#include "net_hostile.h"

#include <endian.h>
#include <stdio.h>
#include <unistd.h>

enum { PAYLOAD = 5000, SEGMENT = 1000, IP = ETHERNET, L4 = ETHERNET + 20 };

static struct net_options options_of(void **state)
{
	const char *how = *state;

	return (struct net_options){ .packed = how[0] == 'p',
				     .indirect = how[1] == 'i',
				     .decline = FEATURE(VIRTIO_NET_F_MQ) };
}

/* ---- headers ---- */

/* Spoils a good request to cut TCP over IPv4. */
typedef void spoil_fn(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length);

static void unknown_type(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0x7f;
}

static void fragmentation(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = VIRTIO_NET_HDR_GSO_UDP;
}

static void other_version(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
}

static void other_protocol(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = NET_GSO_UDP_L4;
}

static void all_bits(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	memset(header, 0xff, sizeof(*header));
}

static void segments_of_nothing(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 0;
}

static void segments_of_a_byte(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 1;
}

static void giant_segments(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 0xffff;
}

static void cut_without_sum(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->flags = 0;
}

static void sum_behind_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0;
	header->csum_start = 0xfff0;
}

static void sum_starts_at_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				  uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_start = (uint16_t)*length;
	header->csum_offset = 0;
}

static void sum_goes_behind_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				    uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_offset = (uint16_t)(*length - header->csum_start - 1);
}

static void sum_wraps_around(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0;
	header->csum_start = 0xffff;
	header->csum_offset = 0xffff;
}

static void sum_in_the_ethernet_header(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				       uint32_t *length)
{
	(void)frame;
	(void)length;
	header->csum_start = 0;
	header->csum_offset = 0;
}

static void sum_in_the_middle(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_start = (uint16_t)(*length / 2);
	header->csum_offset = 1;
}

static void headers_longer_than_frame(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				      uint32_t *length)
{
	(void)frame;
	(void)length;
	header->hdr_len = 0xffff;
}

static void no_ip(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[12] = 0x12;
}

static void frame_ends_in_ip(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = IP + 10;
}

static void frame_ends_in_tcp(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = L4 + 10;
}

static void frame_ends_behind_tcp(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				  uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = L4 + 20;
}

static void frame_of_ethernet_only(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				   uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = ETHERNET;
}

static void ip_without_length(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 2] = frame[IP + 3] = 0;
}

static void ip_longer_than_frame(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 2] = 0xff;
}

static void ip_header_of_60(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP] = 0x4f;
}

static void ip_header_of_4(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP] = 0x41;
}

static void ip_fragment(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 6] = 0x20;
	frame[IP + 7] = 100;
}

static void tcp_without_header(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[L4 + 12] = 0;
}

static void tcp_header_of_60(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	frame[L4 + 12] = 0xf0;
	*length = L4 + 30;
}

static void stack_of_tags(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	for (unsigned i = 12; i < 400; i += 4) {
		frame[i] = 0x81;
		frame[i + 1] = frame[i + 2] = 0;
		frame[i + 3] = 1;
	}
}

static void ipv6_extensions_without_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
					uint32_t *length)
{
	header->gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
	frame[12] = 0x86;
	frame[13] = 0xdd;
	memset(frame + IP, 0, *length - IP);
	frame[IP] = 0x60;
	frame[IP + 4] = 0x13;
}

static const struct {
	const char *name;
	spoil_fn *spoil;
} header_lies[] = {
#define LIE(name)                                                                                  \
	{                                                                                          \
#name, name                                                                        \
	}
	LIE(unknown_type),
	LIE(fragmentation),
	LIE(other_version),
	LIE(other_protocol),
	LIE(all_bits),
	LIE(segments_of_nothing),
	LIE(segments_of_a_byte),
	LIE(giant_segments),
	LIE(cut_without_sum),
	LIE(sum_behind_the_end),
	LIE(sum_starts_at_the_end),
	LIE(sum_goes_behind_the_end),
	LIE(sum_wraps_around),
	LIE(sum_in_the_ethernet_header),
	LIE(sum_in_the_middle),
	LIE(headers_longer_than_frame),
	LIE(no_ip),
	LIE(frame_ends_in_ip),
	LIE(frame_ends_in_tcp),
	LIE(frame_ends_behind_tcp),
	LIE(frame_of_ethernet_only),
	LIE(ip_without_length),
	LIE(ip_longer_than_frame),
	LIE(ip_header_of_60),
	LIE(ip_header_of_4),
	LIE(ip_fragment),
	LIE(tcp_without_header),
	LIE(tcp_header_of_60),
	LIE(stack_of_tags),
	LIE(ipv6_extensions_without_end),
};

/* To a peer that takes whole packets, and to one for which they are cut. */
static void headers_that_lie(void **state)
{
	struct net *liar;
	static uint8_t frame[NET_FRAME_MAX];

	liars_open("2");
	for (unsigned cut = 0; cut < 2; cut++) {
		lan_unplug(PEER);
		lan_plug(PEER, "peer",
			 (struct net_options){
				 .queue_size = 1024,
				 .decline = FEATURE(VIRTIO_NET_F_MQ) |
					    (cut ? FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
							     FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
							     FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
							     FEATURE(VIRTIO_NET_F_GUEST_ECN) |
							     FEATURE(NET_F_GUEST_USO4) |
							     FEATURE(NET_F_GUEST_USO6)
						 : 0) });
		liar = liar_plug(options_of(state));
		for (unsigned i = 0; i < sizeof(header_lies) / sizeof(*header_lies); i++) {
			struct ip_packet packet = { .version = 4, .tcp = true, .payload = PAYLOAD };
			struct virtio_net_hdr_v1 header;
			memcpy(packet.to, mac_peer, 6);
			memcpy(packet.from, mac_liar, 6);
			uint32_t length = ip_make_partial(frame, &packet, SEGMENT, &header);
			header_lies[i].spoil(&header, frame, &length);
			must_net(liar, net_send(liar, 0, &header, frame, length));
			must_net(liar, net_drain(liar, 0));
			peer_expect_sense(PAYLOAD + 1);
			print_message("# %s\n", header_lies[i].name);
			if (i % 8 == 7)
				liar_expect_works();
		}
		others_expect();
	}
}

/* Any bytes as a header, in front of any of some packets. */
static void headers_of_noise(void **state)
{
	uint64_t random = choose_seed();
	static uint8_t frame[NET_FRAME_MAX];
	struct net *liar;

	liars_open("1");
	liar = liar_plug(options_of(state));
	for (unsigned i = 0; i < 4000; i++) {
		struct ip_packet packet = { .version = i & 1 ? 4 : 6,
					    .tcp = i & 2,
					    .payload = 600 + i % 64 };
		struct virtio_net_hdr_v1 header;
		uint8_t *bytes = (uint8_t *)&header;
		memcpy(packet.to, mac_peer, 6);
		memcpy(packet.from, mac_liar, 6);
		uint32_t length = ip_make_partial(frame, &packet, 100, &header);
		for (unsigned n = 0; n < 3; n++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			if (random >> 62)
				bytes[(random >> 40) % 10] = (uint8_t)(random >> 32);
			else
				frame[12 + (random >> 40) % 50] = (uint8_t)(random >> 32);
		}
		must_net(liar, net_send(liar, 0, &header, frame, length));
		if (i % 64 == 0)
			peer_expect_sense(100000);
	}
	must_net(liar, net_drain(liar, 0));
	peer_expect_sense(100000);
	liar_expect_works();
	others_expect();
}

/* ---- descriptors ---- */

/* A good frame of 100 bytes in two pieces, in slot 0. */
static void good_pieces(struct net *liar, struct virtq *queue, struct piece piece[2])
{
	struct slot *slot = &queue->slot[0];

	memset(slot->data, 0, NET_HEADER);
	frame_make(slot->data + NET_HEADER, mac_peer, mac_liar, 100, 1);
	slot->busy = true;
	slot->pieces = 2;
	piece[0] = (struct piece){ slot->data_guest, NET_HEADER, VRING_DESC_F_NEXT, 0 };
	piece[1] = (struct piece){ slot->data_guest + NET_HEADER, 100, 0, 0 };
	(void)liar;
}

/* Spoils them; how many there are then, or 0 if they are in the ring already. */
typedef unsigned piece_lie_fn(struct virtq *queue, struct piece *piece);

static unsigned frame_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].address = 0xdead00000000ull;
	return 2;
}

static unsigned header_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].address = 0xdead00000000ull;
	return 2;
}

static unsigned address_wraps_around(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].address = UINT64_MAX - 50;
	return 2;
}

static unsigned length_of_4_gib(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = UINT32_MAX;
	return 2;
}

static unsigned longer_than_any_frame(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = NET_FRAME_MAX + 1;
	return 2;
}

static unsigned writable_frame(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].flags = VRING_DESC_F_WRITE;
	return 2;
}

static unsigned writable_header(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].flags |= VRING_DESC_F_WRITE;
	return 2;
}

static unsigned header_only(struct virtq *queue, struct piece *piece)
{
	queue->slot[0].pieces = 1;
	piece[0].flags = 0;
	return 1;
}

static unsigned half_a_header(struct virtq *queue, struct piece *piece)
{
	queue->slot[0].pieces = 1;
	piece[0].flags = 0;
	piece[0].length = 5;
	return 1;
}

static unsigned nothing(struct virtq *queue, struct piece *piece)
{
	queue->slot[0].pieces = 1;
	piece[0].flags = 0;
	piece[0].length = 0;
	return 1;
}

static unsigned frame_of_one_byte(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = 1;
	return 2;
}

static unsigned frame_of_13_bytes(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = 13;
	return 2;
}

static unsigned empty_frame_piece(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = 0;
	return 2;
}

static unsigned frame_byte_by_byte(struct virtq *queue, struct piece *piece)
{
	struct piece many[112];

	for (unsigned i = 0; i < 112; i++)
		many[i] = (struct piece){ piece[0].address + i, 1, i < 111 ? VRING_DESC_F_NEXT : 0,
					  0 };
	queue->slot[0].pieces = 112;
	virtq_raw_chain(queue, many, 112);
	return 0;
}

static unsigned chain_loop(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].flags = VRING_DESC_F_NEXT;
	piece[1].next = 1;
	return 2;
}

static unsigned chain_without_end(struct virtq *queue, struct piece *piece)
{
	static struct piece many[1024];

	for (unsigned i = 0; i < queue->size; i++) {
		many[i] = piece[1];
		many[i].flags = VRING_DESC_F_NEXT;
	}
	virtq_raw_chain(queue, many, queue->size);
	return 0;
}

static unsigned next_outside_table(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].next = 0xfff0;
	return 2;
}

static unsigned unasked_indirect(struct virtq *queue, struct piece *piece)
{
	queue->slot[0].pieces = 1;
	piece[0].flags = VRING_DESC_F_INDIRECT;
	piece[0].length = 32;
	return 1;
}

static unsigned head_outside_table(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->avail->ring[queue->avail_next++ & (queue->size - 1)] = queue->size;
	split_publish(queue);
	virtq_kick(queue);
	return 0;
}

static unsigned index_jumps(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->avail_next += queue->size + 1;
	split_publish(queue);
	virtq_kick(queue);
	return 0;
}

static const struct {
	const char *name;
	piece_lie_fn *tell;
	bool split_only, breaks;
} piece_lies[] = {
	{ "frame outside memory", frame_outside_memory, false, true },
	{ "header outside memory", header_outside_memory, false, true },
	{ "address wraps around", address_wraps_around, false, true },
	{ "length of 4 GiB", length_of_4_gib, false, true },
	{ "longer than any frame", longer_than_any_frame, false, false },
	{ "writable frame", writable_frame, false, false },
	{ "writable header", writable_header, false, false },
	{ "header only", header_only, false, false },
	{ "half a header", half_a_header, false, false },
	{ "nothing", nothing, false, false },
	{ "frame of one byte", frame_of_one_byte, false, false },
	{ "frame of 13 bytes", frame_of_13_bytes, false, false },
	{ "empty piece", empty_frame_piece, false, false },
	{ "byte by byte", frame_byte_by_byte, false, false },
	{ "chain that loops", chain_loop, true, true },
	{ "chain without end", chain_without_end, true, true },
	{ "next outside the table", next_outside_table, true, true },
	{ "indirect, not negotiated", unasked_indirect, false, true },
	{ "head outside the table", head_outside_table, true, true },
	{ "index that jumps", index_jumps, true, true },
};

static void descriptors_that_lie(void **state)
{
	struct net_options options = options_of(state);

	liars_open("1");
	for (unsigned i = 0; i < sizeof(piece_lies) / sizeof(*piece_lies); i++) {
		struct piece piece[2];
		if (piece_lies[i].split_only && options.packed)
			continue;
		print_message("# %s\n", piece_lies[i].name);
		struct net *liar = liar_plug(options);
		/* The raw chain takes place and number of slot 0; the plugging has used that, too.
		 */
		struct virtq *queue = liar->pair[0].tx;
		good_pieces(liar, queue, piece);
		unsigned count = piece_lies[i].tell(queue, piece);
		if (count)
			virtq_raw_chain(queue, piece, count);
		if (piece_lies[i].breaks)
			liar_expect_broken();
		else
			liar_expect_settled(queue, 1);
		peer_expect_sense(1);
		others_expect();
	}
}

/* ---- receive buffers ---- */

static unsigned buffer_of_4_bytes(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = 4;
	return 1;
}

static unsigned buffer_of_a_header(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = NET_HEADER;
	return 1;
}

static unsigned buffer_of_a_byte_more(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = NET_HEADER + 1;
	return 1;
}

static unsigned buffer_of_nothing(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = 0;
	return 1;
}

static unsigned readable_buffer(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].flags = 0;
	return 1;
}

static unsigned buffer_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].address = 0xdead00000000ull;
	return 1;
}

static unsigned buffer_of_4_gib(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = UINT32_MAX;
	return 1;
}

static unsigned buffer_over_the_ring(struct virtq *queue, struct piece *piece)
{
	piece[0].address = queue->driver->region[0].guest;
	piece[0].length = 4096;
	return 1;
}

static const struct {
	const char *name;
	piece_lie_fn *tell;
} buffer_lies[] = {
	{ "buffer of 4 bytes", buffer_of_4_bytes },
	{ "buffer of a header", buffer_of_a_header },
	{ "buffer of a header and a byte", buffer_of_a_byte_more },
	{ "buffer of nothing", buffer_of_nothing },
	{ "readable buffer", readable_buffer },
	{ "buffer outside memory", buffer_outside_memory },
	{ "buffer of 4 GiB", buffer_of_4_gib },
	{ "buffer over the ring", buffer_over_the_ring },
};

/* A ring full of such buffers, and frames for it. */
static void receive_buffers_that_lie(void **state)
{
	struct net_options options = options_of(state);

	liars_open("2");
	for (unsigned i = 0; i < sizeof(buffer_lies) / sizeof(*buffer_lies) * 2; i++) {
		unsigned lie = i / 2;
		struct net_options own = options;
		if (i & 1)
			own.decline |= FEATURE(VIRTIO_NET_F_MRG_RXBUF);
		print_message("# %s%s\n", buffer_lies[lie].name, i & 1 ? "" : ", merged");
		struct net *liar = &lan.card[LIAR];
		own.socket = daemon_path(&lan.daemon, "liar");
		daemon_mark_log(&lan.daemon);
		/* Not net_start(), which would fill the ring with good ones. */
		must_net(liar, net_new(liar, &own));
		must(liar->driver, driver_connect(liar->driver));
		must(liar->driver, driver_start(liar->driver));
		struct virtq *queue = liar->pair[0].rx;
		for (unsigned n = 0; n < 32; n++) {
			struct piece piece = { queue->slot[n].data_guest, 2048, VRING_DESC_F_WRITE,
					       0 };
			buffer_lies[lie].tell(queue, &piece);
			virtq_raw_chain(queue, &piece, 1);
		}
		lan_learn(LIAR, mac_liar);
		for (unsigned n = 0; n < 100; n++)
			lan_send(PEER, n % 3 ? mac_liar : mac_broadcast, mac_peer,
				 n % 2 ? 60 : 20000, n);
		must_net(&lan.card[PEER], net_drain(&lan.card[PEER], 0));
		sleep_ms(5);
		others_expect();
	}
}

/* No buffers at all: what comes is dropped, and does not hold up anybody. */
static void no_receive_buffers(void **state)
{
	struct net_options options = options_of(state);
	struct net *liar = &lan.card[LIAR];

	liars_open("2");
	options.socket = daemon_path(&lan.daemon, "liar");
	must_net(liar, net_new(liar, &options));
	must(liar->driver, driver_connect(liar->driver));
	must(liar->driver, driver_start(liar->driver));
	lan_learn(LIAR, mac_liar);
	for (unsigned n = 0; n < 3000; n++)
		lan_send(PEER, mac_liar, mac_peer, 1514, n);
	must_net(&lan.card[PEER], net_drain(&lan.card[PEER], 0));
	others_expect();
}

/* ---- commands ---- */

static void command_lengths(void **state)
{
	struct net_options options = options_of(state);
	uint8_t data[64];

	options.control = true;
	liars_open("1");
	struct net *liar = liar_plug(options);
	for (unsigned fill = 0; fill < 2; fill++) {
		memset(data, fill ? 0xff : 0, sizeof(data));
		for (unsigned class = 0; class < 8; class ++)
			for (unsigned command = 0; command < 8; command++)
				for (uint32_t length = 0; length < 24; length++) {
					int ret = net_control(liar, (uint8_t) class,
							      (uint8_t)command, data, length);
					if (ret != VIRTIO_NET_OK && ret != VIRTIO_NET_ERR)
						fail_msg("command %u:%u of %u bytes: %d", class,
							 command, length, ret);
				}
	}
	assert_false(liar_is_broken());
	others_expect();
}

static void tables_that_overflow(void **state)
{
	static const uint32_t counts[] = { 0xffffffff, 0x2aaaaaab, 0x2aaaaaaa, 0x80000000,
					   0x10000,    100,        11 };
	struct net_options options = options_of(state);
	uint8_t data[68] = { 0 };

	options.control = true;
	liars_open("1");
	struct net *liar = liar_plug(options);
	for (unsigned second = 0; second < 2; second++)
		for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
			uint32_t count = htole32(counts[i]);
			memset(data, 0, sizeof(data));
			memcpy(data + 4 * second, &count, sizeof(count));
			assert_int_equal(net_control(liar, VIRTIO_NET_CTRL_MAC,
						     VIRTIO_NET_CTRL_MAC_TABLE_SET, data,
						     sizeof(data)),
					 VIRTIO_NET_ERR);
		}
	/* One of the two tables only. */
	memset(data, 0, sizeof(data));
	assert_int_equal(
		net_control(liar, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, 4),
		VIRTIO_NET_ERR);
	assert_int_equal(
		net_control(liar, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, 8),
		VIRTIO_NET_OK);
	others_expect();
}

/* Pieces of a command: `answer` bytes for the answer; `cut`: each byte in a piece of its own. */
static void put_command(struct virtq *queue, uint32_t bytes, uint32_t answer, bool cut)
{
	struct slot *slot = &queue->slot[0];
	struct piece piece[8];
	unsigned count = 0;

	slot->data[0] = VIRTIO_NET_CTRL_RX;
	slot->data[1] = VIRTIO_NET_CTRL_RX_PROMISC;
	slot->data[2] = 1;
	slot->data[64] = 0xff;
	for (uint32_t at = 0; at < bytes; at += cut ? 1 : bytes)
		piece[count++] = (struct piece){ slot->data_guest + at, cut ? 1 : bytes,
						 VRING_DESC_F_NEXT, 0 };
	if (answer)
		piece[count++] =
			(struct piece){ slot->data_guest + 64, answer, VRING_DESC_F_WRITE, 0 };
	piece[count - 1].flags &= (uint16_t)~VRING_DESC_F_NEXT;
	slot->busy = true;
	slot->pieces = (uint16_t)count;
	virtq_raw_chain(queue, piece, count);
}

static void commands_in_pieces(void **state)
{
	struct net_options options = options_of(state);

	options.control = true;
	options.queue_size = 64;
	liars_open("1");
	struct net *liar = liar_plug(options);
	struct virtq *queue = liar->control;
	/* Any layout will do (virtio 1.2, 2.7.4). */
	for (unsigned i = 0; i < 4; i++) {
		uint16_t done;
		put_command(queue, 3, i & 1 ? 100 : 1, i & 2);
		must_net(liar, virtq_wait(queue, NET_WAIT_MS));
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		assert_int_equal(queue->slot[0].data[64], VIRTIO_NET_OK);
		assert_int_equal(queue->slot[0].used, 1);
	}
	put_command(queue, 1, 1, false);
	liar_expect_settled(queue, 1);
	others_expect();
	/* No room for the answer; nothing but room. */
	liar = liar_plug(options);
	put_command(liar->control, 3, 0, false);
	liar_expect_broken();
	others_expect();
	liar = liar_plug(options);
	put_command(liar->control, 0, 1, false);
	liar_expect_settled(liar->control, 1);
	others_expect();
}

/* ---- VMMs ---- */

/* The memory of frames under way, and of receive buffers, is cut off. */
static void memory_taken_away(void **state)
{
	liars_open("2");
	for (unsigned i = 0; i < 6; i++) {
		struct net *liar = liar_plug(options_of(state));
		for (unsigned n = 0; n < 30; n++)
			lan_send(LIAR, n % 2 ? mac_peer : mac_broadcast, mac_liar, 20000, n);
		for (unsigned region = 2; region < 4; region++)
			if (i % 3 != region - 2)
				assert_int_equal(ftruncate(liar->driver->region[region].fd, 0), 0);
		for (unsigned n = 0; n < 30; n++)
			lan_send(PEER, mac_liar, mac_peer, 20000, n);
		must_net(&lan.card[PEER], net_drain(&lan.card[PEER], 0));
		sleep_ms(10);
		/* Not a byte of it may be touched here any more. */
		peer_expect_sense(1000);
		others_expect();
	}
}

/* A card goes while its frames are on their way to other loops. */
static void gone_in_the_middle(void **state)
{
	liars_open("2");
	for (unsigned i = 0; i < 30; i++) {
		struct net *liar = liar_plug(options_of(state));
		for (unsigned n = 0; n < 40; n++) {
			frame_make(lan.out, n % 2 ? mac_peer : mac_broadcast, mac_liar, 9000, n);
			must_net(liar, net_put(liar, 0, NULL, lan.out, 9000));
		}
		net_publish(liar, 0);
		if (i % 3 == 0)
			must(liar->driver, driver_stop(liar->driver));
		if (i % 3 == 1)
			driver_remove_region(liar->driver, &liar->driver->region[3]);
		lan_unplug(LIAR);
		peer_expect_sense(10000);
	}
	liar_plug(options_of(state));
	others_expect();
}

/* Messages that only a network device has, of any size, and before anything was negotiated. */
static void messages_that_lie(void **state)
{
	static const uint32_t requests[] = { VU_SEND_RARP, VU_NET_SET_MTU };

	liars_open("1");
	for (unsigned i = 0; i < 2 * 20; i++) {
		struct vu_message message = { .request = requests[i % 2],
					      .flags = VU_VERSION | VU_NEED_REPLY,
					      .size = i / 2 };
		memset(message.payload.bytes, 0xff, sizeof(message.payload.bytes));
		struct net *liar = liar_plug(options_of(state));
		must(liar->driver, vu_send_raw(&liar->driver->vu, &message,
					       VU_HEADER_BYTES + message.size, NULL, 0));
		others_expect();
	}
	for (unsigned i = 0; i < 2; i++) {
		struct vu_client vu = { .fd = -1 };
		uint64_t payload = ~0ull;
		assert_int_equal(vu_connect(&vu, daemon_path(&lan.daemon, "liar")), 0);
		vu_request(&vu, requests[i], &payload, sizeof(payload), NULL, 0);
		vu_disconnect(&vu);
		others_expect();
	}
}

/* ---- floods ---- */

enum { FLOOD_MS = 1500, LEAST = 200 };

/* Fills frame number `n` of a flood: its length. */
typedef uint32_t flood_fn(uint8_t *frame, unsigned n);

static uint32_t storm(uint8_t *frame, unsigned n)
{
	frame_make(frame, mac_broadcast, mac_liar, 60, n);
	return 60;
}

static uint32_t storm_of_long_frames(uint8_t *frame, unsigned n)
{
	frame_make(frame, mac_broadcast, mac_liar, 1514, n);
	return 1514;
}

static uint32_t addresses(uint8_t *frame, unsigned n)
{
	uint8_t to[6], from[6];

	mac_make(to, 0x80000000u | n);
	mac_make(from, 0x40000000u | n);
	frame_make(frame, to, from, 60, n);
	return 60;
}

static uint32_t blast(uint8_t *frame, unsigned n)
{
	frame_make(frame, mac_peer, mac_liar, 60, n);
	return 60;
}

static void flood(void **state, flood_fn *make)
{
	unsigned n = 0;

	liars_open(**(char **)state == '2' ? "2" : "1");
	struct net *liar = liar_plug(
		(struct net_options){ .queue_size = 1024, .decline = FEATURE(VIRTIO_NET_F_MQ) });
	others_may_lose(true);
	unsigned long long before = others_count();
	for (int64_t end = clock_ms() + FLOOD_MS; clock_ms() < end;) {
		for (unsigned i = 0; i < 64; i++, n++) {
			uint32_t length = make(lan.out, n);
			must_net(liar, net_put(liar, 0, NULL, lan.out, length));
		}
		net_publish(liar, 0);
		/* The peer takes no more than what comes by the way. */
		net_receive(&lan.card[PEER], 0, &lan.frame, 0);
	}
	unsigned long long passed = others_count() - before;
	print_message("# %u frames of the flood, %llu frames of the others\n", n, passed);
	if (passed < LEAST)
		fail_msg("the others exchanged %llu frames during the flood", passed);
	must_net(liar, net_drain(liar, 0));
	lan_flush(PEER);
	others_may_lose(false);
	others_expect();
}

static void broadcast_storm(void **state)
{
	flood(state, storm);
}

static void broadcast_storm_of_long_frames(void **state)
{
	flood(state, storm_of_long_frames);
}

static void address_flood(void **state)
{
	flood(state, addresses);
}

static void unicast_blast(void **state)
{
	flood(state, blast);
}

int main(void)
{
#define RINGS(test)                                                                                \
	{ #test ", split", test, NULL, liars_close, (void *)"s-" },                                \
	{                                                                                          \
#test ", packed", test, NULL, liars_close, (void *)"p-"                            \
	}
#define LOOPS(test)                                                                                \
	{ #test ", one loop", test, NULL, liars_close, (void *)"1" },                              \
	{                                                                                          \
#test ", two loops", test, NULL, liars_close, (void *)"2"                          \
	}
	const struct CMUnitTest tests[] = {
		RINGS(headers_that_lie),
		RINGS(headers_of_noise),
		RINGS(descriptors_that_lie),
		RINGS(receive_buffers_that_lie),
		RINGS(no_receive_buffers),
		RINGS(command_lengths),
		RINGS(tables_that_overflow),
		RINGS(commands_in_pieces),
		RINGS(memory_taken_away),
		RINGS(gone_in_the_middle),
		RINGS(messages_that_lie),
		LOOPS(broadcast_storm),
		LOOPS(broadcast_storm_of_long_frames),
		LOOPS(address_flood),
		LOOPS(unicast_blast),
	};

	return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
