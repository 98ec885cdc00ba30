/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * concat.c - legs one after another: a disk larger than each of its devices
 *
 * Where each leg begins follows from the sizes of those before it. It is worked out once, when the
 * disk is opened, in whole blocks, and does not move while the disk is in use even if a leg grows:
 * only the last one may become longer, and new ones may follow it.
 */
#include <errno.h>

#include "layer/aggregate.h"
#include "util/error.h"
#include "util/log.h"

struct concat {
	struct layer layer;
	uint64_t start[AGGREGATE_LEGS]; /* of each leg, bytes */
	unsigned count;                 /* legs that have one */
	uint64_t next[AGGREGATE_LEGS];  /* those of a change that is prepared */
};

static struct piece concat_locate(const struct layer *layer, uint64_t offset)
{
	const struct concat *c = (const struct concat *)layer;
	unsigned leg = layer->leg_count - 1;

	while (offset < c->start[leg])
		leg--;
	return (struct piece){ .leg = leg,
			       .offset = offset - c->start[leg],
			       .length = leg + 1 < layer->leg_count ? c->start[leg + 1] - offset
								    : UINT64_MAX };
}

static void concat_window_done(struct layer *layer, struct io *io)
{
	aggregate_window_done(layer, io, concat_locate, concat_window_done);
}

static void concat_submit(struct layer *layer, struct io *io)
{
	aggregate_submit(layer, io, concat_locate, concat_window_done);
}

/* --- geometry ----------------------------------------------------------------------- */

static void tell_loss(const struct layer *layer, unsigned leg, uint64_t bytes)
{
	if (bytes)
		log_info("disk %s: concat: the last %llu bytes of leg %u are not used: they are no "
			 "whole block",
			 layer->disk, (unsigned long long)bytes, leg);
}

/* Where legs begin of which the first @fixed stay where they are. */
static int arrange(const struct layer *layer, struct layer *const *legs, unsigned count,
		   const uint64_t *fixed_start, unsigned fixed, uint64_t *start, struct error *err)
{
	uint32_t block = aggregate_block_size(layer, legs, count);
	uint64_t at = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t size = legs[i]->limits.size, lost = size % block;

		if (size < block)
			return error_set(err, EINVAL, "leg %u is smaller than a block of %u bytes",
					 i, block);
		if (i < fixed && i && fixed_start[i] != at)
			at = fixed_start[i];
		if (i + 1 < fixed && size - lost < fixed_start[i + 1] - at)
			return error_set(err, EINVAL,
					 "leg %u has %llu bytes; %llu of it are in use", i,
					 (unsigned long long)size,
					 (unsigned long long)(fixed_start[i + 1] - at));
		start[i] = at;
		tell_loss(layer, i, lost);
		if (__builtin_add_overflow(at, size - lost, &at))
			return error_set(err, EINVAL, "the legs are too large together");
	}
	return 0;
}

static int concat_open(struct layer *layer, struct error *err)
{
	struct concat *c = (struct concat *)layer;

	c->count = layer->leg_count;
	return arrange(layer, layer->legs, layer->leg_count, NULL, 0, c->start, err);
}

static void concat_limits(struct layer *layer, struct limits *limits)
{
	const struct concat *c = (const struct concat *)layer;
	unsigned last = layer->leg_count - 1;

	aggregate_limits(layer, limits);
	limits->size = layer->legs[last]->limits.size;
	limits->size -= limits->size % aggregate_block_size(layer, layer->legs, layer->leg_count);
	/* The legs of a change are asked for their limits before it is committed. */
	limits->size += layer->leg_count == c->count ? c->start[last] : c->next[last];
}

static int concat_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct concat *c = (struct concat *)layer;
	unsigned last = layer->leg_count - 1;

	if (layer_resize(layer->legs[last], size - c->start[last], err))
		return error_prefix(err, "concat: leg %u", last);
	return 0;
}

/* --- a change ----------------------------------------------------------------------- */

static int concat_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct concat *c = (struct concat *)layer;
	unsigned count = layer->leg_count;

	if (plan->leg_count < count)
		return error_set(err, EINVAL,
				 "concat: its legs cannot become fewer: data would be lost");
	if (plan->legs[count - 1]->limits.size < layer->legs[count - 1]->limits.size)
		return error_set(err, EINVAL, "concat: leg %u would become smaller", count - 1);
	/* What follows the last one begins where that ends now. */
	if (arrange(layer, plan->legs, plan->leg_count, c->start, count, c->next, err))
		return error_prefix(err, "concat");
	return 0;
}

static void concat_commit(struct layer *layer)
{
	struct concat *c = (struct concat *)layer;

	c->count = layer->leg_count;
	for (unsigned i = 0; i < c->count; i++)
		c->start[i] = c->next[i];
}

const struct layer_ops concat_ops = {
	.name = "concat",
	.summary = "several stacks one after another, as one disk",
	.description =
		"Its legs follow one another: the disk has the size of all of them together. A leg is "
		"one back-end, or a list of layers that ends with one. Growing the disk grows the "
		"last leg, and while the disk is in use a leg can be added after the last one.\n\n"
		"Which byte is where follows from the order and the sizes of the legs: keep the "
		"order, and never make a leg other than the last one longer or shorter by other "
		"means. A disk that has lost one leg has lost its data: put mirror below or above "
		"where that matters.",
	.example = "disks:\n"
		   "  archive:\n"
		   "    stack:\n"
		   "      - concat:\n"
		   "          - memory: {size: 1G}\n"
		   "          - memory: {size: 2G}\n",
	.size = sizeof(struct concat),
	.backend = true,
	.legs_option = "legs",
	.legs_min = 1,
	.legs_max = AGGREGATE_LEGS,
	.fan_out = AGGREGATE_LEGS,
	.shows_below = true,
	.open = concat_open,
	.limits = concat_limits,
	.resize = concat_resize,
	.prepare = concat_prepare,
	.commit = concat_commit,
	.submit = concat_submit,
};
