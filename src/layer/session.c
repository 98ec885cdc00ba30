/* SPDX-License-Identifier: BSD-3-Clause */
/* session.c - one request at a time, waited for; see session.h */
#include "layer/session.h"

#include <errno.h>
#include <stdlib.h>

#include "layer/stack.h"
#include "util/error.h"

struct session {
	struct layer *top;
	struct loop *loop;
	struct io_queue queue;
	struct loop_message begin;
	struct {
		enum io_op op;
		unsigned flags;
		uint64_t offset, length;
		void *bytes;
	} wish;
	bool out; /* it is under way */
	int status;
};

/* Bytes of one request: layers below may have to keep as much in a buffer. */
#define LONGEST (1u << 20)

static void done(struct layer *layer, struct io *io)
{
	struct session *s = io->queue->owner;

	(void)layer;
	s->status = io->status;
	s->out = false;
	io_put(io);
}

/* An errand of a layer may be under way after the request; the loop must not end before it. */
static void nothing_inside(struct io_queue *queue)
{
	struct session *s = queue->owner;

	if (!s->out)
		loop_stop(s->loop);
}

static void open_queue(struct loop_message *message)
{
	struct session *s = container_of(message, struct session, begin);

	s->status = stack_queue_open(s->top, &s->queue, s->loop, 1, 1);
	s->queue.owner = s;
	s->queue.empty = nothing_inside;
	loop_stop(s->loop);
}

static void close_queue(struct loop_message *message)
{
	struct session *s = container_of(message, struct session, begin);

	stack_queue_close(s->top, &s->queue);
	loop_stop(s->loop);
}

/* The io is taken and put back on its own loop: outside of it, this thread may be another's. */
static void send(struct loop_message *message)
{
	struct session *s = container_of(message, struct session, begin);
	struct io *io = io_get(&s->queue);
	struct iovec *vec = io_vector(io);

	io->op = (uint8_t)s->wish.op;
	io->flags = (uint8_t)s->wish.flags;
	io->offset = s->wish.offset;
	io->length = s->wish.length;
	io->started = loop_now(s->loop);
	vec[0] = (struct iovec){ s->wish.bytes, s->wish.length };
	io->data = (struct io_data){ .vec = vec, .count = s->wish.bytes ? 1 : 0 };
	s->out = true;
	io_push(NULL, io, done);
	io_send(s->top, io);
}

/* On the loop, which is this thread for so long. */
static int run(struct session *s, void (*what)(struct loop_message *message))
{
	struct error err = { 0 };

	s->begin.run = what;
	loop_send(s->loop, &s->begin);
	if (loop_run(s->loop, &err))
		return -err.code;
	return s->status;
}

struct session *session_open(struct layer *top, struct error *err)
{
	/* The loop is run many times; io_uring would forget registered files each time. */
	const struct loop_config config = {
		.name = "session", .engine = LOOP_THREADS, .cpu = -1, .passing = true
	};
	struct session *s = calloc(1, sizeof *s);

	if (!s) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->top = top;
	s->loop = loop_create(&config, err);
	if (s->loop && !run(s, open_queue))
		return s;
	if (s->loop)
		error_set(err, ENOMEM, "out of memory");
	loop_destroy(s->loop);
	free(s);
	return NULL;
}

void session_close(struct session *session)
{
	if (!session)
		return;
	run(session, close_queue);
	loop_destroy(session->loop);
	free(session);
}

static int request(struct session *s, enum io_op op, uint64_t offset, void *bytes, uint64_t length,
		   unsigned flags)
{
	s->wish.op = op;
	s->wish.flags = flags;
	s->wish.offset = offset;
	s->wish.length = length;
	s->wish.bytes = bytes;
	return run(s, send);
}

static int transfer(struct session *s, enum io_op op, uint64_t offset, char *bytes, size_t length,
		    unsigned flags)
{
	int ret = 0;

	while (length && !ret) {
		size_t n = length < LONGEST ? length : LONGEST;

		ret = request(s, op, offset, bytes, n, flags);
		offset += n;
		bytes += n;
		length -= n;
	}
	return ret;
}

int session_read(struct session *session, uint64_t offset, void *to, size_t length)
{
	return transfer(session, IO_READ, offset, to, length, 0);
}

int session_write(struct session *session, uint64_t offset, const void *from, size_t length,
		  unsigned flags)
{
	return transfer(session, IO_WRITE, offset, (char *)from, length, flags);
}

int session_do(struct session *session, enum io_op op, uint64_t offset, uint64_t length,
	       unsigned flags)
{
	return request(session, op, offset, NULL, length, flags);
}
