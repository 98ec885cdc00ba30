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
	if (!map || atomic_fetch_sub(&map->users, 1) != 1)
		return;
	memory_guard_remove(map->guard);
	munmap(map->base, map->length);
	free(map);
}

static void mapping_hold(struct mapping *map)
{
	if (map)
		atomic_fetch_add(&map->users, 1);
}

/* Maps @length bytes of @fd from @offset, both multiples of its pages. */
static struct mapping *map_file(int fd, uint64_t offset, uint64_t length, struct error *err)
{
	struct mapping *map = calloc(1, sizeof *map);

	if (!map) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	map->length = length;
	map->offset = offset;
	map->base = mmap(NULL, map->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
			 (off_t)offset);
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
	return map;
}

/* A mapping in @memory of the same file, that reaches to @end. */
static struct mapping *find_mapping(const struct memory *memory, const struct stat *st,
				    uint64_t end)
{
	for (unsigned i = 0; i < memory->count; i++) {
		struct mapping *map = memory->region[i].map;

		if (map && map->inode && map->inode == st->st_ino && map->device == st->st_dev &&
		    end <= map->length && !atomic_load(&map->broken))
			return map;
	}
	return NULL;
}

/*
 * A mapping of bytes [@offset, @offset+@size) of @fd: that of the whole file, if it is one. mmap
 * wants whole pages, which in a file of huge pages are the file's block size.
 */
static struct mapping *mapping_open(const struct memory *memory, int fd, uint64_t offset,
				    uint64_t size, struct error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end, from;
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
	if ((uint64_t)st.st_blksize > page && !(st.st_blksize & (st.st_blksize - 1)))
		page = (uint64_t)st.st_blksize;
	if (!S_ISREG(st.st_mode)) {
		from = offset - offset % page;
		return map_file(fd, from, (end - from + page - 1) / page * page, err);
	}
	map = find_mapping(memory, &st, end);
	if (map) {
		mapping_hold(map);
		return map;
	}
	map = map_file(fd, 0, ((uint64_t)st.st_size + page - 1) / page * page, err);
	if (map) {
		map->device = st.st_dev;
		map->inode = st.st_ino;
	}
	return map;
}

/* --- tables ------------------------------------------------------------------------- */

static struct memory *table(unsigned room)
{
	struct memory *memory = calloc(1, sizeof *memory + room * sizeof *memory->region);

	if (memory) {
		atomic_init(&memory->users, 1);
		memory->room = room;
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

/* Makes *@memory one that nobody else holds, with room for one more region. */
static int make_own(struct memory **memory, struct error *err)
{
	struct memory *old = *memory, *own;

	if (atomic_load(&old->users) == 1 && old->count < old->room)
		return 0;
	own = table(old->count + old->count / 2 + 4);
	if (!own)
		return error_set(err, ENOMEM, "out of memory");
	own->count = old->count;
	memcpy(own->region, old->region, old->count * sizeof *old->region);
	for (unsigned i = 0; i < own->count; i++)
		mapping_hold(own->region[i].map);
	memory_release(old);
	*memory = own;
	return 0;
}

static bool overlap(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

int memory_add(struct memory **memory, uint64_t guest, uint64_t size, uint64_t user, int fd,
	       uint64_t offset, struct error *err)
{
	struct mapping *map = NULL;
	struct region *region;
	unsigned at = 0;
	uint64_t end;

	if (!size || __builtin_add_overflow(guest, size, &end) ||
	    __builtin_add_overflow(user, size, &end))
		return error_set(err, EINVAL,
				 "region of %#llx bytes at guest address %#llx is impossible",
				 (unsigned long long)size, (unsigned long long)guest);
	if ((*memory)->count >= MEMORY_REGIONS)
		return error_set(err, ENOSPC, "more than %d memory regions", MEMORY_REGIONS);
	for (unsigned i = 0; i < (*memory)->count; i++) {
		const struct region *r = &(*memory)->region[i];

		if (overlap(r->guest, guest, r->size, size) ||
		    overlap(r->user, user, r->size, size))
			return error_set(err, EEXIST,
					 "region at guest address %#llx overlaps one at %#llx",
					 (unsigned long long)guest, (unsigned long long)r->guest);
		if (r->guest < guest)
			at = i + 1;
	}
	if (fd >= 0 && !(map = mapping_open(*memory, fd, offset, size, err)))
		return -err->code;
	if (make_own(memory, err)) {
		mapping_release(map);
		return -err->code;
	}
	region = &(*memory)->region[at];
	memmove(region + 1, region, ((*memory)->count++ - at) * sizeof *region);
	*region = (struct region){
		.guest = guest,
		.size = size,
		.user = user,
		.host = map ? map->base + (offset - map->offset) : NULL,
		.map = map,
	};
	return 0;
}

int memory_remove(struct memory **memory, uint64_t guest, uint64_t size, uint64_t user,
		  struct error *err)
{
	const struct region *r = memory_find(*memory, guest);
	struct region *region;
	unsigned at;

	if (!r || r->guest != guest || r->size != size || r->user != user)
		return error_set(err, EINVAL,
				 "no region of %#llx bytes at guest address %#llx to remove",
				 (unsigned long long)size, (unsigned long long)guest);
	at = (unsigned)(r - (*memory)->region);
	if (make_own(memory, err))
		return -err->code;
	region = &(*memory)->region[at];
	mapping_release(region->map);
	memmove(region, region + 1, (--(*memory)->count - at) * sizeof *region);
	return 0;
}

/* --- the way in --------------------------------------------------------------------- */

/* The last is the likeliest (high memory), and with few regions the only one but one. */
const struct region *memory_find(const struct memory *memory, uint64_t guest)
{
	unsigned low = 0, high = memory->count;
	const struct region *r;

	if (high && guest >= memory->region[high - 1].guest)
		low = high - 1;
	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;

		if (guest >= memory->region[middle].guest)
			low = middle;
		else
			high = middle;
	}
	r = &memory->region[low];
	return low < memory->count && guest >= r->guest && guest - r->guest < r->size ? r : NULL;
}

int memory_gather(const struct memory *memory, uint64_t guest, uint64_t length, struct iovec *vec,
		  unsigned room)
{
	bool remote = false;
	unsigned n = 0;

	while (length) {
		const struct region *r = memory_find(memory, guest);
		uint64_t within, bytes;

		if (!r)
			return -EFAULT;
		if (n == room)
			return remote ? -EREMOTE : -E2BIG;
		within = guest - r->guest;
		bytes = r->size - within < length ? r->size - within : length;
		remote |= !r->map;
		vec[n++] = (struct iovec){ r->host + within, bytes };
		guest += bytes;
		length -= bytes;
	}
	return remote ? -EREMOTE : (int)n;
}

void *memory_user(const struct memory *memory, uint64_t user, uint64_t length)
{
	for (unsigned i = 0; i < memory->count; i++) {
		const struct region *r = &memory->region[i];

		if (r->map && user >= r->user && user - r->user < r->size &&
		    length <= r->size - (user - r->user))
			return r->host + (user - r->user);
	}
	return NULL;
}

int memory_pin(const struct memory *memory, struct loop *loop)
{
	for (unsigned i = 0; i < memory->count; i++) {
		const struct region *r = &memory->region[i];
		int ret = r->map ? loop_memory_add(loop, r->host, r->size) : 0;

		if (!ret)
			continue;
		while (i-- > 0)
			if (memory->region[i].map)
				loop_memory_remove(loop, memory->region[i].host,
						   memory->region[i].size);
		return ret;
	}
	return 0;
}

void memory_unpin(const struct memory *memory, struct loop *loop)
{
	for (unsigned i = 0; i < memory->count; i++)
		if (memory->region[i].map)
			loop_memory_remove(loop, memory->region[i].host, memory->region[i].size);
}

bool memory_broken(const struct memory *memory)
{
	for (unsigned i = 0; i < memory->count; i++)
		if (memory->region[i].map &&
		    atomic_load_explicit(&memory->region[i].map->broken, memory_order_relaxed))
			return true;
	return false;
}
