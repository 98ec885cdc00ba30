/* SPDX-License-Identifier: BSD-3-Clause */
/* routes.h - what the control API answers; see routes.c */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct daemon;

/** One request, and its answer. */
struct call {
	struct daemon *daemon;
	const char *method, *path;
	/** The value of a parameter behind the '?', or NULL; set by the server. */
	const char *(*parameter)(struct call *call, const char *name);
	const char *body; /**< ended by a NUL beyond @length */
	size_t length;
	char name[80]; /**< what stands for NAME in the route */

	json_t *json; /**< the answer, or NULL */
	char *text;   /**< the answer if it is not JSON; free() */
	size_t text_length;
	char allow[64]; /**< 405: the methods that there are */
};

/** A path of the API and what it does. */
struct route {
	const char *method, *path; /**< "/v1/disks/NAME" */
	const char *summary;       /**< for the man page */
	unsigned (*answer)(struct call *call);
};

/** All of them, ended by one without a method. */
extern const struct route routes[];

/** Answers @call: returns the HTTP status, with call->json or call->text. */
unsigned routes_answer(struct call *call);
