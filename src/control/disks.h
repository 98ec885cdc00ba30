/* SPDX-License-Identifier: BSD-3-Clause */
/* disks.h - disks that come, grow and go while penstock runs; see disks.c. Control thread only. */
#pragma once

#include <stdint.h>

struct config_disk;
struct daemon;
struct disk;
struct error;
struct waiter;

/*
 * Each tells @waiter when it is done, and kept in the state file, or why not. 0, or -errno with
 * @err: then @waiter hears nothing.
 */

/** Opens what @config says, whose contents it takes over, as another of the daemon's disks. */
int disks_open(struct daemon *daemon, struct config_disk *config, struct waiter *waiter,
	       struct error *err);

/** Grows @disk to @size bytes. */
int disks_resize(struct daemon *daemon, struct disk *disk, uint64_t size, struct waiter *waiter,
		 struct error *err);

/**
 * Closes @disk, which no unit and no NBD client may have: else -EBUSY with @err, and @waiter hears
 * nothing. It is none of the daemon's from now on; @waiter is told when it is closed.
 */
int disks_close(struct daemon *daemon, struct disk *disk, struct waiter *waiter, struct error *err);
