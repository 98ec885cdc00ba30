/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model_test.c - random stacks of layers against a flat array
 *
 * Each stack is drawn from the layers of the program and three of this test's own (split, twist,
 * hold), over memory or a file, with errors, torn writes, delays. Random requests run on it,
 * many at once, none overlapping a change under way. The model knows for each block which
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
#include "util/error.h"
#include "util/log.h"

#define BLOCK      512u
#define BLOCKS     2048u        /* of the largest disk */
#define LONGEST    (96 * BLOCK) /* bytes of a request */
#define VECTORS    12u          /* iovecs of a request */
#define GAP        16u          /* bytes that nobody may touch before each iovec, at least */
#define DEPTH      32u
#define REQUESTS   1500u                /* for each stack */
#define STACKS     30u                  /* for each engine */
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

/* --- layers of this test: split ------------------------------------------------------ */

#define PARTS 5u

static void split_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

/* Cuts a request into up to PARTS at block boundaries, and sends them in any order. */
static void split_submit(struct layer *layer, struct io *io)
{
	uint64_t blocks = io->length / layer->block_size;
	uint64_t cut[PARTS + 1] = { 0 };
	unsigned parts = 1, first;

	if (io->op == IO_FLUSH) {
		io_send(layer->below, io);
		return;
	}
	while (parts < PARTS && cut[parts - 1] + 1 < blocks && chance(4)) {
		cut[parts] = cut[parts - 1] + 1 + chance(blocks - cut[parts - 1] - 1);
		parts++;
	}
	cut[parts] = blocks;
	first = (unsigned)chance(parts);
	io_parts_begin(layer, io, split_done);
	for (unsigned n = 0; n < parts; n++) {
		unsigned i = (first + n) % parts;
		uint64_t start = cut[i] * layer->block_size;

		io_send_part(io, layer->below, start, (cut[i + 1] - cut[i]) * layer->block_size,
			     io->offset + start);
	}
	io_parts_end(io);
}

static const struct layer_ops split_ops = {
	.name = "split",
	.size = sizeof(struct layer),
	.fan_out = PARTS,
	.submit = split_submit,
};

/* --- twist: data changes its form on the way; zeroes stay zeroes ----------------------- */

static void twist(unsigned char *at, uint64_t offset, uint64_t length, bool back)
{
	for (uint64_t i = 0; i < length; i++) {
		unsigned turn = 1 + (offset + i) % 7;

		if (back)
			turn = 8 - turn;
		at[i] = (unsigned char)(at[i] << turn | at[i] >> (8 - turn));
	}
}

static void twist_read_done(struct layer *layer, struct io *io)
{
	unsigned char *flat;

	(void)layer;
	if (!io->status) {
		flat = malloc(io->length);
		io_data_copy_out(io->data, flat, io->length);
		twist(flat, io->offset, io->length, true);
		io_data_copy_in(io->data, flat, io->length);
		free(flat);
	}
	io_finish(io, io->status);
}

static void twist_write_done(struct layer *layer, struct io *io)
{
	(void)layer;
	free((void *)(uintptr_t)io_frame(io)->note[0]);
	io_finish(io, io->status);
}

static void twist_submit(struct layer *layer, struct io *io)
{
	struct {
		struct iovec vec[2];
		unsigned char bytes[];
	} * bounce;
	uint64_t cut;

	if (io->op == IO_READ) {
		io_send_then(layer, layer->below, io, twist_read_done);
		return;
	}
	if (io->op != IO_WRITE) {
		io_send(layer->below, io);
		return;
	}
	/* The bounce buffer is two iovecs, of which the first bytes are not used. */
	bounce = malloc(sizeof *bounce + 8 + io->length);
	cut = 8 + 1 + chance(io->length - 1);
	io_data_copy_out(io->data, bounce->bytes + 8, io->length);
	twist(bounce->bytes + 8, io->offset, io->length, false);
	bounce->vec[0] = (struct iovec){ bounce->bytes, cut };
	bounce->vec[1] = (struct iovec){ bounce->bytes + cut, 8 + io->length - cut };
	io_push(layer, io, twist_write_done)->note[0] = (uintptr_t)bounce;
	io->data = (struct io_data){ .vec = bounce->vec, .count = 2, .skip = 8 };
	io_send(layer->below, io);
}

static const struct layer_ops twist_ops = {
	.name = "twist",
	.size = sizeof(struct layer),
	.submit = twist_submit,
};

/* --- hold: keeps requests on their way down and up, and lets them go in any order ------ */

struct hold_queue {
	struct loop_timer timer;
	struct layer *layer;
	struct io *held;
	unsigned count;
};

enum { HOLD_DOWN, HOLD_UP };

/* Until it is let go the io is this layer's, and so are its op_kernel and its place on the way. */
static void hold(struct hold_queue *q, struct io *io, int way)
{
	struct io **at = &q->held;

	for (uint64_t n = chance(q->count + 1u); n; n--)
		at = &(*at)->next;
	io->op_kernel.data = (void *)(intptr_t)way;
	io->next = *at;
	*at = io;
	if (!q->count++)
		loop_timer_set(io->queue->loop, &q->timer,
			       loop_now(io->queue->loop) + chance(200000));
}

static void hold_done(struct layer *layer, struct io *io)
{
	hold(layer_queue_state(layer, io->queue), io, HOLD_UP);
}

static void hold_due(struct loop_timer *timer)
{
	struct hold_queue *q = container_of(timer, struct hold_queue, timer);
	struct io *io, *all = q->held;

	q->held = NULL;
	q->count = 0;
	while ((io = all)) {
		all = io->next;
		if ((intptr_t)io->op_kernel.data == HOLD_UP)
			io_finish(io, io->status);
		else
			io_send_then(q->layer, q->layer->below, io, hold_done);
	}
}

static void hold_submit(struct layer *layer, struct io *io)
{
	if (chance(3))
		hold(layer_queue_state(layer, io->queue), io, HOLD_DOWN);
	else
		io_send_then(layer, layer->below, io, hold_done);
}

static void hold_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct hold_queue *q = layer_queue_state(layer, queue);

	q->layer = layer;
	loop_timer_init(&q->timer, hold_due);
}

static const struct layer_ops hold_ops = {
	.name = "hold",
	.size = sizeof(struct layer),
	.queue_state = sizeof(struct hold_queue),
	.queue_open = hold_queue_open,
	.submit = hold_submit,
};

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
	struct loop_message next;
	struct loop_timer watchdog;
	unsigned stacks; /* left */

	char what[300]; /* the stack under way, for messages */
	struct disk *disk;
	struct io_queue queue;
	struct block block[BLOCKS];
	uint64_t size, end; /* bytes: of the disk; of the back-end */
	struct request request[DEPTH];
	unsigned issued, out;
	bool verifying;
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
	struct io *io = io_get(&run.queue);
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
	disk_submit(run.disk, io, completed)->note[0] = slot;
}

static void issue(void)
{
	static const enum io_op ops[] = { IO_READ,  IO_READ,  IO_READ,    IO_WRITE, IO_WRITE,
					  IO_WRITE, IO_FLUSH, IO_DISCARD, IO_ZEROES };
	enum io_op op = ops[chance(sizeof ops / sizeof *ops)];
	uint64_t size = run.disk->block_size, most = LONGEST / size, offset, length;

	length = (1 + chance(chance(2) ? 4 : most)) * size;
	offset = chance((run.size - length) / size + 1) * size;
	run.issued++;
	if (op == IO_FLUSH)
		submit(op, 0, 0);
	else if (is_free(op, offset, length))
		submit(op, offset, length);
}

/* --- a stack ------------------------------------------------------------------------ */

static const struct layer_config *draw_stack(unsigned *count)
{
	static struct layer_setting flaky[] = { { (char *)"errors", (char *)"2%", 0 },
						{ (char *)"torn", (char *)"3%", 0 },
						{ (char *)"delay", (char *)"20us", 0 },
						{ (char *)"jitter", (char *)"200us", 0 },
						{ (char *)"seed", (char *)"1", 0 } };
	static struct layer_setting extent[] = { { (char *)"size", (char *)"900K", 0 } };
	static char path[400], seed_text[24];
	static struct layer_setting memory[] = { { (char *)"size", (char *)"700K", 0 } };
	static struct layer_setting file[] = { { (char *)"path", path, 0 },
					       { (char *)"create", (char *)"true", 0 },
					       { (char *)"size", (char *)"700K", 0 },
					       { (char *)"direct", (char *)"auto", 0 },
					       { (char *)"discard", (char *)"true", 0 } };
	static struct layer_config config[6];
	unsigned n = 0;

	snprintf(seed_text, sizeof seed_text, "%" PRIu64, chance(1u << 30));
	flaky[4].value = seed_text;
	for (unsigned layers = (unsigned)chance(5); layers; layers--) {
		switch (chance(6)) {
		case 0:
			config[n++] = (struct layer_config){ layer_find("pass"), 0, NULL };
			break;
		case 1:
			config[n++] = (struct layer_config){ layer_find("flaky"), 5, flaky };
			break;
		case 2:
			config[n++] = (struct layer_config){ layer_find("extent"), 1, extent };
			break;
		case 3:
			config[n++] = (struct layer_config){ &split_ops, 0, NULL };
			break;
		case 4:
			config[n++] = (struct layer_config){ &twist_ops, 0, NULL };
			break;
		default:
			config[n++] = (struct layer_config){ &hold_ops, 0, NULL };
			break;
		}
	}
	if (chance(3)) {
		config[n++] = (struct layer_config){ layer_find("memory"), 1, memory };
	} else {
		snprintf(path, sizeof path, "%s/disk.img", run.directory);
		unlink(path);
		file[3].value = (char *)(chance(3) ? "auto" : "off");
		file[4].value = (char *)(chance(4) ? "true" : "false");
		config[n++] = (struct layer_config){ layer_find("file"), 5, file };
	}
	*count = n;
	return config;
}

static void pump(struct io_queue *queue);

static void open_stack(void)
{
	struct disk_config config = { 0 };
	struct error err = { 0 };
	const struct layer_config *layers;
	unsigned count;
	size_t n;

	layers = draw_stack(&count);
	options_init(disk_options, &config);
	config.block_size = chance(3) == 0;
	config.cache = (int)chance(3);
	if (chance(3) == 0)
		config.size = 1000 * 1024;
	n = (size_t)snprintf(
		run.what, sizeof run.what, "seed %" PRIu64 ", %s, blocks of %s, cache %d:", seed,
		loop_engine_name(run.loop), config.block_size ? "4096" : "512", config.cache);
	for (unsigned i = 0; i < count; i++)
		n += (size_t)snprintf(run.what + n, sizeof run.what - n, " %s",
				      layers[i].ops->name);
	run.disk = disk_open("model", &config, layers, count, NULL, &err);
	if (!run.disk) {
		wrong("%s: %s", run.what, err.text);
		return;
	}
	if (disk_queue_open(run.disk, &run.queue, run.loop, DEPTH, VECTORS)) {
		wrong("%s: no queue", run.what);
		return;
	}
	run.queue.settled = pump;
	run.size = run.disk->size;
	run.end = 700 * 1024 - 700 * 1024 % run.disk->block_size;
	if (run.end > run.size)
		run.end = run.size;
	for (unsigned i = 0; i < BLOCKS; i++)
		run.block[i] = (struct block){ .count = 1 };
	run.issued = run.out = 0;
	run.verifying = false;
	run.verified = 0;
	loop_timer_set(run.loop, &run.watchdog, loop_now(run.loop) + PATIENCE);
	pump(&run.queue);
}

static void next_stack(struct loop_message *message)
{
	(void)message;
	if (run.disk) {
		disk_queue_close(run.disk, &run.queue);
		disk_close(run.disk);
		run.disk = NULL;
	}
	if (run.stacks--)
		open_stack();
	else
		loop_stop(run.loop);
}

/* At the end everything is read once more; what fails is tried again. */
static void verify(void)
{
	uint64_t length = run.disk->block_size * 8;

	run.verifying = true;
	if (run.verified >= run.size) {
		loop_send(run.loop, &run.next);
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

static void check_stacks(enum loop_engine engine)
{
	struct loop_config config = { .name = "model", .engine = engine, .cpu = -1 };
	const char *text = getenv("STACKS");
	struct error err = { 0 };
	char directory[200], path[300];
	const char *temporary = getenv("TMPDIR");

	if (engine == LOOP_URING && !loop_uring_permitted(&err)) {
		print_message("# %s\n", err.text);
		skip();
	}
	snprintf(directory, sizeof directory, "%s/penstock-model-XXXXXX",
		 temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(directory));
	run = (struct run){ .directory = directory,
			    .engine = engine,
			    .stacks = text ? (unsigned)atoi(text) : STACKS,
			    .next.run = next_stack };
	run.loop = loop_create(&config, &err);
	assert_non_null(run.loop);
	loop_timer_init(&run.watchdog, stuck);
	loop_send(run.loop, &run.next);
	assert_int_equal(loop_run(run.loop, &err), 0);
	loop_destroy(run.loop);
	snprintf(path, sizeof path, "%s/disk.img", directory);
	unlink(path);
	rmdir(directory);
	print_message("# %" PRIu64 " requests, %" PRIu64 " failed as they were told to\n",
		      run.total, run.failed);
	if (*run.failure)
		fail_msg("%s", run.failure);
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

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	print_message("# SEED=%" PRIu64 "\n", seed);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
