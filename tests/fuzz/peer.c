/* SPDX-License-Identifier: BSD-3-Clause */
/* peer.c - a server, and the other end of connections to it; see peer.h */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "loop/loop.h"
#include "memory/memory.h"
#include "transport/transport.h"

#define WAIT_MS     100
#define PATIENCE_MS 8000

/* --- the server --------------------------------------------------------------------- */

static struct loop *control, *loops[1];
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char directory[80];

static struct {
	struct loop_message message;
	const struct transport *transport;
	struct device *(*make)(const char *socket);
	int done[2];
} opening;

static void open_server(struct loop_message *message)
{
	struct transport_loops where = { control, loops, 1, 0 };
	struct device *device = opening.make(address.sun_path);

	(void)message;
	if (!opening.transport->listen(device, &where, NULL))
		abort();
	if (write(opening.done[1], "", 1) != 1)
		abort();
}

static void remove_directory(void)
{
	unlink(address.sun_path);
	rmdir(directory);
}

void peer_start(const struct transport *transport, struct device *(*make)(const char *socket))
{
	const char *temporary = getenv("TMPDIR");
	char byte;

	memory_guard_install();
	snprintf(directory, sizeof directory, "%s/penstock-fuzz-XXXXXX",
		 temporary ? temporary : "/tmp");
	if (!mkdtemp(directory) || pipe(opening.done))
		abort();
	atexit(remove_directory);
	snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", directory);
	control = fuzz_loop("control");
	loops[0] = fuzz_loop("queues");
	opening.message.run = open_server;
	opening.transport = transport;
	opening.make = make;
	loop_send(control, &opening.message);
	if (read(opening.done[0], &byte, 1) != 1)
		abort();
}

/* --- a connection ------------------------------------------------------------------- */

int peer_connect(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address))
		abort();
	return s;
}

static int make_fd(unsigned kind, int memory)
{
	int pair[2];

	switch (kind & 3) {
	case 0:
		return dup(memory);
	case 1:
		return eventfd(1, EFD_CLOEXEC);
	case 2:
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			abort();
		close(pair[1]);
		return pair[0];
	default:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	}
}

static bool send_all(int socket, const void *bytes, size_t size, const int *fd, unsigned fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(PEER_FDS * sizeof(int))];
	} control_data = { 0 };
	struct iovec vec = { (void *)bytes, size };
	struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1 };
	ssize_t n;

	if (fds) {
		msg.msg_control = &control_data;
		msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		control_data.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						       .cmsg_type = SCM_RIGHTS,
						       .cmsg_len = CMSG_LEN(fds * sizeof(int)) };
		memcpy(CMSG_DATA(&control_data.align), fd, fds * sizeof(int));
	}
	n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n == (ssize_t)size;
}

bool peer_send(int socket, const void *bytes, size_t size, unsigned fds, unsigned kinds, int memory)
{
	int fd[PEER_FDS];
	bool good;

	fds = fds & 0x80 ? 33 + fds % 4 : fds % 4;
	for (unsigned i = 0; i < fds; i++)
		fd[i] = make_fd(kinds >> i % 4 * 2, memory);
	good = !size || send_all(socket, bytes, size, fd, fds);
	for (unsigned i = 0; i < fds; i++)
		close(fd[i]);
	return good;
}

bool peer_drain(int socket, int ms)
{
	struct pollfd p = { .fd = socket, .events = POLLIN };
	char bytes[4096];
	ssize_t n = 1;

	while (n > 0 && poll(&p, 1, ms) > 0) {
		union {
			struct cmsghdr align;
			char room[CMSG_SPACE(4 * sizeof(int))];
		} control_data;
		struct iovec vec = { bytes, sizeof bytes };
		struct msghdr msg = { .msg_iov = &vec,
				      .msg_iovlen = 1,
				      .msg_control = &control_data,
				      .msg_controllen = sizeof control_data };
		struct cmsghdr *c;

		n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
		if (c && c->cmsg_type == SCM_RIGHTS) {
			int fd;

			memcpy(&fd, CMSG_DATA(c), sizeof fd);
			close(fd);
		}
		ms = 0;
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void peer_finish(int socket)
{
	/* The server closes when all has drained. */
	shutdown(socket, SHUT_WR);
	for (int waited = 0; peer_drain(socket, WAIT_MS); waited += WAIT_MS)
		if (waited >= PATIENCE_MS)
			abort();
	close(socket);
}
