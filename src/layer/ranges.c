/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ranges.c - locks on ranges; see ranges.h
 *
 * Region r has slot r mod SLOTS. A slot counts its holders in one word: readers in the low half, a
 * bit for the one who has it exclusively, a bit for "somebody waits". A shared lock of one region
 * is an addition that finds neither bit. All else takes the table's mutex: whoever cannot have all
 * its slots takes none, and waits in one list, in the order of coming; whoever lets go a slot on
 * which somebody waits looks through that list. So a lock is had whole or not at all, and nobody
 * holds one slot while waiting for another.
 *
 * A request that came later does not overtake one that waits for the same slot: the bit "waits" is
 * on all slots of those who wait, and turns newcomers to the list.
 */
#include "layer/ranges.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SLOTS 1024u /* a power of 2 */

#define EXCLUSIVE (1u << 30)
#define WAITED    (1u << 31)

struct ranges {
	unsigned shift; /* of a region */
	_Atomic uint32_t slot[SLOTS];
	pthread_mutex_t lock;       /* of what follows, and of the bits WAITED */
	struct io *waiting, **last; /* in the order of coming; what they want is in io.range */
};

struct ranges *ranges_create(uint64_t region)
{
	struct ranges *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->shift = (unsigned)__builtin_ctzll(region);
	pthread_mutex_init(&r->lock, NULL);
	r->last = &r->waiting;
	return r;
}

void ranges_destroy(struct ranges *ranges)
{
	if (!ranges)
		return;
	pthread_mutex_destroy(&ranges->lock);
	free(ranges);
}

static void slots_of(const struct ranges *r, uint64_t offset, uint64_t length, uint32_t *first,
		     uint32_t *count)
{
	uint64_t begin = offset >> r->shift, end = (offset + (length ? length - 1 : 0)) >> r->shift;

	*first = (uint32_t)(begin % SLOTS);
	*count = end - begin >= SLOTS ? SLOTS : (uint32_t)(end - begin + 1);
}

/* One slot; @barred says which bits are in the way. */
static bool take_slot(_Atomic uint32_t *slot, bool exclusive, uint32_t barred)
{
	uint32_t now = atomic_load(slot);

	do {
		if (now & barred || (exclusive && now & ~WAITED))
			return false;
	} while (!atomic_compare_exchange_weak(slot, &now, exclusive ? now | EXCLUSIVE : now + 1));
	return true;
}

static uint32_t release_slot(_Atomic uint32_t *slot, bool exclusive)
{
	return exclusive ? atomic_fetch_and(slot, ~EXCLUSIVE) : atomic_fetch_sub(slot, 1);
}

/* All of them or none. */
static bool take(struct ranges *r, uint32_t first, uint32_t count, bool exclusive, uint32_t barred)
{
	for (uint32_t i = 0; i < count; i++) {
		if (take_slot(&r->slot[(first + i) % SLOTS], exclusive, barred))
			continue;
		while (i-- > 0)
			release_slot(&r->slot[(first + i) % SLOTS], exclusive);
		return false;
	}
	return true;
}

static void mark(struct ranges *r, const struct io *io)
{
	for (uint32_t i = 0; i < io->range.count; i++)
		atomic_fetch_or(&r->slot[(io->range.first + i) % SLOTS], WAITED);
}

static bool overlap(const struct io *a, const struct io *b)
{
	return (b->range.first - a->range.first) % SLOTS < a->range.count ||
	       (a->range.first - b->range.first) % SLOTS < b->range.count;
}

static bool behind_another(const struct ranges *r, const struct io *io)
{
	for (const struct io *before = r->waiting; before != io; before = before->next)
		if (overlap(before, io))
			return true;
	return false;
}

/*
 * Gives those who wait what they can have; the mutex is held. Whoever lets go after a slot is
 * marked comes here, and what was let go before that is seen by take(): nobody is forgotten.
 */
static void look(struct ranges *r)
{
	struct io **at = &r->waiting, *io;

	for (uint32_t i = 0; i < SLOTS; i++)
		atomic_fetch_and(&r->slot[i], ~WAITED);
	for (io = r->waiting; io; io = io->next)
		mark(r, io);
	while ((io = *at)) {
		if (behind_another(r, io) ||
		    !take(r, io->range.first, io->range.count, io->range.exclusive, EXCLUSIVE)) {
			at = &io->next;
			continue;
		}
		*at = io->next;
		if (!*at)
			r->last = at;
		io_wake(io, io->wakes, io->wake);
	}
}

bool ranges_lock(struct ranges *ranges, struct io *io, uint64_t offset, uint64_t length,
		 bool exclusive, struct layer *layer, io_done_fn *go)
{
	uint32_t first, count;

	slots_of(ranges, offset, length, &first, &count);
	if (take(ranges, first, count, exclusive, EXCLUSIVE | WAITED))
		return true;
	io->range.first = first;
	io->range.count = count;
	io->range.exclusive = exclusive;
	io->wake = go;
	io->wakes = layer;
	pthread_mutex_lock(&ranges->lock);
	io->next = NULL;
	*ranges->last = io;
	ranges->last = &io->next;
	look(ranges);
	pthread_mutex_unlock(&ranges->lock);
	return false;
}

void ranges_unlock(struct ranges *ranges, uint64_t offset, uint64_t length, bool exclusive)
{
	uint32_t first, count, had = 0;

	slots_of(ranges, offset, length, &first, &count);
	for (uint32_t i = 0; i < count; i++)
		had |= release_slot(&ranges->slot[(first + i) % SLOTS], exclusive);
	if (!(had & WAITED))
		return;
	pthread_mutex_lock(&ranges->lock);
	look(ranges);
	pthread_mutex_unlock(&ranges->lock);
}
