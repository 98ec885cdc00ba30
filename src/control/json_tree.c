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

#define DEPTH  16   /* of values in values */
#define VALUES 1024 /* in one array or object */

static struct node *scalar(const json_t *json)
{
	char text[64] = "";

	if (json_is_string(json))
		return node_make(NODE_SCALAR, json_string_value(json), 0);
	if (json_is_integer(json))
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
	else if (json_is_real(json))
		snprintf(text, sizeof text, "%.15g", json_real_value(json));
	else if (json_is_boolean(json))
		snprintf(text, sizeof text, "%s", json_is_true(json) ? "true" : "false");
	return node_make(NODE_SCALAR, text, 0);
}

/* False if there is no @child, or no memory for it. */
static bool add(struct node *node, const char *key, struct node *child, struct mistakes *mistakes)
{
	if (!child)
		return false;
	if (node_put(node, key, child))
		return true;
	mistake_no_memory(mistakes);
	return false;
}

static struct node *read_value(const json_t *json, unsigned depth, struct mistakes *mistakes)
{
	bool object = json_is_object(json);
	struct node *node;
	bool good = true;
	const char *key;
	json_t *value;
	size_t i;

	if (!object && !json_is_array(json)) {
		node = scalar(json);
		if (!node)
			mistake_no_memory(mistakes);
		return node;
	}
	if (depth == DEPTH) {
		mistake(mistakes, 0, "nested more than %d deep", DEPTH);
		return NULL;
	}
	if (json_object_size(json) > VALUES || json_array_size(json) > VALUES) {
		mistake(mistakes, 0, "more than %d values in one object or array", VALUES);
		return NULL;
	}
	node = node_make(object ? NODE_MAPPING : NODE_SEQUENCE, NULL, 0);
	if (!node) {
		mistake_no_memory(mistakes);
		return NULL;
	}
	json_object_foreach((json_t *)json, key, value)
		good = good && add(node, key, read_value(value, depth + 1, mistakes), mistakes);
	json_array_foreach(json, i, value)
		good = good && add(node, NULL, read_value(value, depth + 1, mistakes), mistakes);
	if (good)
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
