/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * json_tree.c - JSON as the tree that YAML becomes, and back
 *
 * What can be said in a configuration file can be said to the API, and is read by the same code.
 * In the tree all scalars are texts, which the tables of options understand, so numbers and truth
 * values become the texts that they would be in YAML; null is no value, as in YAML ("pass:").
 * Depth and size are bounded as they are there.
 */
#include "control/json_tree.h"

#include <stdio.h>

#include "control/mistakes.h"
#include "control/yaml.h"
#include "util/must.h"

#define DEPTH  16   /* of values in values */
#define VALUES 1024 /* in one array or object */

static struct node *scalar(const json_t *json)
{
	char text[64] = "";

	if (json_is_string(json))
		return node_new(NODE_SCALAR, json_string_value(json), 0);
	if (json_is_integer(json))
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
	else if (json_is_real(json))
		snprintf(text, sizeof text, "%.15g", json_real_value(json));
	else if (json_is_boolean(json))
		snprintf(text, sizeof text, "%s", json_is_true(json) ? "true" : "false");
	return node_new(NODE_SCALAR, text, 0);
}

static struct node *read_value(const json_t *json, unsigned depth, struct mistakes *mistakes)
{
	bool object = json_is_object(json);
	struct node *node, *child = NULL;
	const char *key;
	json_t *value;
	size_t i;

	if (!object && !json_is_array(json))
		return scalar(json);
	if (depth == DEPTH) {
		mistake(mistakes, 0, "nested more than %d deep", DEPTH);
		return NULL;
	}
	if (json_object_size(json) > VALUES || json_array_size(json) > VALUES) {
		mistake(mistakes, 0, "more than %d values in one object or array", VALUES);
		return NULL;
	}
	node = node_new(object ? NODE_MAPPING : NODE_SEQUENCE, NULL, 0);
	if (object) {
		json_object_foreach((json_t *)json, key, value)
		{
			child = read_value(value, depth + 1, mistakes);
			if (!child)
				break;
			node_add(node, key, child);
		}
	} else {
		json_array_foreach(json, i, value)
		{
			child = read_value(value, depth + 1, mistakes);
			if (!child)
				break;
			node_add(node, NULL, child);
		}
	}
	if (child || (!json_object_size(json) && !json_array_size(json)))
		return node;
	node_free(node);
	return NULL;
}

struct node *json_tree_read(const json_t *json, struct mistakes *mistakes)
{
	return read_value(json, 0, mistakes);
}

json_t *json_tree_write(const struct node *node)
{
	json_t *json;

	if (node->type == NODE_SCALAR)
		return json_string(node->text);
	json = node->type == NODE_MAPPING ? json_object() : json_array();
	for (const struct node *item = node->first; item; item = item->next)
		if (node->type == NODE_MAPPING)
			json_object_set_new(json, item->key, json_tree_write(item));
		else
			json_array_append_new(json, json_tree_write(item));
	return json;
}
