/* SPDX-License-Identifier: BSD-3-Clause */
/* net_rules_test.c - commands of a NIC's control queue, good and bad, and the filter they make */
#include "frontend/virtio/net_rules.h"

#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "packet/offload.h"

#define BIT(n) (1ull << (n))
#define ALL    (~0ull)

static const uint8_t own[6] = { 0x52, 0x54, 0, 0, 0, 1 };
static const uint8_t other[6] = { 0x52, 0x54, 0, 0, 0, 2 };
static const uint8_t group[6] = { 0x33, 0x33, 0, 0, 0, 1 };
static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static struct net_rules rules;

static enum net_command command(uint64_t features, const void *data, size_t length)
{
	/* In pieces of one byte and the rest, as a driver may have it. */
	struct iovec vec[2] = { { (void *)(uintptr_t)data, length ? 1 : 0 },
				{ (char *)(uintptr_t)data + 1, length ? length - 1 : 0 } };

	return net_rules_command(&rules, features, 4, (struct io_data){ .vec = vec, .count = 2 },
				 length);
}

static bool wants(const uint8_t *mac)
{
	return net_rules_wants_slow(&rules, mac, false, 0);
}

static void at_first_all_is_wanted(void **unused)
{
	(void)unused;
	net_rules_init(&rules, BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX), 4, own);
	assert_false(net_rules_filter(&rules));
	assert_true(wants(own) && wants(other) && wants(group) && wants(broadcast));
}

static void the_pairs_in_use(void **unused)
{
	static const uint8_t two[] = { 4, 0, 2, 0 }, none[] = { 4, 0, 0, 0 },
			     five[] = { 4, 0, 5, 0 };

	(void)unused;
	net_rules_init(&rules, 0, 4, own);
	assert_int_equal(rules.pairs, 1);
	net_rules_init(&rules, BIT(VIRTIO_NET_F_MQ), 4, own); /* the VMM has the control queue */
	assert_int_equal(rules.pairs, 4);
	net_rules_init(&rules, BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ), 4, own);
	assert_int_equal(rules.pairs, 1);
	assert_int_equal(command(0, two, sizeof two), NET_REFUSED);
	assert_int_equal(command(ALL, none, sizeof none), NET_REFUSED);
	assert_int_equal(command(ALL, five, sizeof five), NET_REFUSED);
	assert_int_equal(rules.pairs, 1);
	assert_int_equal(command(ALL, two, sizeof two), NET_RULES_CHANGED);
	assert_int_equal(rules.pairs, 2);
}

static void offloads_go_and_come_back(void **unused)
{
	const uint64_t features = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
				  BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	uint8_t set[10] = { 5, 0 };
	uint64_t offloads = BIT(VIRTIO_NET_F_GUEST_CSUM);

	(void)unused;
	net_rules_init(&rules, BIT(VIRTIO_NET_F_GUEST_TSO4), 1, own);
	assert_int_equal(rules.accepts, 0); /* none without sums */
	net_rules_init(&rules, features, 1, own);
	assert_int_equal(rules.accepts, OFFLOAD_CSUM | OFFLOAD_TSO4);
	memcpy(set + 2, &offloads, 8);
	assert_int_equal(command(features, set, sizeof set), NET_RULES_CHANGED);
	assert_int_equal(rules.accepts, OFFLOAD_CSUM);
	offloads |= BIT(VIRTIO_NET_F_GUEST_TSO4);
	memcpy(set + 2, &offloads, 8);
	assert_int_equal(command(features, set, sizeof set), NET_RULES_CHANGED);
	assert_int_equal(rules.accepts, OFFLOAD_CSUM | OFFLOAD_TSO4);
	offloads |= BIT(VIRTIO_NET_F_GUEST_TSO6); /* not negotiated */
	memcpy(set + 2, &offloads, 8);
	assert_int_equal(command(features, set, sizeof set), NET_REFUSED);
	assert_int_equal(command(features, set, 9), NET_REFUSED);
	assert_int_equal(rules.accepts, OFFLOAD_CSUM | OFFLOAD_TSO4);
}

static void addresses_are_filtered(void **unused)
{
	static const uint8_t off[] = { 0, 0, 0 }, promiscuous[] = { 0, 0, 1 };
	static const uint8_t table[] = { 1, 0, 1, 0, 0, 0,    0x52, 0x54, 0, 0, 0,
					 2, 1, 0, 0, 0, 0x33, 0x33, 0,    0, 0, 1 };
	static const uint8_t silence[] = { 0, 5, 1 }, address[] = { 1, 1, 0x52, 0x54, 0, 0, 0, 9 };
	static const uint8_t bad[] = { 1, 1, 1, 0, 0, 0, 0, 9 };

	(void)unused;
	net_rules_init(&rules, ALL, 4, own);
	assert_int_equal(command(ALL, off, sizeof off), NET_RULES_CHANGED);
	assert_true(wants(own) && wants(broadcast) && !wants(other) && !wants(group));
	assert_int_equal(command(ALL, table, sizeof table), NET_RULES_CHANGED);
	assert_true(wants(own) && wants(broadcast) && wants(other) && wants(group));
	assert_int_equal(command(ALL, silence, sizeof silence), NET_RULES_CHANGED);
	assert_false(wants(broadcast));
	assert_int_equal(command(ALL, bad, sizeof bad), NET_REFUSED);
	assert_int_equal(command(ALL, address, sizeof address), NET_RULES_CHANGED);
	assert_false(wants(own));
	assert_int_equal(command(ALL, promiscuous, sizeof promiscuous), NET_RULES_CHANGED);
	assert_true(wants(own) && wants(broadcast));
}

static void a_long_table_lets_all_through(void **unused)
{
	uint8_t table[2 + 4 + 6 * (NET_MACS + 1) + 4] = { 1, 0, NET_MACS + 1 };

	(void)unused;
	net_rules_init(&rules, ALL, 4, own);
	assert_int_equal(command(ALL, table, sizeof table), NET_RULES_CHANGED);
	assert_true(rules.unicast.all && wants(other) && !wants(group));
}

/* What it says of its length is held against what there is, and nothing changes. */
static void a_table_that_lies_changes_nothing(void **unused)
{
	uint8_t table[2 + 4 + 6 + 4 + 6] = { 1, 0, 1 };
	struct net_rules before;

	(void)unused;
	net_rules_init(&rules, ALL, 4, own);
	before = rules;
	for (size_t length = 0; length < 2 + 4 + 6 + 4; length++)
		assert_int_equal(command(ALL, table, length), NET_REFUSED);
	memset(table + 2 + 4 + 6, 0xff, 4);
	assert_int_equal(command(ALL, table, sizeof table), NET_REFUSED);
	memset(table + 2, 0xff, 4);
	assert_int_equal(command(ALL, table, sizeof table), NET_REFUSED);
	assert_memory_equal(&rules, &before, sizeof rules);
}

static void vlans_are_filtered(void **unused)
{
	static const uint8_t add[] = { 2, 0, 0xff, 0x0f }, beyond[] = { 2, 0, 0, 0x10 };
	static const uint8_t del[] = { 2, 1, 0xff, 0x0f };

	(void)unused;
	net_rules_init(&rules, BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_VLAN), 1, own);
	assert_true(net_rules_filter(&rules));
	assert_true(wants(own));
	assert_false(net_rules_wants_slow(&rules, own, true, 0xefff));
	assert_int_equal(command(ALL, add, sizeof add), NET_RULES_CHANGED);
	assert_int_equal(command(ALL, beyond, sizeof beyond), NET_REFUSED);
	assert_true(net_rules_wants_slow(&rules, own, true, 0xefff));
	assert_false(net_rules_wants_slow(&rules, own, true, 1));
	assert_int_equal(command(ALL, del, sizeof del), NET_RULES_CHANGED);
	assert_false(net_rules_wants_slow(&rules, own, true, 0xefff));
}

static void announcements(void **unused)
{
	static const uint8_t ack[] = { 3, 0 }, unknown[] = { 3, 1 }, nonsense[] = { 99, 0, 0 };

	(void)unused;
	net_rules_init(&rules, ALL, 1, own);
	assert_int_equal(command(ALL, ack, sizeof ack), NET_ANNOUNCED);
	assert_int_equal(command(0, ack, sizeof ack), NET_REFUSED);
	assert_int_equal(command(ALL, unknown, sizeof unknown), NET_REFUSED);
	assert_int_equal(command(ALL, nonsense, sizeof nonsense), NET_REFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_first_all_is_wanted),
		cmocka_unit_test(the_pairs_in_use),
		cmocka_unit_test(offloads_go_and_come_back),
		cmocka_unit_test(addresses_are_filtered),
		cmocka_unit_test(a_long_table_lets_all_through),
		cmocka_unit_test(a_table_that_lies_changes_nothing),
		cmocka_unit_test(vlans_are_filtered),
		cmocka_unit_test(announcements),
	};

	return cmocka_run_group_tests_name("net_rules", tests, NULL, NULL);
}
