/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_client.h - the VMM's end of a vfio-user connection
 *
 * Sends commands and reads replies, each with a bounded wait; meanwhile it serves the server's own
 * commands (DMA_READ, DMA_WRITE) from the memory that it was given. The calls in the upper half
 * keep to the protocol; vfu_send_raw() sends any bytes with any descriptors, for tests that lie.
 *
 * Errors, for every call that returns int: -ECONNRESET the peer closed, -ETIMEDOUT no reply in
 * VFU_TIMEOUT_MS, -EBADMSG a reply that does not fit the command; else the errno that the server
 * replied with.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	VFU_TIMEOUT_MS = 10000,
	VFU_HEADER_BYTES = 16,
	VFU_DATA_MAX = 65536,
	VFU_SPACES = 16,
};

enum vfu_command {
	VFU_VERSION = 1,
	VFU_DMA_MAP = 2,
	VFU_DMA_UNMAP = 3,
	VFU_GET_INFO = 4,
	VFU_GET_REGION_INFO = 5,
	VFU_GET_IRQ_INFO = 7,
	VFU_SET_IRQS = 8,
	VFU_REGION_READ = 9,
	VFU_REGION_WRITE = 10,
	VFU_DMA_READ = 11,
	VFU_DMA_WRITE = 12,
	VFU_RESET = 13,
	VFU_WRITE_MULTI = 15,
};

enum { VFU_REPLY = 1, VFU_NO_REPLY = 0x10, VFU_ERROR = 0x20 };

/* Regions, kinds of interrupts. */
enum { VFU_BAR0 = 0, VFU_ROM = 6, VFU_CONFIG = 7 };
enum { VFU_INTX, VFU_MSI, VFU_MSIX, VFU_ERR, VFU_REQ };

/* Flags of SET_IRQS. */
enum {
	VFU_NONE = 1,
	VFU_BOOL = 2,
	VFU_EVENTFD = 4,
	VFU_MASK = 8,
	VFU_UNMASK = 16,
	VFU_TRIGGER = 32,
};

struct vfu_header {
	uint16_t id, command;
	uint32_t size, flags, error;
};

struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};

struct vfu_irq_info {
	uint32_t argsz, flags, index, count;
};

struct vfu_client {
	int fd; /* the socket; -1 when not connected */
	uint16_t id;
	/* Memory that the server's commands reach, whether it was mapped or not. */
	struct vfu_space {
		uint64_t address, size;
		char *bytes;
	} space[VFU_SPACES];
	unsigned spaces;
	bool deaf;  /* the server's commands are not answered */
	bool spins; /* looks for a reply again and again, and never sleeps */
	unsigned dma_reads, dma_writes;
};

/* Connects to the UNIX socket `path`, retrying while nobody listens, at most VFU_TIMEOUT_MS. */
int vfu_connect(struct vfu_client *client, const char *path);
void vfu_disconnect(struct vfu_client *client);
/* VERSION 0.0; `capabilities` is JSON, NULL: what QEMU says. `answer` (may be NULL) has room for
 * 512 bytes. */
int vfu_negotiate(struct vfu_client *client, const char *capabilities, char *answer);
/* Both of the above; fails with what they fail. */
int vfu_open(struct vfu_client *client, const char *path);

/* Any command with any payload: its reply's payload goes to `reply`, `room` bytes at most; the
 * number of its bytes, or an error. `reply_fd`, if wanted, gets the reply's descriptor or -1. */
ssize_t vfu_call(struct vfu_client *client, uint16_t command, const void *payload, uint32_t size,
		 const int *fds, unsigned fd_count, void *reply, size_t room, int *reply_fd);

/* Memory: `bytes` is our mapping of it; `fd` -1 announces it only; flags 1 readable, 2 writable. */
int vfu_map(struct vfu_client *client, uint64_t address, uint64_t size, char *bytes, int fd,
	    uint64_t offset, uint32_t flags);
int vfu_unmap(struct vfu_client *client, uint64_t address, uint64_t size);
/* A memfd of `size` bytes, mapped; fails with NULL. */
char *vfu_memory(uint64_t size, int *fd);

int vfu_region_info(struct vfu_client *client, uint32_t index, struct vfu_region_info *info);
int vfu_irq_info(struct vfu_client *client, uint32_t index, struct vfu_irq_info *info);
int vfu_read(struct vfu_client *client, uint32_t region, uint64_t offset, void *to, uint32_t count);
int vfu_write(struct vfu_client *client, uint32_t region, uint64_t offset, const void *from,
	      uint32_t count);
/* The same without a reply. */
int vfu_post(struct vfu_client *client, uint32_t region, uint64_t offset, const void *from,
	     uint32_t count);
/* An access of `width` bytes; vfu_get() gives -1 on failure. */
uint64_t vfu_get(struct vfu_client *client, uint32_t region, uint64_t offset, uint32_t width);
int vfu_put(struct vfu_client *client, uint32_t region, uint64_t offset, uint32_t width,
	    uint64_t value);
int vfu_reset(struct vfu_client *client);

int vfu_set_irqs(struct vfu_client *client, uint32_t flags, uint32_t index, uint32_t start,
		 uint32_t count, const void *data, uint32_t size, const int *fds,
		 unsigned fd_count);
/* A new eventfd that `vector` of kind `index` triggers; or an error. */
int vfu_eventfd(struct vfu_client *client, uint32_t index, uint32_t vector);
/* Waits for an eventfd, serving the server meanwhile: how often it was written to; 0: not in
 * `timeout_ms`. */
uint64_t vfu_wait_event(struct vfu_client *client, int fd, int timeout_ms);

/* Serves the server's commands for so long. 0 or an error. */
int vfu_serve(struct vfu_client *client, int timeout_ms);

/* Sends any bytes with any number of descriptors. */
int vfu_send_raw(struct vfu_client *client, const void *bytes, size_t count, const int *fds,
		 unsigned fd_count);
/* Waits for the peer to close the connection, dropping what it sends: 0 or -ETIMEDOUT. */
int vfu_wait_closed(struct vfu_client *client, int timeout_ms);
