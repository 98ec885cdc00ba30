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

/** All of them, ended by one without a name. */
extern const struct command commands[];

/** The command called @name, or NULL. */
const struct command *command_find(const char *name);

/** `penstock help`: of a command, a layer or a back-end, or of the whole. Returns the exit status.
 */
int command_help(const struct invocation *in);
