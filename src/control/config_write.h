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

/** All of it. */
json_t *config_write(const struct daemon *daemon);

/** What stands below the name of a disk. */
json_t *config_write_disk(const struct daemon *daemon, const struct disk *disk);

/** What stands behind the kind of a device: its units. */
json_t *config_write_units(const struct daemon_device *slot);
