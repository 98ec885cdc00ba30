/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_client.c - one NBD client, from the end of the haggling on
 *
 * All of it runs on one loop, and looks like a guest's queue to the disk: requests are taken in
 * batches, live changes of the layers hold them at the gate, completions come back in batches.
 *
 *     poll_client -> receive -> take_requests -> begin -> disk_submit
 *                                                            |
 *     socket  <- send_replies <- settled <- completed <------'
 *
 * One receive takes many small requests, headers and data, and one send many replies, headers and
 * data, from where they lie. Data of a large write are received to where the disk takes them from,
 * and while writes are large nothing is read ahead of the next header, so that the data behind it
 * need no copy either.
 *
 * Limits. A client has NBD_DEPTH requests at once, each with a slot of memory, which is touched
 * only when it is used, the latest one first. Larger requests take memory beside that,
 * NBD_PAYLOAD_BYTES together; that of a request that has ended is kept for the next. When there is
 * no request free, or no memory, or the client does not take its replies, nothing more is read from
 * it: it waits for itself, and nobody else does. Memory is a client's own from when it was all
 * zeroes, so that whatever a back-end leaves in it is nobody else's.
 *
 * A socket is edge-triggered and read until it is empty. After an answer it is looked at for as
 * long as this client usually takes to react, as rings are (loop.c).
 *
 * The end. A client that says so, or closes its side, gets the answers to what it has asked.
 * Whatever breaks the protocol is dropped, once the disk has nothing of it any more.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/nbd_private.h"
#include "util/log.h"

#define HEADER     sizeof(struct nbd_request_header)
#define BULK       16384u /* bytes of a write that is large */
#define RECEIVES   2u     /* from one client before what it asked for is done */
#define VECTORS    128u   /* of one send */
#define UNBLOCKED  64u    /* sends that went through, until the watch for more room goes */
#define PAGE_BYTES 4096u

/* --- the end ------------------------------------------------------------------------- */

static void fail(struct nbd_client *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void fail(struct nbd_client *c, const char *format, ...)
{
	char text[200];
	va_list args;

	if (c->failed)
		return;
	c->failed = true;
	loop_task_queue(c->loop, &c->end);
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_debug("%s: disk %s: a client was dropped: %s", nbd_server_label(c->server),
		  c->disk->name, text);
}

/* Ends it if all is answered. */
static void end_if_done(struct nbd_client *c)
{
	if (!c->finishing || c->failed || c->queue->ios.out)
		return;
	if (!c->out && !nbd_stream_staged(&c->stream)) {
		c->failed = true;
		loop_task_queue(c->loop, &c->end);
	} else if (c->stopping && c->blocked) {
		fail(c, "it does not take its answers, and the server ends");
	}
}

static void finish(struct nbd_client *c)
{
	c->finishing = true;
	end_if_done(c);
}

static void unwatch_writable(struct nbd_client *c)
{
	if (!c->writable)
		return;
	loop_watch_remove(c->loop, c->writable);
	close(c->writable_fd);
	c->writable = NULL;
}

static void release_memory(struct nbd_client *c, struct nbd_memory *memory)
{
	c->large -= memory->size;
	munmap(memory, memory->size);
}

static void release_all(struct nbd_client *c)
{
	struct nbd_memory *memory;

	for (unsigned i = 0; c->requests && i < NBD_DEPTH; i++)
		if (c->requests[i].large)
			release_memory(c, c->requests[i].large);
	while ((memory = c->kept)) {
		c->kept = memory->next;
		release_memory(c, memory);
	}
	if (c->slots)
		munmap(c->slots, (size_t)NBD_DEPTH * NBD_SLOT_BYTES);
	free(c->requests);
	c->requests = NULL;
	c->slots = NULL;
}

/* Runs as often as there is something left to do. */
static void end(struct loop_task *task)
{
	struct nbd_client *c = container_of(task, struct nbd_client, end);

	loop_poller_stop(c->loop, &c->poller);
	if (c->readable)
		loop_watch_remove(c->loop, c->readable);
	c->readable = NULL;
	unwatch_writable(c);
	if (c->queue && c->queue->ios.out)
		return;
	if (c->queue)
		disk_queue_close(c->queue);
	c->queue = NULL;
	nbd_stream_close(&c->stream);
	release_all(c);
	c->ended = true;
	c->stop_seen_at_end = c->stop_seen;
	loop_send(c->control, &c->gone);
}

/* --- replies ------------------------------------------------------------------------- */

static void give_back(struct nbd_client *c, struct nbd_request *r)
{
	if (r->large) {
		r->large->next = c->kept;
		c->kept = r->large;
		r->large = NULL;
	}
	r->next = c->free;
	c->free = r;
	if (c->stalled && !c->finishing && !c->failed) {
		c->stalled = false;
		loop_poller_wake(c->loop, &c->poller);
	}
}

static void send_replies(struct nbd_client *c);

static void writable(void *data)
{
	struct nbd_client *c = data;

	if (!c->blocked || c->failed)
		return;
	c->blocked = false;
	send_replies(c);
	end_if_done(c);
}

static void block(struct nbd_client *c)
{
	c->blocked = true;
	c->unblocked = 0;
	if (c->writable)
		return;
	c->writable_fd = dup(c->stream.fd);
	if (c->writable_fd >= 0)
		c->writable = loop_watch_add_writable(c->loop, c->writable_fd, writable, c);
	if (c->writable)
		return;
	if (c->writable_fd >= 0)
		close(c->writable_fd);
	fail(c, "there is no memory or descriptor to wait for it");
}

/* Takes @n bytes that were sent from the front of the replies. */
static void sent(struct nbd_client *c, size_t n)
{
	struct nbd_request *r;

	while ((r = c->out)) {
		for (unsigned i = 0; i < 2; i++) {
			size_t part = n < r->reply[i].iov_len ? n : r->reply[i].iov_len;

			if (!part)
				continue;
			r->reply[i].iov_base = (char *)r->reply[i].iov_base + part;
			r->reply[i].iov_len -= part;
			n -= part;
		}
		if (r->reply[0].iov_len || r->reply[1].iov_len)
			return;
		c->out = r->next;
		if (!c->out)
			c->out_last = &c->out;
		give_back(c, r);
	}
}

/* The replies as one vector; how many pieces they are, and bytes in *@total. */
static int gather(const struct nbd_client *c, struct iovec vec[VECTORS], size_t *total)
{
	unsigned count = 0;

	*total = 0;
	for (const struct nbd_request *r = c->out; r && count + 2 <= VECTORS; r = r->next)
		for (unsigned i = 0; i < 2; i++)
			if (r->reply[i].iov_len) {
				vec[count++] = r->reply[i];
				*total += r->reply[i].iov_len;
			}
	return (int)count;
}

static void send_replies(struct nbd_client *c)
{
	struct iovec vec[VECTORS];
	bool any = false;

	while ((c->out || nbd_stream_staged(&c->stream)) && !c->blocked && !c->failed) {
		size_t total;
		int count = gather(c, vec, &total);
		ssize_t n = nbd_stream_write(&c->stream, vec, count);

		if (n >= 0) {
			sent(c, (size_t)n);
			any = true;
		}
		if (n == -EAGAIN || (n >= 0 && (size_t)n < total && !c->stream.tls) ||
		    (n >= 0 && nbd_stream_staged(&c->stream)))
			block(c);
		else if (n < 0)
			fail(c, "%s", strerror((int)-n));
	}
	if (!any)
		return;
	if (c->writable && !c->blocked && ++c->unblocked > UNBLOCKED)
		unwatch_writable(c);
	if (!c->failed && !c->finishing)
		loop_poller_settled(c->loop, &c->poller);
}

static void settled(struct io_queue *ios)
{
	struct nbd_client *c = ios->owner;

	atomic_store_explicit(&c->stats.in_flight, ios->out, memory_order_relaxed);
	if (c->failed) {
		loop_task_queue(c->loop, &c->end);
		return;
	}
	send_replies(c);
	end_if_done(c);
}

static void reply(struct nbd_client *c, struct nbd_request *r, enum nbd_error error)
{
	if (error)
		nbd_request_refuse(r, &c->terms, error);
	else
		nbd_request_answer(r, &c->terms);
	r->next = NULL;
	*c->out_last = r;
	c->out_last = &r->next;
}

/* --- to the disk and back ------------------------------------------------------------ */

static enum io_op op_of(uint16_t type)
{
	switch (type) {
	case NBD_CMD_WRITE:
		return IO_WRITE;
	case NBD_CMD_FLUSH:
		return IO_FLUSH;
	case NBD_CMD_TRIM:
		return IO_DISCARD;
	case NBD_CMD_WRITE_ZEROES:
		return IO_ZEROES;
	default:
		return IO_READ;
	}
}

static void completed(struct layer *layer, struct io *io);

/* Sends the next piece of @r. Only requests without data have more than one. */
static void send_piece(struct nbd_client *c, struct nbd_request *r, struct io *io)
{
	uint64_t most = r->type == NBD_CMD_CACHE ? NBD_SLOT_BYTES : NBD_PIECE_BYTES;

	io->frame[0].note[0] = (uintptr_t)r;
	io->op = (uint8_t)op_of(r->type);
	io->offset = r->offset + (r->length - r->rest);
	io->length = r->rest < most ? r->rest : most;
	io->data = (struct io_data){ .vec = &r->vec, .count = 1 };
	io->flags = 0;
	if (r->flags & NBD_CMD_FLAG_FUA && (io->op == IO_WRITE || io->op == IO_ZEROES))
		io->flags |= IO_FUA;
	if (io->op == IO_ZEROES && !(r->flags & NBD_CMD_FLAG_NO_HOLE))
		io->flags |= IO_UNMAP;
	r->rest -= io->length;
	disk_submit(c->queue, io, completed);
}

/* Of a trim that is to be stable: the disk knows no such thing, so it is flushed afterwards. */
static void send_flush(struct nbd_client *c, struct nbd_request *r, struct io *io)
{
	r->flags &= (uint16_t)~NBD_CMD_FLAG_FUA;
	io->frame[0].note[0] = (uintptr_t)r;
	io->op = IO_FLUSH;
	io->flags = 0;
	io->offset = io->length = 0;
	disk_submit(c->queue, io, completed);
}

static void completed(struct layer *layer, struct io *io)
{
	struct nbd_client *c = io->queue->owner;
	struct nbd_request *r = (struct nbd_request *)(uintptr_t)io_frame(io)->note[0];
	int status = io->status;

	(void)layer;
	if (!status && r->rest) {
		send_piece(c, r, io);
		return;
	}
	if (!status && r->type == NBD_CMD_TRIM && r->flags & NBD_CMD_FLAG_FUA) {
		send_flush(c, r, io);
		return;
	}
	stats_count(&c->stats, op_of(r->type), status ? 0 : r->length, status,
		    loop_now(c->loop) - io->started);
	io_put(io);
	reply(c, r, nbd_error_of(status, r->type));
}

static void begin(struct nbd_client *c, struct nbd_request *r)
{
	struct io *io = io_get(&c->queue->ios); /* there are as many as requests */

	io->started = loop_now(c->loop);
	r->rest = r->length;
	send_piece(c, r, io);
}

/* --- requests ------------------------------------------------------------------------ */

enum provision { PROVIDED, WAIT, NO_MEMORY };

/* Memory of @size bytes at least, header included. */
static enum provision find_memory(struct nbd_client *c, size_t size, struct nbd_memory **memory)
{
	for (struct nbd_memory **at = &c->kept; *at; at = &(*at)->next)
		if ((*at)->size >= size) {
			*memory = *at;
			*at = (*at)->next;
			return PROVIDED;
		}
	while (c->kept && c->large + size > NBD_PAYLOAD_BYTES + PAGE_BYTES) {
		struct nbd_memory *kept = c->kept;

		c->kept = kept->next;
		release_memory(c, kept);
	}
	if (c->large + size > NBD_PAYLOAD_BYTES + PAGE_BYTES)
		return WAIT;
	*memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*memory == MAP_FAILED)
		return NO_MEMORY;
	(*memory)->size = size;
	c->large += size;
	return PROVIDED;
}

/* Room for the data of @r. */
static enum provision provide(struct nbd_client *c, struct nbd_request *r)
{
	enum provision got;

	r->vec = (struct iovec){ r->slot, NBD_SLOT_BYTES };
	if (r->type != NBD_CMD_READ && r->type != NBD_CMD_WRITE)
		return PROVIDED;
	if (r->length > NBD_SLOT_BYTES) {
		got = find_memory(c,
				  PAGE_BYTES + (((size_t)r->length + PAGE_BYTES - 1) &
						~(size_t)(PAGE_BYTES - 1)),
				  &r->large);
		if (got != PROVIDED)
			return got;
		r->vec.iov_base = (char *)r->large + PAGE_BYTES;
	}
	r->vec.iov_len = r->length;
	return PROVIDED;
}

/* Takes from the input what is there of the data of @r, a write. True if that is all. */
static bool take_data(struct nbd_client *c, struct nbd_request *r)
{
	size_t n = c->to - c->from;

	if (n > r->length)
		n = r->length;
	memcpy(r->vec.iov_base, c->input + c->from, n);
	c->from += n;
	c->bulk = r->length >= BULK;
	if (n == r->length)
		return true;
	c->filling = r;
	c->filled = n;
	return false;
}

/* A refused write's data are read all the same: the next request is behind them. */
static void drain(struct nbd_client *c)
{
	size_t n = c->to - c->from;

	if (n > c->drain)
		n = (size_t)c->drain;
	c->from += n;
	c->drain -= n;
}

static void refuse(struct nbd_client *c, struct nbd_request *r, enum nbd_error error)
{
	stats_count(&c->stats, op_of(r->type), 0, -EINVAL, 0);
	if (r->type == NBD_CMD_WRITE)
		c->drain = r->length;
	reply(c, r, error);
	loop_task_queue(c->loop, &c->queue->ios.task); /* which sends it */
}

/* One request, whose header is there. False: not now. */
static bool take_request(struct nbd_client *c)
{
	struct nbd_request *r = c->free;
	enum nbd_error error;
	enum provision got;

	c->stalled = !r;
	if (!r)
		return false;
	if (!nbd_request_read(r, c->input + c->from)) {
		fail(c, "what it sends is no request");
		return false;
	}
	if (r->type == NBD_CMD_DISC) {
		finish(c);
		return false;
	}
	error = nbd_request_check(r, &c->terms, atomic_load(&c->disk->size));
	got = error ? PROVIDED : provide(c, r);
	c->stalled = got == WAIT;
	if (c->stalled)
		return false;
	c->free = r->next;
	c->from += HEADER;
	if (error || got == NO_MEMORY)
		refuse(c, r, error ? error : NBD_ENOMEM);
	else if (r->type != NBD_CMD_WRITE || take_data(c, r))
		begin(c, r);
	return true;
}

/* All that is there. True if there was any. */
static bool take_requests(struct nbd_client *c)
{
	bool any = false;

	while (!c->filling && !c->finishing && !c->failed) {
		drain(c);
		if (c->drain || c->to - c->from < HEADER || !take_request(c))
			break;
		any = true;
	}
	return any;
}

/* --- the socket ---------------------------------------------------------------------- */

/* Where the next bytes go: the data of a write, and behind them what is read ahead. */
static int plan(struct nbd_client *c, struct iovec vec[2])
{
	size_t have = c->to - c->from;
	int count = 0;

	if (c->from) {
		memmove(c->input, c->input + c->from, have);
		c->from = 0;
		c->to = have;
	}
	if (c->filling)
		vec[count++] = (struct iovec){ (char *)c->filling->vec.iov_base + c->filled,
					       c->filling->length - c->filled };
	vec[count++] = (struct iovec){ c->input + c->to,
				       (c->bulk && !c->drain ? HEADER : NBD_INPUT_BYTES) - c->to };
	return count;
}

/* How many bytes came; *@all: there may be more. */
static ssize_t receive(struct nbd_client *c, bool *all)
{
	struct iovec vec[2];
	int count = plan(c, vec);
	ssize_t n = nbd_stream_read(&c->stream, vec, count);
	size_t left = n > 0 ? (size_t)n : 0;

	*all = left == vec[0].iov_len + (count == 2 ? vec[1].iov_len : 0);
	if (c->filling && left) {
		size_t data = left < vec[0].iov_len ? left : vec[0].iov_len;

		c->filled += data;
		left -= data;
		if (c->filled == c->filling->length) {
			struct nbd_request *r = c->filling;

			c->filling = NULL;
			begin(c, r);
		}
	}
	c->to += left;
	return n;
}

static bool poll_client(struct loop_poller *poller)
{
	struct nbd_client *c = container_of(poller, struct nbd_client, poller);
	bool any = take_requests(c), all = true;

	for (unsigned i = 0; all && i < RECEIVES; i++) {
		ssize_t n;

		if (c->stalled || c->finishing || c->failed)
			break;
		n = receive(c, &all);
		if (n > 0) {
			take_requests(c);
			any = true;
		} else if (n == 0) {
			finish(c);
		} else if (n != -EAGAIN) {
			fail(c, "%s", strerror((int)-n));
		}
	}
	return any;
}

/* The watch is always there. */
static bool arm(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

static void readable(void *data)
{
	struct nbd_client *c = data;

	if (!c->failed && !c->finishing)
		loop_poller_wake(c->loop, &c->poller);
}

/* --- its life ------------------------------------------------------------------------- */

static int make_requests(struct nbd_client *c)
{
	size_t bytes = (size_t)NBD_DEPTH * NBD_SLOT_BYTES;

	c->requests = calloc(NBD_DEPTH, sizeof *c->requests);
	c->slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->slots == MAP_FAILED)
		c->slots = NULL;
	if (!c->requests || !c->slots)
		return -ENOMEM;
	for (unsigned i = NBD_DEPTH; i--;) {
		c->requests[i].slot = c->slots + (size_t)i * NBD_SLOT_BYTES;
		c->requests[i].next = c->free;
		c->free = &c->requests[i];
	}
	return 0;
}

void nbd_client_start(struct nbd_client *c)
{
	c->end.run = end;
	c->out_last = &c->out;
	loop_poller_init(&c->poller, poll_client, arm);
	if (!make_requests(c))
		c->queue = disk_queue_open(c->disk, c->loop, NBD_DEPTH, 1);
	if (!c->queue) {
		fail(c, "there is no memory to serve it");
		return;
	}
	c->queue->ios.owner = c;
	c->queue->ios.settled = settled;
	c->readable = loop_watch_add(c->loop, c->stream.fd, readable, c);
	if (c->readable)
		loop_poller_wake(c->loop, &c->poller);
	else
		fail(c, "there is no memory to serve it");
}

void nbd_client_stop(struct nbd_client *c)
{
	c->stopping = true;
	if (c->queue)
		finish(c);
}
