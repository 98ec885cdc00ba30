/* SPDX-License-Identifier: BSD-3-Clause */
/* io.c - the request's way: push, send, finish, run; splitting; pools. See io.h for the rules. */
#include "io/io.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "layer/layer.h"

/* --- contract checks ---------------------------------------------------------------- */

#ifdef IO_CHECKS
enum { STATE_FREE = 0xf3ee, STATE_HELD = 0x4e1d, STATE_FINISHED = 0xd09e };

static void breach(const struct io *io, const char *rule)
{
	fprintf(stderr, "io contract: %s (%s offset %llu length %llu depth %u status %d)\n", rule,
		io_op_name(io->op), (unsigned long long)io->offset, (unsigned long long)io->length,
		io->depth, io->status);
	abort();
}

#define check(io, condition, rule)                                                                 \
	do {                                                                                       \
		if (!(condition))                                                                  \
			breach(io, rule);                                                          \
	} while (0)
#define set_state(io, to) ((io)->state = (to))

static void check_held(const struct io *io)
{
	check(io, io->state != STATE_FREE, "used after io_put");
	check(io, io->state != STATE_FINISHED, "used after io_finish");
	check(io, !loop_self() || loop_self() == io->queue->loop, "used on another thread");
}

static void check_sent(const struct io *io)
{
	check_held(io);
	check(io, io->depth > 0, "sent without a frame to come back to");
	check(io, io->op < IO_OPS, "unknown op");
	check(io, io->offset + io->length >= io->offset, "range wraps");
	if (io->op == IO_READ || io->op == IO_WRITE)
		check(io, io_data_length(io->data) >= io->length, "data is shorter than length");
}
#else
#define check(io, condition, rule) ((void)0)
#define set_state(io, to)          ((void)0)
#define check_held(io)             ((void)0)
#define check_sent(io)             ((void)0)
#endif

/* --- on the way down ---------------------------------------------------------------- */

void io_send(struct layer *to, struct io *io)
{
	check_sent(io);
	to->ops->submit(to, io);
}

struct io_frame *io_push(struct layer *from, struct io *io, io_done_fn *done)
{
	struct io_frame *f = &io->frame[io->depth];

	check_held(io);
	io->queue->inside += !io->depth++;
	check(io, io->depth <= io->queue->frames, "more frames than the stack declared");
	f->done = done;
	f->layer = from;
	f->offset = io->offset;
	f->length = io->length;
	io_data_set(&f->data, io->data);
	return f;
}

struct io_frame *io_send_then(struct layer *from, struct layer *to, struct io *io, io_done_fn *done)
{
	struct io_frame *f = io_push(from, io, done);

	io_send(to, io);
	return f;
}

/* --- on the way up ------------------------------------------------------------------ */

void io_finish(struct io *io, int status)
{
	struct io_queue *queue = io->queue;

	check_held(io);
	check(io, io->depth > 0, "finished with no frame to come back to");
	check(io, status <= 0, "finished with a positive status");
	set_state(io, STATE_FINISHED);
	io->status = status;
	io->next = NULL;
	*queue->finished_last = io;
	queue->finished_last = &io->next;
	loop_task_queue(queue->loop, &queue->task);
}

static void run_finished(struct io_queue *queue)
{
	struct io *io;

	while ((io = queue->finished)) {
		struct io_frame *f = &io->frame[--io->depth];

		queue->inside -= !io->depth;
		queue->finished = io->next;
		if (!queue->finished)
			queue->finished_last = &queue->finished;
		set_state(io, STATE_HELD);
		io->offset = f->offset;
		io->length = f->length;
		io->data = f->data;
		f->done(f->layer, io);
	}
}

static void settle(struct io_queue *queue)
{
	void (*settled)(struct io_queue * queue) = queue->settled;

	/* Each may be the end of the queue; one that still has somebody to settle is not empty's to
	 * end. */
	if (queue->empty && !queue->inside)
		queue->empty(queue);
	if (settled)
		settled(queue);
}

void io_queue_run(struct io_queue *queue)
{
	run_finished(queue);
	settle(queue);
}

/* --- from other threads --------------------------------------------------------------- */

void io_wake(struct io *io, struct layer *layer, io_done_fn *run)
{
	struct io_queue *queue = io->queue;
	struct io *first = atomic_load_explicit(&queue->inbox.first, memory_order_relaxed);

	io->wake = run;
	io->wakes = layer;
	do
		io->next = first;
	while (!atomic_compare_exchange_weak(&queue->inbox.first, &first, io));
	/* From here on it may run; but if it is the first nobody else sends the message. */
	if (!first)
		loop_send(queue->loop, &queue->inbox.message);
}

static void read_inbox(struct loop_message *message)
{
	struct io_queue *queue = container_of(message, struct io_queue, inbox.message);
	struct io *io = atomic_exchange(&queue->inbox.first, NULL), *earlier, *all = NULL;

	for (; io; io = earlier) {
		earlier = io->next;
		io->next = all;
		all = io;
	}
	while ((io = all)) {
		all = io->next;
		io->wake(io->wakes, io);
	}
}

/* --- fan-out ------------------------------------------------------------------------ */

static struct io *pool_get(struct io_queue *queue, struct io_pool *pool)
{
	struct io *io = pool->free;

	if (io) {
		pool->free = io->next;
	} else {
		if (pool->fresh == pool->total)
			return NULL;
		io = (struct io *)(pool->base + pool->fresh++ * queue->stride);
		io->queue = queue;
	}
	set_state(io, STATE_HELD);
	io->depth = 0;
	io->flags = 0;
	io->status = 0;
	return io;
}

static void pool_put(struct io_pool *pool, struct io *io)
{
	check_held(io);
	set_state(io, STATE_FREE);
	io->next = pool->free;
	pool->free = io;
}

static void part_returned(struct io *whole, int status)
{
	if (status && !whole->status)
		whole->status = status;
	if (--whole->parts == 0)
		io_finish(whole, whole->status);
}

void io_part_end(struct io *part, int status)
{
	struct io *whole = part->whole;

	pool_put(&part->queue->parts, part);
	part_returned(whole, status);
}

static void part_done(struct layer *layer, struct io *part)
{
	(void)layer;
	io_part_end(part, part->status);
}

struct io_frame *io_parts_begin(struct layer *from, struct io *io, io_done_fn *done)
{
	io->status = 0;
	io->parts = 1; /* held until io_parts_end */
	return io_push(from, io, done);
}

struct io *io_part(struct io *io, uint64_t start, uint64_t length, uint64_t offset)
{
	struct io *part = pool_get(io->queue, &io->queue->parts);

	check(io, part, "more parts than the layers declared as fan_out");
	part->op = io->op;
	part->flags = io->flags;
	part->offset = offset;
	part->length = length;
	if (io->op == IO_READ || io->op == IO_WRITE)
		part->data = io_data_slice(io->data, start);
	part->started = io->started;
	part->whole = io;
	io->parts++;
	return part;
}

void io_send_part(struct io *io, struct layer *to, uint64_t start, uint64_t length, uint64_t offset)
{
	struct io *part = io_part(io, start, length, offset);

	io_push(NULL, part, part_done);
	io_send(to, part);
}

void io_parts_end(struct io *io)
{
	part_returned(io, 0);
}

/* --- errands -------------------------------------------------------------------------- */

struct io *io_errand(struct io_queue *queue)
{
	struct io *errand = queue->errands < queue->errands_max ? pool_get(queue, &queue->parts)
								: NULL;

	if (errand) {
		queue->errands++;
		errand->whole = NULL;
		errand->started = loop_now(queue->loop);
	}
	return errand;
}

void io_errand_end(struct io *errand)
{
	errand->queue->errands--;
	pool_put(&errand->queue->parts, errand);
}

/* --- the queue ---------------------------------------------------------------------- */

static void run_task(struct loop_task *task)
{
	struct io_queue *queue = container_of(task, struct io_queue, task);

	/* What a done finishes is run here too: it needs no task of its own. */
	task->queued = true;
	run_finished(queue);
	task->queued = false;
	settle(queue);
}

/* Room for the ios of @queue and their iovecs, which @roots, @parts, @frames, @vectors tell. */
static int furnish(struct io_queue *queue, unsigned roots, unsigned parts, unsigned frames)
{
	size_t stride = sizeof(struct io) + frames * sizeof(struct io_frame);
	size_t ios = ((size_t)roots + parts) * stride;
	size_t bytes = ios + (size_t)roots * queue->vectors * sizeof(struct iovec);
	char *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	queue->stride = stride;
	queue->frames = frames;
	queue->roots = (struct io_pool){ .base = memory, .total = roots };
	queue->parts = (struct io_pool){ .base = memory + roots * stride, .total = parts };
	queue->vec = (struct iovec *)(memory + ios);
	queue->mapped = bytes;
	return 0;
}

int io_queue_init(struct io_queue *queue, struct loop *loop, unsigned roots, unsigned parts,
		  unsigned frames, unsigned vectors)
{
	*queue = (struct io_queue){
		.task.run = run_task,
		.loop = loop,
		.vectors = vectors,
		.inbox.message.run = read_inbox,
	};
	queue->finished_last = &queue->finished;
	return furnish(queue, roots, parts, frames);
}

/* The view of @data in the vectors of an io at @from as one in those of an io at @to. */
static void rebase(struct io_data *data, const struct iovec *from, struct iovec *to, unsigned count)
{
	if (data->vec >= from && data->vec < from + count)
		data->vec = to + (data->vec - from);
}

/* A copy of @io, of another size, in the pool that @queue has now; @old is what it was. */
static struct io *move(struct io_queue *queue, const struct io_queue *old, struct io *io)
{
	struct io *moved = pool_get(queue, &queue->roots);
	size_t index = (size_t)((char *)io - old->roots.base) / old->stride;
	struct iovec *from = old->vec + index * old->vectors, *to = io_vector(moved);

	memcpy(moved, io, sizeof *io + io->depth * sizeof *io->frame);
	memcpy(to, from, queue->vectors * sizeof *to);
	rebase(&moved->data, from, to, queue->vectors);
	for (unsigned i = 0; i < moved->depth; i++)
		rebase(&moved->frame[i].data, from, to, queue->vectors);
	return moved;
}

int io_queue_refit(struct io_queue *queue, unsigned parts, unsigned frames, struct io **kept)
{
	struct io_queue old = *queue;

	if (parts == queue->parts.total && frames == queue->frames)
		return 0;
	if (furnish(queue, queue->roots.total, parts, frames))
		return -ENOMEM;
	for (struct io *io = *kept; io; io = io->next) {
		*kept = move(queue, &old, io);
		kept = &(*kept)->next;
	}
	munmap(old.roots.base, old.mapped);
	return 0;
}

void io_queue_release(struct io_queue *queue)
{
	munmap(queue->roots.base, queue->mapped);
}

struct io *io_get(struct io_queue *queue)
{
	struct io *io = pool_get(queue, &queue->roots);

	if (io)
		queue->out++;
	return io;
}

void io_put(struct io *io)
{
	io->queue->out--;
	pool_put(&io->queue->roots, io);
}

struct iovec *io_vector(struct io *io)
{
	struct io_queue *queue = io->queue;
	size_t index = (size_t)((char *)io - queue->roots.base) / queue->stride;

	return queue->vec + index * queue->vectors;
}

/* --- data --------------------------------------------------------------------------- */

struct io_data io_data_slice(struct io_data d, uint64_t start)
{
	while (d.count && start >= d.vec->iov_len - d.skip) {
		start -= d.vec->iov_len - d.skip;
		d.vec++;
		d.count--;
		d.skip = 0;
	}
	d.skip += (uint32_t)start;
	return d;
}

uint64_t io_data_length(struct io_data d)
{
	uint64_t length = 0;

	for (uint32_t i = 0; i < d.count; i++)
		length += d.vec[i].iov_len;
	return length - d.skip;
}

enum walk { WALK_OUT, WALK_IN, WALK_ZERO };

static void walk(struct io_data d, char *flat, uint64_t length, enum walk way)
{
	while (length && d.count) {
		uint64_t n = d.vec->iov_len - d.skip;
		char *at = (char *)d.vec->iov_base + d.skip;

		if (n > length)
			n = length;
		if (way == WALK_ZERO) {
			memset(at, 0, n);
		} else {
			memcpy(way == WALK_OUT ? flat : at, way == WALK_OUT ? at : flat, n);
			flat += n;
		}
		length -= n;
		d.vec++;
		d.count--;
		d.skip = 0;
	}
}

void io_data_copy_out(struct io_data data, void *to, uint64_t length)
{
	walk(data, to, length, WALK_OUT);
}

void io_data_copy_in(struct io_data data, const void *from, uint64_t length)
{
	walk(data, (char *)from, length, WALK_IN);
}

void io_data_zero(struct io_data data, uint64_t length)
{
	walk(data, NULL, length, WALK_ZERO);
}

const char *io_op_name(enum io_op op)
{
	static const char *const names[IO_OPS] = { "read", "write", "flush", "discard",
						   "write-zeroes" };

	return op < IO_OPS ? names[op] : "unknown";
}
