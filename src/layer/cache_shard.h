/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_shard.h - a part of a cache pool: its pages, and which of them stay (S3-FIFO)
 *
 * Pages are spread over shards by a hash of what they are, and each shard has its own lock, memory
 * and queues. A lock is held for a look-up or an insertion, never while data are copied; so it is
 * hardly ever contended.
 *
 * Which page goes: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP
 * 2023). A new page enters a small queue, a tenth of the memory. At its end it leaves the cache
 * unless it was used twice meanwhile; then it enters the main queue. The main queue gives a page
 * another round for each use, three at most. Pages that left the small queue are remembered,
 * without their bytes, for as many evictions as the main queue has pages; one that returns within
 * that time enters the main queue. A scan, which uses each page once, passes through the small
 * queue and leaves the rest alone.
 *
 * A page's number here is its place in the shard plus 1, so that 0 is none.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum cache_state {
	PAGE_FREE,    /* its bytes are nobody's */
	PAGE_FILLING, /* claimed; can be found */
	PAGE_VALID,   /* can be found and read */
	PAGE_BUSY,    /* valid but for an update under way; can be found */
	PAGE_VOID,    /* cannot be found; whoever fills or updates it frees it */
	PAGE_PINNED,  /* cannot be found; free when its readers are gone */
};

enum cache_queue { QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN };

struct cache_page {
	uint64_t number;       /* what it is: this page of that store */
	uint64_t hash;         /* of that */
	struct io *waiters;    /* while it is filling */
	uint32_t store;        /* id */
	uint32_t chain;        /* next in its hash chain, or in a list of free ones */
	uint32_t newer, older; /* in its queue */
	_Atomic uint32_t pins; /* readers */
	uint8_t state;         /* enum cache_state */
	uint8_t queue;         /* enum cache_queue; while filling, the one that it will enter */
	uint8_t uses;          /* 0..3 */
	bool ahead : 1;        /* read ahead, and not asked for yet */
	bool behind : 1;       /* its bytes are still to be written below; pinned for that */
};

_Static_assert(sizeof(struct cache_page) == 48, "INDEX_BYTES of cache_pool.c counts on it");

struct fifo {
	uint32_t newest, oldest, count;
};

#define CACHE_WRITING 256 /* counters of writes under way; pages share them by their hash */

struct cache_shard {
	pthread_mutex_t lock;
	uint32_t page_size;
	uint32_t reserved; /* pages for which there is address space */
	uint32_t budget;   /* pages that may be in memory */
	uint32_t resident; /* pages that are, those that are free included */
	uint32_t fresh;    /* pages that were never in memory: this one and those behind it */
	uint32_t free;     /* list: in memory */
	uint32_t gone;     /* list: given back to the kernel */
	uint32_t pinned;   /* list: PAGE_PINNED */
	struct cache_page *pages;
	char *bytes;
	uint32_t *heads; /* of hash chains */
	uint32_t heads_mask;
	struct fifo small, main;
	struct ghost {
		uint32_t print, time; /* 0, 0: empty */
	} * ghosts;                   /* in sets of 4 */
	uint32_t ghosts_mask, ghosts_time;
	uint32_t writing[CACHE_WRITING];
	uint64_t evictions;
} __attribute__((aligned(64)));

/** A shard that may have @budget pages, and @reserved later. 0 or -ENOMEM. */
int cache_shard_open(struct cache_shard *shard, uint32_t page_size, uint32_t budget,
		     uint32_t reserved);
void cache_shard_close(struct cache_shard *shard);

/** Other functions: with the lock held. @hash is that of the page. */

/** The page that can be found, or NULL. */
struct cache_page *cache_shard_find(struct cache_shard *shard, uint32_t store, uint64_t number,
				    uint64_t hash);

/** A page to fill, which can be found from now on; NULL if all memory is in use just now. */
struct cache_page *cache_shard_claim(struct cache_shard *shard, uint32_t store, uint64_t number,
				     uint64_t hash);

/** Its bytes are there: it is valid, and enters its queue. */
void cache_shard_insert(struct cache_shard *shard, struct cache_page *page);

/** A page that can be found cannot any more; it is free, or will be. */
void cache_shard_drop(struct cache_shard *shard, struct cache_page *page);

/** A page that is void is nobody's any more. */
void cache_shard_free(struct cache_shard *shard, struct cache_page *page);

/** Drops what is more than the budget; true if there may be more to do. */
bool cache_shard_trim(struct cache_shard *shard);

char *cache_shard_bytes(struct cache_shard *shard, const struct cache_page *page);

/**
 * The hash of a page of the store with @seed; a pool takes its highest bits for the shard. Sixteen
 * pages that follow one another have places that do, too, in one shard; so a long read finds what
 * it needs in few cache lines of the processor.
 */
static inline uint64_t cache_hash(uint64_t seed, uint64_t number)
{
	uint64_t hash = (number / 16 + seed) * 0x9e3779b97f4a7c15ull;

	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ull;
	hash ^= hash >> 32;
	return (hash & ~15ull) | number % 16;
}
