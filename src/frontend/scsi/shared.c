/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shared.c - what all units over one disk have in common; see shared.h
 *
 * Units join and leave on the control thread, each disk's first one making the object. Its lock is
 * taken by commands that are rare; what READ and WRITE must know of reservations is in each
 * unit's atomic word of conflicts, settled here whenever anything changes.
 */
#include "frontend/scsi/shared.h"

#include <errno.h>
#include <stdlib.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"
#include "util/error.h"

static struct list all = { &all, &all };

static struct scsi_shared *find(const struct disk *disk)
{
	list_for_each (link, &all) {
		struct scsi_shared *shared = container_of(link, struct scsi_shared, link);

		if (shared->disk == disk)
			return shared;
	}
	return NULL;
}

static struct scsi_shared *make(struct disk *disk, struct error *err)
{
	struct scsi_shared *shared = calloc(1, sizeof *shared);
	const char *path = disk->config.reservations;

	if (!shared) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	shared->disk = disk;
	shared->reservations.holder = -1;
	if (path && reservation_load(path, disk->name, &shared->reservations, err)) {
		error_prefix(err, "reservations");
		free(shared);
		return NULL;
	}
	pthread_mutex_init(&shared->lock, NULL);
	list_init(&shared->members);
	list_init(&shared->turns);
	list_add(&all, &shared->link);
	return shared;
}

int scsi_shared_join(struct scsi_unit *unit, struct disk *disk, struct error *err)
{
	struct scsi_shared *shared = find(disk);

	if (!shared && !(shared = make(disk, err)))
		return -err->code;
	shared->users++;
	unit->shared = shared;
	pthread_mutex_lock(&shared->lock);
	list_add(&shared->members, &unit->member);
	scsi_shared_settle(shared);
	pthread_mutex_unlock(&shared->lock);
	return 0;
}

void scsi_shared_leave(struct scsi_unit *unit)
{
	struct scsi_shared *shared = unit->shared;

	if (!shared)
		return;
	unit->shared = NULL;
	atomic_store(&unit->conflicts, 0);
	pthread_mutex_lock(&shared->lock);
	list_remove(&unit->member);
	if (shared->reserved_by == unit)
		shared->reserved_by = NULL;
	scsi_shared_settle(shared);
	pthread_mutex_unlock(&shared->lock);
	if (--shared->users)
		return;
	list_remove(&shared->link);
	pthread_mutex_destroy(&shared->lock);
	free(shared);
}

void scsi_shared_settle(struct scsi_shared *shared)
{
	list_for_each (link, &shared->members) {
		struct scsi_unit *unit = container_of(link, struct scsi_unit, member);
		unsigned conflicts = reservation_conflicts(&shared->reservations, unit->nexus);

		if (shared->reserved_by && shared->reserved_by != unit)
			conflicts = CONFLICT_READ | CONFLICT_WRITE;
		atomic_store(&unit->conflicts, conflicts);
	}
}

/* --- turns -------------------------------------------------------------------------- */

void scsi_turn_take(struct scsi_shared *shared, struct scsi_work *work,
		    void (*begin)(struct scsi_work *work))
{
	bool first;

	work->begin = begin;
	pthread_mutex_lock(&shared->lock);
	first = list_empty(&shared->turns);
	list_add(&shared->turns, &work->link);
	pthread_mutex_unlock(&shared->lock);
	if (first)
		begin(work);
}

static void turn_came(struct loop_message *message)
{
	struct scsi_work *work = container_of(message, struct scsi_work, visit.message);

	work->begin(work);
}

void scsi_turn_pass(struct scsi_shared *shared, struct scsi_work *work)
{
	pthread_mutex_lock(&shared->lock);
	list_remove(&work->link);
	if (!list_empty(&shared->turns)) {
		struct scsi_work *next = container_of(shared->turns.next, struct scsi_work, link);

		next->visit.message.run = turn_came;
		loop_send(next->owner->queue->loop, &next->visit.message);
	}
	pthread_mutex_unlock(&shared->lock);
}

/* --- RESERVE and RELEASE of SPC-2, for software that has no better: not beside the others */

void scsi_reserve(struct scsi_command *command)
{
	struct scsi_unit *unit = command->port->unit;
	struct scsi_shared *shared = unit->shared;
	bool conflict = false;

	if (shared) {
		pthread_mutex_lock(&shared->lock);
		conflict = (shared->reserved_by && shared->reserved_by != unit) ||
			   shared->reservations.count;
		if (!conflict)
			shared->reserved_by = unit;
		scsi_shared_settle(shared);
		pthread_mutex_unlock(&shared->lock);
	}
	scsi_set_status(command, conflict ? SCSI_RESERVATION_CONFLICT : SCSI_GOOD);
}

static void release(struct scsi_unit *unit)
{
	struct scsi_shared *shared = unit->shared;

	if (!shared)
		return;
	pthread_mutex_lock(&shared->lock);
	if (shared->reserved_by == unit)
		shared->reserved_by = NULL;
	scsi_shared_settle(shared);
	pthread_mutex_unlock(&shared->lock);
}

void scsi_release(struct scsi_command *command)
{
	release(command->port->unit);
	scsi_good(command);
}

void scsi_reservation_reset(struct scsi_unit *unit)
{
	release(unit);
}
