/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_memory.c - cells of locked memory for OpenSSL's key schedules
 *
 * All cells have one size, which an AES-XTS context needs; what is larger is no key schedule and
 * comes from the heap. Address space is set aside once; pages are locked as cells are first used,
 * and cells that come back are wiped and used again.
 */
#include "layer/crypt_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <openssl/crypto.h>

#include "util/log.h"

#define CELL  1024ul
#define CELLS 32768ul /* two for each way of each queue and worker: enough for thousands */
#define PAGE  4096ul

union cell {
	union cell *next; /* free */
	char bytes[CELL];
};

static struct {
	pthread_mutex_t lock;
	_Atomic(union cell *) cells;
	union cell *free;
	unsigned long used; /* cells that were ever in use */
	bool told;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local bool secret;

void crypt_memory_enter(void)
{
	secret = true;
}

void crypt_memory_leave(void)
{
	secret = false;
}

void crypt_memory_no_core(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}

/* --- the cells ------------------------------------------------------------------------- */

/* With the lock. */
static bool reserve(void)
{
	void *memory = mmap(NULL, CELLS * CELL, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return false;
	madvise(memory, CELLS * CELL, MADV_DONTDUMP);
	pool.cells = memory;
	return true;
}

static void *take(void)
{
	union cell *cell = NULL;
	bool tell = false;

	pthread_mutex_lock(&pool.lock);
	if (pool.free) {
		cell = pool.free;
		pool.free = cell->next;
	} else if ((pool.cells || reserve()) && pool.used < CELLS) {
		cell = &pool.cells[pool.used++];
		if (!((size_t)(cell - pool.cells) * CELL % PAGE) && mlock(cell, PAGE)) {
			tell = !pool.told;
			pool.told = true;
		}
	}
	pthread_mutex_unlock(&pool.lock);
	if (tell)
		log_warn("keys of encrypted disks may be swapped out: RLIMIT_MEMLOCK is too small");
	return cell;
}

static bool is_cell(const void *at)
{
	/* Set before any cell is given out. */
	const char *cells = (const char *)pool.cells;

	return cells && (const char *)at >= cells && (const char *)at < cells + CELLS * CELL;
}

static void give_back(union cell *cell)
{
	OPENSSL_cleanse(cell, sizeof *cell);
	pthread_mutex_lock(&pool.lock);
	cell->next = pool.free;
	pool.free = cell;
	pthread_mutex_unlock(&pool.lock);
}

/* --- OpenSSL's allocator ---------------------------------------------------------------- */

static void *allocate(size_t size, const char *file, int line)
{
	void *cell = secret && size <= CELL ? take() : NULL;

	(void)file;
	(void)line;
	return cell ? cell : malloc(size);
}

static void release(void *at, const char *file, int line)
{
	(void)file;
	(void)line;
	if (is_cell(at))
		give_back(at);
	else
		free(at);
}

static void *resize(void *at, size_t size, const char *file, int line)
{
	void *to;

	if (!at)
		return allocate(size, file, line);
	if (!size) {
		release(at, file, line);
		return NULL;
	}
	if (!is_cell(at))
		return realloc(at, size);
	if (size <= CELL)
		return at;
	to = allocate(size, file, line);
	if (to) {
		memcpy(to, at, CELL);
		give_back(at);
	}
	return to;
}

/* Before OpenSSL has allocated anything, or it would refuse. */
__attribute__((constructor)) static void install(void)
{
	if (!CRYPTO_set_mem_functions(allocate, resize, release))
		log_warn("keys of encrypted disks will not be in locked memory: something in this "
			 "program used OpenSSL before");
}
