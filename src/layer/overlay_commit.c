/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_commit.c - makes the map durable: what a FLUSH is in an overlay
 *
 * A bit of the map may be on stable storage only after the data that it tells of. So a commit
 *
 *     copies the dirty pages, as they are now
 *     flushes the store          the data of all their bits is durable
 *     writes the copies          each to the slot that does not count
 *     flushes the store          or one write with FUA, when it is one
 *
 * and then the slots that were written count. If power is lost before that, the old ones do, and
 * blocks that were written since are as they were: no flush has been answered. What is written
 * later stays dirty for the next commit.
 *
 * One commit at a time. The first request that needs one leads it, on its own thread and queue.
 * Those that come meanwhile wait; when it is over, the first of them leads the next one, for all of
 * them. Where nothing is dirty a FLUSH is one of the store.
 */
#include <errno.h>
#include <string.h>

#include "layer/overlay_private.h"
#include "util/log.h"

/* --- pages: also for code that waits --------------------------------------------------------- */

void overlay_encode_pages(struct overlay *o, const uint64_t *pages, unsigned count, char *buffer)
{
	uint64_t words[OVERLAY_PAGE_WORDS];

	o->sequence++;
	for (unsigned i = 0; i < count; i++) {
		overlay_map_copy_out(&o->map, pages[i], words);
		overlay_page_encode(&o->header, pages[i], !o->pages[pages[i]].slot, o->sequence,
				    words, (unsigned char *)buffer + i * OVERLAY_PAGE);
	}
}

void overlay_settle_pages(struct overlay *o, const uint64_t *pages, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct overlay_page *page = &o->pages[pages[i]];

		page->slot = !page->slot;
		page->sequence = page->highest = o->sequence;
	}
}

void overlay_unsettle_pages(struct overlay *o, const uint64_t *pages, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		overlay_map_dirty(&o->map, pages[i]);
	atomic_store(&o->map.unsettled, true);
}

/* --- the end of a commit ---------------------------------------------------------------------- */

static void lead(struct layer *layer, struct io *io);

static void told(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void end(struct overlay *o, struct io *io, int status)
{
	struct overlay_commit *c = &o->commit;
	struct io *following = c->following, *next;

	pthread_mutex_lock(&c->lock);
	next = c->waiting;
	c->following = next ? next->next : NULL;
	c->waiting = NULL;
	c->last = &c->waiting;
	if (!next)
		atomic_store(&c->busy, false);
	pthread_mutex_unlock(&c->lock);
	while (following) {
		struct io *f = following;

		following = f->next;
		f->status = status;
		io_wake(f, &o->layer, told);
	}
	io_finish(io, status);
	if (next)
		io_wake(next, &o->layer, lead);
}

static void failed(struct overlay *o, struct io *io, int status)
{
	struct overlay_commit *c = &o->commit;

	overlay_unsettle_pages(o, c->pages, c->count);
	log_warn(
		"disk %s: overlay: its map could not be written to the store: %s; the guest's flush "
		"fails",
		o->layer.disk, strerror(-status));
	end(o, io, status);
}

/* --- the steps, in the order of events -----------------------------------------------------------
 */

static void part_back(struct layer *layer, struct io *part)
{
	(void)layer;
	io_part_end(part, part->status);
}

static void send_part(struct overlay *o, struct io *io, enum io_op op, uint8_t flags,
		      uint64_t offset, struct iovec *vec)
{
	struct io *part = io_part(io, 0, vec ? vec->iov_len : 0, offset);

	part->op = (uint8_t)op;
	part->flags = flags;
	part->data = (struct io_data){ .vec = vec, .count = vec != NULL };
	io_send_then(&o->layer, overlay_store(o), part, part_back);
}

static void flush(struct overlay *o, struct io *io, io_done_fn *then)
{
	io_parts_begin(&o->layer, io, then);
	send_part(o, io, IO_FLUSH, 0, 0, NULL);
	io_parts_end(io);
}

static void data_flushed(struct layer *layer, struct io *io);

static void round_begins(struct overlay *o, struct io *io)
{
	struct overlay_commit *c = &o->commit;

	c->count = overlay_map_take(&o->map, &c->cursor, c->pages, OVERLAY_COMMIT_PAGES);
	c->written = 0;
	if (c->count)
		overlay_encode_pages(o, c->pages, c->count, c->buffer);
	flush(o, io, data_flushed);
}

static void round_ends(struct overlay *o, struct io *io)
{
	struct overlay_commit *c = &o->commit;

	overlay_settle_pages(o, c->pages, c->count);
	if (c->cursor < o->map.pages)
		round_begins(o, io);
	else
		end(o, io, 0);
}

static void pages_flushed(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	if (io->status)
		failed(o, io, io->status);
	else
		round_ends(o, io);
}

/* How many pages from the @first one on are neighbours in the store. */
static unsigned neighbours(const struct overlay *o, unsigned first)
{
	const struct overlay_commit *c = &o->commit;
	unsigned n = 1;

	while (first + n < c->count && c->pages[first + n] == c->pages[first] + n &&
	       o->pages[c->pages[first + n]].slot == o->pages[c->pages[first]].slot)
		n++;
	return n;
}

static void window_written(struct layer *layer, struct io *io);

static void write_window(struct overlay *o, struct io *io)
{
	struct overlay_commit *c = &o->commit;
	unsigned n;

	c->last_write = !c->written && neighbours(o, 0) == c->count;
	io_parts_begin(&o->layer, io, window_written);
	for (unsigned i = 0; i < OVERLAY_FAN_OUT && c->written < c->count; i++, c->written += n) {
		uint64_t page = c->pages[c->written];

		n = neighbours(o, c->written);
		c->vec[i] =
			(struct iovec){ c->buffer + c->written * OVERLAY_PAGE, n * OVERLAY_PAGE };
		send_part(o, io, IO_WRITE, c->last_write ? IO_FUA : 0,
			  overlay_page_offset(&o->header, page, !o->pages[page].slot), &c->vec[i]);
	}
	io_parts_end(io);
}

static void window_written(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	if (io->status)
		failed(o, io, io->status);
	else if (o->commit.written < o->commit.count)
		write_window(o, io);
	else if (o->commit.last_write)
		round_ends(o, io);
	else
		flush(o, io, pages_flushed);
}

static void data_flushed(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	if (io->status)
		failed(o, io, io->status);
	else if (o->commit.count)
		write_window(o, io);
	else
		end(o, io, 0);
}

static void lead(struct layer *layer, struct io *io)
{
	struct overlay *o = (struct overlay *)layer;

	o->commit.cursor = 0;
	round_begins(o, io);
}

void overlay_commit(struct overlay *o, struct io *io)
{
	struct overlay_commit *c = &o->commit;
	bool busy;

	pthread_mutex_lock(&c->lock);
	busy = atomic_load(&c->busy);
	if (busy) {
		io->next = NULL;
		*c->last = io;
		c->last = &io->next;
	} else {
		atomic_store(&c->busy, true);
	}
	pthread_mutex_unlock(&c->lock);
	if (!busy)
		lead(&o->layer, io);
}
