/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * suggest.c - the name that a user probably meant
 *
 * Near is what few edits turn into the other: a letter inserted, left out, replaced, or two
 * neighbours swapped; at most one edit for every three letters, so that a suggestion
 * is never a guess.
 */
#include "util/suggest.h"

#include <stddef.h>
#include <string.h>

#define LONGEST 32

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* The number of edits between two words of at most LONGEST letters. */
static unsigned edits(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned cost[LONGEST + 1][LONGEST + 1];

	for (size_t i = 0; i <= a_length; i++) {
		for (size_t j = 0; j <= b_length; j++) {
			if (!i || !j) {
				cost[i][j] = (unsigned)(i + j);
				continue;
			}
			cost[i][j] = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			cost[i][j] = least(cost[i][j], cost[i - 1][j] + 1);
			cost[i][j] = least(cost[i][j], cost[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				cost[i][j] = least(cost[i][j], cost[i - 2][j - 2] + 1);
		}
	}
	return cost[a_length][b_length];
}

struct suggestion suggest_for(const char *word)
{
	return (struct suggestion){ .word = word, .distance = (unsigned)strlen(word) / 3 + 2 };
}

void suggest_offer(struct suggestion *s, const char *name)
{
	size_t word_length = strlen(s->word), length = strlen(name);
	unsigned distance;

	if (word_length > LONGEST || length > LONGEST)
		return;
	distance = edits(s->word, word_length, name, length);
	/* Of a name with three letters two may be right by chance alone. */
	if (distance < s->distance && distance * 2 <= length) {
		s->best = name;
		s->distance = distance;
	}
}
