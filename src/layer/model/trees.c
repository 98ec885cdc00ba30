/* SPDX-License-Identifier: BSD-3-Clause */
/* trees.c - trees of layers and changes of them; see trees.h */
#include "layer/model/trees.h"

#include "layer/model/layers.h"
#include "layer/model/volume.h"
#include "layer/move.h"

#define LISTS 32u

static bool is(const struct layer_config *layer, const char *name)
{
	return !strcmp(layer->ops->name, name);
}

/* --- layers that show what is below them ------------------------------------------------------ */

static const char *const passing[] = { "pass", "flaky", "delay", "cache", "split", "hold" };

#define PASSING (sizeof passing / sizeof *passing)

static const struct layer_ops *find(const char *name)
{
	if (!strcmp(name, "split"))
		return &split_ops;
	if (!strcmp(name, "hold"))
		return &hold_ops;
	return layer_find(name);
}

static bool passes(const struct layer_config *layer)
{
	for (unsigned i = 0; i < PASSING; i++)
		if (is(layer, passing[i]))
			return true;
	return false;
}

static void draw_options(struct layer_config *layer, struct chance *c)
{
	while (layer->count) {
		free(layer->settings[--layer->count].name);
		free(layer->settings[layer->count].value);
	}
	if (is(layer, "flaky")) {
		testing_set(layer, "errors", "%u%%", (unsigned)chance_of(c, 3));
		testing_set(layer, "torn", "%u%%", (unsigned)chance_of(c, 3));
		testing_set(layer, "seed", "%u", (unsigned)chance_of(c, 1000));
	}
	if (is(layer, "flaky") || is(layer, "delay")) {
		testing_set(layer, "delay", "%uus", (unsigned)chance_of(c, 100));
		testing_set(layer, "jitter", "%uus", (unsigned)chance_of(c, 300));
	}
	if (is(layer, "cache"))
		testing_set(layer, "size", "%uM", 1 + (unsigned)chance_of(c, 4));
	if (is(layer, "crypt")) {
		testing_set(layer, "key-file", "%s", volume_key());
		testing_set(layer, "workers", "%u", (unsigned)chance_of(c, 3));
		testing_set(layer, "workers-from", "128K");
	}
}

/* One more layer before the @at-th of @list. */
static void insert(struct stack_config *list, unsigned at, const struct layer_ops *ops,
		   struct chance *c)
{
	struct layer_config layer;

	testing_layer(list, ops);
	layer = list->layers[list->count - 1];
	draw_options(&layer, c);
	memmove(&list->layers[at + 1], &list->layers[at], (list->count - 1 - at) * sizeof layer);
	list->layers[at] = layer;
}

static void take_out(struct stack_config *list, unsigned at)
{
	layer_config_release(&list->layers[at]);
	list->count--;
	memmove(&list->layers[at], &list->layers[at + 1],
		(list->count - at) * sizeof *list->layers);
}

static bool draw_insert(struct stack_config *list, struct chance *c)
{
	const struct layer_ops *ops = find(passing[chance_of(c, PASSING)]);

	if (!ops || list->count > 6)
		return false;
	insert(list, (unsigned)chance_of(c, list->count), ops, c);
	return true;
}

/* --- back-ends -----------------------------------------------------------------------------------
 */

/* Each has a size of its own, KiB: two that were the same by their options could be taken for one
 * another. And each is larger than those before it, so that a disk can move to it. */
static unsigned next_size(unsigned mib)
{
	static unsigned more;

	return mib * 1024 + 64 * ++more;
}

static void add_memory(struct stack_config *list, unsigned mib)
{
	testing_set(testing_layer(list, layer_find("memory")), "size", "%uK", next_size(mib));
}

static void add_file(struct tree *tree, struct stack_config *list, unsigned mib)
{
	static unsigned number;
	struct layer_config *file = testing_layer(list, layer_find("file"));

	testing_set(file, "path", "%s/%u.img", tree->directory, number++);
	testing_set(file, "create", "true");
	testing_set(file, "size", "%uK", next_size(mib));
}

static void add_crypt(struct stack_config *list, struct chance *c)
{
	draw_options(volume_layer(list), c);
}

/* A place for a copy, or for an overlay's data: new, and zeroes. */
static void add_place(struct tree *tree, struct stack_config *list, unsigned mib, struct chance *c)
{
	if (!layer_find("crypt") || chance_of(c, 4)) {
		add_memory(list, mib);
		return;
	}
	add_crypt(list, c);
	add_file(tree, list, mib + 1);
	volume_format(list, tree->block_size, c);
}

/* @keeps: its bytes are there when it is opened again. */
static void draw_backend(struct tree *tree, struct chance *c, bool keeps)
{
	struct stack_config *list = &tree->stack;
	struct layer_config *layer;

	switch (chance_of(c, layer_find("stripe") ? 4 : 2)) {
	case 0:
		if (keeps)
			add_file(tree, list, 4);
		else
			add_memory(list, 4);
		return;
	case 1:
		add_file(tree, list, 4);
		return;
	case 2:
		layer = testing_layer(list, layer_find("stripe"));
		testing_set(layer, "chunk", "%uK", 4u << chance_of(c, 4));
		break;
	default:
		layer = testing_layer(list, layer_find("concat"));
		break;
	}
	/* An overlay's store is larger than what it shows. */
	for (unsigned i = 0; i < 2; i++) {
		if (keeps)
			add_file(tree, testing_leg(layer), 3);
		else
			add_memory(testing_leg(layer), 3);
	}
}

struct tree tree_draw(struct chance *c, const char *directory)
{
	struct tree tree = { .block_size = chance_of(c, 3) ? 512 : 4096, .directory = directory };
	bool encrypted = layer_find("crypt") && chance_of(c, 3) == 0;

	/* With other bytes on the back-end than the guest sees. */
	if (chance_of(c, 3) == 0)
		testing_layer(&tree.stack, &twist_ops);
	if (encrypted)
		add_crypt(&tree.stack, c);
	draw_backend(&tree, c, encrypted);
	volume_format(&tree.stack, tree.block_size, c);
	for (uint64_t layers = chance_of(c, 3); layers; layers--)
		draw_insert(&tree.stack, c);
	return tree;
}

/* --- changes
 * ------------------------------------------------------------------------------------------ */

/* All lists of a tree. */
static unsigned lists_of(struct stack_config *stack, struct stack_config **lists, unsigned count)
{
	if (count < LISTS)
		lists[count++] = stack;
	for (unsigned i = 0; i < stack->count; i++)
		for (unsigned k = 0; k < stack->layers[i].leg_count; k++)
			count = lists_of(&stack->layers[i].legs[k], lists, count);
	return count;
}

static struct layer_config *last(struct stack_config *list)
{
	return &list->layers[list->count - 1];
}

/* Where what becomes a leg begins: the back-end at the end, or the crypt above it. */
static unsigned draw_leg(const struct stack_config *list, struct chance *c)
{
	for (unsigned i = 0; i < list->count; i++)
		if (is(&list->layers[i], "crypt") && chance_of(c, 2))
			return i;
	return list->count - 1;
}

/* The end of @list becomes the first leg of a mirror. */
static bool wrap(struct tree *tree, struct stack_config *list, struct chance *c)
{
	struct stack_config leg = { 0 };
	struct layer_config *mirror;
	unsigned at;

	if (!layer_find("mirror") || is(last(list), "mirror"))
		return false;
	at = draw_leg(list, c);
	for (unsigned i = at; i < list->count; i++)
		*testing_layer(&leg, list->layers[i].ops) = list->layers[i];
	list->count = at;
	mirror = testing_layer(list, layer_find("mirror"));
	testing_set(mirror, "create", "true");
	*testing_leg(mirror) = leg;
	add_place(tree, testing_leg(mirror), 8, c);
	return true;
}

static bool change_legs(struct tree *tree, struct stack_config *list, struct chance *c, bool add)
{
	struct layer_config *mirror = last(list);
	unsigned at;

	if (!is(mirror, "mirror") || (add ? mirror->leg_count > 3 : mirror->leg_count < 2))
		return false;
	if (add) {
		add_place(tree, testing_leg(mirror), 8, c);
		return true;
	}
	at = (unsigned)chance_of(c, mirror->leg_count);
	stack_config_release(&mirror->legs[at]);
	mirror->leg_count--;
	memmove(&mirror->legs[at], &mirror->legs[at + 1],
		(mirror->leg_count - at) * sizeof *mirror->legs);
	return true;
}

static bool change_one(struct stack_config *list, struct chance *c, enum tree_change kind)
{
	unsigned at = (unsigned)chance_of(c, list->count);
	struct layer_config swapped;

	if (!passes(&list->layers[at]) &&
	    !(kind == TREE_RECONFIGURE && is(&list->layers[at], "crypt")))
		return false;
	switch (kind) {
	case TREE_REMOVE:
		take_out(list, at);
		return true;
	case TREE_REORDER:
		if (!passes(&list->layers[at + 1]))
			return false;
		swapped = list->layers[at];
		list->layers[at] = list->layers[at + 1];
		list->layers[at + 1] = swapped;
		return true;
	default:
		if (!list->layers[at].count)
			return false;
		draw_options(&list->layers[at], c);
		return true;
	}
}

static bool add_overlay(struct tree *tree, struct chance *c)
{
	struct layer_config *overlay;

	if (tree->overlay || !layer_find("overlay"))
		return false;
	insert(&tree->stack, 0, layer_find("overlay"), c);
	overlay = &tree->stack.layers[0];
	if (chance_of(c, 2))
		testing_set(overlay, "copy-on-read", "true");
	add_place(tree, testing_leg(overlay), 8, c);
	tree->overlay = true;
	return true;
}

static bool begin_move(struct tree *tree, struct chance *c)
{
	unsigned at = tree->stack.count - 1;

	if (tree->overlay)
		return false;
	insert(&tree->stack, at, &move_ops, c);
	add_place(tree, testing_leg(&tree->stack.layers[at]), 4, c);
	return true;
}

void tree_move_ends(struct tree *tree, bool complete)
{
	struct stack_config *list = &tree->stack, target;
	unsigned at = 0;

	while (list->layers[at].ops != &move_ops)
		at++;
	target = list->layers[at].legs[0];
	list->layers[at].legs[0] = (struct stack_config){ 0 };
	take_out(list, at);
	if (complete) {
		while (list->count > at)
			take_out(list, at);
		for (unsigned i = 0; i < target.count; i++)
			*testing_layer(list, target.layers[i].ops) = target.layers[i];
		target.count = 0;
	}
	stack_config_release(&target);
}

static bool draw_one(struct tree *tree, struct chance *c, enum tree_change kind)
{
	struct stack_config *lists[LISTS];
	struct stack_config *list = lists[chance_of(c, lists_of(&tree->stack, lists, 0))];

	switch (kind) {
	case TREE_INSERT:
		return draw_insert(list, c);
	case TREE_MIRROR:
		return wrap(tree, list, c);
	case TREE_ADD_LEG:
	case TREE_REMOVE_LEG:
		return change_legs(tree, list, c, kind == TREE_ADD_LEG);
	case TREE_OVERLAY:
		return add_overlay(tree, c);
	case TREE_MOVE:
		return begin_move(tree, c);
	default:
		return change_one(list, c, kind);
	}
}

enum tree_change tree_draw_change(struct tree *tree, struct chance *c)
{
	enum tree_change kind;

	do
		kind = (enum tree_change)chance_of(c, TREE_CHANGES);
	while (!draw_one(tree, c, kind));
	return kind;
}

struct tree tree_copy(const struct tree *tree)
{
	struct tree copy = *tree;

	if (stack_config_copy(&copy.stack, &tree->stack))
		abort();
	return copy;
}

void tree_free(struct tree *tree)
{
	stack_config_release(&tree->stack);
}

const char *tree_change_name(enum tree_change change)
{
	static const char *const names[] = { "insert",      "remove",  "reorder",
					     "reconfigure", "mirror",  "add leg",
					     "remove leg",  "overlay", "move" };

	return names[change];
}
