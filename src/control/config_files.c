/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_files.c - what a configuration says of the file system, held against the file system
 *
 * By convention a layer's option `path` names what must exist, unless its `create` is true; of an
 * uplink its kind says which option does. What a disk can open without (a leg of a mirror), and
 * directories that may come, are warnings.
 */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/yaml.h"
#include "packet/uplink.h"
#include "util/must.h"

/* Where in a configuration a stack is. */
struct place {
	struct mistakes *mistakes;
	const char *disk;
	bool read_only;
	bool may_fail; /* in a leg that the layer above can do without */
};

static void check_path(struct place in, const struct node *layer)
{
	const struct node *path = node_find(layer, "path"), *create = node_find(layer, "create");
	int mode = in.read_only || layer_find(layer->key)->read_only ? R_OK : R_OK | W_OK;

	if (!path || (access(path->text, F_OK) && reading_true(create)) ||
	    !access(path->text, mode))
		return;
	if (in.may_fail)
		mistake_warning(in.mistakes, path->line,
				"disk '%s': stack: %s: path: '%s': %s: the disk opens without it",
				in.disk, layer->key, path->text, strerror(errno));
	else
		mistake(in.mistakes, path->line, "disk '%s': stack: %s: path: '%s': %s", in.disk,
			layer->key, path->text, strerror(errno));
}

static void check_stack(struct place in, const struct node *list);

static void check_legs(struct place in, const struct node *layer)
{
	const struct layer_ops *ops = layer_find(layer->key);
	const struct node *legs = layer->type == NODE_SEQUENCE ? layer
				  : ops->legs_option           ? node_find(layer, ops->legs_option)
							       : NULL;

	in.may_fail |= ops->legs_may_fail;
	if (legs && ops->legs_max == 1)
		check_stack(in, legs);
	for (const struct node *leg = legs && ops->legs_max > 1 ? legs->first : NULL; leg;
	     leg = leg->next)
		check_stack(in, leg);
}

/* @list may be one layer alone. */
static void check_stack(struct place in, const struct node *list)
{
	const struct node *item = list->type == NODE_SEQUENCE ? list->first : list;

	for (; item; item = list->type == NODE_SEQUENCE ? item->next : NULL) {
		if (item->type != NODE_MAPPING)
			continue;
		if (item->first->type == NODE_MAPPING)
			check_path(in, item->first);
		check_legs(in, item->first);
		in.read_only |= layer_find(item->first->key)->below_read_only;
	}
}

static void check_uplink(struct mistakes *mistakes, const struct node *uplink)
{
	for (unsigned i = 0; uplink_registry[i]; i++) {
		const struct uplink_ops *ops = uplink_registry[i];
		const struct node *kind = node_find(uplink, ops->name), *path = NULL;

		if (kind && kind->type == NODE_MAPPING && ops->file_option)
			path = node_find(kind, ops->file_option);
		if (path && access(path->text, R_OK))
			mistake(mistakes, path->line, "uplink '%s': %s: %s: '%s': %s", uplink->key,
				ops->name, path->key, path->text, strerror(errno));
	}
}

static void check_directory(struct mistakes *mistakes, const struct node *node)
{
	char *copy, *directory;

	if (!node)
		return;
	copy = must(strdup(node->text));
	directory = dirname(copy);
	if (access(directory, W_OK | X_OK))
		mistake_warning(mistakes, node->line, "%s: no socket can be made in '%s' now: %s",
				node->key, directory, strerror(errno));
	free(copy);
}

void config_check_files(const struct node *tree, struct mistakes *mistakes)
{
	const struct node *disks = node_find(tree, "disks"), *vms = node_find(tree, "vms"),
			  *nbd = node_find(tree, "nbd"), *uplinks = node_find(tree, "uplinks");

	for (const struct node *disk = disks ? disks->first : NULL; disk; disk = disk->next)
		check_stack(
			(struct place){ .mistakes = mistakes,
					.disk = disk->key,
					.read_only = reading_true(node_find(disk, "read-only")) },
			node_find(disk, "stack"));
	for (const struct node *uplink = uplinks ? uplinks->first : NULL; uplink;
	     uplink = uplink->next)
		check_uplink(mistakes, uplink);
	for (const struct node *vm = vms ? vms->first : NULL; vm; vm = vm->next)
		for (const struct node *device = vm->first; device; device = device->next)
			check_directory(mistakes, node_find(device, "socket"));
	for (const struct node *server = nbd ? nbd->first : NULL; server; server = server->next)
		check_directory(mistakes, node_find(server, "socket"));
	check_directory(mistakes, node_find(tree, "api"));
}
