/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_queue.c - the request queues of the virtio SCSI adapter (virtio 1.2, section 5.6.6.1)
 *
 * A request is a chain: a header with address, tag and CDB and the data that goes out, which the
 * device reads; room for the response and for the data that comes in, which it writes. The data is
 * given to the target where it lies. The sizes of CDB and sense data are the defaults, 32 and 96:
 * no VMM tells us of others, and QEMU does not let the guest change them.
 *
 * The way of a request: scsi_requests_poll() pops a batch and prefetches the headers, start() makes
 * each a command and the target executes it, completed() writes the response and gives the chain
 * back, settled() shows the batch to the driver. There is a request for each entry of the ring, so
 * nothing is allocated on the way; their memory is touched only when the depth is reached.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_scsi.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "frontend/virtio/scsi_private.h"

#define SEG_MAX     126u           /* data segments of a request; what QEMU tells the driver */
#define VECTORS     (SEG_MAX + 8u) /* and header, response, segments that cross memory regions */
#define BATCH       32             /* chains popped before the first is started, at most */
#define BATCH_FIRST 8              /* the same after the ring was empty: see blk.c */

_Static_assert(VIRTIO_SCSI_CDB_SIZE == SCSI_CDB_MAX, "a CDB is copied whole");
_Static_assert(VIRTIO_SCSI_SENSE_SIZE == SCSI_SENSE_MAX, "sense data is copied whole");

struct request {
	struct chain chain;
	struct request *next; /* free */
	struct scsi_command command;
	struct iovec vec[VECTORS];
} __attribute__((aligned(64)));

struct request_queue {
	struct virtqueue *vq;
	struct scsi *scsi;
	struct scsi_queue *target;
	unsigned batch; /* chains to pop next time */
	unsigned out;   /* requests taken and not put back */
	unsigned fresh; /* never taken: this one and those after it */
	bool refused;   /* requests that the target never had are to be shown */
	struct request *free, *requests;
};

/* --- made and gone ------------------------------------------------------------------ */

static void settled(void *owner)
{
	virtqueue_flush(((struct request_queue *)owner)->vq);
}

static unsigned outstanding(struct virtqueue *vq)
{
	return ((struct request_queue *)vq->type)->out;
}

int scsi_requests_start(struct scsi *scsi, struct virtqueue *vq)
{
	struct request_queue *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->requests = mmap(NULL, (vq->size + 1) * sizeof *q->requests, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (q->requests == MAP_FAILED) {
		free(q);
		return -ENOMEM;
	}
	q->target = scsi_queue_open(scsi->target, vq->index, vq->loop, vq->size);
	if (!q->target) {
		munmap(q->requests, (vq->size + 1) * sizeof *q->requests);
		free(q);
		return -ENOMEM;
	}
	q->vq = vq;
	q->scsi = scsi;
	q->batch = BATCH_FIRST;
	scsi_queue_on_settled(q->target, settled, q);
	vq->type = q;
	vq->outstanding = outstanding;
	return 0;
}

void scsi_requests_stop(struct virtqueue *vq)
{
	struct request_queue *q = vq->type;

	scsi_queue_close(q->target);
	munmap(q->requests, (vq->size + 1) * sizeof *q->requests);
	vq->type = NULL;
	free(q);
}

static struct request *take(struct request_queue *q)
{
	struct request *r = q->free;

	if (r)
		q->free = r->next;
	else if (q->fresh <= q->vq->size) /* one too many, to find out a guest that has that */
		r = &q->requests[q->fresh++];
	else
		return NULL;
	q->out++;
	return r;
}

static void put(struct request_queue *q, struct request *r)
{
	r->next = q->free;
	q->free = r;
	q->out--;
}

/* --- the end of a request ----------------------------------------------------------- */

/*
 * All of the response is written, sense data or not: what is reported as written begins with it.
 * Straight to where it belongs, in most cases, for this is the way of every request.
 */
static void give_back(struct request_queue *q, struct request *r, uint8_t code, uint8_t status,
		      uint64_t residual, uint64_t data)
{
	static const uint8_t no_sense[sizeof((struct virtio_scsi_cmd_resp *)0)->sense];
	const struct scsi_command *command = &r->command;
	struct iovec *first = &r->vec[r->chain.readable];
	struct virtio_scsi_cmd_resp elsewhere, *response = &elsewhere;
	uint8_t sense = code == VIRTIO_SCSI_S_OK ? command->sense_length : 0;

	if (first->iov_len >= sizeof *response)
		response = first->iov_base;
	response->sense_len = htole32(sense);
	response->resid = htole32(residual < UINT32_MAX ? (uint32_t)residual : UINT32_MAX);
	response->status_qualifier = 0;
	response->status = status;
	response->response = code;
	memcpy(response->sense, no_sense, sizeof no_sense); /* faster than a memset() of so few */
	if (sense)
		memcpy(response->sense, command->sense, sense);
	if (response == &elsewhere)
		io_data_copy_in((struct io_data){ .vec = first, .count = r->chain.writable },
				response, sizeof *response);
	virtqueue_push(q->vq, &r->chain, (uint32_t)(sizeof *response + data));
	put(q, r);
}

static uint8_t code_of(const struct scsi_command *command)
{
	return command->no_target ? VIRTIO_SCSI_S_BAD_TARGET
	       : command->reset   ? VIRTIO_SCSI_S_RESET
	       : command->aborted ? VIRTIO_SCSI_S_ABORTED
	       : command->overrun ? VIRTIO_SCSI_S_OVERRUN
				  : VIRTIO_SCSI_S_OK;
}

/* A response other than OK says all there is: status and sense are then those of no command. */
static void completed(struct scsi_command *command)
{
	uint8_t code = code_of(command);

	give_back(command->owner, container_of(command, struct request, command), code,
		  code == VIRTIO_SCSI_S_OK ? command->status : SCSI_GOOD,
		  command->out_length + command->in_length - command->moved,
		  command->in_length ? command->moved : 0);
}

/* Ends a request that is none for the target; scsi_requests_poll() shows it. */
static void refuse(struct request_queue *q, struct request *r)
{
	give_back(q, r, VIRTIO_SCSI_S_FAILURE, 0, r->command.out_length + r->command.in_length, 0);
	q->refused = true;
}

/* --- the start of a request --------------------------------------------------------- */

/* False if the chain is no request at all. */
static bool start(struct request_queue *q, struct request *r)
{
	struct scsi_command *command = &r->command;
	const struct chain *chain = &r->chain;
	struct io_data readable = { .vec = r->vec, .count = chain->readable },
		       writable = { .vec = r->vec + chain->readable, .count = chain->writable };
	struct virtio_scsi_cmd_req elsewhere;
	const struct virtio_scsi_cmd_req *header = &elsewhere;

	if (chain->read_bytes < sizeof *header) {
		virtqueue_break(q->vq, "a request with %llu readable bytes has no header",
				(unsigned long long)chain->read_bytes);
		return false;
	}
	if (chain->write_bytes < sizeof(struct virtio_scsi_cmd_resp)) {
		virtqueue_break(q->vq,
				"a request with %llu writable bytes has no room for its response",
				(unsigned long long)chain->write_bytes);
		return false;
	}
	/* Each byte is read once, and to where it stays. */
	if (r->vec->iov_len >= sizeof *header)
		header = r->vec->iov_base;
	else
		io_data_copy_out(readable, &elsewhere, sizeof elsewhere);
	command->target = scsi_address(header->lun, &command->lun);
	command->tag = le64toh(header->tag);
	command->attribute = header->task_attr;
	memcpy(command->cdb, header->cdb, sizeof command->cdb);
	command->cdb_length = sizeof command->cdb;
	command->out_length = chain->read_bytes - sizeof *header;
	command->in_length = chain->write_bytes - sizeof(struct virtio_scsi_cmd_resp);
	command->out = command->in = (struct io_data){ 0 };
	if (command->out_length)
		command->out = io_data_slice(readable, sizeof *header);
	if (command->in_length)
		command->in = io_data_slice(writable, sizeof(struct virtio_scsi_cmd_resp));
	command->done = completed;
	command->owner = q;
	if (command->attribute > VIRTIO_SCSI_S_ACA ||
	    (command->out_length && command->in_length &&
	     !(q->scsi->dev.features >> VIRTIO_SCSI_F_INOUT & 1)))
		refuse(q, r);
	else
		scsi_execute(q->target, command);
	return true;
}

bool scsi_requests_poll(struct virtqueue *vq)
{
	struct request_queue *q = vq->type;
	struct request *batch[BATCH];
	unsigned n = 0, i;

	while (n < q->batch) {
		struct request *r = take(q);

		if (!r)
			break;
		if (virtqueue_pop(vq, &r->chain, r->vec, VECTORS) <= 0) {
			put(q, r);
			break;
		}
		if (q->out > vq->size) {
			virtqueue_break(vq, "more than %u requests in a ring of %u", vq->size,
					vq->size);
			put(q, r);
			break;
		}
		__builtin_prefetch(r->vec->iov_base);
		batch[n++] = r;
	}
	q->batch = n < q->batch && vq->interrupted ? BATCH_FIRST : BATCH;
	for (i = 0; i < n && !vq->broken; i++)
		if (!start(q, batch[i]))
			break;
	for (; i < n; i++)
		put(q, batch[i]);
	if (q->refused) {
		q->refused = false;
		virtqueue_flush(vq);
	}
	return n > 0;
}
