/* SPDX-License-Identifier: BSD-3-Clause */
/* cache_shard.c - pages, hash chains, the queues of S3-FIFO; see cache_shard.h */
#include "layer/cache_shard.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "layer/cache_pool.h"

#define USES_MOST   3                    /* that are counted */
#define EVICT_STEPS 1024                 /* pages that are looked at for one eviction */
#define TRIM_STEPS  64                   /* pages given back under one hold of the lock */
#define HUGE        ((uintptr_t)2 << 20) /* bytes of a large page */
#define GHOST_WAYS  4

/* --- memory ------------------------------------------------------------------------- */

/* Address space; memory comes when it is touched. */
static void *reserve(uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	madvise(at, bytes, MADV_DONTDUMP);
	return at;
}

/*
 * A hit far from the last one misses the processor's translation caches too, several times; so the
 * bytes want large pages. Only as far as the budget goes: they come as a whole.
 */
static void want_huge(const struct cache_shard *s)
{
	uintptr_t first = ((uintptr_t)s->bytes + HUGE - 1) / HUGE * HUGE;
	uintptr_t end = ((uintptr_t)s->bytes + (uint64_t)s->budget * s->page_size) / HUGE * HUGE;

	if (first < end)
		madvise((void *)first, end - first, MADV_HUGEPAGE);
}

static void release(void *at, uint64_t bytes)
{
	if (at)
		munmap(at, bytes);
}

static uint32_t power_of_2(uint32_t least)
{
	uint32_t n = 1;

	while (n < least)
		n *= 2;
	return n;
}

static uint64_t head_bytes(const struct cache_shard *s)
{
	return (s->heads_mask + 1ull) * sizeof *s->heads;
}

static uint64_t ghost_bytes(const struct cache_shard *s)
{
	return (s->ghosts_mask + 1ull) * sizeof *s->ghosts;
}

int cache_shard_open(struct cache_shard *shard, uint32_t page_size, uint32_t budget,
		     uint32_t reserved)
{
	pthread_mutexattr_t adaptive;

	memset(shard, 0, sizeof *shard);
	pthread_mutexattr_init(&adaptive);
	pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&shard->lock, &adaptive);
	pthread_mutexattr_destroy(&adaptive);
	shard->page_size = page_size;
	shard->budget = budget;
	shard->reserved = reserved;
	shard->fresh = 1;
	shard->heads_mask = power_of_2(reserved) - 1;
	shard->ghosts_mask = power_of_2(budget < GHOST_WAYS ? GHOST_WAYS : budget) - 1;
	shard->pages = reserve((reserved + 1ull) * sizeof *shard->pages);
	shard->bytes = reserve((uint64_t)reserved * page_size);
	shard->heads = reserve(head_bytes(shard));
	shard->ghosts = reserve(ghost_bytes(shard));
	if (shard->pages && shard->bytes && shard->heads && shard->ghosts) {
		want_huge(shard);
		return 0;
	}
	cache_shard_close(shard);
	return -ENOMEM;
}

void cache_shard_close(struct cache_shard *shard)
{
	release(shard->pages, (shard->reserved + 1ull) * sizeof *shard->pages);
	release(shard->bytes, (uint64_t)shard->reserved * shard->page_size);
	release(shard->heads, head_bytes(shard));
	release(shard->ghosts, ghost_bytes(shard));
	pthread_mutex_destroy(&shard->lock);
}

static uint32_t place(const struct cache_shard *s, const struct cache_page *page)
{
	return (uint32_t)(page - s->pages);
}

char *cache_shard_bytes(struct cache_shard *shard, const struct cache_page *page)
{
	return shard->bytes + (place(shard, page) - 1ull) * shard->page_size;
}

static void list_push(struct cache_shard *s, uint32_t *list, struct cache_page *page)
{
	page->chain = *list;
	*list = place(s, page);
}

static struct cache_page *list_pop(struct cache_shard *s, uint32_t *list)
{
	struct cache_page *page = &s->pages[*list];

	if (!*list)
		return NULL;
	*list = page->chain;
	return page;
}

/* --- hash chains -------------------------------------------------------------------- */

static uint32_t *head_of(struct cache_shard *s, uint64_t hash)
{
	return &s->heads[hash & s->heads_mask];
}

struct cache_page *cache_shard_find(struct cache_shard *shard, uint32_t store, uint64_t number,
				    uint64_t hash)
{
	for (uint32_t at = *head_of(shard, hash); at; at = shard->pages[at].chain)
		if (shard->pages[at].number == number && shard->pages[at].store == store)
			return &shard->pages[at];
	return NULL;
}

static void unchain(struct cache_shard *s, struct cache_page *page)
{
	uint32_t *at = head_of(s, page->hash), wanted = place(s, page);

	while (*at != wanted)
		at = &s->pages[*at].chain;
	*at = page->chain;
}

/* --- queues ------------------------------------------------------------------------- */

static struct fifo *fifo_of(struct cache_shard *s, const struct cache_page *page)
{
	return page->queue == QUEUE_MAIN ? &s->main : &s->small;
}

static void enqueue(struct cache_shard *s, struct cache_page *page, enum cache_queue queue)
{
	struct fifo *fifo;

	page->queue = (uint8_t)queue;
	fifo = fifo_of(s, page);
	page->newer = 0;
	page->older = fifo->newest;
	if (fifo->newest)
		s->pages[fifo->newest].newer = place(s, page);
	else
		fifo->oldest = place(s, page);
	fifo->newest = place(s, page);
	fifo->count++;
}

static void dequeue(struct cache_shard *s, struct cache_page *page)
{
	struct fifo *fifo = fifo_of(s, page);

	if (page->newer)
		s->pages[page->newer].older = page->older;
	else
		fifo->newest = page->older;
	if (page->older)
		s->pages[page->older].newer = page->newer;
	else
		fifo->oldest = page->newer;
	fifo->count--;
	page->queue = QUEUE_NONE;
}

static bool small_is_full(const struct cache_shard *s)
{
	return s->small.count * 10ull >= s->budget;
}

/* --- ghosts: what left the small queue ----------------------------------------------- */

/* In a table of sets, with the time at which each left: it is forgotten when that is long ago. */
static struct ghost *ghost_set(struct cache_shard *s, uint64_t hash)
{
	return &s->ghosts[hash & s->ghosts_mask & ~(GHOST_WAYS - 1u)];
}

static uint32_t ghost_print(uint64_t hash)
{
	return ((uint32_t)(hash >> 24) ^ (uint32_t)hash << 28) | 1;
}

static void remember(struct cache_shard *s, uint64_t hash)
{
	struct ghost *set = ghost_set(s, hash), *oldest = set;

	for (unsigned i = 1; i < GHOST_WAYS; i++)
		if (!set[i].print ||
		    (oldest->print && s->ghosts_time - set[i].time > s->ghosts_time - oldest->time))
			oldest = &set[i];
	*oldest = (struct ghost){ ghost_print(hash), s->ghosts_time++ };
}

static bool recall(struct cache_shard *s, uint64_t hash)
{
	struct ghost *set = ghost_set(s, hash);

	for (unsigned i = 0; i < GHOST_WAYS; i++)
		if (set[i].print == ghost_print(hash)) {
			bool lately = s->ghosts_time - set[i].time <= s->budget - s->budget / 10;

			set[i].print = 0;
			return lately;
		}
	return false;
}

/* --- a page's way ------------------------------------------------------------------- */

static void give_back(struct cache_shard *s, struct cache_page *page)
{
	madvise(cache_shard_bytes(s, page), s->page_size, MADV_DONTNEED);
	s->resident--;
	list_push(s, &s->gone, page);
}

void cache_shard_free(struct cache_shard *shard, struct cache_page *page)
{
	page->state = PAGE_FREE;
	if (shard->resident > shard->budget)
		give_back(shard, page);
	else
		list_push(shard, &shard->free, page);
}

void cache_shard_drop(struct cache_shard *shard, struct cache_page *page)
{
	unchain(shard, page);
	if (page->state == PAGE_FILLING) {
		page->state = PAGE_VOID;
		return;
	}
	dequeue(shard, page);
	if (page->state == PAGE_BUSY) {
		page->state = PAGE_VOID;
	} else if (atomic_load_explicit(&page->pins, memory_order_acquire)) {
		page->state = PAGE_PINNED;
		list_push(shard, &shard->pinned, page);
	} else {
		cache_shard_free(shard, page);
	}
}

/* Those whose readers are gone. */
static void free_unpinned(struct cache_shard *s)
{
	struct cache_page *page;
	uint32_t all = s->pinned;

	s->pinned = 0;
	while ((page = list_pop(s, &all))) {
		if (atomic_load_explicit(&page->pins, memory_order_acquire))
			list_push(s, &s->pinned, page);
		else
			cache_shard_free(s, page);
	}
}

static bool evict(struct cache_shard *s)
{
	for (unsigned step = 0; step < EVICT_STEPS; step++) {
		bool small = s->small.count && (small_is_full(s) || !s->main.count);
		struct fifo *fifo = small ? &s->small : &s->main;
		struct cache_page *page = &s->pages[fifo->oldest];
		bool in_use;

		if (!fifo->oldest)
			return false;
		in_use = page->state == PAGE_BUSY ||
			 atomic_load_explicit(&page->pins, memory_order_acquire);
		if (in_use || page->uses > (small ? 1 : 0)) {
			dequeue(s, page);
			if (!in_use)
				page->uses = small ? 0 : page->uses - 1;
			enqueue(s, page, QUEUE_MAIN);
			continue;
		}
		if (small)
			remember(s, page->hash);
		cache_shard_drop(s, page);
		s->evictions++;
		return true;
	}
	return false;
}

static struct cache_page *take(struct cache_shard *s)
{
	struct cache_page *page;

	if (s->pinned)
		free_unpinned(s);
	page = list_pop(s, &s->free);
	if (page)
		return page;
	if (s->resident < s->budget) {
		page = list_pop(s, &s->gone);
		if (!page && s->fresh <= s->reserved)
			page = &s->pages[s->fresh++];
		s->resident += page != NULL;
		return page;
	}
	return evict(s) ? list_pop(s, &s->free) : NULL;
}

struct cache_page *cache_shard_claim(struct cache_shard *shard, uint32_t store, uint64_t number,
				     uint64_t hash)
{
	struct cache_page *page = take(shard);
	uint32_t *head = head_of(shard, hash);
	bool room = shard->resident < shard->budget && small_is_full(shard);

	if (!page)
		return NULL;
	page->number = number;
	page->hash = hash;
	page->store = store;
	page->waiters = NULL;
	page->state = PAGE_FILLING;
	/* While there is room for all, the small queue need not be larger than it will be. */
	page->queue = recall(shard, hash) || room ? QUEUE_MAIN : QUEUE_SMALL;
	page->uses = 0;
	page->ahead = false;
	page->behind = false;
	page->chain = *head;
	*head = place(shard, page);
	return page;
}

void cache_shard_insert(struct cache_shard *shard, struct cache_page *page)
{
	page->state = PAGE_VALID;
	enqueue(shard, page, page->queue);
}

bool cache_shard_trim(struct cache_shard *shard)
{
	struct cache_page *page;

	for (unsigned n = 0; shard->resident > shard->budget; n++) {
		if (n == TRIM_STEPS)
			return true;
		page = list_pop(shard, &shard->free);
		if (page)
			give_back(shard, page);
		else if (!evict(shard))
			return true; /* all that was looked at is in use, or was */
	}
	return false;
}
