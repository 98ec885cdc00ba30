/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_link.c - a connection on its loop
 *
 * libnbd does the protocol, with one send or receive of the socket at a time. It handles one reply
 * in a call, or a part of one, and does not say whether the socket has more; and when it is told of
 * one that has nothing, it waits for that before it sends again. Watches are edge-triggered, and
 * may report what was taken meanwhile. So the socket is asked each time, until no reply is
 * outstanding any more. The watches are on duplicates of the descriptor, because libnbd closes its
 * own as soon as it finds an end.
 *
 * What libnbd calls while it works (answered, part_arrived) only marks and lists; its handle is
 * locked then. A connection that dies answers all of its commands with ENOTCONN: these are kept,
 * for the next one. ESHUTDOWN is a server's way to say that it is about to do so.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/nbd_private.h"

static char zeroes[1u << 20]; /* what is sent for IO_ZEROES where the server cannot zero */

/* --- answers -------------------------------------------------------------------------------- */

void nbd_link_lose(struct nbd_link *link, const char *reason)
{
	if (link->lost || !link->handle)
		return;
	link->lost = true;
	link->client->unsettled = true;
	snprintf(link->reason, sizeof link->reason, "%s", nbd_dial_words(reason));
}

static int answered(void *data, int *error)
{
	struct nbd_command *command = data;

	if (*error == ENOTCONN || *error == ESHUTDOWN) {
		nbd_link_lose(command->on, *error == ESHUTDOWN ? "the server is shutting down"
							       : nbd_get_error());
		return 1;
	}
	command->on->under_way--;
	nbd_request_done(command, -*error);
	return 1;
}

/* Of a read; a server may send it in any pieces, and a bad one leaves some out. */
static int part_arrived(void *data, const void *bytes, size_t count, uint64_t offset,
			unsigned status, int *error)
{
	struct nbd_command *command = data;

	(void)bytes;
	(void)offset;
	(void)error;
	if (status != LIBNBD_READ_ERROR)
		command->arrived += count;
	return 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

static int64_t give(struct nbd_client *client, struct nbd_handle *handle,
		    struct nbd_command *command)
{
	const nbd_completion_callback done = { .callback = answered, .user_data = command };
	const nbd_chunk_callback part = { .callback = part_arrived, .user_data = command };
	const struct nbd_export *e = &client->export;
	uint32_t fua = command->flags & IO_FUA && e->fua ? LIBNBD_CMD_FLAG_FUA : 0;

	switch (command->op) {
	case IO_READ:
		return nbd_aio_pread_structured(handle, command->data, command->length,
						command->offset, part, done, 0);
	case IO_WRITE:
		return nbd_aio_pwrite(handle, command->data, command->length, command->offset, done,
				      fua);
	case IO_FLUSH:
		return nbd_aio_flush(handle, done, 0);
	case IO_DISCARD:
		return nbd_aio_trim(handle, command->length, command->offset, done, fua);
	default:
		if (!e->zero)
			return nbd_aio_pwrite(handle, zeroes, command->length, command->offset,
					      done, fua);
		return nbd_aio_zero(
			handle, command->length, command->offset, done,
			fua | (command->flags & IO_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	}
}

static struct nbd_link *least_busy(struct nbd_client *client)
{
	struct nbd_link *best = NULL;

	for (unsigned i = 0; i < client->links_count; i++) {
		struct nbd_link *link = &client->links[i];

		if (link->handle && !link->lost && (!best || link->under_way < best->under_way))
			best = link;
	}
	return best;
}

static void writable(void *data);

/* Watches for room in the socket just while it is needed: on a local one each reply makes some. */
static void watch_writable(struct nbd_link *link)
{
	bool wanted = nbd_aio_get_direction(link->handle) & LIBNBD_AIO_DIRECTION_WRITE;

	if (wanted && !link->writable) {
		link->writable =
			loop_watch_add_writable(link->client->loop, link->fds[1], writable, link);
		if (!link->writable)
			nbd_link_lose(link, "out of memory");
	} else if (!wanted && link->writable) {
		loop_watch_remove(link->client->loop, link->writable);
		link->writable = NULL;
	}
}

void nbd_link_send(struct nbd_client *client, struct nbd_command *command)
{
	struct nbd_link *link = least_busy(client);

	list_remove(&command->link);
	command->on = link;
	if (!link) { /* they were lost in this very turn */
		list_add(&client->kept, &command->link);
		return;
	}
	list_add(&client->sent, &command->link);
	command->since = loop_now(client->loop);
	command->arrived = 0;
	link->under_way++;
	if (command->op == IO_FLUSH)
		command->flush = history_flush(&client->history);
	if (give(client, link->handle, command) < 0) {
		int code = nbd_get_errno();

		if (code != ENOTCONN && nbd_aio_is_ready(link->handle)) {
			/* Not even sent: our own mistake, or no memory. */
			log_warn("disk %s: nbd: %s", client->disk, nbd_get_error());
			link->under_way--;
			nbd_request_done(command, code == ENOMEM ? -ENOMEM : -EIO);
			return;
		}
		nbd_link_lose(link, nbd_get_error());
	}
	if (!link->lost)
		watch_writable(link);
}

/* --- the socket ----------------------------------------------------------------------------------
 */

static bool has_more(struct nbd_link *link)
{
	struct pollfd fd = { .fd = link->fds[0], .events = POLLIN };

	return poll(&fd, 1, 0) > 0;
}

/* After a call of libnbd: false if the connection is over. */
static bool alive(struct nbd_link *link, int result)
{
	if (result == -1)
		nbd_link_lose(link, nbd_get_error());
	else if (nbd_aio_is_closed(link->handle) || nbd_aio_is_dead(link->handle))
		nbd_link_lose(link, "the server closed the connection");
	return !link->lost;
}

static void readable(void *data)
{
	struct nbd_link *link = data;

	while (!link->lost && has_more(link) && alive(link, nbd_aio_notify_read(link->handle)) &&
	       link->under_way)
		continue;
	if (!link->lost)
		watch_writable(link);
	nbd_settle(link->client);
}

static void writable(void *data)
{
	struct nbd_link *link = data;

	if (!link->lost && nbd_aio_get_direction(link->handle) & LIBNBD_AIO_DIRECTION_WRITE)
		alive(link, nbd_aio_notify_write(link->handle));
	if (!link->lost)
		watch_writable(link);
	nbd_settle(link->client);
}

int nbd_link_attach(struct nbd_link *link)
{
	int fd = nbd_aio_get_fd(link->handle);

	link->fds[0] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	link->fds[1] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (link->fds[0] >= 0 && link->fds[1] >= 0)
		link->readable = loop_watch_add(link->client->loop, link->fds[0], readable, link);
	if (!link->readable) {
		nbd_link_lose(link, "out of memory or descriptors");
		return -ENOMEM;
	}
	/* A new watch reports what there is already. */
	watch_writable(link);
	return 0;
}

void nbd_link_detach(struct nbd_link *link)
{
	if (link->readable)
		loop_watch_remove(link->client->loop, link->readable);
	if (link->writable)
		loop_watch_remove(link->client->loop, link->writable);
	link->readable = link->writable = NULL;
	for (unsigned i = 0; i < 2; i++) {
		if (link->fds[i] >= 0)
			close(link->fds[i]);
		link->fds[i] = -1;
	}
}

/* --- the end
 * ----------------------------------------------------------------------------------------- */

/* Into the list of those to be sent again, which is in the order of their first sending. */
static void keep(struct nbd_client *client, struct nbd_command *command)
{
	struct list *before = client->kept.prev;

	while (before != &client->kept &&
	       container_of(before, struct nbd_command, link)->number > command->number)
		before = before->prev;
	list_remove(&command->link);
	list_add(before->next, &command->link);
	command->on = NULL;
}

void nbd_link_close(struct nbd_link *link)
{
	struct nbd_client *client = link->client;

	if (!link->handle)
		return;
	nbd_link_detach(link);
	nbd_close(link->handle); /* which touches no memory of a request any more */
	link->handle = NULL;
	link->lost = false;
	link->under_way = 0;
	atomic_fetch_sub(&client->connected, 1);
	list_for_each (l, &client->sent) {
		struct nbd_command *command = container_of(l, struct nbd_command, link);

		if (command->on != link)
			continue;
		if (command->replay)
			nbd_request_spare(command); /* it begins anew */
		else
			keep(client, command);
	}
}
