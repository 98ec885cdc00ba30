/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * epoch.h - one life of a disk in a world: it is opened, a guest uses it, it is closed
 *
 * The guest reads all of it, works, reads all again, and holds what it finds against the model
 * while it goes on. What it was told stands in the world's log beside what the devices did, so that
 * the life can be cut off at any event afterwards.
 */
#pragma once

#include "layer/crash/model.h"
#include "layer/disk.h"

/** A stack over devices. */
struct scene {
	char what[300]; /**< in words */
	struct stack_config stack;
	struct disk_config config;
	unsigned devices;
	uint64_t size[DEVICES_MAX]; /**< of the devices, bytes */
	uint32_t sectors;           /**< of the disk */
	unsigned legs; /**< devices 0 to @legs-1 are below a mirror, which may do without one; 0:
			  none are */
	unsigned base; /**< the device + 1 whose sectors the new disk shows; 0: it shows none */
	/** Makes new devices ready, so that the disk shows zeroes; NULL: they are. */
	void (*format)(const struct scene *scene, struct chance *chance);
};

struct epoch_plan {
	uint64_t seed;
	unsigned requests; /**< between the readings */
	bool reads_first;  /**< all of it, before the requests */
	bool reads_last;   /**< and after them */
	bool settles;      /**< waits until the devices are quiet, and reads again */
};

enum epoch_result {
	EPOCH_GOOD,
	EPOCH_REFUSED, /* the disk would not open */
	EPOCH_WRONG,
};

/**
 * Lives it in @world, whose log begins here. @model is followed along. @why (600 bytes) says what
 * was refused or wrong.
 */
enum epoch_result epoch_run(const struct scene *scene, struct world *world, struct model *model,
			    const struct epoch_plan *plan, char *why);

/** Stamps are given out once in a run of the program. */
uint32_t epoch_stamps(uint32_t count);

/** The sector that was wrong in the last one, or UINT32_MAX. */
uint32_t epoch_wrong_sector(void);
