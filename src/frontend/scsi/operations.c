/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * operations.c - the table of all commands, and what it is asked for by REPORT SUPPORTED OPERATION
 * CODES (SPC-4, 6.35)
 *
 * A row says for which kind of unit a command is, what must be so before it is executed, which
 * reservations of other initiators forbid it (SPC-4, table 64; SBC-3, table 13), where its CDB has
 * the length of its data, and which bits of the CDB mean something to us.
 */
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

#define R CONFLICT_READ
#define W CONFLICT_WRITE

#define LBA2  0xff, 0xff
#define LBA4  LBA2, LBA2
#define LBA8  LBA4, LBA4
#define GROUP 0x1f

/* clang-format off */
static const struct scsi_operation operations[] = {
	{ 0x00, NO_ACTION, FOR_ALL | NEEDS_MEDIUM, 0, 0, 0, "TEST UNIT READY", scsi_test_unit_ready,
	  { 0x00 } },
	{ 0x03, NO_ACTION, FOR_ALL | NO_ATTENTION | NO_UNIT, 0, 4, 1, "REQUEST SENSE",
	  scsi_request_sense, { 0x03, 0x01, 0, 0, 0xff } },
	{ 0x08, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | BLOCKS, R, 4, 1, "READ (6)", scsi_read,
	  { 0x08, 0x1f, LBA2, 0xff } },
	{ 0x0a, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 4, 1,
	  "WRITE (6)", scsi_write, { 0x0a, 0x1f, LBA2, 0xff } },
	{ 0x12, NO_ACTION, FOR_ALL | NO_ATTENTION | NO_UNIT, 0, 3, 2, "INQUIRY", scsi_inquiry,
	  { 0x12, 0x01, 0xff, 0xff, 0xff } },
	{ 0x15, NO_ACTION, FOR_ALL | OUT, W, 4, 1, "MODE SELECT (6)", scsi_mode_select,
	  { 0x15, 0x11, 0, 0, 0xff } },
	{ 0x16, NO_ACTION, FOR_ALL, 0, 0, 0, "RESERVE (6)", scsi_reserve, { 0x16 } },
	{ 0x17, NO_ACTION, FOR_ALL, 0, 0, 0, "RELEASE (6)", scsi_release, { 0x17 } },
	{ 0x1a, NO_ACTION, FOR_ALL, R, 4, 1, "MODE SENSE (6)", scsi_mode_sense,
	  { 0x1a, 0x08, 0xff, 0xff, 0xff } },
	{ 0x1b, NO_ACTION, FOR_ALL, W, 0, 0, "START STOP UNIT", scsi_start_stop,
	  { 0x1b, 0x01, 0, 0x0f, 0xf7 } },
	{ 0x1d, NO_ACTION, FOR_DISK, W, 0, 0, "SEND DIAGNOSTIC", scsi_send_diagnostic,
	  { 0x1d, 0x04 } },
	{ 0x1e, NO_ACTION, FOR_ALL, 0, 0, 0, "PREVENT ALLOW MEDIUM REMOVAL", scsi_prevent_allow,
	  { 0x1e, 0, 0, 0, 0x03 } },
	{ 0x25, NO_ACTION, FOR_ALL | NEEDS_MEDIUM, 0, 0, 0, "READ CAPACITY (10)",
	  scsi_read_capacity_10, { 0x25, 0, LBA4, 0, 0, 0x01 } },
	{ 0x28, NO_ACTION, FOR_ALL | NEEDS_MEDIUM | BLOCKS, R, 7, 2, "READ (10)", scsi_read,
	  { 0x28, 0xf8, LBA4, GROUP, LBA2 } },
	{ 0x2a, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 7, 2,
	  "WRITE (10)", scsi_write, { 0x2a, 0xf8, LBA4, GROUP, LBA2 } },
	{ 0x2e, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 7, 2,
	  "WRITE AND VERIFY (10)", scsi_write_and_verify, { 0x2e, 0xf6, LBA4, GROUP, LBA2 } },
	{ 0x2f, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | BLOCKS | OUT, R, 7, 2, "VERIFY (10)",
	  scsi_verify, { 0x2f, 0xf6, LBA4, GROUP, LBA2 } },
	{ 0x34, NO_ACTION, FOR_DISK | NEEDS_MEDIUM, R, 0, 0, "PRE-FETCH (10)", scsi_prefetch,
	  { 0x34, 0x02, LBA4, GROUP, LBA2 } },
	{ 0x35, NO_ACTION, FOR_ALL | NEEDS_MEDIUM, W, 0, 0, "SYNCHRONIZE CACHE (10)",
	  scsi_synchronize_cache, { 0x35, 0x02, LBA4, GROUP, LBA2 } },
	{ 0x41, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 7, 2,
	  "WRITE SAME (10)", scsi_write_same, { 0x41, 0xf8, LBA4, GROUP, LBA2 } },
	{ 0x42, NO_ACTION, FOR_THIN | NEEDS_MEDIUM | CHANGES | WRITES | OUT, W, 7, 2, "UNMAP",
	  scsi_unmap, { 0x42, 0x01, 0, 0, 0, 0, GROUP, LBA2 } },
	{ 0x43, NO_ACTION, FOR_CDROM | NEEDS_MEDIUM, R, 7, 2, "READ TOC/PMA/ATIP", scsi_read_toc,
	  { 0x43, 0x02, 0x0f, 0, 0, 0, 0xff, LBA2, 0xc0 } },
	{ 0x46, NO_ACTION, FOR_CDROM | NO_ATTENTION, 0, 7, 2, "GET CONFIGURATION", scsi_get_configuration,
	  { 0x46, 0x03, LBA2, 0, 0, 0, LBA2 } },
	{ 0x4a, NO_ACTION, FOR_CDROM | NO_ATTENTION, 0, 7, 2, "GET EVENT STATUS NOTIFICATION",
	  scsi_get_event_status, { 0x4a, 0x01, 0, 0, 0xff, 0, 0, LBA2 } },
	{ 0x51, NO_ACTION, FOR_CDROM | NEEDS_MEDIUM, R, 7, 2, "READ DISC INFORMATION",
	  scsi_read_disc_information, { 0x51, 0x07, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x55, NO_ACTION, FOR_ALL | OUT, W, 7, 2, "MODE SELECT (10)", scsi_mode_select,
	  { 0x55, 0x11, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x56, NO_ACTION, FOR_ALL, 0, 0, 0, "RESERVE (10)", scsi_reserve, { 0x56 } },
	{ 0x57, NO_ACTION, FOR_ALL, 0, 0, 0, "RELEASE (10)", scsi_release, { 0x57 } },
	{ 0x5a, NO_ACTION, FOR_ALL, R, 7, 2, "MODE SENSE (10)", scsi_mode_sense,
	  { 0x5a, 0x18, 0xff, 0xff, 0, 0, 0, LBA2 } },
	{ 0x5e, 0x00, FOR_DISK, 0, 7, 2, "PERSISTENT RESERVE IN, READ KEYS", scsi_reserve_in,
	  { 0x5e, 0x00, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x5e, 0x01, FOR_DISK, 0, 7, 2, "PERSISTENT RESERVE IN, READ RESERVATION",
	  scsi_reserve_in, { 0x5e, 0x01, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x5e, 0x02, FOR_DISK, 0, 7, 2, "PERSISTENT RESERVE IN, REPORT CAPABILITIES",
	  scsi_reserve_in, { 0x5e, 0x02, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x5e, 0x03, FOR_DISK, 0, 7, 2, "PERSISTENT RESERVE IN, READ FULL STATUS",
	  scsi_reserve_in, { 0x5e, 0x03, 0, 0, 0, 0, 0, LBA2 } },
	{ 0x5f, 0x00, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, REGISTER",
	  scsi_reserve_out, { 0x5f, 0x00, 0, 0, 0, LBA4 } },
	{ 0x5f, 0x01, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, RESERVE",
	  scsi_reserve_out, { 0x5f, 0x01, 0xff, 0, 0, LBA4 } },
	{ 0x5f, 0x02, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, RELEASE",
	  scsi_reserve_out, { 0x5f, 0x02, 0xff, 0, 0, LBA4 } },
	{ 0x5f, 0x03, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, CLEAR",
	  scsi_reserve_out, { 0x5f, 0x03, 0, 0, 0, LBA4 } },
	{ 0x5f, 0x04, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, PREEMPT",
	  scsi_reserve_out, { 0x5f, 0x04, 0xff, 0, 0, LBA4 } },
	{ 0x5f, 0x05, FOR_DISK | OUT, 0, 5, 4, "PERSISTENT RESERVE OUT, PREEMPT AND ABORT",
	  scsi_reserve_out, { 0x5f, 0x05, 0xff, 0, 0, LBA4 } },
	{ 0x5f, 0x06, FOR_DISK | OUT, 0, 5, 4,
	  "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", scsi_reserve_out,
	  { 0x5f, 0x06, 0, 0, 0, LBA4 } },
	{ 0x88, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | BLOCKS, R, 10, 4, "READ (16)", scsi_read,
	  { 0x88, 0xf8, LBA8, LBA4, GROUP } },
	{ 0x89, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | BLOCKS | OUT, W, 13, 1,
	  "COMPARE AND WRITE", scsi_compare_and_write,
	  { 0x89, 0xf8, LBA8, 0, 0, 0, 0xff, GROUP } },
	{ 0x8a, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 10, 4,
	  "WRITE (16)", scsi_write, { 0x8a, 0xf8, LBA8, LBA4, GROUP } },
	{ 0x8e, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 10, 4,
	  "WRITE AND VERIFY (16)", scsi_write_and_verify, { 0x8e, 0xf6, LBA8, LBA4, GROUP } },
	{ 0x8f, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | BLOCKS | OUT, R, 10, 4, "VERIFY (16)",
	  scsi_verify, { 0x8f, 0xf6, LBA8, LBA4, GROUP } },
	{ 0x90, NO_ACTION, FOR_DISK | NEEDS_MEDIUM, R, 0, 0, "PRE-FETCH (16)", scsi_prefetch,
	  { 0x90, 0x02, LBA8, LBA4, GROUP } },
	{ 0x91, NO_ACTION, FOR_DISK | NEEDS_MEDIUM, W, 0, 0, "SYNCHRONIZE CACHE (16)",
	  scsi_synchronize_cache, { 0x91, 0x02, LBA8, LBA4, GROUP } },
	{ 0x93, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 10, 4,
	  "WRITE SAME (16)", scsi_write_same, { 0x93, 0xf9, LBA8, LBA4, GROUP } },
	{ 0x9e, 0x10, FOR_DISK | NEEDS_MEDIUM, 0, 10, 4, "READ CAPACITY (16)",
	  scsi_read_capacity_16, { 0x9e, 0x10, LBA8, LBA4, 0x01 } },
	{ 0x9e, 0x12, FOR_DISK | NEEDS_MEDIUM, R, 10, 4, "GET LBA STATUS", scsi_get_lba_status,
	  { 0x9e, 0x12, LBA8, LBA4 } },
	{ 0xa0, NO_ACTION, FOR_ALL | NO_ATTENTION | NO_UNIT, 0, 6, 4, "REPORT LUNS",
	  scsi_report_luns, { 0xa0, 0, 0xff, 0, 0, 0, LBA4 } },
	{ 0xa3, 0x0c, FOR_ALL, 0, 6, 4, "REPORT SUPPORTED OPERATION CODES",
	  scsi_report_operations, { 0xa3, 0x0c, 0x87, 0xff, LBA2, LBA4 } },
	{ 0xa3, 0x0d, FOR_ALL, 0, 6, 4, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
	  scsi_report_task_functions, { 0xa3, 0x0d, 0x80, 0, 0, 0, LBA4 } },
	{ 0xa8, NO_ACTION, FOR_ALL | NEEDS_MEDIUM | BLOCKS, R, 6, 4, "READ (12)", scsi_read,
	  { 0xa8, 0xf8, LBA4, LBA4, GROUP } },
	{ 0xaa, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 6, 4,
	  "WRITE (12)", scsi_write, { 0xaa, 0xf8, LBA4, LBA4, GROUP } },
	{ 0xae, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | CHANGES | WRITES | BLOCKS | OUT, W, 6, 4,
	  "WRITE AND VERIFY (12)", scsi_write_and_verify, { 0xae, 0xf6, LBA4, LBA4, GROUP } },
	{ 0xaf, NO_ACTION, FOR_DISK | NEEDS_MEDIUM | BLOCKS | OUT, R, 6, 4, "VERIFY (12)",
	  scsi_verify, { 0xaf, 0xf6, LBA4, LBA4, GROUP } },
	{ 0xbb, NO_ACTION, FOR_CDROM, R, 0, 0, "SET CD SPEED", scsi_set_cd_speed,
	  { 0xbb, 0x03, LBA4 } },
	{ 0xbd, NO_ACTION, FOR_CDROM, R, 8, 2, "MECHANISM STATUS", scsi_mechanism_status,
	  { 0xbd, 0, 0, 0, 0, 0, 0, 0, LBA2 } },
	{ 0xbe, NO_ACTION, FOR_CDROM | NEEDS_MEDIUM | BLOCKS, R, 6, 3, "READ CD", scsi_read_cd,
	  { 0xbe, 0x1c, LBA4, 0xff, 0xff, 0xff, 0xf8, 0x07 } },
};
/* clang-format on */

#define COUNT (sizeof operations / sizeof *operations)

/* Of each operation code the first row, and one more; 0: none. */
static uint8_t first_row[256];

__attribute__((constructor)) static void index_rows(void)
{
	for (unsigned i = COUNT; i--;)
		first_row[operations[i].opcode] = (uint8_t)(i + 1);
}

/* The length is in the code's group: SPC-4, 4.2.5.1. Groups 3, 6 and 7 have none of ours. */
unsigned scsi_cdb_length(uint8_t opcode)
{
	static const uint8_t lengths[8] = { 6, 10, 10, 6, 16, 12, 6, 6 };

	return lengths[opcode >> 5];
}

const struct scsi_operation *scsi_operation_find(const uint8_t *cdb, unsigned kind, bool *known)
{
	unsigned first = first_row[cdb[0]];

	*known = false;
	if (!first)
		return NULL;
	for (const struct scsi_operation *row = &operations[first - 1];
	     row < operations + COUNT && row->opcode == cdb[0]; row++) {
		if (!(row->flags & kind))
			continue;
		*known = true;
		if (row->action == NO_ACTION || row->action == (cdb[1] & 0x1f))
			return row;
	}
	return NULL;
}

uint64_t scsi_cdb_count(const struct scsi_operation *operation, const uint8_t *cdb)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < operation->length_size; i++)
		count = count << 8 | cdb[operation->length_at + i];
	if (operation->flags & BLOCKS && operation->length_size == 1 && !count &&
	    cdb[0] != 0x89) /* READ (6), WRITE (6): SBC-3, 5.7 */
		return 256;
	return count;
}

uint64_t scsi_cdb_blocks(const struct scsi_operation *operation, const uint8_t *cdb)
{
	uint64_t count = scsi_cdb_count(operation, cdb);
	unsigned check = cdb[1] >> 1 & 3;

	switch (cdb[0]) {
	case 0x41: /* WRITE SAME: one block, whatever the count */
		return 1;
	case 0x93:
		return !(cdb[1] & 1); /* NDOB */
	case 0x89:
		return 2 * count;
	case 0x2f: /* VERIFY: by BYTCHK */
	case 0x8f:
	case 0xaf:
		return check == 0 ? 0 : check == 3 ? !!count : count;
	default:
		return count;
	}
}

/* --- REPORT SUPPORTED OPERATION CODES ----------------------------------------------- */

enum {
	OPTION_ALL,          /* all commands */
	OPTION_OPCODE,       /* one, that has no service actions */
	OPTION_ACTION,       /* one, that has */
	OPTION_EITHER,       /* one, that may have */
	DESCRIPTOR = 8,      /* bytes for each command in the list of all */
	TIMEOUTS = 12,       /* bytes of the timeouts descriptor; no times are told */
	SUPPORT_NO = 1,      /* SUPPORT of the one-command format */
	SUPPORT_STANDARD = 3 /* as a standard says */
};

static void put_timeouts(uint8_t *to)
{
	memset(to, 0, TIMEOUTS);
	put16(to, TIMEOUTS - 2);
}

static void report_all(struct scsi_command *command, bool timeouts)
{
	uint8_t data[4 + COUNT * (DESCRIPTOR + TIMEOUTS)] = { 0 }, *at = data + 4;

	for (const struct scsi_operation *row = operations; row < operations + COUNT; row++) {
		if (!(row->flags & command->port->kind))
			continue;
		at[0] = row->opcode;
		if (row->action != NO_ACTION) {
			at[3] = row->action;
			at[5] = 1; /* SERVACTV */
		}
		put16(at + 6, scsi_cdb_length(row->opcode));
		if (timeouts) {
			at[5] |= 2; /* CTDP */
			put_timeouts(at + DESCRIPTOR);
			at += TIMEOUTS;
		}
		at += DESCRIPTOR;
	}
	put32(data, (uint64_t)(at - data - 4));
	scsi_reply(command, data, (size_t)(at - data));
}

void scsi_report_operations(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	bool timeouts = cdb[2] & 0x80, known;
	const struct scsi_operation *row;
	uint8_t asked[2] = { cdb[3], cdb[5] & 0x1f }, data[4 + 16 + TIMEOUTS] = { 0 };
	unsigned option = cdb[2] & 7, length;

	if (option == OPTION_ALL) {
		report_all(command, timeouts);
		return;
	}
	if (option > OPTION_EITHER) {
		scsi_bad_field(command, 2, 2);
		return;
	}
	row = scsi_operation_find(asked, command->port->kind, &known);
	if (option == OPTION_OPCODE && known && !(row && row->action == NO_ACTION)) {
		scsi_bad_field(command, 2, 2);
		return;
	}
	if (option == OPTION_ACTION && row && row->action == NO_ACTION) {
		scsi_bad_field(command, 2, 2);
		return;
	}
	if (option == OPTION_EITHER && row && row->action == NO_ACTION && get16(cdb + 4))
		row = NULL;
	if (!row || (row->action != NO_ACTION && get16(cdb + 4) > 0x1f)) {
		data[1] = SUPPORT_NO;
		scsi_reply(command, data, 4);
		return;
	}
	length = scsi_cdb_length(row->opcode);
	data[1] = (uint8_t)(SUPPORT_STANDARD | (timeouts ? 0x80 : 0));
	put16(data + 2, length);
	memcpy(data + 4, row->usage, length);
	if (timeouts)
		put_timeouts(data + 4 + length);
	scsi_reply(command, data, 4 + length + (timeouts ? TIMEOUTS : 0));
}

/* SPC-4, 6.36: ATS, ATSS, CTSS, LURS; QTS, TRS in the first byte; QTSS in the second. */
void scsi_report_task_functions(struct scsi_command *command)
{
	bool extended = command->cdb[2] & 0x80;
	uint8_t data[16] = { 0x80 | 0x40 | 0x10 | 0x08 | 0x04 | 0x02, 0x01, 0, extended ? 12 : 0 };

	if (get32(command->cdb + 6) < 4) {
		scsi_bad_field(command, 6, -1);
		return;
	}
	scsi_reply(command, data, extended ? 16 : 4);
}
