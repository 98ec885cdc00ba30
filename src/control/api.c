/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api.c - the server of the control API: HTTP on a UNIX socket
 *
 * libmicrohttpd runs without a thread of its own: it keeps its sockets in an epoll descriptor,
 * which the control loop watches. The loop tells once when the descriptor becomes readable,
 * so run() goes on until it is not readable any more; and libmicrohttpd has time-outs
 * of its own, for which run() keeps a timer. Whoever can open the socket may do anything, so its
 * mode is 0600.
 *
 * What is answered is in routes.c. An answer that comes later leaves its connection suspended: the
 * handler is called once more after it was resumed, and sends it then.
 *
 * An answer that goes on (struct call_stream) leaves it suspended while there is nothing to send.
 * libmicrohttpd does not look at the socket meanwhile, so we do: a reader that goes, or says that
 * it has had enough by shutting its side down, ends the answer.
 */
#include "control/api.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/daemon.h"
#include "control/routes.h"
#include "util/error.h"
#include "util/log.h"
#include "util/unix_socket.h"

#define BODY        65536 /* bytes, the most of a request */
#define CONNECTIONS 64    /* at a time; more wait */
#define IDLE        10    /* seconds until a connection without traffic is closed */
#define ROUNDS      16    /* of MHD_run() in one turn of the loop */
#define PATIENCE    20    /* seconds until a request is told what it waits for */
#define PIECE       65536 /* bytes of an answer that goes on, at a time */

struct api {
	char *path;
	struct daemon *daemon;
	struct MHD_Daemon *http;
	int epoll_fd;
	struct loop_watch *watch;
	struct loop_timer timer;
	struct list waiting; /* requests whose answer comes later */
	struct list going;   /* and those whose answer goes on */
};

/* --- one request -------------------------------------------------------------------- */

/* A request while its body comes in. */
struct request {
	struct call call; /* first */
	struct api *api;
	struct MHD_Connection *connection;
	struct list link; /* in api.waiting or api.going */
	unsigned status;  /* of an answer that came later */
	/* of an answer that goes on */
	struct loop_watch *watch; /* of its reader */
	int reader_fd;
	bool suspended, over;
	size_t length;
	bool too_large;
	char body[BODY + 1];
};

static const char *parameter(struct call *call, const char *name)
{
	return MHD_lookup_connection_value(((struct request *)call)->connection,
					   MHD_GET_ARGUMENT_KIND, name);
}

/* --- answers that go on --------------------------------------------------------------- */

static ssize_t read_more(void *data, uint64_t position, char *to, size_t room)
{
	struct request *request = data;
	struct call_stream *stream = request->call.stream;
	ssize_t n = request->over ? -1 : stream->read(stream, to, room);

	(void)position;
	if (n > 0)
		return n;
	if (n < 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	request->suspended = true;
	MHD_suspend_connection(request->connection);
	return 0;
}

static void go_on(struct request *request)
{
	struct api *api = request->api;

	if (!request->suspended)
		return;
	request->suspended = false;
	MHD_resume_connection(request->connection);
	loop_timer_set(api->daemon->control, &api->timer, loop_now(api->daemon->control));
}

static void wake(struct call_stream *stream)
{
	go_on(stream->server);
}

/* Its reader has gone, or said something, which is not listened to. */
static void reader_moved(void *data)
{
	struct request *request = data;
	struct call_stream *stream = request->call.stream;
	char bytes[512];
	ssize_t n = recv(request->reader_fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
	struct pollfd reader = { .fd = request->reader_fd, .events = POLLRDHUP };

	/* What it has said stays there, and hides its end. */
	if (n > 0 && poll(&reader, 1, 0) > 0 && reader.revents & (POLLRDHUP | POLLHUP | POLLERR))
		n = 0;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	if (n < 0) {
		request->over = true;
		go_on(request);
	} else {
		stream->finish(stream);
	}
}

/* Watches the reader. False: memory or descriptors are short. */
static bool follow_reader(struct request *request)
{
	int fd = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD)
			 ->connect_fd;

	request->reader_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (request->reader_fd < 0)
		return false;
	request->watch = loop_watch_add(request->api->daemon->control, request->reader_fd,
					reader_moved, request);
	return request->watch;
}

static void end_stream(struct request *request)
{
	struct call_stream *stream = request->call.stream;

	if (request->watch)
		loop_watch_remove(request->api->daemon->control, request->watch);
	if (request->reader_fd >= 0)
		close(request->reader_fd);
	list_remove(&request->link);
	if (stream)
		stream->gone(stream);
}

static struct MHD_Response *begin_stream(struct request *request)
{
	struct call_stream *stream = request->call.stream;
	struct MHD_Response *response;

	stream->server = request;
	stream->wake = wake;
	if (!follow_reader(request))
		return NULL;
	list_add(&request->api->going, &request->link);
	/* A reader may be slow, and there may be nothing to read for long. */
	MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE, read_more, request,
						     NULL);
	if (response)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, stream->type);
	return response;
}

/* --- answers -------------------------------------------------------------------------- */

/* Sends what call->json or call->text holds, or begins to send call->stream. */
static enum MHD_Result send_answer(struct MHD_Connection *connection, unsigned status,
				   struct call *call)
{
	const char *type = "application/json";
	struct MHD_Response *response;
	enum MHD_Result sent;

	if (call->stream) {
		response = begin_stream((struct request *)call);
		if (!response)
			return MHD_NO;
		sent = MHD_queue_response(connection, status, response);
		MHD_destroy_response(response);
		return sent;
	}
	if (call->json)
		call->text = json_dumps(call->json, JSON_INDENT(2));
	else
		type = "text/plain; version=0.0.4; charset=utf-8";
	if (!call->text)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(call->text), call->text,
						   MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (*call->allow)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, call->allow);
	sent = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return sent;
}

static enum MHD_Result refuse_body(struct request *request)
{
	request->call.json = json_pack("{s:s}", "error", "the body is larger than 64 KiB");
	return send_answer(request->connection, MHD_HTTP_CONTENT_TOO_LARGE, &request->call);
}

/* An answer that came later is there. */
static void resume(struct request *request, unsigned status)
{
	request->status = status;
	list_remove(&request->link);
	MHD_resume_connection(request->connection);
}

static void answered(struct call *call, unsigned status)
{
	struct request *request = (struct request *)call;
	struct loop *loop = request->api->daemon->control;

	resume(request, status);
	loop_timer_set(loop, &request->api->timer, loop_now(loop));
}

/* The header is there. A body that says it is too large is refused before it comes. */
static enum MHD_Result begin(struct api *api, struct MHD_Connection *connection, const char *path,
			     const char *method, void **state)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_CONTENT_LENGTH);
	struct request *request = calloc(1, sizeof *request);

	*state = request;
	if (!request)
		return MHD_NO;
	request->call = (struct call){ .daemon = api->daemon,
				       .method = method,
				       .path = path,
				       .parameter = parameter,
				       .answered = answered,
				       .patience = PATIENCE * 1000000000ull,
				       .body = request->body };
	request->api = api;
	request->connection = connection;
	request->reader_fd = -1;
	list_init(&request->link);
	return length && strtoull(length, NULL, 10) > BODY ? refuse_body(request) : MHD_YES;
}

static enum MHD_Result handle(void *data, struct MHD_Connection *connection, const char *path,
			      const char *method, const char *version, const char *bytes,
			      size_t *length, void **state)
{
	struct request *request = *state;
	unsigned status;

	(void)version;
	if (!request)
		return begin(data, connection, path, method, state);
	if (*length) {
		if (*length > BODY - request->length)
			request->too_large = true;
		else
			memcpy(request->body + request->length, bytes, *length);
		request->length = request->too_large ? 0 : request->length + *length;
		*length = 0;
		return MHD_YES;
	}
	if (request->too_large)
		return refuse_body(request);
	if (request->status)
		return send_answer(connection, request->status, &request->call);
	request->call.path = path;
	request->call.method = method;
	request->call.length = request->length;
	status = routes_answer(&request->call);
	if (status)
		return send_answer(connection, status, &request->call);
	list_add(&request->api->waiting, &request->link);
	MHD_suspend_connection(connection);
	return MHD_YES;
}

static void completed(void *data, struct MHD_Connection *connection, void **state,
		      enum MHD_RequestTerminationCode why)
{
	struct request *request = *state;

	(void)data;
	(void)connection;
	(void)why;
	if (!request)
		return;
	end_stream(request);
	json_decref(request->call.json);
	free(request->call.text);
	free(request);
	*state = NULL;
}

/* --- on the control loop ------------------------------------------------------------ */

static unsigned connections(struct api *api)
{
	return MHD_get_daemon_info(api->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

static void run(struct api *api)
{
	struct pollfd readable = { .fd = api->epoll_fd, .events = POLLIN };
	struct loop *loop = api->daemon->control;
	MHD_UNSIGNED_LONG_LONG milliseconds = 0;
	unsigned rounds = 0, before, now = connections(api);

	/* Where connections have gone it may accept again, but begins to in its next run only. */
	do {
		before = now;
		MHD_run(api->http);
		now = connections(api);
	} while (++rounds < ROUNDS && (now < before || poll(&readable, 1, 0) > 0));

	/* What is to be at once is not in this turn: others have theirs. */
	if (rounds == ROUNDS || MHD_get_timeout(api->http, &milliseconds) == MHD_YES)
		loop_timer_set(loop, &api->timer,
			       loop_now(loop) + (milliseconds ? milliseconds * 1000000 : 1));
	else
		loop_timer_cancel(&api->timer);
}

static void ready(void *data)
{
	run(data);
}

static void time_out(struct loop_timer *timer)
{
	run(container_of(timer, struct api, timer));
}

static void log_http(void *data, const char *format, va_list args)
{
	char text[300];

	(void)data;
	vsnprintf(text, sizeof text, format, args);
	text[strcspn(text, "\n")] = 0;
	log_debug("control API: %s", text);
}

struct api *api_open(const char *path, struct daemon *daemon, struct error *err)
{
	struct api *api = calloc(1, sizeof *api);
	int fd = unix_socket_listen(path, 0600, err);

	if (fd < 0) {
		error_prefix(err, "api");
		free(api);
		return NULL;
	}
	if (api && (api->path = strdup(path)))
		api->http = MHD_start_daemon(
			MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
			handle, api, MHD_OPTION_EXTERNAL_LOGGER, log_http, NULL,
			MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
			MHD_OPTION_CONNECTION_TIMEOUT, IDLE, MHD_OPTION_NOTIFY_COMPLETED, completed,
			NULL, MHD_OPTION_END);
	if (!api || !api->http) {
		error_set(err, ENOMEM, "api: %s: cannot start the HTTP server", path);
		close(fd);
		unlink(path);
		if (api)
			free(api->path);
		free(api);
		return NULL;
	}
	api->daemon = daemon;
	api->epoll_fd = MHD_get_daemon_info(api->http, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	list_init(&api->waiting);
	list_init(&api->going);
	loop_timer_init(&api->timer, time_out);
	api->watch = loop_watch_add(daemon->control, api->epoll_fd, ready, api);
	if (!api->watch) {
		error_set(err, ENOMEM, "out of memory");
		api_close(api);
		return NULL;
	}
	log_info("control API on %s", path);
	return api;
}

void api_close(struct api *api)
{
	if (!api)
		return;
	/* Those who wait are told, as far as one turn goes. */
	list_for_each (link, &api->waiting) {
		struct request *request = container_of(link, struct request, link);

		resume(request, routes_cancel(&request->call));
	}
	list_for_each (link, &api->going) {
		struct request *request = container_of(link, struct request, link);

		request->over = true;
		go_on(request);
	}
	run(api);
	if (api->watch)
		loop_watch_remove(api->daemon->control, api->watch);
	loop_timer_cancel(&api->timer);
	MHD_stop_daemon(api->http);
	unlink(api->path);
	free(api->path);
	free(api);
}
