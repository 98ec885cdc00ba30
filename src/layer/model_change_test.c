/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model_change_test.c - trees of all layers, on several loops, that change under load, against a
 * model
 *
 * A disk begins with a back-end or a few layers. Each loop loads its own share of the disk, and
 * knows what each block may hold: one content after a success; the old and the new ones after a
 * change that failed; a read settles which. Meanwhile this thread draws one other tree after the
 * other from the one there is (see model/trees.h): layers come and go and change places, back-ends
 * are wrapped into mirrors, legs come and go, an overlay comes, the disk moves to another back-end;
 * any of these may be encrypted.
 * Whether a change is done or refused: each request comes back once, as it was sent, and shows what
 * the model says.
 *
 * SEED repeats what is drawn (but not when), TREES makes it longer, VERBOSE=1 tells of refusals.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/change.h"
#include "layer/crash/model.h"
#include "layer/model/layers.h"
#include "layer/model/trees.h"
#include "layer/model/volume.h"
#include "layer/move.h"
#include "loop/workers.h"
#include "util/error.h"
#include "util/log.h"

#define BLOCK      512u
#define LOOPS      3u
#define BLOCKS     640u /* of each loop */
#define DEPTH      12u
#define LONGEST    40u  /* blocks of a request */
#define WIDEST     300u /* of one in a few: crypt takes it to several cores */
#define CANDIDATES 8u
#define CHANGES    10u /* of a tree */
#define SECONDS    25  /* begins no tree after that */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TREES 8u
#else
#define TREES 25u
#endif

static uint64_t seed;

/* --- the load --------------------------------------------------------------------------------- */

struct block {
	uint32_t may[CANDIDATES];
	unsigned count, readers;
	bool changing;
};

struct request {
	enum io_op op;
	bool out;
	uint64_t first, count; /* blocks of the loop */
	uint32_t stamp;
	unsigned char *memory;
	uint32_t skip;
};

static struct disk *disk;

static struct side {
	unsigned number;
	struct loop *loop;
	struct loop_message turn, message;
	bool turning;
	struct disk_queue *queue;
	struct chance chance;
	struct block block[BLOCKS];
	struct request request[DEPTH];
	unsigned out;
	uint32_t stamps;
	uint64_t verified; /* blocks, when it ends */
	bool ending, verifying, told;
	sem_t ended;
	_Atomic uint64_t done, failed;
	atomic_bool wrong;
	char why[400];
} side[LOOPS];

static void __attribute__((format(printf, 2, 3))) wrong(struct side *s, const char *format, ...)
{
	va_list args;

	if (atomic_load(&s->wrong))
		return;
	va_start(args, format);
	vsnprintf(s->why, sizeof s->why, format, args);
	va_end(args);
	atomic_store(&s->wrong, true);
}

static void settle(struct block *b, uint32_t stamp)
{
	b->may[0] = stamp;
	b->count = 1;
}

static void add_candidate(struct block *b, uint32_t stamp)
{
	for (unsigned i = 0; i < b->count; i++)
		if (b->may[i] == stamp)
			return;
	b->may[b->count++] = stamp;
}

static void check_block(struct side *s, uint64_t n, const unsigned char *bytes)
{
	struct block *b = &s->block[n];
	uint32_t stamp = stamp_read(bytes, (uint32_t)n);

	for (unsigned i = 0; i < b->count; i++)
		if (b->may[i] == stamp) {
			settle(b, stamp);
			return;
		}
	wrong(s,
	      "block %" PRIu64 " of loop %u is %#x; it may be %#x or %u others (begins %02x %02x)",
	      n, s->number, stamp, b->may[0], b->count - 1, bytes[0], bytes[1]);
}

static void check(struct side *s, const struct request *r, const struct io *io)
{
	int status = io->status;
	unsigned char *flat = NULL;

	if (r->op == IO_READ) {
		flat = malloc(r->count * BLOCK);
		io_data_copy_out(io->data, flat, r->count * BLOCK);
	}
	for (uint64_t i = 0; i < r->count; i++) {
		struct block *b = &s->block[r->first + i];
		uint32_t stamp = r->op == IO_WRITE ? r->stamp + (uint32_t)i : 0;

		if (r->op == IO_READ) {
			b->readers--;
			if (!status)
				check_block(s, r->first + i, flat + i * BLOCK);
			continue;
		}
		b->changing = false;
		if (status || r->op == IO_DISCARD)
			add_candidate(b, stamp);
		else
			settle(b, stamp);
	}
	free(flat);
}

static void completed(struct layer *layer, struct io *io)
{
	struct side *s = io->queue->owner;
	struct request *r = &s->request[io_frame(io)->note[0]];

	(void)layer;
	if (!r->out)
		wrong(s, "a request came back twice");
	if (io->op != r->op || io->length != r->count * BLOCK ||
	    (r->memory && (io->data.vec != io_vector(io) || io->data.count != 3 ||
			   io->data.skip != r->skip || io->data.vec->iov_base != r->memory)))
		wrong(s, "a %s came back changed", io_op_name(r->op));
	r->out = false;
	s->out--;
	check(s, r, io);
	if (s->verifying && !io->status)
		s->verified += r->count;
	free(r->memory);
	r->memory = NULL;
	atomic_fetch_add(&s->failed, io->status != 0);
	atomic_fetch_add(&s->done, 1);
	io_put(io);
}

/* Bytes in three iovecs of odd sizes, the first bytes skipped. */
static struct io_data scatter(struct side *s, struct request *r, struct iovec *vec, uint64_t length)
{
	uint64_t skip = chance_of(&s->chance, 3) * 7, all = skip + length;
	uint64_t a = skip + 1 + chance_of(&s->chance, length - 1),
		 b = chance_of(&s->chance, all - a);

	r->memory = malloc(all);
	r->skip = (uint32_t)skip;
	vec[0] = (struct iovec){ r->memory, a };
	vec[1] = (struct iovec){ r->memory + a, b };
	vec[2] = (struct iovec){ r->memory + a + b, all - a - b };
	return (struct io_data){ .vec = vec, .count = 3, .skip = r->skip };
}

static void submit(struct side *s, struct request *r, enum io_op op, uint64_t first, uint64_t count)
{
	struct io *io = io_get(&s->queue->ios);

	*r = (struct request){ .op = op, .out = true, .first = first, .count = count };
	io->op = (uint8_t)op;
	io->offset = op == IO_FLUSH ? 0 : ((uint64_t)s->number * BLOCKS + first) * BLOCK;
	io->length = count * BLOCK;
	io->flags = op == IO_WRITE && chance_of(&s->chance, 6) == 0 ? IO_FUA : 0;
	if (op == IO_READ || op == IO_WRITE)
		io->data = scatter(s, r, io_vector(io), io->length);
	if (op == IO_WRITE) {
		unsigned char *flat = malloc(count * BLOCK);

		r->stamp = s->stamps;
		s->stamps += (uint32_t)count;
		for (uint64_t i = 0; i < count; i++)
			stamp_write(r->stamp + (uint32_t)i, (uint32_t)(first + i),
				    flat + i * BLOCK);
		io_data_copy_in(io->data, flat, count * BLOCK);
		free(flat);
	}
	for (uint64_t i = first; i < first + count; i++) {
		s->block[i].readers += op == IO_READ;
		s->block[i].changing |= op != IO_READ;
	}
	s->out++;
	disk_submit(s->queue, io, completed)->note[0] = (uint64_t)(r - s->request);
}

static bool is_free(const struct side *s, enum io_op op, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++) {
		const struct block *b = &s->block[i];

		if (b->changing || (op != IO_READ && (b->readers || b->count + 2 > CANDIDATES)))
			return false;
	}
	return true;
}

static void load(struct side *s, struct request *r)
{
	static const enum io_op ops[] = { IO_READ,  IO_READ,  IO_READ,    IO_WRITE, IO_WRITE,
					  IO_WRITE, IO_FLUSH, IO_DISCARD, IO_ZEROES };
	enum io_op op = ops[chance_of(&s->chance, sizeof ops / sizeof *ops)];
	uint64_t unit = disk->block_size / BLOCK;
	uint64_t longest = chance_of(&s->chance, 25) ? LONGEST : WIDEST;
	uint64_t count = unit * (1 + chance_of(&s->chance, longest / unit));
	uint64_t first = unit * chance_of(&s->chance, (BLOCKS - count) / unit + 1);

	if (op == IO_FLUSH)
		submit(s, r, op, 0, 0);
	else if (is_free(s, op, first, count))
		submit(s, r, op, first, count);
}

/* At the end all is read, piece after piece; what fails is tried again. */
static void verify(struct side *s)
{
	if (s->out)
		return;
	s->verifying = true;
	if (s->verified < BLOCKS && !atomic_load(&s->wrong)) {
		submit(s, s->request, IO_READ, s->verified, 32);
	} else if (!s->told) {
		s->told = true;
		sem_post(&s->ended);
	}
}

static void turn(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, turn);

	s->turning = false;
	for (unsigned i = 0; i < DEPTH && !s->ending; i++)
		if (!s->request[i].out)
			load(s, &s->request[i]);
	if (s->ending)
		verify(s);
	else if (!s->out) {
		s->turning = true; /* all that was drawn was in the way of something */
		loop_send(s->loop, &s->turn);
	}
}

static void settled(struct io_queue *queue)
{
	struct side *s = queue->owner;

	if (!s->turning)
		loop_send(s->loop, &s->turn);
	s->turning = true;
}

static void begin(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, message);

	s->queue = disk_queue_open(disk, s->loop, DEPTH, 3);
	if (!s->queue)
		abort();
	s->queue->ios.owner = s;
	s->queue->ios.settled = settled;
	settled(&s->queue->ios);
}

static void end(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, message);

	s->ending = true;
	settled(&s->queue->ios);
}

static void closed(struct loop_message *message)
{
	sem_post(&container_of(message, struct side, message)->ended);
}

/* Errands may end after it; and a turn may be on its way, which must have been before another tree.
 */
static void close_queue(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, message);

	s->queue->ios.settled = NULL;
	disk_queue_close(s->queue);
	s->message.run = closed;
	loop_send(s->loop, &s->message);
}

static void stop(struct loop_message *message)
{
	loop_stop(container_of(message, struct side, message)->loop);
}

static void tell(struct side *s, void (*what)(struct loop_message *message))
{
	s->message.run = what;
	loop_send(s->loop, &s->message);
}

/* --- changes ------------------------------------------------------------------------------------
 */

static struct loop *control;
static struct tally {
	uint64_t done[TREE_CHANGES], refused[TREE_CHANGES];
	uint64_t pause; /* longest, ns */
} tally;

struct outcome {
	struct change_end end;
	struct error err;
};

static void changed(struct change_end *change_end, struct error *err)
{
	container_of(change_end, struct outcome, end)->err = *err;
	loop_stop(control);
}

/* Changes the disk to @to. 0 or an errno. */
static int change(const struct stack_config *to, struct error *err)
{
	struct outcome outcome = { .end.done = changed };
	struct change *c = change_prepare(disk, to, &outcome.err);

	if (c) {
		change_commit(c, control, &outcome.end);
		if (loop_run(control, NULL))
			abort();
		if (change_pause(c) > tally.pause)
			tally.pause = change_pause(c);
		change_finish(c);
	}
	*err = outcome.err;
	return outcome.err.code;
}

static void move_over(struct loop_message *message)
{
	(void)message;
	loop_stop(control);
}

/* A move that was begun comes to its end: to the target, or back. */
static int finish_move(struct tree *tree, struct error *err)
{
	struct layer *move = move_find(disk->top);
	struct loop_message over = { .run = move_over };
	struct move_progress progress;

	if (!move)
		return 0;
	move_watch(move, control, &over);
	if (loop_run(control, NULL))
		abort();
	move_progress(move, &progress);
	tree_move_ends(tree, progress.state == MOVE_COMPLETE);
	return change(&tree->stack, err);
}

static bool go_wrong(void)
{
	for (unsigned i = 0; i < LOOPS; i++)
		if (atomic_load(&side[i].wrong))
			return true;
	return false;
}

static void one_change(struct tree *tree, struct chance *c)
{
	struct tree before = tree_copy(tree);
	enum tree_change kind = tree_draw_change(tree, c);
	struct error err = { 0 };
	char text[300];
	int ret = change(&tree->stack, &err);

	if (!ret && kind == TREE_MOVE)
		ret = finish_move(tree, &err);
	else if (ret) {
		tree_free(tree);
		*tree = before;
		before = (struct tree){ 0 };
	}
	if (getenv("VERBOSE"))
		print_message("# %s %s%s: %s\n", tree_change_name(kind), ret ? "refused: " : "done",
			      err.text, testing_describe(&tree->stack, text, sizeof text));
	*(ret ? &tally.refused[kind] : &tally.done[kind]) += 1;
	tree_free(&before);
}

static void is_stopped(struct loop_message *message)
{
	(void)message;
	loop_stop(control);
}

static void remove_files(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

static void one_tree(struct chance *c, const char *directory)
{
	struct tree tree = tree_draw(c, directory);
	struct layer_stop stop_all = { .loop = control, .done.run = is_stopped };
	struct disk_config config = { 0 };
	struct error err = { 0 };
	char text[300], failure[900] = "";

	options_init(disk_options, &config);
	config.size = (uint64_t)LOOPS * BLOCKS * BLOCK;
	config.block_size = tree.block_size == 512 ? DISK_BLOCK_512 : DISK_BLOCK_4096;
	disk = disk_open("model", &config, &tree.stack, NULL, &err);
	if (!disk && err.code == E2BIG) { /* another one, then */
		tree_free(&tree);
		remove_files(directory);
		return;
	}
	if (!disk)
		fail_msg("SEED=%" PRIu64 ": %s: %s", seed,
			 testing_describe(&tree.stack, text, sizeof text), err.text);
	for (unsigned i = 0; i < LOOPS; i++) {
		for (unsigned n = 0; n < BLOCKS; n++)
			side[i].block[n] = (struct block){ .count = 1 };
		side[i].out = 0;
		side[i].verified = 0;
		side[i].ending = side[i].verifying = side[i].told = false;
	}
	disk_start(disk, side[0].loop);
	for (unsigned i = 0; i < LOOPS; i++)
		tell(&side[i], begin);
	for (unsigned n = 0; n < CHANGES && !go_wrong(); n++) {
		usleep((useconds_t)chance_of(c, 3000));
		one_change(&tree, c);
	}
	for (unsigned i = 0; i < LOOPS; i++) {
		tell(&side[i], end);
		sem_wait(&side[i].ended);
	}
	for (unsigned i = 0; i < LOOPS; i++) {
		if (atomic_load(&side[i].wrong))
			snprintf(failure, sizeof failure, "SEED=%" PRIu64 ": %s: now %s", seed,
				 side[i].why, testing_describe(&tree.stack, text, sizeof text));
		tell(&side[i], close_queue);
		sem_wait(&side[i].ended);
	}
	assert_int_equal(disk_stop(disk, &stop_all), 0);
	if (loop_run(control, NULL))
		abort();
	disk_close(disk);
	tree_free(&tree);
	remove_files(directory);
	if (*failure)
		fail_msg("%s", failure);
}

/* --- the test
 * ---------------------------------------------------------------------------------------- */

static void trees_change_under_load(void **unused)
{
	const char *text = getenv("TREES"), *temporary = getenv("TMPDIR");
	unsigned trees = text ? (unsigned)atoi(text) : TREES;
	struct loop_config config = { .name = "control", .engine = LOOP_THREADS, .cpu = -1 };
	struct chance c = chance_seed(seed);
	char directory[200];
	uint64_t done = 0, failed = 0, changes = 0;
	unsigned made = 0;
	time_t began = time(NULL);

	(void)unused;
	snprintf(directory, sizeof directory, "%s/penstock-model-XXXXXX",
		 temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(directory));
	control = loop_create(&config, NULL);
	assert_non_null(control);
	for (unsigned i = 0; i < LOOPS; i++) {
		config.name = "model";
		config.engine = i ? LOOP_THREADS : LOOP_AUTO;
		side[i] = (struct side){ .number = i,
					 .loop = loop_create(&config, NULL),
					 .turn.run = turn,
					 .chance = chance_seed(seed + i),
					 .stamps = (i + 1) << 28 };
		sem_init(&side[i].ended, 0, 0);
		assert_int_equal(loop_start(side[i].loop, NULL), 0);
	}
	/* A busy machine makes fewer of them. */
	for (unsigned n = 0; n < trees && (text || n < 4 || time(NULL) < began + SECONDS);
	     n++, made++)
		one_tree(&c, directory);
	for (unsigned i = 0; i < LOOPS; i++) {
		tell(&side[i], stop);
		loop_destroy(side[i].loop);
		done += atomic_load(&side[i].done);
		failed += atomic_load(&side[i].failed);
	}
	loop_destroy(control);
	assert_int_equal(rmdir(directory), 0);
	for (unsigned i = 0; i < TREE_CHANGES; i++) {
		changes += tally.done[i];
		print_message("# %-12s %4" PRIu64 " done, %4" PRIu64 " refused\n",
			      tree_change_name(i), tally.done[i], tally.refused[i]);
	}
	print_message("# %" PRIu64 " requests, %" PRIu64
		      " failed as they were told to; the longest pause "
		      "%.1f ms\n",
		      done, failed, (double)tally.pause / 1e6);
	assert_true(changes > made * CHANGES / 3);
	assert_true(done > made * 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(trees_change_under_load) };
	const char *text = getenv("SEED");
	int ret;

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	model_seed(seed);
	print_message("# SEED=%" PRIu64 "\n", seed);
	log_set_level(getenv("VERBOSE") ? LOG_WARN : LOG_ERROR);
	alarm(170);
	ret = cmocka_run_group_tests_name("model_change", tests, NULL, NULL);
	volume_end();
	workers_end();
	return ret;
}
