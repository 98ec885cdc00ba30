/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring_split.c - the driver's half of a split virtqueue (virtio 1.2 section 2.7)
 *
 * A slot owns fixed descriptors: `chain` of them, linked, or one that points to its indirect table.
 * They are written when the request is formatted; pushing it again is one store into the available
 * ring.
 */
#include "driver.h"

#include <errno.h>
#include <string.h>

#define LINE            64
#define ROUND_UP(value) (((value) + LINE - 1) / LINE * LINE)

static size_t avail_offset(uint16_t size)
{
	return ROUND_UP(size * sizeof(struct vring_desc));
}

static size_t used_offset(uint16_t size)
{
	return ROUND_UP(avail_offset(size) + sizeof(struct vring_avail) +
			(size + 1u) * sizeof(uint16_t));
}

size_t split_ring_bytes(uint16_t size)
{
	return used_offset(size) + sizeof(struct vring_used) +
	       size * sizeof(struct vring_used_elem) + sizeof(uint16_t);
}

void split_place(struct virtq *queue, uint8_t *host)
{
	queue->desc = (struct vring_desc *)host;
	queue->avail = (struct vring_avail *)(host + avail_offset(queue->size));
	queue->used = (struct vring_used *)(host + used_offset(queue->size));
}

void split_restart(struct virtq *queue)
{
	memset(queue->desc, 0, split_ring_bytes(queue->size));
	split_interrupts(queue, false);
}

/* Behind the available ring: the used index at which the driver wants an interrupt. */
static uint16_t *used_event(const struct virtq *queue)
{
	return (uint16_t *)&queue->avail->ring[queue->size];
}

/* Behind the used ring: the available index at which the device wants a kick. */
static uint16_t *avail_event(const struct virtq *queue)
{
	return (uint16_t *)&queue->used->ring[queue->size];
}

void split_format(struct virtq *queue, uint16_t index)
{
	struct slot *slot = &queue->slot[index];
	unsigned first = queue->indirect ? 0 : index * queue->chain;
	struct vring_desc *table = queue->indirect ? slot->table : queue->desc;

	for (unsigned i = 0; i < slot->pieces; i++) {
		const struct piece *piece = &slot->piece[i];
		bool last = i + 1 == slot->pieces;
		table[first + i] = (struct vring_desc){
			.addr = piece->address,
			.len = piece->length,
			.flags = piece->flags | (last ? 0 : VRING_DESC_F_NEXT),
			.next = (uint16_t)(last ? 0 : first + i + 1),
		};
	}
	if (queue->indirect)
		queue->desc[index] = (struct vring_desc){
			.addr = slot->table_guest,
			.len = (uint32_t)(slot->pieces * sizeof(struct vring_desc)),
			.flags = VRING_DESC_F_INDIRECT,
		};
}

void split_push(struct virtq *queue, uint16_t index)
{
	uint16_t head = queue->indirect ? index : (uint16_t)(index * queue->chain);

	queue->avail->ring[queue->avail_next++ & (queue->size - 1)] = head;
}

bool split_publish(struct virtq *queue)
{
	uint16_t old = queue->published, new = queue->avail_next;

	__atomic_store_n(&queue->avail->idx, new, __ATOMIC_RELEASE);
	queue->published = new;
	full_barrier();
	if (queue->event_idx)
		return vring_need_event(__atomic_load_n(avail_event(queue), __ATOMIC_RELAXED), new,
					old);
	return !(__atomic_load_n(&queue->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
}

bool split_pending(const struct virtq *queue)
{
	return __atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) != queue->last_used;
}

int split_reap(struct virtq *queue, uint16_t *slots, unsigned max)
{
	uint16_t ready = __atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) - queue->last_used;
	unsigned count = ready < max ? ready : max;

	for (unsigned i = 0; i < count; i++) {
		const struct vring_used_elem *element =
			&queue->used->ring[queue->last_used++ & (queue->size - 1)];
		unsigned slot = queue->indirect ? element->id : element->id / queue->chain;
		if (!virtq_finish(queue, slot, element->len))
			return -EPROTO;
		slots[i] = (uint16_t)slot;
	}
	return (int)count;
}

void split_interrupts(struct virtq *queue, bool on)
{
	uint16_t flags = on ? 0 : VRING_AVAIL_F_NO_INTERRUPT;

	if (!queue->event_idx) {
		__atomic_store_n(&queue->avail->flags, flags, __ATOMIC_RELAXED);
		return;
	}
	/* Off: an index just passed, which the used index meets again only after 65,535 more. */
	__atomic_store_n(used_event(queue), queue->last_used - (on ? 0 : 1), __ATOMIC_RELAXED);
}

void split_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count && i < queue->size; i++)
		queue->desc[i] = (struct vring_desc){
			.addr = pieces[i].address,
			.len = pieces[i].length,
			.flags = pieces[i].flags,
			.next = pieces[i].next ? pieces[i].next : (uint16_t)(i + 1),
		};
	queue->avail->ring[queue->avail_next++ & (queue->size - 1)] = 0;
	split_publish(queue);
}
