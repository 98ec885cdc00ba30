/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flaky.c - a disk on a bad day: errors, torn writes, delays, requests that overtake one
 * another
 *
 * On its way down a request is judged (fail it, tear it, let it pass) and, if there is a
 * delay, held until its time. All is drawn from one generator a queue, seeded by the options, so
 * that a run on one queue can be repeated. delay.c is for slow disks rather than bad ones.
 */
#include <errno.h>

#include "layer/chance.h"
#include "layer/layer.h"
#include "layer/trouble.h"
#include "layer/waiting.h"

struct flaky {
	struct layer layer;
	double errors, torn;
	uint64_t delay, jitter; /* ns */
	uint64_t seed;
	int ops; /* enum trouble_ops: which fail and wait */
};

struct flaky_queue {
	uint64_t random;
	struct waiting held;
};

/* note of a frame: what it will fail with, or 0 */
enum { NOTE_STATUS };

static void flaky_done(struct layer *layer, struct io *io)
{
	int verdict = (int)io_frame(io)->note[NOTE_STATUS];

	(void)layer;
	io_finish(io, verdict ? verdict : io->status);
}

static void let_go(struct layer *layer, struct io *io)
{
	if (io->frame[io->depth - 1].note[NOTE_STATUS] && io->length == 0)
		io_finish(io, -EIO);
	else
		io_send(layer->below, io);
}

static void flaky_submit(struct layer *layer, struct io *io)
{
	struct flaky *f = (struct flaky *)layer;
	struct flaky_queue *q = layer_queue_state(layer, io->queue);
	struct io_frame *frame = io_push(layer, io, flaky_done);
	uint64_t wait = 0;

	frame->note[NOTE_STATUS] = 0;
	if (trouble_concerns(f->ops, io)) {
		if (chance_happens(&q->random, f->errors)) {
			frame->note[NOTE_STATUS] = (uint64_t)-EIO;
			io->length = 0; /* nothing of it is done */
		} else if (io->op == IO_WRITE && chance_happens(&q->random, f->torn)) {
			uint64_t blocks = io->length / layer->block_size;

			frame->note[NOTE_STATUS] = (uint64_t)-EIO;
			io->length = chance_draw(&q->random) % blocks * layer->block_size;
		}
		wait = f->delay + (f->jitter ? chance_draw(&q->random) % f->jitter : 0);
	}
	if (wait)
		waiting_hold(&q->held, io, loop_now(io->queue->loop) + wait);
	else
		let_go(layer, io);
}

static int flaky_queue_open(struct layer *layer, struct io_queue *queue)
{
	const struct flaky *f = (const struct flaky *)layer;
	struct flaky_queue *q = layer_queue_state(layer, queue);

	q->random = chance_seed(f->seed);
	waiting_init(&q->held, layer, let_go);
	return 0;
}

static void flaky_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct flaky_queue *q = layer_queue_state(layer, queue);

	waiting_end(&q->held);
}

/* Any options will do at any time: they are read anew for each request. */
static int flaky_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	(void)layer;
	(void)plan;
	(void)err;
	return 0;
}

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
	TROUBLE_JITTER(struct flaky),
	TROUBLE_OPS(struct flaky),
	TROUBLE_SEED(struct flaky),
	{ 0 },
};

const struct layer_ops flaky_ops = {
	.name = "flaky",
	.summary = "errors, torn writes, delays and reordering, for tests",
	.description =
		"Makes a good disk behave like a bad one: for tests of file systems and databases, and "
		"for game days. A failed request fails with an I/O error in the guest. All options can "
		"be changed while the disk is in use. For stalls, and for completions that overtake one "
		"another, see delay.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - flaky: {errors: 1%, delay: 2ms, jitter: 5ms, ops: write}\n"
		   "      - memory: {size: 1G}\n",
	.size = sizeof(struct flaky),
	.options = flaky_options,
	.queue_state = sizeof(struct flaky_queue),
	.shows_below = true,
	.prepare = flaky_prepare,
	.queue_open = flaky_queue_open,
	.queue_close = flaky_queue_close,
	.submit = flaky_submit,
};
