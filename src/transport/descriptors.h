/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * descriptors.h - bytes on a UNIX socket, and the file descriptors that come and go with them
 *
 * The sender is not trusted: descriptors are taken close-on-exec, those beyond the room are closed
 * and noted, and nobody keeps one that was not asked for.
 */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

struct error;

#define DESCRIPTORS 32 /**< most with one message */

/** Those that came with a message. Zero-initialised means none. */
struct descriptors {
	int fd[DESCRIPTORS]; /**< -1: taken */
	unsigned count;
	bool truncated; /**< more came than there is room for */
};

/**
 * At most @length bytes to @to, and what comes with them to @d: how many, 0 at the end of the
 * connection, -EAGAIN if there are none now, or -errno.
 */
ssize_t descriptors_receive(int socket, void *to, size_t length, struct descriptors *d);

/** Sends @vec, and @fd with it unless it is -1. How many bytes, -EAGAIN if none now, or -errno. */
ssize_t descriptors_send(int socket, const struct iovec *vec, unsigned count, int fd);

/** Takes descriptor @i over; -1 if there is none. */
int descriptors_take(struct descriptors *d, unsigned i);

/**
 * The same for one that events are written to: made non-blocking, so that a peer that lets its
 * counter run full makes nobody wait. -1 if there is none; -EINVAL with @err if it is no eventfd.
 */
int descriptors_take_eventfd(struct descriptors *d, unsigned i, struct error *err);

/** Closes what was not taken; then there are none. */
void descriptors_clear(struct descriptors *d);
