/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commands.c - all commands of penstock, in the order in which the help lists them; see commands.h
 *
 * Each is described where others of its subject are: commands_daemon.c, commands_disks.c,
 * commands_layers.c, commands_net.c. Flags are rows of tables of options, as all that can be
 * configured: those of a command itself, and for the commands that serve those of the program as a
 * whole. invocation.c reads them, help.c explains them, manual.c makes man pages of them.
 */
#include <string.h>

#include "control/commands_private.h"

extern const struct command serve_command;
extern const struct command run_command;
extern const struct command check_command;
extern const struct command create_command;
extern const struct command inspect_command;
extern const struct command status_command;
extern const struct command resize_command;
extern const struct command add_disk_command;
extern const struct command remove_disk_command;
extern const struct command insert_command;
extern const struct command eject_command;
extern const struct command attach_command;
extern const struct command detach_command;
extern const struct command stack_command;
extern const struct command insert_layer_command;
extern const struct command remove_layer_command;
extern const struct command move_layer_command;
extern const struct command set_layer_command;
extern const struct command set_port_command;
extern const struct command addresses_command;
extern const struct command forget_command;
extern const struct command add_leg_command;
extern const struct command remove_leg_command;
extern const struct command undo_command;
extern const struct command move_command;
extern const struct command capture_command;
extern const struct command config_command;
extern const struct command qemu_args_command;
extern const struct command help_command;

const struct command *const command_registry[] = {
	/* daemons, and files without one */
	&serve_command,
	&run_command,
	&check_command,
	&create_command,
	&inspect_command,
	&status_command,
	/* disks */
	&resize_command,
	&add_disk_command,
	&remove_disk_command,
	&insert_command,
	&eject_command,
	&attach_command,
	&detach_command,
	/* layers */
	&stack_command,
	&insert_layer_command,
	&remove_layer_command,
	&move_layer_command,
	&set_layer_command,
	/* networks */
	&set_port_command,
	&addresses_command,
	&forget_command,
	/* legs */
	&add_leg_command,
	&remove_leg_command,
	/* the whole of a disk */
	&undo_command,
	&move_command,
	/* what is printed */
	&capture_command,
	&config_command,
	&qemu_args_command,
	&help_command,
	NULL,
};

const struct command *command_find(const char *name)
{
	for (unsigned i = 0; command_registry[i]; i++)
		if (!strcmp(command_registry[i]->name, name))
			return command_registry[i];
	return NULL;
}

const char command_api_help[] =
	"Path of the control API's socket. Without it the first of these that is there: "
	"$PENSTOCK_API, ./penstock-api.sock, $XDG_RUNTIME_DIR/penstock.sock, /run/penstock.sock.";

const struct option command_api_flags[] = { API_FLAG, { 0 } };

const struct option command_status_flags[] = {
	API_FLAG,
	{ .name = "json",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, json),
	  .help = "Print the answer of the API as it is, in JSON." },
	{ 0 },
};
