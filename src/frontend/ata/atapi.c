/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * atapi.c - the packet protocol: a CD-ROM drive's commands are SCSI's, carried by the cable
 *
 * PACKET, then 12 bytes by PIO, which are a command to a logical unit of the SCSI target. Its data
 * goes through the channel's buffer: by PIO in blocks that are no longer than the host's limit
 * (each with its length in the byte count registers, and an interrupt), or by DMA into what the
 * host's table says. A read that is longer than the buffer is cut: the same command is given to the
 * target again and again with the address and the length of the next piece in it.
 *
 * Sense. The target hands it over with the command that failed; an ATAPI host has to ask for it by
 * REQUEST SENSE. So it is kept here until then, or until the next command.
 *
 * ATA/ATAPI-7 volume 1, 6.24 (PACKET), volume 2, 11.8 and 11.9; MMC-6.
 */
#include <endian.h>
#include <string.h>

#include "frontend/ata/ide.h"

/* What the sector count register says of a DRQ: its interrupt reason. */
enum { REASON_COMMAND = 1, REASON_OUT = 0, REASON_IN = 2, REASON_STATUS = 3 };

enum { READ_10 = 0x28, READ_12 = 0xa8, READ_CD = 0xbe, REQUEST_SENSE = 0x03 };

enum { KEY_ABORTED = 0x0b };

/* --- the end ------------------------------------------------------------------------ */

static void end(struct ide_channel *c, uint8_t error)
{
	c->active->current[ATA_COUNT] = REASON_STATUS;
	ide_complete(c, error);
}

static void end_well(struct ide_channel *c)
{
	end(c, 0);
}

/* The sense key goes into the error register. */
static void end_failed(struct ide_channel *c)
{
	struct ide_drive *d = c->active;
	const struct scsi_command *command = &c->scsi;
	uint8_t key = KEY_ABORTED;

	if (command->status == SCSI_CHECK_CONDITION && command->sense_length > 2) {
		memcpy(d->sense, command->sense, command->sense_length);
		d->sense_length = command->sense_length;
		key = d->sense[0] & 2 ? d->sense[1] & 15 : d->sense[2] & 15;
	}
	end(c, (uint8_t)(key << 4 | ATA_ABRT));
}

/* --- data in ------------------------------------------------------------------------ */

static void execute(struct ide_channel *c);

/* Everything in the buffer has gone. */
static void delivered(struct ide_channel *c)
{
	if (c->cut && c->blocks) {
		c->phase = IDE_BUSY;
		execute(c);
		return;
	}
	if (c->packet_dma && c->filled)
		ide_dma_done(c);
	end(c, 0);
}

static void set_length(struct ide_channel *c, uint8_t reason, uint32_t length)
{
	struct ide_drive *d = c->active;

	d->current[ATA_COUNT] = reason;
	d->current[ATA_MID] = (uint8_t)length;
	d->current[ATA_HIGH] = (uint8_t)(length >> 8);
}

static void give(struct ide_channel *c)
{
	uint32_t length = c->filled - c->taken;

	if (!length) {
		delivered(c);
		return;
	}
	if (length > c->limit)
		length = c->limit;
	set_length(c, REASON_IN, length);
	ide_pio(c, IDE_IN, c->buffer + c->taken, length, give);
	c->taken += length;
	ide_interrupt(c);
}

static void dma_moved(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	if (status)
		ide_dma_failed(c);
	else if (c->taken < c->filled)
		ide_dma_go(c);
	else
		delivered(c);
}

/*
 * True if no bytes came. A table that is too short ends the command, with @error: a host whose
 * buffer is shorter than what its packet asks for may be a program, and need not wait for a reset.
 */
static bool dma_ended(struct ide_channel *c, int bytes, uint8_t error)
{
	if (!c->abandoned && bytes > 0)
		return false;
	if (ide_job_over(c))
		return true;
	if (bytes) {
		ide_dma_failed(c);
	} else {
		ide_dma_short(c);
		end(c, error);
	}
	return true;
}

static void dma_in_gathered(struct ide_channel *c, int bytes)
{
	if (dma_ended(c, bytes, 0))
		return;
	io_data_copy_in((struct io_data){ .vec = c->vec, .count = c->dma.count },
			c->buffer + c->taken, (uint32_t)bytes);
	c->taken += (uint32_t)bytes;
	prd_finish(c, (uint32_t)bytes, dma_moved);
}

static void dma_in(struct ide_channel *c)
{
	c->busy = true;
	prd_gather(c, DMA_TO_GUEST, c->filled - c->taken, 1, dma_in_gathered);
}

/* --- the command -------------------------------------------------------------------- */

static void completed(struct scsi_command *command)
{
	struct ide_channel *c = command->owner;

	if (ide_job_over(c))
		return;
	if (command->status != SCSI_GOOD || command->no_target || command->aborted) {
		end_failed(c);
		return;
	}
	c->filled = command->in_length ? (uint32_t)command->moved : 0;
	c->taken = 0;
	if (c->filled && c->packet_dma)
		ide_dma(c, dma_in);
	else
		give(c);
}

static void put_be_32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, sizeof value);
}

/* The next piece of a read: its address and its length in the place of the whole's. */
static void cut_piece(struct ide_channel *c)
{
	uint8_t *cdb = c->scsi.cdb;
	uint32_t n = IDE_BUFFER / c->block_length;

	if (n > c->blocks)
		n = c->blocks;
	put_be_32(cdb + 2, c->address);
	if (cdb[0] == READ_12) {
		put_be_32(cdb + 6, n);
	} else {
		/* READ (10): bytes 7 and 8; READ CD: 6 to 8 */
		cdb[7] = (uint8_t)(n >> 8);
		cdb[8] = (uint8_t)n;
		if (cdb[0] == READ_CD)
			cdb[6] = 0;
	}
	c->scsi.in_length = (uint64_t)n * c->block_length;
	c->address += n;
	c->blocks -= n;
}

static void execute(struct ide_channel *c)
{
	struct scsi_command *command = &c->scsi;

	if (c->cut)
		cut_piece(c);
	c->vec[0] = (struct iovec){ c->buffer, command->in_length + command->out_length };
	command->in = command->out = (struct io_data){ .vec = c->vec, .count = 1 };
	c->busy = true;
	scsi_execute(c->ide->queue, command);
}

/* --- data out ----------------------------------------------------------------------- */

static void take(struct ide_channel *c)
{
	uint32_t length = (uint32_t)c->scsi.out_length - c->filled;

	if (!length) {
		execute(c);
		return;
	}
	if (length > c->limit)
		length = c->limit;
	set_length(c, REASON_OUT, length);
	ide_pio(c, IDE_OUT, c->buffer + c->filled, length, take);
	c->filled += length;
	ide_interrupt(c);
}

static void dma_out_gathered(struct ide_channel *c, int bytes)
{
	if (dma_ended(c, bytes, ATA_ABRT))
		return;
	io_data_copy_out((struct io_data){ .vec = c->vec, .count = c->dma.count },
			 c->buffer + c->filled, (uint32_t)bytes);
	prd_finish(c, 0, NULL);
	c->filled += (uint32_t)bytes;
	ide_job_over(c);
	if (c->filled < c->scsi.out_length) {
		ide_dma_go(c);
		return;
	}
	ide_dma_done(c);
	c->phase = IDE_BUSY;
	execute(c);
}

static void dma_out(struct ide_channel *c)
{
	c->busy = true;
	prd_gather(c, DMA_FROM_GUEST, c->scsi.out_length - c->filled, 1, dma_out_gathered);
}

/* --- the packet --------------------------------------------------------------------- */

/* What it asks for, if it is a read of blocks. */
static uint32_t blocks_of(const uint8_t *cdb)
{
	uint32_t value;

	switch (cdb[0]) {
	case READ_10:
		return (uint32_t)cdb[7] << 8 | cdb[8];
	case READ_12:
		memcpy(&value, cdb + 6, sizeof value);
		return be32toh(value);
	case READ_CD:
		return (uint32_t)cdb[6] << 16 | (uint32_t)cdb[7] << 8 | cdb[8];
	default:
		return 0;
	}
}

static void plan_read(struct ide_channel *c, uint64_t length)
{
	uint32_t address;

	c->blocks = blocks_of(c->packet);
	c->cut = c->blocks && length > IDE_BUFFER && length / c->blocks <= IDE_BUFFER;
	if (!c->cut)
		return;
	memcpy(&address, c->packet + 2, sizeof address);
	c->address = be32toh(address);
	c->block_length = (uint32_t)(length / c->blocks);
}

static bool give_kept_sense(struct ide_channel *c)
{
	struct ide_drive *d = c->active;
	uint32_t length = d->sense_length;

	d->sense_length = 0;
	if (c->packet[0] != REQUEST_SENSE || !length)
		return false;
	memcpy(c->buffer, d->sense, length);
	c->filled = length < c->packet[4] ? length : c->packet[4];
	c->taken = 0;
	c->cut = false;
	if (c->filled && c->packet_dma)
		ide_dma(c, dma_in);
	else
		give(c);
	return true;
}

static void start(struct ide_channel *c)
{
	struct scsi_command *command = &c->scsi;
	enum scsi_direction direction;
	uint64_t length, most;

	if (give_kept_sense(c))
		return;
	memset(command, 0, sizeof *command);
	memcpy(command->cdb, c->packet, sizeof c->packet);
	command->cdb_length = sizeof c->packet;
	command->target = (uint16_t)c->active->number;
	command->done = completed;
	command->owner = c;
	direction = scsi_data_length(c->ide->queue, command, &length);
	most = length < IDE_BUFFER ? length : IDE_BUFFER;
	c->cut = false;
	c->filled = 0;
	if (direction == SCSI_DATA_OUT && most) {
		command->out_length = most;
		if (c->packet_dma)
			ide_dma(c, dma_out);
		else
			take(c);
		return;
	}
	/* What is in no CDB, as the length of READ CAPACITY, the target knows. */
	command->in_length = length ? most : IDE_BUFFER;
	plan_read(c, length);
	execute(c);
}

static void packet_given(struct ide_channel *c)
{
	ide_job_begin(c, start);
}

static void packet(struct ide_channel *c)
{
	struct ide_drive *d = c->active;
	uint8_t features = d->current[ATA_FEATURES];

	/* Overlapped commands are not for us. */
	if (features & 2) {
		end(c, ATA_ABRT);
		return;
	}
	c->packet_dma = features & 1;
	c->limit = ((uint32_t)d->current[ATA_HIGH] << 8 | d->current[ATA_MID]) & 0xfffeu;
	if (!c->limit) /* the standard would abort; hosts that mean "any" have been seen */
		c->limit = 0xfffe;
	d->current[ATA_COUNT] = REASON_COMMAND;
	ide_pio(c, IDE_OUT, c->packet, sizeof c->packet, packet_given);
}

/* --- other commands ----------------------------------------------------------------- */

static void identify(struct ide_channel *c)
{
	atapi_identify(c->active, c->page);
	ide_pio(c, IDE_IN, c->page, IDE_PAGE, ide_complete_quietly);
	ide_interrupt(c);
}

/* Only the transfer mode, and what survives a reset. */
static void set_features(struct ide_channel *c)
{
	struct ide_drive *d = c->active;

	switch (d->current[ATA_FEATURES]) {
	case 0x03:
		ide_complete(c, ata_set_mode(d, d->current[ATA_COUNT]) ? 0 : ATA_ABRT);
		break;
	case 0x66:
	case 0xcc:
		end_well(c);
		break;
	default:
		ide_complete(c, ATA_ABRT);
	}
}

void atapi_command(struct ide_channel *c)
{
	struct ide_drive *d = c->active;

	switch (c->opcode) {
	case 0xa0:
		packet(c);
		break;
	case 0xa1:
		identify(c);
		break;
	case 0x20: /* READ SECTORS and IDENTIFY DEVICE tell a host what it has before it */
	case 0xec:
		ide_signature(d);
		ide_complete(c, ATA_ABRT);
		break;
	case 0xe0: /* STANDBY IMMEDIATE */
	case 0xe1: /* IDLE IMMEDIATE */
		ide_complete(c, 0);
		break;
	case 0xe5: /* CHECK POWER MODE */
		d->current[ATA_COUNT] = 0xff;
		ide_complete(c, 0);
		break;
	case 0xe6: /* SLEEP */
		d->asleep = true;
		ide_complete(c, 0);
		break;
	case 0xef:
		set_features(c);
		break;
	default:
		ide_complete(c, ATA_ABRT);
	}
}
