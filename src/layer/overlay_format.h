/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_format.h - what an overlay's store has in front of its data: docs/overlay-format.md
 *
 * No I/O here: bytes to structs and back. What is read may be anything, and is checked.
 */
#pragma once

#include <stdint.h>

struct error;

#define OVERLAY_HEADER_BYTES 512u
#define OVERLAY_HEADER_COPY  4096u /* where the second one is */
#define OVERLAY_PAGE         4096u /* bytes of a page of the map */
#define OVERLAY_PAGE_WORDS   496u  /* 64-bit words of states in it */
#define OVERLAY_WORD_BLOCKS  32u   /* blocks that one word tells of, two bits each */
#define OVERLAY_PAGE_BLOCKS  (OVERLAY_PAGE_WORDS * OVERLAY_WORD_BLOCKS)

/** Where the bytes of a block are. */
enum overlay_state { OVERLAY_BASE, OVERLAY_DATA, OVERLAY_ZERO };

/** The header. */
struct overlay_header {
	unsigned char id[16];
	uint64_t sequence;    /**< one more each time the header is written */
	uint64_t size;        /**< of the disk, bytes */
	uint32_t block;       /**< bytes; a power of 2 */
	uint64_t pages;       /**< the map has room for */
	uint64_t map_offset;  /**< in the store, bytes */
	uint64_t data_offset; /**< likewise: of the disk's first byte */
	uint64_t floor;       /**< pages with this sequence, or one below it, are void */
	uint64_t base_size;   /**< bytes */
	uint32_t base_sum;    /**< see the document */
	unsigned copy;        /**< of the header that counts: the other is to be written first */
};

/** What is known of a page of the map. */
struct overlay_page {
	uint64_t sequence; /**< 0: void, all blocks are the base's */
	uint64_t highest;  /**< sequence that is found in it, void or torn included */
	unsigned slot;     /**< that holds it: 0 or 1; the next one goes to the other */
};

/** Fills in where everything is, for a new store of a disk of @size bytes. */
void overlay_header_lay_out(struct overlay_header *header, uint64_t size, uint32_t block);

/** Pages that @header->size takes. */
uint64_t overlay_header_pages(const struct overlay_header *header);

/** Bytes that the store must have. */
uint64_t overlay_header_need(const struct overlay_header *header);

/** Where @page is in @slot, in the store. */
uint64_t overlay_page_offset(const struct overlay_header *header, uint64_t page, unsigned slot);

void overlay_header_encode(const struct overlay_header *header,
			   unsigned char bytes[OVERLAY_HEADER_BYTES]);

/**
 * Decodes the header from its two copies. 0; -ENODATA if there are zeroes only; -EMEDIUMTYPE if it
 * is something else, -ENOTSUP if it is of another version, -EBADMSG if it is damaged, with @err.
 */
int overlay_header_decode(const unsigned char copies[2][OVERLAY_HEADER_BYTES],
			  struct overlay_header *header, struct error *err);

/** Writes @words as a page. */
void overlay_page_encode(const struct overlay_header *header, uint64_t page, unsigned slot,
			 uint64_t sequence, const uint64_t words[OVERLAY_PAGE_WORDS],
			 unsigned char bytes[OVERLAY_PAGE]);

/**
 * Finds out which of the two slots of @page counts, and its words (zeroes if none does). 0, or
 * -EBADMSG with @err if what counts may be damaged.
 */
int overlay_page_decode(const struct overlay_header *header, uint64_t page,
			const unsigned char *const slots[2], uint64_t words[OVERLAY_PAGE_WORDS],
			struct overlay_page *state, struct error *err);
