/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h - a virtual device as the control side sees it: whose it is, which units it has and what
 * disks stand behind them, who is attached, what its queues have done
 *
 * A unit is what one disk is for: the whole of a virtio-blk device, a drive on an IDE cable, a
 * logical unit of a SCSI target. Every front-end embeds a struct device, whatever transport serves
 * it. Control thread only, except for the counters, which any thread may read.
 */
#pragma once

#include <stdbool.h>

#include "io/stats.h"

struct device;
struct disk;
struct error;
struct option;
struct port;

/** Most queues of one device. */
#define DEVICE_QUEUES 32

enum unit_type { UNIT_DISK, UNIT_CDROM, UNIT_NIC };

/** One unit of a device. */
struct device_unit {
	char name[24]; /**< within the device: "secondary-master", "2:0"; "" if there is but one */
	enum unit_type type;
	const void *settings; /**< of the plan, which keeps them; NULL: it was not in the plan */
	bool present;         /**< false: nothing is there (yet, or any more); hot plug */
	struct disk *disk;    /**< NULL: no medium, or not present */
	struct port *port;    /**< of a NIC: its place on a switch; NULL: it is no NIC */
	struct queue_stats
		*stats; /**< requests, of each queue of the device; lives as long as it */
};

/**
 * A change of one unit, under way: done(change) is called on the control thread when the old disk
 * is no longer used, or with an error when nothing was changed. The caller's, kept until then.
 */
struct device_change {
	bool force; /**< eject although the guest prevents it */
	void (*done)(struct device_change *change);
	void *owner;
	int status;                  /**< 0 or -errno */
	struct loop_message message; /**< the device's own */
};

struct device_ops {
	/** Frees it; its server is closed. */
	void (*destroy)(struct device *device);
	/**
	 * Puts @disk into @unit in place of what is there; NULL takes it out (the drive stays,
	 * empty). NULL: the device cannot do that. 0, or -errno with @err and @change unused.
	 */
	int (*set_disk)(struct device *device, unsigned unit, struct disk *disk,
			struct device_change *change, struct error *err);
	/** Hot plug: @unit comes, with @disk (NULL: an empty drive), and goes. NULL as above. */
	int (*attach)(struct device *device, unsigned unit, struct disk *disk, struct error *err);
	int (*detach)(struct device *device, unsigned unit, struct device_change *change,
		      struct error *err);
};

struct device {
	const struct device_ops *ops;
	const char *kind;      /**< "virtio-blk" */
	const char *transport; /**< "vhost-user" */
	char *vm;              /**< the VM it belongs to */
	char *name;            /**< within the VM: "virtio-blk0", "ide0" */
	char *label;  /**< in messages: "virtio-blk DISK"; @name if it may have many units */
	char *socket; /**< path of its socket */
	struct device_unit *units; /**< @unit_count of them, present or not */
	unsigned unit_count;
	bool connected;            /**< a VMM is attached */
	bool broken;               /**< stopped, because of what its guest or VMM did */
	char reason[200];          /**< of @broken; the last one */
	unsigned queues;           /**< configured */
	unsigned queue_size;       /**< configured, entries; the guest may choose fewer */
	unsigned running;          /**< queues in service now */
	const char *ring;          /**< "split" or "packed", once negotiated; else "" */
	const char *caveat;        /**< what its VMM cannot do with it (migrate, ...), or NULL */
	struct queue_stats *stats; /**< accesses and interrupts of @queues queues */
};

/** What a user says of a NIC, and where it is plugged in; see packet/nic.h. */
struct nic_plan;

/** What a user wants of one unit. */
struct unit_plan {
	const void *settings;       /**< by the front-end's unit_options */
	struct disk *disk;          /**< NULL: an empty drive */
	const struct nic_plan *nic; /**< of a front-end for NICs, else NULL */
};

/** What a user wants of a device. */
struct device_plan {
	const char *vm, *name;
	const char *socket;
	const void *settings; /**< by the front-end's options */
	const struct unit_plan *units;
	unsigned count;
};

/**
 * Fills the common part from @plan: names, and room for @units units and @queues queues of
 * counters.
 * @device->kind is set; the rest is zero. 0, or -ENOMEM with nothing to release.
 */
int device_init(struct device *device, const struct device_plan *plan, unsigned units,
		unsigned queues, struct error *err);
/** Frees what device_init() made. */
void device_release(struct device *device);
