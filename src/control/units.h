/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * units.h - media and units of devices that come, change and go while the guest runs; see units.c.
 * Control thread only.
 */
#pragma once

#include <stdbool.h>

struct daemon;
struct daemon_device;
struct disk;
struct error;
struct waiter;

/** One unit of a device of a VM. */
struct unit_place {
	struct daemon_device *slot;
	unsigned unit; /**< index */
};

/**
 * Finds the unit called @unit of @device of @vm; "-" is the only unit of a device that has but one.
 * 0, or -ENOENT with @err, which says what was probably meant.
 */
int units_find(const struct daemon *daemon, const char *vm, const char *device, const char *unit,
	       struct unit_place *place, struct error *err);

/**
 * Puts @disk into the unit in place of what is there (NULL: takes it out, and leaves the drive
 * empty); @force although the guest has locked the drive. @waiter is told when the old disk is no
 * longer used, or why nothing was changed. 0, or -errno with @err: then @waiter hears nothing.
 */
int units_set_disk(struct daemon *daemon, const struct unit_place *place, struct disk *disk,
		   bool force, struct waiter *waiter, struct error *err);

/** Hot plug: the unit comes, with @disk (NULL: an empty drive). As units_set_disk(). */
int units_attach(struct daemon *daemon, const struct unit_place *place, struct disk *disk,
		 struct waiter *waiter, struct error *err);

/** Hot unplug: the unit goes. As units_set_disk(). */
int units_detach(struct daemon *daemon, const struct unit_place *place, struct waiter *waiter,
		 struct error *err);

/** True if a unit has @disk, or still has it, or is about to; @err says which. */
bool units_use(const struct daemon *daemon, const struct disk *disk, struct error *err);
