/* SPDX-License-Identifier: BSD-3-Clause */
#include "packet/uplink/frame_pipe.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ALIGNMENT 16u
#define SKIP      UINT32_MAX

static uint64_t record_size(uint32_t length)
{
	return (sizeof(struct frame_record) + (uint64_t)length + ALIGNMENT - 1) &
	       ~(uint64_t)(ALIGNMENT - 1);
}

static struct frame_record *record_at(struct frame_pipe *pipe, uint64_t position)
{
	return (struct frame_record *)(void *)(pipe->memory + (position & (pipe->size - 1)));
}

int frame_pipe_init(struct frame_pipe *pipe, size_t size)
{
	*pipe = (struct frame_pipe){ .size = size, .to_putter = -1, .to_taker = -1 };
	pipe->memory = aligned_alloc(4096, size);
	pipe->to_putter = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pipe->to_taker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pipe->memory && pipe->to_putter >= 0 && pipe->to_taker >= 0)
		return 0;
	frame_pipe_release(pipe);
	return -ENOMEM;
}

void frame_pipe_release(struct frame_pipe *pipe)
{
	free(pipe->memory);
	if (pipe->to_putter >= 0)
		close(pipe->to_putter);
	if (pipe->to_taker >= 0)
		close(pipe->to_taker);
	*pipe = (struct frame_pipe){ .to_putter = -1, .to_taker = -1 };
}

/* --- putting -------------------------------------------------------------------------- */

struct frame_record *frame_pipe_reserve(struct frame_pipe *pipe, uint32_t length)
{
	uint64_t put = atomic_load_explicit(&pipe->put, memory_order_relaxed);
	uint64_t taken = atomic_load(&pipe->taken);
	uint64_t wanted = record_size(length);
	uint64_t to_end = pipe->size - (put & (pipe->size - 1));
	struct frame_record *record;

	/* A record does not go round the end; a skip takes less than the smallest record. */
	if (wanted > to_end) {
		if (to_end + wanted > pipe->size - (put - taken))
			return NULL;
		record_at(pipe, put)->length = SKIP;
		put += to_end;
	} else if (wanted > pipe->size - (put - taken)) {
		return NULL;
	}
	record = record_at(pipe, put);
	record->length = length;
	pipe->reserved = put + wanted;
	return record;
}

void frame_pipe_put(struct frame_pipe *pipe)
{
	/* Sequentially consistent against taker_waits: one of the two sees the other. */
	atomic_store(&pipe->put, pipe->reserved);
	if (atomic_load(&pipe->taker_waits) && atomic_exchange(&pipe->taker_waits, false))
		frame_pipe_wake(pipe->to_taker);
}

void frame_pipe_putter_waits(struct frame_pipe *pipe)
{
	atomic_store(&pipe->putter_waits, true);
}

/* --- taking --------------------------------------------------------------------------- */

struct frame_record *frame_pipe_first(struct frame_pipe *pipe)
{
	uint64_t taken = atomic_load_explicit(&pipe->taken, memory_order_relaxed);
	struct frame_record *record;

	if (taken == atomic_load(&pipe->put))
		return NULL;
	record = record_at(pipe, taken);
	if (record->length != SKIP)
		return record;
	taken += pipe->size - (taken & (pipe->size - 1));
	atomic_store_explicit(&pipe->taken, taken, memory_order_release);
	return record_at(pipe, taken);
}

void frame_pipe_drop(struct frame_pipe *pipe, const struct frame_record *first)
{
	uint64_t taken = atomic_load_explicit(&pipe->taken, memory_order_relaxed);

	atomic_store(&pipe->taken, taken + record_size(first->length));
	if (atomic_load(&pipe->putter_waits) && atomic_exchange(&pipe->putter_waits, false))
		frame_pipe_wake(pipe->to_putter);
}

void frame_pipe_taker_waits(struct frame_pipe *pipe)
{
	atomic_store(&pipe->taker_waits, true);
}

/* --- waking --------------------------------------------------------------------------- */

void frame_pipe_wake(int fd)
{
	uint64_t one = 1;

	/* A full counter wakes as well. */
	if (write(fd, &one, sizeof one) < 0)
		return;
}

void frame_pipe_awake(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof count) < 0)
		return;
}
