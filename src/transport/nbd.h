/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd.h - a server of the Network Block Device protocol: disks for tools and hosts
 *
 * One server listens at one place and exports some of the disks, each under its name. A client is
 * one connection; it haggles on the control thread, and is then served on one of the loops, with a
 * queue of its own onto the disk, as a guest is. See nbd_control.c. Control thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/stats.h"
#include "util/option.h"

struct disk;
struct error;
struct nbd_server;
struct transport_loops;

/** One server, as a user writes it; rows are nbd_options. Zero-initialise, then options_init(). */
struct nbd_config {
	char *socket;         /**< path; NULL: it listens at an address */
	char *listen;         /**< "127.0.0.1:10809"; NULL: it has a socket */
	bool read_only;       /**< clients cannot write */
	uint64_t connections; /**< at once, at most */
	uint64_t timeout;     /**< ns that haggling may take */
	char *certificates;   /**< directory; NULL: none */
	bool verify;          /**< clients must have a certificate, too */
	char *psk;            /**< file; NULL: none */
	char **disks;         /**< names of those that are exported; @all: unused */
	unsigned disk_count;
	bool all; /**< all disks are exported */
};

extern const struct option nbd_options[];

/**
 * Whether @listen is an address with a port, such as 127.0.0.1:10809 or [::1]:10809. 0, or -EINVAL
 * with @err. @public (may be NULL): whether others than this host may reach it.
 */
int nbd_check_listen(const char *listen, bool *public, struct error *err);

/** Whose disks are exported. */
struct nbd_house {
	/** The disk called @name, or NULL. */
	struct disk *(*find)(void *data, const char *name);
	/** The disk number @index, or NULL. */
	struct disk *(*at)(void *data, unsigned index);
	/** True if clients of a server that lets them may write to @disk; else @err says why not.
	 */
	bool (*may_write)(void *data, const struct disk *disk, struct error *err);
	void *data;
};

/** Listens. @config and @house must stay. NULL with @err. */
struct nbd_server *nbd_server_open(const struct nbd_config *config, const struct nbd_house *house,
				   const struct transport_loops *loops, struct error *err);

/**
 * Ends it: listens no more, lets what is in flight end, disconnects, then calls @done(@data) on the
 * control loop, from when on disks may be closed.
 */
void nbd_server_close(struct nbd_server *server, void (*done)(void *data), void *data);

/** Where it listens, for messages: "nbd /run/disks.sock". */
const char *nbd_server_label(const struct nbd_server *server);

/** How many clients have @disk; @writers: of those only that may write. */
unsigned nbd_server_clients(const struct nbd_server *server, const struct disk *disk, bool writers);

/** What there is to say of one exported disk. */
struct nbd_export {
	const char *disk;
	bool read_only;           /**< for clients that come now */
	unsigned connections;     /**< now */
	uint64_t in_flight;       /**< requests taken and not yet answered */
	struct queue_stats stats; /**< of all clients that there were */
};

/** Calls @each for every disk that is exported. */
void nbd_server_each(struct nbd_server *server,
		     void (*each)(void *data, const struct nbd_export *export), void *data);
