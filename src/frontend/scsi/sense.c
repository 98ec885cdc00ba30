/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sense.c - how a command ends: status, sense data (SPC-4, 4.5), unit attentions (SAM-5, 5.14)
 *
 * Sense data is returned with the status (autosense), so none is kept for a later REQUEST SENSE.
 * The bit D_SENSE of the control mode page chooses descriptor format, where INFORMATION has 64
 * bits; in fixed format it is left out if it does not fit.
 *
 * Unit attentions are bits of one word, set by any thread and taken by the first command that finds
 * one. A unit has one initiator, the adapter's, so there is one word per unit.
 */
#include <errno.h>
#include <string.h>

#include "frontend/scsi/scsi_private.h"

enum { FIXED_SENSE = 0x70, DESCRIPTOR_SENSE = 0x72, VALID = 0x80, FIXED_LENGTH = 18 };

size_t scsi_write_sense(uint8_t *to, const struct sense *sense, bool descriptor)
{
	uint8_t *at = to + 8;

	if (!descriptor) {
		memset(to, 0, FIXED_LENGTH);
		to[0] = FIXED_SENSE;
		to[2] = sense->key;
		to[7] = FIXED_LENGTH - 8;
		to[12] = sense->asc;
		to[13] = sense->ascq;
		memcpy(to + 15, sense->specific, 3);
		if (sense->valid && sense->information <= UINT32_MAX) {
			to[0] |= VALID;
			put32(to + 3, sense->information);
		}
		return FIXED_LENGTH;
	}
	memset(to, 0, 8 + 12 + 8);
	to[0] = DESCRIPTOR_SENSE;
	to[1] = sense->key;
	to[2] = sense->asc;
	to[3] = sense->ascq;
	if (sense->valid) { /* the information descriptor: SPC-4, 4.5.2.2 */
		at[1] = 10;
		at[2] = VALID;
		put64(at + 4, sense->information);
		at += 12;
	}
	if (sense->specific[0]) { /* the sense key specific one: SPC-4, 4.5.2.4 */
		at[0] = 2;
		at[1] = 6;
		memcpy(at + 4, sense->specific, 3);
		at += 8;
	}
	to[7] = (uint8_t)(at - to - 8);
	return (size_t)(at - to);
}

void scsi_set_status(struct scsi_command *command, enum scsi_status status)
{
	command->status = (uint8_t)status;
	scsi_finish(command);
}

void scsi_good(struct scsi_command *command)
{
	scsi_set_status(command, SCSI_GOOD);
}

void scsi_fail_sense(struct scsi_command *command, const struct sense *sense)
{
	bool descriptor =
		command->port &&
		atomic_load_explicit(&command->port->unit->descriptor_sense, memory_order_relaxed);

	command->sense_length = (uint8_t)scsi_write_sense(command->sense, sense, descriptor);
	scsi_set_status(command, SCSI_CHECK_CONDITION);
}

void scsi_fail(struct scsi_command *command, uint8_t key, uint8_t asc, uint8_t ascq)
{
	scsi_fail_sense(command, &(struct sense){ .key = key, .asc = asc, .ascq = ascq });
}

/* The field pointer: SPC-4, 4.5.2.4.2. C/D tells the CDB from the parameter list. */
static void bad_field(struct scsi_command *command, uint8_t asc, unsigned byte, int bit)
{
	struct sense sense = { .key = KEY_ILLEGAL_REQUEST, .asc = asc };

	sense.specific[0] =
		(uint8_t)(0x80 | (asc == 0x24 ? 0x40 : 0) | (bit >= 0 ? 0x08 | (bit & 7) : 0));
	put16(sense.specific + 1, byte);
	scsi_fail_sense(command, &sense);
}

void scsi_bad_field(struct scsi_command *command, unsigned byte, int bit)
{
	bad_field(command, 0x24, byte, bit);
}

void scsi_bad_parameter(struct scsi_command *command, unsigned byte, int bit)
{
	bad_field(command, 0x26, byte, bit);
}

void scsi_fail_io(struct scsi_command *command, enum io_op op, int error, uint64_t lba)
{
	struct sense sense = { .key = KEY_MEDIUM_ERROR, .information = lba };

	switch (-error) {
	case ENOMEM:
	case EAGAIN:
		scsi_set_status(command, SCSI_TASK_SET_FULL);
		return;
	case EBUSY:
		scsi_set_status(command, SCSI_BUSY);
		return;
	case EBADE: /* the reservation of another host, on what is below */
		scsi_set_status(command, SCSI_RESERVATION_CONFLICT);
		return;
	case EROFS:
	case EPERM: /* WRITE PROTECTED */
		sense = (struct sense){ .key = KEY_DATA_PROTECT, .asc = 0x27 };
		break;
	case ENOSPC:
	case EDQUOT: /* SPACE ALLOCATION FAILED WRITE PROTECT */
		sense = (struct sense){ .key = KEY_DATA_PROTECT, .asc = 0x27, .ascq = 0x07 };
		break;
	case ERANGE: /* LOGICAL BLOCK ADDRESS OUT OF RANGE */
		sense = (struct sense){ .key = KEY_ILLEGAL_REQUEST, .asc = 0x21 };
		break;
	case EOPNOTSUPP: /* INVALID COMMAND OPERATION CODE */
		sense = (struct sense){ .key = KEY_ILLEGAL_REQUEST, .asc = 0x20 };
		break;
	case ENOMEDIUM: /* MEDIUM NOT PRESENT */
		sense = (struct sense){ .key = KEY_NOT_READY, .asc = 0x3a };
		break;
	case ETIMEDOUT:
	case ENOTCONN:
	case ECONNRESET:
	case EPIPE: /* LOGICAL UNIT COMMUNICATION FAILURE */
		sense = (struct sense){ .key = KEY_HARDWARE_ERROR, .asc = 0x08 };
		break;
	case EILSEQ: /* LOGICAL BLOCK GUARD CHECK FAILED: a layer's checksum */
		sense.asc = 0x10;
		sense.ascq = 0x01;
		sense.valid = op != IO_FLUSH;
		break;
	default:
		/* UNRECOVERED READ ERROR, WRITE ERROR. A flush has no block. */
		sense.asc = op == IO_READ ? 0x11 : 0x0c;
		sense.valid = op != IO_FLUSH;
		break;
	}
	scsi_fail_sense(command, &sense);
}

/* --- unit attentions ---------------------------------------------------------------- */

static const uint8_t attentions[ATTENTIONS][2] = {
	[ATTENTION_POWER_ON] = { 0x29, 0x00 },
	[ATTENTION_BUS_RESET] = { 0x29, 0x02 },
	[ATTENTION_RESET] = { 0x29, 0x03 }, /* BUS DEVICE RESET FUNCTION OCCURRED */
	[ATTENTION_MEDIUM] = { 0x28, 0x00 },
	[ATTENTION_UNITS] = { 0x3f, 0x0e },
	[ATTENTION_CAPACITY] = { 0x2a, 0x09 },
	[ATTENTION_RESERVATION_PREEMPTED] = { 0x2a, 0x03 },
	[ATTENTION_RESERVATION_RELEASED] = { 0x2a, 0x04 },
	[ATTENTION_REGISTRATION_PREEMPTED] = { 0x2a, 0x05 },
};

void scsi_attention(struct scsi_unit *unit, enum attention what)
{
	atomic_fetch_or(&unit->attention, 1u << what);
}

bool scsi_take_attention(struct scsi_unit *unit, struct sense *sense)
{
	unsigned pending = atomic_load(&unit->attention), first, rest;

	do {
		if (!pending)
			return false;
		first = (unsigned)__builtin_ctz(pending);
		rest = pending & (pending - 1);
		/* What a reset did away with is not told after it. */
		if (first <= ATTENTION_RESET)
			rest &= ~(1u << ATTENTION_BUS_RESET | 1u << ATTENTION_RESET);
	} while (!atomic_compare_exchange_weak(&unit->attention, &pending, rest));
	*sense = (struct sense){ .key = KEY_UNIT_ATTENTION,
				 .asc = attentions[first][0],
				 .ascq = attentions[first][1] };
	return true;
}

bool scsi_not_ready(const struct scsi_port *port, struct sense *sense)
{
	bool open = atomic_load_explicit(&port->unit->tray_open, memory_order_relaxed);

	*sense = (struct sense){ .key = KEY_NOT_READY, .asc = 0x3a, .ascq = open ? 0x02 : 0x01 };
	return open || !port->disk;
}
