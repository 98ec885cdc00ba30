/* SPDX-License-Identifier: BSD-3-Clause */
/* option.c - tables of options: parsing, printing, describing; see option.h */
#include "util/option.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 },           { "B", 1 },
	{ "K", 1ull << 10 }, { "KiB", 1ull << 10 },
	{ "M", 1ull << 20 }, { "MiB", 1ull << 20 },
	{ "G", 1ull << 30 }, { "GiB", 1ull << 30 },
	{ "T", 1ull << 40 }, { "TiB", 1ull << 40 },
	{ "P", 1ull << 50 }, { "PiB", 1ull << 50 },
	{ "E", 1ull << 60 }, { "EiB", 1ull << 60 },
	{ NULL, 0 },
};

static const struct unit duration_units[] = {
	{ "ns", 1 },          { "us", 1000 },         { "ms", 1000000 }, { "s", 1000000000 },
	{ "m", 60000000000 }, { "h", 3600000000000 }, { NULL, 0 },
};

/* A whole number and one of the units, nothing else, no overflow. */
static int parse_number(const char *text, const struct unit *units, uint64_t *value)
{
	char *end;
	uint64_t n;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	for (; units->suffix; units++)
		if (!strcmp(end, units->suffix))
			return __builtin_mul_overflow(n, units->factor, value) ? -ERANGE : 0;
	return -EINVAL;
}

int parse_size(const char *text, uint64_t *bytes)
{
	return parse_number(text, size_units, bytes);
}

static char *format_number(uint64_t value, const struct unit *units, char *text, size_t size)
{
	const struct unit *best = units;

	for (; units->suffix; units++)
		if (value && value % units->factor == 0 && units->factor > best->factor)
			best = units;
	snprintf(text, size, "%" PRIu64 "%s", value / best->factor, best->suffix);
	return text;
}

char *format_size(uint64_t bytes, char *text, size_t size)
{
	return format_number(bytes, size_units, text, size);
}

static int parse_bool(const char *text, bool *value)
{
	static const char *const no[] = { "false", "off", "no", NULL };
	static const char *const yes[] = { "true", "on", "yes", NULL };

	for (unsigned i = 0; no[i]; i++) {
		if (!strcmp(text, no[i]) || !strcmp(text, yes[i])) {
			*value = !strcmp(text, yes[i]);
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_fraction(const char *text, double *value)
{
	char *end;
	double n;

	/* strtod() takes more than a user would write: blanks, hexadecimal, "nan". */
	if (text[strspn(text, "0123456789.%")])
		return -EINVAL;
	n = strtod(text, &end);
	if (end == text)
		return -EINVAL;
	if (!strcmp(end, "%"))
		n /= 100;
	else if (*end)
		return -EINVAL;
	if (!isfinite(n) || n < 0 || n > 1)
		return -ERANGE;
	*value = n;
	return 0;
}

static int parse_choice(const char *text, const char *const *choices, int *value)
{
	for (int i = 0; choices[i]; i++) {
		if (!strcmp(text, choices[i])) {
			*value = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_into(const struct option *row, void *at, const char *text)
{
	uint64_t number;
	int ret;

	switch (row->type) {
	case OPTION_BOOL:
		return parse_bool(text, at);
	case OPTION_FRACTION:
		return parse_fraction(text, at);
	case OPTION_CHOICE:
		return parse_choice(text, row->choices, at);
	case OPTION_STRING:
		if (!*text)
			return -EINVAL;
		free(*(char **)at);
		*(char **)at = strdup(text);
		return *(char **)at ? 0 : -ENOMEM;
	case OPTION_UINT:
	case OPTION_SIZE:
	case OPTION_DURATION:
		break;
	}
	if (row->automatic && !strcmp(text, "auto")) {
		*(uint64_t *)at = UINT64_MAX;
		return 0;
	}
	if (row->type == OPTION_DURATION)
		ret = parse_number(text, duration_units, &number);
	else
		ret = parse_number(text,
				   row->type == OPTION_SIZE
					   ? size_units
					   : (struct unit[]){ { "", 1 }, { NULL, 0 } },
				   &number);
	if (ret)
		return ret;
	if (number < row->min || (row->max && number > row->max))
		return -ERANGE;
	*(uint64_t *)at = number;
	return 0;
}

const struct option *options_find(const struct option *table, const char *name)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

void options_init(const struct option *table, void *object)
{
	for (; table && table->name; table++)
		if (table->fallback)
			parse_into(table, (char *)object + table->offset, table->fallback);
}

int options_set(const struct option *table, void *object, const char *name, const char *text,
		struct error *err)
{
	const struct option *row = options_find(table, name);
	char expected[200];
	int ret;

	if (!row) {
		size_t n = 0;
		char known[300] = "";

		for (row = table; row && row->name && n < sizeof known; row++)
			n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
					      row->name);
		return error_set(err, EINVAL, "unknown option '%s' (%s%s)", name,
				 *known ? "expected one of: " : "there are none here", known);
	}
	ret = parse_into(row, (char *)object + row->offset, text);
	if (!ret)
		return 0;
	if (ret == -ENOMEM)
		return error_set(err, ENOMEM, "out of memory");
	options_describe(row, expected, sizeof expected);
	return error_set(err, EINVAL, "%s: '%s' is %s; expected %s", name, text,
			 ret == -ERANGE ? "out of range" : "not understood", expected);
}

void options_describe(const struct option *row, char *text, size_t size)
{
	char least[32], most[32];
	size_t n;

	switch (row->type) {
	case OPTION_BOOL:
		snprintf(text, size, "true or false");
		return;
	case OPTION_FRACTION:
		snprintf(text, size, "a share such as 1%% or 0.01, from 0 to 100%%");
		return;
	case OPTION_STRING:
		snprintf(text, size, "a text");
		return;
	case OPTION_CHOICE:
		n = (size_t)snprintf(text, size, "one of");
		for (unsigned i = 0; row->choices[i] && n < size; i++)
			n += (size_t)snprintf(text + n, size - n, "%s %s", i ? "," : "",
					      row->choices[i]);
		return;
	case OPTION_UINT:
		n = (size_t)snprintf(text, size, "%sa whole number",
				     row->automatic ? "auto or " : "");
		snprintf(least, sizeof least, "%" PRIu64, row->min);
		snprintf(most, sizeof most, "%" PRIu64, row->max);
		break;
	case OPTION_SIZE:
		n = (size_t)snprintf(text, size, "a size such as 4096, 512K or 20G");
		format_size(row->min, least, sizeof least);
		format_size(row->max, most, sizeof most);
		break;
	default:
		n = (size_t)snprintf(text, size, "a time such as 10us, 5ms or 2s");
		format_number(row->min, duration_units, least, sizeof least);
		format_number(row->max, duration_units, most, sizeof most);
		break;
	}
	if (n < size && row->max)
		snprintf(text + n, size - n, ", from %s to %s", least, most);
	else if (n < size && row->min)
		snprintf(text + n, size - n, ", at least %s", least);
}

void options_get(const struct option *row, const void *object, char *text, size_t size)
{
	const void *at = (const char *)object + row->offset;

	switch (row->type) {
	case OPTION_BOOL:
		snprintf(text, size, "%s", *(const bool *)at ? "true" : "false");
		break;
	case OPTION_UINT:
		if (row->automatic && *(const uint64_t *)at == UINT64_MAX)
			snprintf(text, size, "auto");
		else
			snprintf(text, size, "%" PRIu64, *(const uint64_t *)at);
		break;
	case OPTION_SIZE:
		format_size(*(const uint64_t *)at, text, size);
		break;
	case OPTION_DURATION:
		format_number(*(const uint64_t *)at, duration_units, text, size);
		break;
	case OPTION_FRACTION:
		snprintf(text, size, "%g%%", *(const double *)at * 100);
		break;
	case OPTION_STRING:
		snprintf(text, size, "%s", *(char *const *)at ? *(char *const *)at : "");
		break;
	case OPTION_CHOICE:
		snprintf(text, size, "%s", row->choices[*(const int *)at]);
		break;
	}
}

/* Bytes of the value of a row. */
static size_t width(const struct option *row)
{
	switch (row->type) {
	case OPTION_BOOL:
		return sizeof(bool);
	case OPTION_FRACTION:
		return sizeof(double);
	case OPTION_STRING:
		return sizeof(char *);
	case OPTION_CHOICE:
		return sizeof(int);
	default:
		return sizeof(uint64_t);
	}
}

void options_move(const struct option *table, void *to, void *from)
{
	options_release(table, to);
	for (; table && table->name; table++) {
		char *source = (char *)from + table->offset;

		memcpy((char *)to + table->offset, source, width(table));
		if (table->type == OPTION_STRING)
			*(char **)source = NULL;
	}
}

void options_release(const struct option *table, void *object)
{
	for (; table && table->name; table++) {
		if (table->type == OPTION_STRING) {
			free(*(char **)((char *)object + table->offset));
			*(char **)((char *)object + table->offset) = NULL;
		}
	}
}
