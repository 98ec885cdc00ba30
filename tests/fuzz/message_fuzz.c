/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * message_fuzz.c - a VMM that says anything on its vhost-user socket
 *
 * The server runs as in the daemon, on a control loop and another one for the queues. Each input is
 * one connection. It is a list of records:
 *
 *     byte 0   0: raw bytes; else the request's number
 *     byte 1   flags of the message (xor 1, so that 0 is a plain one)
 *     byte 2   descriptors: how many (modulo 4, or 33 and more if the top bit is set)
 *     byte 3   what they are, two bits for each: memory, eventfd, socket, /dev/null
 *     byte 4-5 bytes of the payload that follow
 *     byte 6   1: the size in the header is not theirs, but that of the next 4 bytes
 *              2: afterwards the memory is truncated
 *              4: wait for a reply, at most a moment
 *     payload
 *
 * The memory that the input hands over begins with the ring of CONTENT, so that a ring that is
 * started well has something to do.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#include "frontend/device.h"
#include "fuzz.h"
#include "loop/loop.h"
#include "memory/memory.h"
#include "transport/transport.h"
#include "transport/vhost_user_protocol.h"
#include "util/error.h"

#define MEMORY_BYTES 0x10000
#define WAIT_MS      100
#define PATIENCE_MS  8000
#define MOST_FDS     40

static struct loop *control, *loops[1];
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char directory[80];

static struct {
	struct loop_message message;
	int done[2];
} opening;

static void open_server(struct loop_message *message)
{
	static const char *const options[] = { "queues", "2", "queue-size", "16", NULL };
	struct transport_loops where = { control, loops, 1, 0 };
	struct device *device =
		fuzz_device("virtio-blk", address.sun_path, fuzz_disk("memory", 0), options);

	(void)message;
	if (!vhost_user_transport.listen(device, &where, NULL))
		abort();
	if (write(opening.done[1], "", 1) != 1)
		abort();
}

static void remove_directory(void)
{
	unlink(address.sun_path);
	rmdir(directory);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	const char *temporary = getenv("TMPDIR");
	char byte;

	(void)count;
	(void)arguments;
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
	loop_send(control, &opening.message);
	return read(opening.done[0], &byte, 1) == 1 ? 0 : -1;
}

/* A split ring of 16 at 0 with one request: read block 0. */
static int make_memory(void)
{
	struct {
		struct vring_desc desc[16];
		struct {
			uint16_t flags, idx, ring[17];
		} avail;
		_Alignas(4) uint8_t used[16 * 8 + 6];
		_Alignas(16) struct virtio_blk_outhdr header;
	} content = { .desc = { { 0, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, 1 },
				{ 0x1000, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2 },
				{ 0x2000, 1, VRING_DESC_F_WRITE, 0 } },
		      .avail = { .idx = 1 } };
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	content.desc[0].addr = (size_t)((char *)&content.header - (char *)&content);
	if (fd < 0 || ftruncate(fd, MEMORY_BYTES) ||
	    pwrite(fd, &content, sizeof content, 0) != sizeof content)
		abort();
	return fd;
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

/* False when the server has had enough. */
static bool send_all(int socket, const void *bytes, size_t size, const int *fd, unsigned fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(MOST_FDS * sizeof(int))];
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

/* Reads what there is; waits for something at most @ms. False at the end of the connection. */
static bool drain(int socket, int ms)
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

static bool send_record(int socket, int memory, struct input *in)
{
	uint8_t request = input_byte(in), flags = input_byte(in), fds = input_byte(in);
	uint8_t kinds = input_byte(in), odd;
	struct {
		struct vhost_user_header header;
		uint8_t payload[4096];
	} m = { .header = { request, flags ^ VHOST_USER_VERSION, 0 } };
	uint16_t bytes;
	int fd[MOST_FDS];
	bool good;

	input_bytes(in, &bytes, sizeof bytes);
	odd = input_byte(in);
	bytes %= sizeof m.payload + 1;
	if (bytes > in->size)
		bytes = (uint16_t)in->size;
	m.header.size = bytes;
	if (odd & 1)
		input_bytes(in, &m.header.size, sizeof m.header.size);
	input_bytes(in, m.payload, bytes);
	fds = fds & 0x80 ? (uint8_t)(33 + fds % 4) : fds % 4;
	for (unsigned i = 0; i < fds; i++)
		fd[i] = make_fd(kinds >> i % 4 * 2, memory);
	if (request)
		good = send_all(socket, &m, sizeof m.header + bytes, fd, fds);
	else
		good = !bytes || send_all(socket, m.payload, bytes, fd, fds);
	for (unsigned i = 0; i < fds; i++)
		close(fd[i]);
	if (odd & 4)
		good = good && drain(socket, 20);
	if (odd & 2 && ftruncate(memory, 4096))
		abort();
	return good && drain(socket, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int memory = make_memory(), s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address))
		abort();
	while (in.size && send_record(s, memory, &in))
		;
	/* The server closes when its rings have drained; one that does not hangs. */
	shutdown(s, SHUT_WR);
	for (int waited = 0; drain(s, WAIT_MS); waited += WAIT_MS)
		if (waited >= PATIENCE_MS)
			abort();
	close(s);
	close(memory);
	return 0;
}
