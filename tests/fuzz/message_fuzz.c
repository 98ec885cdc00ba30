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
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#include "fuzz.h"
#include "peer.h"
#include "transport/transport.h"
#include "transport/vhost_user_protocol.h"

#define MEMORY_BYTES 0x10000

static struct device *make_device(const char *socket)
{
	static const char *const options[] = { "queues", "2", "queue-size", "16", NULL };

	return fuzz_device("virtio-blk", socket, fuzz_disk("memory", 0), options);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	peer_start(&vhost_user_transport, make_device);
	return 0;
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

static bool send_record(int socket, int memory, struct input *in)
{
	uint8_t request = input_byte(in), flags = input_byte(in), fds = input_byte(in);
	uint8_t kinds = input_byte(in), odd;
	struct {
		struct vhost_user_header header;
		uint8_t payload[4096];
	} m = { .header = { request, flags ^ VHOST_USER_VERSION, 0 } };
	uint16_t bytes;
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
	good = request ? peer_send(socket, &m, sizeof m.header + bytes, fds, kinds, memory)
		       : peer_send(socket, m.payload, bytes, fds, kinds, memory);
	if (odd & 4)
		good = good && peer_drain(socket, 20);
	if (odd & 2 && ftruncate(memory, 4096))
		abort();
	return good && peer_drain(socket, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int memory = make_memory(), s = peer_connect();

	while (in.size && send_record(s, memory, &in))
		;
	peer_finish(s);
	close(memory);
	return 0;
}
