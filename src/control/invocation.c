/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * invocation.c - reads a command line
 *
 * getopt_long() finds the flags, the tables of options parse them. Flags that are options
 * of the program as a whole stay texts, to be put above those of a configuration file. What
 * is typed wrong is answered with what was probably meant.
 */
#include "control/invocation.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control/commands.h"
#include "control/config.h"
#include "control/flags.h"
#include "control/help.h"
#include "control/yaml.h"
#include "util/error.h"
#include "util/suggest.h"

static void complain(const struct command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void complain(const struct command *command, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "penstock%s%s: ", command ? " " : "", command ? command->name : "");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nusage: penstock %s %s\n", command ? command->name : "COMMAND",
		command ? command->arguments : "...");
}

static void complain_unknown(const struct command *command, const char *what, const char *word,
			     const struct suggestion *nearest, const char *dashes)
{
	if (nearest->best)
		complain(command, "no %s '%s'; did you mean '%s%s'?", what, word, dashes,
			 nearest->best);
	else
		complain(command, "no %s '%s'; penstock %s%s--help lists them", what, word,
			 command ? command->name : "", command ? " " : "");
}

/* The flags of one command, and where their values go. */
struct known {
	struct flag flags[FLAGS];
	const struct option *rows[FLAGS]; /* NULL: --help */
	bool setting[FLAGS];              /* into the settings */
	unsigned count;
};

static void know(struct known *known, const struct option *row, bool setting)
{
	for (; row && row->name && known->count < FLAGS - 1; row++) {
		known->flags[known->count] =
			(struct flag){ .name = row->name,
				       .letter = row->letter,
				       .has_value = setting || row->type != OPTION_BOOL };
		known->rows[known->count] = row;
		known->setting[known->count++] = setting;
	}
}

static int take_flag(struct invocation *in, const struct option *row, bool setting,
		     const char *value)
{
	struct error err;

	if (setting) {
		node_set(in->settings, row->name, value);
		return 0;
	}
	if (!options_set(in->command->flags, in, row->name, value ? value : "true", &err))
		return 0;
	complain(in->command, "--%s", err.text);
	return -1;
}

static int unknown_flag(const struct invocation *in, const struct known *known, const char *word)
{
	struct suggestion nearest = suggest_for(word + strspn(word, "-"));

	for (unsigned i = 0; i < known->count; i++)
		suggest_offer(&nearest, known->flags[i].name);
	complain_unknown(in->command, "flag", word, &nearest, "--");
	return -1;
}

/* 1: --help was among them. */
static int read_flags(struct invocation *in, int argc, char **argv)
{
	struct known known = { 0 };
	const char *value;
	int index;

	know(&known, in->command->flags, false);
	if (in->command->serves)
		know(&known, config_options, true);
	known.flags[known.count++].name = "help";

	for (;;) {
		switch (flags_next(argc, argv, known.flags, known.count, &index, &value)) {
		case FLAG_FOUND:
			if (!known.rows[index])
				return 1;
			if (take_flag(in, known.rows[index], known.setting[index], value))
				return -1;
			break;
		case FLAG_END:
			in->arguments = argv + index;
			in->count = (unsigned)(argc - index);
			return 0;
		case FLAG_UNKNOWN:
			return unknown_flag(in, &known, value);
		case FLAG_NO_VALUE:
			complain(in->command, "%s: its value is missing", value);
			return -1;
		case FLAG_STRAY_VALUE:
			complain(in->command, "%s: it takes no value", value);
			return -1;
		}
	}
}

static int read_command(struct invocation *in, int argc, char **argv)
{
	struct invocation topic = { .arguments = (char *[]){ argv[1] }, .count = 1 };
	int ret;

	in->settings = node_new(NODE_MAPPING, NULL, 0);
	options_init(in->command->flags, in);
	ret = read_flags(in, argc - 1, argv + 1);
	if (ret > 0) {
		command_help(&topic);
		return 0;
	}
	if (ret)
		return 2;
	if (in->count < in->command->least) {
		complain(in->command, "an argument is missing");
		return 2;
	}
	if (in->count > in->command->most) {
		complain(in->command, "'%s' is an argument too many",
			 in->arguments[in->command->most]);
		return 2;
	}
	return -1;
}

int invocation_read(struct invocation *in, int argc, char **argv, int *status)
{
	const char *word = argc > 1 ? argv[1] : "";

	*in = (struct invocation){ .command = command_find(word) };
	if (in->command) {
		*status = read_command(in, argc, argv);
		return *status < 0 ? 0 : -1;
	}
	if (!strcmp(word, "--version")) {
		printf("penstock " PENSTOCK_VERSION "\n");
		*status = 0;
	} else if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		*status = command_help(in);
	} else {
		struct suggestion nearest = suggest_for(word);

		for (unsigned i = 0; command_registry[i]; i++)
			suggest_offer(&nearest, command_registry[i]->name);
		if (*word)
			complain_unknown(NULL, "command", word, &nearest, "");
		else
			complain(NULL, "a command is missing; penstock --help lists them");
		*status = 2;
	}
	return -1;
}

void invocation_release(struct invocation *in)
{
	options_release(in->command ? in->command->flags : NULL, in);
	node_free(in->settings);
}
