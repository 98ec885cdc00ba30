/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_read.c - a read through the cache, and what is read ahead
 *
 * A read copies the pages that are there. The first one that is not opens a window: pages that
 * nobody has are claimed, in runs, and each run is read from below into the pool's memory and
 * copied from there (never the other way round: a guest might change its own memory meanwhile, and
 * the page is for others, too). A page that somebody else is filling ends the window; when
 * everything of it is back, the io waits for that page. So nobody waits while others wait for him.
 * What cannot be kept (the end of a disk that is no whole page, a page that is being written, no
 * memory free) is read past the cache.
 *
 */
#include <stdlib.h>

#include "layer/cache_private.h"

#define RUN_BYTES (1u << 20) /* likewise */
#define RUNS      64u        /* that a queue has memory for */

/* --- runs --------------------------------------------------------------------------- */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

struct run *cache_run_get(struct cache_queue *q, uint64_t first)
{
	struct run *run = q->runs;

	if (run) {
		q->runs = run->next;
	} else {
		if (q->run_count == RUNS || !(run = malloc(sizeof *run)))
			return NULL;
		q->run_count++;
	}
	run->first = first;
	run->count = run->vectors = 0;
	return run;
}

void cache_run_put(struct cache_queue *q, struct run *run)
{
	run->next = q->runs;
	q->runs = run;
}

void cache_run_add(struct run *run, const struct cache_ref *ref, uint32_t page_size)
{
	struct iovec *last = &run->vec[run->vectors - 1];

	run->pages[run->count++] = *ref;
	if (run->vectors && (char *)last->iov_base + last->iov_len == ref->bytes)
		last->iov_len += page_size;
	else
		run->vec[run->vectors++] = (struct iovec){ ref->bytes, page_size };
}

static bool run_is_full(const struct run *run, uint32_t page_size)
{
	return run->count == CACHE_RUN_PAGES || run->count * page_size >= RUN_BYTES;
}

void cache_run_onto(const struct run *run, struct io *io, uint32_t page_size)
{
	io->offset = run->first * page_size;
	io->length = (uint64_t)run->count * page_size;
	io_data_set(&io->data,
		    (struct io_data){ .vec = (struct iovec *)run->vec, .count = run->vectors });
}

/* --- reading: what is there ---------------------------------------------------------- */

uint32_t cache_share(const struct cache *c, const struct io *io, uint64_t number, uint32_t *start)
{
	uint64_t from = number * c->page_size, to = from + c->page_size;

	if (from < io->offset)
		from = io->offset;
	if (to > io->offset + io->length)
		to = io->offset + io->length;
	*start = (uint32_t)(from % c->page_size);
	return (uint32_t)(to - from);
}

/* Page @number to the memory of @io. */
static uint32_t deliver(const struct cache *c, struct io *io, uint64_t number, const char *bytes)
{
	uint32_t start, length = cache_share(c, io, number, &start);
	uint64_t at = number * c->page_size + start - io->offset;

	io_data_copy_in(at ? io_data_slice(io->data, at) : io->data, bytes + start, length);
	return length;
}

static enum cache_found find(const struct cache *c, uint64_t number, enum cache_want want,
			     struct io *waiter, struct cache_ref *ref)
{
	if (number >= atomic_load_explicit(&c->pages, memory_order_relaxed))
		return CACHE_NONE;
	return cache_find(c->store, number, want, waiter, ref);
}

/* Copies pages from byte @at of @io on while they are there; how far it came. */
static uint64_t copy_hits(struct cache *c, struct io *io, uint64_t at)
{
	struct cache_queue *q = layer_queue_state(&c->layer, io->queue);
	uint64_t hits = 0;

	while (at < io->length) {
		uint64_t number = (io->offset + at) / c->page_size;
		struct cache_ref ref;

		if (find(c, number, CACHE_LOOK, NULL, &ref) != CACHE_HIT)
			break;
		at += deliver(c, io, number, ref.bytes);
		cache_unpin(&ref);
		hits++;
	}
	count(&q->hits, hits);
	return at;
}

/* --- reading: a window of what is not -------------------------------------------------- */

enum { NOTE_AT };  /* of a request: bytes that are dealt with */
enum { NOTE_RUN }; /* of a part, or an errand */

static void fill_window(struct cache *c, struct io *io, uint64_t at);
static void open_window(struct layer *layer, struct io *io, uint64_t at);

static void window_done(struct layer *layer, struct io *io)
{
	uint64_t at = io_frame(io)->note[NOTE_AT];

	if (io->status || at == io->length)
		io_finish(io, io->status);
	else
		open_window(layer, io, at);
}

/* Somebody else has filled the page that @io waits for, or could not. */
void cache_read_woken(struct layer *layer, struct io *io)
{
	fill_window((struct cache *)layer, io, io->frame[io->depth - 1].note[NOTE_AT]);
}

static void open_window(struct layer *layer, struct io *io, uint64_t at)
{
	io_parts_begin(layer, io, window_done)->note[NOTE_AT] = at;
	fill_window((struct cache *)layer, io, at);
}

static void direct_done(struct layer *layer, struct io *part)
{
	(void)layer;
	io_part_end(part, part->status);
}

/* Bytes of @io that @run covers. */
static uint64_t covered(const struct cache *c, const struct io *io, const struct run *run,
			uint64_t *at)
{
	uint64_t from = run->first * c->page_size, to = from + (uint64_t)run->count * c->page_size;

	if (from < io->offset)
		from = io->offset;
	if (to > io->offset + io->length)
		to = io->offset + io->length;
	*at = from - io->offset;
	return to - from;
}

/* What the request did not ask for may be what cannot be read. */
static bool retry_alone(struct cache *c, struct io *part, const struct run *run)
{
	struct io *whole = part->whole;
	uint64_t at, length = covered(c, whole, run, &at);

	if (length == (uint64_t)run->count * c->page_size)
		return false;
	part->offset = whole->offset + at;
	part->length = length;
	io_data_set(&part->data, io_data_slice(whole->data, at));
	io_send_then(&c->layer, c->layer.below, part, direct_done);
	return true;
}

static void run_done(struct layer *layer, struct io *part)
{
	struct cache *c = (struct cache *)layer;
	struct run *run = (struct run *)(uintptr_t)io_frame(part)->note[NOTE_RUN];
	bool good = !part->status;

	for (unsigned i = 0; i < run->count; i++) {
		if (good)
			deliver(c, part->whole, run->first + i, run->pages[i].bytes);
		cache_filled(c->store, run->pages[i].page, good, cache_read_woken);
	}
	if (good || !retry_alone(c, part, run))
		io_part_end(part, part->status);
	cache_run_put(layer_queue_state(layer, part->queue), run);
}

static void send_run(struct cache *c, struct io *io, struct run *run)
{
	uint64_t at, length = covered(c, io, run, &at);
	struct io *part = io_part(io, at, length, 0);

	cache_run_onto(run, part, c->page_size);
	io_push(&c->layer, part, run_done)->note[NOTE_RUN] = (uintptr_t)run;
	io_send(c->layer.below, part);
}

/* Page @number is claimed: it and those behind it, while they can be. How far that goes. */
static uint64_t read_run(struct cache *c, struct io *io, uint64_t at, struct run *run,
			 struct cache_ref *ref)
{
	struct cache_queue *q = layer_queue_state(&c->layer, io->queue);
	enum cache_found found = CACHE_CLAIMED;
	uint64_t number = run->first;
	uint32_t start;

	do {
		cache_run_add(run, ref, c->page_size);
		at += cache_share(c, io, number++, &start);
		if (at == io->length || run_is_full(run, c->page_size))
			break;
		found = find(c, number, CACHE_CLAIM, NULL, ref);
	} while (found == CACHE_CLAIMED);
	if (found == CACHE_HIT) {
		at += deliver(c, io, number, ref->bytes);
		cache_unpin(ref);
		count(&q->hits, 1);
	}
	count(&q->misses, run->count);
	send_run(c, io, run);
	return at;
}

/* Page @number cannot be kept: it and those behind it that are not there, to the guest alone. */
static uint64_t read_past(struct cache *c, struct io *io, uint64_t at, uint64_t number)
{
	struct cache_queue *q = layer_queue_state(&c->layer, io->queue);
	enum cache_found found = CACHE_NONE;
	uint64_t from = at, pages = 0;
	uint32_t start, there = 0;
	struct cache_ref ref;

	do {
		at += cache_share(c, io, number++, &start);
		pages++;
		if (at == io->length || pages * c->page_size >= RUN_BYTES)
			break;
		found = find(c, number, CACHE_LOOK, NULL, &ref);
	} while (found == CACHE_NONE);
	if (found == CACHE_HIT) {
		there = deliver(c, io, number, ref.bytes);
		cache_unpin(&ref);
		count(&q->hits, 1);
	}
	count(&q->misses, pages);
	io_send_part(io, c->layer.below, from, at - from, io->offset + from);
	return at + there;
}

/* Sends parts for what is not there, from byte @at on; or @io waits for somebody's page. */
static void fill_window(struct cache *c, struct io *io, uint64_t at)
{
	struct cache_queue *q = layer_queue_state(&c->layer, io->queue);
	struct io_frame *frame = &io->frame[io->depth - 1];
	unsigned sent = 0;
	bool waits = false;

	while (at < io->length && sent < CACHE_FAN_OUT && !waits) {
		uint64_t number = (io->offset + at) / c->page_size;
		struct cache_ref ref;
		struct run *run;

		frame->note[NOTE_AT] = at;
		switch (find(c, number, CACHE_CLAIM, sent ? NULL : io, &ref)) {
		case CACHE_HIT:
			at += deliver(c, io, number, ref.bytes);
			cache_unpin(&ref);
			count(&q->hits, 1);
			break;
		case CACHE_CLAIMED:
			run = cache_run_get(q, number);
			if (run) {
				at = read_run(c, io, at, run, &ref);
			} else {
				cache_filled(c->store, ref.page, false, cache_read_woken);
				at = read_past(c, io, at, number);
			}
			sent++;
			break;
		case CACHE_FILLING:
			if (!sent)
				return; /* it is somebody else's until it is woken */
			waits = true;
			break;
		case CACHE_NONE:
			at = read_past(c, io, at, number);
			sent++;
			break;
		}
	}
	frame->note[NOTE_AT] = at;
	io_parts_end(io);
}

/* --- reading ahead -------------------------------------------------------------------- */

static void ahead_done(struct layer *layer, struct io *errand)
{
	struct cache *c = (struct cache *)layer;
	struct cache_queue *q = layer_queue_state(layer, errand->queue);
	struct run *run = (struct run *)(uintptr_t)io_frame(errand)->note[NOTE_RUN];

	for (unsigned i = 0; i < run->count; i++)
		cache_filled(c->store, run->pages[i].page, !errand->status, cache_read_woken);
	count(&q->ahead, run->count);
	q->errands--;
	cache_run_put(q, run);
	io_errand_end(errand);
}

static void send_errand(struct cache *c, struct io *errand, struct run *run)
{
	errand->op = IO_READ;
	errand->flags = 0;
	cache_run_onto(run, errand, c->page_size);
	io_push(&c->layer, errand, ahead_done)->note[NOTE_RUN] = (uintptr_t)run;
	io_send(c->layer.below, errand);
}

/* One errand for the first run of pages in [@from, @to) that are not there; where to go on. */
static uint64_t read_ahead(struct cache *c, struct io_queue *queue, uint64_t from, uint64_t to)
{
	struct cache_queue *q = layer_queue_state(&c->layer, queue);
	struct io *errand = NULL;
	struct run *run = NULL;
	struct cache_ref ref;

	for (; from < to; from++) {
		enum cache_found found = find(c, from, CACHE_AHEAD, NULL, &ref);

		if (found != CACHE_CLAIMED && !run)
			continue;
		if (found != CACHE_CLAIMED)
			break;
		if (!run) {
			run = cache_run_get(q, from);
			errand = run && q->errands < CACHE_ERRANDS ? io_errand(queue) : NULL;
			if (!errand) {
				cache_filled(c->store, ref.page, false, cache_read_woken);
				if (run)
					cache_run_put(q, run);
				return from;
			}
		}
		cache_run_add(run, &ref, c->page_size);
		if (run_is_full(run, c->page_size)) {
			from++;
			break;
		}
	}
	if (run) {
		q->errands++;
		send_errand(c, errand, run);
	}
	return from;
}

static struct stream *stream_of(struct cache_queue *q, uint64_t offset)
{
	for (unsigned i = 0; i < CACHE_STREAMS; i++)
		if (q->streams[i].next == offset && offset)
			return &q->streams[i];
	return NULL;
}

/* A read of [@offset, @end) has been seen. */
static void look_ahead(struct cache *c, struct io_queue *queue, uint64_t offset, uint64_t end)
{
	struct cache_queue *q = layer_queue_state(&c->layer, queue);
	struct stream *s = stream_of(q, offset);
	uint64_t from, to;

	if (!s) {
		q->streams[q->turn++ % CACHE_STREAMS] =
			(struct stream){ .next = end, .ahead = end };
		return;
	}
	s->next = end;
	if (++s->count < 2)
		return;
	if (s->ahead < end)
		s->ahead = end;
	if (s->ahead - end > c->read_ahead / 2)
		return;
	from = (s->ahead + c->page_size - 1) / c->page_size;
	to = (end + c->read_ahead) / c->page_size;
	if (to > atomic_load_explicit(&c->pages, memory_order_relaxed))
		to = atomic_load_explicit(&c->pages, memory_order_relaxed);
	while (from < to) {
		uint64_t next = read_ahead(c, queue, from, to);

		if (next == from)
			break;
		from = next;
	}
	s->ahead = from * c->page_size;
}

/* --- a read --------------------------------------------------------------------------- */

void cache_read(struct cache *c, struct io *io)
{
	struct io_queue *queue = io->queue;
	uint64_t offset = io->offset, end = offset + io->length, at = copy_hits(c, io, 0);

	if (at == io->length)
		io_finish(io, 0);
	else
		open_window(&c->layer, io, at);
	if (c->read_ahead)
		look_ahead(c, queue, offset, end);
}

void cache_read_close(struct cache_queue *q)
{
	struct run *run;

	while ((run = q->runs)) {
		q->runs = run->next;
		free(run);
	}
}
