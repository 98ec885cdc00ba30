/* SPDX-License-Identifier: BSD-3-Clause */
/* state_private.h - what the state file is about: for state_read.c and state.c */
#pragma once

#include <stdint.h>

#include "control/background.h"
#include "control/state.h"
#include "util/error.h"
#include "util/list.h"

/* What the configuration says of a disk or a device. */
struct origin {
	char *vm, *name; /* @vm NULL: a disk */
	uint64_t hash;   /* of what its user wrote */
	uint64_t begun;  /* of what it was when the daemon was ready, as config_write.c writes it */
	bool replaced;   /* by what the file says, or removed */
};

struct state {
	char *path;
	struct origin *origins;
	unsigned count;
	/* Of a running daemon. */
	struct background background;
	struct daemon *daemon;
	bool writing, again;
	char *text; /* being written */
	struct error err;
	struct list now, next; /* of struct keeping: told when it is written, or the next time */
};

/** The one of a disk (@vm NULL) or a device, or NULL. */
struct origin *state_origin(const struct state *state, const char *vm, const char *name);
