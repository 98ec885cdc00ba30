/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls.c - calls of the control API that wait for the end of what they began
 *
 * What may take a while (opening a disk, taking one out of a drive, other layers) goes on without
 * the request that asked for it: the call waits, and is answered when it is told of the end. When
 * its patience is over it is answered with what it waited for; the change goes on.
 */
#include "control/calls.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "control/changes.h"
#include "control/daemon.h"
#include "util/error.h"

/* The status of what was asked for and cannot be done: their mistake, the state, or ours. */
static unsigned status_of(const struct error *err)
{
	switch (err->code) {
	case EINVAL:
	case ERANGE:
		return 400;
	case ENOENT:
		return 404;
	case EROFS:
	case EBUSY:
	case EPERM:
	case EACCES:
	case EEXIST:
	case ENODEV:
	case ENOTSUP:
	case ECANCELED:
		return 409;
	case ETIMEDOUT:
		return 504;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return 507;
	default:
		return 500;
	}
}

unsigned call_refuse(struct call *call, const struct error *err)
{
	return route_fail(call, status_of(err), "%s", err->text);
}

/* --- waiting for the end of a change --------------------------------------------------- */

void call_told(struct waiter *waiter, const struct error *err)
{
	struct call *call = container_of(waiter, struct call, waiter);
	unsigned status = err->code ? call_refuse(call, err) : call->then(call);

	if (!call->later) {
		call->status = status;
		return;
	}
	loop_timer_cancel(&call->timer);
	call->answered(call, status);
}

static void out_of_patience(struct loop_timer *timer)
{
	struct call *call = container_of(timer, struct call, timer);

	waiter_leave(&call->waiter);
	call->answered(call, route_fail(call, 504,
					"not done after %u s, and still under way: it waits for %s",
					(unsigned)(call->patience / 1000000000), call->waits_for));
}

unsigned routes_cancel(struct call *call)
{
	waiter_leave(&call->waiter);
	loop_timer_cancel(&call->timer);
	return route_fail(call, 503, "penstock is ending; this waited for %s", call->waits_for);
}

struct waiter *call_prepare(struct call *call, unsigned (*then)(struct call *call))
{
	call->waiter.done = call_told;
	call->then = then;
	loop_timer_init(&call->timer, out_of_patience);
	return &call->waiter;
}

unsigned call_wait(struct call *call, const char *format, ...)
{
	struct loop *loop = call->daemon->control;
	va_list args;

	if (call->status)
		return call->status;
	va_start(args, format);
	vsnprintf(call->waits_for, sizeof call->waits_for, format, args);
	va_end(args);
	call->later = true;
	loop_timer_set(loop, &call->timer, loop_now(loop) + call->patience);
	return 0;
}

/* --- bodies ---------------------------------------------------------------------------- */

json_t *call_body(struct call *call, unsigned *status)
{
	json_error_t wrong;
	json_t *body = json_loadb(call->body, call->length, JSON_REJECT_DUPLICATES, &wrong);

	if (json_is_object(body))
		return body;
	*status = body ? route_fail(call, 400, "the body is JSON, but no object")
		       : route_fail(call, 400, "the body is not JSON: %s, line %d", wrong.text,
				    wrong.line);
	json_decref(body);
	return NULL;
}
