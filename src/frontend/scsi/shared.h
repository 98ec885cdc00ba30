/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shared.h - what all units over one disk have in common, whichever adapters and VMs they belong
 * to: reservations, and turns at what one of them must do alone
 */
#pragma once

#include <pthread.h>

#include "frontend/scsi/reservation.h"
#include "util/list.h"

struct disk;
struct scsi_unit;
struct scsi_work;

struct scsi_shared {
	struct list link; /* of all; control thread */
	struct disk *disk;
	unsigned users; /* control thread */
	pthread_mutex_t lock;
	struct list members; /* units; with @lock */
	struct list turns;   /* works, the first of which has its turn; with @lock */
	const struct scsi_unit *reserved_by; /* RESERVE of SPC-2; with @lock */
	struct reservations reservations;    /* with @lock */
	bool storing;                        /* a change of them is being written; with @lock */
};

/* Control thread. The first unit has what was stored read. 0, or -errno with @err. */
int scsi_shared_join(struct scsi_unit *unit, struct disk *disk, struct error *err);
void scsi_shared_leave(struct scsi_unit *unit);

/* With the lock: each unit's word of conflicts, as the reservations are now. */
void scsi_shared_settle(struct scsi_shared *shared);
/* A reset of @unit ends what RESERVE began. On a queue's loop, with commands of the unit at rest.
 */
void scsi_reservation_reset(struct scsi_unit *unit);

/* Calls @begin(@work) when it is its turn: at once, or later on the loop of its command. */
void scsi_turn_take(struct scsi_shared *shared, struct scsi_work *work,
		    void (*begin)(struct scsi_work *work));
void scsi_turn_pass(struct scsi_shared *shared, struct scsi_work *work);
