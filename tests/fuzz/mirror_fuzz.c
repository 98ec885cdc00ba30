/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_fuzz.c - superblocks and bitmap sectors of any bytes, and tables of any legs
 *
 * An input is up to three superblocks, without the zeroes that end each. The first byte, if odd,
 * has the right checksums put in, so that what is behind them is reached. What is taken must be the
 * same after it was written and read again; and legs may be judged in any state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "layer/mirror_format.h"
#include "util/crc32c.h"
#include "util/error.h"

#define PIECE 800u /* bytes of a superblock: its fields and eight members */
#define END   (1u << 20)

static void seal(uint8_t *block, size_t size, size_t at)
{
	uint32_t crc;

	memset(block + at, 0, 4);
	crc = crc32c(0, block, size);
	for (unsigned i = 0; i < 4; i++)
		block[at + i] = (uint8_t)(crc >> 8 * i);
}

static void check_super(const struct mirror_super *super)
{
	uint8_t block[MIRROR_BLOCK];
	struct mirror_super again;
	struct error err = { 0 };

	mirror_super_encode(super, block);
	if (mirror_super_decode(block, END, &again, &err) != MIRROR_GOOD ||
	    memcmp(&super->stamp, &again.stamp, sizeof again.stamp) ||
	    super->data_size != again.data_size || super->count != again.count ||
	    super->bitmap_offset != again.bitmap_offset) {
		fprintf(stderr, "mirror_fuzz: not the same: %s\n", err.text);
		abort();
	}
	if (super->bitmap_offset + mirror_tail(super->data_size, super->region) > END)
		abort();
}

static void check_sector(const uint8_t *bytes, const struct mirror_uuid *set)
{
	uint8_t bits[MIRROR_SECTOR_BITS / 8] = { 0 }, again[MIRROR_SECTOR_BITS / 8] = { 0 };
	uint8_t sector[MIRROR_SECTOR];

	if (!mirror_sector_decode(bytes, set, 0, bits))
		return;
	mirror_sector_encode(set, 0, bits, sector);
	if (!mirror_sector_decode(sector, set, 0, again) || memcmp(bits, again, sizeof bits))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mirror_super super[3];
	const struct mirror_super *legs[3] = { NULL };
	struct error err = { 0 };
	unsigned winner = 3;
	bool sealed;

	if (!size)
		return 0;
	sealed = data[0] & 1;
	data++;
	size--;
	for (unsigned i = 0; i < 3 && size; i++) {
		uint8_t block[MIRROR_BLOCK] = { 0 };
		size_t n = size < PIECE ? size : PIECE;

		memcpy(block, data, n);
		data += n;
		size -= n;
		if (sealed)
			seal(block, sizeof block, 20);
		switch (mirror_super_decode(block, END, &super[i], &err)) {
		case MIRROR_GOOD:
			legs[i] = &super[i];
			check_super(&super[i]);
			break;
		case MIRROR_DAMAGED:
			if (!*err.text)
				abort();
			break;
		case MIRROR_NONE:
			break;
		}
		check_sector(block, (const struct mirror_uuid *)(block + 12));
	}
	if (!mirror_judge(legs, 3, &winner, &err) && (winner > 2 || !legs[winner]))
		abort();
	return 0;
}
