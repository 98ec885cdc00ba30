/* SPDX-License-Identifier: BSD-3-Clause */
/* flags.c - getopt_long(), whose struct option would get in the way of ours */
#include "control/flags.h"

#include <getopt.h>
#include <stddef.h>

#define FIRST 256 /* val of flags[0]; beyond every letter */

enum flag_result flags_next(int argc, char **argv, const struct flag *flags, unsigned count,
			    int *index, const char **value)
{
	static char letter[] = "-?";
	struct option options[FLAGS + 1] = { 0 };
	char letters[2 * FLAGS + 2] = ":", *end = letters + 1;
	int found;

	for (unsigned i = 0; i < count && i < FLAGS; i++) {
		options[i] = (struct option){ .name = flags[i].name,
					      .has_arg = flags[i].has_value,
					      .val = FIRST + (int)i };
		if (flags[i].letter) {
			*end++ = flags[i].letter;
			if (flags[i].has_value)
				*end++ = ':';
		}
	}
	opterr = 0;
	found = getopt_long(argc, argv, letters, options, NULL);
	for (unsigned i = 0; i < count && i < FLAGS; i++)
		if (found > 0 && found == flags[i].letter)
			found = FIRST + (int)i;
	if (found == -1) {
		*index = optind;
		return FLAG_END;
	}
	if (found >= FIRST) {
		*index = found - FIRST;
		*value = optarg;
		return FLAG_FOUND;
	}
	letter[1] = (char)optopt;
	*value = optopt && optopt < FIRST ? letter : argv[optind - 1];
	if (found == ':')
		return FLAG_NO_VALUE;
	return optopt >= FIRST ? FLAG_STRAY_VALUE : FLAG_UNKNOWN;
}
