/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * daemon.c - a penstock process and a directory of its own; see daemon.h
 *
 * The child dies with the test (PR_SET_PDEATHSIG), so no daemon is left behind whatever happens.
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon *current; /* for the deadline */

/* Before main, so that each program has it without a word. */
__attribute__((constructor)) static void choose_tests(void)
{
	const char *only = getenv("ONLY");

	if (only)
		cmocka_set_test_filter(only);
}

void sleep_ms(int ms)
{
	struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void remove_directory(const char *dir)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", dir, (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* The time is up, or somebody ends the test: nothing stays behind. */
static void on_end(int signal)
{
	static const char text[] = "# the test exceeded its time\n";

	if (signal == SIGALRM && write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
		_exit(3);
	if (current && current->pid > 0)
		kill(current->pid, SIGKILL);
	if (current)
		remove_directory(current->dir);
	_exit(3);
}

void daemon_deadline(unsigned seconds)
{
	alarm(seconds);
}

/* A test whose setup failed has no teardown. */
static void clean_current(void)
{
	if (current)
		daemon_clean(current);
}

void daemon_prepare(struct daemon *daemon)
{
	const char *base = getenv("TMPDIR");
	struct sigaction action = { .sa_handler = on_end };
	static bool registered;

	clean_current();
	if (!registered)
		atexit(clean_current);
	registered = true;
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	memset(daemon, 0, sizeof(*daemon));
	/* Short: a UNIX socket's path has 107 bytes. */
	if ((size_t)snprintf(daemon->dir, sizeof(daemon->dir), "%s/penstock-XXXXXX",
			     base ? base : "/tmp") >= sizeof(daemon->dir))
		fail_msg("TMPDIR is too long: %s", base);
	if (!mkdtemp(daemon->dir))
		fail_msg("%s: %s", daemon->dir, strerror(errno));
	current = daemon;
	daemon_write_file(daemon, "log", "%s", "");
}

const char *daemon_path(const struct daemon *daemon, const char *name)
{
	static char paths[16][DAEMON_PATH];
	static unsigned next;
	char *path = paths[next++ % 16];

	snprintf(path, DAEMON_PATH, "%s/%s", daemon->dir, name);
	return path;
}

void daemon_write_file(const struct daemon *daemon, const char *name, const char *format, ...)
{
	FILE *file = fopen(daemon_path(daemon, name), "w");
	va_list args;

	if (!file)
		fail_msg("%s: %s", name, strerror(errno));
	va_start(args, format);
	vfprintf(file, format, args);
	va_end(args);
	assert_int_equal(fclose(file), 0);
}

void daemon_make_image(const struct daemon *daemon, const char *name, uint64_t bytes)
{
	int fd = open(daemon_path(daemon, name), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		fail_msg("%s: %s", name, strerror(errno));
	close(fd);
}

static pid_t spawn(const struct daemon *daemon, const char *const *args)
{
	const char *binary = getenv("PENSTOCK");
	const char *argv[DAEMON_ARGS + 2] = { binary };
	pid_t parent = getpid();

	if (!binary)
		fail_msg("PENSTOCK must name the penstock binary");
	for (unsigned i = 0; i < DAEMON_ARGS && args[i]; i++)
		argv[i + 1] = args[i];
	pid_t pid = fork();
	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;

	setenv("NOTIFY_SOCKET", daemon_path(daemon, "notify"), 1);
	int log = open(daemon_path(daemon, "log"), O_WRONLY | O_APPEND);
	int null = open("/dev/null", O_RDWR);
	if (log < 0 || null < 0)
		_exit(126);
	dup2(null, 0);
	dup2(null, 1);
	dup2(log, 2);
	unsetenv("JOURNAL_STREAM");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	execv(binary, (char *const *)argv);
	_exit(127);
}

void daemon_start(struct daemon *daemon, const char *const *args)
{
	for (unsigned i = 0; i < DAEMON_ARGS; i++) {
		daemon->args[i] = args[i];
		if (!args[i])
			break;
	}
	daemon_restart(daemon);
}

bool daemon_alive(struct daemon *daemon)
{
	if (daemon->pid && waitpid(daemon->pid, NULL, WNOHANG) == daemon->pid)
		daemon->pid = 0;
	return daemon->pid != 0;
}

/* Where the daemon reports readiness, as sd_notify(3) says. */
static int open_notify_socket(const struct daemon *daemon)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon_path(daemon, "notify"));
	unlink(address.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		fail_msg("%s: %s", address.sun_path, strerror(errno));
	return fd;
}

static bool wait_ready(struct daemon *daemon, int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	char text[256];

	for (int64_t end = clock_ms() + 20000; clock_ms() < end && daemon_alive(daemon);) {
		if (poll(&pollfd, 1, 10) != 1)
			continue;
		ssize_t got = recv(fd, text, sizeof(text) - 1, 0);
		text[got > 0 ? got : 0] = '\0';
		if (strstr(text, "READY=1"))
			return true;
	}
	return false;
}

void daemon_restart(struct daemon *daemon)
{
	assert_int_equal(daemon->pid, 0);
	int fd = open_notify_socket(daemon);
	daemon->pid = spawn(daemon, daemon->args);
	bool ready = wait_ready(daemon, fd);
	close(fd);
	if (!ready) {
		daemon_show_log(daemon);
		fail_msg("the daemon does not start");
	}
}

void daemon_kill(struct daemon *daemon)
{
	if (!daemon->pid)
		return;
	kill(daemon->pid, SIGKILL);
	waitpid(daemon->pid, NULL, 0);
	daemon->pid = 0;
}

static int wait_exit(pid_t pid, int timeout_ms)
{
	int status;

	for (int64_t end = clock_ms() + timeout_ms; clock_ms() < end; sleep_ms(2))
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return -1;
}

int daemon_stop(struct daemon *daemon)
{
	pid_t pid = daemon->pid;

	daemon->pid = 0;
	if (!pid)
		return -1;
	kill(pid, SIGTERM);
	return wait_exit(pid, 10000);
}

int64_t daemon_cpu_ms(const struct daemon *daemon)
{
	struct timespec used = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid(daemon->pid, &clock) || clock_gettime(clock, &used))
		return -1;
	return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

int daemon_command(const struct daemon *daemon, const char *const *args)
{
	return wait_exit(spawn(daemon, args), 10000);
}

void daemon_mark_log(struct daemon *daemon)
{
	struct stat stat_buffer;

	if (stat(daemon_path(daemon, "log"), &stat_buffer))
		fail_msg("log: %s", strerror(errno));
	daemon->log_mark = stat_buffer.st_size;
}

static bool log_has(const struct daemon *daemon, const char *word)
{
	FILE *file = fopen(daemon_path(daemon, "log"), "r");
	char line[1200];
	bool found = false;

	if (!file)
		return false;
	if (!fseek(file, daemon->log_mark, SEEK_SET))
		while (!found && fgets(line, sizeof(line), file))
			found = strstr(line, word) && (strstr(line, "penstock: warn: ") ||
						       strstr(line, "penstock: error: "));
	fclose(file);
	return found;
}

bool daemon_logged(struct daemon *daemon, const char *word, int timeout_ms)
{
	for (int64_t end = clock_ms() + timeout_ms; clock_ms() < end; sleep_ms(2))
		if (log_has(daemon, word))
			return true;
	return log_has(daemon, word);
}

void daemon_show_log(const struct daemon *daemon)
{
	FILE *file = fopen(daemon_path(daemon, "log"), "r");
	char line[1200];

	if (!file)
		return;
	if (!fseek(file, daemon->log_mark, SEEK_SET))
		while (fgets(line, sizeof(line), file))
			print_message("# log: %s", line);
	fclose(file);
}

void daemon_clean(struct daemon *daemon)
{
	daemon_deadline(0);
	daemon_kill(daemon);
	remove_directory(daemon->dir);
	current = NULL;
}
