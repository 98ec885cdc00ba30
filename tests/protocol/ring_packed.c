/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring_packed.c - the driver's half of a packed virtqueue (virtio 1.2 section 2.8)
 *
 * Descriptors are copied into the ring at every push, at the ring's position, the head's flags
 * last. The buffer id is the slot's number. A used descriptor stands at the position that follows
 * the previous one's chain, so the length of every chain is remembered in its slot.
 */
#include "driver.h"

#include <errno.h>
#include <string.h>

#define LINE            64
#define ROUND_UP(value) (((value) + LINE - 1) / LINE * LINE)

#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED  (1u << VRING_PACKED_DESC_F_USED)

size_t packed_ring_bytes(uint16_t size)
{
	return ROUND_UP(size * sizeof(struct vring_packed_desc)) + 2 * LINE;
}

void packed_place(struct virtq *queue, uint8_t *host)
{
	size_t ring = ROUND_UP(queue->size * sizeof(struct vring_packed_desc));

	queue->ring = (struct vring_packed_desc *)host;
	queue->driver_event = (struct vring_packed_desc_event *)(host + ring);
	queue->device_event = (struct vring_packed_desc_event *)(host + ring + LINE);
}

void packed_restart(struct virtq *queue)
{
	memset(queue->ring, 0, packed_ring_bytes(queue->size));
	packed_interrupts(queue, false);
}

void packed_format(struct virtq *queue, uint16_t index)
{
	struct slot *slot = &queue->slot[index];
	struct vring_packed_desc *table = slot->table;

	if (!queue->indirect)
		return; /* the pieces are copied when pushed */
	for (unsigned i = 0; i < slot->pieces; i++)
		table[i] = (struct vring_packed_desc){
			.addr = slot->piece[i].address,
			.len = slot->piece[i].length,
			.flags = slot->piece[i].flags,
		};
}

static uint16_t available_flags(const struct virtq *queue)
{
	return queue->avail_wrap ? F_AVAIL : F_USED;
}

static void advance(struct virtq *queue)
{
	queue->added++;
	queue->ring_free--;
	if (++queue->avail_next == queue->size) {
		queue->avail_next = 0;
		queue->avail_wrap = !queue->avail_wrap;
	}
}

void packed_push(struct virtq *queue, uint16_t index)
{
	struct slot *slot = &queue->slot[index];
	struct vring_packed_desc *head = &queue->ring[queue->avail_next];
	uint16_t head_flags = available_flags(queue);

	if (queue->indirect) {
		head->addr = slot->table_guest;
		head->len = (uint32_t)(slot->pieces * sizeof(struct vring_packed_desc));
		head->id = index;
		head_flags |= VRING_DESC_F_INDIRECT;
		advance(queue);
	} else {
		for (unsigned i = 0; i < slot->pieces; i++) {
			struct vring_packed_desc *entry = &queue->ring[queue->avail_next];
			uint16_t flags = available_flags(queue) | slot->piece[i].flags |
					 (i + 1 < slot->pieces ? VRING_DESC_F_NEXT : 0);
			entry->addr = slot->piece[i].address;
			entry->len = slot->piece[i].length;
			entry->id = index;
			if (entry == head)
				head_flags = flags;
			else
				entry->flags = flags;
			advance(queue);
		}
	}
	__atomic_store_n(&head->flags, head_flags, __ATOMIC_RELEASE);
}

bool packed_publish(struct virtq *queue)
{
	uint16_t new = queue->avail_next, old = (uint16_t)(new - queue->added);

	queue->added = 0;
	full_barrier();
	uint16_t flags = __atomic_load_n(&queue->device_event->flags, __ATOMIC_RELAXED);
	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	uint16_t off_wrap = __atomic_load_n(&queue->device_event->off_wrap, __ATOMIC_RELAXED);
	uint16_t event = off_wrap & 0x7fff;
	if ((off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != queue->avail_wrap)
		event = (uint16_t)(event - queue->size);
	return vring_need_event(event, new, old);
}

bool packed_pending(const struct virtq *queue)
{
	uint16_t flags = __atomic_load_n(&queue->ring[queue->last_used].flags, __ATOMIC_ACQUIRE);

	return !!(flags & F_AVAIL) == !!(flags & F_USED) && !!(flags & F_USED) == queue->used_wrap;
}

int packed_reap(struct virtq *queue, uint16_t *slots, unsigned max)
{
	unsigned count = 0;

	while (count < max && packed_pending(queue)) {
		const struct vring_packed_desc *entry = &queue->ring[queue->last_used];
		uint16_t index = entry->id;
		if (!virtq_finish(queue, index, entry->len))
			return -EPROTO;
		uint16_t length = queue->indirect ? 1 : queue->slot[index].pieces;
		queue->ring_free += length;
		queue->last_used += length;
		if (queue->last_used >= queue->size) {
			queue->last_used -= queue->size;
			queue->used_wrap = !queue->used_wrap;
		}
		slots[count++] = index;
	}
	return (int)count;
}

void packed_interrupts(struct virtq *queue, bool on)
{
	uint16_t off_wrap = queue->last_used |
			    (uint16_t)(queue->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
	uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (on)
		flags = queue->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
					 : VRING_PACKED_EVENT_FLAG_ENABLE;
	__atomic_store_n(&queue->driver_event->off_wrap, off_wrap, __ATOMIC_RELAXED);
	__atomic_store_n(&queue->driver_event->flags, flags, __ATOMIC_RELEASE);
}

void packed_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count)
{
	uint16_t first = queue->avail_next;
	uint16_t head_flags = 0;

	for (unsigned i = 0; i < count; i++) {
		struct vring_packed_desc *entry = &queue->ring[queue->avail_next];
		uint16_t flags = available_flags(queue) | pieces[i].flags;
		entry->addr = pieces[i].address;
		entry->len = pieces[i].length;
		entry->id = 0;
		if (i)
			entry->flags = flags;
		else
			head_flags = flags;
		advance(queue);
	}
	__atomic_store_n(&queue->ring[first].flags, head_flags, __ATOMIC_RELEASE);
	queue->added = 0;
}
