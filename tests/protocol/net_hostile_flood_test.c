/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile_flood_test.c - a guest that sends as fast as it can: broadcasts, addresses that
 * nobody has seen, frames for one that hardly takes any
 *
 * The others get through meanwhile, on the same loop or on another. See net_hostile.h.
 */
#include "net_hostile.h"

enum { FLOOD_MS = 1500, LEAST = 200, LONGEST_MS = 30000 };

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
	int64_t began = clock_ms();
	while (clock_ms() < began + FLOOD_MS ||
	       (clock_ms() < began + LONGEST_MS && others_count() < before + LEAST)) {
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
#define LOOPS(test)                                                                                \
	{ #test ", one loop", test, NULL, liars_close, (void *)"1" },                              \
	{                                                                                          \
#test ", two loops", test, NULL, liars_close, (void *)"2"                          \
	}
	const struct CMUnitTest tests[] = {
		LOOPS(broadcast_storm),
		LOOPS(broadcast_storm_of_long_frames),
		LOOPS(address_flood),
		LOOPS(unicast_blast),
	};

	return cmocka_run_group_tests_name("hostile floods", tests, NULL, NULL);
}
