/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model_test.c - random stacks of layers against a flat array
 *
 * Each stack is drawn (model/stacks.c) from the layers of the program and three of the model's own
 * (model/layers.h), over memory or a file, with errors, torn writes, delays. Random requests run on
 * it, many at once, none overlapping a change under way. The model knows for each block which
 * contents it may have: one after a success; the old and the new ones after a failed or
 * torn change; a read that succeeds must find one of them, and settles which.
 *
 * Checked besides: each request comes back once, as it was sent (rule 4 of io.h); memory
 * around its iovecs is untouched; a write beyond the end of the back-end fails, and
 * leaves zeroes there.
 *
 * SEED repeats a run (but for timing), STACKS makes it longer.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/disk.h"
#include "layer/model/layers.h"
#include "layer/model/stacks.h"
#include "layer/model/volume.h"
#include "layer/testing_build.h"
#include "loop/workers.h"
#include "util/error.h"
#include "util/log.h"

#define BLOCK      512u
#define BLOCKS     2048u         /* of the largest disk */
#define LONGEST    (96 * BLOCK)  /* bytes of most requests */
#define WIDEST     (512 * BLOCK) /* of one in a few: crypt takes it to several cores */
#define VECTORS    12u           /* iovecs of a request */
#define GAP        16u           /* bytes that nobody may touch before each iovec, at least */
#define DEPTH      32u
#define REQUESTS   1500u                /* for each stack */
#define STACKS     30u                  /* for each engine */
#define TRIES      20u                  /* until one can be opened over a flaky layer */
#define CANDIDATES 12u                  /* contents that a block may have */
#define PATIENCE   (20ull * 1000000000) /* ns for a stack */

/* --- chance ------------------------------------------------------------------------- */

static uint64_t seed, state;

static uint64_t chance(uint64_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 20) % n;
}

/* --- the model ---------------------------------------------------------------------- */

/* A content is a stamp: 0 is zeroes, any other tells all bytes of its block. */
struct block {
	uint64_t may[CANDIDATES];
	unsigned count;
	unsigned readers;
	bool changing;
};

struct request {
	enum io_op op;
	bool out;
	uint64_t offset, length, stamp;
	struct io_data data;
	unsigned char *memory;
	size_t room;
};

static struct run {
	const char *directory;
	enum loop_engine engine;
	struct loop *loop;
	struct loop_message message;
	struct layer_stop stop;
	struct loop_timer watchdog;

	char what[300]; /* the stack under way, for messages */
	struct disk *disk;
	struct disk_queue *queue;
	struct block block[BLOCKS];
	uint64_t size, end; /* bytes: of the disk; of the back-end */
	struct request request[DEPTH];
	unsigned issued, out;
	bool verifying, closing;
	uint64_t verified; /* bytes */
	uint64_t stamps;

	uint64_t total, failed;
	char failure[600];
} run;

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	if (*run.failure)
		return;
	va_start(args, format);
	vsnprintf(run.failure, sizeof run.failure, format, args);
	va_end(args);
	loop_stop(run.loop);
}

static void content(uint64_t stamp, uint64_t block, unsigned char *bytes)
{
	for (unsigned i = 0; i < BLOCK; i++)
		bytes[i] = stamp ? (unsigned char)((stamp * 0x9e3779b97f4a7c15ull + block * 131) >>
						   i % 48)
				 : 0;
}

static bool may_be(const struct block *b, uint64_t stamp)
{
	for (unsigned i = 0; i < b->count; i++)
		if (b->may[i] == stamp)
			return true;
	return false;
}

static void settle(struct block *b, uint64_t stamp)
{
	b->may[0] = stamp;
	b->count = 1;
}

static void add_candidate(struct block *b, uint64_t stamp)
{
	if (!may_be(b, stamp))
		b->may[b->count++] = stamp;
}

static void check_block(uint64_t n, const unsigned char *bytes)
{
	struct block *b = &run.block[n];
	unsigned char expected[BLOCK];

	for (unsigned i = 0; i < b->count; i++) {
		content(b->may[i], n, expected);
		if (!memcmp(expected, bytes, BLOCK)) {
			/* Another read of it may be under way, which must find the same. */
			settle(b, b->may[i]);
			return;
		}
	}
	wrong("%s: block %" PRIu64 " is none of %u possible contents (begins %02x %02x, expected "
	      "%02x %02x)",
	      run.what, n, b->count, bytes[0], bytes[1], expected[0], expected[1]);
}

/* What a change that came back means for the model. */
static void changed(const struct request *r, int status)
{
	uint64_t stamp = r->op == IO_WRITE ? r->stamp : 0;

	if (r->op == IO_WRITE && !status && r->offset + r->length > run.end)
		wrong("%s: a write beyond the end of the back-end succeeded", run.what);
	for (uint64_t n = r->offset / BLOCK; n < (r->offset + r->length) / BLOCK; n++) {
		run.block[n].changing = false;
		if (n >= run.end / BLOCK)
			continue;
		if (status || r->op == IO_DISCARD)
			add_candidate(&run.block[n], stamp);
		else
			settle(&run.block[n], stamp);
	}
}

static void check_read(const struct request *r, int status)
{
	unsigned char *flat = malloc(r->length);

	io_data_copy_out(r->data, flat, r->length);
	for (uint64_t n = r->offset / BLOCK; n < (r->offset + r->length) / BLOCK; n++) {
		run.block[n].readers--;
		if (!status)
			check_block(n, flat + n * BLOCK - r->offset);
	}
	free(flat);
}

/* --- requests ----------------------------------------------------------------------- */

/*
 * Memory of @length bytes in iovecs with gaps between them, the first bytes skipped: of odd sizes
 * at odd places, or tidy as drivers have them, fit for O_DIRECT.
 */
static struct io_data make_data(struct request *r, struct iovec *vec, uint64_t length)
{
	uint64_t unit = chance(2) ? BLOCK : 1, skip = chance(3) ? 0 : chance(100) * unit;
	uint64_t left = length, at = 0;
	unsigned count = 1 + (unsigned)chance(VECTORS), n = 0;

	r->room = (length + skip + (VECTORS + 2) * 4 * BLOCK) / BLOCK * BLOCK;
	r->memory = aligned_alloc(BLOCK, r->room);
	memset(r->memory, 0xa5, r->room);
	while (left) {
		uint64_t bytes = n + 1 == count ? left : (1 + chance(left / unit)) * unit;

		at += GAP + chance(64);
		at = (at + unit - 1) / unit * unit;
		vec[n] = (struct iovec){ r->memory + at, bytes + (n ? 0 : skip) };
		at += vec[n++].iov_len;
		left -= bytes;
	}
	return (struct io_data){ .vec = vec, .count = n, .skip = (uint32_t)skip };
}

/* Nothing outside the iovecs was written. */
static void check_gaps(const struct request *r)
{
	size_t at = 0;

	for (unsigned i = 0; i <= r->data.count; i++) {
		const unsigned char *to = r->memory + r->room;

		if (i < r->data.count)
			to = (unsigned char *)r->data.vec[i].iov_base + (i ? 0 : r->data.skip);
		for (; r->memory + at < to; at++)
			if (r->memory[at] != 0xa5) {
				wrong("%s: a %s wrote outside its iovecs", run.what,
				      io_op_name(r->op));
				return;
			}
		if (i < r->data.count)
			at = (size_t)((unsigned char *)r->data.vec[i].iov_base - r->memory) +
			     r->data.vec[i].iov_len;
	}
}

static void completed(struct layer *layer, struct io *io)
{
	struct request *r = &run.request[io_frame(io)->note[0]];

	(void)layer;
	if (!r->out)
		wrong("%s: a request came back twice", run.what);
	if (io->op != r->op || io->offset != r->offset || io->length != r->length ||
	    (r->memory && memcmp(&io->data, &r->data, sizeof r->data)))
		wrong("%s: a %s came back changed: offset %" PRIu64 " length %" PRIu64
		      ", sent as %s %" PRIu64 " %" PRIu64,
		      run.what, io_op_name(io->op), io->offset, io->length, io_op_name(r->op),
		      r->offset, r->length);
	r->out = false;
	run.out--;
	run.total++;
	run.failed += io->status != 0;
	if (r->op == IO_READ)
		check_read(r, io->status);
	else if (r->op != IO_FLUSH)
		changed(r, io->status);
	if (r->memory)
		check_gaps(r);
	if (run.verifying && !io->status)
		run.verified += r->length;
	free(r->memory);
	r->memory = NULL;
	io_put(io);
}

/* The range is free for @op, and its blocks have room for one more candidate. */
static bool is_free(enum io_op op, uint64_t offset, uint64_t length)
{
	for (uint64_t n = offset / BLOCK; n < (offset + length) / BLOCK; n++) {
		const struct block *b = &run.block[n];

		if (b->changing || (op != IO_READ && (b->readers || b->count + 2 > CANDIDATES)))
			return false;
	}
	return true;
}

static void submit(enum io_op op, uint64_t offset, uint64_t length)
{
	struct io *io = io_get(&run.queue->ios);
	unsigned slot = 0;
	struct request *r;

	while (slot < DEPTH && run.request[slot].out)
		slot++;
	if (!io || slot == DEPTH) {
		wrong("%s: no request left at depth %u", run.what, run.out);
		return;
	}
	r = &run.request[slot];
	*r = (struct request){ .op = op, .out = true, .offset = offset, .length = length };
	io->op = (uint8_t)op;
	io->offset = offset;
	io->length = length;
	io->flags = op == IO_WRITE || op == IO_ZEROES ? (uint8_t)chance(4) : 0;
	if (op == IO_WRITE)
		io->flags &= IO_FUA;
	if (op == IO_READ || op == IO_WRITE)
		io->data = r->data = make_data(r, io_vector(io), length);
	if (op == IO_WRITE) {
		unsigned char *flat = malloc(length);

		r->stamp = ++run.stamps;
		for (uint64_t n = 0; n < length / BLOCK; n++)
			content(r->stamp, offset / BLOCK + n, flat + n * BLOCK);
		io_data_copy_in(io->data, flat, length);
		free(flat);
	}
	for (uint64_t n = offset / BLOCK; n < (offset + length) / BLOCK; n++) {
		if (op == IO_READ)
			run.block[n].readers++;
		else
			run.block[n].changing = true;
	}
	run.out++;
	disk_submit(run.queue, io, completed)->note[0] = slot;
}

static void issue(void)
{
	static const enum io_op ops[] = { IO_READ,  IO_READ,  IO_READ,    IO_WRITE, IO_WRITE,
					  IO_WRITE, IO_FLUSH, IO_DISCARD, IO_ZEROES };
	enum io_op op = ops[chance(sizeof ops / sizeof *ops)];
	uint64_t size = run.disk->block_size, offset, length;
	uint64_t most = (chance(16) ? LONGEST : WIDEST) / size;

	length = (1 + chance(chance(2) ? 4 : most)) * size;
	offset = chance((run.size - length) / size + 1) * size;
	run.issued++;
	if (op == IO_FLUSH)
		submit(op, 0, 0);
	else if (is_free(op, offset, length))
		submit(op, offset, length);
}

/* --- a stack ------------------------------------------------------------------------ */

static void pump(struct io_queue *queue);

/* A disk on a random stack; NULL if that cannot be opened. */
static struct disk *draw_disk(struct chance *c, struct error *err)
{
	struct disk_config config = { 0 };
	struct stack_config stack;
	struct disk *disk;
	int n;

	options_init(disk_options, &config);
	config.block_size = chance(3) ? DISK_BLOCK_512 : DISK_BLOCK_4096;
	config.cache = (int)chance(3);
	if (chance(3) == 0)
		config.size = 1000 * 1024;
	stack = stack_draw(c, config.block_size == DISK_BLOCK_512 ? 512 : 4096, run.directory);
	n = snprintf(run.what, sizeof run.what,
		     "seed %" PRIu64 ", %s, blocks of %s, cache %d: ", seed,
		     loop_engine_name(run.loop),
		     config.block_size == DISK_BLOCK_512 ? "512" : "4096", config.cache);
	testing_describe(&stack, run.what + n, sizeof run.what - (size_t)n);
	disk = disk_open("model", &config, &stack, NULL, err);
	if (!disk && !strstr(run.what, "flaky"))
		wrong("%s: %s", run.what, err->text);
	stack_config_release(&stack);
	return disk;
}

static void open_stack(struct loop_message *message)
{
	(void)message;
	run.queue = disk_queue_open(run.disk, run.loop, DEPTH, VECTORS);
	if (!run.queue) {
		wrong("%s: no queue", run.what);
		return;
	}
	run.queue->ios.settled = pump;
	run.size = run.disk->size;
	run.end = STACK_END - STACK_END % run.disk->block_size;
	if (run.end > run.size)
		run.end = run.size;
	for (unsigned i = 0; i < BLOCKS; i++)
		run.block[i] = (struct block){ .count = 1 };
	run.issued = run.out = 0;
	run.verifying = run.closing = false;
	run.verified = 0;
	loop_timer_set(run.loop, &run.watchdog, loop_now(run.loop) + PATIENCE);
	pump(&run.queue->ios);
}

/* Errands of layers may be under way still. */
static void close_queue(struct loop_message *message)
{
	(void)message;
	disk_queue_close(run.queue);
	if (disk_stop(run.disk, &run.stop))
		abort();
}

static void stopped(struct loop_message *message)
{
	(void)message;
	loop_stop(run.loop);
}

/* At the end everything is read once more; what fails is tried again. */
static void verify(void)
{
	uint64_t length = run.disk->block_size * 8;

	run.verifying = true;
	if (run.closing)
		return;
	if (run.verified >= run.size) {
		run.closing = true;
		run.message.run = close_queue;
		loop_send(run.loop, &run.message);
		return;
	}
	if (length > run.size - run.verified)
		length = run.size - run.verified;
	submit(IO_READ, run.verified, length);
}

/* Also called after each batch of completions. */
static void pump(struct io_queue *queue)
{
	(void)queue;
	if (*run.failure)
		return;
	while (run.issued < REQUESTS && run.out < DEPTH && !run.verifying)
		issue();
	if (!run.out)
		verify();
}

static void stuck(struct loop_timer *timer)
{
	(void)timer;
	wrong("%s: %u requests did not come back", run.what, run.out);
}

/* --- tests -------------------------------------------------------------------------- */

/* A stack is drawn on this thread, where layers may wait; then its loop runs on it. */
static void check_stack(struct chance *c, enum loop_engine engine)
{
	struct loop_config config = { .name = "model", .engine = engine, .cpu = -1 };
	struct error err = { 0 };

	run.loop = loop_create(&config, &err);
	assert_non_null(run.loop);
	run.stop = (struct layer_stop){ .loop = run.loop, .done.run = stopped };
	loop_timer_init(&run.watchdog, stuck);
	for (unsigned i = 0; i < TRIES && !*run.failure; i++)
		if ((run.disk = draw_disk(c, &err)))
			break;
	if (!run.disk)
		fail_msg("%s", *run.failure ? run.failure : err.text);
	disk_start(run.disk, run.loop);
	run.message.run = open_stack;
	loop_send(run.loop, &run.message);
	assert_int_equal(loop_run(run.loop, &err), 0);
	if (*run.failure)
		fail_msg("%s", run.failure); /* and what is under way stays so */
	loop_timer_cancel(&run.watchdog);
	disk_close(run.disk);
	loop_destroy(run.loop);
}

static void check_stacks(enum loop_engine engine)
{
	const char *text = getenv("STACKS"), *temporary = getenv("TMPDIR");
	unsigned stacks = text ? (unsigned)atoi(text) : STACKS;
	struct chance c = chance_seed(seed + engine);
	struct error err = { 0 };
	char directory[200], path[300];

	if (engine == LOOP_URING && !loop_uring_permitted(&err)) {
		print_message("# %s\n", err.text);
		skip();
	}
	snprintf(directory, sizeof directory, "%s/penstock-model-XXXXXX",
		 temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(directory));
	run = (struct run){ .directory = directory };
	while (stacks--)
		check_stack(&c, engine);
	snprintf(path, sizeof path, "%s/disk.img", directory);
	unlink(path);
	rmdir(directory);
	print_message("# %" PRIu64 " requests, %" PRIu64 " failed as they were told to\n",
		      run.total, run.failed);
	assert_true(run.total > REQUESTS / 4);
}

static void uring(void **unused)
{
	(void)unused;
	check_stacks(LOOP_URING);
}

static void threads(void **unused)
{
	(void)unused;
	check_stacks(LOOP_THREADS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uring),
		cmocka_unit_test(threads),
	};
	const char *text = getenv("SEED");
	int ret;

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	model_seed(seed);
	print_message("# SEED=%" PRIu64 "\n", seed);
	log_set_level(LOG_ERROR);
	ret = cmocka_run_group_tests_name("model", tests, NULL, NULL);
	volume_end();
	workers_end();
	return ret;
}
