/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reservation.c - PERSISTENT RESERVE IN and OUT (SPC-4, 6.15 and 6.16)
 *
 * The way of a change: a copy of the state is changed by the rules; if it is to be kept, a thread
 * of its own writes the file, because that waits for storage and a queue's loop may not; then it
 * counts, for all units over the disk at once. Meanwhile other changes get BUSY. PREEMPT AND ABORT
 * then visits the queues of those that were preempted, one unit after another, until nothing of
 * theirs is under way.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/shared.h"
#include "util/error.h"
#include "util/log.h"

enum { PARAMETERS = 24, TRANSPORT_ID_MAX = SCSI_NEXUS_MAX + 32 };

/* What a PERSISTENT RESERVE OUT is about, in its work's bytes. */
struct change {
	struct reservations state;
	struct reserve_effects effects;
	struct reserve_request request;
	int status; /* of writing the file */
	/* Units of those who were preempted; their targets are held. */
	unsigned victims;
	struct victim {
		struct scsi_target *target;
		unsigned unit;
	} victim[RESERVATION_REGISTRANTS];
};

static struct change *change_of(struct scsi_command *command)
{
	return (struct change *)command->work->bytes;
}

static struct scsi_shared *shared_of(const struct scsi_command *command)
{
	return command->port->unit->shared;
}

/* --- PREEMPT AND ABORT -------------------------------------------------------------- */

static void abort_next(struct scsi_command *command);

static bool abort_unit(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct scsi_work *work = container_of(visit, struct scsi_work, visit);
	struct change *change = (struct change *)work->bytes;

	return scsi_abort_all(&queue->ports[change->victim[change->victims - 1].unit], again);
}

static void aborted(struct scsi_visit *visit)
{
	struct scsi_command *command = container_of(visit, struct scsi_work, visit)->owner;
	struct change *change = change_of(command);

	scsi_target_release(change->victim[--change->victims].target);
	abort_next(command);
}

static void abort_next(struct scsi_command *command)
{
	struct change *change = change_of(command);
	struct scsi_visit *visit = &command->work->visit;

	if (!change->victims) {
		scsi_good(command);
		return;
	}
	*visit = (struct scsi_visit){ .target = change->victim[change->victims - 1].target,
				      .home = command->queue->loop,
				      .visit = abort_unit,
				      .finished = aborted };
	scsi_visit_start(visit);
}

/* --- it counts ---------------------------------------------------------------------- */

/* The initiator of @unit is one of those from before: it is told, and may be aborted. */
static void tell(struct scsi_unit *unit, struct change *change, int8_t what)
{
	if (what < 0)
		return;
	scsi_attention(unit, (enum attention)what);
	if (change->request.action == PR_PREEMPT_AND_ABORT &&
	    what == ATTENTION_REGISTRATION_PREEMPTED && change->victims < RESERVATION_REGISTRANTS) {
		scsi_target_hold(unit->target);
		change->victim[change->victims++] = (struct victim){ unit->target, unit->index };
	}
}

/* With the lock. */
static void commit(struct scsi_shared *shared, struct change *change)
{
	list_for_each (link, &shared->members) {
		struct scsi_unit *unit = container_of(link, struct scsi_unit, member);
		int before = reservation_find(&shared->reservations, unit->nexus);

		if (before >= 0)
			tell(unit, change, change->effects.tell[before]);
	}
	shared->reservations = change->state;
	scsi_shared_settle(shared);
}

static void over(struct scsi_command *command)
{
	if (change_of(command)->status) /* INTERNAL TARGET FAILURE */
		scsi_fail(command, KEY_HARDWARE_ERROR, 0x44, 0x00);
	else
		abort_next(command);
}

/* --- the file ----------------------------------------------------------------------- */

static void stored(struct loop_message *message)
{
	over(container_of(message, struct scsi_work, visit.message)->owner);
}

static void *store(void *data)
{
	struct scsi_command *command = data;
	struct change *change = change_of(command);
	struct scsi_shared *shared = shared_of(command);
	const struct disk *disk = shared->disk;
	struct error err = { 0 };

	change->status =
		reservation_store(disk->config.reservations, disk->name, &change->state, &err);
	if (change->status)
		log_error("%s", err.text);
	pthread_mutex_lock(&shared->lock);
	if (!change->status)
		commit(shared, change);
	shared->storing = false;
	pthread_mutex_unlock(&shared->lock);
	loop_send(command->queue->loop, &command->work->visit.message);
	return NULL;
}

/* With the lock, and storing set. */
static int store_on_thread(struct scsi_command *command)
{
	pthread_t thread;
	int ret;

	command->work->visit.message.run = stored;
	ret = -pthread_create(&thread, NULL, store, command);
	if (!ret)
		pthread_detach(thread);
	return ret;
}

/* --- PERSISTENT RESERVE OUT --------------------------------------------------------- */

static void refuse(struct scsi_command *command, enum reserve_result result)
{
	switch (result) {
	case RESERVE_NO_ROOM: /* INSUFFICIENT REGISTRATION RESOURCES */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x55, 0x04);
		break;
	case RESERVE_BAD_RELEASE: /* INVALID RELEASE OF PERSISTENT RESERVATION */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x26, 0x04);
		break;
	case RESERVE_BAD_ACTION_KEY:
		scsi_bad_parameter(command, 8, -1);
		break;
	default:
		scsi_set_status(command, SCSI_RESERVATION_CONFLICT);
		break;
	}
}

static void change_reservations(struct scsi_command *command)
{
	struct scsi_shared *shared = shared_of(command);
	struct change *change = change_of(command);
	enum reserve_result result;
	bool busy, kept;
	int ret = 0;

	pthread_mutex_lock(&shared->lock);
	busy = shared->storing;
	change->state = shared->reservations;
	result = shared->reserved_by
			 ? RESERVE_CONFLICT
			 : reservation_apply(&change->state, &change->request, &change->effects);
	kept = shared->disk->config.reservations &&
	       (change->state.persist || shared->reservations.persist);
	if (!busy && result == RESERVE_GOOD && kept) {
		shared->storing = true;
		ret = store_on_thread(command);
		shared->storing = !ret;
	} else if (!busy && result == RESERVE_GOOD) {
		commit(shared, change);
	}
	pthread_mutex_unlock(&shared->lock);
	if (busy || ret)
		scsi_set_status(command, SCSI_BUSY);
	else if (result != RESERVE_GOOD)
		refuse(command, result);
	else if (!kept)
		over(command);
}

void scsi_reserve_out(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	struct scsi_shared *shared = shared_of(command);
	enum reserve_action action = cdb[1] & 0x1f;
	bool registers = action == PR_REGISTER || action == PR_REGISTER_AND_IGNORE;
	bool typed = !registers && action != PR_CLEAR;
	uint8_t data[PARAMETERS];
	struct change *change;

	if (typed && (cdb[2] >> 4 || !reservation_type_valid(cdb[2] & 15))) {
		scsi_bad_field(command, 2, cdb[2] >> 4 ? 7 : 3);
		return;
	}
	/* Without SPEC_I_PT the list has exactly this length: SPC-4, 6.16.1. */
	if (get32(cdb + 5) != PARAMETERS) {
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x1a, 0x00);
		return;
	}
	if (!scsi_parameters(command, data, sizeof data))
		return;
	if (registers && data[20] & 0x0c) { /* SPEC_I_PT, ALL_TG_PT */
		scsi_bad_parameter(command, 20, data[20] & 8 ? 3 : 2);
		return;
	}
	if (!shared) { /* an empty drive */
		scsi_fail(command, KEY_NOT_READY, 0x3a, 0x00);
		return;
	}
	if (registers && data[20] & 1 && !shared->disk->config.reservations) { /* APTPL */
		scsi_bad_parameter(command, 20, 0);
		return;
	}
	if (!scsi_work(command, sizeof *change))
		return;
	command->work->owner = command;
	change = change_of(command);
	change->status = 0;
	change->victims = 0;
	change->request = (struct reserve_request){ .action = action,
						    .nexus = command->port->unit->nexus,
						    .key = get64(data),
						    .action_key = get64(data + 8),
						    .type = cdb[2] & 15,
						    .persist = data[20] & 1 };
	change_reservations(command);
}

/* --- PERSISTENT RESERVE IN ---------------------------------------------------------- */

static size_t put_keys(const struct reservations *state, uint8_t *to)
{
	for (unsigned i = 0; i < state->count; i++)
		put64(to + 8 * (size_t)i, state->registrants[i].key);
	return 8 * (size_t)state->count;
}

static size_t put_reservation(const struct reservations *state, uint8_t *to)
{
	if (!state->type)
		return 0;
	put64(to, state->holder >= 0 ? state->registrants[state->holder].key : 0);
	to[13] = state->type; /* scope: the logical unit */
	return 16;
}

/* The initiator as an iSCSI TransportID (SPC-4, 7.6.4.6), which has room for a name of any length.
 */
static size_t put_transport_id(const char *nexus, uint8_t *to)
{
	size_t n = (size_t)snprintf((char *)to + 4, TRANSPORT_ID_MAX - 4, "iqn.2026-11.penstock:%s",
				    nexus) +
		   1;

	n = n < 20 ? 20 : (n + 3) & ~(size_t)3;
	to[0] = 5;
	put16(to + 2, n);
	return 4 + n;
}

static size_t put_full_status(const struct reservations *state, uint8_t *to)
{
	uint8_t *at = to;

	for (unsigned i = 0; i < state->count; i++) {
		bool holds = state->type &&
			     ((int)i == state->holder || reservation_for_all(state->type));
		size_t n = put_transport_id(state->registrants[i].nexus, at + 24);

		put64(at, state->registrants[i].key);
		at[12] = holds;
		at[13] = holds ? state->type : 0;
		put16(at + 18, 1); /* the relative target port, as in page 0x83 */
		put32(at + 20, n);
		at += 24 + n;
	}
	return (size_t)(at - to);
}

/* Types that we know, as a mask; whether and for whom they may be kept. SPC-4, 6.15.4. */
static void report_capabilities(struct scsi_command *command, bool can_persist, bool persists)
{
	uint8_t data[8] = { 0, 8, can_persist, 0x80 | persists, 0xea, 0x01 };

	scsi_reply(command, data, sizeof data);
}

void scsi_reserve_in(struct scsi_command *command)
{
	struct scsi_shared *shared = shared_of(command);
	const size_t most = 8 + RESERVATION_REGISTRANTS * (24 + TRANSPORT_ID_MAX);
	struct reservations *state;
	uint8_t *data;
	size_t n = 0;

	if (!shared) {
		scsi_fail(command, KEY_NOT_READY, 0x3a, 0x00);
		return;
	}
	state = malloc(sizeof *state);
	data = calloc(1, most);
	if (!state || !data) {
		free(state);
		free(data);
		scsi_set_status(command, SCSI_TASK_SET_FULL);
		return;
	}
	pthread_mutex_lock(&shared->lock);
	*state = shared->reservations;
	pthread_mutex_unlock(&shared->lock);
	switch (command->cdb[1] & 0x1f) {
	case 0:
		n = put_keys(state, data + 8);
		break;
	case 1:
		n = put_reservation(state, data + 8);
		break;
	case 3:
		n = put_full_status(state, data + 8);
		break;
	default:
		break;
	}
	if ((command->cdb[1] & 0x1f) == 2) {
		report_capabilities(command, shared->disk->config.reservations != NULL,
				    state->persist);
	} else {
		put32(data, state->generation);
		put32(data + 4, n);
		scsi_reply(command, data, 8 + n);
	}
	free(state);
	free(data);
}
