/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change.h - other layers under a disk in use
 *
 * What is wanted is a whole stack; what is done is the difference. A layer that is in both, with
 * the same options, stays open, wherever it is now; one that is there with other options is asked
 * whether it can take them (layer_ops.prepare); others are opened and closed. So inserting,
 * removing, reordering and reconfiguring layers, adding a leg, and wrapping a file into a mirror
 * are one thing.
 *
 *     change_prepare   opens what is new; requests go on        a thread that may wait
 *     change_commit    work of the layers' own ends; the gate   control thread; others by messages
 *                      is shut, requests below come back,
 *                      layers are linked anew, the gate opens
 *     change_finish    closes what is dropped                   a thread that may wait
 *
 * While the gate is shut, layers that keep something in what is below may have to write there: one
 * that goes (layer_ops.retire), or throws away what was changed (layer_ops.undo). A thread does
 * that which may wait, and then the change goes on.
 *
 * If what is below does not come back within a time, the gate opens again and nothing is changed.
 */
#pragma once

#include <stdint.h>

#include "layer/disk.h"

struct change;

/** Told of the end of change_commit(). */
struct change_end {
	void (*done)(struct change_end *end, struct error *err); /**< err->code 0: it is done */
};

/**
 * Prepares @disk for the stack @to, which is copied. NULL with @err, and nothing changed. One
 * change of a disk at a time: the caller sees to that.
 */
struct change *change_prepare(struct disk *disk, const struct stack_config *to, struct error *err);

/**
 * Prepares to throw away what was changed in the disk: in the first layer from its top on that can
 * do that (layer_ops.undo). It is done with the gate shut, by a thread that may wait. NULL with
 * @err.
 */
struct change *change_prepare_undo(struct disk *disk, struct error *err);

/** Does it; @end is told, on @control, the thread that calls. */
void change_commit(struct change *change, struct loop *control, struct change_end *end);

/** Frees it, and closes what is no longer in use: what was dropped or, after a failure, opened. */
void change_finish(struct change *change);

/** How long requests had to wait at the gate at most, ns. */
uint64_t change_pause(const struct change *change);
