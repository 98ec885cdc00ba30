/* SPDX-License-Identifier: BSD-3-Clause */
/* client.c - what the benchmark's clients share; see client.h */
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
	exit(1);
}

void misused(const char *usage)
{
	fputs(usage, stderr);
	exit(2);
}

/* --- the command line --- */

enum { FLAGS = 32, FIRST = 256 };

static void set_flag(const struct flag *flag, const char *text)
{
	if (!flag->value)
		return;
	switch (flag->type) {
	case FLAG_GIVEN:
		*(bool *)flag->value = true;
		break;
	case FLAG_IS:
		*(bool *)flag->value = !strcmp(text, flag->word);
		break;
	case FLAG_TEXT:
		*(const char **)flag->value = text;
		break;
	case FLAG_UNSIGNED:
		*(unsigned *)flag->value = (unsigned)strtoul(text, NULL, 0);
		break;
	case FLAG_UINT64:
		*(uint64_t *)flag->value = strtoull(text, NULL, 0);
		break;
	case FLAG_INT:
		*(int *)flag->value = (int)strtol(text, NULL, 0);
		break;
	case FLAG_REAL:
		*(double *)flag->value = strtod(text, NULL);
		break;
	}
}

void read_flags(int argc, char **argv, const struct flag *flags, const char *usage)
{
	struct option longs[FLAGS + 2] = { { 0 } };
	int count = 0, option;

	for (; flags[count].name && count < FLAGS; count++)
		longs[count] = (struct option){ flags[count].name, flags[count].type != FLAG_GIVEN,
						NULL, FIRST + count };
	longs[count] = (struct option){ "help", 0, NULL, FIRST + count };
	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option < FIRST)
			misused(usage);
		if (option == FIRST + count) {
			fputs(usage, stdout);
			exit(0);
		}
		set_flag(&flags[option - FIRST], optarg);
	}
}

/* --- clocks --- */

uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		die("the server's CPU clock", strerror(errno));
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

double tick_ns(void)
{
	struct timespec pause = { .tv_nsec = 20000000 };
	uint64_t ns = now_ns(CLOCK_MONOTONIC), count = ticks();

	nanosleep(&pause, NULL);
	count = ticks() - count;
	return (double)(now_ns(CLOCK_MONOTONIC) - ns) / (double)count;
}

/* The CPU time of a process, as a clock for now_ns(). */
static clockid_t cpu_clock(pid_t pid)
{
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock))
		die("the server's CPU clock", "no such process");
	return clock;
}

/* schedstat's second number. */
uint64_t waited_ns(pid_t pid)
{
	char path[300];
	uint64_t total = 0;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		unsigned long long ran, waited;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid,
			 entry->d_name);
		FILE *file = fopen(path, "r");
		if (file && fscanf(file, "%llu %llu", &ran, &waited) == 2)
			total += waited;
		if (file)
			fclose(file);
	}
	if (tasks)
		closedir(tasks);
	return total;
}

static uint64_t waited_so_far(pid_t server)
{
	return waited_ns(getpid()) + (server ? waited_ns(server) : 0);
}

void interval_begin(struct interval *interval, pid_t server)
{
	*interval = (struct interval){ .server = server, .waited = waited_so_far(server) };
	if (server) {
		interval->clock = cpu_clock(server);
		interval->cpu = now_ns(interval->clock);
	}
	interval->start = now_ns(CLOCK_MONOTONIC);
}

void interval_end(const struct interval *interval, uint64_t now, struct result *result)
{
	uint64_t waited;

	result->seconds = (double)(now - interval->start) / 1e9;
	if (interval->server)
		result->server_cpu = (double)(now_ns(interval->clock) - interval->cpu) / 1e9;
	waited = waited_so_far(interval->server);
	result->waited = waited > interval->waited ? (double)(waited - interval->waited) / 1e9 : 0;
}

void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("--cpu", strerror(errno));
}

/* --- latencies --- */

static double bucket_value(unsigned bucket)
{
	if (bucket < SUBBUCKETS)
		return bucket;
	unsigned shift = bucket / SUBBUCKETS - 1;
	return (double)((uint64_t)(bucket % SUBBUCKETS + SUBBUCKETS) << shift);
}

double histogram_percentile(const struct histogram *histogram, double part)
{
	uint64_t seen = 0, wanted = (uint64_t)((double)histogram->total * part);

	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += histogram->count[i];
		if (seen > wanted)
			return bucket_value(i);
	}
	return 0;
}

/* --- results --- */

void print_result(const struct result *result, double ns)
{
	double million = (double)result->requests / 1e6;

	printf("{\"requests\": %llu, \"errors\": %llu, \"seconds\": %.6f, \"iops\": %.1f, "
	       "\"p50_us\": %.3f, \"p99_us\": %.3f, \"server_cpu\": %.6f, "
	       "\"cpu_per_million\": %.4f, \"waited\": %.6f, \"kicks\": %llu, \"sleeps\": %llu}\n",
	       (unsigned long long)result->requests, (unsigned long long)result->errors,
	       result->seconds, (double)result->requests / result->seconds,
	       histogram_percentile(&result->latency, 0.5) * ns / 1e3,
	       histogram_percentile(&result->latency, 0.99) * ns / 1e3, result->server_cpu,
	       million > 0 ? result->server_cpu / million : 0, result->waited,
	       (unsigned long long)result->kicks, (unsigned long long)result->sleeps);
}
