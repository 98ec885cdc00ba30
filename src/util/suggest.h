/* SPDX-License-Identifier: BSD-3-Clause */
/* suggest.h - the name that a user probably meant */
#pragma once

/** The name nearest to @word, kept while names are offered. */
struct suggestion {
	const char *word;
	const char *best;  /**< NULL: nothing is near */
	unsigned distance; /**< of @best */
};

/** Begins a search for what was meant by @word. */
struct suggestion suggest_for(const char *word);

/** Offers @name, which must outlive @s. */
void suggest_offer(struct suggestion *s, const char *name);
