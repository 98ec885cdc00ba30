/* SPDX-License-Identifier: BSD-3-Clause */
/* inspect_overlay.c - the store of an overlay, for people; docs/overlay-format.md */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/inspect.h"
#include "layer/overlay_format.h"
#include "util/error.h"
#include "util/option.h"

static int damaged(const char *what)
{
	printf("  damaged: %s\n", what);
	return -1;
}

static void show_header(const struct overlay_header *header)
{
	char a[32], b[32], c[32];

	printf("  store ");
	for (unsigned i = 0; i < sizeof header->id; i++)
		printf("%02x", header->id[i]);
	printf(", header %" PRIu64 "\n", header->sequence);
	printf("  disk: %s in blocks of %s, from byte %" PRIu64 " on; it can grow to %s\n",
	       format_size(header->size, a, sizeof a), format_size(header->block, b, sizeof b),
	       header->data_offset,
	       format_size(header->pages * OVERLAY_PAGE_BLOCKS * header->block, c, sizeof c));
	printf("  base: %s, sum %08x\n", format_size(header->base_size, a, sizeof a),
	       header->base_sum);
}

/* The map; -1 if it is damaged. */
static int show_map(int fd, const struct overlay_header *header)
{
	unsigned char slots[2][OVERLAY_PAGE];
	const unsigned char *const both[2] = { slots[0], slots[1] };
	uint64_t words[OVERLAY_PAGE_WORDS], stored = 0, zeroes = 0;
	struct overlay_page state;
	struct error err = { 0 };
	char a[32], b[32];

	for (uint64_t page = 0; page < overlay_header_pages(header); page++) {
		for (unsigned slot = 0; slot < 2; slot++)
			if (pread(fd, slots[slot], OVERLAY_PAGE,
				  (off_t)overlay_page_offset(header, page, slot)) != OVERLAY_PAGE)
				return damaged("its map cannot be read");
		if (overlay_page_decode(header, page, both, words, &state, &err))
			return damaged(err.text);
		for (unsigned i = 0; i < OVERLAY_PAGE_WORDS; i++) {
			stored += (unsigned)__builtin_popcountll(words[i] & 0x5555555555555555ull);
			zeroes += (unsigned)__builtin_popcountll(words[i] & 0xaaaaaaaaaaaaaaaaull);
		}
	}
	printf("  in the store: %s; zeroes: %s\n", format_size(stored * header->block, a, sizeof a),
	       format_size(zeroes * header->block, b, sizeof b));
	return 0;
}

static int show(int fd, uint64_t size)
{
	unsigned char copies[2][OVERLAY_HEADER_BYTES];
	struct overlay_header header;
	struct error err = { 0 };
	int ret;

	for (unsigned i = 0; i < 2; i++)
		if (pread(fd, copies[i], sizeof copies[i], i * OVERLAY_HEADER_COPY) !=
		    (ssize_t)sizeof copies[i])
			return 1;
	ret = overlay_header_decode(copies, &header, &err);
	if (ret == -ENODATA || ret == -EMEDIUMTYPE)
		return 1;
	printf("the store of an overlay\n");
	if (ret)
		return damaged(err.text);
	show_header(&header);
	if (size < overlay_header_need(&header))
		return damaged("the file ends before its data do");
	if (show_map(fd, &header))
		return -1;
	printf("  good: all checksums are right\n");
	return 0;
}

/* From then on it is blank. */
static int wipe(int fd, uint64_t size)
{
	static const unsigned char none[OVERLAY_HEADER_COPY + OVERLAY_PAGE];

	(void)size;
	if (pwrite(fd, none, sizeof none, 0) != (ssize_t)sizeof none)
		return -1;
	return fsync(fd);
}

const struct inspect_format inspect_overlay = {
	.name = "the store of an overlay",
	.show = show,
	.wipe = wipe,
};
