/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror.c - the same bytes on two or more legs
 *
 * A read goes to one leg, the one that is likely to answer first: each queue knows how many reads
 * of its own are with each leg and how long they took of late. If it fails it goes to another leg,
 * and a leg that failed what another one could do is dropped.
 *
 * A change goes to all live legs. Its regions must be dirty on the legs before, so that after a
 * crash it is known what may differ: while a region is dirty that costs an addition and a
 * subtraction, else the change waits for a sector of the bitmap (mirror_meta.c). It is acknowledged
 * when each leg has answered. A leg that failed is dropped, and the change is acknowledged only
 * when the others have it in their tables that they go on without that leg: the state "pending",
 * which a drop sets before it takes the leg out of the mask of live ones. So whoever misses the leg
 * sees "pending".
 *
 * The last leg in sync is never dropped: what it fails, fails in the guest, as on any disk.
 *
 * What a discarded block holds may differ from leg to leg; so that the guest does not see one thing
 * now and another one later, discards are sent as zeroes that may be unmapped.
 */
#include "layer/mirror.h"

#include <errno.h>

/* --- reads -------------------------------------------------------------------------- */

/* Of a read's frame: the leg it is with, a mask of those that failed it, when it was sent. */
enum { READ_LEG, READ_SENT };
#define READ_FAILED 8

static bool lacks(const struct mirror *m, unsigned leg, const struct io *io)
{
	uint64_t last = region_of(m, io->offset + io->length - 1);

	for (uint64_t r = region_of(m, io->offset); r <= last; r++)
		if (leg_needs(&m->leg[leg], r))
			return true;
	return false;
}

/* The leg that will answer first, it seems; -1: none is left. */
static int choose(const struct mirror *m, struct mirror_queue *q, const struct io *io,
		  uint32_t failed)
{
	uint32_t legs = atomic_load_explicit(&m->readable, memory_order_acquire) & ~failed;
	bool needs = atomic_load_explicit(&m->needs, memory_order_relaxed);
	uint64_t least = UINT64_MAX;
	/* One in 64 takes them in turn, so that what was slow once is tried again. */
	bool any = ++q->turn % 64 == 0;
	int best = -1;

	for (unsigned n = 0; n < m->layer.leg_count; n++) {
		unsigned i = (q->turn / 64 + n) % m->layer.leg_count;
		uint64_t cost = any ? n : (q->depth[i] + 1) * (q->latency[i] + 1000);

		if (!(legs >> i & 1) || cost >= least || (needs && lacks(m, i, io)))
			continue;
		least = cost;
		best = (int)i;
	}
	return best;
}

static void read_done(struct layer *layer, struct io *io);

static void send_read(struct mirror *m, struct mirror_queue *q, struct io *io, unsigned leg,
		      uint32_t failed)
{
	struct io_frame *frame = io_push(&m->layer, io, read_done);

	frame->note[READ_LEG] = leg | (uint64_t)failed << READ_FAILED;
	frame->note[READ_SENT] = loop_now(io->queue->loop);
	q->depth[leg]++;
	io_send(m->layer.legs[leg], io);
}

static void read_failed(struct mirror *m, struct io *io, unsigned leg, uint32_t failed)
{
	struct mirror_queue *q = layer_queue_state(&m->layer, io->queue);
	int status = io->status, next;

	atomic_fetch_add(&m->leg[leg].errors, 1);
	next = choose(m, q, io, failed);
	if (next >= 0) {
		send_read(m, q, io, (unsigned)next, failed);
		return;
	}
	atomic_fetch_add(&m->sync.unreadable, 1);
	io_finish(io, status);
}

static void read_done(struct layer *layer, struct io *io)
{
	struct mirror *m = (struct mirror *)layer;
	struct mirror_queue *q = layer_queue_state(layer, io->queue);
	const struct io_frame *frame = io_frame(io);
	unsigned leg = frame->note[READ_LEG] & ((1 << READ_FAILED) - 1);
	uint32_t failed = (uint32_t)(frame->note[READ_LEG] >> READ_FAILED);
	uint64_t took = loop_now(io->queue->loop) - frame->note[READ_SENT];

	q->depth[leg]--;
	q->latency[leg] = q->latency[leg] - q->latency[leg] / 8 + took / 8;
	if (io->status) {
		read_failed(m, io, leg, failed | 1u << leg);
		return;
	}
	if (failed) {
		for_each_leg(i, failed) mirror_drop(m, i, "read", -EIO);
		mirror_kick(m, io->queue);
	}
	io_finish(io, 0);
}

static void mirror_read(struct mirror *m, struct io *io)
{
	struct mirror_queue *q = layer_queue_state(&m->layer, io->queue);
	int leg = choose(m, q, io, 0);

	if (leg >= 0) {
		send_read(m, q, io, (unsigned)leg, 0);
		return;
	}
	io_push(&m->layer, io, read_done);
	io_finish(io, -EIO);
}

/* --- changes ------------------------------------------------------------------------ */

/* Counts @io in its regions. True if all of them are dirty on the legs. */
static bool enter(struct mirror *m, const struct io *io)
{
	uint64_t last = region_of(m, io->offset + io->length - 1);
	bool dirty = true;

	for (uint64_t r = region_of(m, io->offset); r <= last; r++) {
		uint32_t was = atomic_fetch_add(&m->region[r], 1);

		dirty &= was >> 31;
		if (was & REGION_QUIET)
			atomic_fetch_and(&m->region[r], ~REGION_QUIET);
	}
	return dirty;
}

static void leave(struct mirror *m, const struct io *io)
{
	uint64_t last = region_of(m, io->offset + io->length - 1);

	for (uint64_t r = region_of(m, io->offset); r <= last; r++)
		atomic_fetch_sub(&m->region[r], 1);
}

static void part_done(struct layer *layer, struct io *part)
{
	struct mirror *m = (struct mirror *)layer;
	unsigned leg = (unsigned)io_frame(part)->note[0];
	struct io_frame *frame = &part->whole->frame[part->whole->depth - 1];

	if (part->status) {
		atomic_fetch_add(&m->leg[leg].errors, 1);
		frame->note[NOTE_LEGS] |= 1u << leg;
		if (!frame->note[NOTE_STATUS])
			frame->note[NOTE_STATUS] = (uint64_t)part->status;
	}
	io_part_end(part, 0);
}

/* What it has to wait for is over: it goes to all legs. */
static void send_to_all(struct mirror *m, struct io *io)
{
	struct io_frame *frame = &io->frame[io->depth - 1];
	uint32_t live = atomic_load_explicit(&m->live, memory_order_acquire);

	frame->note[NOTE_LEGS] |= (uint64_t)live << NOTE_SENT;
	for_each_leg(i, live)
	{
		struct io *part = io_part(io, 0, io->length, io->offset);

		if (io->op == IO_DISCARD) {
			part->op = IO_ZEROES;
			part->flags |= IO_UNMAP;
		}
		io_push(&m->layer, part, part_done)->note[0] = i;
		io_send(m->layer.legs[i], part);
	}
	io_parts_end(io);
}

/* Its regions are dirty on the legs; or, with a status, cannot be made so. */
void mirror_marked(struct layer *layer, struct io *io)
{
	if (io->frame[io->depth - 1].note[NOTE_STATUS])
		io_parts_end(io);
	else
		send_to_all((struct mirror *)layer, io);
}

static void range_locked(struct layer *layer, struct io *io)
{
	struct mirror *m = (struct mirror *)layer;

	io->frame[io->depth - 1].note[NOTE_LEGS] |= NOTE_REGIONS;
	if (enter(m, io) || mirror_mark(m, io))
		send_to_all(m, io);
}

/* All legs have answered, and the table is as it must be. */
void mirror_settled(struct layer *layer, struct io *io)
{
	struct mirror *m = (struct mirror *)layer;
	uint64_t note = io_frame(io)->note[NOTE_LEGS];

	if (note & NOTE_REGIONS)
		leave(m, io);
	if (note & NOTE_LOCKED)
		ranges_unlock(m->ranges, io->offset, io->length, false);
	io_finish(io, (int)io_frame(io)->note[NOTE_STATUS]);
}

static void change_done(struct layer *layer, struct io *io)
{
	struct mirror *m = (struct mirror *)layer;
	bool failed = io_frame(io)->note[NOTE_STATUS];

	if ((!failed && !atomic_load(&m->pending)) || mirror_settle(m, io, io_op_name(io->op)))
		mirror_settled(layer, io);
}

static void mirror_submit(struct layer *layer, struct io *io)
{
	struct mirror *m = (struct mirror *)layer;
	struct io_frame *frame;

	if (io->op == IO_READ) {
		mirror_read(m, io);
		return;
	}
	frame = io_parts_begin(layer, io, change_done);
	frame->note[NOTE_LEGS] = frame->note[NOTE_STATUS] = 0;
	if (io->op == IO_FLUSH) {
		send_to_all(m, io);
	} else if (io->op == IO_DISCARD && !m->discard) {
		io_parts_end(io); /* advice that not all can take */
	} else if (!atomic_load_explicit(&m->copying, memory_order_acquire)) {
		range_locked(layer, io);
	} else {
		frame->note[NOTE_LEGS] = NOTE_LOCKED;
		if (ranges_lock(m->ranges, io, io->offset, io->length, false, layer, range_locked))
			range_locked(layer, io);
	}
}

/* --- what it is --------------------------------------------------------------------- */

static void mirror_limits(struct layer *layer, struct limits *limits)
{
	struct mirror *m = (struct mirror *)layer;

	*limits = (struct limits){ .natural_block_size = limits->natural_block_size,
				   .size = m->data_size,
				   .block_size = 512,
				   .physical_block_size = 512,
				   .read_only = layer->read_only,
				   .discard = true };
	for (unsigned i = 0; i < layer->leg_count; i++) {
		const struct limits *leg;

		if (!layer->legs[i] || m->leg[i].state == LEG_FAILED)
			continue;
		leg = &layer->legs[i]->limits;
		if (leg->block_size > limits->block_size)
			limits->block_size = leg->block_size;
		if (leg->physical_block_size > limits->physical_block_size)
			limits->physical_block_size = leg->physical_block_size;
		if (leg->optimal_io > limits->optimal_io)
			limits->optimal_io = leg->optimal_io;
		limits->read_only |= leg->read_only;
		limits->discard &= leg->discard;
	}
	m->discard = limits->discard;
}

static bool mirror_holds(const struct layer *layer, unsigned leg)
{
	const struct mirror *m = (const struct mirror *)layer;

	return atomic_load(&m->readable) >> leg & 1 && !atomic_load(&m->leg[leg].need_count);
}

static const struct option mirror_options[] = {
	{ .name = "create",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct mirror, create),
	  .fallback = "false",
	  .help = "Take in legs that are not part of a mirror yet: their contents are overwritten with those "
		  "of the mirror. If none of the legs is part of one, the first leg's data become the "
		  "mirror's." },
	{ .name = "degraded",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct mirror, degraded),
	  .help = "Start although a leg is missing that may have newer data. The value is the generation "
		  "that the error message names: so it permits one start, and does no harm if it is "
		  "left in the configuration." },
	{ .name = "region-size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct mirror, region_size),
	  .min = MIRROR_REGION_MIN,
	  .max = 1ull << 40,
	  .help = "Of a new mirror: how much a bit of the bitmap stands for, a power of 2. Default: 1M, or "
		  "more where that would make over 131072 bits." },
	{ .name = "resync-limit",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct mirror, resync_limit),
	  .help = "Bytes a second that are copied to legs at most. Default: as fast as it goes." },
	{ .name = "retry",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct mirror, retry),
	  .help = "Another number than before tries legs that failed again (penstock set-layer DISK mirror "
		  "retry=1). Nothing else depends on it." },
	{ 0 },
};

const struct layer_ops mirror_ops = {
	.name = "mirror",
	.summary = "the same bytes on two or more legs",
	.description =
		"Each change goes to all legs, each read to one of them. A leg that fails is dropped, and "
		"the guest goes on with the others; status, metrics and the log say so. A leg is a "
		"back-end or a list of layers with one; the guest's data begin at its first byte, so "
		"that it can be read without penstock too. The last few KiB of each leg hold the "
		"mirror's own records (docs/mirror-format.md, penstock inspect): which legs there are, "
		"which of them have all data, and a bitmap of regions that may differ.\n\n"
		"After a crash, or when a leg comes back, only the regions in the bitmap are copied, in "
		"the background, while the guest works. Legs are added, removed and replaced while the "
		"disk is in use by giving the mirror another list of legs; a leg that failed is tried "
		"again at each change of the mirror's options or legs, and at the next start; what it lacks "
		"is copied then.\n\n"
		"When a disk in use goes on without its mirror, with one leg alone (penstock remove-layer "
		"--keep) or at another place, the leg that stays is freed of the mirror's records, and those "
		"left behind are marked as stale: they start no mirror any more, and are taken into none, "
		"until penstock inspect --wipe has freed them, too. Their data can be read as they are.\n\n"
		"A leg that was left behind is never taken for the truth: the others record that they go "
		"on without it before they acknowledge anything. For the same reason a mirror does not "
		"start while a leg is missing that may have newer data, unless the option degraded says "
		"so; and if two legs were used apart from one another, it refuses to start and tells what "
		"to do.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - mirror:\n"
		   "          create: true\n"
		   "          legs:\n"
		   "            - memory: {size: 64M}\n"
		   "            - memory: {size: 64M}\n",
	.size = sizeof(struct mirror),
	.options = mirror_options,
	.backend = true,
	.legs_option = "legs",
	.legs_min = 1,
	.legs_max = MIRROR_LEGS,
	.legs_may_fail = true,
	.fan_out = MIRROR_LEGS,
	.errands = MIRROR_LEGS,
	.queue_state = sizeof(struct mirror_queue),
	.open = mirror_open,
	.close = mirror_close,
	.limits = mirror_limits,
	.holds = mirror_holds,
	.resize = mirror_resize,
	.prepare = mirror_prepare,
	.commit = mirror_commit,
	.abandon = mirror_abandon,
	.retire = mirror_retire,
	.start = mirror_start,
	.stop = mirror_stop,
	.submit = mirror_submit,
	.report = mirror_report,
};
