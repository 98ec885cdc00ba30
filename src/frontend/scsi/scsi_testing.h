/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_testing.h - a testing adapter: a device with a SCSI target and queues on loops that this
 * thread turns by hand, and commands run to their ends one at a time
 *
 * The loops run on the test's own thread, one after another, until what was asked for has come
 * back; so the tests are deterministic. The tests with real threads have loops of their own.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frontend/scsi/scsi_private.h"
#include "testing.h"
#include "util/log.h"

#define ADAPTER_QUEUES 2
#define ADAPTER_UNITS  4
#define ADAPTER_DATA   (1u << 20)

struct adapter {
	struct device device;
	struct device_plan plan;
	struct scsi_target *target;
	struct scsi_queue *queue;
	struct loop *loop;
	unsigned settled;
	bool stopping;
	struct {
		unsigned count;
		bool added;
		uint8_t asc;
	} told;
};

/* One command, its buffers, and what came back. */
struct run {
	struct scsi_command command;
	struct iovec out[2], in[2];
	struct adapter *adapter;
	bool finished;
};

static inline struct disk *adapter_disk(const char *name, const char *size,
					const struct disk_config *with)
{
	struct layer_setting setting = { (char *)"size", (char *)size, 0 };
	struct layer_config stack = { layer_find("memory"), &setting, 1, NULL, 0 };
	struct disk_config config = { 0 };
	struct error err = { 0 };
	struct disk *disk;

	options_init(disk_options, &config);
	if (with)
		config = *with;
	disk = testing_open(name, &config, &stack, 1, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

/* --- a back-end that notes what reaches it, and holds it or fails if told ------------- */

static struct {
	unsigned count[IO_OPS];
	uint8_t flags;   /* of the last */
	uint64_t length; /* likewise, bytes */
	int error;       /* what all finish with; -errno */
	bool hold;       /* all are kept until seen_release() */
	struct io *held[64];
	unsigned holding;
	bool no_discard;
	uint8_t bytes[256 << 10];
} seen;

static inline void seen_limits(struct layer *layer, struct limits *limits)
{
	(void)layer;
	limits->size = sizeof seen.bytes;
	limits->block_size = 512;
	limits->physical_block_size = 4096;
	limits->discard = !seen.no_discard;
}

static inline void seen_serve(struct io *io)
{
	if (io->op == IO_READ)
		io_data_copy_in(io->data, seen.bytes + io->offset, io->length);
	else if (io->op == IO_WRITE)
		io_data_copy_out(io->data, seen.bytes + io->offset, io->length);
	else if (io->op != IO_FLUSH)
		memset(seen.bytes + io->offset, 0, io->length);
	io_finish(io, seen.error);
}

static inline void seen_submit(struct layer *layer, struct io *io)
{
	(void)layer;
	seen.count[io->op]++;
	seen.flags = io->flags;
	seen.length = io->length;
	if (seen.hold)
		seen.held[seen.holding++] = io;
	else
		seen_serve(io);
}

static inline void seen_release(void)
{
	seen.hold = false;
	for (unsigned i = 0; i < seen.holding; i++)
		seen_serve(seen.held[i]);
	seen.holding = 0;
}

static const struct layer_ops seen_ops = {
	.name = "seen",
	.size = sizeof(struct layer),
	.backend = true,
	.limits = seen_limits,
	.submit = seen_submit,
};

/* A disk over it, 256 KiB, with zeroes. */
static inline struct disk *seen_disk(const struct disk_config *config)
{
	struct layer_config stack = { .ops = &seen_ops };
	struct error err = { 0 };
	struct disk *disk;

	memset(&seen, 0, sizeof seen);
	disk = testing_open("seen", config, &stack, 1, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

/* Once in a turn: the loop's own takes no more. */
static inline void adapter_stop(struct adapter *a)
{
	if (!a->stopping)
		loop_stop(a->loop);
	a->stopping = true;
}

static inline void adapter_settled(void *owner)
{
	((struct adapter *)owner)->settled++;
}

static inline void adapter_units(void *owner, uint16_t target, uint64_t lun, bool added)
{
	struct adapter *a = owner;

	(void)target;
	(void)lun;
	a->told.count++;
	a->told.added = added;
}

static inline void adapter_parameters(void *owner, uint16_t target, uint64_t lun, uint8_t asc,
				      uint8_t ascq)
{
	struct adapter *a = owner;

	(void)target;
	(void)lun;
	(void)ascq;
	a->told.count++;
	a->told.asc = asc;
}

static const struct scsi_target_events adapter_events = { adapter_units, adapter_parameters };

/* --- a loop that runs until something has happened ------------------------------------ */

struct turn {
	struct loop_message message;
	void (*act)(void *with);
	void *with;
};

static inline void turn_run(struct loop_message *message)
{
	struct turn *turn = container_of(message, struct turn, message);

	turn->act(turn->with);
}

static inline void turn_late(struct loop_timer *timer)
{
	(void)timer;
	abort(); /* it never came back */
}

/* Runs @act(@with) on the loop; it or what it began calls adapter_stop(). */
static inline void adapter_turn(struct adapter *a, void (*act)(void *with), void *with)
{
	struct turn turn = { .message.run = turn_run, .act = act, .with = with };
	struct loop_timer limit;

	loop_timer_init(&limit, turn_late);
	loop_timer_set(a->loop, &limit, loop_now(a->loop) + 20ull * 1000000000);
	a->stopping = false;
	loop_send(a->loop, &turn.message);
	if (loop_run(a->loop, NULL))
		abort();
	loop_timer_cancel(&limit);
}

static inline void adapter_open_queue(void *with)
{
	struct adapter *a = with;

	a->queue = scsi_queue_open(a->target, 0, a->loop, 8);
	assert_non_null(a->queue);
	scsi_queue_on_settled(a->queue, adapter_settled, a);
	adapter_stop(a);
}

static inline void adapter_close_queue(void *with)
{
	struct adapter *a = with;

	assert_int_equal(scsi_queue_outstanding(a->queue), 0);
	scsi_queue_close(a->queue);
	a->queue = NULL;
	adapter_stop(a);
}

/* An adapter of VM @vm, without units. */
static inline void adapter_open(struct adapter *a, const char *vm)
{
	struct loop_config config = { .name = "adapter", .engine = LOOP_THREADS, .cpu = -1 };
	struct error err = { 0 };

	*a = (struct adapter){ .plan = { .vm = vm, .name = "scsi0", .socket = "" } };
	a->device.kind = "testing";
	if (device_init(&a->device, &a->plan, ADAPTER_UNITS, ADAPTER_QUEUES, &err))
		abort();
	a->loop = loop_create(&config, &err);
	a->target = scsi_target_create(&a->device, ADAPTER_QUEUES, &adapter_events, a, &err);
	assert_non_null(a->loop);
	assert_non_null(a->target);
}

static inline void adapter_start(struct adapter *a)
{
	adapter_turn(a, adapter_open_queue, a);
}

static inline void adapter_close(struct adapter *a)
{
	if (a->queue)
		adapter_turn(a, adapter_close_queue, a);
	scsi_target_destroy(a->target);
	device_release(&a->device);
	loop_destroy(a->loop);
}

static inline void adapter_add(struct adapter *a, unsigned index, int type, struct disk *disk)
{
	struct scsi_unit_settings settings = { 0 };
	struct error err = { 0 };

	options_init(scsi_unit_options, &settings);
	settings.type = type;
	settings.lun = index;
	if (scsi_unit_add(a->target, index, &settings, disk, &err))
		fail_msg("%s", err.text);
}

/* --- a command ---------------------------------------------------------------------- */

static inline void run_done(struct scsi_command *command)
{
	struct run *run = command->owner;

	assert_false(run->finished);
	run->finished = true;
	adapter_stop(run->adapter);
}

static inline void run_execute(void *with)
{
	struct run *run = with;

	scsi_execute(run->adapter->queue, &run->command);
	assert_false(run->finished);
}

/* Fills in @run: the CDB, and data in two pieces each so that no handler relies on one. */
static inline void run_prepare(struct run *run, struct adapter *a, unsigned lun, const void *cdb,
			       size_t cdb_length, const void *out, size_t out_length, void *in,
			       size_t in_length)
{
	struct scsi_command *c = &run->command;
	size_t half_out = out_length / 3, half_in = in_length / 3;

	*run = (struct run){ .adapter = a };
	memcpy(c->cdb, cdb, cdb_length);
	c->cdb_length = (uint8_t)cdb_length;
	c->lun = (uint64_t)lun << 48;
	c->done = run_done;
	c->owner = run;
	run->out[0] = (struct iovec){ (void *)(uintptr_t)out, half_out };
	run->out[1] = (struct iovec){ (char *)(uintptr_t)out + half_out, out_length - half_out };
	run->in[0] = (struct iovec){ in, half_in };
	run->in[1] = (struct iovec){ (char *)in + half_in, in_length - half_in };
	c->out = (struct io_data){ .vec = run->out, .count = out_length ? 2 : 0 };
	c->in = (struct io_data){ .vec = run->in, .count = in_length ? 2 : 0 };
	c->out_length = out_length;
	c->in_length = in_length;
}

static struct run last_run; /* for the checks below */

/* Runs a command; its status. */
static inline uint8_t run_cdb(struct adapter *a, unsigned lun, const void *cdb, size_t cdb_length,
			      const void *out, size_t out_length, void *in, size_t in_length)
{
	run_prepare(&last_run, a, lun, cdb, cdb_length, out, out_length, in, in_length);
	adapter_turn(a, run_execute, &last_run);
	assert_true(last_run.finished);
	return last_run.command.status;
}

#define CDB(...) ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

/* Status, sense key, additional sense code and qualifier in one number: 0x02kkaaqq. */
static inline uint32_t run_result(void)
{
	const struct scsi_command *c = &last_run.command;
	const uint8_t *s = c->sense;

	if (c->status != SCSI_CHECK_CONDITION)
		return (uint32_t)c->status << 24;
	if (s[0] == 0x72)
		return 0x02000000u | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 8 | s[3];
	return 0x02000000u | (uint32_t)(s[2] & 15) << 16 | (uint32_t)s[12] << 8 | s[13];
}

/* The field pointer of fixed format sense data: byte; -1 if it has none. */
static inline int run_field(void)
{
	const uint8_t *s = last_run.command.sense;

	return s[15] & 0x80 ? s[16] << 8 | s[17] : -1;
}

static inline uint32_t run_information(void)
{
	const uint8_t *s = last_run.command.sense;

	return s[0] & 0x80 ? get32(s + 3) : UINT32_MAX;
}

#define NO_DATA NULL, 0, NULL, 0
/* Takes the attention of power on away. */
static inline void run_settle(struct adapter *a, unsigned lun)
{
	for (unsigned i = 0; i < 4; i++)
		if (run_cdb(a, lun, CDB(0, 0, 0, 0, 0, 0), NO_DATA) == SCSI_GOOD)
			return;
}

/* Adds a unit with a disk or, NULL, an empty drive, to a new adapter, and starts it. */
static inline void adapter_with(struct adapter *a, int type, struct disk *disk)
{
	adapter_open(a, "vm");
	adapter_add(a, 0, type, disk);
	adapter_start(a);
	run_settle(a, 0);
}

/* --- a change of a unit, to its end --------------------------------------------------- */

struct changing {
	struct device_change change;
	struct adapter *adapter;
	unsigned unit;
	struct disk *disk;
	bool remove;
};

static inline void changing_done(struct device_change *change)
{
	struct changing *c = change->owner;

	adapter_stop(c->adapter);
}

static inline void changing_begin(void *with)
{
	struct changing *c = with;

	if (c->remove)
		scsi_unit_remove(c->adapter->target, c->unit, &c->change);
	else
		scsi_unit_set_disk(c->adapter->target, c->unit, c->disk, &c->change);
}

static inline int adapter_change(struct adapter *a, unsigned unit, struct disk *disk, bool remove,
				 bool force)
{
	struct changing c = { .change = { .force = force, .done = changing_done, .owner = &c },
			      .adapter = a,
			      .unit = unit,
			      .disk = disk,
			      .remove = remove };

	adapter_turn(a, changing_begin, &c);
	return c.change.status;
}

/* A unit that comes while the adapter runs. */
struct adding {
	struct adapter *adapter;
	unsigned index;
	struct disk *disk;
};

static inline void adding_look(struct loop_timer *timer);

static struct adding_watch {
	struct loop_timer timer;
	struct adding *adding;
	unsigned told;
} adding_watch;

static inline void adding_look(struct loop_timer *timer)
{
	struct adapter *a = adding_watch.adding->adapter;

	if (a->told.count == adding_watch.told)
		loop_timer_set(a->loop, timer, loop_now(a->loop) + 100000);
	else
		adapter_stop(a);
}

static inline void adding_begin(void *with)
{
	struct adding *adding = with;

	adding_watch.adding = adding;
	adding_watch.told = adding->adapter->told.count;
	loop_timer_init(&adding_watch.timer, adding_look);
	adapter_add(adding->adapter, adding->index, 0, adding->disk);
	adding_look(&adding_watch.timer);
}

static inline void adapter_hot_add(struct adapter *a, unsigned index, struct disk *disk)
{
	struct adding adding = { a, index, disk };

	adapter_turn(a, adding_begin, &adding);
}
