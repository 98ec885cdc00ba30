/* SPDX-License-Identifier: BSD-3-Clause */
/* client.h - what the benchmark's clients share: clocks, latencies, waits for a CPU, the way out */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum {
	SUBBUCKETS = 64, /* per power of two: latencies are right to 1.6 % */
	BUCKETS = 64 * SUBBUCKETS,
	STALL_S = 10, /* a server that completes nothing for so long is given up */
};

/* Latencies in whatever unit they were added. */
struct histogram {
	uint64_t count[BUCKETS], total, max;
};

/* One measured run. */
struct result {
	uint64_t requests, errors, kicks, sleeps;
	double seconds, server_cpu;
	double waited; /* s that client and server were ready to run and something else ran */
	struct histogram latency; /* ticks */
};

/* Says "PROGRAM: what: why" and ends with status 1. */
_Noreturn void die(const char *what, const char *why);

uint64_t now_ns(clockid_t clock);
/* ns a tick of ticks(), which takes 20 ms to find out. */
double tick_ns(void);
/* The CPU time of a process, as a clock for now_ns(). */
clockid_t cpu_clock(pid_t pid);
/* ns that the threads of a process have been ready to run while something else ran. */
uint64_t waited_ns(pid_t pid);
/* Stays on one core; negative: on any. */
void pin(int cpu);

/* One line of JSON; `ns` is tick_ns(). */
void print_result(const struct result *result, double ns);

/* The value that `part` (0 to 1) of all are not above. */
double histogram_percentile(const struct histogram *histogram, double part);

/* A cheap clock for latencies, in ticks of its own. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return now_ns(CLOCK_MONOTONIC);
#endif
}

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static inline unsigned histogram_bucket(uint64_t value)
{
	if (value < SUBBUCKETS)
		return (unsigned)value;
	unsigned shift = 63 - (unsigned)__builtin_clzll(value) - 6;
	return (shift + 1) * SUBBUCKETS + (unsigned)(value >> shift) - SUBBUCKETS;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->count[histogram_bucket(value)]++;
	histogram->total++;
	if (value > histogram->max)
		histogram->max = value;
}
