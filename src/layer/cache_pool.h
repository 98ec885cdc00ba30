/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_pool.h - memory that caches of several disks share, and what is in it
 *
 * A pool has a size, a size of pages, and a name by which disks find it. A store is what one thing
 * (an image, as some layers show it) has in the pool: disks over the same thing use the same store,
 * so that each page is there once. The pages of all stores compete for the memory of the pool.
 *
 * A page that is not there is claimed by whoever wants it first, read into the memory that the
 * claim gave, and handed over. Who else wants it meanwhile waits for that.
 *
 * Coherence. A write is announced before it goes below, and again when it is back. In between no
 * page of it can be claimed, and claims that exist are void: what was read for them is used by
 * nobody else. A page that is there stays readable, with the old bytes, and receives the new ones
 * in the end if no other write touched it meanwhile, and if nobody is reading it just then; else it
 * is dropped.
 *
 * All functions may be called on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"
#include "util/list.h"

struct cache_page;
struct cache_pool;
struct error;

/** One disk that uses a pool. */
struct cache_user {
	struct list link;
	uint64_t size; /**< bytes it states for the pool, which has the most that any states; 0:
			  none */
};

/** What one thing has in a pool. */
struct cache_store {
	struct cache_pool *pool;
	struct list link;
	char *identity; /**< what it is of */
	unsigned users;
	uint64_t seed;         /**< of the hash of its pages */
	_Atomic uint32_t id;   /**< of its pages; a new one makes it empty */
	_Atomic unsigned wide; /**< changes under way that are too long to go page by page */
};

/** A page that is there, or that was claimed. */
struct cache_ref {
	struct cache_page *page;
	char *bytes;
};

enum cache_found {
	CACHE_HIT,     /**< the page is there and stays until cache_unpin() */
	CACHE_CLAIMED, /**< fill it, then cache_filled() */
	CACHE_FILLING, /**< somebody fills it; the waiter, if one was given, will be woken */
	CACHE_NONE,    /**< not there, and not to be kept now: go past the cache */
};

enum cache_want {
	CACHE_LOOK,  /**< only if it is there */
	CACHE_CLAIM, /**< else to fill it */
	CACHE_AHEAD, /**< to fill it, though nobody has asked yet; HIT pins nothing */
};

/** Numbers of a pool, for reports. */
struct cache_figures {
	uint64_t size;      /**< bytes that it may use, with its index */
	uint64_t used;      /**< bytes of pages in memory */
	uint64_t evictions; /**< pages */
	unsigned users;     /**< disks */
};

/**
 * The pool called @name (NULL: one of its own) for @user, who states user->size. It is made if it
 * is not there. NULL with @err, also if it has pages of another size than @page.
 */
struct cache_pool *cache_pool_get(const char *name, uint32_t page, struct cache_user *user,
				  struct error *err);
void cache_pool_put(struct cache_pool *pool, struct cache_user *user);

/** Whether the pool could have @size while it is in use. 0 or -errno with @err. */
int cache_pool_check(const struct cache_pool *pool, uint64_t size, struct error *err);

/** @user states another size from now on. What is too much is dropped at once. */
void cache_pool_state(struct cache_pool *pool, struct cache_user *user, uint64_t size);

/** Bytes that the pool may use. */
uint64_t cache_pool_size(const struct cache_pool *pool);

void cache_pool_figures(struct cache_pool *pool, struct cache_figures *figures);

/** The store of what @identity names, made if it is not there. NULL: no memory. */
struct cache_store *cache_store_get(struct cache_pool *pool, const char *identity);
void cache_store_put(struct cache_store *store);

/** Looks for page @number. @waiter: held by the caller, its top frame by the layer to wake; or
 * NULL. */
enum cache_found cache_find(struct cache_store *store, uint64_t number, enum cache_want want,
			    struct io *waiter, struct cache_ref *ref);

void cache_unpin(struct cache_ref *ref);

/** The claimed page is filled, or (@good false) could not be. Those who wait are woken to @woken.
 */
void cache_filled(struct cache_store *store, struct cache_page *page, bool good, io_done_fn *woken);

/**
 * A change of page @number begins. False: the page is still being written behind; @waiter, which is
 * as for cache_find(), will be woken, and asks again. Without write-behind that cannot be.
 */
bool cache_write_begins(struct cache_store *store, uint64_t number, struct io *waiter);

/**
 * It has ended: bytes [@start, @start+@length) of the page are now those of @data; @data NULL: they
 * are unknown.
 */
void cache_write_ended(struct cache_store *store, uint64_t number, const struct io_data *data,
		       uint32_t start, uint32_t length);

/**
 * Write-behind: the page receives bytes [@start, @start+@length) from @data, and can be read from
 * now on. CACHE_CLAIMED: so it is; the caller writes the whole page below, and calls
 * cache_behind_ended(). CACHE_FILLING: it is being written behind already, @waiter will be woken.
 * CACHE_NONE: it cannot be; write through. Who wanted to read it meanwhile is woken to @readers.
 */
enum cache_found cache_behind(struct cache_store *store, uint64_t number,
			      const struct io_data *data, uint32_t start, uint32_t length,
			      struct io *waiter, io_done_fn *readers, struct cache_ref *ref);

/** It is written (@good), or lost. Those who wait are woken to @woken. */
void cache_behind_ended(struct cache_store *store, struct cache_page *page, bool good,
			io_done_fn *woken);

/** The same for a change of very many pages: all of the store is dropped. */
void cache_wide_begins(struct cache_store *store);
void cache_wide_ended(struct cache_store *store);
