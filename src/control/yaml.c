/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * yaml.c - a YAML document as a small tree that knows its lines
 *
 * libyaml reads the text and reports events; here they become a tree. All scalars are texts:
 * what "on" or "1G" means is known to the table of options that the value is for, not
 * to YAML. What makes YAML hard to read for people, or a small file large in memory
 * (anchors, aliases, tags, keys that are not texts), is refused, and so is a key that
 * is twice in one mapping.
 *
 * Depth and size are bounded, and a tree is freed without more stack than its depth.
 */
#include "control/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "control/mistakes.h"
#include "util/must.h"

#define DEPTH     16        /* of values in values */
#define KEYS      8192      /* in one mapping */
#define FILE_SIZE (1 << 20) /* bytes */

/* --- the tree ----------------------------------------------------------------------- */

struct node *node_make(enum node_type type, const char *text, unsigned line)
{
	struct node *node = calloc(1, sizeof *node);

	if (!node)
		return NULL;
	node->type = type;
	node->line = line;
	if (type == NODE_SCALAR && !(node->text = strdup(text))) {
		free(node);
		return NULL;
	}
	return node;
}

bool node_put(struct node *parent, const char *key, struct node *child)
{
	struct node **last = &parent->first;

	if (!child || (key && !(child->key = strdup(key)))) {
		node_free(child);
		return false;
	}
	while (*last)
		last = &(*last)->next;
	*last = child;
	return true;
}

struct node *node_new(enum node_type type, const char *text, unsigned line)
{
	return must(node_make(type, text, line));
}

struct node *node_add(struct node *parent, const char *key, struct node *child)
{
	if (!node_put(parent, key, child))
		must(NULL);
	return child;
}

struct node *node_find(const struct node *mapping, const char *key)
{
	for (struct node *node = mapping ? mapping->first : NULL; node; node = node->next)
		if (node->key && !strcmp(node->key, key))
			return node;
	return NULL;
}

void node_set(struct node *mapping, const char *key, const char *text)
{
	struct node **link = &mapping->first, *old;

	while (*link && strcmp((*link)->key, key))
		link = &(*link)->next;
	old = *link;
	if (old) {
		*link = old->next;
		old->next = NULL;
		node_free(old);
	}
	node_add(mapping, key, node_new(NODE_SCALAR, text, 0));
}

unsigned node_count(const struct node *node)
{
	unsigned n = 0;

	for (node = node ? node->first : NULL; node; node = node->next)
		n++;
	return n;
}

void node_free(struct node *node)
{
	while (node) {
		struct node *next = node->next;

		node_free(node->first);
		free(node->key);
		free(node->text);
		free(node);
		node = next;
	}
}

/* --- from events to the tree -------------------------------------------------------- */

/* The values that are open, from the whole document in. */
struct builder {
	struct mistakes *mistakes;
	struct node *root;
	struct {
		struct node *node, *last; /* and the last value in it */
		char *key;                /* read, its value not yet */
		unsigned key_line;
	} open[DEPTH];
	unsigned depth;
	unsigned documents;
};

/* Puts a value where it belongs: it ends a key, follows in a sequence, or is the whole. */
static void place(struct builder *b, struct node *node)
{
	struct node *parent, **link;

	if (!b->depth) {
		b->root = node;
		return;
	}
	parent = b->open[b->depth - 1].node;
	link = b->open[b->depth - 1].last ? &b->open[b->depth - 1].last->next : &parent->first;
	*link = node;
	b->open[b->depth - 1].last = node;
	node->key = b->open[b->depth - 1].key;
	if (node->key)
		node->line = b->open[b->depth - 1].key_line;
	b->open[b->depth - 1].key = NULL;
}

/* True if a scalar now would be the key of a mapping. */
static bool expects_key(const struct builder *b)
{
	return b->depth && b->open[b->depth - 1].node->type == NODE_MAPPING &&
	       !b->open[b->depth - 1].key;
}

static bool add_scalar(struct builder *b, const yaml_event_t *event, unsigned line)
{
	const char *text = (const char *)event->data.scalar.value;

	if (strlen(text) != event->data.scalar.length) {
		mistake(b->mistakes, line, "a text must not contain a NUL character");
		return false;
	}
	if (!expects_key(b)) {
		place(b, node_new(NODE_SCALAR, text, line));
		return true;
	}
	if (node_find(b->open[b->depth - 1].node, text)) {
		mistake(b->mistakes, line, "'%s' is given twice (first on line %u)", text,
			node_find(b->open[b->depth - 1].node, text)->line);
		return false;
	}
	if (node_count(b->open[b->depth - 1].node) == KEYS) {
		mistake(b->mistakes, line, "more than %u names in one mapping", KEYS);
		return false;
	}
	b->open[b->depth - 1].key = must(strdup(text));
	b->open[b->depth - 1].key_line = line;
	return true;
}

static bool open_value(struct builder *b, enum node_type type, unsigned line)
{
	struct node *node;

	if (expects_key(b)) {
		mistake(b->mistakes, line, "expected the name of an option, not a %s",
			type == NODE_MAPPING ? "mapping" : "list");
		return false;
	}
	if (b->depth == DEPTH) {
		mistake(b->mistakes, line, "nested more than %u deep", DEPTH);
		return false;
	}
	node = node_new(type, NULL, line);
	place(b, node);
	b->open[b->depth].node = node;
	b->open[b->depth].last = NULL;
	b->depth++;
	return true;
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor || event->data.scalar.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor || event->data.sequence_start.tag;
	default:
		return event->type == YAML_ALIAS_EVENT;
	}
}

/* False after a mistake. */
static bool take(struct builder *b, const yaml_event_t *event)
{
	unsigned line = (unsigned)event->start_mark.line + 1;

	if (has_anchor_or_tag(event)) {
		mistake(b->mistakes, line,
			"anchors (&), aliases (*) and tags (!) have no meaning here; a text that "
			"begins so must be in quotes");
		return false;
	}
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return add_scalar(b, event, line);
	case YAML_MAPPING_START_EVENT:
		return open_value(b, NODE_MAPPING, line);
	case YAML_SEQUENCE_START_EVENT:
		return open_value(b, NODE_SEQUENCE, line);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		b->depth--;
		return true;
	case YAML_DOCUMENT_START_EVENT:
		if (b->documents++)
			mistake(b->mistakes, line, "a second document begins; expected one only");
		return b->documents == 1;
	default:
		return true;
	}
}

struct node *yaml_parse(const char *bytes, size_t length, struct mistakes *mistakes)
{
	struct builder b = { .mistakes = mistakes };
	yaml_parser_t parser;
	yaml_event_t event;
	bool good, end;

	if (!yaml_parser_initialize(&parser))
		must(NULL);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, length);
	do {
		good = yaml_parser_parse(&parser, &event);
		if (!good) {
			mistake(mistakes, (unsigned)parser.problem_mark.line + 1,
				"not YAML: %s%s%s", parser.problem, parser.context ? " " : "",
				parser.context ? parser.context : "");
			break;
		}
		end = event.type == YAML_STREAM_END_EVENT;
		good = take(&b, &event);
		yaml_event_delete(&event);
	} while (good && !end);
	yaml_parser_delete(&parser);
	while (b.depth)
		free(b.open[--b.depth].key);
	if (good && b.root)
		return b.root;
	if (good)
		mistake(mistakes, 1, "the file is empty");
	node_free(b.root);
	return NULL;
}

struct node *yaml_read(const char *path, struct mistakes *mistakes)
{
	struct node *tree = NULL;
	FILE *file = fopen(path, "re");
	char *bytes;
	size_t length;

	if (!file) {
		mistake(mistakes, 0, "%s: %s", path, strerror(errno));
		return NULL;
	}
	bytes = must(malloc(FILE_SIZE + 1));
	length = fread(bytes, 1, FILE_SIZE + 1, file);
	if (ferror(file))
		mistake(mistakes, 0, "%s: %s", path, strerror(errno));
	else if (length > FILE_SIZE)
		mistake(mistakes, 0, "%s: larger than 1 MiB", path);
	else
		tree = yaml_parse(bytes, length, mistakes);
	fclose(file);
	free(bytes);
	return tree;
}
