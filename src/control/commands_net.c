/* SPDX-License-Identifier: BSD-3-Clause */
/* commands_net.c - commands about the switches and ports of a running penstock */
#include "control/commands_private.h"

const struct command set_port_command = {
	.name = "set-port",
	.arguments = "PORT option=value ...",
	.least = 2,
	.most = 64,
	.summary = "set options of a port of a switch while packets flow",
	.description =
		"Gives the NIC or uplink PORT other options of a port, see penstock-ports(7): another "
		"VLAN, a mirror, up=false, which takes its link down. Nothing behind 'option=' means the "
		"default. It ends when no packet is handled by the old ones any more. "
		"Settings of a kind of uplink, and a NIC's address, do not change while it is plugged in.",
	.example = "penstock set-port web0 up=false\n"
		   "penstock set-port web0 vlan=20 isolated=true\n"
		   "penstock set-port probe mirror=web0,db0\n",
	.flags = command_api_flags,
};

const struct command addresses_command = {
	.name = "addresses",
	.arguments = "SWITCH",
	.least = 1,
	.most = 1,
	.summary = "show the MAC addresses that a switch knows",
	.description =
		"Prints the addresses that SWITCH has learned, or was told, with their VLAN and port, and "
		"how long ago each was seen last.",
	.example = "penstock addresses lan\n",
	.flags = command_status_flags,
};

const struct command forget_command = {
	.name = "forget",
	.arguments = "SWITCH [PORT]",
	.least = 1,
	.most = 2,
	.summary = "have a switch forget addresses that it has learned",
	.description =
		"Frames for what was forgotten go to all ports of their VLAN, until it is learned again. "
		"With PORT: only what was learned there. Static addresses stay.",
	.example = "penstock forget lan\n"
		   "penstock forget lan inet\n",
	.flags = command_api_flags,
};

static const struct option capture_flags[] = {
	API_FLAG,
	{ .name = "write",
	  .letter = 'w',
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, write),
	  .help = "Write into this file, in place of what is there, and not to standard output; - is "
		  "standard output." },
	{ .name = "filter",
	  .letter = 'f',
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, filter),
	  .help = "Which packets are captured, in the language of tcpdump: see pcap-filter(7)." },
	{ .name = "direction",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, direction),
	  .help = "in: what the guest, or what else is plugged into the port, sends; out: what it is "
		  "sent; both, what is assumed." },
	{ .name = "at",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, at),
	  .help = "Where packets are captured: outside, next to the device, what is assumed; inside, "
		  "next to the switch; or in front of a layer, seen from the device: its number, or its "
		  "kind, such as antispoof." },
	{ .name = "snap-length",
	  .letter = 's',
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct invocation, snap_length),
	  .min = 64,
	  .max = 256 << 10,
	  .help = "Most bytes of a packet that are captured. All, if it is not given." },
	{ .name = "count",
	  .letter = 'c',
	  .type = OPTION_UINT,
	  .offset = offsetof(struct invocation, packets),
	  .min = 1,
	  .help = "End after so many packets." },
	{ 0 },
};

const struct command capture_command = {
	.name = "capture",
	.arguments = "PORT [--filter EXPRESSION] [--at PLACE] [--write FILE]",
	.least = 1,
	.most = 1,
	.summary = "show the packets of a port to Wireshark and the like",
	.description =
		"Writes the packets that come by at PORT, a NIC or an uplink, to standard output, in the "
		"format pcapng, until it is ended by a signal, or its reader goes. For as long as it runs "
		"there is a layer capture (see penstock-capture(7)) among those of the port; that goes "
		"with it, however it ends.\n\n"
		"If the reader is slower than the packets come some are missed; they are counted in what "
		"is written, and the packets themselves go their way at their pace.\n\n"
		"After SIGINT or SIGTERM it writes what there is, and the counters; a second signal ends "
		"it at once.",
	.example =
		"penstock capture web0 | wireshark -k -i -\n"
		"penstock capture web0 -f 'tcp port 80' --at inside | tshark -r -\n"
		"penstock capture inet --direction in -c 1000 -w inet.pcapng\n"
		"curl -sN --unix-socket penstock-api.sock http://penstock/v1/ports/web0/capture | "
		"tcpdump -r -\n",
	.flags = capture_flags,
};
