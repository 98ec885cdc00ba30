/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c - error texts of the control path; see error.h */
#include "util/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(struct error *err, int code, const char *format, ...)
{
	if (err) {
		va_list args;

		va_start(args, format);
		vsnprintf(err->text, sizeof err->text, format, args);
		va_end(args);
		err->code = code;
	}
	return -code;
}

int error_prefix(struct error *err, const char *format, ...)
{
	char prefix[sizeof err->text / 2], text[sizeof err->text];
	va_list args;

	va_start(args, format);
	vsnprintf(prefix, sizeof prefix, format, args);
	va_end(args);
	snprintf(text, sizeof text, "%s", err->text);
	snprintf(err->text, sizeof err->text, "%s: %.*s", prefix,
		 (int)(sizeof err->text - sizeof prefix - 3), text);
	return -err->code;
}
