/* SPDX-License-Identifier: BSD-3-Clause */
/* inspect.h - what penstock has written into a file or a block device, for people: `penstock
 * inspect` */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct invocation;

/** One format of ours on disk; inspect.c has the table. */
struct inspect_format {
	const char *name; /**< "a leg of a mirror" */
	/**
	 * Prints what is in @fd (@size bytes), if it is of this format, and whether it is good. 1:
	 * it is not of this format; 0: it is good; -1: it is damaged, and that was said.
	 */
	int (*show)(int fd, uint64_t size);
	/** Takes it out of use: then show() says 1. 0, or -1 with errno. NULL: it cannot be. */
	int (*wipe)(int fd, uint64_t size);
};

/** inspect_mirror.c */
extern const struct inspect_format inspect_mirror;
/** inspect_overlay.c */
extern const struct inspect_format inspect_overlay;

/** The command. */
int inspect(const struct invocation *in);
