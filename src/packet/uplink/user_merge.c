/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * user_merge.c - segments of one TCP connection that came together become one large packet
 *
 * passt sends a guest segments as long as its MTU allows, many at once. A guest that takes large
 * packets (virtio: GUEST_TSO) is given one for up to 64 KiB of them, which costs it, and us, as
 * little as one of 1,500 bytes. Nothing is copied: the large packet has the headers of the first
 * segment, and a body that points to the payloads where they lie. For a guest that takes none
 * it is cut again into just the segments that there were.
 *
 * Merged is what follows one another: the same headers but for length, sums, the IP
 * identification and PSH, which ends a packet; the next sequence number; all but the last as long
 * as the first. That a segment was whole is known, since passt has summed it from its memory to
 * ours.
 */
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>

#include "packet/frame.h"
#include "packet/packet.h"
#include "packet/uplink/user.h"

#define IP_MOST 65535u

enum { ACK = 0x10, PSH = 0x08 };

/* Where things are in a segment. */
struct layout {
	uint32_t l4, payload;
	bool six;
};

static uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* False if the frame at @at, of which @there bytes are there, is nothing to merge. */
static bool look(const uint8_t *at, uint32_t there, struct layout *layout)
{
	uint32_t header;

	layout->six = at[12] == 0x86 && at[13] == 0xdd;
	if (!layout->six && (at[12] != 8 || at[13]))
		return false;
	layout->l4 = layout->six ? 54 : 34;
	if (there <= layout->l4 + 20)
		return false;
	if (layout->six ? at[14] >> 4 != 6 || at[20] != IPPROTO_TCP
			: at[14] != 0x45 || at[20] & 0x3f || at[21] || at[23] != IPPROTO_TCP)
		return false;
	header = (uint32_t)at[layout->l4 + 12] >> 4;
	layout->payload = layout->l4 + header * 4;
	return header >= 5 && layout->payload < there && (at[layout->l4 + 13] & ~PSH) == ACK;
}

/* All that must be the same is. */
static bool alike(const uint8_t *a, const uint8_t *b, const struct layout *layout)
{
	const uint8_t *ta = a + layout->l4, *tb = b + layout->l4;

	if (memcmp(a, b, 16)) /* Ethernet; version and class */
		return false;
	if (layout->six ? memcmp(a + 16, b + 16, 2) || memcmp(a + 20, b + 20, 34)
			: memcmp(a + 20, b + 20, 4) || memcmp(a + 26, b + 26, 8))
		return false;
	return !memcmp(ta, tb, 4) && !memcmp(ta + 8, tb + 8, 5) && !memcmp(ta + 14, tb + 14, 2) &&
	       !memcmp(ta + 18, tb + 18, layout->payload - layout->l4 - 18);
}

bool user_merge(struct burst *burst, uint8_t *frame, uint32_t length)
{
	struct packet *last = &burst->packets[burst->count - 1];
	struct packet_offload *offload = &last->offload;
	uint32_t before, size, more;
	struct layout layout, other;

	if (!look(frame, length, &layout) || !look(last->head, last->head_length, &other) ||
	    layout.payload != other.payload || last->head[layout.l4 + 13] & PSH ||
	    !alike(last->head, frame, &layout))
		return false;
	/* Padding is no payload; for the first one as well. */
	if ((layout.six ? get16(frame + 18) + 54 : get16(frame + 16) + 14) != length ||
	    (!offload->gso_type && (layout.six ? get16(last->head + 18) + 54
					       : get16(last->head + 16) + 14) != last->length))
		return false;
	before = last->length - layout.payload;
	size = offload->gso_type ? offload->gso_size : before;
	more = length - layout.payload;
	if (before % size || more > size || last->length + more > IP_MOST + ETHERNET_HEADER ||
	    get32(frame + layout.l4 + 4) != get32(last->head + layout.l4 + 4) + before)
		return false;
	*burst_vec(burst) = (struct iovec){ frame + layout.payload, more };
	burst->iovecs++;
	last->body_count++;
	last->length += more;
	last->head[layout.l4 + 13] |= frame[layout.l4 + 13];
	*offload = (struct packet_offload){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = layout.six ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
		.gso_size = (uint16_t)size,
		.header_length = (uint16_t)layout.payload,
		.csum_start = (uint16_t)layout.l4,
		.csum_offset = 16,
	};
	return true;
}

/* The headers of a large packet: its length, and the sum of the pseudo header, to be gone on with
 * (RFC 9293, 3.1; RFC 8200, 8.1). */
static void finish(struct packet *packet)
{
	uint8_t *head = packet->head;
	uint32_t l4 = packet->offload.csum_start, length = packet->length - l4;
	bool six = l4 == 54;
	uint8_t rest[8] = { 0, 0, (uint8_t)(length >> 8), (uint8_t)length, 0, 0, 0, IPPROTO_TCP };
	uint16_t sum;

	if (six) {
		put16(head + 18, length);
	} else {
		put16(head + 16, packet->length - ETHERNET_HEADER);
		put16(head + 24, 0);
		sum = (uint16_t)~sum_bytes(head + 14, 20, 0);
		memcpy(head + 24, &sum, 2);
	}
	sum = (uint16_t)sum_bytes(rest, sizeof rest,
				  six ? sum_bytes(head + 22, 32, 0) : sum_bytes(head + 26, 8, 0));
	memcpy(head + l4 + 16, &sum, 2);
}

void user_merged(struct burst *burst)
{
	for (unsigned i = 0; i < burst->count; i++)
		if (burst->packets[i].offload.gso_type)
			finish(&burst->packets[i]);
}
