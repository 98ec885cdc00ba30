/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * identify.c - what a drive says of itself: 256 words (ATA/ATAPI-7 volume 1, 6.17 and 6.18; words
 * 69, 105, 106, 117, 169, 217, 222 are ACS-2's)
 *
 * A disk says that it is a serial one behind an IDE interface, as the function that it belongs to
 * is one (82801GB in native mode): else Linux holds it to what cables and bridges can.
 */
#include <string.h>

#include "frontend/ata/ide.h"
#include "layer/disk.h"

#define CYLINDERS_MAX 16383u
#define LBA28_MAX     0x0fffffffu

static void put_16(uint8_t *page, unsigned word, unsigned value)
{
	page += (size_t)word * 2;
	page[0] = (uint8_t)value;
	page[1] = (uint8_t)(value >> 8);
}

static void put_32(uint8_t *page, unsigned word, uint32_t value)
{
	put_16(page, word, value);
	put_16(page, word + 1, value >> 16);
}

/* The first character of each word is in its high byte; padded with blanks. */
static void put_text(uint8_t *page, unsigned word, unsigned words, const char *text)
{
	size_t length = strlen(text);

	for (unsigned i = 0; i < 2 * words; i++)
		page[(2 * word + i) ^ 1] = i < length ? (uint8_t)text[i] : ' ';
}

/* Word 255: a signature, and a byte that makes the sum of all 0. */
static void seal(uint8_t *page)
{
	uint8_t sum = 0xa5;

	page[510] = 0xa5;
	for (unsigned i = 0; i < 510; i++)
		sum = (uint8_t)(sum + page[i]);
	page[511] = (uint8_t)-sum;
}

static uint16_t cylinders(uint64_t sectors, unsigned heads, unsigned per_track)
{
	uint64_t n = sectors / ((uint64_t)heads * per_track);

	return (uint16_t)(n < 1 ? 1 : n > CYLINDERS_MAX ? CYLINDERS_MAX : n);
}

/* Modes up to the best, and the one that is chosen. */
static void put_modes(const struct ide_drive *d, uint8_t *page)
{
	put_16(page, 49, 0x0f00); /* DMA, LBA, IORDY may be disabled, is there */
	put_16(page, 51, 0x0200);
	put_16(page, 53, 0x0007);
	put_16(page, 63, 0x0007 | (d->mode >> 4 == 2 ? 0x100u << (d->mode & 7) : 0));
	put_16(page, 64, 0x0003);
	for (unsigned word = 65; word <= 68; word++)
		put_16(page, word, 120); /* ns of a cycle */
	put_16(page, 88, 0x007f | (d->mode >> 4 == 4 ? 0x100u << (d->mode & 7) : 0));
}

/* What there is, and what of it is on. */
static void put_feature_sets(const struct ide_drive *d, uint8_t *page)
{
	unsigned command_1 = 1u << 14 | 1u << 6 | 1u << 5 | 1u << 3 | 1u << 0;
	unsigned enabled = 1u << 14 | 1u << 3 | (d->look_ahead ? 1u << 6 : 0) |
			   (d->write_cache ? 1u << 5 : 0) | (d->smart ? 1u : 0);
	unsigned command_2 = 1u << 13 | 1u << 12 | 1u << 10; /* FLUSH CACHE (EXT), 48 bits */
	unsigned extension = 1u << 6 | 1u << 0;              /* FUA, the SMART error log */

	put_16(page, 82, command_1);
	put_16(page, 83, 1u << 14 | command_2);
	put_16(page, 84, 1u << 14 | extension);
	put_16(page, 85, enabled);
	put_16(page, 86, command_2);
	put_16(page, 87, 1u << 14 | extension);
}

static void put_capacity(const struct ide_drive *d, uint8_t *page)
{
	uint64_t sectors = ata_sectors(d);
	uint16_t now = cylinders(sectors, d->heads, d->sectors);

	put_16(page, 1, cylinders(sectors, 16, 63));
	put_16(page, 3, 16);
	put_16(page, 6, 63);
	put_16(page, 54, now);
	put_16(page, 55, d->heads);
	put_16(page, 56, d->sectors);
	put_32(page, 57, (uint32_t)now * d->heads * d->sectors);
	put_32(page, 60, sectors < LBA28_MAX ? (uint32_t)sectors : LBA28_MAX);
	put_32(page, 100, (uint32_t)sectors);
	put_32(page, 102, (uint32_t)(sectors >> 32));
}

static void put_sector_size(const struct ide_drive *d, uint8_t *page)
{
	uint32_t logical = ata_sector_size(d), physical = d->disk->limits.physical_block_size;
	unsigned word = 1u << 14;

	if (physical > logical)
		word |= 1u << 13 | (unsigned)__builtin_ctz(physical / logical);
	if (logical != 512) {
		word |= 1u << 12;
		put_32(page, 117, logical / 2); /* words */
	}
	put_16(page, 106, word);
}

void ata_identify(struct ide_drive *d, uint8_t *page)
{
	memset(page, 0, IDE_PAGE);
	put_16(page, 0, 0x0040); /* fixed */
	put_text(page, 10, 10, d->serial);
	put_text(page, 23, 4, PENSTOCK_VERSION);
	put_text(page, 27, 20, d->model);
	put_16(page, 47, 0x8000 | IDE_MULTIPLE);
	put_modes(d, page);
	put_16(page, 50, 0x4000);
	put_16(page, 59, d->multiple ? 0x0100u | d->multiple : 0);
	put_capacity(d, page);
	put_16(page, 76, 0x0006); /* serial, 1.5 and 3 Gb/s */
	put_16(page, 80, 0x00f0); /* ATA/ATAPI-4 to -7 */
	put_16(page, 81, 0x001a); /* ATA/ATAPI-7 T13 1532D revision 1 */
	put_feature_sets(d, page);
	put_sector_size(d, page);
	if (d->disk->limits.discard && !d->disk->config.read_only) {
		put_16(page, 105, 8); /* blocks of ranges */
		put_16(page, 169, 1);
	}
	put_16(page, 217, 1);      /* it does not rotate */
	put_16(page, 222, 0x101f); /* a serial transport */
	seal(page);
}

void atapi_identify(struct ide_drive *d, uint8_t *page)
{
	memset(page, 0, IDE_PAGE);
	put_16(page, 0, 0x85c0); /* packets of 12 bytes, DRQ within 50 us, removable, CD-ROM */
	put_text(page, 10, 10, d->serial);
	put_text(page, 23, 4, PENSTOCK_VERSION);
	put_text(page, 27, 20, d->model);
	put_modes(d, page);
	put_16(page, 76, 0x0006);
	put_16(page, 80, 0x00f0);
	put_16(page, 81, 0x001a);
	put_16(page, 82, 1u << 14 | 1u << 9 | 1u << 4); /* NOP, DEVICE RESET, PACKET */
	put_16(page, 83, 1u << 14);
	put_16(page, 84, 1u << 14);
	put_16(page, 85, 1u << 14 | 1u << 9 | 1u << 4);
	put_16(page, 87, 1u << 14);
	put_16(page, 222, 0x101f);
	seal(page);
}
