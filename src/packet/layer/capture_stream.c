/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_stream.c - captures that go to a reader; see capture.h
 *
 * A stream is a pipe. From when it is made until a layer opens it the end to write to is kept here,
 * under a number. So the layer's settings are text, as those of all others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packet/layer/capture.h"
#include "util/error.h"
#include "util/list.h"

#define PREFIX "stream:"
#define PIPE   (1 << 20) /* bytes that it takes, if the kernel lets us */

struct stream {
	struct list link;
	char name[CAPTURE_STREAM_NAME];
	uint64_t limit;
	int fd;
};

static struct list streams = { &streams, &streams };

int capture_stream_create(char name[CAPTURE_STREAM_NAME], uint64_t limit, int *fd,
			  struct error *err)
{
	static unsigned last;
	struct stream *stream = malloc(sizeof *stream);
	int ends[2];

	if (!stream || pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
		error_set(err, stream ? errno : ENOMEM, "a pipe cannot be made: %s",
			  strerror(stream ? errno : ENOMEM));
		free(stream);
		return -err->code;
	}
	fcntl(ends[1], F_SETPIPE_SZ, PIPE);
	*stream = (struct stream){ .fd = ends[1], .limit = limit };
	snprintf(stream->name, sizeof stream->name, PREFIX "%u", ++last);
	memcpy(name, stream->name, sizeof stream->name);
	list_add(&streams, &stream->link);
	*fd = ends[0];
	return 0;
}

static struct stream *find(const char *name)
{
	list_for_each (link, &streams) {
		struct stream *stream = container_of(link, struct stream, link);

		if (!strcmp(stream->name, name))
			return stream;
	}
	return NULL;
}

int capture_stream_take(const char *path, uint64_t *limit)
{
	struct stream *stream = find(path);
	int fd;

	if (!stream)
		return -ENOENT;
	fd = stream->fd;
	*limit = stream->limit;
	list_remove(&stream->link);
	free(stream);
	return fd;
}

void capture_stream_forget(const char *name)
{
	uint64_t limit;
	int fd = capture_stream_take(name, &limit);

	if (fd >= 0)
		close(fd);
}

bool capture_stream_is(const char *path)
{
	return path && !strncmp(path, PREFIX, strlen(PREFIX));
}
