/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ranges.h - locks on ranges of a disk, for layers that run on several loops
 *
 * A disk is divided into regions; a table of slots, fewer than regions, says who has them. Requests
 * take shared locks, which cost an atomic addition each way while nobody has the range exclusively;
 * who copies, fills or moves a region takes it exclusively. Whoever has to wait is parked, without
 * a thread waiting, and is woken on its own queue's thread, in the order of coming. An io locks one
 * range at a time in a given table, so there is no deadlock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"

struct ranges;

/** Locks for regions of @region bytes (a power of 2). NULL: no memory. */
struct ranges *ranges_create(uint64_t region);
void ranges_destroy(struct ranges *ranges);

/**
 * Locks [@offset, @offset+@length) for @io, which the caller holds. True: it has it. False: the
 * caller gives the io away, and @go(@layer, @io) is called on its thread once it has the lock.
 */
bool ranges_lock(struct ranges *ranges, struct io *io, uint64_t offset, uint64_t length,
		 bool exclusive, struct layer *layer, io_done_fn *go);

/** Lets go what was locked with the same numbers. Any thread. */
void ranges_unlock(struct ranges *ranges, uint64_t offset, uint64_t length, bool exclusive);
