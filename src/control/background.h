/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * background.h - work that may wait (for storage, for a lock), done by a thread of its own as plain
 * code, for the control loop, which is told of its end
 */
#pragma once

#include <pthread.h>

#include "loop/loop.h"

struct error;

/** Embedded in what the work is about, which must stay until @done is called. */
struct background {
	void (*work)(struct background *background); /**< on the thread */
	void (*done)(struct background *background); /**< on the control loop, after it */
	struct loop *control;
	struct loop_message message;
	pthread_t thread;
};

/**
 * Begins @work, whose end is told to @done on @control, the loop that calls. 0, or -errno with @err
 * and nothing begun.
 */
int background_start(struct background *background, struct loop *control,
		     void (*work)(struct background *), void (*done)(struct background *),
		     struct error *err);
