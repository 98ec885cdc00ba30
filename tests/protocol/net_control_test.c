/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_control_test.c - what a card's driver and its VMM may ask of it
 *
 * Features, configuration space, the commands of the control queue (virtio 1.2, 5.1.6.5), and the
 * vhost-user messages that only a network device has. Card b has the control queue, card a sends
 * what b is to receive or not.
 */
#include "lan.h"

#include <endian.h>
#include <stdio.h>

enum { A, B, PLAIN = 60, PAIRS = 4 };

static uint8_t mac[8][6];
static const uint8_t group[2][6] = { { 0x33, 0x33, 0, 0, 0, 1 }, { 0x01, 0, 0x5e, 0, 0, 2 } };
static uint64_t number;

/* Card b has a configuration space of its own, and a trunk. */
static void open_with(void **state, uint64_t decline)
{
	struct lan_plan place = {
		.loops = *state,
		.device = "queue-pairs: 4, config-space: true",
		.card = { { "a", "trunk: all, vlan: 1" },
			  { "b", "trunk: all, vlan: 1, mtu: 9000, mac: \"02:50:00:00:00:02\"" } },
	};

	for (unsigned i = 0; i < 8; i++)
		mac_make(mac[i], i);
	lan_open(&place);
	lan_plug(A, "a", (struct net_options){ .decline = FEATURE(VIRTIO_NET_F_MQ) });
	lan_plug(B, "b",
		 (struct net_options){ .control = true,
				       .packed = **(char **)state == '2',
				       .pairs = decline & FEATURE(VIRTIO_NET_F_MQ) ? 1 : PAIRS,
				       .decline = decline });
	lan_learn(A, mac[1]);
}

static void open_cards(void **state)
{
	open_with(state, 0);
}

static void expect_ack(uint8_t ack, uint8_t class, uint8_t command, const void *data,
		       uint32_t bytes)
{
	struct net *net = &lan.card[B];
	int ret = net_control(net, class, command, data, bytes);

	if (ret != ack)
		fail_msg("command %u:%u is answered %d in place of %u (%s)", class, command, ret,
			 ack, net->driver->error);
}

static void mode(uint8_t command, bool on)
{
	uint8_t byte = on;

	expect_ack(VIRTIO_NET_OK, VIRTIO_NET_CTRL_RX, command, &byte, 1);
}

/* Whether a frame to `to` arrives at b. */
static void expect_passes(const uint8_t to[6], bool passes)
{
	number++;
	lan_send(A, to, mac[1], PLAIN, number);
	if (passes)
		lan_expect(B, to, mac[1], PLAIN, number);
	else
		lan_expect_nothing(B);
}

static void expect_tag_passes(unsigned vlan, bool passes)
{
	struct net *net = &lan.card[A];
	unsigned pair;

	frame_make(lan.out, mac_broadcast, mac[1], PLAIN, ++number);
	memmove(lan.out + 16, lan.out + 12, PLAIN - 12);
	lan.out[12] = 0x81;
	lan.out[13] = 0;
	lan.out[14] = (uint8_t)(vlan >> 8);
	lan.out[15] = (uint8_t)vlan;
	must_net(net, net_send(net, 0, NULL, lan.out, PLAIN + 4));
	if (!passes) {
		lan_expect_nothing(B);
		return;
	}
	must_net(&lan.card[B], net_receive_any(&lan.card[B], &pair, &lan.frame, NET_WAIT_MS));
	assert_int_equal(lan.frame.length, PLAIN + 4);
	assert_memory_equal(lan.frame.bytes, lan.out, PLAIN + 4);
}

/* ---- what it says of itself ---- */

static void features_and_configuration(void **state)
{
	static const unsigned bits[] = {
		VIRTIO_NET_F_CSUM,
		VIRTIO_NET_F_GUEST_CSUM,
		VIRTIO_NET_F_MAC,
		VIRTIO_NET_F_MTU,
		VIRTIO_NET_F_GUEST_TSO4,
		VIRTIO_NET_F_GUEST_TSO6,
		VIRTIO_NET_F_GUEST_ECN,
		VIRTIO_NET_F_HOST_TSO4,
		VIRTIO_NET_F_HOST_TSO6,
		VIRTIO_NET_F_HOST_ECN,
		VIRTIO_NET_F_MRG_RXBUF,
		VIRTIO_NET_F_STATUS,
		VIRTIO_NET_F_CTRL_VQ,
		VIRTIO_NET_F_CTRL_RX,
		VIRTIO_NET_F_CTRL_VLAN,
		VIRTIO_NET_F_CTRL_RX_EXTRA,
		VIRTIO_NET_F_MQ,
		VIRTIO_NET_F_CTRL_MAC_ADDR,
		VIRTIO_NET_F_GUEST_ANNOUNCE,
		VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
		NET_F_GUEST_USO4,
		NET_F_GUEST_USO6,
		NET_F_HOST_USO,
		VIRTIO_F_RING_PACKED,
		VIRTIO_RING_F_EVENT_IDX,
		VIRTIO_RING_F_INDIRECT_DESC,
	};

	open_cards(state);
	const struct driver *driver = lan.card[B].driver;
	for (unsigned i = 0; i < sizeof(bits) / sizeof(*bits); i++)
		if (!(driver->offered & FEATURE(bits[i])))
			fail_msg("feature %u is not offered", bits[i]);
	/* Fragmentation of UDP is no segmentation, and nobody wants it any more. */
	assert_false(driver->offered & FEATURE(VIRTIO_NET_F_HOST_UFO));
	assert_true(driver->protocol_offered & VU_PF_CONFIG);
	const struct virtio_net_config *config = &driver->net_config;
	assert_memory_equal(config->mac, mac[2], 6);
	assert_true(le16toh(config->status) & VIRTIO_NET_S_LINK_UP);
	assert_int_equal(le16toh(config->max_virtqueue_pairs), PAIRS);
	assert_int_equal(le16toh(config->mtu), 9000);
	assert_true(driver->queues_max >= PAIRS);
	/* It is read-only. */
	assert_int_equal(driver_write_config(lan.card[B].driver, 0, mac[3], 6), -EREMOTEIO);
}

/* ---- what is received ---- */

static void receive_mode(void **state)
{
	open_cards(state);
	/* Who says nothing gets all. */
	expect_passes(mac[5], true);
	expect_passes(group[0], true);

	mode(VIRTIO_NET_CTRL_RX_PROMISC, false);
	expect_passes(mac[2], true);
	expect_passes(mac_broadcast, true);
	expect_passes(mac[5], false);
	expect_passes(group[0], false);

	mode(VIRTIO_NET_CTRL_RX_ALLMULTI, true);
	expect_passes(group[0], true);
	expect_passes(mac[5], false);
	mode(VIRTIO_NET_CTRL_RX_ALLMULTI, false);
	expect_passes(group[0], false);

	mode(VIRTIO_NET_CTRL_RX_ALLUNI, true);
	expect_passes(mac[5], true);
	expect_passes(group[0], false);
	mode(VIRTIO_NET_CTRL_RX_ALLUNI, false);

	mode(VIRTIO_NET_CTRL_RX_NOUNI, true);
	expect_passes(mac[2], false);
	expect_passes(mac_broadcast, true);
	mode(VIRTIO_NET_CTRL_RX_NOUNI, false);
	mode(VIRTIO_NET_CTRL_RX_NOBCAST, true);
	expect_passes(mac_broadcast, false);
	expect_passes(mac[2], true);
	mode(VIRTIO_NET_CTRL_RX_NOBCAST, false);
	mode(VIRTIO_NET_CTRL_RX_ALLMULTI, true);
	mode(VIRTIO_NET_CTRL_RX_NOMULTI, true);
	expect_passes(group[0], false);
	mode(VIRTIO_NET_CTRL_RX_NOMULTI, false);

	mode(VIRTIO_NET_CTRL_RX_PROMISC, true);
	expect_passes(mac[5], true);
}

/* A table of `unicast` and `multicast` addresses, in `bytes`: how many bytes. */
static uint32_t make_table(uint8_t *bytes, unsigned unicast, unsigned multicast)
{
	uint32_t count = htole32(unicast), at = sizeof(count);

	memcpy(bytes, &count, sizeof(count));
	for (unsigned i = 0; i < unicast; i++, at += 6)
		mac_make(bytes + at, 0x1000 + i);
	count = htole32(multicast);
	memcpy(bytes + at, &count, sizeof(count));
	at += sizeof(count);
	for (unsigned i = 0; i < multicast; i++, at += 6) {
		mac_make(bytes + at, 0x1000 + i);
		bytes[at] |= 1;
	}
	return at;
}

static void table(unsigned unicast, unsigned multicast)
{
	static uint8_t bytes[16384];

	expect_ack(VIRTIO_NET_OK, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, bytes,
		   make_table(bytes, unicast, multicast));
}

static void expect_table_passes(unsigned entry, bool multicast, bool passes)
{
	uint8_t to[6];

	mac_make(to, 0x1000 + entry);
	to[0] |= multicast;
	expect_passes(to, passes);
}

static void address_tables(void **state)
{
	open_cards(state);
	mode(VIRTIO_NET_CTRL_RX_PROMISC, false);
	table(3, 2);
	expect_table_passes(2, false, true);
	expect_table_passes(3, false, false);
	expect_table_passes(1, true, true);
	expect_table_passes(2, true, false);
	expect_passes(mac[2], true);
	table(0, 0);
	expect_table_passes(2, false, false);
	expect_table_passes(1, true, false);
	/* More than anybody keeps: nothing of them may be missed. */
	table(1000, 1000);
	expect_table_passes(999, false, true);
	expect_table_passes(999, true, true);
	table(0, 0);
	expect_table_passes(999, false, false);
	expect_table_passes(999, true, false);
}

static void other_address(void **state)
{
	open_cards(state);
	mode(VIRTIO_NET_CTRL_RX_PROMISC, false);
	expect_ack(VIRTIO_NET_OK, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac[6], 6);
	expect_passes(mac[6], true);
	expect_passes(mac[2], false);
	must(lan.card[B].driver, driver_read_config(lan.card[B].driver));
	assert_memory_equal(lan.card[B].driver->net_config.mac, mac[6], 6);
	expect_ack(VIRTIO_NET_ERR, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group[0], 6);
	/* A new driver finds it as it was. */
	lan_unplug(B);
	lan_plug(B, "b", (struct net_options){ .control = true, .pairs = PAIRS });
	assert_memory_equal(net_mac(&lan.card[B]), mac[2], 6);
}

static void vlan(uint8_t command, unsigned id)
{
	uint16_t bytes = htole16((uint16_t)id);

	expect_ack(VIRTIO_NET_OK, VIRTIO_NET_CTRL_VLAN, command, &bytes, sizeof(bytes));
}

static void vlan_table(void **state)
{
	uint16_t wrong = htole16(4096);

	open_cards(state);
	expect_passes(mac_broadcast, true);
	expect_tag_passes(10, false);
	vlan(VIRTIO_NET_CTRL_VLAN_ADD, 10);
	vlan(VIRTIO_NET_CTRL_VLAN_ADD, 4094);
	expect_tag_passes(10, true);
	expect_tag_passes(11, false);
	expect_tag_passes(4094, true);
	vlan(VIRTIO_NET_CTRL_VLAN_DEL, 10);
	expect_tag_passes(10, false);
	expect_ack(VIRTIO_NET_ERR, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &wrong, 2);
}

static void without_vlan_table(void **state)
{
	open_with(state, FEATURE(VIRTIO_NET_F_CTRL_VLAN));
	expect_tag_passes(10, true);
}

/* ---- queues ---- */

static void use_pairs(unsigned pairs, uint8_t ack)
{
	uint16_t bytes = htole16((uint16_t)pairs);

	expect_ack(ack, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &bytes, sizeof(bytes));
}

/* So many pairs get frames of 64 flows; each flow on one of them. */
static unsigned pairs_that_receive(void)
{
	struct ip_packet packet = { .version = 4, .payload = 100 };
	unsigned used = 0, of_flow[64], pair;

	memcpy(packet.from, mac[1], 6);
	memcpy(packet.to, mac[2], 6);
	for (unsigned i = 0; i < 192; i++) {
		struct net *net = &lan.card[A];
		packet.sequence = i % 64;
		uint32_t length = ip_make(lan.out, &packet, NULL);
		must_net(net, net_send(net, 0, NULL, lan.out, length));
		must_net(&lan.card[B],
			 net_receive_any(&lan.card[B], &pair, &lan.frame, NET_WAIT_MS));
		if (i >= 64)
			assert_int_equal(pair, of_flow[i % 64]);
		of_flow[i % 64] = pair;
		used |= 1u << pair;
	}
	return used;
}

static void pairs_of_queues(void **state)
{
	open_cards(state);
	lan_learn(B, mac[2]);
	unsigned used = pairs_that_receive();
	assert_true(used & (used - 1));
	use_pairs(1, VIRTIO_NET_OK);
	assert_int_equal(pairs_that_receive(), 1);
	use_pairs(2, VIRTIO_NET_OK);
	assert_int_equal(pairs_that_receive() & ~3u, 0);
	use_pairs(0, VIRTIO_NET_ERR);
	use_pairs(PAIRS + 1, VIRTIO_NET_ERR);
	use_pairs(0x8000, VIRTIO_NET_ERR);
	use_pairs(PAIRS, VIRTIO_NET_OK);
	used = pairs_that_receive();
	assert_true(used & (used - 1));
}

static void one_pair_without_mq(void **state)
{
	open_with(state, FEATURE(VIRTIO_NET_F_MQ));
	lan_learn(B, mac[2]);
	assert_int_equal(pairs_that_receive(), 1);
	mode(VIRTIO_NET_CTRL_RX_PROMISC, false);
	use_pairs(1, VIRTIO_NET_ERR);
}

/* ---- offloads that are switched ---- */

static void offloads(uint64_t bits, uint8_t ack)
{
	uint64_t bytes = htole64(bits);

	expect_ack(ack, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &bytes,
		   sizeof(bytes));
}

/* Sends 4,000 bytes of TCP as one: how many frames of them arrive at b. */
static unsigned frames_of_long_packet(void)
{
	struct ip_packet packet = { .version = 4, .tcp = true, .payload = 4000 };
	struct virtio_net_hdr_v1 header;
	struct net *net = &lan.card[A];
	struct ip_found found;
	uint32_t payload = 0;
	unsigned frames = 0, pair;

	memcpy(packet.from, mac[1], 6);
	memcpy(packet.to, mac[2], 6);
	uint32_t length = ip_make_partial(lan.out, &packet, 1000, &header);
	must_net(net, net_send(net, 0, &header, lan.out, length));
	while (payload < packet.payload) {
		must_net(&lan.card[B],
			 net_receive_any(&lan.card[B], &pair, &lan.frame, NET_WAIT_MS));
		bool partial = lan.frame.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
		const char *wrong = ip_check(lan.frame.bytes, lan.frame.length, partial, &found);
		if (wrong)
			fail_msg("%s", wrong);
		payload += found.payload;
		frames++;
	}
	return frames;
}

static void guest_offloads(void **state)
{
	uint64_t all = FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
		       FEATURE(VIRTIO_NET_F_GUEST_TSO6);

	open_cards(state);
	assert_int_equal(frames_of_long_packet(), 1);
	offloads(0, VIRTIO_NET_OK);
	assert_int_equal(frames_of_long_packet(), 4);
	assert_int_equal(lan.frame.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
	offloads(FEATURE(VIRTIO_NET_F_GUEST_CSUM), VIRTIO_NET_OK);
	assert_int_equal(frames_of_long_packet(), 4);
	offloads(all, VIRTIO_NET_OK);
	assert_int_equal(frames_of_long_packet(), 1);
	offloads(all | FEATURE(VIRTIO_NET_F_CSUM), VIRTIO_NET_ERR);
	offloads(all | 1ull << 63, VIRTIO_NET_ERR);
	assert_int_equal(frames_of_long_packet(), 1);
}

/* ---- where it is ---- */

/* A card that stops and goes on is asked to announce itself, and says that it has. */
static void announcement(void **state)
{
	struct driver *driver;

	open_cards(state);
	driver = lan.card[B].driver;
	must(driver, driver_read_config(driver));
	assert_false(le16toh(driver->net_config.status) & VIRTIO_NET_S_ANNOUNCE);
	use_pairs(1, VIRTIO_NET_OK);
	expect_passes(mac[2], true); /* so that its first ring is not at its beginning */
	must(driver, driver_stop(driver));
	must(driver, driver_start(driver));
	for (int64_t end = clock_ms() + NET_WAIT_MS; clock_ms() < end; sleep_ms(5)) {
		must(driver, driver_read_config(driver));
		if (le16toh(driver->net_config.status) & VIRTIO_NET_S_ANNOUNCE)
			break;
	}
	assert_true(le16toh(driver->net_config.status) & VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(driver_backend_message(driver, NET_WAIT_MS), VU_BACKEND_CONFIG_CHANGE);
	expect_ack(VIRTIO_NET_OK, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
	must(driver, driver_read_config(driver));
	assert_false(le16toh(driver->net_config.status) & VIRTIO_NET_S_ANNOUNCE);
}

static void rarp_of_the_vmm(void **state)
{
	struct driver *driver;
	uint64_t payload = 0;
	unsigned pair;

	open_with(state, FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE));
	driver = lan.card[B].driver;
	assert_true(driver->protocol & VU_PF_RARP);
	memcpy(&payload, mac[2], 6);
	must(driver, vu_request_u64(&driver->vu, VU_SEND_RARP, payload));
	must_net(&lan.card[A], net_receive_any(&lan.card[A], &pair, &lan.frame, NET_WAIT_MS));
	assert_true(lan.frame.length >= 42);
	assert_memory_equal(lan.frame.bytes, mac_broadcast, 6);
	assert_memory_equal(lan.frame.bytes + 6, mac[2], 6);
	assert_int_equal(lan.frame.bytes[12] << 8 | lan.frame.bytes[13], 0x8035);
}

static void mtu_of_the_vmm(void **state)
{
	struct driver *driver;

	open_cards(state);
	driver = lan.card[B].driver;
	assert_true(driver->protocol & VU_PF_MTU);
	must(driver, vu_request_u64(&driver->vu, VU_NET_SET_MTU, 9000));
	must(driver, vu_request_u64(&driver->vu, VU_NET_SET_MTU, 1500));
	assert_int_equal(vu_request_u64(&driver->vu, VU_NET_SET_MTU, 67), -EREMOTEIO);
	assert_int_equal(vu_request_u64(&driver->vu, VU_NET_SET_MTU, 9001), -EREMOTEIO);
	assert_int_equal(vu_request_u64(&driver->vu, VU_NET_SET_MTU, 1ull << 40), -EREMOTEIO);
	expect_passes(mac[2], true);
}

/* ---- the link ---- */

static void set_link(bool up)
{
	const char *words[] = { "set-port", "b", up ? "up=true" : "up=false", NULL };
	struct driver *driver = lan.card[B].driver;

	assert_int_equal(lan_command(words), 0);
	assert_int_equal(driver_backend_message(driver, NET_WAIT_MS), VU_BACKEND_CONFIG_CHANGE);
	must(driver, driver_read_config(driver));
	assert_int_equal(le16toh(driver->net_config.status) & VIRTIO_NET_S_LINK_UP,
			 up ? VIRTIO_NET_S_LINK_UP : 0);
}

static void link_down_and_up(void **state)
{
	open_cards(state);
	expect_passes(mac[2], true);
	set_link(false);
	expect_passes(mac[2], false);
	lan_send(B, mac[1], mac[2], PLAIN, 1);
	must_net(&lan.card[B], net_drain(&lan.card[B], 0));
	lan_expect_nothing(A);
	set_link(true);
	expect_passes(mac[2], true);
	lan_send(B, mac[1], mac[2], PLAIN, 2);
	lan_expect(A, mac[1], mac[2], PLAIN, 2);
}

/* ---- what makes no sense ---- */

static void unknown_commands(void **state)
{
	static const uint8_t zeroes[64];

	open_cards(state);
	for (unsigned class = 0; class < 256; class ++)
		expect_ack(VIRTIO_NET_ERR, (uint8_t) class, 0xff, zeroes, sizeof(zeroes));
	for (unsigned command = 0; command < 256; command++)
		expect_ack(VIRTIO_NET_ERR, 0x77, (uint8_t)command, zeroes, command % 64);
	expect_passes(mac[2], true);
}

int main(void)
{
#define BOTH(test)                                                                                 \
	{ #test, test, NULL, lan_close, (void *)"1" },                                             \
	{                                                                                          \
#test ", two loops, packed", test, NULL, lan_close, (void *)"2"                    \
	}
	const struct CMUnitTest tests[] = {
		BOTH(features_and_configuration),
		BOTH(receive_mode),
		BOTH(address_tables),
		BOTH(other_address),
		BOTH(vlan_table),
		BOTH(without_vlan_table),
		BOTH(pairs_of_queues),
		BOTH(one_pair_without_mq),
		BOTH(guest_offloads),
		BOTH(announcement),
		BOTH(rarp_of_the_vmm),
		BOTH(mtu_of_the_vmm),
		BOTH(link_down_and_up),
		BOTH(unknown_commands),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
