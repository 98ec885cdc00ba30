/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_test.c - frames between two cards over every kind of ring
 *
 * split and packed × buffers merged or not × with and without EVENT_IDX × 1 and 4 pairs of queues,
 * on one loop and on two, with both engines; indirect tables, headers apart, odd cuts, small and
 * large rings, clients that sleep take turns over these. Some flows run in each direction, each of
 * them on one transmit queue: all frames arrive, byte for byte, and those of a flow in order. One
 * combination of each kind goes through all lengths.
 */
#include "lan.h"

#include <stdio.h>

enum { FLOWS = 4, PAIRS = 4, LONGEST = 65535 + ETHERNET, MOST_IN_FLIGHT = 48 };

struct combination {
	char name[120];
	struct net_options options;
	bool all_lengths;
};

static const struct lan_plan places[] = {
#define CARDS                                                                                      \
	.device = "queue-pairs: 4, queue-size: 1024",                                              \
	.card = { { "a", "mtu: 65535" }, { "b", "mtu: 65535" } }
	{ .loops = "1", CARDS },
	{ .loops = "2", CARDS },
	{ .loops = "2", .engine = "threads", CARDS },
	{ .loops = "1", .engine = "threads", CARDS },
};

static unsigned chosen;

static int start(void **state)
{
	(void)state;
	lan_open(&places[chosen]);
	return 0;
}

static int unplug(void **state)
{
	(void)state;
	lan_unplug(0);
	lan_unplug(1);
	daemon_deadline(0);
	return 0;
}

/* ---- flows ---- */

/* One direction. */
struct stream {
	struct net *from, *to;
	unsigned from_card, to_card;
	uint32_t sent[FLOWS], seen[FLOWS];
	unsigned in_flight;
	uint32_t buffers; /* of the receiver, that those take */
	uint32_t small;   /* length of the one below 22 bytes that is under way */
};

static void flow_mac(uint8_t mac[6], unsigned card, unsigned flow)
{
	mac_make(mac, 0x100 * (card + 1) + flow);
}

static uint32_t buffers_for(const struct net *net, uint32_t length)
{
	uint32_t bytes = net->options.rx_bytes ? net->options.rx_bytes : 2048;

	return net->merged ? (length + NET_HEADER + bytes - 1) / bytes : 1;
}

/* The length is part of the number, so that the receiver knows what to compare with. */
static uint64_t number_of(unsigned flow, uint32_t index, uint32_t length)
{
	return (uint64_t)flow << 60 | (uint64_t)length << 32 | index;
}

/* Sends a frame, if the receiver is sure to have buffers for it. Below 22 bytes a frame has no room
 * for its number: only one of them is under way. */
static bool stream_send(struct stream *stream, unsigned flow, uint32_t length)
{
	uint32_t buffers = buffers_for(stream->to, length);
	uint8_t from[6], to[6];

	if (stream->in_flight &&
	    (stream->buffers + buffers > stream->to->pair[0].rx->slots / 2u ||
	     stream->in_flight == MOST_IN_FLIGHT || length < 22 || stream->small < 22))
		return false;
	flow_mac(from, stream->from_card, flow);
	flow_mac(to, stream->to_card, flow);
	frame_make(lan.out, to, from, length, number_of(flow, stream->sent[flow]++, length));
	must_net(stream->from,
		 net_send(stream->from, flow % stream->from->pairs, NULL, lan.out, length));
	stream->in_flight++;
	stream->small = length;
	stream->buffers += buffers;
	return true;
}

static void stream_check(struct stream *stream, unsigned flow, uint32_t length)
{
	uint8_t from[6], to[6];
	uint64_t number = number_of(flow, stream->seen[flow]++, length);

	flow_mac(from, stream->from_card, flow);
	flow_mac(to, stream->to_card, flow);
	frame_make(lan.out, to, from, length, number);
	if (lan.frame.length != length || memcmp(lan.frame.bytes, lan.out, length))
		fail_msg("flow %u: %u bytes, number %#llx, came in place of %u bytes, number %#llx",
			 flow, lan.frame.length, (unsigned long long)frame_number(lan.frame.bytes),
			 length, (unsigned long long)number);
}

/* Receives all that is under way. */
static void stream_settle(struct stream *stream)
{
	for (; stream->in_flight; stream->in_flight--) {
		unsigned pair;
		int ret = stream->to->options.sleeping
				  ? net_receive(stream->to, 0, &lan.frame, NET_WAIT_MS)
				  : net_receive_any(stream->to, &pair, &lan.frame, NET_WAIT_MS);
		if (ret)
			print_message("# %u frames are missing; %u, %u, %u, %u were sent\n",
				      stream->in_flight, stream->sent[0], stream->sent[1],
				      stream->sent[2], stream->sent[3]);
		must_net(stream->to, ret);
		if (lan.frame.length >= 22) {
			uint64_t number = frame_number(lan.frame.bytes);
			stream_check(stream, number >> 60 & (FLOWS - 1), number >> 32 & 0xfffffff);
		} else {
			stream_check(stream, lan.frame.bytes[11] % FLOWS, stream->small);
		}
	}
	stream->buffers = 0;
}

/* The next length to try. */
static uint32_t next_length(const struct combination *c, uint32_t length)
{
	if (c->all_lengths || length < 300)
		return length + 1;
	/* Around the sizes of buffers every one, else some. */
	uint32_t within = (length + NET_HEADER) % 2048;
	return length + (within > 2040 || within < 8 ? 1 : within < 1900 ? 61 : 7);
}

static void run_combination(void **state)
{
	const struct combination *c = *state;
	struct stream there = { .from_card = 0, .to_card = 1 };
	struct stream back = { .from_card = 1, .to_card = 0 };
	uint64_t random = choose_seed();

	daemon_deadline(60);
	there.from = back.to = lan_plug(0, "a", c->options);
	there.to = back.from = lan_plug(1, "b", c->options);
	assert_int_equal(there.from->merged,
			 !(c->options.decline & FEATURE(VIRTIO_NET_F_MRG_RXBUF)));
	for (unsigned flow = 0; flow < FLOWS; flow++) { /* teaches the switch */
		assert_true(stream_send(&there, flow, 60));
		stream_settle(&there);
		assert_true(stream_send(&back, flow, 60));
		stream_settle(&back);
	}
	for (uint32_t length = ETHERNET, flow = 0; length <= LONGEST;
	     length = next_length(c, length), flow = (flow + 1) % FLOWS)
		while (!stream_send(&there, flow, length))
			stream_settle(&there);
	stream_settle(&there);
	for (unsigned i = 0; i < 3000; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		struct stream *stream = random >> 63 ? &there : &back;
		uint32_t length = random >> 40 & 7 ? 60 + (uint32_t)(random >> 50) % 1455
						   : 22 + (uint32_t)(random >> 33) % 65500;
		while (!stream_send(stream, random >> 60 & (FLOWS - 1), length))
			stream_settle(stream);
	}
	stream_settle(&there);
	stream_settle(&back);
	for (unsigned card = 0; card < 2; card++) {
		struct net *net = &lan.card[card];
		for (unsigned pair = 0; pair < net->pairs; pair++)
			must_net(net, net_drain(net, pair));
		assert_int_equal(net->received,
				 card ? there.seen[0] + there.seen[1] + there.seen[2] +
						 there.seen[3]
				      : back.seen[0] + back.seen[1] + back.seen[2] + back.seen[3]);
		must_net(net, driver_stop(net->driver));
	}
}

/* ---- combinations ---- */

static unsigned make_tests(struct CMUnitTest *tests, struct combination *all)
{
	static const unsigned sizes[] = { 256, 128, 1024, 512 };
	unsigned count = 0;

	for (unsigned i = 0; i < 16; i++) {
		struct combination *c = &all[count];
		unsigned turn = i + chosen;
		c->options = (struct net_options){
			.packed = i & 1,
			.event_idx = i & 2,
			.pairs = i & 8 ? PAIRS : 1,
			.pairs_max = PAIRS,
			.control = i & 8,
			.decline = i & 4 ? FEATURE(VIRTIO_NET_F_MRG_RXBUF) : 0,
			.queue_size = sizes[turn % 4],
			.indirect = turn / 2 % 2,
			.header_apart = turn / 3 % 2,
			.segments = turn % 3 + 1,
			.odd = turn / 5 % 2,
			.sleeping = !(i & 8) && turn / 4 % 2,
			.add_regions = turn % 5 == 0,
		};
		if (!c->options.control) {
			c->options.decline |= FEATURE(VIRTIO_NET_F_MQ);
			c->options.pairs_max = 1;
		}
		/* The longest frame fits half of the buffers. */
		if (c->options.queue_size == 128 && !(i & 4))
			c->options.rx_bytes = 8192;
		c->all_lengths = i < 4 && i == chosen;
		snprintf(c->name, sizeof(c->name),
			 "%s loop(s)%s: %s%s%s%s, %u pair(s) of %u%s%s%s%s", places[chosen].loops,
			 places[chosen].engine ? ", threads" : "", i & 1 ? "packed" : "split",
			 i & 4 ? "" : ", merged", i & 2 ? ", event_idx" : "",
			 c->options.indirect ? ", indirect" : "", c->options.pairs,
			 c->options.queue_size, c->options.header_apart ? ", header apart" : "",
			 c->options.odd ? ", odd cuts" : "", c->options.sleeping ? ", asleep" : "",
			 c->all_lengths ? ", all lengths" : "");
		tests[count++] = (struct CMUnitTest){ .name = c->name,
						      .test_func = run_combination,
						      .teardown_func = unplug,
						      .initial_state = c };
	}
	return count;
}

int main(void)
{
	static struct CMUnitTest tests[4][16];
	static struct combination all[4][16];
	int failed = 0;

	for (chosen = 0; chosen < 4; chosen++)
		failed += _cmocka_run_group_tests("frames", tests[chosen],
						  make_tests(tests[chosen], all[chosen]), start,
						  lan_close);
	return failed;
}
