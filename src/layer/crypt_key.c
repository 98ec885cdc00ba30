/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_key.c - reads a passphrase from a file, a command or the kernel's keyrings
 *
 * It is in memory of libcryptsetup's, which locks it and wipes it when it is freed, and it is never
 * copied anywhere else here.
 */
#include "layer/crypt_key.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libcryptsetup.h>
#include <linux/keyctl.h>

#include "layer/crypt_memory.h"
#include "util/error.h"

#define PATIENCE_MS 60000

char *crypt_key_describe(const struct crypt_key_source *source, char *text, size_t size)
{
	if (source->file)
		snprintf(text, size, "key-file %s", source->file);
	else if (source->keyring)
		snprintf(text, size, "key-keyring '%s'", source->keyring);
	else
		snprintf(text, size, "key-command"); /* whose text may say more than it should */
	return text;
}

/* --- a file ----------------------------------------------------------------------------- */

/* Of libcryptsetup's own messages only those of a header are wanted. */
static void quiet(int level, const char *message, void *unused)
{
	(void)level;
	(void)message;
	(void)unused;
}

static int from_file(const struct crypt_key_source *source, char **key, size_t *length,
		     struct error *err)
{
	int ret;

	/* Its own messages say less. */
	if (access(source->file, R_OK))
		return error_set(err, errno, "key-file: %s: %s", source->file, strerror(errno));
	ret = crypt_keyfile_device_read(NULL, source->file, key, length, source->file_offset,
					source->file_size, 0);
	if (ret)
		return error_set(err, EINVAL,
				 "key-file: cannot read %s: %s; expected a file of at most 8M that "
				 "has as many bytes as keyfile-offset and keyfile-size ask for",
				 source->file, strerror(-ret));
	return 0;
}

/* --- a command -------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* In a process group of its own, so that all of it can be ended. No signal is blocked there. */
static int start(const char *command, int out, pid_t *child)
{
	char *const arguments[] = { (char *)"sh", (char *)"-c", (char *)command, NULL };
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
	posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	ret = posix_spawn(child, "/bin/sh", &files, &attributes, arguments, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return ret;
}

/* Room for more in *@key: twice as much. The old bytes are wiped. 0 or an errno value. */
static int grow(char **key, size_t *room)
{
	size_t more = *room ? *room * 2 : 4096;
	char *to;

	if (more > CRYPT_KEY_MOST)
		return EFBIG;
	to = crypt_safe_realloc(*key, more);
	if (!to)
		return ENOMEM;
	*key = to;
	*room = more;
	return 0;
}

/* All that comes, until the other end is closed. 0 or an errno value. */
static int collect(int in, char **key, size_t *length, int64_t until)
{
	struct pollfd wait = { .fd = in, .events = POLLIN };
	size_t room = 0;

	for (*length = 0;;) {
		int64_t left = until - now_ms();
		int ret = *length == room ? grow(key, &room) : 0;
		ssize_t n;

		if (ret)
			return ret;
		if (left <= 0)
			return ETIMEDOUT;
		if (poll(&wait, 1, (int)left) < 0 && errno != EINTR)
			return errno;
		if (!wait.revents)
			continue;
		n = read(in, *key + *length, room - *length);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n == 0)
			return 0;
		*length += n > 0 ? (size_t)n : 0;
	}
}

/* What waitpid() says of it, once it has ended or @until has come. */
static int await(pid_t child, int64_t until)
{
	const struct timespec pause = { .tv_nsec = 5000000 };
	int status = 0;
	pid_t ended;

	while (!(ended = waitpid(child, &status, WNOHANG)) && now_ms() < until)
		nanosleep(&pause, NULL);
	if (ended)
		return status;
	kill(-child, SIGKILL);
	waitpid(child, &status, 0);
	return status;
}

static int judge(int failure, int status, size_t length, struct error *err)
{
	if (failure == ETIMEDOUT)
		return error_set(err, ETIMEDOUT,
				 "key-command: it did not end within %d s, and was killed",
				 PATIENCE_MS / 1000);
	if (failure)
		return error_set(err, failure, "key-command: cannot read its output: %s",
				 failure == EFBIG ? "it is longer than 8M" : strerror(failure));
	if (WIFSIGNALED(status))
		return error_set(err, EINVAL, "key-command: it was ended by signal %d",
				 WTERMSIG(status));
	if (WEXITSTATUS(status))
		return error_set(err, EINVAL,
				 "key-command: it failed with exit status %d; what it said is on "
				 "standard error",
				 WEXITSTATUS(status));
	if (!length)
		return error_set(err, EINVAL, "key-command: its output is empty");
	return 0;
}

static int from_command(const struct crypt_key_source *source, char **key, size_t *length,
			struct error *err)
{
	int64_t until = now_ms() + PATIENCE_MS;
	int ends[2], ret, status;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return error_set(err, errno, "key-command: no pipe: %s", strerror(errno));
	ret = start(source->command, ends[1], &child);
	close(ends[1]);
	if (ret) {
		ret = error_set(err, ret, "key-command: cannot run /bin/sh: %s", strerror(ret));
	} else {
		ret = collect(ends[0], key, length, until);
		if (ret)
			kill(-child, SIGKILL);
		status = await(child, until);
		ret = judge(ret, status, *length, err);
	}
	close(ends[0]);
	if (ret) {
		crypt_safe_free(*key);
		*key = NULL;
	}
	return ret;
}

/* --- the kernel's keyrings ---------------------------------------------------------------- */

/*
 * A key can be read by who possesses it: who has it in a keyring of his own. The user's keyring is
 * none of those where a session has not linked it, as in services, so the key is linked from there
 * into this thread's for as long as it takes to read it.
 */
static long find(const char *name, bool *linked)
{
	long id = syscall(SYS_request_key, "user", name, NULL, 0);

	*linked = id < 0;
	if (id < 0)
		id = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", name,
			     KEY_SPEC_THREAD_KEYRING);
	return id;
}

/* 0 or an errno value. */
static int read_key(long id, char **key, size_t *length)
{
	long room = syscall(SYS_keyctl, KEYCTL_READ, id, NULL, 0), bytes;

	if (room <= 0)
		return room ? errno : ENODATA;
	*key = crypt_safe_alloc((size_t)room);
	if (!*key)
		return ENOMEM;
	bytes = syscall(SYS_keyctl, KEYCTL_READ, id, *key, room);
	if (bytes > 0 && bytes <= room) {
		*length = (size_t)bytes;
		return 0;
	}
	/* It was replaced meanwhile by a longer one, which is not taken in part, or it is gone. */
	crypt_safe_free(*key);
	*key = NULL;
	return bytes < 0 ? errno : ESTALE;
}

static int from_keyring(const struct crypt_key_source *source, char **key, size_t *length,
			struct error *err)
{
	const char *name = source->keyring;
	bool linked;
	long id = find(name, &linked);
	int ret;

	if (id < 0)
		return error_set(
			err, errno,
			"key-keyring: no key of type user with the description '%s' in the "
			"keyrings of this process, its session and its user: %s",
			name, strerror(errno));
	ret = read_key(id, key, length);
	if (linked)
		syscall(SYS_keyctl, KEYCTL_UNLINK, id, KEY_SPEC_THREAD_KEYRING);
	if (ret)
		return error_set(err, ret, "key-keyring: cannot read the key '%s': %s", name,
				 strerror(ret));
	return 0;
}

/* --- any of them ------------------------------------------------------------------------- */

int crypt_key_read(const struct crypt_key_source *source, char **key, size_t *length,
		   struct error *err)
{
	unsigned given = !!source->file + !!source->command + !!source->keyring;

	*key = NULL;
	*length = 0;
	if (given != 1)
		return error_set(
			err, EINVAL,
			"%s; expected exactly one of the options key-file, key-command and "
			"key-keyring",
			given ? "the key is given more than once" : "no key is given");
	if (!source->file && (source->file_offset || source->file_size))
		return error_set(err, EINVAL,
				 "keyfile-offset and keyfile-size need the option key-file");
	crypt_memory_no_core();
	crypt_set_log_callback(NULL, quiet, NULL);
	if (source->file)
		return from_file(source, key, length, err);
	return source->command ? from_command(source, key, length, err)
			       : from_keyring(source, key, length, err);
}
