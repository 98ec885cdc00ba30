/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * iso.c - the image of a CD or DVD: a file or block device in blocks of 2,048 bytes that is only
 * read
 *
 * It is opened and served by the code of the file back-end, with three differences. Its size is
 * rounded up to whole blocks, and what the file does not have of the last one reads as zeroes. Data
 * come through the page cache, so that guests that have the same image share one copy. And it takes
 * no lock: nothing is ever written, and QEMU would take even a reader's lock on the whole file for
 * a writer's.
 *
 * What is in the image is the guest's business. A look at its volume descriptors only serves to
 * warn whoever has named the wrong file: ISO 9660 (ECMA-119, 8.1) and UDF (ECMA-167, part 2, 9.1)
 * both begin them with a type, five letters and a version, in blocks from number 16 on.
 */
#include <string.h>
#include <unistd.h>

#include "backend/file_private.h"

#define BLOCK       2048
#define DESCRIPTORS 16 /* block number of the first */

static bool has_filesystem(const struct file *f)
{
	static const char *const letters[] = { "CD001", "BEA01", "NSR02", "NSR03" };
	char block[6];

	if (pread(f->fd, block, sizeof block, DESCRIPTORS * BLOCK) != sizeof block)
		return false;
	for (unsigned i = 0; i < sizeof letters / sizeof *letters; i++)
		if (!memcmp(block + 1, letters[i], 5))
			return true;
	return false;
}

static int iso_open(struct layer *layer, struct error *err)
{
	struct file *f = (struct file *)layer;
	int ret;

	f->direct = DIRECT_OFF;
	f->unlocked = true;
	ret = file_open(layer, err);
	if (!ret && !has_filesystem(f))
		log_warn("disk %s: %s looks like neither ISO 9660 nor UDF (no volume descriptor in "
			 "block %d); the guest gets it as it is",
			 layer->disk, f->path, DESCRIPTORS);
	return ret;
}

static void iso_limits(struct layer *layer, struct limits *limits)
{
	struct file *f = (struct file *)layer;

	limits->size = (atomic_load(&f->bytes) + BLOCK - 1) / BLOCK * BLOCK;
	limits->block_size = 512; /* through the page cache any will do */
	limits->physical_block_size = BLOCK;
	limits->read_only = true;
}

static const struct option iso_options[] = {
	{ .name = "path",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct file, path),
	  .required = true,
	  .help = "The image, or a block device such as /dev/sr0." },
	{ 0 },
};

const struct layer_ops iso_ops = {
	.name = "iso",
	.summary = "the image of a CD or DVD, read-only",
	.description =
		"An ISO 9660 or UDF image, in blocks of 2,048 bytes: a disk over it has block-size 2048 "
		"unless it is told another, and IDE and SCSI devices show it as a CD-ROM unless they are "
		"told another type. With block-size: 512 it can also be the disk of a virtio-blk device. "
		"A file whose size is no multiple of 2,048 is filled up with zeroes. What does not look "
		"like such an image is served all the same, with a warning.\n\n"
		"It is never written and not locked, so any number of VMs may have one image, each "
		"in one unit.",
	.example = "disks:\n"
		   "  installer:\n"
		   "    stack:\n"
		   "      - iso: {path: /var/lib/penstock/debian-12-netinst.iso}\n",
	.size = sizeof(struct file),
	.options = iso_options,
	.backend = true,
	.read_only = true,
	.natural_block_size = BLOCK,
	.queue_state = sizeof(struct file_queue),
	.queue_open = file_queue_open,
	.queue_close = file_queue_close,
	.open = iso_open,
	.close = file_close,
	.limits = iso_limits,
	.submit = file_submit,
	.identity = file_identity,
};
