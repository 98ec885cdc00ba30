/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_private.h - what the rooms of the virtio SCSI host bus adapter share
 *
 *     scsi.c          the device: features, units, options
 *     scsi_queue.c    request queues: commands on their way to the target and back
 *     scsi_control.c  the control queue: task management
 *     scsi_event.c    the event queue: units that come, go, and change
 */
#pragma once

#include <endian.h>
#include <pthread.h>
#include <string.h>

#include "frontend/scsi/scsi.h"
#include "frontend/virtio/device.h"
#include "frontend/virtio/virtqueue.h"

/* Queues of the device, by number: virtio 1.2, 5.6.2. */
enum { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_REQUEST };

#define SCSI_UNITS      64u
#define SCSI_EVENTS     16u
#define SCSI_NO_ADDRESS UINT16_MAX /* a target that nobody has */

/* What there is to tell the driver. */
struct scsi_events {
	pthread_mutex_t lock; /* all of this */
	struct virtqueue *vq; /* NULL: not in service */
	bool sent;            /* @message is under way to @vq */
	struct loop_message message;
	bool missed; /* more than we could keep or tell */
	unsigned count;
	struct scsi_event {
		uint32_t event, reason; /* virtio 1.2, 5.6.6.3 */
		uint8_t lun[8];
	} pending[SCSI_EVENTS];
};

struct scsi {
	struct virtio_device dev;
	struct scsi_target *target;
	struct scsi_events events;
	struct scsi_unit_settings settings[SCSI_UNITS]; /* of the units, there or not */
};

static inline struct scsi *scsi_of(struct virtio_device *dev)
{
	return container_of(dev, struct scsi, dev);
}

/*
 * Whom a request is for (5.6.6.1): one byte 1, the target, and a single level LUN. What is nothing
 * of the kind (the REPORT LUNS well-known unit too, which we do not have) is for nobody.
 */
static inline uint16_t scsi_address(const uint8_t address[8], uint64_t *lun)
{
	uint64_t number;

	memcpy(&number, address, sizeof number);
	number = be64toh(number);
	*lun = number << 16;
	return number >> 56 == 1 ? number >> 48 & 0xff : SCSI_NO_ADDRESS;
}

/* --- scsi_queue.c ------------------------------------------------------------------- */

int scsi_requests_start(struct scsi *scsi, struct virtqueue *vq);
void scsi_requests_stop(struct virtqueue *vq);
bool scsi_requests_poll(struct virtqueue *vq);

/* --- scsi_control.c ----------------------------------------------------------------- */

int scsi_control_start(struct scsi *scsi, struct virtqueue *vq);
void scsi_control_stop(struct virtqueue *vq);
bool scsi_control_poll(struct virtqueue *vq);

/* --- scsi_event.c ------------------------------------------------------------------- */

extern const struct scsi_target_events scsi_target_events;

void scsi_events_init(struct scsi_events *events);
void scsi_events_release(struct scsi_events *events);
/* Nobody is to hear of what happened before. */
void scsi_events_forget(struct scsi_events *events);
int scsi_event_start(struct scsi *scsi, struct virtqueue *vq);
void scsi_event_stop(struct virtqueue *vq);
bool scsi_event_poll(struct virtqueue *vq);
