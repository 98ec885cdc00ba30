/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model.h - what a disk may show, sector by sector, after whatever happened to it
 *
 * Contents are stamps: 0 is zeroes, any other number tells all bytes of a sector (and its place).
 * Of each sector the model has the versions that it may hold, the oldest first:
 *
 *     live     what a read may find now. One after a write; after a write that failed, or a
 *              discard, the old ones too; a read settles it.
 *     others   older: a crash may bring them back, until a flush or FUA has made a newer one
 *              certain, which drops all before it.
 *
 * What was there when the disk was opened is certain, but not yet known if a crash came before: the
 * first read tells which version survived, and from then on it must stay (monotonic reads).
 *
 * The same functions are called while a run goes on, and once more by whoever follows the log of it
 * up to a crash.
 */
#pragma once

#include "layer/crash/device.h"

#define VERSIONS 10u

struct sector {
	uint32_t stamp[VERSIONS];
	uint32_t done[VERSIONS]; /**< event when it was completed; 0: it was not */
	uint16_t live, weak;     /**< bits of versions; weak: it need not have happened */
	uint8_t count;           /**< of versions; at least 1 */
	uint8_t before;          /**< of these: from before the disk was opened */
	uint8_t readers;         /**< the driver's */
	bool changing;           /**< likewise: the last version is not completed */
};

struct model {
	uint32_t sectors;
	struct sector *sector;
	bool strict; /**< what was read from before the opening stays over the next crash, too */
};

struct model *model_create(uint32_t sectors);
struct model *model_copy(const struct model *from);
void model_free(struct model *model);

/** True if a sector can hold one version more. */
bool model_has_room(const struct model *model, uint32_t sector);

/** The event @index (of @log) happens. False if it is a read that finds what it must not. */
bool model_follow(struct model *model, const struct event *log, uint32_t index);

/** What may be found after a crash: every version possible or, after KILL, what was completed. */
void model_crash(struct model *model, enum cut_kind kind);

/** The versions of a sector in words, for a failure. Returns @text. */
char *model_describe(const struct model *model, uint32_t sector, char *text, size_t size);

/** The bytes of @stamp at @sector; and back, or UINT32_MAX if they are nobody's. */
void stamp_write(uint32_t stamp, uint32_t sector, unsigned char *bytes);
uint32_t stamp_read(const unsigned char *bytes, uint32_t sector);
