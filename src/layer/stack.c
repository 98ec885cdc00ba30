/* SPDX-License-Identifier: BSD-3-Clause */
/* stack.c - builds a disk's layers from the back-end up, and takes them down again; see stack.h */
#include "layer/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

/* The options of @config into the object, those that are required included. */
static int set_options(struct layer *layer, const struct layer_config *config, unsigned *line,
		       struct error *err)
{
	const struct layer_ops *ops = config->ops;

	options_init(ops->options, layer);
	for (unsigned i = 0; i < config->count; i++) {
		if (line)
			*line = config->settings[i].line;
		if (options_set(ops->options, layer, config->settings[i].name,
				config->settings[i].value, err))
			return error_prefix(err, "%s", ops->name);
	}
	if (line)
		*line = 0;
	for (const struct option *row = ops->options; row && row->name; row++) {
		bool given = !row->required;

		for (unsigned i = 0; i < config->count && !given; i++)
			given = !strcmp(config->settings[i].name, row->name);
		if (!given)
			return error_set(err, EINVAL, "%s: option '%s' is missing", ops->name,
					 row->name);
	}
	return 0;
}

static struct layer *open_layer(struct layer *below, const char *disk, bool read_only,
				uint32_t block_size, const struct layer_config *config,
				unsigned *line, struct error *err)
{
	const struct layer_ops *ops = config->ops;
	struct layer *layer = calloc(1, ops->size);

	if (!layer) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	layer->ops = ops;
	layer->below = below;
	layer->disk = disk;
	layer->read_only = read_only || ops->read_only;
	layer->block_size = block_size;
	if (set_options(layer, config, line, err))
		goto failed;
	if (ops->open && ops->open(layer, err)) {
		error_prefix(err, "%s", ops->name);
		goto failed;
	}
	return layer;
failed:
	options_release(ops->options, layer);
	free(layer);
	return NULL;
}

static void close_layer(struct layer *layer)
{
	if (layer->ops->close)
		layer->ops->close(layer);
	options_release(layer->ops->options, layer);
	free(layer);
}

int stack_push(struct stack *stack, const struct layer_config *config, unsigned *line_of_error,
	       struct error *err)
{
	const struct layer_ops *ops = config->ops;
	struct layer *below = stack->count ? stack->layers[0] : NULL, *layer;
	struct layer **layers;

	if (ops->backend != (below == NULL))
		return error_set(err, EINVAL,
				 ops->backend ? "%s is a back-end: nothing can be below it"
					      : "%s is a layer: a back-end must be below it",
				 ops->name);
	layers = realloc(stack->layers, (stack->count + 1) * sizeof *layers);
	if (!layers)
		return error_set(err, ENOMEM, "out of memory");
	stack->layers = layers;
	layer = open_layer(below, stack->disk, stack->read_only, stack->block_size, config,
			   line_of_error, err);
	if (!layer)
		return -err->code;
	memmove(layers + 1, layers, stack->count * sizeof *layers);
	layers[0] = layer;
	stack->count++;
	layer->queue_offset = stack->queue_state;
	stack->queue_state += (ops->queue_state + 63) / 64 * 64;
	stack->single_loop |= ops->single_loop;
	/* Each part of this layer may be split again by the layers below it. */
	if (ops->fan_out)
		stack->parts = ops->fan_out * (1 + stack->parts);
	/* A frame a layer, and one for an io that is a part. */
	stack->frames = stack->count + 1;
	stack_limits(stack);
	return 0;
}

struct stack *stack_open(const char *disk, bool read_only, uint32_t block_size,
			 const struct layer_config *config, unsigned count, unsigned *line_of_error,
			 struct error *err)
{
	struct stack *stack = calloc(1, sizeof *stack);

	if (line_of_error)
		*line_of_error = 0;
	if (!stack) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	stack->disk = disk;
	stack->read_only = read_only;
	stack->block_size = block_size;
	while (count-- > 0) {
		if (stack_push(stack, &config[count], line_of_error, err)) {
			stack_close(stack);
			return NULL;
		}
	}
	return stack;
}

void stack_close(struct stack *stack)
{
	if (!stack)
		return;
	for (unsigned i = 0; i < stack->count; i++)
		close_layer(stack->layers[i]);
	free(stack->layers);
	free(stack);
}

void stack_limits(struct stack *stack)
{
	stack->limits = (struct limits){ 0 };
	if (stack->count)
		stack->limits.natural_block_size =
			stack->layers[stack->count - 1]->ops->natural_block_size;
	for (unsigned i = stack->count; i-- > 0;)
		if (stack->layers[i]->ops->limits)
			stack->layers[i]->ops->limits(stack->layers[i], &stack->limits);
}

int stack_resize(struct stack *stack, uint64_t size, struct error *err)
{
	int ret = 0;

	for (unsigned i = stack->count; i-- > 0 && !ret;)
		if (stack->layers[i]->ops->resize)
			ret = stack->layers[i]->ops->resize(stack->layers[i], size, err);
	stack_limits(stack);
	return ret;
}

int stack_queue_open(struct stack *stack, struct io_queue *queue)
{
	if (stack->queue_state) {
		queue->state = aligned_alloc(64, stack->queue_state);
		if (!queue->state)
			return -ENOMEM;
		memset(queue->state, 0, stack->queue_state);
	}
	for (unsigned i = 0; i < stack->count; i++)
		if (stack->layers[i]->ops->queue_open)
			stack->layers[i]->ops->queue_open(stack->layers[i], queue);
	return 0;
}

void stack_queue_close(struct stack *stack, struct io_queue *queue)
{
	for (unsigned i = 0; i < stack->count; i++)
		if (stack->layers[i]->ops->queue_close)
			stack->layers[i]->ops->queue_close(stack->layers[i], queue);
	free(queue->state);
	queue->state = NULL;
}
