/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine_threads.c - a loop's engine where io_uring is not permitted: epoll for
 * readiness, and worker threads that make the blocking system calls
 *
 * Containers often forbid io_uring. Operations wait in a list for one of the workers,
 * which start as depth asks for them, up to WORKERS; what is complete goes to a second
 * list, and an eventfd in the epoll set wakes the loop if it sleeps. While the loop polls
 * it asks epoll only every CHECK_NS, for that is a system call.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop/engine.h"
#include "util/error.h"

#define WORKERS  16
#define CHECK_NS 10000
#define EVENTS   64

struct engine {
	struct loop *loop;
	int epoll, wake_fd;
	uint64_t checked; /* ns; when epoll was last asked */
	bool removals;    /* of watches, since */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work;
	struct loop_op *waiting, **waiting_last;
	unsigned waiting_count, idle, workers;
	bool closing;
	pthread_t thread[WORKERS];

	atomic_bool asleep;
	_Atomic(struct loop_op *) complete; /* latest first */
};

static int perform(const struct loop_op *op)
{
	ssize_t n = 0;

	switch (op->kind) {
	case LOOP_READV:
		n = preadv2(op->fd, op->vec, (int)op->count, (off_t)op->offset, op->flags);
		break;
	case LOOP_WRITEV:
		n = pwritev2(op->fd, op->vec, (int)op->count, (off_t)op->offset, op->flags);
		break;
	case LOOP_FDATASYNC:
		n = fdatasync(op->fd);
		break;
	case LOOP_FALLOCATE:
		n = fallocate(op->fd, op->flags, (off_t)op->offset, (off_t)op->length);
		break;
	}
	return n < 0 ? -errno : (int)n;
}

static void completed(struct engine *engine, struct loop_op *op, int result)
{
	struct loop_op *first = atomic_load_explicit(&engine->complete, memory_order_relaxed);
	uint64_t one = 1;

	op->result = result;
	do
		op->next = first;
	while (!atomic_compare_exchange_weak(&engine->complete, &first, op));
	if (atomic_load(&engine->asleep) && write(engine->wake_fd, &one, sizeof one) < 0)
		return; /* the counter is full: it is awake */
}

static void *worker(void *data)
{
	struct engine *engine = data;

	pthread_setname_np(pthread_self(), "penstock-io");
	pthread_mutex_lock(&engine->lock);
	for (;;) {
		struct loop_op *op = engine->waiting;

		if (!op) {
			if (engine->closing)
				break;
			engine->idle++;
			pthread_cond_wait(&engine->work, &engine->lock);
			engine->idle--;
			continue;
		}
		engine->waiting = op->next;
		engine->waiting_count--;
		if (!engine->waiting)
			engine->waiting_last = &engine->waiting;
		pthread_mutex_unlock(&engine->lock);
		completed(engine, op, perform(op));
		pthread_mutex_lock(&engine->lock);
	}
	pthread_mutex_unlock(&engine->lock);
	return NULL;
}

static void threads_submit(struct engine *engine, struct loop_op *op)
{
	bool alone;

	pthread_mutex_lock(&engine->lock);
	if (engine->waiting_count >= engine->idle && engine->workers < WORKERS &&
	    !pthread_create(&engine->thread[engine->workers], NULL, worker, engine))
		engine->workers++;
	alone = !engine->workers;
	if (!alone) {
		op->next = NULL;
		*engine->waiting_last = op;
		engine->waiting_last = &op->next;
		engine->waiting_count++;
		pthread_cond_signal(&engine->work);
	}
	pthread_mutex_unlock(&engine->lock);
	if (alone) /* not one thread to be had: slowly, but it goes on */
		completed(engine, op, perform(op));
}

static void threads_watch(struct engine *engine, struct loop_watch *watch)
{
	struct epoll_event event = { .events = (uint32_t)watch->events | EPOLLET,
				     .data.ptr = watch };

	watch->armed = !epoll_ctl(engine->epoll, EPOLL_CTL_ADD, watch->fd, &event);
}

static void threads_unwatch(struct engine *engine, struct loop_watch *watch)
{
	if (watch->armed)
		epoll_ctl(engine->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->armed = false;
	/* Events that were already fetched may still name it: report() sweeps. */
	engine->removals = true;
}

static struct engine *threads_open(struct loop *loop, struct error *err)
{
	struct engine *engine = calloc(1, sizeof *engine);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	if (!engine) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	engine->loop = loop;
	engine->waiting_last = &engine->waiting;
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->work, NULL);
	engine->epoll = epoll_create1(EPOLL_CLOEXEC);
	engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (engine->epoll < 0 || engine->wake_fd < 0 ||
	    epoll_ctl(engine->epoll, EPOLL_CTL_ADD, engine->wake_fd, &event)) {
		error_set(err, errno, "cannot set up a thread pool: %s", strerror(errno));
		close(engine->epoll);
		close(engine->wake_fd);
		free(engine);
		return NULL;
	}
	return engine;
}

static void threads_close(struct engine *engine)
{
	pthread_mutex_lock(&engine->lock);
	engine->closing = true;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
	for (unsigned i = 0; i < engine->workers; i++)
		pthread_join(engine->thread[i], NULL);
	close(engine->epoll);
	close(engine->wake_fd);
	free(engine);
}

static bool report_complete(struct engine *engine)
{
	struct loop_op *op, *in_order = NULL;

	if (!atomic_load_explicit(&engine->complete, memory_order_relaxed))
		return false;
	op = atomic_exchange(&engine->complete, NULL);
	while (op) {
		struct loop_op *next = op->next;

		op->next = in_order;
		in_order = op;
		op = next;
	}
	while ((op = in_order)) {
		in_order = op->next;
		op->done(op, op->result);
	}
	return true;
}

static void report_events(struct engine *engine, struct epoll_event *events, int count,
			  struct list *watches)
{
	for (int i = 0; i < count; i++) {
		struct loop_watch *watch = events[i].data.ptr;

		if (watch && !watch->removed)
			watch->ready(watch->data);
	}
	if (engine->removals) {
		engine->removals = false;
		list_for_each (link, watches) {
			struct loop_watch *watch = container_of(link, struct loop_watch, link);

			if (watch->removed)
				loop_watch_free(watch);
		}
	}
}

static void threads_turn(struct engine *engine, uint64_t timeout)
{
	struct epoll_event events[EVENTS];
	uint64_t now = loop_now(engine->loop);
	int ms = 0, count;

	if (report_complete(engine))
		return;
	if (timeout == 0) {
		if (now - engine->checked < CHECK_NS && !engine->removals)
			return;
	} else {
		ms = timeout == UINT64_MAX ? -1 : (int)((timeout + 999999) / 1000000);
		atomic_store(&engine->asleep, true);
		if (atomic_load(&engine->complete))
			ms = 0;
	}
	count = epoll_wait(engine->epoll, events, EVENTS, ms);
	atomic_store_explicit(&engine->asleep, false, memory_order_relaxed);
	if (timeout)
		loop_woke(engine->loop);
	engine->checked = now;
	report_events(engine, events, count, loop_watches(engine->loop));
	report_complete(engine);
}

const struct engine_ops engine_threads = {
	.name = "threads",
	.open = threads_open,
	.close = threads_close,
	.submit = threads_submit,
	.watch = threads_watch,
	.unwatch = threads_unwatch,
	.turn = threads_turn,
};
