/* SPDX-License-Identifier: BSD-3-Clause */
/* mistakes.c - all that is wrong with a configuration, one line each */
#include "control/mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void add(struct mistakes *mistakes, unsigned line, const char *kind, const char *format,
		va_list args)
{
	char *text = NULL, *whole = NULL, **texts = NULL;

	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	else if ((line ? asprintf(&whole, "%s:%u: %s%s", mistakes->file, line, kind, text)
		       : asprintf(&whole, "%s%s", kind, text)) < 0)
		whole = NULL;
	free(text);
	if (whole)
		texts = realloc(mistakes->texts, (mistakes->count + 1) * sizeof *texts);
	if (!texts) {
		free(whole);
		mistake_no_memory(mistakes);
		return;
	}
	mistakes->texts = texts;
	texts[mistakes->count++] = whole;
}

void mistake(struct mistakes *mistakes, unsigned line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add(mistakes, line, "", format, args);
	va_end(args);
	mistakes->fatal = true;
}

void mistake_warning(struct mistakes *mistakes, unsigned line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add(mistakes, line, "warning: ", format, args);
	va_end(args);
}

void mistake_no_memory(struct mistakes *mistakes)
{
	mistakes->no_memory = mistakes->fatal = true;
}

char *mistakes_text(const struct mistakes *mistakes, char *text, size_t size)
{
	size_t n = 0;

	snprintf(text, size, "out of memory");
	for (unsigned i = 0; i < mistakes->count && n < size && !mistakes->no_memory; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%s", i ? "; " : "",
				      mistakes->texts[i]);
	return text;
}

void mistakes_release(struct mistakes *mistakes)
{
	for (unsigned i = 0; i < mistakes->count; i++)
		free(mistakes->texts[i]);
	free(mistakes->texts);
	mistakes->texts = NULL;
	mistakes->count = 0;
}
