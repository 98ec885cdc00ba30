/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture.h - captures that go to a reader instead of to a file
 *
 * Such a capture is a layer like any other, whose option file is a name that
 * capture_stream_create() has made. Control thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet_layer.h"

struct error;

extern const struct packet_layer_ops capture_layer;

/** Bytes of a name. */
#define CAPTURE_STREAM_NAME 32u

/**
 * Makes a stream: @name for the option file of one layer, and the descriptor that the capture can
 * be read from, which does not block, and is the caller's. It ends when the layer goes, or after
 * @limit packets if that is not 0. 0, or -errno with @err.
 */
int capture_stream_create(char name[CAPTURE_STREAM_NAME], uint64_t limit, int *fd,
			  struct error *err);

/** No layer will come for it. No effect if one has. */
void capture_stream_forget(const char *name);

/** The other end, for the layer with `file: @path`, and *@limit; the caller's from now on.
 * -ENOENT. */
int capture_stream_take(const char *path, uint64_t *limit);

/** True if @path is the name of a stream, whether it is there or not. */
bool capture_stream_is(const char *path);

/** True if @settings of a capture have @path as their file. */
bool capture_goes_to(const void *settings, const char *path);

/** True if @settings of a capture are those of a stream: there only as long as its reader, and part
 * of no configuration. */
bool capture_is_stream(const void *settings);
