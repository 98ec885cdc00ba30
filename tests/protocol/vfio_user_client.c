/* SPDX-License-Identifier: BSD-3-Clause */
/* vfio_user_client.c - the VMM's end of a vfio-user connection; see vfio_user_client.h */
#include "vfio_user_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FDS_MAX = 64, MESSAGE_MAX = VFU_DATA_MAX + 4096 };

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the socket ---- */

int vfu_connect(struct vfu_client *client, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t end = now_ms() + VFU_TIMEOUT_MS;

	*client = (struct vfu_client){ .fd = -1 };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	for (;;) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		if (!connect(fd, (struct sockaddr *)&address, sizeof(address))) {
			client->fd = fd;
			return 0;
		}
		close(fd);
		if (now_ms() > end)
			return -ETIMEDOUT;
		poll(NULL, 0, 5);
	}
}

void vfu_disconnect(struct vfu_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
}

int vfu_send_raw(struct vfu_client *client, const void *bytes, size_t count, const int *fds,
		 unsigned fd_count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_MAX * sizeof(int))] = { 0 };
	struct iovec vec = { (void *)bytes, count };
	struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1 };

	if (fd_count) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	while (vec.iov_len) {
		ssize_t n = sendmsg(client->fd, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EPIPE ? -ECONNRESET : -errno;
		vec.iov_base = (char *)vec.iov_base + n;
		vec.iov_len -= (size_t)n;
		msg.msg_controllen = 0;
		msg.msg_control = NULL;
	}
	return 0;
}

static int receive(struct vfu_client *client, void *to, size_t count, int *fd, int64_t end)
{
	size_t got = 0;

	while (got < count) {
		_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
		struct iovec vec = { (char *)to + got, count - got };
		struct msghdr msg = { .msg_iov = &vec,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };
		struct pollfd p = { .fd = client->fd, .events = POLLIN };
		int64_t left = end - now_ms();
		ssize_t n = recvmsg(client->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EAGAIN) {
			if (left <= 0 || (!client->spins && poll(&p, 1, (int)left) == 0))
				return -ETIMEDOUT;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -ECONNRESET;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
			int came;

			memcpy(&came, CMSG_DATA(c), sizeof(came));
			if (fd && *fd < 0)
				*fd = came;
			else
				close(came);
		}
		got += (size_t)n;
	}
	return 0;
}

int vfu_wait_closed(struct vfu_client *client, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	char bytes[4096];
	int ret;

	do
		ret = receive(client, bytes, 1, NULL, end);
	while (!ret);
	return ret == -ECONNRESET ? 0 : ret;
}

/* ---- the server's own commands ---- */

struct dma_access {
	uint64_t address, count;
};

static char *find_memory(struct vfu_client *client, const struct dma_access *access)
{
	for (unsigned i = 0; i < client->spaces; i++) {
		struct vfu_space *s = &client->space[i];

		if (access->address >= s->address && access->address - s->address <= s->size &&
		    access->count <= s->size - (access->address - s->address))
			return s->bytes + (access->address - s->address);
	}
	return NULL;
}

static int serve_dma(struct vfu_client *client, struct vfu_header *header, char *payload)
{
	struct dma_access access;
	bool write = header->command == VFU_DMA_WRITE;
	static _Thread_local char reply[MESSAGE_MAX];
	char *memory;

	memcpy(&access, payload, sizeof(access));
	if (access.count > VFU_DATA_MAX ||
	    header->size != VFU_HEADER_BYTES + sizeof(access) + (write ? access.count : 0))
		return -EBADMSG;
	if (write)
		client->dma_writes++;
	else
		client->dma_reads++;
	if (client->deaf)
		return 0;
	memory = find_memory(client, &access);
	header->flags = VFU_REPLY | (memory ? 0 : VFU_ERROR);
	header->error = memory ? 0 : EFAULT;
	header->size = VFU_HEADER_BYTES;
	if (memory) {
		header->size += sizeof(access) + (write ? 0 : (uint32_t)access.count);
		memcpy(reply + VFU_HEADER_BYTES, &access, sizeof(access));
		if (write)
			memcpy(memory, payload + sizeof(access), access.count);
		else
			memcpy(reply + VFU_HEADER_BYTES + sizeof(access), memory, access.count);
	}
	memcpy(reply, header, sizeof(*header));
	return vfu_send_raw(client, reply, header->size, NULL, 0);
}

/* Reads one message; serves it if it is a command: 1, or 0 for a reply in `header` and `payload`.
 */
static int next_message(struct vfu_client *client, struct vfu_header *header, char *payload,
			int *fd, int64_t end)
{
	int ret = receive(client, header, sizeof(*header), fd, end);

	if (ret)
		return ret;
	if (header->size < VFU_HEADER_BYTES || header->size > MESSAGE_MAX)
		return -EBADMSG;
	ret = receive(client, payload, header->size - VFU_HEADER_BYTES, fd,
		      now_ms() + VFU_TIMEOUT_MS);
	if (ret)
		return ret;
	if ((header->flags & 0xf) == VFU_REPLY)
		return 0;
	if (header->command != VFU_DMA_READ && header->command != VFU_DMA_WRITE)
		return -EBADMSG;
	ret = serve_dma(client, header, payload);
	return ret ? ret : 1;
}

int vfu_serve(struct vfu_client *client, int timeout_ms)
{
	static _Thread_local char payload[MESSAGE_MAX];
	int64_t end = now_ms() + timeout_ms;
	struct vfu_header header;
	int ret;

	do
		ret = next_message(client, &header, payload, NULL, end);
	while (ret == 1);
	return ret == -ETIMEDOUT ? 0 : ret ? ret : -EBADMSG;
}

/* ---- commands ---- */

static int send_command(struct vfu_client *client, uint16_t command, uint32_t flags,
			const void *payload, uint32_t size, const int *fds, unsigned fd_count)
{
	static _Thread_local char bytes[MESSAGE_MAX];
	struct vfu_header header = { .id = ++client->id,
				     .command = command,
				     .size = VFU_HEADER_BYTES + size,
				     .flags = flags };

	memcpy(bytes, &header, sizeof(header));
	if (size)
		memcpy(bytes + sizeof(header), payload, size);
	return vfu_send_raw(client, bytes, header.size, fds, fd_count);
}

ssize_t vfu_call(struct vfu_client *client, uint16_t command, const void *payload, uint32_t size,
		 const int *fds, unsigned fd_count, void *reply, size_t room, int *reply_fd)
{
	static _Thread_local char bytes[MESSAGE_MAX];
	int64_t end = now_ms() + VFU_TIMEOUT_MS;
	struct vfu_header header;
	int ret = send_command(client, command, 0, payload, size, fds, fd_count);

	if (reply_fd)
		*reply_fd = -1;
	if (ret)
		return ret;
	do
		ret = next_message(client, &header, bytes, reply_fd, end);
	while (ret == 1);
	if (ret)
		return ret;
	if (header.id != client->id || header.command != command)
		return -EBADMSG;
	if (header.flags & VFU_ERROR)
		return header.size == VFU_HEADER_BYTES && header.error ? -(int)header.error
								       : -EBADMSG;
	size = header.size - VFU_HEADER_BYTES;
	if (room)
		memcpy(reply, bytes, size < room ? size : room);
	return size;
}

/* A command whose reply has exactly `room` bytes. */
static int call(struct vfu_client *client, uint16_t command, const void *payload, uint32_t size,
		void *reply, size_t room)
{
	ssize_t n = vfu_call(client, command, payload, size, NULL, 0, reply, room, NULL);

	return n < 0 ? (int)n : (size_t)n == room ? 0 : -EBADMSG;
}

int vfu_negotiate(struct vfu_client *client, const char *capabilities, char *answer)
{
	char bytes[1024] = { 0 }, reply[512] = { 0 };
	ssize_t n;

	if (!capabilities)
		capabilities = "{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,"
			       "\"max_dma_maps\":65535,\"max_data_xfer_size\":1048576,"
			       "\"migration\":{\"pgsize\":4096,\"max_bitmap_size\":268435456},"
			       "\"write_multiple\":true}}";
	n = snprintf(bytes + 4, sizeof(bytes) - 4, "%s", capabilities);
	n = vfu_call(client, VFU_VERSION, bytes, (uint32_t)n + 5, NULL, 0, reply, sizeof(reply) - 1,
		     NULL);
	if (n < 0)
		return (int)n;
	if (n < 5 || reply[0] || reply[1] || (size_t)n > sizeof(reply) - 1 || reply[n - 1])
		return -EBADMSG;
	if (answer)
		snprintf(answer, 512, "%s", reply + 4);
	return 0;
}

int vfu_open(struct vfu_client *client, const char *path)
{
	int ret = vfu_connect(client, path);

	return ret ? ret : vfu_negotiate(client, NULL, NULL);
}

/* ---- memory ---- */

char *vfu_memory(uint64_t size, int *fd)
{
	char *bytes;

	*fd = memfd_create("vfio-user-client", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, (off_t)size))
		return NULL;
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	return bytes == MAP_FAILED ? NULL : bytes;
}

int vfu_map(struct vfu_client *client, uint64_t address, uint64_t size, char *bytes, int fd,
	    uint64_t offset, uint32_t flags)
{
	struct {
		uint32_t argsz, flags;
		uint64_t offset, address, size;
	} map = { sizeof(map), flags, offset, address, size };
	ssize_t n = vfu_call(client, VFU_DMA_MAP, &map, sizeof(map), &fd, fd >= 0, NULL, 0, NULL);

	if (n)
		return n < 0 ? (int)n : -EBADMSG;
	if (bytes && client->spaces < VFU_SPACES)
		client->space[client->spaces++] = (struct vfu_space){ address, size, bytes };
	return 0;
}

int vfu_unmap(struct vfu_client *client, uint64_t address, uint64_t size)
{
	struct {
		uint32_t argsz, flags;
		uint64_t address, size;
	} unmap = { sizeof(unmap), 0, address, size }, reply;
	int ret = call(client, VFU_DMA_UNMAP, &unmap, sizeof(unmap), &reply, sizeof(reply));

	if (ret)
		return ret;
	for (unsigned i = 0; i < client->spaces; i++)
		if (client->space[i].address == address)
			client->space[i] = client->space[--client->spaces];
	return memcmp(&unmap, &reply, sizeof(unmap)) ? -EBADMSG : 0;
}

/* ---- regions ---- */

int vfu_region_info(struct vfu_client *client, uint32_t index, struct vfu_region_info *info)
{
	*info = (struct vfu_region_info){ .argsz = sizeof(*info), .index = index };
	return call(client, VFU_GET_REGION_INFO, info, sizeof(*info), info, sizeof(*info));
}

int vfu_irq_info(struct vfu_client *client, uint32_t index, struct vfu_irq_info *info)
{
	*info = (struct vfu_irq_info){ .argsz = sizeof(*info), .index = index };
	return call(client, VFU_GET_IRQ_INFO, info, sizeof(*info), info, sizeof(*info));
}

struct access {
	uint64_t offset;
	uint32_t region, count;
};

int vfu_read(struct vfu_client *client, uint32_t region, uint64_t offset, void *to, uint32_t count)
{
	static _Thread_local char reply[sizeof(struct access) + VFU_DATA_MAX];
	struct access access = { offset, region, count };
	int ret = call(client, VFU_REGION_READ, &access, sizeof(access), reply,
		       sizeof(access) + count);

	if (ret)
		return ret;
	memcpy(to, reply + sizeof(access), count);
	return memcmp(&access, reply, sizeof(access)) ? -EBADMSG : 0;
}

static const char *write_payload(const struct access *access, const void *from)
{
	static _Thread_local char bytes[sizeof(*access) + VFU_DATA_MAX];

	memcpy(bytes, access, sizeof(*access));
	memcpy(bytes + sizeof(*access), from, access->count);
	return bytes;
}

int vfu_write(struct vfu_client *client, uint32_t region, uint64_t offset, const void *from,
	      uint32_t count)
{
	struct access access = { offset, region, count }, reply;
	int ret = call(client, VFU_REGION_WRITE, write_payload(&access, from),
		       (uint32_t)sizeof(access) + count, &reply, sizeof(reply));

	return ret ? ret : memcmp(&access, &reply, sizeof(access)) ? -EBADMSG : 0;
}

int vfu_post(struct vfu_client *client, uint32_t region, uint64_t offset, const void *from,
	     uint32_t count)
{
	struct access access = { offset, region, count };

	return send_command(client, VFU_REGION_WRITE, VFU_NO_REPLY, write_payload(&access, from),
			    (uint32_t)sizeof(access) + count, NULL, 0);
}

uint64_t vfu_get(struct vfu_client *client, uint32_t region, uint64_t offset, uint32_t width)
{
	uint64_t value = 0;

	return vfu_read(client, region, offset, &value, width) ? UINT64_MAX : value;
}

int vfu_put(struct vfu_client *client, uint32_t region, uint64_t offset, uint32_t width,
	    uint64_t value)
{
	return vfu_write(client, region, offset, &value, width);
}

int vfu_reset(struct vfu_client *client)
{
	return call(client, VFU_RESET, NULL, 0, NULL, 0);
}

/* ---- interrupts ---- */

int vfu_set_irqs(struct vfu_client *client, uint32_t flags, uint32_t index, uint32_t start,
		 uint32_t count, const void *data, uint32_t size, const int *fds, unsigned fd_count)
{
	char bytes[20 + 256];
	uint32_t head[5] = { 20 + size, flags, index, start, count };
	ssize_t n;

	memcpy(bytes, head, sizeof(head));
	if (size)
		memcpy(bytes + sizeof(head), data, size);
	n = vfu_call(client, VFU_SET_IRQS, bytes, (uint32_t)sizeof(head) + size, fds, fd_count,
		     NULL, 0, NULL);
	return n > 0 ? -EBADMSG : (int)n;
}

int vfu_eventfd(struct vfu_client *client, uint32_t index, uint32_t vector)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), ret;

	if (fd < 0)
		return -errno;
	ret = vfu_set_irqs(client, VFU_EVENTFD | VFU_TRIGGER, index, vector, 1, NULL, 0, &fd, 1);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

uint64_t vfu_wait_event(struct vfu_client *client, int fd, int timeout_ms)
{
	static _Thread_local char payload[MESSAGE_MAX];
	int64_t end = now_ms() + timeout_ms;
	struct vfu_header header;
	uint64_t count = 0;

	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
				       { .fd = client->fd, .events = POLLIN } };
		int64_t left = end - now_ms();

		if (read(fd, &count, sizeof(count)) == sizeof(count))
			return count;
		if (left < 0 || poll(p, 2, (int)left) == 0)
			return 0;
		if (p[1].revents &&
		    next_message(client, &header, payload, NULL, now_ms() + VFU_TIMEOUT_MS) != 1)
			return 0;
	}
}
