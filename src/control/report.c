/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report.c - what runs, as JSON
 *
 * Names are those of the configuration file, with the values that hold now; what is not
 * configured but has come about (connected, requests, ...) stands beside them. Sizes that can
 * change are numbers of bytes.
 */
#include "control/report.h"

#include <stdio.h>
#include <unistd.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/exports.h"
#include "control/moves.h"
#include "control/records.h"
#include "frontend/device.h"
#include "frontend/frontend.h"
#include "layer/disk.h"
#include "transport/transport.h"

/* --- options ------------------------------------------------------------------------ */

/* A value as JSON: what is a number or a truth value in YAML is one here. */
static json_t *value_of(const struct option *row, const void *object)
{
	const void *at = (const char *)object + row->offset;
	char text[1024];

	options_get(row, object, text, sizeof text);
	switch (row->type) {
	case OPTION_BOOL:
		return json_boolean(*text == 't');
	case OPTION_UINT:
		return *text == 'a' ? json_string(text)
				    : json_integer((json_int_t)(*(const uint64_t *)at));
	default:
		return json_string(text);
	}
}

/* True if the option was neither given nor has a default: its value says nothing. */
static bool unset(const struct option *row, const void *object)
{
	const char *at = (const char *)object + row->offset;

	if (row->fallback)
		return false;
	if (row->type == OPTION_STRING)
		return !*(char *const *)at;
	return row->type == OPTION_SIZE && !*(const uint64_t *)at;
}

json_t *report_options(const struct option *table, const void *object)
{
	json_t *json = json_object();

	for (; table && table->name; table++)
		if (!unset(table, object))
			json_object_set_new(json, table->name, value_of(table, object));
	return json;
}

/* --- disks -------------------------------------------------------------------------- */

static json_t *stack_of(const struct layer *top);

/* A layer: its options, its legs, and what it has to say of itself. */
static json_t *layer_of(struct layer *layer)
{
	const struct layer_ops *ops = layer->ops;
	json_t *json = report_options(ops->options, layer), *legs = json_array();

	for (unsigned i = 0; i < layer->leg_count; i++)
		json_array_append_new(legs, stack_of(layer->legs[i]));
	if (ops->legs_max > 1)
		json_object_set(json, ops->legs_option, legs);
	else if (ops->legs_option && layer->leg_count)
		json_object_set(json, ops->legs_option, json_array_get(legs, 0));
	json_decref(legs);
	if (ops->report)
		json_object_set_new(json, "state", ops->report(layer));
	return json_pack("{s:o}", ops->name, json);
}

static json_t *stack_of(const struct layer *top)
{
	json_t *json = json_array();

	for (; top; top = top->below)
		json_array_append_new(json, layer_of((struct layer *)top));
	return json;
}

/* The units of @slot that have @disk, into @units; and its VM into @vms. */
static void add_users(const struct daemon_device *slot, const struct disk *disk, json_t *vms,
		      json_t *units)
{
	const struct device *device = slot->device;

	for (unsigned i = 0; i < device->unit_count; i++) {
		if (device->units[i].disk != disk)
			continue;
		json_array_append_new(vms, json_string(slot->vm->name));
		json_array_append_new(units,
				      json_pack("{s:s, s:s, s:s}", "vm", slot->vm->name, "device",
						device->name, "unit", device->units[i].name));
	}
}

/* How often its layers were changed, and how long requests had to wait for that. */
static json_t *changes_of(const struct disk_record *record)
{
	return json_pack("{s:I, s:f, s:f}", "count", (json_int_t)record->changes, "pause-us",
			 (double)record->pause / 1000, "longest-pause-us",
			 (double)record->longest_pause / 1000);
}

json_t *report_disk(const struct daemon *daemon, const struct disk *disk)
{
	json_t *json = report_options(disk_options, &disk->config), *vms = json_array(),
	       *units = json_array();
	const struct disk_record *record = record_of(daemon, disk);

	for (unsigned i = 0; i < daemon->device_count; i++)
		add_users(&daemon->devices[i], disk, vms, units);
	json_object_set_new(json, "name", json_string(disk->name));
	json_object_set_new(json, "size", json_integer((json_int_t)atomic_load(&disk->size)));
	json_object_set_new(json, "block-size", json_integer(disk->block_size));
	json_object_set_new(json, "stack", stack_of(disk->top));
	json_object_set_new(json, "vms", vms);
	json_object_set_new(json, "units", units);
	json_object_set_new(json, "changes", changes_of(record));
	if (record->busy)
		json_object_set_new(json, "busy", json_string(record->busy));
	if (record->move)
		json_object_set_new(json, "move", moves_report(record));
	return json;
}

json_t *report_disks(const struct daemon *daemon)
{
	json_t *json = json_array();

	for (unsigned i = 0; i < daemon->disk_count; i++)
		json_array_append_new(json, report_disk(daemon, daemon->disks[i]));
	return json;
}

/* --- VMs ---------------------------------------------------------------------------- */

/* What the queues of some units have done in one kind of request. */
struct total {
	uint64_t requests, bytes, errors, latency_ns, latency[STATS_BUCKETS];
};

static void add_total(struct total *total, const struct queue_stats *stats, enum io_op op)
{
	total->requests += stats_read(&stats->op[op].requests);
	total->bytes += stats_read(&stats->op[op].bytes);
	total->errors += stats_read(&stats->op[op].errors);
	total->latency_ns += stats_read(&stats->op[op].latency_ns);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		total->latency[b] += stats_read(&stats->op[op].latency[b]);
}

/* Microseconds that @share of the requests took at most, evenly spread within each bucket. */
static double quantile(const struct total *total, double share)
{
	uint64_t all = 0, below = 0;
	double wanted;

	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		all += total->latency[b];
	wanted = share * (double)all;
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		double upper = (double)(1ull << b), lower = b ? upper / 2 : 0;

		if (total->latency[b] && (double)(below + total->latency[b]) >= wanted)
			return lower + (upper - lower) * (wanted - (double)below) /
					       (double)total->latency[b];
		below += total->latency[b];
	}
	return 0;
}

static json_t *json_of(const struct total *total)
{
	double mean = total->requests ? (double)total->latency_ns / (double)total->requests / 1000
				      : 0;

	return json_pack("{s:I, s:I, s:I, s:{s:f, s:f, s:f}}", "requests",
			 (json_int_t)total->requests, "bytes", (json_int_t)total->bytes, "errors",
			 (json_int_t)total->errors, "latency-us", "mean", mean, "p50",
			 quantile(total, 0.5), "p99", quantile(total, 0.99));
}

json_t *report_stats(const struct queue_stats *stats)
{
	json_t *json = json_object();

	for (unsigned op = 0; op < IO_OPS; op++) {
		struct total total = { 0 };

		add_total(&total, stats, op);
		json_object_set_new(json, io_op_name(op), json_of(&total));
	}
	return json;
}

/* Of @count units of @device together. */
static json_t *requests_of(const struct device *device, const struct device_unit *units,
			   unsigned count)
{
	json_t *json = json_object();

	for (unsigned op = 0; op < IO_OPS; op++) {
		struct total total = { 0 };

		for (unsigned i = 0; i < count; i++)
			for (unsigned q = 0; q < device->queues; q++)
				add_total(&total, &units[i].stats[q], op);
		json_object_set_new(json, io_op_name(op), json_of(&total));
	}
	return json;
}

static uint64_t in_flight_of(const struct device *device, const struct device_unit *units,
			     unsigned count)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < count; i++)
		for (unsigned q = 0; q < device->queues; q++)
			n += stats_read(&units[i].stats[q].in_flight);
	return n;
}

static json_t *unit_of(const struct device *device, const struct device_unit *unit)
{
	static const char *const types[] = {
		[UNIT_DISK] = "disk", [UNIT_CDROM] = "cdrom", [UNIT_NIC] = "nic"
	};

	return json_pack("{s:s, s:s, s:b, s:s*, s:s*, s:I, s:o}", "unit", unit->name, "type",
			 types[unit->type], "present", unit->present, "disk",
			 unit->disk ? unit->disk->name : NULL, "port",
			 unit->port ? unit->port->name : NULL, "in-flight",
			 (json_int_t)in_flight_of(device, unit, 1), "requests",
			 requests_of(device, unit, 1));
}

json_t *report_unit(const struct daemon_device *slot, unsigned unit)
{
	json_t *json = unit_of(slot->device, &slot->device->units[unit]);

	json_object_set_new(json, "vm", json_string(slot->vm->name));
	json_object_set_new(json, "device", json_string(slot->device->name));
	return json;
}

static json_t *device_of(const struct daemon_device *slot)
{
	const struct device *device = slot->device;
	const struct frontend *frontend = slot->config->frontend;
	json_t *json = report_options(frontend->options, slot->config->settings),
	       *units = json_array(), *free_units = json_array();
	uint64_t accesses = 0, interrupts = 0;

	for (unsigned q = 0; q < device->queues; q++) {
		accesses += stats_read(&device->stats[q].accesses);
		interrupts += stats_read(&device->stats[q].interrupts);
	}
	for (unsigned i = 0; i < device->unit_count; i++)
		if (device->units[i].present)
			json_array_append_new(units, unit_of(device, &device->units[i]));
		else if (device->ops->attach)
			json_array_append_new(free_units, json_string(device->units[i].name));
	if (frontend->units == 1 && device->units[0].disk)
		json_object_set_new(json, device->kind, json_string(device->units[0].disk->name));
	if (frontend->nic)
		json_object_set_new(json, device->kind, json_string(device->units[0].port->name));
	json_object_set_new(json, "kind", json_string(device->kind));
	json_object_set_new(json, "name", json_string(device->name));
	json_object_set_new(json, "socket", json_string(device->socket));
	json_object_set_new(json, "transport", json_string(device->transport));
	json_object_set_new(json, "connected", json_boolean(device->connected));
	json_object_set_new(json, "broken", json_boolean(device->broken));
	json_object_set_new(json, "reason", json_string(device->reason));
	if (device->caveat)
		json_object_set_new(json, "caveat", json_string(device->caveat));
	json_object_set_new(json, "ring", json_string(device->ring));
	json_object_set_new(json, "running-queues", json_integer(device->running));
	json_object_set_new(json, "accesses", json_integer((json_int_t)accesses));
	json_object_set_new(json, "interrupts", json_integer((json_int_t)interrupts));
	json_object_set_new(
		json, "in-flight",
		json_integer((json_int_t)in_flight_of(device, device->units, device->unit_count)));
	json_object_set_new(json, "requests",
			    requests_of(device, device->units, device->unit_count));
	json_object_set_new(json, "units", units);
	json_object_set_new(json, "free-units", free_units);
	return json;
}

json_t *report_vm(const struct daemon *daemon, const struct config_vm *vm)
{
	json_t *devices = json_array();

	for (unsigned i = 0; i < daemon->device_count; i++)
		if (daemon->devices[i].vm == vm)
			json_array_append_new(devices, device_of(&daemon->devices[i]));
	return json_pack("{s:s, s:o}", "name", vm->name, "devices", devices);
}

json_t *report_vms(const struct daemon *daemon)
{
	json_t *json = json_array();

	for (unsigned i = 0; i < daemon->config->vm_count; i++)
		json_array_append_new(json, report_vm(daemon, &daemon->config->vms[i]));
	return json;
}

/* --- the rest ----------------------------------------------------------------------- */

json_t *report_status(const struct daemon *daemon)
{
	double uptime = (double)(loop_now(daemon->control) - daemon->started) / 1e9;

	return json_pack("{s:s, s:i, s:f, s:i, s:s, s:o, s:o, s:o, s:o, s:o}", "version",
			 PENSTOCK_VERSION, "pid", (int)getpid(), "uptime-seconds", uptime, "loops",
			 (int)daemon->loop_count, "engine", loop_engine_name(daemon->loops[0]),
			 "disks", report_disks(daemon), "vms", report_vms(daemon), "nbd",
			 exports_report(daemon), "switches", report_switches(daemon), "ports",
			 report_ports(daemon));
}

static json_t *table_of(const struct option *table)
{
	json_t *json = json_object();
	char expected[300];

	for (; table && table->name; table++) {
		json_t *row = json_object();

		options_describe(table, expected, sizeof expected);
		json_object_set_new(row, "expected", json_string(expected));
		json_object_set_new(row, "required", json_boolean(table->required));
		if (table->fallback)
			json_object_set_new(row, "default", json_string(table->fallback));
		json_object_set_new(row, "help", json_string(table->help));
		json_object_set_new(json, table->name, row);
	}
	return json;
}

json_t *report_layers(void)
{
	json_t *json = json_array();

	for (unsigned i = 0; layer_registry[i]; i++) {
		const struct layer_ops *ops = layer_registry[i];

		json_array_append_new(json,
				      json_pack("{s:s, s:b, s:s, s:o}", "name", ops->name,
						"back-end", ops->backend, "summary", ops->summary,
						"options", table_of(ops->options)));
	}
	return json;
}

static json_t *kind_of(const char *name, const char *summary, const struct option *options)
{
	return json_pack("{s:s, s:s, s:o}", "name", name, "summary", summary, "options",
			 table_of(options));
}

json_t *report_packet_layers(void)
{
	json_t *json = json_array();

	for (unsigned i = 0; packet_layer_registry[i]; i++)
		json_array_append_new(json, kind_of(packet_layer_registry[i]->name,
						    packet_layer_registry[i]->summary,
						    packet_layer_registry[i]->options));
	return json;
}

json_t *report_uplinks(void)
{
	json_t *json = json_array();

	for (unsigned i = 0; uplink_registry[i]; i++)
		json_array_append_new(json,
				      kind_of(uplink_registry[i]->name, uplink_registry[i]->summary,
					      uplink_registry[i]->options));
	return json;
}

json_t *report_frontends(void)
{
	json_t *json = json_array();

	for (unsigned i = 0; frontend_registry[i]; i++) {
		const struct frontend *frontend = frontend_registry[i];

		json_array_append_new(
			json, json_pack("{s:s, s:s, s:s, s:i, s:b, s:b, s:o, s:o}", "name",
					frontend->name, "transport", frontend->transport->name,
					"summary", frontend->summary, "units", (int)frontend->units,
					"empty-units", frontend->empty_units, "hot-plug",
					frontend->hot_plug, "options", table_of(frontend->options),
					"unit-options", table_of(frontend->unit_options)));
	}
	return json;
}
