/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packed.c - the packed ring (virtio 1.2, section 2.8)
 *
 * One ring that both sides write. A descriptor is available when its AVAIL bit equals the
 * driver's wrap counter and its USED bit does not; used when both equal the device's. A
 * buffer takes as many slots as its chain has descriptors, and is used by writing one
 * element at the device's position, which then moves by that many slots.
 *
 * A batch is shown at one instant: all its elements are written, the flags of the first
 * one last. The driver reads in order, so it sees none or all.
 *
 * What happens on record for a successor is in packed_inflight.c.
 *
 * A VMM that keeps no record knows nothing of a packed ring whose device was killed: it tells the
 * successor where the ring was when it was last stopped properly (QEMU's network device does). If
 * buffers are used in order the ring itself says enough. Where the device is stands in the offset
 * of its event suppression structure, which the driver ignores unless it is asked to notify for a
 * certain descriptor; then it is the same. Used elements are written one by one, each by one store,
 * so that a descriptor is either as the driver made it or used. Of those that are to be seen at one
 * instant (the buffers of one frame) the first is written last. A successor begins where that
 * offset says, and goes on over what was shown since: see resume(); if all was ready but for the
 * first of several, it writes that: see complete().
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

#include "frontend/virtio/packed_inflight.h"
#include "frontend/virtio/virtqueue.h"

#define AVAIL_BIT (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED_BIT  (1u << VRING_PACKED_DESC_F_USED)

/* A struct vring_packed_desc wherever it lies: the driver may put an indirect table at any address.
 */
struct unaligned_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t id, flags;
} __attribute__((packed, may_alias));
_Static_assert(sizeof(struct unaligned_desc) == sizeof(struct vring_packed_desc), "one layout");

struct ring_areas packed_ring_areas(uint16_t size)
{
	return (struct ring_areas){
		.descriptors = size * sizeof(struct vring_packed_desc),
		.driver = sizeof(struct vring_packed_desc_event),
		.device = sizeof(struct vring_packed_desc_event),
	};
}

static struct vring_packed_desc *ring(const struct virtqueue *vq)
{
	return vq->setup.descriptors;
}

static struct vring_packed_desc_event *device_event(const struct virtqueue *vq)
{
	return vq->setup.device;
}

/* Moves a position by @slots; the wrap counter flips at the end of the ring. */
static void advance(const struct virtqueue *vq, uint16_t *at, bool *wrap, unsigned slots)
{
	unsigned to = *at + slots;

	if (to >= vq->size) {
		to -= vq->size;
		*wrap = !*wrap;
	}
	*at = (uint16_t)to;
}

/* For a successor, see above. */
static void note_position(struct virtqueue *vq)
{
	device_event(vq)->off_wrap = (uint16_t)(vq->next_used | (unsigned)vq->used_wrap << 15);
}

/* --- start -------------------------------------------------------------------------- */

/*
 * The predecessor may have written elements behind the first of a batch that it never showed;
 * the driver would take them for used once it gets there. They are in flight: say so again.
 */
static void clear_unshown(struct virtqueue *vq)
{
	uint16_t at = vq->next_used;
	bool wrap = vq->used_wrap;

	while (at != vq->next_avail || wrap != vq->avail_wrap) {
		uint16_t flags = ring(vq)[at].flags & (uint16_t) ~(AVAIL_BIT | USED_BIT);

		ring_store(&ring(vq)[at].flags, flags | (uint16_t)(wrap ? AVAIL_BIT : USED_BIT));
		advance(vq, &at, &wrap, 1);
	}
}

/*
 * Whether the driver was shown the element at @at: its flags are not those of an available one of
 * this lap any more. (They need not be those of a used one: the driver lives on while no device
 * does, and may have taken the element and made the slot available for the next lap.)
 */
static bool was_shown(const struct virtqueue *vq, uint16_t at, bool wrap)
{
	uint16_t flags = ring_load(&ring(vq)[at].flags);

	return !(!!(flags & AVAIL_BIT) == wrap && !!(flags & USED_BIT) != wrap);
}

/*
 * Without the USED bit anywhere the ring is fresh, or a lap has just ended in which it means that a
 * descriptor is available: both sides begin with the first descriptor, which is available before
 * any other is. (If another one is, it is the first of as many as the ring has, not yet shown.)
 */
static bool is_at_start(const struct virtqueue *vq)
{
	bool available = false;

	for (unsigned i = 0; i < vq->size; i++) {
		uint16_t flags = ring_load(&ring(vq)[i].flags);

		if (flags & USED_BIT)
			return false;
		available |= flags & AVAIL_BIT;
	}
	return !available || ring_load(&ring(vq)[0].flags) & AVAIL_BIT;
}

/*
 * Begins where the predecessor was, whatever the VMM believes. Its offset may be from before the
 * last batch: of that all that was shown is passed over. Such a descriptor is used (both bits are
 * those of this lap), or the driver has made it available once more (as if in the next lap), which
 * it does only if the ring is full of what is available. So where a ring is not full a descriptor
 * that looks like that is the rest of a chain, left over from the last lap.
 */
static void resume(struct virtqueue *vq)
{
	uint16_t off_wrap = device_event(vq)->off_wrap, at = off_wrap & 0x7fff;
	bool wrap = off_wrap >> 15, chained = false, shown = false;

	if (is_at_start(vq)) {
		at = 0;
		wrap = true;
	} else if (at >= vq->size) { /* no device of ours was here: then the VMM knows */
		at = vq->next_avail;
		wrap = vq->avail_wrap;
	}
	vq->next_used = at;
	vq->used_wrap = wrap;
	for (unsigned i = 0; i < vq->size; i++) {
		uint16_t flags = ring_load(&ring(vq)[at].flags);
		bool avail = !!(flags & AVAIL_BIT) == wrap, used = !!(flags & USED_BIT) == wrap;

		if (!chained && !used) {
			shown |= avail;
			break;
		}
		shown |= (avail && used) || i + 1 == vq->size;
		/* Of a chain only the first descriptor is written. */
		chained = (chained || avail) && flags & VRING_DESC_F_NEXT;
		advance(vq, &at, &wrap, 1);
	}
	if (shown) {
		vq->next_used = at;
		vq->used_wrap = wrap;
	}
	vq->next_avail = vq->next_used;
	vq->avail_wrap = vq->used_wrap;
}

static int packed_pop(struct virtqueue *vq, struct chain *chain, struct iovec *vec, unsigned room);
static void packed_unpop(struct virtqueue *vq, const struct chain *chain);
static void show_one(struct virtqueue *vq, const struct pushed *p, uint16_t at, bool wrap);

#define COMPLETE_VECTORS 256u

/*
 * The predecessor may have died between the others and the first of elements that belong together.
 * Then the first is available, and what follows its chain is used in this lap, which nothing else
 * brings about. Its buffers are full, since others follow it; so its element is known. 1: written.
 * If some of the others were not ready either, the driver sees a part of a frame, and drops it.
 */
static int complete(struct virtqueue *vq)
{
	struct iovec vec[COMPLETE_VECTORS];
	struct chain chain;
	int ret = packed_pop(vq, &chain, vec, COMPLETE_VECTORS);
	uint16_t flags = ring_load(&ring(vq)[vq->next_avail].flags);

	if (ret <= 0)
		return ret;
	if (!!(flags & AVAIL_BIT) != vq->avail_wrap || !!(flags & USED_BIT) != vq->avail_wrap) {
		packed_unpop(vq, &chain);
		return 0;
	}
	vq->slots_out -= chain.slots;
	show_one(vq,
		 &(struct pushed){ .id = chain.id,
				   .slots = chain.slots,
				   .written = (uint32_t)chain.write_bytes },
		 vq->next_used, vq->used_wrap);
	return 1;
}

static int packed_start(struct virtqueue *vq)
{
	uint32_t base = vq->setup.base;
	unsigned slots = 0;
	int ret;

	vq->next_avail = base & 0x7fff;
	vq->avail_wrap = base >> 15 & 1;
	vq->next_used = base >> 16 & 0x7fff;
	vq->used_wrap = base >> 31 & 1;
	if (vq->next_avail >= vq->size || vq->next_used >= vq->size)
		return virtqueue_break(vq, "base %#x is outside a ring of %u", base, vq->size);
	if (vq->setup.inflight) {
		ret = packed_inflight_recover(vq, was_shown, &slots);
		if (ret < 0)
			return ret;
		if (ret > 0) {
			vq->next_avail = vq->next_used;
			vq->avail_wrap = vq->used_wrap;
			advance(vq, &vq->next_avail, &vq->avail_wrap, slots);
			clear_unshown(vq);
		}
	} else if (vq->in_order) {
		resume(vq);
		ret = complete(vq);
		if (ret < 0)
			return ret;
		if (ret > 0)
			resume(vq);
		note_position(vq);
	}
	device_event(vq)->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
	return 0;
}

static uint32_t packed_base(const struct virtqueue *vq)
{
	return vq->next_avail | (uint32_t)vq->avail_wrap << 15 | (uint32_t)vq->next_used << 16 |
	       (uint32_t)vq->used_wrap << 31;
}

/* --- pop ---------------------------------------------------------------------------- */

/* A descriptor of the ring: one buffer, or a table of them. */
static int add(struct virtqueue *vq, struct chain *chain, const struct vring_packed_desc *d,
	       struct iovec *vec, unsigned room)
{
	struct descriptor one = { d->addr, d->len, d->flags & VRING_DESC_F_WRITE };
	const volatile struct unaligned_desc *table;
	unsigned entries;
	int ret = 0;

	if (!(d->flags & VRING_DESC_F_INDIRECT))
		return chain_add(vq, chain, &one, vec, room);
	if (d->flags & VRING_DESC_F_NEXT)
		return virtqueue_break(vq, "an indirect descriptor with a next one");
	table = chain_table(vq, d->addr, d->len, &entries);
	if (!table)
		return -EINVAL;
	for (unsigned i = 0; i < entries && !ret; i++) {
		uint16_t flags = table[i].flags;

		if (flags & VRING_DESC_F_INDIRECT)
			return virtqueue_break(vq, "an indirect descriptor in an indirect table");
		one = (struct descriptor){ table[i].addr, table[i].len,
					   flags & VRING_DESC_F_WRITE };
		ret = chain_add(vq, chain, &one, vec, room);
	}
	return ret;
}

static bool is_available(const struct virtqueue *vq)
{
	uint16_t flags = ring_load(&ring(vq)[vq->next_avail].flags);

	return !!(flags & AVAIL_BIT) == vq->avail_wrap && !!(flags & USED_BIT) != vq->avail_wrap;
}

static int pop_again(struct virtqueue *vq, struct chain *chain, struct iovec *vec, unsigned room)
{
	uint16_t record = vq->again[vq->again_next++].id, at = record;
	struct vring_packed_desc d;
	int ret;

	*chain = (struct chain){ .record = record, .slots = packed_inflight_slots(vq, record) };
	for (unsigned i = 0; i < chain->slots; i++) {
		at = packed_inflight_read(vq, at, &d);
		chain->id = d.id;
		ret = add(vq, chain, &d, vec, room);
		if (ret)
			return ret;
	}
	return 1;
}

static int packed_pop(struct virtqueue *vq, struct chain *chain, struct iovec *vec, unsigned room)
{
	uint16_t at = vq->next_avail;
	bool wrap = vq->avail_wrap;
	struct vring_packed_desc d;
	int ret;

	if (vq->again_next < vq->again_count)
		return pop_again(vq, chain, vec, room);
	if (vq->stopping || !is_available(vq))
		return 0;
	__builtin_prefetch(&ring(vq)[(at + 8u) % vq->size]);
	*chain = (struct chain){ 0 };
	do {
		const volatile struct vring_packed_desc *shared = &ring(vq)[at];

		if (vq->slots_out == vq->size)
			return virtqueue_break(
				vq, "more descriptors available than the ring of %u holds",
				vq->size);
		d = (struct vring_packed_desc){ shared->addr, shared->len, shared->id,
						shared->flags };
		ret = add(vq, chain, &d, vec, room);
		if (ret)
			return ret;
		if (vq->setup.inflight)
			packed_inflight_take(vq, chain, &d);
		chain->slots++;
		vq->slots_out++;
		advance(vq, &at, &wrap, 1);
	} while (d.flags & VRING_DESC_F_NEXT);
	chain->id = d.id;
	if (vq->setup.inflight)
		packed_inflight_taken(vq, chain);
	vq->next_avail = at;
	vq->avail_wrap = wrap;
	return 1;
}

static void packed_unpop(struct virtqueue *vq, const struct chain *chain)
{
	if (vq->next_avail < chain->slots) {
		vq->next_avail = (uint16_t)(vq->next_avail + vq->size);
		vq->avail_wrap = !vq->avail_wrap;
	}
	vq->next_avail = (uint16_t)(vq->next_avail - chain->slots);
	vq->slots_out -= chain->slots;
}

/* --- push --------------------------------------------------------------------------- */

static void packed_push(struct virtqueue *vq, const struct chain *chain, uint32_t written)
{
	vq->batch[vq->pending++] =
		(struct pushed){ chain->id, chain->slots, chain->record, chain->more, written };
	vq->slots_out -= chain->slots;
}

static uint16_t used_flags(const struct pushed *p, bool wrap)
{
	return (uint16_t)((wrap ? AVAIL_BIT | USED_BIT : 0) |
			  (p->written ? VRING_DESC_F_WRITE : 0));
}

static bool wants_interrupt(const struct virtqueue *vq, uint16_t old, bool old_wrap)
{
	const struct vring_packed_desc_event *event = vq->setup.driver;
	uint16_t flags = ring_load(&event->flags), off_wrap = event->off_wrap;
	uint16_t off = off_wrap & 0x7fff;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx)
		return true;
	/* Both positions and the event in numbers of the present lap. */
	if ((off_wrap >> 15) != vq->used_wrap)
		off = (uint16_t)(off - vq->size);
	if (old_wrap != vq->used_wrap)
		old = (uint16_t)(old - vq->size);
	return vring_need_event(off, vq->next_used, old);
}

/* The element at @at, by one store. */
static void show_one(struct virtqueue *vq, const struct pushed *p, uint16_t at, bool wrap)
{
	/* The driver ignores that the chain goes on; a successor does not. */
	uint16_t flags = (uint16_t)(used_flags(p, wrap) | (p->slots > 1 ? VRING_DESC_F_NEXT : 0));
	uint64_t word = p->written | (uint64_t)p->id << 32 | (uint64_t)flags << 48;

	__atomic_store_n((uint64_t *)(void *)&ring(vq)[at].len, htole64(word), __ATOMIC_RELEASE);
}

/* One after another; the first of several that belong together after the others. */
static void show_in_order(struct virtqueue *vq)
{
	/* The offset is about to be no longer that of a notification asked for. */
	if (vq->armed)
		ring_store(&device_event(vq)->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	for (unsigned i = 0; i < vq->pending; i++) {
		const struct pushed *first = &vq->batch[i];
		uint16_t at = vq->next_used;
		bool wrap = vq->used_wrap;

		advance(vq, &vq->next_used, &vq->used_wrap, first->slots);
		while (vq->batch[i].more && i + 1 < vq->pending) {
			const struct pushed *p = &vq->batch[++i];

			show_one(vq, p, vq->next_used, vq->used_wrap);
			advance(vq, &vq->next_used, &vq->used_wrap, p->slots);
		}
		show_one(vq, first, at, wrap);
	}
	note_position(vq);
}

static void show_at_once(struct virtqueue *vq)
{
	uint16_t first = vq->next_used;
	bool first_wrap = vq->used_wrap;

	for (unsigned i = 0; i < vq->pending; i++) {
		const struct pushed *p = &vq->batch[i];
		struct vring_packed_desc *d = &ring(vq)[vq->next_used];

		d->id = p->id;
		d->len = p->written;
		if (i > 0)
			ring_store(&d->flags, used_flags(p, vq->used_wrap));
		advance(vq, &vq->next_used, &vq->used_wrap, p->slots);
	}
	if (vq->setup.inflight)
		packed_inflight_publish(vq);
	ring_store(&ring(vq)[first].flags, used_flags(&vq->batch[0], first_wrap));
	if (vq->setup.inflight)
		packed_inflight_published(vq);
}

static bool packed_publish(struct virtqueue *vq)
{
	uint16_t first = vq->next_used;
	bool first_wrap = vq->used_wrap;

	if (vq->in_order && !vq->setup.inflight)
		show_in_order(vq);
	else
		show_at_once(vq);
	vq->pending = 0;
	atomic_thread_fence(memory_order_seq_cst);
	return wants_interrupt(vq, first, first_wrap);
}

/* --- notifications ------------------------------------------------------------------ */

static bool packed_arm(struct virtqueue *vq)
{
	/* With something out the offset stays what it says to a successor. */
	if (vq->event_idx && !(vq->in_order && vq->slots_out)) {
		device_event(vq)->off_wrap =
			(uint16_t)(vq->next_avail | (unsigned)vq->avail_wrap << 15);
		ring_store(&device_event(vq)->flags, VRING_PACKED_EVENT_FLAG_DESC);
	} else {
		ring_store(&device_event(vq)->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	}
	atomic_thread_fence(memory_order_seq_cst);
	return is_available(vq);
}

static void packed_disarm(struct virtqueue *vq)
{
	ring_store(&device_event(vq)->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
}

const struct ring_ops packed_ring_ops = {
	.start = packed_start,
	.pop = packed_pop,
	.unpop = packed_unpop,
	.push = packed_push,
	.publish = packed_publish,
	.arm = packed_arm,
	.disarm = packed_disarm,
	.base = packed_base,
};
