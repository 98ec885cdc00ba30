/* SPDX-License-Identifier: BSD-3-Clause */
/* routes.h - what the control API answers; see routes.c */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/waiter.h"
#include "loop/loop.h"

struct daemon;
struct error;

/** Most names in one path. */
#define ROUTE_NAMES 3

/** An answer that comes bit by bit, for as long as there is more, or its reader stays. */
struct call_stream {
	const char *type; /**< the content type */
	/** Up to @room bytes to @to, and how many. 0: none now, call @wake when there are. -1: that
	 * was all. */
	ssize_t (*read)(struct call_stream *stream, char *to, size_t room);
	/** Its reader wants no more than what there is now; may be called more than once. */
	void (*finish)(struct call_stream *stream);
	/** It is no longer used. */
	void (*gone)(struct call_stream *stream);
	void (*wake)(struct call_stream *stream); /**< set by the server */
	void *server;                             /**< likewise */
};

/** One request, and its answer. */
struct call {
	struct daemon *daemon;
	const char *method, *path;
	/** The value of a parameter behind the '?', or NULL; set by the server. */
	const char *(*parameter)(struct call *call, const char *name);
	const char *body; /**< ended by a NUL beyond @length */
	size_t length;
	char name[ROUTE_NAMES]
		 [200]; /**< what stands for the words in capitals in the route's path */

	json_t *json;               /**< the answer, or NULL */
	struct call_stream *stream; /**< the answer if it is one that goes on; else NULL */
	char *text;                 /**< the answer if it is neither; free() */
	size_t text_length;
	char allow[64]; /**< 405: the methods that there are */

	/** Called when an answer that came later is there; set by the server. */
	void (*answered)(struct call *call, unsigned status);
	uint64_t patience; /**< ns until it says that it waits no longer; set by the server */
	/* those of changes.c */
	struct waiter waiter;
	struct loop_timer timer;
	unsigned (*then)(struct call *call); /* answers, once what it waits for is done */
	char waits_for[200];
	unsigned status; /* of an answer that came at once */
	bool later;
};

/** A path of the API and what it does. */
struct route {
	const char *method;
	const char *path;    /**< "/v1/disks/DISK"; a last part such as PLACE... may have parts */
	const char *summary; /**< for the man page */
	unsigned (*answer)(struct call *call);
};

/** All of them, ended by one without a method. */
extern const struct route routes[];

/**
 * Answers @call: returns the HTTP status, with call->json or call->text. 0: the answer comes later,
 * with call->answered(); the call must stay until then, or until routes_cancel().
 */
unsigned routes_answer(struct call *call);

/** Ends the wait for an answer that comes later, with one that says so; it is not told to
 * answered(). */
unsigned routes_cancel(struct call *call);
