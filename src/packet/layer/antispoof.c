/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * antispoof.c - a layer that lets a guest speak for itself only: with its own MAC address, and with
 * its own IP addresses where these are given
 *
 * A neighbour believes four things: the Ethernet source (the switch learns from it), what ARP
 * (RFC 826) and neighbour discovery (RFC 4861) say of a sender, the source of an IP packet, and who
 * calls itself a router or a DHCP server. All are held against the rules, behind any VLAN tags.
 * What cannot be judged does not pass: headers that end in another fragment (RFC 7112) or too far
 * away, neighbour discovery in fragments (RFC 6980).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "packet/frame.h"
#include "packet/packet_layer.h"
#include "util/error.h"

struct antispoof_settings {
	struct layer_settings common;
	char *mac, *ipv4, *ipv6;
	bool router;
};

/* An address and its mask, as they are in memory, in numbers to compare. IPv4 and MAC addresses are
 * in high, see ipv4_value() and mac_value(). */
struct prefix {
	uint64_t high, low, high_mask, low_mask;
};

/* Of one family. */
struct addresses {
	bool checked;
	unsigned count;
	struct prefix *prefix;
};

struct rules {
	struct addresses macs, ipv4, ipv6;
	bool router;
};

enum cause { MAC, ARP, IPV4, IPV6, NEIGHBOUR, ROUTER, DHCP_SERVER, PROTOCOL, MALFORMED, GOOD };

static const char *const causes[] = {
	[MAC] = "mac",
	[ARP] = "arp",
	[IPV4] = "ipv4",
	[IPV6] = "ipv6",
	[NEIGHBOUR] = "neighbour-discovery",
	[ROUTER] = "router-advertisement",
	[DHCP_SERVER] = "dhcp-server",
	[PROTOCOL] = "protocol",
	[MALFORMED] = "malformed",
	[GOOD] = NULL,
};

/* By two loads, not by bytes that are stored and loaded again. */
static inline uint64_t mac_value(const uint8_t *mac)
{
	uint32_t four;
	uint16_t two;

	memcpy(&four, mac, 4);
	memcpy(&two, mac + 4, 2);
	return four | (uint64_t)two << 32;
}

static inline uint64_t ipv4_value(const uint8_t *address)
{
	uint32_t value;

	memcpy(&value, address, 4);
	return value;
}

/* --- rules ------------------------------------------------------------------------------ */

/* A mask of @bits ones at the front of @of bits that are @size bytes in memory. */
static void mask_of(unsigned bits, uint8_t *bytes, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		unsigned n = bits < 8 ? bits : 8;

		bytes[i] = (uint8_t)(0xff00 >> n);
		bits -= n;
	}
}

/* "10.0.0.2", "10.1.0.0/16", "fd00::/8" */
static int parse_prefix(int family, char *text, struct prefix *prefix)
{
	unsigned size = family == AF_INET ? 4 : 16, bits = size * 8;
	uint8_t address[16] = { 0 }, mask[16] = { 0 };
	char *slash = strchr(text, '/');

	if (slash) {
		char *end;
		unsigned long n = strtoul(slash + 1, &end, 10);

		if (slash[1] < '0' || slash[1] > '9' || *end || n > bits)
			return -EINVAL;
		bits = (unsigned)n;
		*slash = 0;
	}
	if (inet_pton(family, text, address) != 1)
		return -EINVAL;
	mask_of(bits, mask, size);
	for (unsigned i = 0; i < size; i++)
		if (address[i] & ~mask[i])
			return -ERANGE;
	if (family == AF_INET) {
		prefix->high = ipv4_value(address);
		prefix->high_mask = ipv4_value(mask);
		return 0;
	}
	memcpy(&prefix->high, address, 8);
	memcpy(&prefix->low, address + 8, 8);
	memcpy(&prefix->high_mask, mask, 8);
	memcpy(&prefix->low_mask, mask + 8, 8);
	return 0;
}

static int parse_mac(char *text, struct prefix *prefix)
{
	uint8_t mac[6];

	if (mac_parse(text, mac) || mac_is_multicast(mac))
		return -EINVAL;
	prefix->high = mac_value(mac);
	return 0;
}

/* fe80:: and the MAC address, as SLAAC makes it (RFC 4291, appendix A). */
static void link_local(const struct prefix *mac, struct prefix *prefix)
{
	uint8_t address[16] = { 0xfe, 0x80 };
	uint32_t four = (uint32_t)mac->high;
	uint16_t two = (uint16_t)(mac->high >> 32);

	memcpy(address + 8, &four, 3);
	address[8] ^= 2;
	address[11] = 0xff;
	address[12] = 0xfe;
	address[13] = ((const uint8_t *)&four)[3];
	memcpy(address + 14, &two, 2);
	memcpy(&prefix->high, address, 8);
	memcpy(&prefix->low, address + 8, 8);
	prefix->high_mask = prefix->low_mask = UINT64_MAX;
}

/* The list of an option, @more places behind it. @family 0: MAC addresses. "none": an empty one. */
static int compile_list(const char *name, const char *list, int family, unsigned more,
			struct addresses *to, struct error *err)
{
	static const char *const forms[] = { "52:54:00:12:34:56", "10.0.0.2 or 10.1.0.0/16",
					     "fd00::2 or fd00:1::/64" };
	const char *form = forms[!family ? 0 : family == AF_INET ? 1 : 2];
	char *copy = strdup(list), *rest = copy, *text;
	unsigned most = 1 + more;
	int ret = 0;

	for (const char *c = list; *c; c++)
		most += *c == ',';
	to->checked = true;
	to->prefix = calloc(most, sizeof *to->prefix);
	if (!copy || !to->prefix) {
		free(copy);
		return error_set(err, ENOMEM, "out of memory");
	}
	if (family && !strcmp(list, "none"))
		rest = NULL;
	while ((text = strsep(&rest, ","))) {
		char whole[64];

		text += strspn(text, " ");
		snprintf(whole, sizeof whole, "%s", text);
		ret = family ? parse_prefix(family, text, &to->prefix[to->count])
			     : parse_mac(text, &to->prefix[to->count]);
		if (ret == -ERANGE) {
			error_set(err, EINVAL,
				  "%s: %s has bits behind its prefix: is the address meant, or its "
				  "network?",
				  name, whole);
			break;
		}
		if (ret) {
			error_set(err, EINVAL, "%s: \"%s\" is no address such as %s", name, whole,
				  form);
			break;
		}
		to->count++;
	}
	free(copy);
	return ret ? -EINVAL : 0;
}

static void discard(void *of)
{
	struct rules *rules = of;

	if (!rules)
		return;
	free(rules->macs.prefix);
	free(rules->ipv4.prefix);
	free(rules->ipv6.prefix);
	free(rules);
}

static int compile(const void *of, const struct port_facts *facts, void **made, struct error *err)
{
	const struct antispoof_settings *settings = of;
	struct rules *rules = calloc(1, sizeof *rules);
	char own[18];
	int ret = 0;

	if (!rules)
		return error_set(err, ENOMEM, "out of memory");
	rules->router = settings->router;
	if (settings->mac)
		ret = compile_list("mac", settings->mac, 0, 0, &rules->macs, err);
	else if (facts->has_mac)
		ret = compile_list("mac", mac_format(facts->mac, own), 0, 0, &rules->macs, err);
	else
		ret = error_set(err, EINVAL,
				"mac: this port has no address of its own: say which it may use");
	if (!ret && settings->ipv4)
		ret = compile_list("ipv4", settings->ipv4, AF_INET, 0, &rules->ipv4, err);
	if (!ret && settings->ipv6)
		ret = compile_list("ipv6", settings->ipv6, AF_INET6, rules->macs.count,
				   &rules->ipv6, err);
	if (!ret && rules->ipv6.count)
		for (unsigned i = 0; i < rules->macs.count; i++)
			link_local(&rules->macs.prefix[i],
				   &rules->ipv6.prefix[rules->ipv6.count++]);
	if (ret) {
		discard(rules);
		return ret;
	}
	*made = rules;
	return 0;
}

/* --- what is in a packet ------------------------------------------------------------------- */

static inline bool has_mac(const struct rules *rules, const uint8_t *mac)
{
	uint64_t value = mac_value(mac);

	for (unsigned i = 0; i < rules->macs.count; i++)
		if (rules->macs.prefix[i].high == value)
			return true;
	return false;
}

static inline bool has_ipv4(const struct rules *rules, const uint8_t *address)
{
	uint64_t value = ipv4_value(address);

	for (unsigned i = 0; i < rules->ipv4.count; i++)
		if ((value & rules->ipv4.prefix[i].high_mask) == rules->ipv4.prefix[i].high)
			return true;
	return false;
}

static inline bool has_ipv6(const struct rules *rules, const uint8_t *address)
{
	uint64_t high, low;

	memcpy(&high, address, 8);
	memcpy(&low, address + 8, 8);
	for (unsigned i = 0; i < rules->ipv6.count; i++) {
		const struct prefix *prefix = &rules->ipv6.prefix[i];

		if ((high & prefix->high_mask) == prefix->high &&
		    (low & prefix->low_mask) == prefix->low)
			return true;
	}
	return false;
}

static inline unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static bool all_zero(const uint8_t *at, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		if (at[i])
			return false;
	return true;
}

/* RFC 826 over Ethernet for IPv4, and RFC 903. A sender of 0.0.0.0 asks for its own address, or
 * whether the target is free, and so claims it (RFC 5227). */
static enum cause judge_arp(const struct rules *rules, struct packet *packet)
{
	static const uint8_t ethernet_ipv4[] = { 0, 1, 8, 0, 6, 4 };
	const struct frame *frame = &packet->frame;
	const uint8_t *arp, *claimed;

	if (!packet_pull(packet, frame->l3 + 28u))
		return MALFORMED;
	arp = packet->head + frame->l3;
	if (memcmp(arp, ethernet_ipv4, sizeof ethernet_ipv4) || !has_mac(rules, arp + 8))
		return ARP;
	if (!rules->ipv4.checked)
		return GOOD;
	claimed = arp + 14;
	if (all_zero(claimed, 4)) {
		if (frame->type == ETHERTYPE_REVARP)
			return GOOD;
		claimed = arp + 24;
	}
	return has_ipv4(rules, claimed) ? GOOD : ARP;
}

/* Its layer 4 header should be there, and is cut off, in another fragment, or too far away. */
static inline bool is_hidden(const struct frame *frame)
{
	return frame->first && !frame->l4 && frame->protocol != IPPROTO_NONE;
}

#define DHCP_CLIENT   68
#define DHCP_SERVER_  67
#define DHCP6_CLIENT  546
#define ANY_BROADCAST "\xff\xff\xff\xff"

/* What goes to a client's port comes from a server, whatever its own port: clients look at no more.
 */
static inline bool from_dhcp_server(const struct packet *packet, unsigned client)
{
	const struct frame *frame = &packet->frame;

	return frame->protocol == IPPROTO_UDP && frame->l4 &&
	       get16(packet->head + frame->l4 + 2) == client;
}

/* A client that has no address yet (RFC 2131, 4.1). */
static bool is_dhcp_request(const struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	const uint8_t *ip = packet->head + frame->l3, *udp = packet->head + frame->l4;

	return all_zero(ip + 12, 4) && !memcmp(ip + 16, ANY_BROADCAST, 4) && frame->l4 &&
	       frame->protocol == IPPROTO_UDP && get16(udp) == DHCP_CLIENT &&
	       get16(udp + 2) == DHCP_SERVER_;
}

static enum cause judge_ipv4(const struct rules *rules, const struct packet *packet)
{
	const struct frame *frame = &packet->frame;

	if (frame->version != 4)
		return MALFORMED;
	if (rules->ipv4.checked && !has_ipv4(rules, packet->head + frame->l3 + 12) &&
	    (!rules->ipv4.count || !is_dhcp_request(packet)))
		return IPV4;
	if (is_hidden(frame))
		return MALFORMED;
	if (!rules->router && from_dhcp_server(packet, DHCP_CLIENT))
		return DHCP_SERVER;
	return GOOD;
}

/* ICMPv6 (RFC 4861, 4; RFC 2710, 3810) */
enum {
	MLD_REPORT = 131,
	SOLICITATION_OF_ROUTER = 133,
	ADVERTISEMENT_OF_ROUTER = 134,
	SOLICITATION = 135,
	ADVERTISEMENT = 136,
	REDIRECT = 137,
	MLD2_REPORT = 143,
};
enum { SOURCE_LINK_ADDRESS = 1, TARGET_LINK_ADDRESS = 2 };

/* The options of neighbour discovery, from @at to the end of the packet: @kind is a MAC address of
 * the sender. */
static bool options_good(const struct rules *rules, const struct packet *packet, unsigned at,
			 unsigned kind)
{
	unsigned end = packet->frame.end;

	while (at < end) {
		const uint8_t *option = packet->head + at;
		unsigned length = at + 2 <= end ? option[1] * 8u : 0;

		if (!length || at + length > end)
			return false;
		if (option[0] == kind && (length != 8 || !has_mac(rules, option + 2)))
			return false;
		at += length;
	}
	return true;
}

static enum cause judge_neighbour(const struct rules *rules, struct packet *packet, bool nobody)
{
	const struct frame *frame = &packet->frame;
	unsigned type = packet->head[frame->l4], at = frame->l4 + 8u, kind = SOURCE_LINK_ADDRESS;
	bool claims = false; /* the target as its own */

	switch (type) {
	case SOLICITATION_OF_ROUTER:
		break;
	case ADVERTISEMENT_OF_ROUTER:
		at += 8;
		break;
	case SOLICITATION:
		claims = nobody; /* is it free? (RFC 4862, 5.4.2) */
		at += 16;
		break;
	case ADVERTISEMENT:
		claims = true;
		kind = TARGET_LINK_ADDRESS;
		at += 16;
		break;
	case REDIRECT:
		return rules->router ? GOOD : ROUTER;
	default:
		return GOOD;
	}
	if (type == ADVERTISEMENT_OF_ROUTER && !rules->router)
		return ROUTER;
	if (frame->fragment || at > frame->end || !packet_pull(packet, frame->end))
		return NEIGHBOUR;
	if (claims && rules->ipv6.checked && !has_ipv6(rules, packet->head + frame->l4 + 8))
		return NEIGHBOUR;
	return options_good(rules, packet, at, kind) ? GOOD : NEIGHBOUR;
}

/* What may be sent before there is an address. */
static bool is_first_step(const struct packet *packet)
{
	const struct frame *frame = &packet->frame;

	if (frame->protocol != IPPROTO_ICMPV6 || !frame->l4)
		return false;
	switch (packet->head[frame->l4]) {
	case MLD_REPORT:
	case MLD2_REPORT:
	case SOLICITATION_OF_ROUTER:
	case SOLICITATION:
		return true;
	default:
		return false;
	}
}

static enum cause judge_ipv6(const struct rules *rules, struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	bool nobody;

	if (frame->version != 6)
		return MALFORMED;
	nobody = all_zero(packet->head + frame->l3 + 8, 16);
	if (rules->ipv6.checked && !has_ipv6(rules, packet->head + frame->l3 + 8) &&
	    !(nobody && rules->ipv6.count && is_first_step(packet)))
		return IPV6;
	if (is_hidden(frame))
		return MALFORMED;
	if (!rules->router && from_dhcp_server(packet, DHCP6_CLIENT))
		return DHCP_SERVER;
	if (frame->protocol == IPPROTO_ICMPV6 && frame->l4)
		return judge_neighbour(rules, packet, nobody);
	return GOOD;
}

/* A sum that is left out is written after this has been judged: only where nothing was judged. */
static bool sum_is_harmless(const struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	unsigned at = (unsigned)packet->offload.csum_start + packet->offload.csum_offset;

	if (!frame->l4)
		return false;
	if (frame->protocol == IPPROTO_ICMPV6)
		return at == frame->l4 + 2u;
	if (frame->protocol == IPPROTO_UDP)
		return at == frame->l4 + 6u || at >= frame->l4 + 8u;
	return at >= frame->l4;
}

static inline enum cause judge(const struct rules *rules, struct packet *packet)
{
	if (!has_mac(rules, packet_ethernet(packet)->source))
		return MAC;
	if (!packet->frame.parsed)
		frame_parse(packet);
	if (packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !sum_is_harmless(packet))
		return MALFORMED;
	switch (packet->frame.type) {
	case ETHERTYPE_IP:
		return judge_ipv4(rules, packet);
	case ETHERTYPE_IPV6:
		return judge_ipv6(rules, packet);
	case ETHERTYPE_ARP:
	case ETHERTYPE_REVARP:
		return judge_arp(rules, packet);
	default:
		return rules->ipv4.checked || rules->ipv6.checked ? PROTOCOL : GOOD;
	}
}

static void process(struct layer_place *place, enum packet_direction direction,
		    struct packet_batch *batch)
{
	unsigned i;

	for_each_packet (batch, i) {
		enum cause cause = judge(place->rules, batch->packet[i]);

		if (cause != GOOD)
			layer_drop(place, direction, cause, batch, i);
	}
}

static const struct option options[] = {
	LAYER_DIRECTION("in"),
	{ .name = "mac",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct antispoof_settings, mac),
	  .help = "MAC addresses that frames may come from, separated by commas. The NIC's own by "
		  "default." },
	{ .name = "ipv4",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct antispoof_settings, ipv4),
	  .help = "IPv4 addresses and networks that packets may come from, such as "
		  "10.0.0.2,10.1.0.0/16; \"none\" lets no IPv4 pass. Not checked by default." },
	{ .name = "ipv6",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct antispoof_settings, ipv6),
	  .help = "The same for IPv6, such as fd00::2,2001:db8:1::/64. The link-local address that "
		  "is made from the MAC address need not be listed; guests that make another one "
		  "(NetworkManager, Windows) need fe80::/64." },
	{ .name = "router",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct antispoof_settings, router),
	  .help = "Lets IPv6 router advertisements and redirects, and answers of DHCP and DHCPv6 "
		  "servers, pass." },
	{ 0 },
};

const struct packet_layer_ops antispoof_layer = {
	.name = "antispoof",
	.summary = "lets a guest use its own addresses only",
	.description =
		"Frames must come from the NIC's MAC address, and ARP and IPv6 neighbour discovery "
		"must not give another one away as the sender's; announcements of a moved guest "
		"(RARP) pass. With ipv4 or ipv6 the sources of IP packets, the senders in ARP and "
		"the targets of neighbour advertisements must be among those addresses, and no "
		"other protocols pass. Exceptions are what a guest needs to get an address: DHCP "
		"from 0.0.0.0, ARP probes, and duplicate address detection, router solicitation "
		"and multicast listener reports from ::.\n\n"
		"Without router, a guest cannot pose as an IPv6 router or a DHCP server.\n\n"
		"Packets whose headers cannot be followed to the TCP, UDP or other header at their "
		"end are dropped as malformed: what is cut short, hides headers in a second "
		"fragment, or takes more than 256 bytes for them. Frames with several VLAN tags are "
		"judged by what is behind the tags.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "nics:\n"
		   "  web0:\n"
		   "    switch: lan\n"
		   "    mac: \"52:54:00:00:00:01\"\n"
		   "    layers:\n"
		   "      - antispoof: {ipv4: 10.0.0.2, ipv6: \"fd00::2\"}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct antispoof_settings),
	.options = options,
	.causes = causes,
	.size = sizeof(struct packet_layer),
	.place_size = sizeof(struct layer_place),
	.compile = compile,
	.discard = discard,
	.process = process,
};
