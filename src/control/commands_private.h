/* SPDX-License-Identifier: BSD-3-Clause */
/* commands_private.h - what the tables of commands share */
#pragma once

#include <stddef.h>

#include "control/commands.h"

#define API_FLAG                                                                                   \
	{                                                                                          \
		.name = "api", .type = OPTION_STRING, .offset = offsetof(struct invocation, api),  \
		.help = command_api_help                                                           \
	}

/** Flags of commands that ask a running penstock: API_FLAG alone, and with --json. */
extern const struct option command_api_flags[], command_status_flags[];
extern const char command_api_help[];
