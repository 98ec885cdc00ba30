/* SPDX-License-Identifier: BSD-3-Clause */
/* reading.h - from a tree of texts to objects, by their tables of options */
#pragma once

#include <stdbool.h>

#include "control/yaml.h"

struct mistakes;
struct option;

/** Says a mistake about @node: "WHERE: TEXT". On the command line there is one place only. */
void reading_wrong(struct mistakes *mistakes, const struct node *node, const char *where,
		   const char *format, ...) __attribute__((format(printf, 4, 5)));

/** True if @node is of @type; else says that it is not what was @expected. */
bool reading_must_be(struct mistakes *mistakes, const struct node *node, const char *where,
		     enum node_type type, const char *expected);

/**
 * Reads the options in @mapping into @object, except for @others (ended by NULL, or NULL), which
 * somebody else reads. Says which are unknown, wrong, or required and missing.
 */
void reading_options(struct mistakes *mistakes, const struct node *mapping, const char *where,
		     const struct option *table, void *object, const char *const *others);

/** Reads those options in @mapping that are of @table, and leaves all others. */
void reading_some_options(struct mistakes *mistakes, const struct node *mapping, const char *where,
			  const struct option *table, void *object);

/** True if @node is there and says true, on or yes. */
bool reading_true(const struct node *node);
