/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_resize.c - room for more data: the records move to the new end of each leg
 *
 * One leg after another grows, and receives its bitmap and its superblock at its new end; so at any
 * moment at most one leg has none where they are looked for, and the tables of the others say where
 * it had them. The old places stay as they are until all legs have moved, and are then part of the
 * new space, which is zeroed on all legs. Then the table says the new size. Meanwhile nothing else
 * writes records: changes that need some wait.
 *
 * The new records of a leg must not lie over its old ones, so it grows by as much as they take, at
 * least.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "layer/mirror.h"
#include "layer/session.h"
#include "layer/stack.h"
#include "util/error.h"

#define PATIENCE_MS 10000u
#define CHUNK       (256ull << 20) /* bytes that are zeroed by one request */

/* Becomes the one who writes records. */
static int seize(struct mirror *m, struct error *err)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	for (unsigned waited = 0; waited < PATIENCE_MS; waited++) {
		bool got;

		pthread_mutex_lock(&m->lock);
		got = !m->busy;
		m->busy = true;
		pthread_mutex_unlock(&m->lock);
		if (got)
			return 0;
		nanosleep(&pause, NULL);
	}
	return error_set(err, EBUSY, "mirror: its legs do not answer");
}

static void mark_again(struct layer *layer, struct io *io)
{
	if (mirror_mark((struct mirror *)layer, io))
		mirror_marked(layer, io);
}

static void settle_again(struct layer *layer, struct io *io)
{
	if (mirror_settle((struct mirror *)layer, io, io_op_name(io->op)))
		mirror_settled(layer, io);
}

static void wake_all(struct mirror *m, struct io *list, io_done_fn *run)
{
	struct io *next;

	for (; list; list = next) {
		next = list->next;
		io_wake(list, &m->layer, run);
	}
}

/* Those who waited try again, each on its own thread. */
static void release(struct mirror *m)
{
	struct io *marking, *held;

	pthread_mutex_lock(&m->lock);
	m->busy = false;
	marking = m->marking;
	held = m->held;
	m->marking = m->held = NULL;
	pthread_mutex_unlock(&m->lock);
	wake_all(m, marking, mark_again);
	wake_all(m, held, settle_again);
}

/* Room on one leg, and its records at its end. */
static int grow_leg(struct mirror *m, unsigned i, struct session *session, uint64_t size,
		    struct error *err)
{
	struct mirror_leg *leg = &m->leg[i];
	uint64_t tail = mirror_tail(size, m->table.region), wanted = size, end;
	int ret;

	if (tail == mirror_tail(m->data_size, m->table.region) && leg->end >= size + tail)
		return 0;
	if (wanted < leg->end)
		wanted = leg->end;
	if (mirror_place(m->layer.legs[i], wanted, m->table.region, &end, err))
		return -err->code;
	pthread_mutex_lock(&m->lock);
	leg->end = end;
	leg->bitmap_offset = end - tail;
	mirror_sectors_encode(m, 0, mirror_all_sectors(m));
	pthread_mutex_unlock(&m->lock);
	ret = mirror_save_leg(m, i, session, false);
	if (!ret)
		ret = mirror_save_leg(m, i, session, true);
	return ret ? error_set(err, -ret, "its records cannot be written: %s", strerror(-ret)) : 0;
}

static int zero(struct session *session, uint64_t from, uint64_t to)
{
	int ret = 0;

	for (uint64_t n; from < to && !ret; from += n) {
		n = to - from < CHUNK ? to - from : CHUNK;
		ret = session_do(session, IO_ZEROES, from, n, IO_UNMAP | IO_FUA);
	}
	return ret;
}

static int grow(struct mirror *m, struct session **sessions, uint64_t size, struct error *err)
{
	uint32_t live = atomic_load(&m->live);

	for_each_leg(i, live)
	{
		sessions[i] = session_open(m->layer.legs[i], err);
		if (!sessions[i] || grow_leg(m, i, sessions[i], size, err))
			return error_prefix(err, "mirror: %s", m->leg[i].name);
	}
	for_each_leg(i, live)
	{
		int ret = zero(sessions[i], m->data_size, size);
		bool last;

		if (!ret)
			continue;
		pthread_mutex_lock(&m->lock);
		last = !mirror_drop_locked(m, i, "zeroing of new space", ret);
		pthread_mutex_unlock(&m->lock);
		if (last)
			return error_set(err, -ret, "mirror: %s: new space cannot be zeroed: %s",
					 m->leg[i].name, strerror(-ret));
	}
	pthread_mutex_lock(&m->lock);
	m->table.data_size = m->data_size = size;
	pthread_mutex_unlock(&m->lock);
	return mirror_save(m, sessions, err);
}

/* The control thread, or one that may wait; the disk may be in use. */
int mirror_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct mirror *m = (struct mirror *)layer;
	struct session *sessions[MIRROR_LEGS] = { NULL };
	int ret;

	if (size <= m->data_size)
		return 0;
	if (mirror_regions(size, m->table.region) > MIRROR_REGIONS)
		return error_set(
			err, ENOSPC,
			"mirror: its regions of %llu KiB are too small for that size; %u are "
			"the most",
			(unsigned long long)m->table.region >> 10, MIRROR_REGIONS);
	ret = seize(m, err);
	if (ret)
		return ret;
	ret = grow(m, sessions, size, err);
	for (unsigned i = 0; i < MIRROR_LEGS; i++)
		session_close(sessions[i]);
	release(m);
	return ret;
}
