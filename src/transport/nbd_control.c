/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_control.c - a client while the control thread has it: it comes, haggles, is handed to a loop,
 * and comes back when it is over
 *
 *     control    admit, haggle, TLS --start-->                      <--gone-- count, free
 *     loop                                    serve (nbd_client.c) ... end
 *
 * What a client may do is settled when transmission begins: whether it may write depends on who has
 * the disk then. Haggling is short, or the client is dropped: it has a time for all of it, sends
 * options of a limited size, and is read no further before it has taken the last answer; and after
 * some of it others have their turn.
 *
 * The control thread may want a client gone while it is about to go by itself. So stop is answered:
 * by gone, if the loop has seen it before the end, or else by stopped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/nbd_private.h"
#include "util/log.h"

#define STEPS 32 /* of one client's haggling in one go */

/* --- the end of a client ------------------------------------------------------------------ */

static void free_client(struct nbd_client *c)
{
	list_remove(&c->link);
	c->server->client_count--;
	nbd_haggle_release(&c->haggle);
	free(c->input);
	free(c);
}

/* Nothing of it runs any more. */
static void forget(struct nbd_client *c)
{
	struct nbd_server *server = c->server;

	if (c->disk)
		nbd_exports_remember(server, c);
	free_client(c);
	nbd_server_left(server);
}

static void gone(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, gone);

	if (c->stop_sent && !c->stop_seen_at_end)
		c->waits = true;
	else
		forget(c);
}

static void stopped(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, stopped);

	if (c->waits)
		forget(c);
}

/* On its loop. */
static void stop(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, stop);

	c->stop_seen = true;
	if (c->ended)
		loop_send(c->control, &c->stopped);
	else
		nbd_client_stop(c);
}

static void unwatch(struct nbd_client *c)
{
	loop_timer_cancel(&c->timer);
	if (c->readable)
		loop_watch_remove(c->control, c->readable);
	if (c->writable) {
		loop_watch_remove(c->control, c->writable);
		close(c->writable_fd);
	}
	c->readable = c->writable = NULL;
}

/* A client that is still the control thread's. */
static void drop(struct nbd_client *c, const char *why)
{
	unwatch(c);
	nbd_stream_close(&c->stream);
	if (why && log_limited(&c->server->limit))
		log_info("%s: a client was dropped: %s", c->server->label, why);
	forget(c);
}

static void time_out(struct loop_timer *timer)
{
	drop(container_of(timer, struct nbd_client, timer), "it has not chosen a disk in time");
}

/* --- haggling ------------------------------------------------------------------------------ */

/* On its loop. */
static void start(struct loop_message *message)
{
	nbd_client_start(container_of(message, struct nbd_client, start));
}

/* The haggling is over: the client is served from now on. */
static void hand_over(struct nbd_client *c)
{
	struct nbd_server *server = c->server;
	struct disk *disk = nbd_exports_find(server, c->haggle.name);
	struct nbd_offer offer;

	if (!disk) {
		drop(c, "its disk was closed meanwhile");
		return;
	}
	nbd_exports_describe(server, disk, &offer);
	unwatch(c);
	c->phase = NBD_SERVED;
	c->disk = disk;
	c->terms = (struct nbd_terms){ .flags = offer.flags,
				       .structured = c->haggle.structured,
				       .block_size = disk->block_size };
	c->loop = server->loops.loops[server->turn++ % server->loops.count];
	nbd_haggle_release(&c->haggle);
	log_debug("%s: disk %s: a client came", server->label, disk->name);
	loop_send(c->loop, &c->start);
}

static void readable(void *data);

/* Sends what is to be sent. False: not all of it went, or the client is gone. */
static bool send_answers(struct nbd_client *c)
{
	struct nbd_haggle *h = &c->haggle;

	while (c->sent < h->out_size || nbd_stream_staged(&c->stream)) {
		struct iovec vec = { h->out + c->sent, h->out_size - c->sent };
		ssize_t n = nbd_stream_write(&c->stream, &vec, 1);

		if (n >= 0) {
			c->sent += (size_t)n;
			continue;
		}
		if (n != -EAGAIN) {
			drop(c, NULL);
			return false;
		}
		if (c->writable)
			return false;
		c->writable_fd = dup(c->stream.fd);
		if (c->writable_fd >= 0)
			c->writable =
				loop_watch_add_writable(c->control, c->writable_fd, readable, c);
		if (c->writable)
			return false;
		if (c->writable_fd >= 0)
			close(c->writable_fd);
		drop(c, "there is no memory or descriptor to wait for it");
		return false;
	}
	c->sent = h->out_size = 0;
	return true;
}

/* Does what was decided, now that the answer is sent. False: it is no more to be haggled with. */
static bool go_on(struct nbd_client *c)
{
	switch (c->next) {
	case NBD_HAGGLE_TLS:
		if (nbd_stream_encrypt(&c->stream, c->server->tls)) {
			drop(c, "there is no memory for TLS");
			return false;
		}
		c->phase = NBD_HANDSHAKE;
		break;
	case NBD_HAGGLE_GO:
		hand_over(c);
		return false;
	case NBD_HAGGLE_END:
		drop(c, NULL);
		return false;
	default:
		break;
	}
	c->next = NBD_HAGGLE_MORE;
	return true;
}

static bool shake_hands(struct nbd_client *c)
{
	const char *why;
	int ret = nbd_stream_handshake(&c->stream, &why);
	char text[160];

	if (ret == -EAGAIN)
		return false;
	if (ret) {
		snprintf(text, sizeof text, "TLS: %s", why);
		drop(c, text);
		return false;
	}
	nbd_haggle_encrypted(&c->haggle);
	c->phase = NBD_HAGGLING;
	return true;
}

enum took { TOOK, WANTS_MORE, GONE };

/* Takes one thing out of the input. */
static enum took haggle(struct nbd_client *c)
{
	const char *why = NULL;
	size_t used;

	c->next = nbd_haggle_take(&c->haggle, c->input + c->from, c->to - c->from, &used, &why);
	if (c->next == NBD_HAGGLE_FAIL) {
		drop(c, why);
		return GONE;
	}
	c->from += used;
	return used ? TOOK : WANTS_MORE;
}

/* Reads more. False: there is none now, or the client is gone. */
static bool fill(struct nbd_client *c)
{
	struct iovec vec;
	ssize_t n;

	memmove(c->input, c->input + c->from, c->to - c->from);
	c->to -= c->from;
	c->from = 0;
	vec = (struct iovec){ c->input + c->to, NBD_INPUT_BYTES - c->to };
	n = nbd_stream_read(&c->stream, &vec, 1);
	if (n > 0)
		c->to += (size_t)n;
	else if (n != -EAGAIN)
		drop(c, NULL);
	return n > 0;
}

/* Goes as far as it can, whatever has happened, and until it is the turn of others. */
static void readable(void *data)
{
	struct nbd_client *c = data;

	for (unsigned step = 0; step < STEPS; step++) {
		enum took took;

		if (c->phase == NBD_HANDSHAKE && !shake_hands(c))
			return;
		if (!send_answers(c) || !go_on(c))
			return;
		took = c->phase == NBD_HANDSHAKE ? TOOK : haggle(c);
		if (took == GONE || (took == WANTS_MORE && !fill(c)))
			return;
	}
	loop_watch_again(c->control, c->readable);
}

/* --- coming and going --------------------------------------------------------------------- */

bool nbd_client_admit(struct nbd_server *server, int fd)
{
	struct nbd_client *c = calloc(1, sizeof *c);

	if (!c || !(c->input = malloc(NBD_INPUT_BYTES))) {
		free(c);
		return false;
	}
	c->server = server;
	c->control = server->loops.control;
	c->stream.fd = fd;
	c->start.run = start;
	c->stop.run = stop;
	c->gone.run = gone;
	c->stopped.run = stopped;
	c->haggle.book = &server->book;
	c->haggle.can_tls = server->tls;
	loop_timer_init(&c->timer, time_out);
	c->readable = loop_watch_add(c->control, fd, readable, c);
	if (!c->readable) {
		free(c->input);
		free(c);
		return false;
	}
	loop_timer_set(c->control, &c->timer, loop_now(c->control) + server->config->timeout);
	list_add(&server->clients, &c->link);
	server->client_count++;
	nbd_haggle_begin(&c->haggle);
	readable(c);
	return true;
}

void nbd_client_dismiss(struct nbd_client *c)
{
	if (c->phase == NBD_SERVED) {
		c->stop_sent = true;
		loop_send(c->loop, &c->stop);
		return;
	}
	unwatch(c);
	nbd_stream_close(&c->stream);
	free_client(c);
}
