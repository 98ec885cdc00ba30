/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * io.h - one request on its way down the layers and back up
 *
 * Rules
 *   1. An io has exactly one holder. io_send(), io_send_then() and io_finish()
 *      give it away: after them, do not touch it.
 *   2. Every io that is sent comes back exactly once, to the done of the top frame.
 *   3. A done never runs inside a submit: io_finish() only lists the io, and the
 *      queue's loop calls done. So no re-entrancy, and a flat C stack.
 *   4. When done runs, offset, length and data are as they were when it was pushed.
 *   5. An io never leaves its queue's thread. Whoever works for it on another one (a worker core, a
 *      thread of a library) may read and write what it was lent, and gives it back by io_wake().
 *
 * Nothing is allocated per request: a queue holds as many ios as its guest can have
 * in flight, times what the layers below may split one into, and each io has a frame
 * for every layer. Their memory is touched only when the depth really is reached.
 *
 * With -Dchecks=true (IO_CHECKS) the five rules are checked here, once for all
 * layers: who holds, finished twice, frames, thread, range, data shorter than length.
 * A breach is a defect of our own code, never of a guest's making, so it aborts.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "loop/loop.h"

struct io;
struct io_queue;
struct layer;

enum io_op { IO_READ, IO_WRITE, IO_FLUSH, IO_DISCARD, IO_ZEROES, IO_OPS };

enum io_flag {
	IO_FUA = 1,   /**< write, zeroes: on stable storage before it completes */
	IO_UNMAP = 2, /**< zeroes: the space may be given back */
};

/** A view of bytes that somebody else owns: guest memory or a bounce buffer. */
struct io_data {
	struct iovec *vec;
	uint32_t count; /**< of vec */
	uint32_t skip;  /**< bytes to skip in vec[0]; less than its length */
};

/** Called on the way up, for the layer that pushed it. The io is the layer's again. */
typedef void io_done_fn(struct layer *layer, struct io *io);

/** What one layer remembers of one io: exactly one cache line. */
struct io_frame {
	io_done_fn *done;
	struct layer *layer;
	uint64_t offset, length; /**< put back before done runs */
	struct io_data data;     /**< likewise */
	uint64_t note[2];        /**< the layer's own */
};
_Static_assert(sizeof(struct io_frame) == 64, "one frame, one cache line");

/** One request. */
struct io {
	uint8_t op;              /**< enum io_op */
	uint8_t flags;           /**< enum io_flag */
	uint16_t depth;          /**< frames in use */
	int status;              /**< on the way up: 0 or -errno */
	uint64_t offset, length; /**< bytes; READ, WRITE: length is that of data */
	struct io_data data;     /**< READ, WRITE; unused in other ops */
	struct io_queue *queue;  /**< of the thread that owns this io */
	struct io *next;         /**< free for whoever holds the io */
	struct io *whole;        /**< in a part: the io it is a part of */
	io_done_fn *wake;        /**< see io_wake() */
	struct layer *wakes;     /**< likewise */
	uint32_t parts;          /**< parts still below, while split */
	uint32_t state;          /**< IO_CHECKS only */
	uint64_t started;        /**< ns, loop_now() when the front-end took it */
	union {
		struct loop_op op_kernel; /**< for the back-end that holds the io */
		struct {
			uint32_t first, count;
			bool exclusive;
		} range; /**< while it waits for one, see ranges.h */
	};
	struct io_frame frame[] __attribute__((aligned(64)));
};

/** Equal ios, one after another in memory, touched only when taken for the first time. */
struct io_pool {
	struct io *free; /**< given back */
	char *base;      /**< of the first */
	unsigned fresh;  /**< never taken: this one and those after it */
	unsigned total;
};

/** What another thread has to say to a queue: these ios can go on. */
struct io_inbox {
	_Atomic(struct io *) first; /**< the latest one first */
	struct loop_message message;
};

/** The ios of one guest queue, and those of them that wait for their done. */
struct io_queue {
	struct io *finished;       /**< first of those to run */
	struct io **finished_last; /**< where the next one is linked */
	struct loop_task task;     /**< runs the finished */
	struct loop *loop;         /**< the thread that owns the queue */
	/** Called after a batch of dones has run; may be NULL. */
	void (*settled)(struct io_queue *queue);
	/** Called after dones have run and nothing is inside; NULL: nobody wants to know. */
	void (*empty)(struct io_queue *queue);
	void *owner;          /**< whoever made the queue; for its dones and @settled */
	void *state;          /**< of the layers, see layer.h */
	unsigned out;         /**< requests taken and not put back */
	unsigned errands;     /**< under way */
	unsigned errands_max; /**< that the layers declared together */
	unsigned inside;      /**< ios that have a frame: below whoever took them, parts included */
	unsigned vectors;     /**< iovecs of each request */
	size_t stride;        /**< bytes from one io to the next */
	unsigned frames;      /**< of each io */
	struct io_pool roots; /**< requests of the guest */
	struct io_pool parts; /**< what layers split them into, and their errands */
	struct iovec *vec;    /**< @vectors for each root */
	size_t mapped;        /**< bytes of all this memory */
	struct io_inbox inbox;
};

/* --- on the way down ---------------------------------------------------------------- */

/** Sends @io to @to. */
void io_send(struct layer *to, struct io *io);

/** Remembers @io as it is, and that @done of @from wants it back. Returns the frame. */
struct io_frame *io_push(struct layer *from, struct io *io, io_done_fn *done);

/** Both. The frame that is returned may be written until control returns to the loop. */
struct io_frame *io_send_then(struct layer *from, struct layer *to, struct io *io,
			      io_done_fn *done);

/* --- on the way up ------------------------------------------------------------------ */

/** Ends @io's stay below: its top frame's done will be called with @status (0 or -errno). */
void io_finish(struct io *io, int status);

/** In a done: the frame that was just popped, which still holds its notes. */
static inline struct io_frame *io_frame(struct io *io)
{
	return &io->frame[io->depth];
}

/**
 * Has @run(@layer, @io) called on the thread of the io's queue, soon. From any thread, by whoever
 * holds the io for a while: a worker, or whoever lets go what it waited for.
 */
void io_wake(struct io *io, struct layer *layer, io_done_fn *run);

/* --- fan-out: io_parts_begin, any number of io_send_part, io_parts_end; then done, once -- */

/** Opens @io for splitting; @done runs when every part is back, status the first error. */
struct io_frame *io_parts_begin(struct layer *from, struct io *io, io_done_fn *done);

/** Sends bytes [@start, @start+@length) of @io to @to, at @offset there. */
void io_send_part(struct io *io, struct layer *to, uint64_t start, uint64_t length,
		  uint64_t offset);

/**
 * The same in steps, for a layer that wants to see each part come back: a part of @io, ready but
 * for its frame. The layer pushes one, sends it, and in its done calls io_part_end().
 */
struct io *io_part(struct io *io, uint64_t start, uint64_t length, uint64_t offset);

/** @part is back with @status, which counts for the whole; the first error does. */
void io_part_end(struct io *part, int status);

/** All parts are sent. */
void io_parts_end(struct io *io);

/* --- errands: ios of a layer's own, on the queue of the request that is the reason --------- */

/**
 * An io that belongs to no request: to write metadata, to read ahead. The layer sets op, flags,
 * offset, length and data (its own memory), pushes a frame, sends it below, and in its done calls
 * io_errand_end(). NULL if as many are under way as all layers of the stack declared together: a
 * layer that keeps to its own number (layer_ops.errands) always gets one. A queue waits for its
 * errands before it closes.
 */
struct io *io_errand(struct io_queue *queue);
void io_errand_end(struct io *errand);

/* --- the queue ---------------------------------------------------------------------- */

/**
 * Prepares @queue for @roots requests of a guest at once, each with @vectors iovecs, each
 * at most @parts parts below, with @frames frames. 0 or -ENOMEM.
 */
int io_queue_init(struct io_queue *queue, struct loop *loop, unsigned roots, unsigned parts,
		  unsigned frames, unsigned vectors);

/**
 * Gives @queue room for other numbers of @parts and @frames. Requests that are out must be those in
 * the list @kept (linked by next, one frame each), which move: the list is changed to where they
 * are now. On the queue's thread. 0 or -ENOMEM, with nothing changed.
 */
int io_queue_refit(struct io_queue *queue, unsigned parts, unsigned frames, struct io **kept);

/** Frees its memory; every io must be back. */
void io_queue_release(struct io_queue *queue);

/** A request for the guest's use, or NULL when all are in flight. Its frames are empty. */
struct io *io_get(struct io_queue *queue);

/** Gives it back. */
void io_put(struct io *io);

/** The iovecs that belong to a request from io_get(). */
struct iovec *io_vector(struct io *io);

/** Runs the done of everything that is finished. The loop does it; tests may. */
void io_queue_run(struct io_queue *queue);

/* --- data --------------------------------------------------------------------------- */

/** The view from byte @start on. */
struct io_data io_data_slice(struct io_data data, uint64_t start);

/**
 * Copies a view word by word. The compiler would rather use one vector, and a vector load of what
 * was just stored in words has to wait for every store before it, into guest memory too.
 */
static inline void io_data_set(struct io_data *to, struct io_data from)
{
	to->vec = from.vec;
	to->count = from.count;
	to->skip = from.skip;
}

/** Bytes in the view. */
uint64_t io_data_length(struct io_data data);

void io_data_copy_out(struct io_data data, void *to, uint64_t length);
void io_data_copy_in(struct io_data data, const void *from, uint64_t length);
void io_data_zero(struct io_data data, uint64_t length);

/** "read", "write", "flush", "discard", "write-zeroes". */
const char *io_op_name(enum io_op op);
