/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stripe.c - chunks dealt out to the legs in turn: a disk faster than each of its devices
 *
 *     disk   | 0 | 1 | 2 | 3 | 4 | 5 | 6 ...      chunks
 *     leg 0  | 0 | 2 | 4 | 6 |
 *     leg 1  | 1 | 3 | 5 |
 *
 * Reads and writes fall apart at the borders of chunks. What has no data (discard, zeroing) is one
 * range on each leg, however long it is, and is sent as that. All legs count for as many whole
 * chunks as the smallest one has.
 */
#include <errno.h>

#include "layer/aggregate.h"
#include "util/error.h"
#include "util/log.h"

struct stripe {
	struct layer layer;
	uint64_t chunk; /* bytes */
};

/* --- a request ---------------------------------------------------------------------- */

static struct piece stripe_locate(const struct layer *layer, uint64_t offset)
{
	uint64_t size = ((const struct stripe *)layer)->chunk, chunk = offset / size;

	return (struct piece){ .leg = (unsigned)(chunk % layer->leg_count),
			       .offset = chunk / layer->leg_count * size + offset % size,
			       .length = size - offset % size };
}

static void stripe_window_done(struct layer *layer, struct io *io)
{
	aggregate_window_done(layer, io, stripe_locate, stripe_window_done);
}

/* Bytes of @leg among the first @offset bytes of the disk. */
static uint64_t bytes_before(const struct layer *layer, unsigned leg, uint64_t offset)
{
	uint64_t size = ((const struct stripe *)layer)->chunk;
	uint64_t row = offset / size / layer->leg_count;
	uint64_t rest = offset - row * layer->leg_count * size, first = leg * size;

	if (rest > first)
		rest = rest - first < size ? rest - first : size;
	else
		rest = 0;
	return row * size + rest;
}

static void send_ranges(struct layer *layer, struct io *io)
{
	io_parts_begin(layer, io, aggregate_done);
	for (unsigned i = 0; i < layer->leg_count; i++) {
		uint64_t start = bytes_before(layer, i, io->offset);
		uint64_t end = bytes_before(layer, i, io->offset + io->length);

		if (start < end)
			io_send_part(io, layer->legs[i], 0, end - start, start);
	}
	io_parts_end(io);
}

static void stripe_submit(struct layer *layer, struct io *io)
{
	if (io->op == IO_DISCARD || io->op == IO_ZEROES)
		send_ranges(layer, io);
	else
		aggregate_submit(layer, io, stripe_locate, stripe_window_done);
}

/* --- geometry ----------------------------------------------------------------------- */

static uint64_t bytes_of_each(const struct stripe *s, struct layer *const *legs, unsigned count)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < count; i++)
		if (legs[i]->limits.size < least)
			least = legs[i]->limits.size;
	return least - least % s->chunk;
}

static int stripe_open(struct layer *layer, struct error *err)
{
	struct stripe *s = (struct stripe *)layer;
	uint32_t block = aggregate_block_size(layer, layer->legs, layer->leg_count);
	uint64_t each, all;
	char text[32];

	if (s->chunk % block)
		return error_set(err, EINVAL,
				 "chunk: %s is not a multiple of the block size, %u bytes",
				 format_size(s->chunk, text, sizeof text), block);
	each = bytes_of_each(s, layer->legs, layer->leg_count);
	if (!each)
		return error_set(err, EINVAL, "chunk: the smallest leg is smaller than %s",
				 format_size(s->chunk, text, sizeof text));
	if (__builtin_mul_overflow(each, layer->leg_count, &all))
		return error_set(err, EINVAL, "the legs are too large together");
	for (unsigned i = 0; i < layer->leg_count; i++)
		if (layer->legs[i]->limits.size > each)
			log_info(
				"disk %s: stripe: the last %llu bytes of leg %u are not used: each "
				"leg counts for as many chunks as the smallest has",
				layer->disk,
				(unsigned long long)(layer->legs[i]->limits.size - each), i);
	return 0;
}

static void stripe_limits(struct layer *layer, struct limits *limits)
{
	struct stripe *s = (struct stripe *)layer;
	uint64_t row = s->chunk * layer->leg_count;

	aggregate_limits(layer, limits);
	limits->size = bytes_of_each(s, layer->legs, layer->leg_count) * layer->leg_count;
	limits->optimal_io = row > UINT32_MAX ? 0 : (uint32_t)row;
}

static int stripe_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct stripe *s = (struct stripe *)layer;
	uint64_t row = s->chunk * layer->leg_count, each = (size + row - 1) / row * s->chunk;

	for (unsigned i = 0; i < layer->leg_count; i++) {
		if (layer->legs[i]->limits.size >= each)
			continue;
		if (layer_resize(layer->legs[i], each, err))
			return error_prefix(err, "stripe: leg %u", i);
	}
	return 0;
}

/* Other legs may take the places of these, one for one; the geometry stays. */
static int stripe_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	const struct stripe *s = (const struct stripe *)layer;

	if (((const struct stripe *)plan->options)->chunk != s->chunk ||
	    plan->leg_count != layer->leg_count)
		return error_set(
			err, EINVAL,
			"stripe: the size of its chunks and the number of its legs say where "
			"data are, and cannot change");
	if (bytes_of_each(s, plan->legs, plan->leg_count) <
	    bytes_of_each(s, layer->legs, layer->leg_count))
		return error_set(err, EINVAL, "stripe: a new leg is smaller than what is in use");
	return 0;
}

static const struct option stripe_options[] = {
	{ .name = "chunk",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct stripe, chunk),
	  .fallback = "64K",
	  .min = 512,
	  .max = 1ull << 30,
	  .help = "So much goes to one leg before the next one has its turn. It says where data are: "
		  "keep it for the life of the disk." },
	{ 0 },
};

const struct layer_ops stripe_ops = {
	.name = "stripe",
	.summary = "spreads a disk over several stacks, chunk by chunk (RAID 0)",
	.description =
		"Chunks of the disk go to its legs in turn, so that long requests, and many short ones, "
		"keep all of them busy. A leg is one back-end, or a list of layers that ends with "
		"one. Legs of different size count for as much as the smallest; the log says what "
		"that leaves unused. Growing the disk grows every leg.\n\n"
		"Which byte is where follows from the order of the legs and the size of a chunk: keep "
		"both. A disk that has lost one leg has lost its data: legs that are mirrors are "
		"safer.",
	.example = "disks:\n"
		   "  fast:\n"
		   "    stack:\n"
		   "      - stripe:\n"
		   "          chunk: 128K\n"
		   "          legs:\n"
		   "            - memory: {size: 1G}\n"
		   "            - memory: {size: 1G}\n",
	.size = sizeof(struct stripe),
	.options = stripe_options,
	.backend = true,
	.legs_option = "legs",
	.legs_min = 2,
	.legs_max = AGGREGATE_LEGS,
	.fan_out = AGGREGATE_LEGS,
	.shows_below = true,
	.open = stripe_open,
	.limits = stripe_limits,
	.resize = stripe_resize,
	.prepare = stripe_prepare,
	.submit = stripe_submit,
};
