/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exports.c - disks that are exported to NBD clients
 *
 * The servers are those of the configuration (transport/nbd.h). They ask here which disks there
 * are, as they come and go while penstock runs, and whether a client may write to one: a disk that
 * a VM has belongs to its guest, which does not know of others that write, unless it is shared. The
 * same holds the other way round: while a client may write to a disk no unit gets it.
 *
 * A disk whose layers must be on one loop is not exported, since clients may be on any.
 */
#include "control/exports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/report.h"
#include "control/units.h"
#include "layer/disk.h"
#include "transport/nbd.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/must.h"

struct exports {
	struct nbd_house house;
	unsigned count;
	struct nbd_server *servers[];
};

/* --- what the servers ask ---------------------------------------------------------------- */

static struct disk *find(void *data, const char *name)
{
	struct disk *disk = daemon_disk(data, name);

	return disk && !stack_single_loop(disk->top) ? disk : NULL;
}

static struct disk *at(void *data, unsigned index)
{
	const struct daemon *daemon = data;

	for (unsigned i = 0; i < daemon->disk_count; i++)
		if (!stack_single_loop(daemon->disks[i]->top) && !index--)
			return daemon->disks[i];
	return NULL;
}

static bool may_write(void *data, const struct disk *disk, struct error *err)
{
	return disk->config.shared || !units_use(data, disk, err);
}

/* --- their life --------------------------------------------------------------------------- */

int exports_open(struct daemon *daemon, struct error *err)
{
	const struct config *config = daemon->config;
	const struct transport_loops loops = { .control = daemon->control,
					       .loops = daemon->loops,
					       .count = daemon->loop_count };
	struct exports *exports;

	if (!config->nbd_count)
		return 0;
	exports = must(calloc(1, sizeof *exports + config->nbd_count * sizeof *exports->servers));
	exports->house = (struct nbd_house){ find, at, may_write, daemon };
	daemon->exports = exports;
	for (unsigned i = 0; i < config->nbd_count; i++) {
		exports->servers[i] =
			nbd_server_open(&config->nbds[i], &exports->house, &loops, err);
		if (!exports->servers[i])
			return error_prefix(err, "nbd");
		exports->count++;
		daemon_hold(daemon);
	}
	return 0;
}

static void closed(void *data)
{
	daemon_let_go(data);
}

void exports_close(struct daemon *daemon)
{
	struct exports *exports = daemon->exports;

	daemon->exports = NULL;
	for (unsigned i = 0; exports && i < exports->count; i++)
		nbd_server_close(exports->servers[i], closed, daemon);
	free(exports);
}

/* --- who has what --------------------------------------------------------------------------- */

static int in_use(const struct daemon *daemon, const struct disk *disk, bool writers,
		  const char *what, struct error *err)
{
	for (unsigned i = 0; daemon->exports && i < daemon->exports->count; i++) {
		const struct nbd_server *server = daemon->exports->servers[i];
		unsigned clients = nbd_server_clients(server, disk, writers);

		if (clients)
			return error_set(err, EBUSY, "disk '%s' is in use: %s: %u client%s%s",
					 disk->name, nbd_server_label(server), clients,
					 clients == 1 ? "" : "s", what);
	}
	return 0;
}

bool exports_use(const struct daemon *daemon, const struct disk *disk, struct error *err)
{
	return in_use(daemon, disk, false, "", err) != 0;
}

int exports_check_unit(const struct daemon *daemon, const struct disk *disk, struct error *err)
{
	if (disk->config.shared)
		return 0;
	return in_use(daemon, disk, true, " may write to it", err);
}

/* --- reports --------------------------------------------------------------------------------- */

struct walk {
	void (*each)(void *data, const char *server, const struct nbd_export *export);
	void *data;
	const char *server;
};

static void visit(void *data, const struct nbd_export *export)
{
	struct walk *walk = data;

	walk->each(walk->data, walk->server, export);
}

void exports_each(const struct daemon *daemon,
		  void (*each)(void *data, const char *server, const struct nbd_export *export),
		  void *data)
{
	for (unsigned i = 0; daemon->exports && i < daemon->exports->count; i++) {
		const struct nbd_config *config = &daemon->config->nbds[i];
		struct walk walk = { each, data, config->socket ? config->socket : config->listen };

		nbd_server_each(daemon->exports->servers[i], visit, &walk);
	}
}

static void add_export(void *data, const struct nbd_export *export)
{
	json_array_append_new(data, json_pack("{s:s, s:b, s:i, s:I, s:o}", "disk", export->disk,
					      "read-only", export->read_only, "connections",
					      (int)export->connections, "in-flight",
					      (json_int_t) export->in_flight, "requests",
					      report_stats(&export->stats)));
}

json_t *exports_report(const struct daemon *daemon)
{
	json_t *json = json_array();

	for (unsigned i = 0; daemon->exports && i < daemon->exports->count; i++) {
		json_t *server = report_options(nbd_options, &daemon->config->nbds[i]);
		json_t *disks = json_array();

		nbd_server_each(daemon->exports->servers[i], add_export, disks);
		json_object_set_new(server, "disks", disks);
		json_array_append_new(json, server);
	}
	return json;
}
