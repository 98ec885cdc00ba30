/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * aggregate.h - what stripe and concat share: requests that fall apart into pieces on several legs
 *
 * A request within one piece, as most are, goes to its leg as it is. A longer one is cut, and its
 * pieces are sent in windows, one after another, so that its length has no bound. A flush goes to
 * all legs.
 */
#pragma once

#include "layer/layer.h"

/** Most legs of a layer, and most pieces of one request under way. */
#define AGGREGATE_LEGS 16

/** Where the bytes from some offset of the disk on are. */
struct piece {
	unsigned leg;
	uint64_t offset; /**< on the leg, bytes */
	uint64_t length; /**< of what is there one after another, bytes; not 0 */
};

/** Finds the piece that begins at @offset of the disk. */
typedef struct piece aggregate_locate_fn(const struct layer *layer, uint64_t offset);

/** Sends @io, of any op, to the legs that @locate names. */
void aggregate_submit(struct layer *layer, struct io *io, aggregate_locate_fn *locate,
		      io_done_fn *window_done);

/** What the window_done of a layer does: the next window, or the end. */
void aggregate_window_done(struct layer *layer, struct io *io, aggregate_locate_fn *locate,
			   io_done_fn *window_done);

/** Ends @io as it came back. */
void aggregate_done(struct layer *layer, struct io *io);

/** The limits that follow from those of all legs, but for the size. */
void aggregate_limits(const struct layer *layer, struct limits *limits);

/** The largest block size of the legs and of the disk: no border may cut such a block. */
uint32_t aggregate_block_size(const struct layer *layer, struct layer *const *legs, unsigned count);
