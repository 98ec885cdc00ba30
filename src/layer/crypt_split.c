/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_split.c - a large request on several cores
 *
 * A request is cut into slices. Worker threads are asked to help, and then each thread, the loop's
 * own among them, claims slices until none is left. So nobody waits for a helper that does not
 * come, because its core is busy: its slices are done by those that are there. Whoever finishes the
 * last slice sends the request on: the loop at once, a helper by io_wake().
 *
 * A helper may come when all is done, and even after the queue is gone. It looks at the job only,
 * so a job is kept until each helper that was asked has come. That claims go beyond the slices of a
 * job is of no consequence.
 *
 * Threads cannot share a cipher. A queue has one; helpers take one from a small store.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "layer/crypt_private.h"
#include "loop/workers.h"

#define SLICE   (64u << 10) /* bytes: some ten microseconds */
#define HELPERS 15u         /* for one request at most */
#define JOBS    16          /* of one queue at once; more requests are not split */

struct crypt_job {
	struct crypt_jobs *jobs;
	struct crypt *crypt;
	struct io *io;
	io_done_fn *done;
	struct crypt_task task;
	unsigned slices;
	_Atomic unsigned next;   /* slice to claim */
	_Atomic unsigned left;   /* slices that are not done; 0: the job is over */
	_Atomic unsigned coming; /* helpers that were asked and have not left */
	_Atomic int status;
	struct helper {
		struct work work;
		struct crypt_job *job;
	} helper[HELPERS];
};

struct crypt_jobs {
	_Atomic unsigned holders; /* the queue, and helpers */
	struct crypt_job job[JOBS];
};

/* --- ciphers for helpers -------------------------------------------------------------------- */

unsigned crypt_helpers(uint64_t most)
{
	unsigned count = workers_count();

	count -= count > 0; /* one core is the loop's */
	if (count > HELPERS)
		count = HELPERS;
	return most < count ? (unsigned)most : count;
}

int crypt_spares_open(struct crypt_keys *keys)
{
	unsigned count = workers_count();

	if (!count)
		return 0;
	keys->spare.cipher = calloc(count, sizeof *keys->spare.cipher);
	if (!keys->spare.cipher)
		return -ENOMEM;
	keys->spare.room = count;
	while (keys->spare.count < count) {
		struct crypt_cipher *cipher = crypt_cipher_copy(keys->cipher);

		if (!cipher)
			return -ENOMEM;
		keys->spare.cipher[keys->spare.count++] = cipher;
	}
	return 0;
}

void crypt_spares_close(struct crypt_keys *keys)
{
	while (keys->spare.count)
		crypt_cipher_free(keys->spare.cipher[--keys->spare.count]);
	free(keys->spare.cipher);
	pthread_mutex_destroy(&keys->spare.lock);
}

/* There is one for each thread, as a rule: their number is that of the cores when they started. */
static struct crypt_cipher *take_spare(struct crypt_keys *keys)
{
	struct crypt_cipher *cipher = NULL;

	pthread_mutex_lock(&keys->spare.lock);
	if (keys->spare.count)
		cipher = keys->spare.cipher[--keys->spare.count];
	pthread_mutex_unlock(&keys->spare.lock);
	return cipher ? cipher : crypt_cipher_copy(keys->cipher);
}

static void return_spare(struct crypt_keys *keys, struct crypt_cipher *cipher)
{
	pthread_mutex_lock(&keys->spare.lock);
	if (cipher && keys->spare.count < keys->spare.room) {
		keys->spare.cipher[keys->spare.count++] = cipher;
		cipher = NULL;
	}
	pthread_mutex_unlock(&keys->spare.lock);
	crypt_cipher_free(cipher);
}

/* --- slices ------------------------------------------------------------------------------- */

static int compute(struct crypt_cipher *cipher, const struct crypt_task *task, uint64_t start,
		   uint64_t length)
{
	uint64_t tweak = task->tweak + start / 512;

	if (task->zeroes)
		return crypt_encrypt_zeroes(cipher, tweak, task->to + start, length);
	if (task->to)
		return crypt_encrypt(cipher, tweak,
				     start ? io_data_slice(task->data, start) : task->data,
				     task->to + start, length);
	return crypt_decrypt(cipher, tweak, start ? io_data_slice(task->data, start) : task->data,
			     length);
}

static bool claim(struct crypt_job *job, unsigned *n)
{
	*n = atomic_fetch_add(&job->next, 1);
	return *n < job->slices;
}

/* Slice @n, which was claimed, and what else there is to claim. Returns how many it did. */
static unsigned do_slices(struct crypt_job *job, struct crypt_cipher *cipher, unsigned n)
{
	unsigned done = 0;

	do {
		uint64_t start = (uint64_t)n * SLICE, left = job->task.length - start;
		int status =
			cipher ? compute(cipher, &job->task, start, left < SLICE ? left : SLICE)
			       : -ENOMEM;

		if (status)
			atomic_store(&job->status, status);
		done++;
	} while (claim(job, &n));
	return done;
}

/* @done slices are done; true if they were the last. Then nobody uses the layer for this job. */
static bool settle(struct crypt_job *job, unsigned done)
{
	return atomic_fetch_sub(&job->left, done) == done;
}

static void let_go(struct crypt_jobs *jobs)
{
	if (atomic_fetch_sub(&jobs->holders, 1) == 1)
		free(jobs);
}

static void help(struct work *work)
{
	struct crypt_job *job = ((struct helper *)work)->job;
	struct crypt_jobs *jobs = job->jobs;
	unsigned n, done;

	/* With a claim the request is still here, and so is the layer, until it is settled. */
	if (claim(job, &n)) {
		struct crypt_cipher *cipher = take_spare(job->crypt->keys);

		done = do_slices(job, cipher, n);
		return_spare(job->crypt->keys, cipher);
		if (settle(job, done)) {
			job->io->status = atomic_load(&job->status);
			io_wake(job->io, &job->crypt->layer, job->done);
		}
	}
	atomic_fetch_sub(&job->coming, 1);
	let_go(jobs);
}

/* --- a request ----------------------------------------------------------------------------- */

struct crypt_jobs *crypt_jobs_create(void)
{
	struct crypt_jobs *jobs = calloc(1, sizeof *jobs);

	if (!jobs)
		return NULL;
	atomic_store(&jobs->holders, 1);
	for (unsigned i = 0; i < JOBS; i++) {
		jobs->job[i].jobs = jobs;
		for (unsigned k = 0; k < HELPERS; k++) {
			jobs->job[i].helper[k].work.run = help;
			jobs->job[i].helper[k].job = &jobs->job[i];
		}
	}
	return jobs;
}

void crypt_jobs_destroy(struct crypt_jobs *jobs)
{
	if (jobs)
		let_go(jobs);
}

static struct crypt_job *free_job(struct crypt_jobs *jobs)
{
	for (unsigned i = 0; i < JOBS; i++)
		if (!atomic_load(&jobs->job[i].left) && !atomic_load(&jobs->job[i].coming))
			return &jobs->job[i];
	return NULL;
}

static void ask_for_help(struct crypt_job *job, unsigned helpers)
{
	for (unsigned i = 0; i < helpers; i++) {
		atomic_fetch_add(&job->coming, 1);
		atomic_fetch_add(&job->jobs->holders, 1);
		if (workers_do(&job->helper[i].work))
			continue;
		atomic_fetch_sub(&job->coming, 1);
		atomic_fetch_sub(&job->jobs->holders, 1);
		break;
	}
}

bool crypt_compute(struct crypt *crypt, struct crypt_jobs *jobs, struct crypt_cipher *cipher,
		   struct io *io, const struct crypt_task *task, io_done_fn *done, int *status)
{
	struct crypt_job *job = NULL;
	unsigned slices = (unsigned)((task->length + SLICE - 1) / SLICE), n;

	if (task->whole >= crypt->workers_from && slices > 1 && crypt->helpers)
		job = free_job(jobs);
	if (!job) {
		*status = compute(cipher, task, 0, task->length);
		return true;
	}
	job->crypt = crypt;
	job->io = io;
	job->done = done;
	job->task = *task;
	job->slices = slices;
	atomic_store(&job->status, 0);
	atomic_store(&job->left, slices);
	atomic_store(&job->next, 0);
	ask_for_help(job, slices - 1 < crypt->helpers ? slices - 1 : crypt->helpers);
	if (!claim(job, &n) || !settle(job, do_slices(job, cipher, n)))
		return false;
	*status = atomic_load(&job->status);
	return true;
}
