/* SPDX-License-Identifier: BSD-3-Clause */
/* changes.c - routes of the control API that change which disks there are, and units */
#include "control/changes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/calls.h"
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

/* {"disk": NAME or null, "force": true}: 0, or the status to answer with. @force may be NULL. */
static unsigned read_wish(struct call *call, struct disk **disk, bool *force)
{
	unsigned status = 0;
	json_t *body = call_body(call, &status);
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
	body = call_body(call, &status);
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
	if (disks_resize(call->daemon, disk, bytes, call_prepare(call, route_disk), &err))
		return call_refuse(call, &err);
	return call_wait(call, "the state file to be written");
}

/* All that is wrong with a tree, in one text. */
static unsigned refuse_mistakes(struct call *call, struct mistakes *mistakes)
{
	char text[560];

	return route_fail(call, mistakes->no_memory ? 500 : 400, "%s",
			  mistakes_text(mistakes, text, sizeof text));
}

/* The file that a disk is said to be on is part of the request, not of the path. */
static void disk_told(struct waiter *waiter, const struct error *err)
{
	struct error wrong = *err;

	if (wrong.code == ENOENT)
		wrong.code = EINVAL;
	call_told(waiter, &wrong);
}

unsigned change_add_disk(struct call *call)
{
	struct mistakes mistakes = { .file = "request" };
	struct config_disk config = { 0 };
	struct error err = { 0 };
	unsigned status = 0;
	json_t *body = call_body(call, &status);
	struct node *tree;
	bool good = false;

	if (!body)
		return status;
	tree = json_tree_read(body, &mistakes);
	json_decref(body);
	if (tree) {
		struct node *disks = node_make(NODE_MAPPING, NULL, 0);

		if (!disks)
			node_free(tree);
		if (disks && node_put(disks, call->name[0], tree))
			good = config_read_disk(&config, tree, &mistakes);
		else
			mistake_no_memory(&mistakes);
		node_free(disks);
	}
	if (!good) {
		status = refuse_mistakes(call, &mistakes);
		config_release_disk(&config);
	}
	mistakes_release(&mistakes);
	if (!good)
		return status;
	call_prepare(call, route_disk)->done = disk_told;
	if (disks_open(call->daemon, &config, &call->waiter, &err))
		return call_refuse(call, &err);
	return call_wait(call, "the back-end of disk '%s' to open", call->name[0]);
}

static unsigned disk_removed(struct call *call)
{
	return route_answer(call, json_pack("{s:s}", "name", call->name[0]));
}

unsigned change_remove_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);
	struct error err = { 0 };

	if (!disk)
		return route_no_disk(call, call->name[0]);
	if (disks_close(call->daemon, disk, call_prepare(call, disk_removed), &err))
		return call_refuse(call, &err);
	return call_wait(call, "the work of its own that disk '%s' does", call->name[0]);
}

/* --- units ----------------------------------------------------------------------------- */

static bool find_unit(struct call *call, struct unit_place *place, unsigned *status)
{
	struct error err = { 0 };

	if (!units_find(call->daemon, call->name[0], call->name[1], call->name[2], place, &err))
		return true;
	*status = call_refuse(call, &err);
	return false;
}

/* After a change of @place was begun; the disk that was there is what it waits for. */
static unsigned wait_for_unit(struct call *call, const struct disk *from)
{
	if (!from)
		return call_wait(call, "the guest's requests to the empty drive");
	return call_wait(call, "the guest's requests that are under way on disk '%s'", from->name);
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
	if (units_set_disk(call->daemon, &place, disk, force, call_prepare(call, route_unit), &err))
		return call_refuse(call, &err);
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
	if (units_attach(call->daemon, &place, disk, call_prepare(call, route_unit), &err))
		return call_refuse(call, &err);
	return call_wait(call, "the state file to be written");
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
	if (units_detach(call->daemon, &place, call_prepare(call, route_unit), &err))
		return call_refuse(call, &err);
	return wait_for_unit(call, from);
}
