/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_retire.c - legs that a change leaves behind: what is written on them and on the others
 *
 * If the disk goes on without its mirror, with one leg alone or at another place, no table says of
 * what follows that a leg lacks it. So that a leg that is left behind is never taken for the truth,
 * this is written while nothing is inside the disk, one after the other, with FUA:
 *
 *     1. on one leg that stays, the first: a table in which it is alone
 *     2. on each other leg: its table, but in this it is stale by its own word
 *     3. on the first: zeroes over all that the mirror kept there
 *
 * If the power goes before 1 is there, nothing is changed. After it the first leg wins against all
 * others, with or without 2; they are strangers to it, and lack all. After 3 no leg wins. Where no
 * leg stays any one that has all data is the first, and 3 makes it stale as the others. A second
 * leg that stays is zeroed in 2.
 *
 * If the mirror stays, and loses legs, the legs that stay get a table without the others.
 *
 * Nothing is flushed for it: the guest's flushes that were acknowledged have reached all legs.
 */
#include <errno.h>
#include <string.h>

#include "layer/mirror.h"
#include "layer/session.h"
#include "util/error.h"

/* A new stamp for @table. */
static void stamp(struct mirror *m, struct mirror_super *table)
{
	pthread_mutex_lock(&m->lock);
	mirror_next_stamp(m);
	table->stamp = m->table.stamp;
	pthread_mutex_unlock(&m->lock);
}

static int write_table(struct mirror *m, unsigned i, struct session *session,
		       struct mirror_super *table)
{
	struct mirror_leg *leg = &m->leg[i];
	struct mirror_member *member;
	int ret = 0;

	table->self = leg->uuid;
	table->end = leg->end;
	table->bitmap_offset = leg->bitmap_offset;
	mirror_super_encode(table, m->blocks);
	for (unsigned copy = 0; copy < MIRROR_COPIES && !ret; copy++)
		ret = session_write(session, mirror_super_offset(leg->end, copy), m->blocks,
				    MIRROR_BLOCK, IO_FUA);
	if (ret)
		return ret;
	/* If the mirror goes on after all, its next table must know this one. */
	pthread_mutex_lock(&m->lock);
	member = mirror_member(&m->table, &leg->uuid);
	if (member)
		member->confirmed = table->stamp;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

/* --- the mirror goes -------------------------------------------------------------------------- */

static int write_alone(struct mirror *m, unsigned i, struct session *session)
{
	struct mirror_super table = m->table;
	struct mirror_member self = *mirror_member(&table, &m->leg[i].uuid);

	stamp(m, &table);
	self.in_sync = true;
	self.attempted = table.stamp;
	table.count = 1;
	table.member[0] = self;
	return write_table(m, i, session, &table);
}

/* @was: the table of the mirror. That of the first leg, if it has one by now, must be unknown. */
static int write_stale(struct mirror *m, unsigned i, struct session *session,
		       const struct mirror_super *was)
{
	struct mirror_super table = *was;
	struct mirror_member *member = mirror_member(&table, &m->leg[i].uuid);

	if (!member)
		return 0; /* it was being taken in, and is in no table yet */
	member->in_sync = false;
	stamp(m, &table);
	return write_table(m, i, session, &table);
}

/* The superblocks first: what they tell of must be there as long as they are. */
static int erase(struct mirror *m, unsigned i, struct session *session)
{
	const struct mirror_leg *leg = &m->leg[i];
	size_t bitmap = (size_t)mirror_all_sectors(m) * MIRROR_SECTOR;
	int ret = 0;

	memset(m->blocks, 0, MIRROR_BLOCK);
	for (unsigned copy = 0; copy < MIRROR_COPIES && !ret; copy++)
		ret = session_write(session, mirror_super_offset(leg->end, copy), m->blocks,
				    MIRROR_BLOCK, IO_FUA);
	memset(m->sectors, 0, bitmap);
	return ret ? ret : session_write(session, leg->bitmap_offset, m->sectors, bitmap, IO_FUA);
}

static int not_written(const struct mirror *m, unsigned i, int status, struct error *err)
{
	return error_set(err, -status, "%s: its records cannot be written: %s: nothing is changed",
			 m->leg[i].name, strerror(-status));
}

/* A leg that has all data, and stays if any does. -1 with @err. */
static int find_first(const struct mirror *m, uint32_t kept, struct error *err)
{
	uint32_t readable = atomic_load(&m->readable);
	int first = -1;

	for_each_leg(i, kept ? kept : readable)
	{
		bool holds = readable >> i & 1 && !atomic_load(&m->leg[i].need_count);

		if (holds && first < 0)
			first = (int)i;
		if (holds || !kept)
			continue;
		error_set(err, ENODATA, "%s lacks data that the disk has: nothing is changed",
			  m->leg[i].name);
		return -1;
	}
	if (first < 0)
		error_set(err, ENODATA, "no leg has all data: nothing is changed");
	return first;
}

static int take_apart(struct mirror *m, uint32_t kept, struct session **sessions, struct error *err)
{
	uint32_t live = atomic_load(&m->live);
	struct mirror_super was = m->table;
	int first = find_first(m, kept, err), ret;

	if (first < 0)
		return -err->code;
	ret = write_alone(m, (unsigned)first, sessions[first]);
	if (ret)
		return not_written(m, (unsigned)first, ret, err);
	for_each_leg(i, live & ~(1u << first))
	{
		ret = kept >> i & 1 ? erase(m, i, sessions[i])
				    : write_stale(m, i, sessions[i], &was);
		if (ret && kept >> i & 1)
			return not_written(m, i, ret, err);
		/* As one that failed before: its table names legs that it does not start without.
		 */
		if (ret)
			log_warn("disk %s: mirror: %s is left behind, and cannot be told: %s",
				 m->layer.disk, m->leg[i].name, strerror(-ret));
	}
	ret = kept ? erase(m, (unsigned)first, sessions[first])
		   : write_stale(m, (unsigned)first, sessions[first], &was);
	if (ret)
		return not_written(m, (unsigned)first, ret, err);
	log_info(
		"disk %s: mirror: taken apart; before a leg that is left behind can be used in a mirror "
		"again it must be wiped (penstock inspect --wipe)",
		m->layer.disk);
	return 0;
}

/* --- legs go ---------------------------------------------------------------------------------- */

static bool anybody_goes(const struct mirror *m)
{
	for (unsigned k = 0; k < m->table.count; k++)
		if (!mirror_stays(m, &m->table.member[k].uuid))
			return true;
	return false;
}

/* Those in sync first. A leg that fails is dropped, unless it is the last one. */
static int write_staying(struct mirror *m, struct session **sessions, struct mirror_super *table)
{
	uint32_t live = atomic_load(&m->live), readable = atomic_load(&m->readable);

	for (unsigned phase = 0; phase < 2; phase++)
		for_each_leg(i, phase ? live & ~readable : readable)
		{
			bool last;
			int ret;

			/* One that is being taken in may be in no table yet. */
			if (!mirror_stays(m, &m->leg[i].uuid) ||
			    !mirror_member(table, &m->leg[i].uuid))
				continue;
			ret = write_table(m, i, sessions[i], table);
			if (!ret)
				continue;
			pthread_mutex_lock(&m->lock);
			last = !mirror_drop_locked(m, i, "write of its records", ret);
			pthread_mutex_unlock(&m->lock);
			if (last)
				return ret;
		}
	return 0;
}

static int part(struct mirror *m, struct session **sessions, struct error *err)
{
	struct mirror_super table = m->table;
	uint32_t live = atomic_load(&m->live);
	bool good = false;
	int ret;

	for (unsigned k = table.count; k-- > 0;)
		if (!mirror_stays(m, &table.member[k].uuid))
			mirror_forget(&table, k);
	stamp(m, &table);
	for_each_leg(i, live)
	{
		struct mirror_member *member = mirror_member(&table, &m->leg[i].uuid);

		if (member)
			member->attempted = table.stamp;
	}
	ret = table.count ? write_staying(m, sessions, &table) : 0;
	for_each_leg(i, atomic_load(&m->readable))
		good |= mirror_stays(m, &m->leg[i].uuid) && !atomic_load(&m->leg[i].need_count);
	if (!ret && good)
		return 0;
	return error_set(err, ret ? -ret : ENODATA,
			 "no leg that has all data would remain: nothing is changed");
}

/* --- both ------------------------------------------------------------------------------------- */

/* The change is not made: what the legs were told is taken back by the next table. */
void mirror_stay(struct mirror *m)
{
	pthread_mutex_lock(&m->lock);
	m->parted = false;
	mirror_image_save(m, 0, mirror_all_sectors(m));
	m->table_wanted = true;
	m->table_blocked = false;
	atomic_store(&m->pending, true);
	pthread_mutex_unlock(&m->lock);
}

int mirror_retire(struct layer *layer, uint32_t kept, struct error *err)
{
	struct mirror *m = (struct mirror *)layer;
	struct session *sessions[MIRROR_LEGS] = { NULL };
	uint32_t live = atomic_load(&m->live);
	int ret = 0;

	if (layer->read_only || (m->change && !anybody_goes(m)))
		return 0;
	for_each_leg(i, live)
	{
		sessions[i] = session_open(layer->legs[i], err);
		if (!sessions[i] && !ret)
			ret = -err->code;
	}
	m->parted = !ret;
	if (!ret)
		ret = m->change ? part(m, sessions, err) : take_apart(m, kept, sessions, err);
	for (unsigned i = 0; i < MIRROR_LEGS; i++)
		session_close(sessions[i]);
	if (ret && m->parted)
		mirror_stay(m);
	return ret;
}
