/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h - disks in memory with a volatile write cache, whose power can be cut at any moment
 *
 * A world is a few devices and a log of what happened in it: each write of a device as it came and
 * as it was completed, each flush, and (for the model, see model.h) what the guest was told. A
 * back-end of tests, device_ops, does reads and writes on a device of the current world, slowly and
 * in any order, and keeps the log.
 *
 * Nothing has to be stopped to cut the power: a cut follows the log to any event, and knows there
 * for each device what is on stable storage and which writes are not, or not for certain. From a
 * cut any number of images can be made that real hardware might have left: of the writes since the
 * last flush each is there, is not, or is torn between sectors, whatever happened to those before
 * it.
 *
 *     stable     a write with FUA that was completed; all that was completed before a flush
 *                came that was completed
 *     uncertain  all others that came, completed or not
 *     gone       a write over which a later one became stable
 *
 * One thread; of time there is none: a device answers in the next turn of the loop or a later one.
 */
#pragma once

#include "layer/crash/chance.h"
#include "layer/crash/host.h"
#include "layer/layer.h"

#define SECTOR      512u
#define DEVICES_MAX 8u

enum event_kind {
	DEVICE_WRITE, /* came; also zeroes, and discards where the device heeds them */
	DEVICE_WRITTEN,
	DEVICE_FLUSH,
	DEVICE_FLUSHED,
	GUEST_WRITE, /* sent; also zeroes and discard */
	GUEST_WRITTEN,
	GUEST_FLUSH,
	GUEST_FLUSHED,
	GUEST_READ, /* completed: one sector */
};

struct event {
	uint8_t kind;    /**< enum event_kind */
	uint8_t device;  /**< DEVICE_*: which */
	bool fua;        /**< a write */
	bool weak;       /**< GUEST_WRITE: a discard. GUEST_WRITTEN: it failed */
	uint32_t sector; /**< first, */
	uint32_t count;  /**< and how many */
	uint32_t of;     /**< *_WRITTEN, *_FLUSHED: index of the event with which it came */
	uint32_t stamp;  /**< GUEST_*: contents of the first sector; those that follow count on */
	unsigned char *data;          /**< DEVICE_WRITE: its bytes; NULL: zeroes */
	const struct host_file *host; /**< the file in the host's memory; NULL: none */
};

struct device {
	uint64_t size;        /**< bytes */
	unsigned char *bytes; /**< as a read finds them */
	bool absent;          /**< cannot be opened */
	bool dead;            /**< all requests fail */
	bool discards;        /**< a discard leaves zeroes; else nothing happens */
	unsigned dies_in;     /**< requests until it is dead; 0: never */
	unsigned queues;      /**< open */
};

struct world {
	struct device device[DEVICES_MAX];
	unsigned devices;
	unsigned char *start[DEVICES_MAX]; /**< their bytes when the log began */
	struct event *log;
	uint32_t events, room;
	struct host_file *found; /**< was there before; NULL: none */
	struct host_file *files; /**< in the log, the latest first */
	uint32_t active;      /**< counts requests to devices: when it stands still, all is quiet */
	struct chance chance; /**< for delays and order */
};

/** Devices of @sizes bytes, all zeroes. */
struct world *world_create(unsigned devices, const uint64_t *sizes, uint64_t seed);
void world_free(struct world *world);

/** The world in which device_ops are from now on. */
void world_enter(struct world *world);

/** The log begins here: with what the devices hold now, all of it stable. */
void world_begin(struct world *world);

/** Adds to the log. Returns the event's index. */
uint32_t world_note(struct world *world, struct event event);

/** The back-end: {device: N}. */
extern const struct layer_ops device_ops;

/* --- cutting the power ------------------------------------------------------------------ */

/** A write of which it is not certain whether it is on stable storage. */
struct uncertain {
	uint32_t event;      /**< with which it came */
	uint32_t done;       /**< event with which it was completed, or 0 */
	unsigned char *gone; /**< for each sector: a later write is stable; NULL: none is */
};

struct cut {
	const struct world *world;
	uint32_t at; /**< events before this one have happened */
	unsigned char *stable[DEVICES_MAX];
	struct uncertain
		*writes; /**< in the order in which they were completed, then those that were not */
	unsigned count, room;
};

/** What becomes of one uncertain write. */
struct fate {
	enum { LOST, KEPT, HEAD, TAIL, SOME } kind; /**< HEAD, TAIL: up to / from @where on */
	uint32_t where;                             /**< SOME: a seed */
};

enum cut_kind {
	POWER, /**< power is lost: any fate for every uncertain write */
	KILL,  /**< the program ends: what was completed is kept */
};

void cut_begin(struct cut *cut, const struct world *world);
void cut_end(struct cut *cut);

/** Goes on until @event has happened. */
void cut_follow(struct cut *cut, uint32_t event);

/** Draws a fate for each of cut->writes into @fates. */
void cut_draw(const struct cut *cut, enum cut_kind kind, struct chance *chance, struct fate *fates);

/** The world as it would be found again. */
struct world *cut_world(const struct cut *cut, enum cut_kind kind, const struct fate *fates,
			uint64_t seed);
