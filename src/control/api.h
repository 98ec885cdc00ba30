/* SPDX-License-Identifier: BSD-3-Clause */
/* api.h - the control API: HTTP and JSON on a UNIX socket; see api.c */
#pragma once

struct api;
struct daemon;
struct error;

/** Serves @daemon's API on the socket @path, on its control loop. NULL if that fails, with @err. */
struct api *api_open(const char *path, struct daemon *daemon, struct error *err);

/** Ends it and removes the socket. NULL is allowed. */
void api_close(struct api *api);
