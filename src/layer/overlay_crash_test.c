/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_crash_test.c - an overlay whose power is cut, again and again
 *
 * Its store is a medium of this test's own with a volatile cache. Of each sector the medium
 * remembers what is durable and all that was written since the last flush; a cut takes for each
 * sector any one of these, so writes are lost, torn and reordered as hardware may do it. Requests
 * to it come back in any order. The cut is at a random one of them, in the middle of whatever goes
 * on: writes, commits, copies on read, an undo, the end.
 *
 * The model knows for each block of the disk what it may hold after a cut at any moment: what it
 * held at the last flush that was answered, and all that was written since. What it finds when the
 * store is opened again must be one of these, and becomes the one.
 *
 * SEED repeats a run; CUTS makes it longer.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "layer/overlay_private.h"
#include "layer/session.h"
#include "testing.h"
#include "util/log.h"

#define SECTOR   512u
#define DISK     (40ull << 20)
#define MEDIUM   (48ull << 20)
#define ZONES    5u  /* where requests go: around the borders of pages of the map, and the end */
#define ZONE     48u /* sectors of one */
#define BLOCKS   (ZONES * ZONE)
#define LONGEST  24u /* sectors of a request */
#define DEPTH    16u
#define HELD     64u
#define REQUESTS 120u /* between two cuts, at most */
#define CUTS     400u

/* --- chance --------------------------------------------------------------------------------- */

static uint64_t seed, state;

static uint64_t chance(uint64_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 20) % n;
}

/* --- the medium: with a cache that is lost --------------------------------------------------- */

struct version {
	struct version *older;
	unsigned char bytes[SECTOR];
};

static struct medium {
	unsigned char *now;     /* what reads find */
	unsigned char *durable; /* what a flush left */
	struct version *cached[MEDIUM / SECTOR];
	bool is_used[MEDIUM / SECTOR]; /* others are zeroes */
	uint64_t used[MEDIUM / SECTOR], used_count;
	bool prompt;          /* nothing is held */
	uint64_t ops, cut_at; /* the cut comes before this one */
	bool cut;
	unsigned char *left; /* after the cut */
} medium;

static void forget(uint64_t sector)
{
	struct version *v;

	while ((v = medium.cached[sector])) {
		medium.cached[sector] = v->older;
		free(v);
	}
}

static void store_sector(uint64_t sector, const unsigned char *bytes, bool durably)
{
	unsigned char *now = medium.now + sector * SECTOR;

	memcpy(now, bytes, SECTOR);
	if (!medium.is_used[sector])
		medium.used[medium.used_count++] = sector;
	medium.is_used[sector] = true;
	if (durably) {
		forget(sector);
		memcpy(medium.durable + sector * SECTOR, bytes, SECTOR);
	} else {
		struct version *v = malloc(sizeof *v);

		v->older = medium.cached[sector];
		memcpy(v->bytes, bytes, SECTOR);
		medium.cached[sector] = v;
	}
}

static void flush_medium(void)
{
	for (uint64_t i = 0; i < medium.used_count; i++) {
		uint64_t s = medium.used[i];

		if (!medium.cached[s])
			continue;
		memcpy(medium.durable + s * SECTOR, medium.now + s * SECTOR, SECTOR);
		forget(s);
	}
}

/* For each sector, what is durable or anything that came after it. */
static void cut(void)
{
	medium.cut = true;
	for (uint64_t i = 0; i < medium.used_count; i++) {
		uint64_t s = medium.used[i];
		unsigned n = 0, take;

		memcpy(medium.left + s * SECTOR, medium.durable + s * SECTOR, SECTOR);
		for (const struct version *v = medium.cached[s]; v; v = v->older)
			n++;
		take = n ? (unsigned)chance(n + 1) : 0;
		for (const struct version *v = medium.cached[s]; v && take; v = v->older)
			if (!--take)
				memcpy(medium.left + s * SECTOR, v->bytes, SECTOR);
	}
}

static void model_cut(void);

static void perform(struct io *io)
{
	unsigned char bytes[SECTOR] = { 0 };
	uint64_t first = io->offset / SECTOR;

	if (medium.ops++ == medium.cut_at && !medium.cut) {
		cut();
		model_cut();
	}
	if (io->op == IO_READ)
		io_data_copy_in(io->data, medium.now + io->offset, io->length);
	else if (io->op == IO_FLUSH)
		flush_medium();
	else
		for (uint64_t i = 0; i < io->length / SECTOR; i++) {
			if (io->op == IO_WRITE)
				io_data_copy_out(io_data_slice(io->data, i * SECTOR), bytes,
						 SECTOR);
			else if (!medium.is_used[first + i])
				continue;
			store_sector(first + i, bytes, io->flags & IO_FUA);
		}
	io_finish(io, 0);
}

/* Requests wait, and go on in any order. */
struct medium_queue {
	struct loop_timer timer;
	struct io *held[HELD];
	unsigned count;
};

static void let_go(struct loop_timer *timer)
{
	struct medium_queue *q = container_of(timer, struct medium_queue, timer);

	while (q->count) {
		unsigned i = (unsigned)chance(q->count);
		struct io *io = q->held[i];

		q->held[i] = q->held[--q->count];
		perform(io);
	}
}

static void medium_submit(struct layer *layer, struct io *io)
{
	struct medium_queue *q = layer_queue_state(layer, io->queue);

	if (medium.prompt || q->count == HELD || !chance(3)) {
		perform(io);
		return;
	}
	if (!q->count)
		loop_timer_set(io->queue->loop, &q->timer,
			       loop_now(io->queue->loop) + chance(2000));
	q->held[q->count++] = io;
}

static int medium_queue_open(struct layer *layer, struct io_queue *queue)
{
	loop_timer_init(&((struct medium_queue *)layer_queue_state(layer, queue))->timer, let_go);
	return 0;
}

static void medium_limits(struct layer *layer, struct limits *limits)
{
	(void)layer;
	*limits = (struct limits){
		.size = MEDIUM, .block_size = SECTOR, .physical_block_size = SECTOR, .discard = true
	};
}

static const struct layer_ops medium_ops = {
	.name = "medium",
	.size = sizeof(struct layer),
	.backend = true,
	.queue_state = sizeof(struct medium_queue),
	.queue_open = medium_queue_open,
	.limits = medium_limits,
	.submit = medium_submit,
};

/* --- the base: each sector says which one it is -------------------------------------------------
 */

static void content(uint64_t sector, uint64_t stamp, unsigned char *bytes)
{
	for (unsigned i = 0; i < SECTOR; i += 8)
		memcpy(bytes + i, &(uint64_t){ (sector << 32) + stamp }, 8);
}

#define OF_BASE 1u /* the stamp of what the base has; 0 is zeroes */

static void base_submit(struct layer *layer, struct io *io)
{
	unsigned char bytes[SECTOR];

	(void)layer;
	assert_true(io->op == IO_READ || io->op == IO_FLUSH);
	for (uint64_t i = 0; io->op == IO_READ && i < io->length / SECTOR; i++) {
		content(io->offset / SECTOR + i, OF_BASE, bytes);
		io_data_copy_in(io_data_slice(io->data, i * SECTOR), bytes, SECTOR);
	}
	io_finish(io, 0);
}

static void base_limits(struct layer *layer, struct limits *limits)
{
	(void)layer;
	*limits = (struct limits){
		.size = DISK, .block_size = SECTOR, .physical_block_size = SECTOR, .read_only = true
	};
}

static const struct layer_ops base_ops = {
	.name = "base",
	.size = sizeof(struct layer),
	.backend = true,
	.limits = base_limits,
	.submit = base_submit,
};

/* --- the model
 * ------------------------------------------------------------------------------------ */

#define MAY 64u

/* What a block may hold after a cut: may[0] for sure until the others are there; the last is now.
 */
struct block {
	uint64_t may[MAY];
	unsigned count;
	unsigned readers;
	bool changing;
};

static struct model {
	struct block block[BLOCKS], after[BLOCKS]; /* after: at the cut */
	bool undoing, undoing_after;
	uint64_t stamps;
} model;

static struct run {
	struct disk *disk;
	struct disk_queue *queue;
	struct loop *loop;
	struct loop_message begin, over;
	struct layer_stop stop;
	struct request {
		bool out;
		enum io_op op;
		unsigned first, count; /* blocks of the model */
		uint64_t stamp;
		uint64_t counts[BLOCKS]; /* a flush: how many contents of each block are older */
		unsigned char *bytes;
	} request[DEPTH];
	unsigned issued, most, out;
	char failure[300];
} run;

static uint64_t cuts, requests, undone;

static void model_cut(void)
{
	memcpy(model.after, model.block, sizeof model.after);
	model.undoing_after = model.undoing;
}

static void power_on(void)
{
	for (uint64_t i = 0; i < medium.used_count; i++) {
		uint64_t s = medium.used[i];

		forget(s);
		memcpy(medium.now + s * SECTOR, medium.left + s * SECTOR, SECTOR);
		memcpy(medium.durable + s * SECTOR, medium.left + s * SECTOR, SECTOR);
	}
	medium.cut = false;
	medium.ops = 0;
	for (unsigned i = 0; i < BLOCKS; i++) {
		model.block[i] = model.after[i];
		model.block[i].readers = 0;
		model.block[i].changing = false;
	}
	model.undoing = model.undoing_after;
}

static uint64_t sector_of(unsigned block)
{
	static const uint64_t zone[ZONES] = { 0, 15872 - ZONE / 2, 2 * 15872 - ZONE / 2,
					      4 * 15872 - ZONE / 2, DISK / SECTOR - ZONE };

	return zone[block / ZONE] + block % ZONE;
}

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	if (*run.failure)
		return;
	va_start(args, format);
	vsnprintf(run.failure, sizeof run.failure, format, args);
	va_end(args);
}

static uint64_t stamp_of(unsigned block, const unsigned char *bytes)
{
	unsigned char expected[SECTOR];
	uint64_t word;

	memcpy(&word, bytes, 8);
	if (!word)
		memset(expected, 0, sizeof expected);
	else
		content(sector_of(block), word & 0xffffffff, expected);
	if (memcmp(expected, bytes, SECTOR) != 0)
		wrong("block %u is garbage", block);
	return word & 0xffffffff;
}

/* --- requests
 * ------------------------------------------------------------------------------------- */

static void issue(void);

static void flushed(const struct request *r)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct block *b = &model.block[i];
		uint64_t gone = r->counts[i] ? r->counts[i] - 1 : 0;

		/* Those before the last one that was there when it was sent are gone. */
		if (!gone || gone >= b->count)
			continue;
		b->count -= (unsigned)gone;
		memmove(b->may, b->may + gone, b->count * sizeof *b->may);
		/* Other flushes that are under way counted them, too. */
		for (unsigned k = 0; k < DEPTH; k++) {
			uint64_t *counted = &run.request[k].counts[i];

			if (&run.request[k] != r)
				*counted = *counted > gone ? *counted - gone : 0;
		}
	}
}

static void completed(struct layer *layer, struct io *io)
{
	struct request *r = &run.request[io_frame(io)->note[0]];
	bool fua = io->flags & IO_FUA;

	(void)layer;
	if (io->status)
		wrong("a %s failed: %s", io_op_name(r->op), strerror(-io->status));
	r->out = false;
	run.out--;
	requests++;
	if (r->op == IO_FLUSH)
		flushed(r);
	for (unsigned i = r->first; i < r->first + r->count; i++) {
		struct block *b = &model.block[i];

		if (r->op == IO_READ) {
			uint64_t found = stamp_of(i, r->bytes + (i - r->first) * SECTOR);

			b->readers--;
			if (found != b->may[b->count - 1])
				wrong("block %u has %" PRIu64 ", expected %" PRIu64, i, found,
				      b->may[b->count - 1]);
			continue;
		}
		b->changing = false;
		if (fua) {
			b->may[0] = b->may[b->count - 1];
			b->count = 1;
			for (unsigned k = 0; k < DEPTH; k++)
				run.request[k].counts[i] = 0;
		}
	}
	free(r->bytes);
	io_put(io);
	issue();
}

static bool is_free(enum io_op op, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		const struct block *b = &model.block[i];

		if (b->changing || (op != IO_READ && (b->readers || b->count == MAY)))
			return false;
	}
	return true;
}

static void submit(enum io_op op, unsigned first, unsigned count)
{
	struct io *io = io_get(&run.queue->ios);
	unsigned slot = 0;
	struct request *r;

	while (run.request[slot].out)
		slot++;
	r = &run.request[slot];
	*r = (struct request){ .out = true, .op = op, .first = first, .count = count };
	io->op = (uint8_t)op;
	io->flags = op == IO_WRITE || op == IO_ZEROES ? chance(6) == 0 ? IO_FUA : 0 : 0;
	io->offset = count ? sector_of(first) * SECTOR : 0;
	io->length = count * SECTOR;
	if (op == IO_READ || op == IO_WRITE) {
		r->bytes = malloc(io->length);
		io_vector(io)[0] = (struct iovec){ r->bytes, io->length };
		io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	}
	r->stamp = op == IO_WRITE ? ++model.stamps : 0;
	for (unsigned i = first; i < first + count; i++) {
		struct block *b = &model.block[i];

		if (op == IO_READ) {
			b->readers++;
			continue;
		}
		if (op == IO_WRITE)
			content(sector_of(i), r->stamp, r->bytes + (i - first) * SECTOR);
		b->changing = true;
		b->may[b->count++] = r->stamp;
	}
	for (unsigned i = 0; op == IO_FLUSH && i < BLOCKS; i++)
		r->counts[i] = model.block[i].count - model.block[i].changing;
	run.out++;
	run.issued++;
	disk_submit(run.queue, io, completed)->note[0] = slot;
}

static void issue(void)
{
	static const enum io_op ops[] = { IO_READ,  IO_WRITE, IO_WRITE, IO_WRITE,
					  IO_WRITE, IO_FLUSH, IO_ZEROES };

	while (run.issued < run.most && run.out < DEPTH && !*run.failure) {
		enum io_op op = ops[chance(sizeof ops / sizeof *ops)];
		unsigned zone = (unsigned)chance(ZONES), count = 1 + (unsigned)chance(LONGEST);
		unsigned first = zone * ZONE + (unsigned)chance(ZONE - count + 1);

		if (op == IO_FLUSH)
			submit(op, 0, 0);
		else if (is_free(op, first, count))
			submit(op, first, count);
		else
			run.issued++;
	}
	if (!run.out)
		loop_send(run.loop, &run.over);
}

static void ended(struct loop_message *message)
{
	(void)message;
	loop_stop(run.loop);
}

static void over(struct loop_message *message)
{
	(void)message;
	disk_queue_close(run.queue);
	/* Errands may be under way still. */
	run.stop = (struct layer_stop){ .loop = run.loop, .done.run = ended };
	assert_int_equal(disk_stop(run.disk, &run.stop), 0);
}

static void begin(struct loop_message *message)
{
	(void)message;
	run.queue = disk_queue_open(run.disk, run.loop, DEPTH, 1);
	assert_non_null(run.queue);
	issue();
}

/* --- between two cuts
 * ------------------------------------------------------------------------------- */

static struct disk *open_disk(void)
{
	struct layer_setting settings[] = { { (char *)"block", (char *)"512", 0 },
					    { (char *)"copy-on-read",
					      (char *)(chance(2) ? "true" : "false"), 0 } };
	struct layer_config leg = { .ops = &medium_ops };
	struct stack_config legs = { &leg, 1 };
	struct layer_config list[] = { { .ops = layer_find("overlay"),
					 .settings = settings,
					 .count = 2,
					 .legs = &legs,
					 .leg_count = 1 },
				       { .ops = &base_ops } };
	struct error err = { 0 };
	struct disk *disk = testing_open("crash", &(struct disk_config){ 0 }, list, 2, NULL, &err);

	if (!disk)
		fail_msg("seed %" PRIu64 ", cut %" PRIu64 ": %s", seed, cuts, err.text);
	return disk;
}

/* Reads everything, and settles what it is. */
static void verify(void)
{
	struct error err = { 0 };
	struct session *s = session_open(run.disk->top, &err);
	bool is_base = true, is_old = true;
	uint64_t found[BLOCKS];

	assert_non_null(s);
	for (unsigned i = 0; i < BLOCKS; i++) {
		unsigned char bytes[SECTOR];
		const struct block *b = &model.after[i];
		bool may = false;

		assert_int_equal(session_read(s, sector_of(i) * SECTOR, bytes, SECTOR), 0);
		found[i] = stamp_of(i, bytes);
		for (unsigned k = 0; k < b->count; k++)
			may |= b->may[k] == found[i];
		if (!may && !model.undoing_after)
			wrong("block %u (sector %" PRIu64 ") has %" PRIu64
			      ", which it may not: %u contents, the oldest %" PRIu64
			      ", the latest %" PRIu64,
			      i, sector_of(i), found[i], b->count, b->may[0], b->may[b->count - 1]);
		is_old &= may;
		is_base &= found[i] == OF_BASE;
	}
	session_close(s);
	if (model.undoing_after && !is_old && !is_base)
		wrong("an undo was done by half");
	for (unsigned i = 0; i < BLOCKS; i++)
		model.block[i] = (struct block){ .may = { found[i] }, .count = 1 };
	model.undoing = false;
}

static void undo_perhaps(void)
{
	struct error err = { 0 };

	if (chance(4))
		return;
	model.undoing = true;
	if (overlay_store_undo((struct overlay *)run.disk->top, &err))
		wrong("%s", err.text);
	model.undoing = false;
	for (unsigned i = 0; i < BLOCKS; i++)
		model.block[i] = (struct block){ .may = { OF_BASE }, .count = 1 };
	undone++;
}

static void live(void)
{
	struct loop_config config = { .name = "crash", .engine = LOOP_AUTO, .cpu = -1 };

	run = (struct run){ .begin.run = begin, .over.run = over };
	run.disk = open_disk();
	if (cuts)
		verify();
	run.most = 1 + (unsigned)chance(REQUESTS);
	run.loop = loop_create(&config, NULL);
	assert_non_null(run.loop);
	loop_send(run.loop, &run.begin);
	medium.prompt = false;
	assert_int_equal(loop_run(run.loop, NULL), 0);
	medium.prompt = true;
	loop_destroy(run.loop);
	undo_perhaps();
	disk_close(run.disk);
	if (*run.failure)
		fail_msg("seed %" PRIu64 ", cut %" PRIu64 ": %s", seed, cuts, run.failure);
}

static unsigned char *memory(void)
{
	void *bytes = mmap(NULL, MEDIUM, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(bytes != MAP_FAILED);
	return bytes;
}

static void flushed_blocks_survive(void **unused)
{
	const char *text = getenv("CUTS");
	uint64_t most = text ? strtoull(text, NULL, 0) : CUTS;

	(void)unused;
	medium.prompt = true;
	medium.now = memory();
	medium.durable = memory();
	medium.left = memory();
	for (unsigned i = 0; i < BLOCKS; i++)
		model.block[i] = (struct block){ .may = { OF_BASE }, .count = 1 };
	for (cuts = 0; cuts < most; cuts++) {
		/* Sometimes behind the end: a proper one, with all its writes. */
		medium.cut_at = chance(chance(2) ? 100 : 900);
		live();
		if (!medium.cut) {
			cut();
			model_cut();
		}
		power_on();
	}
	print_message("# %" PRIu64 " cuts, %" PRIu64 " requests, %" PRIu64 " undone\n", cuts,
		      requests, undone);
	assert_true(requests > most * 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(flushed_blocks_survive) };
	const char *text = getenv("SEED");

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	print_message("# SEED=%" PRIu64 "\n", seed);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("overlay_crash", tests, NULL, NULL);
}
