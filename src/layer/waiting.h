/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiting.h - requests of one queue that wait for their time, earliest first, with one timer
 *
 * For layers that hold requests (flaky, delay). Who waits is the layer's: its op_kernel keeps the
 * time, which no back-end needs meanwhile.
 */
#pragma once

#include "io/io.h"

struct waiting {
	struct io *first;
	struct loop_timer timer;
	struct layer *layer;
	io_done_fn *go; /**< of @layer, for each when its time has come */
};

void waiting_init(struct waiting *waiting, struct layer *layer, io_done_fn *go);

/** Holds @io until @until, ns of loop_now(); UINT64_MAX: until they are let go. */
void waiting_hold(struct waiting *waiting, struct io *io, uint64_t until);

/** Their time has come, of all that wait now. */
void waiting_let_go(struct waiting *waiting);

/** No more timer; nobody waits. */
void waiting_end(struct waiting *waiting);
