/* SPDX-License-Identifier: BSD-3-Clause */
#include "packet/uplink/vnet.h"

#define ADDRESSES 12u /* bytes in front of a tag */

static void make_tag(uint8_t tag[4], uint16_t tci)
{
	tag[0] = 0x81;
	tag[1] = 0;
	tag[2] = (uint8_t)(tci >> 8);
	tag[3] = (uint8_t)tci;
}

/* A claim that the sum was found right (DATA_VALID) is the sender's: the host looks itself. */
static void make_header(struct virtio_net_hdr *header, const struct packet *packet)
{
	const struct packet_offload *offload = &packet->offload;
	uint16_t shift = packet->tagged ? 4 : 0;

	*header = (struct virtio_net_hdr){ 0 };
	if (offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		header->csum_start = (uint16_t)(offload->csum_start + shift);
		header->csum_offset = offload->csum_offset;
	}
	if (offload->gso_type) {
		header->gso_type = offload->gso_type;
		header->gso_size = offload->gso_size;
		header->hdr_len = (uint16_t)(offload->header_length + shift);
	}
}

unsigned vnet_send(struct vnet_out *out, const struct packet *packet, uint8_t *bounce)
{
	unsigned n = 0;

	if (packet->body_count > VNET_VECS - 4 && !bounce)
		return 0;
	make_header(&out->header, packet);
	out->vec[n++] = (struct iovec){ &out->header, sizeof out->header };
	if (packet->body_count > VNET_VECS - 4) {
		vnet_copy(packet, bounce);
		out->vec[n++] = (struct iovec){ bounce, vnet_length(packet) };
		return n;
	}
	if (packet->tagged) {
		make_tag(out->tag, packet->tag);
		out->vec[n++] = (struct iovec){ packet->head, ADDRESSES };
		out->vec[n++] = (struct iovec){ out->tag, sizeof out->tag };
		out->vec[n++] =
			(struct iovec){ packet->head + ADDRESSES, packet->head_length - ADDRESSES };
	} else {
		out->vec[n++] = (struct iovec){ packet->head, packet->head_length };
	}
	memcpy(&out->vec[n], packet->body, packet->body_count * sizeof *packet->body);
	return n + packet->body_count;
}

void vnet_copy(const struct packet *packet, uint8_t *to)
{
	if (!packet->tagged) {
		packet_copy_out(packet, 0, to, packet->length);
		return;
	}
	packet_copy_out(packet, 0, to, ADDRESSES);
	make_tag(to + ADDRESSES, packet->tag);
	packet_copy_out(packet, ADDRESSES, to + ADDRESSES + 4, packet->length - ADDRESSES);
}
