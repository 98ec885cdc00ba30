/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * disks.c - disks that come and go while penstock runs
 *
 * Opening one may wait for storage or for a lock, so it is done by a thread of its own, as plain
 * code, which ends with a message to the control loop. Until then its name is taken.
 */
#include "control/disks.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/units.h"
#include "control/waiter.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "util/error.h"
#include "util/log.h"

/* One that is being opened. */
struct opening {
	struct list link; /* of the daemon */
	struct daemon *daemon;
	struct config_disk config;
	struct waiter *waiter;
	pthread_t thread;
	struct loop_message opened;
	struct disk *disk;
	struct error err;
};

/* False: no memory. */
static bool keep(struct daemon *d, struct disk *disk)
{
	struct disk **disks = realloc(d->disks, (d->disk_count + 1) * sizeof *disks);

	if (!disks)
		return false;
	d->disks = disks;
	d->disks[d->disk_count++] = disk;
	return true;
}

static void opened(struct loop_message *message)
{
	struct opening *o = container_of(message, struct opening, opened);
	struct daemon *d = o->daemon;

	pthread_join(o->thread, NULL);
	list_remove(&o->link);
	if (o->disk && !keep(d, o->disk)) {
		disk_close(o->disk);
		o->disk = NULL;
		error_set(&o->err, ENOMEM, "out of memory");
	}
	if (!o->disk) {
		error_prefix(&o->err, "disk '%s'", o->config.name);
		log_warn("%s", o->err.text);
	}
	waiter_tell(&o->waiter, &o->err);
	config_release_disk(&o->config);
	free(o);
	daemon_let_go(d);
}

static void *open_it(void *data)
{
	struct opening *o = data;

	o->disk = disk_open(o->config.name, &o->config.config, o->config.layers, o->config.count,
			    NULL, &o->err);
	loop_send(o->daemon->control, &o->opened);
	return NULL;
}

static bool being_opened(const struct daemon *daemon, const char *name)
{
	list_for_each (link, &daemon->openings)
		if (!strcmp(container_of(link, struct opening, link)->config.name, name))
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
	else if (being_opened(daemon, config->name))
		ret = error_set(err, EEXIST, "disk '%s' is being opened already", config->name);
	else
		ret = 0;
	o = ret ? NULL : calloc(1, sizeof *o);
	if (!ret && !o)
		ret = error_set(err, ENOMEM, "out of memory");
	if (!ret) {
		o->daemon = daemon;
		o->config = *config;
		o->opened.run = opened;
		ret = -pthread_create(&o->thread, NULL, open_it, o);
		if (ret)
			error_set(err, -ret, "cannot start a thread: %s", strerror(-ret));
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

int disks_close(struct daemon *daemon, struct disk *disk, struct error *err)
{
	unsigned i = 0;

	if (units_use(daemon, disk, err))
		return -err->code;
	while (daemon->disks[i] != disk)
		i++;
	memmove(&daemon->disks[i], &daemon->disks[i + 1],
		(--daemon->disk_count - i) * sizeof *daemon->disks);
	log_info("disk %s: closed", disk->name);
	disk_close(disk);
	return 0;
}
