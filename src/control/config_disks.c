/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_disks.c - reads `disks`: each with its options and its stack, a tree of layers
 *
 * Whether an option of a layer is right is found out on a scratch object; what is kept is its text,
 * for when the layer is opened.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/yaml.h"
#include "util/must.h"
#include "util/suggest.h"

/* --- stacks ------------------------------------------------------------------------- */

static void unknown_layer(struct mistakes *mistakes, const struct node *node, const char *where,
			  const char *name)
{
	struct suggestion nearest = suggest_for(name);
	char known[400] = "";
	size_t n = 0;

	for (unsigned i = 0; layer_registry[i] && n < sizeof known; i++) {
		suggest_offer(&nearest, layer_registry[i]->name);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      layer_registry[i]->name);
	}
	reading_wrong(mistakes, node, where,
		      "no layer or back-end '%s'%s%s%s (expected one of: %s)", name,
		      nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		      nearest.best ? "'?" : "", known);
}

/* Keeps the options of a layer as texts, for when it is opened, after a trial on a scratch object.
 */
static void read_layer_options(struct mistakes *mistakes, const struct node *mapping,
			       const char *where, struct layer_config *layer)
{
	const char *others[] = { layer->ops->legs_option, NULL };
	struct layer_setting *setting;
	void *scratch = calloc(1, layer->ops->size);

	layer->settings = calloc(node_count(mapping) + 1, sizeof *layer->settings);
	if (!scratch || !layer->settings) {
		free(scratch);
		mistake_no_memory(mistakes);
		return;
	}
	options_init(layer->ops->options, scratch);
	reading_options(mistakes, mapping, where, layer->ops->options, scratch, others);
	options_release(layer->ops->options, scratch);
	free(scratch);
	for (const struct node *node = mapping->first; node; node = node->next) {
		if (node->type != NODE_SCALAR ||
		    (others[0] && !strcmp(node->key, layer->ops->legs_option)))
			continue;
		setting = &layer->settings[layer->count++];
		*setting = (struct layer_setting){ .name = strdup(node->key),
						   .value = strdup(node->text),
						   .line = node->line };
		if (!setting->name || !setting->value)
			mistake_no_memory(mistakes);
	}
}

static void read_stack(struct mistakes *mistakes, const struct node *list, const char *where,
		       struct stack_config *stack);

/* One leg: a list of layers, or one layer alone. */
static void read_leg(struct mistakes *mistakes, const struct node *node, const char *where,
		     struct layer_config *layer)
{
	struct node alone = { .type = NODE_SEQUENCE, .line = node->line };
	struct node only = *node;

	only.next = NULL;
	alone.first = &only;
	read_stack(mistakes, node->type == NODE_SEQUENCE ? node : &alone, where,
		   &layer->legs[layer->leg_count++]);
}

static void read_legs(struct mistakes *mistakes, const struct node *node, const char *where,
		      struct layer_config *layer)
{
	const struct layer_ops *ops = layer->ops;
	unsigned count = ops->legs_max == 1            ? 1
			 : node->type == NODE_SEQUENCE ? node_count(node)
						       : 0;
	const struct node *leg = ops->legs_max == 1 ? node : node->first;
	char below[260];

	if (ops->legs_max > 1 && !reading_must_be(mistakes, node, where, NODE_SEQUENCE,
						  "a list of layers, or of lists of them"))
		return;
	if (count < ops->legs_min || count > ops->legs_max) {
		reading_wrong(mistakes, node, where, "%s: found %u; expected %u to %u",
			      ops->legs_option, count, ops->legs_min, ops->legs_max);
		return;
	}
	layer->legs = calloc(count + 1, sizeof *layer->legs);
	if (!layer->legs) {
		mistake_no_memory(mistakes);
		return;
	}
	for (unsigned i = 0; i < count; i++, leg = leg->next) {
		if (ops->legs_max > 1)
			snprintf(below, sizeof below, "%s: %s %u", where, ops->legs_option, i);
		else
			snprintf(below, sizeof below, "%s: %s", where, ops->legs_option);
		read_leg(mistakes, leg, below, layer);
	}
}

/* What a layer is made of: its options and legs in a mapping, or a list of its legs alone. */
static void read_contents(struct mistakes *mistakes, const struct node *contents, const char *where,
			  struct layer_config *layer)
{
	const struct layer_ops *ops = layer->ops;
	const struct node *legs = ops->legs_option ? node_find(contents, ops->legs_option) : NULL;

	if (ops->legs_max > 1 && contents->type == NODE_SEQUENCE) {
		struct node none = { .type = NODE_MAPPING, .line = contents->line };

		read_layer_options(mistakes, &none, where, layer);
		read_legs(mistakes, contents, where, layer);
		return;
	}
	if (!reading_must_be(mistakes, contents, where, NODE_MAPPING,
			     "options such as {name: value}"))
		return;
	read_layer_options(mistakes, contents, where, layer);
	if (legs)
		read_legs(mistakes, legs, where, layer);
	else if (ops->legs_min)
		reading_wrong(mistakes, contents, where, "option '%s' is missing; expected %s",
			      ops->legs_option,
			      ops->legs_max == 1 ? "a stack, such as {file: {path: ...}}"
						 : "a list of stacks");
}

/* One step of a stack: a name alone, or a name with what it is made of. */
static void read_layer(struct mistakes *mistakes, const struct node *node, const char *where,
		       struct layer_config *layer)
{
	struct node bare = { .type = NODE_MAPPING, .line = node->line };
	const struct node *contents = &bare;
	const char *name;
	char below[260];

	if (node->type == NODE_SCALAR) {
		name = node->text;
	} else if (node->type == NODE_MAPPING && node_count(node) == 1) {
		name = node->first->key;
		if (node->first->type != NODE_SCALAR || *node->first->text) /* else "- pass:" */
			contents = node->first;
	} else {
		reading_wrong(mistakes, node, where,
			      "expected one layer such as '- pass' or '- file: {path: ...}'");
		return;
	}
	layer->ops = layer_find(name);
	if (!layer->ops || layer->ops->internal) {
		layer->ops = NULL;
		unknown_layer(mistakes, node, where, name);
		return;
	}
	snprintf(below, sizeof below, "%s: %s", where, name);
	read_contents(mistakes, contents, below, layer);
}

static void read_stack(struct mistakes *mistakes, const struct node *list, const char *where,
		       struct stack_config *stack)
{
	const struct node *node;

	if (!reading_must_be(mistakes, list, where, NODE_SEQUENCE,
			     "a list of layers, the back-end last"))
		return;
	stack->layers = calloc(node_count(list) + 1, sizeof *stack->layers);
	if (!stack->layers) {
		mistake_no_memory(mistakes);
		return;
	}
	for (node = list->first; node; node = node->next) {
		struct layer_config *layer = &stack->layers[stack->count];

		read_layer(mistakes, node, where, layer);
		if (!layer->ops)
			continue;
		stack->count++;
		if (layer->ops->backend && node->next)
			reading_wrong(mistakes, node, where,
				      "%s %s, so nothing can be below it; it must come last",
				      layer->ops->name,
				      layer->ops->legs_option ? "has legs" : "is a back-end");
		if (!layer->ops->backend && !node->next)
			reading_wrong(mistakes, node, where,
				      "%s is not a back-end; expected one, such as file, at the "
				      "end of the stack",
				      layer->ops->name);
	}
	if (!list->first)
		reading_wrong(mistakes, list, where,
			      "the list is empty; expected a back-end at least");
}

bool config_read_stack(struct stack_config *stack, const struct node *list,
		       struct mistakes *mistakes)
{
	read_stack(mistakes, list, "stack", stack);
	return !mistakes->fatal;
}

/* --- disks -------------------------------------------------------------------------- */

static void read_disk(struct mistakes *mistakes, const struct node *node, struct config_disk *disk)
{
	static const char *const others[] = { "stack", NULL };
	const struct node *stack = node_find(node, "stack"), *size = node_find(node, "size");
	uint32_t block_size;
	char where[120], below[140];

	snprintf(where, sizeof where, "disk '%s'", node->key);
	options_init(disk_options, &disk->config);
	disk->name = strdup(node->key);
	if (!disk->name) {
		mistake_no_memory(mistakes);
		return;
	}
	config_check_name(mistakes, node, "disks");
	if (!reading_must_be(mistakes, node, where, NODE_MAPPING, "its options and its stack"))
		return;
	reading_options(mistakes, node, where, disk_options, &disk->config, others);
	if (!stack) {
		reading_wrong(
			mistakes, node, where,
			"option 'stack' is missing; expected a list of layers, the back-end last");
		return;
	}
	snprintf(below, sizeof below, "%s: stack", where);
	read_stack(mistakes, stack, below, &disk->stack);
	if (!disk->stack.count || mistakes->fatal)
		return;
	disk->config.read_only |= stack_read_only(&disk->stack);
	block_size = disk_block_size(&disk->config, &disk->stack);
	if (size && disk->config.size % block_size)
		reading_wrong(mistakes, size, where,
			      "size: '%s' is not a multiple of the block size, %u", size->text,
			      block_size);
}

bool config_read_disk(struct config_disk *disk, const struct node *node, struct mistakes *mistakes)
{
	read_disk(mistakes, node, disk);
	return !mistakes->fatal;
}

void config_read_disks(struct config *config, const struct node *disks, struct mistakes *mistakes)
{
	config->disks = must(calloc(node_count(disks) + 1, sizeof *config->disks));
	for (const struct node *node = disks->first; node; node = node->next)
		read_disk(mistakes, node, &config->disks[config->disk_count++]);
}

unsigned config_read_disk_name(struct mistakes *mistakes, const struct node *node,
			       const char *where, const char *kind, const struct config *config)
{
	struct suggestion nearest;

	nearest = suggest_for(node->text);
	for (unsigned i = 0; i < config->disk_count; i++) {
		if (!strcmp(config->disks[i].name, node->text))
			return i;
		suggest_offer(&nearest, config->disks[i].name);
	}
	reading_wrong(mistakes, node, where,
		      "%s: no disk '%s'%s%s%s; expected the name of one under 'disks'", kind,
		      node->text, nearest.best ? " (did you mean '" : "",
		      nearest.best ? nearest.best : "", nearest.best ? "'?)" : "");
	return CONFIG_NO_DISK;
}

void config_release_disk(struct config_disk *disk)
{
	stack_config_release(&disk->stack);
	free(disk->name);
	options_release(disk_options, &disk->config);
}

void config_release_disks(struct config *config)
{
	for (unsigned i = 0; i < config->disk_count; i++)
		config_release_disk(&config->disks[i]);
	free(config->disks);
}
