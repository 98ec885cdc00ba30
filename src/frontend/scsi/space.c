/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * space.c - UNMAP, WRITE SAME, GET LBA STATUS: blocks that are given back, or all the same
 * (SBC-3, 4.7, 5.28, 5.40)
 *
 * What is unmapped reads as zeroes (LBPRZ), which guests rely on to zero cheaply. So both commands
 * send the disk write-zeroes that may give the space back, not discards, which promise nothing.
 */
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

enum { HEADER = 8, DESCRIPTOR = 16 };

static uint64_t most_blocks(const struct scsi_port *port)
{
	return SPACE_BYTES >> port->shift;
}

/* --- UNMAP -------------------------------------------------------------------------- */

/* work->at is the descriptor that is next, work->left how many there are. */
static void unmap_next(struct scsi_command *command, int status)
{
	struct scsi_work *work = command->work;
	const struct scsi_port *port = command->port;
	uint32_t count;

	if (status) {
		scsi_fail_io(command, IO_ZEROES, status, work->lba);
		return;
	}
	if (!work->left) {
		scsi_good(command);
		return;
	}
	work->lba = get64(work->bytes + work->at);
	count = get32(work->bytes + work->at + 8);
	work->at += DESCRIPTOR;
	work->left--;
	scsi_submit(command, IO_ZEROES, IO_UNMAP | scsi_fua(command, false),
		    work->lba << port->shift, (uint64_t)count << port->shift, (struct io_data){ 0 },
		    unmap_next);
}

static void unmap_checked(struct scsi_command *command)
{
	struct scsi_work *work = command->work;
	uint64_t length = scsi_cdb_count(command->operation, command->cdb);
	uint64_t described = min64(get16(work->bytes + 2), length - HEADER);

	work->at = HEADER;
	work->left = described / DESCRIPTOR;
	for (uint64_t i = 0, at = HEADER; i < work->left; i++, at += DESCRIPTOR) {
		if (get32(work->bytes + at + 8) > most_blocks(command->port)) {
			scsi_bad_parameter(command, (unsigned)at + 8, -1);
			return;
		}
		if (!scsi_in_range(command, get64(work->bytes + at), get32(work->bytes + at + 8)))
			return;
	}
	unmap_next(command, 0);
}

void scsi_unmap(struct scsi_command *command)
{
	uint64_t length = scsi_cdb_count(command->operation, command->cdb);

	if (command->cdb[1] & 1) { /* ANCHOR: there are no anchored blocks */
		scsi_bad_field(command, 1, 0);
		return;
	}
	if (!length) {
		scsi_good(command);
		return;
	}
	if (length < HEADER) {
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x1a, 0x00);
		return;
	}
	if (length > HEADER + UNMAP_DESCRIPTORS * DESCRIPTOR) {
		scsi_bad_field(command, 7, -1);
		return;
	}
	if (scsi_work(command, length) && scsi_parameters(command, command->work->bytes, length))
		unmap_checked(command);
}

/* --- WRITE SAME --------------------------------------------------------------------- */

static bool all_zeroes(const uint8_t *bytes, uint64_t n)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, n - 1);
}

static void filled(struct scsi_command *command, int status)
{
	struct scsi_work *work = command->work;
	uint64_t n;

	if (status) {
		scsi_fail_io(command, work->op, status, work->lba);
		return;
	}
	work->lba += work->at;
	work->left -= work->at;
	if (!work->left) {
		scsi_good(command);
		return;
	}
	n = work->op == IO_WRITE ? min64(work->left, work->room >> command->port->shift)
				 : work->left;
	work->at = n;
	if (work->op == IO_WRITE)
		scsi_submit_work(command, IO_WRITE, scsi_fua(command, false), work->lba,
				 n << command->port->shift, filled);
	else
		scsi_submit(command, IO_ZEROES,
			    scsi_fua(command, false) | (command->cdb[1] & 8 ? IO_UNMAP : 0),
			    work->lba << command->port->shift, n << command->port->shift,
			    (struct io_data){ 0 }, filled);
}

void scsi_write_same(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	const uint8_t *cdb = command->cdb;
	bool no_data = cdb[0] == 0x93 && cdb[1] & 1;
	uint64_t lba, count, room;
	struct scsi_work *work;

	scsi_range(cdb, &lba, &count);
	if (cdb[1] & 0xe0) {
		scsi_bad_field(command, 1, 7);
		return;
	}
	if (cdb[1] & 0x10) { /* ANCHOR */
		scsi_bad_field(command, 1, 4);
		return;
	}
	if (cdb[1] & 0x08 && !(port->kind & FOR_THIN)) {
		scsi_bad_field(command, 1, 3);
		return;
	}
	if (cdb[1] & (cdb[0] == 0x93 ? 0x06 : 0x07)) { /* PBDATA, LBDATA: obsolete */
		scsi_bad_field(command, 1, 2);
		return;
	}
	if (!scsi_in_range(command, lba, count))
		return;
	if (!count || count > most_blocks(port)) { /* WSNZ */
		scsi_bad_field(command, command->operation->length_at, -1);
		return;
	}
	if (!no_data && !scsi_has_data(command, port->block))
		return;
	room = no_data ? 0 : min64(count << port->shift, WORK_BYTES);
	if (!scsi_work(command, room))
		return;
	work = command->work;
	work->lba = lba;
	work->left = count;
	if (!no_data) {
		io_data_copy_out(command->out, work->bytes, port->block);
		command->moved = port->block;
	}
	work->op = no_data || all_zeroes(work->bytes, port->block) ? IO_ZEROES : IO_WRITE;
	if (work->op == IO_WRITE)
		for (uint64_t at = port->block; at < room; at += port->block)
			memcpy(work->bytes + at, work->bytes, port->block);
	filled(command, 0);
}

/* --- GET LBA STATUS ----------------------------------------------------------------- */

/* Disks do not tell what is mapped; so all is, as a target may say: SBC-3, 5.6. */
void scsi_get_lba_status(struct scsi_command *command)
{
	uint64_t lba = get64(command->cdb + 2), blocks = scsi_blocks(command->port);
	uint8_t data[24] = { 0 };

	if (!scsi_in_range(command, lba, 1))
		return;
	put32(data, sizeof data - 4);
	put64(data + 8, lba);
	put32(data + 16, min64(blocks - lba, UINT32_MAX));
	scsi_reply(command, data, sizeof data);
}
