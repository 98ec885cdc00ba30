/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_fuzz.c - an initiator that sends any CDB with any data to a disk, a CD-ROM drive, or nowhere
 *
 * Each input has a target of its own, with two units and one queue, on a loop that this thread
 * turns. It is a list of steps:
 *
 *     byte 0   bits 0-1  0: disk, 1: CD-ROM, 2: a unit that is not there, 3: a target that is not
 *              bits 2-3  0, 1: a command, 2: task management, 3: another medium, or none
 *              bit 4     wait for all that is under way before the next step
 *     command:          bytes 1-16   CDB; byte 17 its length (modulo 17)
 *                       bytes 18-19  bytes sent; 20-21 bytes of room for the answer
 *                       byte 22      how many bytes follow, of which the data are made, again and
 * again task management:  byte 1       function; byte 2 tag, as commands have by their number
 *     medium:           byte 1       bit 0: none; bit 1: by force
 *
 * Whatever comes, each command comes back once, within its buffers, with a status and sense data
 * that make sense.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/scsi.h"
#include "fuzz.h"
#include "layer/disk.h"
#include "util/error.h"

#define DEPTH 8
#define ROOM  65536u
#define GUARD 64u /* bytes behind the answer that stay as they are */

struct slot {
	struct scsi_command command;
	struct scsi_task_request request;
	struct iovec out[2], in[2];
	uint8_t sent[ROOM], answer[ROOM + GUARD];
	bool busy;
};

static struct loop *loop;
static struct disk *disk, *disc;
static struct device device;
static struct scsi_target *target;
static struct scsi_queue *queue;
static struct slot slots[DEPTH];
static struct input input;
static unsigned busy; /* slots, and a change of the medium */
static bool waiting, changing;
static struct device_change change;
static struct loop_message next;

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "scsi_fuzz: %s\n", what);
	abort();
}

static void go_on(void)
{
	busy--;
	if (waiting && !busy) {
		waiting = false;
		loop_send(loop, &next);
	}
}

static void command_done(struct scsi_command *c)
{
	struct slot *slot = c->owner;

	check(slot->busy, "a command came back twice");
	slot->busy = false;
	check(c->moved <= c->in_length || c->moved <= c->out_length, "more moved than there is");
	check((c->status == SCSI_CHECK_CONDITION) == (c->sense_length != 0), "status and sense");
	check(c->sense_length <= SCSI_SENSE_MAX, "sense length");
	for (unsigned i = 0; i < GUARD; i++)
		check(slot->answer[c->in_length + i] == 0xa5, "wrote behind the buffer");
	go_on();
}

static void request_done(struct scsi_task_request *request)
{
	struct slot *slot = request->owner;

	slot->busy = false;
	go_on();
}

static void change_done(struct device_change *done)
{
	(void)done;
	changing = false;
	go_on();
}

/* --- steps -------------------------------------------------------------------------- */

static void address(uint8_t kind, uint16_t *number, uint64_t *lun)
{
	*number = (kind & 3) == 3;
	*lun = (uint64_t)(kind & 3) << 48;
}

static void fill(uint8_t *to, size_t size)
{
	size_t n = input_byte(&input);

	n = n < input.size ? n : input.size;
	for (size_t i = 0; n && i < size; i++)
		to[i] = input.data[i % n];
	input.data += n;
	input.size -= n;
}

static void send_command(struct slot *slot, uint8_t kind)
{
	struct scsi_command *c = &slot->command;
	uint16_t out, in;

	*c = (struct scsi_command){ .tag = (uint64_t)(slot - slots), .done = command_done };
	address(kind, &c->target, &c->lun);
	input_bytes(&input, c->cdb, 16);
	c->cdb_length = input_byte(&input) % 17;
	input_bytes(&input, &out, 2);
	input_bytes(&input, &in, 2);
	memset(slot->sent, 0, out);
	fill(slot->sent, out);
	memset(slot->answer + in, 0xa5, GUARD);
	slot->out[0] = (struct iovec){ slot->sent, out / 3 };
	slot->out[1] = (struct iovec){ slot->sent + out / 3, out - out / 3 };
	slot->in[0] = (struct iovec){ slot->answer, in / 3 };
	slot->in[1] = (struct iovec){ slot->answer + in / 3, in - in / 3 };
	c->out = (struct io_data){ .vec = slot->out, .count = 2 };
	c->in = (struct io_data){ .vec = slot->in, .count = 2 };
	c->out_length = out;
	c->in_length = in;
	c->owner = slot;
	slot->busy = true;
	busy++;
	scsi_execute(queue, c);
}

static void send_request(struct slot *slot, uint8_t kind)
{
	struct scsi_task_request *r = &slot->request;

	*r = (struct scsi_task_request){ .done = request_done, .owner = slot };
	address(kind, &r->target, &r->lun);
	r->function = input_byte(&input) % (SCSI_BUS_RESET + 2);
	r->tag = input_byte(&input) % DEPTH;
	slot->busy = true;
	busy++;
	scsi_task_manage(queue, r);
}

static void change_medium(uint8_t kind)
{
	uint8_t how = input_byte(&input);

	if (changing)
		return;
	changing = true;
	busy++;
	change = (struct device_change){ .force = how & 2, .done = change_done };
	scsi_unit_set_disk(target, kind & 1, how & 1 ? NULL : kind & 1 ? disc : disk, &change);
}

static void step(struct loop_message *message)
{
	struct slot *slot = NULL;
	uint8_t kind;

	(void)message;
	for (unsigned i = 0; i < DEPTH && !slot; i++)
		if (!slots[i].busy)
			slot = &slots[i];
	if (!input.size || !slot) {
		waiting = busy;
		if (!busy && !input.size)
			loop_stop(loop);
		return;
	}
	kind = input_byte(&input);
	switch (kind >> 2 & 3) {
	case 2:
		send_request(slot, kind);
		break;
	case 3:
		change_medium(kind);
		break;
	default:
		send_command(slot, kind);
		break;
	}
	waiting = busy && kind & 0x10;
	if (!waiting)
		loop_send(loop, &next);
}

/* --- one input ---------------------------------------------------------------------- */

static void units_changed(void *owner, uint16_t number, uint64_t lun, bool added)
{
	(void)owner;
	(void)number;
	(void)lun;
	(void)added;
}

static void begin(struct loop_message *message)
{
	static const struct scsi_target_events events = { .units_changed = units_changed };
	struct scsi_unit_settings settings = { .removable = true };
	struct error err = { 0 };

	target = scsi_target_create(&device, 1, &events, NULL, &err);
	check(target && !scsi_unit_add(target, 0, &settings, disk, &err), err.text);
	settings.type = 2;
	settings.lun = 1;
	check(!scsi_unit_add(target, 1, &settings, disc, &err), err.text);
	queue = scsi_queue_open(target, 0, loop, DEPTH);
	check(queue, "no queue");
	step(message);
}

static void end(struct loop_message *message)
{
	(void)message;
	check(scsi_queue_outstanding(queue) == 0, "commands are missing");
	scsi_queue_close(queue);
	scsi_target_destroy(target);
	loop_stop(loop);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	struct loop_config config = { .name = "fuzz", .engine = LOOP_THREADS, .cpu = -1 };
	struct device_plan plan = { .vm = "fuzz", .name = "scsi0", .socket = "" };
	struct error err = { 0 };

	(void)count;
	(void)arguments;
	loop = loop_create(&config, &err);
	check(loop && !device_init(&device, &plan, 2, 1, &err), err.text);
	disk = fuzz_disk("memory", 0);
	disc = fuzz_disk("memory", 1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct loop_message first = { .run = begin }, last = { .run = end };

	input = (struct input){ data, size };
	busy = 0;
	waiting = changing = false;
	next.run = step;
	loop_send(loop, &first);
	check(!loop_run(loop, NULL), "the loop does not run");
	loop_send(loop, &last);
	check(!loop_run(loop, NULL), "the loop does not run");
	return 0;
}
