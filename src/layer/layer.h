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

struct disk;
struct error;
struct layer;
struct layer_config;

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

/** What those above a layer use of it, bytes; length 0: all from the offset on. */
struct layer_part {
	uint64_t offset, length;
};

/** What an open layer is to become: see layer_ops.prepare. It stays until commit or abandon. */
struct layer_plan {
	struct layer *options; /**< an object of the layer's size with the new options set */
	struct layer *below;
	struct layer **legs;
	unsigned leg_count;
	struct layer_part part; /**< what those above will use of it */
};

/** Whoever waits for a layer's own work to end; see layer_ops.stop. */
struct layer_stop {
	struct loop *loop; /**< where @done is to run */
	struct loop_message done;
};

/** How what a layer keeps in what is below is made anew: `penstock create`. */
struct layer_format {
	const char *summary;          /**< one line: what is made */
	const char *description;      /**< paragraphs for the man page; NULL: none */
	size_t size;                  /**< of the object that the options are written into */
	const struct option *options; /**< none is called size or force */
	/** Bytes that are needed below for a disk of @size bytes. */
	uint64_t (*room)(const void *object, uint64_t size);
	/** Makes it on @below, and destroys what was there. It may wait. 0 or -errno with @err. */
	int (*create)(const void *object, struct layer *below, struct error *err);
};

/** One kind of layer or back-end. */
struct layer_ops {
	const char *name;                  /**< as in the configuration */
	const char *summary;               /**< one line for lists */
	const char *description;           /**< paragraphs for the man page */
	const char *example;               /**< YAML of one disk that uses it, for the man page */
	const struct layer_format *format; /**< NULL: it keeps nothing that must be made first */
	size_t size;                       /**< of the object; struct layer is its first member */
	const struct option *options;      /**< may be NULL */
	bool backend;  /**< nothing is below it in its list: bytes end here, or in its legs */
	bool internal; /**< the program's own: not for configurations */
	const char *place_option;    /**< says which thing it is; another value is another one */
	const char *legs_option;     /**< the option that holds its legs; NULL: it has none */
	unsigned legs_min, legs_max; /**< stacks in that option */
	bool legs_may_fail;          /**< a disk opens without legs that do not: see layer.absent */
	bool alters;                 /**< what it presents is not what is below, byte for byte */
	bool remembers;       /**< it keeps what it found below (cache): not for another disk */
	bool begins_as_below; /**< but at first, before anything is written (overlay) */
	bool below_read_only; /**< it never writes to what is below (to its legs it may) */
	bool read_only;       /**< a back-end that cannot be written, whoever asks */
	uint32_t natural_block_size; /**< of a back-end: what its medium has, bytes; 0: any */
	bool shows_below;   /**< its bytes follow from its options, what is below, and its legs */
	bool single_loop;   /**< may not run on several loops at once */
	unsigned fan_out;   /**< most parts it has under way for one request */
	unsigned errands;   /**< most ios of its own under way on one queue */
	size_t queue_state; /**< bytes for each queue, zeroed; see layer_queue_state() */

	/**
	 * The part that a layer with @options uses of the one below; absent: all of it. Neither of
	 * the two is open.
	 */
	void (*part)(const struct layer *options, struct layer_part *part);
	/** Options are set; layers below are open (session.h reads them). 0 or -errno with @err. */
	int (*open)(struct layer *layer, struct error *err);
	/** Frees what open made. Options are freed for it. */
	void (*close)(struct layer *layer);
	/**
	 * @limits holds those of the layer below (zeroes if nothing is) and receives its own. Those
	 * of legs are in layer.legs[i]->limits.
	 */
	void (*limits)(struct layer *layer, struct limits *limits);
	/** With copies in its legs: leg @leg holds all that the layer presents. Control thread. */
	bool (*holds)(const struct layer *layer, unsigned leg);
	/** Grows what it stores to @size bytes; absent: it asks the one below. See layer_resize().
	 */
	int (*resize)(struct layer *layer, uint64_t size, struct error *err);

	/*
	 * A change while the disk is in use. prepare: the layer is to have these options, and these
	 * layers below; what takes time or may fail is done here, on a thread that may wait, while
	 * requests go on. Then, with no request inside the disk, the new layers are linked, the
	 * options are moved into the layer, and commit is called, which cannot fail; or abandon is.
	 * A layer without prepare is linked anew as it is if its options stay the same, and is
	 * opened anew if they do not. A prepare that just returns 0 says that options may change.
	 * It is not called for another option @place_option: that is another layer.
	 */
	int (*prepare)(struct layer *layer, const struct layer_plan *plan, struct error *err);
	void (*commit)(struct layer *layer);
	void (*abandon)(struct layer *layer);

	/**
	 * In a change: the layer goes, or it is prepared and its legs may go. What it keeps in what
	 * is below must mislead nobody who finds it later. @kept: a bit for each of its legs that
	 * stays in the disk's stack, or part of which does. Asked are only layers from which the
	 * disk has its data. With no request inside the disk and the old links, on a thread that
	 * may wait. 0; or -errno with @err: then the change is not made, and nothing is changed. If
	 * it is not made because of another layer, abandon is called, of a layer that is not
	 * prepared, too.
	 */
	int (*retire)(struct layer *layer, uint32_t kept, struct error *err);

	/**
	 * Throws away what was changed. With no request inside the disk, on a thread that may wait.
	 * 0, or -errno with @err and nothing changed.
	 */
	int (*undo)(struct layer *layer, struct error *err);

	/** The disk is in service: work of its own (a resync) may begin, on @home's thread. */
	void (*start)(struct layer *layer, struct loop *home);
	/**
	 * That work is to end, soon: loop_send(@stop->loop, &@stop->done) says that it has. Called
	 * on the control thread, once for each start, before the layer is changed or closed.
	 */
	void (*stop)(struct layer *layer, struct layer_stop *stop);

	/** A queue was added / goes; on the queue's thread. 0 or -ENOMEM. */
	int (*queue_open)(struct layer *layer, struct io_queue *queue);
	void (*queue_close)(struct layer *layer, struct io_queue *queue);
	/** Takes @io: finishes it, sends it on, or keeps it. On the queue's thread. */
	void (*submit)(struct layer *layer, struct io *io);

	/**
	 * Of a back-end that is open for reading only: which thing it reads, as a text that is the
	 * same for whoever opens the same. False if it cannot tell.
	 */
	bool (*identity)(const struct layer *layer, char *text, size_t size);

	/** What there is to say of its state, for status and the API; a new object, or NULL. */
	struct json_t *(*report)(struct layer *layer);
};

/** One layer of one disk. */
struct layer {
	const struct layer_ops *ops;
	struct layer *below; /**< NULL if nothing is */
	struct layer **legs; /**< heads of stacks of its own */
	unsigned leg_count;
	struct disk *owner; /**< the disk in whose service it is; NULL before that */
	const char *disk;   /**< name of the disk, for messages */
	char *absent;   /**< why it could not be opened: it stands for its configuration; or NULL */
	bool read_only; /**< open nothing for writing */
	uint32_t block_size;    /**< the disk's; every request is a multiple of it */
	struct limits limits;   /**< its own */
	struct layer_part part; /**< what the one above uses of it */
	size_t queue_offset;    /**< of its state in io_queue.state */
	/* Of a queue that begins at this layer: */
	size_t queue_state;          /**< bytes of all states */
	unsigned frames;             /**< an io needs from here down */
	unsigned parts;              /**< ios that one request can turn into, at most */
	unsigned errands;            /**< ios that belong to no request, and their parts */
	struct layer_config *config; /**< as its user wrote it, without its legs */
};

/** The layer's own state on @queue. */
static inline void *layer_queue_state(const struct layer *layer, const struct io_queue *queue)
{
	return (char *)queue->state + layer->queue_offset;
}

/** Grows the disk that @layer presents to @size bytes, by what it has below. */
int layer_resize(struct layer *layer, uint64_t size, struct error *err);

/** All kinds, ended by NULL. */
extern const struct layer_ops *const layer_registry[];

/** The kind called @name, or NULL. */
const struct layer_ops *layer_find(const char *name);
