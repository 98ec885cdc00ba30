/* SPDX-License-Identifier: BSD-3-Clause */
/* invocation.h - a command as it was typed */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct command;
struct node;

struct invocation {
	const struct command *command;
	char **arguments; /**< of the command, without flags; those of main() */
	unsigned count;
	struct node *settings; /**< flags that are of config_options: a mapping */

	/* NULL: not given */
	char *api, *at, *config, *direction, *filter, *iso, *keep, *limit, *nbd_socket, *qemu,
		*socket;
	char *write;
	uint64_t memory, snap_length; /**< bytes */
	uint64_t packets;
	bool cancel, detach, force, json, names, wipe;
};

/**
 * Reads the command line. 0: run in->command. Else -1, and *@status is what to exit with: help or
 * the version was printed, or what is wrong.
 */
int invocation_read(struct invocation *in, int argc, char **argv, int *status);

void invocation_release(struct invocation *in);
