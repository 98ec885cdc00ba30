/* SPDX-License-Identifier: BSD-3-Clause */
/* json_tree.h - JSON as the tree that YAML becomes, and back; see json_tree.c */
#pragma once

#include <jansson.h>

struct mistakes;
struct node;

/** The tree of @json, without lines. NULL if it is too deep or too large, with the mistake. */
struct node *json_tree_read(const json_t *json, struct mistakes *mistakes);

/** The other way: all scalars are texts. A new value, or NULL if memory is short. */
json_t *json_tree_write(const struct node *node);
