/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_transmit.c - transmit queues of the virtio network device (virtio 1.2, 5.1.6.2): from a
 * guest's ring into the switch
 *
 * A poll takes up to a burst of chains off the ring, prefetches where their headers and first bytes
 * are, then makes packets of them: the virtio_net_hdr is copied and becomes the packet's offload,
 * which the switch judges; the frame stays where it is. What is in the switch's hands when it
 * returns (another loop is copying it) keeps its burst; the next poll takes another one. When all
 * are lent the ring is left alone until one comes back.
 *
 * Chains go back in the order in which they came, whatever the order in which bursts come back: a
 * VMM that has no record of what was under way (QEMU's) goes on from the used index after we
 * were killed, and whatever stood before it counts as sent.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/virtio/net_private.h"
#include "util/list.h"

#define BURSTS  8u   /* of a queue */
#define VECTORS 256u /* of a chain; a frame of 64 KiB in pages has 18 */

/* A burst, and the chains that its packets are in. */
struct lent {
	struct net_transmit *queue;
	struct burst *burst;
	bool back; /* the switch is done with it */
	unsigned count;
	struct {
		uint16_t id, slots, record;
	} chain[PACKET_BURST];
};

struct net_transmit {
	struct virtqueue *vq;
	struct lane *lane;
	unsigned header;       /* bytes in front of a frame */
	bool polling;          /* what comes back now is shown at the end of the poll */
	unsigned out;          /* chains popped and not given back */
	struct loop_task task; /* shows what came back at other times */
	unsigned first, lent;  /* of @order: the oldest, and how many */
	struct lent *order[BURSTS];
	unsigned free_count;
	struct lent *free[BURSTS]; /* the last one was used last, and is in the cache */
	struct lent all[BURSTS];
};

/* --- chains go back ------------------------------------------------------------------ */

static void give_back(struct net_transmit *q, const struct lent *lent)
{
	for (unsigned i = 0; i < lent->count; i++) {
		struct chain chain = { .id = lent->chain[i].id,
				       .slots = lent->chain[i].slots,
				       .record = lent->chain[i].record };

		virtqueue_push(q->vq, &chain, 0);
	}
	q->out -= lent->count;
}

static void released(struct burst *burst)
{
	struct lent *lent = burst->owner;
	struct net_transmit *q = lent->queue;

	lent->back = true;
	while (q->lent && q->order[q->first]->back) {
		lent = q->order[q->first];
		q->first = (q->first + 1) % BURSTS;
		q->lent--;
		give_back(q, lent);
		q->free[q->free_count++] = lent;
	}
	if (!q->polling)
		loop_task_queue(q->vq->loop, &q->task);
}

static void show(struct loop_task *task)
{
	struct net_transmit *q = container_of(task, struct net_transmit, task);

	virtqueue_flush(q->vq);
	/* It had stopped taking chains, for want of bursts. */
	if (q->vq->on_demand && q->free_count && !q->vq->broken) {
		q->vq->on_demand = false;
		loop_poller_wake(q->vq->loop, &q->vq->poller);
	}
}

/* --- chains come --------------------------------------------------------------------- */

/* What was popped, before it is looked at. */
struct popped {
	unsigned at; /* first iovec in the burst */
	unsigned count;
	uint64_t bytes;
};

static unsigned pop(struct net_transmit *q, struct lent *lent, struct popped *popped)
{
	struct virtqueue *vq = q->vq;
	struct iovec *vec = lent->burst->vec;
	unsigned n = 0, at = 0;

	while (n < PACKET_BURST && BURST_IOVECS - at >= VECTORS) {
		struct chain chain;

		if (virtqueue_pop(vq, &chain, vec + at, VECTORS) <= 0)
			break;
		if (q->out + n == vq->size) {
			virtqueue_break(vq, "more than %u packets in a ring of %u", vq->size,
					vq->size);
			break;
		}
		if (chain.writable || chain.read_bytes < q->header) {
			virtqueue_break(vq, "a packet of %llu bytes, %llu of them writable",
					(unsigned long long)(chain.read_bytes + chain.write_bytes),
					(unsigned long long)chain.write_bytes);
			break;
		}
		__builtin_prefetch(vec[at].iov_base);
		/* A header and the frame behind it, or the frame alone. */
		__builtin_prefetch(chain.readable > 1 ? vec[at + 1].iov_base
						      : (char *)vec[at].iov_base + 64);
		popped[n] = (struct popped){ at, chain.readable, chain.read_bytes };
		lent->chain[n].id = chain.id;
		lent->chain[n].slots = chain.slots;
		lent->chain[n].record = chain.record;
		at += chain.readable;
		n++;
	}
	return n;
}

static void take_header(struct iovec *vec, unsigned count, struct virtio_net_hdr *header)
{
	if (vec->iov_len >= sizeof *header)
		memcpy(header, vec->iov_base, sizeof *header);
	else
		io_data_copy_out((struct io_data){ .vec = vec, .count = count }, header,
				 sizeof *header);
}

static void set_offload(struct packet *packet, const struct virtio_net_hdr *header)
{
	packet->offload = (struct packet_offload){
		.flags = header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = header->gso_type,
		.gso_size = le16toh((uint16_t)header->gso_size),
		.header_length = le16toh((uint16_t)header->hdr_len),
		.csum_start = le16toh((uint16_t)header->csum_start),
		.csum_offset = le16toh((uint16_t)header->csum_offset),
	};
}

static void add(struct net_transmit *q, struct burst *burst, const struct popped *popped)
{
	struct virtio_net_hdr header;
	struct packet *packet;
	uint64_t length = popped->bytes - q->header;

	burst->iovecs = popped->at; /* the last one may not have become a packet */
	take_header(burst_vec(burst), popped->count, &header);
	packet = length > PACKET_MAX ? NULL
				     : burst_add(burst, popped->count, q->header, (uint32_t)length);
	if (!packet)
		stats_add(&q->lane->stats.direction[PACKET_IN].drops[DROP_MALFORMED], 1);
	else if (header.flags | header.gso_type)
		set_offload(packet, &header);
}

static void lend(struct net_transmit *q, struct lent *lent, unsigned count,
		 const struct popped *popped)
{
	struct burst *burst = lent->burst;

	lent->count = count;
	lent->back = false;
	q->out += count;
	q->order[(q->first + q->lent++) % BURSTS] = lent;
	burst_begin(burst);
	for (unsigned i = 0; i < count; i++)
		add(q, burst, &popped[i]);
	if (burst->count)
		lane_receive(q->lane, burst);
	burst_put(burst);
}

bool net_transmit_poll(struct virtqueue *vq)
{
	struct net_transmit *q = vq->type;
	struct popped popped[PACKET_BURST];
	struct lent *lent;
	unsigned n;

	if (!q->free_count) {
		vq->on_demand = true;
		return false;
	}
	lent = q->free[q->free_count - 1];
	n = pop(q, lent, popped);
	if (!n || vq->broken)
		return false;
	q->free_count--;
	q->polling = true;
	lend(q, lent, n, popped);
	q->polling = false;
	virtqueue_flush(vq);
	return true;
}

/* --- made and gone ------------------------------------------------------------------- */

/* A task that is queued will look at the queue once more. */
static unsigned outstanding(struct virtqueue *vq)
{
	const struct net_transmit *q = vq->type;

	return q->out + q->task.queued;
}

static void release(struct net_transmit *q)
{
	for (unsigned i = 0; i < BURSTS; i++)
		if (q->all[i].burst)
			burst_free(q->all[i].burst);
	free(q);
}

int net_transmit_start(struct net *net, struct virtqueue *vq)
{
	struct net_transmit *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->vq = vq;
	q->lane = net_place_of(net, vq)->lane;
	q->header = net_header_size(vq->setup.features);
	q->task.run = show;
	for (unsigned i = 0; i < BURSTS; i++) {
		struct lent *lent = &q->all[i];

		lent->queue = q;
		lent->burst = burst_create(released, lent);
		if (!lent->burst) {
			release(q);
			return -ENOMEM;
		}
		q->free[q->free_count++] = lent;
	}
	vq->type = q;
	vq->outstanding = outstanding;
	return 0;
}

void net_transmit_stop(struct virtqueue *vq)
{
	release(vq->type);
	vq->type = NULL;
}
