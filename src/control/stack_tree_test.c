/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack_tree_test.c - stacks as JSON: their forms, the places in them, and each change of one thing
 *
 * The registry of layers is this test's own: what counts here is only whether a kind ends a stack,
 * and how many legs it has.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/stack_tree.h"
#include "control/yaml.h"
#include "control/yaml_write.h"
#include "layer/layer.h"
#include "util/error.h"

static const struct layer_ops pass_ops = { .name = "pass" }, extent_ops = { .name = "extent" },
			      flaky_ops = { .name = "flaky" },
			      null_ops = { .name = "null", .backend = true },
			      memory_ops = { .name = "memory", .backend = true },
			      file_ops = { .name = "file", .backend = true },
			      mirror_ops = { .name = "mirror",
					     .backend = true,
					     .legs_option = "legs",
					     .legs_min = 1,
					     .legs_max = 3 },
			      overlay_ops = { .name = "overlay",
					      .legs_option = "store",
					      .legs_min = 1,
					      .legs_max = 1 };

const struct layer_ops *const layer_registry[] = { &pass_ops,   &extent_ops,  &flaky_ops,
						   &null_ops,   &memory_ops,  &file_ops,
						   &mirror_ops, &overlay_ops, NULL };

const struct layer_ops *layer_find(const char *name)
{
	for (unsigned i = 0; layer_registry[i]; i++)
		if (!strcmp(layer_registry[i]->name, name))
			return layer_registry[i];
	return NULL;
}

static json_t *json(const char *text)
{
	json_error_t wrong;
	json_t *value = json_loads(text, JSON_DECODE_ANY, &wrong);

	if (!value)
		fail_msg("%s: %s", text, wrong.text);
	return value;
}

/* @got, which is freed, is what @wanted says. */
static void expect(json_t *got, const char *wanted)
{
	json_t *want = json(wanted);
	char *text = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY);

	if (!json_equal(got, want))
		fail_msg("got %s, wanted %s", text, wanted);
	free(text);
	json_decref(want);
	json_decref(got);
}

/* What users write, in full, and back in fewest words. */
static void forms(void **state)
{
	static const struct {
		const char *written, *full, *in_short;
	} form[] = {
		{ "[\"pass\", \"null\"]", "[{\"pass\": {}}, {\"null\": {}}]",
		  "[\"pass\", \"null\"]" },
		{ "[{\"pass\": null}, {\"null\": {\"size\": \"1G\"}}]",
		  "[{\"pass\": {}}, {\"null\": {\"size\": \"1G\"}}]",
		  "[\"pass\", {\"null\": {\"size\": \"1G\"}}]" },
		{ "[{\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": \"a\"}}]]}]",
		  "[{\"mirror\": {\"legs\": [[{\"null\": {}}], [{\"pass\": {}}, {\"file\": {\"path\": "
		  "\"a\"}}]]}}]",
		  "[{\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": \"a\"}}]]}]" },
		{ "[{\"mirror\": {\"legs\": [\"null\", \"null\"], \"bitmap\": \"b\"}}]",
		  "[{\"mirror\": {\"legs\": [[{\"null\": {}}], [{\"null\": {}}]], \"bitmap\": "
		  "\"b\"}}]",
		  "[{\"mirror\": {\"legs\": [\"null\", \"null\"], \"bitmap\": \"b\"}}]" },
		{ "[{\"overlay\": {\"store\": {\"file\": {\"path\": \"s\"}}}}, \"null\"]",
		  "[{\"overlay\": {\"store\": [[{\"file\": {\"path\": \"s\"}}]]}}, {\"null\": {}}]",
		  "[{\"overlay\": {\"store\": {\"file\": {\"path\": \"s\"}}}}, \"null\"]" },
		/* What makes no sense stays for the reader of configurations. */
		{ "[5, {\"a\": {}, \"b\": {}}, {\"mirror\": 7}]",
		  "[5, {\"a\": {}, \"b\": {}}, {\"mirror\": 7}]", NULL },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof form / sizeof *form; i++) {
		json_t *written = json(form[i].written), *full = stack_tree_full(written);

		if (form[i].in_short)
			expect(stack_tree_short(full), form[i].in_short);
		expect(full, form[i].full);
		json_decref(written);
	}
}

/* --- changes ------------------------------------------------------------------------- */

#define STACK                                                                                      \
	"[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": \"a\"}}]]}]"

enum what { INSERT, REMOVE, KEEP, REORDER, SET, ADD_LEG, REMOVE_LEG, REPLACE };

static int change(enum what what, json_t *stack, const char *path, const char *argument,
		  struct error *err)
{
	json_t *given = argument ? json(argument) : NULL, *full = NULL;
	int ret = -1;

	switch (what) {
	case INSERT:
		full = stack_tree_full(given);
		ret = stack_tree_insert(stack, path, full, err);
		break;
	case REMOVE:
		ret = stack_tree_remove(stack, path, -1, err);
		break;
	case KEEP:
		ret = stack_tree_remove(stack, path, (int)json_integer_value(given), err);
		break;
	case REORDER:
		ret = stack_tree_reorder(stack, path, json_string_value(given), err);
		break;
	case SET:
		ret = stack_tree_set(stack, path, given, err);
		break;
	case ADD_LEG:
		full = stack_tree_full(given);
		ret = stack_tree_add_leg(stack, path, full, err);
		break;
	case REMOVE_LEG:
		ret = stack_tree_remove_leg(stack, path, err);
		break;
	case REPLACE:
		full = stack_tree_full(given);
		ret = stack_tree_replace(stack, path, full, err);
		break;
	}
	json_decref(given);
	json_decref(full);
	return ret;
}

struct row {
	enum what what;
	const char *path, *argument, *result; /* in short; or what is wrong */
};

static void check_rows(const char *from, const struct row *row, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		json_t *written = json(from), *stack = stack_tree_full(written), *before;
		struct error err = { 0 };

		json_decref(written);
		before = json_deep_copy(stack);
		if (change(row[i].what, stack, row[i].path, row[i].argument, &err)) {
			if (!strstr(err.text, row[i].result))
				fail_msg("row %u: got '%s', wanted '%s'", i, err.text,
					 row[i].result);
			assert_true(err.code == EINVAL || err.code == ENOENT);
			assert_true(json_equal(stack, before));
		} else {
			expect(stack_tree_short(stack), row[i].result);
		}
		json_decref(before);
		json_decref(stack);
	}
}

static void changes(void **state)
{
	static const struct row row[] = {
		{ INSERT, "0", "\"extent\"",
		  "[\"extent\", \"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", {\"file\": "
		  "{\"path\": \"a\"}}]]}]" },
		{ INSERT, "mirror/1/file", "{\"flaky\": {\"delay\": \"1ms\"}}",
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", {\"flaky\": {\"delay\": "
		  "\"1ms\"}}, {\"file\": {\"path\": \"a\"}}]]}]" },
		{ INSERT, "file", "\"extent\"",
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", \"extent\", {\"file\": "
		  "{\"path\": \"a\"}}]]}]" },
		/* A layer that ends a stack takes what was there as its first leg. */
		{ INSERT, "mirror/0/0", "{\"mirror\": {\"legs\": [\"memory\"]}}",
		  "[\"pass\", \"flaky\", {\"mirror\": [{\"mirror\": [\"null\", \"memory\"]}, [\"pass\", "
		  "{\"file\": {\"path\": \"a\"}}]]}]" },
		{ INSERT, "flaky", "{\"mirror\": {}}",
		  "[\"pass\", {\"mirror\": [[\"flaky\", {\"mirror\": [\"null\", [\"pass\", {\"file\": "
		  "{\"path\": \"a\"}}]]}]]}]" },
		{ INSERT, "3", "\"pass\"",
		  "there is no layer 3 (its stack is now: 0 pass, 1 flaky" },
		{ INSERT, "pass", "\"extent\"", "there are 2 layers 'pass'" },
		{ INSERT, "miror", "\"pass\"", "did you mean 'mirror'?" },
		{ INSERT, "0", "\"pas\"", "there is no kind of layer 'pas'" },
		{ INSERT, "0", "\"null\"", "null is a back-end, and cannot be put above" },
		{ INSERT, "mirror/1", "\"pass\"", "'mirror/1' names a leg; expected a layer" },
		{ INSERT, "mirror/2/0", "\"pass\"", "mirror has no leg '2'" },
		{ INSERT, "mirror/x/0", "\"pass\"", "mirror has no leg 'x'" },
		{ INSERT, "0/0/0", "\"pass\"", "pass has no legs" },
		{ INSERT, "", "\"pass\"", "there is no layer ''" },
		{ INSERT, "mirror/", "\"pass\"", "mirror has no leg ''" },
		{ INSERT, "mirror/0/", "\"pass\"", "there is no layer ''" },
		{ REMOVE, "flaky", NULL,
		  "[\"pass\", {\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": \"a\"}}]]}]" },
		{ REMOVE, "2/1/0", NULL,
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", {\"file\": {\"path\": \"a\"}}]}]" },
		{ REMOVE, "mirror", NULL, "mirror has 2 legs: say which one stays" },
		{ REMOVE, "file", NULL, "file is the back-end" },
		{ KEEP, "mirror", "1",
		  "[\"pass\", \"flaky\", \"pass\", {\"file\": {\"path\": \"a\"}}]" },
		{ KEEP, "mirror", "2", "mirror has no leg 2" },
		{ KEEP, "flaky", "0", "flaky has no legs of which" },
		{ REORDER, "0", "\"1\"",
		  "[\"flaky\", \"pass\", {\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": "
		  "\"a\"}}]]}]" },
		{ REORDER, "flaky", "\"0\"",
		  "[\"flaky\", \"pass\", {\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": "
		  "\"a\"}}]]}]" },
		{ REORDER, "flaky", "\"mirror/0/0\"",
		  "[\"pass\", {\"mirror\": [[\"flaky\", \"null\"], [\"pass\", {\"file\": {\"path\": "
		  "\"a\"}}]]}]" },
		{ REORDER, "mirror", "\"0\"", "mirror ends a stack, and stays there" },
		{ REORDER, "flaky", "\"1\"", "flaky is there already" },
		{ SET, "flaky", "{\"delay\": \"2ms\", \"errors\": \"1%\"}",
		  "[\"pass\", {\"flaky\": {\"delay\": \"2ms\", \"errors\": \"1%\"}}, {\"mirror\": "
		  "[\"null\", [\"pass\", {\"file\": {\"path\": \"a\"}}]]}]" },
		{ SET, "file", "{\"path\": null}",
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", \"file\"]]}]" },
		{ SET, "mirror", "{\"legs\": []}", "mirror: legs are added and removed, not set" },
		{ ADD_LEG, "mirror", "[\"memory\"]",
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", {\"file\": {\"path\": "
		  "\"a\"}}], \"memory\"]}]" },
		{ ADD_LEG, "flaky", "[\"memory\"]", "flaky has no legs" },
		{ REMOVE_LEG, "mirror", NULL, "'mirror' names a layer; expected a leg" },
		{ REMOVE_LEG, "mirror/7", NULL, "mirror has no leg '7'" },
		{ REPLACE, "mirror", "[\"extent\", \"memory\"]",
		  "[\"pass\", \"flaky\", \"extent\", \"memory\"]" },
		{ REPLACE, "file", "[\"memory\"]",
		  "[\"pass\", \"flaky\", {\"mirror\": [\"null\", [\"pass\", \"memory\"]]}]" },
	};

	(void)state;
	check_rows(STACK, row, sizeof row / sizeof *row);
}

/* The layers of a port: none ends the list, and there may be none. */
static void layers_of_ports(void **state)
{
	static const struct row some[] = {
		{ INSERT, "0", "\"count\"",
		  "[\"count\", \"count\", {\"count\": {\"direction\": \"in\"}}]" },
		{ INSERT, "2", "\"count\"",
		  "[\"count\", {\"count\": {\"direction\": \"in\"}}, \"count\"]" },
		{ INSERT, "3", "\"count\"",
		  "there is no layer 3 (its stack is now: 0 count, 1 count)" },
		{ INSERT, "count", "\"count\"", "there are 2 layers 'count'" },
		{ INSERT, "0", "\"cuont\"", "there is no kind of layer 'cuont'" },
		{ REMOVE, "0", NULL, "[{\"count\": {\"direction\": \"in\"}}]" },
		{ REMOVE, "2", NULL, "there is no layer 2" },
		{ KEEP, "0", "0", "count has no legs of which one could be kept" },
		{ REORDER, "0", "\"1\"", "[{\"count\": {\"direction\": \"in\"}}, \"count\"]" },
		{ REORDER, "0", "\"2\"", "there is no layer 2" },
		{ SET, "0", "{\"direction\": \"out\"}",
		  "[{\"count\": {\"direction\": \"out\"}}, {\"count\": {\"direction\": \"in\"}}]" },
		{ SET, "1", "{\"direction\": null}", "[\"count\", \"count\"]" },
		{ ADD_LEG, "0", "[\"count\"]", "count has no legs" },
		{ REMOVE_LEG, "0/0", NULL, "count has no legs" },
	};
	static const struct row none[] = {
		{ INSERT, "0", "\"count\"", "[\"count\"]" },
		{ INSERT, "1", "\"count\"", "there is no layer 1 (its stack is now: no layers)" },
		{ REMOVE, "0", NULL, "there is no layer 0 (its stack is now: no layers)" },
	};

	(void)state;
	check_rows("[\"count\", {\"count\": {\"direction\": \"in\"}}]", some,
		   sizeof some / sizeof *some);
	check_rows("[]", none, sizeof none / sizeof *none);
}

static void words(void **state)
{
	json_t *written = json(STACK), *stack = stack_tree_full(written);
	char text[100], little[12];

	(void)state;
	assert_string_equal(stack_tree_words(stack, text, sizeof text),
			    "0 pass, 1 flaky, 2 mirror (0: 0 null; 1: 0 pass, 1 file)");
	assert_true(strlen(stack_tree_words(stack, little, sizeof little)) < sizeof little);
	json_decref(written);
	json_decref(stack);
}

/* Numbers are the texts that YAML has for them; order counts in lists only. */
static void hashes(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} pair[] = {
		{ "{\"a\": 1, \"b\": true}", "{\"b\": \"true\", \"a\": \"1\"}", true },
		{ "[1, 2]", "[2, 1]", false },
		{ "{\"a\": {\"b\": 1}}", "{\"b\": {\"a\": 1}}", false },
		{ "[[1], 2]", "[1, [2]]", false },
		{ "[]", "{}", false },
		{ "{\"a\": \"\"}", "{\"a\": null}", true },
		{ "\"ab\"", "\"ba\"", false },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof pair / sizeof *pair; i++) {
		json_t *a = json(pair[i].a), *b = json(pair[i].b);

		assert_int_equal(stack_tree_hash(a) == stack_tree_hash(b), pair[i].same);
		json_decref(a);
		json_decref(b);
	}
}

/* --- YAML ------------------------------------------------------------------------------ */

/* Whatever texts there are, what is written is read as the same tree. */
static void written_yaml_reads_the_same(void **state)
{
	static const char *const texts[] = { "x",
					     "",
					     " x ",
					     "a: b",
					     "- a",
					     "#",
					     "a #b",
					     "'",
					     "\"",
					     "{a}",
					     "[",
					     "&a",
					     "*a",
					     "!t",
					     "%TAG",
					     "true",
					     "1.5",
					     "null",
					     "~",
					     "a\nb",
					     "\t",
					     "\xc3\xa4",
					     "a\\b",
					     "@",
					     "`",
					     "|",
					     ">",
					     "?",
					     "- ",
					     "a:",
					     ":a",
					     "---",
					     "...",
					     ", ",
					     "/srv/a b.img",
					     "nbd+unix:///x?socket=/run/b.sock" };
	json_t *all = json_object(), *list = json_array(), *deep = json_object(), *back;
	struct mistakes mistakes = { .file = "text" };
	struct node *tree;
	char *text, name[16];

	(void)state;
	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
		snprintf(name, sizeof name, "n%u", i);
		json_object_set_new(deep, name, json_string(texts[i]));
		json_object_set_new(deep, texts[i], json_string("value"));
		json_array_append_new(list, json_string(texts[i]));
	}
	json_object_set_new(all, "deep", json_pack("{s:[[{s:o}, []], {}]}", "er", "st", deep));
	json_object_set_new(all, "list", list);
	json_object_set_new(all, "empty", json_object());
	text = yaml_write(all);
	assert_non_null(text);
	tree = yaml_parse(text, strlen(text), &mistakes);
	if (!tree)
		fail_msg("%s in:\n%s", mistakes.texts[0], text);
	back = json_tree_write(tree);
	if (!json_equal(all, back))
		fail_msg("not the same: %s\n%s", json_dumps(back, 0), text);
	free(text);
	node_free(tree);
	json_decref(back);
	json_decref(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms),           cmocka_unit_test(changes),
		cmocka_unit_test(layers_of_ports), cmocka_unit_test(words),
		cmocka_unit_test(hashes),          cmocka_unit_test(written_yaml_reads_the_same),
	};

	return cmocka_run_group_tests_name("stack_tree", tests, NULL, NULL);
}
