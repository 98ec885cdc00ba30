/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_format.c - the header and the map of an overlay's store; see overlay_format.h
 *
 * A page of the map has two slots; it is written to the one that does not count. Each of its
 * 512-byte sectors has a checksum and the sequence of the write, so that a page torn by a loss of
 * power (its sectors are good, of two sequences) is told from a damaged one (a sector is bad).
 */
#include "layer/overlay_format.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "util/crc32c.h"
#include "util/error.h"

#define MAGIC         "PENSTOVL"
#define VERSION       1u
#define SECTOR        512u
#define PAGE_SECTORS  (OVERLAY_PAGE / SECTOR)
#define SECTOR_WORDS  (OVERLAY_PAGE_WORDS / PAGE_SECTORS)
#define MAP_OFFSET    65536u
#define ALIGNMENT     (1u << 20) /* of the data */
#define ROOM          16u        /* the disk can grow so many times */
#define LARGEST_DISK  (1ull << 56)
#define LARGEST_MAP   (1ull << 27) /* pages */
#define LARGEST_BLOCK (1u << 20)

struct header_bytes {
	char magic[8];
	uint32_t crc; /* of what follows */
	uint32_t version;
	unsigned char id[16];
	uint64_t sequence;
	uint64_t size;
	uint32_t block;
	uint32_t reserved;
	uint64_t pages;
	uint64_t map_offset;
	uint64_t data_offset;
	uint64_t floor;
	uint64_t base_size;
	uint32_t base_sum;
	unsigned char zero[412];
};
_Static_assert(sizeof(struct header_bytes) == OVERLAY_HEADER_BYTES, "no holes");

struct sector_bytes {
	uint32_t crc;    /* of what follows, going on from that of the id */
	uint32_t number; /* of the sector in the map: (page * 2 + slot) * 8 + n */
	uint64_t sequence;
	uint64_t words[SECTOR_WORDS];
};
_Static_assert(sizeof(struct sector_bytes) == SECTOR, "no holes");

/* --- where things are ------------------------------------------------------------------- */

void overlay_header_lay_out(struct overlay_header *header, uint64_t size, uint32_t block)
{
	header->size = size;
	header->block = block;
	header->pages = overlay_header_pages(header) * ROOM;
	header->map_offset = MAP_OFFSET;
	header->data_offset = (MAP_OFFSET + 2 * header->pages * OVERLAY_PAGE + ALIGNMENT - 1) /
			      ALIGNMENT * ALIGNMENT;
}

uint64_t overlay_header_pages(const struct overlay_header *header)
{
	uint64_t bytes = (uint64_t)OVERLAY_PAGE_BLOCKS * header->block;

	return (header->size + bytes - 1) / bytes;
}

uint64_t overlay_header_need(const struct overlay_header *header)
{
	return header->data_offset +
	       (header->size + header->block - 1) / header->block * header->block;
}

uint64_t overlay_page_offset(const struct overlay_header *header, uint64_t page, unsigned slot)
{
	return header->map_offset + (slot * header->pages + page) * OVERLAY_PAGE;
}

/* --- the header ------------------------------------------------------------------------- */

static uint32_t header_crc(const unsigned char *bytes)
{
	size_t start = offsetof(struct header_bytes, version);

	return crc32c(0, bytes + start, OVERLAY_HEADER_BYTES - start);
}

void overlay_header_encode(const struct overlay_header *header,
			   unsigned char bytes[OVERLAY_HEADER_BYTES])
{
	struct header_bytes h = {
		.version = htole32(VERSION),
		.sequence = htole64(header->sequence),
		.size = htole64(header->size),
		.block = htole32(header->block),
		.pages = htole64(header->pages),
		.map_offset = htole64(header->map_offset),
		.data_offset = htole64(header->data_offset),
		.floor = htole64(header->floor),
		.base_size = htole64(header->base_size),
		.base_sum = htole32(header->base_sum),
	};

	memcpy(h.magic, MAGIC, sizeof h.magic);
	memcpy(h.id, header->id, sizeof h.id);
	memcpy(bytes, &h, sizeof h);
	h.crc = htole32(header_crc(bytes));
	memcpy(bytes, &h, sizeof h);
}

static bool possible(const struct overlay_header *h)
{
	return h->block >= SECTOR && h->block <= LARGEST_BLOCK && !(h->block & (h->block - 1)) &&
	       h->size && h->size <= LARGEST_DISK && !(h->size % SECTOR) &&
	       h->pages <= LARGEST_MAP && overlay_header_pages(h) <= h->pages &&
	       h->map_offset >= OVERLAY_HEADER_COPY + OVERLAY_PAGE &&
	       h->map_offset < LARGEST_DISK && !(h->map_offset % OVERLAY_PAGE) &&
	       h->data_offset >= h->map_offset + 2 * h->pages * OVERLAY_PAGE &&
	       h->data_offset < LARGEST_DISK && !(h->data_offset % OVERLAY_PAGE);
}

static bool blank(const unsigned char *bytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, OVERLAY_HEADER_BYTES - 1);
}

static int decode_copy(const unsigned char *bytes, struct overlay_header *header, struct error *err)
{
	struct header_bytes h;

	memcpy(&h, bytes, sizeof h);
	if (memcmp(h.magic, MAGIC, sizeof h.magic))
		return error_set(err, EMEDIUMTYPE,
				 "the store holds something else than an overlay; expected one, or "
				 "zeroes where its header goes");
	if (le32toh(h.crc) != header_crc(bytes))
		return error_set(err, EBADMSG,
				 "the header of the store is damaged: its checksum is "
				 "wrong");
	if (le32toh(h.version) != VERSION)
		return error_set(err, ENOTSUP,
				 "the store is of version %u; this penstock knows version %u",
				 le32toh(h.version), VERSION);
	*header = (struct overlay_header){
		.sequence = le64toh(h.sequence),
		.size = le64toh(h.size),
		.block = le32toh(h.block),
		.pages = le64toh(h.pages),
		.map_offset = le64toh(h.map_offset),
		.data_offset = le64toh(h.data_offset),
		.floor = le64toh(h.floor),
		.base_size = le64toh(h.base_size),
		.base_sum = le32toh(h.base_sum),
	};
	memcpy(header->id, h.id, sizeof h.id);
	if (!possible(header))
		return error_set(err, EBADMSG,
				 "the header of the store is damaged: its numbers do not agree");
	return 0;
}

/*
 * Both copies are written, one after the other, so one of them is always whole; if both are, the
 * later one counts.
 */
int overlay_header_decode(const unsigned char copies[2][OVERLAY_HEADER_BYTES],
			  struct overlay_header *header, struct error *err)
{
	struct overlay_header h[2];
	struct error wrong[2] = { 0 };
	int ret[2];
	unsigned at;

	if (blank(copies[0]) && blank(copies[1]))
		return -ENODATA;
	for (unsigned i = 0; i < 2; i++)
		ret[i] = decode_copy(copies[i], &h[i], &wrong[i]);
	if (ret[0] && ret[1]) {
		/* A copy that is one of ours tells more than one that is nothing. */
		const struct error *e = &wrong[ret[0] == -EMEDIUMTYPE];

		return error_set(err, e->code, "%s", e->text);
	}
	at = ret[0] || (!ret[1] && h[1].sequence > h[0].sequence);
	*header = h[at];
	header->copy = at;
	return 0;
}

/* --- the map ---------------------------------------------------------------------------- */

static uint32_t sector_crc(const struct overlay_header *header, const struct sector_bytes *s)
{
	uint32_t crc = crc32c(0, header->id, sizeof header->id);

	return crc32c(crc, &s->number, sizeof *s - offsetof(struct sector_bytes, number));
}

static uint32_t sector_number(uint64_t page, unsigned slot, unsigned n)
{
	return (uint32_t)((page * 2 + slot) * PAGE_SECTORS + n);
}

void overlay_page_encode(const struct overlay_header *header, uint64_t page, unsigned slot,
			 uint64_t sequence, const uint64_t words[OVERLAY_PAGE_WORDS],
			 unsigned char bytes[OVERLAY_PAGE])
{
	for (unsigned n = 0; n < PAGE_SECTORS; n++) {
		struct sector_bytes s = { .number = htole32(sector_number(page, slot, n)),
					  .sequence = htole64(sequence) };

		for (unsigned i = 0; i < SECTOR_WORDS; i++)
			s.words[i] = htole64(words[n * SECTOR_WORDS + i]);
		s.crc = htole32(sector_crc(header, &s));
		memcpy(bytes + n * SECTOR, &s, sizeof s);
	}
}

/* What a slot looks like. */
struct slot {
	bool whole;       /* all sectors are of one write */
	unsigned good;    /* sectors that are not damaged */
	uint64_t highest; /* sequence of a good one */
};

static struct slot look_at(const struct overlay_header *header, uint64_t page, unsigned slot,
			   const unsigned char *bytes)
{
	struct slot found = { .whole = true };
	uint64_t first = 0;

	for (unsigned n = 0; n < PAGE_SECTORS; n++) {
		struct sector_bytes s;
		uint64_t sequence;

		memcpy(&s, bytes + n * SECTOR, sizeof s);
		sequence = le64toh(s.sequence);
		/* Zeroes were never written: sequence 0. */
		if (!blank(bytes + n * SECTOR) &&
		    (le32toh(s.number) != sector_number(page, slot, n) || !sequence ||
		     le32toh(s.crc) != sector_crc(header, &s))) {
			found.whole = false;
			continue;
		}
		if (!found.good++)
			first = sequence;
		if (sequence != first)
			found.whole = false;
		if (sequence > found.highest)
			found.highest = sequence;
	}
	return found;
}

/* Which slot counts, if the other is damaged? That can be told if it is older for sure. */
static bool can_tell(const struct slot found[2])
{
	for (unsigned i = 0; i < 2; i++) {
		const struct slot *bad = &found[i], *other = &found[!i];

		if (bad->good < PAGE_SECTORS &&
		    !(other->whole && bad->good && bad->highest <= other->highest))
			return false;
	}
	return true;
}

int overlay_page_decode(const struct overlay_header *header, uint64_t page,
			const unsigned char *const slots[2], uint64_t words[OVERLAY_PAGE_WORDS],
			struct overlay_page *state, struct error *err)
{
	struct slot found[2] = { look_at(header, page, 0, slots[0]),
				 look_at(header, page, 1, slots[1]) };
	unsigned at;

	*state = (struct overlay_page){ .slot = 1 };
	memset(words, 0, OVERLAY_PAGE_WORDS * sizeof *words);
	if (!can_tell(found))
		return error_set(
			err, EBADMSG,
			"page %llu of the map is damaged, at bytes %llu and %llu of the store",
			(unsigned long long)page,
			(unsigned long long)overlay_page_offset(header, page, 0),
			(unsigned long long)overlay_page_offset(header, page, 1));
	for (unsigned i = 0; i < 2; i++) {
		if (found[i].highest > state->highest)
			state->highest = found[i].highest;
		if (found[i].whole && found[i].highest > header->floor &&
		    found[i].highest > state->sequence) {
			state->sequence = found[i].highest;
			state->slot = i;
		}
	}
	if (!state->sequence)
		return 0;
	for (unsigned i = 0; i < OVERLAY_PAGE_WORDS; i++) {
		at = i / SECTOR_WORDS * SECTOR + (unsigned)offsetof(struct sector_bytes, words) +
		     i % SECTOR_WORDS * 8;
		memcpy(&words[i], slots[state->slot] + at, 8);
		words[i] = le64toh(words[i]);
		if (words[i] & words[i] >> 1 & 0x5555555555555555ull)
			return error_set(
				err, EBADMSG,
				"page %llu of the map is damaged: it has a state that there "
				"is not",
				(unsigned long long)page);
	}
	return 0;
}
