/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_testing.h - for tests of changes: a disk that two loops load while this thread, the
 * control thread, changes it
 *
 * Each loop has blocks of its own and knows what it wrote there. The layer probe counts what is
 * done to it.
 */
#pragma once

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "layer/change.h"
#include "layer/crash/chance.h"
#include "layer/disk.h"
#include "layer/testing_build.h"
#include "util/error.h"

/* --- change_testing_probe.c ------------------------------------------------------------------ */

/** A layer that passes all on, and does what its options say. */
struct probe {
	struct layer layer;
	uint64_t value, seen; /* option; what it was when last opened or committed */
	char *fail;           /* "open", "prepare", "retire", or nothing */
	bool asked, retired;
};

extern const struct layer_ops probe_ops;

/** What has been done to all probes since the disk was opened. */
extern struct counts {
	int opened, closed, prepared, committed, abandoned, started, stopped, retired, stayed;
	_Atomic int queues, inside;
} counts;

/* --- change_testing.c ------------------------------------------------------------------------ */

#define BLOCK  512u
#define BLOCKS 64u /* of each loop */
#define LOOPS  2u
#define DEPTH  8u

extern struct disk *disk;
extern struct loop *control;

extern struct load {
	struct loop *loop;
	struct loop_message begin, turn, end;
	bool turning;
	struct disk_queue *queue;
	struct chance chance;
	uint64_t first; /* block */
	uint8_t content[BLOCKS];
	bool busy[BLOCKS];
	unsigned char bytes[DEPTH][BLOCK];
	bool slot[DEPTH];
	unsigned out;
	bool ending, over;
	sem_t ended;
	_Atomic unsigned done, wrong;
} load[LOOPS];

/** Opens the disk with @stack, which is released, and begins to load it. */
void open_disk(struct stack_config stack);

/** Ends the load, which must have gone on and found nothing wrong, and closes the disk. */
void close_disk(void);

/** Waits until the load has gone on; what it has read was right. */
void load_goes_on(void);

/** For load.begin.run: goes on after load.end, whose end is load.ended. */
void load_again(struct loop_message *message);

/** Runs the control loop until something stops it. */
void run_control(void);

/** How the last change ended. @end is for change_commit(): it stops the control loop. */
extern struct outcome {
	struct change_end end;
	struct error err;
} outcome;

/** A new outcome, for a change that the test does by itself. */
void begin_change(void);

/** Changes the disk to @stack, which is released. 0 or an errno, with outcome.err. */
int change_to(struct stack_config stack);

/** 1M of memory; and a probe with these options (NULL: not given) above it. */
struct stack_config memory_stack(void);
struct stack_config probe_stack(const char *value, const char *fail);
