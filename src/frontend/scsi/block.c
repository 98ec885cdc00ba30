/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * block.c - READ, WRITE, SYNCHRONIZE CACHE and READ CAPACITY (SBC-3, 5), and what all commands on
 * blocks have in common: ranges, and requests to the disk
 *
 * READ and WRITE are one request to the disk, whose data are the command's own buffers. The write
 * cache is the guest's to turn on and off (caching mode page): with it off each write carries FUA.
 *
 * A command with IMMED is executed to its end before it reports; that is stricter, never wrong.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

/* --- requests to the disk ----------------------------------------------------------- */

static void submitted(struct layer *layer, struct io *io)
{
	struct io_frame *frame = io_frame(io);
	struct scsi_command *command = (struct scsi_command *)(uintptr_t)frame->note[0];
	scsi_then_fn *then = (scsi_then_fn *)(uintptr_t)frame->note[1];
	int status = io->status;

	(void)layer;
	stats_count(command->port->stats, io->op, io->op == IO_FLUSH || status ? 0 : io->length,
		    status, loop_now(io->queue->loop) - io->started);
	io_put(io);
	then(command, status);
}

void scsi_submit(struct scsi_command *command, enum io_op op, uint8_t flags, uint64_t offset,
		 uint64_t length, struct io_data data, scsi_then_fn *then)
{
	struct scsi_port *port = command->port;
	struct io *io = io_get(&port->onto->ios);
	struct io_frame *frame;

	if (!io) { /* the adapter has more commands under way than it announced */
		then(command, -EAGAIN);
		return;
	}
	io->op = (uint8_t)op;
	io->flags = flags;
	io->offset = offset;
	io->length = length;
	io_data_set(&io->data, data);
	io->started = loop_now(port->queue->loop);
	frame = disk_submit(port->onto, io, submitted);
	frame->note[0] = (uintptr_t)command;
	frame->note[1] = (uintptr_t)then;
}

void scsi_submit_work(struct scsi_command *command, enum io_op op, uint8_t flags, uint64_t lba,
		      uint64_t length, scsi_then_fn *then)
{
	struct scsi_work *work = command->work;

	work->vec = (struct iovec){ work->bytes, length };
	scsi_submit(command, op, flags, lba << command->port->shift, length,
		    (struct io_data){ .vec = &work->vec, .count = 1 }, then);
}

bool scsi_work(struct scsi_command *command, uint64_t room)
{
	struct scsi_work *work = malloc(sizeof *work + room);

	if (!work) {
		scsi_set_status(command, SCSI_TASK_SET_FULL);
		return false;
	}
	memset(work, 0, sizeof *work);
	work->room = room;
	list_init(&work->link);
	command->work = work;
	return true;
}

/* --- ranges ------------------------------------------------------------------------- */

uint64_t scsi_blocks(const struct scsi_port *port)
{
	return atomic_load_explicit(&port->disk->size, memory_order_relaxed) >> port->shift;
}

bool scsi_in_range(struct scsi_command *command, uint64_t lba, uint64_t count)
{
	uint64_t blocks = scsi_blocks(command->port);

	if (lba <= blocks && count <= blocks - lba)
		return true;
	/* LOGICAL BLOCK ADDRESS OUT OF RANGE, and which is the first */
	scsi_fail_sense(command, &(struct sense){ .key = KEY_ILLEGAL_REQUEST,
						  .asc = 0x21,
						  .valid = true,
						  .information = lba > blocks ? lba : blocks });
	return false;
}

void scsi_range(const uint8_t *cdb, uint64_t *lba, uint64_t *count)
{
	switch (cdb[0] >> 5) {
	case 0:
		*lba = get24(cdb + 1) & 0x1fffff;
		*count = cdb[4] ? cdb[4] : 256;
		break;
	case 4:
		*lba = get64(cdb + 2);
		*count = get32(cdb + 10);
		break;
	case 5:
		*lba = get32(cdb + 2);
		*count = cdb[0] == 0xbe ? get24(cdb + 6) : get32(cdb + 6); /* READ CD */
		break;
	default:
		*lba = get32(cdb + 2);
		*count = get16(cdb + 7);
		break;
	}
}

uint8_t scsi_fua(const struct scsi_command *command, bool fua)
{
	return fua || !atomic_load_explicit(&command->port->unit->write_cache, memory_order_relaxed)
		       ? IO_FUA
		       : 0;
}

/* --- READ, WRITE -------------------------------------------------------------------- */

static bool has_fua(const uint8_t *cdb)
{
	return cdb[0] >> 5 && cdb[0] != 0xbe && cdb[1] & 0x08;
}

/* @moved was set in advance. */
static void transferred(struct scsi_command *command, int status)
{
	uint64_t lba, count;

	if (!status) {
		scsi_good(command);
		return;
	}
	command->moved = 0;
	scsi_range(command->cdb, &lba, &count);
	scsi_fail_io(command, command->operation->flags & OUT ? IO_WRITE : IO_READ, status, lba);
}

/* What both begin with. False: the command is over. */
static bool begin_transfer(struct scsi_command *command, uint64_t *lba, uint64_t *count)
{
	const uint8_t *cdb = command->cdb;

	scsi_range(cdb, lba, count);
	if (cdb[0] >> 5 && cdb[0] != 0xbe &&
	    cdb[1] & 0xe0) { /* RDPROTECT, WRPROTECT: we have no such information */
		scsi_bad_field(command, 1, 7);
		return false;
	}
	if (!scsi_in_range(command, *lba, *count))
		return false;
	if (*count > SPACE_BYTES >> command->port->shift) { /* as page 0xb0 says */
		scsi_bad_field(command, command->operation->length_at, -1);
		return false;
	}
	if (*count)
		return true;
	scsi_good(command);
	return false;
}

static void read_now(struct scsi_command *command, uint64_t lba, uint64_t count)
{
	const struct scsi_port *port = command->port;
	uint64_t length = count << port->shift;

	if (length > command->in_length) {
		command->overrun = true;
		length = command->in_length & ~(uint64_t)(port->block - 1);
	}
	command->moved = length;
	scsi_submit(command, IO_READ, 0, lba << port->shift, length, command->in, transferred);
}

static void read_after_flush(struct scsi_command *command, int status)
{
	uint64_t lba, count;

	if (status) {
		scsi_fail_io(command, IO_FLUSH, status, 0);
		return;
	}
	scsi_range(command->cdb, &lba, &count);
	read_now(command, lba, count);
}

/* FUA: what is read is on the medium, not only in its cache (SBC-3, 4.15). */
void scsi_read(struct scsi_command *command)
{
	uint64_t lba, count;

	if (!begin_transfer(command, &lba, &count))
		return;
	if (has_fua(command->cdb) && scsi_fua(command, false) == 0)
		scsi_submit(command, IO_FLUSH, 0, 0, 0, (struct io_data){ 0 }, read_after_flush);
	else
		read_now(command, lba, count);
}

bool scsi_has_data(struct scsi_command *command, uint64_t length)
{
	if (command->out_length >= length)
		return true;
	/* Fewer bytes than the CDB says: INVALID FIELD IN COMMAND INFORMATION UNIT. */
	command->overrun = true;
	scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x0e, 0x03);
	return false;
}

void scsi_write(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	uint64_t lba, count;

	if (!begin_transfer(command, &lba, &count) || !scsi_has_data(command, count << port->shift))
		return;
	command->moved = count << port->shift;
	scsi_submit(command, IO_WRITE, scsi_fua(command, has_fua(command->cdb)), lba << port->shift,
		    count << port->shift, command->out, transferred);
}

/* --- the cache ---------------------------------------------------------------------- */

static void flushed(struct scsi_command *command, int status)
{
	if (status)
		scsi_fail_io(command, IO_FLUSH, status, 0);
	else
		scsi_good(command);
}

/* The whole cache, whatever the range: a count of 0 is "to the end" (SBC-3, 5.22). */
void scsi_synchronize_cache(struct scsi_command *command)
{
	uint64_t lba, count;

	scsi_range(command->cdb, &lba, &count);
	if (scsi_in_range(command, lba, count))
		scsi_submit(command, IO_FLUSH, 0, 0, 0, (struct io_data){ 0 }, flushed);
}

/* There is no cache to fetch into. GOOD says that not all of it fitted in: SBC-3, 5.8. */
void scsi_prefetch(struct scsi_command *command)
{
	uint64_t lba, count;

	scsi_range(command->cdb, &lba, &count);
	if (scsi_in_range(command, lba, count))
		scsi_good(command);
}

/* --- READ CAPACITY ------------------------------------------------------------------ */

void scsi_read_capacity_10(struct scsi_command *command)
{
	uint64_t last = scsi_blocks(command->port) - 1;
	uint8_t data[8];

	if (!(command->cdb[8] & 1) && get32(command->cdb + 2)) {
		scsi_bad_field(command, 2, -1);
		return;
	}
	put32(data, min64(last, UINT32_MAX)); /* all ones: ask READ CAPACITY (16) */
	put32(data + 4, command->port->block);
	if (command->in_length < sizeof data)
		command->overrun = true;
	command->moved = min64(command->in_length, sizeof data);
	io_data_copy_in(command->in, data, command->moved);
	scsi_good(command);
}

void scsi_read_capacity_16(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	uint8_t data[32] = { 0 };

	if (!(command->cdb[14] & 1) && get64(command->cdb + 2)) {
		scsi_bad_field(command, 2, -1);
		return;
	}
	put64(data, scsi_blocks(port) - 1);
	put32(data + 8, port->block);
	data[13] = (uint8_t)__builtin_ctz(port->disk->limits.physical_block_size / port->block);
	if (port->disk->limits.discard && !port->disk->config.read_only)
		data[14] = 0x80 | 0x40; /* LBPME, LBPRZ: see space.c */
	scsi_reply(command, data, sizeof data);
}
