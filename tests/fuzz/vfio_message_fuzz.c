/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_message_fuzz.c - a VMM that says anything on its vfio-user socket
 *
 * Behind the server is the function of frontend/pci/testing.h, whose registers start transfers, by
 * mapped memory and by messages. Each input is one connection. It is a list of records:
 *
 *     byte 0   0: raw bytes; else the command's number
 *     byte 1   flags of the message
 *     byte 2   descriptors: how many (modulo 4, or 33 and more if the top bit is set)
 *     byte 3   what they are, two bits for each: memory, eventfd, socket, /dev/null
 *     byte 4-5 bytes of the payload that follow
 *     byte 6   1: the size in the header is not theirs, but that of the next 4 bytes
 *              2: afterwards the memory is truncated
 *              4: wait for a reply, at most a moment
 *              8: the id is not 0, but that of the next 2 bytes
 *     payload
 *
 * The server counts the ids of its own commands from 0, so that an input can reply to them.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/pci/testing.h"
#include "fuzz.h"
#include "peer.h"
#include "transport/transport.h"
#include "transport/vfio_user_protocol.h"

#define MEMORY_BYTES 0x10000

static struct device *make_device(const char *socket)
{
	return testing_create("fuzz", socket, NULL);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	peer_start(&vfio_user_transport, make_device);
	return 0;
}

static int make_memory(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, MEMORY_BYTES) || pwrite(fd, "memory", 6, 0) != 6)
		abort();
	return fd;
}

static bool send_record(int socket, int memory, struct input *in)
{
	uint8_t command = input_byte(in), flags = input_byte(in), fds = input_byte(in);
	uint8_t kinds = input_byte(in), odd;
	struct {
		struct vfio_user_header header;
		uint8_t payload[8192];
	} m = { .header = { .command = command, .flags = flags } };
	uint16_t bytes;
	bool good;

	input_bytes(in, &bytes, sizeof bytes);
	odd = input_byte(in);
	bytes %= sizeof m.payload + 1;
	if (bytes > in->size)
		bytes = (uint16_t)in->size;
	m.header.size = (uint32_t)sizeof m.header + bytes;
	if (odd & 1)
		input_bytes(in, &m.header.size, sizeof m.header.size);
	if (odd & 8)
		input_bytes(in, &m.header.id, sizeof m.header.id);
	input_bytes(in, m.payload, bytes);
	good = command ? peer_send(socket, &m, sizeof m.header + bytes, fds, kinds, memory)
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
