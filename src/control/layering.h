/* SPDX-License-Identifier: BSD-3-Clause */
/* layering.h - other layers for a disk that is in use; see layering.c. Control thread only. */
#pragma once

#include <jansson.h>

struct daemon;
struct disk;
struct error;
struct stack_config;
struct waiter;

/**
 * Reads @stack, in any form that users may write, for @disk into @config. 0, or -EINVAL with @err,
 * which says all that is wrong.
 */
int layering_read(const struct disk *disk, const json_t *stack, struct stack_config *config,
		  struct error *err);

/**
 * Gives @disk the layers @config, which it takes over, and tells @waiter when they are in service,
 * or why not; then nothing is changed. 0, or -errno with @err: then @waiter hears nothing.
 */
int layering_begin(struct daemon *daemon, struct disk *disk, struct stack_config *config,
		   struct waiter *waiter, struct error *err);

/** Throws away what was changed in @disk, and tells @waiter; see change_prepare_undo(). As above.
 */
int layering_undo(struct daemon *daemon, struct disk *disk, struct waiter *waiter,
		  struct error *err);
