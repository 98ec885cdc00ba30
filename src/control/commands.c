/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commands.c - the commands of penstock: their arguments, flags and texts
 *
 * Flags are rows of tables of options, as all that can be configured: those of a command
 * itself, and for the commands that serve those of the program as a whole. invocation.c
 * reads them, manual.c makes man pages of them.
 */
#include "control/commands.h"

#include <stdio.h>
#include <string.h>

#include "control/config.h"
#include "control/create.h"
#include "control/serve.h"
#include "transport/transport.h"
#include "util/suggest.h"

/* --- the table ---------------------------------------------------------------------- */

static const char api_help[] =
	"Path of the control API's socket. Without it the first of these that is there: "
	"$PENSTOCK_API, ./penstock-api.sock, $XDG_RUNTIME_DIR/penstock.sock, /run/penstock.sock.";

#define API_FLAG                                                                                   \
	{                                                                                          \
		.name = "api", .type = OPTION_STRING, .offset = offsetof(struct invocation, api),  \
		.help = api_help                                                                   \
	}

static const struct option serve_flags[] = {
	{ .name = "socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, socket),
	  .help = "Path of the vhost-user socket that the VMM connects to." },
	{ .name = "nbd-socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, nbd_socket),
	  .help = "Path of a UNIX socket at which NBD clients find the disk, such as nbdcopy, qemu-img and "
		  "fio. With --socket too they can only read; without it no VM has the disk, and they may "
		  "write." },
	{ 0 },
};

static const struct option status_flags[] = {
	API_FLAG,
	{ .name = "json",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, json),
	  .help = "Print the answer of the API as it is, in JSON." },
	{ 0 },
};

static const struct option api_flags[] = { API_FLAG, { 0 } };

#define FORCE_FLAG                                                                                 \
	{                                                                                          \
		.name = "force", .type = OPTION_BOOL,                                              \
		.offset = offsetof(struct invocation, force),                                      \
		.help = "Take the medium out although the guest has locked the drive."             \
	}

static const struct option insert_flags[] = {
	API_FLAG,
	{ .name = "iso",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, iso),
	  .help = "Insert this image of a CD or DVD, in place of DISK: it becomes a disk with the name of "
		  "the file, if it is none yet." },
	FORCE_FLAG,
	{ 0 },
};

static const struct option eject_flags[] = { API_FLAG, FORCE_FLAG, { 0 } };

static const struct option remove_layer_flags[] = {
	API_FLAG,
	{ .name = "keep",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, keep),
	  .help = "Number of the leg that stays, of a layer that ends a stack and has several." },
	{ 0 },
};

static const struct option move_flags[] = {
	API_FLAG,
	{ .name = "limit",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, limit),
	  .help = "Copy this many bytes a second at most, such as 100M; 0 for no limit." },
	{ .name = "at",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, at),
	  .help = "Replace all layers from this place down, and not the back-end alone: to encrypt while "
		  "moving, for example." },
	{ .name = "detach",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, detach),
	  .help = "End as soon as copying has begun." },
	{ .name = "cancel",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, cancel),
	  .help = "Cancel the move that is under way." },
	{ 0 },
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

static const struct option qemu_flags[] = {
	{ .name = "config",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, config),
	  .help = "Read the VM from this file; nothing need be running." },
	API_FLAG,
	{ .name = "memory",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct invocation, memory),
	  .min = 1 << 20,
	  .fallback = "1G",
	  .help = "Memory of the VM. It must be shared with penstock, so it is part of the "
		  "options." },
	{ 0 },
};

static const struct option help_flags[] = {
	{ .name = "names",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, names),
	  .help = "Print names only, one a line, for the completion of shells: all commands; or "
		  "what may follow a command; or, with an option as second argument, its values." },
	{ 0 },
};

static const struct option inspect_flags[] = {
	{ .name = "wipe",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, wipe),
	  .help = "Overwrite the records with zeroes, after showing them, so that PATH is a plain image from "
		  "then on: a leg of a mirror whose data are not needed any more, say after a split "
		  "brain. Refused while PATH is in use." },
	{ 0 },
};
#define PLACES                                                                                             \
	"PLACE is the number of a layer, counted from 0, the one nearest to the guest; or its kind, such " \
	"as crypt, where that says which. In a leg of another layer it is a path: mirror/0/crypt, and "    \
	"the leg itself mirror/0. Prints the stack as it is then, and how long the guest's requests had "  \
	"to wait at most. What is wrong leaves all as it was.\n\n"                                         \
	"DISK may be a port of a switch as well, a NIC or an uplink: then its layers of packets change, "  \
	"while packets flow."

const struct command commands[] = {
	{ .name = "serve",
	  .arguments = "PATH [--socket SOCK] [--nbd-socket SOCK] [option=value ...]",
	  .least = 1,
	  .most = 64,
	  .summary = "serve one disk to one VM or to NBD clients, without a configuration file",
	  .description =
		  "Serves PATH as a virtio-blk disk over vhost-user, over NBD, or both. PATH is a raw image, a block "
		  "device, or null: or memory: with a size=SIZE (1G if not given).\n\n"
		  "The options are those of the disk, of its virtio-blk device and of its back-end, "
		  "as in penstock.yaml(5); size is the disk's, but where the back-end is made by "
		  "this command (null:, memory:, create=true) the back-end's. stack=LAYER,LAYER "
		  "puts layers above the back-end, the first one nearest to the guest.\n\n"
		  "One of --socket and --nbd-socket is required.\n\n"
		  "To the control API the disk's name is disk, and the VM's vm. The process stays "
		  "in the foreground and is ready when the socket is there. SIGTERM or SIGINT lets "
		  "what is in flight finish and ends it with status 0; a second one ends it at "
		  "once.",
	  .example = "penstock serve disk.img --socket disk.sock\n"
		     "penstock serve new.img --socket new.sock create=true size=20G queues=4\n"
		     "penstock serve null: --socket null.sock size=4G --cpus 1\n"
		     "penstock serve disk.img --nbd-socket disk.nbd\n",
	  .flags = serve_flags,
	  .serves = true },
	{ .name = "run",
	  .arguments = "[CONFIG]",
	  .most = 1,
	  .summary = "serve the disks and networks of a configuration file",
	  .description =
		  "Serves all that CONFIG describes, see penstock.yaml(5); relative paths in it are "
		  "relative to the working directory. Without CONFIG there is an embedded default: "
		  "the disk demo, a sparse image of 1G in ./penstock-demo.img that is created if it "
		  "is absent, for the VM demo on ./penstock-demo.sock, and the control API on "
		  "./penstock-api.sock.\n\n"
		  "Flags override what CONFIG says. Nothing starts half: on any mistake or failure "
		  "everything is closed again and the status is not 0. The process stays in the "
		  "foreground, and tells systemd when it is ready. SIGTERM or SIGINT lets what is "
		  "in flight finish and ends it with status 0; a second one ends it at once.",
	  .example = "penstock run\n"
		     "penstock run /etc/penstock/penstock.yaml --loops 2\n",
	  .serves = true },
	{ .name = "check",
	  .arguments = "CONFIG",
	  .least = 1,
	  .most = 1,
	  .summary = "say what is wrong with a configuration file",
	  .description = "Reads CONFIG as penstock-run(1) does, and says each mistake on a line of "
			 "its own: file, line, the option's name, what was expected. It also looks "
			 "whether images are there and may be read and written. It opens no image "
			 "and changes nothing, so it can be used while penstock runs.\n\n"
			 "A socket whose directory is not there yet is a warning only.",
	  .example = "penstock check /etc/penstock/penstock.yaml\n" },
	{ .name = "create",
	  .arguments = "LAYER PATH [option=value ...]",
	  .least = 2,
	  .most = 64,
	  .summary = "make what a layer keeps on disk, such as an encrypted volume",
	  .description =
		  "Makes in PATH, a raw image or a block device, what LAYER will find there when a disk "
		  "is opened. An image that does not exist is made, and one that is too small for the "
		  "size that is asked for grows. One that holds data already is refused.",
	  .example =
		  "dd if=/dev/urandom of=db.key bs=32 count=1\n"
		  "penstock create crypt db.luks size=20G key-file=db.key iter-time=100ms\n"
		  "penstock create crypt /dev/vg0/db key-command='pass show db' sector-size=4096\n" },
	{ .name = "inspect",
	  .arguments = "PATH",
	  .least = 1,
	  .most = 1,
	  .summary = "show what penstock keeps in an image, and check it",
	  .description =
		  "Prints what penstock itself has written into PATH, a file or a block device: the "
		  "records of a leg of a mirror (docs/mirror-format.md), or the store of an overlay "
		  "(docs/overlay-format.md). It checks all checksums, and "
		  "ends with status 1 if something is damaged, or if there are no records. It "
		  "changes nothing, and may be used while a disk is in use.",
	  .example = "penstock inspect /san/a/db.img\n"
		     "penstock inspect /var/lib/penstock/web1.ovl\n"
		     "penstock inspect --wipe /san/b/db.img\n",
	  .flags = inspect_flags },
	{ .name = "status",
	  .arguments = "",
	  .summary = "show VMs, devices, disks and switches of a running penstock",
	  .description =
		  "Prints a table of the devices with their disks, whether a VMM is connected, and "
		  "what they have done since it started. A device that was stopped because of what "
		  "its guest or VMM did is broken, and its reason is printed. Latencies are "
		  "estimated from a histogram whose steps are powers of two.\n\n"
		  "Of each switch it prints the ports: what has come in from what is plugged in there, and "
		  "gone out to it, how many packets were dropped and why, and likewise for each layer.",
	  .example = "penstock status\n"
		     "penstock status --json\n",
	  .flags = status_flags },
	{ .name = "resize",
	  .arguments = "DISK SIZE",
	  .least = 2,
	  .most = 2,
	  .summary = "make a disk larger while it is in use",
	  .description =
		  "Grows DISK to SIZE, and its image with it where the image is smaller; the "
		  "guest is told. A disk cannot be made smaller. The configuration file is "
		  "not changed: where it gives the disk a size, give it the new one.",
	  .example = "penstock resize db 40G\n",
	  .flags = api_flags },
	{ .name = "add-disk",
	  .arguments = "DISK OPTIONS",
	  .least = 2,
	  .most = 2,
	  .summary = "open another disk while penstock runs",
	  .description =
		  "Opens a disk called DISK, so that it can be inserted or attached. OPTIONS are in "
		  "YAML (or JSON) what stands below the name of a disk in penstock.yaml(5): its "
		  "options, and its stack. Relative paths are relative to the working directory of "
		  "the running penstock. The configuration file is not changed: a disk that shall be "
		  "there after a restart must be put there.",
	  .example =
		  "penstock add-disk tools '{stack: [iso: {path: /srv/tools.iso}]}'\n"
		  "penstock add-disk more '{cache: writethrough, stack: [file: {path: /srv/more.img}]}'\n",
	  .flags = api_flags },
	{ .name = "remove-disk",
	  .arguments = "DISK",
	  .least = 1,
	  .most = 1,
	  .summary = "close a disk that no VM has",
	  .description =
		  "Closes DISK, and lets go of its image, which is not changed. A disk that is in a unit "
		  "of a VM must be ejected or detached before. The configuration file is not changed "
		  "either.",
	  .example = "penstock remove-disk tools\n",
	  .flags = api_flags },
	{ .name = "insert",
	  .arguments = "VM DEVICE/UNIT [DISK]",
	  .least = 2,
	  .most = 3,
	  .summary = "put a disk into a drive while the guest runs",
	  .description =
		  "Puts DISK into a drive of a VM, in place of the medium that is there; the guest is "
		  "told that the medium changed. DEVICE is a name such as ide0, UNIT one such as "
		  "secondary-master or 2:0: penstock status shows them.\n\n"
		  "It ends when nothing uses the old medium any more. A guest that has locked the drive, "
		  "as it does while a medium is mounted, is told that somebody wants it, and the "
		  "command fails; --force does not wait for the guest's consent.",
	  .example = "penstock insert web ide0/secondary-master tools\n"
		     "penstock insert web ide0/secondary-master --iso /srv/debian-12-netinst.iso\n",
	  .flags = insert_flags },
	{ .name = "eject",
	  .arguments = "VM DEVICE/UNIT",
	  .least = 2,
	  .most = 2,
	  .summary = "take the medium out of a drive",
	  .description =
		  "Leaves the drive empty, as penstock-insert(1) changes its medium. The disk "
		  "stays open: penstock-remove-disk(1) closes it.",
	  .example = "penstock eject web ide0/secondary-master\n"
		     "penstock eject web ide0/secondary-master --force\n",
	  .flags = eject_flags },
	{ .name = "attach",
	  .arguments = "VM DEVICE/UNIT [DISK]",
	  .least = 2,
	  .most = 3,
	  .summary = "plug in a unit while the guest runs",
	  .description =
		  "Plugs in a unit with DISK (without: an empty drive) where the device has none; the "
		  "guest is told. The device's kind must be one that can do that, such as SCSI: "
		  "penstock status shows which units are free.",
	  .example = "penstock attach web virtio-scsi0/3:0 more\n",
	  .flags = api_flags },
	{ .name = "detach",
	  .arguments = "VM DEVICE/UNIT",
	  .least = 2,
	  .most = 2,
	  .summary = "unplug a unit while the guest runs",
	  .description =
		  "Unplugs a unit; the guest is told, and finds it gone at once, so let it unmount what "
		  "is on it before. It ends when nothing uses its disk any more. The disk stays open: "
		  "penstock-remove-disk(1) closes it.",
	  .example = "penstock detach web virtio-scsi0/3:0\n",
	  .flags = api_flags },
	{ .name = "stack",
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
	  .flags = api_flags },
	{ .name = "insert-layer",
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
		  "penstock insert-layer db file 'mirror: {legs: [file: {path: /srv/copy.img}]}'\n",
	  .flags = api_flags },
	{ .name = "remove-layer",
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
	  .flags = remove_layer_flags },
	{ .name = "move-layer",
	  .arguments = "DISK PLACE TO",
	  .least = 3,
	  .most = 3,
	  .summary = "put a layer of a disk or a port in another place while the guest runs",
	  .description =
		  "Takes the layer at PLACE out, and puts it where the layer at TO was; those between "
		  "move up, or down.\n\n" PLACES,
	  .example = "penstock move-layer db 0 1\n",
	  .flags = api_flags },
	{ .name = "set-layer",
	  .arguments = "DISK PLACE option=value ...",
	  .least = 3,
	  .most = 64,
	  .summary = "set options of a layer while the guest runs",
	  .description =
		  "Gives the layer at PLACE other options; 'option=' with nothing behind it takes one "
		  "away, so that it has its default. A layer that cannot change while it is open is opened "
		  "anew.\n\n" PLACES,
	  .example = "penstock set-layer db flaky delay=5ms errors=\n",
	  .flags = api_flags },
	{ .name = "set-port",
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
	  .flags = api_flags },
	{ .name = "addresses",
	  .arguments = "SWITCH",
	  .least = 1,
	  .most = 1,
	  .summary = "show the MAC addresses that a switch knows",
	  .description =
		  "Prints the addresses that SWITCH has learned, or was told, with their VLAN and port, and "
		  "how long ago each was seen last.",
	  .example = "penstock addresses lan\n",
	  .flags = status_flags },
	{ .name = "forget",
	  .arguments = "SWITCH [PORT]",
	  .least = 1,
	  .most = 2,
	  .summary = "have a switch forget addresses that it has learned",
	  .description =
		  "Frames for what was forgotten go to all ports of their VLAN, until it is learned again. "
		  "With PORT: only what was learned there. Static addresses stay.",
	  .example = "penstock forget lan\n"
		     "penstock forget lan inet\n",
	  .flags = api_flags },
	{ .name = "add-leg",
	  .arguments = "DISK PLACE LAYER ...",
	  .least = 3,
	  .most = 32,
	  .summary = "add a leg to a layer, such as a mirror, while the guest runs",
	  .description =
		  "Adds a leg to the layer at PLACE, as its last one: LAYER, or several layers, the first "
		  "one uppermost.\n\n" PLACES,
	  .example = "penstock add-leg db mirror 'file: {path: /srv/third.img}'\n",
	  .flags = api_flags },
	{ .name = "remove-leg",
	  .arguments = "DISK PLACE",
	  .least = 2,
	  .most = 2,
	  .summary = "take a leg out of a layer, such as a mirror, while the guest runs",
	  .description =
		  "Takes the leg at PLACE out, a path that ends with the leg's number.\n\n" PLACES,
	  .example = "penstock remove-leg db mirror/1\n",
	  .flags = api_flags },
	{ .name = "undo",
	  .arguments = "DISK",
	  .least = 1,
	  .most = 1,
	  .summary = "throw away what was changed in a disk with an overlay",
	  .description =
		  "Empties the store of the first overlay of DISK, which may be in use: from then on it is "
		  "the base again, see penstock-overlay(7). Requests of the guest wait meanwhile. What "
		  "the guest has in its own memory is no longer right: stop it before, or reset it "
		  "right after.\n\n"
		  "If power is lost, either all changes are there or none.",
	  .example = "penstock undo web1\n",
	  .flags = api_flags },
	{ .name = "move",
	  .arguments = "DISK [LAYER ...]",
	  .least = 1,
	  .most = 32,
	  .summary = "move a disk to another back-end while the guest runs",
	  .description =
		  "Copies DISK to the back-end LAYER (several layers: the first one uppermost) while its "
		  "guest uses it, and then goes on there alone. What the guest writes goes to both "
		  "meanwhile, so one pass is enough, however slow the target is. A target that is too small "
		  "grows if it can; create: true makes a new image of the right size. The layers above "
		  "the back-end stay; an overlay moves as a whole, with its base in it.\n\n"
		  "If the target fails, or the move is canceled, or penstock ends or crashes, the disk is "
		  "where it was, with all its data. After the end of a move a restart must find the disk in "
		  "its new place: with the option state of penstock.yaml(5) it does; without, the "
		  "configuration must be changed, and penstock config prints what it is now.\n\n"
		  "Shows how far it is, on a terminal. To interrupt that does not end the move. Without "
		  "LAYER it follows the move that is under way or, with --limit, gives it another limit. "
		  "Exit status 0 means that the disk has moved.",
	  .example =
		  "penstock move db 'file: {path: /san/b/db.img, create: true}'\n"
		  "penstock move db 'nbd: {uri: \"nbd://store/db\"}' --limit 100M --detach\n"
		  "penstock move db 'crypt: {key-file: /etc/db.key}' 'file: {path: /san/db.luks}' --at 0\n"
		  "penstock move db --limit 20M\n"
		  "penstock move db --cancel\n",
	  .flags = move_flags },
	{ .name = "capture",
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
	  .flags = capture_flags },
	{ .name = "config",
	  .arguments = "",
	  .summary = "print the configuration as it now is",
	  .description =
		  "Prints what would have to be in the configuration file for a start of penstock to "
		  "come to what runs now: with disks that were added, resized or moved, the layers that "
		  "they have, and the units that devices have. Options that have their default are left "
		  "out, and so is create: true of images, which are there now. What is printed is a configuration that penstock-check(1) accepts. "
		  "No secret is in it, for configurations hold none, only where they are.",
	  .example = "penstock config > /etc/penstock/penstock.yaml\n",
	  .flags = status_flags },
	{ .name = "qemu-args",
	  .arguments = "VM",
	  .least = 1,
	  .most = 1,
	  .summary = "print the options that attach a VM of QEMU",
	  .description =
		  "Prints what to add to the command line of a stock QEMU so that it has the "
		  "devices of VM. The guest's memory must be shared with penstock, so it is "
		  "among these options; --memory says how much it is, in place of QEMU's -m.\n\n"
		  "Devices over vfio-user, such as ide and pvscsi, take QEMU 10.1 or later, and their "
		  "options in JSON; a note on standard error says so.\n\n"
		  "QEMU before 9.1 crashes when a NIC over vhost-user starts with MSI-X and there is no KVM: "
		  "there put vectors=0 in place of vectors=N.\n\n"
		  "Without KVM give QEMU -smp 2 or more, or -smp 1,maxcpus=2. For a machine that can have one "
		  "processor only it leaves out memory barriers that drivers rely on, and once in a while a queue "
		  "stands still until the guest resets it.",
	  .example = "penstock qemu-args web --memory 4G\n"
		     "penstock qemu-args web --config /etc/penstock/penstock.yaml\n",
	  .flags = qemu_flags },
	{ .name = "help",
	  .arguments = "[COMMAND | DEVICE | LAYER | BACK-END | UPLINK]",
	  .most = 2, /* two: for --names only */
	  .summary = "explain a command, a device, a layer, a back-end or an uplink",
	  .description =
		  "Explains a command as its --help does, or a device, layer, back-end or uplink "
		  "with its options and an example. Without an argument: lists all of them.",
	  .example = "penstock help file\n",
	  .flags = help_flags },
	{ 0 },
};

const struct command *command_find(const char *name)
{
	for (const struct command *command = commands; command->name; command++)
		if (!strcmp(command->name, name))
			return command;
	return NULL;
}

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
	for (const struct command *command = commands; command->name; command++)
		printf("  %-12s %s\n", command->name, command->summary);
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
		for (command = commands; command->name; command++)
			printf("%s\n", command->name);
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
		for (const struct command *command = commands; command->name; command++)
			printf("%s\n", command->name);
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

	for (const struct command *command = commands; command->name; command++)
		suggest_offer(&nearest, command->name);
	for (unsigned i = 0; frontend_registry[i]; i++)
		suggest_offer(&nearest, frontend_registry[i]->name);
	for (unsigned i = 0; layer_registry[i]; i++)
		suggest_offer(&nearest, layer_registry[i]->name);
	for (unsigned i = 0; uplink_registry[i]; i++)
		suggest_offer(&nearest, uplink_registry[i]->name);
	for (unsigned i = 0; packet_layer_registry[i]; i++)
		suggest_offer(&nearest, packet_layer_registry[i]->name);
	fprintf(stderr, "penstock: no command, device, layer or back-end '%s'%s%s%s\n", name,
		nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
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
