/* SPDX-License-Identifier: BSD-3-Clause */
/* cache_pool.c - pools, stores, and the way of a page through its shard; see cache_pool.h */
#include "layer/cache_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layer/cache_shard.h"
#include "util/error.h"
#include "util/option.h"

#define SIZE_DEFAULT (256ull << 20) /* if no disk states one */
#define SHARDS_MOST  64
#define SHARD_PAGES  4096 /* a shard should have, at least */
#define GROWTH       4    /* times, while it is in use */
#define PAGES_LEAST  16   /* with fewer no policy is worth its name */
#define INDEX_BYTES  96   /* for each page: struct cache_page, hash chains, ghosts */

struct cache_pool {
	struct list link; /* of all pools that have a name */
	char *name;       /* or NULL */
	uint32_t page_size;
	_Atomic uint64_t size; /* bytes */
	struct list users, stores;
	unsigned shards, shard_shift;
	bool open; /* its shards are */
	struct cache_shard *shard;
};

/* Guards the list of pools, and the lists in them. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct list pools = { &pools, &pools };
static _Atomic uint32_t last_id;

/* --- pools -------------------------------------------------------------------------- */

static uint64_t pages_of(const struct cache_pool *pool, uint64_t size)
{
	return size / (pool->page_size + INDEX_BYTES);
}

static uint32_t budget_of(const struct cache_pool *pool, uint64_t size)
{
	uint64_t pages = pages_of(pool, size) / pool->shards;

	return pages > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)pages;
}

/* What the users state; with the registry locked. */
static uint64_t stated(const struct cache_pool *pool)
{
	uint64_t size = 0;

	list_for_each (link, &pool->users) {
		const struct cache_user *user = container_of(link, struct cache_user, link);

		if (user->size > size)
			size = user->size;
	}
	return size ? size : SIZE_DEFAULT;
}

static void destroy(struct cache_pool *pool)
{
	for (unsigned i = 0; pool->open && i < pool->shards; i++)
		cache_shard_close(&pool->shard[i]);
	free(pool->shard);
	free(pool->name);
	free(pool);
}

/* All of them, each with address space for @growth times its part of @size. 0 or -ENOMEM. */
static int open_shards(struct cache_pool *pool, uint64_t size, uint64_t growth)
{
	uint32_t budget = budget_of(pool, size);
	uint64_t reserved = budget * growth;

	if (reserved > UINT32_MAX / 2)
		reserved = budget;
	for (unsigned i = 0; i < pool->shards; i++) {
		if (!cache_shard_open(&pool->shard[i], pool->page_size, budget, (uint32_t)reserved))
			continue;
		while (i)
			cache_shard_close(&pool->shard[--i]);
		return -ENOMEM;
	}
	pool->open = true;
	return 0;
}

static struct cache_pool *create(const char *name, uint32_t page, uint64_t size)
{
	struct cache_pool *pool = calloc(1, sizeof *pool);
	unsigned shards = 1;

	if (!pool)
		return NULL;
	pool->page_size = page;
	pool->shard_shift = 63;
	list_init(&pool->link);
	list_init(&pool->users);
	list_init(&pool->stores);
	while (shards < SHARDS_MOST && pages_of(pool, size) / shards / 2 >= SHARD_PAGES) {
		shards *= 2;
		pool->shard_shift--;
	}
	if (shards == 1)
		pool->shard_shift = 63;
	pool->shards = shards;
	pool->name = name ? strdup(name) : NULL;
	pool->shard = aligned_alloc(64, shards * sizeof *pool->shard);
	atomic_store(&pool->size, size);
	if (!pool->shard || (name && !pool->name)) {
		destroy(pool);
		return NULL;
	}
	/* Address space may be short, too, or be counted as memory. */
	for (uint64_t growth = GROWTH; growth; growth /= 2)
		if (!open_shards(pool, size, growth))
			return pool;
	destroy(pool);
	return NULL;
}

static struct cache_pool *find_pool(const char *name)
{
	if (name)
		list_for_each (link, &pools) {
			struct cache_pool *pool = container_of(link, struct cache_pool, link);

			if (!strcmp(pool->name, name))
				return pool;
		}
	return NULL;
}

/* With the registry locked: as large as the users say; trim() follows, without it. */
static void fit(struct cache_pool *pool)
{
	uint64_t size = stated(pool);
	uint32_t budget = budget_of(pool, size);

	atomic_store(&pool->size, size);
	for (unsigned i = 0; i < pool->shards; i++) {
		struct cache_shard *s = &pool->shard[i];

		pthread_mutex_lock(&s->lock);
		s->budget = budget < s->reserved ? budget : s->reserved;
		pthread_mutex_unlock(&s->lock);
	}
}

/*
 * What is too much goes now; a bit at a time, for others want the locks. What readers have just
 * then goes when they are done.
 */
static void trim(struct cache_pool *pool)
{
	for (unsigned i = 0; i < pool->shards; i++) {
		bool more = true;

		for (uint32_t n = pool->shard[i].reserved / 32 + 64; more && n; n--) {
			pthread_mutex_lock(&pool->shard[i].lock);
			more = cache_shard_trim(&pool->shard[i]);
			pthread_mutex_unlock(&pool->shard[i].lock);
		}
	}
}

static int check_least(uint64_t size, uint32_t page, struct error *err)
{
	char a[32], b[32];

	if (!size || size / (page + INDEX_BYTES) >= PAGES_LEAST)
		return 0;
	return error_set(err, EINVAL, "size: %s is too small for pages of %s; %s is enough",
			 format_size(size, a, sizeof a), format_size(page, b, sizeof b),
			 page == 4096 ? "128K" : "2M");
}

struct cache_pool *cache_pool_get(const char *name, uint32_t page, struct cache_user *user,
				  struct error *err)
{
	struct cache_pool *pool;
	char a[32], b[32];

	if (check_least(user->size, page, err))
		return NULL;
	pthread_mutex_lock(&registry);
	pool = find_pool(name);
	if (pool && pool->page_size != page) {
		error_set(err, EINVAL, "page: pool %s has pages of %s; %s is asked for", name,
			  format_size(pool->page_size, a, sizeof a),
			  format_size(page, b, sizeof b));
		pool = NULL;
	} else if (pool) {
		if (cache_pool_check(pool, user->size, err))
			pool = NULL;
	} else {
		pool = create(name, page, user->size ? user->size : SIZE_DEFAULT);
		if (!pool)
			error_set(err, ENOMEM, "out of memory");
		else if (name)
			list_add(&pools, &pool->link);
	}
	if (pool) {
		list_add(&pool->users, &user->link);
		fit(pool);
	}
	pthread_mutex_unlock(&registry);
	return pool;
}

void cache_pool_put(struct cache_pool *pool, struct cache_user *user)
{
	bool last;

	pthread_mutex_lock(&registry);
	list_remove(&user->link);
	last = list_empty(&pool->users);
	if (last)
		list_remove(&pool->link);
	else
		fit(pool); /* what is too much goes when room is wanted, or freed */
	pthread_mutex_unlock(&registry);
	if (last)
		destroy(pool);
}

int cache_pool_check(const struct cache_pool *pool, uint64_t size, struct error *err)
{
	uint64_t most =
		(uint64_t)pool->shard[0].reserved * pool->shards * (pool->page_size + INDEX_BYTES);
	char a[32];

	if (check_least(size, pool->page_size, err))
		return -err->code;
	if (size <= most || budget_of(pool, size) <= pool->shard[0].reserved)
		return 0;
	if (most >> 20)
		most = most >> 20 << 20;
	return error_set(err, ENOSPC, "size: pool %s can grow to %s at most while it is in use",
			 pool->name ? pool->name : "of this disk", format_size(most, a, sizeof a));
}

void cache_pool_state(struct cache_pool *pool, struct cache_user *user, uint64_t size)
{
	pthread_mutex_lock(&registry);
	user->size = size;
	fit(pool);
	pthread_mutex_unlock(&registry);
	trim(pool);
}

uint64_t cache_pool_size(const struct cache_pool *pool)
{
	return atomic_load(&pool->size);
}

void cache_pool_figures(struct cache_pool *pool, struct cache_figures *figures)
{
	*figures = (struct cache_figures){ .size = atomic_load(&pool->size) };
	pthread_mutex_lock(&registry);
	list_for_each (link, &pool->users)
		figures->users++;
	pthread_mutex_unlock(&registry);
	for (unsigned i = 0; i < pool->shards; i++) {
		pthread_mutex_lock(&pool->shard[i].lock);
		figures->used += (uint64_t)pool->shard[i].resident * pool->page_size;
		figures->evictions += pool->shard[i].evictions;
		pthread_mutex_unlock(&pool->shard[i].lock);
	}
}

/* --- stores ------------------------------------------------------------------------- */

struct cache_store *cache_store_get(struct cache_pool *pool, const char *identity)
{
	struct cache_store *store = NULL;

	pthread_mutex_lock(&registry);
	list_for_each (link, &pool->stores) {
		struct cache_store *there = container_of(link, struct cache_store, link);

		if (!strcmp(there->identity, identity))
			store = there;
	}
	if (!store) {
		store = calloc(1, sizeof *store);
		if (store && !(store->identity = strdup(identity))) {
			free(store);
			store = NULL;
		}
		if (store) {
			store->pool = pool;
			store->id = ++last_id;
			store->seed = (uint64_t)store->id << 40;
			list_add(&pool->stores, &store->link);
		}
	}
	if (store)
		store->users++;
	pthread_mutex_unlock(&registry);
	return store;
}

void cache_store_put(struct cache_store *store)
{
	bool last;

	pthread_mutex_lock(&registry);
	last = !--store->users;
	if (last)
		list_remove(&store->link);
	pthread_mutex_unlock(&registry);
	if (!last)
		return;
	/* Its pages are found by nobody any more, and go when their turn comes. */
	free(store->identity);
	free(store);
}

/* --- a page ------------------------------------------------------------------------- */

static struct cache_shard *shard_of(const struct cache_pool *pool, uint64_t hash)
{
	return &pool->shard[pool->shards == 1 ? 0 : hash >> pool->shard_shift >> 1];
}

static uint32_t *writing_of(struct cache_shard *shard, uint64_t hash)
{
	return &shard->writing[((hash >> 32) + hash) % CACHE_WRITING];
}

static void used(struct cache_page *page)
{
	if (page->ahead)
		page->ahead = false; /* now it is as if it had been read for this */
	else if (page->uses < 3)
		page->uses++;
}

static void wait_for(struct cache_page *page, struct io *waiter)
{
	waiter->next = page->waiters;
	page->waiters = waiter;
}

static void wake_all(struct io *waiters, io_done_fn *woken)
{
	struct io *io;

	while ((io = waiters)) {
		waiters = io->next;
		io_wake(io, io->frame[io->depth - 1].layer, woken);
	}
}

enum cache_found cache_find(struct cache_store *store, uint64_t number, enum cache_want want,
			    struct io *waiter, struct cache_ref *ref)
{
	uint64_t hash = cache_hash(store->seed, number);
	struct cache_shard *shard = shard_of(store->pool, hash);
	enum cache_found found = CACHE_NONE;
	uint32_t id = atomic_load(&store->id);
	struct cache_page *page;

	pthread_mutex_lock(&shard->lock);
	page = cache_shard_find(shard, id, number, hash);
	if (page && page->state == PAGE_VALID) {
		found = CACHE_HIT;
		if (want != CACHE_AHEAD) {
			used(page);
			atomic_fetch_add_explicit(&page->pins, 1, memory_order_relaxed);
		}
	} else if (page && page->state == PAGE_FILLING) {
		found = CACHE_FILLING;
		if (waiter)
			wait_for(page, waiter);
	} else if (!page && want != CACHE_LOOK && !*writing_of(shard, hash) &&
		   !atomic_load(&store->wide)) {
		page = cache_shard_claim(shard, id, number, hash);
		if (page) {
			page->ahead = want == CACHE_AHEAD;
			found = CACHE_CLAIMED;
		}
	}
	pthread_mutex_unlock(&shard->lock);
	if (found == CACHE_HIT || found == CACHE_CLAIMED)
		*ref = (struct cache_ref){ page, cache_shard_bytes(shard, page) };
	return found;
}

void cache_unpin(struct cache_ref *ref)
{
	atomic_fetch_sub_explicit(&ref->page->pins, 1, memory_order_release);
}

void cache_filled(struct cache_store *store, struct cache_page *page, bool good, io_done_fn *woken)
{
	struct cache_shard *shard = shard_of(store->pool, page->hash);
	struct io *waiters;

	pthread_mutex_lock(&shard->lock);
	waiters = page->waiters;
	page->waiters = NULL;
	if (page->state == PAGE_FILLING && good) {
		cache_shard_insert(shard, page);
	} else {
		if (page->state == PAGE_FILLING)
			cache_shard_drop(shard, page);
		cache_shard_free(shard, page);
	}
	pthread_mutex_unlock(&shard->lock);
	wake_all(waiters, woken);
}

/* --- changes ------------------------------------------------------------------------ */

bool cache_write_begins(struct cache_store *store, uint64_t number, struct io *waiter)
{
	uint64_t hash = cache_hash(store->seed, number);
	struct cache_shard *shard = shard_of(store->pool, hash);
	struct cache_page *page;

	pthread_mutex_lock(&shard->lock);
	page = cache_shard_find(shard, atomic_load(&store->id), number, hash);
	if (page && page->behind) {
		wait_for(page, waiter);
		pthread_mutex_unlock(&shard->lock);
		return false;
	}
	/* What two writes at once leave there nobody knows. */
	if (++*writing_of(shard, hash) > 1 || (page && page->state != PAGE_VALID))
		if (page)
			cache_shard_drop(shard, page);
	pthread_mutex_unlock(&shard->lock);
	return true;
}

/* It is valid and there has been no other write since this one began: so it may be changed. */
static void update(struct cache_shard *shard, struct cache_page *page, const struct io_data *data,
		   uint32_t start, uint32_t length)
{
	page->state = PAGE_BUSY;
	pthread_mutex_unlock(&shard->lock);
	io_data_copy_out(*data, cache_shard_bytes(shard, page) + start, length);
	pthread_mutex_lock(&shard->lock);
	if (page->state == PAGE_VOID)
		cache_shard_free(shard, page);
	else
		page->state = PAGE_VALID;
}

void cache_write_ended(struct cache_store *store, uint64_t number, const struct io_data *data,
		       uint32_t start, uint32_t length)
{
	uint64_t hash = cache_hash(store->seed, number);
	struct cache_shard *shard = shard_of(store->pool, hash);
	struct cache_page *page;

	pthread_mutex_lock(&shard->lock);
	page = cache_shard_find(shard, atomic_load(&store->id), number, hash);
	if (page && page->state == PAGE_VALID && data && *writing_of(shard, hash) == 1 &&
	    !atomic_load_explicit(&page->pins, memory_order_acquire))
		update(shard, page, data, start, length);
	else if (page)
		cache_shard_drop(shard, page);
	--*writing_of(shard, hash);
	pthread_mutex_unlock(&shard->lock);
}

/* --- write-behind ------------------------------------------------------------------- */

/* The page to be changed, so that nobody reads it meanwhile: one that is there, or a new one. */
static struct cache_page *take(struct cache_store *store, struct cache_shard *shard,
			       uint64_t number, uint64_t hash, struct cache_page *page, bool whole)
{
	if (*writing_of(shard, hash) || atomic_load(&store->wide))
		return NULL;
	if (!page)
		return whole ? cache_shard_claim(shard, atomic_load(&store->id), number, hash)
			     : NULL;
	if (page->state != PAGE_VALID || atomic_load_explicit(&page->pins, memory_order_acquire))
		return NULL;
	page->state = PAGE_BUSY;
	return page;
}

enum cache_found cache_behind(struct cache_store *store, uint64_t number,
			      const struct io_data *data, uint32_t start, uint32_t length,
			      struct io *waiter, io_done_fn *readers, struct cache_ref *ref)
{
	uint64_t hash = cache_hash(store->seed, number);
	struct cache_shard *shard = shard_of(store->pool, hash);
	enum cache_found found = CACHE_NONE;
	struct cache_page *page;
	struct io *waiters;

	pthread_mutex_lock(&shard->lock);
	page = cache_shard_find(shard, atomic_load(&store->id), number, hash);
	if (page && page->behind) {
		wait_for(page, waiter);
		found = CACHE_FILLING;
	} else if ((page = take(store, shard, number, hash, page,
				length == store->pool->page_size))) {
		++*writing_of(shard, hash);
		*ref = (struct cache_ref){ page, cache_shard_bytes(shard, page) };
		found = CACHE_CLAIMED;
	}
	pthread_mutex_unlock(&shard->lock);
	if (found != CACHE_CLAIMED)
		return found;

	io_data_copy_out(*data, ref->bytes + start, length);
	pthread_mutex_lock(&shard->lock);
	waiters = page->waiters;
	page->waiters = NULL;
	if (page->state == PAGE_VOID) {
		/* Another write of it began meanwhile. */
		found = CACHE_NONE;
		cache_shard_free(shard, page);
		--*writing_of(shard, hash);
	} else {
		if (page->state == PAGE_FILLING)
			cache_shard_insert(shard, page);
		page->state = PAGE_VALID;
		page->behind = true;
		atomic_fetch_add_explicit(&page->pins, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&shard->lock);
	wake_all(waiters, readers);
	return found;
}

void cache_behind_ended(struct cache_store *store, struct cache_page *page, bool good,
			io_done_fn *woken)
{
	struct cache_shard *shard = shard_of(store->pool, page->hash);
	struct io *waiters;

	pthread_mutex_lock(&shard->lock);
	waiters = page->waiters;
	page->waiters = NULL;
	page->behind = false;
	--*writing_of(shard, page->hash);
	atomic_fetch_sub_explicit(&page->pins, 1, memory_order_release);
	if (!good)
		cache_shard_drop(shard, page);
	pthread_mutex_unlock(&shard->lock);
	wake_all(waiters, woken);
}

/* --- changes of very much ------------------------------------------------------------ */

void cache_wide_begins(struct cache_store *store)
{
	atomic_fetch_add(&store->wide, 1);
	atomic_store(&store->id, ++last_id);
}

void cache_wide_ended(struct cache_store *store)
{
	atomic_fetch_sub(&store->wide, 1);
}
