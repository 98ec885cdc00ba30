/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_history.c - the ring of changes that a server may still lose; see nbd_history.h */
#include "backend/nbd_history.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/error.h"

#define ALIGN 64u
#define SHARE 8 /* an entry takes this part of the ring at most */

_Static_assert(sizeof(struct past) == ALIGN, "entries are aligned to their header");

int history_open(struct history *h, uint64_t size, struct error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const char *failed = NULL;
	int fd;

	*h = (struct history){ .size = (size + page - 1) / page * page, .stable = 1, .epoch = 1 };
	fd = memfd_create("penstock-nbd", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)h->size))
		failed = strerror(errno);
	h->base = failed ? MAP_FAILED
			 : mmap(NULL, h->size * 2, PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (unsigned i = 0; i < 2 && h->base != MAP_FAILED; i++) {
		if (mmap(h->base + i * h->size, h->size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
			continue;
		failed = strerror(errno);
		munmap(h->base, h->size * 2);
		h->base = MAP_FAILED;
	}
	if (h->base == MAP_FAILED && !failed)
		failed = strerror(errno);
	if (fd >= 0)
		close(fd);
	if (!failed)
		madvise(h->base, h->size * 2, MADV_DONTDUMP);
	return failed ? error_set(err, ENOMEM, "replay-memory: cannot get %llu bytes of memory: %s",
				  (unsigned long long)h->size, failed)
		      : 0;
}

void history_close(struct history *h)
{
	munmap(h->base, h->size * 2);
}

uint32_t history_longest(const struct history *h)
{
	return (uint32_t)(h->size / SHARE - sizeof(struct past));
}

static struct past *at(const struct history *h, uint64_t position)
{
	return (struct past *)(h->base + position % h->size);
}

struct past *history_add(struct history *h, uint8_t op, uint8_t flags, uint64_t offset,
			 uint64_t length, bool data)
{
	uint64_t room = sizeof(struct past) + (data ? (length + ALIGN - 1) / ALIGN * ALIGN : 0);
	struct past *past = at(h, h->tail);

	if (h->tail + room - h->head > h->size)
		return NULL;
	past->offset = offset;
	past->length = length;
	past->room = (uint32_t)room;
	past->op = op;
	past->flags = flags;
	past->state = PAST_SENT;
	past->has_data = data;
	h->tail += room;
	return past;
}

/* What needs not be sent again leaves at the old end. */
static void trim(struct history *h)
{
	if (h->held)
		return;
	while (h->head < h->tail) {
		const struct past *past = at(h, h->head);

		if (past->state == PAST_SENT ||
		    (past->state == PAST_ACKED && past->epoch >= h->stable))
			return;
		h->head += past->room;
	}
	/* Empty: the same memory again, which the processor's caches still have. */
	h->head = h->tail = 0;
}

void history_done(struct history *h, struct past *past, bool firm)
{
	past->state = firm ? PAST_FIRM : PAST_ACKED;
	past->epoch = h->epoch;
	past->command = NULL;
	trim(h);
}

void history_failed(struct history *h, struct past *past)
{
	past->state = PAST_VOID;
	past->command = NULL;
	trim(h);
}

uint64_t history_flush(struct history *h)
{
	return ++h->epoch;
}

void history_flushed(struct history *h, uint64_t flush)
{
	if (flush > h->stable)
		h->stable = flush;
	trim(h);
}

void history_forget(struct history *h)
{
	h->stable = ++h->epoch;
	trim(h);
}

bool history_wanted(const struct history *h, const struct past *past)
{
	/* What was acknowledged before the flush that made this one stable is stable too. */
	return past->state == PAST_SENT || (past->state != PAST_VOID && past->epoch >= h->stable);
}

struct past *history_first(struct history *h)
{
	h->held = true;
	return h->head < h->tail ? at(h, h->head) : NULL;
}

struct past *history_next(struct history *h, struct past *past)
{
	uint64_t here = (uint64_t)((char *)past - h->base);
	uint64_t position = h->head + (here + h->size - h->head % h->size) % h->size + past->room;

	return position < h->tail ? at(h, position) : NULL;
}

void history_walked(struct history *h)
{
	h->held = false;
	trim(h);
}
