/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copier.h - copies regions of a disk from one layer to another, beside the guest's requests
 *
 * For a mirror's resync and for moving a disk. It has a queue of its own onto each side, on the
 * layer's home loop. A region is locked exclusively while it is read and written; so a write of a
 * guest waits for that region at most, and the copying ends however slow the target is. Several
 * regions are under way at once; where the source says that a region is zeroes, zeroes are written
 * so that the target stays sparse. A limit on its speed, and stopping, take effect at once.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "layer/layer.h"
#include "layer/ranges.h"

/** What is to be copied, and what has been. The owner fills in the first part, zeroes the rest. */
struct copier {
	struct layer *from, *to;
	struct ranges *ranges; /**< of the owner, who locks with it what guests write */
	uint64_t size;         /**< bytes to copy at most: the end of the disk */
	uint32_t region;       /**< bytes; a power of 2, the region of @ranges or a multiple */
	/**
	 * The next region to copy, at or after @at: its offset, or UINT64_MAX if there is none. On
	 * the copier's thread, without its lock; asked again at the end, so that regions may come
	 * up meanwhile. NULL: all, in order.
	 */
	uint64_t (*next)(struct copier *copier, uint64_t at);
	/** A region is copied, @status 0 or -errno; still locked. NULL: nobody is told. After an
	 * error no other region is begun. */
	void (*copied)(struct copier *copier, uint64_t offset, int status);
	/** Nothing is left and @to is flushed (status 0), a region failed (-errno), or it was
	 * stopped (-ECANCELED). */
	void (*ended)(struct copier *copier, int status);
	/**
	 * Counts the requests of guests, or NULL. While it goes on the copier takes one region at a
	 * time, and rests five times as long as it worked, so that guests keep most of the devices.
	 */
	const _Atomic uint64_t *guests;
	_Atomic uint64_t limit; /**< bytes a second; 0: none. Any thread */
	_Atomic uint64_t bytes; /**< copied so far. Any thread */
	/** Set by any thread: it ends with -ECANCELED, within a tenth of a second but for what is
	 * under way. */
	atomic_bool cancel;
	struct copier_run *run; /**< while it runs; its loop's thread */
};

/** Begins on @loop, which is this thread's. 0 or -ENOMEM. ended() is not called inside. */
int copier_start(struct copier *copier, struct loop *loop);

/**
 * Asks it to end, on its loop's thread; ended() tells, later. No effect if it does not run: the
 * owner's message to the loop can ask whether it does, by copier.run.
 */
void copier_stop(struct copier *copier);
