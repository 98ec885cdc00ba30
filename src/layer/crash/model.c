/* SPDX-License-Identifier: BSD-3-Clause */
/* model.c - the versions of each sector; see model.h */
#include "layer/crash/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model *model_create(uint32_t sectors)
{
	struct model *m = calloc(1, sizeof *m);

	if (!m || !(m->sector = calloc(sectors, sizeof *m->sector)))
		abort();
	m->sectors = sectors;
	m->strict = true;
	for (uint32_t i = 0; i < sectors; i++)
		m->sector[i] = (struct sector){ .count = 1, .before = 1, .live = 1 };
	return m;
}

struct model *model_copy(const struct model *from)
{
	struct model *m = model_create(from->sectors);

	m->strict = from->strict;
	memcpy(m->sector, from->sector, from->sectors * sizeof *m->sector);
	return m;
}

void model_free(struct model *m)
{
	if (!m)
		return;
	free(m->sector);
	free(m);
}

bool model_has_room(const struct model *m, uint32_t sector)
{
	return m->sector[sector].count < VERSIONS;
}

/* The @n oldest versions are no longer possible. */
static void drop(struct sector *s, unsigned n)
{
	s->count -= n;
	s->before = s->before > n ? s->before - n : 0;
	memmove(s->stamp, s->stamp + n, s->count * sizeof *s->stamp);
	memmove(s->done, s->done + n, s->count * sizeof *s->done);
	s->live >>= n;
	s->weak >>= n;
}

/* Only the version @n is possible. */
static void settle(struct sector *s, unsigned n)
{
	s->stamp[0] = s->stamp[n];
	s->done[0] = s->done[n];
	s->weak = 0;
	s->live = 1;
	s->count = 1;
	s->before = s->before != 0;
}

static void begin(struct sector *s, uint32_t stamp, bool weak)
{
	unsigned n = s->count++;

	s->stamp[n] = stamp;
	s->done[n] = 0;
	if (weak)
		s->weak |= 1u << n;
	s->changing = true;
}

static void end(struct sector *s, uint32_t index, bool failed, bool fua)
{
	unsigned n = s->count - 1u;

	s->changing = false;
	s->done[n] = index;
	if (failed)
		s->weak |= 1u << n;
	if (s->weak >> n & 1) {
		s->live |= 1u << n;
		return;
	}
	s->live = (uint16_t)(1u << n);
	if (fua)
		drop(s, n);
}

/* What was completed before the event @came is certain now. */
static void flush(struct sector *s, uint32_t came)
{
	for (unsigned n = s->count; n-- > s->before;) {
		if (s->done[n] && s->done[n] < came && !(s->weak >> n & 1)) {
			drop(s, n);
			return;
		}
	}
}

static bool found(const struct model *m, struct sector *s, uint32_t stamp)
{
	for (unsigned n = 0; n < s->count; n++) {
		if (s->stamp[n] != stamp || !(s->live >> n & 1))
			continue;
		/* A discard may be done late, or by one of two mirrored disks. */
		if (s->weak)
			return true;
		s->live = (uint16_t)(1u << n);
		if (m->strict && s->before == s->count)
			settle(s, n);
		else if (!s->done[n] && n >= s->before)
			s->done[n] = 1; /* it was completed before the program was killed */
		return true;
	}
	return false;
}

bool model_follow(struct model *m, const struct event *log, uint32_t index)
{
	const struct event *e = &log[index];
	const struct event *came = &log[e->of];

	switch (e->kind) {
	case GUEST_WRITE:
		for (uint32_t i = 0; i < e->count; i++)
			begin(&m->sector[e->sector + i], e->stamp ? e->stamp + i : 0, e->weak);
		break;
	case GUEST_WRITTEN:
		for (uint32_t i = 0; i < came->count; i++)
			end(&m->sector[came->sector + i], index, e->weak, came->fua);
		break;
	case GUEST_FLUSHED:
		if (e->weak) /* it failed */
			break;
		for (uint32_t i = 0; i < m->sectors; i++)
			flush(&m->sector[i], e->of);
		break;
	case GUEST_READ:
		return found(m, &m->sector[e->sector], e->stamp);
	default:
		break;
	}
	return true;
}

/* The system lives on, and shows what was completed; but power may still be lost before a flush. */
static void kill_one(struct sector *s)
{
	/* Of several that may be there now, a flush keeps the one that is: which, a read will tell.
	 */
	unsigned oldest = (unsigned)__builtin_ctz(s->live);

	for (unsigned n = 0; n < s->count; n++)
		s->done[n] = n <= oldest;
	if (s->changing)
		s->live |= (uint16_t)(1u << (s->count - 1u));
	s->before = 0;
}

static void cut_one(struct sector *s)
{
	s->live = (uint16_t)((1u << s->count) - 1);
	s->weak = s->weak ? s->live : 0;
	s->before = s->count;
}

void model_crash(struct model *m, enum cut_kind kind)
{
	for (uint32_t i = 0; i < m->sectors; i++) {
		struct sector *s = &m->sector[i];

		(kind == KILL ? kill_one : cut_one)(s);
		s->changing = false;
		s->readers = 0;
	}
}

char *model_describe(const struct model *m, uint32_t sector, char *text, size_t size)
{
	const struct sector *s = &m->sector[sector];
	size_t n = 0;

	text[0] = 0;
	for (unsigned i = 0; i < s->count && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%u%s%s%s", i ? ", " : "", s->stamp[i],
				      s->live >> i & 1 ? "" : " (not now)",
				      s->weak >> i & 1 ? " (perhaps)" : "",
				      i < s->before ? " (before)" : "");
	return text;
}

static uint64_t pattern(uint32_t stamp, uint32_t sector)
{
	return (stamp + 1ull) * 0x9e3779b97f4a7c15ull ^ sector * 0xc2b2ae3d27d4eb4full;
}

void stamp_write(uint32_t stamp, uint32_t sector, unsigned char *bytes)
{
	uint64_t word = pattern(stamp, sector);

	if (!stamp) {
		memset(bytes, 0, SECTOR);
		return;
	}
	memcpy(bytes, &stamp, 4);
	memcpy(bytes + 4, &sector, 4);
	for (unsigned i = 8; i < SECTOR; i += 8) {
		uint64_t value = word + i;

		memcpy(bytes + i, &value, 8);
	}
}

uint32_t stamp_read(const unsigned char *bytes, uint32_t sector)
{
	unsigned char expected[SECTOR];
	uint32_t stamp;

	memcpy(&stamp, bytes, 4);
	stamp_write(stamp, sector, expected);
	return memcmp(bytes, expected, SECTOR) ? UINT32_MAX : stamp;
}
