/* SPDX-License-Identifier: BSD-3-Clause */
/* flags.h - getopt_long(), whose struct option would get in the way of ours */
#pragma once

#include <stdbool.h>

/** Most flags of one command. */
#define FLAGS 32

/** "--NAME" or "--NAME VALUE", or with a letter in place of "--NAME": "-L". */
struct flag {
	const char *name;
	char letter; /**< 0: none */
	bool has_value;
};

enum flag_result { FLAG_FOUND, FLAG_END, FLAG_UNKNOWN, FLAG_NO_VALUE, FLAG_STRAY_VALUE };

/**
 * Reads the next flag of @argv, which is one of the @count @flags. FOUND: *@index and *@value
 * (NULL if it has none) say which. END: what is not a flag is from argv[*@index] on. Else it is
 * wrong, and *@value is what was typed.
 */
enum flag_result flags_next(int argc, char **argv, const struct flag *flags, unsigned count,
			    int *index, const char **value);
