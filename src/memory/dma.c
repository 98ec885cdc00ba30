/* SPDX-License-Identifier: BSD-3-Clause */
/* dma.c - transfers to and from guest memory, mapped or reached by messages; see dma.h */
#include "memory/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/memory.h"

#define BOUNCE_MAX (64ull << 20) /* bytes of all bounce buffers of a space */

/* One piece that is reached by messages, as many as it takes, one after the other. */
struct dma_bounce {
	struct dma_bounce *next;
	struct dma_transfer *transfer;
	struct dma_message message;
	uint64_t address, length; /* of the piece */
	uint64_t at;              /* of its first byte in the transfer */
	uint64_t moved, wanted;   /* bytes: by messages so far, and all that shall be */
	char bytes[];
};

/* --- whether memory is shared ------------------------------------------------------- */

#define CHECK_BYTES 64
#define CHECK_TRIES 8   /* so many differences in a row are no accident */
#define CHECK_VAIN  500 /* comparisons of zeroes, which prove nothing, before we believe it */

struct dma_check {
	struct dma_space *space;
	struct memory *memory; /* keeps @here mapped */
	struct mapping *map;
	const char *here;
	struct dma_message message;
	struct dma_transfer *waiting; /* those that would read what may not be the guest's */
	unsigned tries;
	char before[CHECK_BYTES], theirs[CHECK_BYTES];
};

static void go_on(struct dma_transfer *t);
static void ended(struct dma_transfer *t, bool over);

/* @status: what it means for those that wait for it. */
static void check_end(struct dma_check *check, int status)
{
	struct dma_transfer *waiting = check->waiting;

	check->space->check = NULL;
	memory_release(check->memory);
	free(check);
	while (waiting) {
		struct dma_transfer *t = waiting;

		waiting = t->next_waiting;
		t->status = status;
		if (status)
			ended(t, true);
		else
			go_on(t);
	}
}

static void check_send(struct dma_check *check)
{
	memcpy(check->before, check->here, check->message.length);
	check->space->send(check->space, &check->message);
}

/*
 * Ours may change under our hands, or zeroes may be compared with zeroes: neither proves anything.
 * A difference while ours stood still does, if it comes again and again.
 */
static void check_compare(struct dma_message *message, int status)
{
	static const char zeros[CHECK_BYTES];
	struct dma_check *check = message->owner;
	uint32_t length = message->length;
	bool still = !memcmp(check->before, check->here, length);

	if (status || !memcmp(check->theirs, check->before, length)) {
		if ((!status && memcmp(check->theirs, zeros, length)) ||
		    ++check->map->checked == CHECK_VAIN)
			check->map->checked = MAPPING_CHECKED;
		check_end(check, status == -ENOTCONN ? status : 0);
	} else if (!still) {
		check_end(check, 0);
	} else if (++check->tries < CHECK_TRIES) {
		check_send(check);
	} else {
		check->map->checked = MAPPING_CHECKED; /* reported, once */
		if (check->space->unshared)
			check->space->unshared(check->space, message->address);
		check_end(check, -EFAULT);
	}
}

static void check_begin(struct dma_space *space, const struct region *r, uint64_t address,
			uint64_t length)
{
	struct dma_check *check;

	if (!space->send || space->check || !(check = calloc(1, sizeof *check)))
		return;
	check->space = space;
	check->memory = memory_hold(space->memory);
	check->map = r->map;
	check->here = r->host + (address - r->guest);
	check->message = (struct dma_message){
		.direction = DMA_FROM_GUEST,
		.address = address,
		.length = (uint32_t)(length < CHECK_BYTES ? length : CHECK_BYTES),
		.bytes = check->theirs,
		.done = check_compare,
		.owner = check,
	};
	space->check = check;
	check_send(check);
}

/* True if it is not certain yet. */
static bool check_shared(struct dma_space *space, const struct region *r, uint64_t address,
			 uint64_t length)
{
	if (__builtin_expect(r->map->checked == MAPPING_CHECKED, 1))
		return false;
	check_begin(space, r, address, length);
	return true;
}

/* --- a transfer --------------------------------------------------------------------- */

/*
 * A transfer's hold on the table. A space's table is its loop's alone, so that counting needs no
 * bus lock: two of them were a tenth of a small request.
 */
static struct memory *hold(struct memory *memory)
{
	unsigned users = atomic_load_explicit(&memory->users, memory_order_relaxed);

	atomic_store_explicit(&memory->users, users + 1, memory_order_relaxed);
	return memory;
}

static void release(struct memory *memory)
{
	unsigned users = atomic_load_explicit(&memory->users, memory_order_relaxed);

	if (users == 1)
		memory_release(memory);
	else
		atomic_store_explicit(&memory->users, users - 1, memory_order_relaxed);
}

void dma_begin(struct dma_transfer *t, struct dma_space *space, struct iovec *vec, unsigned room)
{
	t->vec = vec;
	t->room = room;
	t->count = 0;
	t->length = 0;
	t->space = space;
	t->memory = hold(space->memory);
	t->next = space->active;
	t->previous = &space->active;
	if (t->next)
		t->next->previous = &t->next;
	space->active = t;
	t->draining = t->unchecked = false;
	t->bounce = NULL;
	t->waiting = 0;
	t->status = 0;
}

static void let_go(struct dma_transfer *t)
{
	while (t->bounce) {
		struct dma_bounce *bounce = t->bounce;

		t->bounce = bounce->next;
		t->space->bounced -= bounce->length;
		free(bounce);
	}
	release(t->memory);
	t->memory = NULL;
	*t->previous = t->next;
	if (t->next)
		t->next->previous = t->previous;
	if (t->draining && !--t->space->draining && t->space->drained)
		t->space->drained(t->space);
}

static void *add_bounce(struct dma_transfer *t, uint64_t address, uint64_t length)
{
	struct dma_space *space = t->space;
	struct dma_bounce *bounce;

	if (!space->send || length > BOUNCE_MAX - space->bounced)
		return NULL;
	bounce = calloc(1, sizeof *bounce + length);
	if (!bounce)
		return NULL;
	space->bounced += length;
	bounce->transfer = t;
	bounce->address = address;
	bounce->length = length;
	bounce->at = t->length;
	bounce->next = t->bounce;
	t->bounce = bounce;
	return bounce->bytes;
}

int dma_add(struct dma_transfer *t, uint64_t address, uint64_t length)
{
	while (length) {
		const struct region *r = memory_find(t->memory, address);
		uint64_t within, bytes;
		void *base;

		if (!r)
			return -EFAULT;
		if (t->count == t->room)
			return -E2BIG;
		within = address - r->guest;
		bytes = r->size - within < length ? r->size - within : length;
		if (r->map) {
			t->unchecked |= check_shared(t->space, r, address, bytes);
			base = r->host + within;
		} else if (!(base = add_bounce(t, address, bytes))) {
			return -ENOMEM;
		}
		t->vec[t->count++] = (struct iovec){ base, bytes };
		t->length += bytes;
		address += bytes;
		length -= bytes;
	}
	return 0;
}

/* --- messages ----------------------------------------------------------------------- */

static void ended(struct dma_transfer *t, bool over)
{
	if (over || t->status)
		let_go(t);
	t->then(t, t->status);
}

static void send_next(struct dma_bounce *bounce)
{
	struct dma_space *space = bounce->transfer->space;
	uint64_t left = bounce->wanted - bounce->moved;

	bounce->message.address = bounce->address + bounce->moved;
	bounce->message.length = (uint32_t)(left < space->message_max ? left : space->message_max);
	bounce->message.bytes = bounce->bytes + bounce->moved;
	space->send(space, &bounce->message);
}

static void moved(struct dma_message *message, int status)
{
	struct dma_bounce *bounce = message->owner;
	struct dma_transfer *t = bounce->transfer;

	bounce->moved += message->length;
	if (status && !t->status)
		t->status = status;
	if (!t->status && bounce->moved < bounce->wanted)
		send_next(bounce);
	else if (!--t->waiting)
		ended(t, t->direction == DMA_TO_GUEST);
}

/* Moves the first @length bytes of the transfer, as far as that takes messages. */
static void move(struct dma_transfer *t, uint64_t length)
{
	t->waiting = 1; /* our own, so that it does not end before the last is sent */
	for (struct dma_bounce *b = t->bounce; b; b = b->next) {
		if (b->at >= length)
			continue;
		b->moved = 0;
		b->wanted = length - b->at < b->length ? length - b->at : b->length;
		b->message.direction = t->direction;
		b->message.done = moved;
		b->message.owner = b;
		t->waiting++;
		send_next(b);
	}
	if (!--t->waiting)
		ended(t, t->direction == DMA_TO_GUEST);
}

static void go_on(struct dma_transfer *t)
{
	if (t->bounce && t->direction == DMA_FROM_GUEST)
		move(t, t->length);
	else
		t->then(t, 0);
}

/* What the device is about to take for the guest's data must be the guest's. */
void dma_ready(struct dma_transfer *t, enum dma_direction direction, dma_fn *ready)
{
	struct dma_check *check = t->space->check;

	t->direction = direction;
	t->then = ready;
	if (t->unchecked && check && direction == DMA_FROM_GUEST) {
		t->next_waiting = check->waiting;
		check->waiting = t;
	} else {
		go_on(t);
	}
}

void dma_finish(struct dma_transfer *t, uint64_t length, dma_fn *finished)
{
	t->then = finished;
	if (t->bounce && t->direction == DMA_TO_GUEST)
		move(t, length);
	else
		ended(t, true);
}

void dma_cancel(struct dma_transfer *t)
{
	let_go(t);
}

/* --- structures that both sides poll ------------------------------------------------ */

void *dma_map(struct dma_space *space, uint64_t address, uint64_t length)
{
	const struct region *r = memory_find(space->memory, address);
	char *base = r && r->map ? r->host + (address - r->guest) : NULL;
	uint64_t have;

	if (!base)
		return NULL;
	have = r->size - (address - r->guest);
	/* Regions that are neighbours for the guest and in the file are one piece. */
	while (have < length) {
		r = memory_find(space->memory, address + have);
		if (!r || r->host != base + have)
			return NULL;
		have += r->size;
	}
	if (check_shared(space, memory_find(space->memory, address), address, length) &&
	    space->uncertain_count < DMA_UNCERTAIN)
		space->uncertain[space->uncertain_count++] = address;
	return base;
}

void dma_recheck(struct dma_space *space)
{
	while (space->uncertain_count && !space->check) {
		unsigned i = space->uncertain_next++ % space->uncertain_count;
		const struct region *r = memory_find(space->memory, space->uncertain[i]);

		if (r && r->map &&
		    check_shared(space, r, space->uncertain[i],
				 r->size - (space->uncertain[i] - r->guest)))
			return;
		space->uncertain[i] = space->uncertain[--space->uncertain_count];
	}
}

static bool uses(const struct dma_transfer *t, const char *host, uint64_t length)
{
	for (unsigned i = 0; i < t->count; i++) {
		const char *base = t->vec[i].iov_base;

		if (base < host + length && host < base + t->vec[i].iov_len)
			return true;
	}
	return false;
}

bool dma_drain(struct dma_space *space, const char *host, uint64_t length)
{
	for (struct dma_transfer *t = space->active; t; t = t->next) {
		if (t->draining || !uses(t, host, length))
			continue;
		t->draining = true;
		space->draining++;
	}
	return space->draining;
}
