/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * captures.c - captures that last as long as somebody reads them: penstock capture
 *
 * A layer `capture` is put among those of the port, as by insert-layer, whose file is a stream
 * (packet/capture.h); what comes out of the stream is the answer to the call. When the caller goes,
 * or has had enough, the layer is taken out again, which is tried until it works: another change
 * of the layers may be under way. If somebody else takes the layer out, or the port goes, the
 * stream ends and with it the answer.
 *
 * A capture is gone when its layer is and its call is.
 */
#include "control/captures.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/calls.h"
#include "control/changes.h"
#include "control/config_write.h"
#include "control/daemon.h"
#include "control/networks.h"
#include "control/stack_tree.h"
#include "packet/layer/capture.h"
#include "util/error.h"

#define CAPTURES 16            /* at a time; each has a thread, and a connection */
#define AGAIN    20000000ull   /* ns, until a change is tried again */
#define PATIENCE 5000000000ull /* ns, for others' changes at the beginning */

struct capture {
	struct call_stream stream; /* the call's, as long as it is there */
	struct daemon *daemon;
	struct waiter *caller; /* the call's, until it is answered */
	char *port;
	char name[CAPTURE_STREAM_NAME];
	json_t *layer; /* to be put in */
	char *at;
	int fd; /* to read from; -1: nobody does any more */
	struct loop_watch *watch;
	struct loop_timer timer;
	uint64_t patience; /* ns, until which putting in is tried */
	struct waiter waiter;
	bool ending; /* the layer shall go */
	bool out;    /* it is gone */
	bool left;   /* so is the call */
};

static unsigned captures; /* that there are */

static void release(struct capture *capture)
{
	if (capture->caller)
		waiter_leave(capture->caller);
	waiter_leave(&capture->waiter);
	loop_timer_cancel(&capture->timer);
	if (capture->watch)
		loop_watch_remove(capture->daemon->control, capture->watch);
	if (capture->fd >= 0)
		close(capture->fd);
	capture_stream_forget(capture->name);
	json_decref(capture->layer);
	free(capture->port);
	free(capture->at);
	free(capture);
	captures--;
}

/* --- out ------------------------------------------------------------------------------ */

/* The number of our layer among those of @port, or -1. */
static int find_layer(const struct capture *capture, const struct port *port)
{
	for (unsigned i = 0; i < port->layer_count; i++)
		if (port->layers[i]->ops == &capture_layer &&
		    capture_goes_to(port->layers[i]->settings, capture->name))
			return (int)i;
	return -1;
}

static void is_out(struct capture *capture)
{
	capture->out = true;
	if (capture->left)
		release(capture);
}

static void taken_out(struct waiter *waiter, const struct error *err)
{
	struct capture *capture = container_of(waiter, struct capture, waiter);

	/* Whether it could be noted in the state file is not our business. */
	(void)err;
	is_out(capture);
}

static void try_again(struct capture *capture)
{
	loop_timer_set(capture->daemon->control, &capture->timer,
		       loop_now(capture->daemon->control) + AGAIN);
}

/* Begins to take the layer out, unless that is under way or done. */
static void take_out(struct capture *capture)
{
	struct port *port = daemon_port(capture->daemon, capture->port);
	int number = port ? find_layer(capture, port) : -1;
	json_t *layers, *short_form;
	struct error err = { 0 };

	if (number < 0) {
		is_out(capture);
		return;
	}
	layers = config_write_layers(port);
	if (layers)
		json_array_remove(layers, (size_t)number);
	short_form = layers ? stack_tree_short(layers) : NULL;
	capture->waiter.done = taken_out;
	if (!short_form ||
	    networks_set_layers(capture->daemon, port, short_form, &capture->waiter, &err))
		try_again(capture);
	json_decref(short_form);
	json_decref(layers);
}

static void end(struct capture *capture)
{
	if (capture->ending)
		return;
	capture->ending = true;
	take_out(capture);
}

/* --- the stream ------------------------------------------------------------------------- */

static ssize_t read_stream(struct call_stream *stream, char *to, size_t room)
{
	struct capture *capture = container_of(stream, struct capture, stream);
	ssize_t n = read(capture->fd, to, room);

	if (n > 0)
		return n;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void finish_stream(struct call_stream *stream)
{
	end(container_of(stream, struct capture, stream));
}

static void stream_gone(struct call_stream *stream)
{
	struct capture *capture = container_of(stream, struct capture, stream);

	if (capture->watch)
		loop_watch_remove(capture->daemon->control, capture->watch);
	capture->watch = NULL;
	close(capture->fd); /* which the writer takes as the end */
	capture->fd = -1;
	capture->left = true;
	if (capture->out)
		release(capture);
	else
		end(capture);
}

static void readable(void *data)
{
	struct capture *capture = data;

	if (capture->stream.wake)
		capture->stream.wake(&capture->stream);
}

/* --- in ------------------------------------------------------------------------------- */

/* Nothing is in; the caller is told why. */
static void refuse(struct capture *capture, const struct error *err)
{
	waiter_tell(&capture->caller, err);
	release(capture);
}

static void put_in(struct waiter *waiter, const struct error *err)
{
	struct capture *capture = container_of(waiter, struct capture, waiter);
	const struct port *port = daemon_port(capture->daemon, capture->port);

	/* If only the state file could not be written, the layer is there all the same. */
	if (err->code && (!port || find_layer(capture, port) < 0)) {
		refuse(capture, err);
		return;
	}
	if (!capture->caller) { /* it waited for too long */
		capture->left = true;
		end(capture);
		return;
	}
	container_of(capture->caller, struct call, waiter)->stream = &capture->stream;
	waiter_tell(&capture->caller, &(struct error){ 0 });
}

static int begin(struct capture *capture, struct error *err)
{
	struct port *port = daemon_port(capture->daemon, capture->port);
	json_t *layers = port ? config_write_layers(port) : NULL, *short_form = NULL;
	char number[16];
	int ret;

	if (!port)
		return error_set(err, ENOENT, "port '%s' has gone", capture->port);
	snprintf(number, sizeof number, "%u", port->layer_count);
	if (!layers)
		ret = error_set(err, ENOMEM, "out of memory");
	else if (!strcmp(capture->at, "outside"))
		ret = stack_tree_insert(layers, "0", capture->layer, err);
	else if (!strcmp(capture->at, "inside"))
		ret = stack_tree_insert(layers, number, capture->layer, err);
	else
		ret = stack_tree_insert(layers, capture->at, capture->layer, err);
	if (ret && layers)
		error_prefix(err, "port '%s'", capture->port);
	if (!ret && !(short_form = stack_tree_short(layers)))
		ret = error_set(err, ENOMEM, "out of memory");
	capture->waiter.done = put_in;
	if (!ret)
		ret = networks_set_layers(capture->daemon, port, short_form, &capture->waiter, err);
	json_decref(short_form);
	json_decref(layers);
	return ret;
}

static void tried(struct loop_timer *timer)
{
	struct capture *capture = container_of(timer, struct capture, timer);
	struct error err = { 0 };

	if (capture->ending) {
		take_out(capture);
	} else if (!capture->caller) {
		release(capture);
	} else if (begin(capture, &err)) {
		if (err.code == EBUSY && loop_now(capture->daemon->control) < capture->patience)
			try_again(capture);
		else
			refuse(capture, &err);
	}
}

/* What the layer is to be, from the parameters of @call. NULL: memory is short. */
static json_t *layer_of(struct call *call, const char *name)
{
	static const char *const parameters[] = { "direction", "filter", "snap-length", "sums" };
	json_t *options = json_pack("{s:s}", "file", name), *layer;

	for (unsigned i = 0; options && i < sizeof parameters / sizeof *parameters; i++) {
		const char *value = call->parameter(call, parameters[i]);

		if (value && *value &&
		    json_object_set_new(options, parameters[i], json_string(value))) {
			json_decref(options);
			return NULL;
		}
	}
	layer = options ? json_pack("{s:O}", "capture", options) : NULL;
	json_decref(options);
	return layer;
}

/* A capture of what @call names, not in yet. NULL with @err. */
static struct capture *create(struct call *call, uint64_t count, struct error *err)
{
	const char *at = call->parameter(call, "at");
	struct capture *capture;

	if (captures == CAPTURES) {
		error_set(err, EBUSY, "there are %u captures already", CAPTURES);
		return NULL;
	}
	capture = calloc(1, sizeof *capture);
	if (!capture) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	captures++;
	*capture = (struct capture){ .stream = { .type = "application/x-pcapng",
						 .read = read_stream,
						 .finish = finish_stream,
						 .gone = stream_gone },
				     .daemon = call->daemon,
				     .fd = -1 };
	loop_timer_init(&capture->timer, tried);
	capture->patience = loop_now(call->daemon->control) + PATIENCE;
	if (capture_stream_create(capture->name, count, &capture->fd, err)) {
		release(capture);
		return NULL;
	}
	capture->port = strdup(call->name[0]);
	capture->at = strdup(at && *at ? at : "outside");
	capture->layer = layer_of(call, capture->name);
	capture->watch = loop_watch_add(call->daemon->control, capture->fd, readable, capture);
	if (capture->port && capture->at && capture->layer && capture->watch)
		return capture;
	release(capture);
	error_set(err, ENOMEM, "out of memory");
	return NULL;
}

static unsigned streams(struct call *call)
{
	(void)call; /* its stream is there */
	return 200;
}

/* A number of packets; 0: as many as come. -1 if it is none. */
static int read_count(const char *text, uint64_t *count)
{
	char *end;

	*count = 0;
	if (!text || !*text)
		return 0;
	errno = 0;
	*count = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno ? 0 : -1;
}

unsigned route_capture(struct call *call)
{
	struct capture *capture;
	struct error err = { 0 };
	uint64_t count;

	if (!daemon_port(call->daemon, call->name[0]))
		return route_no_port(call, call->name[0]);
	if (read_count(call->parameter(call, "count"), &count))
		return route_fail(call, 400, "count: '%s' is not understood; expected a number",
				  call->parameter(call, "count"));
	capture = create(call, count, &err);
	if (!capture)
		return call_refuse(call, &err);
	waiter_hold(&capture->caller, call_prepare(call, streams));
	if (begin(capture, &err)) {
		if (err.code == EBUSY)
			try_again(capture);
		else
			refuse(capture, &err);
	}
	return call_wait(call, "all loops to have the capture of port '%s'", call->name[0]);
}
