/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commands_daemon.c - commands that start a daemon, say what it is and does, and attach VMs to it;
 * and those about files, without one
 */
#include "control/commands_private.h"

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

const struct command serve_command = {
	.name = "serve",
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
	.serves = true,
};

const struct command run_command = {
	.name = "run",
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
	.serves = true,
};

const struct command check_command = {
	.name = "check",
	.arguments = "CONFIG",
	.least = 1,
	.most = 1,
	.summary = "say what is wrong with a configuration file",
	.description = "Reads CONFIG as penstock-run(1) does, and says each mistake on a line of "
		       "its own: file, line, the option's name, what was expected. It also looks "
		       "whether images are there and may be read and written, and whether captures "
		       "to be replayed are there. It opens no image and changes nothing, so it can "
		       "be used while penstock runs.\n\n"
		       "A socket whose directory is not there yet is a warning only.",
	.example = "penstock check /etc/penstock/penstock.yaml\n",
};

const struct command create_command = {
	.name = "create",
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
		"penstock create crypt /dev/vg0/db key-command='pass show db' sector-size=4096\n",
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

const struct command inspect_command = {
	.name = "inspect",
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
	.flags = inspect_flags,
};

const struct command status_command = {
	.name = "status",
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
	.flags = command_status_flags,
};

const struct command config_command = {
	.name = "config",
	.arguments = "",
	.summary = "print the configuration as it now is",
	.description =
		"Prints what would have to be in the configuration file for a start of penstock to "
		"come to what runs now: with disks that were added, resized or moved, the layers that "
		"they have, and the units that devices have. Options that have their default are left "
		"out, and so is create: true of images, which are there now. What is printed is a configuration that penstock-check(1) accepts. "
		"No secret is in it, for configurations hold none, only where they are.",
	.example = "penstock config > /etc/penstock/penstock.yaml\n",
	.flags = command_status_flags,
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
	{ .name = "qemu",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct invocation, qemu),
	  .help = "Version of the QEMU that will read the options, such as 7.2 or 11.1. Without this it is "
		  "that of the qemu-system-x86_64 that $PATH finds, or 7.2 if there is none." },
	{ 0 },
};

const struct command qemu_args_command = {
	.name = "qemu-args",
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
		"QEMU finds penstock again after a restart by reconnect-ms=1000, and before 9.2 by reconnect=1, "
		"which QEMU 10 does not know any more: --qemu says which it is, if not the one that is installed "
		"here.\n\n"
		"QEMU before 9.1 crashes when a NIC over vhost-user starts with MSI-X and there is no KVM: "
		"there put vectors=0 in place of vectors=N.\n\n"
		"Without KVM give QEMU -smp 2 or more, or -smp 1,maxcpus=2. For a machine that can have one "
		"processor only it leaves out memory barriers that drivers rely on, and once in a while a queue "
		"stands still until the guest resets it.",
	.example = "penstock qemu-args web --memory 4G\n"
		   "penstock qemu-args web --config /etc/penstock/penstock.yaml --qemu 11.1\n",
	.flags = qemu_flags,
};

static const struct option help_flags[] = {
	{ .name = "names",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct invocation, names),
	  .help = "Print names only, one a line, for the completion of shells: all commands; or "
		  "what may follow a command; or, with an option as second argument, its values." },
	{ 0 },
};

const struct command help_command = {
	.name = "help",
	.arguments = "[COMMAND | DEVICE | LAYER | BACK-END | UPLINK]",
	.most = 2, /* two: for --names only */
	.summary = "explain a command, a device, a layer, a back-end or an uplink",
	.description =
		"Explains a command as its --help does, or a device, layer, back-end or uplink "
		"with its options and an example. Without an argument: lists all of them.",
	.example = "penstock help file\n",
	.flags = help_flags,
};
