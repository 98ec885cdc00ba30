/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtq.c - what split and packed rings have in common: slots, request layout, notification,
 * waiting
 *
 * A polling client calls push, publish and reap only, and no system call happens unless the device
 * asks for a kick. virtq_wait() is the sleeping client: ask for an interrupt, look once more,
 * sleep.
 */
#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int virtq_take(struct virtq *queue)
{
	return queue->free_count ? queue->free[--queue->free_count] : -EAGAIN;
}

void virtq_release(struct virtq *queue, uint16_t slot)
{
	queue->free[queue->free_count++] = slot;
}

static void add_piece(struct slot *slot, uint64_t address, uint32_t length, uint16_t flags)
{
	slot->piece[slot->pieces++] =
		(struct piece){ .address = address, .length = length, .flags = flags };
}

/* Whether the device writes this request's data. */
static bool data_comes_in(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

void virtq_format(struct virtq *queue, uint16_t index, uint32_t type, uint64_t sector,
		  uint32_t length, unsigned segments, bool odd)
{
	struct slot *slot = &queue->slot[index];
	uint16_t flags = data_comes_in(type) ? VRING_DESC_F_WRITE : 0;
	uint32_t at = 0;

	*slot->header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	slot->length = length;
	slot->sector = sector;
	slot->type = type;
	slot->pieces = 0;
	add_piece(slot, slot->header_guest, sizeof(*slot->header), 0);
	for (unsigned left = segments; left && at < length; left--) {
		uint32_t size = (length - at) / left;
		if (odd && left > 1 && size > 1)
			size |= 1;
		else if (left > 1)
			size &= ~511u;
		if (left == 1)
			size = length - at;
		if (!size)
			continue;
		add_piece(slot, slot->data_guest + at, size, flags);
		at += size;
	}
	add_piece(slot, slot->status_guest, 1, VRING_DESC_F_WRITE);
	virtq_format_pieces(queue, index);
}

void virtq_format_pieces(struct virtq *queue, uint16_t slot)
{
	if (queue->packed)
		packed_format(queue, slot);
	else
		split_format(queue, slot);
}

void virtq_push(struct virtq *queue, uint16_t index)
{
	struct slot *slot = &queue->slot[index];

	slot->busy = true;
	*slot->status = 0xff;
	if (queue->packed)
		packed_push(queue, index);
	else
		split_push(queue, index);
}

void virtq_kick(struct virtq *queue)
{
	uint64_t one = 1;

	queue->kicks++;
	if (write(queue->kick, &one, sizeof(one)) < 0 && errno != EAGAIN)
		snprintf(queue->driver->error, sizeof(queue->driver->error), "kick failed");
}

void virtq_publish(struct virtq *queue)
{
	if (queue->packed ? packed_publish(queue) : split_publish(queue))
		virtq_kick(queue);
}

bool virtq_finish(struct virtq *queue, unsigned index, uint32_t used)
{
	struct driver *driver = queue->driver;

	if (index >= queue->slots) {
		snprintf(driver->error, sizeof(driver->error),
			 "queue %u: completion names request %u of %u", queue->index, index,
			 queue->slots);
		return false;
	}
	struct slot *slot = &queue->slot[index];
	if (!slot->busy) {
		snprintf(driver->error, sizeof(driver->error),
			 "queue %u: request %u completed, but it is not in flight", queue->index,
			 index);
		return false;
	}
	slot->busy = false;
	slot->used = used;
	return true;
}

int virtq_reap(struct virtq *queue, uint16_t *slots, unsigned max)
{
	return queue->packed ? packed_reap(queue, slots, max) : split_reap(queue, slots, max);
}

void virtq_interrupts(struct virtq *queue, bool on)
{
	if (queue->packed)
		packed_interrupts(queue, on);
	else
		split_interrupts(queue, on);
}

static bool pending(const struct virtq *queue)
{
	return queue->packed ? packed_pending(queue) : split_pending(queue);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int virtq_wait(struct virtq *queue, int timeout_ms)
{
	struct pollfd pollfd = { .fd = queue->call, .events = POLLIN };
	int64_t deadline = now_ms() + timeout_ms;
	uint64_t count;

	while (!pending(queue)) {
		virtq_interrupts(queue, true);
		full_barrier();
		if (pending(queue))
			break;
		int64_t left = deadline - now_ms();
		if (left <= 0 || poll(&pollfd, 1, (int)left) == 0)
			return pending(queue) ? -ENOMSG : -ETIMEDOUT;
		if (read(queue->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
			return -errno;
	}
	virtq_interrupts(queue, false);
	return 0;
}

void virtq_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count)
{
	if (queue->packed)
		packed_raw_chain(queue, pieces, count);
	else
		split_raw_chain(queue, pieces, count);
	virtq_kick(queue);
}
