/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packed_inflight.c - what a packed ring has in flight, on record for a successor
 * (vhost-user, "Inflight I/O tracking", packed)
 *
 * Used elements overwrite the ring in the order of completion, so a chain that is popped
 * cannot be found there again. The region keeps a copy of each descriptor in entries that
 * form a free list and one list for each chain. Two commits make it safe at any instant:
 *
 *   pop   the entries of a chain come off the free list in order; they count when
 *         old_free_head moves past them. Until then the entry at old_free_head is not
 *         in flight, whatever its mark says.
 *   push  free_head and used_idx move first, then the driver is shown the batch, then the
 *         marks are cleared, then old_free_head and old_used_idx follow. A successor that
 *         finds them apart asks the ring whether the batch was shown: commit, or roll back.
 *
 * The region is shared with the VMM. While it serves, this side only writes it and keeps
 * its own copy of the links; what it reads at start is checked.
 */
#include "frontend/virtio/packed_inflight.h"

#include <errno.h>
#include <linux/virtio_ring.h>

#include "frontend/virtio/virtqueue.h"

struct inflight_desc {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};

/* The device's positions, new and old: one aligned word, so that they change at one instant. */
union positions {
	struct {
		uint16_t used_idx;
		uint16_t old_used_idx;
		uint8_t used_wrap_counter;
		uint8_t old_used_wrap_counter;
		uint16_t padding;
	};
	uint64_t word;
};

struct inflight {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	union positions at;
	uint8_t padding[8];
	struct inflight_desc desc[];
};
_Static_assert(offsetof(struct inflight, at) == 16, "as the specification lays it out");
_Static_assert(offsetof(struct inflight, desc) == 32, "as the specification lays it out");

uint64_t packed_inflight_bytes(uint16_t size)
{
	return sizeof(struct inflight) + size * sizeof(struct inflight_desc);
}

/* --- recovery ----------------------------------------------------------------------- */

static union positions load_positions(const struct inflight *region)
{
	return (union positions){ .word = __atomic_load_n(&region->at.word, __ATOMIC_RELAXED) };
}

static void store_positions(struct inflight *region, union positions at)
{
	store_in_order();
	__atomic_store_n(&region->at.word, at.word, __ATOMIC_RELAXED);
	store_in_order();
}

/* Where the device is now is where it is for good. */
static void commit(struct inflight *region)
{
	union positions at = load_positions(region);

	region->old_free_head = region->free_head;
	at.old_used_idx = at.used_idx;
	at.old_used_wrap_counter = at.used_wrap_counter;
	store_positions(region, at);
}

/* A batch was under way. If the driver was shown it, finish it; else undo it. */
static void finish_batch(struct virtqueue *vq, struct inflight *region, bool shown)
{
	union positions positions = load_positions(region);
	uint16_t at = region->free_head;

	if (shown) {
		for (unsigned i = 0; i < vq->size && at < vq->size && at != region->old_free_head;
		     i++) {
			region->desc[at].inflight = 0;
			at = region->desc[at].next;
		}
		store_in_order();
		commit(region);
		return;
	}
	region->free_head = region->old_free_head;
	positions.used_idx = positions.old_used_idx;
	positions.used_wrap_counter = positions.old_used_wrap_counter;
	store_positions(region, positions);
}

/* The chain at @head into @taken and our links; false if it makes no sense. */
static bool adopt(struct virtqueue *vq, const struct inflight *region, uint16_t head, bool *taken,
		  unsigned *slots)
{
	uint16_t num = region->desc[head].num, at = head;

	if (!num)
		return false;
	for (unsigned i = 0; i < num; i++) {
		if (at >= vq->size || taken[at])
			return false;
		taken[at] = true;
		vq->links[at].next = region->desc[at].next;
		vq->links[head].last = at;
		at = region->desc[at].next;
	}
	vq->links[head].num = num;
	*slots += num;
	inflight_again(vq, head, region->desc[head].counter);
	return true;
}

/* Everything that is not @taken, in one list. */
static void make_free_list(struct virtqueue *vq, struct inflight *region, const bool *taken)
{
	uint16_t next = vq->size;

	for (uint16_t i = vq->size; i-- > 0;) {
		if (taken[i])
			continue;
		region->desc[i].inflight = 0;
		region->desc[i].next = vq->links[i].next = next;
		next = i;
	}
	vq->free_head = next;
	store_in_order();
	region->free_head = next;
	region->old_free_head = next;
}

int packed_inflight_recover(struct virtqueue *vq,
			    bool (*shown)(const struct virtqueue *vq, uint16_t at, bool wrap),
			    unsigned *slots)
{
	struct inflight *region = vq->setup.inflight;
	bool taken[VIRTQUEUE_SIZE] = { false };
	union positions at = { 0 };
	int recorded = inflight_recorded(vq);

	*slots = 0;
	if (recorded < 0)
		return recorded;
	if (!recorded) {
		region->features = 0;
		region->desc_num = vq->size;
		at.used_idx = vq->next_used;
		at.used_wrap_counter = vq->used_wrap;
		store_positions(region, at);
		make_free_list(vq, region, taken);
		commit(region);
		region->version = INFLIGHT_VERSION;
		return 0;
	}
	at = load_positions(region);
	if (at.used_idx >= vq->size || at.old_used_idx >= vq->size)
		return virtqueue_break(vq, "its inflight region is damaged: used index %u of %u",
				       at.used_idx, vq->size);
	if (at.used_idx != at.old_used_idx || at.used_wrap_counter != at.old_used_wrap_counter)
		finish_batch(vq, region, shown(vq, at.old_used_idx, at.old_used_wrap_counter & 1));
	/* A pop that was not committed. */
	region->free_head = region->old_free_head;
	if (region->old_free_head < vq->size)
		region->desc[region->old_free_head].inflight = 0;
	for (uint16_t i = 0; i < vq->size; i++)
		if (region->desc[i].inflight == 1 && !adopt(vq, region, i, taken, slots))
			return virtqueue_break(vq, "its inflight region is damaged at entry %u", i);
	inflight_again_sort(vq);
	at = load_positions(region);
	vq->next_used = at.used_idx;
	vq->used_wrap = at.used_wrap_counter & 1;
	vq->slots_out = *slots;
	make_free_list(vq, region, taken);
	return 1;
}

uint16_t packed_inflight_slots(const struct virtqueue *vq, uint16_t record)
{
	return vq->links[record].num;
}

uint16_t packed_inflight_read(const struct virtqueue *vq, uint16_t at, struct vring_packed_desc *d)
{
	const struct inflight *region = vq->setup.inflight;
	const volatile struct inflight_desc *from = &region->desc[at];

	*d = (struct vring_packed_desc){ from->addr, from->len, from->id, from->flags };
	return vq->links[at].next;
}

/* --- pop ---------------------------------------------------------------------------- */

void packed_inflight_take(struct virtqueue *vq, struct chain *chain,
			  const struct vring_packed_desc *d)
{
	struct inflight *region = vq->setup.inflight;
	uint16_t at = vq->free_head;
	struct inflight_desc *e = &region->desc[at];

	if (!chain->slots)
		chain->record = at;
	e->addr = d->addr;
	e->len = d->len;
	e->flags = d->flags;
	e->id = d->id;
	vq->links[chain->record].last = at;
	vq->free_head = vq->links[at].next;
}

void packed_inflight_taken(struct virtqueue *vq, struct chain *chain)
{
	struct inflight *region = vq->setup.inflight;
	struct inflight_desc *head = &region->desc[chain->record];

	vq->links[chain->record].num = chain->slots;
	head->last = vq->links[chain->record].last;
	head->num = chain->slots;
	head->counter = vq->counter++;
	store_in_order();
	head->inflight = 1;
	store_in_order();
	region->free_head = vq->free_head;
	region->old_free_head = vq->free_head;
}

/* --- push --------------------------------------------------------------------------- */

void packed_inflight_publish(struct virtqueue *vq)
{
	struct inflight *region = vq->setup.inflight;
	union positions at;

	for (unsigned i = 0; i < vq->pending; i++) {
		uint16_t head = vq->batch[i].record, last = vq->links[head].last;

		vq->links[last].next = vq->free_head;
		region->desc[last].next = vq->free_head;
		vq->free_head = head;
	}
	region->free_head = vq->free_head;
	at = load_positions(region);
	at.used_idx = vq->next_used;
	at.used_wrap_counter = vq->used_wrap;
	store_positions(region, at);
}

void packed_inflight_published(struct virtqueue *vq)
{
	struct inflight *region = vq->setup.inflight;

	store_in_order();
	for (unsigned i = 0; i < vq->pending; i++)
		region->desc[vq->batch[i].record].inflight = 0;
	store_in_order();
	commit(region);
}
