/* SPDX-License-Identifier: BSD-3-Clause */
/* moves.h - disks that move to another back-end while guests use them; see moves.c. Control thread
 * only. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct daemon;
struct disk;
struct disk_record;
struct error;
struct move_job;
struct waiter;

/**
 * Begins to move @disk to the layers @to (full form of stack_tree.h), which take the place of all
 * from
 * @place on (NULL: of the last one, the back-end), at @limit bytes a second at most (0: no limit).
 * @waiter is told when the target is open and copying has begun, or why not. 0, or -errno with
 * @err: then @waiter hears nothing.
 */
int moves_begin(struct daemon *daemon, struct disk *disk, const json_t *to, const char *place,
		uint64_t limit, struct waiter *waiter, struct error *err);

/** Another limit for the one that is under way. 0, or -ENOENT with @err. */
int moves_limit(struct daemon *daemon, struct disk *disk, uint64_t limit, struct error *err);

/**
 * Ends the one that is under way; the disk stays where it was. @waiter is told when all of it is
 * over. 0, or -ENOENT or -EBUSY with @err.
 */
int moves_cancel(struct daemon *daemon, struct disk *disk, struct waiter *waiter,
		 struct error *err);

/** Of the one that is under way, or the last one; a new object, or NULL if there was none. */
json_t *moves_report(const struct disk_record *record);

/** What metrics say of it; false if none is under way. */
struct move_numbers {
	uint64_t bytes, size; /**< copied, and all */
};
bool moves_numbers(const struct disk_record *record, struct move_numbers *numbers);

/** Cancels all: penstock is ending. */
void moves_end(struct daemon *daemon);

/** Frees what is kept of one that is over. NULL is allowed. */
void moves_forget(struct move_job *job);
