/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * task.c - task management (SAM-5, 7), and the visits by which a thread has something done on all
 * queues of a target
 *
 * A visit travels: one message goes from queue to queue, each on its own loop, and then home. At a
 * queue that has to wait for commands first it stays on the queue's list, and is looked at again
 * whenever commands have come back there. Nothing is allocated for it, and no queue waits for
 * another.
 */
#include "frontend/scsi/scsi_private.h"
#include "frontend/scsi/shared.h"

/* --- visits ------------------------------------------------------------------------- */

static void hop(struct scsi_visit *visit);

static void home(struct loop_message *message)
{
	struct scsi_visit *visit = container_of(message, struct scsi_visit, message);

	visit->finished(visit);
}

static void arrived(struct loop_message *message)
{
	struct scsi_visit *visit = container_of(message, struct scsi_visit, message);
	struct scsi_target *target = visit->target;
	struct scsi_queue *queue;

	pthread_mutex_lock(&target->lock);
	queue = target->queues[visit->next];
	pthread_mutex_unlock(&target->lock);
	/* It may have been closed on the way, or opened again on another loop: then after it. */
	if (queue && queue->loop == loop_self()) {
		if (!visit->visit(visit, queue, false)) {
			list_add(&queue->visits, &visit->link);
			return;
		}
		visit->next++;
	}
	hop(visit);
}

static void hop(struct scsi_visit *visit)
{
	struct scsi_target *target = visit->target;
	struct loop *loop = visit->home;

	visit->message.run = home;
	pthread_mutex_lock(&target->lock);
	while (visit->next < target->queue_count && !target->queues[visit->next])
		visit->next++;
	if (visit->next < target->queue_count) {
		loop = target->queues[visit->next]->loop;
		visit->message.run = arrived;
	}
	loop_send(loop, &visit->message);
	pthread_mutex_unlock(&target->lock);
}

void scsi_visit_start(struct scsi_visit *visit)
{
	visit->next = 0;
	list_init(&visit->link);
	hop(visit);
}

void scsi_visits_again(struct scsi_queue *queue, struct list *ready)
{
	list_for_each (link, &queue->visits) {
		struct scsi_visit *visit = container_of(link, struct scsi_visit, link);

		if (!visit->visit(visit, queue, true))
			continue;
		list_remove(&visit->link);
		list_add(ready, &visit->link);
	}
}

void scsi_visits_leave(struct list *ready)
{
	list_for_each (link, ready) {
		struct scsi_visit *visit = container_of(link, struct scsi_visit, link);

		list_remove(&visit->link);
		visit->next++;
		hop(visit);
	}
}

/* --- task management ---------------------------------------------------------------- */

static bool concerns_unit(const struct scsi_task_request *r, const struct scsi_port *port)
{
	if (!port->present)
		return false;
	if (r->function == SCSI_BUS_RESET)
		return true;
	if (r->function == SCSI_TARGET_RESET)
		return port->unit->number == r->target;
	return port == scsi_find_port(port->queue, r->target, r->lun);
}

static bool concerns(const struct scsi_task_request *r, const struct scsi_command *command)
{
	return (r->function != SCSI_ABORT_TASK && r->function != SCSI_QUERY_TASK) ||
	       command->tag == r->tag;
}

static bool is_query(const struct scsi_task_request *r)
{
	return r->function == SCSI_QUERY_TASK || r->function == SCSI_QUERY_TASK_SET;
}

static void mark(struct scsi_command *command, const struct scsi_task_request *r)
{
	command->aborted = true;
	command->reset = r && r->function >= SCSI_LOGICAL_UNIT_RESET;
}

/* Aborts those commands of @port that @r concerns; NULL: all. True if the storage still has any. */
static bool abort_commands(const struct scsi_task_request *r, struct scsi_port *port, bool again)
{
	bool any = false;

	list_for_each (link, &port->commands) {
		struct scsi_command *command = container_of(link, struct scsi_command, link);

		if (r && !concerns(r, command))
			continue;
		if (!again)
			mark(command, r);
		any |= command->aborted;
	}
	list_for_each (link, &port->parked) {
		struct scsi_command *command = container_of(link, struct scsi_command, link);

		if (again || (r && !concerns(r, command)))
			continue;
		mark(command, r);
		scsi_finish(command);
	}
	return any;
}

bool scsi_abort_all(struct scsi_port *port, bool again)
{
	return !abort_commands(NULL, port, again);
}

static bool manage(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct scsi_task_request *r = container_of(visit, struct scsi_task_request, visit);
	bool any = false;

	for (unsigned i = 0; i < queue->target->unit_count; i++) {
		struct scsi_port *port = &queue->ports[i];

		if (!concerns_unit(r, port))
			continue;
		if (!is_query(r)) {
			any |= abort_commands(r, port, again);
			continue;
		}
		list_for_each (link, &port->commands)
			if (concerns(r, container_of(link, struct scsi_command, link)))
				r->response = SCSI_FUNCTION_SUCCEEDED;
		list_for_each (link, &port->parked)
			if (concerns(r, container_of(link, struct scsi_command, link)))
				r->response = SCSI_FUNCTION_SUCCEEDED;
	}
	/* What has ended, just now or before, must be handed back and shown first. */
	return !any && list_empty(&queue->finished);
}

/* What a reset puts back: SAM-5, 6.3.3; SPC-4, 5.14 */
static void reset_unit(struct scsi_unit *unit, const struct disk *disk, enum attention attention)
{
	atomic_store(&unit->write_cache,
		     disk && !disk->config.read_only && disk->config.cache != DISK_WRITETHROUGH);
	atomic_store(&unit->descriptor_sense, false);
	atomic_store(&unit->write_protect, false);
	atomic_store(&unit->prevented, false);
	scsi_reservation_reset(unit);
	scsi_attention(unit, attention);
}

static void managed(struct scsi_visit *visit)
{
	struct scsi_task_request *r = container_of(visit, struct scsi_task_request, visit);
	struct scsi_queue *queue = r->queue;

	/* The lock keeps what the unit shares with others of its disk in place. */
	pthread_mutex_lock(&queue->target->lock);
	if (r->function >= SCSI_LOGICAL_UNIT_RESET && r->response == SCSI_FUNCTION_COMPLETE)
		for (unsigned i = 0; i < queue->target->unit_count; i++)
			if (concerns_unit(r, &queue->ports[i]))
				reset_unit(queue->ports[i].unit, queue->ports[i].disk,
					   r->function == SCSI_BUS_RESET ? ATTENTION_BUS_RESET
									 : ATTENTION_RESET);
	pthread_mutex_unlock(&queue->target->lock);
	queue->outstanding--;
	r->done(r);
}

void scsi_target_reset(struct scsi_target *target)
{
	pthread_mutex_lock(&target->lock);
	for (unsigned i = 0; i < target->unit_count; i++)
		if (target->units[i].present)
			reset_unit(&target->units[i], target->units[i].disk, ATTENTION_POWER_ON);
	pthread_mutex_unlock(&target->lock);
}

void scsi_task_manage(struct scsi_queue *queue, struct scsi_task_request *request)
{
	request->queue = queue;
	request->response = SCSI_FUNCTION_COMPLETE;
	request->visit = (struct scsi_visit){
		.target = queue->target, .home = queue->loop, .visit = manage, .finished = managed
	};
	queue->outstanding++;
	if (request->function > SCSI_BUS_RESET || request->function == SCSI_CLEAR_ACA)
		request->response = SCSI_FUNCTION_REJECTED;
	else if (request->function != SCSI_BUS_RESET && !scsi_has_target(queue, request->target))
		request->response = SCSI_NO_TARGET;
	else if (request->function < SCSI_TARGET_RESET &&
		 !scsi_find_port(queue, request->target, request->lun))
		request->response = SCSI_INCORRECT_LUN;
	if (request->response == SCSI_FUNCTION_COMPLETE)
		scsi_visit_start(&request->visit);
	else {
		request->visit.message.run = home;
		loop_send(queue->loop, &request->visit.message);
	}
}
