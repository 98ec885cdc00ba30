/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine_uring.c - a loop's engine on io_uring
 *
 * Operations become submission entries at once and reach the kernel together, in the one
 * io_uring_enter of a turn, which also sleeps when the loop may. With DEFER_TASKRUN
 * (Linux 6.1) completions are posted only when we enter, never by interrupting the loop;
 * the TASKRUN flag in shared memory says when entering is worth it, so a loop that polls
 * enters the kernel only when something waits there.
 *
 * Readiness of descriptors is a multishot poll, edge-triggered: an eventfd need never be
 * read. The lowest bit of user_data tells watches from operations; 0 is to be ignored.
 *
 * Not used, by measurement (docs/measurements.md): fixed buffers, fixed files, SQPOLL.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "loop/engine.h"
#include "util/error.h"

#define SQ_ENTRIES 512
#define CQ_ENTRIES 4096
#define WATCH_TAG  1ull

struct engine {
	struct loop *loop;
	struct io_uring ring;
	unsigned reported; /* in this turn */
};

/* The best set of flags that this kernel takes. 0 or -errno. */
static int ring_open(struct io_uring *ring)
{
	static const unsigned choices[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int ret = -EINVAL;

	for (unsigned i = 0; i < sizeof choices / sizeof *choices && ret == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = choices[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = CQ_ENTRIES,
		};

		ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
	}
	return ret;
}

bool loop_uring_permitted(struct error *why)
{
	static const int needed[] = { IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
				      IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,
				      IORING_OP_POLL_REMOVE };
	struct io_uring_probe *probe;
	struct io_uring ring;
	bool good;
	int ret = ring_open(&ring);

	if (ret) {
		error_set(why, -ret, "io_uring_setup: %s", strerror(-ret));
		return false;
	}
	/* Resource tags came with multishot poll, in Linux 5.13; there is no probe for the latter. */
	good = (ring.features & IORING_FEAT_EXT_ARG) && (ring.features & IORING_FEAT_RSRC_TAGS);
	probe = io_uring_get_probe_ring(&ring);
	for (unsigned i = 0; good && i < sizeof needed / sizeof *needed; i++)
		good = probe && io_uring_opcode_supported(probe, needed[i]);
	if (!good)
		error_set(why, ENOSYS, "this kernel's io_uring is too old (Linux 5.13 is needed)");
	io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
	return good;
}

static struct engine *uring_open(struct loop *loop, struct error *err)
{
	struct engine *engine = calloc(1, sizeof *engine);
	int ret = engine ? ring_open(&engine->ring) : -ENOMEM;

	if (ret) {
		error_set(err, -ret, "cannot set up io_uring: %s (--engine threads does without it)",
			  strerror(-ret));
		free(engine);
		return NULL;
	}
	engine->loop = loop;
	/* Saves a descriptor look-up at each enter; without it all works as well. */
	io_uring_register_ring_fd(&engine->ring);
	return engine;
}

static void uring_close(struct engine *engine)
{
	io_uring_queue_exit(&engine->ring);
	free(engine);
}

static struct io_uring_sqe *get_sqe(struct engine *engine)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&engine->ring)))
		io_uring_submit(&engine->ring);
	return sqe;
}

static void uring_submit(struct engine *engine, struct loop_op *op)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	switch (op->kind) {
	case LOOP_READV:
		if (op->count == 1)
			io_uring_prep_read(sqe, op->fd, op->vec->iov_base,
					   (unsigned)op->vec->iov_len, op->offset);
		else
			io_uring_prep_readv(sqe, op->fd, op->vec, op->count, op->offset);
		break;
	case LOOP_WRITEV:
		if (op->count == 1)
			io_uring_prep_write(sqe, op->fd, op->vec->iov_base,
					    (unsigned)op->vec->iov_len, op->offset);
		else
			io_uring_prep_writev(sqe, op->fd, op->vec, op->count, op->offset);
		break;
	case LOOP_FDATASYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case LOOP_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->flags, (off_t)op->offset,
					(off_t)op->length);
		break;
	}
	if (op->kind == LOOP_READV || op->kind == LOOP_WRITEV)
		sqe->rw_flags = op->flags;
	io_uring_sqe_set_data(sqe, op);
}

static void uring_watch(struct engine *engine, struct loop_watch *watch)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_poll_multishot(sqe, watch->fd, POLLIN);
	sqe->user_data = (uintptr_t)watch | WATCH_TAG;
	watch->armed = true;
}

static void uring_unwatch(struct engine *engine, struct loop_watch *watch)
{
	struct io_uring_sqe *sqe;

	if (watch->armed) {
		/* Its last completion, and with it the end of the watch, is still to come. */
		sqe = get_sqe(engine);
		io_uring_prep_poll_remove(sqe, (uintptr_t)watch | WATCH_TAG);
		sqe->user_data = 0;
		io_uring_submit(&engine->ring); /* the descriptor may be closed next */
	} else if (!watch->reporting) {
		loop_watch_free(watch);
	}
}

static void report_watch(struct engine *engine, struct loop_watch *watch,
			 const struct io_uring_cqe *cqe)
{
	if (!(cqe->flags & IORING_CQE_F_MORE))
		watch->armed = false;
	if (!watch->removed && cqe->res >= 0) {
		watch->reporting = true;
		watch->ready(watch->data);
		watch->reporting = false;
	}
	if (watch->armed)
		return;
	if (watch->removed)
		loop_watch_free(watch);
	else if (cqe->res >= 0)
		uring_watch(engine, watch);
}

static void reap(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe (&engine->ring, head, cqe) {
		struct loop_op *op = io_uring_cqe_get_data(cqe);

		seen++;
		if (cqe->user_data & WATCH_TAG)
			report_watch(engine, (struct loop_watch *)(uintptr_t)(cqe->user_data & ~WATCH_TAG), cqe);
		else if (op)
			op->done(op, cqe->res);
	}
	io_uring_cq_advance(&engine->ring, seen);
	engine->reported += seen;
}

static unsigned uring_turn(struct engine *engine, uint64_t timeout)
{
	struct io_uring *ring = &engine->ring;
	unsigned flags = IO_URING_READ_ONCE(*ring->sq.kflags);

	engine->reported = 0;
	if (timeout == 0 || io_uring_cq_ready(ring)) {
		if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
			io_uring_submit_and_get_events(ring);
		else if (io_uring_sq_ready(ring))
			io_uring_submit(ring);
	} else if (timeout == UINT64_MAX) {
		io_uring_submit_and_wait(ring, 1);
		loop_woke(engine->loop);
	} else {
		struct __kernel_timespec t = { .tv_sec = (long long)(timeout / 1000000000),
					       .tv_nsec = (long long)(timeout % 1000000000) };
		struct io_uring_cqe *cqe;

		io_uring_submit_and_wait_timeout(ring, &cqe, 1, &t, NULL);
		loop_woke(engine->loop);
	}
	reap(engine);
	return engine->reported;
}

const struct engine_ops engine_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.watch = uring_watch,
	.unwatch = uring_unwatch,
	.turn = uring_turn,
};
