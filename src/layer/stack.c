/* SPDX-License-Identifier: BSD-3-Clause */
/* stack.c - builds the layers of a disk from the bytes up, and takes them down again; see stack.h
 */
#include "layer/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/log.h"

/* --- opening: a layer, its legs, a list ------------------------------------------------- */

/* The options of @config into the object, those that are required included. */
static int set_options(struct layer *layer, const struct layer_config *config, unsigned *line,
		       struct error *err)
{
	const struct layer_ops *ops = config->ops;

	options_init(ops->options, layer);
	for (unsigned i = 0; i < config->count; i++) {
		*line = config->settings[i].line;
		if (options_set(ops->options, layer, config->settings[i].name,
				config->settings[i].value, err))
			return -err->code;
	}
	*line = 0;
	for (const struct option *row = ops->options; row && row->name; row++)
		if (row->required && !layer_config_get(config, row->name))
			return error_set(err, EINVAL, "option '%s' is missing", row->name);
	return 0;
}

struct layer *stack_options(const struct layer_config *config, unsigned *line_of_error,
			    struct error *err)
{
	struct layer *layer = calloc(1, config->ops->size);
	unsigned line = 0;

	if (!layer) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	layer->ops = config->ops;
	if (!set_options(layer, config, &line, err))
		return layer;
	if (line_of_error)
		*line_of_error = line;
	error_prefix(err, "%s", config->ops->name);
	stack_options_free(layer);
	return NULL;
}

void stack_options_free(struct layer *options)
{
	options_release(options->ops->options, options);
	free(options);
}

static int keep_config(struct layer *layer, const struct layer_config *config, struct error *err)
{
	layer->config = malloc(sizeof *layer->config);
	if (layer->config && !layer_config_copy(layer->config, config))
		return 0;
	free(layer->config);
	layer->config = NULL;
	return error_set(err, ENOMEM, "out of memory");
}

static void free_layer(struct layer *layer)
{
	void *own_ops = layer->absent ? (void *)layer->ops : NULL;

	free(layer->absent);
	if (layer->config)
		layer_config_release(layer->config);
	free(layer->config);
	free(layer->legs);
	stack_options_free(layer);
	free(own_ops);
}

int stack_check_place(const struct layer_config *config, const struct layer *below,
		      unsigned leg_count, struct error *err)
{
	const struct layer_ops *ops = config->ops;

	if (ops->backend && below)
		return error_set(err, EINVAL, "%s ends a stack: nothing can be below it",
				 ops->name);
	if (!ops->backend && !below)
		return error_set(err, EINVAL, "%s is a layer: a back-end must be below it",
				 ops->name);
	if (leg_count < ops->legs_min || leg_count > ops->legs_max)
		return error_set(err, EINVAL, "%s: %s: found %u; expected %u to %u stacks",
				 ops->name, ops->legs_option ? ops->legs_option : "legs", leg_count,
				 ops->legs_min, ops->legs_max);
	return 0;
}

static void lay_out(struct layer *layer, size_t state);

struct layer *stack_open_layer(const struct stack_setting *setting,
			       const struct layer_config *config, struct layer *below,
			       struct layer **legs, unsigned leg_count, unsigned *line_of_error,
			       struct error *err)
{
	const struct layer_ops *ops = config->ops;
	struct layer *layer = NULL;
	size_t own = 0, *states = setting->states ? setting->states : &own;

	if (!stack_check_place(config, below, leg_count, err))
		layer = stack_options(config, line_of_error, err);
	if (!layer)
		return NULL;
	layer->below = below;
	layer->legs = legs;
	layer->leg_count = leg_count;
	layer->disk = setting->disk;
	layer->read_only = setting->read_only || ops->read_only;
	layer->block_size = setting->block_size;
	layer->part = setting->part;
	if (below && below->queue_state > *states)
		*states = below->queue_state;
	for (unsigned i = 0; i < leg_count; i++)
		if (legs[i] && legs[i]->queue_state > *states)
			*states = legs[i]->queue_state;
	if (keep_config(layer, config, err))
		goto failed;
	if (ops->open && ops->open(layer, err)) {
		error_prefix(err, "%s", ops->name);
		goto failed;
	}
	lay_out(layer, *states);
	*states = layer->queue_state;
	stack_limits_of(layer);
	return layer;
failed:
	layer->legs = NULL; /* they stay the caller's */
	free_layer(layer);
	return NULL;
}

/* --- a leg that cannot be opened, above which the stack can do without it --------------------- */

static void refuse(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, -ENXIO);
}

/* Stands for a layer, with its kind's name and its options; ops of its own, so that it is never
 * taken for one that is open. */
static struct layer *absent_layer(const struct layer_config *config, const char *why)
{
	struct layer_ops *ops = malloc(sizeof *ops);
	struct layer *layer = ops ? stack_options(config, NULL, NULL) : NULL;

	if (!layer || !(layer->absent = strdup(why)) || keep_config(layer, config, NULL)) {
		if (layer) {
			free(layer->absent);
			stack_options_free(layer);
		}
		free(ops);
		return NULL;
	}
	*ops = (struct layer_ops){
		.name = config->ops->name,
		.summary = config->ops->summary,
		.size = config->ops->size,
		.options = config->ops->options,
		.backend = config->ops->backend,
		.legs_option = config->ops->legs_option,
		.legs_min = config->ops->legs_min,
		.legs_max = config->ops->legs_max,
		.submit = refuse,
	};
	layer->ops = ops;
	return layer;
}

/* NULL: no memory. */
static struct layer *absent_stack(const struct stack_config *config, const char *why)
{
	struct layer *top = NULL, *layer;

	for (unsigned i = config->count; i-- > 0; top = layer) {
		const struct layer_config *one = &config->layers[i];

		layer = absent_layer(one, why);
		if (layer)
			layer->legs = calloc(one->leg_count + 1, sizeof *layer->legs);
		if (!layer || !layer->legs) {
			stack_close(layer);
			stack_close(top);
			return NULL;
		}
		layer->below = top;
		for (; layer->leg_count < one->leg_count; layer->leg_count++) {
			struct layer *leg = absent_stack(&one->legs[layer->leg_count], why);

			if (!leg) {
				stack_close(layer);
				return NULL;
			}
			layer->legs[layer->leg_count] = leg;
		}
	}
	return top;
}

/* A mistake in the configuration is one in any case. */
static struct layer *do_without(const struct stack_setting *setting,
				const struct layer_config *config, unsigned leg, unsigned line,
				struct error *err)
{
	struct layer *absent;

	if (!config->ops->legs_may_fail || line || err->code == EINVAL)
		return NULL;
	absent = absent_stack(&config->legs[leg], err->text);
	if (absent) {
		log_warn("disk %s: %s: %s %u: %s", setting->disk, config->ops->name,
			 config->ops->legs_option, leg, err->text);
		*err = (struct error){ 0 };
	}
	return absent;
}

static int open_legs(const struct stack_setting *setting, const struct layer_config *config,
		     struct layer ***legs, unsigned *line, struct error *err)
{
	*legs = calloc(config->leg_count + 1, sizeof **legs);
	if (!*legs)
		return error_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < config->leg_count; i++) {
		(*legs)[i] = stack_open(setting, &config->legs[i], line, err);
		if (!(*legs)[i])
			(*legs)[i] = do_without(setting, config, i, line ? *line : 0, err);
		if ((*legs)[i])
			continue;
		error_prefix(err, "%s: %s %u", config->ops->name, config->ops->legs_option, i);
		while (i)
			stack_close((*legs)[--i]);
		free(*legs);
		return -err->code;
	}
	return 0;
}

struct layer *stack_open(const struct stack_setting *setting, const struct stack_config *config,
			 unsigned *line_of_error, struct error *err)
{
	struct layer *top = NULL, *layer, **legs;
	size_t states = 0;

	if (line_of_error)
		*line_of_error = 0;
	for (unsigned i = config->count; i-- > 0; top = layer) {
		struct stack_setting here = *setting;

		if (!here.states)
			here.states = &states;
		here.read_only = stack_read_only_at(config, i, setting->read_only);
		here.part = stack_part_at(config, i);
		layer = NULL;
		if (!open_legs(&here, &config->layers[i], &legs, line_of_error, err)) {
			layer = stack_open_layer(&here, &config->layers[i], top, legs,
						 config->layers[i].leg_count, line_of_error, err);
			for (unsigned k = 0; !layer && k < config->layers[i].leg_count; k++)
				stack_close(legs[k]);
			if (!layer)
				free(legs);
		}
		if (!layer) {
			stack_close(top);
			return NULL;
		}
	}
	return top;
}

bool stack_read_only_at(const struct stack_config *config, unsigned index, bool read_only)
{
	while (index-- > 0)
		read_only |= config->layers[index].ops->below_read_only;
	return read_only;
}

struct layer_part stack_part_at(const struct stack_config *config, unsigned index)
{
	const struct layer_config *above = index ? &config->layers[index - 1] : NULL;
	struct layer_part part = { 0 };
	struct layer *options;

	if (!above || !above->ops->part)
		return part;
	options = stack_options(above, NULL, NULL);
	if (!options)
		return part;
	above->ops->part(options, &part);
	stack_options_free(options);
	return part;
}

void stack_close_layer(struct layer *layer)
{
	if (layer->ops->close)
		layer->ops->close(layer);
	free_layer(layer);
}

void stack_close(struct layer *top)
{
	struct layer *below;

	for (; top; top = below) {
		struct layer **legs = top->legs;
		unsigned leg_count = top->leg_count;

		below = top->below;
		top->legs = NULL;
		if (top->ops->close) {
			top->legs = legs;
			top->ops->close(top);
			top->legs = NULL;
		}
		free_layer(top);
		for (unsigned i = 0; i < leg_count; i++)
			stack_close(legs[i]);
		free(legs);
	}
}

/* --- what the layers can take, and what a queue needs ----------------------------------- */

void stack_limits_of(struct layer *layer)
{
	struct limits limits = layer->below ? layer->below->limits : (struct limits){ 0 };

	if (layer->ops->backend)
		limits.natural_block_size = layer->leg_count && layer->legs[0]
						    ? layer->legs[0]->limits.natural_block_size
						    : layer->ops->natural_block_size;
	if (layer->ops->limits)
		layer->ops->limits(layer, &limits);
	layer->limits = limits;
}

static void find_limits(struct layer *layer, void *unused)
{
	(void)unused;
	stack_limits_of(layer);
}

void stack_limits(struct layer *top)
{
	stack_visit(top, find_limits, NULL);
}

static unsigned larger(unsigned a, unsigned b)
{
	return a > b ? a : b;
}

/* ios that one request can turn into, and that belong to none; never near 2^64. */
struct cost {
	uint64_t parts, errands;
};

static struct cost cost_of(const struct layer *layer)
{
	struct cost cost = { 0 };

	for (unsigned i = 0; i <= layer->leg_count; i++) {
		const struct layer *child = i < layer->leg_count ? layer->legs[i] : layer->below;
		struct cost below = { 0 };

		if (child)
			below = cost_of(child);
		if (below.parts > cost.parts)
			cost.parts = below.parts;
		cost.errands += below.errands;
	}
	/* Each io that this layer makes may be split by the layers below it. */
	cost.errands += layer->ops->errands * (1 + cost.parts);
	if (layer->ops->fan_out)
		cost.parts = layer->ops->fan_out * (1 + cost.parts);
	if (cost.parts > UINT32_MAX)
		cost.parts = UINT32_MAX;
	if (cost.errands > UINT32_MAX)
		cost.errands = UINT32_MAX;
	return cost;
}

int stack_check_parts(const struct layer *top, struct error *err)
{
	struct cost cost = cost_of(top);

	if (cost.parts <= STACK_PARTS && cost.errands <= STACK_ERRANDS)
		return 0;
	return error_set(err, E2BIG,
			 "the layers one above another could cut a request into %llu parts, beside "
			 "%llu of their own; there may be %u and %u",
			 (unsigned long long)cost.parts, (unsigned long long)cost.errands,
			 STACK_PARTS, STACK_ERRANDS);
}

/* Those below are laid out; @state is where their states end. */
static void lay_out(struct layer *layer, size_t state)
{
	const struct layer_ops *ops = layer->ops;
	struct cost cost = cost_of(layer);

	layer->frames = 0;
	for (unsigned i = 0; i <= layer->leg_count; i++) {
		const struct layer *child = i < layer->leg_count ? layer->legs[i] : layer->below;

		if (child)
			layer->frames = larger(layer->frames, child->frames);
	}
	layer->frames++;
	layer->parts = (unsigned)cost.parts;
	layer->errands = (unsigned)cost.errands;
	layer->queue_offset = state;
	layer->queue_state = state + (ops->queue_state + 63) / 64 * 64;
}

static void lay_out_next(struct layer *layer, void *state)
{
	lay_out(layer, *(size_t *)state);
	*(size_t *)state = layer->queue_state;
}

void stack_plan(struct layer *top)
{
	size_t state = 0;

	stack_visit(top, lay_out_next, &state);
	stack_limits(top);
}

void stack_visit(struct layer *top, void (*visit)(struct layer *layer, void *data), void *data)
{
	if (!top)
		return;
	stack_visit(top->below, visit, data);
	for (unsigned i = 0; i < top->leg_count; i++)
		stack_visit(top->legs[i], visit, data);
	visit(top, data);
}

static void note_single_loop(struct layer *layer, void *data)
{
	*(bool *)data |= layer->ops->single_loop;
}

bool stack_single_loop(struct layer *top)
{
	bool single = false;

	stack_visit(top, note_single_loop, &single);
	return single;
}

uint32_t stack_natural_block_size(const struct stack_config *config)
{
	const struct layer_config *last = &config->layers[config->count - 1];

	return last->leg_count ? stack_natural_block_size(&last->legs[0])
			       : last->ops->natural_block_size;
}

bool stack_read_only(const struct stack_config *config)
{
	const struct layer_config *last = &config->layers[config->count - 1];
	bool read_only = last->ops->read_only;

	for (unsigned i = 0; i + 1 < config->count; i++)
		if (config->layers[i].ops->below_read_only)
			return false;
	for (unsigned i = 0; i < last->leg_count; i++)
		read_only |= stack_read_only(&last->legs[i]);
	return read_only;
}

int layer_resize(struct layer *layer, uint64_t size, struct error *err)
{
	while (!layer->ops->resize && layer->below)
		layer = layer->below;
	if (layer->ops->resize)
		return layer->ops->resize(layer, size, err);
	return error_set(err, ENOTSUP, "%s cannot grow", layer->ops->name);
}

/* --- queues -------------------------------------------------------------------------------- */

struct attaching {
	struct io_queue *queue;
	struct layer *failed; /* the first that could not, if any */
};

static void attach_layer(struct layer *layer, void *data)
{
	struct attaching *a = data;

	if (!a->failed && layer->ops->queue_open && layer->ops->queue_open(layer, a->queue))
		a->failed = layer;
}

/* Those before the one that failed, or all. */
static void detach_layer(struct layer *layer, void *data)
{
	struct attaching *a = data;

	if (layer == a->failed)
		a->queue = NULL;
	if (a->queue && layer->ops->queue_close)
		layer->ops->queue_close(layer, a->queue);
}

static void detach(struct layer *top, struct io_queue *queue, struct layer *failed)
{
	struct attaching a = { queue, failed };

	stack_visit(top, detach_layer, &a);
	free(queue->state);
	queue->state = NULL;
}

static void add_errands(struct layer *layer, void *sum)
{
	*(unsigned *)sum += layer->ops->errands;
}

int stack_queue_attach(struct layer *top, struct io_queue *queue)
{
	struct attaching a = { queue, NULL };

	queue->errands_max = 0;
	stack_visit(top, add_errands, &queue->errands_max);
	if (top->queue_state) {
		queue->state = aligned_alloc(64, top->queue_state);
		if (!queue->state)
			return -ENOMEM;
		memset(queue->state, 0, top->queue_state);
	}
	stack_visit(top, attach_layer, &a);
	if (!a.failed)
		return 0;
	detach(top, queue, a.failed);
	return -ENOMEM;
}

void stack_queue_detach(struct layer *top, struct io_queue *queue)
{
	detach(top, queue, NULL);
}

int stack_queue_open(struct layer *top, struct io_queue *queue, struct loop *loop, unsigned depth,
		     unsigned vectors)
{
	int ret = io_queue_init(queue, loop, depth, stack_queue_parts(top, depth),
				stack_queue_frames(top), vectors);

	if (ret)
		return ret;
	ret = stack_queue_attach(top, queue);
	if (ret)
		io_queue_release(queue);
	return ret;
}

void stack_queue_close(struct layer *top, struct io_queue *queue)
{
	stack_queue_detach(top, queue);
	io_queue_release(queue);
}

unsigned stack_queue_parts(const struct layer *top, unsigned depth)
{
	return depth * top->parts + top->errands;
}

unsigned stack_queue_frames(const struct layer *top)
{
	return top->frames + 1;
}
