/* SPDX-License-Identifier: BSD-3-Clause */
/* config_nbd.c - reads the list under `nbd`: servers that export disks to NBD clients */
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "transport/nbd.h"
#include "util/error.h"
#include "util/must.h"

/* The VM that has the disk number @disk in a unit, or NULL. */
static const struct config_vm *vm_of(const struct config *config, unsigned disk)
{
	for (unsigned v = 0; v < config->vm_count; v++)
		for (unsigned d = 0; d < config->vms[v].count; d++)
			for (unsigned u = 0; u < config->vms[v].devices[d].count; u++)
				if (config->vms[v].devices[d].units[u].disk == disk)
					return &config->vms[v];
	return NULL;
}

static void check_writers(struct mistakes *mistakes, const struct node *node, const char *where,
			  const struct config *config, unsigned disk)
{
	const struct config_disk *of = &config->disks[disk];
	const struct config_vm *vm = vm_of(config, disk);

	if (vm && !of->config.shared && !of->config.read_only)
		reading_wrong(
			mistakes, node, where,
			"disks: disk '%s' is a device of VM '%s', so NBD clients may not write to "
			"it as well; expected read-only: true here, or shared: true of the disk",
			of->name, vm->name);
}

static void read_disks(struct mistakes *mistakes, const struct node *node, const char *where,
		       const struct config *config, struct nbd_config *nbd)
{
	const struct node *list = node_find(node, "disks");

	nbd->all = !list;
	if (!list || !reading_must_be(mistakes, list, where, NODE_SEQUENCE, "a list of disks"))
		return;
	if (!list->first)
		reading_wrong(mistakes, list, where,
			      "disks: the list is empty; without it all disks are exported");
	nbd->disks = must(calloc(node_count(list) + 1, sizeof *nbd->disks));
	for (const struct node *item = list->first; item; item = item->next) {
		unsigned disk;

		if (!reading_must_be(mistakes, item, where, NODE_SCALAR, "the name of a disk"))
			continue;
		disk = config_read_disk_name(mistakes, item, where, "disks", config);
		if (disk == CONFIG_NO_DISK)
			continue;
		nbd->disks[nbd->disk_count++] = must(strdup(config->disks[disk].name));
		if (!nbd->read_only)
			check_writers(mistakes, item, where, config, disk);
	}
}

static bool taken(const struct config *config, const struct nbd_config *nbd)
{
	for (unsigned v = 0; v < config->vm_count; v++)
		for (unsigned d = 0; d < config->vms[v].count; d++) {
			const char *socket = config->vms[v].devices[d].socket;

			if (socket && nbd->socket && !strcmp(socket, nbd->socket))
				return true;
		}
	for (const struct nbd_config *other = config->nbds; other != nbd; other++)
		if ((other->socket && nbd->socket && !strcmp(other->socket, nbd->socket)) ||
		    (other->listen && nbd->listen && !strcmp(other->listen, nbd->listen)))
			return true;
	return config->api && nbd->socket && !strcmp(config->api, nbd->socket);
}

static void check_place(struct mistakes *mistakes, const struct node *node, const char *where,
			const struct config *config, const struct nbd_config *nbd)
{
	const size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
	struct error err = { 0 };
	bool public;

	if (!nbd->socket == !nbd->listen)
		reading_wrong(mistakes, node, where,
			      "expected one of the options 'socket' and 'listen'");
	if (nbd->socket && strlen(nbd->socket) > most)
		reading_wrong(mistakes, node_find(node, "socket"), where,
			      "socket: the path has %zu bytes; expected at most %zu, the most that "
			      "a UNIX socket can have",
			      strlen(nbd->socket), most);
	if (nbd->listen && nbd_check_listen(nbd->listen, &public, &err))
		reading_wrong(mistakes, node_find(node, "listen"), where, "%s", err.text);
	if (taken(config, nbd))
		reading_wrong(mistakes, node, where, "'%s' is taken already",
			      nbd->socket ? nbd->socket : nbd->listen);
	if (nbd->certificates && nbd->psk)
		reading_wrong(mistakes, node_find(node, "tls-psk"), where,
			      "expected one of the options 'tls-certificates' and 'tls-psk'");
}

void config_read_nbd(struct config *config, const struct node *list, struct mistakes *mistakes)
{
	static const char *const others[] = { "disks", NULL };

	if (!reading_must_be(mistakes, list, "nbd", NODE_SEQUENCE,
			     "a list of servers such as '- socket: PATH'"))
		return;
	config->nbds = must(calloc(node_count(list) + 1, sizeof *config->nbds));
	for (const struct node *node = list->first; node; node = node->next) {
		struct nbd_config *nbd = &config->nbds[config->nbd_count];

		if (!reading_must_be(mistakes, node, "nbd", NODE_MAPPING,
				     "a server such as {socket: PATH}"))
			continue;
		config->nbd_count++;
		options_init(nbd_options, nbd);
		reading_options(mistakes, node, "nbd", nbd_options, nbd, others);
		check_place(mistakes, node, "nbd", config, nbd);
		read_disks(mistakes, node, "nbd", config, nbd);
	}
}

void config_release_nbd(struct config *config)
{
	for (unsigned i = 0; i < config->nbd_count; i++) {
		struct nbd_config *nbd = &config->nbds[i];

		for (unsigned d = 0; d < nbd->disk_count; d++)
			free(nbd->disks[d]);
		free(nbd->disks);
		options_release(nbd_options, nbd);
	}
	free(config->nbds);
}
