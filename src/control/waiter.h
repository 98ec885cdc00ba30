/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * waiter.h - who waits for something that ends later, on the control thread
 *
 * What is under way holds a pointer to its waiter, which may leave before the end; then nobody is
 * told, and it goes on all the same.
 */
#pragma once

#include <stddef.h>

struct error;

/** Embedded in who waits. Zero-initialise, but for @done. */
struct waiter {
	/** It has ended: well, if @err has no code. May be called before whoever began it returns.
	 */
	void (*done)(struct waiter *waiter, const struct error *err);
	struct waiter **held; /**< where it is held; NULL: nowhere */
};

/** @waiter waits for what holds it at @place. */
static inline void waiter_hold(struct waiter **place, struct waiter *waiter)
{
	*place = waiter;
	waiter->held = place;
}

/** Waits no more. */
static inline void waiter_leave(struct waiter *waiter)
{
	if (waiter->held)
		*waiter->held = NULL;
	waiter->held = NULL;
}

/** Whoever is held at @from, if anybody, waits for what holds it at @to. */
static inline void waiter_move(struct waiter **to, struct waiter **from)
{
	struct waiter *waiter = *from;

	*to = NULL;
	if (!waiter)
		return;
	waiter_leave(waiter);
	waiter_hold(to, waiter);
}

/** Tells whoever is held at @place, if anybody. */
static inline void waiter_tell(struct waiter **place, const struct error *err)
{
	struct waiter *waiter = *place;

	if (!waiter)
		return;
	waiter_leave(waiter);
	waiter->done(waiter, err);
}
