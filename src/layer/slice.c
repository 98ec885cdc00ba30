/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slice.c - a range of what is below as a disk of its own
 *
 * It adds a number to the offset of each request. Several disks may have slices of one image: each
 * opens the image for itself, and the slice tells the back-end, before that is opened, which part
 * of it is used (layer_ops.part), so that it locks no more than that.
 */
#include <errno.h>

#include "layer/layer.h"
#include "util/error.h"

struct slice {
	struct layer layer;
	uint64_t offset, size; /* bytes; size 0: to the end */
};

/* --- a request ---------------------------------------------------------------------- */

static void slice_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void slice_submit(struct layer *layer, struct io *io)
{
	if (io->op != IO_FLUSH) {
		io_push(layer, io, slice_done);
		io->offset += ((struct slice *)layer)->offset;
	}
	io_send(layer->below, io);
}

/* --- geometry ----------------------------------------------------------------------- */

static void slice_part(const struct layer *layer, struct layer_part *part)
{
	const struct slice *s = (const struct slice *)layer;

	part->offset = s->offset;
	part->length = s->size;
}

static int check(const struct slice *s, const struct layer *below, uint32_t block,
		 struct error *err)
{
	char a[32], b[32], c[32];
	uint64_t have = below->limits.size;

	if (below->limits.block_size > block)
		block = below->limits.block_size;
	if (s->offset % block || s->size % block)
		return error_set(
			err, EINVAL, "%s: %s is not a multiple of the block size, %u bytes",
			s->offset % block ? "offset" : "size",
			format_size(s->offset % block ? s->offset : s->size, a, sizeof a), block);
	if (s->offset >= have)
		return error_set(
			err, EINVAL, "offset: %s is not inside what is below, which has %s",
			format_size(s->offset, a, sizeof a), format_size(have, b, sizeof b));
	if (s->size > have - s->offset)
		return error_set(err, EINVAL, "size: there are not %s behind %s of %s",
				 format_size(s->size, a, sizeof a),
				 format_size(s->offset, b, sizeof b),
				 format_size(have, c, sizeof c));
	return 0;
}

static int slice_open(struct layer *layer, struct error *err)
{
	return check((struct slice *)layer, layer->below, layer->block_size, err);
}

static void slice_limits(struct layer *layer, struct limits *limits)
{
	const struct slice *s = (const struct slice *)layer;

	limits->size = s->size ? s->size : limits->size - s->offset;
}

static int slice_resize(struct layer *layer, uint64_t size, struct error *err)
{
	const struct slice *s = (const struct slice *)layer;
	uint64_t end;

	if (s->size >= size)
		return 0;
	if (s->size)
		return error_set(
			err, ENOSPC,
			"slice: its size is its option size; change that (what is behind it "
			"may be another disk's)");
	if (__builtin_add_overflow(s->offset, size, &end))
		return error_set(err, EINVAL, "slice: the size is too large");
	return layer_resize(layer->below, end, err);
}

/* --- a change ----------------------------------------------------------------------- */

static int slice_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	const struct slice *s = (const struct slice *)layer;
	const struct slice *to = (const struct slice *)plan->options;

	if (to->offset != s->offset)
		return error_set(err, EINVAL,
				 "slice: offset says where the data are, and cannot change");
	if (to->size && (!s->size || to->size < s->size))
		return error_set(err, EINVAL, "slice: size: a disk in use cannot become smaller");
	if (check(to, plan->below, layer->block_size, err))
		return error_prefix(err, "slice");
	return 0;
}

static const struct option slice_options[] = {
	{ .name = "offset",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct slice, offset),
	  .fallback = "0",
	  .max = 1ull << 60,
	  .help = "Where it begins on what is below." },
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct slice, size),
	  .fallback = "0",
	  .max = 1ull << 60,
	  .help = "How long it is; 0 is the rest. It may be made larger while the disk is in use." },
	{ 0 },
};

const struct layer_ops slice_ops = {
	.name = "slice",
	.summary = "a range of what is below, as a disk",
	.description =
		"Several disks can share one image or device, each with a slice of its own: written "
		"directly above the back-end file, a slice makes it lock only its range, so that other "
		"disks, also of another penstock, can have the others; slices that overlap are refused, "
		"as are QEMU and its tools on the same file.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - slice: {offset: 0, size: 10G}\n"
		   "      - file: {path: /var/lib/penstock/all.img, create: true, size: 30G}\n"
		   "  log:\n"
		   "    stack:\n"
		   "      - slice: {offset: 10G, size: 20G}\n"
		   "      - file: {path: /var/lib/penstock/all.img, create: true, size: 30G}\n",
	.size = sizeof(struct slice),
	.options = slice_options,
	.alters = true,
	.shows_below = true,
	.open = slice_open,
	.part = slice_part,
	.limits = slice_limits,
	.resize = slice_resize,
	.prepare = slice_prepare,
	.submit = slice_submit,
};
