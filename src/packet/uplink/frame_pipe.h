/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame_pipe.h - frames with their times, from one thread to another, in order: between a loop and
 * a thread that may wait for a disk
 *
 * One thread puts, one takes; neither locks. A side that finds the pipe full (or empty) may say
 * that it waits, look once more, and then sleep on its eventfd; the other side writes it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** One frame, in the pipe's memory. */
struct frame_record {
	uint64_t time;   /**< ns; what of is the users' business */
	uint32_t length; /**< bytes of @data; UINT32_MAX: skip to the beginning of the memory */
	uint32_t note;   /**< the users' */
	uint8_t data[];
};

struct frame_pipe {
	uint8_t *memory;
	size_t size;                 /**< a power of 2 */
	_Atomic uint64_t put, taken; /**< bytes since the beginning */
	uint64_t reserved;           /**< the putter's: end of what frame_pipe_reserve() gave */
	_Atomic bool putter_waits, taker_waits;
	int to_putter, to_taker; /**< eventfds, nonblocking */
};

/** @size bytes, a power of 2, at least 256 KiB. 0 or -errno. */
int frame_pipe_init(struct frame_pipe *pipe, size_t size);
void frame_pipe_release(struct frame_pipe *pipe);

/** Room for a frame of @length bytes, or NULL: the pipe is full. The putter. */
struct frame_record *frame_pipe_reserve(struct frame_pipe *pipe, uint32_t length);
/** What was reserved is complete: the taker may have it, and is woken if it waits. */
void frame_pipe_put(struct frame_pipe *pipe);
/** The putter will sleep on @to_putter: call frame_pipe_reserve() once more before. */
void frame_pipe_putter_waits(struct frame_pipe *pipe);

/** The first frame, which stays until frame_pipe_drop(); NULL: there is none. The taker. */
struct frame_record *frame_pipe_first(struct frame_pipe *pipe);
void frame_pipe_drop(struct frame_pipe *pipe, const struct frame_record *first);
/** The taker will sleep on @to_taker: call frame_pipe_first() once more before. */
void frame_pipe_taker_waits(struct frame_pipe *pipe);

/** Writes an eventfd. Any thread. */
void frame_pipe_wake(int fd);
/** Reads it: it is not readable any more. */
void frame_pipe_awake(int fd);
