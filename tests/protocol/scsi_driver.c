/* SPDX-License-Identifier: BSD-3-Clause */
/* scsi_driver.c - virtio-scsi on our own driver side; see scsi_driver.h */
#include "scsi_driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void scsi_address(uint8_t address[8], unsigned target, unsigned lun)
{
	memset(address, 0, 8);
	address[0] = 1;
	address[1] = (uint8_t)target;
	address[2] = (uint8_t)(0x40 | lun >> 8);
	address[3] = (uint8_t)lun;
}

void scsi_put(uint8_t *to, unsigned bytes, uint64_t value)
{
	while (bytes--) {
		to[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

uint64_t scsi_get(const uint8_t *from, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *from++;
	return value;
}

void scsi_cdb_rw(uint8_t *cdb, bool write, uint32_t lba, uint16_t blocks)
{
	memset(cdb, 0, 10);
	cdb[0] = write ? 0x2a : 0x28;
	scsi_put(cdb + 2, 4, lba);
	scsi_put(cdb + 7, 2, blocks);
}

/* --- requests ----------------------------------------------------------------------- */

static void add_piece(struct slot *slot, uint64_t address, uint32_t length, uint16_t flags)
{
	slot->piece[slot->pieces++] =
		(struct piece){ .address = address, .length = length, .flags = flags };
}

static void add_data(struct slot *slot, uint32_t length, unsigned segments, uint16_t flags)
{
	uint32_t at = 0;

	for (unsigned left = segments; left && at < length; left--) {
		uint32_t size = left > 1 ? ((length - at) / left) | 1 : length - at;

		if (size > length - at)
			size = length - at;
		add_piece(slot, slot->data_guest + at, size, flags);
		at += size;
	}
}

void scsi_format(struct virtq *queue, uint16_t index, unsigned target, unsigned lun,
		 const uint8_t *cdb, unsigned cdb_bytes, enum scsi_way way, uint32_t length,
		 unsigned segments)
{
	struct slot *slot = &queue->slot[index];

	memset(slot->command, 0, sizeof(*slot->command));
	scsi_address(slot->command->lun, target, lun);
	slot->command->tag = index;
	memcpy(slot->command->cdb, cdb, cdb_bytes);
	slot->length = length;
	slot->pieces = 0;
	add_piece(slot, slot->header_guest, sizeof(*slot->command), 0);
	if (way == SCSI_OUT)
		add_data(slot, length, segments, 0);
	add_piece(slot, slot->status_guest, sizeof(*slot->response), VRING_DESC_F_WRITE);
	if (way == SCSI_IN)
		add_data(slot, length, segments, VRING_DESC_F_WRITE);
	virtq_format_pieces(queue, index);
}

struct scsi_answer scsi_answer(const struct slot *slot)
{
	const struct virtio_scsi_cmd_resp *r = slot->response;
	struct scsi_answer answer = { .response = r->response,
				      .status = r->status,
				      .residual = r->resid,
				      .used = slot->used };

	if (r->sense_len >= 14 && (r->sense[0] & 0x7f) == 0x70) {
		answer.key = r->sense[2] & 0xf;
		answer.asc = r->sense[12];
		answer.ascq = r->sense[13];
	}
	return answer;
}

int scsi_wait(struct virtq *queue)
{
	uint16_t done;
	int ret = virtq_wait(queue, DRIVER_WAIT_MS);

	if (ret) {
		snprintf(queue->driver->error, sizeof(queue->driver->error), "queue %u: %s",
			 queue->index,
			 ret == -ENOMSG ? "completed without an interrupt" : "no completion");
		return ret;
	}
	ret = virtq_reap(queue, &done, 1);
	return ret == 1 ? done : ret < 0 ? ret : -EPROTO;
}

/* Sends a formatted slot and waits for it. */
static int complete(struct virtq *queue, uint16_t slot)
{
	int done;

	virtq_push(queue, slot);
	virtq_publish(queue);
	done = scsi_wait(queue);
	return done < 0 ? done : done == slot ? 0 : -EPROTO;
}

int scsi_command(struct virtq *queue, unsigned target, unsigned lun, const uint8_t *cdb,
		 unsigned cdb_bytes, enum scsi_way way, void *bytes, uint32_t length,
		 struct scsi_answer *answer)
{
	int taken = virtq_take(queue), ret;

	if (taken < 0)
		return taken;
	struct slot *slot = &queue->slot[taken];
	if (way == SCSI_OUT)
		memcpy(slot->data, bytes, length);
	scsi_format(queue, (uint16_t)taken, target, lun, cdb, cdb_bytes, way, length, 1);
	ret = complete(queue, (uint16_t)taken);
	if (ret)
		return ret; /* the slot is lost with the ring */
	if (way == SCSI_IN)
		memcpy(bytes, slot->data, length);
	*answer = scsi_answer(slot);
	virtq_release(queue, (uint16_t)taken);
	return 0;
}

static int good(int ret, const struct scsi_answer *answer, struct virtq *queue)
{
	if (ret || !(answer->response | answer->status))
		return ret;
	snprintf(queue->driver->error, sizeof(queue->driver->error),
		 "response %u, status %#x, sense %x/%02x/%02x", answer->response, answer->status,
		 answer->key, answer->asc, answer->ascq);
	return -EIO;
}

int scsi_read(struct virtq *queue, uint32_t lba, void *bytes, uint16_t blocks)
{
	struct scsi_answer answer;
	uint8_t cdb[10];

	scsi_cdb_rw(cdb, false, lba, blocks);
	return good(
		scsi_command(queue, 0, 0, cdb, sizeof(cdb), SCSI_IN, bytes, blocks * 512u, &answer),
		&answer, queue);
}

int scsi_write(struct virtq *queue, uint32_t lba, const void *bytes, uint16_t blocks)
{
	struct scsi_answer answer;
	uint8_t cdb[10];

	scsi_cdb_rw(cdb, true, lba, blocks);
	return good(scsi_command(queue, 0, 0, cdb, sizeof(cdb), SCSI_OUT, (void *)bytes,
				 blocks * 512u, &answer),
		    &answer, queue);
}

int scsi_capacity(struct virtq *queue, uint64_t *bytes)
{
	struct scsi_answer answer;
	uint8_t cdb[16] = { 0x9e, 0x10, [13] = 32 }, data[32];
	int ret = scsi_command(queue, 0, 0, cdb, sizeof(cdb), SCSI_IN, data, sizeof(data), &answer);

	ret = good(ret, &answer, queue);
	if (!ret)
		*bytes = (scsi_get(data, 8) + 1) * scsi_get(data + 8, 4);
	return ret;
}

int scsi_settle(struct virtq *queue, unsigned target, unsigned lun)
{
	struct scsi_answer answer;
	uint8_t cdb[6] = { 0 };

	for (unsigned i = 0; i < 10; i++) {
		int ret = scsi_command(queue, target, lun, cdb, sizeof(cdb), SCSI_NONE, NULL, 0,
				       &answer);
		if (ret || answer.key != 6)
			return good(ret, &answer, queue);
	}
	return -EIO;
}

/* --- the control queue -------------------------------------------------------------- */

int scsi_task_push(struct virtq *control, uint32_t subtype, unsigned target, unsigned lun,
		   uint64_t tag)
{
	int taken = virtq_take(control);

	if (taken < 0)
		return taken;
	struct slot *slot = &control->slot[taken];
	*slot->task = (struct virtio_scsi_ctrl_tmf_req){ .type = VIRTIO_SCSI_T_TMF,
							 .subtype = subtype,
							 .tag = tag };
	scsi_address(slot->task->lun, target, lun);
	slot->pieces = 0;
	add_piece(slot, slot->header_guest, sizeof(*slot->task), 0);
	add_piece(slot, slot->status_guest, sizeof(struct virtio_scsi_ctrl_tmf_resp),
		  VRING_DESC_F_WRITE);
	virtq_format_pieces(control, (uint16_t)taken);
	virtq_push(control, (uint16_t)taken);
	virtq_publish(control);
	return taken;
}

int scsi_task(struct virtq *control, uint32_t subtype, unsigned target, unsigned lun, uint64_t tag)
{
	int slot = scsi_task_push(control, subtype, target, lun, tag), done;

	if (slot < 0)
		return slot;
	done = scsi_wait(control);
	if (done != slot)
		return done < 0 ? done : -EPROTO;
	virtq_release(control, (uint16_t)slot);
	return *(const volatile uint8_t *)control->slot[slot].response;
}

int scsi_notifications(struct virtq *control, uint32_t type, unsigned target, unsigned lun,
		       uint32_t *actual)
{
	int taken = virtq_take(control), ret;

	if (taken < 0)
		return taken;
	struct slot *slot = &control->slot[taken];
	*slot->notifications =
		(struct virtio_scsi_ctrl_an_req){ .type = type, .event_requested = ~0u };
	scsi_address(slot->notifications->lun, target, lun);
	slot->pieces = 0;
	add_piece(slot, slot->header_guest, sizeof(*slot->notifications), 0);
	add_piece(slot, slot->status_guest, sizeof(*slot->actual), VRING_DESC_F_WRITE);
	virtq_format_pieces(control, (uint16_t)taken);
	memset(slot->actual, 0xff, sizeof(*slot->actual));
	ret = complete(control, (uint16_t)taken);
	if (ret)
		return ret;
	virtq_release(control, (uint16_t)taken);
	*actual = slot->actual->event_actual;
	return slot->actual->response;
}

/* --- the event queue ---------------------------------------------------------------- */

int scsi_give_event_buffer(struct virtq *events)
{
	int taken = virtq_take(events);

	if (taken < 0)
		return taken;
	struct slot *slot = &events->slot[taken];
	slot->pieces = 0;
	add_piece(slot, slot->status_guest, sizeof(*slot->event), VRING_DESC_F_WRITE);
	virtq_format_pieces(events, (uint16_t)taken);
	virtq_push(events, (uint16_t)taken);
	virtq_publish(events);
	return 0;
}

int scsi_wait_event(struct virtq *events, struct virtio_scsi_event *event, int timeout_ms)
{
	uint16_t done;
	int ret = virtq_wait(events, timeout_ms);

	if (ret)
		return ret;
	ret = virtq_reap(events, &done, 1);
	if (ret != 1)
		return ret < 0 ? ret : -EPROTO;
	*event = *events->slot[done].event;
	virtq_release(events, done);
	return events->slot[done].used == sizeof(*event) ? 0 : -EPROTO;
}
