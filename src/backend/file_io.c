/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_io.c - the requests of the file back-end
 *
 * A request becomes one operation in the kernel, as a rule. It takes more when the kernel did
 * only a part, or when the request is a slice of somebody's iovecs: then each operation
 * takes the next run, and op_kernel.offset tells how far it has come.
 *
 * Direct I/O wants aligned memory. A run that has none is copied through the queue's bounce
 * buffer, one request at a time; the others that need it wait for it. It is never sent through the
 * page cache instead: direct and cached writes to one page at the same time lose data.
 *
 * What is behind the end of the file reads as zeroes: a medium's last block may be there in part.
 *
 * Durability. FLUSH is fdatasync. FUA is RWF_DSYNC, or fdatasync after what takes no flags.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "backend/file_private.h"

#define ZERO_BYTES   65536
#define ZERO_VECS    256
#define BOUNCE_BYTES (256u << 10)

/* --- what the kernel is asked next -------------------------------------------------- */

static char zeroes[ZERO_BYTES] __attribute__((aligned(4096)));
static struct iovec zero_vec[ZERO_VECS];

__attribute__((constructor)) static void fill_zero_vec(void)
{
	for (unsigned i = 0; i < ZERO_VECS; i++)
		zero_vec[i] = (struct iovec){ zeroes, ZERO_BYTES };
}

static void one(struct loop_op *op, void *base, uint64_t length)
{
	op->one = (struct iovec){ base, length };
	op->vec = &op->one;
	op->count = 1;
}

/* The next run of zeroes to write, where the file system cannot make them. */
static void next_zeroes(struct loop_op *op, uint64_t left)
{
	if (left < ZERO_BYTES) {
		one(op, zeroes, left);
		return;
	}
	op->vec = zero_vec;
	op->count = left / ZERO_BYTES < ZERO_VECS ? (uint32_t)(left / ZERO_BYTES) : ZERO_VECS;
}

/* The next run of the request's own memory: whole iovecs, or a part of one. */
static void next_data(struct loop_op *op, struct io_data data, uint64_t left)
{
	uint32_t n = 0;

	if (data.skip || data.vec->iov_len > left) {
		uint64_t length = data.vec->iov_len - data.skip;

		one(op, (char *)data.vec->iov_base + data.skip, length < left ? length : left);
		return;
	}
	op->vec = data.vec;
	while (n < data.count && n < IOV_MAX && data.vec[n].iov_len <= left)
		left -= data.vec[n++].iov_len;
	op->count = n;
}

static bool aligned(const struct file *f, const struct loop_op *op)
{
	uintptr_t memory = 0;
	uint64_t length = 0;

	for (uint32_t i = 0; i < op->count; i++) {
		memory |= (uintptr_t)op->vec[i].iov_base | op->vec[i].iov_len;
		length += op->vec[i].iov_len;
	}
	return !(memory & f->memory_mask) && !((op->offset | length) & f->offset_mask);
}

static void use(const struct file *f, const struct file_queue *q, struct loop_op *op, bool direct)
{
	op->fd = direct ? f->direct_fd : f->fd;
	op->file = direct ? q->direct_file : q->file;
}

static uint64_t progress(const struct io *io)
{
	return io->op_kernel.offset - io->offset;
}

static void failed(struct file *f, struct io *io, int status)
{
	struct file_queue *q = layer_queue_state(&f->layer, io->queue);

	if (log_limited(&q->limit))
		log_warn("disk %s: %s at byte %llu of %s failed: %s", f->layer.disk,
			 io_op_name(io->op), (unsigned long long)io->offset, f->path,
			 strerror(-status));
	io_finish(io, status);
}

/* The next run goes through the bounce buffer, now or when it is free. */
static void bounce(struct file *f, struct io *io)
{
	struct file_queue *q = layer_queue_state(&f->layer, io->queue);
	struct loop_op *op = &io->op_kernel;
	uint64_t left = io->length - progress(io);

	if (q->bouncing && q->bouncing != io) {
		io->next = NULL;
		*q->waiting_last = io;
		q->waiting_last = &io->next;
		return;
	}
	if (!q->bounce && posix_memalign((void **)&q->bounce, 4096, BOUNCE_BYTES)) {
		q->bounce = NULL;
		failed(f, io, -ENOMEM);
		return;
	}
	q->bouncing = io;
	one(op, q->bounce, left < BOUNCE_BYTES ? left : BOUNCE_BYTES);
	if (io->op == IO_WRITE)
		io_data_copy_out(io_data_slice(io->data, progress(io)), q->bounce, op->one.iov_len);
	use(f, q, op, true);
	loop_submit(io->queue->loop, op);
}

/* The bounce buffer is free: for whoever waits for it. */
static void pass_bounce_on(struct file *f, struct file_queue *q)
{
	struct io *io = q->waiting;

	q->bouncing = NULL;
	if (!io)
		return;
	q->waiting = io->next;
	if (!q->waiting)
		q->waiting_last = &q->waiting;
	bounce(f, io);
}

static void next_run(struct file *f, struct io *io)
{
	struct file_queue *q = layer_queue_state(&f->layer, io->queue);
	struct loop_op *op = &io->op_kernel;
	uint64_t done = progress(io);

	if (io->op == IO_ZEROES)
		next_zeroes(op, io->length - done);
	else
		next_data(op, done ? io_data_slice(io->data, done) : io->data, io->length - done);
	use(f, q, op, f->direct_fd >= 0);
	if (q->bouncing == io || (io->op != IO_ZEROES && f->direct_fd >= 0 && !aligned(f, op)))
		bounce(f, io);
	else
		loop_submit(io->queue->loop, op);
}

/* How to make a range read as zeroes: punch, zero, or write; what fails is not tried again. */
static void make_zeroes(struct file *f, struct io *io)
{
	struct file_queue *q = layer_queue_state(&f->layer, io->queue);
	struct loop_op *op = &io->op_kernel;
	bool punch = f->discard && (io->op == IO_DISCARD || (io->flags & IO_UNMAP));

	use(f, q, op, false);
	op->offset = io->offset;
	op->length = io->length;
	op->kind = LOOP_FALLOCATE;
	if (punch && !atomic_load_explicit(&f->no_punch, memory_order_relaxed)) {
		op->flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	} else if (io->op == IO_DISCARD) {
		io_finish(io, 0); /* advice that nobody can take */
		return;
	} else if (!atomic_load_explicit(&f->no_zero_range, memory_order_relaxed)) {
		op->flags = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	} else {
		op->kind = LOOP_WRITEV;
		op->flags = io->flags & IO_FUA ? RWF_DSYNC : 0;
		next_run(f, io);
		return;
	}
	loop_submit(io->queue->loop, op);
}

/* --- what the kernel answered ------------------------------------------------------- */

static void fallocated(struct file *f, struct io *io, int result)
{
	struct loop_op *op = &io->op_kernel;

	if (result == -EOPNOTSUPP || result == -ENOSYS) {
		bool punched = op->flags & FALLOC_FL_PUNCH_HOLE;

		atomic_store(punched ? &f->no_punch : &f->no_zero_range, true);
		make_zeroes(f, io);
	} else if (result < 0) {
		failed(f, io, result);
	} else if (io->flags & IO_FUA) {
		op->kind = LOOP_FDATASYNC;
		loop_submit(io->queue->loop, op);
	} else {
		io_finish(io, 0);
	}
}

static void transferred(struct file *f, struct io *io, int result)
{
	struct file_queue *q = layer_queue_state(&f->layer, io->queue);
	struct loop_op *op = &io->op_kernel;
	bool bounced = q->bouncing == io;
	int status = 0;

	if (result == -EINVAL && op->fd == f->direct_fd && !bounced && io->op != IO_ZEROES) {
		bounce(f, io); /* not aligned enough after all */
		return;
	}
	if (result < 0) {
		status = result;
	} else if (result == 0 && io->op == IO_READ) {
		/* The image became shorter than it was: what is gone reads as zeroes. */
		io_data_zero(io_data_slice(io->data, progress(io)), io->length - progress(io));
		op->offset = io->offset + io->length;
	} else if (result == 0) {
		status = -EIO;
	} else {
		if (bounced && io->op == IO_READ)
			io_data_copy_in(io_data_slice(io->data, progress(io)), q->bounce,
					(uint64_t)result);
		op->offset += (uint64_t)result;
	}
	/* Where a file has an odd end, direct I/O can go no further. */
	if (!status && io->op == IO_READ && progress(io) < io->length &&
	    op->offset >= atomic_load_explicit(&f->bytes, memory_order_relaxed)) {
		io_data_zero(io_data_slice(io->data, progress(io)), io->length - progress(io));
		op->offset = io->offset + io->length;
	}
	if (!status && progress(io) < io->length) {
		next_run(f, io);
		return;
	}
	if (bounced)
		pass_bounce_on(f, q);
	if (status)
		failed(f, io, status);
	else
		io_finish(io, 0);
}

static void operated(struct loop_op *op, int result)
{
	struct io *io = container_of(op, struct io, op_kernel);
	struct file *f = op->data;

	if (result == -EINTR || result == -EAGAIN)
		loop_submit(io->queue->loop, op);
	else if (op->kind == LOOP_FALLOCATE)
		fallocated(f, io, result);
	else if (op->kind != LOOP_FDATASYNC)
		transferred(f, io, result);
	else if (result < 0)
		failed(f, io, result);
	else
		io_finish(io, 0);
}

/* --- a request ---------------------------------------------------------------------- */

void file_submit(struct layer *layer, struct io *io)
{
	struct file *f = (struct file *)layer;
	struct loop_op *op = &io->op_kernel;

	op->done = operated;
	op->data = f;
	op->offset = io->offset;
	switch (io->op) {
	case IO_READ:
	case IO_WRITE:
		op->kind = io->op == IO_READ ? LOOP_READV : LOOP_WRITEV;
		op->flags = io->op == IO_WRITE && (io->flags & IO_FUA) ? RWF_DSYNC : 0;
		next_run(f, io);
		break;
	case IO_FLUSH:
		op->kind = LOOP_FDATASYNC;
		use(f, layer_queue_state(layer, io->queue), op, false);
		loop_submit(io->queue->loop, op);
		break;
	default:
		make_zeroes(f, io);
		break;
	}
}

/* --- a queue ------------------------------------------------------------------------ */

int file_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct file_queue *q = layer_queue_state(layer, queue);
	struct file *f = (struct file *)layer;

	q->waiting_last = &q->waiting;
	q->file = loop_file_add(queue->loop, f->fd);
	q->direct_file = f->direct_fd >= 0 ? loop_file_add(queue->loop, f->direct_fd) : 0;
	return 0;
}

void file_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct file_queue *q = layer_queue_state(layer, queue);

	loop_file_remove(queue->loop, q->file);
	loop_file_remove(queue->loop, q->direct_file);
	free(q->bounce);
}
