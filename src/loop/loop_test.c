/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop_test.c - a loop's promises, on both engines: order, wake-ups, sleep, and nothing
 * called after it was taken away. Runs under ThreadSanitizer too.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "loop/loop.h"
#include "util/error.h"

#define MS 1000000ull /* ns */

static enum loop_engine engine;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void rest(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000l }, NULL);
}

static struct loop *make_loop(uint64_t poll_limit)
{
	struct loop_config config = {
		.name = "test", .engine = engine, .cpu = -1, .poll_limit = poll_limit
	};
	struct error err = { 0 };
	struct loop *loop = loop_create(&config, &err);

	if (!loop)
		fail_msg("%s", err.text);
	return loop;
}

/* --- a loop on this thread, ended by a test's own event or after @PATIENCE ------------- */

#define PATIENCE (5000 * MS)

static struct {
	struct loop *loop;
	struct loop_timer limit;
	bool late;
} here;

static void too_late(struct loop_timer *timer)
{
	(void)timer;
	here.late = true;
	loop_stop(here.loop);
}

static void run_here(struct loop_message *first)
{
	struct error err = { 0 };

	here.late = false;
	loop_timer_init(&here.limit, too_late);
	loop_timer_set(here.loop, &here.limit, now() + PATIENCE);
	loop_send(here.loop, first);
	assert_int_equal(loop_run(here.loop, &err), 0);
	loop_timer_cancel(&here.limit);
	loop_destroy(here.loop);
	assert_false(here.late);
}

/* --- timers --------------------------------------------------------------------------- */

static struct {
	struct loop_timer timer[6];
	unsigned fired[6], count;
	uint64_t began, at[6];
} timers;

static void fired(struct loop_timer *timer)
{
	unsigned i = (unsigned)(timer - timers.timer);

	timers.at[timers.count] = now() - timers.began;
	timers.fired[timers.count++] = i;
	if (i == 1)
		loop_timer_cancel(&timers.timer[4]); /* it never fires */
	if (i == 2)
		loop_stop(here.loop);
}

static void set_timers(struct loop_message *message)
{
	uint64_t at = loop_now(here.loop);

	(void)message;
	for (unsigned i = 0; i < 6; i++)
		loop_timer_init(&timers.timer[i], fired);
	loop_timer_set(here.loop, &timers.timer[0], at + 30 * MS);
	loop_timer_set(here.loop, &timers.timer[1], at + 10 * MS);
	loop_timer_set(here.loop, &timers.timer[2], at + 50 * MS);
	loop_timer_set(here.loop, &timers.timer[3], at + 10 * MS); /* after 1: set after it */
	loop_timer_set(here.loop, &timers.timer[4], at + 40 * MS);
	loop_timer_set(here.loop, &timers.timer[5], at + 1 * MS);
	loop_timer_set(here.loop, &timers.timer[5], at + 20 * MS); /* replaced */
}

static void timers_fire_in_order(void **unused)
{
	static const unsigned expected[] = { 1, 3, 5, 0, 2 };
	struct loop_message first = { .run = set_timers };

	(void)unused;
	memset(&timers, 0, sizeof timers);
	here.loop = make_loop(0);
	timers.began = now();
	run_here(&first);
	assert_int_equal(timers.count, 5);
	assert_memory_equal(timers.fired, expected, sizeof expected);
	assert_in_range(timers.at[0], 10 * MS, 1000 * MS);
	assert_in_range(timers.at[4], 50 * MS, 1000 * MS);
}

/* --- messages ------------------------------------------------------------------------- */

#define SENDERS  4
#define MESSAGES 2000

struct numbered {
	struct loop_message message;
	unsigned sender, number;
};

static struct {
	struct loop *loop;
	struct numbered numbered[SENDERS][MESSAGES];
	unsigned next[SENDERS];
	unsigned disorder;
	atomic_uint received;
} post;

static void received(struct loop_message *message)
{
	struct numbered *n = container_of(message, struct numbered, message);

	post.disorder += post.next[n->sender]++ != n->number || loop_self() != post.loop;
	atomic_fetch_add(&post.received, 1);
}

static void *send_all(void *data)
{
	struct numbered *n = data;

	for (unsigned i = 0; i < MESSAGES; i++) {
		n[i].message.run = received;
		n[i].number = i;
		loop_send(post.loop, &n[i].message);
		if (i % 400 == 0)
			rest(1); /* so that the loop sleeps meanwhile */
	}
	return NULL;
}

static void messages_arrive_in_order(void **unused)
{
	pthread_t sender[SENDERS];
	struct error err = { 0 };

	(void)unused;
	memset(&post, 0, sizeof post);
	post.loop = make_loop(0);
	assert_int_equal(loop_start(post.loop, &err), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		for (unsigned k = 0; k < MESSAGES; k++)
			post.numbered[i][k].sender = i;
		assert_int_equal(pthread_create(&sender[i], NULL, send_all, post.numbered[i]), 0);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(sender[i], NULL);
	for (unsigned i = 0; i < 5000 && atomic_load(&post.received) < SENDERS * MESSAGES; i++)
		rest(1);
	loop_stop(post.loop);
	loop_destroy(post.loop);
	assert_int_equal(post.received, SENDERS * MESSAGES);
	assert_int_equal(post.disorder, 0);
}

/* --- sleep ---------------------------------------------------------------------------- */

struct cpu_question {
	struct loop_message message;
	uint64_t cpu; /* ns that the loop's thread has used */
	atomic_bool answered;
};

static void tell_cpu(struct loop_message *message)
{
	struct cpu_question *q = container_of(message, struct cpu_question, message);
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	q->cpu = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	atomic_store(&q->answered, true);
}

/* Also a proof that a message wakes a loop. */
static uint64_t ask_cpu(struct loop *loop)
{
	struct cpu_question q = { .message.run = tell_cpu };

	loop_send(loop, &q.message);
	for (unsigned i = 0; i < 5000 && !atomic_load(&q.answered); i++)
		rest(1);
	assert_true(atomic_load(&q.answered));
	return q.cpu;
}

static void idle_loop_uses_no_cpu(void **unused)
{
	struct error err = { 0 };
	struct loop *loop = make_loop(50000);
	uint64_t before;

	(void)unused;
	assert_int_equal(loop_start(loop, &err), 0);
	rest(20);
	before = ask_cpu(loop);
	rest(400);
	assert_in_range(ask_cpu(loop) - before, 0, 40 * MS); /* a loop that spins: 400 */
	loop_stop(loop);
	loop_destroy(loop);
}

/* --- watches -------------------------------------------------------------------------- */

static struct {
	struct loop_watch *watch[3];
	int fd[3];
	unsigned ready[3], after_removal;
	bool removed[3];
	struct loop_message again;
	struct loop_timer end;
} watched;

static void write_one(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof one), sizeof one);
}

static void remove_watch(unsigned i)
{
	loop_watch_remove(here.loop, watched.watch[i]);
	close(watched.fd[i]); /* may be done at once */
	watched.removed[i] = true;
}

static void is_ready(void *data)
{
	unsigned i = (unsigned)(uintptr_t)data;

	watched.after_removal += watched.removed[i];
	watched.ready[i]++;
	if (i == 0 && watched.ready[0] < 3) {
		write_one(watched.fd[0]); /* a new edge, though it was never read */
	} else if (i == 0) {
		write_one(watched.fd[0]); /* nobody shall see this one */
		write_one(watched.fd[1]);
		remove_watch(0);                               /* in its own callback */
		loop_watch_again(here.loop, watched.watch[0]); /* which is in vain */
	} else if (i == 1) {
		write_one(watched.fd[2]);
		remove_watch(2); /* ready, and taken out before it is called */
		remove_watch(1);
		loop_timer_set(here.loop, &watched.end, loop_now(here.loop) + 50 * MS);
	}
}

static void watches_over(struct loop_timer *timer)
{
	(void)timer;
	loop_stop(here.loop);
}

static void add_watches(struct loop_message *message)
{
	(void)message;
	for (unsigned i = 1; i < 3; i++)
		watched.watch[i] =
			loop_watch_add(here.loop, watched.fd[i], is_ready, (void *)(uintptr_t)i);
	write_one(watched.fd[0]);
}

static void watches_are_edges_and_end(void **unused)
{
	struct loop_message first = { .run = add_watches };

	(void)unused;
	memset(&watched, 0, sizeof watched);
	loop_timer_init(&watched.end, watches_over);
	for (unsigned i = 0; i < 3; i++)
		watched.fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	here.loop = make_loop(0);
	/* One before the loop runs, the others while it does. */
	watched.watch[0] = loop_watch_add(here.loop, watched.fd[0], is_ready, NULL);
	run_here(&first);
	assert_int_equal(watched.ready[0], 3);
	assert_int_equal(watched.ready[1], 1);
	assert_int_equal(watched.ready[2], 0);
	assert_int_equal(watched.after_removal, 0);
}

/* Two that never come to an end of what there is, beside a timer, a message and each other. */
static struct {
	struct loop_watch *watch[2];
	unsigned calls[2], messages;
	struct loop_message message;
	struct loop_timer timer;
} endless;

static void endless_ready(void *data)
{
	unsigned i = (unsigned)(uintptr_t)data;

	endless.calls[i]++;
	if (!i && endless.calls[0] == 10)
		loop_send(here.loop, &endless.message);
	loop_watch_again(here.loop, endless.watch[i]);
	loop_watch_again(here.loop, endless.watch[i]); /* twice is once */
}

static void endless_asked(struct loop_message *message)
{
	(void)message;
	endless.messages = endless.calls[0];
}

static void endless_over(struct loop_timer *timer)
{
	if (endless.calls[0] <= 20) { /* another thread had the core */
		loop_timer_set(here.loop, timer, loop_now(here.loop) + 20 * MS);
		return;
	}
	assert_in_range(endless.calls[0] - endless.calls[1], 0, 1);
	assert_in_range(endless.messages, 10, 12);
	for (unsigned i = 0; i < 2; i++) /* which are to be called again */
		loop_watch_remove(here.loop, endless.watch[i]);
	loop_stop(here.loop);
}

static void begin_endless(struct loop_message *message)
{
	(void)message;
	loop_timer_set(here.loop, &endless.timer, loop_now(here.loop) + 20 * MS);
}

static void watches_again_leave_turns(void **unused)
{
	struct loop_message first = { .run = begin_endless };
	int fd[2];

	(void)unused;
	memset(&endless, 0, sizeof endless);
	loop_timer_init(&endless.timer, endless_over);
	endless.message.run = endless_asked;
	here.loop = make_loop(0);
	for (unsigned i = 0; i < 2; i++) {
		fd[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		endless.watch[i] =
			loop_watch_add(here.loop, fd[i], endless_ready, (void *)(uintptr_t)i);
	}
	run_here(&first);
	for (unsigned i = 0; i < 2; i++)
		close(fd[i]);
}

/* A loop that stops while a handler has left something, and runs once more. */
static struct loop_watch *unfinished;

static void leave_some(void *data)
{
	(void)data;
	loop_watch_again(here.loop, unfinished);
	loop_stop(here.loop);
}

static void stop_here(struct loop_message *message)
{
	(void)message;
	loop_stop(here.loop);
}

static void watches_end_with_the_run(void **unused)
{
	struct loop_message first = { .run = stop_here };
	struct error err = { 0 };
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	(void)unused;
	here.loop = make_loop(0);
	unfinished = loop_watch_add(here.loop, fd, leave_some, NULL);
	assert_int_equal(loop_run(here.loop, &err), 0);
	run_here(&first);
	close(fd);
}

/* Somebody calls while there are no descriptors. */
static struct {
	struct loop_watch *watch;
	struct rlimit limit; /* before */
	int errors[2], accepted;
	unsigned calls;
} caller;

static void accept_caller(void *data)
{
	int fd = loop_watch_accept(here.loop, caller.watch);

	(void)data;
	if (fd >= 0) {
		caller.accepted = fd;
		loop_stop(here.loop);
	} else if (caller.calls < 2) {
		caller.errors[caller.calls++] = fd;
	}
	if (caller.calls == 2)
		setrlimit(RLIMIT_NOFILE, &caller.limit);
}

static void call(struct loop_message *message)
{
	struct rlimit none = caller.limit;

	(void)message;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
}

static void callers_are_accepted_later(void **unused)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX }; /* a name is made up */
	socklen_t length = sizeof any;
	int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int calling = socket(AF_UNIX, SOCK_STREAM, 0);
	struct loop_message first = { .run = call };

	(void)unused;
	memset(&caller, 0, sizeof caller);
	caller.accepted = -1;
	getrlimit(RLIMIT_NOFILE, &caller.limit);
	assert_int_equal(bind(listening, (struct sockaddr *)&any, sizeof any.sun_family), 0);
	assert_int_equal(listen(listening, 1), 0);
	assert_int_equal(getsockname(listening, (struct sockaddr *)&any, &length), 0);
	assert_int_equal(connect(calling, (struct sockaddr *)&any, length), 0);
	here.loop = make_loop(0);
	caller.watch = loop_watch_add(here.loop, listening, accept_caller, NULL);
	run_here(&first);
	setrlimit(RLIMIT_NOFILE, &caller.limit);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(caller.errors[i], -EMFILE);
	assert_true(caller.accepted >= 0);
	close(caller.accepted);
	close(calling);
	close(listening);
}

/* A socket that is full, until the other end is read. */
static struct {
	struct loop_watch *watch;
	int fd[2];
	unsigned ready;
	struct loop_timer empty;
} filled;

static void is_writable(void *data)
{
	(void)data;
	if (send(filled.fd[0], "", 1, MSG_DONTWAIT) != 1)
		return; /* it may report once when it is added */
	filled.ready++;
	loop_watch_remove(here.loop, filled.watch);
	loop_stop(here.loop);
}

static void empty_it(struct loop_timer *timer)
{
	static char bytes[1 << 20];

	(void)timer;
	assert_int_equal(filled.ready, 0);
	while (recv(filled.fd[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
}

static void fill_it(struct loop_message *message)
{
	static const char bytes[4096];

	(void)message;
	while (send(filled.fd[0], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	filled.watch = loop_watch_add_writable(here.loop, filled.fd[0], is_writable, NULL);
	loop_timer_set(here.loop, &filled.empty, loop_now(here.loop) + 30 * MS);
}

static void watches_for_room(void **unused)
{
	struct loop_message first = { .run = fill_it };

	(void)unused;
	memset(&filled, 0, sizeof filled);
	loop_timer_init(&filled.empty, empty_it);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, filled.fd), 0);
	here.loop = make_loop(0);
	run_here(&first);
	assert_int_equal(filled.ready, 1);
	close(filled.fd[0]);
	close(filled.fd[1]);
}

#define CONNECTIONS 200

struct connection {
	struct loop_watch *watch;
	int ours;
};

static struct {
	struct connection connection[CONNECTIONS];
	struct loop *loop;
	struct {
		struct loop_message message;
		struct connection *connection;
		atomic_bool done;
	} open[CONNECTIONS];
} server;

/* Takes all there is, and closes in its own callback. */
static void connection_ready(void *data)
{
	struct connection *c = data;
	char bytes[16];
	ssize_t n;

	do
		n = read(c->ours, bytes, sizeof bytes);
	while (n > 0);
	if (n < 0)
		return;
	loop_watch_remove(server.loop, c->watch);
	close(c->ours);
}

static void open_connection(struct loop_message *message)
{
	unsigned i = (unsigned)((char *)message - (char *)server.open) / sizeof *server.open;
	struct connection *c = server.open[i].connection;

	c->watch = loop_watch_add(server.loop, c->ours, connection_ready, c);
	atomic_store(&server.open[i].done, true);
}

/* The other side sees the end of a descriptor that was watched, closed while events came in. */
static void closed_descriptors_are_let_go(void **unused)
{
	struct timeval limit = { .tv_sec = 5 };
	struct error err = { 0 };
	int pair[2];
	ssize_t n;
	char byte;

	(void)unused;
	memset(&server, 0, sizeof server);
	server.loop = make_loop(0);
	assert_int_equal(loop_start(server.loop, &err), 0);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &server.connection[i];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		fcntl(pair[1], F_SETFL, O_NONBLOCK);
		setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		c->ours = pair[1];
		server.open[i].connection = c;
		server.open[i].message.run = open_connection;
		loop_send(server.loop, &server.open[i].message);
		if (i % 2)
			while (!atomic_load(&server.open[i].done))
				sched_yield();
		assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
		shutdown(pair[0], SHUT_WR);
		/* The kernel may interrupt it: rings of earlier tests are still going. */
		do
			n = read(pair[0], &byte, 1);
		while (n < 0 && errno == EINTR);
		if (n != 0)
			fail_msg("connection %u is still open after 5 s", i);
		close(pair[0]);
	}
	loop_stop(server.loop);
	loop_destroy(server.loop);
}

/* --- tasks ---------------------------------------------------------------------------- */

static struct {
	struct loop_task task[4];
	char order[16];
	unsigned count;
} tasks;

static void run_task(struct loop_task *task)
{
	unsigned i = (unsigned)(task - tasks.task);

	tasks.order[tasks.count++] = (char)('0' + i);
	if (i == 1 && tasks.count < 6) {
		loop_task_queue(here.loop, &tasks.task[3]); /* in this turn still */
		loop_task_queue(here.loop, &tasks.task[1]); /* and itself */
	}
	if (i == 3 && tasks.count > 5)
		loop_stop(here.loop);
}

static void queue_tasks(struct loop_message *message)
{
	(void)message;
	for (unsigned i = 0; i < 4; i++)
		tasks.task[i].run = run_task;
	loop_task_queue(here.loop, &tasks.task[2]);
	loop_task_queue(here.loop, &tasks.task[0]);
	loop_task_queue(here.loop, &tasks.task[2]); /* no effect */
	loop_task_queue(here.loop, &tasks.task[1]);
}

static void tasks_run_in_order(void **unused)
{
	struct loop_message first = { .run = queue_tasks };

	(void)unused;
	memset(&tasks, 0, sizeof tasks);
	here.loop = make_loop(0);
	run_here(&first);
	assert_string_equal(tasks.order, "20131"
					 "31");
}

/* --- pollers -------------------------------------------------------------------------- */

static struct {
	struct loop_poller poller;
	unsigned work, polls, arms, races;
	struct loop_timer end;
	uint64_t window;
	unsigned polls_when_armed;
} polled;

static bool poll_work(struct loop_poller *poller)
{
	(void)poller;
	polled.polls++;
	if (!polled.work)
		return false;
	polled.work--;
	return true;
}

/* At first something comes just while it is armed. */
static bool arm_racing(struct loop_poller *poller)
{
	(void)poller;
	polled.arms++;
	if (!polled.races)
		return false;
	polled.races--;
	polled.work++;
	return true;
}

static void start_poller(struct loop_message *message)
{
	(void)message;
	loop_poller_wake(here.loop, &polled.poller);
	loop_poller_wake(here.loop, &polled.poller); /* no effect */
	loop_timer_set(here.loop, &polled.end, loop_now(here.loop) + 100 * MS);
}

static void polling_over(struct loop_timer *timer)
{
	(void)timer;
	polled.polls_when_armed = polled.polls;
	loop_poller_stop(here.loop, &polled.poller);
	loop_stop(here.loop);
}

static void pollers_take_all_and_arm(void **unused)
{
	struct loop_message first = { .run = start_poller };

	(void)unused;
	memset(&polled, 0, sizeof polled);
	loop_poller_init(&polled.poller, poll_work, arm_racing);
	loop_timer_init(&polled.end, polling_over);
	polled.work = 10;
	polled.races = 3;
	here.loop = make_loop(0); /* without polling: armed as soon as there is nothing */
	run_here(&first);
	assert_int_equal(polled.work, 0);
	assert_int_equal(polled.arms, 4);
	assert_int_equal(polled.polls, 10 + 3 + 4); /* with work; and once before each arming */
}

/* In its second turn the first one stops those behind it. */

static struct {
	struct loop_poller poller[3];
	unsigned polls[3];
} chain;

static bool stop_others(struct loop_poller *poller)
{
	unsigned i = (unsigned)(poller - chain.poller);

	if (++chain.polls[i] == 2)
		for (unsigned j = 1; j < 3; j++)
			loop_poller_stop(here.loop, &chain.poller[j]);
	if (chain.polls[0] == 4)
		loop_stop(here.loop);
	return true;
}

static bool never_armed(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

static void start_chain(struct loop_message *message)
{
	(void)message;
	for (unsigned i = 0; i < 3; i++) {
		loop_poller_init(&chain.poller[i], stop_others, never_armed);
		loop_poller_wake(here.loop, &chain.poller[i]);
	}
}

static void pollers_stop_one_another(void **unused)
{
	struct loop_message first = { .run = start_chain };

	(void)unused;
	memset(&chain, 0, sizeof chain);
	here.loop = make_loop(0);
	run_here(&first);
	assert_true(chain.polls[0] >= 4);
	assert_int_equal(chain.polls[1], 1);
	assert_int_equal(chain.polls[2], 1);
}

/* A guest that reacts 20 us after each completion. */
static struct {
	struct loop_poller poller;
	uint64_t given;
	unsigned rounds, arms;
	bool stopped;
	struct loop_timer end;
	struct loop_task complete;
} guest;

#define ROUNDS 300

static bool guest_reacts(struct loop_poller *poller)
{
	if (guest.rounds == ROUNDS || now() - guest.given < 20000)
		return false;
	(void)poller;
	loop_task_queue(here.loop, &guest.complete);
	return true;
}

static void guest_is_given(struct loop_task *task)
{
	(void)task;
	guest.given = now();
	loop_poller_settled(here.loop, &guest.poller);
	if (++guest.rounds == ROUNDS)
		loop_timer_set(here.loop, &guest.end, loop_now(here.loop) + 50 * MS);
}

/* The notification that it asked for comes when the guest reacts. */
static struct loop_timer notification;

static bool guest_armed(struct loop_poller *poller)
{
	(void)poller;
	guest.arms++;
	if (guest.rounds < ROUNDS)
		loop_timer_set(here.loop, &notification, guest.given + 20000);
	return false;
}

static void notified(struct loop_timer *timer)
{
	(void)timer;
	loop_poller_wake(here.loop, &guest.poller);
}

static void guest_over(struct loop_timer *timer)
{
	(void)timer;
	guest.stopped = !guest.poller.active;
	loop_stop(here.loop);
}

static void start_guest(struct loop_message *message)
{
	(void)message;
	loop_poller_wake(here.loop, &guest.poller);
}

/* The window grows to cover the guest's reaction; idle, the poller leaves the set. */
static void polling_adapts(void **unused)
{
	struct loop_message first = { .run = start_guest };

	(void)unused;
	memset(&guest, 0, sizeof guest);
	loop_poller_init(&guest.poller, guest_reacts, guest_armed);
	loop_timer_init(&guest.end, guest_over);
	loop_timer_init(&notification, notified);
	guest.complete.run = guest_is_given;
	guest.given = now();
	here.loop = make_loop(10 * MS);
	run_here(&first);
	assert_int_equal(guest.rounds, ROUNDS);
	/* Caught by polling but for the first ones and when this machine was busy. */
	assert_in_range(guest.arms, 1, ROUNDS / 2);
	assert_true(guest.stopped);
}

/* --- operations ----------------------------------------------------------------------- */

#define OPS   300
#define BYTES 4096

static struct {
	struct loop_op op[OPS];
	struct iovec vec[OPS][2];
	unsigned char *bytes;
	unsigned step, back, wrong;
	int fd;
} file;

static void next_step(void);

static void operated(struct loop_op *op, int result)
{
	unsigned i = (unsigned)(op - file.op);
	int expected = 0;

	if (op->kind == LOOP_READV || op->kind == LOOP_WRITEV)
		expected = file.step == 4 ? -EBADF : BYTES;
	file.wrong += result != expected || loop_self() != here.loop;
	for (unsigned k = 0; file.step == 1 && k < BYTES; k++)
		file.wrong += file.bytes[i * BYTES + k] != (unsigned char)(i + 1);
	if (++file.back == (file.step == 2 || file.step == 3 ? 1 : OPS))
		next_step();
}

static void submit_op(unsigned i, enum loop_op_kind kind, int fd)
{
	unsigned char *at = file.bytes + i * BYTES;

	/* Every other one in two pieces. */
	file.vec[i][0] = (struct iovec){ at, i % 2 ? BYTES : 1000 };
	file.vec[i][1] = (struct iovec){ at + 1000, BYTES - 1000 };
	file.op[i] = (struct loop_op){
		.done = operated,
		.kind = kind,
		.fd = fd,
		.offset = (uint64_t)i * BYTES,
		.vec = file.vec[i],
		.count = i % 2 ? 1 : 2,
		.flags = kind == LOOP_FALLOCATE ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0,
		.length = BYTES,
	};
	loop_submit(here.loop, &file.op[i]);
}

/* Write all; read all; sync; punch a hole; fail. */
static void next_step(void)
{
	file.back = 0;
	switch (++file.step) {
	case 1:
		memset(file.bytes, 0, (size_t)OPS * BYTES);
		for (unsigned i = 0; i < OPS; i++)
			submit_op(i, LOOP_READV, file.fd);
		break;
	case 2:
		submit_op(0, LOOP_FDATASYNC, file.fd);
		break;
	case 3:
		submit_op(0, LOOP_FALLOCATE, file.fd);
		break;
	case 4:
		for (unsigned i = 0; i < OPS; i++)
			submit_op(i, LOOP_READV, -1);
		break;
	default:
		loop_stop(here.loop);
		break;
	}
}

static void start_ops(struct loop_message *message)
{
	(void)message;
	for (unsigned i = 0; i < OPS; i++) {
		memset(file.bytes + i * BYTES, (int)(i + 1), BYTES);
		submit_op(i, LOOP_WRITEV, file.fd);
	}
}

static void operations_complete(void **unused)
{
	struct loop_message first = { .run = start_ops };
	unsigned char byte = 1;

	(void)unused;
	memset(&file, 0, sizeof file);
	file.fd = memfd_create("ops", MFD_CLOEXEC);
	file.bytes = malloc((size_t)OPS * BYTES);
	here.loop = make_loop(0);
	run_here(&first);
	assert_int_equal(file.step, 5);
	assert_int_equal(file.wrong, 0);
	assert_int_equal(pread(file.fd, &byte, 1, 5), 1);
	assert_int_equal(byte, 0); /* the hole */
	close(file.fd);
	free(file.bytes);
}

/* --- many times ----------------------------------------------------------------------- */

static void starts_and_stops(void **unused)
{
	struct error err = { 0 };

	(void)unused;
	for (unsigned i = 0; i < 40; i++) {
		struct loop *loop = make_loop(0);

		assert_int_equal(loop_start(loop, &err), 0);
		if (i % 2)
			ask_cpu(loop);
		loop_stop(loop);
		loop_destroy(loop);
	}
	loop_destroy(make_loop(0)); /* never started */
	loop_destroy(NULL);
}

static int with_uring(void **unused)
{
	struct error why = { 0 };

	(void)unused;
	engine = LOOP_URING;
	if (!loop_uring_permitted(&why)) {
		print_message("# io_uring is not permitted here (%s): threads once more\n",
			      why.text);
		engine = LOOP_THREADS;
	}
	return 0;
}

static int with_threads(void **unused)
{
	(void)unused;
	engine = LOOP_THREADS;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_order),
		cmocka_unit_test(messages_arrive_in_order),
		cmocka_unit_test(idle_loop_uses_no_cpu),
		cmocka_unit_test(watches_are_edges_and_end),
		cmocka_unit_test(watches_again_leave_turns),
		cmocka_unit_test(watches_end_with_the_run),
		cmocka_unit_test(callers_are_accepted_later),
		cmocka_unit_test(watches_for_room),
		cmocka_unit_test(closed_descriptors_are_let_go),
		cmocka_unit_test(tasks_run_in_order),
		cmocka_unit_test(pollers_take_all_and_arm),
		cmocka_unit_test(pollers_stop_one_another),
		cmocka_unit_test(polling_adapts),
		cmocka_unit_test(operations_complete),
		cmocka_unit_test(starts_and_stops),
	};
	int failed = cmocka_run_group_tests_name("io_uring", tests, with_uring, NULL);

	return failed + cmocka_run_group_tests_name("threads", tests, with_threads, NULL);
}
