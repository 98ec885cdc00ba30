/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_message.c - messages on the socket: commands in, replies and commands of ours out
 *
 * In. What the socket has is read into one buffer, so that a burst of posted writes costs one
 * system call; then each whole message is handled where it lies. The kernel ends a read behind
 * bytes that descriptors came with, so those belong to the last message that begins in the buffer.
 *
 * Out. One thing is sent at a time: a reply, or a command of ours (DMA_READ, DMA_WRITE) with its
 * data. When the socket takes no more, we wait until it is writable. While a reply waits no command
 * is taken, so a VMM that does not read costs one buffer and no more.
 *
 * The socket is not polled for the next access: where both sides sleep a round trip takes 4 us, and
 * spinning saved nothing of that but took the VMM's core (docs/measurements.md has rings, where it
 * pays). The poller is there for the loop's sake: it takes so many messages, then others have a
 * turn.
 *
 * Commands of ours are matched with their replies by an id of our own. Nothing here waits for any
 * of them: a VMM serves DMA under the same lock under which it waits for its register accesses.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/vfio_user_private.h"

#define HEAD       sizeof(struct vfio_user_header)
#define IN_BYTES   (2 * VFIO_USER_MESSAGE)
#define BUDGET     64 /* commands in one go, so that other devices of the loop have their turn */
#define MOST_SENT  32 /* commands of ours without a reply */
#define REPLY_ROOM (HEAD + VFIO_USER_DATA + 64)

/* --- out ---------------------------------------------------------------------------- */

static void unblock(struct vfio_user *vu)
{
	if (vu->out.blocked)
		loop_watch_remove(vu->loop, vu->out.blocked);
	if (vu->out.blocked_fd >= 0)
		close(vu->out.blocked_fd);
	vu->out.blocked = NULL;
	vu->out.blocked_fd = -1;
}

static void writable(void *data)
{
	struct vfio_user *vu = data;

	vfio_user_output(vu);
	loop_poller_wake(vu->loop, &vu->poller);
}

/* A descriptor has one watch, and the socket's is for reading. */
static void block(struct vfio_user *vu)
{
	if (vu->out.blocked)
		return;
	vu->out.blocked_fd = fcntl(vu->fd, F_DUPFD_CLOEXEC, 0);
	if (vu->out.blocked_fd >= 0)
		vu->out.blocked =
			loop_watch_add_writable(vu->loop, vu->out.blocked_fd, writable, vu);
	if (!vu->out.blocked)
		vfio_user_fail(vu, "cannot wait for the socket: %s", strerror(errno));
}

static void next_command(struct vfio_user *vu)
{
	struct dma_message *message = container_of(vu->dma.queued.next, struct dma_message, link);
	bool write = message->direction == DMA_TO_GUEST;

	list_remove(&message->link);
	list_add(&vu->dma.sent, &message->link);
	vu->dma.sent_count++;
	message->id = vu->dma.next_id++;
	vu->out.head.access.address = message->address;
	vu->out.head.access.count = message->length;
	vu->out.head.header = (struct vfio_user_header){
		.id = message->id,
		.command = write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ,
		.size = (uint32_t)sizeof vu->out.head + (write ? message->length : 0),
		.flags = VFIO_USER_COMMAND,
	};
	vu->out.vec[0] = (struct iovec){ &vu->out.head, sizeof vu->out.head };
	vu->out.vec[1] = (struct iovec){ message->bytes, message->length };
	vu->out.count = write ? 2 : 1;
	vu->out.fd = -1;
	vu->out.command = message;
}

static void make_reply(struct vfio_user *vu, const struct vfio_call *call, int error)
{
	struct vfio_user_header header = {
		.id = call->header.id,
		.command = call->header.command,
		.size = (uint32_t)HEAD + (error ? 0 : call->reply_size),
		.flags = VFIO_USER_REPLY | (error ? VFIO_USER_ERROR : 0u),
		.error = (uint32_t)error,
	};

	memcpy(vu->out.reply, &header, sizeof header);
	vu->out.reply_fd = error ? -1 : call->reply_fd;
	vu->out.waiting = true;
}

/* Chooses what to send next; false if there is nothing. */
static bool next_output(struct vfio_user *vu)
{
	struct vfio_call unmap = { .reply = vu->out.reply + HEAD, .reply_fd = -1 };
	struct vfio_user_header header;

	if (!vu->out.waiting && vu->unmap_count && vfio_user_unmap_reply(vu, &unmap))
		make_reply(vu, &unmap, 0);
	if (vu->out.waiting) {
		memcpy(&header, vu->out.reply, sizeof header);
		vu->out.vec[0] = (struct iovec){ vu->out.reply, header.size };
		vu->out.count = 1;
		vu->out.fd = vu->out.reply_fd;
		vu->out.command = NULL;
		return true;
	}
	if (list_empty(&vu->dma.queued) || vu->dma.sent_count >= MOST_SENT)
		return false;
	next_command(vu);
	return true;
}

static void sent(struct vfio_user *vu, size_t n)
{
	struct iovec *vec = vu->out.vec;

	vu->out.fd = -1;
	while (vu->out.count && n >= vec->iov_len) {
		n -= vec->iov_len;
		vec[0] = vec[1];
		vu->out.count--;
	}
	if (vu->out.count) {
		vec->iov_base = (char *)vec->iov_base + n;
		vec->iov_len -= n;
	} else if (!vu->out.command) {
		vu->out.waiting = false;
	} else {
		vu->out.command = NULL;
	}
}

void vfio_user_output(struct vfio_user *vu)
{
	while (!vu->failed) {
		ssize_t n;

		if (!vu->out.count && !next_output(vu)) {
			unblock(vu);
			return;
		}
		n = descriptors_send(vu->fd, vu->out.vec, vu->out.count, vu->out.fd);
		if (n == -EAGAIN) {
			block(vu);
			return;
		}
		if (n < 0)
			vfio_user_fail(vu, "cannot send: %s", strerror((int)-n));
		else
			sent(vu, (size_t)n);
	}
}

/* --- commands of ours --------------------------------------------------------------- */

void vfio_user_dma_send(struct dma_space *space, struct dma_message *message)
{
	struct vfio_user *vu = space->transport;

	list_add(&vu->dma.queued, &message->link);
	if (vu->failed)
		loop_task_queue(vu->loop, &vu->end);
	else
		vfio_user_output(vu);
}

static void dma_end(struct vfio_user *vu, struct list *list, int status)
{
	while (!list_empty(list)) {
		struct dma_message *message = container_of(list->next, struct dma_message, link);

		list_remove(&message->link);
		message->done(message, status);
	}
	vu->dma.sent_count = 0;
}

void vfio_user_dma_fail(struct vfio_user *vu)
{
	dma_end(vu, &vu->dma.sent, -ENOTCONN);
	dma_end(vu, &vu->dma.queued, -ENOTCONN);
}

static struct dma_message *find_sent(struct vfio_user *vu, uint16_t id)
{
	list_for_each (link, &vu->dma.sent) {
		struct dma_message *message = container_of(link, struct dma_message, link);

		/* Before it was wholly sent nobody can have read it. */
		if (message->id == id)
			return message == vu->out.command ? NULL : message;
	}
	return NULL;
}

static int status_of(const struct vfio_user_header *header, const struct dma_message *message)
{
	size_t whole = HEAD + sizeof(struct vfio_user_dma_access) + message->length;

	if (header->flags & VFIO_USER_ERROR)
		return header->error && header->error < 4096 ? -(int)header->error : -EIO;
	return message->direction == DMA_FROM_GUEST && header->size != whole ? -EPROTO : 0;
}

static void handle_reply(struct vfio_user *vu, const struct vfio_user_header *header,
			 const char *payload)
{
	struct dma_message *message = find_sent(vu, header->id);
	int status;

	if (!message) {
		vfio_user_fail(vu, "a reply to command %u with id %u, which was not sent",
			       header->command, header->id);
		return;
	}
	status = status_of(header, message);
	if (!status && message->direction == DMA_FROM_GUEST)
		memcpy(message->bytes, payload + sizeof(struct vfio_user_dma_access),
		       message->length);
	list_remove(&message->link);
	vu->dma.sent_count--;
	message->done(message, status);
	vfio_user_output(vu);
}

/* --- in ----------------------------------------------------------------------------- */

static void handle_command(struct vfio_user *vu, const struct vfio_user_header *header,
			   const char *payload, struct descriptors *fds)
{
	struct vfio_call call = {
		.header = *header,
		.payload = payload,
		.size = header->size - (uint32_t)HEAD,
		.fds = fds,
		.reply = vu->out.reply + HEAD,
		.reply_fd = -1,
	};
	struct error err = { 0 };
	int ret = vfio_user_command(vu, &call, &err);

	if (ret && log_limited(&vu->limit))
		log_warn("vm %s: %s: refused: %s", vu->dev->device.vm, vu->dev->device.label,
			 err.text);
	if (vu->failed || call.later || header->flags & VFIO_USER_NO_REPLY)
		return;
	make_reply(vu, &call, -ret);
	vfio_user_output(vu);
}

/* Handles one message; false if there is no whole one. */
static bool next_message(struct vfio_user *vu)
{
	uint32_t have = vu->in.end - vu->in.start;
	const char *at = vu->in.bytes + vu->in.start;
	struct vfio_user_header header;
	struct descriptors none = { 0 };
	bool last;

	if (have < HEAD)
		return false;
	memcpy(&header, at, sizeof header);
	if (header.size < HEAD || header.size > VFIO_USER_MESSAGE) {
		vfio_user_fail(vu, "a message of %u bytes; expected %zu to %d", header.size, HEAD,
			       VFIO_USER_MESSAGE);
		return false;
	}
	if (have < header.size)
		return false;
	last = have == header.size;
	vu->in.start += header.size;
	if (last && vu->in.fds.truncated)
		vfio_user_fail(vu, "more than %d descriptors in a message", DESCRIPTORS);
	else if ((header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_REPLY)
		handle_reply(vu, &header, at + HEAD);
	else if ((header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_COMMAND)
		handle_command(vu, &header, at + HEAD, last ? &vu->in.fds : &none);
	else
		vfio_user_fail(vu, "a message with flags %#x", header.flags);
	if (last)
		descriptors_clear(&vu->in.fds);
	return true;
}

/* How much to read: if descriptors came with the first piece of a message, no more than the rest.
 */
static uint32_t room(const struct vfio_user *vu)
{
	uint32_t have = vu->in.end - vu->in.start;
	struct vfio_user_header header;

	if (!vu->in.fds.count)
		return IN_BYTES - vu->in.end;
	if (have < HEAD)
		return (uint32_t)HEAD - have;
	memcpy(&header, vu->in.bytes + vu->in.start, sizeof header);
	return header.size - have;
}

static bool receive(struct vfio_user *vu)
{
	ssize_t n;

	if (vu->in.start == vu->in.end) {
		vu->in.start = vu->in.end = 0;
	} else if (IN_BYTES - vu->in.end < VFIO_USER_MESSAGE) {
		memmove(vu->in.bytes, vu->in.bytes + vu->in.start, vu->in.end - vu->in.start);
		vu->in.end -= vu->in.start;
		vu->in.start = 0;
	}
	n = descriptors_receive(vu->fd, vu->in.bytes + vu->in.end, room(vu), &vu->in.fds);
	if (n == 0 && vu->in.start == vu->in.end)
		vfio_user_fail(vu, NULL);
	else if (n == 0)
		vfio_user_fail(vu, "the connection ended in the middle of a message");
	else if (n < 0 && n != -EAGAIN)
		vfio_user_fail(vu, "%s", strerror((int)-n));
	if (n > 0)
		vu->in.end += (uint32_t)n;
	return n > 0;
}

bool vfio_user_poll(struct vfio_user *vu)
{
	unsigned handled = 0;

	while (handled < BUDGET && !vu->failed && !vu->out.waiting &&
	       vu->unmap_count < VFIO_USER_UNMAPS) {
		if (next_message(vu))
			handled++;
		else if (vu->failed || !receive(vu))
			break;
	}
	return handled > 0;
}

/* --- open and close ----------------------------------------------------------------- */

int vfio_user_messages_open(struct vfio_user *vu)
{
	memset(&vu->in, 0, sizeof vu->in);
	memset(&vu->out, 0, sizeof vu->out);
	vu->out.reply_fd = vu->out.fd = vu->out.blocked_fd = -1;
	vu->in.bytes = malloc(IN_BYTES);
	vu->out.reply = malloc(REPLY_ROOM);
	return vu->in.bytes && vu->out.reply ? 0 : -ENOMEM;
}

void vfio_user_messages_close(struct vfio_user *vu)
{
	unblock(vu);
	descriptors_clear(&vu->in.fds);
	free(vu->in.bytes);
	free(vu->out.reply);
	vu->in.bytes = vu->out.reply = NULL;
}
