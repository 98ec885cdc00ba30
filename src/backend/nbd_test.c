/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_test.c - one server's disk, used from several loops that come and go, and from sessions
 *
 * Each user has a part of the disk of its own and checks what it reads. So the connections change
 * their owner many times while requests are under way; ThreadSanitizer watches.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/change.h"
#include "layer/session.h"
#include "testing.h"
#include "util/log.h"

#define LOOPS    3u
#define DEPTH    8u
#define PART     (1u << 20) /* bytes of each user */
#define LENGTH   8192u
#define ROUNDS   12u
#define REQUESTS 150u /* of a round */

extern char **environ;

static char directory[200], socket_path[300];
static pid_t server;

static int start_server(void **unused)
{
	struct stat st;
	pid_t pid;
	char *words[] = { (char *)"nbdkit",
			  (char *)"--foreground",
			  (char *)"--exit-with-parent",
			  (char *)"--unix",
			  socket_path,
			  (char *)"memory",
			  (char *)"8M",
			  NULL };

	(void)unused;
	testing_directory(directory);
	snprintf(socket_path, sizeof socket_path, "%s/nbd", directory);
	if (posix_spawnp(&pid, "nbdkit", NULL, NULL, words, environ))
		return -1;
	server = pid;
	for (unsigned i = 0; stat(socket_path, &st); i++) {
		if (i == 500)
			return -1;
		usleep(20000);
	}
	return 0;
}

static int end_server(void **unused)
{
	(void)unused;
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	unlink(socket_path);
	return rmdir(directory);
}

static struct disk *open_disk(const char *connections)
{
	char uri[400];
	struct layer_setting settings[] = { { (char *)"uri", uri, 0 },
					    { (char *)"connections", (char *)connections, 0 } };
	struct layer_config layer = { .ops = layer_find("nbd"), .settings = settings, .count = 2 };
	struct error err = { 0 };
	struct disk *disk;

	snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", socket_path);
	disk = testing_open("test", &(struct disk_config){ 0 }, &layer, 1, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

/* --- a user on a loop --------------------------------------------------------------------------
 */

static struct user {
	struct loop *loop;
	struct loop_message message;
	struct disk *disk;
	struct disk_queue *queue;
	uint64_t first; /* byte of the disk */
	unsigned round, sent, back;
	unsigned char stamp[PART / LENGTH], bytes[DEPTH][LENGTH];
	bool busy[DEPTH];
} users[LOOPS];

static atomic_uint finished, wrong;

static void next_round(struct loop_message *message);

static void send_one(struct user *u, unsigned slot);

static void done(struct layer *layer, struct io *io)
{
	struct user *u = io->queue->owner;
	unsigned slot = (unsigned)io_frame(io)->note[0];
	unsigned place = (unsigned)((io->offset - u->first) / LENGTH);

	(void)layer;
	if (io->status || (io->op == IO_READ && (u->bytes[slot][0] != u->stamp[place] ||
						 u->bytes[slot][LENGTH - 1] != u->stamp[place])))
		atomic_fetch_add(&wrong, 1);
	io_put(io);
	u->back++;
	if (u->sent < REQUESTS)
		send_one(u, slot);
	else if (u->back == u->sent)
		loop_send(u->loop, &u->message);
}

/* Each slot has places of its own, so that no two requests meet. */
static void send_one(struct user *u, unsigned slot)
{
	struct io *io = io_get(&u->queue->ios);
	unsigned place = slot + DEPTH * (unsigned)(rand() % (PART / LENGTH / DEPTH));
	bool write = rand() % 2;

	u->sent++;
	if (write) {
		u->stamp[place]++;
		memset(u->bytes[slot], u->stamp[place], LENGTH);
	}
	io->op = write ? IO_WRITE : IO_READ;
	io->offset = u->first + (uint64_t)place * LENGTH;
	io->length = LENGTH;
	/* Two pieces: a read has to be bounced. */
	io_vector(io)[0] = (struct iovec){ u->bytes[slot] + LENGTH / 2, LENGTH / 2 };
	io_vector(io)[1] = (struct iovec){ u->bytes[slot], LENGTH / 2 };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 2 };
	disk_submit(u->queue, io, done)->note[0] = slot;
}

static void next_round(struct loop_message *message)
{
	struct user *u = container_of(message, struct user, message);

	if (u->queue)
		disk_queue_close(u->queue);
	u->queue = NULL;
	if (u->round++ == ROUNDS) {
		atomic_fetch_add(&finished, 1);
		return;
	}
	u->queue = disk_queue_open(u->disk, u->loop, DEPTH, 2);
	if (!u->queue)
		abort();
	u->queue->ios.owner = u;
	u->sent = u->back = 0;
	for (unsigned slot = 0; slot < DEPTH; slot++)
		send_one(u, slot);
}

/* --- tests
 * ---------------------------------------------------------------------------------------- */

static void session_round(struct disk *disk, uint64_t first, unsigned char stamp)
{
	struct error err = { 0 };
	struct session *session = session_open(disk->top, &err);
	unsigned char bytes[4096];

	if (!session)
		fail_msg("%s", err.text);
	memset(bytes, stamp, sizeof bytes);
	assert_int_equal(session_write(session, first, bytes, sizeof bytes, 0), 0);
	assert_int_equal(session_do(session, IO_FLUSH, 0, 0, 0), 0);
	memset(bytes, 0, sizeof bytes);
	assert_int_equal(session_read(session, first, bytes, sizeof bytes), 0);
	assert_int_equal(bytes[4095], stamp);
	session_close(session);
}

static void clear(struct disk *disk, uint64_t first)
{
	struct error err = { 0 };
	struct session *session = session_open(disk->top, &err);

	assert_non_null(session);
	assert_int_equal(session_do(session, IO_ZEROES, first, PART, 0), 0);
	session_close(session);
}

static void users_come_and_go(const char *connections, enum loop_engine engine)
{
	struct disk *disk = open_disk(connections);
	unsigned char stamp = 0;

	atomic_store(&finished, 0);
	atomic_store(&wrong, 0);
	session_round(disk, LOOPS * PART, ++stamp); /* while nobody else is there */
	for (unsigned i = 0; i < LOOPS; i++) {
		struct loop_config config = { .name = "user", .engine = engine, .cpu = -1 };

		memset(&users[i], 0, sizeof users[i]);
		users[i].disk = disk;
		users[i].first = i * PART;
		users[i].message.run = next_round;
		users[i].loop = loop_create(&config, NULL);
		assert_non_null(users[i].loop);
		assert_int_equal(loop_start(users[i].loop, NULL), 0);
	}
	/* The disk's memory is zeroes at first; what it holds later is written here, too. */
	for (unsigned i = 0; i < LOOPS; i++) {
		clear(disk, users[i].first);
		loop_send(users[i].loop, &users[i].message);
	}
	while (atomic_load(&finished) < LOOPS)
		session_round(disk, LOOPS * PART, ++stamp);
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_stop(users[i].loop);
		loop_destroy(users[i].loop);
	}
	session_round(disk, LOOPS * PART, ++stamp);
	disk_close(disk);
	assert_int_equal(atomic_load(&wrong), 0);
}

static void one_connection(void **unused)
{
	(void)unused;
	users_come_and_go("1", LOOP_AUTO);
}

static void three_connections(void **unused)
{
	(void)unused;
	users_come_and_go("3", LOOP_THREADS);
}

/* --- a change of layers, while the server is mute
 * --------------------------------------------------- */

static struct attempt {
	struct user *user; /* one request, which the server does not answer */
	struct loop *control;
	struct loop_message begin;
	struct loop_timer until_it_is_under_way;
	struct change *change;
	struct change_end end;
	int code;
	char text[480];
} attempt;

static void changed(struct change_end *end, struct error *err)
{
	(void)end;
	attempt.code = err->code;
	snprintf(attempt.text, sizeof attempt.text, "%s", err->text);
	loop_stop(attempt.control);
}

static void commit(struct loop_timer *timer)
{
	(void)timer;
	attempt.end.done = changed;
	change_commit(attempt.change, attempt.control, &attempt.end);
}

static void begin(struct loop_message *message)
{
	(void)message;
	loop_send(attempt.user->loop, &attempt.user->message);
	loop_timer_init(&attempt.until_it_is_under_way, commit);
	loop_timer_set(attempt.control, &attempt.until_it_is_under_way,
		       loop_now(attempt.control) + 200000000);
}

static int change_layers(struct disk *disk, struct user *user)
{
	const struct loop_config config = { .name = "control", .cpu = -1 };
	struct stack_config stack = { 0 };
	struct error err = { 0 };

	/* The same below a layer that does nothing. */
	stack.layers = calloc(2, sizeof *stack.layers);
	stack.count = 2;
	stack.layers[0].ops = layer_find("pass");
	assert_int_equal(layer_config_copy(&stack.layers[1], disk->top->config), 0);
	attempt = (struct attempt){ .user = user, .begin.run = begin, .code = -1 };
	attempt.control = loop_create(&config, NULL);
	attempt.change = change_prepare(disk, &stack, &err);
	if (!attempt.change)
		fail_msg("%s", err.text);
	loop_send(attempt.control, &attempt.begin);
	assert_int_equal(loop_run(attempt.control, NULL), 0);
	change_finish(attempt.change);
	loop_destroy(attempt.control);
	stack_config_release(&stack);
	return attempt.code;
}

static void a_change_does_not_wait_for_a_mute_server(void **unused)
{
	const struct loop_config config = { .name = "user", .cpu = -1 };
	struct disk *disk = open_disk("1");
	struct user *user = &users[0];

	(void)unused;
	atomic_store(&finished, 0);
	atomic_store(&wrong, 0);
	memset(user, 0, sizeof *user);
	user->disk = disk;
	user->round = ROUNDS - 1;
	user->message.run = next_round;
	user->loop = loop_create(&config, NULL);
	assert_int_equal(loop_start(user->loop, NULL), 0);
	clear(disk, user->first);
	kill(server, SIGSTOP);
	assert_int_not_equal(change_layers(disk, user), 0);
	print_message("# %s\n", attempt.text);
	assert_string_equal(disk->top->ops->name, "nbd");
	kill(server, SIGCONT);
	while (atomic_load(&finished) < 1)
		usleep(1000);
	/* With nobody in the way it is done. */
	user->round = ROUNDS - 1;
	assert_int_equal(change_layers(disk, user), 0);
	assert_string_equal(disk->top->ops->name, "pass");
	while (atomic_load(&finished) < 2)
		usleep(1000);
	loop_stop(user->loop);
	loop_destroy(user->loop);
	disk_close(disk);
	assert_int_equal(atomic_load(&wrong), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_connection),
		cmocka_unit_test(three_connections),
		cmocka_unit_test(a_change_does_not_wait_for_a_mute_server),
	};

	log_set_level(LOG_WARN);
	return cmocka_run_group_tests_name("nbd", tests, start_server, end_server);
}
