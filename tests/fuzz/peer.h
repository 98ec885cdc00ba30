/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peer.h - a server on a UNIX socket, as in the daemon, and the other end of connections to it
 *
 * It runs on a control loop and another one for what it serves. Whatever fails here is no finding:
 * the program ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct device;
struct transport;

/** Most descriptors with one message. */
#define PEER_FDS 40

/** Serves what @make makes for a socket's path, until the program ends. */
void peer_start(const struct transport *transport, struct device *(*make)(const char *socket));

/** A new connection. */
int peer_connect(void);

/**
 * Sends @size bytes at @bytes with descriptors as @fds says: how many (modulo 4, or 33 and more if
 * the top bit is set); @kinds, two bits for each: @memory, eventfd, socket, /dev/null. False when
 * the server has had enough.
 */
bool peer_send(int socket, const void *bytes, size_t size, unsigned fds, unsigned kinds,
	       int memory);

/** Reads what there is; waits for something at most @ms. False at the end of the connection. */
bool peer_drain(int socket, int ms);

/** Ends a connection; aborts if the server does not, for then it hangs. */
void peer_finish(int socket);
