/* SPDX-License-Identifier: BSD-3-Clause */
/* explore.c - lives, cut off; see explore.h */
#include "layer/crash/explore.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 4u

/* One life on the way from new devices to a failure. */
struct life {
	struct life *before;
	struct world *world;
	struct model *model; /* as it is opened */
	struct epoch_plan plan;
	unsigned depth;
	int absent;   /* device, -1: none is */
	bool refused; /* so it was not opened; then all devices were there */
	/* How the life before ended: */
	enum cut_kind kind;
	struct cut *cut;
	struct fate *fates;
};

static void __attribute__((format(printf, 2, 3))) say(struct explorer *e, const char *format, ...)
{
	size_t n = strlen(e->failure);
	va_list args;

	va_start(args, format);
	vsnprintf(e->failure + n, sizeof e->failure - n, format, args);
	va_end(args);
}

/* --- a failure ------------------------------------------------------------------------------ */

static enum epoch_result again(const struct scene *scene, const struct life *life, char *why)
{
	struct world *world = cut_world(life->cut, life->kind, life->fates, life->plan.seed);
	struct model *model = model_copy(life->model);
	enum epoch_result result;

	for (unsigned i = 0; i < world->devices; i++) {
		world->device[i].absent = life->world->device[i].absent;
		world->device[i].discards = life->world->device[i].discards;
	}
	result = epoch_run(scene, world, model, &life->plan, why);
	model_free(model);
	world_free(world);
	return result;
}

/* Keeps every uncertain write that need not be lost for the failure. */
static void shrink(const struct scene *scene, struct life *life)
{
	char why[600];

	if (!life->cut)
		return;
	for (unsigned n = 0; n < life->cut->count; n++) {
		struct fate was = life->fates[n];

		if (was.kind == KEPT)
			continue;
		life->fates[n].kind = KEPT;
		if (again(scene, life, why) != EPOCH_WRONG)
			life->fates[n] = was;
	}
}

/* What the guest did with @sector in a life, up to @end. */
static void say_history(struct explorer *e, const struct world *world, uint32_t end,
			uint32_t sector)
{
	for (uint32_t i = 1; i < end; i++) {
		const struct event *event = &world->log[i];
		const struct event *came = &world->log[event->of];

		if (event->kind == GUEST_FLUSHED)
			say(e, " F%u-%u", event->of, i);
		else if (event->kind == GUEST_WRITE && sector - event->sector < event->count)
			say(e, " W%u=%u%s%s", i,
			    event->stamp ? event->stamp + sector - event->sector : 0,
			    event->fua ? "(fua)" : "", event->weak ? "(discard)" : "");
		else if (event->kind == GUEST_WRITTEN && sector - came->sector < came->count)
			say(e, " W%u-%u", event->of, i);
		else if (event->kind == GUEST_READ && sector == event->sector)
			say(e, " R%u=%u", i, event->stamp);
	}
}

/* All that happened in a life, up to @end. */
static void dump(const struct world *world, uint32_t end)
{
	static const char *const kinds[] = { "write",       "written",       "flush",
					     "flushed",     "guest write",   "guest written",
					     "guest flush", "guest flushed", "guest read" };

	for (uint32_t i = 1; i < end; i++) {
		const struct event *e = &world->log[i];
		const struct event *shown = e->of ? &world->log[e->of] : e;

		printf("# %5u %-14s %5u device %u sectors %u+%u stamp %u%s%s\n", i, kinds[e->kind],
		       e->of, e->device, shown->sector, shown->count, e->stamp,
		       shown->fua ? " fua" : "", e->weak ? " weak" : "");
	}
}

static void say_life(struct explorer *e, const struct life *life)
{
	static const char *const fates[] = { "lost", "kept", "torn: head kept", "torn: tail kept",
					     "torn: sectors at random" };
	unsigned told = 0;

	if (life->before)
		say_life(e, life->before);
	if (!life->cut)
		return;
	if (getenv("DUMP"))
		dump(life->cut->world, life->cut->at);
	if (epoch_wrong_sector() != UINT32_MAX) {
		say(e, "\n  its history:");
		say_history(e, life->cut->world, life->cut->at, epoch_wrong_sector());
	}
	say(e, "\n  %s before event %u of %u", life->kind == KILL ? "killed" : "power lost",
	    life->cut->at, life->cut->world->events);
	for (unsigned n = 0; n < life->cut->count; n++) {
		const struct uncertain *w = &life->cut->writes[n];
		const struct event *event = &life->cut->world->log[w->event];

		if (life->fates[n].kind == KEPT || told++ == 12)
			continue;
		say(e, "\n    device %u, %s of sectors %u+%u, event %u%s: %s", event->device,
		    event->data ? "write" : "zeroes", event->sector, event->count, w->event,
		    w->done ? "" : ", not completed", fates[life->fates[n].kind]);
	}
	if (life->absent >= 0)
		say(e, "\n  device %d is absent%s", life->absent,
		    life->refused ? ": not opened; and is there again" : "");
}

/* --- exploring ------------------------------------------------------------------------------- */

static bool live(struct explorer *e, struct scene *scene, struct life *life, unsigned points);

static void count_fates(struct explorer *e, const struct cut *cut, const struct fate *fates)
{
	for (unsigned n = 0; n < cut->count; n++) {
		e->lost += fates[n].kind == LOST;
		e->kept += fates[n].kind == KEPT;
		e->torn += fates[n].kind > KEPT;
	}
}

/* Another life, from the cut on. */
static bool go_on(struct explorer *e, struct scene *scene, struct life *before, struct cut *cut,
		  const struct model *model, bool drops)
{
	struct chance *c = &e->chance;
	struct life life = {
		.before = before, .depth = before->depth + 1, .cut = cut, .absent = -1
	};
	bool good;

	life.kind = chance_of(c, 4) || e->power_only ? POWER : KILL;
	life.fates = calloc(cut->count + 1, sizeof *life.fates);
	if (!life.fates)
		abort();
	cut_draw(cut, life.kind, c, life.fates);
	life.plan = (struct epoch_plan){
		.seed = chance_bits(c),
		.requests = chance_of(c, 2) ? 0 : (unsigned)chance_of(c, 40),
		.reads_first = chance_of(c, 5) != 0,
		.reads_last = true,
		.settles = scene->legs && chance_of(c, 2),
	};
	life.world = cut_world(cut, life.kind, life.fates, life.plan.seed);
	life.model = model_copy(model);
	model_crash(life.model, life.kind);
	if (drops && chance_of(c, 2)) {
		life.absent = (int)chance_of(c, scene->legs);
		life.world->device[life.absent].absent = true;
	}
	e->points++;
	e->nested += life.depth > 1;
	e->killed += life.kind == KILL;
	count_fates(e, cut, life.fates);
	good = live(e, scene, &life, life.depth < DEPTH_MAX && chance_of(c, 3) == 0);
	world_free(life.world);
	model_free(life.model);
	free(life.fates);
	return good;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Cuts a life that is over off at @points moments. */
static bool crash(struct explorer *e, struct scene *scene, struct life *life, unsigned points)
{
	struct model *model = model_copy(life->model);
	uint32_t at[64], followed = 0;
	struct cut cut;
	bool good = true, drops = scene->legs && chance_of(&e->chance, 3) == 0;

	/* A leg that is absent next need not have what only another one has shown. */
	model->strict = !drops;
	for (unsigned i = 0; i < points; i++)
		at[i] = (uint32_t)chance_of(&e->chance, life->world->events);
	qsort(at, points, sizeof *at, ascending);
	cut_begin(&cut, life->world);
	for (unsigned i = 0; i < points && good; i++) {
		cut_follow(&cut, at[i]);
		for (; followed <= at[i]; followed++)
			model_follow(model, life->world->log, followed);
		good = go_on(e, scene, life, &cut, model, drops);
	}
	cut_end(&cut);
	model_free(model);
	return good;
}

static bool any_dead(const struct world *world)
{
	for (unsigned i = 0; i < world->devices; i++)
		if (world->device[i].dead)
			return true;
	return false;
}

static bool live(struct explorer *e, struct scene *scene, struct life *life, unsigned points)
{
	struct model *model = model_copy(life->model);
	char why[600];
	enum epoch_result result = epoch_run(scene, life->world, model, &life->plan, why);

	model_free(model);
	if (life->absent >= 0 && result != EPOCH_WRONG) {
		e->refused += result == EPOCH_REFUSED;
		e->degraded += result == EPOCH_GOOD;
		if (result == EPOCH_REFUSED) {
			/* It was not opened, so nothing has changed; all legs come back. */
			life->world->device[life->absent].absent = false;
			life->refused = true;
			model = model_copy(life->model);
			result = epoch_run(scene, life->world, model, &life->plan, why);
			model_free(model);
		}
	}
	/* A device that died while it was being opened is an absent one. */
	if (result == EPOCH_REFUSED && any_dead(life->world)) {
		e->refused++;
		return true;
	}
	if (result != EPOCH_GOOD) {
		if (result == EPOCH_WRONG)
			shrink(scene, life);
		say(e, "SEED=%llu: %s: %s%s", (unsigned long long)e->seed, scene->what,
		    result == EPOCH_REFUSED ? "cannot be opened: " : "", why);
		say_life(e, life);
		if (getenv("DUMP")) {
			printf("# the last life:\n");
			dump(life->world, life->world->events);
		}
		if (epoch_wrong_sector() != UINT32_MAX) {
			say(e, "\n  its history since:");
			say_history(e, life->world, life->world->events, epoch_wrong_sector());
		}
		return false;
	}
	return !points || crash(e, scene, life, points);
}

/* What the base of an overlay holds: written in pieces, zeroes between them. */
static void fill_base(struct explorer *e, const struct scene *scene, struct life *life)
{
	unsigned char *bytes = life->world->device[scene->base - 1].bytes;
	uint32_t sectors = (uint32_t)(scene->size[scene->base - 1] / SECTOR);

	for (uint32_t at = 0; at < sectors; at++) {
		if (chance_of(&e->chance, 8) == 0)
			at += (uint32_t)chance_of(&e->chance, 40);
		if (at >= sectors)
			break;
		stamp_write(epoch_stamps(1), at, bytes + (uint64_t)at * SECTOR);
		if (at < scene->sectors)
			life->model->sector[at].stamp[0] =
				stamp_read(bytes + (uint64_t)at * SECTOR, at);
	}
}

/* New devices are made ready. */
static bool begin_with(struct explorer *e, struct scene *scene, struct life *life)
{
	const struct epoch_plan plan = { .settles = true };
	char why[600];
	unsigned dies = 0;
	bool good = true;

	if (scene->base)
		fill_base(e, scene, life);
	world_enter(life->world);
	world_begin(life->world);
	if (scene->format)
		scene->format(scene, &e->chance);
	/* Before a leg may die the others must have everything. */
	if (scene->legs && chance_of(&e->chance, 3) == 0)
		dies = 1 + (unsigned)chance_of(&e->chance, 400);
	if (dies)
		good = epoch_run(scene, life->world, life->model, &plan, why) == EPOCH_GOOD;
	if (!good)
		say(e, "SEED=%llu: %s: %s", (unsigned long long)e->seed, scene->what, why);
	model_crash(life->model, KILL);
	if (dies)
		life->world->device[chance_of(&e->chance, scene->legs)].dies_in = dies;
	return good;
}

bool explore(struct explorer *e, struct scene *scene, unsigned points)
{
	struct chance *c = &e->chance;
	struct life life = {
		.absent = -1,
		.world = world_create(scene->devices, scene->size, chance_bits(c)),
		.model = model_create(scene->sectors),
		.plan = { .seed = chance_bits(c),
			  .requests = 40 + (unsigned)chance_of(c, 160),
			  .reads_first = chance_of(c, 2),
			  .reads_last = chance_of(c, 2),
			  .settles = chance_of(c, 4) == 0 },
	};
	bool good = true;

	*e->failure = 0;
	if (!begin_with(e, scene, &life))
		good = false;
	good = good && live(e, scene, &life, points > 64 ? 64 : points);
	world_free(life.world);
	model_free(life.model);
	return good;
}
