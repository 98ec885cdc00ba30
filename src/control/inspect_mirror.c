/* SPDX-License-Identifier: BSD-3-Clause */
/* inspect_mirror.c - a leg of a mirror, for people; docs/mirror-format.md */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/inspect.h"
#include "layer/mirror_format.h"
#include "util/error.h"
#include "util/option.h"

static bool read_all(int fd, void *to, size_t length, uint64_t offset)
{
	return pread(fd, to, length, (off_t)offset) == (ssize_t)length;
}

static void show_members(const struct mirror_super *super)
{
	char text[MIRROR_UUID_TEXT];

	for (unsigned i = 0; i < super->count; i++) {
		const struct mirror_member *m = &super->member[i];

		printf("  member %s: %s%s, has generation %" PRIu64 "\n",
		       mirror_uuid_text(&m->uuid, text), m->in_sync ? "in sync" : "stale",
		       mirror_uuid_equal(&m->uuid, &super->self) ? " (this leg)" : "",
		       m->confirmed.generation);
	}
}

/* The bitmap; how many of its sectors are damaged. */
static unsigned show_bitmap(int fd, const struct mirror_super *super)
{
	uint64_t regions = mirror_regions(super->data_size, super->region), dirty = 0;
	uint32_t sectors = mirror_bitmap_sectors(regions);
	unsigned damaged = 0;

	for (uint32_t i = 0; i < sectors; i++) {
		uint8_t sector[MIRROR_SECTOR], bits[MIRROR_SECTOR_BITS / 8] = { 0 };

		if (!read_all(fd, sector, sizeof sector,
			      super->bitmap_offset + (uint64_t)i * MIRROR_SECTOR) ||
		    !mirror_sector_decode(sector, &super->set, i, bits))
			damaged++;
		for (unsigned k = 0; k < sizeof bits; k++)
			dirty += (unsigned)__builtin_popcount(bits[k]);
	}
	printf("  bitmap: %" PRIu64 " of %" PRIu64 " regions may differ from other legs\n", dirty,
	       regions);
	if (damaged)
		printf("  damaged: %u of %u sectors of the bitmap have a wrong checksum\n", damaged,
		       sectors);
	return damaged;
}

static int show(int fd, uint64_t size)
{
	uint64_t end = mirror_end(size);
	uint8_t blocks[MIRROR_COPIES * MIRROR_BLOCK];
	struct mirror_super super = { 0 }, copy;
	struct error err = { 0 };
	char text[MIRROR_UUID_TEXT], a[32], b[32];
	unsigned damaged = 0;
	enum mirror_found found;

	if (end < 4 * MIRROR_BLOCK || !read_all(fd, blocks, sizeof blocks, end - sizeof blocks))
		return 1;
	found = mirror_supers_decode(blocks, end, &super, &err);
	if (found == MIRROR_NONE)
		return 1;
	printf("a leg of a mirror; its superblocks are the bytes %" PRIu64 " to %" PRIu64 "\n",
	       end - (uint64_t)sizeof blocks, end - 1);
	if (found == MIRROR_DAMAGED) {
		printf("  damaged: %s\n", err.text);
		return -1;
	}
	printf("  mirror %s, generation %" PRIu64 "\n", mirror_uuid_text(&super.set, text),
	       super.stamp.generation);
	printf("  data: the first %s, in regions of %s\n",
	       format_size(super.data_size, a, sizeof a), format_size(super.region, b, sizeof b));
	show_members(&super);
	for (unsigned i = 0; i < MIRROR_COPIES; i++) {
		found = mirror_super_decode(blocks + (MIRROR_COPIES - 1 - i) * MIRROR_BLOCK, end,
					    &copy, &err);
		if (found == MIRROR_GOOD)
			continue;
		printf("  damaged: copy %u of the superblock: %s\n", i,
		       found == MIRROR_NONE ? "it is none" : err.text);
		damaged++;
	}
	damaged += show_bitmap(fd, &super);
	if (!damaged)
		printf("  good: all checksums are right\n");
	return damaged ? -1 : 0;
}

static int wipe(int fd, uint64_t size)
{
	static const uint8_t none[MIRROR_COPIES * MIRROR_BLOCK];

	if (pwrite(fd, none, sizeof none, (off_t)(mirror_end(size) - sizeof none)) !=
	    (ssize_t)sizeof none)
		return -1;
	return fsync(fd);
}

const struct inspect_format inspect_mirror = {
	.name = "a leg of a mirror",
	.show = show,
	.wipe = wipe,
};
