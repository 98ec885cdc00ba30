/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue.c - a command's way: to its unit, through the checks that all have in common, and back
 *
 * scsi_execute() finds the port and dispatch() checks, in the order of SPC-4 and SAM-5: unit, unit
 * attention, operation code, reservations, medium, write protection. Then the handler of the
 * command's row executes it. However it ends, scsi_finish() lists it, and one task a turn gives the
 * whole batch back; so a done never runs inside scsi_execute(), and the guest hears once of a
 * batch.
 */
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/scsi_private.h"

/* --- made and gone ------------------------------------------------------------------ */

static void run_task(struct loop_task *task);

struct scsi_queue *scsi_queue_open(struct scsi_target *target, unsigned index, struct loop *loop,
				   unsigned depth)
{
	struct scsi_queue *queue =
		calloc(1, sizeof *queue + target->unit_count * sizeof *queue->ports);

	if (!queue)
		return NULL;
	queue->target = target;
	queue->index = index;
	queue->depth = depth;
	queue->loop = loop;
	queue->task.run = run_task;
	list_init(&queue->finished);
	list_init(&queue->visits);
	memset(queue->bucket, 0xff, sizeof queue->bucket);
	for (unsigned i = 0; i < target->unit_count; i++) {
		struct scsi_port *port = &queue->ports[i];

		port->unit = &target->units[i];
		port->queue = queue;
		port->stats = &target->device->units[i].stats[index];
		list_init(&port->commands);
		list_init(&port->parked);
	}
	pthread_mutex_lock(&target->lock);
	for (unsigned i = 0; i < target->unit_count; i++) {
		if (!target->units[i].present)
			continue;
		scsi_port_open(&queue->ports[i], target->units[i].closing);
		queue->ports[i].writes_held = target->units[i].gated;
	}
	target->queues[index] = queue;
	pthread_mutex_unlock(&target->lock);
	return queue;
}

void scsi_queue_close(struct scsi_queue *queue)
{
	struct scsi_target *target = queue->target;

	pthread_mutex_lock(&target->lock);
	target->queues[queue->index] = NULL;
	pthread_mutex_unlock(&target->lock);
	for (unsigned i = 0; i < target->unit_count; i++)
		scsi_port_close(&queue->ports[i]);
	free(queue);
}

unsigned scsi_queue_outstanding(const struct scsi_queue *queue)
{
	return queue->outstanding;
}

void scsi_queue_on_settled(struct scsi_queue *queue, void (*settled)(void *owner), void *owner)
{
	queue->settled = settled;
	queue->owner = owner;
}

/* --- which unit --------------------------------------------------------------------- */

/*
 * A LUN in the peripheral or the flat space addressing method (SAM-5, 4.7.7); no other level may be
 * named. -1: none of ours.
 */
static int decode_lun(uint64_t lun)
{
	unsigned first = (unsigned)(lun >> 48);

	if (lun << 16)
		return -1;
	if (first >> 14 == 0)
		return first < 256 ? (int)first : -1;
	return first >> 14 == 1 ? (int)(first & 0x3fff) : -1;
}

struct scsi_port *scsi_find_port(struct scsi_queue *queue, uint16_t target, uint64_t address)
{
	int lun = decode_lun(address);
	unsigned at;

	if (lun < 0)
		return NULL;
	at = queue->bucket[(target * 8u + (unsigned)lun) % PORT_BUCKETS];
	while (at != NO_PORT) {
		struct scsi_port *port = &queue->ports[at];

		if (port->unit->number == target && port->unit->lun == lun)
			return port;
		at = port->next;
	}
	return NULL;
}

bool scsi_has_target(const struct scsi_queue *queue, uint16_t target)
{
	for (unsigned i = 0; i < queue->target->unit_count; i++)
		if (queue->ports[i].present && queue->ports[i].unit->number == target)
			return true;
	return false;
}

enum scsi_direction scsi_data_length(struct scsi_queue *queue, const struct scsi_command *command,
				     uint64_t *length)
{
	struct scsi_port *port = scsi_find_port(queue, command->target, command->lun);
	const struct scsi_operation *operation;
	bool known;

	*length = 0;
	if (!port)
		return SCSI_NO_DATA;
	operation = scsi_operation_find(command->cdb, port->kind, &known);
	if (operation && operation->opcode == 0x25) { /* READ CAPACITY (10) does not say */
		*length = 8;
		return SCSI_DATA_IN;
	}
	if (!operation || !operation->length_size)
		return SCSI_NO_DATA;
	*length = operation->flags & BLOCKS
			  ? scsi_cdb_blocks(operation, command->cdb) << port->shift
			  : scsi_cdb_count(operation, command->cdb);
	return operation->flags & OUT ? SCSI_DATA_OUT : SCSI_DATA_IN;
}

/* --- there -------------------------------------------------------------------------- */

static void absent(struct scsi_command *command)
{
	const struct scsi_operation *operation;
	bool known;

	if (!scsi_has_target(command->queue, command->target)) {
		command->no_target = true;
		scsi_finish(command);
		return;
	}
	operation = scsi_operation_find(command->cdb, FOR_DISK, &known);
	if (operation && operation->flags & NO_UNIT) {
		command->operation = operation;
		operation->execute(command);
		return;
	}
	/* LOGICAL UNIT NOT SUPPORTED */
	scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x25, 0x00);
}

static void park(struct scsi_port *port, struct scsi_command *command)
{
	list_remove(&command->link);
	list_add(&port->parked, &command->link);
}

static void dispatch(struct scsi_port *port, struct scsi_command *command)
{
	struct scsi_unit *unit = port->unit;
	const struct scsi_operation *operation;
	unsigned length = scsi_cdb_length(command->cdb[0]);
	struct sense sense;
	bool known;

	if (port->held) {
		park(port, command);
		return;
	}
	operation = scsi_operation_find(command->cdb, port->kind, &known);
	if (operation && operation->flags & WRITES && port->writes_held) {
		park(port, command);
		return;
	}
	if (atomic_load_explicit(&unit->attention, memory_order_relaxed) &&
	    !(operation && operation->flags & NO_ATTENTION) && scsi_take_attention(unit, &sense)) {
		scsi_fail_sense(command, &sense);
		return;
	}
	if (!operation) {
		if (known)
			scsi_bad_field(command, 1, -1); /* its service action */
		else                                    /* INVALID COMMAND OPERATION CODE */
			scsi_fail_sense(command, &(struct sense){ .key = KEY_ILLEGAL_REQUEST,
								  .asc = 0x20,
								  .specific = { 0xc0 } });
		return;
	}
	command->operation = operation;
	if (operation->flags & WRITES)
		port->writing++;
	if (command->cdb_length < length || command->cdb[length - 1] & 4) { /* NACA */
		scsi_bad_field(command, length - 1, 2);
		return;
	}
	if (operation->conflict & atomic_load_explicit(&unit->conflicts, memory_order_relaxed)) {
		scsi_set_status(command, SCSI_RESERVATION_CONFLICT);
		return;
	}
	if (port->failed) {
		scsi_set_status(command, SCSI_BUSY);
		return;
	}
	if (operation->flags & NEEDS_MEDIUM && scsi_not_ready(port, &sense)) {
		scsi_fail_sense(command, &sense);
		return;
	}
	if (operation->flags & CHANGES &&
	    (port->disk->config.read_only ||
	     atomic_load_explicit(&unit->write_protect, memory_order_relaxed))) {
		/* WRITE PROTECTED; SOFTWARE WRITE PROTECTED */
		scsi_fail(command, KEY_DATA_PROTECT, 0x27, port->disk->config.read_only ? 0 : 2);
		return;
	}
	operation->execute(command);
}

void scsi_execute(struct scsi_queue *queue, struct scsi_command *command)
{
	struct scsi_port *port = scsi_find_port(queue, command->target, command->lun);

	command->status = SCSI_GOOD;
	command->no_target = command->aborted = command->reset = command->overrun = false;
	command->sense_length = 0;
	command->moved = 0;
	command->queue = queue;
	command->port = port;
	command->operation = NULL;
	command->work = NULL;
	list_init(&command->link);
	queue->outstanding++;
	if (!port) {
		absent(command);
		return;
	}
	list_add(&port->commands, &command->link);
	dispatch(port, command);
}

void scsi_port_resume(struct scsi_port *port)
{
	struct list again;

	/* Those that are parked once more are not looked at twice. */
	list_init(&again);
	list_for_each (link, &port->parked) {
		list_remove(link);
		list_add(&again, link);
	}
	list_for_each (link, &again) {
		struct scsi_command *command = container_of(link, struct scsi_command, link);

		list_remove(link);
		list_add(&port->commands, link);
		dispatch(port, command);
	}
}

void scsi_port_drop_parked(struct scsi_port *port)
{
	list_for_each (link, &port->parked) {
		struct scsi_command *command = container_of(link, struct scsi_command, link);

		command->no_target = true;
		scsi_finish(command);
	}
}

/* --- and back ----------------------------------------------------------------------- */

void scsi_finish(struct scsi_command *command)
{
	struct scsi_port *port = command->port;

	list_remove(&command->link);
	if (port) {
		if (command->operation && command->operation->flags & WRITES)
			port->writing--;
		atomic_store_explicit(&port->stats->in_flight, port->disk ? port->onto->ios.out : 0,
				      memory_order_relaxed);
	}
	if (command->work) {
		free(command->work);
		command->work = NULL;
	}
	list_add(&command->queue->finished, &command->link);
	loop_task_queue(command->queue->loop, &command->queue->task);
}

static void run_task(struct loop_task *task)
{
	struct scsi_queue *queue = container_of(task, struct scsi_queue, task);
	struct list ready;

	while (!list_empty(&queue->finished)) {
		struct scsi_command *command =
			container_of(queue->finished.next, struct scsi_command, link);

		list_remove(&command->link);
		queue->outstanding--;
		command->done(command);
	}
	/* They leave when the guest was shown what came back: a task that is reported as over is
	 * not seen again. The adapter may close the queue in its settled(). */
	list_init(&ready);
	scsi_visits_again(queue, &ready);
	if (queue->settled)
		queue->settled(queue->owner);
	scsi_visits_leave(&ready);
}

/* --- parameter data ----------------------------------------------------------------- */

void scsi_reply(struct scsi_command *command, const void *data, size_t length)
{
	uint64_t n = min64(length, scsi_cdb_count(command->operation, command->cdb));

	if (n > command->in_length) {
		command->overrun = true;
		n = command->in_length;
	}
	io_data_copy_in(command->in, data, n);
	command->moved = n;
	scsi_good(command);
}

bool scsi_parameters(struct scsi_command *command, void *to, size_t length)
{
	if (command->out_length < length ||
	    scsi_cdb_count(command->operation, command->cdb) < length) {
		/* PARAMETER LIST LENGTH ERROR */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x1a, 0x00);
		return false;
	}
	io_data_copy_out(command->out, to, length);
	command->moved = length;
	return true;
}
