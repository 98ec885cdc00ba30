/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * manual.c - the program `penstock-manual`, which writes the man pages while building
 *
 * What the pages say is in the tables that the program itself works by: commands with
 * their flags, options of disks, devices, layers and back-ends, paths of the API, metrics.
 * So a page cannot be out of date. They are in mdoc(7).
 *
 * usage: penstock-manual DIRECTORY EXAMPLE PAGE...
 * A page is named by its file: penstock-serve.1, penstock.yaml.5, penstock-file.7.
 * EXAMPLE is a configuration, for penstock.yaml(5).
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/commands.h"
#include "control/config.h"
#include "control/create.h"
#include "control/metrics.h"
#include "control/routes.h"
#include "control/serve.h"
#include "transport/nbd.h"
#include "transport/transport.h"

static FILE *out;

/* --- mdoc --------------------------------------------------------------------------- */

/* Text without macros: one line of it. */
static void escaped(const char *text, size_t length)
{
	if (length && (*text == '.' || *text == '\''))
		fputs("\\&", out);
	for (; length--; text++) {
		if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '-')
			fputs("\\-", out);
		else
			fputc(*text, out);
	}
}

/* Paragraphs, an empty line between them; each sentence on a line, as mdoc wants it. */
static void prose(const char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");
		const char *dot = strstr(text, ". ");

		if (dot && (size_t)(dot - text) < length && isupper(dot[2]))
			length = (size_t)(dot - text) + 1;
		escaped(text, length);
		text += length;
		fputc('\n', out);
		if (!strncmp(text, "\n\n", 2))
			fputs(".Pp\n", out);
		text += strspn(text, "\n ");
	}
}

static void literal(const char *text)
{
	fputs(".Bd -literal -offset indent\n", out);
	while (*text) {
		size_t length = strcspn(text, "\n");

		escaped(text, length);
		fputc('\n', out);
		text += length + (text[length] == '\n');
	}
	fputs(".Ed\n", out);
}

static void header(const char *name, char section, const char *summary)
{
	fputs(".\\\" Made by penstock-manual; SPDX-License-Identifier: BSD-3-Clause\n", out);
	fprintf(out, ".Dd November 23, 2026\n.Dt ");
	for (const char *c = name; *c; c++)
		fputc(toupper(*c), out);
	fprintf(out, " %c\n.Os Penstock\n.Sh NAME\n.Nm %s\n.Nd ", section, name);
	escaped(summary, strlen(summary));
	fputc('\n', out);
}

static void section(const char *title)
{
	fprintf(out, ".Sh %s\n", title);
}

/* What a value may be, what it is by default, and what it is for. */
static void option_text(const struct option *row, bool flag)
{
	char expected[300];

	prose(row->help);
	if (flag && row->type == OPTION_BOOL)
		return;
	options_describe(row, expected, sizeof expected);
	*expected = (char)toupper(*expected);
	escaped(expected, strlen(expected));
	if (row->required)
		fputs("; required.\n", out);
	else if (row->fallback)
		fprintf(out, "; default\n.Li %s .\n", row->fallback);
	else
		fputs(".\n", out);
}

static void option_list(const struct option *table)
{
	if (!table || !table->name)
		return;
	fputs(".Bl -tag -width Ds\n", out);
	for (; table->name; table++) {
		fprintf(out, ".It Cm %s\n", table->name);
		option_text(table, false);
	}
	fputs(".El\n", out);
}

static void flag_items(const struct option *table, bool program)
{
	for (; table && table->name; table++) {
		fputs(".It ", out);
		if (table->letter)
			fprintf(out, "Fl %c , ", table->letter);
		fprintf(out, "Fl Fl %s%s\n", table->name,
			program || table->type != OPTION_BOOL ? " Ar value" : "");
		option_text(table, !program);
	}
}

/* --- penstock(1) and its commands --------------------------------------------------- */

static void exit_status(void)
{
	section("EXIT STATUS");
	fputs("0 if all is well, 1 if something failed while running,\n"
	      "2 if the command line or the configuration is wrong.\n",
	      out);
}

static void see_also(const char *pages)
{
	section("SEE ALSO");
	fputs(pages, out);
}

static void kind_item(const char *name, const char *summary)
{
	fprintf(out, ".It Cm %s\n", name);
	escaped(summary, strlen(summary));
	fprintf(out, "; see\n.Xr penstock-%s 7 .\n", name);
}

/* All uplinks, and all layers of packets. */
static void packet_kinds(void)
{
	fputs(".Bl -tag -width Ds\n", out);
	for (unsigned i = 0; uplink_registry[i]; i++)
		kind_item(uplink_registry[i]->name, uplink_registry[i]->summary);
	for (unsigned i = 0; packet_layer_registry[i]; i++)
		kind_item(packet_layer_registry[i]->name, packet_layer_registry[i]->summary);
	fputs(".El\n", out);
}

static void write_overview(void)
{
	header("penstock", '1', "gives virtual machines their disks and networks");
	section("SYNOPSIS");
	fputs(".Nm penstock\n.Ar command\n.Op Ar argument ...\n.Nm penstock\n.Fl Fl help\n"
	      ".Nm penstock\n.Fl Fl version\n",
	      out);
	section("DESCRIPTION");
	prose("Penstock is the I/O virtualization layer of a host. It serves virtual disks and NICs to "
	      "virtual machines over vhost-user: to QEMU, Cloud Hypervisor, crosvm and others; and disks to "
	      "tools over NBD. A disk is a stack of layers over a back-end, which holds the bytes; its size, block "
	      "size and write cache are its own. A NIC is a port of a switch, with layers of its own; "
	      "uplinks join the switch to the host's network and to others.\n\n"
	      "It needs no root, no hugepages and no kernel module. An idle disk costs no CPU. "
	      "When penstock ends, however it ends, and starts again, the guests go on where they "
	      "were.\n\n"
	      "The commands are:");
	fputs(".Bl -tag -width Ds\n", out);
	for (unsigned i = 0; command_registry[i]; i++) {
		const struct command *command = command_registry[i];

		fprintf(out, ".It Cm %s\n", command->name);
		escaped(command->summary, strlen(command->summary));
		fprintf(out, "; see\n.Xr penstock-%s 1 .\n", command->name);
	}
	fputs(".El\n.Pp\nBack-ends and layers are:\n.Bl -tag -width Ds\n", out);
	for (unsigned i = 0; layer_registry[i]; i++) {
		fprintf(out, ".It Cm %s\n", layer_registry[i]->name);
		escaped(layer_registry[i]->summary, strlen(layer_registry[i]->summary));
		fprintf(out, "; see\n.Xr penstock-%s 7 .\n", layer_registry[i]->name);
	}
	fputs(".El\n.Pp\nUplinks of switches, and layers of packets, see\n.Xr penstock-ports 7 ,\nare:\n",
	      out);
	packet_kinds();
	section("ENVIRONMENT");
	fputs(".Bl -tag -width Ds\n"
	      ".It Ev PENSTOCK_API\n"
	      "Path of the control API's socket, for the commands that ask a running penstock.\n"
	      ".It Ev NOTIFY_SOCKET\n"
	      "Where systemd wants to be told that the service is ready.\n"
	      ".It Ev JOURNAL_STREAM\n"
	      "If it is set, each line of the log begins with its priority, as the journal\n"
	      "understands it.\n"
	      ".El\n",
	      out);
	exit_status();
	section("EXAMPLES");
	literal("penstock serve disk.img --socket disk.sock create=true size=20G\n"
		"penstock run /etc/penstock/penstock.yaml\n"
		"penstock status\n");
	see_also(".Xr penstock.yaml 5 ,\n.Xr penstock-api 7\n");
}

/* What `penstock create` makes. */
static void write_formats(void)
{
	fputs(".Ss Options of all layers\n", out);
	option_list(create_options);
	for (unsigned i = 0; layer_registry[i]; i++) {
		const struct layer_format *format = layer_registry[i]->format;

		if (!format)
			continue;
		fprintf(out, ".Ss %s\n.Nm penstock create %s\nmakes\n", layer_registry[i]->name,
			layer_registry[i]->name);
		escaped(format->summary, strlen(format->summary));
		fprintf(out, "; see\n.Xr penstock-%s 7 .\n", layer_registry[i]->name);
		if (format->description)
			prose(format->description);
		option_list(format->options);
	}
}

static void write_command(const struct command *command)
{
	char name[64];

	snprintf(name, sizeof name, "penstock-%s", command->name);
	header(name, '1', command->summary);
	section("SYNOPSIS");
	fprintf(out, ".Nm penstock %s\n", command->name);
	if (command->flags || command->serves)
		fputs(".Op Ar flags\n", out);
	if (*command->arguments) {
		fputs(".Ar ", out);
		escaped(command->arguments, strlen(command->arguments));
		fputc('\n', out);
	}
	section("DESCRIPTION");
	prose(command->description);
	if (command->flags || command->serves) {
		fputs(".Pp\nThe flags are:\n.Bl -tag -width Ds\n", out);
		flag_items(command->flags, false);
		if (command->serves)
			flag_items(config_options, true);
		fputs(".El\n", out);
	}
	if (!strcmp(command->name, "serve")) {
		fputs(".Ss Options of the disk\n", out);
		option_list(disk_options);
		fputs(".Ss Options of the device\n", out);
		option_list(config_device_options);
		option_list(serve_frontend()->options);
		fputs(".Ss Options of the back-end\nSee\n.Xr penstock-file 7 ,\n"
		      ".Xr penstock-memory 7 ,\n.Xr penstock-null 7 .\n",
		      out);
	}
	if (!strcmp(command->name, "create"))
		write_formats();
	exit_status();
	section("EXAMPLES");
	literal(command->example);
	see_also(".Xr penstock 1 ,\n.Xr penstock.yaml 5 ,\n.Xr penstock-api 7\n");
}

/* --- penstock.yaml(5) --------------------------------------------------------------- */

static void write_configuration(const char *example)
{
	header("penstock.yaml", '5', "configuration of penstock");
	section("DESCRIPTION");
	prose("The file is YAML: one mapping. Each mistake in it is reported with its line, the "
	      "option's name and what was expected, by penstock run and penstock check; nothing is "
	      "served then. Anchors, aliases, tags and several documents in a file have no meaning "
	      "here, and a name may be only once in a mapping. Relative paths are relative to the "
	      "working directory of penstock.\n\n"
	      "Sizes are bytes, or have one of the suffixes K, M, G, T and P, which are powers of "
	      "1024. Names of disks and VMs have at most 64 letters, digits, '.', '_' and '-'.");
	fputs(".Ss The program as a whole\nAt the top level:\n", out);
	option_list(config_options);
	fputs(".Ss Disks\n", out);
	prose("Below disks, each name is that of a disk, with these options:");
	fputs(".Bl -tag -width Ds\n.It Cm stack\n", out);
	prose("The layers of the disk as a list, from the one that the guest's requests meet first "
	      "down to the back-end, which is last and required. Each is a name, or a name with "
	      "its options in a mapping.");
	fputs(".El\n", out);
	option_list(disk_options);
	fputs(".Ss Layers and back-ends\n.Bl -tag -width Ds\n", out);
	for (unsigned i = 0; layer_registry[i]; i++) {
		fprintf(out, ".It Cm %s\n", layer_registry[i]->name);
		escaped(layer_registry[i]->summary, strlen(layer_registry[i]->summary));
		fprintf(out, "; see\n.Xr penstock-%s 7 .\n", layer_registry[i]->name);
	}
	fputs(".El\n.Ss Networks\n", out);
	prose("Below switches, each name is that of a switch, with its options or {}. Below nics, each name is "
	      "that of a virtual network card: the switch that it is plugged into, its mac, other options of a "
	      "port, and layers, a list as that of a disk's stack, the layer next to the card first. A device of "
	      "a VM names it. Below uplinks, each name is that of what else is plugged into a switch: its "
	      "switch, one kind with that kind's options in a mapping, options of a port, and layers.\n\n"
	      "NICs, uplinks and disks have names of their own each, since commands take any of them. "
	      "With switches there need be no disks, and with uplinks no vms. All options, kinds of uplinks and "
	      "layers of packets are in");
	fputs(".Xr penstock-ports 7 .\n", out);
	fputs(".Ss VMs\n", out);
	prose("Below vms, each name is that of a VM, with a list of its devices. Each device is a "
	      "mapping: its kind with the name of its disk, as in virtio-blk: data, and its "
	      "options. Kinds that have several units take a list of them, each the name of a disk "
	      "or a mapping of options of the unit with disk among them. A disk can be in one unit "
	      "only; one that is read-only or shared, in one of each VM. A kind that is a NIC, such as "
	      "virtio-net, takes the name of a NIC, which one device has. In messages and commands "
	      "devices are called by their kind and a number: virtio-blk0 is the first of a VM. All "
	      "devices have:");
	option_list(config_device_options);
	fputs(".Pp\nThe kinds of devices, and where to read of their options:\n"
	      ".Bl -tag -width Ds\n",
	      out);
	for (unsigned i = 0; frontend_registry[i]; i++) {
		fprintf(out, ".It Cm %s\n", frontend_registry[i]->name);
		escaped(frontend_registry[i]->summary, strlen(frontend_registry[i]->summary));
		fprintf(out, "; see\n.Xr penstock-%s 7 .\n", frontend_registry[i]->name);
	}
	fputs(".El\n", out);
	fputs(".Ss NBD servers\n", out);
	prose("Below nbd is a list of servers of the Network Block Device protocol, each a mapping of "
	      "these options. They export disks to tools and other hosts, while VMs use them or on "
	      "their own; with nbd there need be no vms. Each disk is an export with its name; the "
	      "empty name means the only one. Several connections to a disk are coherent: a flush on "
	      "one covers them all. A client learns the size when it connects; those that come after "
	      "the disk has grown see its new size. What is allocated cannot be asked for.\n\n"
	      "A disk that a VM has is exported for reading only, unless it is shared. What a client "
	      "reads while the guest writes is the state of some moment for each block, and not of "
	      "one moment for all. While a client may write to a disk, it cannot be put into a VM's "
	      "device; while a client has it, it cannot be removed.");
	fputs(".Bl -tag -width Ds\n.It Cm disks\n", out);
	prose("A list of names of disks that are exported. Default: all, those that are added while "
	      "penstock runs among them.");
	fputs(".El\n", out);
	option_list(nbd_options);
	section("FILES");
	fputs(".Bl -tag -width Ds\n.It Pa /etc/penstock/penstock.yaml\n"
	      "What the systemd service serves.\n.El\n",
	      out);
	section("EXAMPLES");
	literal(example);
	fputs(".Pp\nWithout a file,\n.Nm penstock run\nserves this:\n", out);
	literal(config_embedded);
	see_also(".Xr penstock 1 ,\n.Xr penstock-check 1 ,\n.Xr penstock-run 1\n");
}

/* --- penstock-ports(7) --------------------------------------------------------------- */

static const char ports_example[] = "switches:\n"
				    "  lan: {}\n"
				    "nics:\n"
				    "  web0: {switch: lan, mac: \"52:54:00:00:00:01\"}\n"
				    "  db0: {switch: lan, vlan: 20, layers: [count]}\n"
				    "  router0: {switch: lan, vlan: 1, trunk: \"20-29\"}\n"
				    "vms:\n"
				    "  web:\n"
				    "    - {virtio-net: web0, socket: ./web-net.sock}\n"
				    "  db:\n"
				    "    - {virtio-net: db0, socket: ./db-net.sock}\n"
				    "  router:\n"
				    "    - {virtio-net: router0, socket: ./router-net.sock}\n";

static void write_ports(void)
{
	header("penstock-ports", '7', "switches of penstock, and what is plugged into them");
	section("DESCRIPTION");
	prose("A switch joins NICs of virtual machines and uplinks, its ports. It learns at which port a "
	      "MAC address is, and sends frames there; those whose destination it does not know, and "
	      "broadcasts, go to all ports of their VLAN. Frames between VMs are copied once, from one "
	      "guest's memory into the other's; large ones stay large, and sums that were not computed "
	      "are not needed. They are cut and summed where they leave for something that wants that.\n\n"
	      "A port has layers, which see the packets that come in from what is plugged in, the first "
	      "layer first, and those that go out to it, the last layer first. A layer may drop, hold, "
	      "change and make packets. Layers are put in, changed and taken out while packets flow: "
	      "penstock-insert-layer(1).\n\n"
	      "penstock status shows each port with what came in and went out, and what was dropped and "
	      "why. The causes are: ");
	for (unsigned i = 0; i < PORT_DROPS; i++)
		fprintf(out, "%s%s", port_drop_names[i], i + 1 < PORT_DROPS ? ",\n" : ".\n");
	fputs(".Ss Switches\nBelow\n.Cm switches ,\neach name has:\n", out);
	option_list(vswitch_options);
	fputs(".Ss Ports\nNICs and uplinks have:\n", out);
	option_list(port_options);
	fputs(".Bl -tag -width Ds\n.It Cm layers\n", out);
	prose("A list of layers, each a name, or a name with its options in a mapping. The first is next to "
	      "what is plugged in, the last next to the switch.");
	fputs(".El\n.Ss NICs\nBelow\n.Cm nics ,\neach name has the options of a port and:\n", out);
	option_list(nic_options);
	fputs(".Ss Uplinks\nBelow\n.Cm uplinks ,\neach name has the options of a port, and one key that is "
	      "its kind.\nKinds of uplinks, and of layers of packets, are:\n",
	      out);
	packet_kinds();
	section("EXAMPLES");
	literal(ports_example);
	see_also(".Xr penstock-addresses 1 ,\n.Xr penstock-set-port 1 ,\n.Xr penstock-status 1 ,\n"
		 ".Xr penstock.yaml 5\n");
}

/* --- what the control API answers with ------------------------------------------------ */

struct member {
	const char *name, *text;
};

static const struct member disk_members[] = {
	{ "options of the disk", "As in penstock.yaml(5): size (bytes), block-size (bytes), cache, "
				 "read-only, shared." },
	{ "name", "Its name." },
	{ "stack", "Its layers and its back-end with all their options, as in penstock.yaml(5)." },
	{ "vms", "Names of the VMs that have it." },
	{ "units", "Where they have it: a list of {vm, device, unit}." },
	{ 0 },
};

static const struct member device_members[] = {
	{ "options of the device", "As in penstock.yaml(5), socket among them." },
	{ "KIND", "The name of its disk or NIC, of kinds that have but one: virtio-blk." },
	{ "kind", "virtio-blk, ..." },
	{ "name", "Its name within the VM: the kind and a number, as virtio-blk0." },
	{ "transport", "vhost-user or vfio-user." },
	{ "connected", "True while a VMM is attached." },
	{ "broken", "True after the device was stopped because of what its guest or VMM did; "
		    "reason says why." },
	{ "caveat",
	  "What its VMM cannot do with it, such as migrate; absent if there is nothing to "
	  "say." },
	{ "ring", "split or packed, once negotiated; else an empty text." },
	{ "running-queues", "Queues in service now." },
	{ "accesses", "Notifications by the guest, and its accesses to registers." },
	{ "interrupts", "Interrupts sent to the guest." },
	{ "in-flight, requests", "As of a unit, of all units together." },
	{ "units", "A list of the units that are present." },
	{ "free-units", "Names of units that can be attached." },
	{ 0 },
};

static const struct member unit_members[] = {
	{ "unit", "Its name within the device: secondary-master, 2:0; empty if there is but one." },
	{ "type", "disk, cdrom or nic." },
	{ "present", "False: nothing is attached there." },
	{ "disk", "Name of its disk; absent if the drive is empty." },
	{ "port", "Of a NIC: its port's name." },
	{ "in-flight", "Requests taken and not yet completed." },
	{ "requests",
	  "For each of read, write, flush, discard and write-zeroes: requests, bytes, "
	  "errors, and latency-us with mean, p50 and p99. They count on when another disk "
	  "is inserted." },
	{ "vm, device", "In answers to requests about the unit: whose it is." },
	{ 0 },
};

static const struct member switch_members[] = {
	{ "options of the switch", "As in penstock.yaml(5): ageing, addresses." },
	{ "name", "Its name." },
	{ "addresses-used", "How many MAC addresses it knows." },
	{ "ports", "Names of its ports." },
	{ 0 },
};

static const struct member port_members[] = {
	{ "options of the port", "As in penstock.yaml(5): switch, vlan, up, ..." },
	{ "name", "Its name." },
	{ "kind", "What is plugged in: virtio-net, or a kind of uplink." },
	{ "plugged", "True while somebody is there: a guest's driver, a peer, an interface." },
	{ "reason", "Why not, if there is something to say; else empty." },
	{ "mac", "Of a NIC: its address." },
	{ "vm, device", "Of a NIC: whose it is." },
	{ "addresses-used", "How many MAC addresses are known to be there." },
	{ "in, out",
	  "What came in from what is plugged in, and went out to it: packets, bytes, and drops by "
	  "cause." },
	{ "flooded", "Packets from here that went to several ports." },
	{ "crossed", "Packets from here that another loop delivered." },
	{ "refused",
	  "How often an address was not learned here, because of the option addresses." },
	{ "cut, summed",
	  "Packets to here that were made by cutting large ones; checksums computed." },
	{ "layers",
	  "A list of {KIND: {options, counters, state}}. counters has in and out, each with seen, drops "
	  "by cause, held and made; state is what the layer says of itself." },
	{ "state", "What that which is plugged in says of itself." },
	{ 0 },
};

static const struct member export_members[] = {
	{ "options of the server", "As in penstock.yaml(5): socket or listen, read-only, ..." },
	{ "disks",
	  "What it exports: a list of {disk, read-only, connections, in-flight, requests}. read-only: "
	  "whether clients that come now can only read. requests: as of a unit, of all clients that "
	  "there were." },
	{ 0 },
};

static void write_members(const char *title, const struct member *member)
{
	fprintf(out, ".Ss %s\n.Bl -tag -width Ds\n", title);
	for (; member->name; member++) {
		fprintf(out, ".It Li %s\n", member->name);
		prose(member->text);
	}
	fputs(".El\n", out);
}

/* --- penstock-api(7) ---------------------------------------------------------------- */

static void write_api(void)
{
	header("penstock-api", '7', "the control API of penstock");
	section("DESCRIPTION");
	prose("HTTP and JSON on a UNIX socket, whose path is given with --api or in the "
	      "configuration. Whoever may open the socket may do anything with it, so its mode is "
	      "0600. Paths begin with the version of the API: within a version answers may gain "
	      "members, and none goes or changes its meaning. Options have the names and the "
	      "values of penstock.yaml(5).");
	fputs(".Bl -tag -width Ds\n", out);
	for (const struct route *route = routes; route->method; route++) {
		fprintf(out, ".It Li %s %s\n", route->method, route->path);
		prose(route->summary);
	}
	fputs(".El\n", out);
	write_members("A disk", disk_members);
	write_members("A device", device_members);
	write_members("A unit of a device", unit_members);
	write_members("An NBD server", export_members);
	write_members("A switch", switch_members);
	write_members("A port", port_members);
	fputs(".Ss Errors\n", out);
	prose("An answer other than 200 is {\"error\": TEXT}. 400: the request is wrong. 404: "
	      "there is no such path, disk, VM, device or unit. 405: the method is not possible "
	      "there; Allow says which are. 409: not possible as things are: a disk is in use, a "
	      "drive is locked by its guest, a device cannot do that. 413: the body is larger than "
	      "64 KiB. 503: penstock ends. 504: what was asked for is under way still, and goes on; "
	      "the text says what it waits for. 507: the host has no room. 500: something else "
	      "failed.");
	fputs(".Ss Metrics\n.Bl -tag -width Ds\n", out);
	for (const struct metric *metric = metrics; metric->name; metric++) {
		fprintf(out, ".It Li %s\n%s: ", metric->name, metric->type);
		prose(metric->help);
	}
	fputs(".El\n.Pp\n", out);
	prose("Metrics of queues have the labels vm, device and queue; those of requests also unit, "
	      "disk and op, one of read, write, flush, discard and write-zeroes, and appear with "
	      "the first request of that kind; they count on when another disk is inserted. The "
	      "buckets of the latency are powers of two of a "
	      "microsecond. Metrics of NBD have the labels server, its socket or address, and disk; "
	      "those of requests also op.");
	fputs(".Pp\n", out);
	prose("Metrics of ports have the labels port and direction, in or out; those of their layers also "
	      "layer, its kind, and position. Drops have the label cause, and appear with the first packet "
	      "dropped for it.");
	section("EXAMPLES");
	literal("curl --unix-socket /run/penstock.sock http://penstock/v1/status\n"
		"curl --unix-socket /run/penstock.sock http://penstock/v1/disks/db/resize \\\n"
		"    --data '{\"size\": \"40G\"}'\n"
		"curl --unix-socket /run/penstock.sock -X PUT --data '{\"disk\": \"tools\"}' \\\n"
		"    http://penstock/v1/vms/web/devices/ide0/units/secondary-master\n");
	see_also(".Xr penstock 1 ,\n.Xr penstock-status 1 ,\n.Xr penstock.yaml 5\n");
}

/* --- layers and back-ends ----------------------------------------------------------- */

static void write_layer(const struct layer_ops *ops)
{
	char name[64];

	snprintf(name, sizeof name, "penstock-%s", ops->name);
	header(name, '7', ops->summary);
	section("DESCRIPTION");
	fprintf(out, ".Nm %s\nis a %s of\n.Xr penstock 1 .\n", ops->name,
		ops->backend ? "back-end" : "layer");
	prose(ops->description);
	if (ops->options && ops->options->name) {
		fputs(".Pp\nThe options are:\n", out);
		option_list(ops->options);
	} else {
		fputs(".Pp\nIt has no options.\n", out);
	}
	section("EXAMPLES");
	literal(ops->example);
	see_also(".Xr penstock 1 ,\n.Xr penstock.yaml 5\n");
}

/* --- uplinks and layers of packets ------------------------------------------------------ */

static void write_packet_kind(const char *kind, const char *what, const char *summary,
			      const char *description, const struct option *options,
			      const char *example)
{
	char name[64];

	snprintf(name, sizeof name, "penstock-%s", kind);
	header(name, '7', summary);
	section("DESCRIPTION");
	fprintf(out, ".Nm %s\nis %s of\n.Xr penstock 1 .\n", kind, what);
	prose(description);
	if (options && options->name) {
		fputs(".Pp\nThe options are:\n", out);
		option_list(options);
	} else {
		fputs(".Pp\nIt has no options of its own.\n", out);
	}
	section("EXAMPLES");
	literal(example);
	see_also(".Xr penstock 1 ,\n.Xr penstock.yaml 5 ,\n.Xr penstock-ports 7\n");
}

static void write_uplink(const struct uplink_ops *ops)
{
	write_packet_kind(ops->name, "a kind of uplink of a switch", ops->summary, ops->description,
			  ops->options, ops->example);
}

static void write_packet_layer(const struct packet_layer_ops *ops)
{
	write_packet_kind(ops->name, "a layer of packets, on a port of a switch", ops->summary,
			  ops->description, ops->options, ops->example);
}

/* --- devices ------------------------------------------------------------------------ */

static void write_frontend(const struct frontend *frontend)
{
	char name[64];

	snprintf(name, sizeof name, "penstock-%s", frontend->name);
	header(name, '7', frontend->summary);
	section("DESCRIPTION");
	fprintf(out, ".Nm %s\nis a kind of device of\n.Xr penstock 1 ,\nserved over %s.\n",
		frontend->name, frontend->transport->name);
	prose(frontend->description);
	if (frontend->transport->caveat) {
		fputs(".Pp\nOf a device on this transport: ", out);
		escaped(frontend->transport->caveat, strlen(frontend->transport->caveat));
		fputs(".\n", out);
	}
	fputs(".Pp\nThe options are:\n", out);
	option_list(config_device_options);
	option_list(frontend->options);
	if (frontend->unit_options) {
		fputs(".Pp\nEach unit has, beside the name of its\n.Cm disk :\n", out);
		option_list(frontend->unit_options);
	}
	section("EXAMPLES");
	literal(frontend->example);
	see_also(".Xr penstock 1 ,\n.Xr penstock.yaml 5\n");
}

/* --- the program -------------------------------------------------------------------- */

/* False if there is no such page. */
static bool write_page(const char *page, const char *example)
{
	char name[64];
	const char *dot = strrchr(page, '.');

	if (!strcmp(page, "penstock.1"))
		write_overview();
	else if (!strcmp(page, "penstock.yaml.5"))
		write_configuration(example);
	else if (!strcmp(page, "penstock-api.7"))
		write_api();
	else if (!strcmp(page, "penstock-ports.7"))
		write_ports();
	else if (!dot || strncmp(page, "penstock-", strlen("penstock-")))
		return false;
	else {
		snprintf(name, sizeof name, "%.*s", (int)(dot - page - (int)strlen("penstock-")),
			 page + strlen("penstock-"));
		if (!strcmp(dot, ".1") && command_find(name))
			write_command(command_find(name));
		else if (!strcmp(dot, ".7") && frontend_find(name))
			write_frontend(frontend_find(name));
		else if (!strcmp(dot, ".7") && layer_find(name))
			write_layer(layer_find(name));
		else if (!strcmp(dot, ".7") && uplink_find(name))
			write_uplink(uplink_find(name));
		else if (!strcmp(dot, ".7") && packet_layer_find(name))
			write_packet_layer(packet_layer_find(name));
		else
			return false;
	}
	return true;
}

static void fail(const char *what)
{
	fprintf(stderr, "penstock-manual: %s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	char example[8192], path[4096];
	FILE *in = argc > 2 ? fopen(argv[2], "r") : NULL;

	if (!in)
		fail(argc > 2 ? argv[2] : "arguments");
	example[fread(example, 1, sizeof example - 1, in)] = 0;
	fclose(in);
	for (int i = 3; i < argc; i++) {
		snprintf(path, sizeof path, "%s/%s", argv[1], argv[i]);
		out = fopen(path, "w");
		if (!out)
			fail(path);
		if (!write_page(argv[i], example)) {
			errno = ENOENT;
			fail(argv[i]);
		}
		if (ferror(out) | fclose(out))
			fail(path);
	}
	return 0;
}
