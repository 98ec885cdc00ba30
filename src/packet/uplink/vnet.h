/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vnet.h - frames as the kernel of the host takes and gives them at a tap interface (IFF_VNET_HDR)
 * and a packet socket (PACKET_VNET_HDR): a struct virtio_net_hdr in front, in host order, which
 * says what is left to be done: sums, cutting. So large frames pass between the host's TCP and a
 * guest's.
 */
#pragma once

#include <linux/virtio_net.h>

#include "packet/packet.h"

/** UDP segments; headers older than Linux 6.2 do not have it. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/** Most iovecs of a frame that is sent; one with more is copied first. */
#define VNET_VECS 64u

/** A frame about to be sent. */
struct vnet_out {
	struct virtio_net_hdr header;
	uint8_t tag[4];
	struct iovec vec[VNET_VECS];
};

/** What the kernel left to be done to @packet, which came with @header in front. */
static inline void vnet_received(const struct virtio_net_hdr *header, struct packet *packet)
{
	packet->offload = (struct packet_offload){
		.flags = header->flags &
			 (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID),
		.gso_type = header->gso_type,
		.gso_size = header->gso_size,
		.header_length = header->hdr_len,
		.csum_start = header->csum_start,
		.csum_offset = header->csum_offset,
	};
}

/**
 * Describes @packet, with its tag in the frame, in @out->vec; how many iovecs. What would take more
 * than VNET_VECS is copied into @bounce (PACKET_MAX bytes); without one: 0.
 */
unsigned vnet_send(struct vnet_out *out, const struct packet *packet, uint8_t *bounce);

/** Writes @packet with its tag in the frame to @to; vnet_length() bytes. */
void vnet_copy(const struct packet *packet, uint8_t *to);

static inline uint32_t vnet_length(const struct packet *packet)
{
	return packet->length + (packet->tagged ? 4 : 0);
}
