/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intake.h - the bursts of an uplink that reads from a descriptor, each with memory for frames
 *
 * A few are enough: most come back before the call that passes them on returns, so the one that was
 * used last, which is in the caches, is used next. Those lent to other loops come back by message.
 * When all are out nothing is read, and what comes waits in the kernel.
 *
 * On the uplink's home loop, but for intake_init() and intake_release().
 */
#pragma once

#include "packet/packet.h"

struct intake;

/** A burst, and what it holds until it is released. */
struct intake_burst {
	struct burst *burst;
	struct intake *intake;
	struct intake_burst *next;
	uint8_t *area;         /**< of intake.area bytes */
	size_t used;           /**< of it; the reader's */
	unsigned first, slots; /**< the reader's: what is given back on release */
};

struct intake {
	struct intake_burst *all, *free;
	unsigned count, busy;
	size_t area;
	/** @one has come back; it is free after the call. */
	void (*returned)(struct intake *intake, struct intake_burst *one);
};

/** Prepares @count bursts with @area bytes each. 0 or -ENOMEM. */
int intake_init(struct intake *intake, unsigned count, size_t area,
		void (*returned)(struct intake *intake, struct intake_burst *one));
/** None of them is in use. */
void intake_release(struct intake *intake);

/** A burst that has begun, or NULL: all are in use. */
struct intake_burst *intake_begin(struct intake *intake);
