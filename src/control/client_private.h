/* SPDX-License-Identifier: BSD-3-Clause */
/* client_private.h - what the commands that ask a running penstock have in common: client.c */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/client.h"

struct invocation;

/** Asks, and complains if there is no good answer. The JSON is the caller's, or NULL. */
json_t *client_ask(const struct invocation *in, const char *method, const char *path,
		   const char *body);

/** A path, the caller's. */
char *client_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** True if @name can be part of a path as it is; else complains. Others do not exist. */
bool client_name(const char *name);

/** The text or number called @name in @object; "" or 0 if there is none. */
const char *client_text(const json_t *object, const char *name);
uint64_t client_number(const json_t *object, const char *name);
