/* SPDX-License-Identifier: BSD-3-Clause */
/* serve.h - from the arguments of `penstock serve` to the tree that a file would give */
#pragma once

#include <stdbool.h>

struct frontend;
struct layer_ops;
struct mistakes;
struct node;

/** The names of the one disk and the one VM of `penstock serve`. */
#define SERVE_DISK "disk"
#define SERVE_VM   "vm"

/** The kind of its device. */
const struct frontend *serve_frontend(void);

/** True if PATH may be the name of @ops and a colon: a back-end that needs no path. */
bool serve_by_name(const struct layer_ops *ops);

/** Where the one disk is to be reached. */
struct serve_at {
	const char *socket;     /**< by a VMM; NULL: @options say it, or no VM has the disk */
	const char *nbd_socket; /**< by NBD clients, too; NULL: it is not exported */
};

/**
 * The tree of one disk over @path, and of one VM that has it, or NBD clients, or both. Clients may
 * write if there is no VM. @options are @count arguments "name=value". NULL if that fails, with the
 * mistakes.
 */
struct node *serve_tree(const char *path, const struct serve_at *at, char *const *options,
			unsigned count, struct mistakes *mistakes);
