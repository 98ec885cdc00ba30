/* SPDX-License-Identifier: BSD-3-Clause */
/* commands_disks.c - commands about the disks of a running penstock, and the drives they are in */
#include "control/commands_private.h"

#define FORCE_FLAG                                                                                 \
	{                                                                                          \
		.name = "force", .type = OPTION_BOOL,                                              \
		.offset = offsetof(struct invocation, force),                                      \
		.help = "Take the medium out although the guest has locked the drive."             \
	}

const struct command resize_command = {
	.name = "resize",
	.arguments = "DISK SIZE",
	.least = 2,
	.most = 2,
	.summary = "make a disk larger while it is in use",
	.description = "Grows DISK to SIZE, and its image with it where the image is smaller; the "
		       "guest is told. A disk cannot be made smaller. The configuration file is "
		       "not changed: where it gives the disk a size, give it the new one.",
	.example = "penstock resize db 40G\n",
	.flags = command_api_flags,
};

const struct command add_disk_command = {
	.name = "add-disk",
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
	.flags = command_api_flags,
};

const struct command remove_disk_command = {
	.name = "remove-disk",
	.arguments = "DISK",
	.least = 1,
	.most = 1,
	.summary = "close a disk that no VM has",
	.description =
		"Closes DISK, and lets go of its image, which is not changed. A disk that is in a unit "
		"of a VM must be ejected or detached before. The configuration file is not changed "
		"either.",
	.example = "penstock remove-disk tools\n",
	.flags = command_api_flags,
};

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

const struct command insert_command = {
	.name = "insert",
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
	.flags = insert_flags,
};

static const struct option eject_flags[] = { API_FLAG, FORCE_FLAG, { 0 } };

const struct command eject_command = {
	.name = "eject",
	.arguments = "VM DEVICE/UNIT",
	.least = 2,
	.most = 2,
	.summary = "take the medium out of a drive",
	.description = "Leaves the drive empty, as penstock-insert(1) changes its medium. The disk "
		       "stays open: penstock-remove-disk(1) closes it.",
	.example = "penstock eject web ide0/secondary-master\n"
		   "penstock eject web ide0/secondary-master --force\n",
	.flags = eject_flags,
};

const struct command attach_command = {
	.name = "attach",
	.arguments = "VM DEVICE/UNIT [DISK]",
	.least = 2,
	.most = 3,
	.summary = "plug in a unit while the guest runs",
	.description =
		"Plugs in a unit with DISK (without: an empty drive) where the device has none; the "
		"guest is told. The device's kind must be one that can do that, such as SCSI: "
		"penstock status shows which units are free.",
	.example = "penstock attach web virtio-scsi0/3:0 more\n",
	.flags = command_api_flags,
};

const struct command detach_command = {
	.name = "detach",
	.arguments = "VM DEVICE/UNIT",
	.least = 2,
	.most = 2,
	.summary = "unplug a unit while the guest runs",
	.description =
		"Unplugs a unit; the guest is told, and finds it gone at once, so let it unmount what "
		"is on it before. It ends when nothing uses its disk any more. The disk stays open: "
		"penstock-remove-disk(1) closes it.",
	.example = "penstock detach web virtio-scsi0/3:0\n",
	.flags = command_api_flags,
};

const struct command undo_command = {
	.name = "undo",
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
	.flags = command_api_flags,
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

const struct command move_command = {
	.name = "move",
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
	.flags = move_flags,
};
