/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * serve.c - from the arguments of `penstock serve` to the tree that a file would give
 *
 * An option belongs to the disk, to the device or to the back-end, and the tables say to which;
 * their names are looked up in this order. One name is common: `size` is that of the disk, except
 * where the back-end has no size before it is told one (null:, memory:, an image that is created).
 */
#include "control/serve.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/yaml.h"
#include "frontend/frontend.h"
#include "util/must.h"
#include "util/suggest.h"

bool serve_by_name(const struct layer_ops *ops)
{
	return ops->backend && !options_find(ops->options, "path");
}

/* The back-end that "null:" or "memory:" names; NULL if @path is a path. */
static const struct layer_ops *backend_of(const char *path)
{
	size_t length = strlen(path);

	for (unsigned i = 0; length && layer_registry[i]; i++)
		if (serve_by_name(layer_registry[i]) && path[length - 1] == ':' &&
		    strlen(layer_registry[i]->name) == length - 1 &&
		    !strncmp(layer_registry[i]->name, path, length - 1))
			return layer_registry[i];
	return NULL;
}

const struct frontend *serve_frontend(void)
{
	return frontend_find("virtio-blk");
}

/* The tree under construction. */
struct serve {
	struct mistakes *mistakes;
	const struct layer_ops *ops;
	struct node *disk, *backend, *stack;
	struct node *device; /* NULL: there is no VM */
	bool made; /* the back-end is made by this command, and has the size that is told */
};

static void unknown(struct serve *serve, const char *name)
{
	const struct option *const tables[] = { disk_options, config_device_options,
						serve_frontend()->options, serve->ops->options };
	struct suggestion nearest = suggest_for(name);

	suggest_offer(&nearest, "stack");
	for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
		for (const struct option *row = tables[t]; row && row->name; row++)
			suggest_offer(&nearest, row->name);
	mistake(serve->mistakes, 0, "no option '%s'%s%s%s; see penstock serve --help", name,
		nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		nearest.best ? "'?" : "");
}

/* stack=a,b: from the top down. */
static void add_layers(struct serve *serve, char *names)
{
	char *rest, *name;

	for (name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
		node_add(serve->stack, NULL, node_new(NODE_SCALAR, name, 0));
}

static void add_option(struct serve *serve, const char *argument)
{
	char *name = must(strdup(argument)), *value = strchr(name, '=');
	struct node *owner;

	if (!value) {
		mistake(serve->mistakes, 0, "'%s' is not understood; expected option=value", name);
		free(name);
		return;
	}
	*value++ = 0;
	if (!strcmp(name, "size"))
		owner = serve->made ? serve->backend : serve->disk;
	else if (options_find(disk_options, name))
		owner = serve->disk;
	else if (options_find(config_device_options, name) ||
		 options_find(serve_frontend()->options, name))
		owner = serve->device;
	else
		owner = serve->backend;
	if (!strcmp(name, "stack"))
		add_layers(serve, value);
	else if (!owner)
		mistake(serve->mistakes, 0,
			"'%s' is an option of the VM's device, and there is no VM: --socket is missing",
			name);
	else if (owner == serve->backend && !options_find(serve->ops->options, name))
		unknown(serve, name);
	else if (node_find(owner, name))
		mistake(serve->mistakes, 0, "'%s' is given twice", name);
	else
		node_add(owner, name, node_new(NODE_SCALAR, value, 0));
	free(name);
}

/* True if one of the options is create=true. */
static bool creates(char *const *options, unsigned count)
{
	struct node value = { .type = NODE_SCALAR };

	while (count--) {
		value.text = options[count] + strlen("create=");
		if (!strncmp(options[count], "create=", strlen("create=")) && reading_true(&value))
			return true;
	}
	return false;
}

/* Clients cannot write to a disk that a VM has. */
static void add_export(struct node *tree, const char *socket, bool read_only)
{
	struct node *list = node_add(tree, "nbd", node_new(NODE_SEQUENCE, NULL, 0));
	struct node *server = node_add(list, NULL, node_new(NODE_MAPPING, NULL, 0));

	node_add(server, "socket", node_new(NODE_SCALAR, socket, 0));
	node_add(server, "read-only", node_new(NODE_SCALAR, read_only ? "true" : "false", 0));
}

static struct node *add_device(struct node *tree, const char *socket)
{
	struct node *vms = node_add(tree, "vms", node_new(NODE_MAPPING, NULL, 0));
	struct node *vm = node_add(vms, SERVE_VM, node_new(NODE_SEQUENCE, NULL, 0));
	struct node *device = node_add(vm, NULL, node_new(NODE_MAPPING, NULL, 0));

	node_add(device, serve_frontend()->name, node_new(NODE_SCALAR, SERVE_DISK, 0));
	if (socket)
		node_add(device, "socket", node_new(NODE_SCALAR, socket, 0));
	return device;
}

static bool has_socket(char *const *options, unsigned count)
{
	while (count--)
		if (!strncmp(options[count], "socket=", strlen("socket=")))
			return true;
	return false;
}

struct node *serve_tree(const char *path, const struct serve_at *at, char *const *options,
			unsigned count, struct mistakes *mistakes)
{
	bool vm = at->socket || !at->nbd_socket || has_socket(options, count);
	struct node *tree = node_new(NODE_MAPPING, NULL, 0);
	struct node *disks = node_add(tree, "disks", node_new(NODE_MAPPING, NULL, 0));
	struct serve serve = {
		.mistakes = mistakes,
		.ops = backend_of(path),
		.disk = node_add(disks, SERVE_DISK, node_new(NODE_MAPPING, NULL, 0)),
		.device = vm ? add_device(tree, at->socket) : NULL,
		.backend = node_new(NODE_MAPPING, NULL, 0),
		.stack = node_new(NODE_SEQUENCE, NULL, 0),
	};
	bool exists = true;

	serve.made = serve.ops || creates(options, count);
	if (!serve.ops) {
		serve.ops = layer_find("file");
		node_add(serve.backend, "path", node_new(NODE_SCALAR, path, 0));
		exists = !access(path, F_OK) || errno != ENOENT;
		if (!serve.made && !exists)
			mistake(mistakes, 0,
				"%s: no such image; to make a new one, add create=true size=SIZE, "
				"such as size=20G",
				path);
	}
	if (at->nbd_socket)
		add_export(tree, at->nbd_socket, vm);
	for (unsigned i = 0; i < count; i++)
		add_option(&serve, options[i]);
	if (!exists && node_find(serve.backend, "create") && !node_find(serve.backend, "size"))
		mistake(mistakes, 0, "%s: its size is missing; expected size=SIZE, such as size=4G",
			path);

	node_add(serve.disk, "stack", serve.stack);
	node_add(node_add(serve.stack, NULL, node_new(NODE_MAPPING, NULL, 0)), serve.ops->name,
		 serve.backend);
	if (!mistakes->fatal)
		return tree;
	node_free(tree);
	return NULL;
}
