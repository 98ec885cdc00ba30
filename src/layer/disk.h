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
 */
#pragma once

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

struct disk {
	char *name;
	struct disk_config config;
	uint32_t block_size;   /**< bytes */
	_Atomic uint64_t size; /**< bytes, a multiple of block_size; grows only */
	struct stack *stack;
	struct limits limits;  /**< the stack's, as the guest is to see them */
	struct list listeners; /**< control thread only */
};

/** Bytes of a block of a disk over @backend. */
uint32_t disk_block_size(const struct disk_config *config, const struct layer_ops *backend);

/**
 * Opens a disk. @line_of_error as in stack_open(). It may wait for storage, or for a lock. Any
 * thread; the disk belongs to the control thread. NULL on failure, with @err.
 */
struct disk *disk_open(const char *name, const struct disk_config *config,
		       const struct layer_config *layers, unsigned count, unsigned *line_of_error,
		       struct error *err);

/** Closes it; all its queues must be closed. NULL is allowed. */
void disk_close(struct disk *disk);

/** Grows the disk to @size bytes while it is in use, its back-end too where that can. */
int disk_resize(struct disk *disk, uint64_t size, struct error *err);

void disk_listen(struct disk *disk, struct disk_listener *listener);
void disk_unlisten(struct disk_listener *listener);

/**
 * A queue onto the disk for @depth requests at once, each of at most @vectors iovecs. On the
 * queue's thread. 0 or -ENOMEM.
 */
int disk_queue_open(struct disk *disk, struct io_queue *queue, struct loop *loop, unsigned depth,
		    unsigned vectors);
void disk_queue_close(struct disk *disk, struct io_queue *queue);

/**
 * Sends @io to the disk; it comes back to @done with layer NULL. Refuses, in status, what is
 * outside the disk (-ERANGE), not in whole blocks (-EINVAL), or a change to a read-only disk
 * (-EROFS).
 */
struct io_frame *disk_submit(struct disk *disk, struct io *io, io_done_fn *done);
