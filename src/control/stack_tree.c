/* SPDX-License-Identifier: BSD-3-Clause */
/* stack_tree.c - a stack as JSON: from open layers, in full and in short, in words; see
 * stack_tree.h */
#include "control/stack_tree_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/disk.h"
#include "util/error.h"
#include "util/suggest.h"

/* --- that nothing gets lost where memory is short ------------------------------------------ */

/* @array with @item at its end, or NULL with both freed. */
static json_t *append(json_t *array, json_t *item)
{
	if (!array) {
		json_decref(item);
		return NULL;
	}
	if (!json_array_append_new(array, item))
		return array;
	json_decref(array);
	return NULL;
}

/* @object with @value called @name, likewise. */
static json_t *with(json_t *object, const char *name, json_t *value)
{
	if (!object) {
		json_decref(value);
		return NULL;
	}
	if (!json_object_set_new(object, name, value))
		return object;
	json_decref(object);
	return NULL;
}

/* --- from open layers ----------------------------------------------------------------- */

static json_t *stack_tree_from(const struct layer *top);

static json_t *legs_from(const struct layer *layer)
{
	json_t *legs = json_array();

	for (unsigned i = 0; i < layer->leg_count; i++)
		legs = append(legs, stack_tree_from(layer->legs[i]));
	return legs;
}

static json_t *layer_from(const struct layer *layer)
{
	const struct layer_config *config = layer->config;
	json_t *options = json_object();

	for (unsigned i = 0; i < config->count; i++)
		options = with(options, config->settings[i].name,
			       json_string(config->settings[i].value));
	if (layer->leg_count)
		options = with(options, layer->ops->legs_option, legs_from(layer));
	return with(json_object(), layer->ops->name, options);
}

static json_t *stack_tree_from(const struct layer *top)
{
	json_t *stack = json_array();

	for (const struct layer *layer = top; layer; layer = layer->below)
		if (!layer->ops->internal)
			stack = append(stack, layer_from(layer));
	return stack;
}

json_t *stack_tree_of(const struct disk *disk)
{
	return stack_tree_from(disk->extent ? disk->extent->below : disk->top);
}

/* Writes the value that @row now has into the settings, if it is not the one they say. */
static int follow(struct layer *layer, const struct option *row)
{
	struct layer_config *config = layer->config;
	uint64_t now = *(const uint64_t *)((const char *)layer + row->offset), said = 0;
	const char *written = layer_config_get(config, row->name);
	struct layer_setting *settings;
	char text[32];
	unsigned i;

	if (!written)
		written = row->fallback ? row->fallback : "0";
	if (!parse_size(written, &said) && said == now)
		return 0;
	format_size(now, text, sizeof text);
	for (i = 0; i < config->count; i++)
		if (!strcmp(config->settings[i].name, row->name))
			break;
	if (i == config->count) {
		settings = realloc(config->settings, (i + 1) * sizeof *settings);
		if (!settings)
			return -ENOMEM;
		config->settings = settings;
		settings[i] = (struct layer_setting){ .name = strdup(row->name) };
		if (!settings[i].name)
			return -ENOMEM;
		settings[i].value = strdup(text);
		if (!settings[i].value) {
			free(settings[i].name);
			return -ENOMEM;
		}
		config->count++;
		return 0;
	}
	written = strdup(text);
	if (!written)
		return -ENOMEM;
	free(config->settings[i].value);
	config->settings[i].value = (char *)written;
	return 0;
}

static void follow_layer(struct layer *layer, void *data)
{
	int *ret = data;

	for (const struct option *row = layer->ops->options; row && row->name && !*ret; row++)
		if (row->type == OPTION_SIZE && !strcmp(row->name, "size"))
			*ret = follow(layer, row);
}

int stack_tree_follow(struct disk *disk)
{
	int ret = 0;

	stack_visit(disk->top, follow_layer, &ret);
	return ret;
}

/* --- forms ------------------------------------------------------------------------------ */

static json_t *full_layer(const json_t *layer);

/* A leg: one layer, or a list of them. */
static json_t *full_leg(const json_t *leg)
{
	return json_is_array(leg) ? stack_tree_full(leg) : append(json_array(), full_layer(leg));
}

/* What the option of legs holds, as a list of legs; one that has one leg at most holds that. */
static json_t *full_legs(const struct layer_ops *ops, const json_t *value)
{
	json_t *legs = json_array(), *leg;
	size_t i;

	if (ops->legs_max == 1)
		return append(legs, full_leg(value));
	if (!json_is_array(value)) {
		json_decref(legs);
		return json_deep_copy(value);
	}
	json_array_foreach(value, i, leg) legs = append(legs, full_leg(leg));
	return legs;
}

static json_t *full_layer(const json_t *layer)
{
	const struct layer_ops *ops;
	const json_t *given;
	json_t *options;

	if (json_is_string(layer))
		return with(json_object(), json_string_value(layer), json_object());
	if (!json_is_object(layer) || json_object_size(layer) != 1)
		return json_deep_copy(layer);
	ops = layer_find(stack_tree_kind(layer));
	given = stack_tree_options(layer);
	if (json_is_null(given))
		return with(json_object(), stack_tree_kind(layer), json_object());
	if (!ops || !ops->legs_option)
		return json_deep_copy(layer);
	if (json_is_array(given))
		options = with(json_object(), ops->legs_option, full_legs(ops, given));
	else if (json_object_get(given, ops->legs_option))
		options = with(json_copy((json_t *)given), ops->legs_option,
			       full_legs(ops, json_object_get(given, ops->legs_option)));
	else
		options = json_deep_copy(given);
	return with(json_object(), stack_tree_kind(layer), options);
}

json_t *stack_tree_full(const json_t *stack)
{
	json_t *full, *layer;
	size_t i;

	if (!json_is_array(stack))
		return full_layer(stack);
	full = json_array();
	json_array_foreach(stack, i, layer) full = append(full, full_layer(layer));
	return full;
}

static json_t *short_leg(const json_t *leg)
{
	json_t *list = stack_tree_short(leg), *only;

	if (json_array_size(list) != 1)
		return list;
	only = json_incref(json_array_get(list, 0));
	json_decref(list);
	return only;
}

static json_t *short_legs(const struct layer_ops *ops, const json_t *legs)
{
	json_t *some, *leg;
	size_t i;

	if (ops->legs_max == 1)
		return short_leg(json_array_get(legs, 0));
	some = json_array();
	json_array_foreach(legs, i, leg) some = append(some, short_leg(leg));
	return some;
}

static json_t *short_layer(const json_t *layer)
{
	const struct layer_ops *ops = layer_find(stack_tree_kind(layer));
	json_t *legs = stack_tree_legs(layer);

	if (!json_is_object(stack_tree_options(layer)))
		return json_deep_copy(layer);
	if (!json_object_size(stack_tree_options(layer)))
		return json_string(stack_tree_kind(layer));
	if (!json_is_array(legs))
		return json_deep_copy(layer);
	if (ops->legs_max > 1 && json_object_size(stack_tree_options(layer)) == 1)
		return with(json_object(), stack_tree_kind(layer), short_legs(ops, legs));
	return with(json_object(), stack_tree_kind(layer),
		    with(json_copy(stack_tree_options(layer)), ops->legs_option,
			 short_legs(ops, legs)));
}

json_t *stack_tree_short(const json_t *stack)
{
	json_t *list = json_array(), *layer;
	size_t i;

	json_array_foreach(stack, i, layer) list = append(list, short_layer(layer));
	return list;
}

/* --- in words ----------------------------------------------------------------------------- */

static void words_of(const json_t *stack, FILE *out)
{
	json_t *layer, *leg;
	size_t i, l;

	json_array_foreach(stack, i, layer)
	{
		fprintf(out, "%s%zu %s", i ? ", " : "", i, stack_tree_kind(layer));
		json_array_foreach(stack_tree_legs(layer), l, leg)
		{
			fprintf(out, "%s%zu: ", l ? "; " : " (", l);
			words_of(leg, out);
		}
		fprintf(out, "%s", json_array_size(stack_tree_legs(layer)) ? ")" : "");
	}
}

char *stack_tree_words(const json_t *stack, char *text, size_t size)
{
	FILE *out = fmemopen(text, size, "w");

	*text = 0;
	if (out) {
		words_of(stack, out);
		if (!json_array_size(stack))
			fputs("no layers", out);
		fclose(out);
		text[size - 1] = 0;
	}
	return text;
}

/* --- the hash ------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x7fb5d329728ea185ull;
	x = (x ^ x >> 27) * 0x81dadef4bc2dd44dull;
	return x ^ x >> 33;
}

static uint64_t hash_text(const char *text, uint64_t hash)
{
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return mix(hash + 1);
}

uint64_t stack_tree_hash(const json_t *json)
{
	uint64_t hash = 0xcbf29ce484222325ull;
	const char *key;
	json_t *value;
	char text[64];
	size_t i;

	switch (json_typeof(json)) {
	case JSON_OBJECT:
		hash = 1;
		json_object_foreach((json_t *)json, key, value)
			hash += mix(hash_text(key, 2) + 3 * stack_tree_hash(value));
		return mix(hash);
	case JSON_ARRAY:
		hash = 4;
		json_array_foreach(json, i, value) hash = mix(hash * 5 + stack_tree_hash(value));
		return mix(hash);
	case JSON_STRING:
		return hash_text(json_string_value(json), hash);
	case JSON_INTEGER:
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
		return hash_text(text, hash);
	case JSON_TRUE:
		return hash_text("true", hash);
	case JSON_FALSE:
		return hash_text("false", hash);
	case JSON_REAL:
		snprintf(text, sizeof text, "%.15g", json_real_value(json));
		return hash_text(text, hash);
	default:
		return hash_text("", hash);
	}
}
