/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_io.c - an overlay's requests
 *
 * Reads take no lock: what the map says when they come stays true, see overlay_map.h. A request
 * that meets blocks in different places is cut, a window of parts at a time.
 *
 * Writes to blocks that are DATA go straight to the store. Others change the map, once their data
 * are there, and hold a lock of overlay.ranges until then: a shared one if they bring whole blocks;
 * an exclusive one if they cover only a part of a block that is not DATA (an edge), for that is
 * completed from the base and written whole, and nobody may write the rest of it meanwhile.
 *
 * Zeroes: in the store where the block is DATA, a bit of the map where it is the base's. A discard
 * likewise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layer/overlay_private.h"
#include "util/log.h"

/* --- common to all
 * -------------------------------------------------------------------------------- */

static uint64_t block_size(const struct overlay *o)
{
	return 1ull << o->shift;
}

/* Straight to the store, where everything is behind the map. */
static void to_store(struct overlay *o, struct io *io)
{
	io->offset += o->header.data_offset;
	io_send(overlay_store(o), io);
}

static void back(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void part_back(struct layer *layer, struct io *part)
{
	(void)layer;
	io_part_end(part, part->status);
}

/* A change is done. If it has to be durable now, so has the map; and the data, if they are not
 * @durable. */
static void changed(struct overlay *o, struct io *io, bool durable)
{
	uint64_t first, count = overlay_blocks(o, io->offset, io->length, &first);

	if (io->flags & IO_FUA && o->undo == OVERLAY_NEVER &&
	    (!durable || overlay_map_is_dirty(&o->map, first, count) ||
	     atomic_load(&o->commit.busy)))
		overlay_commit(o, io);
	else
		io_finish(io, 0);
}

static void changed_in_place(struct layer *layer, struct io *io)
{
	if (io->status)
		io_finish(io, io->status);
	else
		changed((struct overlay *)layer, io, true);
}

static void failed(struct overlay *o, struct io *io, int status)
{
	if (status == -ENOSPC && !atomic_exchange(&o->warned, true))
		log_warn(
			"disk %s: overlay: its store is full; a write at byte %llu failed, and so will "
			"others to places that were not written before",
			o->layer.disk, (unsigned long long)io->offset);
	io_finish(io, status);
}

/* --- reads
 * ------------------------------------------------------------------------------------------ */

/* Bytes of @io from @from on that are in one place; @state where. */
static uint64_t run_at(const struct overlay *o, const struct io *io, uint64_t from,
		       enum overlay_state *state)
{
	uint64_t at = io->offset + from, left = io->length - from, first;
	uint64_t count = overlay_blocks(o, at, left, &first);
	uint64_t bytes = (first + overlay_map_run(&o->map, first, count, state)) << o->shift;
	uint64_t end = atomic_load_explicit(&o->end, memory_order_relaxed);

	bytes = bytes - at < left ? bytes - at : left;
	if (*state != OVERLAY_BASE || at + bytes <= end)
		return bytes;
	if (at < end)
		return end - at;
	*state = OVERLAY_ZERO;
	return bytes;
}

static void read_done(struct overlay *o, struct io *io)
{
	if (o->copy_on_read && !o->layer.read_only)
		overlay_fill(o, io);
	io_finish(io, 0);
}

static void read_from_base(struct layer *layer, struct io *io)
{
	if (io->status)
		io_finish(io, io->status);
	else
		read_done((struct overlay *)layer, io);
}

static void window_read(struct layer *layer, struct io *io);

static void read_window(struct overlay *o, struct io *io, uint64_t from)
{
	struct io_frame *frame = io_parts_begin(&o->layer, io, window_read);
	enum overlay_state state;
	unsigned parts = 0;

	while (parts < OVERLAY_FAN_OUT && from < io->length) {
		uint64_t length = run_at(o, io, from, &state);

		if (state == OVERLAY_ZERO) {
			io_data_zero(io_data_slice(io->data, from), length);
		} else {
			bool stored = state == OVERLAY_DATA;

			io_send_part(io, stored ? overlay_store(o) : o->layer.below, from, length,
				     io->offset + from + (stored ? o->header.data_offset : 0));
			parts++;
		}
		from += length;
	}
	frame->note[0] = from;
	io_parts_end(io);
}

static void window_read(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	uint64_t from = io_frame(io)->note[0];

	if (io->status)
		io_finish(io, io->status);
	else if (from < io->length)
		read_window(o, io, from);
	else
		read_done(o, io);
}

static void submit_read(struct overlay *o, struct io *io)
{
	enum overlay_state state;

	if (run_at(o, io, 0, &state) < io->length) {
		read_window(o, io, 0);
	} else if (state == OVERLAY_DATA) {
		io_push(&o->layer, io, back);
		to_store(o, io);
	} else if (state == OVERLAY_ZERO) {
		io_data_zero(io->data, io->length);
		io_finish(io, 0);
	} else if (o->copy_on_read) {
		io_send_then(&o->layer, o->layer.below, io, read_from_base);
	} else {
		io_send(o->layer.below, io);
	}
}

/* --- edges: blocks of which a request covers a part, and that are not in the store
 * ------------------- */

struct edges {
	unsigned count;
	struct edge {
		uint64_t at; /* of the block in the disk */
		struct iovec vec;
	} edge[2];
};

static bool is_edge(const struct overlay *o, const struct io *io, uint64_t at)
{
	enum overlay_state state = overlay_map_get(&o->map, at >> o->shift);

	/* What is zeroes anyway needs no zeroing. */
	return state == OVERLAY_BASE ? io->op == IO_WRITE || at < atomic_load(&o->end)
				     : state == OVERLAY_ZERO && io->op == IO_WRITE;
}

/* Where they are: 0 to 2. */
static unsigned find_edges(const struct overlay *o, const struct io *io, uint64_t at[2])
{
	uint64_t mask = block_size(o) - 1, end = io->offset + io->length;
	uint64_t head = io->offset & ~mask, tail = end & ~mask;
	unsigned n = 0;

	if (io->op == IO_DISCARD)
		return 0;
	if (io->offset & mask && is_edge(o, io, head))
		at[n++] = head;
	if (end & mask && (tail != head || !(io->offset & mask)) && is_edge(o, io, tail))
		at[n++] = tail;
	return n;
}

static void unlock(struct overlay *o, const struct io *io, bool exclusive)
{
	ranges_unlock(o->ranges, io->offset, io->length, exclusive);
}

static void edges_failed(struct overlay *o, struct io *io, struct edges *e, int status)
{
	free(e);
	unlock(o, io, true);
	failed(o, io, status);
}

static void send_edge(struct overlay *o, struct io *io, enum io_op op, struct layer *to,
		      struct iovec *vec, uint64_t length, uint64_t offset)
{
	struct io *part = io_part(io, 0, length, offset);

	part->op = (uint8_t)op;
	part->flags = 0;
	part->data = (struct io_data){ .vec = vec, .count = 1 };
	io_send_then(&o->layer, to, part, part_back);
}

static void zero_window(struct overlay *o, struct io *io, uint64_t from, bool exclusive);

static void edges_written(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	struct edges *e = (void *)(uintptr_t)io_frame(io)->note[0];
	uint64_t first, count = overlay_blocks(o, io->offset, io->length, &first);

	if (io->status) {
		edges_failed(o, io, e, io->status);
		return;
	}
	if (io->op == IO_WRITE)
		overlay_map_set_data(&o->map, first, count);
	else
		for (unsigned i = 0; i < e->count; i++)
			overlay_map_set_data(&o->map, e->edge[i].at >> o->shift, 1);
	free(e);
	if (io->op == IO_WRITE) {
		unlock(o, io, true);
		changed(o, io, false);
	} else {
		zero_window(o, io, 0, true);
	}
}

/* The blocks at the edges are complete: they go to the store, and a write's whole blocks with them.
 */
static void write_edges(struct overlay *o, struct io *io, struct edges *e)
{
	uint64_t from = io->offset, to = io->offset + io->length;

	io_parts_begin(&o->layer, io, edges_written)->note[0] = (uintptr_t)e;
	for (unsigned i = 0; i < e->count; i++) {
		struct edge *edge = &e->edge[i];

		send_edge(o, io, IO_WRITE, overlay_store(o), &edge->vec, block_size(o),
			  o->header.data_offset + edge->at);
		if (edge->at <= from)
			from = edge->at + block_size(o);
		else
			to = edge->at;
	}
	if (io->op == IO_WRITE && from < to)
		io_send_part(io, overlay_store(o), from - io->offset, to - from,
			     o->header.data_offset + from);
	io_parts_end(io);
}

/* What the request says of the blocks at its edges, over what the base has there. */
static void edges_read(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	struct edges *e = (void *)(uintptr_t)io_frame(io)->note[0];

	if (io->status) {
		edges_failed(o, io, e, io->status);
		return;
	}
	for (unsigned i = 0; i < e->count; i++) {
		uint64_t at = e->edge[i].at, end = io->offset + io->length;
		uint64_t from = at > io->offset ? at : io->offset;
		uint64_t to = at + block_size(o) < end ? at + block_size(o) : end;
		char *bytes = (char *)e->edge[i].vec.iov_base + (from - at);

		if (io->op == IO_WRITE)
			io_data_copy_out(io_data_slice(io->data, from - io->offset), bytes,
					 to - from);
		else
			memset(bytes, 0, to - from);
	}
	write_edges(o, io, e);
}

static void read_edges(struct overlay *o, struct io *io, struct edges *e)
{
	uint64_t end = atomic_load(&o->end);

	io_parts_begin(&o->layer, io, edges_read)->note[0] = (uintptr_t)e;
	for (unsigned i = 0; i < e->count; i++) {
		struct edge *edge = &e->edge[i];
		uint64_t length = end > edge->at ? end - edge->at : 0;

		if (length > block_size(o))
			length = block_size(o);
		memset((char *)edge->vec.iov_base + length, 0, block_size(o) - length);
		if (length && overlay_map_get(&o->map, edge->at >> o->shift) == OVERLAY_BASE)
			send_edge(o, io, IO_READ, o->layer.below, &edge->vec, length, edge->at);
		else
			memset(edge->vec.iov_base, 0, length);
	}
	io_parts_end(io);
}

static struct edges *make_edges(const struct overlay *o, unsigned count, const uint64_t *at)
{
	size_t room = (sizeof(struct edges) + 4095) / 4096 * 4096;
	struct edges *e = aligned_alloc(4096, room + (count * block_size(o) + 4095) / 4096 * 4096);

	if (!e)
		return NULL;
	e->count = count;
	for (unsigned i = 0; i < count; i++)
		e->edge[i] =
			(struct edge){ at[i],
				       { (char *)e + room + i * block_size(o), block_size(o) } };
	return e;
}

/* --- writes
 * -------------------------------------------------------------------------------------------- */

static void fresh_written(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	uint64_t first, count = overlay_blocks(o, io->offset, io->length, &first);

	io->flags = (uint8_t)io_frame(io)->note[0];
	if (!io->status)
		overlay_map_set_data(&o->map, first, count);
	unlock(o, io, io_frame(io)->note[1]);
	if (io->status)
		failed(o, io, io->status);
	else
		changed(o, io, false);
}

static void write_fresh(struct overlay *o, struct io *io, bool exclusive)
{
	struct io_frame *frame = io_push(&o->layer, io, fresh_written);

	frame->note[0] = io->flags;
	frame->note[1] = exclusive;
	io->flags &= (uint8_t)~IO_FUA; /* the commit that follows makes it durable */
	to_store(o, io);
}

static void has_shared(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	if (io->op == IO_WRITE)
		write_fresh(o, io, false);
	else
		zero_window(o, io, 0, false);
}

static void has_exclusive(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	struct edges *e;
	uint64_t at[2];
	unsigned count = find_edges(o, io, at);

	/* Somebody may have been there before the lock was had. */
	if (!count && io->op == IO_WRITE) {
		write_fresh(o, io, true);
	} else if (!count) {
		zero_window(o, io, 0, true);
	} else {
		e = make_edges(o, count, at);
		if (e)
			read_edges(o, io, e);
		else
			edges_failed(o, io, NULL, -ENOMEM);
	}
}

/* --- zeroes, discards
 * ------------------------------------------------------------------------------------ */

static void window_zeroed(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;
	uint64_t from = io_frame(io)->note[0];
	bool exclusive = io_frame(io)->note[1];

	if (!io->status && from < io->length) {
		zero_window(o, io, from, exclusive);
		return;
	}
	unlock(o, io, exclusive);
	if (io->status)
		failed(o, io, io->status);
	else
		changed(o, io, false);
}

/* The whole blocks in @length bytes of @io from @from on, which are not DATA. */
static void zero_blocks(struct overlay *o, const struct io *io, uint64_t from, uint64_t length)
{
	uint64_t first = (io->offset + from + block_size(o) - 1) >> o->shift;
	uint64_t last = (io->offset + from + length) >> o->shift;

	if (first < last)
		overlay_map_set_zero(&o->map, first, last - first);
}

static void zero_window(struct overlay *o, struct io *io, uint64_t from, bool exclusive)
{
	struct io_frame *frame = io_parts_begin(&o->layer, io, window_zeroed);
	enum overlay_state state;
	unsigned parts = 0;

	while (parts < OVERLAY_FAN_OUT && from < io->length) {
		uint64_t first,
			count = overlay_blocks(o, io->offset + from, io->length - from, &first);
		uint64_t run = overlay_map_run(&o->map, first, count, &state);
		uint64_t length = ((first + run) << o->shift) - (io->offset + from);

		if (length > io->length - from)
			length = io->length - from;
		if (state == OVERLAY_DATA) {
			io_send_part(io, overlay_store(o), from, length,
				     o->header.data_offset + io->offset + from);
			parts++;
		} else {
			zero_blocks(o, io, from, length);
		}
		from += length;
	}
	frame->note[0] = from;
	frame->note[1] = exclusive;
	io_parts_end(io);
}

/* --- a request
 * ------------------------------------------------------------------------------------------- */

static void submit_change(struct overlay *o, struct io *io)
{
	uint64_t first, count = overlay_blocks(o, io->offset, io->length, &first), at[2];
	bool exclusive;

	if (overlay_map_is_data(&o->map, first, count)) {
		io_push(&o->layer, io, io->flags & IO_FUA ? changed_in_place : back);
		to_store(o, io);
		return;
	}
	exclusive = find_edges(o, io, at) != 0;
	if (ranges_lock(o->ranges, io, io->offset, io->length, exclusive, &o->layer,
			exclusive ? has_exclusive : has_shared))
		(exclusive ? has_exclusive : has_shared)(&o->layer, io);
}

static void submit_flush(struct overlay *o, struct io *io)
{
	if (o->undo == OVERLAY_AT_EXIT)
		io_finish(io, 0);
	else if (atomic_load(&o->map.unsettled) || atomic_load(&o->commit.busy))
		overlay_commit(o, io);
	else
		io_send(overlay_store(o), io);
}

void overlay_submit(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	switch (io->op) {
	case IO_READ:
		submit_read(o, io);
		break;
	case IO_FLUSH:
		submit_flush(o, io);
		break;
	default:
		submit_change(o, io);
		break;
	}
}
