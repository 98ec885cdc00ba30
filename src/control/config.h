/* SPDX-License-Identifier: BSD-3-Clause */
/* config.h - what a user wants served: disks, networks, VMs with devices, and by how many loops */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "frontend/frontend.h"
#include "layer/disk.h"
#include "packet/nic.h"
#include "packet/packet_layer.h"
#include "packet/uplink.h"
#include "packet/vswitch.h"
#include "util/option.h"

struct error;
struct mistakes;
struct nbd_config;
struct node;
struct state;

/** Most cores that a list of them may name. */
#define CONFIG_CPUS 1024

/** One disk. */
struct config_disk {
	char *name;
	struct disk_config config;
	struct stack_config stack;
};

/** One unit of a device. */
struct config_unit {
	unsigned disk;  /**< index into config.disks; CONFIG_NO_DISK: an empty drive, or a NIC */
	unsigned nic;   /**< index into config.nics; CONFIG_NO_NIC: it is none */
	void *settings; /**< by the front-end's unit_options; NULL if it has none */
};

/** No disk: of a drive without a medium. */
#define CONFIG_NO_DISK UINT_MAX
#define CONFIG_NO_NIC  UINT_MAX

/** One switch. */
struct config_switch {
	char *name;
	struct vswitch_config config;
};

/** What is plugged into a switch: a NIC of a VM, or an uplink. */
struct config_port {
	char *name;
	struct port_config config;
	struct packet_layer_config *layers; /**< first is next to the device */
	unsigned layer_count;
	struct nic_config nic;        /**< of a NIC */
	const struct uplink_ops *ops; /**< of an uplink: its kind; NULL: it is a NIC */
	void *settings;               /**< of an uplink, by ops->options */
};

/** One device of a VM. */
struct config_device {
	const struct frontend *frontend;
	char *name; /**< its kind, and which of the VM's devices of that kind it is: "ide0" */
	char *socket;
	void *settings; /**< by the front-end's options */
	struct config_unit *units;
	unsigned count;
};

/** The option that all devices have, into struct config_device. */
extern const struct option config_device_options[];

/** One VM. */
struct config_vm {
	char *name;
	struct config_device *devices;
	unsigned count;
};

/** All of it. Zero-initialise, then config_init(). */
struct config {
	const char *file; /**< for messages, not owned; NULL: the command line */

	uint64_t loops; /**< threads that serve queues; 0: one for each core */
	char *cpus;     /**< list of cores to stay on; NULL: wherever the system puts them */
	int engine;     /**< enum loop_engine */
	uint64_t poll;  /**< longest polling, microseconds */
	char *api;      /**< path of the control API's socket; NULL: none */
	char *state;    /**< path of the file that keeps changes at run time; NULL: nothing does */
	int log_level;  /**< enum log_level */
	struct state *kept; /**< what is in @state, see state.h; NULL: nothing is kept */

	struct config_disk *disks;
	unsigned disk_count;
	struct config_switch *switches;
	unsigned switch_count;
	struct config_port *nics, *uplinks;
	unsigned nic_count, uplink_count;
	struct config_vm *vms;
	unsigned vm_count;
	struct nbd_config *nbds; /**< servers of NBD, see transport/nbd.h */
	unsigned nbd_count;
};

/** Options of the program as a whole: flags of `serve` and `run`, and top level of a file. */
extern const struct option config_options[];

/** What `penstock run` serves without a file, as YAML. */
extern const char config_embedded[];

void config_init(struct config *config);

/** Reads a tree into @config; all that is wrong goes into @mistakes. False if it is not good. */
bool config_read(struct config *config, const struct node *tree, struct mistakes *mistakes);

/**
 * Says which images of a tree that config_read() found good are missing, and the like. It opens
 * nothing.
 */
void config_check_files(const struct node *tree, struct mistakes *mistakes);

/** Reads a stack, such as that of a disk, as config_read() does. @stack is zero before. */
bool config_read_stack(struct stack_config *stack, const struct node *list,
		       struct mistakes *mistakes);

/** Reads one disk, whose name is the key of @node, as config_read() does. @disk is zero before. */
bool config_read_disk(struct config_disk *disk, const struct node *node, struct mistakes *mistakes);
void config_release_disk(struct config_disk *disk);

/**
 * Reads a list of layers of packets, for a port with @facts, as config_read() does. The list and
 * what is in it are the caller's, also after a mistake.
 */
bool config_read_packet_layers(struct packet_layer_config **layers, unsigned *count,
			       const struct node *list, const struct port_facts *facts,
			       struct mistakes *mistakes);
void config_release_packet_layers(struct packet_layer_config *layers, unsigned count);

/** A copy of @from, of @ops; NULL: no memory. */
void *config_copy_settings(const struct option *options, size_t size, const void *from);

/** What layers may know of the port that @port becomes. */
struct port_facts config_port_facts(const struct config_port *port);

/**
 * What config_read() would say of a port called @name with other options than it has in @config,
 * as far as other ports are concerned. 0, or -errno with @err, whose text begins with the option.
 */
int config_check_port(const struct config *config, const char *name,
		      const struct port_config *config_of, struct error *err);

/** Reads a MAC address of one station, not of a group. 0, or -EINVAL. */
int config_mac(const char *text, uint8_t mac[6]);

/**
 * Whether a disk that is in a unit of VM @there may be in one of VM @here as well: a disk that is
 * written by two guests that do not know of one another is soon destroyed. 0, or -EBUSY with @err.
 */
int config_check_shared(const char *disk, const struct disk_config *config, const char *here,
			const char *there, struct error *err);

/**
 * Parses a list of cores such as "1", "0-3" or "0,2,4-7" into @cpus, in its order. Returns how
 * many they are; 0 if the list is not understood.
 */
unsigned config_cpus(const char *list, unsigned cpus[CONFIG_CPUS]);

void config_release(struct config *config);
