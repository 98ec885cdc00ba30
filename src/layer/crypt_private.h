/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_private.h - what the files of the layer crypt share: crypt.c is the way of a request,
 * crypt_bounce.c the buffers that writes are encrypted into, crypt_split.c the work on several
 * cores
 */
#pragma once

#include <pthread.h>

#include "layer/crypt_cipher.h"
#include "layer/crypt_volume.h"
#include "layer/layer.h"

/* An unlocked volume. */
struct crypt_keys {
	struct crypt_volume volume;
	struct crypt_cipher *cipher; /* of which others are copies */
	struct {
		pthread_mutex_t lock;
		struct crypt_cipher **cipher; /* one for each worker thread */
		unsigned count, room;
	} spare;
};

struct crypt {
	struct layer layer;
	struct crypt_key_source source;
	bool discard;
	uint64_t workers;      /* configured; UINT64_MAX: auto */
	uint64_t workers_from; /* bytes of a request that is split */
	struct crypt_keys *keys;
	struct crypt_keys *next; /* unlocked by another key, while a change is prepared; or NULL */
	unsigned helpers;        /* worker threads for one request at most */
};

/* --- crypt_bounce.c ----------------------------------------------------------------------- */

#define CRYPT_WINDOW (256u << 10) /* bytes that are encrypted and sent at once */
#define CRYPT_SIZES  3

/* A buffer. */
struct crypt_bounce {
	struct iovec vec; /* of the bytes in use */
	struct crypt_bounce *next;
	unsigned size; /* index */
};

/* Those of one size, and the requests that wait for one. The last that came back goes first. */
struct crypt_bounce_pool {
	struct crypt_bounce *all, *free;
	unsigned count, fresh; /* fresh: from this one on they were never used */
	char *memory;
	struct io *waiting, **waiting_last;
};

/* Of each queue. */
struct crypt_bounces {
	struct crypt_bounce_pool pool[CRYPT_SIZES];
	char *memory;
	size_t mapped;
};

/* Room for a queue of @depth requests. 0 or -ENOMEM. */
int crypt_bounces_open(struct crypt_bounces *bounces, unsigned depth);
void crypt_bounces_close(struct crypt_bounces *bounces);

/* One for @io->length bytes, at most CRYPT_WINDOW; NULL: @io waits and is given away. */
struct crypt_bounce *crypt_bounce_take(struct crypt_bounces *bounces, struct io *io);

/*
 * Gives it back. The one that waited longest for its like is the caller's now, to try again; NULL:
 * nobody waits.
 */
struct io *crypt_bounce_return(struct crypt_bounces *bounces, struct crypt_bounce *bounce);

/* --- crypt_split.c ------------------------------------------------------------------------ */

struct crypt_jobs;

/* What is to be computed: whole sectors of @data into @to, or where they are. */
struct crypt_task {
	uint64_t tweak; /* of the first sector */
	struct io_data data;
	unsigned char *to; /* NULL: decrypt in place; else encrypt */
	bool zeroes;       /* encrypt zeroes in place of @data */
	uint64_t length;
	uint64_t whole; /* bytes of the request that it is a part of, or all of */
};

/* Of each queue. NULL: no memory. */
struct crypt_jobs *crypt_jobs_create(void);
void crypt_jobs_destroy(struct crypt_jobs *jobs);

/* How many worker threads may help with one request, if a user wants @most at most. */
unsigned crypt_helpers(uint64_t most);

/* Ciphers for worker threads. 0 or -ENOMEM. */
int crypt_spares_open(struct crypt_keys *keys);
void crypt_spares_close(struct crypt_keys *keys);

/*
 * Does @task for @io, with helpers if it is large. True: it is done, *@status says how. False: @io
 * is given away, and @done(layer, @io) is called on its thread, with the status in @io->status.
 */
bool crypt_compute(struct crypt *crypt, struct crypt_jobs *jobs, struct crypt_cipher *cipher,
		   struct io *io, const struct crypt_task *task, io_done_fn *done, int *status);
