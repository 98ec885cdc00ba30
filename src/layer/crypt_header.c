/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt_header.c - the copy of a header, and libcryptsetup's handle on it; see crypt_header.h */
#include "layer/crypt_header.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/error.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void hear(int level, const char *message, void *data)
{
	struct crypt_header *header = data;

	if (level == CRYPT_LOG_ERROR)
		snprintf(header->said, sizeof header->said, "%.*s", (int)strcspn(message, "\n"),
			 message);
}

int crypt_header_open(struct crypt_header *header, uint64_t size, struct error *err)
{
	char path[40];
	int ret;

	*header = (struct crypt_header){ .fd = memfd_create("luks-header", MFD_CLOEXEC) };
	if (header->fd < 0 || ftruncate(header->fd, (off_t)size)) {
		ret = error_set(err, errno, "no memory for a copy of the header: %s",
				strerror(errno));
		if (header->fd >= 0)
			close(header->fd);
		return ret;
	}
	pthread_mutex_lock(&lock);
	snprintf(path, sizeof path, "/proc/self/fd/%d", header->fd);
	ret = crypt_init(&header->device, path);
	if (!ret) {
		crypt_set_log_callback(header->device, hear, header);
		return 0;
	}
	error_set(err, -ret, "libcryptsetup does not start: %s", crypt_header_reason(header, ret));
	crypt_header_close(header);
	return ret;
}

void crypt_header_close(struct crypt_header *header)
{
	crypt_free(header->device);
	pthread_mutex_unlock(&lock);
	close(header->fd);
}

const char *crypt_header_reason(const struct crypt_header *header, int code)
{
	return *header->said ? header->said : strerror(-code);
}
