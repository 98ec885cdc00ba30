/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * changes_layers.c - routes of the control API that change the layers of a disk or of a port in
 * use, or move a disk
 *
 * Each takes the stack as it now is as JSON, changes one thing in it (stack_tree.c), and has the
 * layer engine bring the disk there (layering.c), or the port (networks.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/calls.h"
#include "control/changes.h"
#include "control/config_write.h"
#include "control/daemon.h"
#include "control/layering.h"
#include "control/moves.h"
#include "control/networks.h"
#include "control/records.h"
#include "control/stack_tree.h"
#include "layer/disk.h"
#include "util/error.h"
#include "util/option.h"

/* --- what they have in common ---------------------------------------------------------------- */

static struct disk *find_disk(struct call *call, unsigned *status)
{
	struct disk *disk = daemon_disk(call->daemon, call->name[0]);

	if (!disk)
		*status = route_no_disk(call, call->name[0]);
	return disk;
}

static bool has_no_body(struct call *call, unsigned *status)
{
	if (!call->length)
		return true;
	*status = route_fail(call, 400, "there is a body; expected none");
	return false;
}

/* The body, which has the member @name and no other; NULL with *@status. The caller's. */
static json_t *body_with(struct call *call, const char *name, const char *expected,
			 unsigned *status)
{
	json_t *body = call_body(call, status);

	if (!body || (json_object_get(body, name) && json_object_size(body) == 1))
		return body;
	json_decref(body);
	*status = route_fail(call, 400, "expected %s", expected);
	return NULL;
}

/* What a path of a stack names. */
struct target {
	struct disk *disk; /* or else a port */
	struct port *port;
};

/* False with *@status if there is no such thing. */
static bool find_target(struct call *call, struct target *target, unsigned *status)
{
	*target = (struct target){ 0 };
	if (strncmp(call->path, "/v1/ports/", strlen("/v1/ports/"))) {
		target->disk = find_disk(call, status);
		return target->disk;
	}
	target->port = daemon_port(call->daemon, call->name[0]);
	if (!target->port)
		*status = route_no_port(call, call->name[0]);
	return target->port;
}

static json_t *stack_of(const struct target *target)
{
	return target->disk ? stack_tree_of(target->disk) : config_write_layers(target->port);
}

/* Brings @port to @layers, which are taken over. */
static unsigned set_port_layers(struct call *call, struct port *port, json_t *layers)
{
	json_t *as_written = layers ? stack_tree_short(layers) : NULL;
	struct error err = { 0 };
	int ret = as_written ? networks_set_layers(call->daemon, port, as_written,
						   call_prepare(call, route_port), &err)
			     : error_set(&err, ENOMEM, "out of memory");

	json_decref(as_written);
	json_decref(layers);
	return ret ? call_refuse(call, &err)
		   : call_wait(call, "all loops to have the new layers of port '%s'",
			       call->name[0]);
}

/* Brings @disk to @stack, which is taken over. */
static unsigned set_disk_stack(struct call *call, struct disk *disk, json_t *stack)
{
	struct stack_config config = { 0 };
	struct error err = { 0 };
	int ret = stack ? layering_read(disk, stack, &config, &err)
			: error_set(&err, ENOMEM, "out of memory");

	json_decref(stack);
	if (ret ||
	    layering_begin(call->daemon, disk, &config, call_prepare(call, route_disk), &err))
		return call_refuse(call, &err);
	return call_wait(call,
			 "the new layers of disk '%s' to open, and requests below them to end",
			 disk->name);
}

/*
 * Has @change do one thing to the stack that @call names, and brings its disk or port there. @body
 * is its own.
 */
static unsigned change_stack(struct call *call, json_t *body,
			     int (*change)(struct call *call, json_t *stack, const json_t *body,
					   struct error *err))
{
	struct error err = { 0 };
	unsigned status = 0;
	struct target target;
	bool found = find_target(call, &target, &status);
	json_t *stack = found ? stack_of(&target) : NULL;
	int ret = 0;

	if (found)
		ret = stack ? change(call, stack, body, &err)
			    : error_set(&err, ENOMEM, "out of memory");
	json_decref(body);
	if (found && !ret)
		return target.disk ? set_disk_stack(call, target.disk, stack)
				   : set_port_layers(call, target.port, stack);
	json_decref(stack);
	if (!found)
		return status;
	error_prefix(&err, "%s '%s'", target.disk ? "disk" : "port", call->name[0]);
	return call_refuse(call, &err);
}

/* --- the whole stack ---------------------------------------------------------------------------
 */

unsigned change_get_stack(struct call *call)
{
	unsigned status = 0;
	struct target target;
	bool found = find_target(call, &target, &status);
	json_t *stack = found ? stack_of(&target) : NULL, *answer;
	char words[1000];

	if (!found)
		return status;
	answer = stack ? json_pack("{s:o, s:s}", "stack", stack_tree_short(stack), "layers",
				   stack_tree_words(stack, words, sizeof words))
		       : NULL;
	json_decref(stack);
	return route_answer(call, answer);
}

static int replace_stack(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	json_t *wanted = json_object_get(body, "stack"), *full;

	(void)call;
	if (!json_is_array(wanted))
		return error_set(err, EINVAL, "stack: expected a list of layers");
	full = stack_tree_full(wanted);
	json_array_clear(stack);
	json_array_extend(stack, full);
	json_decref(full);
	return 0;
}

unsigned change_set_stack(struct call *call)
{
	unsigned status = 0;
	json_t *body = body_with(call, "stack", "{\"stack\": [LAYER, ...]}", &status);

	return body ? change_stack(call, body, replace_stack) : status;
}

/* --- one layer ---------------------------------------------------------------------------------
 */

static int insert(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	json_t *given = json_object_get(body, "layer"), *layer;
	int ret;

	if (json_is_array(given) || !(layer = stack_tree_full(given)))
		return error_set(err, EINVAL,
				 "layer: expected one, such as \"pass\" or {\"crypt\": "
				 "{...}}");
	if (json_object_size(layer) == 1)
		ret = stack_tree_insert(stack, call->name[1], layer, err);
	else
		ret = error_set(err, EINVAL,
				"layer: expected one, such as \"pass\" or {\"crypt\": "
				"{...}}");
	json_decref(layer);
	return ret;
}

unsigned change_insert_layer(struct call *call)
{
	unsigned status = 0;
	json_t *body = body_with(call, "layer", "{\"layer\": LAYER}", &status);

	return body ? change_stack(call, body, insert) : status;
}

static int take_out(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	const char *keep = call->parameter ? call->parameter(call, "keep") : NULL;

	(void)body;
	if (keep && (!*keep || strspn(keep, "0123456789") != strlen(keep) || strlen(keep) > 6))
		return error_set(err, EINVAL, "keep: '%s' is not the number of a leg", keep);
	return stack_tree_remove(stack, call->name[1], keep ? atoi(keep) : -1, err);
}

unsigned change_remove_layer(struct call *call)
{
	unsigned status = 0;

	return has_no_body(call, &status) ? change_stack(call, NULL, take_out) : status;
}

static int set_options(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	const json_t *options = json_object_get(body, "options");

	if (!json_is_object(options) || !json_object_size(options))
		return error_set(err, EINVAL, "options: expected some, such as {\"size\": \"1G\"}");
	return stack_tree_set(stack, call->name[1], options, err);
}

unsigned change_set_layer(struct call *call)
{
	unsigned status = 0;
	json_t *body = body_with(call, "options", "{\"options\": {NAME: VALUE, ...}}", &status);

	return body ? change_stack(call, body, set_options) : status;
}

static int reorder(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	const char *from = json_string_value(json_object_get(body, "from"));
	const char *to = json_string_value(json_object_get(body, "to"));

	(void)call;
	if (!from || !to || json_object_size(body) != 2)
		return error_set(err, EINVAL, "expected {\"from\": PLACE, \"to\": PLACE}");
	return stack_tree_reorder(stack, from, to, err);
}

unsigned change_reorder(struct call *call)
{
	unsigned status = 0;
	json_t *body = call_body(call, &status);

	return body ? change_stack(call, body, reorder) : status;
}

/* --- one leg -----------------------------------------------------------------------------------
 */

/* One layer or a list of them, as a list in full form; NULL with @err. */
static json_t *read_layers(const json_t *given, const char *name, struct error *err)
{
	json_t *list = json_is_array(given) ? json_incref((json_t *)given)
					    : json_pack("[O]", given);
	json_t *full = list && json_array_size(list) ? stack_tree_full(list) : NULL;

	json_decref(list);
	if (!full)
		error_set(err, EINVAL,
			  "%s: expected a layer such as {\"file\": {...}}, or a list of "
			  "them",
			  name);
	return full;
}

static int add_leg(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	json_t *leg = read_layers(json_object_get(body, "leg"), "leg", err);
	int ret = leg ? stack_tree_add_leg(stack, call->name[1], leg, err) : -err->code;

	json_decref(leg);
	return ret;
}

unsigned change_add_leg(struct call *call)
{
	unsigned status = 0;
	json_t *body = body_with(call, "leg", "{\"leg\": LAYER or [LAYER, ...]}", &status);

	return body ? change_stack(call, body, add_leg) : status;
}

static int remove_leg(struct call *call, json_t *stack, const json_t *body, struct error *err)
{
	(void)body;
	return stack_tree_remove_leg(stack, call->name[1], err);
}

unsigned change_remove_leg(struct call *call)
{
	unsigned status = 0;

	return has_no_body(call, &status) ? change_stack(call, NULL, remove_leg) : status;
}

unsigned change_undo(struct call *call)
{
	struct error err = { 0 };
	unsigned status = 0;
	struct disk *disk = find_disk(call, &status);

	if (!disk || !has_no_body(call, &status))
		return status;
	if (layering_undo(call->daemon, disk, call_prepare(call, route_disk), &err))
		return call_refuse(call, &err);
	return call_wait(call, "requests below disk '%s' to end, and its changes to be thrown away",
			 disk->name);
}

/* --- to another back-end -----------------------------------------------------------------------
 */

unsigned change_get_move(struct call *call)
{
	unsigned status = 0;
	struct disk *disk = find_disk(call, &status);
	const struct disk_record *record = disk ? record_of(call->daemon, disk) : NULL;

	if (!disk)
		return status;
	if (!record->move)
		return route_fail(call, 404, "disk '%s' has not been moved", disk->name);
	return route_answer(call, moves_report(record));
}

/* A size, or null for none. */
static bool read_limit(const json_t *json, uint64_t *limit)
{
	*limit = 0;
	if (json_is_integer(json) && json_integer_value(json) > 0)
		*limit = (uint64_t)json_integer_value(json);
	else if (json_is_string(json))
		return !parse_size(json_string_value(json), limit) && *limit;
	else
		return !json || json_is_null(json);
	return true;
}

unsigned change_begin_move(struct call *call)
{
	unsigned status = 0;
	struct disk *disk = find_disk(call, &status);
	json_t *body = disk ? call_body(call, &status) : NULL, *to, *at, *limit;
	struct error err = { 0 };
	uint64_t bytes;
	int ret;

	if (!body)
		return status;
	at = json_object_get(body, "at");
	limit = json_object_get(body, "limit");
	to = read_layers(json_object_get(body, "to"), "to", &err);
	if (!to)
		ret = -err.code;
	else if (json_object_size(body) != 1u + (at != NULL) + (limit != NULL) ||
		 (at && !json_is_string(at)) || !read_limit(limit, &bytes))
		ret = error_set(
			&err, EINVAL,
			"expected {\"to\": LAYER or [LAYER, ...]}, with \"limit\": a size such as "
			"\"100M\", and \"at\": PLACE, beside it where need be");
	else
		ret = moves_begin(call->daemon, disk, to, json_string_value(at), bytes,
				  call_prepare(call, change_get_move), &err);
	json_decref(to);
	json_decref(body);
	return ret ? call_refuse(call, &err)
		   : call_wait(call, "the target of disk '%s' to open", disk->name);
}

unsigned change_limit_move(struct call *call)
{
	unsigned status = 0;
	struct disk *disk = find_disk(call, &status);
	json_t *body = disk ? body_with(call, "limit", "{\"limit\": SIZE or null}", &status) : NULL;
	struct error err = { 0 };
	uint64_t limit = 0;
	bool good = read_limit(json_object_get(body, "limit"), &limit);

	if (!body)
		return status;
	json_decref(body);
	if (!good)
		return route_fail(call, 400, "limit: expected a size such as \"100M\", or null");
	if (moves_limit(call->daemon, disk, limit, &err))
		return call_refuse(call, &err);
	return change_get_move(call);
}

unsigned change_cancel_move(struct call *call)
{
	unsigned status = 0;
	struct disk *disk = find_disk(call, &status);
	struct error err = { 0 };

	if (!disk || !has_no_body(call, &status))
		return status;
	if (moves_cancel(call->daemon, disk, call_prepare(call, change_get_move), &err))
		return call_refuse(call, &err);
	return call_wait(call, "the copying of disk '%s' to end", disk->name);
}
