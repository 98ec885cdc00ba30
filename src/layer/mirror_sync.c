/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_sync.c - a mirror's work of its own, on the home loop of its disk
 *
 * Copying: one leg after another receives what it needs. The copier reads through the mirror
 * itself, which knows which legs are good for a region, and writes to the leg; it locks what it
 * copies, a granule of 1 MiB at most, against changes. A region is had when all its granules are
 * copied. What comes up behind the place where the copier is, is for another run.
 *
 * Cleaning: every tick of 2 s, as long as there are dirty regions. The first tick marks regions in
 * which nothing is under way as quiet, the next change takes that mark away, and a region that
 * still has it at a later tick is clean after a flush (mirror_meta.c). So an idle disk has no
 * timer.
 */
#include <errno.h>
#include <string.h>

#include "layer/mirror.h"
#include "layer/stack.h"

static struct mirror *of_sync(struct mirror_sync *s)
{
	return container_of(s, struct mirror, sync);
}

/* On the home loop: has go_on() called, once. */
static void soon(struct mirror_sync *s)
{
	if (s->going_on)
		return;
	s->going_on = true;
	loop_send(s->loop, &s->go_on);
}

/* --- cleaning ------------------------------------------------------------------------- */

static void set_timer(struct mirror_sync *s, struct loop *home)
{
	loop_timer_set(home, &s->timer, loop_now(home) + MIRROR_TICK);
}

/* Marks what is quiet; true if something has been quiet since the last tick. */
static bool mark_quiet(struct mirror *m)
{
	uint64_t regions = mirror_regions(m->data_size, 1ull << m->shift);
	bool any = false;

	for (uint64_t r = 0; r < regions; r++) {
		uint32_t now = atomic_load_explicit(&m->region[r], memory_order_relaxed);

		any |= now == (REGION_DIRTY | REGION_QUIET);
		if (now == REGION_DIRTY)
			atomic_compare_exchange_strong(&m->region[r], &now,
						       REGION_DIRTY | REGION_QUIET);
	}
	return any;
}

static void tick(struct loop_timer *timer)
{
	struct mirror_sync *s = container_of(timer, struct mirror_sync, timer);
	struct mirror *m = of_sync(s);
	bool go;

	pthread_mutex_lock(&m->lock);
	go = s->home && atomic_load(&m->dirty) && mirror_complete(m);
	if (go && mark_quiet(m))
		m->clean_wanted = true;
	if (go)
		set_timer(s, s->home);
	else
		atomic_store(&s->armed, false);
	pthread_mutex_unlock(&m->lock);
	if (!go)
		return;
	if (!s->running)
		soon(s); /* something to copy may have come up */
	mirror_kick(m, &s->queue);
}

static void armed(struct loop_message *message)
{
	struct mirror_sync *s = container_of(message, struct mirror_sync, arm);
	struct mirror *m = of_sync(s);

	pthread_mutex_lock(&m->lock);
	if (s->home)
		set_timer(s, s->home);
	else
		atomic_store(&s->armed, false);
	pthread_mutex_unlock(&m->lock);
}

/* There is something dirty. With the lock; any thread. */
void mirror_arm(struct mirror *m)
{
	struct mirror_sync *s = &m->sync;

	if (s->home && atomic_load(&m->dirty) && !atomic_exchange(&s->armed, true))
		loop_send(s->home, &s->arm);
}

/* --- copying -------------------------------------------------------------------------- */

/* Changes lock their ranges as long as there is something to copy. With the lock. */
void mirror_settle_copying(struct mirror *m)
{
	uint32_t live = atomic_load(&m->live);
	bool lacking = false, needs = false;

	for_each_leg(i, live)
	{
		needs |= atomic_load(&m->leg[i].need_count) != 0;
		lacking |= m->leg[i].state == LEG_STALE;
	}
	atomic_store(&m->needs, needs);
	if (!needs && !lacking)
		atomic_store(&m->copying, false);
}

static uint64_t next_granule(struct copier *copier, uint64_t at)
{
	struct mirror *m = of_sync(container_of(copier, struct mirror_sync, copier));
	const struct mirror_leg *leg = &m->leg[m->sync.target];
	uint64_t regions = mirror_regions(m->data_size, 1ull << m->shift);

	if (at < m->sync.cursor)
		at = m->sync.cursor;
	for (uint64_t r = region_of(m, at); r < regions; r++) {
		uint64_t start = r << m->shift;

		if (!leg_needs(leg, r))
			continue;
		m->sync.cursor = at > start ? at : start;
		m->sync.cursor += mirror_granule(m);
		return m->sync.cursor - mirror_granule(m);
	}
	return UINT64_MAX;
}

static void granule_copied(struct copier *copier, uint64_t offset, int status)
{
	struct mirror *m = of_sync(container_of(copier, struct mirror_sync, copier));
	uint64_t r = region_of(m, offset), start = r << m->shift, size = 1ull << m->shift;
	uint32_t granules;

	if (status)
		return;
	if (size > m->data_size - start)
		size = m->data_size - start;
	granules = (uint32_t)((size + mirror_granule(m) - 1) / mirror_granule(m));
	if (++m->sync.granules[r] == granules)
		mirror_has(m, m->sync.target, r);
}

static void copier_ended(struct copier *copier, int status)
{
	struct mirror_sync *s = container_of(copier, struct mirror_sync, copier);
	struct mirror *m = of_sync(s);
	struct mirror_leg *leg = &m->leg[s->target];
	bool unreadable = atomic_load(&s->unreadable) != s->unreadable_before;

	pthread_mutex_lock(&m->lock);
	s->running = false;
	if (status == -ECANCELED) {
		log_debug("disk %s: mirror: copying to %s is stopped", m->layer.disk, leg->name);
	} else if (status && unreadable) {
		snprintf(m->stalled, sizeof m->stalled,
			 "there is a part that no leg in sync can read");
		log_error("disk %s: mirror: copying to %s stops: %s", m->layer.disk, leg->name,
			  m->stalled);
	} else if (status) {
		mirror_drop_locked(m, s->target, "write", status);
	}
	mirror_settle_copying(m);
	pthread_mutex_unlock(&m->lock);
	soon(s);
}

/* A leg to copy to, or -1. With the lock. */
static int next_target(struct mirror *m)
{
	uint32_t live = atomic_load(&m->live);

	for_each_leg(i, live)
	{
		if (atomic_load(&m->leg[i].need_count))
			return (int)i;
		if (m->leg[i].state == LEG_STALE && !m->leg[i].synced)
			m->finishing |= 1u << i;
	}
	return -1;
}

static void begin_copying(struct mirror *m, unsigned target)
{
	struct mirror_sync *s = &m->sync;
	struct copier *copier = &s->copier;

	pthread_mutex_lock(&m->lock);
	s->target = target;
	s->cursor = 0;
	memset(s->granules, 0, MIRROR_REGIONS * sizeof *s->granules);
	s->total = atomic_load(&m->leg[target].need_count) << m->shift;
	s->unreadable_before = atomic_load(&s->unreadable);
	*copier = (struct copier){ .from = &m->layer,
				   .to = m->layer.legs[target],
				   .ranges = m->ranges,
				   .size = m->data_size,
				   .region = mirror_granule(m),
				   .next = next_granule,
				   .copied = granule_copied,
				   .ended = copier_ended };
	atomic_store(&copier->limit, m->resync_limit);
	s->running = true;
	pthread_mutex_unlock(&m->lock);
	log_info("disk %s: mirror: copying %llu regions of %llu KiB to %s", m->layer.disk,
		 (unsigned long long)atomic_load(&m->leg[target].need_count),
		 1ull << m->shift >> 10, m->leg[target].name);
	if (!copier_start(copier, s->queue.loop))
		return;
	pthread_mutex_lock(&m->lock);
	s->running = false;
	snprintf(m->stalled, sizeof m->stalled, "out of memory");
	pthread_mutex_unlock(&m->lock);
}

static void finish_stop(struct mirror_sync *s);

/* On the home loop: what is next. */
static void go_on(struct loop_message *message)
{
	struct mirror_sync *s = container_of(message, struct mirror_sync, go_on);
	struct mirror *m = of_sync(s);
	int target;

	s->going_on = false;
	if (s->stopping) {
		finish_stop(s);
		return;
	}
	pthread_mutex_lock(&m->lock);
	target = *m->stalled ? -1 : next_target(m);
	pthread_mutex_unlock(&m->lock);
	if (target >= 0)
		begin_copying(m, (unsigned)target);
	mirror_kick(m, &s->queue);
}

/* --- beginning and end ------------------------------------------------------------------ */

static void over(struct loop_message *message)
{
	struct mirror_sync *s = container_of(message, struct mirror_sync, over);

	loop_send(s->stop->loop, &s->stop->done);
}

/* What was sent to this loop before is behind us when the last message comes. */
static void close_queue(struct io_queue *queue)
{
	struct mirror_sync *s = container_of(queue, struct mirror_sync, queue);
	struct loop *home = queue->loop;

	queue->empty = NULL;
	s->open = false;
	stack_queue_close(&of_sync(s)->layer, queue);
	loop_send(home, &s->over);
}

static void finish_stop(struct mirror_sync *s)
{
	if (s->queue.inside)
		s->queue.empty = close_queue;
	else
		close_queue(&s->queue);
}

static void stop(struct loop_message *message)
{
	struct mirror_sync *s = container_of(message, struct mirror_sync, stop_message);
	struct mirror *m = of_sync(s);

	if (!s->open) {
		over(&s->over);
		return;
	}
	pthread_mutex_lock(&m->lock);
	s->home = NULL;
	pthread_mutex_unlock(&m->lock);
	loop_timer_cancel(&s->timer);
	s->stopping = true;
	if (s->running)
		copier_stop(&s->copier); /* then go_on() is called */
	else
		soon(s);
}

void mirror_stop(struct layer *layer, struct layer_stop *stop_when)
{
	struct mirror_sync *s = &((struct mirror *)layer)->sync;

	s->stop = stop_when;
	loop_send(s->loop, &s->stop_message);
}

static void start(struct loop_message *message)
{
	struct mirror_sync *s = container_of(message, struct mirror_sync, start_message);
	struct mirror *m = of_sync(s);

	if (m->layer.read_only)
		return;
	if (stack_queue_open(&m->layer, &s->queue, s->loop, 1, 1)) {
		log_error("disk %s: mirror: out of memory: nothing is copied to its legs",
			  m->layer.disk);
		return;
	}
	s->open = true;
	atomic_store(&s->armed, false);
	pthread_mutex_lock(&m->lock);
	s->home = s->loop;
	mirror_arm(m);
	pthread_mutex_unlock(&m->lock);
	soon(s);
}

void mirror_start(struct layer *layer, struct loop *home)
{
	struct mirror_sync *s = &((struct mirror *)layer)->sync;

	s->loop = home;
	s->stopping = false;
	s->start_message.run = start;
	s->stop_message.run = stop;
	s->arm.run = armed;
	s->go_on.run = go_on;
	s->over.run = over;
	loop_timer_init(&s->timer, tick);
	loop_send(home, &s->start_message);
}
