/* SPDX-License-Identifier: BSD-3-Clause */
/* stream_uplink.c - uplinks with one other side, which comes and goes; see stream_uplink.h */
#include "packet/uplink/stream_uplink.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_MIN 50000000ull   /* ns until the next attempt, after one that failed */
#define PAUSE_MAX 3200000000ull /* after many */
#define LASTING   3000000000ull /* ns; a connection that held that long was a good one */
#define PATIENCE  3000000000ull /* ns until the greeting must be there */

static struct stream_uplink *of_stream(struct stream *stream)
{
	return container_of(stream, struct stream_uplink, stream);
}

/* --- the control thread ------------------------------------------------------------------ */

static void dial(struct stream_uplink *u);

static void not_connected(struct stream_uplink *u, const char *why)
{
	if (why != u->why)
		snprintf(u->why, sizeof u->why, "%s", why);
	uplink_plugged(&u->uplink, false, u->why);
}

/* There will be another attempt. */
static void later(struct stream_uplink *u)
{
	uint64_t pause = PAUSE_MIN << (u->failures < 6 ? u->failures : 6);

	u->failures++;
	loop_timer_set(u->uplink.control, &u->retry,
		       loop_now(u->uplink.control) + (pause < PAUSE_MAX ? pause : PAUSE_MAX));
}

static void retry(struct loop_timer *timer)
{
	struct stream_uplink *u = container_of(timer, struct stream_uplink, retry);

	if (stream_uplink_wants(u))
		dial(u);
}

static void give(struct stream_uplink *u)
{
	u->wanted = false;
	u->given = true;
	u->since = loop_now(u->uplink.control);
	u->fresh_fd = u->fd;
	u->fd = -1;
	loop_send(u->uplink.loop, &u->fresh);
}

bool stream_uplink_wants(const struct stream_uplink *u)
{
	return u->wanted && u->fd < 0;
}

void stream_uplink_connected(struct stream_uplink *u, int fd, const char *why)
{
	if (fd >= 0) {
		u->fd = fd;
		if (u->wanted)
			give(u);
		return;
	}
	not_connected(u, why);
	later(u);
}

static void dial(struct stream_uplink *u)
{
	struct error why;
	int fd = u->ops->dial(u, &why);

	if (fd != -EAGAIN)
		stream_uplink_connected(u, fd, why.text);
}

static void wanting_received(struct loop_message *message)
{
	struct stream_uplink *u = container_of(message, struct stream_uplink, wanting);
	uint64_t now = loop_now(u->uplink.control);

	u->wanted = true;
	if (!u->given) { /* it begins */
		if (u->fd >= 0)
			give(u);
		else
			dial(u);
		return;
	}
	u->given = false;
	if (u->ops->over)
		u->ops->over(u, u->lost, sizeof u->lost);
	if (now - u->since > LASTING)
		u->failures = 0;
	not_connected(u, u->lost);
	later(u);
}

static void leaving_received(struct loop_message *message)
{
	struct stream_uplink *u = container_of(message, struct stream_uplink, leaving);

	u->ended = true;
	u->wanted = false;
	loop_timer_cancel(&u->retry);
	loop_send(u->uplink.loop, &u->left);
}

void stream_uplink_close(struct stream_uplink *u)
{
	loop_timer_cancel(&u->retry);
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
	stream_free(&u->stream);
}

/* --- home -------------------------------------------------------------------------------- */

static void lane_is_up(struct stream *stream)
{
	struct stream_uplink *u = of_stream(stream);

	loop_timer_cancel(&u->patience);
	u->up = true;
	u->uplink.lane->accepts = u->ops->accepts(u);
	lane_up(u->uplink.lane, u);
	atomic_fetch_add_explicit(&u->connections, 1, memory_order_relaxed);
	uplink_plugged(&u->uplink, true, NULL);
}

static void go_down(struct stream_uplink *u)
{
	loop_timer_cancel(&u->patience);
	if (u->up)
		lane_down(u->uplink.lane);
	u->up = false;
}

/* The control thread is asked for another. */
static void ended(struct stream *stream, const struct error *why)
{
	struct stream_uplink *u = of_stream(stream);

	go_down(u);
	if (u->stopping)
		return;
	snprintf(u->lost, sizeof u->lost, "%s", why->text);
	loop_send(u->uplink.control, &u->wanting);
}

static void no_patience(struct loop_timer *timer)
{
	struct stream_uplink *u = container_of(timer, struct stream_uplink, patience);
	struct error why;

	error_set(&why, ETIMEDOUT, "the other side does not say what it is");
	stream_fail(&u->stream, &why);
}

static void fresh_received(struct loop_message *message)
{
	struct stream_uplink *u = container_of(message, struct stream_uplink, fresh);
	uint8_t greeting[STREAM_GREETING];
	struct error why;
	size_t bytes;

	if (u->stopping) {
		close(u->fresh_fd);
		return;
	}
	bytes = u->ops->greeting ? u->ops->greeting(u, greeting) : 0;
	if (stream_open(&u->stream, u->uplink.loop, u->uplink.lane, u->fresh_fd, greeting, bytes,
			&why))
		ended(&u->stream, &why);
	else if (!u->ops->framing->greeting)
		lane_is_up(&u->stream);
	else
		loop_timer_set(u->uplink.loop, &u->patience, loop_now(u->uplink.loop) + PATIENCE);
}

void stream_uplink_start(struct uplink *uplink)
{
	struct stream_uplink *u = (struct stream_uplink *)uplink;

	loop_send(uplink->control, &u->wanting);
}

static void drained(struct stream *stream)
{
	struct stream_uplink *u = of_stream(stream);

	loop_send(u->uplink.control, &u->leaving);
}

void stream_uplink_stop(struct uplink *uplink)
{
	struct stream_uplink *u = (struct stream_uplink *)uplink;

	u->stopping = true;
	go_down(u);
	stream_close(&u->stream);
	stream_release(&u->stream);
}

static void left_received(struct loop_message *message)
{
	struct stream_uplink *u = container_of(message, struct stream_uplink, left);

	uplink_stopped(&u->uplink);
}

void stream_uplink_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct stream_uplink *u = lane->endpoint;

	stream_send(&u->stream, batch);
}

/* --- all --------------------------------------------------------------------------------- */

void stream_uplink_init(struct stream_uplink *u, const struct stream_uplink_ops *ops)
{
	u->ops = ops;
	u->fd = u->fresh_fd = -1;
	u->wanting.run = wanting_received;
	u->fresh.run = fresh_received;
	u->leaving.run = leaving_received;
	u->left.run = left_received;
	loop_timer_init(&u->retry, retry);
	loop_timer_init(&u->patience, no_patience);
	u->stream.framing = ops->framing;
	u->stream.greeted = lane_is_up;
	u->stream.ended = ended;
	u->stream.drained = drained;
	stream_init(&u->stream);
}

json_t *stream_uplink_report(struct port *port)
{
	struct stream_uplink *u = port->owner;

	return json_pack("{s:I, s:I}", "connections",
			 (json_int_t)atomic_load_explicit(&u->connections, memory_order_relaxed),
			 "queued",
			 (json_int_t)atomic_load_explicit(&u->stream.queued, memory_order_relaxed));
}
