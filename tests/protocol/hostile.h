/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hostile.h - the scene for a guest that lies: two VMs on one daemon
 *
 * VM "liar" (disk "liar") is the test's; VM "honest" has a driver in a thread of its own that
 * writes, reads and compares without pause from before the lie until after it. What a lie may do:
 * break the liar's device, with a reason in the log. What it may not: end the daemon, disturb the
 * honest VM, or keep the liar from starting afresh.
 */
#pragma once

#include "check.h"

/* What must come of a lie. */
enum outcome {
	BREAKS,  /* the device is broken: reason logged, NEEDS_RESET, error event, rings at rest */
	FAILS,   /* the request comes back with a status that is not OK */
	REFUSED, /* one of those */
	SETTLED, /* one of those, or the request comes back OK: the lie harms nobody */
	SERVED,  /* the request comes back OK: it is unusual, but no lie */
};

extern struct daemon hostile_daemon;
extern struct driver *liar;

/* cmocka setup and teardown. The liar's disk is a file; hostile_start_memory() puts it in memory.
 */
int hostile_start(void **state);
int hostile_start_memory(void **state);
int hostile_stop(void **state);

/* Attaches the liar's driver. */
struct virtq *liar_attach(uint64_t features);
/* A good read of 4 KiB from sector 0 in slot 0: header, data, status, NEXT flags set. */
void liar_good_read(struct virtq *queue, struct piece piece[3]);

/* Checks the outcome for the request in slot 0. */
void expect_outcome(struct virtq *queue, enum outcome outcome);
/* The device is broken, in all ways it has to be. */
void expect_broken(struct virtq *queue);
/* DEVICE_NEEDS_RESET is set, within seconds. */
void expect_needs_reset(void);
/* A reason that names the liar is in the log since liar_attach(). */
void expect_reason(void);
/* The daemon lives and the honest VM makes progress, unharmed. */
void expect_others_go_on(void);
/* The liar resets its device and works; `memory_lost`: with a new driver only. */
void expect_recovery(bool memory_lost);
