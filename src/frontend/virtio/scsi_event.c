/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_event.c - the event queue of the virtio SCSI adapter (virtio 1.2, section 5.6.6.3)
 *
 * The driver keeps a few buffers in the ring, for us to write what happens to units: they come,
 * go, or change. We take one when there is something to write, so the ring asks for notifications
 * only while an event waits for a buffer.
 *
 * Something happens on any thread, and is told on the queue's: post() notes the event and sends a
 * message, of which there is one, so there is one under way at most. A queue does not end before
 * that has come (outstanding()). What cannot be kept, or happens while the queue is not in service,
 * is missed: the driver is told that much with the next event, and looks for itself.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_scsi.h>

#include "frontend/virtio/scsi_private.h"

#define VECTORS 16u

/* --- something happens: any thread -------------------------------------------------- */

static void post(struct scsi *scsi, uint32_t event, uint32_t reason, uint16_t target, uint64_t lun)
{
	struct scsi_events *events = &scsi->events;
	pthread_mutex_lock(&events->lock);
	if (!events->vq || events->count == SCSI_EVENTS)
		events->missed = true;
	else
		/* A LUN below 256 in the form that drivers know it by, from REPORT LUNS. */
		events->pending[events->count++] = (struct scsi_event){
			.event = event,
			.reason = reason,
			.lun = { 1, (uint8_t)target, (uint8_t)(lun < 256 ? 0 : 0x40 | lun >> 8),
				 (uint8_t)lun },
		};
	if (events->vq && !events->sent) {
		events->sent = true;
		loop_send(events->vq->loop, &events->message);
	}
	pthread_mutex_unlock(&events->lock);
}

static void units_changed(void *owner, uint16_t target, uint64_t lun, bool added)
{
	post(owner, VIRTIO_SCSI_T_TRANSPORT_RESET,
	     added ? VIRTIO_SCSI_EVT_RESET_RESCAN : VIRTIO_SCSI_EVT_RESET_REMOVED, target, lun);
}

static void unit_parameters_changed(void *owner, uint16_t target, uint64_t lun, uint8_t asc,
				    uint8_t ascq)
{
	post(owner, VIRTIO_SCSI_T_PARAM_CHANGE, (uint32_t)ascq << 8 | asc, target, lun);
}

const struct scsi_target_events scsi_target_events = {
	.units_changed = units_changed,
	.unit_parameters_changed = unit_parameters_changed,
};

/* --- the driver is told: the queue's thread ------------------------------------------ */

static bool wanted(const struct scsi *scsi, uint32_t event)
{
	unsigned feature = event == VIRTIO_SCSI_T_TRANSPORT_RESET ? VIRTIO_SCSI_F_HOTPLUG
								  : VIRTIO_SCSI_F_CHANGE;

	return scsi->dev.features >> feature & 1;
}

/* Those that the driver asked for. */
static void filter(struct scsi *scsi)
{
	struct scsi_events *events = &scsi->events;
	unsigned kept = 0;

	for (unsigned i = 0; i < events->count; i++)
		if (wanted(scsi, events->pending[i].event))
			events->pending[kept++] = events->pending[i];
	events->count = kept;
	if (!wanted(scsi, VIRTIO_SCSI_T_TRANSPORT_RESET) &&
	    !wanted(scsi, VIRTIO_SCSI_T_PARAM_CHANGE))
		events->missed = false;
}

/* Into the next buffer of the driver; false if there is none. */
static bool tell(struct virtqueue *vq, const struct scsi_event *event, bool missed)
{
	struct iovec vec[VECTORS];
	struct chain chain;
	struct virtio_scsi_event out = {
		.event = htole32(event->event | (missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0)),
		.reason = htole32(event->reason),
	};

	if (virtqueue_pop(vq, &chain, vec, VECTORS) <= 0)
		return false;
	if (chain.write_bytes < sizeof out) {
		virtqueue_break(vq, "a buffer of %llu bytes for events",
				(unsigned long long)chain.write_bytes);
		return false;
	}
	memcpy(out.lun, event->lun, sizeof out.lun);
	io_data_copy_in((struct io_data){ .vec = vec + chain.readable, .count = chain.writable },
			&out, sizeof out);
	virtqueue_push(vq, &chain, sizeof out);
	return true;
}

/*
 * Tells all there is. A queue that is being stopped has nothing in its ring but what a predecessor
 * took of it, which must go back.
 */
static bool deliver(struct scsi *scsi, struct virtqueue *vq)
{
	static const struct scsi_event none = { .event = VIRTIO_SCSI_T_NO_EVENT };
	struct scsi_events *events = &scsi->events;
	unsigned told = 0, returned = 0;

	pthread_mutex_lock(&events->lock);
	filter(scsi);
	while ((told < events->count || events->missed || vq->stopping) && !vq->broken) {
		if (!tell(vq, told < events->count ? &events->pending[told] : &none,
			  events->missed))
			break;
		events->missed = false;
		told += told < events->count;
		returned++;
	}
	if (told < events->count)
		events->missed = true;
	events->count = 0;
	vq->on_demand = !events->missed;
	pthread_mutex_unlock(&events->lock);
	virtqueue_flush(vq);
	return returned;
}

static void received(struct loop_message *message)
{
	struct scsi_events *events = container_of(message, struct scsi_events, message);
	struct virtqueue *vq;

	pthread_mutex_lock(&events->lock);
	events->sent = false;
	vq = events->vq;
	pthread_mutex_unlock(&events->lock);
	deliver(container_of(events, struct scsi, events), vq);
	if (!vq->on_demand && !vq->broken && !vq->stopping)
		loop_poller_wake(vq->loop, &vq->poller); /* to ask for a notification */
}

bool scsi_event_poll(struct virtqueue *vq)
{
	return deliver(vq->type, vq);
}

/* --- made and gone ------------------------------------------------------------------ */

void scsi_events_init(struct scsi_events *events)
{
	pthread_mutex_init(&events->lock, NULL);
	events->message.run = received;
}

void scsi_events_release(struct scsi_events *events)
{
	pthread_mutex_destroy(&events->lock);
}

void scsi_events_forget(struct scsi_events *events)
{
	pthread_mutex_lock(&events->lock);
	events->missed = false;
	events->count = 0;
	pthread_mutex_unlock(&events->lock);
}

/* A message under way holds the queue. Once it was said that there is none no other is sent. */
static unsigned outstanding(struct virtqueue *vq)
{
	struct scsi_events *events = &((struct scsi *)vq->type)->events;
	bool sent;

	pthread_mutex_lock(&events->lock);
	sent = events->sent;
	if (!sent && vq->stopping)
		events->vq = NULL;
	pthread_mutex_unlock(&events->lock);
	return sent;
}

int scsi_event_start(struct scsi *scsi, struct virtqueue *vq)
{
	vq->type = scsi;
	vq->outstanding = outstanding;
	vq->on_demand = true;
	pthread_mutex_lock(&scsi->events.lock);
	scsi->events.vq = vq;
	pthread_mutex_unlock(&scsi->events.lock);
	return 0;
}

void scsi_event_stop(struct virtqueue *vq)
{
	vq->type = NULL;
}
