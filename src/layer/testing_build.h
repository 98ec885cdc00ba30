/* SPDX-License-Identifier: BSD-3-Clause */
/* testing_build.h - for tests that draw stacks: a configuration, built piece by piece */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/stack.h"

/** Room for one more of an array of @size bytes each. */
static inline void *testing_more(void *array, unsigned count, size_t size)
{
	array = realloc(array, (count + 1) * size);
	if (!array)
		abort();
	memset((char *)array + count * size, 0, size);
	return array;
}

/** A layer more at the end of @stack. The pointer is good until the next one is added there. */
static inline struct layer_config *testing_layer(struct stack_config *stack,
						 const struct layer_ops *ops)
{
	struct layer_config *layer;

	if (!ops)
		abort();
	stack->layers = testing_more(stack->layers, stack->count, sizeof *stack->layers);
	layer = &stack->layers[stack->count++];
	layer->ops = ops;
	return layer;
}

/** Sets an option of @layer. */
static inline void __attribute__((format(printf, 3, 4)))
testing_set(struct layer_config *layer, const char *name, const char *format, ...)
{
	struct layer_setting *setting;
	va_list args;

	layer->settings = testing_more(layer->settings, layer->count, sizeof *layer->settings);
	setting = &layer->settings[layer->count++];
	setting->name = strdup(name);
	va_start(args, format);
	if (!setting->name || vasprintf(&setting->value, format, args) < 0)
		abort();
	va_end(args);
}

/** A leg more of @layer, empty. The pointer is good until the next one is added there. */
static inline struct stack_config *testing_leg(struct layer_config *layer)
{
	layer->legs = testing_more(layer->legs, layer->leg_count, sizeof *layer->legs);
	return &layer->legs[layer->leg_count++];
}

/** The stack in a word for each layer: "crypt mirror(device, flaky device)". Returns @text. */
static inline char *testing_describe(const struct stack_config *stack, char *text, size_t size)
{
	size_t n = 0;

	text[0] = 0;
	for (unsigned i = 0; i < stack->count && n < size; i++) {
		const struct layer_config *layer = &stack->layers[i];

		n += (size_t)snprintf(text + n, size - n, "%s%s", i ? " " : "", layer->ops->name);
		for (unsigned k = 0; k < layer->leg_count && n < size; k++) {
			n += (size_t)snprintf(text + n, size - n, k ? ", " : "(");
			if (n < size)
				n += strlen(testing_describe(&layer->legs[k], text + n, size - n));
		}
		if (layer->leg_count && n < size)
			n += (size_t)snprintf(text + n, size - n, ")");
	}
	return text;
}
