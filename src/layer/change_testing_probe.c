/* SPDX-License-Identifier: BSD-3-Clause */
/* change_testing_probe.c - a layer that counts what is done to it; see change_testing.h */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer/change_testing.h"

struct counts counts;

static int probe_open(struct layer *layer, struct error *err)
{
	struct probe *p = (struct probe *)layer;

	if (p->fail && !strcmp(p->fail, "open"))
		return error_set(err, EPERM, "it was told to fail");
	p->seen = p->value;
	counts.opened++;
	return 0;
}

static void probe_close(struct layer *layer)
{
	(void)layer;
	counts.closed++;
}

static int probe_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	const struct probe *options = (const struct probe *)plan->options;

	(void)layer;
	if (options->fail && !strcmp(options->fail, "prepare"))
		return error_set(err, EPERM, "it was told to fail");
	counts.prepared++;
	((struct probe *)layer)->asked = true;
	return 0;
}

static void probe_commit(struct layer *layer)
{
	struct probe *p = (struct probe *)layer;

	p->seen = p->value;
	p->asked = p->retired = false;
	counts.committed++;
}

static void probe_abandon(struct layer *layer)
{
	struct probe *p = (struct probe *)layer;

	counts.abandoned += p->asked;
	counts.stayed += p->retired;
	p->asked = p->retired = false;
}

/* Nothing is inside, for as long as it takes. */
static int probe_retire(struct layer *layer, uint32_t kept, struct error *err)
{
	struct probe *p = (struct probe *)layer;

	if (kept)
		abort();
	for (unsigned i = 0; i < 20; i++) {
		if (atomic_load(&counts.inside))
			abort();
		usleep(1000);
	}
	if (p->fail && !strcmp(p->fail, "retire"))
		return error_set(err, EPERM, "it was told to fail");
	p->retired = true;
	counts.retired++;
	return 0;
}

static int probe_queue_open(struct layer *layer, struct io_queue *queue)
{
	*(uint64_t *)layer_queue_state(layer, queue) += 0x123456789;
	counts.queues++;
	return 0;
}

static void probe_queue_close(struct layer *layer, struct io_queue *queue)
{
	/* Its state is its own, and was not kept from before. */
	if (*(uint64_t *)layer_queue_state(layer, queue) != 0x123456789)
		abort();
	counts.queues--;
}

static void probe_start(struct layer *layer, struct loop *home)
{
	(void)layer;
	if (!home)
		abort();
	counts.started++;
}

static void probe_stop(struct layer *layer, struct layer_stop *stop)
{
	(void)layer;
	counts.stopped++;
	loop_send(stop->loop, &stop->done);
}

static void probe_passed(struct layer *layer, struct io *io)
{
	(void)layer;
	counts.inside--;
	io_finish(io, io->status);
}

static void probe_submit(struct layer *layer, struct io *io)
{
	counts.inside++;
	io_send_then(layer, layer->below, io, probe_passed);
}

static const struct option probe_options[] = {
	{ .name = "value", .type = OPTION_UINT, .offset = offsetof(struct probe, value) },
	{ .name = "fail", .type = OPTION_STRING, .offset = offsetof(struct probe, fail) },
	{ 0 },
};

const struct layer_ops probe_ops = {
	.name = "probe",
	.size = sizeof(struct probe),
	.options = probe_options,
	.queue_state = 8,
	.open = probe_open,
	.close = probe_close,
	.prepare = probe_prepare,
	.commit = probe_commit,
	.abandon = probe_abandon,
	.retire = probe_retire,
	.start = probe_start,
	.stop = probe_stop,
	.queue_open = probe_queue_open,
	.queue_close = probe_queue_close,
	.submit = probe_submit,
};
