/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror_format.c - a mirror's superblocks and bitmap as bytes, and which leg has the data */
#include "layer/mirror_format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/crc32c.h"
#include "util/error.h"

/* --- where things are --------------------------------------------------------------- */

uint64_t mirror_regions(uint64_t data_size, uint64_t region)
{
	return data_size / region + (data_size % region != 0);
}

/* 1 MiB; larger where that would be more than 128 Ki regions, a bitmap of 17 KiB. */
uint64_t mirror_default_region(uint64_t data_size)
{
	uint64_t region = 1 << 20;

	while (mirror_regions(data_size, region) > 128 << 10)
		region *= 2;
	return region;
}

uint32_t mirror_bitmap_sectors(uint64_t regions)
{
	return (uint32_t)((regions + MIRROR_SECTOR_BITS - 1) / MIRROR_SECTOR_BITS);
}

uint64_t mirror_bitmap_bytes(uint64_t regions)
{
	uint64_t bytes = (uint64_t)mirror_bitmap_sectors(regions) * MIRROR_SECTOR;

	return (bytes + MIRROR_BLOCK - 1) / MIRROR_BLOCK * MIRROR_BLOCK;
}

uint64_t mirror_end(uint64_t size)
{
	return size - size % MIRROR_BLOCK;
}

uint64_t mirror_tail(uint64_t data_size, uint64_t region)
{
	return mirror_bitmap_bytes(mirror_regions(data_size, region)) +
	       MIRROR_COPIES * MIRROR_BLOCK;
}

uint64_t mirror_super_offset(uint64_t end, unsigned copy)
{
	return end - (copy + 1) * MIRROR_BLOCK;
}

/* --- numbers as bytes, the lowest one first ----------------------------------------- */

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (; bytes; bytes--, value >>= 8)
		*at++ = (uint8_t)value;
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | at[bytes];
	return value;
}

static void put_stamp(uint8_t *at, struct mirror_stamp stamp)
{
	put(at, stamp.generation, 8);
	put(at + 8, stamp.tag, 8);
}

static struct mirror_stamp get_stamp(const uint8_t *at)
{
	return (struct mirror_stamp){ get(at, 8), get(at + 8, 8) };
}

/* --- the superblock ----------------------------------------------------------------- */

static const char magic[16] = "penstock-mirror";

enum { VERSION = 1 };

/* Offsets in the block, and in an entry of the table. */
enum {
	AT_VERSION = 16,
	AT_CRC = 20,
	AT_COUNT = 24,
	AT_SET = 32,
	AT_SELF = 48,
	AT_STAMP = 64,
	AT_DATA_SIZE = 80,
	AT_REGION = 88,
	AT_END = 96,
	AT_BITMAP = 104,
	AT_MEMBERS = 256,
	MEMBER = 64,
	MEMBER_STATE = 16,
	MEMBER_END = 24,
	MEMBER_CONFIRMED = 32,
	MEMBER_ATTEMPTED = 48,
};

/* Of the whole block, with zeroes where the checksum stands. */
static uint32_t checksum(const uint8_t *block)
{
	static const uint8_t none[4];
	uint32_t crc = crc32c(0, block, AT_CRC);

	crc = crc32c(crc, none, sizeof none);
	return crc32c(crc, block + AT_CRC + 4, MIRROR_BLOCK - AT_CRC - 4);
}

void mirror_super_encode(const struct mirror_super *super, uint8_t block[MIRROR_BLOCK])
{
	memset(block, 0, MIRROR_BLOCK);
	memcpy(block, magic, sizeof magic);
	put(block + AT_VERSION, VERSION, 4);
	put(block + AT_COUNT, super->count, 4);
	memcpy(block + AT_SET, super->set.byte, 16);
	memcpy(block + AT_SELF, super->self.byte, 16);
	put_stamp(block + AT_STAMP, super->stamp);
	put(block + AT_DATA_SIZE, super->data_size, 8);
	put(block + AT_REGION, super->region, 8);
	put(block + AT_END, super->end, 8);
	put(block + AT_BITMAP, super->bitmap_offset, 8);
	for (unsigned i = 0; i < super->count; i++) {
		const struct mirror_member *m = &super->member[i];
		uint8_t *at = block + AT_MEMBERS + i * MEMBER;

		memcpy(at, m->uuid.byte, 16);
		put(at + MEMBER_STATE, m->in_sync, 4);
		put(at + MEMBER_END, m->end, 8);
		put_stamp(at + MEMBER_CONFIRMED, m->confirmed);
		put_stamp(at + MEMBER_ATTEMPTED, m->attempted);
	}
	put(block + AT_CRC, checksum(block), 4);
}

/* What the checksum vouches for, but a program may have written it that is not ours. */
static const char *nonsense(const struct mirror_super *s, uint64_t end)
{
	if (s->end != end)
		return "it belongs to a leg of another size";
	if (!s->data_size || s->data_size % 512)
		return "the size of its data is not one";
	if (s->region < MIRROR_REGION_MIN || s->region & (s->region - 1) ||
	    mirror_regions(s->data_size, s->region) > MIRROR_REGIONS)
		return "the size of its regions is not one";
	if (s->bitmap_offset % MIRROR_BLOCK || s->bitmap_offset < s->data_size ||
	    s->bitmap_offset > end || end - s->bitmap_offset < mirror_tail(s->data_size, s->region))
		return "its bitmap has no place";
	for (unsigned i = 0; i < s->count; i++)
		for (unsigned k = 0; k < i; k++)
			if (mirror_uuid_equal(&s->member[i].uuid, &s->member[k].uuid))
				return "it lists a member twice";
	if (!mirror_member((struct mirror_super *)s, &s->self))
		return "it does not list its own leg";
	return NULL;
}

enum mirror_found mirror_super_decode(const uint8_t block[MIRROR_BLOCK], uint64_t end,
				      struct mirror_super *super, struct error *err)
{
	const char *wrong;

	if (memcmp(block, magic, sizeof magic))
		return MIRROR_NONE;
	if (get(block + AT_CRC, 4) != checksum(block)) {
		error_set(err, EUCLEAN, "its superblock is damaged: the checksum is wrong");
		return MIRROR_DAMAGED;
	}
	if (get(block + AT_VERSION, 4) != VERSION) {
		error_set(err, ENOTSUP, "its superblock has version %u; this program knows %u",
			  (unsigned)get(block + AT_VERSION, 4), VERSION);
		return MIRROR_DAMAGED;
	}
	*super = (struct mirror_super){
		.stamp = get_stamp(block + AT_STAMP),
		.data_size = get(block + AT_DATA_SIZE, 8),
		.region = get(block + AT_REGION, 8),
		.end = get(block + AT_END, 8),
		.bitmap_offset = get(block + AT_BITMAP, 8),
		.count = (unsigned)get(block + AT_COUNT, 4),
	};
	memcpy(super->set.byte, block + AT_SET, 16);
	memcpy(super->self.byte, block + AT_SELF, 16);
	if (!super->count || super->count > MIRROR_LEGS) {
		error_set(err, EUCLEAN, "its superblock is damaged: it lists %u members",
			  super->count);
		return MIRROR_DAMAGED;
	}
	for (unsigned i = 0; i < super->count; i++) {
		const uint8_t *at = block + AT_MEMBERS + i * MEMBER;
		struct mirror_member *m = &super->member[i];

		memcpy(m->uuid.byte, at, 16);
		m->in_sync = get(at + MEMBER_STATE, 4) == 1;
		m->end = get(at + MEMBER_END, 8);
		m->confirmed = get_stamp(at + MEMBER_CONFIRMED);
		m->attempted = get_stamp(at + MEMBER_ATTEMPTED);
	}
	wrong = nonsense(super, end);
	if (!wrong)
		return MIRROR_GOOD;
	error_set(err, EUCLEAN, "its superblock is damaged: %s", wrong);
	return MIRROR_DAMAGED;
}

/*
 * Both are written for each change, one after the other: so if one is torn or damaged the other one
 * has the state before or after the change, and either will do. One that is torn while the other
 * was never written is that of a leg that was being taken in: it is no member yet.
 */
enum mirror_found mirror_supers_decode(const uint8_t *blocks, uint64_t end,
				       struct mirror_super *super, struct error *err)
{
	enum mirror_found found[MIRROR_COPIES];
	struct mirror_super one;
	bool good = false, none = false;

	for (unsigned i = 0; i < MIRROR_COPIES; i++) {
		found[i] = mirror_super_decode(blocks + i * MIRROR_BLOCK, end, &one, err);
		none |= found[i] == MIRROR_NONE;
		if (found[i] != MIRROR_GOOD ||
		    (good && one.stamp.generation <= super->stamp.generation))
			continue;
		*super = one;
		good = true;
	}
	return good ? MIRROR_GOOD : none ? MIRROR_NONE : MIRROR_DAMAGED;
}

/* --- the bitmap --------------------------------------------------------------------- */

enum { SECTOR_MAGIC = 0x4d424d50, SECTOR_CRC = 4, SECTOR_INDEX = 8, SECTOR_SET = 12, BITS = 16 };

static uint32_t sector_checksum(const uint8_t *sector)
{
	uint32_t crc = crc32c(0, sector, SECTOR_CRC);

	return crc32c(crc, sector + SECTOR_INDEX, MIRROR_SECTOR - SECTOR_INDEX);
}

void mirror_sector_encode(const struct mirror_uuid *set, uint32_t index, const uint8_t *bits,
			  uint8_t sector[MIRROR_SECTOR])
{
	put(sector, SECTOR_MAGIC, 4);
	put(sector + SECTOR_INDEX, index, 4);
	memcpy(sector + SECTOR_SET, set->byte, 4);
	memcpy(sector + BITS, bits, MIRROR_SECTOR_BITS / 8);
	put(sector + SECTOR_CRC, sector_checksum(sector), 4);
}

bool mirror_sector_decode(const uint8_t sector[MIRROR_SECTOR], const struct mirror_uuid *set,
			  uint32_t index, uint8_t *bits)
{
	if (get(sector, 4) != SECTOR_MAGIC || get(sector + SECTOR_INDEX, 4) != index ||
	    (set && memcmp(sector + SECTOR_SET, set->byte, 4)) ||
	    get(sector + SECTOR_CRC, 4) != sector_checksum(sector))
		return false;
	for (unsigned i = 0; i < MIRROR_SECTOR_BITS / 8; i++)
		bits[i] |= sector[BITS + i];
	return true;
}

/* --- members ------------------------------------------------------------------------ */

bool mirror_uuid_equal(const struct mirror_uuid *a, const struct mirror_uuid *b)
{
	return !memcmp(a->byte, b->byte, sizeof a->byte);
}

char *mirror_uuid_text(const struct mirror_uuid *uuid, char text[MIRROR_UUID_TEXT])
{
	char *at = text;

	for (unsigned i = 0; i < 16; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			      uuid->byte[i]);
	return text;
}

struct mirror_member *mirror_member(struct mirror_super *super, const struct mirror_uuid *uuid)
{
	for (unsigned i = 0; i < super->count; i++)
		if (mirror_uuid_equal(&super->member[i].uuid, uuid))
			return &super->member[i];
	return NULL;
}

void mirror_forget(struct mirror_super *super, unsigned index)
{
	super->count--;
	memmove(&super->member[index], &super->member[index + 1],
		(super->count - index) * sizeof *super->member);
}

/* --- which leg has the data --------------------------------------------------------- */

static bool stamp_equal(struct mirror_stamp a, struct mirror_stamp b)
{
	return a.generation == b.generation && a.tag == b.tag;
}

static const struct mirror_member *entry(const struct mirror_super *super,
					 const struct mirror_super *of)
{
	return mirror_member((struct mirror_super *)super, &of->self);
}

bool mirror_knows(const struct mirror_super *super, const struct mirror_super *other)
{
	const struct mirror_member *m = entry(super, other);

	return m &&
	       (stamp_equal(m->confirmed, other->stamp) || stamp_equal(m->attempted, other->stamp));
}

/* By its table the other one lacks data. */
static bool excludes(const struct mirror_super *super, const struct mirror_super *other)
{
	const struct mirror_member *m = entry(super, other);

	return !m || !m->in_sync;
}

/*
 * @a may be taken for the truth beside @b: it has followed upon what @b has. Or neither knows the
 * other's last table, and only @a goes on without the other one: then @b's table was on its way to
 * both when all ended, and nothing was acknowledged under it.
 */
static bool stands(const struct mirror_super *a, const struct mirror_super *b)
{
	return mirror_knows(a, b) || (!mirror_knows(b, a) && excludes(a, b) && !excludes(b, a));
}

static bool stands_before_all(const struct mirror_super *const legs[], unsigned count, unsigned w)
{
	if (excludes(legs[w], legs[w]))
		return false;
	for (unsigned i = 0; i < count; i++)
		if (i != w && legs[i] && !stands(legs[w], legs[i]))
			return false;
	return true;
}

/* No leg stands: in words, why. */
static int explain(const struct mirror_super *const legs[], unsigned count, struct error *err)
{
	for (unsigned a = 0; a < count; a++) {
		for (unsigned b = a + 1; b < count; b++) {
			if (!legs[a] || !legs[b] || excludes(legs[a], legs[a]) ||
			    excludes(legs[b], legs[b]) || mirror_knows(legs[a], legs[b]) ||
			    mirror_knows(legs[b], legs[a]))
				continue;
			return error_set(
				err, ENOTUNIQ,
				"split brain: leg %u (generation %llu) and leg %u (generation %llu) were "
				"both written without the other, and nobody but you can say which data "
				"counts; start with the leg you want to keep alone, and wipe the other "
				"one's superblock before you add it again (penstock inspect --wipe)",
				a, (unsigned long long)legs[a]->stamp.generation, b,
				(unsigned long long)legs[b]->stamp.generation);
		}
	}
	return error_set(
		err, ENODATA,
		"no leg that is here has all data: they know of another one that went on "
		"without them; bring that leg back, or, if the disk went on without its mirror, "
		"wipe the superblocks of what it left behind (penstock inspect --wipe)");
}

int mirror_judge(const struct mirror_super *const legs[], unsigned count, unsigned *winner,
		 struct error *err)
{
	const struct mirror_super *first = NULL, *best = NULL;

	for (unsigned i = 0; i < count; i++) {
		if (!legs[i])
			continue;
		if (!first)
			first = legs[i];
		if (!mirror_uuid_equal(&first->set, &legs[i]->set))
			return error_set(err, EINVAL,
					 "leg %u belongs to another mirror than the legs before it",
					 i);
		for (unsigned k = 0; k < i; k++)
			if (legs[k] && mirror_uuid_equal(&legs[k]->self, &legs[i]->self))
				return error_set(
					err, EINVAL,
					"legs %u and %u are the same member: one is a copy of the "
					"other, or they are one thing",
					k, i);
	}
	for (unsigned i = 0; i < count; i++) {
		if (!legs[i] || !stands_before_all(legs, count, i) ||
		    (best && best->stamp.generation >= legs[i]->stamp.generation))
			continue;
		best = legs[i];
		*winner = i;
	}
	return best ? 0 : explain(legs, count, err);
}
