/* SPDX-License-Identifier: BSD-3-Clause */
/* client_status_net.c - `penstock status`: switches and their ports, as tables for people */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/client_private.h"

/* "; 12 vlan, 3 source"; nothing if there are none. */
static void print_causes(const json_t *drops, const char *before)
{
	const char *cause;
	json_t *count;

	json_object_foreach((json_t *)drops, cause, count)
	{
		printf("%s%" JSON_INTEGER_FORMAT " %s", before, json_integer_value(count), cause);
		before = ", ";
	}
}

static void print_drops(const json_t *port, const char *direction)
{
	const json_t *drops = json_object_get(json_object_get(port, direction), "drops");

	if (!json_object_size(drops))
		return;
	printf("    dropped %-3s", direction);
	print_causes(drops, "  ");
	printf("\n");
}

/* What a layer counted in one direction; a row only if something came to it, or from it. */
static void print_counters(size_t position, const char *name, const json_t *counters,
			   const char *direction)
{
	const json_t *json = json_object_get(counters, direction);

	if (!client_number(json, "seen") && !client_number(json, "made"))
		return;
	printf("    %zu %-14s %-3s %12" PRIu64 " seen", position, name, direction,
	       client_number(json, "seen"));
	if (client_number(json, "held"))
		printf("  %" PRIu64 " held", client_number(json, "held"));
	if (client_number(json, "made"))
		printf("  %" PRIu64 " made", client_number(json, "made"));
	if (json_object_size(json_object_get(json, "drops"))) {
		printf("  dropped");
		print_causes(json_object_get(json, "drops"), "  ");
	}
	printf("\n");
}

/* What a layer that writes packets has done with them, and why it does not. */
static void print_written(size_t position, const char *name, const json_t *state)
{
	const char *file = client_text(state, "file"), *error = client_text(state, "error");

	if (!json_object_get(state, "missed"))
		return;
	printf("    %zu %-14s     %12" PRIu64 " written", position, name,
	       client_number(state, "packets"));
	if (client_number(state, "missed"))
		printf("  %" PRIu64 " missed", client_number(state, "missed"));
	printf("%s%s%s%s\n", *file ? "  " : "", file, *error ? "  failing: " : "", error);
}

static void print_layers(const json_t *layers)
{
	json_t *layer;
	size_t i;

	json_array_foreach(layers, i, layer)
	{
		void *iter = json_object_iter(layer);
		const char *name = json_object_iter_key(iter);
		const json_t *json = json_object_iter_value(iter);
		const json_t *counters = json_object_get(json, "counters");

		print_counters(i, name, counters, "in");
		print_counters(i, name, counters, "out");
		print_written(i, name, json_object_get(json, "state"));
	}
}

/* "10", "10+trunk", "trunk". */
static void print_vlan(const json_t *port)
{
	char text[32] = "";

	if (client_number(port, "vlan"))
		snprintf(text, sizeof text, "%" PRIu64, client_number(port, "vlan"));
	if (*client_text(port, "trunk"))
		strcat(text, *text ? "+trunk" : "trunk");
	printf(" %-10s", text);
}

static void print_traffic(const json_t *port, const char *direction)
{
	const json_t *json = json_object_get(port, direction);
	char size[32];

	printf(" %12" PRIu64 " %8s", client_number(json, "packets"),
	       client_short_size(client_number(json, "bytes"), size, sizeof size));
}

static void print_port(const json_t *port)
{
	bool up = json_is_true(json_object_get(port, "up"));
	bool plugged = json_is_true(json_object_get(port, "plugged"));
	const char *mac = client_text(port, "mac"), *reason = client_text(port, "reason");

	printf("%-20s %-12s %-8s %-17s", client_text(port, "name"), client_text(port, "kind"),
	       !up       ? "down"
	       : plugged ? "up"
			 : "waiting",
	       *mac ? mac : "-");
	print_vlan(port);
	print_traffic(port, "in");
	print_traffic(port, "out");
	printf("\n");
	if (*reason)
		printf("    note: %s\n", reason);
	print_drops(port, "in");
	print_drops(port, "out");
	print_layers(json_object_get(port, "layers"));
}

void client_print_switches(const json_t *status)
{
	const json_t *ports = json_object_get(status, "ports");
	json_t *vswitch, *port;
	size_t s, p;

	json_array_foreach(json_object_get(status, "switches"), s, vswitch)
	{
		const char *name = client_text(vswitch, "name");

		printf("\nSwitch %s knows %" PRIu64 " of %" PRIu64 " addresses\n", name,
		       client_number(vswitch, "addresses-used"),
		       client_number(vswitch, "addresses"));
		printf("%-20s %-12s %-8s %-17s %-10s %12s %8s %12s %8s\n", "PORT", "KIND", "STATE",
		       "MAC", "VLAN", "IN: PACKETS", "BYTES", "OUT: PACKETS", "BYTES");
		json_array_foreach(ports, p, port)
		{
			if (!strcmp(client_text(port, "switch"), name))
				print_port(port);
		}
	}
}
