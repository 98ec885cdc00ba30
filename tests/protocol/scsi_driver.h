/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_driver.h - virtio-scsi on our own driver side: commands, task management, events
 *
 * For a driver that was made with options.scsi. Calls that wait return 0 or -errno, as those of
 * driver.h do.
 */
#pragma once

#include "driver.h"

enum { SCSI_CONTROL, SCSI_EVENTS, SCSI_REQUESTS }; /* queues */

enum scsi_way { SCSI_NONE, SCSI_IN, SCSI_OUT };

/* What came back of a command. */
struct scsi_answer {
	uint8_t response, status;
	uint8_t key, asc, ascq; /* of its sense data; 0 without any */
	uint32_t residual;
	uint32_t used; /* bytes the device says it wrote, data and response */
};

/* virtio-scsi's form of an address. */
void scsi_address(uint8_t address[8], unsigned target, unsigned lun);

/* Big-endian numbers, as CDBs have them. */
void scsi_put(uint8_t *to, unsigned bytes, uint64_t value);
uint64_t scsi_get(const uint8_t *from, unsigned bytes);

/* READ(10) or WRITE(10) into a CDB. */
void scsi_cdb_rw(uint8_t *cdb, bool write, uint32_t lba, uint16_t blocks);

/* Describes a command in a slot, its data in so many segments. */
void scsi_format(struct virtq *queue, uint16_t slot, unsigned target, unsigned lun,
		 const uint8_t *cdb, unsigned cdb_bytes, enum scsi_way way, uint32_t length,
		 unsigned segments);
/* The answer in a slot that was reaped. */
struct scsi_answer scsi_answer(const struct slot *slot);

/* One command, waited for. */
int scsi_command(struct virtq *queue, unsigned target, unsigned lun, const uint8_t *cdb,
		 unsigned cdb_bytes, enum scsi_way way, void *bytes, uint32_t length,
		 struct scsi_answer *answer);
/* The same to unit 0:0; -EIO unless it comes back GOOD. */
int scsi_read(struct virtq *queue, uint32_t lba, void *bytes, uint16_t blocks);
int scsi_write(struct virtq *queue, uint32_t lba, const void *bytes, uint16_t blocks);
/* READ CAPACITY(10): bytes of the unit. */
int scsi_capacity(struct virtq *queue, uint64_t *bytes);
/* Takes the unit attentions away that a fresh unit has. */
int scsi_settle(struct virtq *queue, unsigned target, unsigned lun);

/* Waits for the next completion: the slot, or -errno. It is not released. */
int scsi_wait(struct virtq *queue);

/* Task management: VIRTIO_SCSI_S_*, or -errno. */
int scsi_task(struct virtq *control, uint32_t subtype, unsigned target, unsigned lun, uint64_t tag);
/* The same, not waited for: the slot. */
int scsi_task_push(struct virtq *control, uint32_t subtype, unsigned target, unsigned lun,
		   uint64_t tag);
/* A query of, or subscription to, asynchronous notifications: VIRTIO_SCSI_S_*, or -errno. */
int scsi_notifications(struct virtq *control, uint32_t type, unsigned target, unsigned lun,
		       uint32_t *actual);

/* Gives the device a buffer for an event. */
int scsi_give_event_buffer(struct virtq *events);
/* The next event within so many ms; its buffer is the driver's again. */
int scsi_wait_event(struct virtq *events, struct virtio_scsi_event *event, int timeout_ms);
