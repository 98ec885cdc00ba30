/* SPDX-License-Identifier: BSD-3-Clause */
/* layers.c - split, twist, hold; see layers.h */
#include "layer/model/layers.h"

#include <stdlib.h>

#include "layer/crash/chance.h"

#define PARTS 5u

/* --- chance: of each thread --------------------------------------------------------------------
 */

static _Atomic uint64_t seeds;

void model_seed(uint64_t seed)
{
	atomic_store(&seeds, seed * 1000);
}

static uint64_t chance(uint64_t n)
{
	static _Thread_local struct chance mine;

	if (!mine.state)
		mine = chance_seed(atomic_fetch_add(&seeds, 1));
	return chance_of(&mine, n);
}

/* --- split -------------------------------------------------------------------------------- */

static void split_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

/* Cuts a request into up to PARTS at block boundaries, and sends them in any order. */
static void split_submit(struct layer *layer, struct io *io)
{
	uint64_t blocks = io->length / layer->block_size;
	uint64_t cut[PARTS + 1] = { 0 };
	unsigned parts = 1, first;

	if (io->op == IO_FLUSH) {
		io_send(layer->below, io);
		return;
	}
	while (parts < PARTS && cut[parts - 1] + 1 < blocks && chance(4)) {
		cut[parts] = cut[parts - 1] + 1 + chance(blocks - cut[parts - 1] - 1);
		parts++;
	}
	cut[parts] = blocks;
	first = (unsigned)chance(parts);
	io_parts_begin(layer, io, split_done);
	for (unsigned n = 0; n < parts; n++) {
		unsigned i = (first + n) % parts;
		uint64_t start = cut[i] * layer->block_size;

		io_send_part(io, layer->below, start, (cut[i + 1] - cut[i]) * layer->block_size,
			     io->offset + start);
	}
	io_parts_end(io);
}

const struct layer_ops split_ops = {
	.name = "split",
	.size = sizeof(struct layer),
	.fan_out = PARTS,
	.submit = split_submit,
};

/* --- twist: data changes its form on the way; zeroes stay zeroes ----------------------- */

static void twist(unsigned char *at, uint64_t offset, uint64_t length, bool back)
{
	for (uint64_t i = 0; i < length; i++) {
		unsigned turn = 1 + (offset + i) % 7;

		if (back)
			turn = 8 - turn;
		at[i] = (unsigned char)(at[i] << turn | at[i] >> (8 - turn));
	}
}

static void twist_read_done(struct layer *layer, struct io *io)
{
	unsigned char *flat;

	(void)layer;
	if (!io->status) {
		flat = malloc(io->length);
		io_data_copy_out(io->data, flat, io->length);
		twist(flat, io->offset, io->length, true);
		io_data_copy_in(io->data, flat, io->length);
		free(flat);
	}
	io_finish(io, io->status);
}

static void twist_write_done(struct layer *layer, struct io *io)
{
	(void)layer;
	free((void *)(uintptr_t)io_frame(io)->note[0]);
	io_finish(io, io->status);
}

static void twist_submit(struct layer *layer, struct io *io)
{
	struct {
		struct iovec vec[2];
		unsigned char bytes[];
	} * bounce;
	uint64_t cut;

	if (io->op == IO_READ) {
		io_send_then(layer, layer->below, io, twist_read_done);
		return;
	}
	if (io->op != IO_WRITE) {
		io_send(layer->below, io);
		return;
	}
	/* The bounce buffer is two iovecs, of which the first bytes are not used. */
	bounce = malloc(sizeof *bounce + 8 + io->length);
	cut = 8 + 1 + chance(io->length - 1);
	io_data_copy_out(io->data, bounce->bytes + 8, io->length);
	twist(bounce->bytes + 8, io->offset, io->length, false);
	bounce->vec[0] = (struct iovec){ bounce->bytes, cut };
	bounce->vec[1] = (struct iovec){ bounce->bytes + cut, 8 + io->length - cut };
	io_push(layer, io, twist_write_done)->note[0] = (uintptr_t)bounce;
	io->data = (struct io_data){ .vec = bounce->vec, .count = 2, .skip = 8 };
	io_send(layer->below, io);
}

const struct layer_ops twist_ops = {
	.name = "twist",
	.size = sizeof(struct layer),
	.alters = true,
	.submit = twist_submit,
};

/* --- hold: keeps requests on their way down and up, and lets them go in any order ------ */

struct hold_queue {
	struct loop_timer timer;
	struct layer *layer;
	struct io *held;
	unsigned count;
};

enum { HOLD_DOWN, HOLD_UP };

/* Until it is let go the io is this layer's, and so are its op_kernel and its place on the way. */
static void hold(struct hold_queue *q, struct io *io, int way)
{
	struct io **at = &q->held;

	for (uint64_t n = chance(q->count + 1u); n; n--)
		at = &(*at)->next;
	io->op_kernel.data = (void *)(intptr_t)way;
	io->next = *at;
	*at = io;
	if (!q->count++)
		loop_timer_set(io->queue->loop, &q->timer,
			       loop_now(io->queue->loop) + chance(200000));
}

static void hold_done(struct layer *layer, struct io *io)
{
	hold(layer_queue_state(layer, io->queue), io, HOLD_UP);
}

static void hold_due(struct loop_timer *timer)
{
	struct hold_queue *q = container_of(timer, struct hold_queue, timer);
	struct io *io, *all = q->held;

	q->held = NULL;
	q->count = 0;
	while ((io = all)) {
		all = io->next;
		if ((intptr_t)io->op_kernel.data == HOLD_UP)
			io_finish(io, io->status);
		else
			io_send_then(q->layer, q->layer->below, io, hold_done);
	}
}

static void hold_submit(struct layer *layer, struct io *io)
{
	if (chance(3))
		hold(layer_queue_state(layer, io->queue), io, HOLD_DOWN);
	else
		io_send_then(layer, layer->below, io, hold_done);
}

static int hold_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct hold_queue *q = layer_queue_state(layer, queue);

	q->layer = layer;
	loop_timer_init(&q->timer, hold_due);
	return 0;
}

const struct layer_ops hold_ops = {
	.name = "hold",
	.size = sizeof(struct layer),
	.queue_state = sizeof(struct hold_queue),
	.queue_open = hold_queue_open,
	.submit = hold_submit,
};
