/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.h - reading a frame: Ethernet, VLAN tags, ARP, IPv4, IPv6 with its extension headers,
 * TCP, UDP, ICMP; and sums (RFC 1071)
 *
 * Only the head is read, which nobody else can write. What a sender says about lengths is believed
 * as far as it fits the frame.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

struct ethernet {
	uint8_t destination[6], source[6];
	uint16_t type; /**< network order */
} __attribute__((packed));

static inline const struct ethernet *packet_ethernet(const struct packet *packet)
{
	return (const struct ethernet *)(const void *)packet->head;
}

static inline bool mac_is_multicast(const uint8_t mac[6])
{
	return mac[0] & 1;
}

/** The address as a number, as addresses.h has them: the first byte is the most significant of 48
 * bits. */
static inline uint64_t mac_number(const uint8_t mac[6])
{
	return (uint64_t)mac[0] << 40 | (uint64_t)mac[1] << 32 | (uint64_t)mac[2] << 24 |
	       (uint64_t)mac[3] << 16 | (uint64_t)mac[4] << 8 | mac[5];
}

/** "52:54:00:12:34:56" into @mac. 0 or -EINVAL. */
int mac_parse(const char *text, uint8_t mac[6]);
/** And back; @text has room for 18 bytes. Returns it. */
char *mac_format(const uint8_t mac[6], char *text);

/**
 * Fills in @packet->frame, once; pulls as much into the head as the headers need, at most
 * PACKET_HEAD. Never fails: what cannot be understood stays zero.
 */
void frame_parse(struct packet *packet);

/**
 * A number that is the same for all packets of a flow, in this direction (addresses, protocol,
 * ports), never 0; kept in @packet->hash.
 */
uint32_t frame_hash(struct packet *packet);

/** One's complement sum (not inverted, folded to 16 bits, in memory order) of @length bytes from
 * @offset of the frame, added to @sum. */
uint32_t frame_sum(const struct packet *packet, uint32_t offset, uint32_t length, uint32_t sum);
/** The same of memory. An odd @length counts as if a zero byte followed. */
uint32_t sum_bytes(const void *data, size_t length, uint32_t sum);
