/* SPDX-License-Identifier: BSD-3-Clause */
/* report.h - what runs, as JSON; see report.c */
#pragma once

#include <jansson.h>

#include "packet/port.h"

struct config_vm;
struct daemon;
struct daemon_device;
struct disk;
struct option;
struct packet_layer;
struct port;
struct queue_stats;
struct vswitch;

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
/* Switches and ports: report_net.c. */
json_t *report_switches(const struct daemon *daemon);
json_t *report_switch(const struct vswitch *vswitch);
json_t *report_addresses(const struct vswitch *vswitch);
json_t *report_ports(const struct daemon *daemon);
json_t *report_port(const struct daemon *daemon, struct port *port);

/** What a layer of packets counts, on all loops together; REPORT_DROPS + n: by its nth cause. */
enum report_counter { REPORT_SEEN, REPORT_HELD, REPORT_MADE, REPORT_DROPS };
uint64_t report_layer_counter(const struct packet_layer *layer, enum packet_direction d,
			      enum report_counter counter);

json_t *report_layers(void);
json_t *report_packet_layers(void);
json_t *report_uplinks(void);
json_t *report_frontends(void);
