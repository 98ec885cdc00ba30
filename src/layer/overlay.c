/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay.c - copy-on-write: what is changed goes to a store, what is below is only read
 *
 * The disk is divided into blocks of 4 KiB. A map tells of each where its bytes are: in the base
 * (at first), in the store, or nowhere, since it is zeroes. In the store a block has the place that
 * it has in the disk, behind the map: so there is nothing to allocate and nothing to look up but
 * two bits, what is sequential stays so, and a block that is in the store once is rewritten in
 * place. The store is sparse, or as large as the disk.
 *
 *     overlay_io.c       requests: where the bytes are, whole blocks or not
 *     overlay_fill.c     copy-on-read
 *     overlay_map.c      the map, in memory
 *     overlay_commit.c   FLUSH, FUA: the map becomes durable after the data
 *     overlay_store.c    opening, growing, emptying
 *     overlay_shadow.c   the map outlives a daemon that is killed
 *     overlay_format.c   bytes of the header and the map; docs/overlay-format.md
 */
#include "layer/overlay_private.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "util/error.h"
#include "util/log.h"

#define REGION 65536u /* bytes that one lock covers, at least */

static int overlay_open(struct layer *layer, struct error *err)
{
	struct overlay *o = (struct overlay *)layer;
	uint64_t region;

	if (o->block & (o->block - 1))
		return error_set(err, EINVAL,
				 "block: %llu is not a power of 2; expected one from 512 to 64K",
				 (unsigned long long)o->block);
	o->commit.buffer = aligned_alloc(4096, OVERLAY_COMMIT_PAGES * OVERLAY_PAGE);
	if (!o->commit.buffer)
		return error_set(err, ENOMEM, "out of memory");
	if (overlay_store_open(o, err)) {
		free(o->commit.buffer);
		return -err->code;
	}
	region = o->header.block > REGION ? o->header.block : REGION;
	o->ranges = ranges_create(region);
	if (!o->ranges) {
		overlay_store_close(o);
		free(o->commit.buffer);
		return error_set(err, ENOMEM, "out of memory");
	}
	pthread_mutex_init(&o->commit.lock, NULL);
	o->commit.last = &o->commit.waiting;
	return 0;
}

static void overlay_close(struct layer *layer)
{
	struct overlay *o = (struct overlay *)layer;

	overlay_store_close(o);
	ranges_destroy(o->ranges);
	pthread_mutex_destroy(&o->commit.lock);
	free(o->commit.buffer);
}

static void overlay_limits(struct layer *layer, struct limits *limits)
{
	struct overlay *o = (struct overlay *)layer;
	const struct limits *store = &overlay_store(o)->limits;

	atomic_store(&o->end, limits->size - limits->size % layer->block_size);
	/* A base that is less than it was would hide what is missing: the disk shows it. */
	if (limits->size >= o->header.base_size || limits->size > o->header.size)
		limits->size = o->header.size;
	if (store->block_size > limits->block_size)
		limits->block_size = store->block_size;
	/* Less than a block that is not in the store yet has to be completed from the base. */
	limits->physical_block_size = store->physical_block_size > o->header.block
					      ? store->physical_block_size
					      : o->header.block;
	limits->optimal_io = store->optimal_io;
	limits->read_only = store->read_only;
	limits->discard = true;
}

static int overlay_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct overlay *o = (struct overlay *)layer;

	return overlay_store_grow(o, size, err) ? error_prefix(err, "overlay") : 0;
}

/* --- changes while it is in use
 * --------------------------------------------------------------------- */

static int overlay_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct overlay *o = (struct overlay *)layer;
	const struct overlay *to = (const struct overlay *)plan->options;

	if (to->block != o->block)
		return error_set(err, EINVAL, "block: it is settled when a store is made");
	if (to->size && to->size != o->header.size)
		return error_set(err, EINVAL, "size: 'penstock resize' changes it");
	if (plan->legs[0] != overlay_store(o) && overlay_check_store(o, plan->legs[0], err))
		return -err->code;
	if (plan->below != layer->below)
		return overlay_check_base(o, plan->below, err);
	return 0;
}

static int overlay_undo_now(struct layer *layer, struct error *err)
{
	return overlay_store_undo((struct overlay *)layer, err);
}

/* --- what users see
 * ----------------------------------------------------------------------------------- */

static json_t *overlay_report(struct layer *layer)
{
	struct overlay *o = (struct overlay *)layer;

	return json_pack("{s:I, s:I}", "stored",
			 (json_int_t)(atomic_load(&o->map.count[OVERLAY_DATA]) << o->shift),
			 "zeroes",
			 (json_int_t)(atomic_load(&o->map.count[OVERLAY_ZERO]) << o->shift));
}

static const char *const undos[] = { "never", "at-exit", NULL };

static const struct option overlay_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct overlay, size),
	  .min = 4096,
	  .max = 1ull << 56,
	  .help = "Size of the disk, which reads as zeroes beyond the end of the base. Default: that of "
		  "the base when the store is made, and then what the store says. A larger one makes it "
		  "grow." },
	{ .name = "block",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct overlay, block),
	  .fallback = "4K",
	  .min = 512,
	  .max = 65536,
	  .help = "What is kept as a whole, bytes, a power of 2; settled when the store is made. Writes of "
		  "whole blocks need not read the base. The map takes 2 bits a block of memory: 64 KiB for "
		  "each GiB in blocks of 4K." },
	{ .name = "copy-on-read",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct overlay, copy_on_read),
	  .fallback = "false",
	  .help = "Keep in the store what was read from the base, for a base that is slow." },
	{ .name = "undo",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct overlay, undo),
	  .choices = undos,
	  .fallback = "never",
	  .help = "at-exit: changes last as long as the daemon. They are thrown away when the disk is opened "
		  "and when it is closed, and flushes have nothing to do. A guest that runs on "
		  "while the daemon is restarted must be reset." },
	{ 0 },
};

const struct layer_ops overlay_ops = {
	.name = "overlay",
	.summary = "copy-on-write over a base that is only read",
	.description =
		"Changes go to the store, a stack of its own; what was not changed is read from the base, "
		"which is what is below in the list. The base is opened for reading only, under a "
		"shared lock: any number of disks may have one golden image below them.\n\n"
		"The store is made when it is blank, and grows to the size that it needs, which is that of "
		"the disk and a little more; where it is sparse it takes the space of what was "
		"written. It remembers the size of the base and a sum of samples of it, and is refused "
		"over another one. Its format is described in overlay-format.md; 'penstock inspect' "
		"checks it.\n\n"
		"What was flushed is there after a loss of power. 'penstock undo' throws all changes away "
		"while the disk is in use: the guest finds the base then, and must be reset.",
	.example = "disks:\n"
		   "  web1:\n"
		   "    stack:\n"
		   "      - overlay:\n"
		   "          store: {file: {path: /var/lib/penstock/web1.ovl, create: true}}\n"
		   "      - file: {path: /var/lib/penstock/golden.img}\n",
	.size = sizeof(struct overlay),
	.options = overlay_options,
	.legs_option = "store",
	.legs_min = 1,
	.legs_max = 1,
	.below_read_only = true,
	.fan_out = OVERLAY_FAN_OUT,
	.errands = OVERLAY_FILLS,
	.queue_state = sizeof(struct overlay_queue),
	.open = overlay_open,
	.close = overlay_close,
	.limits = overlay_limits,
	.resize = overlay_resize,
	.prepare = overlay_prepare,
	.undo = overlay_undo_now,
	.submit = overlay_submit,
	.report = overlay_report,
};
