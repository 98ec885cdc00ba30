/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * routes.c - what the control API answers
 *
 * One table: method, path, what it does. Paths begin with a version; within one, answers
 * may gain members, and none goes or changes its meaning. An error is {"error": TEXT} with
 * the status that fits. What changes something is in changes.c.
 */
#include "control/routes.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/captures.h"
#include "control/changes.h"
#include "control/config.h"
#include "control/config_write.h"
#include "control/daemon.h"
#include "control/metrics.h"
#include "control/qemu.h"
#include "control/report.h"
#include "control/units.h"
#include "layer/disk.h"
#include "util/error.h"
#include "util/suggest.h"

unsigned route_fail(struct call *call, unsigned status, const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	call->json = json_pack("{s:s}", "error", text);
	return status;
}

unsigned route_answer(struct call *call, json_t *json)
{
	call->json = json;
	return json ? 200 : route_fail(call, 500, "out of memory");
}

/* --- what each does ----------------------------------------------------------------- */

static unsigned get_status(struct call *call)
{
	return route_answer(call, report_status(call->daemon));
}

static unsigned get_disks(struct call *call)
{
	return route_answer(call, report_disks(call->daemon));
}

unsigned route_no_disk(struct call *call, const char *name)
{
	struct suggestion nearest = suggest_for(name);

	for (unsigned i = 0; i < call->daemon->disk_count; i++)
		suggest_offer(&nearest, call->daemon->disks[i]->name);
	return route_fail(call, 404, "no disk '%s'%s%s%s", name,
			  nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
			  nearest.best ? "'?" : "");
}

unsigned route_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);

	return disk ? route_answer(call, report_disk(call->daemon, disk))
		    : route_no_disk(call, call->name[0]);
}

static unsigned get_vms(struct call *call)
{
	return route_answer(call, report_vms(call->daemon));
}

static const struct config_vm *find_vm(const struct call *call)
{
	const struct config *config = call->daemon->config;

	for (unsigned i = 0; i < config->vm_count; i++)
		if (!strcmp(config->vms[i].name, call->name[0]))
			return &config->vms[i];
	return NULL;
}

static unsigned no_vm(struct call *call)
{
	const struct config *config = call->daemon->config;
	struct suggestion nearest = suggest_for(call->name[0]);

	for (unsigned i = 0; i < config->vm_count; i++)
		suggest_offer(&nearest, config->vms[i].name);
	return route_fail(call, 404, "no VM '%s'%s%s%s", call->name[0],
			  nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
			  nearest.best ? "'?" : "");
}

static unsigned get_vm(struct call *call)
{
	const struct config_vm *vm = find_vm(call);

	return vm ? route_answer(call, report_vm(call->daemon, vm)) : no_vm(call);
}

static unsigned get_qemu_args(struct call *call)
{
	const struct config_vm *vm = find_vm(call);
	const char *memory = call->parameter(call, "memory");
	const char *version = call->parameter(call, "qemu");
	struct qemu_wish wish = { QEMU_MEMORY, QEMU_VERSION(7, 2) };

	if (!vm)
		return no_vm(call);
	if (memory && (parse_size(memory, &wish.memory) || !wish.memory))
		return route_fail(call, 400,
				  "memory: '%s' is not understood; expected a size such as 4G",
				  memory);
	if (version && !qemu_version_parse(version, &wish.version))
		return route_fail(call, 400,
				  "qemu: '%s' is not understood; expected a version such as 7.2",
				  version);
	return route_answer(call, qemu_args(call->daemon->config, call->daemon, vm, &wish));
}

unsigned route_unit(struct call *call)
{
	struct unit_place place;
	struct error err = { 0 };

	if (units_find(call->daemon, call->name[0], call->name[1], call->name[2], &place, &err))
		return route_fail(call, 404, "%s", err.text);
	return route_answer(call, report_unit(place.slot, place.unit));
}

static unsigned get_layers(struct call *call)
{
	return route_answer(call, report_layers());
}

static unsigned get_frontends(struct call *call)
{
	return route_answer(call, report_frontends());
}

static unsigned get_packet_layers(struct call *call)
{
	return route_answer(call, report_packet_layers());
}

static unsigned get_uplinks(struct call *call)
{
	return route_answer(call, report_uplinks());
}

static unsigned get_metrics(struct call *call)
{
	FILE *out = open_memstream(&call->text, &call->text_length);
	int failed;

	if (!out)
		return route_fail(call, 500, "out of memory");
	metrics_write(out, call->daemon);
	failed = ferror(out);
	if (!(fclose(out) | failed))
		return 200;
	free(call->text);
	call->text = NULL;
	return route_fail(call, 500, "out of memory");
}

static unsigned get_config(struct call *call)
{
	return route_answer(call, config_write(call->daemon));
}

#define STACK      "/v1/disks/DISK/stack"
#define LAYER      "/v1/disks/DISK/layers/PLACE..."
#define LEG        "/v1/disks/DISK/legs/PLACE..."
#define MOVE       "/v1/disks/DISK/move"
#define PORT_STACK "/v1/ports/PORT/stack"
#define PORT_LAYER "/v1/ports/PORT/layers/PLACE..."
#define UNIT       "/v1/vms/VM/devices/DEVICE/units/UNIT"

const struct route routes[] = {
	{ "GET", "/v1/status",
	  "All there is: version, process, loops, disks, VMs, NBD servers, switches and ports.",
	  get_status },
	{ "GET", "/v1/disks", "A list of all disks.", get_disks },
	{ "GET", "/v1/disks/DISK",
	  "One disk: its options as in the configuration file, its size in bytes, its stack with "
	  "all options, and the VMs that have it.",
	  route_disk },
	{ "POST", "/v1/disks/DISK",
	  "Opens another disk of this name. The body is what stands below the name in a "
	  "configuration file, as JSON: {\"stack\": [{\"iso\": {\"path\": \"/srv/cd.iso\"}}]}. "
	  "Answers with the disk, when it is open. The configuration file is not changed.",
	  change_add_disk },
	{ "DELETE", "/v1/disks/DISK",
	  "Closes a disk that no unit has. Answers with {\"name\": DISK}.", change_remove_disk },
	{ "POST", "/v1/disks/DISK/resize",
	  "Grows a disk while it is in use. The body is {\"size\": \"20G\"}, or a number of bytes. "
	  "Answers with the disk.",
	  change_resize_disk },
	{ "GET", STACK,
	  "The layers of a disk as a configuration file would have them, in stack, and in layers a line "
	  "that says which number each has.",
	  change_get_stack },
	{ "PUT", STACK,
	  "Gives a disk these layers while it is in use. The body is {\"stack\": [...]}, as in a "
	  "configuration file. Layers that are there now, with the same options, stay open. Answers "
	  "with the disk, when they are in service: its member changes says how long requests had to "
	  "wait. So do all that follow.",
	  change_set_stack },
	{ "POST", LAYER,
	  "Puts a layer in. PLACE is the number of a layer, from 0, the one that requests meet first, or "
	  "its kind, such as crypt; in a leg of another, mirror/0/crypt. The body is {\"layer\": "
	  "LAYER}; what is at PLACE now is below it then or, if it ends a stack as a mirror does, "
	  "its first leg.",
	  change_insert_layer },
	{ "DELETE", LAYER,
	  "Takes a layer out. Of one that ends a stack, as a mirror does, ?keep=LEG says which leg "
	  "stays. There is no body.",
	  change_remove_layer },
	{ "PATCH", LAYER,
	  "Sets options of a layer. The body is {\"options\": {NAME: VALUE, ...}}, where null takes an "
	  "option away.",
	  change_set_layer },
	{ "POST", "/v1/disks/DISK/order",
	  "Moves a layer to another place. The body is {\"from\": PLACE, \"to\": PLACE}.",
	  change_reorder },
	{ "POST", LEG,
	  "Adds a leg, last, to the layer at PLACE. The body is {\"leg\": LAYER or [LAYER, ...]}.",
	  change_add_leg },
	{ "DELETE", LEG,
	  "Takes a leg out. PLACE ends with its number, such as mirror/1. There is no body.",
	  change_remove_leg },
	{ "POST", "/v1/disks/DISK/undo",
	  "Throws away what was changed in a disk while it is in use, which an overlay can: the guest finds "
	  "the base then, and must be reset. There is no body. Answers with the disk.",
	  change_undo },
	{ "GET", MOVE,
	  "How far the move of a disk to another back-end is, or how the last one ended: state is "
	  "opening, copying, switching, done, failed or canceled.",
	  change_get_move },
	{ "POST", MOVE,
	  "Begins to move a disk to another back-end while it is in use. The body is {\"to\": LAYER or "
	  "[LAYER, ...]}; beside it \"limit\": \"100M\" says how many bytes a second are copied at "
	  "most, and \"at\": PLACE from which layer on they are replaced (the back-end alone). Answers "
	  "as GET does, when the target is open.",
	  change_begin_move },
	{ "PATCH", MOVE,
	  "Sets another limit for the move that is under way. The body is {\"limit\": \"50M\"}, or "
	  "null for none.",
	  change_limit_move },
	{ "DELETE", MOVE,
	  "Cancels the move that is under way; the disk stays where it was. There is no body. Answers "
	  "when all of it is over.",
	  change_cancel_move },
	{ "GET", "/v1/switches",
	  "A list of all switches: their options, ports, and how many addresses they know.",
	  route_switches },
	{ "GET", "/v1/switches/SWITCH", "One switch.", route_switch },
	{ "GET", "/v1/switches/SWITCH/addresses",
	  "The MAC addresses that a switch knows: mac, vlan, port, whether it is static, and for how "
	  "many seconds it was not seen.",
	  route_addresses },
	{ "DELETE", "/v1/switches/SWITCH/addresses",
	  "Forgets what was learned, with ?port=PORT what was learned there. There is no body. Answers "
	  "with {\"forgotten\": N}.",
	  change_forget },
	{ "GET", "/v1/ports", "A list of the ports of all switches: NICs and uplinks.",
	  route_ports },
	{ "GET", "/v1/ports/PORT",
	  "One port: its options, its layers with their options and counters, whether somebody is "
	  "plugged in, and what has passed.",
	  route_port },
	{ "PATCH", "/v1/ports/PORT",
	  "Sets options of a port while packets flow. The body is an object of them: {\"up\": false}; "
	  "null is the default. Answers with the port, when all loops know it.",
	  change_set_port },
	{ "GET", PORT_STACK,
	  "The layers of a port as a configuration file would have them, in stack, and in layers a "
	  "line that says which number each has.",
	  change_get_stack },
	{ "PUT", PORT_STACK,
	  "Gives a port these layers while packets flow. The body is {\"stack\": [...]}, the layer "
	  "next to the device first. Layers that are there now stay, with what they remember. Answers "
	  "with the port, when all loops have them. So do all that follow.",
	  change_set_stack },
	{ "POST", PORT_LAYER,
	  "Puts a layer in. PLACE is the number of a layer, from 0, the one next to the device, or its "
	  "kind; the number behind the last puts it at the end. The body is {\"layer\": LAYER}.",
	  change_insert_layer },
	{ "DELETE", PORT_LAYER, "Takes a layer out. There is no body.", change_remove_layer },
	{ "PATCH", PORT_LAYER,
	  "Sets options of a layer. The body is {\"options\": {NAME: VALUE, ...}}, where null takes an "
	  "option away.",
	  change_set_layer },
	{ "POST", "/v1/ports/PORT/order",
	  "Moves a layer to another place. The body is {\"from\": PLACE, \"to\": PLACE}.",
	  change_reorder },
	{ "GET", "/v1/config",
	  "The configuration as it now is: what would have to be in the configuration file, as JSON.",
	  get_config },
	{ "GET", "/v1/vms", "A list of all VMs.", get_vms },
	{ "GET", "/v1/vms/VM",
	  "One VM and its devices: their options, whether a VMM is connected, whether the device is "
	  "broken and why, the ring that was negotiated, what the device cannot do (caveat), and "
	  "what it has done: accesses by the guest, interrupts, and by kind of request, together "
	  "and for each of its units. Latencies are estimates, in microseconds.",
	  get_vm },
	{ "GET", UNIT,
	  "One unit: its type, disk or cdrom, whether it is present, its disk (none if it is "
	  "empty), and what it has done. Names of devices and units are those in the answer to "
	  "GET /v1/vms/VM; the only unit of a device that has but one is '-'.",
	  route_unit },
	{ "PUT", UNIT,
	  "Puts another disk into a drive, or takes it out. The body is {\"disk\": DISK}, where null "
	  "leaves the drive empty, and \"force\": true takes the medium out although the guest has "
	  "locked the drive. Answers with the unit, when the old disk is no longer used.",
	  change_set_disk },
	{ "POST", UNIT "/attach",
	  "Plugs in a unit while the guest runs. The body is {\"disk\": DISK}; null is an empty "
	  "drive. Answers with the unit.",
	  change_attach },
	{ "POST", UNIT "/detach",
	  "Unplugs a unit while the guest runs. There is no body. Answers with the unit, when its "
	  "disk is no longer used.",
	  change_detach },
	{ "GET", "/v1/vms/VM/qemu-args",
	  "The arguments that attach a VM of QEMU, in args; ?memory=4G says how much memory it has, "
	  "qemu=11.1 which version of QEMU will read them (7.2). "
	  "note, if it is there, says which QEMU that takes.",
	  get_qemu_args },
	{ "GET", "/v1/ports/PORT/capture",
	  "Captures packets of a port for as long as the answer is read: pcapng, as penstock-capture(1) "
	  "prints it. Parameters: filter, direction, snap-length and sums as the layer capture has "
	  "them; at, a place in the list of layers, or outside (next to the device, what is assumed) or "
	  "inside (next to the switch); count, of packets. While it lasts there is another layer at the "
	  "place. A caller that shuts down its side of the connection gets what there is, and the "
	  "end.",
	  route_capture },
	{ "GET", "/v1/layers", "All kinds of layers and back-ends with their options.",
	  get_layers },
	{ "GET", "/v1/packet-layers", "All kinds of layers of packets with their options.",
	  get_packet_layers },
	{ "GET", "/v1/uplinks", "All kinds of uplinks with their options.", get_uplinks },
	{ "GET", "/v1/frontends", "All kinds of devices with their options.", get_frontends },
	{ "GET", "/metrics", "Counters in the text format of Prometheus.", get_metrics },
	{ 0 },
};

/* --- finding the route -------------------------------------------------------------- */

/*
 * True if @path is one of @pattern, in which a part in capitals stands for a name; the names go
 * into call->name.
 */
static bool matches(struct call *call, const char *pattern)
{
	const char *path = call->path;
	unsigned names = 0;

	while (*path == '/' && *pattern == '/') {
		size_t length = strcspn(++path, "/"), wanted = strcspn(++pattern, "/");

		if (isupper(*pattern) && wanted > 3 && pattern[wanted - 1] == '.')
			length = strlen(path);
		if (!isupper(*pattern)) {
			if (length != wanted || strncmp(path, pattern, length))
				return false;
		} else {
			if (!length || length >= sizeof call->name[0])
				return false;
			memcpy(call->name[names], path, length);
			call->name[names++][length] = 0;
		}
		path += length;
		pattern += wanted;
	}
	return !*path && !*pattern;
}

unsigned routes_answer(struct call *call)
{
	const char *method = strcmp(call->method, "HEAD") ? call->method : "GET";
	size_t n = 0;

	for (const struct route *route = routes; route->method; route++) {
		if (!matches(call, route->path))
			continue;
		if (!strcmp(route->method, method))
			return route->answer(call);
		n += (size_t)snprintf(call->allow + n, sizeof call->allow - n, "%s%s%s",
				      n ? ", " : "", route->method,
				      strcmp(route->method, "GET") ? "" : ", HEAD");
	}
	if (n)
		return route_fail(call, 405, "%s is not possible on %s, only %s", call->method,
				  call->path, call->allow);
	return route_fail(call, 404, "there is no %s; see penstock-api(7)", call->path);
}
