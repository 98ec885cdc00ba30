/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h - a virtual device as the control side sees it: whose it is, what disk
 * stands behind it, who is attached, what its queues have done
 *
 * Every front-end embeds one, whatever transport serves it. Control thread only,
 * except for the counters, which any thread may read.
 */
#pragma once

#include <stdbool.h>

#include "io/stats.h"
#include "util/list.h"

struct disk;

/** Most queues of one device. */
#define DEVICE_QUEUES 32

struct device {
	const char *kind;      /**< "virtio-blk" */
	const char *transport; /**< "vhost-user" */
	char *vm;              /**< the VM it belongs to */
	char *socket;          /**< path of its socket */
	struct disk *disk;
	bool connected;            /**< a VMM is attached */
	bool broken;               /**< stopped, because of what its guest or VMM did */
	char reason[200];          /**< of @broken; the last one */
	unsigned queues;           /**< configured */
	unsigned queue_size;       /**< configured, entries; the guest may choose fewer */
	unsigned running;          /**< queues in service now */
	const char *ring;          /**< "split" or "packed", once negotiated; else "" */
	struct queue_stats *stats; /**< of @queues queues; lives as long as the device */
};
