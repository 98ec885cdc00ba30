/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_write.c - the configuration as it now is
 *
 * From what runs, not from what was read: disks that came, went, grew or have other layers now,
 * units that came, went or have another medium, NBD servers with what they export. What has its
 * default is left out, and so is what the program does by itself. config_read() reads the result,
 * and what starts with it is the same.
 */
#include "control/config_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/records.h"
#include "control/stack_tree.h"
#include "control/units.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "transport/nbd.h"
#include "util/error.h"

/* --- options ---------------------------------------------------------------------------- */

/* True if @row has in @object what it has if nobody says anything. */
static bool has_default(const struct option *row, const char *text)
{
	union {
		char *string;
		uint64_t number;
		double fraction;
		int choice;
		bool truth;
	} value = { 0 };
	struct option table[] = { *row, { 0 } };
	char usual[1024];

	table[0].offset = 0;
	if (row->fallback && options_set(table, &value, row->name, row->fallback, NULL))
		return false;
	options_get(table, &value, usual, sizeof usual);
	if (row->type == OPTION_STRING)
		free(value.string);
	return !strcmp(text, usual);
}

/* A text, however long, unless it is the default. */
static int write_string(json_t *json, const struct option *row, const void *object)
{
	const char *text = *(char *const *)(const void *)((const char *)object + row->offset);

	if (!text || (row->fallback && !strcmp(text, row->fallback)))
		return 0;
	return json_object_set_new(json, row->name, json_string(text));
}

int config_write_options(json_t *json, const struct option *table, const void *object)
{
	char text[64];
	int ret = 0;

	for (; table && table->name && !ret; table++) {
		if (table->type == OPTION_STRING) {
			ret = write_string(json, table, object);
			continue;
		}
		options_get(table, object, text, sizeof text);
		if (has_default(table, text))
			continue;
		if (table->type == OPTION_BOOL)
			ret = json_object_set_new(json, table->name, json_boolean(*text == 't'));
		else
			ret = json_object_set_new(json, table->name, json_string(text));
	}
	return ret;
}

/* --- disks -------------------------------------------------------------------------------- */

static int set_size(json_t *json, const struct disk *disk)
{
	uint64_t size = atomic_load(&disk->size), natural = disk->top->limits.size;
	char text[32];

	natural -= natural % disk->block_size;
	if (!disk->config.size && size == natural)
		return 0;
	return json_object_set_new(json, "size", json_string(format_size(size, text, sizeof text)));
}

/* The one that it has got from a back-end that may be another one now. */
static int set_block_size(json_t *json, const struct disk *disk)
{
	uint32_t natural = disk->top->limits.natural_block_size;
	char text[16];

	if (disk->block_size == (natural ? natural : 512))
		return 0;
	snprintf(text, sizeof text, "%u", disk->block_size);
	return json_object_set_new(json, "block-size", json_string(text));
}

/*
 * An image that was made once is not made again: if it is missing when penstock starts, its
 * directory may be, too.
 */
static void forget_creation(json_t *stack)
{
	const char *name;
	json_t *layer, *options, *value, *leg;
	size_t i;
	void *next;

	json_array_foreach(stack, i, layer)
	{
		options = json_object_iter_value(json_object_iter(layer));
		if (json_object_get(options, "create")) {
			json_object_del(options, "create");
			json_object_del(options, "size");
		}
		json_object_foreach_safe(options, next, name, value)
		{
			size_t l;

			json_array_foreach(value, l, leg) forget_creation(leg);
		}
	}
}

json_t *config_write_disk(const struct daemon *daemon, const struct disk *disk)
{
	const json_t *becoming = record_of(daemon, disk)->becoming;
	json_t *json = json_object();
	json_t *stack = becoming ? json_deep_copy(becoming) : stack_tree_of(disk);

	forget_creation(stack);
	if (config_write_options(json, disk_options, &disk->config) || set_size(json, disk) ||
	    set_block_size(json, disk) ||
	    json_object_set_new(json, "stack", stack ? stack_tree_short(stack) : NULL)) {
		json_decref(json);
		json = NULL;
	}
	json_decref(stack);
	return json;
}

/* --- VMs ---------------------------------------------------------------------------------- */

/* Where a unit is, in the words of its kind's options. */
static int set_place(json_t *json, const struct option *table, const struct device_unit *unit)
{
	unsigned target, lun;
	int ret = 0;

	if (options_find(table, "position"))
		ret = json_object_set_new(json, "position", json_string(unit->name));
	if (options_find(table, "target") && sscanf(unit->name, "%u:%u", &target, &lun) == 2) {
		ret = json_object_set_new(json, "target", json_integer(target));
		if (lun && !ret)
			ret = json_object_set_new(json, "lun", json_integer(lun));
		else
			json_object_del(json, "lun");
	}
	return ret;
}

static json_t *write_unit(const struct frontend *frontend, const struct device_unit *unit)
{
	json_t *json = json_object();
	int ret = json ? 0 : -1;

	if (unit->disk && !ret)
		ret = json_object_set_new(json, "disk", json_string(unit->disk->name));
	if (unit->settings && !ret)
		ret = config_write_options(json, frontend->unit_options, unit->settings);
	if (!ret)
		ret = set_place(json, frontend->unit_options, unit);
	/* A drive that has, or had, a disk of another kind stays what it is. */
	if (!ret && unit->type == UNIT_CDROM && options_find(frontend->unit_options, "type"))
		ret = json_object_set_new(json, "type", json_string("cdrom"));
	if (!ret)
		return json;
	json_decref(json);
	return NULL;
}

json_t *config_write_units(const struct daemon_device *slot)
{
	const struct device *device = slot->device;
	const struct frontend *frontend = slot->config->frontend;
	json_t *units;

	if (frontend->nic)
		return json_string(device->units[0].port->name);
	if (frontend->units == 1)
		return json_string(device->units[0].disk->name);
	units = json_array();
	for (unsigned i = 0; i < device->unit_count; i++)
		if (device->units[i].present &&
		    json_array_append_new(units, write_unit(frontend, &device->units[i]))) {
			json_decref(units);
			return NULL;
		}
	return units;
}

static json_t *write_device(const struct daemon_device *slot)
{
	const struct frontend *frontend = slot->config->frontend;
	json_t *json = json_object();

	if (!json_object_set_new(json, frontend->name, config_write_units(slot)) &&
	    !json_object_set_new(json, "socket", json_string(slot->config->socket)) &&
	    !config_write_options(json, frontend->options, slot->config->settings))
		return json;
	json_decref(json);
	return NULL;
}

static json_t *write_vm(const struct daemon *daemon, const struct config_vm *vm)
{
	json_t *devices = json_array();

	for (unsigned i = 0; i < daemon->device_count; i++)
		if (daemon->devices[i].vm == vm &&
		    json_array_append_new(devices, write_device(&daemon->devices[i]))) {
			json_decref(devices);
			return NULL;
		}
	return devices;
}

/* --- NBD servers ------------------------------------------------------------------------------ */

/* The disks that it names, those that are still there; *@locked: a VM has got one of them. */
static json_t *write_names(const struct daemon *daemon, const struct nbd_config *nbd, bool *locked)
{
	json_t *names = json_array();

	for (unsigned i = 0; i < nbd->disk_count; i++) {
		const struct disk *disk = daemon_disk(daemon, nbd->disks[i]);

		if (!disk)
			continue;
		*locked |= !disk->config.shared && !disk->config.read_only &&
			   units_use(daemon, disk, NULL);
		if (json_array_append_new(names, json_string(disk->name))) {
			json_decref(names);
			return NULL;
		}
	}
	return names;
}

/* A server that may write names no disk of a VM: if one has become that, it can only read. */
static json_t *write_server(const struct daemon *daemon, const struct nbd_config *nbd)
{
	json_t *json = json_object(), *names;
	bool locked = false;
	int ret = config_write_options(json, nbd_options, nbd);

	if (!nbd->all && !ret) {
		names = write_names(daemon, nbd, &locked);
		ret = json_object_set_new(json, "disks", names);
	}
	if (locked)
		json_object_del(json, "read-only");
	if (!ret)
		return json;
	json_decref(json);
	return NULL;
}

/* One whose disks have all gone has nothing left to do. */
static json_t *write_servers(const struct daemon *daemon)
{
	json_t *servers = json_array(), *server;

	for (unsigned i = 0; i < daemon->config->nbd_count; i++) {
		server = write_server(daemon, &daemon->config->nbds[i]);
		if (server && json_object_get(server, "disks") &&
		    !json_array_size(json_object_get(server, "disks"))) {
			json_decref(server);
			continue;
		}
		if (json_array_append_new(servers, server)) {
			json_decref(servers);
			return NULL;
		}
	}
	return servers;
}

/* --- the whole ------------------------------------------------------------------------------ */

json_t *config_write(const struct daemon *daemon)
{
	const struct config *config = daemon->config;
	json_t *json = json_object(), *disks = json_object(), *vms = json_object();
	int ret = json && disks && vms ? config_write_options(json, config_options, config) : -1;

	for (unsigned i = 0; i < daemon->disk_count && !ret; i++)
		ret = json_object_set_new(disks, daemon->disks[i]->name,
					  config_write_disk(daemon, daemon->disks[i]));
	for (unsigned i = 0; i < config->vm_count && !ret; i++)
		ret = json_object_set_new(vms, config->vms[i].name,
					  write_vm(daemon, &config->vms[i]));
	/* Where there are networks, there need be no disks; and no VMs beside uplinks. */
	if (!ret && (json_object_size(disks) || !config->switch_count))
		ret = json_object_set(json, "disks", disks);
	if (!ret && config->switch_count)
		ret = config_write_net(daemon, json);
	if (!ret && (json_object_size(vms) || !config->uplink_count))
		ret = json_object_set(json, "vms", vms);
	if (!ret && config->nbd_count)
		ret = json_object_set_new(json, "nbd", write_servers(daemon));
	json_decref(disks);
	json_decref(vms);
	if (!ret)
		return json;
	json_decref(json);
	return NULL;
}
