/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - a random load on one queue, checked against a model of the disk
 *
 * Requests of all kinds go to random places of the load's own part of the disk, as many at once as
 * the queue has slots, never two in flight over the same sectors: so each read has one right
 * answer. After a discard a sector may read as zeroes or as before.
 */
#pragma once

#include "driver.h"

struct load {
	/* Set by the caller. */
	struct virtq *queue;
	uint64_t first; /* the load's part of the disk, in sectors */
	uint64_t sectors;
	uint32_t block;        /* requests are whole blocks of this many bytes */
	uint32_t max_bytes;    /* of a request */
	unsigned max_segments; /* of a request */
	bool odd;              /* cut requests at odd bytes */
	bool plain;            /* reads and writes only */
	uint64_t seed;         /* of all that is random; not 0 */

	/* The load's own. */
	uint8_t *model;  /* what the disk should hold */
	uint8_t *either; /* per sector: discarded, so zeroes are right too */
	uint64_t issued, completed;
	char error[200]; /* what was wrong first; empty: nothing */
};

/* The part must hold zeroes. -ENOMEM or 0. */
int load_open(struct load *load);
void load_close(struct load *load);

/* Puts new requests in all free slots, at most `max`; publishes them. How many. */
unsigned load_issue(struct load *load, unsigned max);
/* Waits for at least one completion, then checks all there are: how many, or -errno with
 * load->error. */
int load_collect(struct load *load, int timeout_ms);
/* Collects until nothing is in flight. */
int load_drain(struct load *load);
/* `requests` on each of `count` loads, side by side, and drains them: 0 or -errno. */
int load_run(struct load *loads, unsigned count, uint64_t requests);
/* Reads the whole part and compares. */
int load_verify(struct load *load);
/* A random number below `limit`. */
uint64_t load_random(struct load *load, uint64_t limit);
