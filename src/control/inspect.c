/* SPDX-License-Identifier: BSD-3-Clause */
/* inspect.c - the command inspect: asks each format of ours whether this is one of its own */
#include "control/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/invocation.h"

static const struct inspect_format *const formats[] = { &inspect_mirror, &inspect_overlay };

#define FORMATS (sizeof formats / sizeof *formats)

static int failed(const char *path, const char *what)
{
	fprintf(stderr, "penstock: %s: %s: %s\n", path, what, strerror(errno));
	return 1;
}

/* Whoever has it open as a disk has it locked. */
static int wipe(const char *path, int fd, uint64_t size, const struct inspect_format *format)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!format->wipe) {
		fprintf(stderr, "penstock: %s: %s cannot be wiped\n", path, format->name);
		return 1;
	}
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		fprintf(stderr, "penstock: %s is in use: nothing is wiped\n", path);
		return 1;
	}
	if (format->wipe(fd, size))
		return failed(path, "cannot be wiped");
	printf("wiped: it is %s no more\n", format->name);
	return 0;
}

int inspect(const struct invocation *in)
{
	const char *path = in->arguments[0];
	int fd = open(path, (in->wipe ? O_RDWR : O_RDONLY) | O_CLOEXEC), status = 1;
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	unsigned i;

	if (size < 0) {
		status = failed(path, "cannot be opened");
		if (fd >= 0)
			close(fd);
		return status;
	}
	for (i = 0; i < FORMATS; i++) {
		int shown = formats[i]->show(fd, (uint64_t)size);

		if (shown > 0)
			continue;
		status = shown < 0;
		if (in->wipe)
			status = wipe(path, fd, (uint64_t)size, formats[i]);
		break;
	}
	if (i == FORMATS)
		fprintf(stderr, "penstock: %s holds nothing that penstock keeps records in\n",
			path);
	close(fd);
	return status;
}
