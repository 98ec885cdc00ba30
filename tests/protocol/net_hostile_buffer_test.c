/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile_buffer_test.c - a guest whose descriptors lie: of frames to be sent, and of buffers
 * to receive into
 *
 * See net_hostile.h for what has to come of it.
 */
#include "net_hostile.h"

/* ---- frames to be sent ---- */

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
	struct net_options options = liar_options(state);

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
	struct net_options options = liar_options(state);

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
	struct net_options options = liar_options(state);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		RINGS(descriptors_that_lie),
		RINGS(receive_buffers_that_lie),
		RINGS(no_receive_buffers),
	};

	return cmocka_run_group_tests_name("hostile buffers", tests, NULL, NULL);
}
