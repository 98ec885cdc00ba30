/* SPDX-License-Identifier: BSD-3-Clause */
/* chance.h - random numbers that a seed repeats: xorshift64*, Vigna 2016 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** The state of a generator that was given @seed; never 0. */
static inline uint64_t chance_seed(uint64_t seed)
{
	return seed * 0x9e3779b97f4a7c15ull | 1;
}

static inline uint64_t chance_draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/** True in @share of the cases, 0..1. Draws nothing if that is 0. */
static inline bool chance_happens(uint64_t *state, double share)
{
	return share > 0 && (double)(chance_draw(state) >> 11) < share * 9007199254740992.0;
}
