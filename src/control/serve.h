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

/**
 * The tree of one disk over @path and one VM that has it at @socket (NULL: @options say it).
 * @options are @count arguments "name=value". NULL if that fails, with the mistakes.
 */
struct node *serve_tree(const char *path, const char *socket, char *const *options, unsigned count,
			struct mistakes *mistakes);
