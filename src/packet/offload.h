/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * offload.h - checksums that a sender has left to us, and large TCP and UDP packets that it has
 * left to us to cut (virtio 1.2, 5.1.6.2: VIRTIO_NET_F_CSUM, _HOST_TSO4, _HOST_TSO6, _HOST_USO)
 *
 * Between two ports that both understand them such packets pass as they are. Only where a packet
 * leaves for something that does not, it is cut and summed, just before it is sent.
 */
#pragma once

#include "packet/packet.h"

/** What a receiver understands. */
enum {
	OFFLOAD_CSUM = 1 << 0, /**< NEEDS_CSUM; without it none of the others */
	OFFLOAD_TSO4 = 1 << 1,
	OFFLOAD_TSO6 = 1 << 2,
	OFFLOAD_ECN = 1 << 3, /**< TSO with ECN set */
	OFFLOAD_USO4 = 1 << 4,
	OFFLOAD_USO6 = 1 << 5,
	/** Takes TCP packets of any length as one packet with its sum left out (it ends TCP itself,
	   as passt does). */
	OFFLOAD_ANY_TCP = 1 << 6,
};

/** Why offload_check() refuses a packet. */
enum offload_fault { OFFLOAD_GOOD, OFFLOAD_BAD_CSUM, OFFLOAD_BAD_GSO };

/**
 * Looks whether what the sender (a guest, a peer) left to be done can be done: offsets inside the
 * frame, headers in the head and in accord with gso_type. Sets offload.header_length to what the
 * headers really take. A packet without offloads is good, and costs nothing.
 */
enum offload_fault offload_check_slow(struct packet *packet);

static inline enum offload_fault offload_check(struct packet *packet)
{
	return packet->offload.flags | packet->offload.gso_type ? offload_check_slow(packet)
								: OFFLOAD_GOOD;
}

/** True if a receiver with @accepts takes @packet as it is. */
bool offload_fits_slow(const struct packet *packet, unsigned accepts);

static inline bool offload_fits(const struct packet *packet, unsigned accepts)
{
	return !(packet->offload.flags | packet->offload.gso_type) ||
	       offload_fits_slow(packet, accepts);
}

/**
 * Makes of @packet, which is good and does not fit, packets that do: summed, or cut into segments
 * of gso_size whose bodies point to where the body of @packet is. @send is called with batches of
 * them, which are valid until it returns. Returns how many packets there were; 0: its headers are
 * not what they were when it was checked, nothing was sent. gso_size is at least 1, and no more
 * than PACKET_MAX segments come of it.
 */
unsigned offload_resolve(struct packet *packet, unsigned accepts,
			 void (*send)(void *data, struct packet_batch *batch), void *data);
