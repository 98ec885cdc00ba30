/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * offload.c - what a sender left to be done, judged and done; see offload.h
 *
 * Judged: what is asked for must be possible, since later nobody looks again. The offsets must lie
 * in the frame and the place of the sum in the head. A large packet must be what its gso_type says,
 * by its own headers; its sum must be left out too, at the place where its protocol has it (virtio
 * 1.2, 5.1.6.2.1: a driver that sets gso_type sets NEEDS_CSUM). A large packet that makes one
 * segment is an ordinary one, as for Linux.
 *
 * Cut: each segment has a copy of the headers, on the stack, and a body that points into the body
 * of the large one: valid as long as the call that it is handed to. The sender has put the sum of
 * the pseudo header, with the length of the large packet, where the sum goes; a segment has its own
 * length there instead (RFC 1624), which is right with any extension header.
 *
 *     IPv4      total length; identification: one more for each; header checksum
 *     IPv6      payload length
 *     TCP       sequence number; FIN and PSH only on the last, CWR only on the first (RFC 3168)
 *     UDP       length
 */
#include "packet/offload.h"

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>

#include "packet/frame.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/* Most segments of a packet. TCP: a peer may say that it takes 48 bytes with options, which leaves
 * 36 of 64 KiB (Linux never goes below); UDP: what Linux takes. More is an attack on who cuts them.
 */
#define TCP_SEGMENTS 2048u
#define UDP_SEGMENTS 128u

/* Where the sum is, from the start of the header; this also tells who is meant. */
#define TCP_SUM 16u
#define UDP_SUM 6u

#define TCP_FLAGS 13u /* offset of the byte */
#define TCP_FIN   0x01u
#define TCP_PSH   0x08u
#define TCP_CWR   0x80u

static bool is_tcp(const struct packet_offload *offload)
{
	uint8_t type = offload->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	return type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6;
}

/* The large packet's headers are what gso_type says. */
static bool accords(const struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	const struct packet_offload *offload = &packet->offload;
	unsigned protocol = IPPROTO_TCP, sum = TCP_SUM;

	switch (offload->gso_type) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
	case VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN:
		if (frame->version != 4)
			return false;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
	case VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN:
		if (frame->version != 6)
			return false;
		break;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		protocol = IPPROTO_UDP;
		sum = UDP_SUM;
		break;
	default:
		return false;
	}
	/* payload is not zero: version, l4 and all of the header are good as well. */
	return frame->payload && !frame->fragment && frame->protocol == protocol &&
	       offload->csum_start == frame->l4 && offload->csum_offset == sum;
}

static bool gso_good(struct packet *packet)
{
	struct packet_offload *offload = &packet->offload;
	const struct frame *frame = &packet->frame;
	uint32_t payload, most = is_tcp(offload) ? TCP_SEGMENTS : UDP_SEGMENTS;

	if (!(offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || !offload->gso_size ||
	    !accords(packet))
		return false;
	payload = frame->end - frame->payload;
	if (payload > offload->gso_size * most)
		return false;
	if (payload <= offload->gso_size) {
		offload->gso_type = VIRTIO_NET_HDR_GSO_NONE;
		offload->gso_size = 0;
	}
	offload->header_length = frame->payload;
	return true;
}

enum offload_fault offload_check_slow(struct packet *packet)
{
	struct packet_offload *offload = &packet->offload;
	unsigned place = 0;

	offload->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
	if (!(offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !offload->gso_type)
		return OFFLOAD_GOOD;
	if (!packet->frame.parsed)
		frame_parse(packet);
	if (offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		place = (unsigned)offload->csum_start + offload->csum_offset;
		if (offload->csum_start < ETHERNET_HEADER || !packet_pull(packet, place + 2))
			return OFFLOAD_BAD_CSUM;
	}
	if (offload->gso_type)
		return gso_good(packet) ? OFFLOAD_GOOD : OFFLOAD_BAD_GSO;
	offload->header_length = packet->frame.payload ? packet->frame.payload
						       : (uint16_t)(place + 2);
	return OFFLOAD_GOOD;
}

bool offload_fits_slow(const struct packet *packet, unsigned accepts)
{
	const struct packet_offload *offload = &packet->offload;
	const struct frame *frame = &packet->frame;
	unsigned wanted = OFFLOAD_CSUM;

	if (!(offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if ((accepts & OFFLOAD_ANY_TCP) && frame->parsed && frame->protocol == IPPROTO_TCP &&
	    frame->payload && !frame->fragment && offload->csum_start == frame->l4 &&
	    offload->csum_offset == TCP_SUM)
		return true;
	if (offload->gso_type & VIRTIO_NET_HDR_GSO_ECN)
		wanted |= OFFLOAD_ECN;
	switch (offload->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		wanted |= OFFLOAD_TSO4;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		wanted |= OFFLOAD_TSO6;
		break;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		wanted |= frame->version == 4 ? OFFLOAD_USO4 : OFFLOAD_USO6;
		break;
	}
	return (accepts & wanted) == wanted;
}

static inline uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static inline void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

/* A sum in memory order. */
static inline void put_sum(uint8_t *at, uint32_t sum)
{
	uint16_t value = (uint16_t)sum;

	memcpy(at, &value, sizeof value);
}

/* Zero means "no sum" for UDP, and its other form is sent instead (RFC 768). */
static inline void put_final_sum(const struct packet_offload *offload, uint8_t *at, uint32_t sum)
{
	uint16_t value = (uint16_t)~sum;

	if (!value && offload->csum_offset == UDP_SUM)
		value = 0xffff;
	memcpy(at, &value, sizeof value);
}

/* --- segments ------------------------------------------------------------------------- */

/* Each piece of a body begins where a segment does, where the large packet's head ends, or where
 * one of its iovecs begins. */
#define PIECES (BURST_IOVECS + PACKET_BURST + 1)

struct cutting {
	const struct packet *whole;
	uint8_t base[PACKET_HEAD]; /* headers of all segments, as far as they are the same */
	uint32_t address_sum;      /* IPv4: of the header without length, identification, sum */
	uint32_t pseudo_sum; /* of the pseudo header without length, if the sender was right */
	bool summing;        /* the receiver wants sums */
	uint32_t offset;     /* of the next segment's payload in the whole payload */
	unsigned count;      /* segments made */
	/* What is next of the payload: */
	uint32_t head_at;     /* in the head; behind it: */
	unsigned vec;         /* iovec of the body */
	size_t vec_at;        /* offset in it */
	unsigned pieces_used; /* of @pieces */
	struct packet_batch batch;
	struct packet segments[PACKET_BURST];
	struct iovec pieces[PIECES];
	uint8_t heads[PACKET_BURST][PACKET_ROOM + PACKET_HEAD];
};

/* A sum and one word more, which the frame has in network order. */
static inline uint32_t with(uint32_t sum, unsigned value)
{
	sum += htons((uint16_t)value);
	return (sum >> 16) + (sum & 0xffff);
}

static inline uint32_t without(uint32_t sum, unsigned value)
{
	return with(sum, ~value);
}

static void begin(struct cutting *cut, const struct packet *packet, unsigned accepts)
{
	const struct frame *frame = &packet->frame;
	uint8_t *ip = cut->base + frame->l3;

	cut->whole = packet;
	cut->summing = !(accepts & OFFLOAD_CSUM);
	cut->offset = cut->count = 0;
	cut->head_at = frame->payload;
	cut->vec = 0;
	cut->vec_at = 0;
	memcpy(cut->base, packet->head, frame->payload);
	if (frame->version == 4) {
		memset(ip + 10, 0, 2);
		cut->address_sum = sum_bytes(ip, (size_t)(frame->l4 - frame->l3), 0);
		cut->address_sum = without(cut->address_sum, get16(ip + 2));
		cut->address_sum = without(cut->address_sum, get16(ip + 4));
	}
	cut->pseudo_sum = sum_bytes(cut->base + frame->l4 + packet->offload.csum_offset, 2, 0);
	cut->pseudo_sum = without(cut->pseudo_sum, frame->end - frame->l4);
}

/* The next piece of the payload, of at most @most bytes. There is one. */
static struct iovec next_piece(struct cutting *cut, uint32_t most)
{
	const struct packet *whole = cut->whole;
	struct iovec piece;

	if (cut->head_at < whole->head_length) {
		uint32_t left = whole->head_length - cut->head_at;

		piece = (struct iovec){ whole->head + cut->head_at, left < most ? left : most };
		cut->head_at += (uint32_t)piece.iov_len;
		return piece;
	}
	while (cut->vec_at == whole->body[cut->vec].iov_len) {
		cut->vec++;
		cut->vec_at = 0;
	}
	piece.iov_base = (uint8_t *)whole->body[cut->vec].iov_base + cut->vec_at;
	piece.iov_len = whole->body[cut->vec].iov_len - cut->vec_at;
	if (piece.iov_len > most)
		piece.iov_len = most;
	cut->vec_at += piece.iov_len;
	return piece;
}

/* The headers of segment @cut->count, with @length bytes of payload, but for its sum. */
static void write_headers(const struct cutting *cut, uint8_t *head, uint32_t length, bool last)
{
	const struct frame *frame = &cut->whole->frame;
	uint8_t *ip = head + frame->l3, *l4 = head + frame->l4;
	unsigned total = frame->payload - frame->l3 + length, id;

	memcpy(head, cut->base, frame->payload);
	if (frame->version == 4) {
		id = (get16(ip + 4) + cut->count) & 0xffff;
		put16(ip + 2, total);
		put16(ip + 4, id);
		put_sum(ip + 10, ~with(with(cut->address_sum, total), id));
	} else {
		put16(ip + 4, total - 40);
	}
	if (frame->protocol == IPPROTO_UDP) {
		put16(l4 + 4, 8 + length);
		return;
	}
	put32(l4 + 4, get32(l4 + 4) + cut->offset);
	if (!last)
		l4[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (cut->count)
		l4[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

/* Makes one segment of @length bytes of payload, the next of the batch. */
static void make_segment(struct cutting *cut, uint32_t length, bool last)
{
	const struct packet *whole = cut->whole;
	const struct frame *frame = &whole->frame;
	struct packet *segment = &cut->segments[cut->batch.count];
	uint8_t *head = cut->heads[cut->batch.count] + PACKET_ROOM;
	uint8_t *sum_at = head + frame->l4 + whole->offload.csum_offset;
	struct iovec *pieces = &cut->pieces[cut->pieces_used];
	uint32_t sum = with(cut->pseudo_sum, frame->payload - frame->l4 + length);
	unsigned count = 0;

	write_headers(cut, head, length, last);
	for (uint32_t done = 0; done < length; count++) {
		pieces[count] = next_piece(cut, length - done);
		done += (uint32_t)pieces[count].iov_len;
	}
	*segment = (struct packet){
		.head = head,
		.head_length = frame->payload,
		.length = frame->payload + length,
		.body = pieces,
		.body_count = (uint16_t)count,
		.tag = whole->tag,
		.tagged = whole->tagged,
		.port = whole->port,
		.vlan = whole->vlan,
		.hash = whole->hash,
		.frame = *frame,
		.passing = true,
		.burst = whole->burst,
	};
	segment->frame.end = segment->length;
	put_sum(sum_at, sum);
	if (cut->summing) {
		sum = frame_sum(segment, frame->l4, segment->length - frame->l4, 0);
		put_final_sum(&whole->offload, sum_at, sum);
	} else {
		segment->offload = (struct packet_offload){
			.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
			.header_length = frame->payload,
			.csum_start = whole->offload.csum_start,
			.csum_offset = whole->offload.csum_offset,
		};
	}
	cut->pieces_used += count;
	batch_add(&cut->batch, segment);
}

static unsigned cut_up(struct packet *packet, unsigned accepts,
		       void (*send)(void *data, struct packet_batch *batch), void *data)
{
	struct cutting cut;
	uint32_t payload;

	/* A layer may have changed it since it was checked. */
	if (!packet->frame.parsed)
		frame_parse(packet);
	if (!accords(packet))
		return 0;
	payload = packet->frame.end - packet->frame.payload;
	begin(&cut, packet, accepts);
	while (cut.offset < payload) {
		batch_init(&cut.batch);
		cut.pieces_used = 0;
		while (cut.offset < payload && cut.batch.count < PACKET_BURST) {
			uint32_t left = payload - cut.offset, length = packet->offload.gso_size;

			make_segment(&cut, left < length ? left : length, left <= length);
			cut.offset += length;
			cut.count++;
		}
		send(data, &cut.batch);
	}
	return cut.count;
}

/* --- a sum ----------------------------------------------------------------------------- */

/* Others may see the head of @packet (views of it): the sum goes into a copy. */
static unsigned sum_up(const struct packet *packet,
		       void (*send)(void *data, struct packet_batch *batch), void *data)
{
	const struct packet_offload *offload = &packet->offload;
	uint8_t head[PACKET_ROOM + PACKET_HEAD];
	struct packet summed = {
		.head = head + PACKET_ROOM,
		.head_length = packet->head_length,
		.length = packet->length,
		.body = packet->body,
		.body_count = packet->body_count,
		.tag = packet->tag,
		.tagged = packet->tagged,
		.port = packet->port,
		.vlan = packet->vlan,
		.hash = packet->hash,
		.frame = packet->frame,
		.passing = true,
		.burst = packet->burst,
	};
	struct packet_batch batch;

	memcpy(summed.head, packet->head, packet->head_length);
	put_final_sum(
		offload, summed.head + offload->csum_start + offload->csum_offset,
		frame_sum(packet, offload->csum_start, packet->length - offload->csum_start, 0));
	batch_init(&batch);
	batch_add(&batch, &summed);
	send(data, &batch);
	return 1;
}

unsigned offload_resolve(struct packet *packet, unsigned accepts,
			 void (*send)(void *data, struct packet_batch *batch), void *data)
{
	if (packet->offload.gso_type)
		return cut_up(packet, accepts, send, data);
	return sum_up(packet, send, data);
}
