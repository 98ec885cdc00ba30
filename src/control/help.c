/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * help.c - `penstock help`, in words for people, and in names for the completion of shells
 *
 * All that it says is in tables: of commands, of options, of the kinds of devices, layers and
 * uplinks.
 */
#include "control/help.h"

#include <stdio.h>
#include <string.h>

#include "control/commands.h"
#include "control/config.h"
#include "control/create.h"
#include "control/serve.h"
#include "transport/transport.h"
#include "util/suggest.h"

/* --- texts -------------------------------------------------------------------------- */

/* Prints @text in lines of at most 80 columns, each after @indent spaces. */
static void print_wrapped(const char *text, int indent)
{
	int column = 0;

	while (*text) {
		size_t word = strcspn(text, " \n");

		if (column && column + 1 + (int)word > 80) {
			printf("\n");
			column = 0;
		}
		column += column ? printf(" %.*s", (int)word, text)
				 : printf("%*s%.*s", indent, "", (int)word, text);
		text += word;
		if (*text == '\n') {
			printf("\n");
			column = 0;
		}
		text += *text != 0;
	}
	printf("\n");
}

static void print_lines(const char *text)
{
	while (*text) {
		size_t line = strcspn(text, "\n");

		printf("    %.*s\n", (int)line, text);
		text += line + (text[line] != 0);
	}
}

static void print_options(const struct option *table, const char *prefix)
{
	char text[300];

	for (; table && table->name; table++) {
		printf("  ");
		if (*prefix && table->letter)
			printf("-%c, ", table->letter);
		printf("%s%s", prefix, table->name);
		if (table->type == OPTION_BOOL && *prefix) {
			printf("\n");
		} else {
			options_describe(table, text, sizeof text);
			printf("%s%s", *prefix ? " " : "=", text);
			if (table->fallback)
				printf(" (default %s)", table->fallback);
			printf("%s\n", table->required ? "; required" : "");
		}
		print_wrapped(table->help, 8);
	}
}

static int print_command(const struct command *command)
{
	printf("usage: penstock %s %s\n\n", command->name, command->arguments);
	print_wrapped(command->description, 0);
	if (command->flags || command->serves)
		printf("\nFlags:\n");
	print_options(command->flags, "--");
	if (command->serves)
		print_options(config_options, "--");
	if (!strcmp(command->name, "serve")) {
		printf("\nOptions of the disk:\n");
		print_options(disk_options, "");
		printf("  stack=LAYER[,LAYER]\n        Layers above the back-end, see penstock "
		       "help.\n"
		       "\nOptions of the device:\n");
		print_options(config_device_options, "");
		print_options(serve_frontend()->options, "");
		printf("\nOptions of the back-end, if PATH is a path:\n");
		print_options(layer_find("file")->options, "");
	}
	if (!strcmp(command->name, "create")) {
		printf("\nOptions of all layers:\n");
		print_options(create_options, "");
	}
	for (unsigned i = 0; !strcmp(command->name, "create") && layer_registry[i]; i++) {
		if (!layer_registry[i]->format)
			continue;
		printf("\n%s makes %s. Its options:\n", layer_registry[i]->name,
		       layer_registry[i]->format->summary);
		print_options(layer_registry[i]->format->options, "");
	}
	printf("\nExamples:\n");
	print_lines(command->example);
	return 0;
}

static int print_layer(const struct layer_ops *ops)
{
	printf("%s - %s (%s)\n\n", ops->name, ops->summary, ops->backend ? "back-end" : "layer");
	print_wrapped(ops->description, 0);
	if (ops->options)
		printf("\nOptions:\n");
	print_options(ops->options, "");
	printf("\nExample:\n");
	print_lines(ops->example);
	return 0;
}

static int print_frontend(const struct frontend *frontend)
{
	printf("%s - %s (device, over %s)\n\n", frontend->name, frontend->summary,
	       frontend->transport->name);
	print_wrapped(frontend->description, 0);
	if (frontend->transport->caveat) {
		printf("\nOf a device on this transport:\n");
		print_wrapped(frontend->transport->caveat, 2);
	}
	printf("\nOptions:\n");
	print_options(config_device_options, "");
	print_options(frontend->options, "");
	if (frontend->unit_options)
		printf("\nOptions of each unit, beside disk:\n");
	print_options(frontend->unit_options, "");
	printf("\nExample:\n");
	print_lines(frontend->example);
	return 0;
}

static int print_uplink(const struct uplink_ops *ops)
{
	printf("%s - %s (uplink of a switch)\n\n", ops->name, ops->summary);
	print_wrapped(ops->description, 0);
	printf("\nOptions, below %s:\n", ops->name);
	print_options(ops->options, "");
	printf("\nOptions of all uplinks: see penstock-ports(7).\n\nExample:\n");
	print_lines(ops->example);
	return 0;
}

static int print_packet_layer(const struct packet_layer_ops *ops)
{
	printf("%s - %s (layer of packets)\n\n", ops->name, ops->summary);
	print_wrapped(ops->description, 0);
	printf("\nOptions:\n");
	print_options(ops->options, "");
	printf("\nExample:\n");
	print_lines(ops->example);
	return 0;
}

static int print_overview(void)
{
	printf("usage: penstock COMMAND ...\n\n"
	       "Gives virtual machines their disks and networks, over vhost-user and vfio-user.\n\n"
	       "Commands:\n");
	for (unsigned i = 0; command_registry[i]; i++)
		printf("  %-12s %s\n", command_registry[i]->name, command_registry[i]->summary);
	printf("\nDevices:\n");
	for (unsigned i = 0; frontend_registry[i]; i++)
		printf("  %-11s %s\n", frontend_registry[i]->name, frontend_registry[i]->summary);
	printf("\nBack-ends:\n");
	for (unsigned i = 0; layer_registry[i]; i++)
		if (layer_registry[i]->backend)
			printf("  %-10s %s\n", layer_registry[i]->name, layer_registry[i]->summary);
	printf("\nLayers:\n");
	for (unsigned i = 0; layer_registry[i]; i++)
		if (!layer_registry[i]->backend)
			printf("  %-10s %s\n", layer_registry[i]->name, layer_registry[i]->summary);
	printf("\nUplinks of switches:\n");
	for (unsigned i = 0; uplink_registry[i]; i++)
		printf("  %-10s %s\n", uplink_registry[i]->name, uplink_registry[i]->summary);
	printf("\nLayers of packets, on ports of switches:\n");
	for (unsigned i = 0; packet_layer_registry[i]; i++)
		printf("  %-10s %s\n", packet_layer_registry[i]->name,
		       packet_layer_registry[i]->summary);
	printf("\npenstock COMMAND --help tells more, penstock help NAME of a device, a\nlayer, a back-end or an uplink;\n"
	       "penstock --version tells which this is.\n");
	return 0;
}

/* --- names, for the completion of shells --------------------------------------------- */

static void print_names(const struct option *table, const char *before, const char *after)
{
	for (; table && table->name; table++)
		printf("%s%s%s\n", before, table->name, after);
}

/* What may follow @command on the command line. */
static int print_following(const struct command *command)
{
	print_names(command->flags, "--", "");
	if (command->serves)
		print_names(config_options, "--", "");
	printf("--help\n");
	if (!strcmp(command->name, "serve")) {
		print_names(disk_options, "", "=");
		print_names(config_device_options, "", "=");
		print_names(serve_frontend()->options, "", "=");
		print_names(layer_find("file")->options, "", "=");
		printf("stack=\n");
		for (unsigned i = 0; layer_registry[i]; i++)
			if (serve_by_name(layer_registry[i]))
				printf("%s:\n", layer_registry[i]->name);
	} else if (!strcmp(command->name, "create")) {
		print_names(create_options, "", "=");
		for (unsigned i = 0; layer_registry[i]; i++) {
			if (!layer_registry[i]->format)
				continue;
			printf("%s\n", layer_registry[i]->name);
			print_names(layer_registry[i]->format->options, "", "=");
		}
	} else if (!strcmp(command->name, "help")) {
		for (unsigned i = 0; command_registry[i]; i++)
			printf("%s\n", command_registry[i]->name);
		for (unsigned i = 0; frontend_registry[i]; i++)
			printf("%s\n", frontend_registry[i]->name);
		for (unsigned i = 0; layer_registry[i]; i++)
			printf("%s\n", layer_registry[i]->name);
		for (unsigned i = 0; uplink_registry[i]; i++)
			printf("%s\n", uplink_registry[i]->name);
		for (unsigned i = 0; packet_layer_registry[i]; i++)
			printf("%s\n", packet_layer_registry[i]->name);
	} else if (!strcmp(command->name, "set-port")) {
		print_names(port_options, "", "=");
	}
	return 0;
}

/* The values that the flag "--NAME" or the option "NAME=" can have, where they are few. */
static int print_values(const char *option)
{
	const struct option *const tables[] = { config_options, disk_options, config_device_options,
						serve_frontend()->options,
						layer_find("file")->options };
	const struct option *row = NULL;
	char name[64];

	option += strspn(option, "-");
	snprintf(name, sizeof name, "%.*s", (int)strcspn(option, "="), option);
	for (unsigned t = 0; !row && t < sizeof tables / sizeof *tables; t++)
		row = options_find(tables[t], name);
	if (!row)
		row = options_find(port_options, name);
	if (!row)
		row = options_find(create_options, name);
	for (unsigned i = 0; !row && layer_registry[i]; i++)
		if (layer_registry[i]->format)
			row = options_find(layer_registry[i]->format->options, name);
	if (row && row->type == OPTION_BOOL)
		printf("true\nfalse\n");
	for (unsigned i = 0; row && row->type == OPTION_CHOICE && row->choices[i]; i++)
		printf("%s\n", row->choices[i]);
	for (unsigned i = 0; !strcmp(name, "stack") && layer_registry[i]; i++)
		if (!layer_registry[i]->backend)
			printf("%s\n", layer_registry[i]->name);
	return 0;
}

static int print_completions(const struct invocation *in)
{
	if (!in->count) {
		for (unsigned i = 0; command_registry[i]; i++)
			printf("%s\n", command_registry[i]->name);
		printf("--help\n--version\n");
		return 0;
	}
	if (in->count == 2)
		return print_values(in->arguments[1]);
	return command_find(in->arguments[0]) ? print_following(command_find(in->arguments[0])) : 2;
}

/* --- penstock help ------------------------------------------------------------------- */

static int unknown_topic(const char *name)
{
	struct suggestion nearest = suggest_for(name);

	for (unsigned i = 0; command_registry[i]; i++)
		suggest_offer(&nearest, command_registry[i]->name);
	for (unsigned i = 0; frontend_registry[i]; i++)
		suggest_offer(&nearest, frontend_registry[i]->name);
	for (unsigned i = 0; layer_registry[i]; i++)
		suggest_offer(&nearest, layer_registry[i]->name);
	for (unsigned i = 0; uplink_registry[i]; i++)
		suggest_offer(&nearest, uplink_registry[i]->name);
	for (unsigned i = 0; packet_layer_registry[i]; i++)
		suggest_offer(&nearest, packet_layer_registry[i]->name);
	fprintf(stderr, "penstock: no command, device, layer, back-end or uplink '%s'%s%s%s\n",
		name, nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		nearest.best ? "'?" : ", see penstock --help");
	return 2;
}

int command_help(const struct invocation *in)
{
	const char *name = in->count ? in->arguments[0] : NULL;

	if (in->names)
		return print_completions(in);
	if (in->count > 1) {
		fprintf(stderr, "penstock help: '%s' is an argument too many\n", in->arguments[1]);
		return 2;
	}
	if (!name)
		return print_overview();
	if (command_find(name)) {
		print_command(command_find(name));
		if (!packet_layer_find(name))
			return 0;
		printf("\n"); /* capture is a layer, too */
	}
	if (frontend_find(name))
		return print_frontend(frontend_find(name));
	if (layer_find(name))
		return print_layer(layer_find(name));
	if (uplink_find(name))
		return print_uplink(uplink_find(name));
	if (packet_layer_find(name))
		return print_packet_layer(packet_layer_find(name));
	return unknown_topic(name);
}
