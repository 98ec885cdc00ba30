/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_control.c - the control queue of the virtio SCSI adapter (virtio 1.2, section 5.6.6.2)
 *
 * Task management goes to the target, which sees to it on all request queues and comes back here.
 * Asynchronous notifications (of CD-ROM drives and the like) we have none: a query is told so,
 * after the target was asked whether the unit is there, as with a QUERY TASK SET.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_scsi.h>
#include <stdlib.h>

#include "frontend/virtio/scsi_private.h"

#define VECTORS 16u

struct control_request {
	struct scsi_task_request task;
	bool notifications; /* it asked for those */
	struct chain chain;
	struct control_request *next; /* free */
	struct iovec vec[VECTORS];
};

struct control_queue {
	struct virtqueue *vq;
	struct scsi_queue *target;
	unsigned out;
	struct control_request *free;
	struct control_request requests[];
};

/* --- made and gone ------------------------------------------------------------------ */

static unsigned outstanding(struct virtqueue *vq)
{
	return ((struct control_queue *)vq->type)->out;
}

int scsi_control_start(struct scsi *scsi, struct virtqueue *vq)
{
	struct control_queue *q = calloc(1, sizeof *q + (vq->size + 1) * sizeof *q->requests);

	if (!q)
		return -ENOMEM;
	q->target = scsi_queue_open(scsi->target, vq->index, vq->loop, 1);
	if (!q->target) {
		free(q);
		return -ENOMEM;
	}
	q->vq = vq;
	/* One too many, to find out a guest that has that under way. */
	for (unsigned i = 0; i <= vq->size; i++) {
		q->requests[i].next = q->free;
		q->free = &q->requests[i];
	}
	vq->type = q;
	vq->outstanding = outstanding;
	return 0;
}

void scsi_control_stop(struct virtqueue *vq)
{
	struct control_queue *q = vq->type;

	scsi_queue_close(q->target);
	vq->type = NULL;
	free(q);
}

static void put(struct control_queue *q, struct control_request *r)
{
	r->next = q->free;
	q->free = r;
	q->out--;
}

/* --- the end of a request ----------------------------------------------------------- */

static void respond(struct control_queue *q, struct control_request *r, uint8_t response)
{
	struct io_data to = { .vec = r->vec + r->chain.readable, .count = r->chain.writable };
	struct virtio_scsi_ctrl_an_resp none = { .response = response };
	struct virtio_scsi_ctrl_tmf_resp done = { .response = response };
	uint32_t bytes = r->notifications ? sizeof none : sizeof done;

	io_data_copy_in(to, r->notifications ? (const void *)&none : &done, bytes);
	virtqueue_push(q->vq, &r->chain, bytes);
	put(q, r);
	virtqueue_flush(q->vq);
}

static void managed(struct scsi_task_request *task)
{
	struct control_request *r = container_of(task, struct control_request, task);
	static const uint8_t responses[] = {
		[SCSI_FUNCTION_COMPLETE] = VIRTIO_SCSI_S_OK, /* FUNCTION COMPLETE */
		[SCSI_FUNCTION_SUCCEEDED] = VIRTIO_SCSI_S_FUNCTION_SUCCEEDED,
		[SCSI_FUNCTION_REJECTED] = VIRTIO_SCSI_S_FUNCTION_REJECTED,
		[SCSI_INCORRECT_LUN] = VIRTIO_SCSI_S_INCORRECT_LUN,
		[SCSI_NO_TARGET] = VIRTIO_SCSI_S_BAD_TARGET,
	};
	uint8_t response = responses[task->response];

	if (r->notifications && task->response == SCSI_FUNCTION_SUCCEEDED)
		response = VIRTIO_SCSI_S_OK;
	respond(task->owner, r, response);
}

/* --- the start of a request --------------------------------------------------------- */

static void manage(struct control_queue *q, struct control_request *r, const uint8_t lun[8])
{
	r->task.target = scsi_address(lun, &r->task.lun);
	r->task.done = managed;
	r->task.owner = q;
	scsi_task_manage(q->target, &r->task);
}

static void start_task_management(struct control_queue *q, struct control_request *r,
				  const struct virtio_scsi_ctrl_tmf_req *request)
{
	static const enum scsi_task_function functions[] = {
		[VIRTIO_SCSI_T_TMF_ABORT_TASK] = SCSI_ABORT_TASK,
		[VIRTIO_SCSI_T_TMF_ABORT_TASK_SET] = SCSI_ABORT_TASK_SET,
		[VIRTIO_SCSI_T_TMF_CLEAR_ACA] = SCSI_CLEAR_ACA,
		[VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET] = SCSI_CLEAR_TASK_SET,
		[VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET] = SCSI_TARGET_RESET,
		[VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET] = SCSI_LOGICAL_UNIT_RESET,
		[VIRTIO_SCSI_T_TMF_QUERY_TASK] = SCSI_QUERY_TASK,
		[VIRTIO_SCSI_T_TMF_QUERY_TASK_SET] = SCSI_QUERY_TASK_SET,
	};
	uint32_t subtype = le32toh(request->subtype);

	if (subtype >= sizeof functions / sizeof *functions) {
		respond(q, r, VIRTIO_SCSI_S_FUNCTION_REJECTED);
		return;
	}
	r->task.function = functions[subtype];
	r->task.tag = le64toh(request->tag);
	manage(q, r, request->lun);
}

static bool has_room(struct control_queue *q, const struct chain *chain, size_t read,
		     size_t written)
{
	if (chain->read_bytes >= read && chain->write_bytes >= written)
		return true;
	virtqueue_break(q->vq, "a control request of %llu readable and %llu writable bytes",
			(unsigned long long)chain->read_bytes,
			(unsigned long long)chain->write_bytes);
	return false;
}

/* False if the chain is no request at all. */
static bool start(struct control_queue *q, struct control_request *r)
{
	struct io_data from = { .vec = r->vec, .count = r->chain.readable };
	union {
		__virtio32 type;
		struct virtio_scsi_ctrl_tmf_req task;
		struct virtio_scsi_ctrl_an_req notifications;
	} request = { 0 };

	if (!has_room(q, &r->chain, sizeof request.type, 1))
		return false;
	io_data_copy_out(from, &request, sizeof request);
	switch (le32toh(request.type)) {
	case VIRTIO_SCSI_T_TMF:
		if (!has_room(q, &r->chain, sizeof request.task,
			      sizeof(struct virtio_scsi_ctrl_tmf_resp)))
			return false;
		r->notifications = false;
		start_task_management(q, r, &request.task);
		return true;
	case VIRTIO_SCSI_T_AN_QUERY:
	case VIRTIO_SCSI_T_AN_SUBSCRIBE:
		if (!has_room(q, &r->chain, sizeof request.notifications,
			      sizeof(struct virtio_scsi_ctrl_an_resp)))
			return false;
		r->notifications = true;
		r->task.function = SCSI_QUERY_TASK_SET;
		manage(q, r, request.notifications.lun);
		return true;
	default:
		virtqueue_break(q->vq, "a control request of unknown type %u",
				le32toh(request.type));
		return false;
	}
}

bool scsi_control_poll(struct virtqueue *vq)
{
	struct control_queue *q = vq->type;
	bool any = false;

	while (!vq->broken) {
		struct control_request *r = q->free;

		if (!r)
			break;
		if (virtqueue_pop(vq, &r->chain, r->vec, VECTORS) <= 0)
			break;
		if (q->out == vq->size) {
			virtqueue_break(vq, "more than %u requests in a ring of %u", vq->size,
					vq->size);
			break;
		}
		q->free = r->next;
		q->out++;
		any = true;
		if (!start(q, r))
			put(q, r);
	}
	return any;
}
