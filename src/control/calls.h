/* SPDX-License-Identifier: BSD-3-Clause */
/* calls.h - calls of the control API that wait for the end of what they began; see calls.c */
#pragma once

#include "control/routes.h"

/** Answers with what is wrong, and the status that fits; returns that. */
unsigned call_refuse(struct call *call, const struct error *err);

/** Before something is begun: who is to be told of its end, and what answers then. */
struct waiter *call_prepare(struct call *call, unsigned (*then)(struct call *call));

/** After it was begun: the status, or 0 if its end has not been told yet. The text is what it waits
 * for. */
unsigned call_wait(struct call *call, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** What is told of the end, for a done of one's own. */
void call_told(struct waiter *waiter, const struct error *err);

/** The body, an object; NULL if it is none, with *@status to answer with. The caller's. */
json_t *call_body(struct call *call, unsigned *status);
