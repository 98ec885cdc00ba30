/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * changes.c - routes of the control API that change something
 *
 * What may take a while (opening a disk, taking one out of a drive) goes on without the request
 * that asked for it: the call waits, and is answered when it is told of the end. When its patience
 * is over it is answered with what it waited for; the change goes on.
 */
#include "control/changes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/disks.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/report.h"
#include "control/units.h"
#include "control/yaml.h"
#include "frontend/device.h"
#include "layer/disk.h"
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
		return 409;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return 507;
	default:
		return 500;
	}
}

static unsigned refuse(struct call *call, const struct error *err)
{
	return route_fail(call, status_of(err), "%s", err->text);
}

/* --- waiting for the end of a change --------------------------------------------------- */

static void told(struct waiter *waiter, const struct error *err)
{
	struct call *call = container_of(waiter, struct call, waiter);
	unsigned status = err->code ? refuse(call, err) : call->then(call);

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

/* Before a change is begun: who is to be told of its end, and what happens then. */
static struct waiter *prepare(struct call *call, unsigned (*then)(struct call *call))
{
	call->waiter.done = told;
	call->then = then;
	loop_timer_init(&call->timer, out_of_patience);
	return &call->waiter;
}

/* After it was begun: the status, or 0 if it is not told of the end yet. */
static unsigned wait_for(struct call *call, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static unsigned wait_for(struct call *call, const char *format, ...)
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

/* The body, an object; NULL if it is none, with *@status to answer with. The caller's. */
static json_t *body_of(struct call *call, unsigned *status)
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

/* {"disk": NAME or null, "force": true}: 0, or the status to answer with. @force may be NULL. */
static unsigned read_wish(struct call *call, struct disk **disk, bool *force)
{
	unsigned status = 0;
	json_t *body = body_of(call, &status);
	json_t *name = json_object_get(body, "disk"), *forced = json_object_get(body, "force");
	size_t known = 1 + (force && forced);

	if (!body)
		return status;
	*disk = NULL;
	if (!(json_is_string(name) || json_is_null(name)) || json_object_size(body) != known ||
	    (known == 2 && !json_is_boolean(forced)))
		status = route_fail(
			call, 400, "expected {\"disk\": NAME}, or null for an empty drive%s",
			force ? ", and \"force\": true or false beside it where need be" : "");
	else if (json_is_string(name) &&
		 !(*disk = daemon_disk(call->daemon, json_string_value(name))))
		status = route_no_disk(call, json_string_value(name));
	if (force)
		*force = json_is_true(forced);
	json_decref(body);
	return status;
}

/* --- disks ----------------------------------------------------------------------------- */

unsigned change_resize_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);
	struct error err = { 0 };
	unsigned status = 0;
	json_t *body, *size;
	uint64_t bytes = 0;
	int parsed;

	if (!disk)
		return route_no_disk(call, call->name[0]);
	body = body_of(call, &status);
	if (!body)
		return status;
	size = json_object_get(body, "size");
	if (json_is_integer(size) && json_integer_value(size) > 0) {
		bytes = (uint64_t)json_integer_value(size);
		parsed = 0;
	} else {
		parsed = json_is_string(size) ? parse_size(json_string_value(size), &bytes)
					      : -EINVAL;
	}
	parsed = json_object_size(body) == 1 ? parsed : -EINVAL;
	json_decref(body);
	if (parsed || !bytes)
		return route_fail(
			call, 400,
			"expected {\"size\": SIZE} with a size such as \"20G\" or a number of "
			"bytes");
	if (disk_resize(disk, bytes, &err))
		return refuse(call, &err);
	return route_answer(call, report_disk(call->daemon, disk));
}

/* All that is wrong with a tree, in one text. */
static unsigned refuse_mistakes(struct call *call, struct mistakes *mistakes)
{
	char text[560] = "";
	size_t n = 0;

	for (unsigned i = 0; i < mistakes->count && n < sizeof text; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? "; " : "",
				      mistakes->texts[i]);
	return route_fail(call, 400, "%s", text);
}

static unsigned disk_added(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);

	return disk ? route_answer(call, report_disk(call->daemon, disk))
		    : route_no_disk(call, call->name[0]);
}

/* The file that a disk is said to be on is part of the request, not of the path. */
static void disk_told(struct waiter *waiter, const struct error *err)
{
	struct error wrong = *err;

	if (wrong.code == ENOENT)
		wrong.code = EINVAL;
	told(waiter, &wrong);
}

unsigned change_add_disk(struct call *call)
{
	struct mistakes mistakes = { .file = "request" };
	struct config_disk config = { 0 };
	struct error err = { 0 };
	unsigned status = 0;
	json_t *body = body_of(call, &status);
	struct node *tree;
	bool good = false;

	if (!body)
		return status;
	tree = json_tree_read(body, &mistakes);
	json_decref(body);
	if (tree) {
		struct node *disks = node_new(NODE_MAPPING, NULL, 0);

		good = config_read_disk(&config, node_add(disks, call->name[0], tree), &mistakes);
		node_free(disks);
	}
	if (!good) {
		status = refuse_mistakes(call, &mistakes);
		config_release_disk(&config);
	}
	mistakes_release(&mistakes);
	if (!good)
		return status;
	prepare(call, disk_added)->done = disk_told;
	if (disks_open(call->daemon, &config, &call->waiter, &err))
		return refuse(call, &err);
	return wait_for(call, "the back-end of disk '%s' to open", call->name[0]);
}

unsigned change_remove_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);
	struct error err = { 0 };

	if (!disk)
		return route_no_disk(call, call->name[0]);
	if (disks_close(call->daemon, disk, &err))
		return refuse(call, &err);
	return route_answer(call, json_pack("{s:s}", "name", call->name[0]));
}

/* --- units ----------------------------------------------------------------------------- */

static bool find_unit(struct call *call, struct unit_place *place, unsigned *status)
{
	struct error err = { 0 };

	if (!units_find(call->daemon, call->name[0], call->name[1], call->name[2], place, &err))
		return true;
	*status = refuse(call, &err);
	return false;
}

/* After a change of @place was begun; the disk that was there is what it waits for. */
static unsigned wait_for_unit(struct call *call, const struct disk *from)
{
	if (!from)
		return wait_for(call, "the guest's requests to the empty drive");
	return wait_for(call, "the guest's requests that are under way on disk '%s'", from->name);
}

unsigned change_set_disk(struct call *call)
{
	struct unit_place place;
	struct error err = { 0 };
	struct disk *disk, *from;
	unsigned status;
	bool force;

	if (!find_unit(call, &place, &status))
		return status;
	status = read_wish(call, &disk, &force);
	if (status)
		return status;
	from = place.slot->device->units[place.unit].disk;
	if (units_set_disk(call->daemon, &place, disk, force, prepare(call, route_unit), &err))
		return refuse(call, &err);
	return wait_for_unit(call, from);
}

unsigned change_attach(struct call *call)
{
	struct unit_place place;
	struct error err = { 0 };
	struct disk *disk;
	unsigned status;

	if (!find_unit(call, &place, &status))
		return status;
	status = read_wish(call, &disk, NULL);
	if (status)
		return status;
	if (units_attach(call->daemon, &place, disk, &err))
		return refuse(call, &err);
	return route_unit(call);
}

unsigned change_detach(struct call *call)
{
	struct unit_place place;
	struct error err = { 0 };
	struct disk *from;
	unsigned status;

	if (!find_unit(call, &place, &status))
		return status;
	if (call->length)
		return route_fail(call, 400, "there is a body; expected none");
	from = place.slot->device->units[place.unit].disk;
	if (units_detach(call->daemon, &place, prepare(call, route_unit), &err))
		return refuse(call, &err);
	return wait_for_unit(call, from);
}
