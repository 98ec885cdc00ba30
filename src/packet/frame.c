/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.c - where the headers of a frame are; see frame.h
 *
 * A frame is read once, from its start, and only what is in the head counts: each header is pulled
 * there before it is looked at. All steps go forward by at least four bytes, and the head has an
 * end, so stacks of tags and chains of extension headers have one too: a frame whose layer 4 header
 * is farther away than PACKET_HEAD has none for us (l4 is 0), and whoever judges packets by it must
 * not let such a one pass.
 */
#include "packet/frame.h"

#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdio.h>

#define ETHERTYPE_QINQ     0x88a8 /* 802.1ad */
#define ETHERTYPE_OLD_QINQ 0x9100 /* before it */

int mac_parse(const char *text, uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++, text += 3) {
		unsigned byte = 0;

		for (unsigned digit = 0; digit < 2; digit++) {
			char c = text[digit];

			if (c >= '0' && c <= '9')
				byte = byte << 4 | (unsigned)(c - '0');
			else if ((c | 32) >= 'a' && (c | 32) <= 'f')
				byte = byte << 4 | (unsigned)((c | 32) - 'a' + 10);
			else
				return -EINVAL;
		}
		if (text[2] != (i < 5 ? ':' : 0))
			return -EINVAL;
		mac[i] = (uint8_t)byte;
	}
	return 0;
}

char *mac_format(const uint8_t mac[6], char *text)
{
	snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
	return text;
}

/* Two bytes of the head in network order. */
static inline uint16_t get16(const struct packet *packet, unsigned at)
{
	return (uint16_t)(packet->head[at] << 8 | packet->head[at + 1]);
}

/* True if the first @length bytes are in the head now. */
static inline bool need(struct packet *packet, unsigned length)
{
	return length <= packet->head_length || packet_pull(packet, length);
}

/* The header at @at: known if all of it is inside the IP packet and here. */
static void parse_layer4(struct packet *packet, unsigned at)
{
	struct frame *frame = &packet->frame;
	unsigned least, header;

	switch (frame->protocol) {
	case IPPROTO_NONE:
		return;
	case IPPROTO_TCP:
		least = 20;
		break;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		least = 8;
		break;
	case IPPROTO_SCTP:
		least = 12;
		break;
	default:
		least = 1;
	}
	if (at + least > frame->end || !need(packet, at + least))
		return;
	frame->l4 = (uint16_t)at;
	if (frame->protocol == IPPROTO_UDP) {
		frame->payload = (uint16_t)(at + 8);
	} else if (frame->protocol == IPPROTO_TCP) {
		header = (packet->head[at + 12] >> 4) * 4u;
		if (header >= 20 && at + header <= frame->end && need(packet, at + header))
			frame->payload = (uint16_t)(at + header);
	}
}

/* RFC 791 */
static void parse_ipv4(struct packet *packet)
{
	struct frame *frame = &packet->frame;
	unsigned at = frame->l3, header, total, offset;

	if (!need(packet, at + 20) || packet->head[at] >> 4 != 4)
		return;
	header = (packet->head[at] & 15) * 4u;
	total = get16(packet, at + 2);
	if (header < 20 || total < header || !need(packet, at + header))
		return;
	offset = get16(packet, at + 6);
	frame->version = 4;
	frame->protocol = packet->head[at + 9];
	frame->end = at + total < packet->length ? at + total : packet->length;
	frame->fragment = offset & 0x3fff; /* more fragments, or not at 0 */
	frame->first = !(offset & 0x1fff);
	if (frame->first)
		parse_layer4(packet, at + header);
}

/* RFC 8200. The protocol stays zero if the extension headers do not end in the head. */
static void parse_ipv6(struct packet *packet)
{
	struct frame *frame = &packet->frame;
	unsigned at = frame->l3, total, length;
	uint8_t next;

	if (!need(packet, at + 40) || packet->head[at] >> 4 != 6)
		return;
	total = 40u + get16(packet, at + 4);
	frame->version = 6;
	frame->end = at + total < packet->length ? at + total : packet->length;
	frame->first = true;
	next = packet->head[at + 6];
	at += 40;
	for (;;) {
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		default:
			frame->protocol = next;
			parse_layer4(packet, at);
			return;
		}
		if (at + 8 > frame->end || !need(packet, at + 8))
			return;
		if (next == IPPROTO_FRAGMENT) {
			length = 8;
			frame->fragment = true;
			if (get16(packet, at + 2) & 0xfff8) {
				frame->first = false;
				frame->protocol = packet->head[at];
				return;
			}
		} else if (next == IPPROTO_AH) {
			length = (packet->head[at + 1] + 2) * 4u;
		} else {
			length = (packet->head[at + 1] + 1) * 8u;
		}
		next = packet->head[at];
		at += length;
		if (at > frame->end)
			return;
	}
}

void frame_parse(struct packet *packet)
{
	struct frame *frame = &packet->frame;
	unsigned at = ETHERNET_HEADER;

	*frame = (struct frame){ .parsed = true, .type = get16(packet, at - 2) };
	while (frame->type == ETHERTYPE_VLAN || frame->type == ETHERTYPE_QINQ ||
	       frame->type == ETHERTYPE_OLD_QINQ) {
		if (!need(packet, at + 4))
			break;
		frame->type = get16(packet, at + 2);
		at += 4;
	}
	frame->l3 = (uint16_t)at;
	if (frame->type == ETHERTYPE_IP)
		parse_ipv4(packet);
	else if (frame->type == ETHERTYPE_IPV6)
		parse_ipv6(packet);
}

/* Both halves of a product: each bit of @a and @b reaches all bits of it. */
static inline uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t load64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof value);
	return value;
}

/* TCP, UDP and SCTP begin with ports. All fragments of a packet are of one flow, and only the first
 * has ports. */
static inline bool has_ports(const struct frame *frame)
{
	return frame->l4 && !frame->fragment &&
	       (frame->protocol == IPPROTO_TCP || frame->protocol == IPPROTO_UDP ||
		frame->protocol == IPPROTO_SCTP);
}

/* Odd numbers without a pattern, so that a factor is zero by chance only. */
#define KEY_A 0x9e3779b97f4a7c15u
#define KEY_B 0xc2b2ae3d27d4eb4fu
#define KEY_C 0x165667b19e3779f9u

uint32_t frame_hash(struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	uint64_t hash, rest = 0;
	uint32_t ports;

	if (packet->hash)
		return packet->hash;
	if (!frame->parsed)
		frame_parse(packet);
	if (has_ports(frame)) {
		memcpy(&ports, packet->head + frame->l4, sizeof ports);
		rest = (uint64_t)ports << 8;
	}
	rest |= frame->protocol;
	if (frame->version == 4) {
		hash = mix(load64(packet->head + frame->l3 + 12) ^ KEY_A, rest ^ KEY_B);
	} else if (frame->version == 6) {
		const uint8_t *addresses = packet->head + frame->l3 + 8;

		hash = mix(load64(addresses) ^ KEY_A, load64(addresses + 8) ^ KEY_B) ^
		       mix(load64(addresses + 16) ^ KEY_B, load64(addresses + 24) ^ KEY_C);
		hash = mix(hash ^ KEY_A, rest ^ KEY_C);
	} else {
		/* Both addresses, 12 bytes; the type. */
		hash = mix(load64(packet->head) ^ KEY_A,
			   load64(packet->head + 4) ^ KEY_B ^ (uint64_t)frame->type << 16);
	}
	packet->hash = (uint32_t)(hash >> 32 ^ hash);
	if (!packet->hash)
		packet->hash = 1;
	return packet->hash;
}
