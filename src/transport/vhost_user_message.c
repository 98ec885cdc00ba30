/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_message.c - a vhost-user message on a socket, with its descriptors
 *
 * The sender is not trusted: sizes are checked before anything is read, and descriptors that no
 * handler takes are closed with the message. A message may come in pieces; the descriptors come
 * with the first, but wherever they come they belong to the message that is being read.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "transport/vhost_user_private.h"

/* At most @length bytes to @to: how many, -EAGAIN if there are none now, negative at the end. */
static ssize_t receive(int socket, struct message *m, void *to, size_t length, struct error *err)
{
	ssize_t n = descriptors_receive(socket, to, length, &m->fds);

	if (n < 0)
		return n == -EAGAIN ? n : error_set(err, (int)-n, "%s", strerror((int)-n));
	if (n == 0)
		return m->got ? error_set(err, EPIPE,
					  "the connection ended in the middle of a message")
			      : error_set(err, ENOTCONN, "the VMM disconnected");
	return n;
}

/* Whether the header is one that we can go on with. */
static int check_header(const struct message *m, struct error *err)
{
	const struct vhost_user_header *h = &m->header;

	if ((h->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION)
		return error_set(err, EPROTO, "request %u has protocol version %u; expected 1",
				 h->request, h->flags & VHOST_USER_VERSION_MASK);
	if (h->flags & VHOST_USER_REPLY)
		return error_set(err, EPROTO, "request %u is marked as a reply", h->request);
	if (h->size > sizeof m->payload)
		return error_set(err, EPROTO,
				 "request %u has a payload of %u bytes; at most %zu are possible",
				 h->request, h->size, sizeof m->payload);
	return 0;
}

int message_receive(int socket, struct message *m, struct error *err)
{
	for (;;) {
		size_t whole = sizeof m->header;
		ssize_t n;

		if (m->got >= sizeof m->header) {
			if (check_header(m, err))
				return -EPROTO;
			whole += m->header.size;
			if (m->got == whole)
				break;
			n = receive(socket, m, (char *)&m->payload + (m->got - sizeof m->header),
				    whole - m->got, err);
		} else {
			n = receive(socket, m, (char *)&m->header + m->got, whole - m->got, err);
		}
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		m->got += (unsigned)n;
	}
	if (m->fds.truncated)
		return error_set(err, EPROTO, "request %u came with more than %d descriptors",
				 m->header.request, DESCRIPTORS);
	return 1;
}

static int send_all(int socket, const struct vhost_user_header *header, const void *payload, int fd)
{
	struct iovec vec[2] = { { (void *)header, sizeof *header },
				{ (void *)payload, header->size } };
	ssize_t n = descriptors_send(socket, vec, header->size ? 2 : 1, fd);

	if (n < 0)
		return (int)n;
	/* A socket's buffer holds hundreds of replies: a peer that let it fill up reads none. */
	return (size_t)n == sizeof *header + header->size ? 0 : -EPIPE;
}

int message_reply(int socket, struct message *m)
{
	m->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
	m->header.size = m->reply_size;
	return send_all(socket, &m->header, &m->payload, m->reply_fd);
}

int message_request(int socket, uint32_t request)
{
	struct vhost_user_header header = { .request = request, .flags = VHOST_USER_VERSION };

	return send_all(socket, &header, NULL, -1);
}

void message_clear(struct message *m)
{
	descriptors_clear(&m->fds);
	if (m->reply_fd >= 0)
		close(m->reply_fd);
	*m = (struct message){ .reply_fd = -1 };
}
