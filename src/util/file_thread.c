/* SPDX-License-Identifier: BSD-3-Clause */
/* file_thread.c - see file_thread.h */
#include "util/file_thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "util/error.h"

static atomic_bool stuck;

void file_thread_init(struct file_thread *thread, void (*run)(struct file_thread *thread),
		      void (*release)(struct file_thread *thread))
{
	pthread_condattr_t monotonic;

	thread->run = run;
	thread->release = release;
	atomic_init(&thread->users, 1);
	pthread_mutex_init(&thread->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&thread->has_gone, &monotonic);
	pthread_condattr_destroy(&monotonic);
	thread->gone = true; /* until it is started */
}

void file_thread_put(struct file_thread *thread)
{
	if (atomic_fetch_sub(&thread->users, 1) != 1)
		return;
	pthread_mutex_destroy(&thread->lock);
	pthread_cond_destroy(&thread->has_gone);
	thread->release(thread);
}

static void *begin(void *data)
{
	struct file_thread *thread = data;

	thread->run(thread);
	pthread_mutex_lock(&thread->lock);
	thread->gone = true;
	pthread_cond_signal(&thread->has_gone);
	pthread_mutex_unlock(&thread->lock);
	file_thread_put(thread);
	return NULL;
}

int file_thread_start(struct file_thread *thread, const char *name, struct error *err)
{
	sigset_t all, before;
	pthread_t id;
	int ret;

	/* Signals are for the control thread; and a write that is too long, or has no reader, is an
	   error like any other. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	thread->gone = false;
	atomic_store(&thread->users, 2);
	ret = pthread_create(&id, NULL, begin, thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret) {
		thread->gone = true;
		atomic_store(&thread->users, 1);
		return error_set(err, ret, "no thread: %s", strerror(ret));
	}
	pthread_setname_np(id, name);
	pthread_detach(id);
	return 0;
}

bool file_thread_wait(struct file_thread *thread, unsigned seconds)
{
	struct timespec until;
	bool gone;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&thread->lock);
	while (!thread->gone &&
	       pthread_cond_timedwait(&thread->has_gone, &thread->lock, &until) != ETIMEDOUT)
		continue;
	gone = thread->gone;
	pthread_mutex_unlock(&thread->lock);
	if (!gone)
		atomic_store(&stuck, true);
	return gone;
}

bool file_thread_stuck(void)
{
	return atomic_load(&stuck);
}
