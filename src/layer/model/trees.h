/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trees.h - random trees of layers, and random changes from one to another that shows the same
 * bytes
 *
 * What the program does not have (a layer that is not built in) is not drawn.
 */
#pragma once

#include "layer/crash/chance.h"
#include "layer/testing_build.h"

enum tree_change {
	TREE_INSERT,      /* a layer that shows what is below */
	TREE_REMOVE,      /* one of those */
	TREE_REORDER,     /* two of those that are neighbours */
	TREE_RECONFIGURE, /* one of those, or a crypt, has other options */
	TREE_MIRROR, /* a back-end, with the crypt above it or without, becomes a mirror's leg */
	TREE_ADD_LEG,
	TREE_REMOVE_LEG,
	TREE_OVERLAY, /* all of it becomes the base of an overlay */
	TREE_MOVE,    /* the layer that moves it to another back-end comes; see tree_move_ends() */
	TREE_CHANGES,
};

struct tree {
	struct stack_config stack;
	uint32_t block_size;   /* which the disk must have */
	const char *directory; /* of its files; the caller's */
	bool overlay;          /* has one */
};

/** A tree to begin with; its files are in @directory. It holds 2 MiB at least. */
struct tree tree_draw(struct chance *chance, const char *directory);

/** Changes it, in a way that is possible for it. */
enum tree_change tree_draw_change(struct tree *tree, struct chance *chance);

/** After a TREE_MOVE: the target takes the place of what moved, or goes. */
void tree_move_ends(struct tree *tree, bool complete);

struct tree tree_copy(const struct tree *tree);
void tree_free(struct tree *tree);
const char *tree_change_name(enum tree_change change);
