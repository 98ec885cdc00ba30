/* SPDX-License-Identifier: BSD-3-Clause */
/* option_test.c - what options take and refuse, and that the program's own tables are sound */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "control/config.h"
#include "frontend/frontend.h"
#include "layer/layer.h"
#include "util/error.h"
#include "util/option.h"

/* One of each type. */
struct thing {
	bool flag;
	uint64_t count, size, time, turn;
	double share;
	char *text;
	int choice;
};

static const char *const colours[] = { "red", "green", NULL };

static const struct option things[] = {
	{ .name = "flag",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct thing, flag),
	  .fallback = "yes" },
	{ .name = "count",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct thing, count),
	  .min = 2,
	  .max = 10,
	  .fallback = "3" },
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct thing, size),
	  .min = 512,
	  .fallback = "4K" },
	{ .name = "time",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct thing, time),
	  .max = 1000000000,
	  .fallback = "5ms" },
	{ .name = "turn",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct thing, turn),
	  .automatic = true,
	  .fallback = "auto",
	  .max = 9 },
	{ .name = "share", .type = OPTION_FRACTION, .offset = offsetof(struct thing, share) },
	{ .name = "text", .type = OPTION_STRING, .offset = offsetof(struct thing, text) },
	{ .name = "choice",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct thing, choice),
	  .choices = colours,
	  .fallback = "green" },
	{ 0 },
};

static void defaults(void **state)
{
	struct thing thing = { 0 };

	(void)state;
	options_init(things, &thing);
	assert_true(thing.flag);
	assert_int_equal(thing.count, 3);
	assert_int_equal(thing.size, 4096);
	assert_int_equal(thing.time, 5000000);
	assert_true(thing.turn == UINT64_MAX);
	assert_true(thing.share == 0);
	assert_null(thing.text);
	assert_int_equal(thing.choice, 1);
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "7B", 7 },
		{ "1K", 1024 },
		{ "512KiB", 524288 },
		{ "20G", 20ull << 30 },
		{ "3T", 3ull << 40 },
		{ "15E", 15ull << 60 },
		{ "18446744073709551615", UINT64_MAX },
	};
	static const char *const bad[] = {
		"",
		" 1",
		"1 ",
		"-1",
		"+1",
		"1.5G",
		"0x10",
		"G",
		"1g",
		"1KB",
		"1K1",
		"16E",
		"18446744073709551616",
		"99999999999999999999G",
	};
	uint64_t bytes;

	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		if (parse_size(good[i].text, &bytes))
			fail_msg("'%s' is refused", good[i].text);
		assert_int_equal(bytes, good[i].bytes);
	}
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!parse_size(bad[i], &bytes))
			fail_msg("'%s' is taken for %llu", bad[i], (unsigned long long)bytes);
}

static void sizes_are_written_as_users_do(void **state)
{
	char text[32];
	uint64_t bytes;

	(void)state;
	assert_string_equal(format_size(0, text, sizeof text), "0");
	assert_string_equal(format_size(1000, text, sizeof text), "1000");
	assert_string_equal(format_size(20ull << 30, text, sizeof text), "20G");
	assert_string_equal(format_size(3ull << 29, text, sizeof text), "1536M");
	assert_string_equal(format_size(1ull << 60, text, sizeof text), "1E");
	for (unsigned shift = 0; shift < 64; shift++) {
		assert_int_equal(parse_size(format_size(1ull << shift, text, sizeof text), &bytes),
				 0);
		assert_int_equal(bytes, 1ull << shift);
	}
}

/* What each option takes, and how it looks when it is read back. */
static void values(void **state)
{
	static const struct {
		const char *name, *text, *back;
	} good[] = {
		{ "flag", "false", "false" },   { "flag", "on", "true" },
		{ "flag", "off", "false" },     { "flag", "yes", "true" },
		{ "count", "2", "2" },          { "count", "10", "10" },
		{ "size", "1024", "1K" },       { "size", "0512", "512" },
		{ "time", "0ns", "0ns" },       { "time", "1s", "1s" },
		{ "time", "1500us", "1500us" }, { "share", "0", "0%" },
		{ "share", "0.25", "25%" },     { "share", "100%", "100%" },
		{ "share", "1.5%", "1.5%" },    { "text", "a b", "a b" },
		{ "text", "c", "c" },           { "choice", "red", "red" },
		{ "turn", "9", "9" },           { "turn", "auto", "auto" },
	};
	struct thing thing = { 0 };
	struct error err;
	char back[64];

	(void)state;
	options_init(things, &thing);
	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		if (options_set(things, &thing, good[i].name, good[i].text, &err))
			fail_msg("%s: %s", good[i].name, err.text);
		options_get(options_find(things, good[i].name), &thing, back, sizeof back);
		assert_string_equal(back, good[i].back);
	}
	options_release(things, &thing);
	assert_null(thing.text);
}

static void mistakes(void **state)
{
	static const struct {
		const char *name, *text, *said;
	} bad[] = {
		{ "flag", "", "true or false" },
		{ "flag", "1", "true or false" },
		{ "flag", "True", "true or false" },
		{ "count", "1", "out of range" },
		{ "count", "11", "from 2 to 10" },
		{ "count", "3K", "a whole number" },
		{ "count", "-3", "not understood" },
		{ "size", "0", "at least 512" },
		{ "size", "one", "'one'" },
		{ "time", "5", "5ms" },
		{ "time", "2s", "out of range" },
		{ "time", "9999999999h", "out of range" },
		{ "share", "nan", "not understood" },
		{ "share", "-1%", "not understood" },
		{ "share", "101%", "out of range" },
		{ "share", "1.1", "out of range" },
		{ "share", "", "1%" },
		{ "share", "%", "1%" },
		{ "share", "1%%", "not understood" },
		{ "share", "0x1", "not understood" },
		{ "text", "", "a text" },
		{ "choice", "blue", "red, green" },
		{ "choice", "RED", "red, green" },
		{ "turn", "10", "auto or a whole number, from 0 to 9" },
		{ "turn", "18446744073709551615", "out of range" },
		{ "count", "auto", "not understood" },
		{ "colour", "red", "choice" },
	};
	struct thing thing = { 0 }, before;
	struct error err;

	(void)state;
	options_init(things, &thing);
	before = thing;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (!options_set(things, &thing, bad[i].name, bad[i].text, &err))
			fail_msg("%s: '%s' is taken", bad[i].name, bad[i].text);
		if (!strstr(err.text, bad[i].said) || !strstr(err.text, bad[i].name))
			fail_msg("%s: '%s': '%s' is not in: %s", bad[i].name, bad[i].text,
				 bad[i].said, err.text);
		assert_memory_equal(&thing, &before, sizeof thing);
	}
}

/* No text is longer than the room for it, and none is left without its end. */
static void texts_fit(void **state)
{
	struct thing thing = { 0 };
	char text[256], room[256];

	(void)state;
	options_init(things, &thing);
	for (const struct option *row = things; row->name; row++) {
		options_describe(row, text, sizeof text);
		for (size_t size = 1; size <= strlen(text); size++) {
			memset(room, '#', sizeof room);
			options_describe(row, room, size);
			assert_int_equal(strlen(room), size - 1);
			assert_int_equal(room[size], '#');
			memset(room, '#', sizeof room);
			options_get(row, &thing, room, size);
			assert_true(strlen(room) < size);
			assert_int_equal(room[size], '#');
		}
	}
}

static void check_table(const char *of, const struct option *table)
{
	struct error err;

	for (const struct option *row = table; row && row->name; row++) {
		union {
			uint64_t number;
			double share;
			char *text;
			int choice;
			bool flag;
		} value = { 0 };
		struct option at_value[2] = { *row };

		at_value[0].offset = 0;
		if (row->name[strspn(row->name, "abcdefghijklmnopqrstuvwxyz0123456789-")])
			fail_msg("%s: the name '%s'", of, row->name);
		if (options_find(table, row->name) != row)
			fail_msg("%s: two rows called '%s'", of, row->name);
		if (!row->help || row->help[strlen(row->help) - 1] != '.')
			fail_msg("%s: '%s' has no help, or one without an end", of, row->name);
		if (row->required && row->fallback)
			fail_msg("%s: '%s' is required and has a default", of, row->name);
		if (row->type == OPTION_CHOICE && !row->fallback && !row->required)
			fail_msg("%s: '%s' has no default", of, row->name);
		if (row->fallback && options_set(at_value, &value, row->name, row->fallback, &err))
			fail_msg("%s: default of %s", of, err.text);
		options_release(at_value, &value);
	}
}

static void tables_of_the_program(void **state)
{
	(void)state;
	check_table("the program", config_options);
	check_table("disk", disk_options);
	for (unsigned i = 0; frontend_registry[i]; i++) {
		check_table(frontend_registry[i]->name, frontend_registry[i]->options);
		check_table(frontend_registry[i]->name, frontend_registry[i]->unit_options);
	}
	for (unsigned i = 0; layer_registry[i]; i++) {
		const struct layer_ops *ops = layer_registry[i];

		check_table(ops->name, ops->options);
		assert_ptr_equal(layer_find(ops->name), ops);
		for (const struct option *row = ops->options; row && row->name; row++)
			assert_in_range(row->offset, sizeof(struct layer), ops->size - 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(sizes),
		cmocka_unit_test(sizes_are_written_as_users_do),
		cmocka_unit_test(values),
		cmocka_unit_test(mistakes),
		cmocka_unit_test(texts_fit),
		cmocka_unit_test(tables_of_the_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
