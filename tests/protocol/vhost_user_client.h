/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_client.h - the front-end's end of a vhost-user connection
 *
 * Sends requests and reads answers, each with a bounded wait. The calls in the upper half keep to
 * the protocol; vu_send_raw() sends any bytes with any descriptors, for tests that lie.
 *
 * Errors, for every call that returns int: -ECONNRESET the peer closed, -ETIMEDOUT no answer in
 * VU_TIMEOUT_MS, -EREMOTEIO the peer answered "failed" (REPLY_ACK), -EBADMSG an answer that does
 * not fit the question.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VU_TIMEOUT_MS = 10000,
	VU_CONFIG_MAX = 256,
	VU_REGIONS_MAX = 8,
	VU_FDS_MAX = 8,
	VU_HEADER_BYTES = 12,
};

enum vu_request_id {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SEND_RARP = 19,
	VU_NET_SET_MTU = 20,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
};

enum { VU_BACKEND_CONFIG_CHANGE = 2 };

#define VU_F_PROTOCOL_FEATURES (1ull << 30)

#define VU_PF_MQ           (1ull << 0)
#define VU_PF_RARP         (1ull << 2)
#define VU_PF_REPLY_ACK    (1ull << 3)
#define VU_PF_MTU          (1ull << 4)
#define VU_PF_BACKEND_REQ  (1ull << 5)
#define VU_PF_CONFIG       (1ull << 9)
#define VU_PF_INFLIGHT     (1ull << 12)
#define VU_PF_RESET_DEVICE (1ull << 13)
#define VU_PF_MEM_SLOTS    (1ull << 15)
#define VU_PF_STATUS       (1ull << 16)
#define VU_PF_ALL                                                                                  \
	(VU_PF_MQ | VU_PF_RARP | VU_PF_REPLY_ACK | VU_PF_MTU | VU_PF_BACKEND_REQ | VU_PF_CONFIG |  \
	 VU_PF_INFLIGHT | VU_PF_RESET_DEVICE | VU_PF_MEM_SLOTS | VU_PF_STATUS)

/* Those of them that only a network device has a use for. */
#define VU_PF_NET (VU_PF_RARP | VU_PF_MTU)

#define VU_VERSION    1u
#define VU_REPLY      (1u << 2)
#define VU_NEED_REPLY (1u << 3)

/* In the payload of SET_VRING_KICK/CALL/ERR: no descriptor comes with it. */
#define VU_NO_FD (1u << 8)

struct vu_vring_state {
	uint32_t index, num;
};

struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t descriptor, used, available, log;
};

struct vu_region {
	uint64_t guest, size, user, offset;
};

struct vu_memory {
	uint32_t count, padding;
	struct vu_region region[VU_REGIONS_MAX];
};

struct vu_single_region {
	uint64_t padding;
	struct vu_region region;
};

struct vu_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VU_CONFIG_MAX];
};

struct vu_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t queues, queue_size;
	uint32_t padding; /* QEMU sends it, and wants it back: 24 bytes, not the 20 of the text */
};

struct vu_message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct vu_vring_state state;
		struct vu_vring_addr addr;
		struct vu_memory memory;
		struct vu_single_region single;
		struct vu_config config;
		struct vu_inflight inflight;
		uint8_t bytes[512];
	} payload __attribute__((packed));
};

struct vu_client {
	int fd;         /* the socket; -1 when not connected */
	bool reply_ack; /* REPLY_ACK is negotiated: vu_request() asks for an answer */
	bool ack_gets;  /* set NEED_REPLY on questions too, as libblkio does */
};

/* Connects to the UNIX socket `path`, retrying while nobody listens, at most VU_TIMEOUT_MS. */
int vu_connect(struct vu_client *client, const char *path);
void vu_disconnect(struct vu_client *client);

/* Sends one request that has no answer of its own; with REPLY_ACK, waits for its success. */
int vu_request(struct vu_client *client, uint32_t request, const void *payload, uint32_t size,
	       const int *fds, unsigned fd_count);
int vu_request_u64(struct vu_client *client, uint32_t request, uint64_t value);
int vu_request_state(struct vu_client *client, uint32_t request, uint32_t index, uint32_t num);

/* Sends one request and reads its answer. `fd`, if wanted, gets the answer's descriptor or -1. */
int vu_query(struct vu_client *client, uint32_t request, const void *payload, uint32_t size,
	     struct vu_message *answer, int *fd);
int vu_query_u64(struct vu_client *client, uint32_t request, uint64_t *value);

/* Reads one message from socket `fd`, waiting at most `timeout_ms`. */
int vu_receive(int fd, struct vu_message *message, int *received_fd, int timeout_ms);

/* Sends any bytes with any number of descriptors. */
int vu_send_raw(struct vu_client *client, const void *bytes, size_t count, const int *fds,
		unsigned fd_count);

/* Waits for the peer to close the connection, dropping what it sends: 0 or -ETIMEDOUT. */
int vu_wait_closed(struct vu_client *client, int timeout_ms);
