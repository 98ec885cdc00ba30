/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.c - from a tree of texts to what a user wants served
 *
 * The tree comes from a YAML file or, for `penstock serve`, from its arguments; then its
 * values have no lines and messages name the option only. All values go through the tables of
 * options of whatever they are for. Reading goes on after a mistake, so that a user hears of all
 * of them at once; nothing is opened here.
 */
#include "control/config.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/state.h"
#include "control/yaml.h"
#include "util/error.h"
#include "util/log.h"
#include "util/must.h"
#include "util/suggest.h"

#define NAME_LENGTH 64

static const char *const engines[] = { "auto", "uring", "threads", NULL };
static const char *const log_levels[] = { "error", "warn", "info", "debug", NULL };

const struct option config_options[] = {
	{ .name = "loops",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct config, loops),
	  .max = 256,
	  .fallback = "0",
	  .help = "How many threads serve queues. 0 means one for each core that may be used." },
	{ .name = "cpus",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, cpus),
	  .help = "Cores that the loops stay on, such as 1 or 0-3 or 0,2,4-7; one loop for each, if "
		  "loops is not given." },
	{ .name = "engine",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, engine),
	  .choices = engines,
	  .fallback = "auto",
	  .help = "How the kernel is asked for reads and writes: with io_uring, or by threads with "
		  "preadv and pwritev. auto takes io_uring where it is permitted." },
	{ .name = "poll",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct config, poll),
	  .max = 1000000,
	  .fallback = "100",
	  .help = "Longest time, in microseconds, that a loop looks out for a guest's next request "
		  "before it sleeps until the guest notifies it. It adapts below this limit; 0 "
		  "means that it never polls." },
	{ .name = "api",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, api),
	  .help = "Path of the UNIX socket of the control API. Without it there is none." },
	{ .name = "state",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, state),
	  .help = "Path of a file that keeps what is changed at run time: disks that were added, removed, "
		  "resized or moved, other layers, other units of devices. A restart, or a start after a "
		  "crash, comes back to that. The directory must be writable. An entry counts as "
		  "long as the configuration says of its disk what it said before; if it was edited since, "
		  "penstock does not start until the two are the same or the entry is taken "
		  "out. Without this option a restart comes back to the configuration." },
	{ .name = "log-level",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, log_level),
	  .choices = log_levels,
	  .fallback = "info",
	  .help = "The least important messages that are still logged." },
	{ 0 },
};

const struct option config_device_options[] = {
	{ .name = "socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config_device, socket),
	  .required = true,
	  .help = "Path of the UNIX socket that the VMM connects to." },
	{ 0 },
};

const char config_embedded[] = "api: ./penstock-api.sock\n"
			       "disks:\n"
			       "  demo:\n"
			       "    stack:\n"
			       "      - file: {path: ./penstock-demo.img, size: 1G, create: true}\n"
			       "vms:\n"
			       "  demo:\n"
			       "    - {virtio-blk: demo, socket: ./penstock-demo.sock}\n";

/* --- small checks ------------------------------------------------------------------- */

/* Names are part of paths of the API, of labels of metrics, and of options of QEMU. */
void config_check_name(struct mistakes *mistakes, const struct node *node, const char *where)
{
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	size_t length = strlen(node->key);

	if (!length || length > NAME_LENGTH || strspn(node->key, LETTERS) == 0 ||
	    strspn(node->key, LETTERS "._-") != length)
		reading_wrong(mistakes, node, where,
			      "'%s' cannot be a name; expected at most %d letters, digits, '.', "
			      "'_' or '-', beginning with a letter or digit",
			      node->key, NAME_LENGTH);
#undef LETTERS
}

unsigned config_cpus(const char *list, unsigned cpus[CONFIG_CPUS])
{
	unsigned count = 0;

	for (;;) {
		unsigned long first, last;
		char *end;

		if (*list < '0' || *list > '9')
			return 0;
		first = last = strtoul(list, &end, 10);
		if (*end == '-') {
			list = end + 1;
			if (*list < '0' || *list > '9')
				return 0;
			last = strtoul(list, &end, 10);
		}
		if (last >= CONFIG_CPUS || first > last || count + last - first >= CONFIG_CPUS)
			return 0;
		while (first <= last)
			cpus[count++] = (unsigned)first++;
		if (!*end)
			return count;
		if (*end != ',')
			return 0;
		list = end + 1;
	}
}

/* --- disks -------------------------------------------------------------------------- */

static void unknown_layer(struct mistakes *mistakes, const struct node *node, const char *where,
			  const char *name)
{
	struct suggestion nearest = suggest_for(name);
	char known[400] = "";
	size_t n = 0;

	for (unsigned i = 0; layer_registry[i] && n < sizeof known; i++) {
		suggest_offer(&nearest, layer_registry[i]->name);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      layer_registry[i]->name);
	}
	reading_wrong(mistakes, node, where,
		      "no layer or back-end '%s'%s%s%s (expected one of: %s)", name,
		      nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		      nearest.best ? "'?" : "", known);
}

/* Keeps the options of a layer as texts, for when it is opened, after a trial on a scratch object.
 */
static void read_layer_options(struct mistakes *mistakes, const struct node *mapping,
			       const char *where, struct layer_config *layer)
{
	const char *others[] = { layer->ops->legs_option, NULL };
	struct layer_setting *setting;
	void *scratch = calloc(1, layer->ops->size);

	layer->settings = calloc(node_count(mapping) + 1, sizeof *layer->settings);
	if (!scratch || !layer->settings) {
		free(scratch);
		mistake_no_memory(mistakes);
		return;
	}
	options_init(layer->ops->options, scratch);
	reading_options(mistakes, mapping, where, layer->ops->options, scratch, others);
	options_release(layer->ops->options, scratch);
	free(scratch);
	for (const struct node *node = mapping->first; node; node = node->next) {
		if (node->type != NODE_SCALAR ||
		    (others[0] && !strcmp(node->key, layer->ops->legs_option)))
			continue;
		setting = &layer->settings[layer->count++];
		*setting = (struct layer_setting){ .name = strdup(node->key),
						   .value = strdup(node->text),
						   .line = node->line };
		if (!setting->name || !setting->value)
			mistake_no_memory(mistakes);
	}
}

static void read_stack(struct mistakes *mistakes, const struct node *list, const char *where,
		       struct stack_config *stack);

/* One leg: a list of layers, or one layer alone. */
static void read_leg(struct mistakes *mistakes, const struct node *node, const char *where,
		     struct layer_config *layer)
{
	struct node alone = { .type = NODE_SEQUENCE, .line = node->line };
	struct node only = *node;

	only.next = NULL;
	alone.first = &only;
	read_stack(mistakes, node->type == NODE_SEQUENCE ? node : &alone, where,
		   &layer->legs[layer->leg_count++]);
}

static void read_legs(struct mistakes *mistakes, const struct node *node, const char *where,
		      struct layer_config *layer)
{
	const struct layer_ops *ops = layer->ops;
	unsigned count = ops->legs_max == 1            ? 1
			 : node->type == NODE_SEQUENCE ? node_count(node)
						       : 0;
	const struct node *leg = ops->legs_max == 1 ? node : node->first;
	char below[260];

	if (ops->legs_max > 1 && !reading_must_be(mistakes, node, where, NODE_SEQUENCE,
						  "a list of layers, or of lists of them"))
		return;
	if (count < ops->legs_min || count > ops->legs_max) {
		reading_wrong(mistakes, node, where, "%s: found %u; expected %u to %u",
			      ops->legs_option, count, ops->legs_min, ops->legs_max);
		return;
	}
	layer->legs = calloc(count + 1, sizeof *layer->legs);
	if (!layer->legs) {
		mistake_no_memory(mistakes);
		return;
	}
	for (unsigned i = 0; i < count; i++, leg = leg->next) {
		if (ops->legs_max > 1)
			snprintf(below, sizeof below, "%s: %s %u", where, ops->legs_option, i);
		else
			snprintf(below, sizeof below, "%s: %s", where, ops->legs_option);
		read_leg(mistakes, leg, below, layer);
	}
}

/* What a layer is made of: its options and legs in a mapping, or a list of its legs alone. */
static void read_contents(struct mistakes *mistakes, const struct node *contents, const char *where,
			  struct layer_config *layer)
{
	const struct layer_ops *ops = layer->ops;
	const struct node *legs = ops->legs_option ? node_find(contents, ops->legs_option) : NULL;

	if (ops->legs_max > 1 && contents->type == NODE_SEQUENCE) {
		struct node none = { .type = NODE_MAPPING, .line = contents->line };

		read_layer_options(mistakes, &none, where, layer);
		read_legs(mistakes, contents, where, layer);
		return;
	}
	if (!reading_must_be(mistakes, contents, where, NODE_MAPPING,
			     "options such as {name: value}"))
		return;
	read_layer_options(mistakes, contents, where, layer);
	if (legs)
		read_legs(mistakes, legs, where, layer);
	else if (ops->legs_min)
		reading_wrong(mistakes, contents, where, "option '%s' is missing; expected %s",
			      ops->legs_option,
			      ops->legs_max == 1 ? "a stack, such as {file: {path: ...}}"
						 : "a list of stacks");
}

/* One step of a stack: a name alone, or a name with what it is made of. */
static void read_layer(struct mistakes *mistakes, const struct node *node, const char *where,
		       struct layer_config *layer)
{
	struct node bare = { .type = NODE_MAPPING, .line = node->line };
	const struct node *contents = &bare;
	const char *name;
	char below[260];

	if (node->type == NODE_SCALAR) {
		name = node->text;
	} else if (node->type == NODE_MAPPING && node_count(node) == 1) {
		name = node->first->key;
		if (node->first->type != NODE_SCALAR || *node->first->text) /* else "- pass:" */
			contents = node->first;
	} else {
		reading_wrong(mistakes, node, where,
			      "expected one layer such as '- pass' or '- file: {path: ...}'");
		return;
	}
	layer->ops = layer_find(name);
	if (!layer->ops || layer->ops->internal) {
		layer->ops = NULL;
		unknown_layer(mistakes, node, where, name);
		return;
	}
	snprintf(below, sizeof below, "%s: %s", where, name);
	read_contents(mistakes, contents, below, layer);
}

static void read_stack(struct mistakes *mistakes, const struct node *list, const char *where,
		       struct stack_config *stack)
{
	const struct node *node;

	if (!reading_must_be(mistakes, list, where, NODE_SEQUENCE,
			     "a list of layers, the back-end last"))
		return;
	stack->layers = calloc(node_count(list) + 1, sizeof *stack->layers);
	if (!stack->layers) {
		mistake_no_memory(mistakes);
		return;
	}
	for (node = list->first; node; node = node->next) {
		struct layer_config *layer = &stack->layers[stack->count];

		read_layer(mistakes, node, where, layer);
		if (!layer->ops)
			continue;
		stack->count++;
		if (layer->ops->backend && node->next)
			reading_wrong(mistakes, node, where,
				      "%s %s, so nothing can be below it; it must come last",
				      layer->ops->name,
				      layer->ops->legs_option ? "has legs" : "is a back-end");
		if (!layer->ops->backend && !node->next)
			reading_wrong(mistakes, node, where,
				      "%s is not a back-end; expected one, such as file, at the "
				      "end of the stack",
				      layer->ops->name);
	}
	if (!list->first)
		reading_wrong(mistakes, list, where,
			      "the list is empty; expected a back-end at least");
}

bool config_read_stack(struct stack_config *stack, const struct node *list,
		       struct mistakes *mistakes)
{
	read_stack(mistakes, list, "stack", stack);
	return !mistakes->fatal;
}

static void read_disk(struct mistakes *mistakes, const struct node *node, struct config_disk *disk)
{
	static const char *const others[] = { "stack", NULL };
	const struct node *stack = node_find(node, "stack"), *size = node_find(node, "size");
	uint32_t block_size;
	char where[120], below[140];

	snprintf(where, sizeof where, "disk '%s'", node->key);
	options_init(disk_options, &disk->config);
	disk->name = strdup(node->key);
	if (!disk->name) {
		mistake_no_memory(mistakes);
		return;
	}
	config_check_name(mistakes, node, "disks");
	if (!reading_must_be(mistakes, node, where, NODE_MAPPING, "its options and its stack"))
		return;
	reading_options(mistakes, node, where, disk_options, &disk->config, others);
	if (!stack) {
		reading_wrong(
			mistakes, node, where,
			"option 'stack' is missing; expected a list of layers, the back-end last");
		return;
	}
	snprintf(below, sizeof below, "%s: stack", where);
	read_stack(mistakes, stack, below, &disk->stack);
	if (!disk->stack.count || mistakes->fatal)
		return;
	disk->config.read_only |= stack_read_only(&disk->stack);
	block_size = disk_block_size(&disk->config, &disk->stack);
	if (size && disk->config.size % block_size)
		reading_wrong(mistakes, size, where,
			      "size: '%s' is not a multiple of the block size, %u", size->text,
			      block_size);
}

bool config_read_disk(struct config_disk *disk, const struct node *node, struct mistakes *mistakes)
{
	read_disk(mistakes, node, disk);
	return !mistakes->fatal;
}

/* --- VMs ---------------------------------------------------------------------------- */

unsigned config_read_disk_name(struct mistakes *mistakes, const struct node *node,
			       const char *where, const char *kind, const struct config *config)
{
	struct suggestion nearest;

	nearest = suggest_for(node->text);
	for (unsigned i = 0; i < config->disk_count; i++) {
		if (!strcmp(config->disks[i].name, node->text))
			return i;
		suggest_offer(&nearest, config->disks[i].name);
	}
	reading_wrong(mistakes, node, where,
		      "%s: no disk '%s'%s%s%s; expected the name of one under 'disks'", kind,
		      node->text, nearest.best ? " (did you mean '" : "",
		      nearest.best ? nearest.best : "", nearest.best ? "'?)" : "");
	return CONFIG_NO_DISK;
}

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

/* --- the whole ---------------------------------------------------------------------- */

void config_init(struct config *config)
{
	options_init(config_options, config);
}

static const struct node *section(struct mistakes *mistakes, const struct node *tree,
				  const char *name, const char *expected)
{
	const struct node *node = node_find(tree, name);

	if (!node)
		reading_wrong(mistakes, tree, "", "'%s' is missing; expected %s", name, expected);
	else if (reading_must_be(mistakes, node, name, NODE_MAPPING, expected))
		return node;
	return NULL;
}

/* True if @tree has one of the sections that make up networks. */
static bool has_network(const struct node *tree)
{
	return node_find(tree, "switches") || node_find(tree, "nics") || node_find(tree, "uplinks");
}

static void read_disks(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	const struct node *disks;

	if (!node_find(tree, "disks") && has_network(tree))
		return;
	disks = section(mistakes, tree, "disks", "a name with options for each disk");
	if (!disks)
		return;
	config->disks = must(calloc(node_count(disks) + 1, sizeof *config->disks));
	for (const struct node *node = disks->first; node; node = node->next)
		read_disk(mistakes, node, &config->disks[config->disk_count++]);
}

static void read_vms(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	const struct node *vms;

	if (!node_find(tree, "vms") && (node_find(tree, "nbd") || node_find(tree, "uplinks")))
		return;
	vms = section(mistakes, tree, "vms",
		      "a name with a list of devices for each VM, or 'nbd' or 'uplinks' instead");
	if (!vms)
		return;
	config->vms = must(calloc(node_count(vms) + 1, sizeof *config->vms));
	for (const struct node *node = vms->first; node; node = node->next)
		read_vm(mistakes, node, config);
}

bool config_read(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	static const char *const others[] = { "disks", "vms",     "nbd", "switches",
					      "nics",  "uplinks", NULL };
	unsigned cpus[CONFIG_CPUS];

	if (!reading_must_be(mistakes, tree, "", NODE_MAPPING,
			     "'disks:' or 'switches:', and 'vms:' or 'nbd:' at least"))
		return false;
	reading_options(mistakes, tree, "", config_options, config, others);
	if (config->cpus && !config_cpus(config->cpus, cpus))
		reading_wrong(
			mistakes, node_find(tree, "cpus"), "",
			"cpus: '%s' is not understood; expected cores such as 1, 0-3 or 0,2,4-7",
			config->cpus);
	read_disks(config, tree, mistakes);
	config_read_net(config, tree, mistakes);
	read_vms(config, tree, mistakes);
	config_check_net(config, tree, mistakes);
	if (node_find(tree, "nbd"))
		config_read_nbd(config, node_find(tree, "nbd"), mistakes);
	return !mistakes->fatal;
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

void config_release_disk(struct config_disk *disk)
{
	stack_config_release(&disk->stack);
	free(disk->name);
	options_release(disk_options, &disk->config);
}

void config_release(struct config *config)
{
	for (unsigned i = 0; i < config->disk_count; i++)
		config_release_disk(&config->disks[i]);
	free(config->disks);
	for (unsigned i = 0; i < config->vm_count; i++) {
		struct config_vm *vm = &config->vms[i];

		for (unsigned d = 0; d < vm->count; d++)
			release_device(&vm->devices[d]);
		free(vm->devices);
		free(vm->name);
	}
	free(config->vms);
	config_release_net(config);
	config_release_nbd(config);
	state_free(config->kept);
	options_release(config_options, config);
	*config = (struct config){ 0 };
}
