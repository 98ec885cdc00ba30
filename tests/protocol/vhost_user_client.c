/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_client.c - the front-end's end of a vhost-user connection
 *
 * One request at a time: a request is sent in one sendmsg() with its descriptors, and where an
 * answer is due it is read before the next goes out. Every read waits at most a stated time, so a
 * test against a daemon that hangs fails and does not hang too.
 */
#include "vhost_user_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* More than the protocol allows, so that tests can send too many. */
enum { RAW_FDS_MAX = 64 };

int vu_connect(struct vu_client *client, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timespec pause = { .tv_nsec = 2000000 };
	int error = 0;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);

	for (int waited = 0; waited < VU_TIMEOUT_MS; waited += 2) {
		client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (client->fd < 0)
			return -errno;
		if (!connect(client->fd, (struct sockaddr *)&address, sizeof(address))) {
			client->reply_ack = false;
			return 0;
		}
		error = errno;
		close(client->fd);
		client->fd = -1;
		if (error != ENOENT && error != ECONNREFUSED)
			break;
		nanosleep(&pause, NULL);
	}
	return -error;
}

void vu_disconnect(struct vu_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	client->reply_ack = false;
}

int vu_send_raw(struct vu_client *client, const void *bytes, size_t count, const int *fds,
		unsigned fd_count)
{
	union {
		char buffer[CMSG_SPACE(RAW_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = count };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd_count > RAW_FDS_MAX)
		return -EINVAL;
	if (fd_count) {
		memset(&control, 0, sizeof(control));
		message.msg_control = control.buffer;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
	}
	do
		sent = sendmsg(client->fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return (size_t)sent == count ? 0 : -EIO;
}

static int wait_readable(int fd, int timeout_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	int ready;

	do
		ready = poll(&pollfd, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return -errno;
	return ready ? 0 : -ETIMEDOUT;
}

static int receive_bytes(int fd, void *to, size_t count, int *received_fd, int timeout_ms)
{
	union {
		char buffer[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t done = 0;

	while (done < count) {
		struct iovec iov = { .iov_base = (char *)to + done, .iov_len = count - done };
		struct msghdr message = { .msg_iov = &iov,
					  .msg_iovlen = 1,
					  .msg_control = control.buffer,
					  .msg_controllen = sizeof(control.buffer) };
		int ret = wait_readable(fd, timeout_ms);
		if (ret)
			return ret;
		ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -ECONNRESET;
		done += (size_t)got;

		for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
			if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
				continue;
			unsigned fds = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			for (unsigned i = 0; i < fds; i++) {
				int one;
				memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
				if (received_fd && *received_fd < 0)
					*received_fd = one;
				else
					close(one);
			}
		}
	}
	return 0;
}

int vu_receive(int fd, struct vu_message *message, int *received_fd, int timeout_ms)
{
	if (received_fd)
		*received_fd = -1;
	int ret = receive_bytes(fd, message, VU_HEADER_BYTES, received_fd, timeout_ms);
	if (ret)
		return ret;
	if (message->size > sizeof(message->payload))
		return -EBADMSG;
	return receive_bytes(fd, &message->payload, message->size, received_fd, timeout_ms);
}

static int send_message(struct vu_client *client, uint32_t request, uint32_t flags,
			const void *payload, uint32_t size, const int *fds, unsigned fd_count)
{
	struct vu_message message = { .request = request,
				      .flags = VU_VERSION | flags,
				      .size = size };

	if (size > sizeof(message.payload))
		return -EINVAL;
	if (size)
		memcpy(&message.payload, payload, size);
	return vu_send_raw(client, &message, VU_HEADER_BYTES + size, fds, fd_count);
}

int vu_request(struct vu_client *client, uint32_t request, const void *payload, uint32_t size,
	       const int *fds, unsigned fd_count)
{
	struct vu_message answer;
	uint32_t flags = client->reply_ack ? VU_NEED_REPLY : 0;
	int ret = send_message(client, request, flags, payload, size, fds, fd_count);

	if (ret || !client->reply_ack)
		return ret;
	ret = vu_receive(client->fd, &answer, NULL, VU_TIMEOUT_MS);
	if (ret)
		return ret;
	if (answer.request != request || answer.size != sizeof(uint64_t) ||
	    (answer.flags & ~VU_NEED_REPLY) != (VU_VERSION | VU_REPLY))
		return -EBADMSG;
	return answer.payload.u64 ? -EREMOTEIO : 0;
}

int vu_request_u64(struct vu_client *client, uint32_t request, uint64_t value)
{
	return vu_request(client, request, &value, sizeof(value), NULL, 0);
}

int vu_request_state(struct vu_client *client, uint32_t request, uint32_t index, uint32_t num)
{
	struct vu_vring_state state = { .index = index, .num = num };

	return vu_request(client, request, &state, sizeof(state), NULL, 0);
}

int vu_query(struct vu_client *client, uint32_t request, const void *payload, uint32_t size,
	     struct vu_message *answer, int *fd)
{
	uint32_t flags = client->ack_gets && client->reply_ack ? VU_NEED_REPLY : 0;
	int ret = send_message(client, request, flags, payload, size, NULL, 0);

	if (!ret)
		ret = vu_receive(client->fd, answer, fd, VU_TIMEOUT_MS);
	if (ret)
		return ret;
	if (answer->request != request || (answer->flags & 7) != (VU_VERSION | VU_REPLY))
		return -EBADMSG;
	return 0;
}

int vu_query_u64(struct vu_client *client, uint32_t request, uint64_t *value)
{
	struct vu_message answer;
	int ret = vu_query(client, request, NULL, 0, &answer, NULL);

	if (ret)
		return ret;
	if (answer.size != sizeof(uint64_t))
		return -EBADMSG;
	*value = answer.payload.u64;
	return 0;
}

int vu_wait_closed(struct vu_client *client, int timeout_ms)
{
	char sink[512];

	for (;;) {
		int ret = wait_readable(client->fd, timeout_ms);
		if (ret)
			return ret;
		ssize_t got = recv(client->fd, sink, sizeof(sink), 0);
		if (got == 0 || (got < 0 && errno != EINTR))
			return 0;
	}
}
