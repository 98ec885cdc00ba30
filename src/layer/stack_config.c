/* SPDX-License-Identifier: BSD-3-Clause */
/* stack_config.c - copies, compares and frees stacks as they are written; see stack_config.h */
#include "layer/stack_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *layer_config_get(const struct layer_config *layer, const char *name)
{
	for (unsigned i = 0; i < layer->count; i++)
		if (!strcmp(layer->settings[i].name, name))
			return layer->settings[i].value;
	return NULL;
}

bool layer_config_equal(const struct layer_config *a, const struct layer_config *b)
{
	if (a->ops != b->ops || a->count != b->count)
		return false;
	for (unsigned i = 0; i < a->count; i++) {
		const char *value = layer_config_get(b, a->settings[i].name);

		if (!value || strcmp(value, a->settings[i].value))
			return false;
	}
	return true;
}

int layer_config_copy(struct layer_config *to, const struct layer_config *from)
{
	*to = (struct layer_config){ .ops = from->ops };
	to->settings = calloc(from->count + 1, sizeof *to->settings);
	for (; to->settings && to->count < from->count; to->count++) {
		struct layer_setting *setting = &to->settings[to->count];

		setting->name = strdup(from->settings[to->count].name);
		setting->value = strdup(from->settings[to->count].value);
		setting->line = from->settings[to->count].line;
		if (!setting->name || !setting->value) {
			to->count++; /* what there is of it is freed */
			break;
		}
	}
	if (to->settings && to->count == from->count &&
	    (!to->count || to->settings[to->count - 1].value))
		return 0;
	layer_config_release(to);
	return -ENOMEM;
}

static int copy_with_legs(struct layer_config *to, const struct layer_config *from)
{
	int ret = layer_config_copy(to, from);

	if (ret || !from->leg_count)
		return ret;
	to->legs = calloc(from->leg_count, sizeof *to->legs);
	if (!to->legs)
		ret = -ENOMEM;
	for (; !ret && to->leg_count < from->leg_count; to->leg_count++)
		ret = stack_config_copy(&to->legs[to->leg_count], &from->legs[to->leg_count]);
	if (ret)
		layer_config_release(to);
	return ret;
}

int stack_config_copy(struct stack_config *to, const struct stack_config *from)
{
	int ret = 0;

	*to = (struct stack_config){ .layers = calloc(from->count + 1, sizeof *to->layers) };
	if (!to->layers)
		return -ENOMEM;
	for (; !ret && to->count < from->count; to->count++)
		ret = copy_with_legs(&to->layers[to->count], &from->layers[to->count]);
	if (ret)
		stack_config_release(to);
	return ret;
}

void layer_config_release(struct layer_config *layer)
{
	for (unsigned i = 0; i < layer->count; i++) {
		free(layer->settings[i].name);
		free(layer->settings[i].value);
	}
	free(layer->settings);
	for (unsigned i = 0; i < layer->leg_count; i++)
		stack_config_release(&layer->legs[i]);
	free(layer->legs);
	*layer = (struct layer_config){ 0 };
}

void stack_config_release(struct stack_config *config)
{
	for (unsigned i = 0; i < config->count; i++)
		layer_config_release(&config->layers[i]);
	free(config->layers);
	*config = (struct stack_config){ 0 };
}
