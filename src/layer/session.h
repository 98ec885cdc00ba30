/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * session.h - reads and writes a stack as plain code that waits: when a layer is opened or
 * prepared, or for a command
 *
 * It has a loop of its own, which runs on the caller's thread for as long as one request takes. Not
 * on a thread that serves queues, nor on the control thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "io/io.h"

struct error;
struct layer;
struct session;

/** A session with what begins at @top, which must be open. NULL with @err. */
struct session *session_open(struct layer *top, struct error *err);
void session_close(struct session *session);

/** 0 or -errno. Offsets and lengths are multiples of the layer's block size; any memory. */
int session_read(struct session *session, uint64_t offset, void *to, size_t length);
int session_write(struct session *session, uint64_t offset, const void *from, size_t length,
		  unsigned flags);

/** A request without data: flush, discard, zeroes. 0 or -errno. */
int session_do(struct session *session, enum io_op op, uint64_t offset, uint64_t length,
	       unsigned flags);
