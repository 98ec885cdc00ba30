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

/** Asks with GET for an answer that goes on: the connection, at its first byte and without a limit
 * of time; or -1 after a complaint. */
int client_stream(const struct invocation *in, const char *path);

/** A path, the caller's. */
char *client_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** True if @name can be part of a path as it is; else complains. Others do not exist. */
bool client_name(const char *name);

/** The name of the command, for complaints. */
const char *client_command(const struct invocation *in);

/** An argument in YAML, @what in complaints, as JSON; NULL after one. The caller's. */
json_t *client_yaml(const struct invocation *in, const char *text, const char *what);

/** The arguments from @first on, one list. */
json_t *client_yaml_list(const struct invocation *in, unsigned first, const char *what);

/** The arguments from @first on, each option=value, as an object; NULL after a complaint. A value
 * that is empty is null. The caller's. */
json_t *client_assignments(const struct invocation *in, unsigned first);

/** The switches and ports of @status, tables on standard output: client_status_net.c. */
void client_print_switches(const json_t *status);

/** "12.3G": three digits or four, as is best to compare. Returns @text. */
char *client_short_size(uint64_t bytes, char *text, size_t size);

/** The text or number called @name in @object; "" or 0 if there is none. */
const char *client_text(const json_t *object, const char *name);
uint64_t client_number(const json_t *object, const char *name);
