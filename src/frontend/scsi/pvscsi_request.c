/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_request.c - one request of a PVSCSI adapter, from its ring to the SCSI target and back
 *
 *     pvscsi_request_start()   checked; its data gathered, from a list or not
 *     data_ready()             the data can be touched: to the target
 *     executed()               back from it
 *     data_finished()          the guest has its data: sense data, if there is any
 *     complete()               onto the completion ring; free
 *
 * Requests live in a pool, of which only as much memory is touched as is in use at once. A reset of
 * the adapter does not end what the storage is doing: such a request is dropped, which means that
 * it goes its way without being shown. (What a read still brings into the guest's pages cannot be
 * held back.)
 *
 * A driver that gives no room for sense data could not tell a CHECK CONDITION from success if it
 * looks at the host status only, as SeaBIOS does: it is told that sense data could not be
 * delivered.
 */
#include <errno.h>
#include <string.h>

#include "frontend/scsi/pvscsi_private.h"

#define DATA_MAX    (64ull << 20)         /* bytes of one request */
#define SG_ELEMENTS (2u * PVSCSI_VECTORS) /* of one list: some may be empty */

/* Queue tag messages of SCSI-2 */
enum { TAG_HEAD_OF_QUEUE = 0x21, TAG_ORDERED = 0x22, TAG_ACA = 0x2f };

static void data_finished(struct dma_transfer *t, int status);
static void sense_ready(struct dma_transfer *t, int status);
static void sense_finished(struct dma_transfer *t, int status);
static void executed(struct scsi_command *command);

/* --- the pool ----------------------------------------------------------------------- */

static struct pvscsi_request *get(struct pvscsi *p)
{
	struct pvscsi_request *r = p->free;

	if (r)
		p->free = r->next_free;
	else {
		r = &p->pool[p->fresh];
		r->adapter = p;
		r->dma.owner = r;
		r->command.tag = p->fresh;
		r->command.done = executed;
		r->command.owner = r;
		r->many = p->vectors + (size_t)p->fresh++ * PVSCSI_VECTORS;
	}
	p->out++;
	r->busy = true;
	return r;
}

static void put(struct pvscsi_request *r)
{
	struct pvscsi *p = r->adapter;
	bool first = !pvscsi_request_available(p);

	r->busy = false;
	r->next_free = p->free;
	p->free = r;
	p->out--;
	if (first)
		pvscsi_rings_kick(p);
	if (p->stopping)
		pvscsi_maybe_stopped(p);
}

struct pvscsi_request *pvscsi_request_find(struct pvscsi *p, uint64_t context, uint32_t target)
{
	for (struct pvscsi_request *r = p->pool; r < p->pool + p->fresh; r++)
		if (r->busy && !r->dropped && r->context == context && r->command.target == target)
			return r;
	return NULL;
}

void pvscsi_requests_drop(struct pvscsi *p)
{
	for (unsigned i = 0; p->pool && i < p->fresh; i++)
		p->pool[i].dropped = true;
}

/* --- the end ------------------------------------------------------------------------ */

static void complete(struct pvscsi_request *r)
{
	struct pvscsi_cmp *cmp = r->dropped ? NULL : pvscsi_rings_completion(r->adapter);

	if (cmp)
		*cmp = (struct pvscsi_cmp){
			.context = r->context,
			.data_length = r->command.moved,
			.sense_length = r->sense_length,
			.host_status = r->host_status,
			.scsi_status = r->command.status,
		};
	put(r);
}

/* It never reached the target. */
static void refuse(struct pvscsi_request *r, enum pvscsi_host_status host, enum scsi_status status)
{
	r->command.moved = 0;
	r->command.status = (uint8_t)status;
	r->host_status = (uint16_t)host;
	r->sense_length = 0;
	complete(r);
}

/* --- lists -------------------------------------------------------------------------- */

/*
 * Adds to @r's transfer the data of the list at @at, as far as @left reaches. A segment is in one
 * page, and looked at where it is; each element is copied once. -EFAULT: something is outside the
 * guest's memory; -ELOOP: it does not end; -EINVAL: it ends too early; and as dma_add().
 */
static int gather_list(struct pvscsi_request *r, uint64_t at, uint64_t left)
{
	const char *page = NULL;
	unsigned segments = 1;

	for (unsigned elements = 0; left; elements++) {
		uint32_t within = (uint32_t)(at % PVSCSI_PAGE);
		struct pvscsi_sg e;
		int ret;

		if (elements == SG_ELEMENTS)
			return -E2BIG;
		if (within > PVSCSI_PAGE - sizeof e)
			return -EINVAL;
		if (!page)
			page = dma_map(&r->adapter->pci.dma, at - within, PVSCSI_PAGE);
		if (!page)
			return -EFAULT;
		memcpy(&e, page + within, sizeof e);
		if (e.flags & PVSCSI_SG_CHAIN) {
			if (++segments > PVSCSI_SG_SEGMENTS)
				return -ELOOP;
			at = e.address;
			page = NULL;
			continue;
		}
		if (e.length > left)
			e.length = (uint32_t)left;
		ret = e.length ? dma_add(&r->dma, e.address, e.length) : 0;
		if (ret)
			return ret;
		left -= e.length;
		at += sizeof e;
		if (at % PVSCSI_PAGE == 0)
			page = NULL;
	}
	return 0;
}

/* One piece of the guest's is mostly one of ours; but a page each behind a virtual IOMMU. */
static int gather(struct pvscsi_request *r, const struct pvscsi_req *req)
{
	struct dma_space *space = &r->adapter->pci.dma;
	int ret;

	if (!(req->flags & PVSCSI_FLAG_SG_LIST)) {
		dma_begin(&r->dma, space, r->few, PVSCSI_FEW);
		ret = dma_add(&r->dma, req->data_address, req->data_length);
		if (ret != -E2BIG)
			return ret;
		dma_cancel(&r->dma);
	}
	dma_begin(&r->dma, space, r->many, PVSCSI_VECTORS);
	return req->flags & PVSCSI_FLAG_SG_LIST
		       ? gather_list(r, req->data_address, req->data_length)
		       : dma_add(&r->dma, req->data_address, req->data_length);
}

/* Lists that lie break the function; those that are only more than we take fail. */
static void gather_failed(struct pvscsi_request *r, const struct pvscsi_req *req, int error)
{
	struct pvscsi *p = r->adapter;
	unsigned long long at = req->data_address;

	dma_cancel(&r->dma);
	if (error == -EFAULT)
		pci_break(
			&p->pci,
			"the data of a request, or its list, at guest address %#llx is outside its "
			"memory",
			at);
	else if (error == -ELOOP)
		pci_break(&p->pci,
			  "the scatter-gather list at guest address %#llx does not end after %u "
			  "segments",
			  at, PVSCSI_SG_SEGMENTS);
	else if (error == -EINVAL)
		pci_break(&p->pci, "the scatter-gather list at guest address %#llx is not aligned",
			  at);
	else if (error == -E2BIG && log_limited(&p->complain))
		log_warn("vm %s: %s: a request with more than %u pieces of data was refused",
			 p->pci.device.vm, p->pci.device.label, PVSCSI_VECTORS);
	refuse(r, error == -ENOMEM ? PVSCSI_HOST_SUCCESS : PVSCSI_HOST_INVALID_PARAMETER,
	       error == -ENOMEM ? SCSI_BUSY : SCSI_GOOD);
}

/* --- the start ---------------------------------------------------------------------- */

static uint8_t attribute_of(uint8_t tag)
{
	return tag == TAG_HEAD_OF_QUEUE ? SCSI_HEAD_OF_QUEUE
	       : tag == TAG_ORDERED     ? SCSI_ORDERED
	       : tag == TAG_ACA         ? SCSI_ACA
					: SCSI_SIMPLE;
}

static void data_ready(struct dma_transfer *t, int status)
{
	struct pvscsi_request *r = t->owner;
	struct io_data data = { .vec = t->vec, .count = t->count };

	if (status) {
		refuse(r, PVSCSI_HOST_HARDWARE, SCSI_GOOD);
		return;
	}
	if (r->dropped || r->abort_wanted) {
		dma_cancel(t);
		refuse(r, PVSCSI_HOST_ABORTED, SCSI_GOOD);
		return;
	}
	if (r->to_host) {
		r->command.in = data;
		r->command.in_length = r->data_length;
	} else {
		r->command.out = data;
		r->command.out_length = r->data_length;
	}
	scsi_execute(r->adapter->queue, &r->command);
}

void pvscsi_request_start(struct pvscsi *p, const struct pvscsi_req *req)
{
	struct pvscsi_request *r = get(p);
	int ret;

	/* What the target gives back it sets itself; the rest is the same for all requests. */
	r->command.cdb_length = req->cdb_length;
	r->command.attribute = attribute_of(req->tag);
	r->command.target = req->target;
	r->command.lun = pvscsi_lun(req->lun);
	r->command.in = r->command.out = (struct io_data){ 0 };
	r->command.in_length = r->command.out_length = 0;
	r->context = req->context;
	r->sense_address = req->sense_address;
	r->sense_length = req->sense_length;
	r->data_length = req->flags & PVSCSI_FLAG_DIR_NONE ? 0 : req->data_length;
	/* Drivers that do not say want an answer. */
	r->to_host = req->flags & PVSCSI_FLAG_DIR_TO_HOST ||
		     !(req->flags & PVSCSI_FLAG_DIR_TO_DEVICE);
	r->host_status = PVSCSI_HOST_SUCCESS;
	r->dropped = r->abort_wanted = false;
	if (req->bus) {
		refuse(r, PVSCSI_HOST_SELECTION_TIMEOUT, SCSI_GOOD);
		return;
	}
	if (!req->cdb_length || req->cdb_length > sizeof req->cdb ||
	    req->flags & PVSCSI_FLAG_OUT_OF_BAND_CDB || r->data_length > DATA_MAX) {
		refuse(r, PVSCSI_HOST_INVALID_PARAMETER, SCSI_GOOD);
		return;
	}
	memcpy(r->command.cdb, req->cdb, sizeof req->cdb);
	if (!r->data_length) {
		scsi_execute(p->queue, &r->command);
		return;
	}
	ret = gather(r, req);
	if (ret)
		gather_failed(r, req, ret);
	else
		dma_ready(&r->dma, r->to_host ? DMA_TO_GUEST : DMA_FROM_GUEST, data_ready);
}

/* --- back from the target ----------------------------------------------------------- */

static void executed(struct scsi_command *command)
{
	struct pvscsi_request *r = command->owner;

	if (command->no_target)
		r->host_status = PVSCSI_HOST_SELECTION_TIMEOUT;
	else if (command->aborted)
		r->host_status = r->abort_wanted ? PVSCSI_HOST_ABORTED : PVSCSI_HOST_BUS_RESET;
	else if (command->overrun && command->status == SCSI_GOOD)
		r->host_status = PVSCSI_HOST_DATA_OVERRUN;
	if (!r->data_length) {
		data_finished(&r->dma, 0);
	} else if (r->dropped) {
		dma_cancel(&r->dma);
		complete(r);
	} else {
		dma_finish(&r->dma, command->moved, data_finished);
	}
}

static void data_finished(struct dma_transfer *t, int status)
{
	struct pvscsi_request *r = container_of(t, struct pvscsi_request, dma);
	uint32_t room = r->sense_length, length = r->command.sense_length;
	struct dma_space *space = &r->adapter->pci.dma;

	r->sense_length = 0;
	if (status)
		r->host_status = PVSCSI_HOST_HARDWARE;
	if (r->dropped || r->host_status == PVSCSI_HOST_SELECTION_TIMEOUT ||
	    r->command.status != SCSI_CHECK_CONDITION) {
		complete(r);
		return;
	}
	if (length > room)
		length = room;
	if (!length) {
		r->host_status = PVSCSI_HOST_SENSE_FAILED;
		complete(r);
		return;
	}
	r->sense_length = length;
	dma_begin(t, space, r->few, PVSCSI_FEW);
	if (dma_add(t, r->sense_address, length)) {
		dma_cancel(t);
		pci_break(&r->adapter->pci,
			  "room for sense data at guest address %#llx is outside its memory",
			  (unsigned long long)r->sense_address);
		complete(r);
		return;
	}
	dma_ready(t, DMA_TO_GUEST, sense_ready);
}

static void sense_ready(struct dma_transfer *t, int status)
{
	struct pvscsi_request *r = t->owner;
	struct io_data room = { .vec = t->vec, .count = t->count };

	if (status) {
		sense_finished(t, status);
		return;
	}
	if (r->dropped) {
		dma_cancel(t);
		complete(r);
		return;
	}
	io_data_copy_in(room, r->command.sense, r->sense_length);
	dma_finish(t, r->sense_length, sense_finished);
}

static void sense_finished(struct dma_transfer *t, int status)
{
	struct pvscsi_request *r = t->owner;

	if (status) {
		r->sense_length = 0;
		r->host_status = PVSCSI_HOST_SENSE_FAILED;
	}
	complete(r);
}
