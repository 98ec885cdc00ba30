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
 * Registered files save the kernel a descriptor look-up for each operation, registered memory
 * the look-up and pinning of its pages (docs/measurements.md). Both are tables made
 * sparse when the ring is; what does not fit, or may not be registered, works without.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "loop/engine.h"
#include "util/error.h"
#include "util/log.h"

#define SQ_ENTRIES 512
#define CQ_ENTRIES 4096
#define WATCH_TAG  1ull
#define FILES      1024
#define BUFFERS    512
#define BUFFER_MAX (1ull << 30) /* the kernel's limit for one */

/* A piece of memory that is registered, with the index of its slot in the ring's table. */
struct buffer {
	char *base; /* NULL: free */
	size_t length;
	unsigned users;
};

struct engine {
	struct loop *loop;
	struct io_uring ring;
	bool files; /* the table of files was made */
	bool file_taken[FILES];
	bool buffers;          /* the table of buffers was made */
	unsigned buffers_used; /* one more than the highest slot in use */
	struct buffer buffer[BUFFERS];
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
	static const int needed[] = {
		IORING_OP_READV,     IORING_OP_WRITEV,   IORING_OP_FSYNC,
		IORING_OP_FALLOCATE, IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE
	};
	struct io_uring_probe *probe;
	struct io_uring ring;
	bool good;
	int ret = ring_open(&ring);

	if (ret) {
		error_set(why, -ret, "io_uring_setup: %s", strerror(-ret));
		return false;
	}
	/* Resource tags came with multishot poll, in Linux 5.13; there is no probe for the latter.
	 */
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
		error_set(err, -ret,
			  "cannot set up io_uring: %s (--engine threads does without it)",
			  strerror(-ret));
		free(engine);
		return NULL;
	}
	engine->loop = loop;
	/* Saves a descriptor look-up at each enter; without it all works as well. */
	io_uring_register_ring_fd(&engine->ring);
	engine->files = !io_uring_register_files_sparse(&engine->ring, FILES);
	engine->buffers = !io_uring_register_buffers_sparse(&engine->ring, BUFFERS);
	return engine;
}

static void uring_close(struct engine *engine)
{
	io_uring_queue_exit(&engine->ring);
	free(engine);
}

/* --- registered files and memory ---------------------------------------------------- */

static int uring_file_add(struct engine *engine, int fd)
{
	for (int slot = 0; engine->files && slot < FILES; slot++) {
		if (engine->file_taken[slot])
			continue;
		if (io_uring_register_files_update(&engine->ring, (unsigned)slot, &fd, 1) != 1)
			return -1;
		engine->file_taken[slot] = true;
		return slot;
	}
	return -1;
}

static void uring_file_remove(struct engine *engine, int slot)
{
	int none = -1;

	io_uring_register_files_update(&engine->ring, (unsigned)slot, &none, 1);
	engine->file_taken[slot] = false;
}

static int set_buffer(struct engine *engine, unsigned slot, char *base, size_t length)
{
	struct iovec vec = { base, length };
	__u64 tag = 0;
	int ret = io_uring_register_buffers_update_tag(&engine->ring, slot, &vec, &tag, 1);

	if (ret < 0)
		return ret;
	engine->buffer[slot] = (struct buffer){ base, length, base ? 1 : 0 };
	if (base && slot >= engine->buffers_used)
		engine->buffers_used = slot + 1;
	return 0;
}

static int add_piece(struct engine *engine, char *base, size_t length)
{
	unsigned slot = BUFFERS;

	for (unsigned i = 0; i < BUFFERS; i++) {
		if (engine->buffer[i].base == base && engine->buffer[i].length == length) {
			engine->buffer[i].users++;
			return 0;
		}
		if (!engine->buffer[i].base && slot == BUFFERS)
			slot = i;
	}
	return slot < BUFFERS ? set_buffer(engine, slot, base, length) : -ENOSPC;
}

static void uring_memory_remove(struct engine *engine, char *base, size_t length)
{
	for (unsigned i = 0; i < engine->buffers_used; i++) {
		struct buffer *b = &engine->buffer[i];

		if (b->base >= base && b->base < base + length && !--b->users)
			set_buffer(engine, i, NULL, 0);
	}
}

static int uring_memory_add(struct engine *engine, char *base, size_t length)
{
	if (!engine->buffers)
		return -ENOTSUP;
	for (size_t at = 0, n; at < length; at += n) {
		int ret;

		n = length - at < BUFFER_MAX ? length - at : BUFFER_MAX;
		ret = add_piece(engine, base + at, n);
		if (ret) {
			uring_memory_remove(engine, base, at);
			return ret;
		}
	}
	return 0;
}

/* The slot that holds all of @vec, or -1. */
static int find_buffer(const struct engine *engine, const struct iovec *vec)
{
	const char *from = vec->iov_base;

	for (unsigned i = 0; i < engine->buffers_used; i++) {
		const struct buffer *b = &engine->buffer[i];

		if (from >= b->base && from + vec->iov_len <= b->base + b->length)
			return (int)i;
	}
	return -1;
}

/* --- operations --------------------------------------------------------------------- */

static struct io_uring_sqe *get_sqe(struct engine *engine)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&engine->ring)))
		io_uring_submit(&engine->ring);
	return sqe;
}

static void prepare_transfer(const struct engine *engine, struct io_uring_sqe *sqe,
			     const struct loop_op *op)
{
	bool read = op->kind == LOOP_READV;
	int slot = op->count == 1 && engine->buffers_used ? find_buffer(engine, op->vec) : -1;

	if (op->count > 1) {
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, op->fd, op->vec,
				 op->count, op->offset);
	} else {
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe, op->fd,
				 op->vec->iov_base, (unsigned)op->vec->iov_len, op->offset);
		if (slot >= 0) {
			sqe->opcode = read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
			sqe->buf_index = (uint16_t)slot;
		}
	}
	sqe->rw_flags = op->flags;
}

static void uring_submit(struct engine *engine, struct loop_op *op)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	switch (op->kind) {
	case LOOP_READV:
	case LOOP_WRITEV:
		prepare_transfer(engine, sqe, op);
		break;
	case LOOP_FDATASYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case LOOP_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->flags, (off_t)op->offset,
					(off_t)op->length);
		break;
	}
	if (op->file > 0) {
		sqe->fd = op->file - 1;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	io_uring_sqe_set_data(sqe, op);
}

static void uring_watch(struct engine *engine, struct loop_watch *watch)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_poll_multishot(sqe, watch->fd, (unsigned)watch->events);
	sqe->user_data = (uintptr_t)watch | WATCH_TAG;
	watch->armed = true;
}

static void uring_unwatch(struct engine *engine, struct loop_watch *watch)
{
	struct io_uring_sqe *sqe;

	if (watch->armed) {
		/* Its last completion, and with it the end of the watch, is still to come. */
		sqe = get_sqe(engine);
		/* Not POLL_REMOVE, which fails if the poll has just fired: this marks it anyway. */
		io_uring_prep_cancel64(sqe, (uintptr_t)watch | WATCH_TAG, 0);
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
	/* An end that nobody asked for is a reason to look, too. */
	if (!watch->removed) {
		watch->reporting = true;
		watch->ready(watch->data);
		watch->reporting = false;
	}
	if (watch->armed)
		return;
	if (watch->removed)
		loop_watch_free(watch);
	else if (cqe->res >= 0 || cqe->res == -ECANCELED)
		uring_watch(engine, watch);
	else
		log_error("descriptor %d is watched no longer: %s", watch->fd, strerror(-cqe->res));
}

static void reap(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&engine->ring, head, cqe)
	{
		struct loop_op *op = io_uring_cqe_get_data(cqe);

		seen++;
		if (cqe->user_data & WATCH_TAG)
			report_watch(engine,
				     (struct loop_watch *)(uintptr_t)(cqe->user_data & ~WATCH_TAG),
				     cqe);
		else if (op)
			op->done(op, cqe->res);
	}
	io_uring_cq_advance(&engine->ring, seen);
}

static void uring_turn(struct engine *engine, uint64_t timeout)
{
	struct io_uring *ring = &engine->ring;
	unsigned flags = IO_URING_READ_ONCE(*ring->sq.kflags);

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
}

const struct engine_ops engine_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.file_add = uring_file_add,
	.file_remove = uring_file_remove,
	.memory_add = uring_memory_add,
	.memory_remove = uring_memory_remove,
	.watch = uring_watch,
	.unwatch = uring_unwatch,
	.turn = uring_turn,
};
