/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay_map.c - states of blocks, in words of 32; see overlay_map.h */
#include "layer/overlay_map.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOW 0x5555555555555555ull /* the lower bit of each state in a word */

int overlay_map_init(struct overlay_map *map, uint64_t pages, int fd, bool copy)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : copy ? MAP_PRIVATE : MAP_SHARED;
	void *memory;

	*map = (struct overlay_map){ .pages = pages, .fd = -1 };
	map->mapped = OVERLAY_MAP_HEAD + pages * OVERLAY_PAGE_WORDS * 8;
	map->dirty = calloc((pages + 63) / 64, sizeof *map->dirty);
	memory = mmap(NULL, map->mapped, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
	if (!map->dirty || memory == MAP_FAILED) {
		if (memory != MAP_FAILED)
			munmap(memory, map->mapped);
		free((void *)map->dirty);
		return -ENOMEM;
	}
	map->head = memory;
	map->words = (void *)(map->head + OVERLAY_MAP_HEAD);
	return 0;
}

void overlay_map_release(struct overlay_map *map)
{
	if (!map->head)
		return;
	munmap(map->head, map->mapped);
	free((void *)map->dirty);
	if (map->fd >= 0)
		close(map->fd);
	*map = (struct overlay_map){ .fd = -1 };
}

bool overlay_map_good(const struct overlay_map *map, uint64_t pages)
{
	for (uint64_t i = 0; i < pages * OVERLAY_PAGE_WORDS; i++) {
		uint64_t word = atomic_load_explicit(&map->words[i], memory_order_relaxed);

		if (word & word >> 1 & LOW)
			return false;
	}
	return true;
}

void overlay_map_clear(struct overlay_map *map, uint64_t pages)
{
	for (uint64_t i = 0; i < pages * OVERLAY_PAGE_WORDS; i++)
		if (atomic_load_explicit(&map->words[i], memory_order_relaxed))
			atomic_store_explicit(&map->words[i], 0, memory_order_relaxed);
	for (uint64_t i = 0; i < (pages + 63) / 64; i++)
		map->dirty[i] = 0;
	map->unsettled = false;
	for (unsigned i = 0; i < 3; i++)
		map->count[i] = 0;
}

/* The bits of the states of blocks [@first, @first+@count) that are in the word of the first. */
static uint64_t mask_of(uint64_t first, uint64_t count, uint64_t *here)
{
	unsigned start = first % OVERLAY_WORD_BLOCKS;

	*here = OVERLAY_WORD_BLOCKS - start;
	if (*here > count)
		*here = count;
	return ~0ull >> (64 - 2 * *here) << 2 * start;
}

uint64_t overlay_map_run(const struct overlay_map *map, uint64_t first, uint64_t count,
			 enum overlay_state *state)
{
	uint64_t run = 0, here, word, mask, other;

	*state = overlay_map_get(map, first);
	while (run < count) {
		mask = mask_of(first + run, count - run, &here);
		word = atomic_load_explicit(&map->words[(first + run) / OVERLAY_WORD_BLOCKS],
					    memory_order_acquire);
		other = (word ^ LOW * *state) & mask;
		if (other) {
			unsigned at = (unsigned)__builtin_ctzll(other) / 2;
			uint64_t differs = at - (first + run) % OVERLAY_WORD_BLOCKS;

			/* The first one may have changed since it was looked at. */
			return run + differs ? run + differs : 1;
		}
		run += here;
	}
	return count;
}

void overlay_map_dirty(struct overlay_map *map, uint64_t page)
{
	uint64_t bit = 1ull << page % 64;

	if (!(atomic_load(&map->dirty[page / 64]) & bit))
		atomic_fetch_or(&map->dirty[page / 64], bit);
	if (!atomic_load(&map->unsettled))
		atomic_store(&map->unsettled, true);
}

/* DATA: whatever they were. ZERO: those that were BASE. */
static void set(struct overlay_map *map, uint64_t first, uint64_t count, enum overlay_state to)
{
	uint64_t last = first + count - 1, here, mask, was, now, changed;
	bool any = false;

	for (uint64_t at = first; at <= last; at += here) {
		_Atomic uint64_t *word = &map->words[at / OVERLAY_WORD_BLOCKS];

		mask = mask_of(at, last - at + 1, &here);
		was = atomic_load_explicit(word, memory_order_relaxed);
		do {
			now = to == OVERLAY_DATA ? (was & ~mask) | (LOW & mask)
						 : was | (~(was | was >> 1) & LOW & mask) << 1;
		} while (now != was && !atomic_compare_exchange_weak(word, &was, now));
		changed = was ^ now;
		if (!changed)
			continue;
		any = true;
		/* Of those that changed: the lower bit was 0, so it is ZERO's upper bit that tells.
		 */
		atomic_fetch_add(&map->count[to],
				 (uint64_t)__builtin_popcountll((changed | changed >> 1) & LOW));
		if (to == OVERLAY_DATA)
			atomic_fetch_sub(&map->count[OVERLAY_ZERO],
					 (uint64_t)__builtin_popcountll(changed & ~LOW));
	}
	if (!any)
		return;
	for (uint64_t page = first / OVERLAY_PAGE_BLOCKS; page <= last / OVERLAY_PAGE_BLOCKS;
	     page++)
		overlay_map_dirty(map, page);
}

void overlay_map_set_data(struct overlay_map *map, uint64_t first, uint64_t count)
{
	set(map, first, count, OVERLAY_DATA);
}

void overlay_map_set_zero(struct overlay_map *map, uint64_t first, uint64_t count)
{
	set(map, first, count, OVERLAY_ZERO);
}

bool overlay_map_is_dirty(const struct overlay_map *map, uint64_t first, uint64_t count)
{
	uint64_t last = (first + count - 1) / OVERLAY_PAGE_BLOCKS;

	for (uint64_t page = first / OVERLAY_PAGE_BLOCKS; page <= last; page++)
		if (atomic_load(&map->dirty[page / 64]) >> page % 64 & 1)
			return true;
	return false;
}

unsigned overlay_map_take(struct overlay_map *map, uint64_t *cursor, uint64_t *pages, unsigned most)
{
	unsigned n = 0;

	/* Before the bits are read: whoever sets one later says so again. */
	if (!*cursor)
		atomic_store(&map->unsettled, false);
	while (*cursor < map->pages && n < most) {
		uint64_t bit = 1ull << *cursor % 64;
		_Atomic uint64_t *word = &map->dirty[*cursor / 64];
		uint64_t bits = atomic_load(word);

		if (!(bits >> *cursor % 64)) {
			*cursor = (*cursor / 64 + 1) * 64;
			continue;
		}
		if (bits & bit) {
			atomic_fetch_and(word, ~bit);
			pages[n++] = *cursor;
		}
		++*cursor;
	}
	return n;
}

void overlay_map_copy_out(const struct overlay_map *map, uint64_t page,
			  uint64_t words[OVERLAY_PAGE_WORDS])
{
	for (unsigned i = 0; i < OVERLAY_PAGE_WORDS; i++)
		words[i] = atomic_load_explicit(&map->words[page * OVERLAY_PAGE_WORDS + i],
						memory_order_acquire);
}

void overlay_map_load(struct overlay_map *map, uint64_t page, bool left,
		      const uint64_t words[OVERLAY_PAGE_WORDS])
{
	bool differs = false;

	for (unsigned i = 0; i < OVERLAY_PAGE_WORDS; i++) {
		_Atomic uint64_t *at = &map->words[page * OVERLAY_PAGE_WORDS + i];
		uint64_t word = left ? atomic_load_explicit(at, memory_order_relaxed) : words[i];

		differs |= word != words[i];
		if (!left && word)
			atomic_store_explicit(at, word, memory_order_relaxed);
		map->count[OVERLAY_DATA] += (uint64_t)__builtin_popcountll(word & LOW);
		map->count[OVERLAY_ZERO] += (uint64_t)__builtin_popcountll(word & ~LOW);
	}
	if (differs)
		overlay_map_dirty(map, page);
}
