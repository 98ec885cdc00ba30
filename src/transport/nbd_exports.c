/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_exports.c - which disks a server exports, what clients are told of them, and what it counts
 *
 * Nothing is kept of an export: disks come and go, and who may write to one depends on who has it
 * then, so both are looked up whenever somebody asks. Only the counters of connections that are
 * gone stay, with the disk's name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/nbd_private.h"
#include "util/error.h"

/* What connections that are gone have counted. */
struct past {
	struct list link;
	char *disk;
	struct queue_stats stats;
};

/* --- what is exported ------------------------------------------------------------------ */

static bool exports(const struct nbd_server *server, const char *disk)
{
	const struct nbd_config *config = server->config;

	for (unsigned i = 0; i < config->disk_count; i++)
		if (!strcmp(config->disks[i], disk))
			return true;
	return config->all;
}

struct disk *nbd_exports_find(const struct nbd_server *server, const char *name)
{
	const struct nbd_house *house = server->house;
	struct disk *disk, *only = NULL;

	if (*name)
		return exports(server, name) ? house->find(house->data, name) : NULL;
	for (unsigned i = 0; (disk = house->at(house->data, i)); i++) {
		if (!exports(server, disk->name))
			continue;
		if (only)
			return NULL;
		only = disk;
	}
	return only;
}

/* True if clients that come now may write; else @err, if it is wanted, says why not. */
static bool writable(const struct nbd_server *server, const struct disk *disk, struct error *err)
{
	const struct nbd_house *house = server->house;

	if (server->config->read_only || disk->config.read_only)
		return false;
	return house->may_write(house->data, disk, err);
}

void nbd_exports_describe(const struct nbd_server *server, const struct disk *disk,
			  struct nbd_offer *offer)
{
	struct error why = { 0 };
	bool writes = writable(server, disk, &why);
	uint32_t best = disk->limits.physical_block_size;
	char size[32];

	offer->name = disk->name;
	offer->size = atomic_load(&disk->size);
	snprintf(offer->description, sizeof offer->description, "penstock disk, %s%s%s",
		 format_size(offer->size, size, sizeof size), writes ? "" : ", read-only",
		 why.code ? " while a VM has it" : "");
	offer->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
		       NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN;
	if (writes)
		offer->flags |= NBD_FLAG_SEND_WRITE_ZEROES |
				(disk->limits.discard ? NBD_FLAG_SEND_TRIM : 0);
	else
		offer->flags |= NBD_FLAG_READ_ONLY;
	offer->minimum = disk->block_size;
	offer->preferred = best < 4096 ? 4096 : best > (1u << 20) ? 1u << 20 : best;
	offer->maximum = NBD_PAYLOAD_BYTES;
}

static bool book_find(const struct nbd_book *book, const char *name, struct nbd_offer *offer)
{
	struct nbd_server *server = container_of(book, struct nbd_server, book);
	struct disk *disk = nbd_exports_find(server, name);

	if (disk)
		nbd_exports_describe(server, disk, offer);
	return disk;
}

static bool book_at(const struct nbd_book *book, unsigned index, struct nbd_offer *offer)
{
	struct nbd_server *server = container_of(book, struct nbd_server, book);
	const struct nbd_house *house = server->house;
	struct disk *disk;

	for (unsigned i = 0; (disk = house->at(house->data, i)); i++)
		if (exports(server, disk->name) && !index--) {
			nbd_exports_describe(server, disk, offer);
			return true;
		}
	return false;
}

void nbd_exports_open(struct nbd_server *server)
{
	server->book = (struct nbd_book){ .find = book_find, .at = book_at };
	list_init(&server->pasts);
}

/* --- counters -------------------------------------------------------------------------- */

static void add_stats(struct queue_stats *to, const struct queue_stats *from)
{
	for (unsigned op = 0; op < IO_OPS; op++) {
		stats_add(&to->op[op].requests, stats_read(&from->op[op].requests));
		stats_add(&to->op[op].bytes, stats_read(&from->op[op].bytes));
		stats_add(&to->op[op].errors, stats_read(&from->op[op].errors));
		stats_add(&to->op[op].latency_ns, stats_read(&from->op[op].latency_ns));
		for (unsigned b = 0; b < STATS_BUCKETS; b++)
			stats_add(&to->op[op].latency[b], stats_read(&from->op[op].latency[b]));
	}
}

static struct past *past_of(const struct nbd_server *server, const char *disk)
{
	list_for_each (link, &server->pasts) {
		struct past *past = container_of(link, struct past, link);

		if (!strcmp(past->disk, disk))
			return past;
	}
	return NULL;
}

void nbd_exports_remember(struct nbd_server *server, const struct nbd_client *c)
{
	struct past *past = past_of(server, c->disk->name);

	if (!past) {
		past = calloc(1, sizeof *past);
		if (!past || !(past->disk = strdup(c->disk->name))) {
			free(past);
			return;
		}
		list_add(&server->pasts, &past->link);
	}
	add_stats(&past->stats, &c->stats);
}

unsigned nbd_server_clients(const struct nbd_server *server, const struct disk *disk, bool writers)
{
	unsigned n = 0;

	list_for_each (link, &server->clients) {
		const struct nbd_client *c = container_of(link, struct nbd_client, link);

		n += c->disk == disk && !(writers && c->terms.flags & NBD_FLAG_READ_ONLY);
	}
	return n;
}

void nbd_server_each(struct nbd_server *server,
		     void (*each)(void *data, const struct nbd_export *export), void *data)
{
	const struct nbd_house *house = server->house;
	struct disk *disk;

	for (unsigned i = 0; (disk = house->at(house->data, i)); i++) {
		struct nbd_export export = { .disk = disk->name };
		struct past *past = past_of(server, disk->name);

		if (!exports(server, disk->name))
			continue;
		export.read_only = !writable(server, disk, NULL);
		if (past)
			add_stats(&export.stats, &past->stats);
		list_for_each (link, &server->clients) {
			const struct nbd_client *c = container_of(link, struct nbd_client, link);

			if (c->disk != disk)
				continue;
			export.connections++;
			export.in_flight += stats_read(&c->stats.in_flight);
			add_stats(&export.stats, &c->stats);
		}
		each(data, &export);
	}
}

void nbd_exports_close(struct nbd_server *server)
{
	list_for_each (link, &server->pasts) {
		struct past *past = container_of(link, struct past, link);

		free(past->disk);
		free(past);
	}
}
