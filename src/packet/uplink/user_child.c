/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * user_child.c - passt as a process of ours
 *
 * It has one end of a pair of sockets. When the other end is closed, by us or because we are gone,
 * however that came about, it ends by itself (passt(1), --fd): so it is never left behind. As root
 * it becomes nobody, which takes nothing of ours with it: no path that it must reach, no signal
 * that it is sent when we die (a change of the user id forgets that).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop/loop.h"
#include "packet/uplink/user.h"
#include "util/error.h"
#include "util/log.h"

#define PATIENCE_MS   3000
#define HEARD_AT_ONCE 16384u       /* bytes */
#define HEAR_AGAIN    100000000ull /* ns after that */
#define DYING_MS      50           /* from when its socket is closed until it has ended */
/* Bytes of passt's socket. When it is full passt drops what it has taken from its connections, and
 * repeats all of it later: so it should hold what the windows of guests allow. */
#define SEND_BUFFER (8 << 20)

extern char **environ;

static void listen_again(struct loop_timer *timer);

void user_child_init(struct user_child *child, const char *name, struct loop *control)
{
	*child = (struct user_child){ .name = name, .loop = control, .said_fd = -1 };
	loop_timer_init(&child->again, listen_again);
}

/* --- what it says --------------------------------------------------------------------- */

static void say(struct user_child *child)
{
	child->line[child->length] = 0;
	child->length = 0;
	/* It says so with each line if there is no system logger; and that it has become nobody. */
	if (!*child->line || strstr(child->line, "to syslog") ||
	    strstr(child->line, "Don't run as root"))
		return;
	log_info("uplink %s: passt: %s", child->name, child->line);
	memcpy(child->last, child->line, sizeof child->last);
}

static void hear(struct user_child *child, const char *bytes, ssize_t count)
{
	for (ssize_t i = 0; i < count; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == '\n' || child->length == sizeof child->line - 1)
			say(child);
		if (c != '\n')
			child->line[child->length++] = c < ' ' || c > '~' ? '?' : (char)c;
	}
}

/* One that talks without end gets only so much of this thread: the rest has to wait. */
static void listen_to(void *data)
{
	struct user_child *child = data;
	size_t heard = 0;
	char bytes[512];
	ssize_t n;

	while ((n = read(child->said_fd, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		hear(child, bytes, n);
		heard += (size_t)n;
		if (heard < HEARD_AT_ONCE)
			continue;
		loop_timer_set(child->loop, &child->again, loop_now(child->loop) + HEAR_AGAIN);
		return;
	}
}

static void listen_again(struct loop_timer *timer)
{
	listen_to(container_of(timer, struct user_child, again));
}

/* --- its life -------------------------------------------------------------------------- */

static int spawn(struct user_child *child, const struct user_arguments *arguments, int fd, int said)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawn_file_actions_init(&files))
		return ENOMEM;
	if (posix_spawnattr_init(&attributes)) {
		posix_spawn_file_actions_destroy(&files);
		return ENOMEM;
	}
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, said, STDERR_FILENO);
	posix_spawn_file_actions_adddup2(&files, fd, USER_CHILD_FD);
	/* A group of its own: a terminal's ^C is for us, who end it. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	ret = posix_spawnp(&child->pid, arguments->word[0], &files, &attributes,
			   (char *const *)arguments->word, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	if (ret)
		child->pid = 0;
	return ret;
}

/* A descriptor above those that a child has. */
static int above(int fd)
{
	int higher = fd > USER_CHILD_FD ? fd : fcntl(fd, F_DUPFD_CLOEXEC, USER_CHILD_FD + 1);

	if (higher != fd)
		close(fd);
	return higher;
}

int user_child_start(struct user_child *child, const struct user_arguments *arguments,
		     struct error *err)
{
	int ends[2], said[2], room = SEND_BUFFER, ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return error_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
	if (pipe2(said, O_CLOEXEC | O_NONBLOCK)) {
		ret = error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
		close(ends[0]);
		close(ends[1]);
		return ret;
	}
	/* Its own end waits when it is read from, which ours must not. */
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	if (setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
		setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	ends[1] = above(ends[1]);
	said[1] = above(said[1]);
	child->length = 0;
	*child->last = 0;
	ret = spawn(child, arguments, ends[1], said[1]);
	close(ends[1]);
	close(said[1]);
	child->said_fd = said[0];
	if (!ret) {
		child->watch = loop_watch_add(child->loop, said[0], listen_to, child);
		ret = child->watch ? 0 : ENOMEM;
	}
	if (ret) {
		close(ends[0]);
		user_child_end(child);
		return error_set(err, ret, "cannot run %s: %s", arguments->word[0], strerror(ret));
	}
	return ends[0];
}

static void pause_2ms(void)
{
	const struct timespec pause = { .tv_nsec = 2000000 };

	nanosleep(&pause, NULL);
}

/* Why it has ended. */
static int cause(const struct user_child *child, int status, struct error *err)
{
	if (WIFSIGNALED(status))
		return error_set(err, EPIPE, "passt has ended by signal %d", WTERMSIG(status));
	return error_set(err, strstr(child->last, "Failed to bind") ? EADDRINUSE : EINVAL,
			 "passt has ended: %s", *child->last ? child->last : "it did not say why");
}

int user_child_await(struct user_child *child, int fd, struct error *err)
{
	int status, unread = 1;

	for (unsigned ms = 0; ms < PATIENCE_MS; ms += 2) {
		struct pollfd peer = { .fd = fd, .events = POLLIN };

		/* What was not read counts as read when the other end is closed. */
		if (!ioctl(fd, SIOCOUTQ, &unread) && !unread && poll(&peer, 1, 0) >= 0 &&
		    !(peer.revents & POLLHUP))
			return 0;
		if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
			child->pid = 0;
			listen_to(child);
			return cause(child, status, err);
		}
		pause_2ms();
	}
	return error_set(err, ETIMEDOUT, "passt does not begin to serve its socket");
}

int user_child_gone(struct user_child *child, struct error *err)
{
	int status = 0;
	pid_t ended = 0;

	for (unsigned ms = 0; ms < DYING_MS && child->pid && !ended; ms += 2) {
		ended = waitpid(child->pid, &status, WNOHANG);
		if (!ended)
			pause_2ms();
	}
	if (ended == child->pid)
		child->pid = 0;
	user_child_end(child);
	return status ? cause(child, status, err) : 0;
}

void user_child_end(struct user_child *child)
{
	if (child->pid) {
		kill(child->pid, SIGKILL); /* it keeps nothing that could be left half done */
		waitpid(child->pid, NULL, 0);
		child->pid = 0;
	}
	if (child->said_fd >= 0)
		listen_to(child);
	loop_timer_cancel(&child->again);
	if (child->watch)
		loop_watch_remove(child->loop, child->watch);
	if (child->said_fd >= 0)
		close(child->said_fd);
	child->watch = NULL;
	child->said_fd = -1;
}
