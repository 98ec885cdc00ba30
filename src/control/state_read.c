/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state_read.c - the state file put in place of what the configuration says; see state.c
 *
 * It is done in the trees of texts that both are, before config_read() sees them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/stack_tree.h"
#include "control/state_private.h"
#include "control/yaml.h"
#include "frontend/frontend.h"
#include "packet/port.h"
#include "util/must.h"

static uint64_t hash_of(const struct node *node)
{
	json_t *json = must(json_tree_write(node));
	uint64_t hash = stack_tree_hash(json);

	json_decref(json);
	return hash;
}

struct origin *state_origin(const struct state *state, const char *vm, const char *name)
{
	for (unsigned i = 0; i < state->count; i++) {
		struct origin *origin = &state->origins[i];

		if (!strcmp(origin->name, name) && !origin->vm == !vm &&
		    (!vm || !strcmp(origin->vm, vm)))
			return origin;
	}
	return NULL;
}

static void add_origin(struct state *state, enum origin_kind kind, const char *vm, const char *name,
		       const struct node *node)
{
	state->origins = must(realloc(state->origins, (state->count + 1) * sizeof *state->origins));
	state->origins[state->count++] = (struct origin){ .kind = kind,
							  .vm = vm ? must(strdup(vm)) : NULL,
							  .name = must(strdup(name)),
							  .hash = hash_of(node) };
}

/* The value in @device that says which units it has: that of its kind. */
static struct node *units_of(const struct node *device)
{
	for (struct node *item = device->first; device->type == NODE_MAPPING && item;
	     item = item->next)
		if (item->key && frontend_find(item->key))
			return item;
	return NULL;
}

/* The units of the device of @vm that has this name, such as ide0. */
static struct node *find_units(const struct node *vm, const char *name)
{
	char found[100];

	for (const struct node *device = vm ? vm->first : NULL; device; device = device->next) {
		const struct node *units = units_of(device);
		unsigned number = 0;

		if (!units)
			continue;
		for (const struct node *before = vm->first; before != device;
		     before = before->next) {
			const struct node *other = units_of(before);

			number += other && !strcmp(other->key, units->key);
		}
		snprintf(found, sizeof found, "%s%u", units->key, number);
		if (!strcmp(found, name))
			return (struct node *)units;
	}
	return NULL;
}

static void add_devices(struct state *state, const struct node *vm)
{
	char name[100];

	for (unsigned i = 0; frontend_registry[i]; i++)
		for (unsigned number = 0;; number++) {
			const struct node *units;

			snprintf(name, sizeof name, "%s%u", frontend_registry[i]->name, number);
			units = find_units(vm, name);
			if (!units)
				break;
			add_origin(state, ORIGIN_DEVICE, vm->key, name, units);
		}
}

/* Values that do not stand in the configuration file have no line in it. */
static void forget_lines(struct node *node)
{
	for (; node; node = node->next) {
		node->line = 0;
		forget_lines(node->first);
	}
}

/* @node becomes what @value is, which is left empty. */
static void become(struct node *node, struct node *value)
{
	node_free(node->first);
	free(node->text);
	node->type = value->type;
	node->first = value->first;
	node->text = value->text;
	value->first = NULL;
	value->text = NULL;
	forget_lines(node->first);
}

static void take_out(struct node *parent, const struct node *child)
{
	struct node **link = &parent->first, *gone;

	while (*link != child)
		link = &(*link)->next;
	gone = *link;
	*link = gone->next;
	gone->next = NULL;
	node_free(gone);
}

static uint64_t configured(const struct node *entry)
{
	const struct node *hash = node_find(entry, "configured");

	return hash && hash->text ? strtoull(hash->text, NULL, 16) : 0;
}

/* A disk that went cannot be exported either. */
static void take_from_exports(const struct node *tree, const char *name)
{
	const struct node *servers = node_find(tree, "nbd");

	for (const struct node *server = servers ? servers->first : NULL; server;
	     server = server->next) {
		struct node *disks = node_find(server, "disks");

		for (struct node *disk = disks ? disks->first : NULL, *next; disk; disk = next) {
			next = disk->next;
			if (disk->text && !strcmp(disk->text, name))
				take_out(disks, disk);
		}
	}
}

/* One disk of the file. */
static void merge_disk(struct state *state, struct node *entry, struct node *tree,
		       struct mistakes *mistakes)
{
	struct node *disks = node_find(tree, "disks");
	struct node *node = node_find(disks, entry->key), *now = node_find(entry, "now");
	const struct node *removed = node_find(entry, "removed");
	struct origin *origin = state_origin(state, NULL, entry->key);
	bool known = node_find(entry, "configured") != NULL;

	if (!now == !reading_true(removed) || (now && now->type != NODE_MAPPING)) {
		mistake(mistakes, 0,
			"%s:%u: disk '%s': expected what it is in 'now', or 'removed: true'",
			state->path, entry->line, entry->key);
		return;
	}
	if (!node) {
		if (known && now)
			mistake_warning(mistakes, 0,
					"disk '%s' is not in the configuration any more: what %s "
					"says of it is dropped",
					entry->key, state->path);
		else if (!known && now && !disks)
			disks = node_add(tree, "disks", node_new(NODE_MAPPING, NULL, 0));
		if (!known && now)
			become(node_add(disks, entry->key, node_new(now->type, "", 0)), now);
		return;
	}
	if (now && hash_of(now) == origin->hash)
		return; /* the configuration has caught up */
	if (!known || configured(entry) != origin->hash) {
		mistake(mistakes, node->line,
			"disk '%s' was changed while penstock ran, as %s:%u says, and here since then: it "
			"is not clear where its data is; write here what is there, or take the disk "
			"out of there",
			entry->key, state->path, entry->line);
		return;
	}
	origin->replaced = true;
	mistake_warning(mistakes, node->line,
			"disk '%s' was %s while penstock ran: what %s:%u says counts", entry->key,
			now ? "changed" : "removed", state->path, entry->line);
	if (now) {
		become(node, now);
	} else {
		take_out(disks, node);
		take_from_exports(tree, entry->key);
	}
}

/* One device of the file. */
static void merge_device(struct state *state, struct node *entry, const struct node *vm,
			 struct mistakes *mistakes)
{
	struct node *units = find_units(vm, entry->key), *now = node_find(entry, "units");
	struct origin *origin = vm ? state_origin(state, vm->key, entry->key) : NULL;

	if (!now) {
		mistake(mistakes, 0, "%s:%u: %s: 'units' is missing", state->path, entry->line,
			entry->key);
		return;
	}
	if (units && origin && hash_of(now) == origin->hash)
		return;
	if (!units || !origin || configured(entry) != origin->hash) {
		mistake_warning(mistakes, units ? units->line : 0,
				"%s was changed here after it was changed while penstock ran: what "
				"%s:%u says of it is dropped",
				entry->key, state->path, entry->line);
		return;
	}
	origin->replaced = true;
	become(units, now);
}

/* True if @name is of a port whatever is plugged in: an option, or its layers. */
static bool is_of_port(const char *name)
{
	return options_find(port_options, name) || !strcmp(name, "layers");
}

/* Of what is below the name of a NIC or an uplink, what is the port's. */
static json_t *port_of(const struct node *node)
{
	json_t *json = must(json_tree_write(node)), *value;
	const char *name;
	void *next;

	json_object_foreach_safe(json, next, name, value)
	{
		if (!is_of_port(name))
			json_object_del(json, name);
	}
	return json;
}

/* What is the port's in @node becomes what @now is; what is the NIC's or the uplink's own stays. */
static void become_port(struct node *node, struct node *now)
{
	for (struct node *item = node->first, *next; item; item = next) {
		next = item->next;
		if (is_of_port(item->key))
			take_out(node, item);
	}
	for (struct node *item = now->first; item; item = item->next)
		if (is_of_port(item->key))
			become(node_add(node, item->key, node_new(item->type, "", 0)), item);
}

/* One port of the file. */
static void merge_port(struct state *state, struct node *entry, const struct node *tree,
		       struct mistakes *mistakes)
{
	struct node *nic = node_find(node_find(tree, "nics"), entry->key);
	struct node *node = nic ? nic : node_find(node_find(tree, "uplinks"), entry->key);
	struct node *now = node_find(entry, "now");
	struct origin *origin = state_origin(state, NULL, entry->key);
	json_t *said;
	bool same;

	if (!now || now->type != NODE_MAPPING) {
		mistake(mistakes, 0, "%s:%u: port '%s': expected what it is in 'now'", state->path,
			entry->line, entry->key);
		return;
	}
	if (!node || node->type != NODE_MAPPING || !origin || configured(entry) != origin->hash) {
		mistake_warning(mistakes, node ? node->line : 0,
				"port '%s' was changed here after it was changed while penstock "
				"ran: what %s:%u says of it is dropped",
				entry->key, state->path, entry->line);
		return;
	}
	said = port_of(node);
	same = stack_tree_hash(said) == hash_of(now);
	json_decref(said);
	if (same)
		return;
	origin->replaced = true;
	mistake_warning(mistakes, node->line,
			"port '%s' was changed while penstock ran: what %s:%u says counts",
			entry->key, state->path, entry->line);
	become_port(node, now);
}

static void merge(struct state *state, const struct node *file, struct node *tree,
		  struct mistakes *mistakes)
{
	struct node *vms = node_find(tree, "vms");
	const struct node *version = node_find(file, "version");
	struct node *kept = node_find(file, "disks");

	if (file->type != NODE_MAPPING || !version || !version->text ||
	    strcmp(version->text, "1")) {
		mistake(mistakes, 0,
			"%s: it is no state file of this penstock: 'version: 1' is not there",
			state->path);
		return;
	}
	for (struct node *disk = kept ? kept->first : NULL; disk; disk = disk->next)
		merge_disk(state, disk, tree, mistakes);
	kept = node_find(file, "vms");
	for (struct node *vm = kept ? kept->first : NULL; vm; vm = vm->next)
		for (struct node *device = vm->first; device; device = device->next)
			merge_device(state, device, node_find(vms, vm->key), mistakes);
	kept = node_find(file, "ports");
	for (struct node *port = kept ? kept->first : NULL; port; port = port->next)
		merge_port(state, port, tree, mistakes);
}

/* True if @name is a mapping in @tree, or not there. */
static bool is_section(const struct node *tree, const char *name)
{
	const struct node *node = node_find(tree, name);

	return !node || node->type == NODE_MAPPING;
}

static void add_origins(struct state *state, enum origin_kind kind, const struct node *section)
{
	for (struct node *node = section ? section->first : NULL; node; node = node->next)
		add_origin(state, kind, NULL, node->key, node);
}

struct state *state_read(const char *path, int lock, struct node *tree, struct mistakes *mistakes)
{
	struct node *vms = node_find(tree, "vms"), *file;
	struct mistakes own = { .file = path };
	struct state *state = must(calloc(1, sizeof *state));
	bool well = is_section(tree, "disks") && is_section(tree, "vms") &&
		    is_section(tree, "nics") && is_section(tree, "uplinks");

	state->path = must(strdup(path));
	state->lock = lock;
	list_init(&state->now);
	list_init(&state->next);
	/* What is no configuration is for config_read() to complain about. */
	if (well) {
		add_origins(state, ORIGIN_DISK, node_find(tree, "disks"));
		add_origins(state, ORIGIN_PORT, node_find(tree, "nics"));
		add_origins(state, ORIGIN_PORT, node_find(tree, "uplinks"));
	}
	for (struct node *vm = well && vms ? vms->first : NULL; vm; vm = vm->next)
		add_devices(state, vm);
	if (!well || (access(path, F_OK) && errno == ENOENT))
		return state;
	file = yaml_read(path, &own);
	for (unsigned i = 0; i < own.count; i++)
		mistake(mistakes, 0, "%s", own.texts[i]);
	mistakes_release(&own);
	if (file)
		merge(state, file, tree, mistakes);
	node_free(file);
	if (!mistakes->fatal)
		return state;
	state_free(state);
	return NULL;
}

void state_free(struct state *state)
{
	if (!state)
		return;
	for (unsigned i = 0; i < state->count; i++) {
		free(state->origins[i].vm);
		free(state->origins[i].name);
		json_decref(state->origins[i].last);
	}
	if (state->lock >= 0)
		close(state->lock);
	free(state->origins);
	free(state->path);
	free(state);
}
