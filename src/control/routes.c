/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * routes.c - what the control API answers
 *
 * One table: method, path, what it does. Paths begin with a version; within one, answers
 * may gain members, and none goes or changes its meaning. An error is {"error": TEXT} with
 * the status that fits.
 */
#include "control/routes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/metrics.h"
#include "control/qemu.h"
#include "control/report.h"
#include "util/error.h"

static unsigned fail(struct call *call, unsigned status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static unsigned fail(struct call *call, unsigned status, const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	call->json = json_pack("{s:s}", "error", text);
	return status;
}

static unsigned answer(struct call *call, json_t *json)
{
	call->json = json;
	return json ? 200 : fail(call, 500, "out of memory");
}

/* --- what each does ----------------------------------------------------------------- */

static unsigned get_status(struct call *call)
{
	return answer(call, report_status(call->daemon));
}

static unsigned get_disks(struct call *call)
{
	return answer(call, report_disks(call->daemon));
}

static unsigned no_disk(struct call *call)
{
	return fail(call, 404, "no disk '%s'", call->name);
}

static unsigned get_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name);

	return disk ? answer(call, report_disk(call->daemon, disk)) : no_disk(call);
}

/* The status of what was asked for and cannot be done: their mistake, the state, or ours. */
static unsigned status_of(const struct error *err)
{
	switch (err->code) {
	case EINVAL:
	case ERANGE:
		return 400;
	case EROFS:
	case EBUSY:
	case EPERM:
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

static unsigned resize_disk(struct call *call)
{
	struct disk *disk = daemon_disk(call->daemon, call->name);
	struct error err = { 0 };
	json_error_t wrong;
	json_t *body, *size;
	uint64_t bytes = 0;
	int parsed;

	if (!disk)
		return no_disk(call);
	body = json_loadb(call->body, call->length, JSON_REJECT_DUPLICATES, &wrong);
	if (!body)
		return fail(call, 400, "the body is not JSON: %s, line %d", wrong.text, wrong.line);
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
		return fail(call, 400,
			    "expected {\"size\": SIZE} with a size such as \"20G\" or a number of "
			    "bytes");
	if (disk_resize(disk, bytes, &err))
		return fail(call, status_of(&err), "%s", err.text);
	return answer(call, report_disk(call->daemon, disk));
}

static unsigned get_vms(struct call *call)
{
	return answer(call, report_vms(call->daemon));
}

static const struct config_vm *find_vm(const struct call *call)
{
	const struct config *config = call->daemon->config;

	for (unsigned i = 0; i < config->vm_count; i++)
		if (!strcmp(config->vms[i].name, call->name))
			return &config->vms[i];
	return NULL;
}

static unsigned no_vm(struct call *call)
{
	return fail(call, 404, "no VM '%s'", call->name);
}

static unsigned get_vm(struct call *call)
{
	const struct config_vm *vm = find_vm(call);

	return vm ? answer(call, report_vm(call->daemon, vm)) : no_vm(call);
}

static unsigned get_qemu_args(struct call *call)
{
	const struct config_vm *vm = find_vm(call);
	const char *memory = call->parameter(call, "memory");
	uint64_t bytes = QEMU_MEMORY;
	json_t *args;

	if (!vm)
		return no_vm(call);
	if (memory && (parse_size(memory, &bytes) || !bytes))
		return fail(call, 400, "memory: '%s' is not understood; expected a size such as 4G",
			    memory);
	args = qemu_args(vm, bytes);
	return answer(call, args ? json_pack("{s:s, s:o}", "vm", vm->name, "args", args) : NULL);
}

static unsigned get_layers(struct call *call)
{
	return answer(call, report_layers());
}

static unsigned get_frontends(struct call *call)
{
	return answer(call, report_frontends());
}

static unsigned get_metrics(struct call *call)
{
	FILE *out = open_memstream(&call->text, &call->text_length);
	int failed;

	if (!out)
		return fail(call, 500, "out of memory");
	metrics_write(out, call->daemon);
	failed = ferror(out);
	if (!(fclose(out) | failed))
		return 200;
	free(call->text);
	call->text = NULL;
	return fail(call, 500, "out of memory");
}

const struct route routes[] = {
	{ "GET", "/v1/status", "All there is: version, process, loops, disks and VMs.",
	  get_status },
	{ "GET", "/v1/disks", "A list of all disks.", get_disks },
	{ "GET", "/v1/disks/NAME",
	  "One disk: its options as in the configuration file, its size in bytes, its stack with "
	  "all options, and the VMs that have it.",
	  get_disk },
	{ "POST", "/v1/disks/NAME/resize",
	  "Grows a disk while it is in use. The body is {\"size\": \"20G\"}, or a number of bytes. "
	  "Answers with the disk.",
	  resize_disk },
	{ "GET", "/v1/vms", "A list of all VMs.", get_vms },
	{ "GET", "/v1/vms/NAME",
	  "One VM and its devices: their options, whether a VMM is connected, whether the device is "
	  "broken and why, the ring that was negotiated, and what it has done by kind of request. "
	  "Latencies are estimates, in microseconds.",
	  get_vm },
	{ "GET", "/v1/vms/NAME/qemu-args",
	  "The arguments that attach a VM of QEMU; ?memory=4G says how much memory it has.",
	  get_qemu_args },
	{ "GET", "/v1/layers", "All kinds of layers and back-ends with their options.",
	  get_layers },
	{ "GET", "/v1/frontends", "All kinds of devices with their options.", get_frontends },
	{ "GET", "/metrics", "Counters in the text format of Prometheus.", get_metrics },
	{ 0 },
};

/* --- finding the route -------------------------------------------------------------- */

/* True if @path is one of @pattern; what stands for NAME goes into call->name. */
static bool matches(struct call *call, const char *pattern)
{
	const char *path = call->path, *wild = strstr(pattern, "NAME");
	size_t length;

	if (!wild)
		return !strcmp(pattern, path);
	if (strncmp(pattern, path, (size_t)(wild - pattern)))
		return false;
	path += wild - pattern;
	length = strcspn(path, "/");
	if (!length || length >= sizeof call->name || strcmp(path + length, wild + strlen("NAME")))
		return false;
	memcpy(call->name, path, length);
	call->name[length] = 0;
	return true;
}

unsigned routes_answer(struct call *call)
{
	const char *method = strcmp(call->method, "HEAD") ? call->method : "GET";
	size_t n = 0;

	for (const struct route *route = routes; route->method; route++) {
		if (!matches(call, route->path))
			continue;
		if (!strcmp(route->method, method))
			return route->answer(call);
		n += (size_t)snprintf(call->allow + n, sizeof call->allow - n, "%s%s%s",
				      n ? ", " : "", route->method,
				      strcmp(route->method, "GET") ? "" : ", HEAD");
	}
	if (n)
		return fail(call, 405, "%s is not possible on %s, only %s", call->method,
			    call->path, call->allow);
	return fail(call, 404, "there is no %s; see penstock-api(7)", call->path);
}
