/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_meta.c - what is kept on the legs: the bitmap and the table of members, while the disk is
 * in use
 *
 * One thing is written at a time, by errands on the queue of whoever asked when nothing was being
 * written. At its end that queue looks what is wanted next:
 *
 *     BITS    sectors of the bitmap, to all live legs; then the changes that waited for them go on
 *     TABLE   the superblocks, to the legs in sync, then to the others, each copy on its own; then
 * the changes that waited go up SYNCED  a flush of all legs, after which those to which all was
 * copied are in sync CLEAN   a flush of all legs, after which the bits of quiet regions are taken
 * back
 *
 * A bit is set before the first change of its region is sent to a leg, and taken back only after a
 * flush that began when the region had been without changes for a tick, and only while all members
 * are live: so what may differ after a crash, or lacks on a leg that is away, has its bit set.
 *
 * If the last leg in sync cannot be written, changes that need it fail. The next one tries again.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "layer/mirror.h"

#define SECTOR_BYTES (MIRROR_SECTOR_BITS / 8)

/* --- sets of regions ---------------------------------------------------------------- */

void mirror_need(struct mirror *m, unsigned leg, uint64_t region)
{
	struct mirror_leg *l = &m->leg[leg];
	uint64_t bit = 1ull << region % 64;

	if (!(atomic_fetch_or(&l->need[region / 64], bit) & bit))
		atomic_fetch_add(&l->need_count, 1);
	atomic_store(&m->needs, true);
}

void mirror_has(struct mirror *m, unsigned leg, uint64_t region)
{
	struct mirror_leg *l = &m->leg[leg];
	uint64_t bit = 1ull << region % 64;

	if (atomic_fetch_and(&l->need[region / 64], ~bit) & bit)
		atomic_fetch_sub(&l->need_count, 1);
}

bool mirror_image_get(const struct mirror *m, uint64_t region)
{
	return m->image[region / 8] >> region % 8 & 1;
}

void mirror_image_save(struct mirror *m, uint32_t first, uint32_t last)
{
	if (m->first == m->last) {
		m->first = first;
		m->last = last;
		return;
	}
	if (first < m->first)
		m->first = first;
	if (last > m->last)
		m->last = last;
}

static void image_touched(struct mirror *m, uint64_t region)
{
	uint32_t sector = (uint32_t)(region / MIRROR_SECTOR_BITS);

	mirror_image_save(m, sector, sector + 1);
}

void mirror_image_set(struct mirror *m, uint64_t region)
{
	m->image[region / 8] |= (uint8_t)(1u << region % 8);
	image_touched(m, region);
}

static void image_clear(struct mirror *m, uint64_t region)
{
	m->image[region / 8] &= (uint8_t) ~(1u << region % 8);
	image_touched(m, region);
}

/* --- legs --------------------------------------------------------------------------- */

/* There must be a leg in sync that needs nothing. If the only one went, the next best becomes it.
 */
void mirror_find_source(struct mirror *m)
{
	uint32_t readable = atomic_load(&m->readable);

	for_each_leg(i, readable) if (!atomic_load(&m->leg[i].need_count)) return;
	for_each_leg(i, readable)
	{
		struct mirror_leg *leg = &m->leg[i];

		log_warn(
			"disk %s: mirror: %s was to receive %llu regions in which changes were under way at a "
			"crash, from a leg that failed now; its own contents of them count from here on",
			m->layer.disk, leg->name,
			(unsigned long long)atomic_load(&leg->need_count));
		for (uint64_t w = 0; w < MIRROR_REGIONS / 64; w++)
			atomic_store(&leg->need[w], 0);
		atomic_store(&leg->need_count, 0);
		return;
	}
}

bool mirror_drop_locked(struct mirror *m, unsigned leg, const char *why, int status)
{
	struct mirror_leg *l = &m->leg[leg];
	uint32_t bit = 1u << leg, others = atomic_load(&m->readable) & ~bit;

	if (l->state == LEG_FAILED)
		return true;
	if (l->state == LEG_IN_SYNC && !others)
		return false;
	if (l->state == LEG_IN_SYNC) {
		m->table_wanted = true;
		m->table_blocked = false;
		atomic_store(&m->pending, true); /* before the masks */
	}
	atomic_fetch_and(&m->readable, ~bit);
	atomic_fetch_and(&m->live, ~bit);
	l->state = LEG_FAILED;
	l->synced = false;
	m->finishing &= ~bit;
	if (m->sync.running && m->sync.target == leg)
		atomic_store(&m->sync.copier.cancel, true);
	snprintf(l->reason, sizeof l->reason, "%s failed: %s", why, strerror(-status));
	log_error("disk %s: mirror: %s is dropped, its %s; the guest goes on with %d other%s",
		  m->layer.disk, l->name, l->reason, __builtin_popcount(others),
		  __builtin_popcount(others) == 1 ? "" : "s");
	mirror_find_source(m);
	return true;
}

void mirror_drop(struct mirror *m, unsigned leg, const char *why, int status)
{
	pthread_mutex_lock(&m->lock);
	mirror_drop_locked(m, leg, why, status);
	pthread_mutex_unlock(&m->lock);
}

/* All members are live: what has no bit is the same on all. */
bool mirror_complete(const struct mirror *m)
{
	uint32_t live = atomic_load(&m->live);

	if (live != (1u << m->layer.leg_count) - 1)
		return false;
	for (unsigned k = 0; k < m->table.count; k++) {
		bool here = false;

		for_each_leg(i, live)
			here |= mirror_uuid_equal(&m->leg[i].uuid, &m->table.member[k].uuid);
		if (!here)
			return false;
	}
	return true;
}

/* --- what a request waits for -------------------------------------------------------- */

/* A list in the order of coming; short. */
static void append(struct io **list, struct io *io)
{
	io->next = NULL;
	while (*list)
		list = &(*list)->next;
	*list = io;
}

static struct io_frame *frame_of(struct io *io)
{
	return &io->frame[io->depth - 1];
}

/*
 * Makes the regions of @io dirty. True: they are. False: it is given away, and mirror_marked() is
 * called when they are, or cannot be.
 */
bool mirror_mark(struct mirror *m, struct io *io)
{
	uint64_t first = region_of(m, io->offset), last = region_of(m, io->offset + io->length - 1);
	struct io_queue *queue = io->queue;
	bool dirty = true;

	pthread_mutex_lock(&m->lock);
	for (uint64_t r = first; r <= last; r++) {
		if (atomic_load(&m->region[r]) & REGION_DIRTY)
			continue;
		mirror_image_set(m, r);
		dirty = false;
	}
	if (!dirty) {
		io->next = m->marking;
		m->marking = io;
	}
	pthread_mutex_unlock(&m->lock);
	if (!dirty)
		mirror_kick(m, queue);
	return dirty;
}

/*
 * All legs have answered to @io. True: it can go up, with its note's status. False: it is given
 * away, and mirror_settled() is called.
 */
bool mirror_settle(struct mirror *m, struct io *io, const char *what)
{
	struct io_frame *frame = io_frame(io);
	uint32_t failed = frame->note[NOTE_LEGS] & ((1u << NOTE_SENT) - 1);
	uint32_t sent = frame->note[NOTE_LEGS] >> NOTE_SENT & ((1u << MIRROR_LEGS) - 1);
	struct io_queue *queue = io->queue;
	bool good, wait;

	pthread_mutex_lock(&m->lock);
	for_each_leg(i, failed) mirror_drop_locked(m, i, what, (int)frame->note[NOTE_STATUS]);
	good = sent & ~failed & atomic_load(&m->readable);
	if (good) {
		frame->note[NOTE_STATUS] = 0;
	} else if (!frame->note[NOTE_STATUS]) {
		frame->note[NOTE_STATUS] = (uint64_t)-EIO;
	}
	/* What the last leg in sync may not have, the others may; what it has counts. */
	if (!good && sent && frame->note[NOTE_LEGS] & NOTE_REGIONS) {
		uint32_t others = atomic_load(&m->live) & ~atomic_load(&m->readable);

		for_each_leg(i, others) for (uint64_t r = region_of(m, io->offset);
					     r <= region_of(m, io->offset + io->length - 1); r++)
			mirror_need(m, i, r);
	}
	wait = good && atomic_load(&m->pending);
	if (wait) {
		append(&m->held, io);
		m->table_wanted |= m->table_blocked;
		m->table_blocked = false;
	}
	pthread_mutex_unlock(&m->lock);
	mirror_kick(m, queue);
	return !wait;
}

/* --- writing ------------------------------------------------------------------------ */

void mirror_super_of(const struct mirror *m, unsigned leg, uint8_t *block)
{
	struct mirror_super super = m->table;

	super.self = m->leg[leg].uuid;
	super.end = m->leg[leg].end;
	super.bitmap_offset = m->leg[leg].bitmap_offset;
	mirror_super_encode(&super, block);
}

void mirror_next_stamp(struct mirror *m)
{
	struct mirror_stamp *stamp = &m->table.stamp;

	stamp->generation++;
	if (getrandom(&stamp->tag, sizeof stamp->tag, 0) < 0)
		stamp->tag = (uint64_t)(uintptr_t)&stamp ^ stamp->generation << 40;
}

/* The table as it is now to be, with a stamp of its own. What a leg is known to have stays. */
void mirror_next_table(struct mirror *m)
{
	uint32_t live = atomic_load(&m->live);

	mirror_next_stamp(m);
	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		struct mirror_leg *leg = &m->leg[i];
		struct mirror_member *member;

		if (!leg->member)
			continue;
		member = mirror_member(&m->table, &leg->uuid);
		if (!member && m->table.count < MIRROR_LEGS) {
			member = &m->table.member[m->table.count++];
			*member = (struct mirror_member){ .uuid = leg->uuid };
		}
		if (!member)
			continue;
		member->in_sync = leg->state == LEG_IN_SYNC || leg->synced;
		if (!(live >> i & 1))
			continue;
		member->attempted = m->table.stamp;
		member->end = leg->end;
	}
}

/* All live legs have it. */
void mirror_table_written(struct mirror *m)
{
	uint32_t live = atomic_load(&m->live);

	for_each_leg(i, live)
	{
		struct mirror_leg *leg = &m->leg[i];
		struct mirror_member *member = mirror_member(&m->table, &leg->uuid);

		if (!member)
			continue;
		member->confirmed = member->attempted;
		if (!leg->synced || !member->in_sync)
			continue;
		leg->synced = false;
		if (atomic_load(&leg->need_count)) {
			m->table_wanted = true; /* a change has failed meanwhile: it lacks that */
			continue;
		}
		leg->state = LEG_IN_SYNC;
		atomic_fetch_or(&m->readable, 1u << i);
		log_info("disk %s: mirror: %s is in sync", m->layer.disk, leg->name);
	}
}

void mirror_sectors_encode(struct mirror *m, uint32_t first, uint32_t last)
{
	for (uint32_t s = first; s < last; s++)
		mirror_sector_encode(&m->table.set, s, m->image + (size_t)s * SECTOR_BYTES,
				     m->sectors + (size_t)s * MIRROR_SECTOR);
}

static void write_next(struct mirror *m);
static void written(struct mirror *m);

static void errand_done(struct layer *layer, struct io *errand)
{
	struct mirror *m = (struct mirror *)layer;

	if (errand->status)
		m->failed |= 1u << io_frame(errand)->note[0];
	io_errand_end(errand);
	if (--m->out == 0)
		written(m);
}

/* The same to all targets: @length bytes of m->vec at @offset of each, or a flush. */
static void send_errands(struct mirror *m, enum io_op op, const uint64_t *offset, uint64_t length)
{
	uint32_t targets = m->targets;

	m->failed = 0;
	m->out = 1; /* until all are sent */
	for_each_leg(i, targets)
	{
		struct io *errand = io_errand(m->queue);

		if (!errand) {
			m->failed |= 1u << i;
			continue;
		}
		errand->op = (uint8_t)op;
		errand->flags = op == IO_WRITE ? IO_FUA : 0;
		errand->offset = offset[i];
		errand->length = length;
		errand->data = (struct io_data){ .vec = &m->vec[i], .count = length ? 1 : 0 };
		m->out++;
		io_push(&m->layer, errand, errand_done)->note[0] = i;
		io_send(m->layer.legs[i], errand);
	}
	if (--m->out == 0)
		written(m);
}

static void write_bits(struct mirror *m)
{
	uint32_t unit = m->layer.block_size / MIRROR_SECTOR;
	uint64_t offset[MIRROR_LEGS], length;

	m->step = STEP_BITS;
	m->targets = atomic_load(&m->live);
	m->first = m->first / unit * unit;
	m->last = (m->last + unit - 1) / unit * unit;
	mirror_sectors_encode(m, m->first, m->last);
	length = (uint64_t)(m->last - m->first) * MIRROR_SECTOR;
	for_each_leg(i, m->targets)
	{
		offset[i] = m->leg[i].bitmap_offset + (uint64_t)m->first * MIRROR_SECTOR;
		m->vec[i] = (struct iovec){ m->sectors + (size_t)m->first * MIRROR_SECTOR, length };
	}
	m->marked = m->marking;
	m->marking = NULL;
	m->first = m->last = 0;
	pthread_mutex_unlock(&m->lock);
	send_errands(m, IO_WRITE, offset, length);
}

/* Phases of a table: copy 0 and 1 to the legs in sync, copy 0 and 1 to the others. */
static void write_table(struct mirror *m)
{
	uint32_t in_sync = atomic_load(&m->readable), live = atomic_load(&m->live);
	uint64_t offset[MIRROR_LEGS];

	m->step = STEP_TABLE;
	m->targets = m->phase < MIRROR_COPIES ? in_sync : live & ~in_sync;
	for_each_leg(i, m->targets)
	{
		uint8_t *block = m->blocks + i * MIRROR_BLOCK;

		mirror_super_of(m, i, block);
		m->vec[i] = (struct iovec){ block, MIRROR_BLOCK };
		offset[i] = mirror_super_offset(m->leg[i].end, m->phase % MIRROR_COPIES);
	}
	pthread_mutex_unlock(&m->lock);
	send_errands(m, IO_WRITE, offset, MIRROR_BLOCK);
}

static void flush_all(struct mirror *m, enum mirror_step step)
{
	static const uint64_t nowhere[MIRROR_LEGS];

	m->step = step;
	m->targets = atomic_load(&m->live);
	pthread_mutex_unlock(&m->lock);
	send_errands(m, IO_FLUSH, nowhere, 0);
}

static void write_next(struct mirror *m)
{
	pthread_mutex_lock(&m->lock);
	if (m->first != m->last) {
		write_bits(m);
	} else if (m->table_wanted && !m->table_blocked) {
		m->table_wanted = false;
		m->phase = 0;
		mirror_next_table(m);
		write_table(m);
	} else if (m->finishing) {
		flush_all(m, STEP_SYNCED);
	} else if (m->clean_wanted) {
		m->clean_wanted = false;
		flush_all(m, STEP_CLEAN);
	} else {
		m->busy = false;
		pthread_mutex_unlock(&m->lock);
	}
}

/* On @queue's thread: something may have to be written. */
void mirror_kick(struct mirror *m, struct io_queue *queue)
{
	bool go;

	pthread_mutex_lock(&m->lock);
	go = !m->busy && !m->layer.read_only;
	if (go) {
		m->busy = true;
		m->queue = queue;
	}
	pthread_mutex_unlock(&m->lock);
	if (go)
		write_next(m);
}

/* --- written ------------------------------------------------------------------------ */

static void wake(struct mirror *m, struct io *list, io_done_fn *run)
{
	struct io *next;

	for (; list; list = next) {
		next = list->next;
		io_wake(list, &m->layer, run);
	}
}

static void set_dirty(struct mirror *m, const struct io *io)
{
	uint64_t last = region_of(m, io->offset + io->length - 1);

	for (uint64_t r = region_of(m, io->offset); r <= last; r++)
		if (!(atomic_fetch_or(&m->region[r], REGION_DIRTY) & REGION_DIRTY))
			atomic_fetch_add(&m->dirty, 1);
}

static void bits_written(struct mirror *m, bool good)
{
	struct io *list = m->marked;

	m->marked = NULL;
	for (struct io *io = list; io; io = io->next) {
		if (good)
			set_dirty(m, io);
		else
			frame_of(io)->note[NOTE_STATUS] = (uint64_t)-EIO;
	}
	if (list)
		mirror_arm(m);
	pthread_mutex_unlock(&m->lock);
	wake(m, list, mirror_marked);
	write_next(m);
}

static void table_step(struct mirror *m, bool good)
{
	struct io *list = NULL;

	if (!good) {
		/* Not the last leg either: nobody may be told that his change is safe. */
		m->table_blocked = m->table_wanted = true;
		list = m->held;
		m->held = NULL;
		for (struct io *io = list; io; io = io->next)
			io_frame(io)->note[NOTE_STATUS] = (uint64_t)-EIO;
		log_error("disk %s: mirror: its records can be written to no leg; changes fail",
			  m->layer.disk);
	} else if (!m->table_wanted && ++m->phase < 2 * MIRROR_COPIES) {
		write_table(m);
		return;
	} else if (!m->table_wanted) {
		mirror_table_written(m);
		mirror_settle_copying(m);
		if (!m->table_wanted) {
			atomic_store(&m->pending, false);
			list = m->held;
			m->held = NULL;
		}
		mirror_arm(m);
	}
	pthread_mutex_unlock(&m->lock);
	wake(m, list, mirror_settled);
	write_next(m);
}

static void synced(struct mirror *m)
{
	for_each_leg(i, m->finishing)
	{
		if (atomic_load(&m->leg[i].need_count) || m->leg[i].state != LEG_STALE)
			continue;
		m->leg[i].synced = true;
		m->table_wanted = true;
	}
	m->finishing = 0;
}

/* Regions that were quiet before the flush and are still: the same on all legs, for good. */
void mirror_clean(struct mirror *m)
{
	uint64_t regions = mirror_regions(m->data_size, 1ull << m->shift);

	if (!mirror_complete(m))
		return;
	for (uint64_t r = 0; r < regions; r++) {
		uint32_t quiet = REGION_DIRTY | REGION_QUIET;
		bool needed = false;

		if (atomic_load_explicit(&m->region[r], memory_order_relaxed) != quiet)
			continue;
		for (unsigned i = 0; i < m->layer.leg_count; i++)
			needed |= leg_needs(&m->leg[i], r);
		if (needed || !atomic_compare_exchange_strong(&m->region[r], &quiet, 0))
			continue;
		atomic_fetch_sub(&m->dirty, 1);
		image_clear(m, r);
	}
}

static void written(struct mirror *m)
{
	uint32_t failed = m->failed;
	bool good;

	pthread_mutex_lock(&m->lock);
	good = m->targets & ~failed & atomic_load(&m->readable);
	for_each_leg(i, failed)
	{
		atomic_fetch_add(&m->leg[i].errors, 1);
		mirror_drop_locked(m, i,
				   m->step == STEP_SYNCED || m->step == STEP_CLEAN
					   ? "flush"
					   : "write of its records",
				   -EIO);
	}
	switch (m->step) {
	case STEP_BITS:
		bits_written(m, good);
		return;
	case STEP_TABLE:
		/* The phases of legs not in sync can go wrong for them only. */
		table_step(m, good || m->phase >= MIRROR_COPIES);
		return;
	case STEP_SYNCED:
		if (!failed)
			synced(m);
		else
			m->finishing = 0;
		break;
	case STEP_CLEAN:
		if (!failed)
			mirror_clean(m);
		break;
	}
	pthread_mutex_unlock(&m->lock);
	write_next(m);
}
