/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blk.c - virtio-blk requests one at a time: format, push, wait, take the data
 *
 * The waiting is the sleeping client's, so these calls prove interrupts too.
 */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Waits for one slot; anything else that completes meanwhile is an error. */
static int wait_for(struct virtq *queue, uint16_t slot)
{
	uint16_t done;
	int ret = virtq_wait(queue, DRIVER_WAIT_MS);

	if (ret) {
		snprintf(queue->driver->error, sizeof(queue->driver->error), "queue %u: %s",
			 queue->index,
			 ret == -ENOMSG ? "completed without an interrupt" : "no completion");
		return ret;
	}
	ret = virtq_reap(queue, &done, 1);
	if (ret == 1 && done != slot)
		return -EPROTO;
	return ret < 0 ? ret : 0;
}

int blk_request(struct virtq *queue, uint32_t type, uint64_t sector, void *bytes, uint32_t count,
		bool to_device)
{
	int taken = virtq_take(queue);

	if (taken < 0)
		return taken;
	uint16_t index = (uint16_t)taken;
	struct slot *slot = &queue->slot[index];
	if (to_device && count)
		memcpy(slot->data, bytes, count);
	virtq_format(queue, index, type, sector, count, 1, false);
	virtq_push(queue, index);
	virtq_publish(queue);
	int ret = wait_for(queue, index);
	if (ret)
		return ret; /* the slot is lost with the ring */
	if (!to_device)
		memcpy(bytes, slot->data, count);
	ret = *slot->status;
	virtq_release(queue, index);
	return ret;
}

int blk_read(struct virtq *queue, uint64_t sector, void *bytes, uint32_t count)
{
	return blk_request(queue, VIRTIO_BLK_T_IN, sector, bytes, count, false);
}

int blk_write(struct virtq *queue, uint64_t sector, const void *bytes, uint32_t count)
{
	return blk_request(queue, VIRTIO_BLK_T_OUT, sector, (void *)bytes, count, true);
}

int blk_flush(struct virtq *queue)
{
	return blk_request(queue, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, true);
}

int blk_discard(struct virtq *queue, uint64_t sector, uint32_t sectors)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = sector, .num_sectors = sectors };

	return blk_request(queue, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range), true);
}

int blk_write_zeroes(struct virtq *queue, uint64_t sector, uint32_t sectors, bool unmap)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = sector,
		.num_sectors = sectors,
		.flags = unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0
	};

	return blk_request(queue, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range), true);
}

int blk_get_id(struct virtq *queue, char id[VIRTIO_BLK_ID_BYTES + 1])
{
	id[VIRTIO_BLK_ID_BYTES] = '\0';
	return blk_request(queue, VIRTIO_BLK_T_GET_ID, 0, id, VIRTIO_BLK_ID_BYTES, false);
}

int blk_drain(struct virtq *queue)
{
	uint16_t done;

	while (queue->free_count < queue->slots) {
		int ret = virtq_wait(queue, DRIVER_WAIT_MS);
		if (ret)
			return ret;
		ret = virtq_reap(queue, &done, 1);
		if (ret < 0)
			return ret;
		if (ret)
			virtq_release(queue, done);
	}
	return 0;
}
