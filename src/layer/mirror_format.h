/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_format.h - what a mirror keeps at the end of each of its legs: docs/mirror-format.md
 *
 * From the front of a leg: the data; what is not used; the bitmap, in sectors that each have a
 * checksum; the superblock, twice. All functions here are pure, and take any bytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct error;

#define MIRROR_LEGS        8u          /**< members of a mirror, at most */
#define MIRROR_BLOCK       4096u       /**< bytes of a superblock; the unit of what is kept */
#define MIRROR_COPIES      2u          /**< of the superblock: the last blocks of a leg */
#define MIRROR_SECTOR      512u        /**< bytes of a piece of the bitmap */
#define MIRROR_SECTOR_BITS 3968u       /**< regions that it tells of */
#define MIRROR_REGIONS     (1u << 20)  /**< of a mirror, at most */
#define MIRROR_REGION_MIN  (64u << 10) /**< bytes */
#define MIRROR_UUID_TEXT   37          /**< bytes of one as text, with its end */

struct mirror_uuid {
	uint8_t byte[16];
};

/** Names one state of the table: a number that only grows, and a random one. */
struct mirror_stamp {
	uint64_t generation, tag;
};

/** What the table says of a member. */
struct mirror_member {
	struct mirror_uuid uuid;
	bool in_sync; /**< it has all that was acknowledged */
	/** The last table it is known to have, and the last that was sent to it. */
	struct mirror_stamp confirmed, attempted;
	uint64_t end; /**< of its leg, bytes: where its superblock was last */
};

/** A superblock: the table of members, as the leg @self has it. */
struct mirror_super {
	struct mirror_uuid set, self;
	struct mirror_stamp stamp;
	uint64_t data_size;     /**< bytes */
	uint64_t region;        /**< bytes that a bit of the bitmap stands for; a power of 2 */
	uint64_t end;           /**< bytes from the front of the leg to the end of all this */
	uint64_t bitmap_offset; /**< bytes from the front of the leg */
	unsigned count;
	struct mirror_member member[MIRROR_LEGS];
};

enum mirror_found { MIRROR_NONE, MIRROR_GOOD, MIRROR_DAMAGED };

/** How many regions there are. */
uint64_t mirror_regions(uint64_t data_size, uint64_t region);

/** The region for a mirror of @data_size bytes unless its user says another. */
uint64_t mirror_default_region(uint64_t data_size);

/** Sectors, and bytes, of the bitmap of so many regions. */
uint32_t mirror_bitmap_sectors(uint64_t regions);
uint64_t mirror_bitmap_bytes(uint64_t regions);

/** Where all this ends on a leg of @size bytes. */
uint64_t mirror_end(uint64_t size);

/** What is kept behind @data_size bytes of data, bytes. */
uint64_t mirror_tail(uint64_t data_size, uint64_t region);

/** Where copy @copy of the superblock is, bytes from the front. */
uint64_t mirror_super_offset(uint64_t end, unsigned copy);

void mirror_super_encode(const struct mirror_super *super, uint8_t block[MIRROR_BLOCK]);

/**
 * Reads a superblock that was found on a leg with the end @end. MIRROR_DAMAGED with @err says what
 * is wrong with it.
 */
enum mirror_found mirror_super_decode(const uint8_t block[MIRROR_BLOCK], uint64_t end,
				      struct mirror_super *super, struct error *err);

/** The same of both copies, one after the other in @blocks: the newest good one. */
enum mirror_found mirror_supers_decode(const uint8_t *blocks, uint64_t end,
				       struct mirror_super *super, struct error *err);

/** Sector @index of the bitmap, from MIRROR_SECTOR_BITS bits, the first of a byte its lowest. */
void mirror_sector_encode(const struct mirror_uuid *set, uint32_t index, const uint8_t *bits,
			  uint8_t sector[MIRROR_SECTOR]);

/** True if it is good, and of the mirror @set (NULL: of any); then its bits are added to @bits. */
bool mirror_sector_decode(const uint8_t sector[MIRROR_SECTOR], const struct mirror_uuid *set,
			  uint32_t index, uint8_t *bits);

bool mirror_uuid_equal(const struct mirror_uuid *a, const struct mirror_uuid *b);
char *mirror_uuid_text(const struct mirror_uuid *uuid, char text[MIRROR_UUID_TEXT]);

/** The entry of @uuid in the table, or NULL. */
struct mirror_member *mirror_member(struct mirror_super *super, const struct mirror_uuid *uuid);

/** Takes entry @index out of the table; the others keep their order. */
void mirror_forget(struct mirror_super *super, unsigned index);

/** True if @super's table has followed upon the one that is on the leg of @other. */
bool mirror_knows(const struct mirror_super *super, const struct mirror_super *other);

/**
 * Which of these legs has the data. @legs: @count superblocks, NULL where a leg has none. 0 and
 * @winner; or -errno with @err: legs that went separate ways, or of different mirrors, or none of
 * them has all data. How, and why that is right: docs/mirror-format.md.
 */
int mirror_judge(const struct mirror_super *const legs[], unsigned count, unsigned *winner,
		 struct error *err);
