/* SPDX-License-Identifier: BSD-3-Clause */
/* memory.c - tables of guest memory and the checked gather; see memory.h */
#include "memory/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop.h"
#include "util/error.h"

/* --- mappings ----------------------------------------------------------------------- */

static void mapping_release(struct mapping *map)
{
	if (atomic_fetch_sub(&map->users, 1) != 1)
		return;
	memory_guard_remove(map->guard);
	munmap(map->base, map->length);
	free(map);
}

/*
 * Maps bytes [@offset, @offset+@size) of @fd. mmap wants whole pages, which in a file of huge pages
 * are the file's block size. @host receives the address of byte @offset.
 */
static struct mapping *mapping_open(int fd, uint64_t offset, uint64_t size, char **host,
				    struct error *err)
{
	uint64_t page, skip, end;
	struct mapping *map;
	struct stat st;

	if (__builtin_add_overflow(offset, size, &end) || end > INT64_MAX) {
		error_set(err, EINVAL, "region of %#llx bytes at file offset %#llx: too large",
			  (unsigned long long)size, (unsigned long long)offset);
		return NULL;
	}
	if (fstat(fd, &st) || (S_ISREG(st.st_mode) && end > (uint64_t)st.st_size)) {
		error_set(err, EINVAL, "region ends at byte %#llx of a file of %#llx bytes",
			  (unsigned long long)end, (unsigned long long)st.st_size);
		return NULL;
	}
	page = (uint64_t)sysconf(_SC_PAGESIZE);
	if ((uint64_t)st.st_blksize > page && !(st.st_blksize & (st.st_blksize - 1)))
		page = (uint64_t)st.st_blksize;
	skip = offset % page;
	map = calloc(1, sizeof *map);
	if (!map) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	map->length = (size + skip + page - 1) / page * page;
	map->base = mmap(NULL, map->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
			 (off_t)(offset - skip));
	if (map->base == MAP_FAILED) {
		error_set(err, errno, "cannot map the guest's memory (share=on is needed): %s",
			  strerror(errno));
		free(map);
		return NULL;
	}
	/* Guest memory has no place in our core dumps, nor in our children. */
	madvise(map->base, map->length, MADV_DONTDUMP);
	madvise(map->base, map->length, MADV_DONTFORK);
	atomic_init(&map->users, 1);
	map->guard = memory_guard_add(map->base, map->length, &map->broken);
	if (map->guard < 0) {
		error_set(err, ENOSPC, "too many memory regions in this process");
		munmap(map->base, map->length);
		free(map);
		return NULL;
	}
	*host = map->base + skip;
	return map;
}

/* --- tables ------------------------------------------------------------------------- */

static struct memory *table(unsigned count)
{
	struct memory *memory = calloc(1, sizeof *memory + count * sizeof *memory->region);

	if (memory) {
		atomic_init(&memory->users, 1);
		memory->count = count;
	}
	return memory;
}

struct memory *memory_empty(void)
{
	return table(0);
}

struct memory *memory_hold(struct memory *memory)
{
	atomic_fetch_add(&memory->users, 1);
	return memory;
}

void memory_release(struct memory *memory)
{
	if (!memory || atomic_fetch_sub(&memory->users, 1) != 1)
		return;
	for (unsigned i = 0; i < memory->count; i++)
		mapping_release(memory->region[i].map);
	free(memory);
}

static bool overlap(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

struct memory *memory_add(const struct memory *old, uint64_t guest, uint64_t size, uint64_t user,
			  int fd, uint64_t offset, struct error *err)
{
	struct memory *memory;
	struct mapping *map;
	uint64_t end;
	char *host;
	unsigned at = 0;

	if (!size || __builtin_add_overflow(guest, size, &end) ||
	    __builtin_add_overflow(user, size, &end)) {
		error_set(err, EINVAL, "region of %#llx bytes at guest address %#llx is impossible",
			  (unsigned long long)size, (unsigned long long)guest);
		return NULL;
	}
	if (old->count >= MEMORY_REGIONS) {
		error_set(err, ENOSPC, "more than %d memory regions", MEMORY_REGIONS);
		return NULL;
	}
	for (unsigned i = 0; i < old->count; i++) {
		const struct region *r = &old->region[i];

		if (overlap(r->guest, guest, r->size, size) ||
		    overlap(r->user, user, r->size, size)) {
			error_set(err, EINVAL,
				  "region at guest address %#llx overlaps one at %#llx",
				  (unsigned long long)guest, (unsigned long long)r->guest);
			return NULL;
		}
		if (r->guest < guest)
			at = i + 1;
	}
	map = mapping_open(fd, offset, size, &host, err);
	if (!map)
		return NULL;
	memory = table(old->count + 1);
	if (!memory) {
		mapping_release(map);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	memcpy(memory->region, old->region, at * sizeof *old->region);
	memcpy(memory->region + at + 1, old->region + at, (old->count - at) * sizeof *old->region);
	memory->region[at] = (struct region){
		.guest = guest,
		.size = size,
		.user = user,
		.host = host,
		.map = map,
	};
	for (unsigned i = 0; i < memory->count; i++)
		if (i != at)
			atomic_fetch_add(&memory->region[i].map->users, 1);
	return memory;
}

struct memory *memory_remove(const struct memory *old, uint64_t guest, uint64_t size, uint64_t user,
			     struct error *err)
{
	struct memory *memory;
	unsigned at = 0;

	while (at < old->count && (old->region[at].guest != guest || old->region[at].size != size ||
				   old->region[at].user != user))
		at++;
	if (at == old->count) {
		error_set(err, EINVAL, "no region of %#llx bytes at guest address %#llx to remove",
			  (unsigned long long)size, (unsigned long long)guest);
		return NULL;
	}
	memory = table(old->count - 1);
	if (!memory) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	memcpy(memory->region, old->region, at * sizeof *old->region);
	memcpy(memory->region + at, old->region + at + 1,
	       (old->count - at - 1) * sizeof *old->region);
	for (unsigned i = 0; i < memory->count; i++)
		atomic_fetch_add(&memory->region[i].map->users, 1);
	return memory;
}

/* --- the way in --------------------------------------------------------------------- */

/* The region that holds @guest, or NULL. Tables are short; the last is the likeliest (high memory).
 */
static const struct region *find(const struct memory *memory, uint64_t guest)
{
	for (unsigned i = memory->count; i-- > 0;) {
		const struct region *r = &memory->region[i];

		if (guest >= r->guest)
			return guest - r->guest < r->size ? r : NULL;
	}
	return NULL;
}

int memory_gather(const struct memory *memory, uint64_t guest, uint64_t length, struct iovec *vec,
		  unsigned room)
{
	unsigned n = 0;

	while (length) {
		const struct region *r = find(memory, guest);
		uint64_t within, bytes;

		if (!r)
			return -EFAULT;
		if (n == room)
			return -E2BIG;
		within = guest - r->guest;
		bytes = r->size - within < length ? r->size - within : length;
		vec[n++] = (struct iovec){ r->host + within, bytes };
		guest += bytes;
		length -= bytes;
	}
	return (int)n;
}

void *memory_user(const struct memory *memory, uint64_t user, uint64_t length)
{
	for (unsigned i = 0; i < memory->count; i++) {
		const struct region *r = &memory->region[i];

		if (user >= r->user && user - r->user < r->size &&
		    length <= r->size - (user - r->user))
			return r->host + (user - r->user);
	}
	return NULL;
}

int memory_pin(const struct memory *memory, struct loop *loop)
{
	for (unsigned i = 0; i < memory->count; i++) {
		const struct region *r = &memory->region[i];
		int ret = loop_memory_add(loop, r->host, r->size);

		if (!ret)
			continue;
		while (i-- > 0)
			loop_memory_remove(loop, memory->region[i].host, memory->region[i].size);
		return ret;
	}
	return 0;
}

void memory_unpin(const struct memory *memory, struct loop *loop)
{
	for (unsigned i = 0; i < memory->count; i++)
		loop_memory_remove(loop, memory->region[i].host, memory->region[i].size);
}

bool memory_broken(const struct memory *memory)
{
	for (unsigned i = 0; i < memory->count; i++)
		if (atomic_load_explicit(&memory->region[i].map->broken, memory_order_relaxed))
			return true;
	return false;
}
