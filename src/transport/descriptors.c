/* SPDX-License-Identifier: BSD-3-Clause */
/* descriptors.c - descriptors with bytes on a socket; see descriptors.h */
#include "transport/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/error.h"

static void collect(struct descriptors *d, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		unsigned n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (d->count < DESCRIPTORS) {
				d->fd[d->count++] = fd;
			} else {
				close(fd);
				d->truncated = true;
			}
		}
	}
	if (msg->msg_flags & MSG_CTRUNC)
		d->truncated = true;
}

ssize_t descriptors_receive(int socket, void *to, size_t length, struct descriptors *d)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
	} control;
	struct iovec vec = { to, length };
	struct msghdr msg = { .msg_iov = &vec,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof control };
	ssize_t n;

	do
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	collect(d, &msg);
	return n;
}

ssize_t descriptors_send(int socket, const struct iovec *vec, unsigned count, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = (struct iovec *)vec, .msg_iovlen = count };
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
		control.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS,
						  .cmsg_len = CMSG_LEN(sizeof fd) };
		memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	}
	do
		n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int descriptors_take(struct descriptors *d, unsigned i)
{
	int fd = i < d->count ? d->fd[i] : -1;

	if (fd >= 0)
		d->fd[i] = -1;
	return fd;
}

int descriptors_take_eventfd(struct descriptors *d, unsigned i, struct error *err)
{
	char link[64], target[64] = "";
	int fd = descriptors_take(d, i);

	if (fd < 0)
		return -1;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if (readlink(link, target, sizeof target - 1) < 0 ||
	    strcmp(target, "anon_inode:[eventfd]") != 0) {
		close(fd);
		return error_set(err, EINVAL, "its descriptor is %s; expected an eventfd",
				 *target ? target : "unknown");
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return fd;
}

void descriptors_clear(struct descriptors *d)
{
	for (unsigned i = 0; i < d->count; i++)
		if (d->fd[i] >= 0)
			close(d->fd[i]);
	d->count = 0;
	d->truncated = false;
}
