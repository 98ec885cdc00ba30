/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_test.c - guests with NICs on a switch: what one sends another receives, whole, once, in
 * order, with what is left to be done; and what happens if a buffer, or a guest, is wrong
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frontend/virtio/net_testing.h"
#include "packet/offload.h"
#include "util/log.h"

#define BIT(n) (1ull << (n))
#define HEADER 12u
#define OFFLOAD                                                                                    \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |     \
	 BIT(VIRTIO_NET_F_GUEST_TSO4))

static struct rig rig;
static struct guest *a, *b;

static void begin(unsigned loops, uint64_t features, const char *pairs,
		  const char *const *options_of_b)
{
	const struct guest_plan plan_a = { .name = "a", .pairs = pairs, .mac = 1 };
	const struct guest_plan plan_b = {
		.name = "b", .pairs = pairs, .mac = 2, .options = options_of_b
	};

	rig_begin(&rig, loops, NULL);
	a = guest_make(&rig, &plan_a);
	b = guest_make(&rig, &plan_b);
	guest_negotiate(a, features | BIT(VIRTIO_F_VERSION_1));
	guest_negotiate(b, features | BIT(VIRTIO_F_VERSION_1));
	guest_start(a, 0);
	guest_start(a, 1);
	guest_start(b, 0);
	guest_start(b, 1);
}

static void end(void)
{
	guest_end(a);
	guest_end(b);
	rig_end(&rig);
}

static uint64_t drops(const struct guest *guest, enum packet_direction direction,
		      enum port_drop cause)
{
	const struct port *port = guest->device->units[0].port;
	uint64_t sum = 0;

	for (unsigned i = 0; i < port->lane_count; i++)
		sum += stats_read(&port->lanes[i]->stats.direction[direction].drops[cause]);
	return sum;
}

/* A frame of @length bytes from A to B, at @offset of A's transmit buffers, behind a header of
 * zeroes. */
static struct virtio_net_hdr_mrg_rxbuf *frame_at(uint32_t offset, uint32_t length, uint8_t mark)
{
	struct guest_queue *q = &a->queue[1];

	memset(guest_at(q, offset), 0, HEADER);
	rig_frame((uint8_t *)guest_at(q, offset + HEADER), length, 2, 1, 0x88b5);
	guest_at(q, offset + HEADER)[14] = (char)mark;
	return (void *)guest_at(q, offset);
}

static void give_frame(uint32_t offset, uint32_t length, uint8_t mark)
{
	struct guest_piece piece = { offset, HEADER + length, false };

	frame_at(offset, length, mark);
	guest_give(&a->queue[1], &piece, 1);
}

static void give_buffers(struct guest_queue *q, unsigned from, unsigned count, uint32_t bytes)
{
	for (unsigned i = from; i < from + count; i++) {
		struct guest_piece piece = { i * bytes, bytes, true };

		guest_give(q, &piece, 1);
	}
}

static void expect_sent(unsigned count)
{
	uint32_t written;

	for (unsigned i = 0; i < count; i++) {
		assert_true(guest_take(&a->queue[1], &written) >= 0);
		assert_int_equal(written, 0);
	}
	assert_int_equal(guest_take(&a->queue[1], &written), -1);
}

/* The next buffer of B: @length bytes of a frame with @mark. */
static const struct virtio_net_hdr_mrg_rxbuf *expect_frame(uint32_t at, uint32_t length,
							   uint8_t mark)
{
	struct guest_queue *q = &b->queue[0];
	const struct virtio_net_hdr_mrg_rxbuf *header = (void *)guest_at(q, at);
	uint8_t expected[2048];
	uint32_t written;

	rig_frame(expected, length, 2, 1, 0x88b5);
	expected[14] = mark;
	assert_true(guest_take(q, &written) >= 0);
	assert_int_equal(written, HEADER + length);
	assert_int_equal(header->num_buffers, 1);
	assert_memory_equal(guest_at(q, at + HEADER), expected, length);
	return header;
}

/* --- what works ----------------------------------------------------------------------- */

static void frames_go_through(uint64_t features, unsigned loops)
{
	begin(loops, features | BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	for (unsigned round = 0; round < 40; round++) {
		unsigned n = round % 7 + 1;

		give_buffers(&b->queue[0], 0, n, 2048);
		for (unsigned i = 0; i < n; i++)
			give_frame(i * 2048, 60 + i * 200 + round, (uint8_t)(round + i));
		guest_kick(&a->queue[1]);
		expect_sent(n);
		for (unsigned i = 0; i < n; i++)
			expect_frame(i * 2048, 60 + i * 200 + round, (uint8_t)(round + i));
	}
	assert_string_equal(a->queue[1].reason, "");
	assert_string_equal(b->queue[0].reason, "");
	end();
}

static void over_split_rings(void **unused)
{
	(void)unused;
	frames_go_through(0, 1);
}

static void over_packed_rings(void **unused)
{
	(void)unused;
	frames_go_through(BIT(VIRTIO_F_RING_PACKED), 1);
}

/* Without VIRTIO_F_VERSION_1 and mergeable buffers the header has 10 bytes. */
static void an_old_driver(void **unused)
{
	struct guest_piece out[2] = { { 0, 10, false }, { 16, 60, false } };
	struct guest_piece in[2] = { { 0, 10, true }, { 64, 1514, true } };
	uint8_t expected[60];
	uint32_t written;

	(void)unused;
	begin(1, 0, NULL, NULL);
	for (unsigned i = 0; i < 2; i++) {
		guest_stop(&a->queue[i]);
		guest_stop(&b->queue[i]);
	}
	guest_negotiate(a, 0);
	guest_negotiate(b, 0);
	guest_start(a, 1);
	guest_start(b, 0);
	guest_give(&b->queue[0], in, 2);
	rig_frame(expected, sizeof expected, 2, 1, 0x88b5);
	memcpy(guest_at(&a->queue[1], 16), expected, sizeof expected);
	guest_give(&a->queue[1], out, 2);
	guest_kick(&a->queue[1]);
	expect_sent(1);
	assert_true(guest_take(&b->queue[0], &written) >= 0);
	assert_int_equal(written, 70);
	assert_memory_equal(guest_at(&b->queue[0], 64), expected, sizeof expected);
	end();
}

/* A large packet in small mergeable buffers, and its header, cut in odd places. */
static void a_large_packet_takes_several_buffers(void **unused)
{
	struct guest_piece pieces[] = { { 0, 5, false }, { 5, 100, false }, { 105, 4007, false } };
	const struct virtio_net_hdr_mrg_rxbuf *header;
	uint8_t expected[4100];
	uint32_t written = 0, at = 0, total = 0;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	frame_at(0, 4100, 7);
	memcpy(expected, guest_at(&a->queue[1], HEADER), sizeof expected);
	guest_give(&a->queue[1], pieces, 3);
	give_buffers(&b->queue[0], 0, 6, 1000);
	guest_kick(&a->queue[1]);
	header = (void *)guest_at(&b->queue[0], 0);
	assert_int_equal(header->num_buffers, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_true(guest_take(&b->queue[0], &written) >= 0);
		assert_memory_equal(guest_at(&b->queue[0], i * 1000 + (i ? 0 : HEADER)),
				    expected + at, written - (i ? 0 : HEADER));
		at += written - (i ? 0 : HEADER);
		total += written;
	}
	assert_int_equal(total, HEADER + 4100);
	assert_int_equal(guest_take(&b->queue[0], &written), -1);
	end();
}

/* TCP over IPv4 with its sum left out, as a driver leaves it; @total bytes of IP. */
static void tcp_at(uint32_t offset, uint16_t total)
{
	struct virtio_net_hdr_mrg_rxbuf *header = frame_at(offset, 14u + total, 0);
	uint8_t *ip = (uint8_t *)guest_at(&a->queue[1], offset + HEADER + 14);
	static const uint8_t start[40] = { 0x45, 0, 0,  0, 0,    1,    0x40, 0,  64, 6, 0, 0, 10, 0,
					   0,    1, 10, 0, 0,    2,    0,    80, 4,  0, 0, 0, 0,  1,
					   0,    0, 0,  1, 0x50, 0x10, 1,    0,  0,  0, 0, 0 };

	ip[-2] = 8;
	ip[-1] = 0;
	memcpy(ip, start, sizeof start);
	ip[2] = (uint8_t)(total >> 8);
	ip[3] = (uint8_t)total;
	header->hdr = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					       .csum_start = 34,
					       .csum_offset = 16 };
	if (total > 1500) {
		header->hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		header->hdr.gso_size = 1400;
		header->hdr.hdr_len = 54;
	}
}

static void what_is_left_out_stays_so_between_guests(void **unused)
{
	struct guest_piece piece = { 0, HEADER + 14 + 9000, false };
	const struct virtio_net_hdr_mrg_rxbuf *header;
	uint32_t written;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF) | OFFLOAD, NULL, NULL);
	tcp_at(0, 9000);
	guest_give(&a->queue[1], &piece, 1);
	give_buffers(&b->queue[0], 0, 1, 16384);
	guest_kick(&a->queue[1]);
	assert_true(guest_take(&b->queue[0], &written) >= 0);
	assert_int_equal(written, piece.length);
	header = (void *)guest_at(&b->queue[0], 0);
	assert_int_equal(header->hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(header->hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(header->hdr.gso_size, 1400);
	assert_int_equal(header->hdr.hdr_len, 54);
	assert_int_equal(header->hdr.csum_start, 34);
	assert_int_equal(header->hdr.csum_offset, 16);
	end();
}

/* B cannot: it gets segments. */
static void what_is_left_out_is_done_for_who_cannot(void **unused)
{
	struct guest_piece piece = { 0, HEADER + 14 + 40 + 4200, false };
	const struct virtio_net_hdr_mrg_rxbuf *header;
	uint32_t written;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	tcp_at(0, 40 + 4200);
	guest_give(&a->queue[1], &piece, 1);
	give_buffers(&b->queue[0], 0, 5, 2048);
	guest_kick(&a->queue[1]);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(guest_take(&b->queue[0], &written) >= 0);
		assert_int_equal(written, HEADER + 14 + 40 + 1400);
		header = (void *)guest_at(&b->queue[0], i * 2048);
		assert_int_equal(header->hdr.flags | header->hdr.gso_type, 0);
	}
	assert_int_equal(guest_take(&b->queue[0], &written), -1);
	end();
}

/* B is on a trunk: the tag comes in, and where sums begin moves with it. */
static void a_tag_is_put_in(void **unused)
{
	static const char *const trunk[] = { "trunk", "all", "vlan", "0", NULL };
	struct guest_piece piece = { 0, HEADER + 14 + 1000, false };
	static const uint8_t tag[4] = { 0x81, 0, 0, 1 };
	const struct virtio_net_hdr_mrg_rxbuf *header;
	uint8_t *frame;
	uint32_t written;

	(void)unused;
	for (unsigned scattered = 0; scattered < 2; scattered++) {
		begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF) | OFFLOAD, NULL, trunk);
		tcp_at(0, 1000);
		guest_give(&a->queue[1], &piece, 1);
		give_buffers(&b->queue[0], 0, 4, scattered ? 512 : 2048);
		guest_kick(&a->queue[1]);
		assert_true(guest_take(&b->queue[0], &written) >= 0);
		assert_int_equal(written, scattered ? 512 : piece.length + 4);
		header = (void *)guest_at(&b->queue[0], 0);
		assert_int_equal(header->hdr.csum_start, 38);
		frame = (uint8_t *)guest_at(&b->queue[0], HEADER);
		assert_memory_equal(frame + 12, tag, sizeof tag);
		assert_memory_equal(frame, guest_at(&a->queue[1], HEADER), 12);
		assert_memory_equal(frame + 16, guest_at(&a->queue[1], HEADER + 12), 400);
		end();
	}
}

/* --- buffers ------------------------------------------------------------------------- */

static void frames_wait_for_buffers(void **unused)
{
	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	for (unsigned i = 0; i < 5; i++)
		give_frame(i * 2048, 100, (uint8_t)i);
	give_buffers(&b->queue[0], 0, 2, 2048);
	guest_kick(&a->queue[1]);
	expect_sent(5);
	expect_frame(0, 100, 0);
	expect_frame(2048, 100, 1);
	give_frame(5 * 2048, 100, 5);
	guest_kick(&a->queue[1]);
	give_buffers(&b->queue[0], 2, 5, 2048);
	guest_kick(&b->queue[0]);
	for (unsigned i = 2; i < 6; i++)
		expect_frame(i * 2048, 100, (uint8_t)i);
	give_frame(0, 100, 6); /* and nobody waits any more */
	guest_kick(&a->queue[1]);
	expect_frame(6 * 2048, 100, 6);
	assert_int_equal(drops(b, PACKET_OUT, DROP_NO_BUFFER), 0);
	end();
}

/* A guest that stands still: what waits is dropped after a while, the next ones at once. */
static void frames_do_not_wait_for_ever(void **unused)
{
	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	give_frame(0, 100, 0);
	guest_kick(&a->queue[1]);
	assert_int_equal(drops(b, PACKET_OUT, DROP_NO_BUFFER), 0);
	for (unsigned i = 0; i < 500 && !drops(b, PACKET_OUT, DROP_NO_BUFFER); i++)
		usleep(10000);
	assert_int_equal(drops(b, PACKET_OUT, DROP_NO_BUFFER), 1);
	give_frame(0, 100, 1);
	guest_kick(&a->queue[1]);
	assert_int_equal(drops(b, PACKET_OUT, DROP_NO_BUFFER), 2);
	give_buffers(&b->queue[0], 0, 1, 2048);
	give_frame(0, 100, 2);
	guest_kick(&a->queue[1]);
	expect_frame(0, 100, 2);
	end();
}

/* Only so many wait. */
static void not_all_frames_wait(void **unused)
{
	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 60; i++)
			give_frame(i * 2048, 100, (uint8_t)i);
		guest_kick(&a->queue[1]);
		expect_sent(60);
	}
	/* 256 wait, or have been dropped meanwhile if this machine is slow. */
	assert_in_range(drops(b, PACKET_OUT, DROP_NO_BUFFER), 360 - 256, 360);
	end();
}

/* Two buffers for a packet that takes five: they stay, and serve the next ones when it is gone. */
static void buffers_are_used_in_order(uint64_t features)
{
	struct guest_piece piece = { 0, HEADER + 4500, false };
	uint32_t written;

	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF) | features, NULL, NULL);
	frame_at(0, 4500, 0);
	guest_give(&a->queue[1], &piece, 1);
	give_buffers(&b->queue[0], 0, 2, 1000);
	guest_kick(&a->queue[1]);
	assert_int_equal(guest_take(&b->queue[0], &written), -1);
	/* A queue that stops gives what it has not used back to the ring, for whoever comes next.
	 */
	guest_stop(&b->queue[0]);
	assert_int_equal(guest_take(&b->queue[0], &written), -1);
	assert_int_equal(drops(b, PACKET_OUT, DROP_NO_BUFFER), 1);
	guest_start(b, 0);
	give_buffers(&b->queue[0], 2, 2, 1000);
	for (unsigned i = 0; i < 4; i++)
		give_frame(8192 + i * 2048, 100 + i, (uint8_t)i);
	guest_kick(&a->queue[1]);
	for (unsigned i = 0; i < 4; i++)
		expect_frame(i * 1000, 100 + i, (uint8_t)i);
	assert_string_equal(b->queue[0].reason, "");
	end();
}

static void buffers_are_used_in_order_split(void **unused)
{
	(void)unused;
	buffers_are_used_in_order(0);
}

static void buffers_are_used_in_order_packed(void **unused)
{
	(void)unused;
	buffers_are_used_in_order(BIT(VIRTIO_F_RING_PACKED));
}

/* Without mergeable buffers a packet must fit one; the next one may. */
static void what_does_not_fit_a_buffer_is_dropped(void **unused)
{
	struct guest_piece chain[2] = { { 0, 20, true }, { 64, 480, true } };

	(void)unused;
	begin(1, 0, NULL, NULL);
	guest_give(&b->queue[0], chain, 2);
	give_frame(0, 500, 1);
	guest_kick(&a->queue[1]);
	assert_int_equal(drops(b, PACKET_OUT, DROP_TOO_LONG), 1);
	give_frame(2048, 488, 2);
	guest_kick(&a->queue[1]);
	assert_int_equal(drops(b, PACKET_OUT, DROP_TOO_LONG), 1);
	assert_int_equal((uint8_t)guest_at(&b->queue[0], 64)[14 - 8], 2);
	assert_string_equal(b->queue[0].reason, "");
	end();
}

/* --- who is wrong ---------------------------------------------------------------------- */

/* A frame that is none is dropped, and its buffer comes back; nothing breaks. */
static void a_wrong_frame_is_dropped(void **unused)
{
	struct guest_piece empty = { 0, HEADER, false }, stub = { 0, HEADER + 13, false };
	struct guest_piece huge[2] = { { 0, 40000, false }, { 0, 40000, false } };

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF) | OFFLOAD, NULL, NULL);
	guest_give(&a->queue[1], &empty, 1);
	guest_give(&a->queue[1], &stub, 1);
	guest_give(&a->queue[1], huge, 2);
	give_frame(65536, 60, 9);
	tcp_at(70000, 1000);
	((struct virtio_net_hdr *)(void *)guest_at(&a->queue[1], 70000))->csum_start = 5000;
	guest_give(&a->queue[1], &(struct guest_piece){ 70000, HEADER + 1014, false }, 1);
	give_buffers(&b->queue[0], 0, 4, 2048);
	guest_kick(&a->queue[1]);
	expect_sent(5);
	assert_int_equal(drops(a, PACKET_IN, DROP_MALFORMED), 3);
	assert_int_equal(drops(a, PACKET_IN, DROP_OFFLOAD), 1);
	expect_frame(0, 60, 9);
	assert_string_equal(a->queue[1].reason, "");
	end();
}

/* A chain that is none breaks the guest's own NIC, and no other. */
static void a_wrong_chain_breaks_its_nic(void **unused)
{
	static const struct {
		struct guest_piece piece;
		unsigned queue;
	} wrong[] = {
		{ { 0, HEADER - 1, false }, 1 },          /* no header */
		{ { 0, 100, true }, 1 },                  /* nothing to send */
		{ { QUEUE_BYTES * 100, 100, false }, 1 }, /* nobody's memory */
		{ { 0, HEADER - 1, true }, 0 },
		{ { 0, 2000, false }, 0 },
		{ { QUEUE_BYTES * 100, 2000, true }, 0 },
	};

	(void)unused;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct guest *bad;

		begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
		bad = wrong[i].queue ? a : b;
		guest_give(&bad->queue[wrong[i].queue], &wrong[i].piece, 1);
		if (!wrong[i].queue)
			give_frame(0, 100, 1);
		guest_kick(&a->queue[1]);
		assert_string_not_equal(bad->queue[wrong[i].queue].reason, "");
		assert_string_equal((bad == a ? b : a)->queue[0].reason, "");
		assert_string_equal((bad == a ? b : a)->queue[1].reason, "");
		end();
	}
}

/* --- several loops and queues ----------------------------------------------------------- */

/* B's queues are on the loop of A's pair 0 or not, as it comes: all arrive, and in order. */
static void over_loops(void **unused)
{
	uint32_t written;

	(void)unused;
	begin(2, BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_MQ), "2", NULL);
	guest_stop(&b->queue[0]);
	guest_start(b, 2); /* the second pair alone, on the other loop */
	for (unsigned round = 0; round < 50; round++) {
		give_buffers(&b->queue[2], 0, 8, 2048);
		for (unsigned i = 0; i < 8; i++)
			give_frame(i * 2048, 100 + i, (uint8_t)(round + i));
		guest_kick(&a->queue[1]);
		expect_sent(8);
		for (unsigned i = 0; i < 8; i++) {
			assert_true(guest_take(&b->queue[2], &written) >= 0);
			assert_int_equal(written, HEADER + 100 + i);
			assert_int_equal((uint8_t)guest_at(&b->queue[2], i * 2048 + HEADER)[14],
					 (uint8_t)(round + i));
		}
	}
	end();
}

/* Four pairs on one loop: each flow has its queue, and keeps it. */
static void flows_choose_a_queue(void **unused)
{
	unsigned seen[4] = { 0 }, used = 0;
	uint32_t written;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_MQ), "4", NULL);
	for (unsigned pair = 1; pair < 4; pair++)
		guest_start(b, 2 * pair);
	for (unsigned pair = 0; pair < 4; pair++)
		give_buffers(&b->queue[2 * pair], 0, 60, 2048);
	for (unsigned flow = 0; flow < 15; flow++)
		for (unsigned i = 0; i < 4; i++) {
			uint32_t offset = (flow * 4 + i) * 4096;
			struct guest_piece piece = { offset, HEADER + 14 + 1000, false };

			tcp_at(offset, 1000);
			guest_at(&a->queue[1], offset + HEADER + 14)[21] = (char)flow;
			memset(guest_at(&a->queue[1], offset), 0, HEADER);
			guest_give(&a->queue[1], &piece, 1);
		}
	guest_kick(&a->queue[1]);
	expect_sent(60);
	for (unsigned pair = 0; pair < 4; pair++)
		for (; guest_take(&b->queue[2 * pair], &written) >= 0; seen[pair]++)
			;
	for (unsigned pair = 0; pair < 4; pair++) {
		assert_int_equal(seen[pair] % 4, 0);
		used += seen[pair] > 0;
	}
	assert_int_equal(seen[0] + seen[1] + seen[2] + seen[3], 60);
	assert_in_range(used, 2, 4);
	end();
}

/* --- the control queue ------------------------------------------------------------------ */

static uint8_t command(struct guest *guest, const void *data, uint32_t length)
{
	struct guest_queue *q = &guest->queue[2];
	struct guest_piece pieces[2] = { { 0, length, false }, { 4096, 1, true } };
	uint32_t written;

	memcpy(guest_at(q, 0), data, length);
	*guest_at(q, 4096) = 0x55;
	guest_give(q, pieces, 2);
	guest_kick(q);
	assert_true(guest_take(q, &written) >= 0);
	assert_int_equal(written, 1);
	return (uint8_t)*guest_at(q, 4096);
}

static void the_control_queue_is_obeyed(void **unused)
{
	static const uint8_t strict[] = { 0, 0, 0 }, loose[] = { 0, 0, 1 }, odd[] = { 9, 9 };
	static const uint8_t address[] = { 1, 1, 2, 0, 0, 0, 0, 2 };

	(void)unused;
	begin(2,
	      BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) |
		      BIT(VIRTIO_NET_F_CTRL_MAC_ADDR),
	      NULL, NULL);
	guest_start(b, 2); /* behind the first pair: MQ was not negotiated */
	give_buffers(&b->queue[0], 0, 8, 2048);
	assert_int_equal(command(b, odd, sizeof odd), VIRTIO_NET_ERR);
	assert_int_equal(command(b, (uint8_t[]){ 1, 1, 2, 0, 0, 0, 0, 77 }, 8), VIRTIO_NET_OK);
	assert_int_equal(command(b, strict, sizeof strict), VIRTIO_NET_OK);
	give_frame(0, 100, 1);
	guest_kick(&a->queue[1]);
	assert_int_equal(drops(b, PACKET_OUT, DROP_FILTER), 1);
	assert_int_equal(command(b, loose, sizeof loose), VIRTIO_NET_OK);
	give_frame(0, 100, 2);
	guest_kick(&a->queue[1]);
	expect_frame(0, 100, 2);
	assert_int_equal(command(b, strict, sizeof strict), VIRTIO_NET_OK);
	assert_int_equal(command(b, address, sizeof address), VIRTIO_NET_OK);
	give_frame(0, 100, 3);
	guest_kick(&a->queue[1]);
	expect_frame(2048, 100, 3);
	assert_int_equal(drops(b, PACKET_OUT, DROP_FILTER), 1);
	end();
}

/* --- what the VMM asks ------------------------------------------------------------------ */

static void ask_rarp(void *data)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };

	(void)data;
	assert_int_equal(a->dev->ops->send_rarp(a->dev, mac), 0);
}

static void a_rarp_is_sent_for_the_guest(void **unused)
{
	static const uint8_t expected[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0,
					    0,    1,    0x80, 0x35, 0,    1,    8, 0, 6, 4,
					    0,    3,    2,    0,    0,    0,    0, 1, 0, 0,
					    0,    0,    2,    0,    0,    0,    0, 1 };
	uint32_t written;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	give_buffers(&b->queue[0], 0, 1, 2048);
	rig_do(rig.control, ask_rarp, NULL);
	rig_settle(&rig);
	assert_true(guest_take(&b->queue[0], &written) >= 0);
	assert_int_equal(written, HEADER + 60);
	assert_memory_equal(guest_at(&b->queue[0], HEADER), expected, sizeof expected);
	end();
}

static void what_the_vmm_is_told(void **unused)
{
	static const char *const options[] = { "mtu", "9000", NULL };
	const struct guest_plan plan = {
		.name = "c", .pairs = "4", .config_space = "true", .mac = 3, .options = options
	};
	struct virtio_net_config config;
	struct error err = { 0 };
	struct guest *c;

	(void)unused;
	begin(1, 0, NULL, NULL);
	c = guest_make(&rig, &plan);
	assert_false(a->dev->ops->features(a->dev) >> VIRTIO_NET_F_MTU & 1);
	assert_true(c->dev->ops->features(c->dev) >> VIRTIO_NET_F_MTU & 1);
	assert_int_equal(a->dev->ops->config_size, 0);
	assert_int_equal(c->dev->ops->config_size, sizeof config);
	c->dev->ops->config_read(c->dev, &config);
	assert_int_equal(config.mac[5], 3);
	assert_int_equal(config.status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(config.max_virtqueue_pairs, 4);
	assert_int_equal(config.mtu, 9000);
	assert_int_equal(c->dev->ops->set_mtu(c->dev, 1500, &err), 0);
	assert_int_equal(c->dev->ops->set_mtu(c->dev, 9001, &err), -EINVAL);
	assert_string_equal(err.text, "an MTU of 9001; that of NIC 'c' is 9000");
	guest_end(c);
	end();
}

static uint16_t status_of(struct guest *guest)
{
	struct virtio_net_config config;

	guest->dev->ops->config_read(guest->dev, &config);
	return config.status;
}

/* A ring goes on where another process left it: the driver is to tell the network, once. */
static void a_guest_that_goes_on_is_to_announce_itself(void **unused)
{
	const struct guest_plan plan = { .name = "c", .config_space = "true", .mac = 3 };
	struct guest *c;

	(void)unused;
	begin(1, BIT(VIRTIO_NET_F_MRG_RXBUF), NULL, NULL);
	c = guest_make(&rig, &plan);
	guest_negotiate(c, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_CTRL_VQ) |
				   BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
	guest_start(c, 0);
	assert_int_equal(status_of(c), VIRTIO_NET_S_LINK_UP);
	guest_stop(&c->queue[0]);
	c->queue[0].final_base = 7;
	guest_start(c, 0);
	guest_start(c, 2);
	assert_int_equal(status_of(c), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(command(c, (uint8_t[]){ 3, 0 }, 2), VIRTIO_NET_OK);
	assert_int_equal(status_of(c), VIRTIO_NET_S_LINK_UP);
	guest_end(c);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_split_rings),
		cmocka_unit_test(over_packed_rings),
		cmocka_unit_test(an_old_driver),
		cmocka_unit_test(a_large_packet_takes_several_buffers),
		cmocka_unit_test(what_is_left_out_stays_so_between_guests),
		cmocka_unit_test(what_is_left_out_is_done_for_who_cannot),
		cmocka_unit_test(a_tag_is_put_in),
		cmocka_unit_test(frames_wait_for_buffers),
		cmocka_unit_test(frames_do_not_wait_for_ever),
		cmocka_unit_test(not_all_frames_wait),
		cmocka_unit_test(buffers_are_used_in_order_split),
		cmocka_unit_test(buffers_are_used_in_order_packed),
		cmocka_unit_test(what_does_not_fit_a_buffer_is_dropped),
		cmocka_unit_test(a_wrong_frame_is_dropped),
		cmocka_unit_test(a_wrong_chain_breaks_its_nic),
		cmocka_unit_test(over_loops),
		cmocka_unit_test(flows_choose_a_queue),
		cmocka_unit_test(the_control_queue_is_obeyed),
		cmocka_unit_test(a_rarp_is_sent_for_the_guest),
		cmocka_unit_test(what_the_vmm_is_told),
		cmocka_unit_test(a_guest_that_goes_on_is_to_announce_itself),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
