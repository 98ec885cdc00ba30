/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.c - commands that ask a running penstock over its control API
 *
 * One request, one answer, in HTTP/1.0, whose answer ends with the connection: so a client
 * needs no more of HTTP than the first line and where the body begins.
 */
#include "control/client.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "control/invocation.h"
#include "control/qemu.h"
#include "util/error.h"
#include "util/must.h"
#include "util/option.h"
#include "util/unix_socket.h"

#define PATIENCE 30          /* seconds for an answer */
#define ANSWER   (64u << 20) /* bytes, the most of one */

/* --- the socket --------------------------------------------------------------------- */

/* Where the API is if nobody says: the first that is there, else the last. Owned by the caller. */
static char *find_api(const struct invocation *in)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR"), *told = getenv("PENSTOCK_API");
	char *path;

	if (in->api)
		return must(strdup(in->api));
	if (told && *told)
		return must(strdup(told));
	if (!access("penstock-api.sock", F_OK))
		return must(strdup("penstock-api.sock"));
	if (runtime && *runtime) {
		if (asprintf(&path, "%s/penstock.sock", runtime) < 0)
			must(NULL);
		if (!access(path, F_OK))
			return path;
		free(path);
	}
	return must(strdup("/run/penstock.sock"));
}

static int send_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Reads to the end of the connection; the text is the caller's. NULL if that fails. */
static char *receive_all(int fd, struct error *err)
{
	size_t length = 0, room = 65536;
	char *bytes = must(malloc(room));
	ssize_t n;

	while ((n = recv(fd, bytes + length, room - 1 - length, 0)) > 0) {
		length += (size_t)n;
		if (length == room - 1 && room < ANSWER)
			bytes = must(realloc(bytes, room *= 2));
	}
	bytes[length] = 0;
	if (!n)
		return bytes;
	error_set(err, errno, "%s", errno == EAGAIN ? "no answer in time" : strerror(errno));
	free(bytes);
	return NULL;
}

/* Sends a request and reads the whole answer. NULL if that fails. */
static char *exchange(const char *api, const char *request, struct error *err)
{
	const struct timeval patience = { .tv_sec = PATIENCE };
	int fd = unix_socket_connect(api, err), ret;
	char *answer = NULL;

	if (fd < 0) {
		error_prefix(err, "cannot reach penstock (does it run, with --api or api: in its "
				  "configuration?)");
		return NULL;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	ret = send_all(fd, request, strlen(request));
	if (ret)
		error_set(err, -ret, "%s: %s", api, strerror(-ret));
	else if (!(answer = receive_all(fd, err)))
		error_prefix(err, "%s", api);
	close(fd);
	return answer;
}

/* Asks, and complains if there is no good answer. The JSON is the caller's, or NULL. */
static json_t *ask(const struct invocation *in, const char *method, const char *path,
		   const char *body)
{
	char *api = find_api(in), *request, *answer, *content;
	struct error err = { 0 };
	unsigned status = 0;
	json_t *json = NULL;

	if (asprintf(&request,
		     "%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		     "\r\n%s",
		     method, path, strlen(body), body) < 0)
		must(NULL);
	answer = exchange(api, request, &err);
	if (answer) {
		content = strstr(answer, "\r\n\r\n");
		if (content && sscanf(answer, "HTTP/%*s %u", &status) == 1)
			json = json_loads(content, 0, NULL);
		if (!json)
			error_set(&err, EPROTO, "%s: what answers there is not penstock", api);
	}
	if (json && status != 200) {
		const char *text = json_string_value(json_object_get(json, "error"));

		error_set(&err, EIO, "%s", text ? text : "refused");
		json_decref(json);
		json = NULL;
	}
	if (!json)
		fprintf(stderr, "penstock: %s\n", err.text);
	free(answer);
	free(request);
	free(api);
	return json;
}

/* --- the commands ------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static uint64_t number_of(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* "12.3G": three digits or four, as is best to compare. */
static char *short_size(uint64_t bytes, char *text, size_t size)
{
	static const char units[] = "BKMGTPE";
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1000) {
		value /= 1024;
		unit++;
	}
	snprintf(text, size, unit && value < 99.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
	return text;
}

static const json_t *disk_called(const json_t *status, const char *name)
{
	const json_t *disks = json_object_get(status, "disks");

	for (size_t i = 0; i < json_array_size(disks); i++)
		if (!strcmp(text_of(json_array_get(disks, i), "name"), name))
			return json_array_get(disks, i);
	return NULL;
}

static void print_requests(const json_t *requests)
{
	const char *op;
	char size[32];
	json_t *kind;

	json_object_foreach((json_t *)requests, op, kind)
	{
		const json_t *latency = json_object_get(kind, "latency-us");

		if (!number_of(kind, "requests"))
			continue;
		printf("    %-12s %12" PRIu64 " requests %8s  %" PRIu64
		       " errors  p50 %.0f us  p99 %.0f us\n",
		       op, number_of(kind, "requests"),
		       short_size(number_of(kind, "bytes"), size, sizeof size),
		       number_of(kind, "errors"),
		       json_number_value(json_object_get(latency, "p50")),
		       json_number_value(json_object_get(latency, "p99")));
	}
}

static void print_unit(const json_t *status, const json_t *unit)
{
	const char *disk = text_of(unit, "disk");
	char size[32];

	printf("  %-24s %-5s %-12s %8s\n", *text_of(unit, "unit") ? text_of(unit, "unit") : "-",
	       text_of(unit, "type"), *disk ? disk : "(empty)",
	       *disk ? short_size(number_of(disk_called(status, disk), "size"), size, sizeof size)
		     : "-");
	print_requests(json_object_get(unit, "requests"));
}

static void print_device(const json_t *status, const char *vm, const json_t *device)
{
	const json_t *units = json_object_get(device, "units");
	bool connected = json_is_true(json_object_get(device, "connected"));

	printf("%-12s %-14s %-9s %-6s %6" PRIu64 " %10" PRIu64 " %10" PRIu64 "  %s\n", vm,
	       text_of(device, "name"),
	       json_is_true(json_object_get(device, "broken")) ? "broken"
	       : connected                                     ? "connected"
							       : "waiting",
	       *text_of(device, "ring") ? text_of(device, "ring") : "-",
	       number_of(device, "running-queues"), number_of(device, "accesses"),
	       number_of(device, "interrupts"), text_of(device, "socket"));
	if (json_is_true(json_object_get(device, "broken")))
		printf("  broken: %s\n", text_of(device, "reason"));
	if (*text_of(device, "caveat"))
		printf("  %s\n", text_of(device, "caveat"));
	for (size_t i = 0; i < json_array_size(units); i++)
		print_unit(status, json_array_get(units, i));
}

static void print_status(const json_t *status)
{
	const json_t *vms = json_object_get(status, "vms");

	printf("penstock %s, process %" PRIu64 ", up %.0f s, %" PRIu64 " loop%s, %s\n\n",
	       text_of(status, "version"), number_of(status, "pid"),
	       json_real_value(json_object_get(status, "uptime-seconds")),
	       number_of(status, "loops"), number_of(status, "loops") == 1 ? "" : "s",
	       text_of(status, "engine"));
	printf("%-12s %-14s %-9s %-6s %6s %10s %10s  %s\n", "VM", "DEVICE", "STATE", "RING",
	       "QUEUES", "ACCESSES", "INTERRUPTS", "SOCKET");
	printf("  %-24s %-5s %-12s %8s\n", "UNIT", "TYPE", "DISK", "SIZE");
	for (size_t v = 0; v < json_array_size(vms); v++) {
		const json_t *vm = json_array_get(vms, v),
			     *devices = json_object_get(vm, "devices");

		for (size_t i = 0; i < json_array_size(devices); i++)
			print_device(status, text_of(vm, "name"), json_array_get(devices, i));
	}
}

int client_status(const struct invocation *in)
{
	json_t *status = ask(in, "GET", "/v1/status", "");

	if (!status)
		return 1;
	if (in->json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_status(status);
	}
	json_decref(status);
	return 0;
}

/* A path with a name in it that is sent as it is; names with other letters do not exist. */
static char *path_of(const char *kind, const char *name, const char *what)
{
	char *path;

	if (name[strcspn(name, " \t\r\n/?#%")]) {
		fprintf(stderr, "penstock: '%s' cannot be a name\n", name);
		return NULL;
	}
	if (asprintf(&path, "/v1/%s/%s/%s", kind, name, what) < 0)
		must(NULL);
	return path;
}

int client_resize(const struct invocation *in)
{
	const char *name = in->arguments[0], *size = in->arguments[1];
	uint64_t bytes;
	char *path, body[64], text[32];
	json_t *disk;

	if (parse_size(size, &bytes) || !bytes) {
		fprintf(stderr,
			"penstock resize: '%s' is not understood; expected a size such as 40G\n",
			size);
		return 2;
	}
	path = path_of("disks", name, "resize");
	if (!path)
		return 2;
	snprintf(body, sizeof body, "{\"size\": %" PRIu64 "}", bytes);
	disk = ask(in, "POST", path, body);
	free(path);
	if (!disk)
		return 1;
	printf("disk %s: %s\n", name, format_size(number_of(disk, "size"), text, sizeof text));
	json_decref(disk);
	return 0;
}

int client_qemu_args(const struct invocation *in)
{
	char *path, query[64];
	json_t *answer;

	snprintf(query, sizeof query, "qemu-args?memory=%" PRIu64, in->memory);
	path = path_of("vms", in->arguments[0], query);
	if (!path)
		return 2;
	answer = ask(in, "GET", path, "");
	free(path);
	if (!answer)
		return 1;
	qemu_print_args(json_object_get(answer, "args"));
	json_decref(answer);
	return 0;
}
