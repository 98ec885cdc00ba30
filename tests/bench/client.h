/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.h - what the benchmark's clients share: their command lines, clocks, latencies, waits for
 * a CPU, the way out
 */
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

/* One flag of a client, --NAME or --NAME VALUE, and where its value goes. */
struct flag {
	const char *name;
	enum flag_type {
		FLAG_GIVEN,    /* bool: true if it is there; it has no value */
		FLAG_IS,       /* bool: the value is `word` */
		FLAG_TEXT,     /* const char * */
		FLAG_UNSIGNED, /* unsigned, uint32_t */
		FLAG_UINT64,
		FLAG_INT, /* int, pid_t */
		FLAG_REAL /* double */
	} type;
	void *value; /* NULL: it is read, and means nothing */
	const char *word;
};

/* A time that is measured: what is looked at when it begins. */
struct interval {
	pid_t server;
	clockid_t clock;             /* of the server's CPU time */
	uint64_t start, cpu, waited; /* ns */
};

/* Says "PROGRAM: what: why" and ends with status 1. */
_Noreturn void die(const char *what, const char *why);
/* Prints `usage` to stderr and ends with status 2. */
_Noreturn void misused(const char *usage);

/* Reads the command line by `flags`, whose last row has no name. What is no flag is from
 * argv[optind] on. --help prints `usage` and ends; so does a flag that there is not, as misused().
 */
void read_flags(int argc, char **argv, const struct flag *flags, const char *usage);

uint64_t now_ns(clockid_t clock);
/* ns a tick of ticks(), which takes 20 ms to find out. */
double tick_ns(void);
/* ns that the threads of a process have been ready to run while something else ran. */
uint64_t waited_ns(pid_t pid);

/* Begins an interval; the CPU time is that of `server`, if it is not 0. */
void interval_begin(struct interval *interval, pid_t server);
/* Ends it at `now` (CLOCK_MONOTONIC): its seconds, server_cpu and waited go to `result`. */
void interval_end(const struct interval *interval, uint64_t now, struct result *result);

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
