/* SPDX-License-Identifier: BSD-3-Clause */
/* client_status.c - `penstock status`: what runs, as tables for people */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/client_private.h"
#include "control/invocation.h"

#define FREE_SHOWN 8 /* names of free units */

static const json_t *disk_called(const json_t *status, const char *name)
{
	const json_t *disks = json_object_get(status, "disks");

	for (size_t i = 0; i < json_array_size(disks); i++)
		if (!strcmp(client_text(json_array_get(disks, i), "name"), name))
			return json_array_get(disks, i);
	return NULL;
}

static void print_requests(const json_t *requests)
{
	const char *op;
	char size[32];
	json_t *kind;

	json_object_foreach((json_t *)requests, op, kind)
	{
		const json_t *latency = json_object_get(kind, "latency-us");

		if (!client_number(kind, "requests"))
			continue;
		printf("    %-12s %12" PRIu64 " requests %8s  %" PRIu64
		       " errors  p50 %.0f us  p99 %.0f us\n",
		       op, client_number(kind, "requests"),
		       client_short_size(client_number(kind, "bytes"), size, sizeof size),
		       client_number(kind, "errors"),
		       json_number_value(json_object_get(latency, "p50")),
		       json_number_value(json_object_get(latency, "p99")));
	}
}

/* @disk: "" if there is none. */
static void print_size(const json_t *status, const char *disk)
{
	char size[32] = "-";

	if (*disk)
		client_short_size(client_number(disk_called(status, disk), "size"), size,
				  sizeof size);
	printf(" %8s", size);
}

/* A row of its own for each unit of a device that may have many. */
static void print_unit(const json_t *status, const json_t *unit)
{
	const char *disk = client_text(unit, "disk");

	printf("  %-35s %-9s %-14s", client_text(unit, "unit"), client_text(unit, "type"),
	       *disk ? disk : "(empty)");
	print_size(status, disk);
	printf("\n");
	print_requests(json_object_get(unit, "requests"));
}

/* Names of places where a unit can be attached; there may be many. */
static void print_free(const json_t *names)
{
	size_t count = json_array_size(names), shown = count > FREE_SHOWN ? FREE_SHOWN : count;

	if (!count)
		return;
	printf("    free:");
	for (size_t i = 0; i < shown; i++)
		printf(" %s", json_string_value(json_array_get(names, i)));
	if (shown < count)
		printf(" and %zu more", count - shown);
	printf("\n");
}

static void print_device(const json_t *status, const char *vm, const json_t *device)
{
	const json_t *units = json_object_get(device, "units"), *only = json_array_get(units, 0);
	bool connected = json_is_true(json_object_get(device, "connected"));
	bool broken = json_is_true(json_object_get(device, "broken"));
	bool one = json_array_size(units) == 1 && !*client_text(only, "unit");
	bool nic = one && !strcmp(client_text(only, "type"), "nic");
	const char *disk = nic ? client_text(only, "port") : one ? client_text(only, "disk") : "";

	printf("%-12s %-24s %-9s %-14s", vm, client_text(device, "name"),
	       broken      ? "broken"
	       : connected ? "connected"
			   : "waiting",
	       *disk ? disk : "-");
	print_size(status, nic ? "" : disk);
	printf(" %-6s %6" PRIu64 " %10" PRIu64 " %10" PRIu64 "  %s\n",
	       *client_text(device, "ring") ? client_text(device, "ring") : "-",
	       client_number(device, "running-queues"), client_number(device, "accesses"),
	       client_number(device, "interrupts"), client_text(device, "socket"));
	if (broken)
		printf("    broken: %s\n", client_text(device, "reason"));
	if (*client_text(device, "caveat"))
		printf("    note: %s\n", client_text(device, "caveat"));
	if (one)
		print_requests(json_object_get(only, "requests"));
	for (size_t i = 0; !one && i < json_array_size(units); i++)
		print_unit(status, json_array_get(units, i));
	print_free(json_object_get(device, "free-units"));
}

/* Those that no table has shown. */
static void print_unused(const json_t *status)
{
	const json_t *disks = json_object_get(status, "disks");
	const char *before = "\nDisks that no VM has:";

	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i);
		char size[32];

		if (json_array_size(json_object_get(disk, "units")))
			continue;
		printf("%s %s (%s)", before, client_text(disk, "name"),
		       client_short_size(client_number(disk, "size"), size, sizeof size));
		before = ",";
	}
	if (*before == ',')
		printf("\n");
}

/* A row for each disk that a server exports. */
static void print_exports(const json_t *status)
{
	const json_t *servers = json_object_get(status, "nbd");

	if (json_array_size(servers))
		printf("\n%-37s %-14s %8s %-10s %11s\n", "NBD", "DISK", "SIZE", "CLIENTS",
		       "CONNECTIONS");
	for (size_t s = 0; s < json_array_size(servers); s++) {
		const json_t *server = json_array_get(servers, s),
			     *disks = json_object_get(server, "disks");
		const char *socket = client_text(server, "socket");

		for (size_t i = 0; i < json_array_size(disks); i++) {
			const json_t *export = json_array_get(disks, i);

			printf("%-37s %-14s", *socket ? socket : client_text(server, "listen"),
			       client_text(export, "disk"));
			print_size(status, client_text(export, "disk"));
			printf(" %-10s %11" PRIu64 "\n",
			       json_is_true(json_object_get(export, "read-only")) ? "read"
										  : "may write",
			       client_number(export, "connections"));
			print_requests(json_object_get(export, "requests"));
		}
	}
}

static void print_moves(const json_t *status)
{
	const json_t *disks = json_object_get(status, "disks");

	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i),
			     *move = json_object_get(disk, "move");
		char a[32], b[32];

		if (*client_text(disk, "busy") && move)
			printf("\nDisk %s is being moved: %s, %s of %s\n",
			       client_text(disk, "name"), client_text(move, "state"),
			       client_short_size(client_number(move, "bytes"), a, sizeof a),
			       client_short_size(client_number(move, "size"), b, sizeof b));
	}
}

static void print_status(const json_t *status)
{
	const json_t *vms = json_object_get(status, "vms");

	printf("penstock %s, process %" PRIu64 ", up %.0f s, %" PRIu64 " loop%s, %s\n\n",
	       client_text(status, "version"), client_number(status, "pid"),
	       json_real_value(json_object_get(status, "uptime-seconds")),
	       client_number(status, "loops"), client_number(status, "loops") == 1 ? "" : "s",
	       client_text(status, "engine"));
	printf("%-12s %-24s %-9s %-14s %8s %-6s %6s %10s %10s  %s\n", "VM", "DEVICE", "STATE",
	       "DISK, NIC", "SIZE", "RING", "QUEUES", "ACCESSES", "INTERRUPTS", "SOCKET");
	for (size_t v = 0; v < json_array_size(vms); v++) {
		const json_t *vm = json_array_get(vms, v),
			     *devices = json_object_get(vm, "devices");

		for (size_t i = 0; i < json_array_size(devices); i++)
			print_device(status, client_text(vm, "name"), json_array_get(devices, i));
	}
	client_print_switches(status);
	print_exports(status);
	print_unused(status);
	print_moves(status);
}

int client_status(const struct invocation *in)
{
	json_t *status = client_ask(in, "GET", "/v1/status", "");

	if (!status)
		return 1;
	if (in->json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_status(status);
	}
	json_decref(status);
	return 0;
}
