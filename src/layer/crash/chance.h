/* SPDX-License-Identifier: BSD-3-Clause */
/* chance.h - random numbers for tests that must be repeatable: xorshift64*, Vigna 2016 */
#pragma once

#include <stdint.h>

/** A generator; two with one seed say the same. */
struct chance {
	uint64_t state;
};

static inline uint64_t chance_bits(struct chance *chance)
{
	chance->state ^= chance->state >> 12;
	chance->state ^= chance->state << 25;
	chance->state ^= chance->state >> 27;
	return chance->state * 0x2545f4914f6cdd1dull;
}

/** A number below @n. */
static inline uint64_t chance_of(struct chance *chance, uint64_t n)
{
	return (chance_bits(chance) >> 20) % n;
}

/** Seeds are often small and near one another: they are mixed, as splitmix64 does. */
static inline struct chance chance_seed(uint64_t seed)
{
	uint64_t mixed = seed + 0x9e3779b97f4a7c15ull;

	mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ull;
	mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
	return (struct chance){ (mixed ^ mixed >> 31) | 1 };
}
