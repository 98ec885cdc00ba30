/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * move.h - the layer that is there while a disk moves from what is below it to its leg
 *
 * Whoever moves a disk puts it above what is to be replaced, by a change (change.h) with move_ops
 * and the target as its leg. It copies when the disk is in service, and tells when that is over. If
 * it is complete, both sides hold the same, all that the guest was told is flushed is so on both,
 * and each change goes to both: so the next change may leave the target alone there, or the source.
 */
#pragma once

#include "layer/layer.h"

extern const struct layer_ops move_ops;

enum move_state { MOVE_COPYING, MOVE_COMPLETE, MOVE_FAILED };

/** How far it is. */
struct move_progress {
	enum move_state state;
	uint64_t total, done; /**< bytes */
	uint64_t limit;       /**< bytes a second; 0: none */
	int status;           /**< -errno of a failure; -ECANCELED after move_cancel() */
	bool source;          /**< it was the source that failed */
};

/** Any thread. */
void move_progress(const struct layer *move, struct move_progress *progress);

/**
 * From now on the target counts as much as the source: whoever starts anew may find either. A
 * change is done if it is done on both, and a failure on either is the guest's. False if it is not
 * complete, or has failed before. Control thread.
 */
bool move_settle(struct layer *move);

/** Not so: as move_cancel(), which has no effect after move_settle(). Control thread. */
void move_unsettle(struct layer *move);

/** Any thread; 0: no limit. Takes effect at once. */
void move_limit(struct layer *move, uint64_t bytes_per_second);

/** Ends it as failed; the target is not written to any more. Any thread. */
void move_cancel(struct layer *move);

/**
 * @over is sent to @loop once when it is no longer copying, at once if it is not. Control thread,
 * once for a move.
 */
void move_watch(struct layer *move, struct loop *loop, struct loop_message *over);

/** The move layer among those from @top on, or NULL. Control thread. */
struct layer *move_find(struct layer *top);
