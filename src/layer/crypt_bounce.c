/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_bounce.c - buffers of a queue that writes are encrypted into
 *
 * Three sizes, so that a small write does not spread over the caches, and a large one goes in one
 * piece. The buffer that came back last is used next: at a small depth only a few are ever touched,
 * and those stay in a cache. Their memory is address space until then. There is a buffer of the
 * smallest size for each request; of the larger ones a bounded number, and whoever finds none waits
 * for one that is below, which comes back.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "layer/crypt_private.h"

static const size_t bytes[CRYPT_SIZES] = { 4 << 10, 32 << 10, CRYPT_WINDOW };

int crypt_bounces_open(struct crypt_bounces *bounces, unsigned depth)
{
	const unsigned counts[CRYPT_SIZES] = { depth < 1024 ? depth : 1024, 64, 16 };
	unsigned total = counts[0] + counts[1] + counts[2];
	struct crypt_bounce *all = calloc(total, sizeof *all);
	char *memory;

	for (unsigned i = 0; i < CRYPT_SIZES; i++)
		bounces->mapped += counts[i] * bytes[i];
	memory = mmap(NULL, bounces->mapped, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!all || memory == MAP_FAILED) {
		if (memory != MAP_FAILED)
			munmap(memory, bounces->mapped);
		free(all);
		return -ENOMEM;
	}
	bounces->memory = memory;
	for (unsigned i = 0; i < CRYPT_SIZES; i++) {
		struct crypt_bounce_pool *pool = &bounces->pool[i];

		pool->all = all;
		pool->memory = memory;
		pool->count = counts[i];
		pool->waiting_last = &pool->waiting;
		all += counts[i];
		memory += counts[i] * bytes[i];
	}
	return 0;
}

void crypt_bounces_close(struct crypt_bounces *bounces)
{
	if (!bounces->memory)
		return;
	munmap(bounces->memory, bounces->mapped);
	free(bounces->pool[0].all);
}

struct crypt_bounce *crypt_bounce_take(struct crypt_bounces *bounces, struct io *io)
{
	unsigned size = 0;
	struct crypt_bounce_pool *pool;
	struct crypt_bounce *bounce;

	while (bytes[size] < io->length)
		size++;
	pool = &bounces->pool[size];
	bounce = pool->free;
	if (bounce) {
		pool->free = bounce->next;
	} else if (pool->fresh < pool->count) {
		bounce = &pool->all[pool->fresh];
		bounce->vec.iov_base = pool->memory + pool->fresh++ * bytes[size];
		bounce->size = size;
	} else {
		io->next = NULL;
		*pool->waiting_last = io;
		pool->waiting_last = &io->next;
		return NULL;
	}
	bounce->vec.iov_len = io->length;
	return bounce;
}

struct io *crypt_bounce_return(struct crypt_bounces *bounces, struct crypt_bounce *bounce)
{
	struct crypt_bounce_pool *pool = &bounces->pool[bounce->size];
	struct io *io = pool->waiting;

	bounce->next = pool->free;
	pool->free = bounce;
	if (io) {
		pool->waiting = io->next;
		if (!pool->waiting)
			pool->waiting_last = &pool->waiting;
	}
	return io;
}
