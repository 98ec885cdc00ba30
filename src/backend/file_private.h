/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_private.h - what the back-ends over a file share: file.c opens, file_lock.c keeps others
 * out, file_io.c serves, and iso.c is another kind of the same
 */
#pragma once

#include <stdatomic.h>

#include "layer/layer.h"
#include "util/log.h"

enum direct { DIRECT_AUTO, DIRECT_ON, DIRECT_OFF };

struct file {
	struct layer layer;
	char *path;
	uint64_t size; /* configured: created with, or grown to; 0: as it is */
	bool create;
	int direct; /* enum direct */
	bool discard;
	bool unlocked; /* takes no lock: nobody is kept out */

	int fd;        /* through the page cache; holds the lock */
	int direct_fd; /* or -1 */
	bool block_device;
	uint32_t memory_mask; /* address and length of memory for direct I/O, less one */
	uint32_t offset_mask; /* offset and length in the file for direct I/O, less one */
	uint32_t block_size;  /* that the device insists on */
	_Atomic uint64_t bytes;
	atomic_bool no_punch, no_zero_range; /* the file system said so */
};

/* Of each queue. */
struct file_queue {
	struct log_limit limit;
	int file, direct_file; /* fd and direct_fd as registered with the loop */
	char *bounce; /* aligned memory for a request that has none; made when first needed */
	struct io *bouncing; /* the request that uses it now */
	struct io *waiting;  /* those that want it next, in order */
	struct io **waiting_last;
};

/* file.c */
int file_open(struct layer *layer, struct error *err);
void file_close(struct layer *layer);
bool file_identity(const struct layer *layer, char *text, size_t size);

/* file_lock.c */

/** Locks the part of the file that the layer is for. It waits a moment for who has it. */
int file_lock(struct file *f, struct error *err);
/** Locks @part as well, at once. On failure all is as it was. */
int file_lock_also(struct file *f, struct layer_part part, struct error *err);
/** Lets go what is outside @part, which is locked. */
void file_lock_only(struct file *f, struct layer_part part);

/* file_io.c */
int file_queue_open(struct layer *layer, struct io_queue *queue);
void file_queue_close(struct layer *layer, struct io_queue *queue);
void file_submit(struct layer *layer, struct io *io);
