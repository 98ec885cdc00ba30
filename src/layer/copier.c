/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copier.c - regions, several at a time, each: lock, read, write, unlock; see copier.h
 *
 * Each of the slots has a buffer and goes round on its own: it asks for a region, waits until the
 * limit allows it, locks it with the io that will read it, reads, writes (or zeroes, where there
 * are only zeroes), unlocks, and asks again. When all slots are idle the run is over.
 *
 * The limit is a moment before which no region is begun; each region moves it on by the time that
 * it may take. While it lies ahead a timer looks again every tenth of a second at least, so that a
 * new limit, or a stop, takes effect at once.
 */
#include "layer/copier.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "layer/stack.h"

#define SLOTS  8u
#define GLANCE 100000000ull /* ns */
#define REST   5            /* times as long as a region took, beside guests */
#define ALONE  50000000ull  /* ns without a request: no guest is there */

struct slot {
	struct copier_run *run;
	struct slot *idle; /* the next idle one */
	uint64_t offset;   /* of the region under way */
	uint64_t length;   /* bytes of it */
	uint64_t began;    /* ns, when it was read */
	uint64_t reading;  /* ns that took */
	char *buffer;
};

struct copier_run {
	struct copier *copier;
	struct loop *loop;
	struct io_queue from, to;
	struct slot slots[SLOTS];
	struct slot *idle;
	unsigned busy;
	uint64_t at;      /* regions before this have been given out */
	uint64_t allowed; /* ns; when the next region may begin, by the limit */
	uint64_t rested;  /* ns; likewise, beside guests */
	uint64_t guests;  /* requests of theirs so far */
	uint64_t alone;   /* ns; from then on there are none, if no other comes up */
	int status;
	bool over;    /* nothing is left to begin */
	bool flushed; /* and the target knows that it is to keep it */
	struct loop_timer timer;
	struct loop_task task;
	char *memory;
};

/* --- a region, from the end to the start -------------------------------------------------- */

/* Time as it is: a turn of the loop may be one copy in memory. */
static uint64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * What a region took from guests is the time it was read; and that it was written, but a target
 * that is slower than the source is slow by itself.
 */
static void rest(struct copier_run *r, const struct slot *slot)
{
	uint64_t now = clock_now(), writing = now - slot->began - slot->reading;

	if (writing > 2 * slot->reading)
		writing = 2 * slot->reading;
	r->rested = now + REST * (slot->reading + writing);
}

static void settle_region(struct slot *slot, int status)
{
	struct copier_run *r = slot->run;
	struct copier *c = r->copier;

	rest(r, slot);

	if (c->copied)
		c->copied(c, slot->offset, status);
	ranges_unlock(c->ranges, slot->offset, slot->length, true);
	if (status && !r->status)
		r->status = status;
	if (!status)
		atomic_fetch_add(&c->bytes, slot->length);
	slot->idle = r->idle;
	r->idle = slot;
	r->busy--;
	loop_task_queue(r->loop, &r->task);
}

static void written(struct layer *layer, struct io *io)
{
	struct slot *slot = (struct slot *)(uintptr_t)io_frame(io)->note[0];
	int status = io->status;

	(void)layer;
	io_put(io);
	settle_region(slot, status);
}

static bool only_zeroes(const char *bytes, uint64_t length)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static struct io *prepare(struct io_queue *queue, struct slot *slot, enum io_op op)
{
	struct io *io = io_get(queue); /* there is one for each slot */

	io->op = (uint8_t)op;
	io->offset = slot->offset;
	io->length = slot->length;
	io->started = loop_now(queue->loop);
	io_vector(io)[0] = (struct iovec){ slot->buffer, slot->length };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	return io;
}

static void read_done(struct layer *layer, struct io *io)
{
	struct slot *slot = (struct slot *)(uintptr_t)io_frame(io)->note[0];
	struct copier_run *r = slot->run;
	int status = io->status;
	bool zeroes;

	(void)layer;
	io_put(io);
	slot->reading = 0;
	if (status) {
		settle_region(slot, status);
		return;
	}
	zeroes = only_zeroes(slot->buffer, slot->length);
	slot->reading = clock_now() - slot->began;
	io = prepare(&r->to, slot, zeroes ? IO_ZEROES : IO_WRITE);
	if (zeroes)
		io->flags = IO_UNMAP;
	io_push(NULL, io, written)->note[0] = (uintptr_t)slot;
	io_send(r->copier->to, io);
}

static void locked(struct layer *layer, struct io *io)
{
	struct copier_run *r = io->queue->owner;

	(void)layer;
	((struct slot *)(uintptr_t)io->frame[io->depth - 1].note[0])->began = clock_now();
	io_send(r->copier->from, io);
}

static void begin_region(struct copier_run *r, struct slot *slot, uint64_t offset)
{
	struct copier *c = r->copier;
	struct io *io;

	slot->offset = offset;
	slot->length = c->size - offset < c->region ? c->size - offset : c->region;
	io = prepare(&r->from, slot, IO_READ);
	io_push(NULL, io, read_done)->note[0] = (uintptr_t)slot;
	if (ranges_lock(c->ranges, io, offset, slot->length, true, NULL, locked))
		locked(NULL, io);
}

/* --- the run -------------------------------------------------------------------------------- */

/* At the end what came up behind is asked for once more; when everything begun is done. */
static uint64_t next_region(struct copier_run *r)
{
	struct copier *c = r->copier;
	uint64_t offset = c->next ? c->next(c, r->at) : r->at;

	if (offset >= c->size && c->next && !r->busy)
		offset = c->next(c, 0);
	if (offset >= c->size)
		return UINT64_MAX;
	r->at = offset + c->region;
	return offset;
}

static bool has_guests(struct copier_run *r, uint64_t now)
{
	const struct copier *c = r->copier;
	uint64_t guests = c->guests ? atomic_load_explicit(c->guests, memory_order_relaxed) : 0;

	if (guests != r->guests)
		r->alone = now + ALONE;
	r->guests = guests;
	return now < r->alone;
}

/* True if a region may begin now; else the timer is set, or another one's end comes first. */
static bool allowed(struct copier_run *r)
{
	uint64_t now = clock_now(), at = atomic_load(&r->copier->limit) ? r->allowed : 0;

	if (has_guests(r, now)) {
		if (r->busy)
			return false;
		if (at < r->rested)
			at = r->rested;
	}
	if (at <= now)
		return true;
	loop_timer_set(r->loop, &r->timer, at - now < GLANCE ? at : now + GLANCE);
	return false;
}

static void charge(struct copier_run *r, uint64_t bytes)
{
	uint64_t now = loop_now(r->loop), limit = atomic_load(&r->copier->limit);

	if (!limit) {
		r->allowed = 0;
		return;
	}
	if (r->allowed < now)
		r->allowed = now;
	r->allowed += (uint64_t)((double)bytes * 1e9 / (double)limit);
}

static void end(struct copier_run *r)
{
	struct copier *c = r->copier;
	int status = r->status;

	loop_timer_cancel(&r->timer);
	stack_queue_close(c->from, &r->from);
	stack_queue_close(c->to, &r->to);
	munmap(r->memory, (size_t)SLOTS * c->region);
	free(r);
	c->run = NULL;
	c->ended(c, status);
}

static void flushed(struct layer *layer, struct io *io)
{
	struct copier_run *r = io->queue->owner;

	(void)layer;
	if (!r->status)
		r->status = io->status;
	r->flushed = true;
	r->busy--;
	io_put(io);
	loop_task_queue(r->loop, &r->task);
}

static void flush(struct copier_run *r)
{
	struct io *io = io_get(&r->to);

	io->op = IO_FLUSH;
	io->offset = io->length = 0;
	io->started = loop_now(r->loop);
	r->busy++;
	io_push(NULL, io, flushed);
	io_send(r->copier->to, io);
}

static void begin_regions(struct copier_run *r)
{
	while (r->idle && !r->over && !r->status && allowed(r)) {
		struct slot *slot = r->idle;
		uint64_t offset = next_region(r);

		if (offset == UINT64_MAX) {
			r->over = !r->busy;
			return;
		}
		r->idle = slot->idle;
		r->busy++;
		charge(r, r->copier->region);
		begin_region(r, slot, offset);
	}
}

static void go_on(struct copier_run *r)
{
	if (atomic_load(&r->copier->cancel) && !r->status)
		r->status = -ECANCELED;
	begin_regions(r);
	if (r->busy || r->from.inside || r->to.inside)
		return;
	if (r->over && !r->status && !r->flushed)
		flush(r);
	else if (r->over || r->status)
		end(r);
}

static void run_task(struct loop_task *task)
{
	go_on(container_of(task, struct copier_run, task));
}

static void glance(struct loop_timer *timer)
{
	go_on(container_of(timer, struct copier_run, timer));
}

/* Errands of layers below may be the last to come back. */
static void emptied(struct io_queue *queue)
{
	struct copier_run *r = queue->owner;

	loop_task_queue(r->loop, &r->task);
}

int copier_start(struct copier *copier, struct loop *loop)
{
	struct copier_run *r = calloc(1, sizeof *r);
	size_t bytes = (size_t)SLOTS * copier->region;

	if (!r)
		return -ENOMEM;
	r->copier = copier;
	r->loop = loop;
	r->task.run = run_task;
	loop_timer_init(&r->timer, glance);
	r->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->memory == MAP_FAILED)
		goto no_memory;
	if (stack_queue_open(copier->from, &r->from, loop, SLOTS, 1))
		goto no_from;
	if (stack_queue_open(copier->to, &r->to, loop, SLOTS, 1))
		goto no_to;
	r->from.owner = r->to.owner = r;
	r->from.empty = r->to.empty = emptied;
	for (unsigned i = 0; i < SLOTS; i++) {
		r->slots[i] = (struct slot){ .run = r,
					     .idle = r->idle,
					     .buffer = r->memory + (size_t)i * copier->region };
		r->idle = &r->slots[i];
	}
	atomic_store(&copier->bytes, 0);
	copier->run = r;
	loop_task_queue(loop, &r->task);
	return 0;
no_to:
	stack_queue_close(copier->from, &r->from);
no_from:
	munmap(r->memory, bytes);
no_memory:
	free(r);
	return -ENOMEM;
}

void copier_stop(struct copier *copier)
{
	struct copier_run *r = copier->run;

	if (!r)
		return;
	if (!r->status)
		r->status = -ECANCELED;
	loop_task_queue(r->loop, &r->task);
}
