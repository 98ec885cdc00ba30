/* SPDX-License-Identifier: BSD-3-Clause */
/* stack_tree_private.h - what is in a layer that is JSON: for stack_tree.c and stack_edit.c */
#pragma once

#include "control/stack_tree.h"
#include "layer/layer.h"

static inline const char *stack_tree_kind(const json_t *layer)
{
	const char *kind = json_object_iter_key(json_object_iter((json_t *)layer));

	return kind ? kind : "";
}

static inline json_t *stack_tree_options(const json_t *layer)
{
	return json_object_iter_value(json_object_iter((json_t *)layer));
}

static inline json_t *stack_tree_legs(const json_t *layer)
{
	const struct layer_ops *ops = layer_find(stack_tree_kind(layer));

	return ops && ops->legs_option
		       ? json_object_get(stack_tree_options(layer), ops->legs_option)
		       : NULL;
}
