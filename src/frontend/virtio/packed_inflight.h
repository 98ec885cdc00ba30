/* SPDX-License-Identifier: BSD-3-Clause */
/* packed_inflight.h - the record of what a packed ring has in flight; see packed_inflight.c */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct chain;
struct virtqueue;
struct vring_packed_desc;

/**
 * At start: 0 if the region is fresh (and is prepared now), 1 if it tells of a predecessor: then
 * the device's position and what to pop again are set in @vq, and @slots is how many ring entries
 * that takes. Negative after virtqueue_break(). @shown: was the driver shown this position?
 */
int packed_inflight_recover(struct virtqueue *vq,
			    bool (*shown)(const struct virtqueue *vq, uint16_t at, bool wrap),
			    unsigned *slots);

/** One more descriptor of the chain that is being popped. */
void packed_inflight_take(struct virtqueue *vq, struct chain *chain,
			  const struct vring_packed_desc *d);

/** The chain is complete: it is in flight from here on. */
void packed_inflight_taken(struct virtqueue *vq, struct chain *chain);

/** Before and after the driver is shown the batch. */
void packed_inflight_publish(struct virtqueue *vq);
void packed_inflight_published(struct virtqueue *vq);

/** What was recorded: ring entries of the chain at @record; one of them, returning the next. */
uint16_t packed_inflight_slots(const struct virtqueue *vq, uint16_t record);
uint16_t packed_inflight_read(const struct virtqueue *vq, uint16_t at, struct vring_packed_desc *d);
