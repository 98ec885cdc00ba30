/* SPDX-License-Identifier: BSD-3-Clause */
/* mistakes.h - all that is wrong with a configuration, one line each */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/** What was found so far; zero-initialise. */
struct mistakes {
	const char *file; /**< put in front of what has a line; not owned; NULL: the command line */
	char **texts;
	unsigned count;
	bool no_memory; /**< it could not be read to its end */
	bool fatal;     /**< one of them at least is not a mere warning */
};

/** Adds "FILE:LINE: TEXT", or "TEXT" alone if @line is 0. */
void mistake(struct mistakes *mistakes, unsigned line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** Adds "FILE:LINE: warning: TEXT", with which the configuration is still good. */
void mistake_warning(struct mistakes *mistakes, unsigned line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** There is not enough memory to go on; fatal. */
void mistake_no_memory(struct mistakes *mistakes);

/** All of them in one text, for an answer. Returns @text. */
char *mistakes_text(const struct mistakes *mistakes, char *text, size_t size);

void mistakes_release(struct mistakes *mistakes);
