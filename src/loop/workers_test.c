/* SPDX-License-Identifier: BSD-3-Clause */
/* workers_test.c - all that is taken is done, none of it twice; a full pool says so */
#include "loop/workers.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PIECES 2000

static struct piece {
	struct work work;
	atomic_uint runs;
} piece[PIECES];

static sem_t gate;

static void count(struct work *work)
{
	atomic_fetch_add(&((struct piece *)work)->runs, 1);
}

static void wait_at_gate(struct work *work)
{
	sem_wait(&gate);
	count(work);
}

static void need_pool(void)
{
	if (!workers_count()) {
		print_message("# one core: there is no pool\n");
		assert_false(workers_do(&piece[0].work));
		skip();
	}
}

static void reset(void (*run)(struct work *work))
{
	for (unsigned i = 0; i < PIECES; i++) {
		piece[i].work.run = run;
		atomic_store(&piece[i].runs, 0);
	}
}

/* What is refused is done here, as its users do. */
static void does_everything_once(void **unused)
{
	unsigned refused = 0;

	(void)unused;
	need_pool();
	for (unsigned round = 0; round < 3; round++) { /* the pool ends, and starts again */
		reset(count);
		for (unsigned i = 0; i < PIECES; i++) {
			if (!workers_do(&piece[i].work)) {
				count(&piece[i].work);
				refused++;
			}
		}
		workers_end();
		for (unsigned i = 0; i < PIECES; i++)
			assert_int_equal(atomic_load(&piece[i].runs), 1);
	}
	assert_true(refused < 3 * PIECES);
}

/* Every thread is busy and has one piece waiting: more is not taken. */
static void refuses_when_full(void **unused)
{
	unsigned taken = 0;

	(void)unused;
	need_pool();
	reset(wait_at_gate);
	sem_init(&gate, 0, 0);
	while (taken < PIECES && workers_do(&piece[taken].work))
		taken++;
	assert_true(taken >= workers_count());
	assert_true(taken <= 2 * workers_count());
	for (unsigned i = 0; i < taken; i++)
		sem_post(&gate);
	workers_end();
	for (unsigned i = 0; i < PIECES; i++)
		assert_int_equal(atomic_load(&piece[i].runs), i < taken);
	sem_destroy(&gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(does_everything_once),
		cmocka_unit_test(refuses_when_full),
	};

	return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
