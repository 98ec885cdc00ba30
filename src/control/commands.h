/* SPDX-License-Identifier: BSD-3-Clause */
/* commands.h - the commands of penstock: their arguments, flags and texts */
#pragma once

#include <stdbool.h>

#include "control/invocation.h"
#include "util/option.h"

/** One command. The one source for parsing, --help, the man page and the completion. */
struct command {
	const char *name;
	const char *arguments;      /**< as in a synopsis */
	unsigned least, most;       /**< how many arguments */
	const char *summary;        /**< one line */
	const char *description;    /**< paragraphs, an empty line between them */
	const char *example;        /**< what to type */
	const struct option *flags; /**< into struct invocation */
	bool serves;                /**< the options of config_options are flags too */
};

/** All of them, in the order in which they are listed; ended by NULL. */
extern const struct command *const command_registry[];

/** The command called @name, or NULL. */
const struct command *command_find(const char *name);
