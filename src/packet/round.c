/* SPDX-License-Identifier: BSD-3-Clause */
/* round.c - see vswitch_private.h */
#include <errno.h>
#include <stdlib.h>

#include "packet/vswitch_private.h"

static void run(struct loop_message *message)
{
	struct step *step = container_of(message, struct step, message);
	struct round *round = step->round;

	if (!step->back) {
		round->on_loop(round, step->index);
		step->back = true;
		loop_send(round->loops->control, &step->message);
	} else if (!--round->waiting) {
		round->done(round);
	}
}

int round_init(struct round *round, struct packet_loops *loops,
	       void (*on_loop)(struct round *round, unsigned index),
	       void (*done)(struct round *round))
{
	round->loops = loops;
	round->on_loop = on_loop;
	round->done = done;
	round->steps = calloc(loops->count, sizeof *round->steps);
	return round->steps ? 0 : -ENOMEM;
}

void round_start(struct round *round)
{
	round->waiting = round->loops->count;
	for (unsigned i = 0; i < round->loops->count; i++) {
		struct step *step = &round->steps[i];

		*step = (struct step){ .message.run = run, .round = round, .index = i };
		loop_send(round->loops->loops[i], &step->message);
	}
}

void round_release(struct round *round)
{
	free(round->steps);
}
