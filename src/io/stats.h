/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stats.h - counters of one queue
 *
 * Written by the queue's own thread only, read by any: relaxed atomics, so that a
 * count is an ordinary add on the hot path and never torn for a reader.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "io/io.h"

typedef _Atomic uint64_t stats_counter;

/**
 * Latency buckets: bucket b counts requests that took less than 2^b microseconds (and not less
 * than 2^(b-1)); the last takes the rest. 1 us .. 33 s.
 */
#define STATS_BUCKETS 26

/** What a queue has done since it was attached. */
struct queue_stats {
	struct {
		stats_counter requests;
		stats_counter bytes;
		stats_counter errors;                 /**< completed with an error */
		stats_counter latency_ns;             /**< sum over all requests */
		stats_counter latency[STATS_BUCKETS]; /**< see above; not cumulative */
	} op[IO_OPS];
	stats_counter interrupts;            /**< sent to the guest */
	stats_counter interrupts_suppressed; /**< batches completed without one */
	stats_counter accesses;              /**< notifications (kicks) by the guest */
	stats_counter in_flight;             /**< requests taken and not yet completed */
};

static inline void stats_add(stats_counter *counter, uint64_t n)
{
	uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, now + n, memory_order_relaxed);
}

static inline uint64_t stats_read(const stats_counter *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/** Counts a completed request: @op, @bytes, 0 or -errno, and how long it took. */
static inline void stats_count(struct queue_stats *stats, enum io_op op, uint64_t bytes, int status,
			       uint64_t nanoseconds)
{
	uint64_t us = nanoseconds / 1000;
	unsigned bucket = us ? 64 - (unsigned)__builtin_clzll(us) : 0;

	if (bucket >= STATS_BUCKETS)
		bucket = STATS_BUCKETS - 1;
	stats_add(&stats->op[op].requests, 1);
	stats_add(&stats->op[op].bytes, bytes);
	stats_add(&stats->op[op].latency_ns, nanoseconds);
	stats_add(&stats->op[op].latency[bucket], 1);
	if (status)
		stats_add(&stats->op[op].errors, 1);
}
