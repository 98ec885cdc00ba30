/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * error.h - what went wrong on the control path, in words
 *
 * The data path speaks 0 or -errno. The control path (options, configuration,
 * opening things, the API) fills a struct error: text a user can act on, that
 * says what is wrong, where, and what was expected. Whoever knows more context
 * (a file name, a line, an option) puts it in front with error_prefix().
 */
#pragma once

/** An error for a user to read. Zero-initialised means "no error yet". */
struct error {
	int code;       /**< positive errno value, the nearest there is */
	char text[480]; /**< one line, no newline at its end */
};

/** Fills @err (may be NULL) and returns -@code, so that callers can `return error_set(...)`. */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** Puts "PREFIX: " in front of the text that is already there. Returns -err->code. */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
