/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inquiry.c - what a unit is: INQUIRY with its vital product data pages, REPORT LUNS, TEST UNIT
 * READY, REQUEST SENSE (SPC-4, 6 and 7.8; SBC-3, 6.6)
 *
 * A disk's designators come from its serial number alone, so two VMs that share a disk see one and
 * the same: that is how their cluster software knows it.
 */
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

enum { TYPE_DISK = 0x00, TYPE_CDROM = 0x05, NOT_THERE = 0x7f };

/* Text, padded with blanks. */
static void put_text(uint8_t *to, const char *text, size_t length)
{
	size_t n = strnlen(text, length);

	memcpy(to, text, n);
	memset(to + n, ' ', length - n);
}

/* --- standard data: SPC-4, 6.6.2 ---------------------------------------------------- */

static void standard_inquiry(struct scsi_command *command)
{
	const struct scsi_unit *unit = command->port ? command->port->unit : NULL;
	/* SAM-5, SPC-4, SBC-3 or MMC-6; no versions of them claimed */
	const uint16_t standards[] = { 0x00a0, 0x0460, unit && unit->cdrom ? 0x04e0 : 0x04c0 };
	uint8_t data[96] = { 0 };

	data[0] = !unit ? NOT_THERE : unit->cdrom ? TYPE_CDROM : TYPE_DISK;
	data[1] = unit && unit->removable ? 0x80 : 0;
	data[2] = 6;        /* SPC-4 */
	data[3] = 0x10 | 2; /* HISUP; the format of this data */
	data[4] = sizeof data - 5;
	data[7] = 0x02; /* CMDQUE */
	put_text(data + 8, unit ? unit->vendor : "PENSTOCK", 8);
	put_text(data + 16, unit ? unit->product : "", 16);
	put_text(data + 32, "1", 4);
	for (unsigned i = 0; i < 3; i++)
		put16(data + 58 + 2 * (size_t)i, standards[i]);
	scsi_reply(command, data, sizeof data);
}

/* --- vital product data ------------------------------------------------------------- */

/* FNV-1a: names a disk by 60 bits of its serial number. */
static uint64_t hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3;
	return h;
}

static size_t page_serial(const struct scsi_port *port, uint8_t *data)
{
	size_t n = strlen(port->unit->serial);

	memcpy(data, port->unit->serial, n);
	return n;
}

/* SPC-4, 7.8.6: T10 vendor identification, NAA locally assigned, relative target port */
static size_t page_identification(const struct scsi_port *port, uint8_t *data)
{
	const struct scsi_unit *unit = port->unit;
	size_t n = strlen(unit->serial);
	uint8_t *at = data;

	at[0] = 2; /* ASCII */
	at[1] = 1; /* of the unit; T10 vendor ID */
	at[3] = (uint8_t)(8 + n);
	put_text(at + 4, unit->vendor, 8);
	memcpy(at + 12, unit->serial, n);
	at += 12 + n;
	at[0] = 1; /* binary */
	at[1] = 3; /* NAA */
	at[3] = 8;
	put64(at + 4, 3ull << 60 | hash(unit->serial) >> 4);
	at += 12;
	at[0] = 1;
	at[1] = 0x10 | 4; /* of the target port; its relative number */
	at[3] = 4;
	put16(at + 6, 1);
	return (size_t)(at + 8 - data);
}

/* SBC-3, 6.6.3 */
static size_t page_block_limits(const struct scsi_port *port, uint8_t *data)
{
	uint32_t block = port->block;
	uint64_t most = SPACE_BYTES / block;
	uint32_t physical = port->disk ? port->disk->limits.physical_block_size : block;
	uint32_t optimal = port->disk ? port->disk->limits.optimal_io : 0;
	bool space = port->disk && port->disk->limits.discard && !port->disk->config.read_only;

	data[0] = 0x01; /* WSNZ: WRITE SAME of 0 blocks is refused */
	data[1] = (uint8_t)min64(WORK_BYTES / 2 / block, 255); /* COMPARE AND WRITE */
	put16(data + 2, min64(physical / block, UINT16_MAX));
	put32(data + 4, most);
	put32(data + 8, optimal / block);
	if (space) {
		put32(data + 16, most);
		put32(data + 20, UNMAP_DESCRIPTORS);
		put32(data + 24, physical / block);
		put32(data + 28, 1u << 31); /* UGAVALID: aligned to 0 */
	}
	put64(data + 32, most); /* WRITE SAME */
	return 60;
}

/* SBC-3, 6.6.2 */
static size_t page_characteristics(const struct scsi_port *port, uint8_t *data)
{
	put16(data, port->unit->rotation);
	return 60;
}

/* SBC-3, 6.6.4: UNMAP, WRITE SAME with UNMAP, and zeroes afterwards */
static size_t page_provisioning(const struct scsi_port *port, uint8_t *data)
{
	if (port->disk && port->disk->limits.discard && !port->disk->config.read_only) {
		data[1] = 0x80 | 0x40 | 0x20 | 0x04; /* LBPU, LBPWS, LBPWS10, LBPRZ */
		data[2] = 2;                         /* thin */
	}
	return 4;
}

static size_t page_list(const struct scsi_port *port, uint8_t *data);

static const struct {
	uint8_t code;
	bool cdrom;
	size_t (*fill)(const struct scsi_port *port, uint8_t *data);
} pages[] = {
	{ 0x00, true, page_list },
	{ 0x80, true, page_serial },
	{ 0x83, true, page_identification },
	{ 0xb0, false, page_block_limits },
	{ 0xb1, false, page_characteristics },
	{ 0xb2, false, page_provisioning },
};
#define PAGES (sizeof pages / sizeof *pages)

static size_t page_list(const struct scsi_port *port, uint8_t *data)
{
	size_t n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		if (pages[i].cdrom || !port->unit->cdrom)
			data[n++] = pages[i].code;
	return n;
}

void scsi_inquiry(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	uint8_t code = command->cdb[2], data[4 + 252] = { 0 };

	if (!(command->cdb[1] & 1)) {
		if (code)
			scsi_bad_field(command, 2, -1);
		else
			standard_inquiry(command);
		return;
	}
	for (unsigned i = 0; i < PAGES && port; i++) {
		size_t n;

		if (pages[i].code != code || (port->unit->cdrom && !pages[i].cdrom))
			continue;
		data[0] = port->unit->cdrom ? TYPE_CDROM : TYPE_DISK;
		data[1] = code;
		n = pages[i].fill(port, data + 4);
		put16(data + 2, n);
		scsi_reply(command, data, 4 + n);
		return;
	}
	scsi_bad_field(command, 2, -1);
}

/* --- REPORT LUNS: SPC-4, 6.33 ------------------------------------------------------- */

void scsi_report_luns(struct scsi_command *command)
{
	struct scsi_queue *queue = command->queue;
	unsigned count = queue->target->unit_count;
	uint8_t select = command->cdb[2], *data;
	size_t n = 8;

	if (select > 2) {
		scsi_bad_field(command, 2, -1);
		return;
	}
	if (get32(command->cdb + 6) < 16) {
		scsi_bad_field(command, 6, -1);
		return;
	}
	data = calloc(1 + count, 8);
	if (!data) {
		scsi_set_status(command, SCSI_TASK_SET_FULL);
		return;
	}
	/* 1: well known units only; there are none */
	for (unsigned i = 0; i < count && select != 1; i++) {
		if (!queue->ports[i].present || queue->ports[i].unit->number != command->target)
			continue;
		put64(data + n, scsi_lun_address(queue->ports[i].unit->lun));
		n += 8;
	}
	put32(data, n - 8);
	if (command->port)
		atomic_fetch_and(&command->port->unit->attention, ~(1u << ATTENTION_UNITS));
	scsi_reply(command, data, n);
	free(data);
}

/* --- how a unit is ------------------------------------------------------------------ */

void scsi_test_unit_ready(struct scsi_command *command)
{
	scsi_good(command); /* its row has had the medium checked */
}

/* Sense data as parameter data, with GOOD: SPC-4, 6.39 */
void scsi_request_sense(struct scsi_command *command)
{
	struct sense sense = { 0 };
	uint8_t data[SCSI_SENSE_MAX];
	size_t n;

	if (!command->port) /* LOGICAL UNIT NOT SUPPORTED */
		sense = (struct sense){ .key = KEY_ILLEGAL_REQUEST, .asc = 0x25 };
	else if (!scsi_take_attention(command->port->unit, &sense) &&
		 !scsi_not_ready(command->port, &sense))
		sense = (struct sense){ 0 };
	n = scsi_write_sense(data, &sense, command->cdb[1] & 1);
	scsi_reply(command, data, n);
}

/* The self-test is passed; there are no others. SPC-4, 6.42 */
void scsi_send_diagnostic(struct scsi_command *command)
{
	if (!(command->cdb[1] & 4))
		scsi_bad_field(command, 1, 2);
	else
		scsi_good(command);
}
