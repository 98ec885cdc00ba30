/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h - cmocka and what all tests here share */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon.h"
#include "driver.h"
#include "load.h"

/* Fails the test, with the driver's own words, unless the call gives 0. */
#define must(driver, call)                                                                         \
	do {                                                                                       \
		int must_ret = (call);                                                             \
		if (must_ret)                                                                      \
			fail_msg("%s: %s (%s)", #call,                                             \
				 must_ret < 0 ? strerror(-must_ret) : "refused", (driver)->error); \
	} while (0)

/* The same for a load. */
#define must_load(load, call)                                                                      \
	do {                                                                                       \
		int must_ret = (call);                                                             \
		if (must_ret)                                                                      \
			fail_msg("%s: %s (%s), seed %#llx", #call, strerror(-must_ret),            \
				 (load)->error, (unsigned long long)(load)->seed);                 \
	} while (0)

/* $SEED, or one from the clock; printed, so that a failure can be had again. Never 0. */
static inline uint64_t choose_seed(void)
{
	const char *text = getenv("SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)clock_ms() * 2654435761u;

	seed = seed ? seed : 1;
	print_message("# SEED=%#llx\n", (unsigned long long)seed);
	return seed;
}

/* Zeroes so many sectors from 0 on, through queue 0. */
static inline void zero_disk(struct driver *driver, uint64_t sectors)
{
	uint64_t step = driver->config.max_write_zeroes_sectors & ~7u;

	assert_true(step);
	for (uint64_t at = 0; at < sectors; at += step)
		must(driver, blk_write_zeroes(&driver->queue[0], at,
					      (uint32_t)(sectors - at < step ? sectors - at : step),
					      false));
}
