/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * verify.c - VERIFY, WRITE AND VERIFY, COMPARE AND WRITE: what is on the disk against what the
 * initiator sent (SBC-3, 5.2, 5.33, 5.38)
 *
 * VERIFY reads in pieces into a buffer of its own, and compares if BYTCHK says so: with as many
 * blocks (1), or with one block again and again (3).
 *
 * COMPARE AND WRITE is atomic against the writes to its unit on all queues: a visit to them holds
 * what comes and waits for what is under way, then it reads, compares and writes, and a second
 * visit lets the writes go on. So WRITE itself pays nothing for it but a look at a flag of its own
 * queue. Several of them, also through other adapters that share the disk, take turns (shared.c):
 * the locks that cluster file systems build from this command hold between VMs too.
 */
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"
#include "frontend/scsi/shared.h"

/* --- comparing ---------------------------------------------------------------------- */

/* Offset of the first of @length bytes at which @data and @bytes differ; @length: none. */
static uint64_t difference(struct io_data data, const uint8_t *bytes, uint64_t length)
{
	uint64_t at = 0;

	while (at < length) {
		const uint8_t *p = (const uint8_t *)data.vec->iov_base + data.skip;
		uint64_t n = min64(data.vec->iov_len - data.skip, length - at);

		if (memcmp(p, bytes + at, n)) {
			for (uint64_t i = 0; i < n; i++)
				if (p[i] != bytes[at + i])
					return at + i;
			/* The guest has changed it meanwhile: differs where we saw it differ first.
			 */
			return at;
		}
		at += n;
		data.vec++;
		data.skip = 0;
	}
	return length;
}

/* MISCOMPARE DURING VERIFY OPERATION, and where in the data that was sent */
static struct sense miscompare(uint64_t offset)
{
	return (struct sense){
		.key = KEY_MISCOMPARE, .asc = 0x1d, .valid = true, .information = offset
	};
}

/* --- VERIFY, WRITE AND VERIFY ------------------------------------------------------- */

enum { COMPARE_NOT, COMPARE_ALL, COMPARE_ONE = 3 };

static void verified(struct scsi_command *command, int status);

static void verify_next(struct scsi_command *command)
{
	struct scsi_work *work = command->work;
	unsigned shift = command->port->shift;

	if (!work->left) {
		scsi_good(command);
		return;
	}
	scsi_submit_work(command, IO_READ, 0, work->lba,
			 min64(work->left << shift, work->room & ~((1ull << shift) - 1)), verified);
}

static void verified(struct scsi_command *command, int status)
{
	struct scsi_work *work = command->work;
	uint32_t block = command->port->block;
	unsigned compare = command->cdb[1] >> 1 & 3;
	uint64_t length = work->vec.iov_len, at = length;

	if (status) {
		scsi_fail_io(command, IO_READ, status, work->lba);
		return;
	}
	if (compare == COMPARE_ALL) {
		at = difference(io_data_slice(command->out, work->at), work->bytes, length);
	} else if (compare == COMPARE_ONE) {
		for (uint64_t one = 0; one < length && at == length; one += block) {
			uint64_t d = difference(command->out, work->bytes + one, block);

			if (d < block)
				at = d;
		}
	}
	if (at < length) {
		struct sense sense = miscompare(compare == COMPARE_ALL ? work->at + at : at);

		scsi_fail_sense(command, &sense);
		return;
	}
	work->at += length;
	work->lba += length >> command->port->shift;
	work->left -= length >> command->port->shift;
	verify_next(command);
}

/* What both begin with; @most is the largest BYTCHK. False: the command is over. */
static bool begin(struct scsi_command *command, unsigned most, uint64_t *lba, uint64_t *count)
{
	const uint8_t *cdb = command->cdb;
	unsigned compare = cdb[1] >> 1 & 3;

	scsi_range(cdb, lba, count);
	if (cdb[1] & 0xe0) {
		scsi_bad_field(command, 1, 7);
		return false;
	}
	if (compare == 2 || compare > most) {
		scsi_bad_field(command, 1, 2);
		return false;
	}
	if (!scsi_in_range(command, *lba, *count))
		return false;
	if (compare != COMPARE_NOT && *count > SPACE_BYTES >> command->port->shift) {
		scsi_bad_field(command, command->operation->length_at, -1);
		return false;
	}
	if (*count)
		return true;
	scsi_good(command);
	return false;
}

static bool begin_work(struct scsi_command *command, uint64_t lba, uint64_t count)
{
	if (!scsi_work(command, min64(count << command->port->shift, WORK_BYTES)))
		return false;
	command->work->lba = lba;
	command->work->left = count;
	return true;
}

void scsi_verify(struct scsi_command *command)
{
	uint64_t lba, count, data;

	if (!begin(command, COMPARE_ONE, &lba, &count))
		return;
	data = scsi_cdb_blocks(command->operation, command->cdb) << command->port->shift;
	if (!scsi_has_data(command, data) || !begin_work(command, lba, count))
		return;
	command->moved = data;
	verify_next(command);
}

static void written(struct scsi_command *command, int status)
{
	if (status)
		scsi_fail_io(command, IO_WRITE, status, command->work->lba);
	else
		verify_next(command);
}

/* Written to the medium (FUA), then read from there. */
void scsi_write_and_verify(struct scsi_command *command)
{
	unsigned shift = command->port->shift;
	uint64_t lba, count;

	if (!begin(command, COMPARE_ALL, &lba, &count))
		return;
	if (count > SPACE_BYTES >> shift) {
		scsi_bad_field(command, command->operation->length_at, -1);
		return;
	}
	if (!scsi_has_data(command, count << shift) || !begin_work(command, lba, count))
		return;
	command->moved = count << shift;
	scsi_submit(command, IO_WRITE, IO_FUA, lba << shift, count << shift, command->out, written);
}

/* --- COMPARE AND WRITE -------------------------------------------------------------- */

static struct scsi_command *command_of(struct scsi_visit *visit)
{
	return (struct scsi_command *)container_of(visit, struct scsi_work, visit)->owner;
}

/* On each queue: writes wait from now on. */
static bool close_gate(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct scsi_port *port = &queue->ports[command_of(visit)->port->unit->index];

	(void)again;
	port->writes_held = true;
	return !port->writing;
}

static bool open_gate(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct scsi_port *port = &queue->ports[command_of(visit)->port->unit->index];

	(void)again;
	port->writes_held = false;
	if (!port->held)
		scsi_port_resume(port);
	return true;
}

static void set_gated(struct scsi_unit *unit, bool gated)
{
	pthread_mutex_lock(&unit->target->lock);
	unit->gated = gated;
	pthread_mutex_unlock(&unit->target->lock);
}

/* All writes go on; the next one has its turn. */
static void over(struct scsi_visit *visit)
{
	struct scsi_command *command = command_of(visit);
	struct scsi_work *work = command->work;

	scsi_turn_pass(command->port->unit->shared, work);
	if (work->error)
		scsi_fail_io(command, work->op, work->error, work->lba);
	else if (work->sense.key)
		scsi_fail_sense(command, &work->sense);
	else
		scsi_good(command);
}

static void end_exclusive(struct scsi_command *command)
{
	struct scsi_visit *visit = &command->work->visit;

	set_gated(command->port->unit, false);
	visit->visit = open_gate;
	visit->finished = over;
	scsi_visit_start(visit);
}

static void exchanged(struct scsi_command *command, int status)
{
	command->work->error = status;
	end_exclusive(command);
}

static void compared(struct scsi_command *command, int status)
{
	struct scsi_work *work = command->work;
	uint64_t length = work->room, at;

	if (status) {
		work->error = status;
		end_exclusive(command);
		return;
	}
	at = difference(command->out, work->bytes, length);
	if (at < length) {
		work->sense = miscompare(at);
		end_exclusive(command);
		return;
	}
	work->op = IO_WRITE;
	scsi_submit(command, IO_WRITE, scsi_fua(command, command->cdb[1] & 8),
		    work->lba << command->port->shift, length, io_data_slice(command->out, length),
		    exchanged);
}

static void alone(struct scsi_visit *visit)
{
	struct scsi_command *command = command_of(visit);

	scsi_submit_work(command, IO_READ, 0, command->work->lba, command->work->room, compared);
}

/* It is this command's turn, on its loop. */
static void begin_exclusive(struct scsi_work *work)
{
	struct scsi_command *command = work->owner;

	set_gated(command->port->unit, true);
	work->visit = (struct scsi_visit){ .target = command->queue->target,
					   .home = command->queue->loop,
					   .visit = close_gate,
					   .finished = alone };
	scsi_visit_start(&work->visit);
}

void scsi_compare_and_write(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	unsigned shift = command->port->shift;
	uint64_t lba = get64(cdb + 2), count = cdb[13], length = count << shift;

	if (cdb[1] & 0xe0) {
		scsi_bad_field(command, 1, 7);
		return;
	}
	if (!scsi_in_range(command, lba, count))
		return;
	if (length > WORK_BYTES / 2) {
		scsi_bad_field(command, 13, -1);
		return;
	}
	if (!count) {
		scsi_good(command);
		return;
	}
	if (!scsi_has_data(command, 2 * length) || !scsi_work(command, length))
		return;
	command->moved = 2 * length;
	command->work->owner = command;
	command->work->lba = lba;
	command->work->op = IO_READ;
	scsi_turn_take(command->port->unit->shared, command->work, begin_exclusive);
}
