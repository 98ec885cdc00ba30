/* SPDX-License-Identifier: BSD-3-Clause */
/* unix_socket.c - sockets by path; see unix_socket.h */
#include "util/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "util/error.h"

static int address_of(const char *path, struct sockaddr_un *address, struct error *err)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!*path || strlen(path) >= sizeof address->sun_path)
		return error_set(err, ENAMETOOLONG,
				 "socket '%s': expected a path of 1 to %zu bytes", path,
				 sizeof address->sun_path - 1);
	strcpy(address->sun_path, path);
	return 0;
}

static int connect_to(const char *path, int flags, struct error *err)
{
	struct sockaddr_un address;
	int ret = address_of(path, &address, err), fd;

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		return error_set(err, errno, "socket %s: %s", path, strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
		ret = error_set(err, errno, "socket %s: %s", path, strerror(errno));
		close(fd);
		return ret;
	}
	return fd;
}

int unix_socket_connect(const char *path, struct error *err)
{
	return connect_to(path, 0, err);
}

int unix_socket_dial(const char *path, struct error *err)
{
	return connect_to(path, SOCK_NONBLOCK, err);
}

/* Makes room for a socket at @path, unless something that is alive, or no socket, is there. */
static int make_room(const char *path, struct error *err)
{
	struct stat st;
	int fd;

	/* The kernel may close a killed process's socket some time after it is gone. */
	for (unsigned pause_ms = 25;; pause_ms *= 2) {
		const struct timespec pause = { .tv_nsec = pause_ms * 1000000 };

		if (lstat(path, &st))
			return 0;
		if (!S_ISSOCK(st.st_mode))
			return error_set(err, EEXIST, "socket %s: a file of that name exists",
					 path);
		fd = connect_to(path, SOCK_NONBLOCK, err);
		if (fd == -ECONNREFUSED) {
			unlink(path);
			return 0;
		}
		if (fd < 0 && fd != -EAGAIN) /* EAGAIN: its backlog is full */
			return fd;
		if (fd >= 0)
			close(fd);
		if (pause_ms > 800)
			return error_set(err, EADDRINUSE,
					 "socket %s is in use: another process listens on it",
					 path);
		nanosleep(&pause, NULL);
	}
}

int unix_socket_listen(const char *path, mode_t mode, struct error *err)
{
	struct sockaddr_un address;
	int ret = address_of(path, &address, err), fd;

	if (!ret)
		ret = make_room(path, err);
	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, errno, "socket %s: %s", path, strerror(errno));
	/* The mode goes onto the socket before it has a name, so that it is never wider. */
	if (fchmod(fd, mode) || bind(fd, (struct sockaddr *)&address, sizeof address)) {
		ret = error_set(err, errno, "socket %s: %s", path, strerror(errno));
		close(fd);
		return ret;
	}
	if (chmod(path, mode) || listen(fd, 16)) {
		ret = error_set(err, errno, "socket %s: %s", address.sun_path, strerror(errno));
		unlink(path);
		close(fd);
		return ret;
	}
	return fd;
}
