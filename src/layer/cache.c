/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.c - host memory in front of something slow, shared by the disks that show the same image
 *
 * The memory and what is in it are cache_pool.c's; cache_read.c is a read's way through it. Here is
 * the rest: writes, which disk shares what, options.
 *
 * A write goes below as it is, and completes when it is there; see cache_pool.h for what becomes of
 * the pages. Flush and FUA pass through. With writeback=unsafe none of that holds.
 *
 * What a disk has in the pool is found by what is below it (identity.h). That may change when
 * layers do; queues are opened anew then, and look.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "layer/cache_private.h"
#include "layer/identity.h"
#include "util/error.h"
#include "util/log.h"

#define BEHIND     64    /* pages of a queue that are being written behind */
#define WIDE_PAGES 4096u /* a change of more drops all that the disk has in the cache */

/* --- write-behind: writeback=unsafe ----------------------------------------------------- */

enum { NOTE_RUN }; /* of an errand */

static void change(struct layer *layer, struct io *io);

static void behind_done(struct layer *layer, struct io *errand)
{
	struct cache *c = (struct cache *)layer;
	struct cache_queue *q = layer_queue_state(layer, errand->queue);
	struct run *run = (struct run *)(uintptr_t)io_frame(errand)->note[NOTE_RUN];

	if (errand->status) {
		atomic_fetch_add(&c->lost, 1);
		if (log_limited(&q->limit))
			log_error("disk %s: cache: a write at byte %llu that the guest was told is "
				  "done has failed, and is lost (writeback: unsafe): %s",
				  layer->disk, (unsigned long long)errand->offset,
				  strerror(-errand->status));
	}
	cache_behind_ended(c->store, run->pages[0].page, !errand->status, change);
	cache_run_put(q, run);
	io_errand_end(errand);
}

/*
 * A write within a page is done when it is in memory; an errand writes it below at once. So what is
 * not on the disk yet is never more than the errands under way, and who waits for these (a queue
 * that closes, a change of layers) waits for that.
 */
static enum cache_found write_behind(struct cache *c, struct io *io, uint64_t number)
{
	struct cache_queue *q = layer_queue_state(&c->layer, io->queue);
	struct io *errand;
	struct run *run = NULL;
	struct cache_ref ref;
	enum cache_found found;

	if (number >= atomic_load_explicit(&c->pages, memory_order_relaxed))
		return CACHE_NONE;
	errand = io_errand(io->queue);
	if (errand && !(run = cache_run_get(q, number)))
		io_errand_end(errand);
	if (!run)
		return CACHE_NONE;
	found = cache_behind(c->store, number, &io->data, (uint32_t)(io->offset % c->page_size),
			     (uint32_t)io->length, io, cache_read_woken, &ref);
	if (found != CACHE_CLAIMED) {
		cache_run_put(q, run);
		io_errand_end(errand);
		return found;
	}
	cache_run_add(run, &ref, c->page_size);
	cache_run_onto(run, errand, c->page_size);
	errand->op = IO_WRITE;
	errand->flags = 0;
	io_push(&c->layer, errand, behind_done)->note[NOTE_RUN] = (uintptr_t)run;
	io_send(c->layer.below, errand);
	return found;
}

/* --- changes -------------------------------------------------------------------------- */

enum { NOTE_KIND }; /* of a change */
enum kind {
	KIND_BEHIND, /* no more of the cache's business */
	KIND_PAGES,  /* its pages are to be told */
	KIND_WIDE,   /* all that the disk has in the cache was dropped */
};

static void write_done(struct layer *layer, struct io *io)
{
	struct cache *c = (struct cache *)layer;
	uint64_t first = io->offset / c->page_size;
	uint64_t last = (io->offset + io->length - 1) / c->page_size;
	uint64_t kind = io_frame(io)->note[NOTE_KIND];
	bool known = io->op == IO_WRITE && !io->status;

	if (kind == KIND_WIDE)
		cache_wide_ended(c->store);
	for (uint64_t number = first; kind == KIND_PAGES && number <= last; number++) {
		uint32_t start, length = cache_share(c, io, number, &start);
		struct io_data data = { 0 };

		if (known)
			data = io_data_slice(io->data, number * c->page_size + start - io->offset);
		cache_write_ended(c->store, number, known ? &data : NULL, start, length);
	}
	io_finish(io, io->status);
}

/* All pages from @first to @last are to change; false: @io waits for one of them. */
static bool announce(struct cache *c, struct io *io, uint64_t first, uint64_t last)
{
	for (uint64_t number = first; number <= last; number++) {
		if (cache_write_begins(c->store, number, io))
			continue;
		while (number-- > first)
			cache_write_ended(c->store, number, NULL, 0, 0);
		return false;
	}
	return true;
}

/* @io, which has our frame, goes below; or it waits, and comes here again. */
static void change(struct layer *layer, struct io *io)
{
	struct cache *c = (struct cache *)layer;
	uint64_t first = io->offset / c->page_size;
	uint64_t last = (io->offset + io->length - 1) / c->page_size;
	struct io_frame *frame = &io->frame[io->depth - 1];

	if (c->writeback == CACHE_UNSAFE && io->op == IO_WRITE && first == last)
		switch (write_behind(c, io, first)) {
		case CACHE_CLAIMED:
			frame->note[NOTE_KIND] = KIND_BEHIND;
			io_finish(io, 0);
			return;
		case CACHE_FILLING:
			return;
		default:
			break;
		}
	if (c->writeback == CACHE_THROUGH && last - first >= WIDE_PAGES) {
		frame->note[NOTE_KIND] = KIND_WIDE;
		cache_wide_begins(c->store);
		io_send(layer->below, io);
	} else if (announce(c, io, first, last)) {
		frame->note[NOTE_KIND] = KIND_PAGES;
		io_send(layer->below, io);
	}
}

static void cache_submit(struct layer *layer, struct io *io)
{
	struct cache *c = (struct cache *)layer;

	if (io->op == IO_FLUSH && c->writeback == CACHE_UNSAFE) {
		io_finish(io, 0); /* as its name says */
	} else if (io->op == IO_FLUSH || !io->length) {
		io_send(layer->below, io);
	} else if (io->op == IO_READ) {
		cache_read(c, io);
	} else {
		io_push(layer, io, write_done)->note[NOTE_KIND] = KIND_BEHIND;
		change(layer, io);
	}
}

/* --- the ends ------------------------------------------------------------------------- */

/* The store of what is below as it is linked now; no request is inside. With the lock held. */
static int find_store(struct cache *c)
{
	bool shared;
	char *below = layer_identity(c->layer.below, &shared), *identity = below;
	struct cache_store *store = c->store;

	if (below && !shared && asprintf(&identity, "%p:%s", (void *)c, below) < 0)
		identity = NULL;
	if (!identity) {
		free(below);
		return -ENOMEM;
	}
	if (!store || strcmp(store->identity, identity)) {
		store = cache_store_get(c->pool, identity);
		if (store && c->store)
			cache_store_put(c->store);
		if (store)
			c->store = store;
	}
	c->shared = shared;
	if (identity != below)
		free(identity);
	free(below);
	return store ? 0 : -ENOMEM;
}

static int cache_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct cache *c = (struct cache *)layer;
	struct cache_queue *q = layer_queue_state(layer, queue);
	int ret;

	pthread_mutex_lock(&c->lock);
	ret = find_store(c);
	if (!ret)
		list_add(&c->queues, &q->link);
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static void add_figures(struct figures *sum, struct cache_queue *q)
{
	sum->hits += atomic_load_explicit(&q->hits, memory_order_relaxed);
	sum->misses += atomic_load_explicit(&q->misses, memory_order_relaxed);
	sum->ahead += atomic_load_explicit(&q->ahead, memory_order_relaxed);
}

static void cache_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct cache *c = (struct cache *)layer;
	struct cache_queue *q = layer_queue_state(layer, queue);

	pthread_mutex_lock(&c->lock);
	list_remove(&q->link);
	add_figures(&c->closed, q);
	pthread_mutex_unlock(&c->lock);
	cache_read_close(q);
}

static int cache_open(struct layer *layer, struct error *err)
{
	struct cache *c = (struct cache *)layer;
	char text[32];

	c->page_size = 4096u << c->page;
	c->user.size = c->size;
	if (c->page_size % layer->below->limits.block_size)
		return error_set(err, EINVAL, "page: what is below has blocks of %u bytes",
				 layer->below->limits.block_size);
	c->pool = cache_pool_get(c->pool_name, c->page_size, &c->user, err);
	if (!c->pool)
		return -err->code;
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->queues);
	if (find_store(c)) {
		cache_pool_put(c->pool, &c->user);
		pthread_mutex_destroy(&c->lock);
		return error_set(err, ENOMEM, "out of memory");
	}
	if (c->writeback == CACHE_UNSAFE && !layer->read_only)
		log_warn(
			"disk %s: cache: writeback is unsafe: what its guest has written, and flushed, "
			"is lost if penstock or this host crashes",
			layer->disk);
	log_info("disk %s: cache in pool %s of %s%s", layer->disk,
		 c->pool_name ? c->pool_name : "of its own",
		 format_size(cache_pool_size(c->pool), text, sizeof text),
		 c->shared ? ", shared with other disks of the same image" : "");
	return 0;
}

static void cache_close(struct layer *layer)
{
	struct cache *c = (struct cache *)layer;

	cache_store_put(c->store);
	cache_pool_put(c->pool, &c->user);
	pthread_mutex_destroy(&c->lock);
}

static void cache_limits(struct layer *layer, struct limits *limits)
{
	struct cache *c = (struct cache *)layer;

	atomic_store(&c->pages, limits->size / c->page_size);
}

/* --- a change of its options ----------------------------------------------------------- */

static int cache_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct cache *c = (struct cache *)layer;
	const struct cache *to = (const struct cache *)plan->options;
	const char *is = c->pool_name ? c->pool_name : "";

	if (to->page != c->page || strcmp(is, to->pool_name ? to->pool_name : ""))
		return error_set(
			err, EINVAL,
			"pool and page cannot change while the cache is in use; take the layer "
			"out, and put it in again");
	if (plan->below->limits.block_size > c->page_size)
		return error_set(err, EINVAL, "page: what is below has blocks of %u bytes",
				 plan->below->limits.block_size);
	if (cache_pool_check(c->pool, to->size, err))
		return -err->code;
	/* Here, where dropping pages may take its time. */
	cache_pool_state(c->pool, &c->user, to->size);
	return 0;
}

static void cache_abandon(struct layer *layer)
{
	struct cache *c = (struct cache *)layer;

	cache_pool_state(c->pool, &c->user, c->size);
}

static const char *const page_choices[] = { "4K", "8K", "16K", "32K", "64K", NULL };
static const char *const writeback_choices[] = { "off", "unsafe", NULL };

static json_t *cache_report(struct layer *layer)
{
	struct cache *c = (struct cache *)layer;
	struct cache_figures pool;
	struct figures sum;

	cache_pool_figures(c->pool, &pool);
	pthread_mutex_lock(&c->lock);
	sum = c->closed;
	list_for_each (link, &c->queues)
		add_figures(&sum, container_of(link, struct cache_queue, link));
	pthread_mutex_unlock(&c->lock);
	return json_pack("{s:s?, s:s, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I}", "pool",
			 c->pool_name, "writeback", writeback_choices[c->writeback], "size",
			 (json_int_t)pool.size, "used", (json_int_t)pool.used, "users",
			 (json_int_t)pool.users, "evictions", (json_int_t)pool.evictions, "shared",
			 c->shared, "hits", (json_int_t)sum.hits, "misses", (json_int_t)sum.misses,
			 "read-ahead", (json_int_t)sum.ahead, "lost",
			 (json_int_t)atomic_load(&c->lost));
}

static const struct option cache_options[] = {
	{ .name = "pool",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct cache, pool_name),
	  .help = "Disks that name the same pool share its memory. Without a name the disk has its "
		  "own." },
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct cache, size),
	  .fallback = "0",
	  .max = 1ull << 44,
	  .help = "Memory of the pool, at most, its index included; where its disks differ, the largest "
		  "counts; 0 leaves it to the other disks, or is 256M. It can be changed while the disk "
		  "is in use, up to four times what it was first." },
	{ .name = "page",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct cache, page),
	  .choices = page_choices,
	  .fallback = "4K",
	  .help = "What is kept and dropped as one. Larger pages need less of an index, and read more "
		  "than was asked for. All disks of a pool have the same." },
	{ .name = "read-ahead",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct cache, read_ahead),
	  .fallback = "512K",
	  .max = 4u << 20,
	  .help = "How far ahead of a guest that reads in sequence; 0 reads nothing ahead." },
	{ .name = "writeback",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct cache, writeback),
	  .choices = writeback_choices,
	  .fallback = "off",
	  .help = "unsafe: writes within a page are done when they are in memory, and are written behind; "
		  "flushes do nothing. A CRASH OF PENSTOCK OR THE HOST, OR AN ERROR OF THE DISK BELOW, "
		  "LOSES DATA THAT THE GUEST WAS TOLD IS SAFE, and its file system with them. For disks "
		  "that can be made again: scratch space, builds, installations." },
	{ 0 },
};

const struct layer_ops cache_ops = {
	.name = "cache",
	.summary = "host memory in front of a slow disk, shared by disks of one image",
	.description =
		"Keeps in memory what was read, so that it need not be read again. Disks of one pool "
		"share its memory, and those over the same image, opened read-only, share the bytes in "
		"it as well: twenty guests of one golden image hold each of its blocks once.\n\n"
		"What is used once, as by a backup or a virus scanner that reads everything, does not "
		"displace what is used again and again (S3-FIFO). Writes go through to what is below "
		"before they complete, and flushes too: the cache never holds anything that is not on "
		"the disk (unless it is told to be unsafe).\n\n"
		"Memory is taken when it is filled, and never more than the stated size.",
	.example = "disks:\n"
		   "  web1:\n"
		   "    read-only: true\n"
		   "    stack:\n"
		   "      - cache: {pool: golden, size: 2G}\n"
		   "      - file: {path: /var/lib/penstock/golden.img}\n"
		   "  web2:\n"
		   "    read-only: true\n"
		   "    stack:\n"
		   "      - cache: {pool: golden}\n"
		   "      - file: {path: /var/lib/penstock/golden.img}\n",
	.size = sizeof(struct cache),
	.options = cache_options,
	.fan_out = CACHE_FAN_OUT,
	.errands = CACHE_ERRANDS + BEHIND,
	.queue_state = sizeof(struct cache_queue),
	.remembers = true,
	.shows_below = true,
	.open = cache_open,
	.close = cache_close,
	.limits = cache_limits,
	.prepare = cache_prepare,
	.abandon = cache_abandon,
	.queue_open = cache_queue_open,
	.queue_close = cache_queue_close,
	.submit = cache_submit,
	.report = cache_report,
};
