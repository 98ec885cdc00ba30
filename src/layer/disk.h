/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * disk.h - a named virtual disk: a stack of layers with a size, a block size and a
 * write cache of its own
 *
 * Size. A disk smaller than its back-end shows the first bytes of it. A disk larger
 * than its back-end reads as zeroes beyond the end; a write there fails with an I/O
 * error and the log says why, once.
 *
 * Write cache. writeback: a completed write may be lost until a FLUSH completes, as on
 * hardware with its cache on. writethrough: each write is on stable storage when it
 * completes. unsafe: FLUSH does nothing; a crash of the host loses data.
 *
 * Change. The layers of a disk can be changed while guests use it: see change.h. All queues of a
 * disk pass one gate, disk_submit(). While it is shut requests wait there, on their own threads,
 * and nothing is inside the disk.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "layer/stack.h"
#include "util/list.h"

enum disk_cache { DISK_WRITEBACK, DISK_WRITETHROUGH, DISK_UNSAFE };
/** auto: the natural one of the back-end; 512 if it has none. */
enum disk_block { DISK_BLOCK_AUTO, DISK_BLOCK_512, DISK_BLOCK_2048, DISK_BLOCK_4096 };

/** What a user says about a disk; the rows are disk_options. Zero-initialise, then options_init().
 */
struct disk_config {
	uint64_t size;  /**< bytes; 0: the back-end's */
	int block_size; /**< enum disk_block */
	int cache;      /**< enum disk_cache */
	bool read_only;
	bool shared;        /**< several VMs may write to it */
	char *reservations; /**< file for SCSI persistent reservations; NULL: they are not kept */
};

extern const struct option disk_options[];

/** Told when the disk changes; see disk_listen(). */
struct disk_listener {
	struct list link;
	void (*resized)(struct disk_listener *listener);
};

/** All queues of a disk. */
struct gate {
	pthread_mutex_t lock; /**< of the list: queues come and go on their threads */
	struct list queues;
	struct layer_stop *stop; /**< told when no closed queue is left; or NULL */
	bool shut;               /**< a queue that is opened now is shut, too */
	struct change *change;   /**< that shut it */
};

struct disk {
	char *name;
	struct disk_config config;
	uint32_t block_size;   /**< bytes */
	_Atomic uint64_t size; /**< bytes, a multiple of block_size; grows only */
	struct layer *top;     /**< its layers, see stack.h; changed while the gate is shut */
	struct layer *extent;  /**< one of them, put there because of @config.size; or NULL */
	atomic_bool discards;  /**< its layers can discard */
	struct limits limits; /**< of the layers, as the guest is to see them: as they were first */
	struct list listeners; /**< control thread only */
	struct loop *home;     /**< where its layers' own work is; NULL: not in service */
	struct gate gate;
};

/** One queue onto a disk; its users use the first member. */
struct disk_queue {
	struct io_queue ios;
	struct disk *disk;
	struct list link; /**< of the disk's gate */
	unsigned depth;   /**< requests at once */
	bool attached;    /**< has the layers' states */
	bool closed;      /**< by its user; it waits for errands of layers */
	bool shut;        /**< requests wait here, or: */
	int failed;       /**< -ENOMEM: they fail here, as the layers' states could not be had */
	struct io *waiting, **waiting_last;
	uint64_t since;                            /**< ns, loop_now() when it was shut */
	void (*emptied)(struct disk_queue *queue); /**< of a change: nothing is inside */
};

/** Bytes of a block of a disk over @stack. */
uint32_t disk_block_size(const struct disk_config *config, const struct stack_config *stack);

/**
 * Opens a disk. @line_of_error as in stack_open(). It may wait for storage, or for a lock. Any
 * thread; the disk belongs to the control thread. NULL on failure, with @err.
 */
struct disk *disk_open(const char *name, const struct disk_config *config,
		       const struct stack_config *stack, unsigned *line_of_error,
		       struct error *err);

/** Closes it; all its queues must be closed. NULL is allowed. */
void disk_close(struct disk *disk);

/**
 * In service: the layers' own work may begin, on @home's thread. Control thread.
 */
void disk_start(struct disk *disk, struct loop *home);

/**
 * Ends that work; @stop says when it has ended, and no queue is left of those that are closed.
 * Control thread. 0 or -ENOMEM.
 */
int disk_stop(struct disk *disk, struct layer_stop *stop);

/** Grows the disk to @size bytes while it is in use, its back-end too where that can. */
int disk_resize(struct disk *disk, uint64_t size, struct error *err);

void disk_listen(struct disk *disk, struct disk_listener *listener);
void disk_unlisten(struct disk_listener *listener);

/**
 * A queue onto the disk for @depth requests at once, each of at most @vectors iovecs; on the thread
 * of
 * @loop, where it stays. NULL: no memory.
 */
struct disk_queue *disk_queue_open(struct disk *disk, struct loop *loop, unsigned depth,
				   unsigned vectors);

/** Its user has no requests out and wants none. It ends when the layers have none either. */
void disk_queue_close(struct disk_queue *queue);

/**
 * Sends @io to the disk; it comes back to @done with layer NULL. Refuses, in status, what is
 * outside the disk (-ERANGE), not in whole blocks (-EINVAL), or a change to a read-only disk
 * (-EROFS).
 */
struct io_frame *disk_submit(struct disk_queue *queue, struct io *io, io_done_fn *done);

/*
 * The gate, for change.c; each on the queue's thread.
 */

/** Shuts it for @queue. 0 if nothing is inside; -EBUSY: @emptied is called when it is so. */
int disk_queue_shut(struct disk_queue *queue);

/** Takes away the layers' states; nothing is inside. */
void disk_queue_detach(struct disk_queue *queue);

/**
 * Fits it to the layers that the disk has now, and lets go what waits. 0 or -ENOMEM: then its
 * requests fail.
 */
int disk_queue_pass(struct disk_queue *queue);
