/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h - what a virtio device type is to its transport (virtio 1.2, chapter 2)
 *
 * A transport negotiates features, reads and writes config space, and starts and stops
 * queues; a device type (virtio-blk, ...) says what its features and config space are
 * and takes requests off its queues.
 */
#pragma once

#include "frontend/device.h"

struct error;
struct virtio_device;
struct virtqueue;

/** One device type. Features and config space: control thread. Queue ops: the queue's thread. */
struct virtio_device_ops {
	const char *name;
	/** Feature bits of the type (not of the rings). */
	uint64_t (*features)(struct virtio_device *dev);
	/** The driver has chosen; takes effect for queues started after it. */
	void (*negotiated)(struct virtio_device *dev, uint64_t features);
	/** The device was reset (2.4): what the driver set is forgotten. */
	void (*reset)(struct virtio_device *dev);
	/** Bytes of config space; 0: the VMM makes it up itself, and the next four are NULL. */
	uint32_t config_size;
	/** What the driver has set in config space, to outlive this process with the inflight
	 * regions. */
	uint64_t (*state)(struct virtio_device *dev);
	void (*set_state)(struct virtio_device *dev, uint64_t state);
	/** All of config space, @config_size bytes. */
	void (*config_read)(struct virtio_device *dev, void *config);
	/** 0 or -EINVAL if those bytes are not writable. */
	int (*config_write)(struct virtio_device *dev, uint32_t offset, const void *data,
			    uint32_t length);
	/** A NIC: the VMM has told the guest that its MTU is @mtu bytes. 0, or -EINVAL with @err.
	 * May be absent. */
	int (*set_mtu)(struct virtio_device *dev, uint64_t mtu, struct error *err);
	/** A NIC: tell the network that @mac is here now, since the guest cannot. 0 or -errno. May
	 * be absent. */
	int (*send_rarp)(struct virtio_device *dev, const uint8_t mac[6]);
	/** Makes the type's part of a queue. 0 or -errno. */
	int (*queue_start)(struct virtio_device *dev, struct virtqueue *vq);
	/** Everything is drained; frees it. */
	void (*queue_stop)(struct virtqueue *vq);
	/** Takes what the ring has; true if there was anything. */
	bool (*queue_poll)(struct virtqueue *vq);
};

struct virtio_device {
	struct device device; /**< first, for the control side */
	const struct virtio_device_ops *ops;
	uint64_t features;     /**< as negotiated */
	bool single_loop;      /**< all queues on one loop */
	unsigned together;     /**< so many queues, one after another, share a loop; 0: 1 */
	unsigned queue_number; /**< what the VMM is told if it asks how many there may be; 0:
				  device.queues */
	bool in_order;         /**< queues give chains back in the order in which they took them */
	bool pin;              /**< register guest memory with the kernel, see loop_memory_add() */
	/** Set by the transport: config space has changed, tell the driver. NULL if nobody is
	 * there. */
	void (*config_changed)(struct virtio_device *dev);
	void *transport; /**< of whoever set config_changed */
};
