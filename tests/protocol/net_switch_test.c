/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_switch_test.c - which frames a switch passes to which cards
 *
 * VLANs, isolation, mirrors, what is learned and forgotten, limits. Each test has a daemon of its
 * own, with one loop and with two; cards 0, 1, 2, 3 are called a, b, c, d.
 */
#include "lan.h"

#include <stdio.h>

enum { PLAIN = 60, TAG = 4 };

static const char *const names[] = { "a", "b", "c", "d" };
static const struct net_options no_queues = { .decline = FEATURE(VIRTIO_NET_F_MQ) };
static uint8_t mac[8][6]; /* addresses 1 to 7; that of card n is n + 1 */

static void open_cards(void **state, const char *lan_options, unsigned count,
		       const char *const *options)
{
	struct lan_plan place = { .loops = *state, .lan = lan_options };

	for (unsigned i = 0; i < count; i++) {
		place.card[i].name = names[i];
		place.card[i].options = options[i];
	}
	for (unsigned i = 1; i < 8; i++)
		mac_make(mac[i], i);
	lan_open(&place);
	for (unsigned i = 0; i < count; i++)
		lan_plug(i, names[i], no_queues);
}

#define OPEN(lan_options, ...)                                                                     \
	open_cards(state, lan_options, sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *),   \
		   (const char *[]){ __VA_ARGS__ })

/* Sends one, and looks that each of the cards in `to` (a bit each) gets it, and no other. */
static void send_to(unsigned from, const uint8_t to_mac[6], const uint8_t from_mac[6], unsigned to)
{
	static uint64_t number = 1;

	number++;
	lan_send(from, to_mac, from_mac, PLAIN, number);
	for (unsigned card = 0; card < 4; card++)
		if (to & 1u << card)
			lan_expect(card, to_mac, from_mac, PLAIN, number);
	for (unsigned card = 0; card < 4; card++)
		if (lan.card[card].driver && !(to & 1u << card))
			lan_expect_nothing(card);
}

/* A frame with a tag, in `bytes`: its length. */
static uint32_t make_tagged(uint8_t *bytes, const uint8_t to[6], const uint8_t from[6],
			    unsigned vlan, uint64_t number)
{
	frame_make(bytes, to, from, PLAIN, number);
	memmove(bytes + 12 + TAG, bytes + 12, PLAIN - 12);
	bytes[12] = 0x81;
	bytes[13] = 0;
	bytes[14] = (uint8_t)(vlan >> 8);
	bytes[15] = (uint8_t)vlan;
	return PLAIN + TAG;
}

static void send_tagged(unsigned card, unsigned vlan, uint64_t number)
{
	struct net *net = &lan.card[card];
	uint32_t length = make_tagged(lan.out, mac_broadcast, mac[card + 1], vlan, number);

	must_net(net, net_send(net, 0, NULL, lan.out, length));
}

static void expect_tagged(unsigned card, unsigned from, unsigned vlan, uint64_t number)
{
	struct net *net = &lan.card[card];
	uint32_t length = make_tagged(lan.out, mac_broadcast, mac[from + 1], vlan, number);

	must_net(net, net_receive(net, 0, &lan.frame, NET_WAIT_MS));
	assert_int_equal(lan.frame.length, length);
	assert_memory_equal(lan.frame.bytes, lan.out, length);
}

static void expect_plain(unsigned card, unsigned from, uint64_t number)
{
	lan_expect(card, mac_broadcast, mac[from + 1], PLAIN, number);
}

/* ---- VLANs ---- */

static void access_ports_are_apart(void **state)
{
	OPEN(NULL, "vlan: 10", "vlan: 10", "vlan: 20", "vlan: 20");
	send_to(0, mac_broadcast, mac[1], 1 << 1);
	send_to(2, mac_broadcast, mac[3], 1 << 3);
	/* One address in two VLANs is two stations. */
	send_to(2, mac_broadcast, mac[1], 1 << 3);
	send_to(1, mac[1], mac[2], 1 << 0);
	send_to(3, mac[1], mac[4], 1 << 2);
	/* An access port takes no tag. */
	send_tagged(0, 20, 77);
	for (unsigned card = 1; card < 4; card++)
		lan_expect_nothing(card);
}

/* An access port of 10, one of 20, a trunk of all, a trunk of 20 to 29 whose own VLAN is 10. */
static void trunk_and_access(void **state)
{
	OPEN(NULL, "vlan: 10", "vlan: 20", "trunk: all, vlan: 0", "trunk: \"20-29\", vlan: 10");
	lan_send(0, mac_broadcast, mac[1], PLAIN, 1);
	expect_tagged(2, 0, 10, 1);
	expect_plain(3, 0, 1);
	lan_expect_nothing(1);

	lan_send(1, mac_broadcast, mac[2], PLAIN, 2);
	expect_tagged(2, 1, 20, 2);
	expect_tagged(3, 1, 20, 2);
	lan_expect_nothing(0);

	send_tagged(2, 10, 3);
	expect_plain(0, 2, 3);
	expect_plain(3, 2, 3);
	lan_expect_nothing(1);

	send_tagged(2, 30, 4);                        /* nobody else has it */
	send_tagged(3, 11, 5);                        /* not among its VLANs */
	lan_send(2, mac_broadcast, mac[3], PLAIN, 6); /* it has no VLAN for what has no tag */
	for (unsigned card = 0; card < 4; card++)
		lan_expect_nothing(card);

	send_tagged(3, 21, 7);
	expect_tagged(2, 3, 21, 7);
	lan_send(3, mac_broadcast, mac[4], PLAIN, 8);
	expect_plain(0, 3, 8);
	expect_tagged(2, 3, 10, 8);
	lan_expect_nothing(1);
}

/* ---- who may reach whom ---- */

static void isolated_ports_reach_others_only(void **state)
{
	OPEN(NULL, "isolated: true", "isolated: true", NULL);
	send_to(0, mac_broadcast, mac[1], 1 << 2);
	send_to(1, mac_broadcast, mac[2], 1 << 2);
	send_to(2, mac_broadcast, mac[3], 1 << 0 | 1 << 1);
	send_to(0, mac[2], mac[1], 0);
	send_to(0, mac[3], mac[1], 1 << 2);
	send_to(2, mac[2], mac[3], 1 << 1);
}

static void mirror_sees_both_directions(void **state)
{
	OPEN(NULL, NULL, NULL, NULL, "mirror: a");
	lan_learn(0, mac[1]);
	lan_learn(1, mac[2]);
	lan_learn(2, mac[3]);
	send_to(0, mac[2], mac[1], 1 << 1 | 1 << 3);
	send_to(1, mac[1], mac[2], 1 << 0 | 1 << 3);
	send_to(1, mac[3], mac[2], 1 << 2);
	/* It sends nothing. */
	send_to(3, mac_broadcast, mac[4], 0);
	send_to(0, mac[4], mac[1], 1 << 1 | 1 << 2 | 1 << 3);
}

/* ---- what is learned ---- */

static void known_addresses_are_not_flooded(void **state)
{
	OPEN(NULL, NULL, NULL, NULL);
	send_to(0, mac[2], mac[1], 1 << 1 | 1 << 2);
	send_to(1, mac[1], mac[2], 1 << 0);
	send_to(0, mac[2], mac[1], 1 << 1);
	/* Nobody sends to himself through a switch. */
	send_to(0, mac[1], mac[5], 0);
}

static void address_moves(void **state)
{
	OPEN(NULL, NULL, NULL, NULL);
	lan_learn(0, mac[5]);
	send_to(2, mac[5], mac[3], 1 << 0);
	lan_learn(1, mac[5]);
	send_to(2, mac[5], mac[3], 1 << 1);
	lan_learn(0, mac[5]);
	send_to(2, mac[5], mac[3], 1 << 0);
}

static void addresses_age(void **state)
{
	OPEN("ageing: 1s", NULL, NULL, NULL);
	lan_learn(0, mac[5]);
	send_to(2, mac[5], mac[3], 1 << 0);
	sleep_ms(2500);
	send_to(2, mac[5], mac[3], 1 << 0 | 1 << 1);
	/* What is heard of stays. */
	for (unsigned i = 0; i < 4; i++) {
		lan_learn(0, mac[5]);
		sleep_ms(500);
	}
	send_to(2, mac[5], mac[3], 1 << 0);
}

static void addresses_of_a_port_are_capped(void **state)
{
	unsigned known = 0;
	uint8_t many[6];

	OPEN(NULL, "addresses: 4", NULL, NULL);
	for (unsigned i = 0; i < 12; i++) {
		mac_make(many, 0x100 + i);
		lan_learn(0, many);
	}
	for (unsigned i = 0; i < 12; i++) {
		mac_make(many, 0x100 + i);
		lan_send(2, many, mac[3], PLAIN, i);
		lan_expect(0, many, mac[3], PLAIN, i);
		unsigned pair;
		known += net_receive_any(&lan.card[1], &pair, &lan.frame, QUIET_MS) == -ETIMEDOUT;
	}
	assert_int_equal(known, 4);
	/* Others learn as before. */
	lan_learn(1, mac[2]);
	send_to(0, mac[2], mac[1], 1 << 1);
}

static void static_addresses_stay(void **state)
{
	OPEN(NULL, "static: \"02:50:00:00:00:05\"", NULL, NULL);
	send_to(2, mac[5], mac[3], 1 << 0);
	/* Somebody else says that it is his. */
	send_to(1, mac_broadcast, mac[5], 0);
	send_to(2, mac[5], mac[3], 1 << 0);
	send_to(0, mac_broadcast, mac[5], 1 << 1 | 1 << 2);
}

static void port_without_learning(void **state)
{
	OPEN(NULL, "learning: false", NULL, NULL);
	lan_learn(0, mac[1]);
	send_to(2, mac[1], mac[3], 1 << 0 | 1 << 1);
}

static void port_without_unknown(void **state)
{
	OPEN(NULL, NULL, "unknown: false", NULL);
	send_to(0, mac[5], mac[1], 1 << 2);
	send_to(0, mac_broadcast, mac[1], 1 << 1 | 1 << 2);
	lan_learn(1, mac[2]);
	send_to(0, mac[2], mac[1], 1 << 1);
}

static void sources_that_are_groups_are_dropped(void **state)
{
	static const uint8_t group[6] = { 0x03, 0, 0, 0, 0, 1 };

	OPEN(NULL, NULL, NULL, NULL);
	send_to(0, mac[2], group, 0);
	send_to(0, mac_broadcast, mac_broadcast, 0);
	send_to(0, group, mac[1], 1 << 1 | 1 << 2);
}

/* ---- limits ---- */

static void flood_is_limited(void **state)
{
	enum { LIMIT = 100, SENT = 2000 };
	struct net *net;
	unsigned got = 0, pair;

	OPEN(NULL, "flood-limit: 100", NULL, NULL);
	lan_learn(1, mac[2]);
	net = &lan.card[0];
	int64_t begin = clock_ms();
	for (unsigned i = 0; i < SENT; i++) {
		lan_send(0, mac_broadcast, mac[1], PLAIN, i);
		while (!net_receive_any(&lan.card[1], &pair, &lan.frame, 0))
			got++;
	}
	must_net(net, net_drain(net, 0));
	while (!net_receive_any(&lan.card[1], &pair, &lan.frame, QUIET_MS))
		got++;
	int64_t seconds = (clock_ms() - begin) / 1000 + 1;
	print_message("# %u of %u frames passed\n", got, SENT);
	assert_in_range(got, 1, LIMIT * (seconds + 1));
	lan_flush(2);
	/* What goes to one port only is not concerned. */
	for (unsigned i = 0; i < 500; i++) {
		lan_send(0, mac[2], mac[1], PLAIN, i);
		lan_expect(1, mac[2], mac[1], PLAIN, i);
	}
}

static void longer_than_mtu(void **state)
{
	/* A port has room for a tag beyond its MTU. */
	enum { MOST = 1500 + ETHERNET + TAG };

	OPEN(NULL, "mtu: 9000", "mtu: 1500", "mtu: 9000, trunk: all, vlan: 1", "mtu: 1500");
	lan_send(0, mac_broadcast, mac[1], MOST, 1);
	for (unsigned card = 1; card < 4; card++)
		lan_expect(card, mac_broadcast, mac[1], MOST, 1);
	lan_send(0, mac_broadcast, mac[1], MOST + 1, 2);
	lan_expect(2, mac_broadcast, mac[1], MOST + 1, 2);
	lan_expect_nothing(1);
	lan_expect_nothing(3);
	lan_send(0, mac_broadcast, mac[1], 9000 + ETHERNET, 3);
	lan_expect(2, mac_broadcast, mac[1], 9000 + ETHERNET, 3);
	lan_expect_nothing(1);
}

int main(void)
{
#define BOTH(test)                                                                                 \
	{ #test, test, NULL, lan_close, (void *)"1" },                                             \
	{                                                                                          \
#test ", two loops", test, NULL, lan_close, (void *)"2"                            \
	}
	const struct CMUnitTest tests[] = {
		BOTH(access_ports_are_apart),
		BOTH(trunk_and_access),
		BOTH(isolated_ports_reach_others_only),
		BOTH(mirror_sees_both_directions),
		BOTH(known_addresses_are_not_flooded),
		BOTH(address_moves),
		BOTH(addresses_age),
		BOTH(addresses_of_a_port_are_capped),
		BOTH(static_addresses_stay),
		BOTH(port_without_learning),
		BOTH(port_without_unknown),
		BOTH(sources_that_are_groups_are_dropped),
		BOTH(flood_is_limited),
		BOTH(longer_than_mtu),
	};

	return cmocka_run_group_tests_name("switch", tests, NULL, NULL);
}
