/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_thread.h - a thread that waits for files for somebody who must not
 *
 * Storage may hang, and then so does the thread, for as long as it likes. Its owner waits for its
 * end for some seconds and no longer. So what the thread uses belongs to both, and goes with the
 * last of them: it is an object of its own, with a struct file_thread in it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define FILE_THREAD_PATIENCE 2u /**< s that the end of penstock owes to storage */

struct error;

struct file_thread {
	void (*run)(struct file_thread *thread); /**< the thread's life */
	/** Frees the object. Called by whoever is the last, on its thread. */
	void (*release)(struct file_thread *thread);
	atomic_uint users;    /**< the owner, the thread */
	pthread_mutex_t lock; /**< for those that follow */
	pthread_cond_t has_gone;
	bool gone; /**< run() has returned */
};

/** Prepares @thread, which does not run yet. Its owner ends with file_thread_put(). */
void file_thread_init(struct file_thread *thread, void (*run)(struct file_thread *thread),
		      void (*release)(struct file_thread *thread));

/** Starts it, with all signals blocked; @name has at most 15 characters. 0, or -errno with @err. */
int file_thread_start(struct file_thread *thread, const char *name, struct error *err);

/** Waits until the thread, which was told to end, has ended or never began; at most @seconds.
 * False: it has not. */
bool file_thread_wait(struct file_thread *thread, unsigned seconds);

/**
 * True if file_thread_wait() has ever returned false. Such a thread may hold what exit(3) waits
 * for, as the lock of a stream: then the process ends by _exit(2). Any thread.
 */
bool file_thread_stuck(void);

/** The object is no longer the owner's. */
void file_thread_put(struct file_thread *thread);
