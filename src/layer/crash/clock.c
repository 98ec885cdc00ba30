/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clock.c - a clock for the crash simulator that runs faster than the real one
 *
 * Each time somebody looks, some milliseconds have passed. So what layers do every few seconds is
 * done in a test of a few milliseconds, and a run does not depend on how busy the machine is.
 */
#include <stdint.h>
#include <time.h>

#define STEP 7000000ull /* ns */

/* In place of the C library's. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	static uint64_t time = 1000000000000;
	uint64_t mine = __atomic_add_fetch(&time, STEP, __ATOMIC_RELAXED);

	(void)id;
	now->tv_sec = (time_t)(mine / 1000000000);
	now->tv_nsec = (long)(mine % 1000000000);
	return 0;
}
