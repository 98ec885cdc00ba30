/* SPDX-License-Identifier: BSD-3-Clause */
/* records.h - what the control side keeps of each disk beside the disk. Control thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

struct daemon;
struct disk;
struct error;
struct move_job;

/** Of one disk. */
struct disk_record {
	struct list link; /**< of the daemon */
	struct disk *disk;
	const char *busy; /**< what is under way with it, such as "its layers are being changed" */
	uint64_t changes; /**< of its layers, so far */
	uint64_t pause, longest_pause, all_pauses; /**< ns: of the last of them, ... */
	struct json_t
		*becoming; /**< the stack that it is about to have, for the state file; or NULL */
	struct move_job *move; /**< the one that is under way, or was the last; NULL */
};

/** Begins one for @disk. False: no memory. */
bool record_add(struct daemon *daemon, struct disk *disk);

/** The one of @disk, which is one of the daemon's. */
struct disk_record *record_of(const struct daemon *daemon, const struct disk *disk);

/** Ends it. */
void record_remove(struct daemon *daemon, const struct disk *disk);

/**
 * One thing at a time: takes @disk for @what, a text that stays, until record_done(). 0, or -EBUSY
 * with @err, which says what is under way.
 */
int record_take(struct daemon *daemon, struct disk *disk, const char *what, struct error *err);
void record_done(struct daemon *daemon, struct disk *disk);

/** Counts a change of @disk's layers, for which requests waited at most @pause ns. */
void record_change(struct daemon *daemon, const struct disk *disk, uint64_t pause);
