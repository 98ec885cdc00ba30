/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copier_test.c - what is copied and what is told of it; limits and ends; and a guest on a loop of
 * its own that writes to both sides meanwhile, as a move has it
 */
#include "layer/copier.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/crash/chance.h"
#include "layer/session.h"
#include "layer/stack.h"
#include "layer/testing_stack.h"
#include "testing.h"

#define REGION (64u << 10)
#define MOST   64u /* regions of the largest disk */

static struct run {
	struct copier copier;
	struct loop *loop;
	struct loop_message begin;
	struct loop_timer timer;
	unsigned told[MOST]; /* how often each was copied, */
	unsigned failed;     /* or not */
	bool dirty[MOST];
	bool over;
	int status;
	uint64_t ended; /* ms */
} run;

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- a run ----------------------------------------------------------------------------------- */

static struct layer *open_stack(const char *text)
{
	const struct stack_setting setting = { .disk = "copier", .block_size = 512 };
	struct stack_config stack = testing_stack(text);
	struct error err = { 0 };
	struct layer *top = stack_open(&setting, &stack, NULL, &err);

	if (!top)
		fail_msg("%s: %s", text, err.text);
	stack_config_release(&stack);
	return top;
}

static void copied(struct copier *copier, uint64_t offset, int status)
{
	assert_ptr_equal(copier, &run.copier);
	assert_int_equal(offset % REGION, 0);
	if (status)
		run.failed++;
	else
		run.told[offset / REGION]++;
}

static void ended(struct copier *copier, int status)
{
	assert_ptr_equal(copier, &run.copier);
	assert_false(run.over);
	assert_null(copier->run);
	run.over = true;
	run.status = status;
	run.ended = milliseconds();
	loop_stop(run.loop);
}

static void begin(struct loop_message *message)
{
	(void)message;
	assert_int_equal(copier_start(&run.copier, run.loop), 0);
	assert_false(run.over);
}

/* From one stack to another; a disk of @size bytes. */
static void prepare(const char *from, const char *to, uint64_t size)
{
	struct loop_config config = { .name = "copier", .engine = LOOP_THREADS, .cpu = -1 };

	run = (struct run){ .copier = { .from = open_stack(from),
					.to = open_stack(to),
					.ranges = ranges_create(REGION),
					.size = size,
					.region = REGION,
					.copied = copied,
					.ended = ended },
			    .loop = loop_create(&config, NULL),
			    .begin.run = begin };
	assert_non_null(run.copier.ranges);
	assert_non_null(run.loop);
}

static int copy(void)
{
	run.over = false;
	loop_send(run.loop, &run.begin);
	assert_int_equal(loop_run(run.loop, NULL), 0);
	assert_true(run.over);
	return run.status;
}

static void clean_up(void)
{
	loop_destroy(run.loop);
	stack_close(run.copier.from);
	stack_close(run.copier.to);
	ranges_destroy(run.copier.ranges);
}

/* @share of 8 regions hold something; the others are zeroes. */
static void fill(uint64_t share)
{
	struct chance c = chance_seed(7);
	unsigned char bytes[REGION];

	for (uint64_t at = 0; at < run.copier.size; at += REGION) {
		uint64_t left = run.copier.size - at;

		if (at / REGION % 8 >= share)
			continue;
		for (unsigned i = 0; i < REGION; i++)
			bytes[i] = (unsigned char)chance_of(&c, 256);
		assert_int_equal(
			testing_write(run.copier.from, at, bytes, left < REGION ? left : REGION),
			0);
	}
}

static void sides_are_equal(void)
{
	uint64_t size = run.copier.size;
	unsigned char *from = malloc(size), *to = malloc(size);

	assert_int_equal(testing_read(run.copier.from, 0, from, size), 0);
	assert_int_equal(testing_read(run.copier.to, 0, to, size), 0);
	assert_memory_equal(from, to, size);
	free(from);
	free(to);
}

/* --- what is copied -------------------------------------------------------------------------- */

static void all_of_it(void **unused)
{
	const uint64_t size = 30 * REGION + 512; /* the last region is a short one */
	unsigned char *garbage = malloc(size);

	(void)unused;
	prepare("memory size=4M", "memory size=8M", size);
	memset(garbage, 'g', size);
	assert_int_equal(testing_write(run.copier.to, 0, garbage, size), 0);
	assert_int_equal(testing_write(run.copier.to, size, garbage, 512), 0);
	fill(5);
	assert_int_equal(copy(), 0);
	for (unsigned i = 0; i < MOST; i++)
		assert_int_equal(run.told[i], i < 31);
	assert_int_equal(run.failed, 0);
	assert_int_equal(atomic_load(&run.copier.bytes), size);
	sides_are_equal();
	/* What is behind the end is not its own. */
	assert_int_equal(testing_read(run.copier.to, size, garbage + 512, 512), 0);
	assert_memory_equal(garbage, garbage + 512, 512);
	/* And once more. */
	assert_int_equal(copy(), 0);
	assert_int_equal(run.told[30], 2);
	clean_up();
	free(garbage);
}

static void zeroes_stay_holes(void **unused)
{
	char directory[200], path[300], text[400];
	struct stat st;

	(void)unused;
	testing_directory(directory);
	snprintf(path, sizeof path, "%s/target", directory);
	snprintf(text, sizeof text, "file path=%s create=true size=4M direct=off", path);
	prepare("memory size=4M", text, 64 * REGION);
	fill(1);
	assert_int_equal(copy(), 0);
	sides_are_equal();
	assert_int_equal(stat(path, &st), 0);
	/* An eighth; and whatever the file system needs for itself. */
	assert_in_range((uint64_t)st.st_blocks * 512, 8 * REGION, 16 * REGION);
	clean_up();
	unlink(path);
	rmdir(directory);
}

static uint64_t next_dirty(struct copier *copier, uint64_t at)
{
	for (uint64_t i = at / REGION; i < copier->size / REGION; i++)
		if (run.dirty[i]) {
			run.dirty[i] = false;
			return i * REGION;
		}
	return UINT64_MAX;
}

/* When the last one is copied, others have come up, that lie before it. */
static void copied_and_more(struct copier *copier, uint64_t offset, int status)
{
	copied(copier, offset, status);
	if (offset == 20 * REGION && run.told[20] == 1)
		run.dirty[3] = run.dirty[9] = true;
}

static void only_what_is_to_be_copied_and_what_comes_up_meanwhile(void **unused)
{
	static const unsigned regions[] = { 3, 4, 9, 20 };
	unsigned char bytes[512], found[512];

	(void)unused;
	prepare("memory size=2M", "memory size=2M", 32 * REGION);
	fill(8);
	run.copier.next = next_dirty;
	run.copier.copied = copied_and_more;
	run.dirty[3] = run.dirty[4] = run.dirty[20] = true;
	assert_int_equal(copy(), 0);
	for (unsigned i = 0; i < MOST; i++)
		assert_int_equal(run.told[i], i == 3 ? 2 : i == 4 || i == 9 || i == 20);
	for (unsigned i = 0; i < sizeof regions / sizeof *regions; i++) {
		uint64_t at = regions[i] * REGION + 512;

		assert_int_equal(testing_read(run.copier.from, at, bytes, sizeof bytes), 0);
		assert_int_equal(testing_read(run.copier.to, at, found, sizeof found), 0);
		assert_memory_equal(bytes, found, sizeof bytes);
	}
	assert_int_equal(testing_read(run.copier.to, 5 * REGION, found, sizeof found), 0);
	assert_true(!*found && !memcmp(found, found + 1, sizeof found - 1));
	/* Nothing to do is done at once. */
	assert_int_equal(copy(), 0);
	assert_int_equal(atomic_load(&run.copier.bytes), 0);
	clean_up();
}

/* --- errors ---------------------------------------------------------------------------------- */

static void fails(const char *from, const char *to)
{
	prepare(from, to, 60 * REGION);
	fill(8);
	assert_int_equal(copy(), -EIO);
	/* Those that had begun come to their end, and no other one begins. */
	assert_in_range(run.failed, 1, 8);
	assert_int_equal(run.told[40], 0);
	clean_up();
}

static void an_error_ends_it(void **unused)
{
	(void)unused;
	fails("flaky errors=100% ops=read | memory size=4M", "memory size=4M");
	fails("memory size=4M", "flaky errors=100% ops=write | memory size=4M");
	/* A copy that is not on stable storage is none. */
	prepare("memory size=4M", "flaky errors=100% ops=flush | memory size=4M", 60 * REGION);
	fill(8);
	assert_int_equal(copy(), -EIO);
	assert_int_equal(run.failed, 0);
	assert_int_equal(run.told[59], 1);
	clean_up();
}

/* --- limits, and being told to end ----------------------------------------------------------- */

static void set_timer(void (*fire)(struct loop_timer *timer), unsigned after)
{
	loop_timer_init(&run.timer, fire);
	loop_timer_set(run.loop, &run.timer, (milliseconds() + after) * 1000000);
}

static void a_limit_holds(void **unused)
{
	uint64_t began;

	(void)unused;
	prepare("memory size=4M", "memory size=4M", 32 * REGION);
	fill(8);
	atomic_store(&run.copier.limit, 80 * REGION); /* 0.4 s in all; the first one at once */
	began = milliseconds();
	assert_int_equal(copy(), 0);
	assert_in_range(run.ended - began, 370, 4000);
	sides_are_equal();
	clean_up();
}

static uint64_t told_at;

static void unlimit(struct loop_timer *timer)
{
	(void)timer;
	told_at = milliseconds();
	atomic_store(&run.copier.limit, 0);
}

static void cancel(struct loop_timer *timer)
{
	(void)timer;
	told_at = milliseconds();
	atomic_store(&run.copier.cancel, true);
}

static void stop(struct loop_timer *timer)
{
	(void)timer;
	told_at = milliseconds();
	copier_stop(&run.copier);
	copier_stop(&run.copier); /* there is no harm in it */
}

/* At a region in an hour; after a while @fire happens. Returns how soon it ends then, ms. */
static uint64_t end_of_a_slow_one(void (*fire)(struct loop_timer *timer), int status)
{
	prepare("memory size=4M", "memory size=4M", 32 * REGION);
	fill(8);
	atomic_store(&run.copier.limit, REGION / 3600);
	set_timer(fire, 50);
	assert_int_equal(copy(), status);
	assert_int_equal(run.told[31], !status);
	clean_up();
	return run.ended - told_at;
}

static void it_hears_at_once(void **unused)
{
	(void)unused;
	/* A tenth of a second, and what a busy machine takes on top. */
	assert_in_range(end_of_a_slow_one(unlimit, 0), 0, 600);
	assert_in_range(end_of_a_slow_one(cancel, -ECANCELED), 0, 600);
	assert_in_range(end_of_a_slow_one(stop, -ECANCELED), 0, 500);
	/* One that does not run does not mind. */
	copier_stop(&run.copier);
}

static void what_is_under_way_is_finished(void **unused)
{
	(void)unused;
	prepare("memory size=4M", "delay delay=150ms ops=write | memory size=4M", 60 * REGION);
	fill(8);
	set_timer(stop, 20);
	assert_int_equal(copy(), -ECANCELED);
	assert_in_range(run.ended - told_at, 80, 3000);
	assert_int_equal(run.failed, 0);
	assert_int_equal(run.told[0], 1);
	assert_int_equal(run.told[59], 0);
	clean_up();
}

/* --- beside a guest --------------------------------------------------------------------------- */

#define DEPTH  4u
#define WRITES 600u
#define LENGTH 4096u

/* It writes to the source, then to the target, while it has its range. */
static struct guest {
	struct loop *loop;
	struct loop_message begin, end;
	struct io_queue from, to;
	struct chance chance;
	unsigned char bytes[DEPTH][LENGTH];
	unsigned written, out;
	_Atomic uint64_t requests;
} guest;

static void next_write(unsigned slot);

static struct io *prepare_write(struct io_queue *queue, unsigned slot, uint64_t offset)
{
	struct io *io = io_get(queue);

	io->op = IO_WRITE;
	io->flags = 0;
	io->offset = offset;
	io->length = LENGTH;
	io_vector(io)[0] = (struct iovec){ guest.bytes[slot], LENGTH };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	return io;
}

static void target_written(struct layer *layer, struct io *io)
{
	unsigned slot = (unsigned)io_frame(io)->note[0];

	(void)layer;
	if (io->status)
		abort();
	ranges_unlock(run.copier.ranges, io->offset, LENGTH, false);
	io_put(io);
	guest.out--;
	next_write(slot);
}

static void source_written(struct layer *layer, struct io *io)
{
	unsigned slot = (unsigned)io_frame(io)->note[0];
	uint64_t offset = io->offset;

	(void)layer;
	if (io->status)
		abort();
	io_put(io);
	io = prepare_write(&guest.to, slot, offset);
	io_push(NULL, io, target_written)->note[0] = slot;
	io_send(run.copier.to, io);
}

static void has_range(struct layer *layer, struct io *io)
{
	(void)layer;
	io_send(run.copier.from, io);
}

static void next_write(unsigned slot)
{
	/* No two of its own in one place: each slot has a part of each region. */
	uint64_t region = chance_of(&guest.chance, run.copier.size / REGION);
	uint64_t part = slot + DEPTH * chance_of(&guest.chance, REGION / LENGTH / DEPTH);
	uint64_t offset = region * REGION + part * LENGTH;
	struct io *io;

	if (guest.written == WRITES) {
		if (!guest.out)
			loop_send(guest.loop, &guest.end);
		return;
	}
	guest.written++;
	guest.out++;
	atomic_fetch_add(&guest.requests, 1);
	for (unsigned i = 0; i < LENGTH; i += 8) {
		uint64_t word = chance_bits(&guest.chance);

		memcpy(&guest.bytes[slot][i], &word, 8);
	}
	io = prepare_write(&guest.from, slot, offset);
	io_push(NULL, io, source_written)->note[0] = slot;
	if (ranges_lock(run.copier.ranges, io, offset, LENGTH, false, NULL, has_range))
		has_range(NULL, io);
}

static void guest_begins(struct loop_message *message)
{
	(void)message;
	if (stack_queue_open(run.copier.from, &guest.from, guest.loop, DEPTH, 1) ||
	    stack_queue_open(run.copier.to, &guest.to, guest.loop, DEPTH, 1))
		abort();
	for (unsigned i = 0; i < DEPTH; i++)
		next_write(i);
}

static void guest_ends(struct loop_message *message)
{
	(void)message;
	stack_queue_close(run.copier.from, &guest.from);
	stack_queue_close(run.copier.to, &guest.to);
	loop_stop(guest.loop);
}

static void beside_a_guest(bool counted)
{
	struct loop_config config = { .name = "guest", .engine = LOOP_THREADS, .cpu = -1 };

	/* Requests overtake one another on both sides. */
	prepare("flaky jitter=300us | memory size=4M", "flaky jitter=2ms | memory size=4M",
		48 * REGION);
	fill(6);
	guest = (struct guest){ .loop = loop_create(&config, NULL),
				.begin.run = guest_begins,
				.end.run = guest_ends,
				.chance = chance_seed(11) };
	assert_non_null(guest.loop);
	if (counted)
		run.copier.guests = &guest.requests;
	loop_send(guest.loop, &guest.begin);
	assert_int_equal(loop_start(guest.loop, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(copy(), 0);
	loop_destroy(guest.loop);
	assert_int_equal(guest.written, WRITES);
	assert_int_equal(guest.out, 0);
	sides_are_equal();
	clean_up();
}

static void what_a_guest_writes_meanwhile_is_not_lost(void **unused)
{
	(void)unused;
	beside_a_guest(false);
}

static void nor_when_it_gives_way_to_the_guest(void **unused)
{
	(void)unused;
	beside_a_guest(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_it),
		cmocka_unit_test(zeroes_stay_holes),
		cmocka_unit_test(only_what_is_to_be_copied_and_what_comes_up_meanwhile),
		cmocka_unit_test(an_error_ends_it),
		cmocka_unit_test(a_limit_holds),
		cmocka_unit_test(it_hears_at_once),
		cmocka_unit_test(what_is_under_way_is_finished),
		cmocka_unit_test(what_a_guest_writes_meanwhile_is_not_lost),
		cmocka_unit_test(nor_when_it_gives_way_to_the_guest),
	};

	alarm(55);
	return cmocka_run_group_tests_name("copier", tests, NULL, NULL);
}
