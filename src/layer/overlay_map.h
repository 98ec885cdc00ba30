/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_map.h - an overlay's map in memory: two bits a block, read without a lock
 *
 * A block begins as the base's. It may become ZERO, and it may become DATA, which it stays: so what
 * a reader found remains right for as long as its request takes, and who finds DATA may write in
 * place. Costs 2 bits a block: 64 KiB of memory for each GiB of disk, in blocks of 4 KiB.
 *
 * A page that changed is dirty until a commit takes it; see overlay_commit.c.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "layer/overlay_format.h"

struct overlay_map {
	char *head;                /* OVERLAY_MAP_HEAD bytes of a file that keeps it */
	int fd;                    /* of that, for its owner's use, or -1 */
	_Atomic uint64_t *words;   /* behind that */
	_Atomic uint64_t *dirty;   /* a bit a page */
	uint64_t pages;            /* there is room for */
	size_t mapped;             /* bytes of address space, at @head */
	_Atomic bool unsettled;    /* a page is dirty, perhaps */
	_Atomic uint64_t count[3]; /* blocks that are DATA, ZERO */
};

#define OVERLAY_MAP_HEAD 4096u

/**
 * Room for @pages, in the file @fd, or in memory if that is -1: then all blocks are the base's.
 * @copy: what is changed does not go to the file. Memory is used for what is written. 0 or -ENOMEM.
 */
int overlay_map_init(struct overlay_map *map, uint64_t pages, int fd, bool copy);

/** Closes the file, too, if map.fd is set. */
void overlay_map_release(struct overlay_map *map);

/** True if the first @pages have no state that there is not. */
bool overlay_map_good(const struct overlay_map *map, uint64_t pages);

/** All blocks of the first @pages are the base's again, and clean. Nobody may use it meanwhile. */
void overlay_map_clear(struct overlay_map *map, uint64_t pages);

static inline enum overlay_state overlay_map_get(const struct overlay_map *map, uint64_t block)
{
	return (enum overlay_state)(atomic_load_explicit(&map->words[block / OVERLAY_WORD_BLOCKS],
							 memory_order_acquire) >>
					    block % OVERLAY_WORD_BLOCKS * 2 &
				    3);
}

/** How many blocks from @first on, @count at most, are in the @state of the first one. */
uint64_t overlay_map_run(const struct overlay_map *map, uint64_t first, uint64_t count,
			 enum overlay_state *state);

/** True if all blocks are DATA. */
static inline bool overlay_map_is_data(const struct overlay_map *map, uint64_t first,
				       uint64_t count)
{
	enum overlay_state state = overlay_map_get(map, first);

	return state == OVERLAY_DATA &&
	       (count == 1 || overlay_map_run(map, first, count, &state) == count);
}

/** They are DATA now. */
void overlay_map_set_data(struct overlay_map *map, uint64_t first, uint64_t count);

/** Those that were the base's are ZERO now. */
void overlay_map_set_zero(struct overlay_map *map, uint64_t first, uint64_t count);

/** True if the page of one of the blocks is dirty. */
bool overlay_map_is_dirty(const struct overlay_map *map, uint64_t first, uint64_t count);

/** Marks @page dirty. */
void overlay_map_dirty(struct overlay_map *map, uint64_t page);

/**
 * Takes up to @most dirty pages from *@cursor on into @pages; they are clean then. How many. The
 * cursor, 0 at first, moves behind them; to the end of the map when there are no more.
 */
unsigned overlay_map_take(struct overlay_map *map, uint64_t *cursor, uint64_t *pages,
			  unsigned most);

/** Copies the words of @page out of the map. */
void overlay_map_copy_out(const struct overlay_map *map, uint64_t page,
			  uint64_t words[OVERLAY_PAGE_WORDS]);

/**
 * When it is loaded: @words are what the store has for @page. What the map has already (@left)
 * stays, and is dirty if it is something else; or @words become the map's.
 */
void overlay_map_load(struct overlay_map *map, uint64_t page, bool left,
		      const uint64_t words[OVERLAY_PAGE_WORDS]);
