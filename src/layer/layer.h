/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layer.h - an interposition step of a disk: one file, one ops struct
 *
 * A layer sees each request on its way down (submit) and, if it pushed a frame, its
 * completion on its way up (the done it named). An absent op passes through. A
 * back-end is a layer with nothing below. docs/adding-a-layer.md builds one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/io.h"
#include "util/option.h"

struct error;
struct layer;

/** What a disk, or the part of a stack below some point, can take. A layer may lower it. */
struct limits {
	uint64_t size;                /**< bytes */
	uint32_t block_size;          /**< offset and length are multiples of it; power of 2 */
	uint32_t physical_block_size; /**< smallest write that is not read-modify-write */
	uint32_t optimal_io;          /**< best length of large requests, bytes; 0: unknown */
	uint32_t natural_block_size;  /**< the back-end's, see layer_ops; 0: none */
	bool read_only;
	bool discard; /**< IO_DISCARD frees space */
};

/** One kind of layer or back-end. */
struct layer_ops {
	const char *name;             /**< as in the configuration */
	const char *summary;          /**< one line for lists */
	const char *description;      /**< paragraphs for the man page */
	const char *example;          /**< YAML of one disk that uses it, for the man page */
	size_t size;                  /**< of the object; struct layer is its first member */
	const struct option *options; /**< may be NULL */
	bool backend;                 /**< nothing is below it */
	bool read_only;               /**< a back-end that cannot be written, whoever asks */
	uint32_t natural_block_size;  /**< of a back-end: what its medium has, bytes; 0: any */
	bool single_loop;             /**< may not run on several loops at once */
	unsigned fan_out;             /**< most parts it has under way for one request */
	size_t queue_state;           /**< bytes for each queue, zeroed; see layer_queue_state() */

	/** Options are set; layers below are open. 0 or -errno with @err. */
	int (*open)(struct layer *layer, struct error *err);
	/** Frees what open made. Options are freed for it. */
	void (*close)(struct layer *layer);
	/** @limits holds those of the layer below (a back-end's: zeroes) and receives its own. */
	void (*limits)(struct layer *layer, struct limits *limits);
	/** Grows what it stores to @size bytes; absent: a layer asks the one below. */
	int (*resize)(struct layer *layer, uint64_t size, struct error *err);
	/** A queue was added / goes; on the queue's thread. */
	void (*queue_open)(struct layer *layer, struct io_queue *queue);
	void (*queue_close)(struct layer *layer, struct io_queue *queue);
	/** Takes @io: finishes it, sends it on, or keeps it. On the queue's thread. */
	void (*submit)(struct layer *layer, struct io *io);
};

/** One layer of one disk. */
struct layer {
	const struct layer_ops *ops;
	struct layer *below; /**< NULL in a back-end */
	const char *disk;    /**< name of the disk, for messages */
	bool read_only;      /**< the disk is read-only: open nothing for writing */
	uint32_t block_size; /**< the disk's; every request is a multiple of it */
	size_t queue_offset; /**< of its state in io_queue.state */
};

/** The layer's own state on @queue. */
static inline void *layer_queue_state(const struct layer *layer, const struct io_queue *queue)
{
	return (char *)queue->state + layer->queue_offset;
}

/** All kinds, ended by NULL. */
extern const struct layer_ops *const layer_registry[];

/** The kind called @name, or NULL. */
const struct layer_ops *layer_find(const char *name);
