/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * option.h - tables of options: the one source for the configuration file, the
 * command line, the control API and the man pages
 *
 * A thing that can be configured (a layer, a back-end, a disk, a device) has a
 * table of its options, ended by a row without a name. Each row says where in
 * the object the value goes. All values come as text, whatever the source, so
 * there is one parser and one wording of mistakes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

enum option_type {
	OPTION_BOOL,     /**< bool: true/false, on/off, yes/no */
	OPTION_UINT,     /**< uint64_t, within min..max */
	OPTION_SIZE,     /**< uint64_t bytes: 4096, 512K, 20G (powers of 1024), within min..max */
	OPTION_DURATION, /**< uint64_t nanoseconds: 10us, 5ms, 2s, within min..max */
	OPTION_FRACTION, /**< double 0..1: 1% or 0.01 */
	OPTION_STRING,   /**< char *, owned by the object */
	OPTION_CHOICE,   /**< int: index into choices */
};

/** One row of a table of options. */
struct option {
	const char *name; /**< as users write it: lower case, words joined by '-' */
	enum option_type type;
	size_t offset;              /**< of the value in the object */
	const char *const *choices; /**< OPTION_CHOICE: NULL-terminated */
	uint64_t min, max;          /**< UINT, SIZE, DURATION; max 0 means no limit */
	bool automatic;             /**< UINT: "auto" is allowed, too, and means UINT64_MAX */
	const char *fallback;       /**< default, as text; NULL: zero */
	bool required;
	char letter;      /**< of a flag of a command: its short form; 0: none */
	const char *help; /**< for the man page: one or two sentences */
};

/** Writes every default into @object. The defaults must be well-formed (checked by a test). */
void options_init(const struct option *table, void *object);

/** Parses @text into the option @name of @object. The error names the option and what it takes. */
int options_set(const struct option *table, void *object, const char *name, const char *text,
		struct error *err);

/** The row of @name, or NULL. */
const struct option *options_find(const struct option *table, const char *name);

/** Writes the value that an option now has, as text, into @text. Never more than @size bytes. */
void options_get(const struct option *row, const void *object, char *text, size_t size);

/** What the option takes, in words: "a size such as 4096, 512K or 20G". */
void options_describe(const struct option *row, char *text, size_t size);

/** Moves all values of @from, another object of this kind, to @to; those of @to are freed. */
void options_move(const struct option *table, void *to, void *from);

/** Frees the strings of @object. */
void options_release(const struct option *table, void *object);

/** Bytes from text such as "4096", "512K", "20G". 0, or -EINVAL. */
int parse_size(const char *text, uint64_t *bytes);

/** Writes @bytes as users write sizes: the largest unit that divides it. Returns @text. */
char *format_size(uint64_t bytes, char *text, size_t size);
