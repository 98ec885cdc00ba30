/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.c - commands that ask a running penstock over its control API
 *
 * One request, one answer, in HTTP/1.0, whose answer ends with the connection: so a client
 * needs no more of HTTP than the first line and where the body begins.
 */
#include "control/client_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "control/commands.h"
#include "control/invocation.h"
#include "util/error.h"
#include "util/must.h"
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

/* Connects to @api and sends @request. The connection, or -1. */
static int ask(const char *api, const char *request, struct error *err)
{
	const struct timeval patience = { .tv_sec = PATIENCE };
	int fd = unix_socket_connect(api, err), ret;

	if (fd < 0) {
		error_prefix(err, "cannot reach penstock (does it run, with --api or api: in its "
				  "configuration?)");
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	ret = send_all(fd, request, strlen(request));
	if (!ret)
		return fd;
	error_set(err, -ret, "%s: %s", api, strerror(-ret));
	close(fd);
	return -1;
}

/* Sends a request and reads the whole answer. NULL if that fails. */
static char *exchange(const char *api, const char *request, struct error *err)
{
	int fd = ask(api, request, err);
	char *answer;

	if (fd < 0)
		return NULL;
	answer = receive_all(fd, err);
	if (!answer)
		error_prefix(err, "%s", api);
	close(fd);
	return answer;
}

/* The body of @answer, and its status. NULL with @err if it is not one of penstock's. */
static json_t *read_answer(const char *api, const char *answer, unsigned *status, struct error *err)
{
	const char *content = strstr(answer, "\r\n\r\n");
	json_t *json = NULL;

	if (content && sscanf(answer, "HTTP/%*s %u", status) == 1)
		json = json_loads(content, 0, NULL);
	if (!json)
		error_set(err, EPROTO, "%s: what answers there is not penstock", api);
	return json;
}

/* Takes over an answer that is an error. */
static void refused(json_t *json, struct error *err)
{
	const char *text = json_string_value(json_object_get(json, "error"));

	error_set(err, EIO, "%s", text ? text : "refused");
	json_decref(json);
}

json_t *client_ask(const struct invocation *in, const char *method, const char *path,
		   const char *body)
{
	char *api = find_api(in), *request, *answer;
	struct error err = { 0 };
	unsigned status = 0;
	json_t *json = NULL;

	if (asprintf(&request,
		     "%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		     "\r\n%s",
		     method, path, strlen(body), body) < 0)
		must(NULL);
	answer = exchange(api, request, &err);
	if (answer)
		json = read_answer(api, answer, &status, &err);
	if (json && status != 200) {
		refused(json, &err);
		json = NULL;
	}
	if (!json)
		fprintf(stderr, "penstock: %s\n", err.text);
	free(answer);
	free(request);
	free(api);
	return json;
}

/* Reads the head of an answer, to the empty line: @size bytes at most, ended by 0. False if there
 * is none. */
static bool receive_head(int fd, char *head, size_t size)
{
	size_t length = 0;

	while (length + 1 < size && recv(fd, head + length, 1, 0) == 1) {
		head[++length] = 0;
		if (length >= 4 && !memcmp(head + length - 4, "\r\n\r\n", 4))
			return true;
	}
	return false;
}

int client_stream(const struct invocation *in, const char *path)
{
	const struct timeval forever = { 0 };
	char *api = find_api(in), *request, head[4096] = "", *body, *answer;
	struct error err = { 0 };
	unsigned status = 0;
	json_t *json;
	int fd;

	if (asprintf(&request, "GET %s HTTP/1.0\r\n\r\n", path) < 0)
		must(NULL);
	fd = ask(api, request, &err);
	if (fd >= 0 && receive_head(fd, head, sizeof head) &&
	    sscanf(head, "HTTP/%*s %u", &status) == 1 && status == 200) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
	} else if (fd >= 0) {
		body = receive_all(fd, &err);
		if (asprintf(&answer, "%s%s", head, body ? body : "") < 0)
			must(NULL);
		json = read_answer(api, answer, &status, &err);
		if (json)
			refused(json, &err);
		free(answer);
		free(body);
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		fprintf(stderr, "penstock: %s\n", err.text);
	free(request);
	free(api);
	return fd;
}

/* --- paths and answers ---------------------------------------------------------------- */

char *client_path(const char *format, ...)
{
	va_list args;
	char *path;

	va_start(args, format);
	if (vasprintf(&path, format, args) < 0)
		must(NULL);
	va_end(args);
	return path;
}

bool client_name(const char *name)
{
	if (*name && !name[strcspn(name, " \t\r\n/?#%")])
		return true;
	fprintf(stderr, "penstock: '%s' cannot be a name\n", name);
	return false;
}

const char *client_command(const struct invocation *in)
{
	return in->command->name;
}

char *client_short_size(uint64_t bytes, char *text, size_t size)
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

const char *client_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

uint64_t client_number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}
