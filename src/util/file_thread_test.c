/* SPDX-License-Identifier: BSD-3-Clause */
/* file_thread_test.c - who waits for whom, and who frees what is both's */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "util/error.h"
#include "util/file_thread.h"
#include "util/list.h"

struct one {
	struct file_thread thread;
	sem_t storage; /* answers */
};

static sem_t released;
static pthread_t released_on;

static void run(struct file_thread *thread)
{
	struct one *one = container_of(thread, struct one, thread);

	while (sem_wait(&one->storage)) {
	}
}

static void release(struct file_thread *thread)
{
	struct one *one = container_of(thread, struct one, thread);

	sem_destroy(&one->storage);
	free(one);
	released_on = pthread_self();
	sem_post(&released);
}

static struct one *make(void)
{
	struct one *one = calloc(1, sizeof *one);

	assert_non_null(one);
	sem_init(&one->storage, 0, 0);
	file_thread_init(&one->thread, run, release);
	return one;
}

static bool is_released(unsigned seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	return !sem_timedwait(&released, &until);
}

static void never_started(void **state)
{
	struct one *one = make();

	(void)state;
	assert_true(file_thread_wait(&one->thread, 60));
	file_thread_put(&one->thread);
	assert_true(is_released(0));
}

static void ends_in_time(void **state)
{
	struct one *one = make();
	struct error err = { 0 };

	(void)state;
	assert_int_equal(file_thread_start(&one->thread, "in-time", &err), 0);
	assert_false(file_thread_stuck());
	assert_false(file_thread_wait(&one->thread, 0));
	assert_true(file_thread_stuck());
	sem_post(&one->storage);
	assert_true(file_thread_wait(&one->thread, 60));
	file_thread_put(&one->thread);
	assert_true(is_released(10));
}

static void ends_too_late(void **state)
{
	struct one *one = make();
	sem_t *storage = &one->storage;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(file_thread_start(&one->thread, "too-late", &err), 0);
	assert_false(file_thread_wait(&one->thread, 1));
	file_thread_put(&one->thread);
	assert_false(is_released(0));
	sem_post(storage);
	assert_true(is_released(10));
	assert_false(pthread_equal(released_on, pthread_self()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(never_started),
		cmocka_unit_test(ends_in_time),
		cmocka_unit_test(ends_too_late),
	};

	sem_init(&released, 0, 0);
	return cmocka_run_group_tests_name("util/file_thread", tests, NULL, NULL);
}
