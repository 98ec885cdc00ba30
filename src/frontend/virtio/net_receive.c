/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_receive.c - receive queues of the virtio network device (virtio 1.2, 5.1.6.3 and 5.1.6.4):
 * from the switch into a guest's ring
 *
 * Buffers are taken when there are packets for them, so the driver need not notify. As many as
 * there are packets are popped at once and their first lines prefetched; then each packet is copied
 * to where it goes, head and body straight from where its sender has it. With mergeable buffers it
 * takes as many as it needs, else it must fit one.
 *
 * What was popped and not used, because a packet needed more buffers than there were or because
 * fewer packets fitted than were expected, stays in a stash, in order, and is used first the next
 * time. When the queue is stopped the stash is put back, as if it had not been popped.
 *
 * Packets of one turn of the loop are shown to the driver together, with one interrupt at most.
 *
 * When the ring has no buffers packets wait (net_waiting.h), and the driver is asked to notify. If
 * it gives none for a while they are dropped, and what comes then is dropped at once until it does:
 * a guest that stands still holds up nobody for long.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/virtio/net_private.h"
#include "frontend/virtio/net_waiting.h"
#include "packet/offload.h"
#include "util/list.h"

#define STASH         256u  /* buffers; a longer packet needs fewer of any driver's */
#define VECTORS       128u  /* of one buffer */
#define STASH_VECTORS 1024u /* of all */
#define TAG           4u    /* bytes of an 802.1Q tag */
#define ADDRESSES     12u   /* bytes in front of where it goes */

/* A buffer of the driver: a chain. */
struct buffer {
	struct chain chain;
	unsigned at; /* first of its iovecs */
};

struct net_receive {
	struct virtqueue *vq;
	struct net_place *place;
	unsigned pair;
	unsigned header; /* bytes in front of a frame */
	bool mergeable;
	bool stuck; /* its driver has given no buffer for too long */
	struct loop_task task;
	struct loop_timer timer; /* set while packets wait */
	uint64_t fed;            /* ns; when it last found a buffer */
	struct net_waiting waiting;
	unsigned first, count; /* of @stash: the oldest, and how many */
	unsigned vectors;      /* of @vec: used */
	struct buffer stash[STASH];
	struct iovec vec[STASH_VECTORS];
};

unsigned net_receive_pair(const struct net_receive *receive)
{
	return receive->pair;
}

/* --- buffers ------------------------------------------------------------------------- */

/* Moves what is in the stash to its beginning. */
static void tidy(struct net_receive *q)
{
	unsigned from;

	if (!q->first)
		return;
	if (!q->count) {
		q->first = q->vectors = 0;
		return;
	}
	from = q->stash[q->first].at;
	memmove(q->stash, q->stash + q->first, q->count * sizeof *q->stash);
	memmove(q->vec, q->vec + from, (q->vectors - from) * sizeof *q->vec);
	q->vectors -= from;
	q->first = 0;
	for (unsigned i = 0; i < q->count; i++)
		q->stash[i].at -= from;
}

static bool full(const struct net_receive *q)
{
	return q->first + q->count == STASH || STASH_VECTORS - q->vectors < VECTORS;
}

/* One more buffer into the stash; false if there is none, or no room for it. */
static bool fill(struct net_receive *q)
{
	struct virtqueue *vq = q->vq;
	struct buffer *b;

	if (full(q)) {
		tidy(q);
		if (full(q))
			return false;
	}
	b = &q->stash[q->first + q->count];
	if (vq->broken || virtqueue_pop(vq, &b->chain, q->vec + q->vectors, VECTORS) <= 0)
		return false;
	if (b->chain.readable || b->chain.write_bytes < q->header) {
		virtqueue_break(vq, "a buffer for packets of %llu bytes, %llu of them readable",
				(unsigned long long)(b->chain.read_bytes + b->chain.write_bytes),
				(unsigned long long)b->chain.read_bytes);
		return false;
	}
	if (q->count == vq->size) {
		virtqueue_break(vq, "more than %u buffers in a ring of %u", vq->size, vq->size);
		return false;
	}
	__builtin_prefetch(q->vec[q->vectors].iov_base, 1);
	b->at = q->vectors;
	q->vectors += b->chain.writable;
	q->count++;
	q->stuck = false;
	return true;
}

/* --- a packet ------------------------------------------------------------------------ */

/* Where the next byte goes. */
struct cursor {
	const struct iovec *vec;
	uint64_t offset; /* in it */
};

static void put(struct cursor *to, const void *data, uint64_t length)
{
	while (length) {
		uint64_t n = to->vec->iov_len - to->offset;

		if (n > length)
			n = length;
		memcpy((char *)to->vec->iov_base + to->offset, data, n);
		data = (const char *)data + n;
		length -= n;
		to->offset += n;
		if (to->offset == to->vec->iov_len)
			*to = (struct cursor){ to->vec + 1, 0 };
	}
}

/* The 802.1Q tag as it is in a frame. */
static void make_tag(const struct packet *packet, uint8_t tag[TAG])
{
	tag[0] = 0x81;
	tag[1] = 0;
	tag[2] = (uint8_t)(packet->tag >> 8);
	tag[3] = (uint8_t)packet->tag;
}

static void make_header(const struct net_receive *q, const struct packet *packet,
			struct virtio_net_hdr_mrg_rxbuf *header, unsigned buffers)
{
	const struct packet_offload *offload = &packet->offload;
	unsigned tag = packet->tagged ? TAG : 0;
	uint8_t flags = offload->flags;

	*header = (struct virtio_net_hdr_mrg_rxbuf){ .num_buffers = htole16((uint16_t)buffers) };
	if (!q->place->rules.data_valid)
		flags &= (uint8_t)~VIRTIO_NET_HDR_F_DATA_VALID;
	if (!(flags | offload->gso_type))
		return;
	header->hdr.flags = flags;
	if (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		header->hdr.csum_start = htole16((uint16_t)(offload->csum_start + tag));
		header->hdr.csum_offset = htole16(offload->csum_offset);
	}
	if (offload->gso_type) {
		header->hdr.gso_type = offload->gso_type;
		header->hdr.gso_size = htole16(offload->gso_size);
		header->hdr.hdr_len = htole16((uint16_t)(offload->header_length + tag));
	}
}

/* All of it lies in one piece: what most packets find. */
static void write_plain(const struct net_receive *q, const struct packet *packet, uint8_t *to)
{
	struct virtio_net_hdr_mrg_rxbuf header;

	make_header(q, packet, &header, 1);
	memcpy(to, &header, 10);
	if (q->header > 10)
		memcpy(to + 10, (char *)&header + 10, 2);
	to += q->header;
	if (packet->tagged) {
		memcpy(to, packet->head, ADDRESSES);
		make_tag(packet, to + ADDRESSES);
		to += ADDRESSES + TAG;
		memcpy(to, packet->head + ADDRESSES, packet->head_length - ADDRESSES);
		to += packet->head_length - ADDRESSES;
	} else {
		memcpy(to, packet->head, packet->head_length);
		to += packet->head_length;
	}
	for (unsigned i = 0; i < packet->body_count; i++) {
		memcpy(to, packet->body[i].iov_base, packet->body[i].iov_len);
		to += packet->body[i].iov_len;
	}
}

static void write_scattered(const struct net_receive *q, const struct packet *packet,
			    unsigned buffers)
{
	struct cursor to = { .vec = &q->vec[q->stash[q->first].at] };
	struct virtio_net_hdr_mrg_rxbuf header;
	uint8_t tag[TAG];
	unsigned at = 0;

	make_header(q, packet, &header, buffers);
	put(&to, &header, q->header);
	if (packet->tagged) {
		make_tag(packet, tag);
		put(&to, packet->head, ADDRESSES);
		put(&to, tag, sizeof tag);
		at = ADDRESSES;
	}
	put(&to, packet->head + at, packet->head_length - at);
	for (unsigned i = 0; i < packet->body_count; i++)
		put(&to, packet->body[i].iov_base, packet->body[i].iov_len);
}

/* How many buffers @bytes take, or 0 with @cause. They are in the stash. */
static unsigned gather(struct net_receive *q, uint64_t bytes, enum port_drop *cause)
{
	uint64_t room = 0;
	unsigned n = 0;

	do {
		if (n == q->count && !fill(q)) {
			*cause = n && (full(q) || n >= q->vq->size) ? DROP_TOO_LONG
								    : DROP_NO_BUFFER;
			return 0;
		}
		room += q->stash[q->first + n++].chain.write_bytes;
		if (room >= bytes)
			return n;
	} while (q->mergeable);
	*cause = DROP_TOO_LONG;
	return 0;
}

/* Gives back @buffers of the stash, with @bytes in them. A driver wants all of a frame at once. */
static void give_back(struct net_receive *q, unsigned buffers, uint64_t bytes)
{
	while (buffers--) {
		struct chain *chain = &q->stash[q->first].chain;
		uint64_t here = chain->write_bytes < bytes ? chain->write_bytes : bytes;

		chain->more = buffers;
		virtqueue_push(q->vq, chain, (uint32_t)here);
		bytes -= here;
		q->first++;
		q->count--;
	}
}

static bool receive(struct net_receive *q, const struct packet *packet, enum port_drop *cause)
{
	uint64_t bytes = q->header + packet->length + (packet->tagged ? TAG : 0u);
	unsigned buffers = gather(q, bytes, cause);
	const struct iovec *vec;

	if (!buffers)
		return false;
	vec = &q->vec[q->stash[q->first].at];
	if (vec->iov_len >= bytes)
		write_plain(q, packet, vec->iov_base);
	else
		write_scattered(q, packet, buffers);
	give_back(q, buffers, bytes);
	return true;
}

/* --- packets that wait ---------------------------------------------------------------- */

static void drop_waiting(struct net_receive *q)
{
	struct lane *lane = q->place->lane;

	stats_add(&lane->stats.direction[PACKET_OUT].drops[DROP_NO_BUFFER], q->waiting.count);
	while (q->waiting.count)
		net_waiting_remove(&q->waiting);
	loop_timer_cancel(&q->timer);
	q->vq->on_demand = true;
}

static void waited(struct loop_timer *timer)
{
	struct net_receive *q = container_of(timer, struct net_receive, timer);
	uint64_t end = q->fed + NET_WAITING_TIME;

	if (end > loop_now(q->vq->loop)) {
		loop_timer_set(q->vq->loop, timer, end);
		return;
	}
	q->stuck = true;
	drop_waiting(q);
}

/* Keeps @packet until there is a buffer for it; false if that may take too long. */
static bool wait_for_buffer(struct net_receive *q, struct packet *packet)
{
	struct loop *loop = q->vq->loop;

	if (q->stuck || q->vq->broken || q->vq->stopping ||
	    !net_waiting_add(&q->waiting, q->place->lane->pool, packet))
		return false;
	if (q->waiting.count == 1) {
		q->fed = loop_now(loop);
		loop_timer_set(loop, &q->timer, q->fed + NET_WAITING_TIME);
		q->vq->on_demand = false;
		loop_poller_wake(loop, &q->vq->poller); /* which asks for a notification */
	}
	return true;
}

/* Writes those that wait, as far as there are buffers. True if there were any. */
static bool feed(struct net_receive *q)
{
	struct lane *lane = q->place->lane;
	uint64_t packets = 0, bytes = 0;
	const struct packet *packet;
	enum port_drop cause;

	while ((packet = net_waiting_first(&q->waiting))) {
		/* The driver may have changed its mind about offloads meanwhile. */
		bool fits = offload_fits(packet, lane->accepts);

		if (fits && receive(q, packet, &cause)) {
			packets++;
			bytes += packet->length;
		} else if (fits && cause == DROP_NO_BUFFER) {
			break;
		} else {
			stats_add(&lane->stats.direction[PACKET_OUT].drops[DROP_TOO_LONG], 1);
		}
		net_waiting_remove(&q->waiting);
	}
	if (!packet) {
		loop_timer_cancel(&q->timer);
		q->vq->on_demand = true;
	}
	if (!packets)
		return false;
	q->fed = loop_now(q->vq->loop);
	lane_sent(lane, packets, bytes);
	loop_task_queue(q->vq->loop, &q->task);
	return true;
}

/* --- packets come -------------------------------------------------------------------- */

void net_receive_batch(struct net_receive *q, struct lane *lane, struct packet_batch *batch)
{
	unsigned wanted = (unsigned)__builtin_popcountll(batch->live), i;
	uint64_t packets = 0, bytes = 0;
	enum port_drop cause = DROP_NO_BUFFER;

	tidy(q);
	while (q->count < wanted && fill(q))
		;
	if (q->waiting.count)
		feed(q);
	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];

		if (!q->waiting.count && receive(q, packet, &cause)) {
			packets++;
			bytes += packet->length;
		} else if ((q->waiting.count || cause == DROP_NO_BUFFER) &&
			   wait_for_buffer(q, packet)) {
			batch_take(batch, i);
		} else {
			lane_drop(lane, PACKET_OUT, q->waiting.count ? DROP_NO_BUFFER : cause,
				  batch, i);
		}
	}
	if (!packets)
		return;
	lane_sent(lane, packets, bytes);
	loop_task_queue(q->vq->loop, &q->task);
}

static void show(struct loop_task *task)
{
	virtqueue_flush(container_of(task, struct net_receive, task)->vq);
}

/* --- polled, made and gone ------------------------------------------------------------ */

/* Buffers for packets that wait; or the queue is being stopped, and what a predecessor took goes
 * back first. */
bool net_receive_poll(struct virtqueue *vq)
{
	struct net_receive *q = vq->type;

	if (!vq->stopping) {
		tidy(q);
		return q->waiting.count && feed(q);
	}
	if (!fill(q))
		return false;
	while (fill(q))
		;
	give_back(q, q->count, 0);
	virtqueue_flush(vq);
	return true;
}

/* Puts the stash back into the ring; false if what was taken is on record, and must be given back.
 */
static bool untake(struct net_receive *q)
{
	if (q->vq->setup.inflight && !q->vq->broken)
		return false;
	for (; q->count; q->count--)
		if (!q->vq->broken)
			virtqueue_unpop(q->vq, &q->stash[q->first + q->count - 1].chain);
	return true;
}

/* A queue that stops has no stash. A task that is queued will look at it once more. */
static unsigned outstanding(struct virtqueue *vq)
{
	struct net_receive *q = vq->type;

	if (vq->stopping && q->count && !untake(q)) {
		give_back(q, q->count, 0);
		loop_task_queue(vq->loop, &q->task);
	}
	return q->count + q->task.queued;
}

int net_receive_start(struct net *net, struct virtqueue *vq)
{
	struct net_receive *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->vq = vq;
	q->place = net_place_of(net, vq);
	q->pair = vq->index / 2;
	q->header = net_header_size(vq->setup.features);
	q->mergeable = vq->setup.features >> VIRTIO_NET_F_MRG_RXBUF & 1;
	q->task.run = show;
	loop_timer_init(&q->timer, waited);
	vq->type = q;
	vq->outstanding = outstanding;
	vq->on_demand = true;
	net_place_add(q->place, q);
	return 0;
}

void net_receive_stop(struct virtqueue *vq)
{
	struct net_receive *q = vq->type;

	net_place_remove(q->place, q);
	drop_waiting(q);
	free(q);
	vq->type = NULL;
}
