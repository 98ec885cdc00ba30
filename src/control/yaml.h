/* SPDX-License-Identifier: BSD-3-Clause */
/* yaml.h - a YAML document as a small tree that knows its lines; see yaml.c */
#pragma once

#include <stddef.h>

struct mistakes;

enum yaml_type { YAML_SCALAR, YAML_MAPPING, YAML_SEQUENCE };

/** A value: a text, a mapping of keys to values, or a sequence of values. */
struct yaml {
	enum yaml_type type;
	unsigned line;            /**< 1 is the first; 0: not from a file */
	char *key;                /**< in a mapping; else NULL */
	char *text;               /**< of a scalar */
	struct yaml *first, *next; /**< of its values; next value of what it is in */
};

/**
 * Reads one document from @bytes. NULL if that fails, with the mistake. Only plain trees:
 * no anchors, aliases, tags, or keys that are not texts; a key once in a mapping.
 */
struct yaml *yaml_parse(const char *bytes, size_t length, struct mistakes *mistakes);

/** Reads the file @path, at most 1 MiB. NULL if that fails, with the mistake. */
struct yaml *yaml_read(const char *path, struct mistakes *mistakes);

/** A new value of @type; @text is copied, and only for a scalar. */
struct yaml *yaml_new(enum yaml_type type, const char *text, unsigned line);

/** Puts @child last into @parent, which owns it from now on. @key (copied): in a mapping. */
struct yaml *yaml_add(struct yaml *parent, const char *key, struct yaml *child);

/** Makes @text the value of @key in @mapping, whatever it was; it has no line. */
void yaml_set(struct yaml *mapping, const char *key, const char *text);

/** The value of @key in @mapping, or NULL. @mapping may be NULL. */
struct yaml *yaml_find(const struct yaml *mapping, const char *key);

/** How many values are in it. */
unsigned yaml_count(const struct yaml *node);

/** Frees it and all that is in it. NULL is allowed. */
void yaml_free(struct yaml *node);
