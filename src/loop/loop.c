/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop.c - the turn of a loop, and when it may sleep
 *
 * Polling. A guest's notification costs it an exit and us a wake-up, some microseconds
 * together; looking at its ring costs nanoseconds. So after a guest was given something
 * (completions) its ring is polled for the time in which it is likely to react, its
 * window. What the window should be is learned from each ring itself:
 *
 *   - the guest reacted while we polled: the window becomes twice the time it took, smoothed,
 *     so that it stays a little longer than the guest needs;
 *   - the window passed in vain: it is halved, down to nothing;
 *   - the guest notified us and polling for at most the limit would have caught it:
 *     the window grows to cover that.
 *
 * Requests that wait for a device give the guest nothing to react to, so a loop does not
 * spin while it waits for storage: after taking requests it polls only for GRACE, and only
 * if the guest has fewer in flight than it uses to, and so is in the middle of submitting more.
 *
 * A turn that found work looks once more before it goes to the kernel: what came meanwhile is
 * submitted together, and if nothing came the loop submits and sleeps in one system call.
 *
 * Sleep. Before it sleeps a loop arms each poller (the ring is told to notify, then
 * looked at once more), announces that it sleeps, and looks at its messages once more.
 */
#include "loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loop/engine.h"
#include "util/error.h"
#include "util/log.h"

#define GRACE      1000      /* ns to wait for more requests of one submission */
#define PASSES     2         /* before the kernel is given what was prepared */
#define WINDOW_MIN 2000      /* ns; a shorter window is none */
#define RETRY      100000000 /* ns until one who could not be accepted is tried again */

struct loop {
	struct loop *outer; /* that this thread was running when it began with this one */
	struct loop_config config;
	char name[16];
	const struct engine_ops *ops;
	struct engine *engine;
	uint64_t now;
	bool running;
	pthread_t thread;
	bool started;

	struct list pollers;      /* active ones */
	struct list *next_poller; /* while they run: a poller may stop another */
	struct list timers;       /* earliest first */
	struct list watches;
	struct list again; /* of those, what is called without an event */
	struct loop_task *tasks, **tasks_last;

	_Atomic(struct loop_message *) inbox; /* latest first */
	atomic_uint senders; /* in loop_send(): what they sent may be the reason to end the loop */
	atomic_bool asleep;
	int wake_fd;
	struct loop_message stop;
	atomic_bool stopping; /* the message is on its way */
};

static _Thread_local struct loop *self;

struct loop *loop_self(void)
{
	return self;
}

uint64_t loop_now(const struct loop *loop)
{
	return loop->now;
}

static uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

const char *loop_engine_name(const struct loop *loop)
{
	return loop->ops->name;
}

bool loop_is_passing(const struct loop *loop)
{
	return loop->config.passing;
}

/* --- life of a loop ----------------------------------------------------------------- */

static void stop_received(struct loop_message *message)
{
	struct loop *loop = container_of(message, struct loop, stop);

	atomic_store(&loop->stopping, false);
	loop->running = false;
}

struct loop *loop_create(const struct loop_config *config, struct error *err)
{
	struct loop *loop = calloc(1, sizeof *loop);

	if (!loop) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	loop->config = *config;
	strncpy(loop->name, config->name, sizeof loop->name - 1);
	loop->ops = config->engine == LOOP_THREADS ? &engine_threads : &engine_uring;
	if (config->engine == LOOP_AUTO && !loop_uring_permitted(NULL))
		loop->ops = &engine_threads;
	list_init(&loop->pollers);
	list_init(&loop->timers);
	list_init(&loop->watches);
	list_init(&loop->again);
	loop->tasks_last = &loop->tasks;
	loop->stop.run = stop_received;
	loop->now = clock_now();
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		error_set(err, errno, "eventfd: %s", strerror(errno));
		free(loop);
		return NULL;
	}
	return loop;
}

static void woken(void *data)
{
	(void)data; /* the messages are read each turn */
}

/* On the loop's own thread, where io_uring wants its ring to be made. */
static int enter(struct loop *loop, struct error *err)
{
	cpu_set_t cpus;

	loop->outer = self;
	self = loop;
	if (!loop->outer)
		pthread_setname_np(pthread_self(), loop->name);
	if (loop->config.cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET(loop->config.cpu, &cpus);
		if (sched_setaffinity(0, sizeof cpus, &cpus))
			log_warn("loop %s cannot run on core %d alone: %s", loop->name,
				 loop->config.cpu, strerror(errno));
	}
	loop->engine = loop->ops->open(loop, err);
	if (!loop->engine)
		return -err->code;
	list_for_each (link, &loop->watches)
		loop->ops->watch(loop->engine, container_of(link, struct loop_watch, link));
	if (!loop_watch_add(loop, loop->wake_fd, woken, loop)) {
		loop->ops->close(loop->engine);
		return error_set(err, ENOMEM, "out of memory");
	}
	loop->running = true;
	return 0;
}

static void turn(struct loop *loop);

static void leave(struct loop *loop)
{
	loop->ops->close(loop->engine);
	loop->engine = NULL;
	list_for_each (link, &loop->watches)
		loop_watch_free(container_of(link, struct loop_watch, link));
	list_init(&loop->again); /* they were of those */
	self = loop->outer;
}

int loop_run(struct loop *loop, struct error *err)
{
	int ret = enter(loop, err);

	if (ret) {
		self = loop->outer;
		return ret;
	}
	while (loop->running)
		turn(loop);
	leave(loop);
	return 0;
}

struct start {
	struct loop *loop;
	struct error error;
	int result;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool known;
};

static void *thread_main(void *data)
{
	struct start *start = data;
	struct loop *loop = start->loop;
	int ret = enter(loop, &start->error);

	pthread_mutex_lock(&start->lock);
	start->result = ret;
	start->known = true;
	pthread_cond_signal(&start->changed);
	pthread_mutex_unlock(&start->lock);
	if (ret)
		return NULL;
	while (loop->running)
		turn(loop);
	leave(loop);
	return NULL;
}

int loop_start(struct loop *loop, struct error *err)
{
	struct start start = { .loop = loop,
			       .lock = PTHREAD_MUTEX_INITIALIZER,
			       .changed = PTHREAD_COND_INITIALIZER };
	int ret = pthread_create(&loop->thread, NULL, thread_main, &start);

	if (ret)
		return error_set(err, ret, "cannot start a thread: %s", strerror(ret));
	pthread_mutex_lock(&start.lock);
	while (!start.known)
		pthread_cond_wait(&start.changed, &start.lock);
	pthread_mutex_unlock(&start.lock);
	if (start.result) {
		pthread_join(loop->thread, NULL);
		return error_set(err, start.error.code, "%s", start.error.text);
	}
	loop->started = true;
	return 0;
}

void loop_stop(struct loop *loop)
{
	if (!atomic_exchange(&loop->stopping, true))
		loop_send(loop, &loop->stop);
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->started)
		pthread_join(loop->thread, NULL);
	while (atomic_load_explicit(&loop->senders, memory_order_acquire))
		sched_yield();
	list_for_each (link, &loop->watches)
		free(container_of(link, struct loop_watch, link));
	close(loop->wake_fd);
	free(loop);
}

/* --- messages ----------------------------------------------------------------------- */

void loop_send(struct loop *loop, struct loop_message *message)
{
	struct loop_message *first;

	atomic_fetch_add_explicit(&loop->senders, 1, memory_order_relaxed);
	first = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
	do
		message->next = first;
	while (!atomic_compare_exchange_weak(&loop->inbox, &first, message));
	/* Sequentially consistent against fall_asleep(): one of the two sees the other. */
	if (atomic_load(&loop->asleep)) {
		uint64_t one = 1;

		if (write(loop->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
			log_error("cannot wake loop %s: %s", loop->name, strerror(errno));
	}
	atomic_fetch_sub_explicit(&loop->senders, 1, memory_order_release);
}

static bool run_messages(struct loop *loop)
{
	struct loop_message *message, *in_order = NULL;

	if (!atomic_load_explicit(&loop->inbox, memory_order_relaxed))
		return false;
	message = atomic_exchange(&loop->inbox, NULL);
	while (message) {
		struct loop_message *next = message->next;

		message->next = in_order;
		in_order = message;
		message = next;
	}
	while (in_order) {
		message = in_order;
		in_order = message->next;
		message->run(message);
	}
	return true;
}

/* --- timers ------------------------------------------------------------------------- */

void loop_timer_init(struct loop_timer *timer, void (*fire)(struct loop_timer *timer))
{
	list_init(&timer->link);
	timer->fire = fire;
}

/* From the latest back: most timers are set further ahead than those that stand. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at)
{
	struct list *before = loop->timers.prev;

	if (before == &timer->link)
		before = before->prev;
	list_remove(&timer->link);
	timer->at = at;
	while (before != &loop->timers && container_of(before, struct loop_timer, link)->at > at)
		before = before->prev;
	list_add(before->next, &timer->link);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	list_remove(&timer->link);
}

static bool run_timers(struct loop *loop)
{
	bool any = false;

	while (!list_empty(&loop->timers)) {
		struct loop_timer *timer = container_of(loop->timers.next, struct loop_timer, link);

		if (timer->at > loop->now)
			break;
		list_remove(&timer->link);
		timer->fire(timer);
		any = true;
	}
	return any;
}

static uint64_t until_timer(const struct loop *loop)
{
	uint64_t at;

	if (list_empty(&loop->timers))
		return UINT64_MAX;
	at = container_of(loop->timers.next, struct loop_timer, link)->at;
	return at > loop->now ? at - loop->now : 0;
}

/* --- tasks -------------------------------------------------------------------------- */

void loop_task_queue(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*loop->tasks_last = task;
	loop->tasks_last = &task->next;
}

static bool run_tasks(struct loop *loop)
{
	struct loop_task *task;
	bool any = false;

	while ((task = loop->tasks)) {
		loop->tasks = task->next;
		if (!loop->tasks)
			loop->tasks_last = &loop->tasks;
		task->queued = false;
		task->run(task);
		any = true;
	}
	return any;
}

/* --- pollers ------------------------------------------------------------------------ */

void loop_poller_init(struct loop_poller *poller, bool (*poll)(struct loop_poller *),
		      bool (*arm)(struct loop_poller *))
{
	*poller = (struct loop_poller){ .poll = poll, .arm = arm };
	list_init(&poller->link);
}

/* It reacted @gap ns after it was last given something. */
static void learn(struct loop *loop, struct loop_poller *poller, uint64_t gap)
{
	uint64_t limit = loop->config.poll_limit;

	if (gap > limit)
		return;
	poller->window = (3 * poller->window + 2 * gap + WINDOW_MIN) / 4;
	if (poller->window < 2 * gap)
		poller->window = 2 * gap;
	if (poller->window < WINDOW_MIN)
		poller->window = WINDOW_MIN;
	if (poller->window > limit)
		poller->window = limit;
}

void loop_poller_wake(struct loop *loop, struct loop_poller *poller)
{
	if (poller->active)
		return;
	poller->active = true;
	poller->last_work = loop->now;
	list_add(&loop->pollers, &poller->link);
	if (poller->settled) {
		learn(loop, poller, loop->now - poller->settled);
		poller->settled = 0;
	}
}

bool loop_poller_settled(struct loop *loop, struct loop_poller *poller)
{
	poller->settled = loop->now;
	if (!poller->active && poller->window) {
		poller->active = true;
		poller->last_work = loop->now;
		list_add(&loop->pollers, &poller->link);
	}
	return poller->active;
}

void loop_poller_stop(struct loop *loop, struct loop_poller *poller)
{
	if (loop->next_poller == &poller->link)
		loop->next_poller = poller->link.next;
	poller->active = false;
	list_remove(&poller->link);
}

static bool run_pollers(struct loop *loop)
{
	bool any = false;

	for (struct list *link = loop->pollers.next; link != &loop->pollers;
	     link = loop->next_poller) {
		struct loop_poller *poller = container_of(link, struct loop_poller, link);

		loop->next_poller = link->next;
		if (poller->poll(poller)) {
			if (poller->settled) {
				learn(loop, poller, loop->now - poller->settled);
				poller->settled = 0;
			}
			poller->last_work = loop->now;
			any = true;
			continue;
		}
		if (poller->settled) {
			if (loop->now - poller->settled < poller->window)
				continue;
			poller->window /= 2;
			if (poller->window < WINDOW_MIN)
				poller->window = 0;
		} else if (poller->deep && loop->now - poller->last_work < GRACE &&
			   loop->config.poll_limit) {
			continue;
		}
		loop_poller_stop(loop, poller);
		if (poller->arm(poller)) {
			poller->active = true;
			poller->last_work = loop->now;
			list_add(&loop->pollers, &poller->link);
			any = true;
		}
	}
	return any;
}

/* --- watches whose handlers have left something ---------------------------------------- */

static bool run_again(struct loop *loop)
{
	struct list now; /* a handler may remove others, and come again itself in the next pass */

	if (list_empty(&loop->again))
		return false;
	list_init(&now);
	list_for_each (link, &loop->again) {
		list_remove(link);
		list_add(&now, link);
	}
	while (!list_empty(&now)) {
		struct loop_watch *watch = container_of(now.next, struct loop_watch, again);

		list_remove(&watch->again);
		watch->ready(watch->data);
	}
	return true;
}

/* --- the turn ----------------------------------------------------------------------- */

/* True if it really may; messages sent from now on wake the loop. */
static bool fall_asleep(struct loop *loop)
{
	if (!list_empty(&loop->pollers) || !list_empty(&loop->again) || loop->tasks)
		return false;
	atomic_store(&loop->asleep, true);
	if (!atomic_load(&loop->inbox))
		return true;
	atomic_store(&loop->asleep, false);
	return false;
}

static void turn(struct loop *loop)
{
	bool any = true;

	for (unsigned pass = 0; any && pass < PASSES; pass++) {
		loop->now = clock_now();
		any = run_messages(loop);
		any |= run_timers(loop);
		any |= run_pollers(loop);
		any |= run_again(loop);
		any |= run_tasks(loop);
	}
	if (!loop->running)
		return;
	if (any || !fall_asleep(loop)) {
		loop->ops->turn(loop->engine, 0);
		return;
	}
	loop->ops->turn(loop->engine, until_timer(loop));
	atomic_store_explicit(&loop->asleep, false, memory_order_relaxed);
}

/* --- what the engine does ----------------------------------------------------------- */

void loop_submit(struct loop *loop, struct loop_op *op)
{
	loop->ops->submit(loop->engine, op);
}

int loop_file_add(struct loop *loop, int fd)
{
	return loop->ops->file_add ? loop->ops->file_add(loop->engine, fd) + 1 : 0;
}

void loop_file_remove(struct loop *loop, int file)
{
	if (file)
		loop->ops->file_remove(loop->engine, file - 1);
}

int loop_memory_add(struct loop *loop, void *base, size_t length)
{
	return loop->ops->memory_add ? loop->ops->memory_add(loop->engine, base, length) : -ENOTSUP;
}

void loop_memory_remove(struct loop *loop, void *base, size_t length)
{
	loop->ops->memory_remove(loop->engine, base, length);
}

static void retry(struct loop_timer *timer)
{
	struct loop_watch *watch = container_of(timer, struct loop_watch, retry);

	watch->ready(watch->data);
}

static struct loop_watch *add_watch(struct loop *loop, int fd, short events,
				    void (*ready)(void *data), void *data)
{
	struct loop_watch *watch = calloc(1, sizeof *watch);

	if (!watch)
		return NULL;
	*watch = (struct loop_watch){ .fd = fd, .events = events, .ready = ready, .data = data };
	list_init(&watch->again);
	loop_timer_init(&watch->retry, retry);
	list_add(&loop->watches, &watch->link);
	if (loop->engine)
		loop->ops->watch(loop->engine, watch);
	return watch;
}

struct loop_watch *loop_watch_add(struct loop *loop, int fd, void (*ready)(void *data), void *data)
{
	return add_watch(loop, fd, POLLIN, ready, data);
}

struct loop_watch *loop_watch_add_writable(struct loop *loop, int fd, void (*ready)(void *data),
					   void *data)
{
	return add_watch(loop, fd, POLLOUT, ready, data);
}

void loop_watch_again(struct loop *loop, struct loop_watch *watch)
{
	if (watch->removed)
		return;
	list_remove(&watch->again);
	list_add(&loop->again, &watch->again);
}

int loop_watch_accept(struct loop *loop, struct loop_watch *watch)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		return fd;
	fd = -errno;
	if (fd != -EAGAIN)
		loop_timer_set(loop, &watch->retry, loop_now(loop) + RETRY);
	return fd;
}

void loop_watch_remove(struct loop *loop, struct loop_watch *watch)
{
	watch->removed = true;
	list_remove(&watch->again);
	loop_timer_cancel(&watch->retry);
	if (loop->engine)
		loop->ops->unwatch(loop->engine, watch);
	else
		loop_watch_free(watch);
}

void loop_woke(struct loop *loop)
{
	loop->now = clock_now();
}

struct list *loop_watches(struct loop *loop)
{
	return &loop->watches;
}

void loop_watch_free(struct loop_watch *watch)
{
	list_remove(&watch->link);
	loop_timer_cancel(&watch->retry);
	free(watch);
}
