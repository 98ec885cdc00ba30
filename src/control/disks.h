/* SPDX-License-Identifier: BSD-3-Clause */
/* disks.h - disks that come and go while penstock runs; see disks.c. Control thread only. */
#pragma once

struct config_disk;
struct daemon;
struct disk;
struct error;
struct waiter;

/**
 * Opens what @config says, whose contents it takes over, and tells @waiter when it is one of the
 * daemon's disks or why it is not. 0, or -errno with @err: then @waiter hears nothing.
 */
int disks_open(struct daemon *daemon, struct config_disk *config, struct waiter *waiter,
	       struct error *err);

/** Closes @disk, which no unit may have: else -EBUSY with @err. */
int disks_close(struct daemon *daemon, struct disk *disk, struct error *err);
