/* SPDX-License-Identifier: BSD-3-Clause */
/* null.c - a back-end without bytes: what everything above it costs */
#include "layer/layer.h"

struct null {
	struct layer layer;
	uint64_t size; /* bytes */
};

static void null_limits(struct layer *layer, struct limits *limits)
{
	limits->size = ((struct null *)layer)->size;
	limits->block_size = 512;
	limits->physical_block_size = 512;
	limits->discard = true;
}

static int null_resize(struct layer *layer, uint64_t size, struct error *err)
{
	(void)err;
	((struct null *)layer)->size = size;
	return 0;
}

static void null_submit(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, 0);
}

static const struct option null_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct null, size),
	  .fallback = "1G",
	  .min = 4096,
	  .max = 1ull << 60,
	  .help = "Size of the device." },
	{ 0 },
};

const struct layer_ops null_ops = {
	.name = "null",
	.summary = "completes every request at once, without data",
	.description =
		"For benchmarks. Writes are dropped, and a read leaves the guest's buffer as it "
		"is, so nothing can be kept on it.",
	.example = "disks:\n"
		   "  bench:\n"
		   "    stack:\n"
		   "      - null: {size: 4G}\n",
	.size = sizeof(struct null),
	.options = null_options,
	.backend = true,
	.limits = null_limits,
	.resize = null_resize,
	.submit = null_submit,
};
