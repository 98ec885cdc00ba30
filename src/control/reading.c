/* SPDX-License-Identifier: BSD-3-Clause */
/* reading.c - from a tree of texts to objects, by their tables of options; see reading.h */
#include "control/reading.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control/mistakes.h"
#include "util/error.h"
#include "util/option.h"
#include "util/suggest.h"

void reading_wrong(struct mistakes *mistakes, const struct node *node, const char *where,
		   const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (mistakes->file && *where)
		mistake(mistakes, node->line, "%s: %s", where, text);
	else
		mistake(mistakes, node->line, "%s", text);
}

/* "mapping" is the word of YAML; what users see of it are names with values. */
static const char *kind_of(const struct node *node)
{
	if (node->type == NODE_SCALAR)
		return *node->text ? "a single value" : "nothing";
	return node->type == NODE_MAPPING ? "a mapping" : "a list";
}

bool reading_must_be(struct mistakes *mistakes, const struct node *node, const char *where,
		     enum node_type type, const char *expected)
{
	if (node->type == type)
		return true;
	reading_wrong(mistakes, node, where, "found %s; expected %s", kind_of(node), expected);
	return false;
}

bool reading_true(const struct node *node)
{
	static const struct option row[] = { { .name = "", .type = OPTION_BOOL }, { 0 } };
	bool value;

	return node && node->type == NODE_SCALAR &&
	       !options_set(row, &value, "", node->text, NULL) && value;
}

/* "no option X; did you mean Y? expected ...": the table's names, and @others, ended by NULL. */
static void unknown(struct mistakes *mistakes, const struct node *node, const char *where,
		    const struct option *table, const char *const *others)
{
	struct suggestion nearest = suggest_for(node->key);
	char known[400] = "";
	size_t n = 0;

	for (; others && *others; others++) {
		suggest_offer(&nearest, *others);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *others);
	}
	for (; table && table->name && n < sizeof known; table++) {
		suggest_offer(&nearest, table->name);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      table->name);
	}
	if (!n)
		reading_wrong(mistakes, node, where, "no option '%s'; there are none here",
			      node->key);
	else if (nearest.best)
		reading_wrong(mistakes, node, where,
			      "no option '%s'; did you mean '%s'? (expected: %s)", node->key,
			      nearest.best, known);
	else
		reading_wrong(mistakes, node, where, "no option '%s'; expected: %s", node->key,
			      known);
}

static bool among(const char *const *names, const char *name)
{
	for (; names && *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

/* One value into the option of its name, which is in @table. */
static void read_option(struct mistakes *mistakes, const struct node *node, const char *where,
			const struct option *table, void *object)
{
	struct error err = { 0 };
	char expected[200];

	if (node->type != NODE_SCALAR) {
		options_describe(options_find(table, node->key), expected, sizeof expected);
		reading_wrong(mistakes, node, where, "%s: found %s; expected %s", node->key,
			      kind_of(node), expected);
	} else if (options_set(table, object, node->key, node->text, &err)) {
		reading_wrong(mistakes, node, where, "%s", err.text);
	}
}

static void find_missing(struct mistakes *mistakes, const struct node *mapping, const char *where,
			 const struct option *table)
{
	char expected[200];

	for (; table && table->name; table++) {
		if (!table->required || node_find(mapping, table->name))
			continue;
		options_describe(table, expected, sizeof expected);
		reading_wrong(mistakes, mapping, where, "option '%s' is missing; expected %s",
			      table->name, expected);
	}
}

void reading_options(struct mistakes *mistakes, const struct node *mapping, const char *where,
		     const struct option *table, void *object, const char *const *others)
{
	for (const struct node *node = mapping->first; node; node = node->next) {
		if (among(others, node->key))
			continue;
		if (options_find(table, node->key))
			read_option(mistakes, node, where, table, object);
		else
			unknown(mistakes, node, where, table, others);
	}
	find_missing(mistakes, mapping, where, table);
}

void reading_some_options(struct mistakes *mistakes, const struct node *mapping, const char *where,
			  const struct option *table, void *object)
{
	for (const struct node *node = mapping->first; node; node = node->next)
		if (options_find(table, node->key))
			read_option(mistakes, node, where, table, object);
	find_missing(mistakes, mapping, where, table);
}
