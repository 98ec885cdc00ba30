/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workers.h - threads that compute for loops: one pool for the process
 *
 * As many threads as cores, started when they are first needed. A job is plain code on memory it
 * was lent; it tells its loop by a message or io_wake(). They sleep when there is nothing to do.
 *
 * Helpers come late or not at all: a core may be busy with a loop of its own. So whoever splits
 * work lets each thread claim the next piece, and claims pieces too until none is left; see
 * layer/crypt_split.c.
 */
#pragma once

#include <stdbool.h>

/** Something to compute. Its owner keeps it until @run is called. */
struct work {
	struct work *next; /**< the pool's */
	void (*run)(struct work *work);
};

/**
 * Has @work run on some thread of the pool. Any thread. False: all its threads have enough to do,
 * or there is no pool since this process has but one core; run it yourself.
 */
bool workers_do(struct work *work);

/** How many threads there are, or will be: the cores that the process may use; 0 if that is one. */
unsigned workers_count(void);

/** Ends the threads, once they have done what they were given. At the end of the process. */
void workers_end(void);
