/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * split.c - the split ring (virtio 1.2, section 2.7), and its inflight region
 *
 * The driver's index is read once and remembered; the descriptors that it announces are
 * prefetched together, since each may be a cache line that the guest's core owns.
 *
 * While we poll, avail_event is an index that has passed (or NO_NOTIFY is set), so that the
 * driver does not notify. arm() moves it to the next index, and looks once more behind a full
 * fence, as 2.7.10 demands.
 *
 * Inflight region (vhost-user, "Inflight I/O tracking", split): pop marks the head, with a
 * counter for the order; a batch of pushes is linked into a list before the used index
 * moves, and unmarked after. A successor that finds the index moved and the region behind
 * unmarks that list itself. The region is shared with the VMM, so what it holds is
 * believed only as far as it is checked, and only at start.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>

#include "frontend/virtio/virtqueue.h"

struct inflight_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};

struct inflight {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct inflight_desc desc[];
};

/* A struct vring_desc wherever it lies: the driver may put an indirect table at any address. */
struct unaligned_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
} __attribute__((packed, may_alias));
_Static_assert(sizeof(struct unaligned_desc) == sizeof(struct vring_desc), "one layout");

#define PREFETCH 32

uint64_t split_inflight_bytes(uint16_t size)
{
	return sizeof(struct inflight) + size * sizeof(struct inflight_desc);
}

struct ring_areas split_ring_areas(uint16_t size)
{
	return (struct ring_areas){
		.descriptors = size * sizeof(struct vring_desc),
		.driver = sizeof(struct vring_avail) + (size + 1u) * sizeof(uint16_t),
		.device = sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) +
			  sizeof(uint16_t),
	};
}

static struct vring_desc *descriptors(const struct virtqueue *vq)
{
	return vq->setup.descriptors;
}

static struct vring_avail *avail(const struct virtqueue *vq)
{
	return vq->setup.driver;
}

static struct vring_used *used(const struct virtqueue *vq)
{
	return vq->setup.device;
}

/* The two words behind the rings, with VIRTIO_RING_F_EVENT_IDX. */
static uint16_t *used_event(const struct virtqueue *vq)
{
	return &avail(vq)->ring[vq->size];
}

static uint16_t *avail_event(const struct virtqueue *vq)
{
	return (uint16_t *)&used(vq)->ring[vq->size];
}

/* --- start, and recovery ------------------------------------------------------------ */

/* The predecessor moved the index but may not have unmarked the batch that this showed. */
static void unmark_last_batch(struct virtqueue *vq, struct inflight *region, uint16_t index)
{
	uint16_t batch = (uint16_t)(index - region->used_idx), at = region->last_batch_head;

	while (batch-- && at < vq->size) {
		region->desc[at].inflight = 0;
		at = region->desc[at].next;
	}
	store_in_order();
	region->used_idx = index;
}

static int recover(struct virtqueue *vq)
{
	struct inflight *region = vq->setup.inflight;
	uint16_t index = ring_load(&used(vq)->idx);
	int recorded = inflight_recorded(vq);

	if (recorded < 0)
		return recorded;
	if (!recorded) {
		region->features = 0;
		region->desc_num = vq->size;
		region->last_batch_head = 0;
		region->used_idx = index;
		for (unsigned i = 0; i < vq->size; i++)
			region->desc[i] = (struct inflight_desc){ 0 };
		store_in_order();
		region->version = INFLIGHT_VERSION;
		return 0;
	}
	if (region->used_idx != index)
		unmark_last_batch(vq, region, index);
	for (uint16_t i = 0; i < vq->size; i++)
		if (region->desc[i].inflight == 1)
			inflight_again(vq, i, region->desc[i].counter);
	inflight_again_sort(vq);
	/* Everything before that was popped is either used or marked. */
	vq->next_avail = (uint16_t)(index + vq->again_count);
	return 0;
}

static int split_start(struct virtqueue *vq)
{
	vq->next_used = ring_load(&used(vq)->idx);
	vq->next_avail = (uint16_t)vq->setup.base;
	if (vq->setup.inflight && recover(vq))
		return -EINVAL;
	vq->seen_avail = vq->next_avail;
	if (!vq->event_idx)
		used(vq)->flags = VRING_USED_F_NO_NOTIFY;
	return 0;
}

static uint32_t split_base(const struct virtqueue *vq)
{
	return vq->next_avail;
}

/* --- pop ---------------------------------------------------------------------------- */

static void prefetch(const struct virtqueue *vq, unsigned count)
{
	const struct vring_avail *ring = avail(vq);

	for (unsigned i = 0; i < count && i < PREFETCH; i++) {
		uint16_t head = ring->ring[(vq->next_avail + i) & (vq->size - 1)];

		__builtin_prefetch(&descriptors(vq)[head & (vq->size - 1)]);
	}
}

/* 1 if there is another, 0 if not, negative if the index makes no sense. */
static int next_head(struct virtqueue *vq, uint16_t *head)
{
	if (vq->again_next < vq->again_count) {
		*head = vq->again[vq->again_next++].id;
		return 1;
	}
	if (vq->stopping)
		return 0;
	if (vq->next_avail == vq->seen_avail) {
		uint16_t count;

		vq->seen_avail = ring_load(&avail(vq)->idx);
		count = (uint16_t)(vq->seen_avail - vq->next_avail);
		if (!count)
			return 0;
		if (count > vq->size)
			return virtqueue_break(
				vq, "available index %u is %u entries ahead in a ring of %u",
				vq->seen_avail, count, vq->size);
		prefetch(vq, count);
	}
	*head = avail(vq)->ring[vq->next_avail & (vq->size - 1)];
	if (*head >= vq->size)
		return virtqueue_break(vq, "available entry %u names descriptor %u of %u",
				       vq->next_avail, *head, vq->size);
	if (vq->setup.inflight) {
		struct inflight *region = vq->setup.inflight;

		region->desc[*head].counter = vq->counter++;
		store_in_order();
		region->desc[*head].inflight = 1;
	}
	vq->next_avail++;
	return 1;
}

static int split_pop(struct virtqueue *vq, struct chain *chain, struct iovec *vec, unsigned room)
{
	const struct unaligned_desc *table = (const void *)descriptors(vq);
	unsigned entries = vq->size, visited = 0;
	uint16_t at = 0;
	bool in_table = false;
	int ret = next_head(vq, &at);

	if (ret <= 0)
		return ret;
	*chain = (struct chain){ .id = at };
	for (;;) {
		/* Copied once; only the copy is checked and used. */
		const volatile struct unaligned_desc *shared = &table[at];
		struct vring_desc d = { shared->addr, shared->len, shared->flags, shared->next };
		struct descriptor one = { d.addr, d.len, d.flags & VRING_DESC_F_WRITE };

		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (in_table)
				return virtqueue_break(
					vq, "an indirect descriptor in an indirect table");
			if (d.flags & VRING_DESC_F_NEXT)
				return virtqueue_break(vq,
						       "an indirect descriptor with a next one");
			table = chain_table(vq, d.addr, d.len, &entries);
			if (!table)
				return -EINVAL;
			in_table = true;
			at = 0;
			visited = 0;
			continue;
		}
		ret = chain_add(vq, chain, &one, vec, room);
		if (ret)
			return ret;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 1;
		if (++visited >= entries)
			return virtqueue_break(vq, "a chain of descriptors that does not end");
		if (d.next >= entries)
			return virtqueue_break(vq, "next descriptor %u of %u", d.next, entries);
		at = d.next;
	}
}

static void split_unpop(struct virtqueue *vq, const struct chain *chain)
{
	(void)chain; /* the available ring still says which it is */
	vq->next_avail--;
}

/* --- push --------------------------------------------------------------------------- */

static void split_push(struct virtqueue *vq, const struct chain *chain, uint32_t written)
{
	struct vring_used_elem *e =
		&used(vq)->ring[(uint16_t)(vq->next_used + vq->pending) & (vq->size - 1)];

	e->id = chain->id;
	e->len = written;
	if (vq->setup.inflight) {
		struct inflight *region = vq->setup.inflight;

		region->desc[chain->id].next = region->last_batch_head;
		store_in_order();
		region->last_batch_head = chain->id;
	}
	vq->batch[vq->pending++].id = chain->id;
}

static bool split_publish(struct virtqueue *vq)
{
	uint16_t old = vq->next_used, new = (uint16_t)(old + vq->pending);

	ring_store(&used(vq)->idx, new);
	vq->next_used = new;
	if (vq->setup.inflight) {
		struct inflight *region = vq->setup.inflight;

		store_in_order();
		for (unsigned i = 0; i < vq->pending; i++)
			region->desc[vq->batch[i].id].inflight = 0;
		store_in_order();
		region->used_idx = new;
	}
	vq->pending = 0;
	atomic_thread_fence(memory_order_seq_cst);
	if (vq->event_idx)
		return vring_need_event(ring_load(used_event(vq)), new, old);
	return !(ring_load(&avail(vq)->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

/* --- notifications ------------------------------------------------------------------ */

static bool split_arm(struct virtqueue *vq)
{
	if (vq->event_idx)
		ring_store(avail_event(vq), vq->next_avail);
	else
		ring_store(&used(vq)->flags, 0);
	atomic_thread_fence(memory_order_seq_cst);
	return ring_load(&avail(vq)->idx) != vq->next_avail;
}

static void split_disarm(struct virtqueue *vq)
{
	if (vq->event_idx)
		ring_store(avail_event(vq), (uint16_t)(vq->next_avail - 1));
	else
		ring_store(&used(vq)->flags, VRING_USED_F_NO_NOTIFY);
}

const struct ring_ops split_ring_ops = {
	.start = split_start,
	.pop = split_pop,
	.unpop = split_unpop,
	.push = split_push,
	.publish = split_publish,
	.arm = split_arm,
	.disarm = split_disarm,
	.base = split_base,
};
