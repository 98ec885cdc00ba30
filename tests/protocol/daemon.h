/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * daemon.h - a penstock process and a directory of its own, for the length of a test
 *
 * The binary is $PENSTOCK. Its log (stderr) goes to the file `log` in the directory, over restarts.
 * One at a time in a process. If a test exceeds its time (daemon_deadline()), the process ends: the
 * daemon is killed and the directory removed all the same.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { DAEMON_ARGS = 32, DAEMON_PATH = 128 };

struct daemon {
	char dir[64];
	pid_t pid; /* 0: not running */
	const char *args[DAEMON_ARGS];
	long log_mark; /* daemon_logged() looks behind it */
};

/* Makes the directory. Fails the test (cmocka) when it cannot, as all calls here do. */
void daemon_prepare(struct daemon *daemon);
/* A path in the directory; valid until the 16th call after. */
const char *daemon_path(const struct daemon *daemon, const char *name);
/* Writes a file there, printf-like. */
void daemon_write_file(const struct daemon *daemon, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Makes a sparse image of `bytes` bytes there. */
void daemon_make_image(const struct daemon *daemon, const char *name, uint64_t bytes);

/* Starts penstock with these arguments (a NULL ends them; the strings must last) until it is ready.
 */
void daemon_start(struct daemon *daemon, const char *const *args);
/* Starts it again with the same arguments. */
void daemon_restart(struct daemon *daemon);
/* Whether it still runs. */
bool daemon_alive(struct daemon *daemon);
/* SIGKILL, and waits for its end. */
void daemon_kill(struct daemon *daemon);
/* SIGTERM: the exit status, or -1 if it did not end in 10 s or was killed by a signal. */
int daemon_stop(struct daemon *daemon);
/* CPU time it has used, in ms. */
int64_t daemon_cpu_ms(const struct daemon *daemon);
/* Runs penstock once with these arguments and waits: the exit status. */
int daemon_command(const struct daemon *daemon, const char *const *args);

/* Forgets what the log says so far. */
void daemon_mark_log(struct daemon *daemon);
/* Waits until a line behind the mark has a warning or an error and the word; the test fails without
 * it. */
bool daemon_logged(struct daemon *daemon, const char *word, int timeout_ms);
/* Prints the log behind the mark as TAP comments. */
void daemon_show_log(const struct daemon *daemon);

/* Kills the daemon if it runs and removes the directory. */
void daemon_clean(struct daemon *daemon);

/* From now on the process has so many seconds left. 0: no limit. */
void daemon_deadline(unsigned seconds);

void sleep_ms(int ms);
int64_t clock_ms(void);
