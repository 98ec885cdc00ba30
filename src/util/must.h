/* SPDX-License-Identifier: BSD-3-Clause */
/* must.h - memory without which the program cannot even start */
#pragma once

#include <stdlib.h>

#include "util/log.h"

/**
 * Returns @memory, or ends the program with status 1 if it is NULL. For start-up and for
 * commands only: once guests are served, a lack of memory is an error like any other.
 */
static inline void *must(void *memory)
{
	if (!memory) {
		log_error("out of memory");
		exit(1);
	}
	return memory;
}
