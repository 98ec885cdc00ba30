/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frontend.h - the kinds of devices that a VM may have: one row each
 *
 * The one source for the configuration ("vms"), the control API, `penstock help` and the man pages,
 * as layer_registry is for layers. Adding a front-end touches its files, its test and its row.
 *
 * In a configuration a device is written as
 *
 *     - {KIND: UNITS, option: value, ...}
 *
 * where UNITS is the name of a disk, or a list of units, each the name of a disk or a mapping of
 * the unit's options, `disk` among them; or, of a kind that is a NIC, the name of a NIC.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct device;
struct device_plan;
struct error;
struct option;
struct transport;

/** One kind of device. */
struct frontend {
	const char *name;        /**< "virtio-blk" */
	const char *summary;     /**< one line for lists */
	const char *description; /**< paragraphs for the man page */
	const char *example;     /**< YAML of a whole configuration */
	const struct transport *transport;
	/** QEMU's -device, with {chardev} and {OPTION} to be filled in; NULL: it is
	 * vfio-user-pci's. */
	const char *qemu_device;
	/** QEMU can connect again after we were gone: then its chardev is told to. */
	bool reconnects;
	size_t settings_size;
	const struct option *options; /**< into the settings; `socket` is not among them */
	size_t unit_settings_size;
	const struct option *unit_options; /**< into a unit's settings; NULL: none */
	bool nic;                          /**< UNITS is the name of a NIC, not of a disk */
	unsigned units;                    /**< most of them; 1: UNITS cannot be a list */
	bool empty_units;                  /**< a unit without `disk` is an empty drive */
	bool hot_plug;                     /**< units may come and go */
	/**
	 * What the tables cannot say. Looks at @settings, and at those of @count units. 0, or
	 * -errno with
	 * @err, whose text begins with the name of the option. May be NULL.
	 */
	int (*check)(const void *settings, const void *const *units, unsigned count,
		     struct error *err);
	/** Makes one. NULL with @err. */
	struct device *(*create)(const struct device_plan *plan, struct error *err);
};

/** All kinds, ended by NULL. */
extern const struct frontend *const frontend_registry[];

/** The kind called @name, or NULL. */
const struct frontend *frontend_find(const char *name);
