/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * disks.c - disks that come and go while penstock runs
 *
 * Opening one may wait for storage or for a lock, so it is done by a thread of its own, as plain
 * code. Until then its name is taken. One that goes first ends the work of its layers' own.
 */
#include "control/disks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/background.h"
#include "control/config.h"
#include "control/daemon.h"
#include "control/exports.h"
#include "control/records.h"
#include "control/stack_tree.h"
#include "control/state.h"
#include "control/units.h"
#include "control/waiter.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "util/error.h"
#include "util/log.h"

/* --- a disk comes ---------------------------------------------------------------------- */

/* One that is being opened. */
struct opening {
	struct background background;
	struct list link; /* of the daemon */
	struct daemon *daemon;
	struct config_disk config;
	struct waiter *waiter;
	struct disk *disk;
	struct error err;
};

/* One that is being closed, and is none of the daemon's disks any more. */
struct closing {
	struct background background;
	struct list link; /* of the daemon */
	struct layer_stop stop;
	struct daemon *daemon;
	struct disk *disk;
	char *name;
	struct waiter *waiter;
};

/* False: no memory. */
static bool keep(struct daemon *d, struct disk *disk)
{
	struct disk **disks = realloc(d->disks, (d->disk_count + 1) * sizeof *disks);

	if (!disks)
		return false;
	d->disks = disks;
	if (!record_add(d, disk))
		return false;
	d->disks[d->disk_count++] = disk;
	daemon_start_disk(d, disk);
	return true;
}

static void opened(struct background *background)
{
	struct opening *o = container_of(background, struct opening, background);
	struct daemon *d = o->daemon;

	list_remove(&o->link);
	if (o->disk && !keep(d, o->disk)) {
		disk_close(o->disk);
		o->disk = NULL;
		error_set(&o->err, ENOMEM, "out of memory");
	}
	if (o->disk) {
		state_keep(d, &o->waiter);
	} else {
		error_prefix(&o->err, "disk '%s'", o->config.name);
		log_warn("%s", o->err.text);
		waiter_tell(&o->waiter, &o->err);
	}
	config_release_disk(&o->config);
	free(o);
	daemon_let_go(d);
}

static void open_it(struct background *background)
{
	struct opening *o = container_of(background, struct opening, background);

	o->disk = disk_open(o->config.name, &o->config.config, &o->config.stack, NULL, &o->err);
}

static bool being_opened(const struct daemon *daemon, const char *name)
{
	list_for_each (link, &daemon->openings)
		if (!strcmp(container_of(link, struct opening, link)->config.name, name))
			return true;
	return false;
}

static bool being_closed(const struct daemon *daemon, const char *name)
{
	list_for_each (link, &daemon->closings)
		if (!strcmp(container_of(link, struct closing, link)->name, name))
			return true;
	return false;
}

/* Disks and ports share one space of names. */
static bool is_port_name(const struct config *config, const char *name)
{
	for (unsigned i = 0; i < config->nic_count; i++)
		if (!strcmp(config->nics[i].name, name))
			return true;
	for (unsigned i = 0; i < config->uplink_count; i++)
		if (!strcmp(config->uplinks[i].name, name))
			return true;
	return false;
}

int disks_open(struct daemon *daemon, struct config_disk *config, struct waiter *waiter,
	       struct error *err)
{
	struct opening *o;
	int ret;

	if (daemon_disk(daemon, config->name))
		ret = error_set(err, EEXIST, "there is a disk '%s' already", config->name);
	else if (is_port_name(daemon->config, config->name))
		ret = error_set(err, EEXIST, "'%s' is the name of a port", config->name);
	else if (being_opened(daemon, config->name))
		ret = error_set(err, EEXIST, "disk '%s' is being opened already", config->name);
	else if (being_closed(daemon, config->name))
		ret = error_set(err, EBUSY, "disk '%s' is being closed still", config->name);
	else
		ret = 0;
	o = ret ? NULL : calloc(1, sizeof *o);
	if (!ret && !o)
		ret = error_set(err, ENOMEM, "out of memory");
	if (!ret) {
		o->daemon = daemon;
		o->config = *config;
		ret = background_start(&o->background, daemon->control, open_it, opened, err);
	}
	if (ret) {
		config_release_disk(config);
		free(o);
		return ret;
	}
	waiter_hold(&o->waiter, waiter);
	list_add(&daemon->openings, &o->link);
	daemon_hold(daemon);
	return 0;
}

/* --- and grows ----------------------------------------------------------------------------- */

int disks_resize(struct daemon *daemon, struct disk *disk, uint64_t size, struct waiter *waiter,
		 struct error *err)
{
	struct waiter *held;
	int ret = record_take(daemon, disk, "it is being resized", err);

	if (ret)
		return ret;
	ret = disk_resize(disk, size, err);
	record_done(daemon, disk);
	if (ret)
		return ret;
	if (stack_tree_follow(disk))
		log_warn("disk %s: out of memory: its configuration keeps the old size of its "
			 "back-end",
			 disk->name);
	waiter_hold(&held, waiter);
	state_keep(daemon, &held);
	return 0;
}

/* --- and goes: what its layers do of their own ends first, and it may wait for storage ------ */

static void closed(struct background *background)
{
	struct closing *c = container_of(background, struct closing, background);
	struct daemon *daemon = c->daemon;

	log_info("disk %s: closed", c->name);
	list_remove(&c->link);
	state_keep(daemon, &c->waiter);
	free(c->name);
	free(c);
	daemon_let_go(daemon);
}

static void close_it(struct background *background)
{
	disk_close(container_of(background, struct closing, background)->disk);
}

static void stopped(struct loop_message *message)
{
	struct closing *c = container_of(message, struct closing, stop.done);
	struct error err = { 0 };

	if (!background_start(&c->background, c->daemon->control, close_it, closed, &err))
		return;
	log_warn("disk %s: closing it holds up the control thread: %s", c->name, err.text);
	close_it(&c->background);
	closed(&c->background);
}

int disks_close(struct daemon *daemon, struct disk *disk, struct waiter *waiter, struct error *err)
{
	struct closing *c;
	unsigned i = 0;

	if (units_use(daemon, disk, err) || exports_use(daemon, disk, err) ||
	    record_take(daemon, disk, "it is being closed", err))
		return -err->code;
	c = calloc(1, sizeof *c);
	if (c) {
		*c = (struct closing){ .stop = { .loop = daemon->control, .done.run = stopped },
				       .daemon = daemon,
				       .disk = disk,
				       .name = strdup(disk->name) };
		if (!c->name || disk_stop(disk, &c->stop)) {
			free(c->name);
			free(c);
			c = NULL;
		}
	}
	if (!c) {
		record_done(daemon, disk);
		return error_set(err, ENOMEM, "out of memory");
	}
	while (daemon->disks[i] != disk)
		i++;
	memmove(&daemon->disks[i], &daemon->disks[i + 1],
		(--daemon->disk_count - i) * sizeof *daemon->disks);
	record_remove(daemon, disk);
	waiter_hold(&c->waiter, waiter);
	list_add(&daemon->closings, &c->link);
	daemon_hold(daemon);
	return 0;
}
