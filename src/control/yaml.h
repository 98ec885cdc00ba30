/* SPDX-License-Identifier: BSD-3-Clause */
/* yaml.h - a YAML document as a small tree that knows its lines; see yaml.c */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct mistakes;

enum node_type { NODE_SCALAR, NODE_MAPPING, NODE_SEQUENCE };

/** A value: a text, a mapping of keys to values, or a sequence of values. */
struct node {
	enum node_type type;
	unsigned line; /**< of its key, if it has one; 1 is the first; 0: not from a file */
	char *key;     /**< in a mapping; else NULL */
	char *text;    /**< of a scalar */
	struct node *first, *next; /**< of its values; next value of what it is in */
};

/**
 * Reads one document from @bytes. NULL if that fails, with the mistake. Only plain trees:
 * no anchors, aliases, tags, or keys that are not texts; a key once in a mapping.
 */
struct node *yaml_parse(const char *bytes, size_t length, struct mistakes *mistakes);

/** Reads the file @path, at most 1 MiB. NULL if that fails, with the mistake. */
struct node *yaml_read(const char *path, struct mistakes *mistakes);

/** As node_new() and node_add(), but for NULL or false if memory is short; @child is freed then. */
struct node *node_make(enum node_type type, const char *text, unsigned line);
bool node_put(struct node *parent, const char *key, struct node *child);

/** A new value of @type; @text is copied, and only for a scalar. */
struct node *node_new(enum node_type type, const char *text, unsigned line);

/** Puts @child last into @parent, which owns it from now on. @key (copied): in a mapping. */
struct node *node_add(struct node *parent, const char *key, struct node *child);

/** Makes @text the value of @key in @mapping, whatever it was; it has no line. */
void node_set(struct node *mapping, const char *key, const char *text);

/** The value of @key in @mapping, or NULL. @mapping may be NULL. */
struct node *node_find(const struct node *mapping, const char *key);

/** How many values are in it. NULL is allowed: none. */
unsigned node_count(const struct node *node);

/** Frees it and all that is in it. NULL is allowed. */
void node_free(struct node *node);
