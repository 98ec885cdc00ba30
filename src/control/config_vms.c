/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_vms.c - reads `vms`: each with its devices, a device with its units
 *
 * A device is looked at together with all that were read before it: a socket is that of one device,
 * a disk that of one VM unless it is shared, a NIC that of one device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/yaml.h"
#include "util/error.h"
#include "util/must.h"
#include "util/suggest.h"

const struct option config_device_options[] = {
	{ .name = "socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config_device, socket),
	  .required = true,
	  .help = "Path of the UNIX socket that the VMM connects to." },
	{ 0 },
};

/* --- units ------------------------------------------------------------------------- */

int config_check_shared(const char *disk, const struct disk_config *config, const char *here,
			const char *there, struct error *err)
{
	if (strcmp(here, there) && (config->read_only || config->shared))
		return 0;
	return error_set(
		err, EBUSY,
		"disk '%s' is a device of VM '%s' already; expected each disk once, or with "
		"read-only: true or shared: true once in each VM",
		disk, there);
}

static bool has_disk(const struct config_device *device, unsigned disk)
{
	for (unsigned i = 0; i < device->count; i++)
		if (device->units[i].disk == disk)
			return true;
	return false;
}

/* @unit is the last one read, of the last device of the last VM. */
static void check_shared(struct mistakes *mistakes, const struct node *node, const char *where,
			 const struct config *config, struct config_unit *unit)
{
	const struct config_vm *here = &config->vms[config->vm_count - 1], *vm;
	const struct config_disk *disk = &config->disks[unit->disk];
	unsigned index = unit->disk;
	struct error err = { 0 };

	unit->disk = CONFIG_NO_DISK; /* not to be found itself */
	for (vm = config->vms; vm <= here; vm++) {
		for (unsigned d = 0; d < vm->count; d++) {
			if (!has_disk(&vm->devices[d], index) ||
			    !config_check_shared(disk->name, &disk->config, here->name, vm->name,
						 &err))
				continue;
			reading_wrong(mistakes, node, where, "%s", err.text);
			unit->disk = index;
			return;
		}
	}
	unit->disk = index;
}

/* What the front-end itself has to say about a device, once all of it is read. */
static void check_settings(struct mistakes *mistakes, const struct node *node, const char *where,
			   const struct config_device *device)
{
	const void **units = must(calloc(device->count + 1, sizeof *units));
	struct error err = { 0 };

	for (unsigned i = 0; i < device->count; i++)
		units[i] = device->units[i].settings;
	if (device->frontend->check &&
	    device->frontend->check(device->settings, units, device->count, &err)) {
		const struct node *option = NULL;
		char name[64];

		snprintf(name, sizeof name, "%.*s", (int)strcspn(err.text, ":"), err.text);
		option = node_find(node, name);
		reading_wrong(mistakes, option ? option : node, where, "%s", err.text);
	}
	free(units);
}

static bool has_nic(const struct config_vm *vm, unsigned nic)
{
	for (unsigned d = 0; d < vm->count; d++)
		for (unsigned u = 0; u < vm->devices[d].count; u++)
			if (vm->devices[d].units[u].nic == nic)
				return true;
	return false;
}

/* The unit of a device that is a NIC: there is one device for each NIC. */
static void read_nic(struct mistakes *mistakes, const struct node *node, const char *where,
		     const struct config *config, struct config_device *device)
{
	struct config_unit *unit = &device->units[device->count++];
	unsigned nic;

	*unit = (struct config_unit){ .disk = CONFIG_NO_DISK, .nic = CONFIG_NO_NIC };
	if (!reading_must_be(mistakes, node, where, NODE_SCALAR, "the name of a NIC"))
		return;
	nic = config_read_nic_name(mistakes, node, where, device->frontend->name, config);
	for (unsigned v = 0; nic != CONFIG_NO_NIC && v < config->vm_count; v++)
		if (has_nic(&config->vms[v], nic))
			reading_wrong(mistakes, node, where,
				      "%s: NIC '%s' is a device of VM '%s' already; expected each "
				      "NIC once",
				      device->frontend->name, node->text, config->vms[v].name);
	unit->nic = nic;
}

/* One unit: the name of a disk, or a mapping of options with `disk` among them. */
static void read_unit(struct mistakes *mistakes, const struct node *node, const char *where,
		      const struct config *config, struct config_device *device)
{
	static const char *const others[] = { "disk", NULL };
	const struct frontend *frontend = device->frontend;
	struct config_unit *unit = &device->units[device->count++];
	const struct node *disk = node->type == NODE_SCALAR ? node : node_find(node, "disk");

	unit->disk = CONFIG_NO_DISK;
	unit->nic = CONFIG_NO_NIC;
	if (frontend->unit_settings_size) {
		unit->settings = must(calloc(1, frontend->unit_settings_size));
		options_init(frontend->unit_options, unit->settings);
	}
	if (node->type == NODE_MAPPING && frontend->unit_options) {
		reading_options(mistakes, node, where, frontend->unit_options, unit->settings,
				others);
	} else if (node->type != NODE_SCALAR) {
		reading_wrong(mistakes, node, where, "found a %s; expected %s: the name of a disk",
			      node->type == NODE_MAPPING ? "mapping" : "list", frontend->name);
		return;
	}
	if (!disk && !frontend->empty_units)
		reading_wrong(mistakes, node, where,
			      "option 'disk' is missing; expected the name of one under 'disks'");
	if (!disk || !reading_must_be(mistakes, disk, where, NODE_SCALAR, "the name of a disk"))
		return;
	unit->disk = config_read_disk_name(mistakes, disk, where, frontend->name, config);
	if (unit->disk != CONFIG_NO_DISK)
		check_shared(mistakes, disk, where, config, unit);
}

static void read_units(struct mistakes *mistakes, const struct node *node, const char *where,
		       const struct config *config, struct config_device *device)
{
	const struct frontend *frontend = device->frontend;
	unsigned count = 0;

	if (node->type != NODE_SEQUENCE || frontend->units == 1) {
		device->units = must(calloc(1, sizeof *device->units));
		if (frontend->nic)
			read_nic(mistakes, node, where, config, device);
		else
			read_unit(mistakes, node, where, config, device);
		return;
	}
	device->units = must(calloc(node_count(node) + 1, sizeof *device->units));
	for (const struct node *item = node->first; item; item = item->next, count++)
		if (count < frontend->units)
			read_unit(mistakes, item, where, config, device);
	if (count > frontend->units)
		reading_wrong(mistakes, node, where, "%s: %u units; expected at most %u",
			      frontend->name, count, frontend->units);
	if (!count && !frontend->hot_plug)
		reading_wrong(mistakes, node, where,
			      "%s: the list is empty; expected a disk at least", frontend->name);
}

/* --- devices ----------------------------------------------------------------------- */

static void read_socket(struct mistakes *mistakes, const struct node *node, const char *where,
			const struct config *config, struct config_device *device)
{
	const struct node *socket = node_find(node, "socket");
	struct error err = { 0 };

	if (!socket)
		reading_wrong(mistakes, node, where, "option 'socket' is missing; expected a text");
	if (!socket || !reading_must_be(mistakes, socket, where, NODE_SCALAR, "a path"))
		return;
	if (options_set(config_device_options, device, "socket", socket->text, &err))
		reading_wrong(mistakes, socket, where, "%s", err.text);
	if (!device->socket)
		return;
	if (strlen(device->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		reading_wrong(mistakes, socket, where,
			      "socket: the path has %zu bytes; expected at most %zu, the most that "
			      "a UNIX socket can have",
			      strlen(device->socket),
			      sizeof((struct sockaddr_un *)0)->sun_path - 1);
	for (unsigned v = 0; v < config->vm_count; v++)
		for (unsigned d = 0; d < config->vms[v].count; d++) {
			const struct config_device *other = &config->vms[v].devices[d];

			if (other != device && other->socket &&
			    !strcmp(other->socket, device->socket))
				reading_wrong(mistakes, socket, where,
					      "socket: '%s' is that of another device already",
					      device->socket);
		}
}

/* The value in @node that says which kind of device it is, and that kind; NULL after a mistake. */
static const struct node *read_kind(struct mistakes *mistakes, const struct node *node,
				    const char *where, const struct frontend **kind)
{
	const struct node *units = NULL;
	struct suggestion nearest = { 0 };
	char known[300] = "";
	size_t n = 0;

	for (const struct node *item = node->first; item; item = item->next) {
		const struct frontend *frontend = frontend_find(item->key);

		if (frontend && units)
			reading_wrong(mistakes, item, where, "%s and %s: a device is of one kind",
				      units->key, item->key);
		if (frontend && !units) {
			units = item;
			*kind = frontend;
		}
	}
	if (units)
		return units;
	for (unsigned i = 0; frontend_registry[i] && n < sizeof known; i++)
		n += (size_t)snprintf(known + n, sizeof known - n, "%s'%s: %s'", n ? ", " : "",
				      frontend_registry[i]->name,
				      frontend_registry[i]->nic ? "NIC" : "DISK");
	if (node->first) {
		nearest = suggest_for(node->first->key);
		for (unsigned i = 0; frontend_registry[i]; i++)
			suggest_offer(&nearest, frontend_registry[i]->name);
	}
	reading_wrong(mistakes, node, where,
		      "the kind of the device is missing%s%s%s; expected one of: %s",
		      nearest.best ? " (did you mean '" : "", nearest.best ? nearest.best : "",
		      nearest.best ? "'?)" : "", known);
	return NULL;
}

static char *name_device(const struct config_vm *vm, const struct frontend *frontend)
{
	unsigned number = 0;
	char *name;

	for (unsigned i = 0; i + 1 < vm->count; i++)
		number += vm->devices[i].frontend == frontend;
	return asprintf(&name, "%s%u", frontend->name, number) < 0 ? must(NULL) : name;
}

/* Into the last device of the last VM; false if it is none. */
static bool read_device(struct mistakes *mistakes, const struct node *node, const char *where,
			const struct config *config)
{
	struct config_vm *vm = &config->vms[config->vm_count - 1];
	struct config_device *device = &vm->devices[vm->count - 1];
	const char *others[] = { NULL, "socket", NULL };
	const struct node *units;

	if (!reading_must_be(mistakes, node, where, NODE_MAPPING,
			     "a device such as {virtio-blk: DISK, socket: PATH}"))
		return false;
	units = read_kind(mistakes, node, where, &device->frontend);
	if (!units)
		return false;
	device->name = name_device(vm, device->frontend);
	device->settings = must(calloc(1, device->frontend->settings_size));
	options_init(device->frontend->options, device->settings);
	others[0] = device->frontend->name;
	reading_options(mistakes, node, where, device->frontend->options, device->settings, others);
	read_socket(mistakes, node, where, config, device);
	read_units(mistakes, units, where, config, device);
	check_settings(mistakes, node, where, device);
	return true;
}

/* --- VMs --------------------------------------------------------------------------- */

static void read_vm(struct mistakes *mistakes, const struct node *node, struct config *config)
{
	struct config_vm *vm = &config->vms[config->vm_count++];
	char where[120];

	snprintf(where, sizeof where, "VM '%s'", node->key);
	vm->name = must(strdup(node->key));
	config_check_name(mistakes, node, "vms");
	if (!reading_must_be(mistakes, node, where, NODE_SEQUENCE, "a list of its devices"))
		return;
	if (!node->first)
		reading_wrong(mistakes, node, where,
			      "the list is empty; expected a device at least");
	vm->devices = must(calloc(node_count(node) + 1, sizeof *vm->devices));
	for (const struct node *item = node->first; item; item = item->next) {
		/* It counts from the start, for it is looked at like those before it. */
		vm->count++;
		if (!read_device(mistakes, item, where, config))
			vm->count--;
	}
}

void config_read_vms(struct config *config, const struct node *vms, struct mistakes *mistakes)
{
	config->vms = must(calloc(node_count(vms) + 1, sizeof *config->vms));
	for (const struct node *node = vms->first; node; node = node->next)
		read_vm(mistakes, node, config);
}

static void release_device(struct config_device *device)
{
	for (unsigned i = 0; i < device->count; i++) {
		if (device->units[i].settings)
			options_release(device->frontend->unit_options, device->units[i].settings);
		free(device->units[i].settings);
	}
	options_release(device->frontend->options, device->settings);
	free(device->units);
	free(device->settings);
	free(device->socket);
	free(device->name);
}

void config_release_vms(struct config *config)
{
	for (unsigned i = 0; i < config->vm_count; i++) {
		struct config_vm *vm = &config->vms[i];

		for (unsigned d = 0; d < vm->count; d++)
			release_device(&vm->devices[d]);
		free(vm->devices);
		free(vm->name);
	}
	free(config->vms);
}
