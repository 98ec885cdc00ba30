/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_write.h - the configuration as it now is, as JSON; see config_write.c. New objects, of
 * which NULL says that memory is short. Control thread only.
 */
#pragma once

#include <jansson.h>

struct daemon;
struct daemon_device;
struct disk;
struct option;
struct port;

/** All of it. */
json_t *config_write(const struct daemon *daemon);

/** What stands below the name of a disk. */
json_t *config_write_disk(const struct daemon *daemon, const struct disk *disk);

/** What stands behind the kind of a device: its units, or its NIC. */
json_t *config_write_units(const struct daemon_device *slot);

/** The options of a port, whatever is plugged in, and its layers, but for captures to whoever
 * watches. */
json_t *config_write_port(const struct port *port);

/** The same of the NIC called @name, which no device uses, as it is configured. NULL: no memory, or
 * none is called so. */
json_t *config_write_unplugged(const struct daemon *daemon, const char *name);

/** All layers of a port, in the full form of stack_tree.h. */
json_t *config_write_layers(const struct port *port);

/** Adds switches, NICs and uplinks to @json. 0, or -1: memory is short. */
int config_write_net(const struct daemon *daemon, json_t *json);

/** Adds to @json the options of @object that are not as they are by default. As above. */
int config_write_options(json_t *json, const struct option *table, const void *object);
