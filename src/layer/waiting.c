/* SPDX-License-Identifier: BSD-3-Clause */
/* waiting.c - requests that wait for their time; see waiting.h */
#include "layer/waiting.h"

static uint64_t time_of(const struct io *io)
{
	return io->op_kernel.offset;
}

static void due(struct loop_timer *timer)
{
	struct waiting *w = container_of(timer, struct waiting, timer);
	struct io *io;

	while ((io = w->first)) {
		if (time_of(io) > loop_now(io->queue->loop)) {
			loop_timer_set(io->queue->loop, timer, time_of(io));
			return;
		}
		w->first = io->next;
		w->go(w->layer, io);
	}
}

void waiting_init(struct waiting *waiting, struct layer *layer, io_done_fn *go)
{
	waiting->layer = layer;
	waiting->go = go;
	loop_timer_init(&waiting->timer, due);
}

void waiting_hold(struct waiting *waiting, struct io *io, uint64_t until)
{
	struct io **at = &waiting->first;

	io->op_kernel.offset = until;
	while (*at && time_of(*at) <= until)
		at = &(*at)->next;
	io->next = *at;
	*at = io;
	if (waiting->first == io && until != UINT64_MAX)
		loop_timer_set(io->queue->loop, &waiting->timer, until);
}

void waiting_let_go(struct waiting *waiting)
{
	struct io *io, *all = waiting->first;

	waiting->first = NULL;
	loop_timer_cancel(&waiting->timer);
	while ((io = all)) {
		all = io->next;
		waiting->go(waiting->layer, io);
	}
}

void waiting_end(struct waiting *waiting)
{
	loop_timer_cancel(&waiting->timer);
}
