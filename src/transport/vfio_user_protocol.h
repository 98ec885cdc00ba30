/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_protocol.h - the messages of vfio-user, version 0
 *
 * Source: the vfio-user protocol specification (libvfio-user, docs/vfio-user.rst). Payloads follow
 * the header; all is little-endian. Flags inside them are those of <linux/vfio.h>.
 */
#pragma once

#include <stdint.h>

enum vfio_user_command {
	VFIO_USER_VERSION = 1,
	VFIO_USER_DMA_MAP = 2,
	VFIO_USER_DMA_UNMAP = 3,
	VFIO_USER_DEVICE_GET_INFO = 4,
	VFIO_USER_DEVICE_GET_REGION_INFO = 5,
	VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
	VFIO_USER_DEVICE_SET_IRQS = 8,
	VFIO_USER_REGION_READ = 9,
	VFIO_USER_REGION_WRITE = 10,
	VFIO_USER_DMA_READ = 11,
	VFIO_USER_DMA_WRITE = 12,
	VFIO_USER_DEVICE_RESET = 13,
	VFIO_USER_REGION_WRITE_MULTI = 15,
	VFIO_USER_COMMANDS
};

/** Flags of a message: its type in bits 0 to 3, and two marks. */
enum {
	VFIO_USER_COMMAND = 0,
	VFIO_USER_REPLY = 1,
	VFIO_USER_TYPE_MASK = 0xf,
	VFIO_USER_NO_REPLY = 0x10,
	VFIO_USER_ERROR = 0x20,
};

struct vfio_user_header {
	uint16_t id; /**< of the sender's choice; a reply has its command's */
	uint16_t command;
	uint32_t size; /**< bytes, with this header */
	uint32_t flags;
	uint32_t error; /**< of a reply with VFIO_USER_ERROR: errno */
};

/** Followed by JSON and a NUL. */
struct vfio_user_version {
	uint16_t major, minor;
};

#define VFIO_USER_MAX_DATA 1048576 /**< default of max_data_xfer_size */

struct vfio_user_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, size;
};

struct vfio_user_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, size;
};

struct vfio_user_device_info {
	uint32_t argsz, flags;
	uint32_t regions, irqs;
};

struct vfio_user_region_info {
	uint32_t argsz, flags;
	uint32_t index, cap_offset;
	uint64_t size, offset;
};

struct vfio_user_irq_info {
	uint32_t argsz, flags;
	uint32_t index, count;
};

/** Followed by @count bytes with DATA_BOOL. */
struct vfio_user_irq_set {
	uint32_t argsz, flags;
	uint32_t index, start, count;
};

/** Followed by data. */
struct vfio_user_region_access {
	uint64_t offset;
	uint32_t region, count;
};

struct vfio_user_write_multi {
	uint64_t count;
	struct vfio_user_write {
		struct vfio_user_region_access access;
		uint8_t data[8];
	} write[];
};

/** Followed by data. */
struct vfio_user_dma_access {
	uint64_t address;
	uint64_t count;
};
