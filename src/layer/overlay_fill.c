/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_fill.c - copy-on-read: keeps what was read from the base
 *
 * When a read is done, its bytes from the base are copied, and the guest has its answer. An errand
 * then takes the lock of their range exclusively, and if no block of it was written meanwhile,
 * writes the copy to the store and says so in the map. Zeroes are only marked. When no errand is to
 * be had the bytes are read again another time.
 */
#include <stdlib.h>
#include <string.h>

#include "layer/overlay_private.h"

#define LONGEST (1ull << 20) /* bytes of one errand */

struct fill {
	bool has; /* bytes that are not zeroes */
	bool written;
	struct iovec vec;
};

static struct overlay_queue *queue_of(const struct overlay *o, const struct io *io)
{
	return layer_queue_state(&o->layer, io->queue);
}

static struct fill *fill_of(const struct io_frame *frame)
{
	return (struct fill *)(uintptr_t)frame->note[0];
}

static void fill_done(struct layer *layer, struct io *errand)
{
	struct overlay *o = (struct overlay *)layer;
	struct fill *fill = fill_of(io_frame(errand));
	uint64_t first, count = overlay_blocks(o, errand->offset, errand->length, &first);

	if (!errand->status && fill->written)
		overlay_map_set_data(&o->map, first, count);
	ranges_unlock(o->ranges, errand->offset, errand->length, true);
	free(fill);
	queue_of(o, errand)->fills--;
	io_errand_end(errand);
}

/* It has the lock. */
static void fill_go(struct layer *layer, struct io *errand)
{
	struct overlay *o = (struct overlay *)layer;
	struct fill *fill = fill_of(&errand->frame[errand->depth - 1]);
	uint64_t first, count = overlay_blocks(o, errand->offset, errand->length, &first);
	enum overlay_state state;

	if (overlay_map_run(&o->map, first, count, &state) < count || state != OVERLAY_BASE) {
		io_finish(errand, 0);
		return;
	}
	if (!fill->has) {
		overlay_map_set_zero(&o->map, first, count);
		io_finish(errand, 0);
		return;
	}
	fill->written = true;
	errand->offset += o->header.data_offset;
	io_send(overlay_store(o), errand);
}

static bool all_zeroes(const char *bytes, uint64_t length)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static void start(struct overlay *o, const struct io *io, uint64_t offset, uint64_t length)
{
	struct overlay_queue *q = queue_of(o, io);
	struct io *errand = q->fills < OVERLAY_FILLS ? io_errand(io->queue) : NULL;
	struct fill *fill;

	if (!errand)
		return;
	fill = aligned_alloc(4096, 4096 + (length + 4095) / 4096 * 4096);
	if (!fill) {
		io_errand_end(errand);
		return;
	}
	q->fills++;
	*fill = (struct fill){ .vec = { (char *)fill + 4096, length } };
	io_data_copy_out(io_data_slice(io->data, offset - io->offset), fill->vec.iov_base, length);
	fill->has = !all_zeroes(fill->vec.iov_base, length);
	errand->op = IO_WRITE;
	errand->flags = 0;
	errand->offset = offset;
	errand->length = length;
	errand->data = (struct io_data){ .vec = &fill->vec, .count = 1 };
	io_push(&o->layer, errand, fill_done)->note[0] = (uintptr_t)fill;
	if (ranges_lock(o->ranges, errand, offset, length, true, &o->layer, fill_go))
		fill_go(&o->layer, errand);
}

void overlay_fill(struct overlay *o, const struct io *io)
{
	uint64_t block = 1ull << o->shift, end = io->offset + io->length;
	uint64_t base = atomic_load(&o->end), length;
	uint64_t at = (io->offset + block - 1) / block * block;
	enum overlay_state state;

	/* A block that is the base's now was so when it was read. */
	end = (end < base ? end : base) / block * block;
	for (; at < end; at += length) {
		length = end - at < LONGEST ? end - at : LONGEST;
		length = overlay_map_run(&o->map, at >> o->shift, length >> o->shift, &state)
			 << o->shift;
		if (state == OVERLAY_BASE)
			start(o, io, at, length);
	}
}
