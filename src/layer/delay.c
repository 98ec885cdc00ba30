/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * delay.c - a slow disk: latency, jitter, stalls, requests that are held until further notice
 *
 * A request waits before it goes on (side: before), or after it is done and before its completion
 * goes up (side: after): then a write is on the disk while the guest does not know it yet, and
 * completions overtake one another. Nothing fails here; flaky.c is for that.
 *
 * What is held, by hold or by a long time, must not keep the disk from being changed or closed.
 * Both begin with layer_ops.stop: it sends a message to each queue's loop, which lets go what waits
 * there, and until start nothing is held. A message may still be on its way when its queue closes,
 * so what it is embedded in is not the queue's state, and whichever comes last frees it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "layer/chance.h"
#include "layer/layer.h"
#include "layer/trouble.h"
#include "layer/waiting.h"

enum side { SIDE_BEFORE, SIDE_AFTER };

struct delay {
	struct layer layer;
	uint64_t delay, jitter; /* ns */
	double stalls;
	uint64_t stall; /* ns */
	bool hold;
	int side; /* enum side */
	int ops;  /* enum trouble_ops */
	uint64_t seed;

	pthread_mutex_t lock;
	struct list queues;
	atomic_bool passing;      /* nothing is held */
	_Atomic unsigned unheard; /* messages of a stop that have not run, and the stop itself */
	struct layer_stop *stop;
};

/* What waits on one queue. */
struct held {
	struct list link;
	struct delay *delay; /* NULL: the queue is closed */
	struct loop *loop;
	struct waiting waiting;
	struct loop_message message;
	bool sent;
};

struct delay_queue {
	uint64_t random;
	struct held *held;
};

/* --- a request ---------------------------------------------------------------------- */

/* How long @io is to wait, ns; UINT64_MAX: until it is let go. */
static uint64_t draw_wait(const struct delay *d, struct delay_queue *q, const struct io *io)
{
	uint64_t wait;

	if (!trouble_concerns(d->ops, io) ||
	    atomic_load_explicit(&d->passing, memory_order_relaxed))
		return 0;
	if (d->hold)
		return UINT64_MAX;
	wait = d->delay;
	if (d->jitter)
		wait += chance_draw(&q->random) % d->jitter;
	if (chance_happens(&q->random, d->stalls))
		wait += d->stall;
	return wait;
}

static void delay_hold(struct layer *layer, struct io *io, uint64_t wait)
{
	struct delay_queue *q = layer_queue_state(layer, io->queue);

	waiting_hold(&q->held->waiting, io,
		     wait == UINT64_MAX ? wait : loop_now(io->queue->loop) + wait);
}

static void delay_done(struct layer *layer, struct io *io)
{
	struct delay *d = (struct delay *)layer;
	uint64_t wait = draw_wait(d, layer_queue_state(layer, io->queue), io);

	if (wait)
		delay_hold(layer, io, wait);
	else
		io_finish(io, io->status);
}

static void delay_submit(struct layer *layer, struct io *io)
{
	struct delay *d = (struct delay *)layer;
	uint64_t wait;

	if (d->side == SIDE_AFTER) {
		io_send_then(layer, layer->below, io, delay_done);
		return;
	}
	wait = draw_wait(d, layer_queue_state(layer, io->queue), io);
	if (wait)
		delay_hold(layer, io, wait);
	else
		io_send(layer->below, io);
}

static void go_on(struct layer *layer, struct io *io)
{
	if (((struct delay *)layer)->side == SIDE_AFTER)
		io_finish(io, io->status);
	else
		io_send(layer->below, io);
}

/* --- letting go --------------------------------------------------------------------- */

static void one_heard(struct delay *d)
{
	struct layer_stop *stop = d->stop;

	if (atomic_fetch_sub(&d->unheard, 1) == 1)
		loop_send(stop->loop, &stop->done);
}

static void heard(struct loop_message *message)
{
	struct held *held = container_of(message, struct held, message);
	struct delay *d = held->delay;

	if (!d) {
		free(held);
		return;
	}
	pthread_mutex_lock(&d->lock);
	held->sent = false;
	pthread_mutex_unlock(&d->lock);
	waiting_let_go(&held->waiting);
	one_heard(d);
}

static void delay_stop(struct layer *layer, struct layer_stop *stop)
{
	struct delay *d = (struct delay *)layer;

	d->stop = stop;
	atomic_store(&d->passing, true);
	atomic_store(&d->unheard, 1);
	pthread_mutex_lock(&d->lock);
	list_for_each (link, &d->queues) {
		struct held *held = container_of(link, struct held, link);

		held->sent = true;
		atomic_fetch_add(&d->unheard, 1);
		loop_send(held->loop, &held->message);
	}
	pthread_mutex_unlock(&d->lock);
	one_heard(d);
}

static void delay_start(struct layer *layer, struct loop *home)
{
	(void)home;
	atomic_store(&((struct delay *)layer)->passing, false);
}

/* --- the ends ----------------------------------------------------------------------- */

static int delay_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct delay *d = (struct delay *)layer;
	struct delay_queue *q = layer_queue_state(layer, queue);

	q->held = calloc(1, sizeof *q->held);
	if (!q->held)
		return -ENOMEM;
	q->random = chance_seed(d->seed);
	q->held->delay = d;
	q->held->loop = queue->loop;
	q->held->message.run = heard;
	waiting_init(&q->held->waiting, layer, go_on);
	pthread_mutex_lock(&d->lock);
	list_add(&d->queues, &q->held->link);
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static void delay_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct delay *d = (struct delay *)layer;
	struct held *held = ((struct delay_queue *)layer_queue_state(layer, queue))->held;
	bool sent;

	waiting_end(&held->waiting);
	pthread_mutex_lock(&d->lock);
	list_remove(&held->link);
	sent = held->sent;
	pthread_mutex_unlock(&d->lock);
	held->delay = NULL;
	if (!sent)
		free(held);
	else
		one_heard(d);
}

static int delay_open(struct layer *layer, struct error *err)
{
	struct delay *d = (struct delay *)layer;

	(void)err;
	pthread_mutex_init(&d->lock, NULL);
	list_init(&d->queues);
	return 0;
}

static void delay_close(struct layer *layer)
{
	pthread_mutex_destroy(&((struct delay *)layer)->lock);
}

/* Any options will do at any time: nothing waits when they are changed. */
static int delay_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	(void)layer;
	(void)plan;
	(void)err;
	return 0;
}

static const char *const side_choices[] = { "before", "after", NULL };

static const struct option delay_options[] = {
	{ .name = "delay",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct delay, delay),
	  .max = 3600000000000,
	  .help = "Holds each request for so long." },
	TROUBLE_JITTER(struct delay),
	{ .name = "stalls",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct delay, stalls),
	  .help = "Share of requests that take longer still, by the time of stall." },
	{ .name = "stall",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct delay, stall),
	  .fallback = "1s",
	  .max = 3600000000000,
	  .help = "How much longer those take." },
	{ .name = "hold",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct delay, hold),
	  .fallback = "false",
	  .help = "Holds every request, until the option is changed or the disk closes." },
	{ .name = "side",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct delay, side),
	  .choices = side_choices,
	  .fallback = "before",
	  .help = "before: a request waits, and is carried out then; after: it is carried out, and its "
		  "completion waits." },
	TROUBLE_OPS(struct delay),
	TROUBLE_SEED(struct delay),
	{ 0 },
};

const struct layer_ops delay_ops = {
	.name = "delay",
	.summary = "latency, jitter, stalls, and requests held until released",
	.description =
		"Makes a good disk slow: a remote or overloaded one, or one that does not answer at all "
		"for a while. No request fails. All options can be changed while the disk is in use; any "
		"change of the disk's layers lets go what is held at that moment. With hold the guest's "
		"own time limits can be watched at work.",
	.example =
		"disks:\n"
		"  db:\n"
		"    stack:\n"
		"      - delay: {delay: 2ms, jitter: 5ms, stalls: 0.1%, stall: 20s, side: after}\n"
		"      - memory: {size: 1G}\n",
	.size = sizeof(struct delay),
	.options = delay_options,
	.queue_state = sizeof(struct delay_queue),
	.shows_below = true,
	.open = delay_open,
	.close = delay_close,
	.prepare = delay_prepare,
	.start = delay_start,
	.stop = delay_stop,
	.queue_open = delay_queue_open,
	.queue_close = delay_queue_close,
	.submit = delay_submit,
};
