/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flaky.c - a disk on a bad day: errors, torn writes, delays, requests that overtake one
 * another
 *
 * On its way down a request is judged (fail it, tear it, let it pass) and, if there is a
 * delay, held until its time. The held requests of a queue stand in a list by that time,
 * with one timer. All is drawn from one generator a queue, seeded by the options, so that
 * a run on one queue can be repeated.
 */
#include <errno.h>

#include "layer/layer.h"

enum ops { OPS_ALL, OPS_READ, OPS_WRITE, OPS_FLUSH };

struct flaky {
	struct layer layer;
	double errors, torn;
	uint64_t delay, jitter; /* ns */
	uint64_t seed;
	int ops; /* enum ops: which fail and wait */
};

struct flaky_queue {
	uint64_t random;
	struct flaky *flaky;
	struct io *held; /* earliest first */
	struct loop_timer timer;
};

/* notes of a frame */
enum { NOTE_UNTIL, NOTE_STATUS };

/* xorshift64*, Vigna 2016 */
static uint64_t draw(struct flaky_queue *q)
{
	q->random ^= q->random >> 12;
	q->random ^= q->random << 25;
	q->random ^= q->random >> 27;
	return q->random * 0x2545f4914f6cdd1dull;
}

static bool happens(struct flaky_queue *q, double share)
{
	return share > 0 && (double)(draw(q) >> 11) < share * 9007199254740992.0;
}

static struct io_frame *held_frame(struct io *io)
{
	return &io->frame[io->depth - 1];
}

static void flaky_done(struct layer *layer, struct io *io)
{
	int verdict = (int)io_frame(io)->note[NOTE_STATUS];

	(void)layer;
	io_finish(io, verdict ? verdict : io->status);
}

static void let_go(struct flaky *f, struct io *io)
{
	if (held_frame(io)->note[NOTE_STATUS] && io->length == 0)
		io_finish(io, -EIO);
	else
		io_send(f->layer.below, io);
}

static void due(struct loop_timer *timer)
{
	struct flaky_queue *q = container_of(timer, struct flaky_queue, timer);
	struct io *io;

	while ((io = q->held)) {
		uint64_t until = held_frame(io)->note[NOTE_UNTIL];

		if (until > loop_now(io->queue->loop)) {
			loop_timer_set(io->queue->loop, timer, until);
			return;
		}
		q->held = io->next;
		let_go(q->flaky, io);
	}
}

static void hold(struct flaky_queue *q, struct io *io, uint64_t until)
{
	struct io **at = &q->held;

	held_frame(io)->note[NOTE_UNTIL] = until;
	while (*at && held_frame(*at)->note[NOTE_UNTIL] <= until)
		at = &(*at)->next;
	io->next = *at;
	*at = io;
	if (q->held == io)
		loop_timer_set(io->queue->loop, &q->timer, until);
}

static bool concerns(const struct flaky *f, const struct io *io)
{
	switch (f->ops) {
	case OPS_READ:
		return io->op == IO_READ;
	case OPS_WRITE:
		return io->op != IO_READ && io->op != IO_FLUSH;
	case OPS_FLUSH:
		return io->op == IO_FLUSH;
	default:
		return true;
	}
}

static void flaky_submit(struct layer *layer, struct io *io)
{
	struct flaky *f = (struct flaky *)layer;
	struct flaky_queue *q = layer_queue_state(layer, io->queue);
	struct io_frame *frame = io_push(layer, io, flaky_done);
	uint64_t wait = 0;

	frame->note[NOTE_STATUS] = 0;
	if (concerns(f, io)) {
		if (happens(q, f->errors)) {
			frame->note[NOTE_STATUS] = (uint64_t)-EIO;
			io->length = 0; /* nothing of it is done */
		} else if (io->op == IO_WRITE && happens(q, f->torn)) {
			uint64_t blocks = io->length / layer->block_size;

			frame->note[NOTE_STATUS] = (uint64_t)-EIO;
			io->length = draw(q) % blocks * layer->block_size;
		}
		wait = f->delay + (f->jitter ? draw(q) % f->jitter : 0);
	}
	if (wait)
		hold(q, io, loop_now(io->queue->loop) + wait);
	else
		let_go(f, io);
}

static void flaky_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct flaky *f = (struct flaky *)layer;
	struct flaky_queue *q = layer_queue_state(layer, queue);

	q->random = f->seed * 0x9e3779b97f4a7c15ull | 1;
	q->flaky = f;
	loop_timer_init(&q->timer, due);
}

static void flaky_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct flaky_queue *q = layer_queue_state(layer, queue);

	loop_timer_cancel(&q->timer);
}

static const char *const ops_choices[] = { "all", "read", "write", "flush", NULL };

static const struct option flaky_options[] = {
	{ .name = "errors",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct flaky, errors),
	  .help = "Share of requests that fail with an I/O error; nothing of them is done." },
	{ .name = "torn",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct flaky, torn),
	  .help = "Share of writes of which only the first blocks are written; they fail too." },
	{ .name = "delay",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct flaky, delay),
	  .max = 3600000000000,
	  .help = "Holds each request for so long before it goes on." },
	{ .name = "jitter",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct flaky, jitter),
	  .max = 3600000000000,
	  .help = "A random time up to this on top, so that requests overtake one another." },
	{ .name = "ops",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct flaky, ops),
	  .choices = ops_choices,
	  .fallback = "all",
	  .help = "Which requests are concerned; write includes discard and write-zeroes." },
	{ .name = "seed",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct flaky, seed),
	  .fallback = "1",
	  .help = "Of the random numbers; the same seed repeats a run on one queue." },
	{ 0 },
};

const struct layer_ops flaky_ops = {
	.name = "flaky",
	.summary = "errors, torn writes, delays and reordering, for tests",
	.description =
		"Makes a good disk behave like a bad one: for tests of file systems and databases, and "
		"for game days. A failed request fails with an I/O error in the guest.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - flaky: {errors: 1%, delay: 2ms, jitter: 5ms, ops: write}\n"
		   "      - memory: {size: 1G}\n",
	.size = sizeof(struct flaky),
	.options = flaky_options,
	.queue_state = sizeof(struct flaky_queue),
	.queue_open = flaky_queue_open,
	.queue_close = flaky_queue_close,
	.submit = flaky_submit,
};
