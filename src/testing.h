/* SPDX-License-Identifier: BSD-3-Clause */
/* testing.h - for unit tests: one request on a disk, start to end, on a loop of its own */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/disk.h"
#include "util/error.h"

struct testing_io {
	struct loop_message start, end;
	struct loop_timer limit;
	struct loop *loop;
	struct disk *disk;
	struct disk_queue *queue;
	struct layer_stop stop;
	enum io_op op;
	uint8_t flags;
	uint64_t offset, length;
	void *bytes;
	int status;
};

static inline void testing_over(struct loop_message *message)
{
	loop_stop(container_of(message, struct testing_io, stop.done)->loop);
}

static inline void testing_end(struct loop_message *message)
{
	struct testing_io *t = container_of(message, struct testing_io, end);

	disk_queue_close(t->queue);
	/* Errands of layers may be under way still. */
	t->stop = (struct layer_stop){ .loop = t->loop, .done.run = testing_over };
	if (disk_stop(t->disk, &t->stop))
		abort();
}

static inline void testing_done(struct layer *layer, struct io *io)
{
	struct testing_io *t = io->queue->owner;

	(void)layer;
	t->status = io->status;
	io_put(io);
	loop_send(t->loop, &t->end);
}

static inline void testing_start(struct loop_message *message)
{
	struct testing_io *t = container_of(message, struct testing_io, start);
	struct io *io;

	t->queue = disk_queue_open(t->disk, t->loop, 1, 1);
	if (!t->queue)
		abort();
	t->queue->ios.owner = t;
	io = io_get(&t->queue->ios);
	io->op = (uint8_t)t->op;
	io->flags = t->flags;
	io->offset = t->offset;
	io->length = t->length;
	io_vector(io)[0] = (struct iovec){ t->bytes, t->length };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	disk_submit(t->queue, io, testing_done);
}

static inline void testing_late(struct loop_timer *timer)
{
	(void)timer;
	abort(); /* it never came back */
}

/** Opens a disk of the @count layers of @list, as disk_open() does. */
static inline struct disk *testing_open(const char *name, const struct disk_config *config,
					const struct layer_config *list, unsigned count,
					unsigned *line_of_error, struct error *err)
{
	struct stack_config stack = { (struct layer_config *)list, count };

	return disk_open(name, config, &stack, line_of_error, err);
}

/** Does it, with @flags; its status. Aborts the test program if that takes longer than 10 s. */
static inline int testing_io(struct disk *disk, enum loop_engine engine, enum io_op op,
			     uint8_t flags, uint64_t offset, uint64_t length, void *bytes)
{
	struct loop_config config = { .name = "testing", .engine = engine, .cpu = -1 };
	struct testing_io t = { .start.run = testing_start,
				.end.run = testing_end,
				.loop = loop_create(&config, NULL),
				.disk = disk,
				.op = op,
				.flags = flags,
				.offset = offset,
				.length = length,
				.bytes = bytes };

	if (!t.loop)
		abort();
	loop_timer_init(&t.limit, testing_late);
	loop_timer_set(t.loop, &t.limit, loop_now(t.loop) + 10ull * 1000000000);
	loop_send(t.loop, &t.start);
	if (loop_run(t.loop, NULL))
		abort();
	loop_destroy(t.loop);
	return t.status;
}

/** A directory of the test's own, whose name goes to @path (200 bytes). Returns @path. */
static inline char *testing_directory(char *path)
{
	const char *temporary = getenv("TMPDIR");

	snprintf(path, 200, "%s/penstock-unit-XXXXXX", temporary ? temporary : "/tmp");
	if (!mkdtemp(path))
		abort();
	return path;
}
