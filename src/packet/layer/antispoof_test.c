/* SPDX-License-Identifier: BSD-3-Clause */
/* antispoof_test.c - what a guest may send and what not, frame by frame; and what the options take
 */
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "packet/frame.h"
#include "packet/packet_layer.h"
#include "util/error.h"

extern const struct packet_layer_ops antispoof_layer;

static const struct port_facts nic = { .name = "web0",
				       .mac = { 0x52, 0x54, 0, 0, 0, 1 },
				       .has_mac = true };

/* Frames in hexadecimal. Lengths of IP packets are ffff: as long as the frame. */
#define OWN             "525400000001"
#define OTHER           "525400000002"
#define TO_ALL          "ffffffffffff"
#define FROM(mac, type) TO_ALL mac type

#define IP1                                "0a000001" /* 10.0.0.1, its own */
#define IP2                                "0a000002"
#define NET                                "c0a80705" /* 192.168.7.5, of its network */
#define NO_IP                              "00000000"
#define ALL_IP                             "ffffffff"
#define IPV4(from, to, protocol, fragment) "4500ffff0001" fragment "40" protocol "0000" from to
#define UDP(from, to)                      from to "00080000"
#define TCP                                "0400005000000000000000005010ffff00000000"

#define V6_1             "fd000000000000000000000000000001" /* its own */
#define V6_2             "fd000000000000000000000000000002"
#define V6_NET           "20010db8000100000000000000000099"
#define V6_LINK          "fe80000000000000505400fffe000001"
#define V6_LINK2         "fe80000000000000505400fffe000002"
#define V6_NONE          "00000000000000000000000000000000"
#define V6_ALL           "ff020000000000000000000000000001"
#define IPV6(from, next) "60000000ffff" next "ff" from V6_ALL
#define ICMP6(type)      type "00000000000000"
#define NS(target)       ICMP6("87") target
#define NA(target)       ICMP6("88") target
#define RS               ICMP6("85")
#define RA               ICMP6("86") "0000000000000000"
#define SOURCE(mac)      "0101" mac
#define TARGET(mac)      "0201" mac

#define ARP(operation, mac, ip, target) "0001080006040001" mac ip "000000000000" target

enum { MAC_ONLY, LISTS, ROUTER, NOTHING, RULES };
#define STRICT (1 << LISTS | 1 << ROUTER) /* those with addresses */
#define ALL    15

/* Who lets it pass: a bit for each of the rules; and why the others do not. */
static const struct {
	const char *what, *frame;
	unsigned passes;
	const char *cause;
} cases[] = {
	{ "its own source", FROM(OWN, "0800") IPV4(IP1, IP2, "06", "0000") TCP, ALL & ~8, "ipv4" },
	{ "another MAC", FROM(OTHER, "0800") IPV4(IP1, IP2, "06", "0000") TCP, 0, "mac" },
	{ "another MAC, any protocol", FROM(OTHER, "88cc") "00000000", 0, "mac" },
	{ "of its network", FROM(OWN, "0800") IPV4(NET, IP2, "06", "0000") TCP, 7, "ipv4" },
	{ "another IP", FROM(OWN, "0800") IPV4(IP2, IP1, "06", "0000") TCP, 1, "ipv4" },
	{ "another IP, a fragment", FROM(OWN, "0800") IPV4(IP2, IP1, "06", "0100") TCP, 1, "ipv4" },
	{ "another IP in two tags",
	  FROM(OWN, "88a8") "00058100000608004500ffff00010000400600000a0000020a000001" TCP, 1,
	  "ipv4" },
	{ "its own in a tag", FROM(OWN, "8100") "00050800" IPV4(IP1, IP2, "06", "0000") TCP, 7,
	  "ipv4" },
	{ "no IPv4 header", FROM(OWN, "0800") "6000000000000000", 0, "malformed" },
	{ "half an IPv4 header", FROM(OWN, "0800") "4500ffff000100004006", 0, "malformed" },

	{ "a DHCP request", FROM(OWN, "0800") IPV4(NO_IP, ALL_IP, "11", "0000") UDP("0044", "0043"),
	  7, "ipv4" },
	{ "not to all", FROM(OWN, "0800") IPV4(NO_IP, IP2, "11", "0000") UDP("0044", "0043"), 1,
	  "ipv4" },
	{ "from nobody", FROM(OWN, "0800") IPV4(NO_IP, ALL_IP, "11", "0000") UDP("0045", "0043"), 1,
	  "ipv4" },
	{ "from nobody, TCP", FROM(OWN, "0800") IPV4(NO_IP, ALL_IP, "06", "0000") TCP, 1, "ipv4" },
	{ "a UDP header cut short", FROM(OWN, "0800") IPV4(IP1, IP2, "11", "0000") "00430044", 0,
	  "malformed" },
	{ "a DHCP answer", FROM(OWN, "0800") IPV4(IP1, ALL_IP, "11", "0000") UDP("0043", "0044"),
	  1 << ROUTER, "dhcp-server" },
	{ "from another port",
	  FROM(OWN, "0800") IPV4(IP1, ALL_IP, "11", "0000") UDP("1234", "0044"), 1 << ROUTER,
	  "dhcp-server" },
	{ "in a first fragment",
	  FROM(OWN, "0800") IPV4(IP1, ALL_IP, "11", "2000") UDP("0043", "0044"), 1 << ROUTER,
	  "dhcp-server" },

	{ "ARP", FROM(OWN, "0806") ARP("0001", OWN, IP1, IP2), 7, "arp" },
	{ "ARP, padded",
	  FROM(OWN, "0806") ARP("0002", OWN, NET, IP2) "000000000000000000000000000000000000", 7,
	  "arp" },
	{ "ARP of another MAC", FROM(OWN, "0806") ARP("0001", OTHER, IP1, IP2), 0, "arp" },
	{ "ARP of another IP", FROM(OWN, "0806") ARP("0001", OWN, IP2, IP1), 1, "arp" },
	{ "an ARP probe", FROM(OWN, "0806") ARP("0001", OWN, NO_IP, IP1), 7, "arp" },
	{ "a probe for another's", FROM(OWN, "0806") ARP("0001", OWN, NO_IP, IP2), 1, "arp" },
	{ "ARP of another network", FROM(OWN, "0806") "0006080006040001" OWN IP1 "000000000000" IP2,
	  0, "arp" },
	{ "ARP cut short", FROM(OWN, "0806") "0001080006040001" OWN IP1 "0000", 0, "malformed" },
	{ "ARP in a tag", FROM(OWN, "8100") "00050806" ARP("0001", OWN, IP2, IP1), 1, "arp" },
	{ "RARP", FROM(OWN, "8035") "0001080006040003" OWN NO_IP OWN NO_IP, ALL, "arp" },
	{ "RARP of another", FROM(OWN, "8035") "0001080006040003" OTHER NO_IP OTHER NO_IP, 0,
	  "arp" },

	{ "IPv6", FROM(OWN, "86dd") IPV6(V6_1, "06") TCP, 7, "ipv6" },
	{ "IPv6 of its network", FROM(OWN, "86dd") IPV6(V6_NET, "06") TCP, 7, "ipv6" },
	{ "its link-local", FROM(OWN, "86dd") IPV6(V6_LINK, "06") TCP, 7, "ipv6" },
	{ "another's link-local", FROM(OWN, "86dd") IPV6(V6_LINK2, "06") TCP, 1, "ipv6" },
	{ "another IPv6", FROM(OWN, "86dd") IPV6(V6_2, "06") TCP, 1, "ipv6" },
	{ "from ::", FROM(OWN, "86dd") IPV6(V6_NONE, "06") TCP, 1, "ipv6" },
	{ "no IPv6 header", FROM(OWN, "86dd") "45", 0, "malformed" },
	{ "a fragment", FROM(OWN, "86dd") IPV6(V6_1, "2c") "0600000800000001" TCP, 7, "ipv6" },
	{ "a header in the next fragment",
	  FROM(OWN, "86dd") IPV6(V6_1, "2c") "3c00000100000001"
					     "3a00000000000000",
	  0, "malformed" },
	{ "nothing but headers", FROM(OWN, "86dd") IPV6(V6_1, "00") "3c01000000000000", 0,
	  "malformed" },
	{ "no next header", FROM(OWN, "86dd") IPV6(V6_1, "3b"), 7, "ipv6" },
	{ "a DHCPv6 request", FROM(OWN, "86dd") IPV6(V6_LINK, "11") UDP("0222", "0223"), 7,
	  "ipv6" },
	{ "a DHCPv6 answer", FROM(OWN, "86dd") IPV6(V6_LINK, "11") UDP("0223", "0222"), 1 << ROUTER,
	  "dhcp-server" },

	{ "NS", FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) SOURCE(OWN), 7, "ipv6" },
	{ "NS of another MAC", FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) SOURCE(OTHER), 0,
	  "neighbour-discovery" },
	{ "behind another option",
	  FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) "0e01000000000000" SOURCE(OTHER), 0,
	  "neighbour-discovery" },
	{ "an address of 14 bytes",
	  FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) "0102" OWN "0000000000000000", 0,
	  "neighbour-discovery" },
	{ "an option of no length", FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) "0e00000000000000",
	  0, "neighbour-discovery" },
	{ "an option that is longer than the packet",
	  FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) "0e02000000000000", 0,
	  "neighbour-discovery" },
	{ "an option that is cut off", FROM(OWN, "86dd") IPV6(V6_1, "3a") NS(V6_2) "010152", 0,
	  "neighbour-discovery" },
	{ "NS without a target", FROM(OWN, "86dd") IPV6(V6_1, "3a") ICMP6("87") "fd00", 0,
	  "neighbour-discovery" },
	{ "NS in a fragment",
	  FROM(OWN, "86dd") IPV6(V6_1, "2c") "3a00000100000001" NS(V6_2) SOURCE(OWN), 0,
	  "neighbour-discovery" },
	{ "NS behind a header",
	  FROM(OWN, "86dd") IPV6(V6_1, "3c") "3a00000000000000" NS(V6_2) SOURCE(OTHER), 0,
	  "neighbour-discovery" },
	{ "DAD", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") NS(V6_1), 7, "ipv6" },
	{ "DAD of its link-local", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") NS(V6_LINK), 7, "ipv6" },
	{ "DAD for another's", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") NS(V6_2), 1,
	  "neighbour-discovery" },
	{ "NA", FROM(OWN, "86dd") IPV6(V6_1, "3a") NA(V6_1) TARGET(OWN), 7, "ipv6" },
	{ "NA of another's address", FROM(OWN, "86dd") IPV6(V6_1, "3a") NA(V6_2) TARGET(OWN), 1,
	  "neighbour-discovery" },
	{ "NA of another MAC", FROM(OWN, "86dd") IPV6(V6_1, "3a") NA(V6_1) TARGET(OTHER), 0,
	  "neighbour-discovery" },
	{ "NA from nobody", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") NA(V6_1) TARGET(OWN), 1, "ipv6" },
	{ "RS", FROM(OWN, "86dd") IPV6(V6_LINK, "3a") RS SOURCE(OWN), 7, "ipv6" },
	{ "RS from nobody", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") RS, 7, "ipv6" },
	{ "RS of another MAC", FROM(OWN, "86dd") IPV6(V6_LINK, "3a") RS SOURCE(OTHER), 0,
	  "neighbour-discovery" },
	{ "MLD from nobody", FROM(OWN, "86dd") IPV6(V6_NONE, "00") "3a00050200000000" ICMP6("8f"),
	  7, "ipv6" },
	{ "ping", FROM(OWN, "86dd") IPV6(V6_1, "3a") ICMP6("80"), 7, "ipv6" },
	{ "ping from nobody", FROM(OWN, "86dd") IPV6(V6_NONE, "3a") ICMP6("80"), 1, "ipv6" },
	{ "RA", FROM(OWN, "86dd") IPV6(V6_LINK, "3a") RA SOURCE(OWN), 1 << ROUTER,
	  "router-advertisement" },
	{ "RA behind a header", FROM(OWN, "86dd") IPV6(V6_LINK, "3c") "3a00000000000000" RA,
	  1 << ROUTER, "router-advertisement" },
	{ "RA in a fragment", FROM(OWN, "86dd") IPV6(V6_LINK, "2c") "3a00000100000001" RA, 0,
	  "router-advertisement" },
	{ "a redirect", FROM(OWN, "86dd") IPV6(V6_LINK, "3a") ICMP6("89") V6_1 V6_2, 1 << ROUTER,
	  "router-advertisement" },

	{ "LLDP", FROM(OWN, "88cc") "00000000", 1, "protocol" },
	{ "IPv4 in 802.2",
	  FROM(OWN, "0030") "aaaa03000000"
			    "0800" IPV4(IP2, IP1, "06", "0000"),
	  1, "protocol" },
};

static struct burst *burst;
static void *rules[RULES];
static struct packet_offload left_to_us; /* of what is judged */

static void release(struct burst *which)
{
	(void)which;
}

/* Rules of options in turn: name, value, ..., NULL. NULL if they are refused. */
static void *make_rules(const struct port_facts *facts, struct error *err, ...)
{
	void *settings = calloc(1, antispoof_layer.settings_size), *made = NULL;
	const char *name;
	va_list args;

	*err = (struct error){ 0 };
	options_init(antispoof_layer.options, settings);
	va_start(args, err);
	while ((name = va_arg(args, const char *)))
		assert_int_equal(options_set(antispoof_layer.options, settings, name,
					     va_arg(args, const char *), err),
				 0);
	va_end(args);
	if (antispoof_layer.compile(settings, facts, &made, err)) {
		assert_null(made);
		assert_int_not_equal(err->code, 0);
	}
	options_release(antispoof_layer.options, settings);
	free(settings);
	return made;
}

static int open_all(void **state)
{
	static const char ipv4[] = "10.0.0.1,192.168.0.0/16", ipv6[] = "fd00::1, 2001:db8:1::/64";
	struct error err;

	(void)state;
	burst = burst_create(release, NULL);
	rules[MAC_ONLY] = make_rules(&nic, &err, NULL);
	rules[LISTS] = make_rules(&nic, &err, "ipv4", ipv4, "ipv6", ipv6, NULL);
	rules[ROUTER] = make_rules(&nic, &err, "ipv4", ipv4, "ipv6", ipv6, "router", "yes", NULL);
	rules[NOTHING] = make_rules(&nic, &err, "ipv4", "none", "ipv6", "none", NULL);
	return burst && rules[MAC_ONLY] && rules[LISTS] && rules[ROUTER] && rules[NOTHING] ? 0 : -1;
}

static int close_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < RULES; i++)
		antispoof_layer.discard(rules[i]);
	burst_free(burst);
	return 0;
}

/* Bytes of @hex in an allocation of their length. */
static uint8_t *bytes_of(const char *hex, unsigned *length)
{
	uint8_t *bytes;

	*length = (unsigned)strlen(hex) / 2;
	bytes = malloc(*length);
	for (unsigned i = 0; i < *length; i++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		bytes[i] = (uint8_t)byte;
	}
	return bytes;
}

/* The cause of its drop, or NULL. In the middle of a batch of three that are alike. */
static const char *judge(const void *by, const char *hex)
{
	struct layer_place place = { .rules = by };
	struct packet_batch batch;
	const char *cause = NULL;
	unsigned length;
	uint8_t *bytes = bytes_of(hex, &length);

	burst_begin(burst);
	batch_init(&batch);
	memset(burst->heads, 0, PACKET_BURST * sizeof *burst->heads);
	for (unsigned i = 0; i < 3; i++) {
		burst_vec(burst)[0] = (struct iovec){ bytes, length };
		batch_add(&batch, burst_add(burst, 1, 0, length));
		batch.packet[i]->offload = left_to_us;
	}
	batch_take(&batch, 1);
	antispoof_layer.process(&place, PACKET_IN, &batch);
	assert_true(batch.live == 0 || batch.live == 5);
	for (unsigned i = 0; antispoof_layer.causes[i]; i++) {
		uint64_t drops = stats_read(&place.stats.direction[PACKET_IN].drops[i]);

		assert_int_equal(stats_read(&place.stats.direction[PACKET_OUT].drops[i]), 0);
		if (!drops)
			continue;
		assert_null(cause);
		assert_int_equal(drops, 2);
		cause = antispoof_layer.causes[i];
	}
	assert_int_equal(!cause, batch.live != 0);
	free(bytes);
	return cause;
}

static void frames(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (unsigned k = 0; k < NOTHING; k++) {
			const char *cause = judge(rules[k], cases[i].frame);
			bool passes = cases[i].passes & 1u << k;

			if (!cause != passes)
				fail_msg("%s, rules %u: %s", cases[i].what, k,
					 cause ? cause : "passes");
			if (cause && k == LISTS)
				assert_string_equal(cause, cases[i].cause);
		}
		/* With no address at all next to nothing is left. */
		assert_int_equal(!judge(rules[NOTHING], cases[i].frame), cases[i].passes == ALL);
	}
}

/* Headers that need more of the frame than the head has at first, and more than it can have. */
static void far_away(void **state)
{
	char text[1200];
	const char *cause;

	(void)state;
	for (unsigned eights = 0; eights < 60; eights++) {
		size_t n = (size_t)sprintf(text, "%s3a%02x000000000000",
					   FROM(OWN, "86dd") IPV6(V6_1, "3c"), eights);

		memset(text + n, '0', 16 * (size_t)eights);
		strcpy(text + n + 16 * (size_t)eights, NS(V6_2) SOURCE(OTHER));
		cause = judge(rules[LISTS], text);
		assert_non_null(cause);
		/* 54 bytes in front; the message needs 32, and its type 8 */
		assert_string_equal(cause, 54 + 8 + eights * 8 + 8 <= PACKET_HEAD
						   ? "neighbour-discovery"
						   : "malformed");
		strcpy(text + n + 16 * (size_t)eights, NS(V6_2) SOURCE(OWN));
		cause = judge(rules[LISTS], text);
		assert_int_equal(!cause, 54 + 8 + eights * 8 + 32 <= PACKET_HEAD);
	}
}

static void more_addresses(void **state)
{
	struct port_facts uplink = { .name = "inet" };
	struct error err;
	void *two;

	(void)state;
	two = make_rules(&uplink, &err, "mac", "52:54:00:00:00:01,52:54:00:00:00:02", "ipv6",
			 "::/0", NULL);
	assert_non_null(two);
	assert_null(judge(two, FROM(OTHER, "86dd") IPV6(V6_2, "06") TCP));
	assert_null(judge(two, FROM(OWN, "86dd") IPV6(V6_LINK2, "06") TCP));
	assert_null(judge(two, FROM(OWN, "0800") IPV4(IP2, IP1, "06", "0000") TCP));
	assert_non_null(judge(two, FROM("525400000003", "0800") IPV4(IP2, IP1, "06", "0000") TCP));
	antispoof_layer.discard(two);
	assert_null(make_rules(&uplink, &err, "ipv4", "10.0.0.1", NULL));
	assert_non_null(strstr(err.text, "mac"));
}

/* A sum is written where the guest says, after it has been judged. */
static void sums(void **state)
{
	static const char tcp[] = FROM(OWN, "0800") IPV4(IP1, IP2, "06", "0000") TCP;
	static const char arp[] = FROM(OWN, "0806") "0001080006040001" OWN IP1 "000000000000" IP2;
	static const unsigned l3 = 14, l4 = 34;

	(void)state;
	assert_null(judge(rules[LISTS], arp));
	left_to_us.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	left_to_us.csum_start = l4;
	left_to_us.csum_offset = 16;
	assert_null(judge(rules[LISTS], tcp));
	left_to_us.csum_start = l3;
	left_to_us.csum_offset = 14; /* the second half of its address */
	assert_string_equal(judge(rules[LISTS], tcp), "malformed");
	assert_string_equal(judge(rules[LISTS], arp), "malformed");
	assert_string_equal(judge(rules[MAC_ONLY], arp), "malformed");
	left_to_us = (struct packet_offload){ 0 };
}

static void mistakes(void **state)
{
	static const struct {
		const char *name, *value;
	} wrong[] = {
		{ "mac", "none" },
		{ "mac", "52:54:00:00:00" },
		{ "mac", "01:54:00:00:00:01" }, /* a group */
		{ "ipv4", "10.0.0" },
		{ "ipv4", "10.0.0.1," },
		{ "ipv4", "10.0.0.1/33" },
		{ "ipv4", "10.0.0.1/" },
		{ "ipv4", "10.0.0.0/+8" },
		{ "ipv4", "10.0.0.0/8 " },
		{ "ipv4", "10.0.0.1/24" }, /* of the network, or that one? */
		{ "ipv4", "fd00::1" },
		{ "ipv6", "10.0.0.1" },
		{ "ipv6", "fd00::1/64" },
		{ "ipv6", "fd00::/129" },
		{ "ipv6", "fd00::1,none" },
	};
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_null(make_rules(&nic, &err, wrong[i].name, wrong[i].value, NULL));
		assert_int_equal(strncmp(err.text, wrong[i].name, strlen(wrong[i].name)), 0);
		assert_non_null(strchr(err.text, ':'));
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
	const struct CMUnitTest tests[] = {
		TEST(frames), TEST(far_away), TEST(more_addresses), TEST(sums), TEST(mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
