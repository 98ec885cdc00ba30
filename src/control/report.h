/* SPDX-License-Identifier: BSD-3-Clause */
/* report.h - what runs, as JSON; see report.c */
#pragma once

#include <jansson.h>

struct config_vm;
struct daemon;
struct daemon_device;
struct disk;

/** Each returns a new object, or NULL if memory is short. */
json_t *report_status(const struct daemon *daemon);
json_t *report_disks(const struct daemon *daemon);
json_t *report_disk(const struct daemon *daemon, const struct disk *disk);
json_t *report_vms(const struct daemon *daemon);
json_t *report_vm(const struct daemon *daemon, const struct config_vm *vm);
/** The unit number @unit of a device. */
json_t *report_unit(const struct daemon_device *slot, unsigned unit);
json_t *report_layers(void);
json_t *report_frontends(void);
