/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workers.c - the pool of threads: one list of work, first come first served
 *
 * One lock is enough: a piece of work takes many microseconds, or it would not be given away. No
 * more is taken in than one piece for each thread, so that a busy host has its loops compute by
 * themselves rather than wait in a line.
 *
 * The threads may use the cores that the process was given, not only the one of the loop that
 * happened to start them.
 */
#include "loop/workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#define MOST 64

static struct {
	pthread_mutex_t lock;
	pthread_cond_t some; /* work, or the end */
	struct work *first, **last;
	unsigned waiting; /* in the list */
	unsigned threads; /* that run */
	bool ending;
	pthread_t thread[MOST];
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .some = PTHREAD_COND_INITIALIZER,
	   .last = &pool.first };

/* The cores of the process: those of its first thread, which is bound to none. */
static unsigned cores(cpu_set_t *set)
{
	if (sched_getaffinity(getpid(), sizeof *set, set))
		return 1;
	return (unsigned)CPU_COUNT(set);
}

static unsigned count_for(unsigned found)
{
	if (found < 2)
		return 0;
	return found < MOST ? found : MOST;
}

unsigned workers_count(void)
{
	cpu_set_t set;

	return count_for(cores(&set));
}

static void *serve(void *unused)
{
	struct work *work;

	pthread_mutex_lock(&pool.lock);
	for (;;) {
		while (!pool.first && !pool.ending)
			pthread_cond_wait(&pool.some, &pool.lock);
		work = pool.first;
		if (!work)
			break;
		pool.first = work->next;
		if (!pool.first)
			pool.last = &pool.first;
		pool.waiting--;
		pthread_mutex_unlock(&pool.lock);
		work->run(work);
		pthread_mutex_lock(&pool.lock);
	}
	pthread_mutex_unlock(&pool.lock);
	return unused;
}

/* With the lock. As many as there is memory for. */
static void start(void)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	cpu_set_t set;
	unsigned wanted = count_for(cores(&set));

	if (!wanted || pthread_attr_init(&attributes))
		return;
	pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* a new thread inherits it */
	while (pool.threads < wanted &&
	       !pthread_create(&pool.thread[pool.threads], &attributes, serve, NULL))
		pthread_setname_np(pool.thread[pool.threads++], "worker");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
}

bool workers_do(struct work *work)
{
	bool taken;

	pthread_mutex_lock(&pool.lock);
	if (!pool.threads && !pool.ending)
		start();
	taken = pool.waiting < pool.threads && !pool.ending;
	if (taken) {
		work->next = NULL;
		*pool.last = work;
		pool.last = &work->next;
		pool.waiting++;
		pthread_cond_signal(&pool.some);
	}
	pthread_mutex_unlock(&pool.lock);
	return taken;
}

void workers_end(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.ending = true;
	pthread_cond_broadcast(&pool.some);
	pthread_mutex_unlock(&pool.lock);
	while (pool.threads)
		pthread_join(pool.thread[--pool.threads], NULL);
	pool.ending = false; /* whoever comes now starts them anew */
}
