/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inflight.h - what the inflight records of both ring formats have in common (vhost-user,
 * "Inflight I/O tracking")
 *
 * The records themselves are in split.c and packed_inflight.c.
 */
#pragma once

#include <stdint.h>

struct virtqueue;

#define INFLIGHT_VERSION 1

/** How the regions of both formats begin. */
struct inflight_header {
	uint64_t features; /**< 0 */
	uint16_t version;  /**< 0: nothing is recorded; else INFLIGHT_VERSION */
	uint16_t desc_num; /**< entries that follow */
};

/** A chain that a predecessor popped and did not give back. */
struct again {
	uint64_t counter; /**< the order in which they were popped */
	uint16_t id;      /**< split: head; packed: first entry in the region */
};

/** Whether @vq's region tells of a predecessor: 1, 0 if it is fresh, negative after
 * virtqueue_break(). */
int inflight_recorded(struct virtqueue *vq);

/** Adds a chain to what is to be popped again. */
void inflight_again(struct virtqueue *vq, uint16_t id, uint64_t counter);

/** All are added: puts them into order. */
void inflight_again_sort(struct virtqueue *vq);

/** Order of two stores (or two loads) as another thread, or our successor, sees them. */
#define store_in_order() atomic_thread_fence(memory_order_release)
