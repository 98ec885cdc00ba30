/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon.h - what runs: loops, disks, networks, devices and the control API; see daemon.c */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"
#include "util/list.h"

struct api;
struct config;
struct config_device;
struct config_vm;
struct device;
struct disk;
struct error;
struct exports;
struct networks;
struct port;

/** One device of one VM, and its server. */
struct daemon_device {
	const struct config_vm *vm;
	const struct config_device *config;
	struct device *device;
	void *server; /**< its transport's; NULL before it listens, and after it was closed */
};

/** All of it. Control thread only. */
struct daemon {
	const struct config *config;
	struct loop *control; /**< this thread's: sockets, API, signals */
	struct loop **loops;  /**< those that serve queues */
	unsigned loop_count;
	struct disk **disks; /**< those of the configuration in its order, then others */
	unsigned disk_count;
	unsigned next_home;            /**< which loop the next disk has for its layers' work */
	struct daemon_device *devices; /**< in the order of the configuration */
	unsigned device_count;
	struct list openings;      /**< disks that are being opened, see disks.c */
	struct list closings;      /**< disks that are being closed, likewise */
	struct list records;       /**< of each of @disks, see records.h */
	struct list changes;       /**< changes of units that are under way, see units.c */
	struct exports *exports;   /**< to NBD clients, see exports.c; NULL: none */
	struct networks *networks; /**< switches and uplinks, see networks.c; NULL: none */
	struct api *api;
	struct loop_watch *signals;
	int signal_fd;
	uint64_t started; /**< ns, loop_now() when it was ready */
	bool ending;
	bool disks_stopped, devices_destroyed; /**< at the end */
	unsigned holds;                        /**< see daemon_hold() */
	int status;                            /**< to exit with */
	struct loop_message start, end;
};

/**
 * Serves what @config says until a signal ends it, or until starting fails; then everything is
 * closed again. Returns the exit status.
 */
int daemon_run(const struct config *config);

/** Keeps all that runs from being closed when the daemon ends, until daemon_let_go(). */
void daemon_hold(struct daemon *daemon);
void daemon_let_go(struct daemon *daemon);

/** Puts @disk into service: its layers' own work may begin. */
void daemon_start_disk(struct daemon *daemon, struct disk *disk);

/** The disk called @name, or NULL. */
struct disk *daemon_disk(const struct daemon *daemon, const char *name);

/** The port called @name, of any switch, or NULL. */
struct port *daemon_port(const struct daemon *daemon, const char *name);
