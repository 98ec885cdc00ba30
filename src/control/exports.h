/* SPDX-License-Identifier: BSD-3-Clause */
/* exports.h - disks that are exported to NBD clients; see exports.c. Control thread only. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct daemon;
struct disk;
struct error;
struct nbd_export;

/** Listens wherever the configuration says. 0, or -errno with @err. */
int exports_open(struct daemon *daemon, struct error *err);

/** Ends that; each server holds the daemon until its clients are gone. */
void exports_close(struct daemon *daemon);

/** True if a client has @disk; @err says where. */
bool exports_use(const struct daemon *daemon, const struct disk *disk, struct error *err);

/** Whether a unit of a VM may have @disk: not if a client may write to it. 0, or -EBUSY with @err.
 */
int exports_check_unit(const struct daemon *daemon, const struct disk *disk, struct error *err);

/** Calls @each for every disk that each server exports; @server is its socket or address. */
void exports_each(const struct daemon *daemon,
		  void (*each)(void *data, const char *server, const struct nbd_export *export),
		  void *data);

/** The servers with their options, and what they export. */
json_t *exports_report(const struct daemon *daemon);
