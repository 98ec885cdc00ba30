/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state_lock.c - one penstock at a time has a state file
 *
 * The file is replaced at each change, and a lock would go with the old one. So it is taken on a
 * file beside it, PATH.lock, which is made once and stays: whoever removed it when he ends could
 * remove what the next one has locked. It is empty. The lock is the kernel's and ends with the
 * process, however that ends.
 *
 * It is taken before the state file is read, or one who waits for another to end would go on with
 * what that wrote last but one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/state.h"
#include "util/error.h"

#define PATIENCE 10       /* s; another may be about to end, as with images (file_lock.c) */
#define PAUSE    20000000 /* ns */

static int try_lock(int fd)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(fd, F_OFD_SETLK, &all))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

static time_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

int state_lock(const char *path, struct error *err)
{
	const struct timespec pause = { .tv_nsec = PAUSE };
	time_t until = now() + PATIENCE;
	char *name = NULL;
	int fd, ret;

	if (asprintf(&name, "%s.lock", path) < 0)
		return error_set(err, ENOMEM, "out of memory");
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		error_set(err, errno, "state: %s: %s", name, strerror(errno));
		free(name);
		return -err->code;
	}
	while ((ret = try_lock(fd)) == -EAGAIN && now() <= until)
		nanosleep(&pause, NULL);
	if (!ret) {
		free(name);
		return fd;
	}
	if (ret == -EAGAIN)
		error_set(err, EBUSY,
			  "state: %s is in use by another penstock: %s is locked; each needs a "
			  "file of its own",
			  path, name);
	else
		error_set(err, -ret, "state: cannot lock %s: %s", name, strerror(-ret));
	close(fd);
	free(name);
	return -err->code;
}
