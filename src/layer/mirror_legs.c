/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_legs.c - other legs for a mirror in use
 *
 * A change prepares the legs that come (mirror_prepare), and takes them in with nothing inside the
 * disk (mirror_commit). Before that the legs that stay have a table without those that go
 * (mirror_retire.c); what else the table must say is written before the next request that changes
 * something is acknowledged.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layer/mirror.h"
#include "layer/session.h"
#include "util/error.h"

/* One that is prepared. */
struct mirror_change {
	struct {
		int kept; /* index of the leg it is now; -1: it comes */
		struct mirror_find find;
		struct mirror_uuid uuid;
		_Atomic uint64_t *need;
		bool all; /* it lacks all */
		char name[64];
	} leg[MIRROR_LEGS];
	unsigned count;
};

static void free_change(struct mirror *m)
{
	struct mirror_change *c = m->change;

	for (unsigned i = 0; c && i < c->count; i++) {
		mirror_forget_find(&c->leg[i].find);
		free((void *)c->leg[i].need);
	}
	free(c);
	m->change = NULL;
}

static int index_of(const struct mirror *m, const struct layer *leg)
{
	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (m->layer.legs[i] == leg)
			return (int)i;
	return -1;
}

/* At this moment: requests go on, and a leg may fail. */
static bool works(struct mirror *m, unsigned leg)
{
	bool does;

	pthread_mutex_lock(&m->lock);
	does = m->leg[leg].state != LEG_FAILED;
	pthread_mutex_unlock(&m->lock);
	return does;
}

/* A leg with a superblock comes, back or from elsewhere. @table: as it is now. */
static int prepare_member(struct mirror *m, struct mirror_change *c, unsigned i,
			  struct mirror_super *table, struct error *err)
{
	const struct mirror_super *super = &c->leg[i].find.super;
	struct mirror_member *member = mirror_member(table, &super->self), *us;

	if (!mirror_uuid_equal(&super->set, &table->set))
		return error_set(
			err, EEXIST,
			"it belongs to another mirror; wipe its superblock if its data are not "
			"needed any more (penstock inspect --wipe)");
	c->leg[i].uuid = super->self;
	if (mirror_knows(table, super))
		return 0;
	us = mirror_member((struct mirror_super *)super, &table->self);
	for (unsigned k = 0; k < m->layer.leg_count; k++)
		if (works(m, k) && mirror_uuid_equal(&m->leg[k].uuid, &super->self))
			return 0; /* it is in use, and its table moves on */
	if ((!us || !us->in_sync) && (!member || !member->in_sync))
		return error_set(
			err, ENOTUNIQ,
			"split brain: it was written without this mirror (generation %llu there, "
			"%llu here); wipe its superblock if its data are not needed any more "
			"(penstock inspect --wipe)",
			(unsigned long long)super->stamp.generation,
			(unsigned long long)table->stamp.generation);
	c->leg[i].all = true;
	return 0;
}

static int prepare_leg(struct mirror *m, const struct layer_plan *plan, unsigned i,
		       struct mirror_super *table, struct error *err)
{
	struct mirror_change *c = m->change;
	struct layer *leg = plan->legs[i];
	struct session *session;
	int at = index_of(m, leg), ret = 0;

	mirror_name_leg(c->leg[i].name, sizeof c->leg[i].name, i, leg);
	if (at >= 0 && works(m, (unsigned)at)) {
		c->leg[i].kept = at;
		c->leg[i].uuid = m->leg[at].uuid;
		return 0;
	}
	c->leg[i].kept = -1;
	c->leg[i].need = mirror_new_need();
	session = session_open(leg, err);
	if (!session || !c->leg[i].need) {
		session_close(session);
		return error_set(err, ENOMEM, "out of memory");
	}
	mirror_probe(leg, session, &c->leg[i].find);
	session_close(session);
	if (at >= 0 && c->leg[i].find.found != MIRROR_GOOD) {
		c->leg[i].kept = at; /* it failed, and still does */
		c->leg[i].uuid = m->leg[at].uuid;
		return 0;
	}
	if (c->leg[i].find.found == MIRROR_DAMAGED)
		return error_set(err, c->leg[i].find.err.code, "%s", c->leg[i].find.err.text);
	if (c->leg[i].find.found == MIRROR_GOOD) {
		ret = prepare_member(m, c, i, table, err);
	} else if (!((const struct mirror *)plan->options)->create) {
		ret = error_set(
			err, ENODATA,
			"it is not part of the mirror; create: true takes it in, and overwrites it");
	} else {
		c->leg[i].all = true;
		ret = mirror_random_uuid(&c->leg[i].uuid, err);
	}
	if (!ret && mirror_place(leg, m->data_size, m->table.region, &c->leg[i].find.end, err))
		ret = -err->code;
	return ret;
}

/*
 * Two legs are never one member: one of them would be a copy of the other. A leg that failed before
 * it was known to be a member has none.
 */
static int check_twins(const struct mirror_change *c, unsigned i, struct error *err)
{
	static const struct mirror_uuid none;

	for (unsigned k = 0; k < i && !mirror_uuid_equal(&c->leg[i].uuid, &none); k++)
		if (mirror_uuid_equal(&c->leg[k].uuid, &c->leg[i].uuid))
			return error_set(
				err, EEXIST,
				"it is the same member as %s; wipe the superblock of the copy "
				"(penstock inspect --wipe)",
				c->leg[k].name);
	return 0;
}

int mirror_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct mirror *m = (struct mirror *)layer;
	struct mirror_super table;
	bool source = false;

	m->change = calloc(1, sizeof *m->change);
	if (!m->change)
		return error_set(err, ENOMEM, "out of memory");
	m->change->count = plan->leg_count;
	pthread_mutex_lock(&m->lock);
	table = m->table;
	for_each_leg(i, atomic_load(&m->readable)) table.self = m->leg[i].uuid;
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < plan->leg_count; i++) {
		if (prepare_leg(m, plan, i, &table, err) || check_twins(m->change, i, err)) {
			error_prefix(err, "%s", m->change->leg[i].name);
			free_change(m);
			return -err->code;
		}
		for_each_leg(k, atomic_load(&m->readable))
			source |= mirror_uuid_equal(&m->leg[k].uuid, &m->change->leg[i].uuid) &&
				  !atomic_load(&m->leg[k].need_count);
	}
	if (source)
		return 0;
	free_change(m);
	return error_set(
		err, EINVAL,
		"no leg that has all data would remain; keep one until another one is in sync");
}

/* The leg of that member stays, by the change that is prepared. */
bool mirror_stays(const struct mirror *m, const struct mirror_uuid *uuid)
{
	for (unsigned i = 0; i < m->change->count; i++)
		if (mirror_uuid_equal(&m->change->leg[i].uuid, uuid))
			return true;
	return false;
}

void mirror_abandon(struct layer *layer)
{
	struct mirror *m = (struct mirror *)layer;

	free_change(m);
	if (m->parted)
		mirror_stay(m);
}

/* One leg as it is to be, from what it was, or from what was prepared. */
static struct mirror_leg next_leg(struct mirror *m, struct mirror_leg *old, unsigned i)
{
	struct mirror_change *c = m->change;
	struct mirror_leg leg = { 0 };
	int at = c->leg[i].kept;

	/* The same member by way of other layers. */
	for (unsigned k = 0; at < 0 && k < MIRROR_LEGS; k++)
		if (old[k].member && old[k].state != LEG_FAILED && old[k].need &&
		    mirror_uuid_equal(&old[k].uuid, &c->leg[i].uuid))
			at = (int)k;
	if (at >= 0) {
		leg = old[at];
		old[at].need = NULL;
		memcpy(leg.name, c->leg[i].name, sizeof leg.name);
		return leg;
	}
	memcpy(leg.name, c->leg[i].name, sizeof leg.name);
	leg.member = true;
	leg.uuid = c->leg[i].uuid;
	leg.state = LEG_STALE;
	leg.end = c->leg[i].find.end;
	leg.bitmap_offset = leg.end - mirror_tail(m->data_size, m->table.region);
	leg.need = c->leg[i].need;
	c->leg[i].need = NULL;
	return leg;
}

static bool is_leg(const struct mirror *m, const struct mirror_uuid *uuid)
{
	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (m->leg[i].member && mirror_uuid_equal(&m->leg[i].uuid, uuid))
			return true;
	return false;
}

void mirror_commit(struct layer *layer)
{
	struct mirror *m = (struct mirror *)layer;
	struct mirror_change *c = m->change;
	struct mirror_leg old[MIRROR_LEGS];
	uint64_t regions = mirror_regions(m->data_size, m->table.region);
	bool lacking = false;

	pthread_mutex_lock(&m->lock);
	memcpy(old, m->leg, sizeof old);
	memset(m->leg, 0, sizeof m->leg);
	atomic_store(&m->live, 0);
	atomic_store(&m->readable, 0);
	for (unsigned i = 0; i < c->count; i++) {
		struct mirror_leg *leg = &m->leg[i];
		struct mirror_member *member;

		*leg = next_leg(m, old, i);
		member = mirror_member(&m->table, &leg->uuid);
		if (member && leg->state == LEG_STALE && c->leg[i].find.found == MIRROR_GOOD)
			member->confirmed = c->leg[i].find.super.stamp;
		if (leg->state == LEG_FAILED)
			continue;
		atomic_fetch_or(&m->live, 1u << i);
		if (leg->state == LEG_IN_SYNC)
			atomic_fetch_or(&m->readable, 1u << i);
		if (c->leg[i].all && leg->state == LEG_STALE)
			mirror_need_all(m, i);
		else if (c->leg[i].kept < 0 && leg->state == LEG_STALE)
			for (uint64_t r = 0; r < regions; r++)
				if (mirror_image_get(m, r) ||
				    (c->leg[i].find.bits &&
				     mirror_bit_of(c->leg[i].find.bits, r))) {
					mirror_need(m, i, r);
					mirror_image_set(m, r);
				}
		lacking |= leg->state == LEG_STALE || atomic_load(&leg->need_count);
	}
	for (unsigned i = 0; i < MIRROR_LEGS; i++)
		free((void *)old[i].need);
	/* Who is no leg any more is out, and that is on the others before anything is acknowledged.
	 */
	for (unsigned k = m->table.count; k-- > 0;)
		if (!is_leg(m, &m->table.member[k].uuid))
			mirror_forget(&m->table, k);
	for (uint64_t r = 0; r < regions; r++)
		if (mirror_image_get(m, r) && !(atomic_load(&m->region[r]) & REGION_DIRTY)) {
			atomic_fetch_or(&m->region[r], REGION_DIRTY);
			atomic_fetch_add(&m->dirty, 1);
		}
	mirror_image_save(m, 0, mirror_all_sectors(m));
	m->parted = false;
	m->table_wanted = true;
	m->table_blocked = false;
	atomic_store(&m->pending, true);
	atomic_store(&m->copying, lacking);
	*m->stalled = 0;
	mirror_find_source(m);
	atomic_store(&m->sync.copier.limit, m->resync_limit);
	pthread_mutex_unlock(&m->lock);
	free_change(m);
}
