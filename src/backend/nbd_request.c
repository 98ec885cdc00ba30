/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_request.c - a request becomes commands, and their answers its end
 *
 * Most requests are one command. Longer ones than the server takes are cut. A read goes straight
 * into the guest's memory where that is one piece, else through a bounce buffer: libnbd takes one
 * buffer for a command, and a command for each page costs more than copying does. A write is copied
 * into the history, which is one buffer, and sent from there.
 *
 * What there is no room for (commands, history) waits in the order of coming. When the history is
 * half full, a flush of our own makes room.
 *
 * While a request is here its op_kernel counts: offset, bytes given to commands; count, commands
 * under way, and one for the cutting itself; result, the first error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/nbd_private.h"

#define RESERVE      32u /* commands that only a replay may take */
#define BOUNCE_FIRST 4096u
#define BOUNCE_LAST  (BOUNCE_FIRST << (NBD_BOUNCE_SIZES - 1))
#define ZEROES_MOST  (1u << 30) /* bytes of a command without data */
#define ROUND        65536u /* where a request is cut, if it can be: no server's block is larger */
#define WRITTEN_MOST (1u << 20) /* of one that writes zeroes */

/* --- commands and bounce buffers ------------------------------------------------------------- */

struct nbd_command *nbd_request_command(struct nbd_client *client)
{
	struct list *first = client->spare.next;
	struct nbd_command *command = container_of(first, struct nbd_command, link);

	if (list_empty(&client->spare))
		return NULL;
	list_remove(first);
	client->spare_count--;
	*command = (struct nbd_command){ .client = client, .number = ++client->number };
	list_init(&command->link);
	return command;
}

void nbd_request_spare(struct nbd_command *command)
{
	struct nbd_client *client = command->client;
	struct nbd_bounce *bounce = command->bounce;

	if (bounce) {
		bounce->next = client->bounces[command->bounce_size];
		client->bounces[command->bounce_size] = bounce;
		command->bounce = NULL;
	}
	list_remove(&command->link);
	/* The latest first: the caches have it. */
	list_add(client->spare.next, &command->link);
	client->spare_count++;
}

static bool take_bounce(struct nbd_command *command)
{
	struct nbd_client *client = command->client;
	struct nbd_bounce *bounce;
	unsigned size = 0;

	while (BOUNCE_FIRST << size < command->length)
		size++;
	bounce = client->bounces[size];
	if (bounce)
		client->bounces[size] = bounce->next;
	else if (posix_memalign((void **)&bounce, 64, sizeof *bounce + (BOUNCE_FIRST << size)))
		return false;
	command->bounce = bounce;
	command->bounce_size = size;
	command->data = bounce->data;
	return true;
}

/* --- the end of a request ----------------------------------------------------------------------
 */

/* One thing less that the request waits for. */
static void release(struct io *io, int status)
{
	struct loop_op *op = &io->op_kernel;

	if (status && !op->result)
		op->result = status;
	if (--op->count)
		return;
	if (loop_self() == io->queue->loop)
		io_finish(io, op->result);
	else
		io_wake(io, op->data, nbd_request_wake);
}

void nbd_request_wake(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->op_kernel.result);
}

static void log_failure(struct nbd_command *command, int status)
{
	struct nbd_client *client = command->client;

	if (!log_limited(&client->limit))
		return;
	if (command->replay)
		log_error(
			"disk %s: nbd: a %s at byte %llu that the server had acknowledged is lost: "
			"after the reconnect it answers: %s",
			client->disk, io_op_name(command->op), (unsigned long long)command->offset,
			strerror(-status));
	else
		log_warn("disk %s: nbd: %s at byte %llu failed: %s", client->disk,
			 io_op_name(command->op), (unsigned long long)command->offset,
			 strerror(-status));
}

/* --- answers -------------------------------------------------------------------------------------
 */

static int read_done(struct nbd_command *command, int status)
{
	struct io *io = command->io;

	if (!status && command->arrived != command->length)
		status = -EPROTO; /* the server left something out */
	if (!status && command->bounce)
		io_data_copy_in(io_data_slice(io->data, command->start), command->data,
				command->length);
	return status;
}

/* True if a flush has to follow: the server has no FUA. */
static bool change_done(struct nbd_command *command, int status)
{
	struct nbd_client *client = command->client;
	bool fua = command->flags & IO_FUA;

	if (command->past && status)
		history_failed(&client->history, command->past);
	else if (command->past)
		history_done(&client->history, command->past,
			     !client->export.flush || (fua && client->export.fua));
	command->past = NULL;
	return !status && fua && !client->export.fua && client->export.flush;
}

static int flush_done(struct nbd_command *command, int status)
{
	struct nbd_client *client = command->client;

	if (!status)
		history_flushed(&client->history, command->flush);
	if (!command->io) {
		client->flushing = false;
		/* What it was for may be lost: whoever asks next is told, and there is room again.
		 */
		if (status && !client->owed)
			client->owed = status;
		if (status)
			history_forget(&client->history);
	} else if (client->owed && command->io->op == IO_FLUSH) {
		status = status ? status : client->owed;
		client->owed = 0;
	}
	return status;
}

void nbd_request_done(struct nbd_command *command, int status)
{
	struct nbd_client *client = command->client;
	struct io *io = command->io;

	/* Even an error is an answer; but not from those that just finish what they have. */
	if (client->state != NBD_RECOVERING) {
		client->lost_since = 0;
		client->pause = 0;
	}
	if (command->op == IO_READ) {
		status = read_done(command, status);
	} else if (command->op == IO_FLUSH) {
		status = flush_done(command, status);
	} else if (change_done(command, status)) {
		command->op = IO_FLUSH;
		command->on = NULL;
		list_remove(&command->link);
		list_add(&client->kept, &command->link);
		client->unsettled = true;
		return;
	}
	if (status)
		log_failure(command, status);
	if (command->replay && status)
		client->owed = status;
	nbd_request_spare(command);
	if (client->waiting || client->state != NBD_RUNNING)
		client->unsettled = true;
	if (io)
		release(io, status == -EPROTO ? -EIO : status);
}

/* --- cutting
 * ---------------------------------------------------------------------------------------- */

/* The piece of memory at byte @start, up to @length bytes: iovecs that follow one another are one.
 */
static char *piece(struct io_data data, uint64_t start, uint64_t *length)
{
	struct io_data rest = start ? io_data_slice(data, start) : data;
	char *base = (char *)rest.vec->iov_base + rest.skip;
	uint64_t bytes = rest.vec->iov_len - rest.skip;

	for (uint32_t i = 1;
	     bytes < *length && i < rest.count && (char *)rest.vec[i].iov_base == base + bytes; i++)
		bytes += rest.vec[i].iov_len;
	if (bytes < *length)
		*length = bytes;
	return base;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The next command's length, of the @left bytes. */
static uint64_t share(const struct nbd_client *client, const struct io *io, uint64_t left)
{
	const struct nbd_export *e = &client->export;
	uint64_t most = e->maximum;

	if (io->op == IO_WRITE)
		most = at_most(most, history_longest(&client->history));
	else if (io->op == IO_ZEROES && !e->zero)
		most = at_most(most, WRITTEN_MOST);
	else if (io->op != IO_READ)
		most = ZEROES_MOST;
	if (left <= most)
		return left;
	return most - most % (most > ROUND ? ROUND : e->minimum);
}

/* Where a read goes. */
static bool place_read(struct nbd_command *command, struct io *io)
{
	uint64_t direct = command->length;
	char *base = piece(io->data, command->start, &direct);

	if (direct == command->length) {
		command->data = base;
		return true;
	}
	command->length = at_most(command->length, BOUNCE_LAST);
	return take_bounce(command);
}

static bool enter_history(struct nbd_command *command, struct io *io)
{
	command->past = history_add(&command->client->history, command->op, command->flags,
				    command->offset, command->length, command->op == IO_WRITE);
	if (!command->past)
		return false;
	command->past->command = command;
	if (command->op != IO_WRITE)
		return true;
	command->data = command->past->data;
	io_data_copy_out(io_data_slice(io->data, command->start), command->data, command->length);
	return true;
}

/* Sends the next command of @io. False: there is no room now. */
static bool next_command(struct nbd_client *client, struct io *io)
{
	struct loop_op *op = &io->op_kernel;
	struct nbd_command *command;
	bool ready;

	if (client->spare_count <= RESERVE)
		return false;
	command = nbd_request_command(client);
	command->io = io;
	command->op = io->op;
	command->flags = io->flags;
	command->start = op->offset;
	command->offset = io->offset + op->offset;
	if (io->op != IO_FLUSH)
		command->length = share(client, io, io->length - op->offset);
	ready = io->op == IO_FLUSH ||
		(io->op == IO_READ ? place_read(command, io) : enter_history(command, io));
	if (!ready) {
		nbd_request_spare(command);
		return false;
	}
	op->offset += command->length;
	op->count++;
	nbd_link_send(client, command);
	return true;
}

/* All commands of @io. False: there is no room for the next one. */
static bool cut(struct nbd_client *client, struct io *io)
{
	struct loop_op *op = &io->op_kernel;

	if (io->op == IO_FLUSH) {
		if (!next_command(client, io))
			return false;
	} else {
		while (op->offset < io->length)
			if (!next_command(client, io))
				return false;
	}
	release(io, 0);
	return true;
}

/* What a server cannot do needs no command. */
static bool is_moot(const struct nbd_client *client, const struct io *io)
{
	return (io->op == IO_DISCARD && !client->export.trim) ||
	       (io->op == IO_FLUSH && !client->export.flush);
}

void nbd_request(struct nbd_client *client, struct io *io)
{
	struct loop_op *op = &io->op_kernel;

	op->offset = 0;
	op->count = 1;
	op->result = 0;
	if (client->failing && client->state != NBD_RUNNING) {
		release(io, -EIO);
		return;
	}
	if (is_moot(client, io)) {
		int owed = io->op == IO_FLUSH ? client->owed : 0;

		client->owed -= owed;
		release(io, owed);
		return;
	}
	if (!client->waiting && client->state == NBD_RUNNING &&
	    !atomic_load_explicit(&client->renew, memory_order_relaxed) && cut(client, io)) {
		if (client->unsettled || !client->timer_at ||
		    history_used(&client->history) > client->history.size / 2)
			nbd_settle(client);
		return;
	}
	io->next = NULL;
	*client->waiting_last = io;
	client->waiting_last = &io->next;
	nbd_settle(client);
}

static struct io *first_waiting(struct nbd_client *client)
{
	struct io *io = client->waiting;

	client->waiting = io->next;
	if (!client->waiting)
		client->waiting_last = &client->waiting;
	return io;
}

static void flush_for_room(struct nbd_client *client)
{
	struct nbd_command *command;

	if (client->flushing || !client->export.flush ||
	    history_used(&client->history) <= client->history.size / 2)
		return;
	command = nbd_request_command(client);
	if (!command)
		return;
	client->flushing = true;
	command->op = IO_FLUSH;
	nbd_link_send(client, command);
}

void nbd_request_pump(struct nbd_client *client)
{
	while (!list_empty(&client->kept) && client->state == NBD_RUNNING && !client->unsettled)
		nbd_link_send(client, container_of(client->kept.next, struct nbd_command, link));
	while (client->waiting && client->state == NBD_RUNNING && !client->unsettled) {
		struct io *io = first_waiting(client);

		if (cut(client, io))
			continue;
		io->next = client->waiting;
		if (!client->waiting)
			client->waiting_last = &io->next;
		client->waiting = io;
		break;
	}
	flush_for_room(client);
}

void nbd_request_fail(struct nbd_client *client)
{
	list_for_each (l, &client->kept) {
		struct nbd_command *command = container_of(l, struct nbd_command, link);
		struct io *io = command->io;

		if (command->past)
			history_failed(&client->history, command->past);
		if (!io && command->op == IO_FLUSH)
			client->flushing = false;
		nbd_request_spare(command);
		if (io)
			release(io, -EIO);
	}
	while (client->waiting)
		release(first_waiting(client), -EIO);
}
