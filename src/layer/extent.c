/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extent.c - a size larger than that of what is below
 *
 * Beyond the end of the layer below there are zeroes: reads of them succeed, and so do
 * discards and zeroing; writes fail with ENOSPC, since nothing could keep them. A request
 * across the end is split there. When what is below grows, its end moves.
 */
#include <errno.h>
#include <stdatomic.h>

#include "layer/layer.h"
#include "util/log.h"

struct extent {
	struct layer layer;
	uint64_t size;        /* configured, bytes */
	_Atomic uint64_t end; /* of the layer below, bytes */
	atomic_bool warned;
};

static void extent_limits(struct layer *layer, struct limits *limits)
{
	struct extent *x = (struct extent *)layer;

	atomic_store(&x->end, limits->size - limits->size % layer->block_size);
	if (limits->size < x->size)
		limits->size = x->size;
}

static void extent_done(struct layer *layer, struct io *io)
{
	uint64_t inside = io_frame(io)->note[0];

	(void)layer;
	if (!io->status && io->op == IO_READ)
		io_data_zero(io_data_slice(io->data, inside), io->length - inside);
	io_finish(io, io->status);
}

static void extent_submit(struct layer *layer, struct io *io)
{
	struct extent *x = (struct extent *)layer;
	uint64_t end = atomic_load_explicit(&x->end, memory_order_relaxed);

	if (io->op == IO_FLUSH || io->offset + io->length <= end) {
		io_send(layer->below, io);
		return;
	}
	if (io->op == IO_WRITE) {
		if (!atomic_exchange(&x->warned, true))
			log_warn(
				"disk %s: a write at byte %llu failed, beyond the end of its back-end at "
				"%llu; grow the back-end",
				layer->disk, (unsigned long long)io->offset,
				(unsigned long long)end);
		io_push(layer, io, extent_done);
		io_finish(io, -ENOSPC);
		return;
	}
	io_push(layer, io, extent_done)->note[0] = io->offset < end ? end - io->offset : 0;
	if (io->offset < end) {
		io->length = end - io->offset;
		io_send(layer->below, io);
	} else {
		io_finish(io, 0);
	}
}

static const struct option extent_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct extent, size),
	  .required = true,
	  .min = 512,
	  .help = "The size to present." },
	{ 0 },
};

const struct layer_ops extent_ops = {
	.name = "extent",
	.summary = "presents a size larger than that of what is below",
	.description =
		"Bytes beyond the end of what is below read as zeroes; a write there fails with an "
		"I/O error, and the log says so once. A disk whose size option is larger than "
		"its back-end gets this layer on top by itself.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - extent: {size: 2G}\n"
		   "      - memory: {size: 1G}\n",
	.size = sizeof(struct extent),
	.options = extent_options,
	.shows_below = true,
	.limits = extent_limits,
	.submit = extent_submit,
};
