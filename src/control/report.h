/* SPDX-License-Identifier: BSD-3-Clause */
/* report.h - what runs, as JSON; see report.c */
#pragma once

#include <jansson.h>

struct config_vm;
struct daemon;
struct daemon_device;
struct disk;
struct option;
struct queue_stats;

/** Each returns a new object, or NULL if memory is short. */
json_t *report_status(const struct daemon *daemon);
json_t *report_disks(const struct daemon *daemon);
json_t *report_disk(const struct daemon *daemon, const struct disk *disk);
json_t *report_vms(const struct daemon *daemon);
json_t *report_vm(const struct daemon *daemon, const struct config_vm *vm);
/** The unit number @unit of a device. */
json_t *report_unit(const struct daemon_device *slot, unsigned unit);
/** The options of @object that have a value, by their @table. */
json_t *report_options(const struct option *table, const void *object);
/** Requests of each kind that are counted in @stats. */
json_t *report_stats(const struct queue_stats *stats);
json_t *report_layers(void);
json_t *report_frontends(void);
