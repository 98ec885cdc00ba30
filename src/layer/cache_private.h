/* SPDX-License-Identifier: BSD-3-Clause */
/* cache_private.h - what the files of the cache layer share: cache.c, and cache_read.c */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "layer/cache_pool.h"
#include "layer/layer.h"
#include "util/log.h"

#define CACHE_FAN_OUT   4    /* runs of one request under way */
#define CACHE_ERRANDS   4u   /* runs ahead of a queue's readers under way */
#define CACHE_RUN_PAGES 256u /* of a run, at most */
#define CACHE_STREAMS   4u   /* readers that a queue remembers */

struct cache {
	struct layer layer;
	char *pool_name;
	uint64_t size;
	int page; /* 4 KiB << this */
	uint64_t read_ahead;
	int writeback; /* enum cache_writeback */

	uint32_t page_size;     /* bytes */
	_Atomic uint64_t pages; /* whole ones that what is below has */
	struct cache_pool *pool;
	struct cache_user user;
	struct cache_store *store; /* replaced in queue_open, when no queue is open */
	bool shared;
	_Atomic uint64_t lost; /* writes that failed after they were acknowledged */
	pthread_mutex_t lock;  /* of what follows, and of replacing the store */
	struct list queues;
	struct figures {
		uint64_t hits, misses, ahead; /* pages */
	} closed;                             /* of queues that are closed */
};

enum cache_writeback { CACHE_THROUGH, CACHE_UNSAFE };

/* Pages of a run, and where they are read to. */
struct run {
	struct run *next;
	uint64_t first; /* page */
	unsigned count;
	unsigned vectors;
	struct cache_ref pages[CACHE_RUN_PAGES];
	struct iovec vec[CACHE_RUN_PAGES];
};

struct stream {
	uint64_t next;  /* byte at which it will go on */
	uint64_t ahead; /* byte up to which was read for it */
	unsigned count; /* times that it did go on */
};

struct cache_queue {
	struct list link;
	struct run *runs; /* free ones */
	unsigned run_count;
	unsigned turn;
	struct stream streams[CACHE_STREAMS];
	struct log_limit limit;
	unsigned errands;                     /* that read ahead, under way */
	_Atomic uint64_t hits, misses, ahead; /* written on the queue's thread */
};

/* The bytes of page @number that @io is about: their place in the page, and how many. */
uint32_t cache_share(const struct cache *c, const struct io *io, uint64_t number, uint32_t *start);

/* A run that begins at page @first, or NULL; for @io to read or write. */
struct run *cache_run_get(struct cache_queue *q, uint64_t first);
void cache_run_put(struct cache_queue *q, struct run *run);
void cache_run_add(struct run *run, const struct cache_ref *ref, uint32_t page_size);
void cache_run_onto(const struct run *run, struct io *io, uint32_t page_size);

/* cache_read.c */
void cache_read_woken(struct layer *layer, struct io *io);
void cache_read(struct cache *c, struct io *io);
void cache_read_close(struct cache_queue *q);
