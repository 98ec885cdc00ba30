/* SPDX-License-Identifier: BSD-3-Clause */
/* pass.c - the layer that does nothing, honestly: what a layer costs (`make bench`) */
#include "layer/layer.h"

struct pass {
	struct layer layer;
};

static void pass_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void pass_submit(struct layer *layer, struct io *io)
{
	io_send_then(layer, layer->below, io, pass_done);
}

const struct layer_ops pass_ops = {
	.name = "pass",
	.summary = "sends every request on, and its completion back",
	.description =
		"The smallest layer there is: it takes part in each request on its way down and on "
		"its way up, and changes nothing. Benchmarks use it to measure what a layer "
		"costs; it is the pattern for new ones.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - pass: {}\n"
		   "      - memory: {size: 1G}\n",
	.size = sizeof(struct pass),
	.shows_below = true,
	.submit = pass_submit,
};
