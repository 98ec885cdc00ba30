/* SPDX-License-Identifier: BSD-3-Clause */
/* blk.h - the virtio block device (virtio 1.2, section 5.2) over any disk */
#pragma once

#include "util/option.h"

struct device;
struct disk;
struct error;
struct virtio_device;

/** What a user says about a virtio-blk device; zero-initialise, then options_init(). */
struct virtio_blk_settings {
	char *socket;
	uint64_t queues;     /**< 1..32 */
	uint64_t queue_size; /**< entries, a power of two, 16..1024 */
	bool pin;            /**< register guest memory with the kernel */
	char *serial;        /**< at most 20 bytes; NULL: the disk's name */
};

extern const struct option virtio_blk_options[];

/** Makes the device @vm's disk @disk. Copies what it needs of @settings. NULL with @err. */
struct virtio_device *virtio_blk_create(const char *vm, struct disk *disk,
					const struct virtio_blk_settings *settings,
					struct error *err);
