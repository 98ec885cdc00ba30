/* SPDX-License-Identifier: BSD-3-Clause */
/* change_private.h - a change of a disk's layers: what change.c and change_plan.c share */
#pragma once

#include "layer/change.h"
#include "layer/stack.h"
#include "util/error.h"

#define LOOPS_MAX 256 /* that a daemon may have */

/* One layer of the wanted stack. */
struct wish {
	const struct layer_config *config;
	bool read_only;
	struct layer_part part; /* of it that the one above uses */
	unsigned below;         /* index of that wish + 1; 0: none */
	unsigned *legs;         /* likewise */
	struct layer *layer;    /* what fulfils it */
	bool fresh;             /* opened for it */
	bool prepared;          /* it was there, and knows of the change */
	struct layer_plan plan; /* the links it is to have; options if it was asked */
	struct links {
		struct layer *below, **legs;
		unsigned leg_count;
	} links; /* the same; once it is linked so, those that it had */
	struct layer_config
		settings; /* a copy, for a layer that keeps its place with other options */
};

/* What a change has to do with one loop. */
struct visit {
	struct change *change;
	struct loop *loop;
	struct loop_message shut, drained, pass, passed;
	bool waits; /* for its queues to become empty */
	bool sent;  /* shut */
};

enum phase { PREPARED, STOPPING, SHUTTING, PASSING };

struct change {
	struct disk *disk;
	struct stack_config to;
	struct wish *wishes; /* the last is the top */
	unsigned count;
	struct layer *
		*there; /* layers before the change, those below first; NULL: taken by a wish */
	unsigned there_count;
	struct layer *undo;      /* whose changes are to be thrown away; then there are no wishes */
	struct layer **retiring; /* those that are told that they go, or lose legs; tops first */
	unsigned retiring_count;
	pthread_t thread; /* that undoes or retires them, with the gate shut */
	struct loop_message worked;
	size_t states; /* see stack_setting: those of the layers that are there, and of the new ones
			*/
	struct loop *control, *home;
	struct change_end *end;
	struct layer_stop stop;
	struct loop_timer timer;
	enum phase phase;
	unsigned answers; /* that are still to come */
	struct visit visits[LOOPS_MAX];
	unsigned visit_count;
	bool done;              /* the new layers are in service */
	struct error err;       /* why not */
	_Atomic uint64_t pause; /* ns */
};

/* What the wishes are, which layers fulfil them, and that its guest will see the same data. */
int change_plan(struct change *c, const struct stack_config *to, struct error *err);
