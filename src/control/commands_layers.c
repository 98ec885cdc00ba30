/* SPDX-License-Identifier: BSD-3-Clause */
/* commands_layers.c - commands about the layers of a disk or a port of a running penstock */
#include "control/commands_private.h"

#define PLACES                                                                                             \
	"PLACE is the number of a layer, counted from 0, the one nearest to the guest; or its kind, such " \
	"as crypt, where that says which. In a leg of another layer it is a path: mirror/0/crypt, and "    \
	"the leg itself mirror/0. Prints the stack as it is then, and how long the guest's requests had "  \
	"to wait at most. What is wrong leaves all as it was.\n\n"                                         \
	"DISK may be a port of a switch as well, a NIC or an uplink: then its layers of packets change, "  \
	"while packets flow."

const struct command stack_command = {
	.name = "stack",
	.arguments = "DISK [LAYER ...]",
	.least = 1,
	.most = 32,
	.summary = "show the layers of a disk or a port, or set all of them",
	.description =
		"Prints the stack of DISK as a configuration file would have it. With layers: gives the "
		"disk these, the first one nearest to the guest, while the guest runs. Layers that are "
		"there already, with the same options, stay open. A stack in which the guest would find "
		"other data is refused.\n\n" PLACES,
	.example =
		"penstock stack db\n"
		"penstock stack db 'crypt: {key-file: /etc/db.key}' 'file: {path: /srv/db.img}'\n",
	.flags = command_api_flags,
};

const struct command insert_layer_command = {
	.name = "insert-layer",
	.arguments = "DISK PLACE LAYER",
	.least = 3,
	.most = 3,
	.summary = "put a layer into a disk or a port while the guest runs",
	.description =
		"Puts LAYER where the layer at PLACE is, which is below it then. LAYER is written as "
		"in penstock.yaml(5). A layer that ends a stack, such as a mirror, takes what is from "
		"PLACE down as its first leg.\n\n"
		"A layer that makes other data of what is below it, such as crypt, cannot be put above what "
		"has data already, nor taken away: penstock-move(1) with --at does that. Of a port, the "
		"number behind the last layer puts LAYER at the end, next to the switch.\n\n" PLACES,
	.example =
		"penstock insert-layer db 0 pass\n"
		"penstock insert-layer web0 0 'count: {direction: in}'\n"
		"penstock insert-layer db file 'mirror: {create: true, legs: [file: {path: /srv/copy.img}]}'\n",
	.flags = command_api_flags,
};

static const struct option remove_layer_flags[] = {
	API_FLAG,
	{ .name = "keep",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, keep),
	  .help = "Number of the leg that stays, of a layer that ends a stack and has several." },
	{ 0 },
};

const struct command remove_layer_command = {
	.name = "remove-layer",
	.arguments = "DISK PLACE",
	.least = 2,
	.most = 2,
	.summary = "take a layer out of a disk or a port while the guest runs",
	.description =
		"Takes the layer at PLACE out. What is below takes its place or, of a layer that ends a "
		"stack, such as a mirror, the leg that --keep names. A back-end cannot be taken out: "
		"penstock-move(1) puts the disk on another one.\n\n" PLACES,
	.example = "penstock remove-layer db flaky\n"
		   "penstock remove-layer db mirror --keep 1\n",
	.flags = remove_layer_flags,
};

const struct command move_layer_command = {
	.name = "move-layer",
	.arguments = "DISK PLACE TO",
	.least = 3,
	.most = 3,
	.summary = "put a layer of a disk or a port in another place while the guest runs",
	.description =
		"Takes the layer at PLACE out, and puts it where the layer at TO was; those between "
		"move up, or down.\n\n" PLACES,
	.example = "penstock move-layer db 0 1\n",
	.flags = command_api_flags,
};

const struct command set_layer_command = {
	.name = "set-layer",
	.arguments = "DISK PLACE option=value ...",
	.least = 3,
	.most = 64,
	.summary = "set options of a layer while the guest runs",
	.description =
		"Gives the layer at PLACE other options; 'option=' with nothing behind it takes one "
		"away, so that it has its default. A layer that cannot change while it is open is opened "
		"anew.\n\n" PLACES,
	.example = "penstock set-layer db flaky delay=5ms errors=\n",
	.flags = command_api_flags,
};

const struct command add_leg_command = {
	.name = "add-leg",
	.arguments = "DISK PLACE LAYER ...",
	.least = 3,
	.most = 32,
	.summary = "add a leg to a layer, such as a mirror, while the guest runs",
	.description =
		"Adds a leg to the layer at PLACE, as its last one: LAYER, or several layers, the first "
		"one uppermost.\n\n" PLACES,
	.example = "penstock add-leg db mirror 'file: {path: /srv/third.img}'\n",
	.flags = command_api_flags,
};

const struct command remove_leg_command = {
	.name = "remove-leg",
	.arguments = "DISK PLACE",
	.least = 2,
	.most = 2,
	.summary = "take a leg out of a layer, such as a mirror, while the guest runs",
	.description =
		"Takes the leg at PLACE out, a path that ends with the leg's number.\n\n" PLACES,
	.example = "penstock remove-leg db mirror/1\n",
	.flags = command_api_flags,
};
