/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_ring.h - from a loop to the thread that writes: a ring of bytes without a lock
 *
 * One thread puts records in, another takes them out. A record lies in one piece; where it does not
 * fit before the end of the ring, a record without contents fills the rest. There is no waiting:
 * what does not fit is refused, and its writer counts it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/stats.h"

/** Bytes of a ring: several of the longest records. Its memory is taken as it is first used. */
#define CAPTURE_RING (4ul << 20)

enum capture_record_kind {
	CAPTURE_NOTHING, /**< only takes up room */
	CAPTURE_PACKET,  /**< struct capture_packet */
	CAPTURE_PLACE,   /**< struct capture_place: for the packets that follow */
};

/** What all records begin with. Their lengths are multiples of 8. */
struct capture_record {
	uint32_t size; /**< bytes, with this */
	uint32_t kind;
};

struct capture_ring {
	uint8_t *bytes;
	/* the producer's */
	_Alignas(64) _Atomic uint64_t head; /**< bytes ever put in */
	uint64_t next;                      /**< the same, with what is not told yet */
	uint64_t seen_tail;
	stats_counter seen;     /**< packets that came by */
	stats_counter accepted; /**< of those, what the filter let pass */
	stats_counter missed;   /**< of those, what found no room */
	/* the consumer's */
	_Alignas(64) _Atomic uint64_t tail; /**< bytes ever taken out */
	uint64_t at;                        /**< the same, with what is not given back yet */
	uint64_t seen_head;
};

struct capture_ring *capture_ring_create(void);
/** NULL is allowed. */
void capture_ring_free(struct capture_ring *ring);

/* --- the producer --------------------------------------------------------------------- */

/** Room for a record of @size bytes, a multiple of 8 and at most a quarter of the ring; or NULL.
 * Its size and kind are the caller's to set. */
static inline void *capture_ring_reserve(struct capture_ring *ring, uint32_t size)
{
	uint32_t offset = (uint32_t)(ring->next % CAPTURE_RING);
	uint32_t rest = CAPTURE_RING - offset;
	uint64_t wanted = rest < size ? (uint64_t)rest + size : size;

	if (ring->next + wanted - ring->seen_tail > CAPTURE_RING) {
		ring->seen_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
		if (ring->next + wanted - ring->seen_tail > CAPTURE_RING)
			return NULL;
	}
	if (rest < size) {
		*(struct capture_record *)(void *)(ring->bytes + offset) =
			(struct capture_record){ rest, CAPTURE_NOTHING };
		ring->next += rest;
		offset = 0;
	}
	ring->next += size;
	return ring->bytes + offset;
}

/** Tells the consumer of all records that were put in. */
static inline void capture_ring_publish(struct capture_ring *ring)
{
	atomic_store_explicit(&ring->head, ring->next, memory_order_release);
}

/* --- the consumer --------------------------------------------------------------------- */

/** The oldest record, or NULL. It stays until capture_ring_release(). */
static inline struct capture_record *capture_ring_peek(struct capture_ring *ring)
{
	for (;;) {
		struct capture_record *record;

		if (ring->at == ring->seen_head) {
			ring->seen_head = atomic_load_explicit(&ring->head, memory_order_acquire);
			if (ring->at == ring->seen_head)
				return NULL;
		}
		record = (void *)(ring->bytes + ring->at % CAPTURE_RING);
		if (record->kind != CAPTURE_NOTHING)
			return record;
		ring->at += record->size;
	}
}

/** @record, the oldest, has been read. */
static inline void capture_ring_next(struct capture_ring *ring, const struct capture_record *record)
{
	ring->at += record->size;
}

/** Gives the room of all that has been read back to the producer. */
static inline void capture_ring_release(struct capture_ring *ring)
{
	atomic_store_explicit(&ring->tail, ring->at, memory_order_release);
}
