/* SPDX-License-Identifier: BSD-3-Clause */
/* state_private.h - what the state file is about: for state_read.c and state.c */
#pragma once

#include <stdint.h>

#include "control/background.h"
#include "control/state.h"
#include "util/error.h"
#include "util/list.h"

enum origin_kind { ORIGIN_DISK, ORIGIN_DEVICE, ORIGIN_PORT };

/* What the configuration says of a disk, a device or a port. */
struct origin {
	enum origin_kind kind;
	char *vm, *name; /* @vm: of a device, else NULL; disks and ports have names of their own */
	uint64_t hash;   /* of what its user wrote */
	uint64_t begun;  /* of what it was when the daemon was ready, as config_write.c writes it */
	bool replaced;   /* by what the file says, or removed */
	struct json_t *last; /* of a port: what it was when something was kept last; or NULL */
};

struct state {
	char *path;
	int lock; /* a descriptor; -1: none is needed */
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

/** The one of a disk or port (@vm NULL), or of a device; or NULL. */
struct origin *state_origin(const struct state *state, const char *vm, const char *name);
