/* SPDX-License-Identifier: BSD-3-Clause */
/* unix_socket.h - listening on a UNIX socket's path, and connecting to one */
#pragma once

#include <sys/types.h>

struct error;

/**
 * A listening stream socket at @path with the permissions @mode, non-blocking. A socket there that
 * nobody listens on is replaced; one that somebody does, or any other file, is refused. The
 * descriptor, or -errno.
 */
int unix_socket_listen(const char *path, mode_t mode, struct error *err);

/** A stream socket connected to @path, blocking. The descriptor, or -errno. */
int unix_socket_connect(const char *path, struct error *err);

/** The same, non-blocking: -EAGAIN if too many wait there already. */
int unix_socket_dial(const char *path, struct error *err);
