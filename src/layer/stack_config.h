/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack_config.h - a stack as its user wrote it: a list of layers, the one that requests meet first
 * at its head, each with its options as texts and, where it has them, stacks of its own
 */
#pragma once

#include <stdbool.h>

struct layer_ops;

/** A list of layers. */
struct stack_config {
	struct layer_config *layers; /**< the last one is a back-end, or has legs */
	unsigned count;
};

/** One layer: which kind, its options as text, its legs. */
struct layer_config {
	const struct layer_ops *ops;
	struct layer_setting {
		char *name, *value;
		unsigned line; /**< in the configuration file; 0: none */
	} * settings;
	unsigned count;
	struct stack_config *legs;
	unsigned leg_count;
};

/** The value of the option @name as it was written, or NULL. */
const char *layer_config_get(const struct layer_config *layer, const char *name);

/** True if the two are of one kind with the same options; their legs are not compared. */
bool layer_config_equal(const struct layer_config *a, const struct layer_config *b);

/** A copy of @from into @to. 0 or -ENOMEM, with nothing left to free. */
int stack_config_copy(struct stack_config *to, const struct stack_config *from);

/** The same of one layer, without its legs. */
int layer_config_copy(struct layer_config *to, const struct layer_config *from);

/** Frees all of it, and leaves it empty. */
void stack_config_release(struct stack_config *config);
void layer_config_release(struct layer_config *layer);
