/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_frames.h - frames that tests send, and what they look for in frames that they receive
 *
 * Everything here is of the tests' own: nothing of the program is used to build a frame, to sum it,
 * or to look whether it was cut right.
 */
#pragma once

#include "net.h"

enum {
	ETHERNET = 14,
	TYPE_TEST = 0x88b5, /* local experimental EtherType 1 (IEEE 802) */
};

extern const uint8_t mac_broadcast[6];

/* A local address that ends with `number`. */
void mac_make(uint8_t mac[6], unsigned number);

/*
 * A frame of `length` bytes (at least 14) that is nothing but itself: EtherType TYPE_TEST, bytes
 * that come of `number`. As much of `number` as fits is right behind the Ethernet header.
 */
void frame_make(uint8_t *frame, const uint8_t to[6], const uint8_t from[6], uint32_t length,
		uint64_t number);
/* The number of such a frame of 22 bytes or more. */
uint64_t frame_number(const uint8_t *frame);

/* A TCP or UDP packet to be built. */
struct ip_packet {
	uint8_t to[6], from[6];
	unsigned version; /* 4 or 6 */
	bool tcp;
	uint16_t vlan;       /* 802.1Q tag; 0: none */
	uint32_t payload;    /* bytes; their values come of `seed` */
	uint32_t sequence;   /* TCP's; of UDP the source port's low bits */
	uint8_t tcp_options; /* bytes, a multiple of 4 */
	uint8_t tcp_flags;   /* 0: ACK and PSH */
	bool extension;      /* IPv6: a hop-by-hop header in front */
	uint32_t seed;
};

/* Builds it with all sums right: its length. `header`, if not NULL, is set to ask for nothing. */
uint32_t ip_make(uint8_t *frame, const struct ip_packet *packet, struct virtio_net_hdr_v1 *header);
/* Builds it with the layer 4 sum left to the device (NEEDS_CSUM), and, if gso_size is not 0, with
 * the cutting as well. */
uint32_t ip_make_partial(uint8_t *frame, const struct ip_packet *packet, uint16_t gso_size,
			 struct virtio_net_hdr_v1 *header);

/* What was found in a frame. */
struct ip_found {
	unsigned version;
	bool tcp, tagged;
	uint16_t vlan, id; /* IPv4's identification */
	uint8_t tcp_flags;
	uint32_t sequence, payload; /* bytes */
	const uint8_t *bytes;       /* of the payload */
};

/*
 * Reads a TCP or UDP frame and checks lengths against the frame, and sums: the IPv4 header's, and
 * layer 4's; with `partial` that one holds the pseudo header's only. NULL, or what is wrong.
 */
const char *ip_check(const uint8_t *frame, uint32_t length, bool partial, struct ip_found *found);

/* The payload byte at `at` of packets of a seed. */
static inline uint8_t ip_byte(uint32_t seed, uint32_t at)
{
	return (uint8_t)((at * 2654435761u + seed) >> 13);
}
