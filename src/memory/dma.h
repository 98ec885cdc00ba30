/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dma.h - what one device may reach of its guest's memory, and how
 *
 * A space is the device's address space: memory that the VMM has shared is mapped here (memory.h);
 * memory that it has only announced is reached by messages to the VMM, which take a round trip. A
 * device type does not see the difference: it describes a transfer, is told when it may begin,
 * fills or reads the iovecs that it got, and says when it is done.
 *
 *     dma_begin(t, space, vec, room)     nothing yet
 *     dma_add(t, address, length) ...    the pieces, in order, each checked
 *     dma_ready(t, direction, ready)     @ready runs, now or later, when t->vec may be used
 *     ... the device's own work, e.g. an io on a disk with t->vec as its data ...
 *     dma_finish(t, finished)            @finished runs, now or later, when the guest has the bytes
 *
 * For mapped memory both run at once, inside the call (but for the first ones, see below), and
 * nothing is copied or allocated: the iovecs point into the guest's pages. For the rest there is a
 * bounce buffer. A transfer holds the memory table that it began with, so a region that is unmapped
 * meanwhile stays ours until the end.
 *
 * A VMM whose memory is not shared (share=off) sends a descriptor too, behind which nothing ever
 * changes. So the first uses of each mapping are checked, in passing: the VMM is asked by message
 * for a few bytes there, and if they keep differing from what we see, @unshared is called.
 *
 * All of it on the device's loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "util/list.h"

struct dma_space;
struct dma_transfer;
struct memory;

enum dma_direction {
	DMA_FROM_GUEST, /**< the device reads */
	DMA_TO_GUEST,   /**< the device writes */
};

/** One message to the VMM: @length bytes at guest address @address, from or to @bytes. */
struct dma_message {
	struct list link; /**< the transport's */
	enum dma_direction direction;
	uint64_t address;
	uint32_t length;
	uint16_t id; /**< the transport's */
	void *bytes; /**< must stay until @done */
	/** Called by the transport with 0 or -errno: always later, and also when the VMM is gone.
	 */
	void (*done)(struct dma_message *message, int status);
	void *owner;
};

/** Most places that dma_recheck() looks at. */
#define DMA_UNCERTAIN 32

/** A device's address space. */
struct dma_space {
	struct memory *memory; /**< the table as it is now; regions without mapping included */
	/** Sends @message to the VMM. NULL: there is no such way (unit tests). */
	void (*send)(struct dma_space *space, struct dma_message *message);
	uint32_t message_max; /**< most bytes of a message; not 0 if there is @send */
	/** The memory at @address that the VMM has sent is not what its guest uses. */
	void (*unshared)(struct dma_space *space, uint64_t address);
	void *transport; /**< of whoever set @send */

	/** No transfer that dma_drain() marked is left. May be NULL. */
	void (*drained)(struct dma_space *space);

	/* dma.c's own */
	struct dma_transfer *active;       /**< transfers that have begun and not ended */
	unsigned draining;                 /**< marked ones of them */
	uint64_t uncertain[DMA_UNCERTAIN]; /**< what dma_map() gave and dma_recheck() looks at */
	unsigned uncertain_count, uncertain_next;
	uint64_t bounced;        /**< bytes in bounce buffers */
	struct dma_check *check; /**< under way; NULL: none */
};

typedef void dma_fn(struct dma_transfer *transfer, int status);

/** One transfer. Whoever begins it embeds it, and keeps it until it has finished. */
struct dma_transfer {
	struct iovec *vec; /**< the caller's, @room of them */
	unsigned room, count;
	uint64_t length; /**< bytes added */
	void *owner;     /**< the caller's */

	/* dma.c's own */
	struct dma_space *space;
	struct dma_transfer *next, **previous; /**< in @space->active */
	bool draining, unchecked;
	struct dma_transfer *next_waiting; /**< for a check */
	struct memory *memory;
	enum dma_direction direction;
	dma_fn *then;
	struct dma_bounce *bounce; /**< list of those pieces that are reached by messages */
	unsigned waiting;          /**< messages under way */
	int status;
};

void dma_begin(struct dma_transfer *t, struct dma_space *space, struct iovec *vec, unsigned room);

/**
 * Adds @length bytes at guest address @address (0 is allowed). 0, -EFAULT if some of it is nowhere,
 * -E2BIG if @vec is full, -ENOMEM (also if bounce buffers would take more than 64 MiB). After an
 * error the transfer can only be cancelled.
 */
int dma_add(struct dma_transfer *t, uint64_t address, uint64_t length);

/**
 * Prepares the pieces for @direction: @ready(t, 0) when they may be used, or with -errno if the VMM
 * could not deliver; then the transfer is over.
 */
void dma_ready(struct dma_transfer *t, enum dma_direction direction, dma_fn *ready);

/**
 * Delivers (DMA_TO_GUEST) the first @length bytes, then lets go of everything and calls
 * @finished(t, 0 or -errno).
 */
void dma_finish(struct dma_transfer *t, uint64_t length, dma_fn *finished);

/** Lets go of everything: before dma_ready(), or instead of dma_finish() where nothing was written.
 */
void dma_cancel(struct dma_transfer *t);

/**
 * Mapped memory only, at once: our address of @length bytes at @address, for structures that both
 * sides poll (rings). NULL if it is not one piece of mapped memory. Valid while the caller holds
 * @space->memory (memory_hold()).
 */
void *dma_map(struct dma_space *space, uint64_t address, uint64_t length);

/**
 * Looks again at one of the places that dma_map() gave, if that memory is not yet known to be the
 * guest's: a ring that is not shared looks empty for ever. Called when the guest has done
 * something, for it may have put something there.
 */
void dma_recheck(struct dma_space *space);

/**
 * Memory is unmapped: marks the transfers that use some of the @length bytes at @host. True if any
 * are marked, now or earlier, that have not ended; then @space->drained follows.
 */
bool dma_drain(struct dma_space *space, const char *host, uint64_t length);
