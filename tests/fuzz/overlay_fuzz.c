/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_fuzz.c - headers and maps of an overlay's store, of any bytes
 *
 * An input is a first byte, two copies of a header and two slots of a page. Bits of the first byte
 * have the right checksums put into the copies and the sectors, so that what is behind them is
 * reached. What is taken must be the same after it was written and read again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "layer/overlay_format.h"
#include "util/crc32c.h"
#include "util/error.h"

#define SECTOR 512u

enum { SUM_HEADER_0 = 1, SUM_HEADER_1 = 2, SUM_SLOT_0 = 4, SUM_SLOT_1 = 8 };

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	return 0;
}

static void put_sum(unsigned char *at, uint32_t crc)
{
	memcpy(at, &crc, sizeof crc);
}

static void sum_page(const struct overlay_header *h, unsigned slot, unsigned char *page)
{
	uint32_t id = crc32c(0, h->id, sizeof h->id);

	for (unsigned n = 0; n < OVERLAY_PAGE / SECTOR; n++) {
		unsigned char *at = page + n * SECTOR;

		memcpy(at + 4, &(uint32_t){ slot * 8 + n }, 4);
		put_sum(at, crc32c(id, at + 4, SECTOR - 4));
	}
}

static void check_header(const struct overlay_header *h)
{
	unsigned char copies[2][OVERLAY_HEADER_BYTES];
	struct overlay_header again;
	struct error err = { 0 };

	overlay_header_encode(h, copies[0]);
	memset(copies[1], 0, sizeof copies[1]);
	if (overlay_header_decode(copies, &again, &err) || again.size != h->size ||
	    again.block != h->block || again.pages != h->pages ||
	    again.map_offset != h->map_offset || again.data_offset != h->data_offset ||
	    again.floor != h->floor || again.sequence != h->sequence ||
	    overlay_header_pages(h) > h->pages || overlay_header_need(h) < h->size) {
		fprintf(stderr, "overlay_fuzz: the header is not the same: %s\n", err.text);
		abort();
	}
}

static void check_page(const struct overlay_header *h, const struct overlay_page *state,
		       const uint64_t *words)
{
	unsigned char written[OVERLAY_PAGE], zeroes[OVERLAY_PAGE] = { 0 };
	const unsigned char *const slots[2] = { state->slot ? zeroes : written,
						state->slot ? written : zeroes };
	uint64_t again[OVERLAY_PAGE_WORDS];
	struct overlay_page found;
	struct error err = { 0 };

	overlay_page_encode(h, 0, state->slot, state->sequence, words, written);
	if (overlay_page_decode(h, 0, slots, again, &found, &err) ||
	    found.sequence != state->sequence || memcmp(again, words, sizeof again) != 0) {
		fprintf(stderr, "overlay_fuzz: the page is not the same: %s\n", err.text);
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t sums = input_byte(&in);
	unsigned char copies[2][OVERLAY_HEADER_BYTES], pages[2][OVERLAY_PAGE];
	const unsigned char *const slots[2] = { pages[0], pages[1] };
	uint64_t words[OVERLAY_PAGE_WORDS];
	struct overlay_header header;
	struct overlay_page state;
	struct error err = { 0 };

	for (unsigned i = 0; i < 2; i++) {
		input_bytes(&in, copies[i], sizeof copies[i]);
		if (sums & SUM_HEADER_0 << i)
			put_sum(copies[i] + 8, crc32c(0, copies[i] + 12, sizeof copies[i] - 12));
	}
	if (overlay_header_decode(copies, &header, &err))
		return 0;
	check_header(&header);
	for (unsigned i = 0; i < 2; i++) {
		input_bytes(&in, pages[i], sizeof pages[i]);
		if (sums & SUM_SLOT_0 << i)
			sum_page(&header, i, pages[i]);
	}
	if (overlay_page_decode(&header, 0, slots, words, &state, &err)) {
		if (!*err.text)
			abort();
	} else if (state.sequence) {
		check_page(&header, &state, words);
	}
	return 0;
}
