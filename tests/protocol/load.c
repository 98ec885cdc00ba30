/* SPDX-License-Identifier: BSD-3-Clause */
/* load.c - a random load on one queue, checked against a model of the disk; see load.h */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, REAP = 64, TRIES = 32 };

int load_open(struct load *load)
{
	load->model = calloc(load->sectors, SECTOR);
	load->either = calloc(load->sectors, 1);
	return load->model && load->either ? 0 : -ENOMEM;
}

void load_close(struct load *load)
{
	free(load->model);
	free(load->either);
	load->model = load->either = NULL;
}

uint64_t load_random(struct load *load, uint64_t limit)
{
	load->seed ^= load->seed << 13;
	load->seed ^= load->seed >> 7;
	load->seed ^= load->seed << 17;
	return ((load->seed >> 32) * limit) >> 32;
}

static int wrong(struct load *load, int error, const char *format, uint64_t a, uint64_t b)
{
	if (!load->error[0])
		snprintf(load->error, sizeof(load->error), format, (unsigned long long)a,
			 (unsigned long long)b);
	return error;
}

/* The sectors a slot's request covers. */
static void covered(const struct slot *slot, uint64_t *sector, uint64_t *count)
{
	*sector = slot->sector;
	*count = 0;
	if (slot->type == VIRTIO_BLK_T_IN || slot->type == VIRTIO_BLK_T_OUT) {
		*count = slot->length / SECTOR;
	} else if (slot->type == VIRTIO_BLK_T_DISCARD || slot->type == VIRTIO_BLK_T_WRITE_ZEROES) {
		const struct virtio_blk_discard_write_zeroes *range = (const void *)slot->data;
		*sector = range->sector;
		*count = range->num_sectors;
	}
}

static bool in_use(const struct load *load, uint64_t sector, uint64_t count)
{
	uint64_t busy_sector, busy_count;

	for (uint16_t i = 0; i < load->queue->slots; i++) {
		if (!load->queue->slot[i].busy)
			continue;
		covered(&load->queue->slot[i], &busy_sector, &busy_count);
		if (sector < busy_sector + busy_count && busy_sector < sector + count)
			return true;
	}
	return false;
}

static uint32_t choose_type(struct load *load)
{
	uint64_t features = load->queue->driver->features;
	uint64_t dice = load_random(load, 100);

	if (load->plain || dice < 80)
		return dice % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	if (dice < 86 && features & FEATURE(VIRTIO_BLK_F_FLUSH))
		return VIRTIO_BLK_T_FLUSH;
	if (dice < 92 && features & FEATURE(VIRTIO_BLK_F_DISCARD))
		return VIRTIO_BLK_T_DISCARD;
	if (features & FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))
		return VIRTIO_BLK_T_WRITE_ZEROES;
	return VIRTIO_BLK_T_GET_ID;
}

static void randomize(struct load *load, uint8_t *bytes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i += 4) {
		uint32_t value = (uint32_t)load_random(load, 1ull << 32);
		memcpy(bytes + i, &value, 4);
	}
}

static void describe(struct load *load, uint16_t index, uint32_t type, uint64_t sector,
		     uint32_t bytes)
{
	struct slot *slot = &load->queue->slot[index];
	unsigned segments = 1 + (unsigned)load_random(load, load->max_segments);

	if (type == VIRTIO_BLK_T_OUT) {
		randomize(load, slot->data, bytes);
	} else if (type == VIRTIO_BLK_T_IN) {
		memset(slot->data, 0xa5, bytes);
	} else if (type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES) {
		uint32_t flags = type == VIRTIO_BLK_T_WRITE_ZEROES && load_random(load, 2)
					 ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
					 : 0;
		struct virtio_blk_discard_write_zeroes range = { .sector = sector,
								 .num_sectors = bytes / SECTOR,
								 .flags = flags };
		memcpy(slot->data, &range, sizeof(range));
		bytes = sizeof(range);
		sector = 0;
		segments = 1;
	} else {
		bytes = type == VIRTIO_BLK_T_GET_ID ? VIRTIO_BLK_ID_BYTES : 0;
		sector = 0;
		segments = 1;
	}
	virtq_format(load->queue, index, type, sector, bytes, segments, load->odd);
}

unsigned load_issue(struct load *load, unsigned max)
{
	unsigned count = 0;

	while (count < max && load->queue->free_count) {
		uint64_t blocks = load->sectors * SECTOR / load->block;
		uint64_t largest = load->max_bytes / load->block;
		uint64_t length = 0, at = 0;
		unsigned tries = 0;
		for (; tries < TRIES; tries++) {
			length = 1 + load_random(load, largest < blocks ? largest : blocks);
			at = load_random(load, blocks - length + 1);
			if (!in_use(load, load->first + at * load->block / SECTOR,
				    length * load->block / SECTOR))
				break;
		}
		if (tries == TRIES)
			break;
		uint16_t slot = (uint16_t)virtq_take(load->queue);
		describe(load, slot, choose_type(load), load->first + at * load->block / SECTOR,
			 (uint32_t)(length * load->block));
		virtq_push(load->queue, slot);
		count++;
	}
	if (count)
		virtq_publish(load->queue);
	load->issued += count;
	return count;
}

static bool all_zero(const uint8_t *bytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, SECTOR - 1);
}

static int check_read(struct load *load, uint64_t sector, const uint8_t *bytes, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = sector - load->first + i;
		uint8_t *model = load->model + at * SECTOR;
		const uint8_t *got = bytes + i * SECTOR;
		if (load->either[at] && all_zero(got))
			memset(model, 0, SECTOR);
		load->either[at] = 0;
		if (memcmp(model, got, SECTOR))
			return wrong(load, -EBADMSG, "sector %llu reads wrong (request %llu)",
				     sector + i, load->completed);
	}
	return 0;
}

static int finish(struct load *load, const struct slot *slot)
{
	uint64_t sector, count;

	load->completed++;
	if (*slot->status != VIRTIO_BLK_S_OK)
		return wrong(load, -EIO, "request type %llu: status %llu", slot->type,
			     *slot->status);
	covered(slot, &sector, &count);
	if (slot->type == VIRTIO_BLK_T_IN) {
		if (slot->used != slot->length + 1)
			return wrong(load, -EBADMSG, "read of %llu bytes says used %llu",
				     slot->length, slot->used);
		return check_read(load, sector, slot->data, count);
	}
	uint8_t *model = load->model + (sector - load->first) * SECTOR;
	if (slot->type == VIRTIO_BLK_T_OUT)
		memcpy(model, slot->data, slot->length);
	else if (slot->type == VIRTIO_BLK_T_WRITE_ZEROES)
		memset(model, 0, count * SECTOR);
	if (count)
		memset(load->either + (sector - load->first), slot->type == VIRTIO_BLK_T_DISCARD,
		       count);
	return 0;
}

int load_collect(struct load *load, int timeout_ms)
{
	struct virtq *queue = load->queue;
	uint16_t done[REAP];
	int total = 0, ret = virtq_wait(queue, timeout_ms);

	if (ret)
		return wrong(load, ret,
			     ret == -ENOMSG
				     ? "completions, but no interrupt, after %llu of %llu requests"
				     : "no completion after %llu of %llu requests",
			     load->completed, load->issued);
	while ((ret = virtq_reap(queue, done, REAP)) > 0) {
		for (int i = 0; i < ret; i++) {
			int error = finish(load, &queue->slot[done[i]]);
			if (error)
				return error;
			virtq_release(queue, done[i]);
		}
		total += ret;
	}
	if (ret < 0)
		snprintf(load->error, sizeof(load->error), "%s", queue->driver->error);
	return ret < 0 ? ret : total;
}

int load_drain(struct load *load)
{
	while (load->issued != load->completed) {
		int ret = load_collect(load, DRIVER_WAIT_MS);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int load_run(struct load *loads, unsigned count, uint64_t requests)
{
	uint64_t left = requests;

	while (left) {
		for (unsigned i = 0; i < count; i++)
			load_issue(&loads[i], left < REAP ? (unsigned)left : REAP);
		left -= left < REAP ? left : REAP;
		for (unsigned i = 0; i < count; i++) {
			/* Leave some in flight, so that batches overlap. */
			while (loads[i].issued - loads[i].completed > loads[i].queue->slots / 2u) {
				int ret = load_collect(&loads[i], DRIVER_WAIT_MS);
				if (ret < 0)
					return ret;
			}
		}
	}
	for (unsigned i = 0; i < count; i++) {
		int ret = load_drain(&loads[i]);
		if (ret)
			return ret;
	}
	return 0;
}

int load_verify(struct load *load)
{
	uint32_t step = load->queue->driver->options.slot_bytes / load->block * load->block;
	uint8_t *bytes = malloc(step);
	int ret = bytes ? 0 : -ENOMEM;

	for (uint64_t at = 0; !ret && at < load->sectors * SECTOR; at += step) {
		uint64_t left = load->sectors * SECTOR - at;
		uint32_t count = left < step ? (uint32_t)left : step;
		ret = blk_read(load->queue, load->first + at / SECTOR, bytes, count);
		if (ret > 0)
			ret = wrong(load, -EIO, "verify: sector %llu: status %llu", at / SECTOR,
				    (uint64_t)ret);
		if (!ret)
			ret = check_read(load, load->first + at / SECTOR, bytes, count / SECTOR);
	}
	free(bytes);
	return ret;
}
