/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_protocol.h - messages of the vhost-user protocol as they are on the wire
 *
 * Source: QEMU's documentation, "Vhost-user Protocol" (docs/interop/vhost-user). All numbers are in
 * the machine's byte order.
 */
#pragma once

#include <stdint.h>

/** Bits of the features that belong to the protocol, not to virtio. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_RARP = 2,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_NET_MTU = 4,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10,
	VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	VHOST_USER_PROTOCOL_F_STATUS = 16,
};

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SEND_RARP = 19,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD = 32,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS = 40,
	VHOST_USER_REQUESTS
};

/** Requests of the back-end, on its own channel. */
enum vhost_user_backend_request { VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2 };

/** Flags of a message: the version in bits 0 and 1, and two marks. */
enum {
	VHOST_USER_VERSION = 1,
	VHOST_USER_VERSION_MASK = 3,
	VHOST_USER_REPLY = 4,
	VHOST_USER_NEED_REPLY = 8,
};

/** In the u64 of SET_VRING_KICK, CALL and ERR. */
#define VHOST_USER_VRING_INDEX 0xffull
#define VHOST_USER_VRING_NOFD  0x100ull

#define VHOST_USER_REGIONS    32  /**< most in one SET_MEM_TABLE */
#define VHOST_USER_CONFIG_MAX 256 /**< bytes of config space */

struct vhost_user_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /**< bytes of the payload */
};

struct vhost_user_region {
	uint64_t guest, size, user, offset;
};

union vhost_user_payload {
	uint64_t u64;
	struct {
		uint32_t index, num;
	} state;
	struct {
		uint32_t index, flags;
		uint64_t descriptors, used, available, log;
	} address;
	struct {
		uint32_t count, padding;
		struct vhost_user_region region[VHOST_USER_REGIONS];
	} table;
	struct {
		uint64_t padding;
		struct vhost_user_region region;
	} slot;
	struct {
		uint32_t offset, size, flags;
		uint8_t data[VHOST_USER_CONFIG_MAX];
	} config;
	struct {
		uint64_t size, offset;
		uint16_t queues, queue_size;
		uint32_t padding;
	} inflight;
};
