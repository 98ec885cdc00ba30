/* SPDX-License-Identifier: BSD-3-Clause */
/* mistakes.c - all that is wrong with a configuration, one line each */
#include "control/mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/must.h"

static void add(struct mistakes *mistakes, unsigned line, const char *kind, const char *format,
		va_list args)
{
	char *text, *whole;

	if (vasprintf(&text, format, args) < 0)
		text = must(NULL);
	if ((line ? asprintf(&whole, "%s:%u: %s%s", mistakes->file, line, kind, text)
		  : asprintf(&whole, "%s%s", kind, text)) < 0)
		whole = must(NULL);
	free(text);
	mistakes->texts =
		must(realloc(mistakes->texts, (mistakes->count + 1) * sizeof *mistakes->texts));
	mistakes->texts[mistakes->count++] = whole;
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

void mistakes_release(struct mistakes *mistakes)
{
	for (unsigned i = 0; i < mistakes->count; i++)
		free(mistakes->texts[i]);
	free(mistakes->texts);
	mistakes->texts = NULL;
	mistakes->count = 0;
}
