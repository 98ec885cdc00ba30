/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ranges_test.c - who gets a range, who waits, in which order; and several loops at once, where
 * what a lock guards is plain memory, so that ThreadSanitizer sees a lock that does not guard it
 */
#include "layer/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/crash/chance.h"
#include "layer/layer.h"

#define REGION 4096u

/* --- one thread ---------------------------------------------------------------------------- */

#define IOS 16u

static struct loop *loop;
static struct io_queue queue;
static struct ranges *ranges;
static struct layer *const whom = (struct layer *)&ranges;
static struct io *io[IOS];
static char went[IOS + 1]; /* who was let go, in order: 'a' is io[0] */

static int open_all(void **unused)
{
	(void)unused;
	loop = loop_create(&(struct loop_config){ .name = "ranges", .cpu = -1 }, NULL);
	ranges = ranges_create(REGION);
	if (!loop || !ranges || io_queue_init(&queue, loop, IOS, 0, 1, 1))
		return -1;
	for (unsigned i = 0; i < IOS; i++)
		io[i] = io_get(&queue);
	*went = 0;
	return 0;
}

static int close_all(void **unused)
{
	(void)unused;
	io_queue_release(&queue);
	ranges_destroy(ranges);
	loop_destroy(loop);
	return 0;
}

static void go(struct layer *layer, struct io *which)
{
	size_t n = strlen(went);

	assert_ptr_equal(layer, whom);
	for (unsigned i = 0; i < IOS; i++)
		if (io[i] == which)
			went[n] = (char)('a' + i);
	went[n + 1] = 0;
}

static void stop_soon(struct loop_message *message)
{
	(void)message;
	loop_stop(loop);
}

/* Who was let go since the last time. */
static const char *let_go(void)
{
	struct loop_message message = { .run = stop_soon };
	static char text[IOS + 1];

	loop_send(loop, &message);
	loop_run(loop, NULL);
	strcpy(text, went);
	*went = 0;
	return text;
}

static bool lock(unsigned i, uint64_t offset, uint64_t length, bool exclusive)
{
	return ranges_lock(ranges, io[i], offset, length, exclusive, whom, go);
}

static void readers_share_and_writers_do_not(void **unused)
{
	(void)unused;
	assert_true(lock(0, 0, 512, false));
	assert_true(lock(1, 512, 512, false));
	assert_true(lock(2, REGION, REGION, true));
	assert_false(lock(3, REGION - 512, 1024, false)); /* over the border */
	assert_false(lock(4, 0, 512, true));
	assert_string_equal(let_go(), "");
	ranges_unlock(ranges, REGION, REGION, true);
	assert_string_equal(let_go(), "d");
	ranges_unlock(ranges, 0, 512, false);
	ranges_unlock(ranges, 512, 512, false);
	assert_string_equal(let_go(), "");
	ranges_unlock(ranges, REGION - 512, 1024, false);
	assert_string_equal(let_go(), "e");
	assert_true(lock(0, REGION, 512, true));
	ranges_unlock(ranges, REGION, 512, true);
	ranges_unlock(ranges, 0, 512, true);
	assert_true(lock(0, 0, 512, true));
}

static void nobody_overtakes_who_waits(void **unused)
{
	(void)unused;
	assert_true(lock(0, 0, 512, false));
	assert_false(lock(1, 0, 512, true));
	assert_false(lock(2, 0, 512, false)); /* it could have it, but came later */
	assert_false(lock(3, 0, 512, true));
	assert_false(lock(4, 0, 512, false));
	assert_false(lock(5, 0, 512, false));
	assert_true(lock(6, 5 * REGION, 512, true)); /* elsewhere nobody waits */
	ranges_unlock(ranges, 0, 512, false);
	assert_string_equal(let_go(), "b");
	ranges_unlock(ranges, 0, 512, true);
	assert_string_equal(let_go(), "c");
	ranges_unlock(ranges, 0, 512, false);
	assert_string_equal(let_go(), "d");
	ranges_unlock(ranges, 0, 512, true);
	assert_string_equal(let_go(), "ef");
	ranges_unlock(ranges, 0, 512, false);
	ranges_unlock(ranges, 0, 512, false);
	/* Nothing is left behind that would keep others. */
	assert_true(lock(7, 0, 512, true));
}

static void a_range_is_had_whole_or_not_at_all(void **unused)
{
	(void)unused;
	assert_true(lock(0, 2 * REGION, REGION, true));
	assert_false(lock(1, 0, 4 * REGION, true));
	/* What it waits for in part is not held by it, but kept for it. */
	assert_false(lock(2, 0, 512, false));
	assert_false(lock(3, 3 * REGION, 512, true));
	assert_true(lock(4, 4 * REGION, 512, true));
	ranges_unlock(ranges, 2 * REGION, REGION, true);
	assert_string_equal(let_go(), "b");
	ranges_unlock(ranges, 0, 4 * REGION, true);
	assert_string_equal(let_go(), "cd");
}

static void a_range_may_be_larger_than_the_table(void **unused)
{
	uint64_t all = 1ull << 40;

	(void)unused;
	assert_true(lock(0, 0, all, true));
	assert_false(lock(1, all - 512, 512, false));
	assert_false(lock(2, 0, all, true));
	ranges_unlock(ranges, 0, all, true);
	assert_string_equal(let_go(), "b");
	ranges_unlock(ranges, all - 512, 512, false);
	assert_string_equal(let_go(), "c");
	ranges_unlock(ranges, 0, all, true);
	assert_true(lock(3, 0, 0, true)); /* of no length: its region */
	assert_false(lock(4, 0, 512, false));
	ranges_unlock(ranges, 0, 0, true);
	assert_string_equal(let_go(), "e");
}

/* --- several loops --------------------------------------------------------------------------- */

#define LOOPS   3u
#define DEPTH   6u
#define REGIONS 2500u /* more than the table has slots */
#define LOCKS   6000u /* of each loop */

static unsigned guarded[REGIONS]; /* plain memory: changed by who has it exclusively */
static uint64_t changes;          /* of all of it, counted by those who changed it */
static _Atomic uint64_t waits;

static struct side {
	struct loop *loop;
	struct io_queue queue;
	struct loop_message begin, turn;
	struct chance chance;
	struct io *held;
	unsigned locks, out;
	uint64_t changes, read;
	bool turning;
} side[LOOPS];

static void use(struct layer *layer, struct io *which);

static void next_lock(struct side *s, struct io *which)
{
	uint64_t regions = chance_of(&s->chance, 20) ? 1 + chance_of(&s->chance, 4) : REGIONS / 2;
	bool exclusive = chance_of(&s->chance, 3) == 0;
	/* Most meet in a few regions. */
	uint64_t first = chance_of(&s->chance, chance_of(&s->chance, 3) ? 12 : REGIONS - regions);

	which->offset = first * REGION + 512 * chance_of(&s->chance, 8);
	which->length = regions * REGION - which->offset % REGION;
	which->flags = exclusive;
	s->locks++;
	if (ranges_lock(ranges, which, which->offset, which->length, exclusive, whom, use))
		use(whom, which);
	else
		atomic_fetch_add(&waits, 1);
}

/* It has the lock, and keeps it until another turn. */
static void use(struct layer *layer, struct io *which)
{
	struct side *s = which->queue->owner;

	(void)layer;
	for (uint64_t r = which->offset / REGION;
	     r < (which->offset + which->length + REGION - 1) / REGION; r++) {
		if (which->flags) {
			guarded[r]++;
			s->changes++;
		} else {
			s->read += guarded[r];
		}
	}
	which->next = s->held;
	s->held = which;
	if (!s->turning) {
		s->turning = true;
		loop_send(s->loop, &s->turn);
	}
}

static void turned(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, turn);
	struct io *all = s->held;

	s->held = NULL;
	s->turning = false;
	while (all) {
		struct io *which = all;

		all = which->next;
		ranges_unlock(ranges, which->offset, which->length, which->flags);
		if (s->locks < LOCKS)
			next_lock(s, which);
		else if (!--s->out)
			loop_stop(s->loop);
	}
}

static void begin(struct loop_message *message)
{
	struct side *s = container_of(message, struct side, begin);

	if (io_queue_init(&s->queue, s->loop, DEPTH, 0, 1, 1))
		abort();
	s->queue.owner = s;
	for (unsigned i = 0; i < DEPTH; i++) {
		s->out++;
		next_lock(s, io_get(&s->queue));
	}
}

static void loops_exclude_one_another(void **unused)
{
	uint64_t total = 0;

	(void)unused;
	ranges = ranges_create(REGION);
	assert_non_null(ranges);
	alarm(50);
	for (unsigned i = 0; i < LOOPS; i++) {
		struct loop_config config = { .name = "ranges", .engine = LOOP_THREADS, .cpu = -1 };

		side[i] = (struct side){ .loop = loop_create(&config, NULL),
					 .begin.run = begin,
					 .turn.run = turned,
					 .chance = chance_seed(17 + i) };
		assert_non_null(side[i].loop);
		loop_send(side[i].loop, &side[i].begin);
	}
	for (unsigned i = 0; i < LOOPS; i++)
		assert_int_equal(loop_start(side[i].loop, NULL), 0);
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_destroy(side[i].loop);
		io_queue_release(&side[i].queue);
		changes += side[i].changes;
	}
	alarm(0);
	for (unsigned r = 0; r < REGIONS; r++)
		total += guarded[r];
	assert_int_equal(total, changes);
	assert_true(atomic_load(&waits) > LOCKS / 10);
	ranges_destroy(ranges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(readers_share_and_writers_do_not, open_all,
						close_all),
		cmocka_unit_test_setup_teardown(nobody_overtakes_who_waits, open_all, close_all),
		cmocka_unit_test_setup_teardown(a_range_is_had_whole_or_not_at_all, open_all,
						close_all),
		cmocka_unit_test_setup_teardown(a_range_may_be_larger_than_the_table, open_all,
						close_all),
		cmocka_unit_test(loops_exclude_one_another),
	};

	return cmocka_run_group_tests_name("ranges", tests, NULL, NULL);
}
