/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * move.c - copies what is below to the leg, while the guest goes on; see move.h
 *
 * One pass over all regions. A change by the guest goes to the source and, if the copier has been
 * at one of its regions, to the target too; where it has not been, it will find the change in the
 * source. Changes lock their range shared, the copier locks its region exclusively: so a guest
 * waits for one region at most, and the pass ends however slow the target is. Reads are the
 * source's.
 *
 * A target that fails is left alone from then on, and the guest does not notice. Flushes go to the
 * target only when all is copied: then it is flushed whole, once by the copier, after `complete` is
 * set; so every flush that the guest asks for afterwards is one of both, and every one before is
 * covered by the copier's.
 *
 * Discards do nothing meanwhile, as they may: two sides that are free to return what they like
 * would not return the same.
 *
 * At the end there is a moment in which a start after a crash may find either side, because the
 * place of the disk is being written down: then a change is done only if it is done on both
 * (move_settle()).
 *
 * A source that fails a change ends the move: what the target then holds is not what the source
 * would return.
 */
#include "layer/move.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "layer/copier.h"
#include "layer/ranges.h"
#include "layer/stack.h"
#include "util/error.h"

#define REGION (1u << 20)

struct move {
	struct layer layer;
	uint64_t limit; /* option: bytes a second */
	uint64_t size;
	uint64_t regions;
	_Atomic uint8_t *copied; /* one for each region */
	_Atomic uint64_t done;   /* regions */
	_Atomic uint64_t guests; /* their requests, for the copier */
	atomic_bool complete, failed, source;
	atomic_int status; /* 0, -errno after a failure, or: */
#define SETTLED 1          /* failures are the guest's */
	struct ranges *ranges;
	struct copier copier;
	struct loop *home;
	struct loop_message begin, cease; /* to the home loop */
	struct layer_stop *stop_wanted;   /* as @cease has it */
	struct layer_stop *stop;          /* who waits for the copier to end; home loop */
	pthread_mutex_t lock;             /* of what follows */
	struct loop *watcher;
	struct loop_message *over;
	bool told; /* or would have been, had there been a watcher */
};

static struct layer *target(const struct move *m)
{
	return m->layer.legs[0];
}

/* --- the end of it ------------------------------------------------------------------------- */

static bool is_over(const struct move *m)
{
	return atomic_load(&m->complete) || atomic_load(&m->failed);
}

static void tell(struct move *m)
{
	pthread_mutex_lock(&m->lock);
	if (m->over)
		loop_send(m->watcher, m->over);
	m->over = NULL;
	m->told = true;
	pthread_mutex_unlock(&m->lock);
}

/* Any thread; the first failure counts. The copier ends as soon as it looks. */
static void fail(struct move *m, int status, bool source)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&m->status, &none, status))
		return;
	atomic_store(&m->source, source);
	atomic_store(&m->failed, true);
	atomic_store(&m->copier.cancel, true);
}

/* --- the guest's requests ---------------------------------------------------------------- */

static void changed(struct layer *layer, struct io *io)
{
	struct move *m = (struct move *)layer;

	ranges_unlock(m->ranges, io->offset, io->length, false);
	io_finish(io, io->status);
}

static void source_done(struct layer *layer, struct io *part)
{
	int status = part->status;

	if (status)
		fail((struct move *)layer, status, true);
	io_part_end(part, status);
}

static void target_done(struct layer *layer, struct io *part)
{
	struct move *m = (struct move *)layer;

	if (part->status)
		fail(m, part->status, false);
	io_part_end(part, atomic_load(&m->status) == SETTLED ? part->status : 0);
}

static void to_both(struct move *m, struct io *io, io_done_fn *done)
{
	struct io *part;

	io_parts_begin(&m->layer, io, done);
	part = io_part(io, 0, io->length, io->offset);
	io_push(&m->layer, part, source_done);
	io_send(m->layer.below, part);
	part = io_part(io, 0, io->length, io->offset);
	io_push(&m->layer, part, target_done);
	io_send(target(m), part);
	io_parts_end(io);
}

static bool has_been_there(const struct move *m, uint64_t offset, uint64_t length)
{
	for (uint64_t r = offset / REGION; r <= (offset + length - 1) / REGION; r++)
		if (atomic_load_explicit(&m->copied[r], memory_order_relaxed))
			return true;
	return false;
}

static void locked(struct layer *layer, struct io *io)
{
	struct move *m = (struct move *)layer;

	if (!atomic_load(&m->failed) && has_been_there(m, io->offset, io->length))
		to_both(m, io, changed);
	else
		io_send_then(layer, layer->below, io, changed);
}

static void as_it_is(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void move_submit(struct layer *layer, struct io *io)
{
	struct move *m = (struct move *)layer;

	atomic_fetch_add_explicit(&m->guests, 1, memory_order_relaxed);
	switch (io->op) {
	case IO_READ:
		io_send(layer->below, io);
		break;
	case IO_FLUSH:
		if (atomic_load(&m->complete) && !atomic_load(&m->failed))
			to_both(m, io, as_it_is);
		else
			io_send(layer->below, io);
		break;
	case IO_DISCARD:
		io_push(layer, io, as_it_is);
		io_finish(io, 0);
		break;
	default:
		if (ranges_lock(m->ranges, io, io->offset, io->length, false, layer, locked))
			locked(layer, io);
		break;
	}
}

/* --- the copier's side ---------------------------------------------------------------------- */

static uint64_t next_region(struct copier *copier, uint64_t at)
{
	struct move *m = container_of(copier, struct move, copier);
	uint64_t r = at / REGION;

	while (r < m->regions && atomic_load(&m->copied[r]))
		r++;
	if (r < m->regions)
		return r * REGION;
	if (atomic_load(&m->done) == m->regions)
		atomic_store(&m->complete, true);
	return UINT64_MAX;
}

static void region_copied(struct copier *copier, uint64_t offset, int status)
{
	struct move *m = container_of(copier, struct move, copier);

	if (status) {
		fail(m, status, false);
		return;
	}
	atomic_store(&m->copied[offset / REGION], 1);
	atomic_fetch_add(&m->done, 1);
}

/* Tells who waits for that, and may free us then. On the home loop. */
static void stopped(struct move *m)
{
	struct layer_stop *stop = m->stop;

	m->stop = NULL;
	if (stop)
		loop_send(stop->loop, &stop->done);
}

static void ended(struct copier *copier, int status)
{
	struct move *m = container_of(copier, struct move, copier);

	if (status && status != -ECANCELED)
		fail(m, status, false);
	if (is_over(m))
		tell(m);
	stopped(m);
}

static void begin(struct loop_message *message)
{
	struct move *m = container_of(message, struct move, begin);

	if (is_over(m)) {
		tell(m);
		return;
	}
	m->copier.from = m->layer.below;
	m->copier.to = target(m);
	if (copier_start(&m->copier, m->home)) {
		fail(m, -ENOMEM, false);
		tell(m);
	}
}

static void cease(struct loop_message *message)
{
	struct move *m = container_of(message, struct move, cease);

	m->stop = m->stop_wanted;
	if (m->copier.run)
		copier_stop(&m->copier); /* then ended() tells */
	else
		stopped(m);
}

static void move_start(struct layer *layer, struct loop *home)
{
	struct move *m = (struct move *)layer;

	m->home = home;
	loop_send(home, &m->begin);
}

static void move_stop(struct layer *layer, struct layer_stop *stop)
{
	struct move *m = (struct move *)layer;

	m->stop_wanted = stop;
	loop_send(m->home, &m->cease);
}

/* --- for whoever moves ---------------------------------------------------------------------- */

void move_progress(const struct layer *move, struct move_progress *progress)
{
	const struct move *m = (const struct move *)move;
	uint64_t done = atomic_load(&m->done) * REGION;

	*progress = (struct move_progress){
		.state = atomic_load(&m->failed)     ? MOVE_FAILED
			 : atomic_load(&m->complete) ? MOVE_COMPLETE
						     : MOVE_COPYING,
		.total = m->size,
		.done = done < m->size ? done : m->size,
		.limit = atomic_load(&m->copier.limit),
		.status = atomic_load(&m->status) == SETTLED ? 0 : atomic_load(&m->status),
		.source = atomic_load(&m->source),
	};
}

void move_limit(struct layer *move, uint64_t bytes_per_second)
{
	atomic_store(&((struct move *)move)->copier.limit, bytes_per_second);
}

void move_cancel(struct layer *move)
{
	fail((struct move *)move, -ECANCELED, false);
}

bool move_settle(struct layer *move)
{
	struct move *m = (struct move *)move;
	int none = 0;

	return atomic_load(&m->complete) &&
	       atomic_compare_exchange_strong(&m->status, &none, SETTLED);
}

void move_unsettle(struct layer *move)
{
	struct move *m = (struct move *)move;
	int settled = SETTLED;

	if (!atomic_compare_exchange_strong(&m->status, &settled, -ECANCELED))
		return;
	atomic_store(&m->failed, true);
}

void move_watch(struct layer *move, struct loop *loop, struct loop_message *over)
{
	struct move *m = (struct move *)move;

	pthread_mutex_lock(&m->lock);
	m->watcher = loop;
	m->over = m->told ? NULL : over;
	if (m->told)
		loop_send(loop, over);
	pthread_mutex_unlock(&m->lock);
}

static void find(struct layer *layer, void *found)
{
	if (layer->ops == &move_ops)
		*(struct layer **)found = layer;
}

struct layer *move_find(struct layer *top)
{
	struct layer *found = NULL;

	stack_visit(top, find, &found);
	return found;
}

static bool move_holds(const struct layer *layer, unsigned leg)
{
	const struct move *m = (const struct move *)layer;

	(void)leg;
	return atomic_load(&m->complete) && !atomic_load(&m->failed);
}

/* --- a layer ---------------------------------------------------------------------------------- */

static int check_target(const struct move *m, struct error *err)
{
	struct layer *to = target(m);
	const struct limits *from = &m->layer.below->limits;
	char a[32], b[32];

	if (to->limits.size < from->size) {
		if (layer_resize(to, from->size, err))
			return error_prefix(err, "target");
		stack_limits(to);
	}
	if (to->limits.size < from->size)
		return error_set(err, ENOSPC, "the target has %s; expected %s at least",
				 format_size(to->limits.size, a, sizeof a),
				 format_size(from->size, b, sizeof b));
	if (to->limits.read_only)
		return error_set(err, EROFS, "the target is read-only");
	if (to->limits.block_size > m->layer.block_size)
		return error_set(err, EINVAL,
				 "the target has blocks of %u bytes, and the disk has %u",
				 to->limits.block_size, m->layer.block_size);
	return 0;
}

static int move_open(struct layer *layer, struct error *err)
{
	struct move *m = (struct move *)layer;

	if (check_target(m, err))
		return -err->code;
	m->size = layer->below->limits.size;
	m->size -= m->size % layer->block_size;
	m->regions = (m->size + REGION - 1) / REGION;
	m->copied = calloc(m->regions, sizeof *m->copied);
	m->ranges = ranges_create(REGION);
	if (!m->copied || !m->ranges) {
		free((void *)m->copied);
		ranges_destroy(m->ranges);
		return error_set(err, ENOMEM, "out of memory");
	}
	pthread_mutex_init(&m->lock, NULL);
	m->begin.run = begin;
	m->cease.run = cease;
	m->copier = (struct copier){ .ranges = m->ranges,
				     .guests = &m->guests,
				     .size = m->size,
				     .region = REGION,
				     .next = next_region,
				     .copied = region_copied,
				     .ended = ended,
				     .limit = m->limit };
	return 0;
}

static void move_close(struct layer *layer)
{
	struct move *m = (struct move *)layer;

	pthread_mutex_destroy(&m->lock);
	ranges_destroy(m->ranges);
	free((void *)m->copied);
}

static int move_resize(struct layer *layer, uint64_t size, struct error *err)
{
	(void)size;
	return error_set(err, EBUSY, "disk %s is moving; it can grow when that is over",
			 layer->disk);
}

static const struct option move_options[] = {
	{ .name = "limit",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct move, limit),
	  .help = "Bytes a second to copy at most. 0: no limit." },
	{ 0 },
};

const struct layer_ops move_ops = {
	.name = "move",
	.summary = "copies what is below to its leg, for a disk that moves",
	.size = sizeof(struct move),
	.options = move_options,
	.internal = true,
	.legs_option = "to",
	.legs_min = 1,
	.legs_max = 1,
	.fan_out = 2,
	.open = move_open,
	.close = move_close,
	.holds = move_holds,
	.resize = move_resize,
	.start = move_start,
	.stop = move_stop,
	.submit = move_submit,
};
