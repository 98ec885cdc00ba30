/* SPDX-License-Identifier: BSD-3-Clause */
/* unit_test.c - what units say of themselves; mode pages; unit attentions; hot plug; task
 * management */
#include <errno.h>

#include "frontend/scsi/scsi_testing.h"

static uint8_t back[65536];

static struct adapter a;
static struct disk *disk;

static int start(void **unused)
{
	(void)unused;
	disk = seen_disk(&(struct disk_config){ 0 });
	adapter_with(&a, 0, disk);
	return 0;
}

static int stop(void **unused)
{
	(void)unused;
	adapter_close(&a);
	disk_close(disk);
	return 0;
}

#define IN(n) NULL, 0, back, n

static uint32_t inquiry(unsigned lun, bool vital, uint8_t page, uint8_t length)
{
	memset(back, 0xee, 256);
	run_cdb(&a, lun, CDB(0x12, vital, page, 0, length, 0), IN(255));
	return run_result();
}

/* --- INQUIRY ------------------------------------------------------------------------ */

static void standard_data(void **unused)
{
	(void)unused;
	assert_int_equal(inquiry(0, false, 0, 255), 0);
	assert_int_equal(last_run.command.moved, 96);
	assert_int_equal(back[0], 0);
	assert_int_equal(back[2], 6);
	assert_int_equal(back[4], 91);
	assert_memory_equal(back + 8, "PENSTOCKVIRTUAL-DISK    1   ", 28);
	assert_int_equal(inquiry(0, false, 0, 36), 0);
	assert_int_equal(last_run.command.moved, 36);
	assert_int_equal(back[36], 0xee);
	assert_int_equal(inquiry(0, false, 0x80, 36), 0x02052400); /* a page, and no EVPD */
	assert_int_equal(run_field(), 2);
	assert_int_equal(inquiry(0, true, 0x77, 36), 0x02052400);
}

static void vital_product_data(void **unused)
{
	(void)unused;
	assert_int_equal(inquiry(0, true, 0, 255), 0);
	assert_memory_equal(back, "\0\0\0\x06\0\x80\x83\xb0\xb1\xb2", 10);
	assert_int_equal(inquiry(0, true, 0x80, 255), 0);
	assert_memory_equal(back + 1, "\x80\0\x04seen", 7);
	assert_int_equal(inquiry(0, true, 0x83, 255), 0);
	assert_memory_equal(back + 4, "\x02\x01\0\x0cPENSTOCKseen\x01\x03\0\x08", 20);
	assert_int_equal(back[24] >> 4, 3);
	assert_int_equal(get16(back + 2), 16 + 12 + 8);
	assert_int_equal(inquiry(0, true, 0xb0, 255), 0);
	assert_int_equal(get16(back + 2), 60);
	assert_int_equal(back[4], 1);                /* WSNZ */
	assert_int_equal(get16(back + 6), 8);        /* 4,096 bytes */
	assert_int_equal(get32(back + 8), 1u << 21); /* 1 GiB */
	assert_int_equal(get32(back + 20), 1u << 21);
	assert_int_equal(get32(back + 24), 256);
	assert_int_equal(get64(back + 36), 1u << 21);
	assert_int_equal(inquiry(0, true, 0xb1, 255), 0);
	assert_int_equal(get16(back + 4), 1); /* does not rotate */
	assert_int_equal(inquiry(0, true, 0xb2, 255), 0);
	assert_int_equal(back[5], 0xe4);
}

static void units_that_are_not_there(void **unused)
{
	(void)unused;
	assert_int_equal(inquiry(7, false, 0, 96), 0);
	assert_int_equal(back[0], 0x7f);
	run_cdb(&a, 7, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02052500);
	run_cdb(&a, 7, CDB(3, 0, 0, 0, 18, 0), IN(18));
	assert_int_equal(run_result(), 0);
	assert_int_equal(back[2], 5);
	assert_int_equal(back[12], 0x25);
	run_cdb(&a, 7, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_int_equal(run_result(), 0);
	assert_int_equal(get32(back), 8);
	/* No such target. */
	run_prepare(&last_run, &a, 0, CDB(0x12, 0, 0, 0, 96, 0), IN(96));
	last_run.command.target = 3;
	adapter_turn(&a, run_execute, &last_run);
	assert_true(last_run.command.no_target);
}

static void luns_are_reported(void **unused)
{
	struct disk *other = adapter_disk("other", "1M", NULL);

	(void)unused;
	adapter_hot_add(&a, 2, other);
	run_settle(&a, 0);
	run_cdb(&a, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_int_equal(get32(back), 16);
	assert_int_equal(get64(back + 8), 0);
	assert_int_equal(get64(back + 16), 2ull << 48);
	run_cdb(&a, 0, CDB(0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_int_equal(get32(back), 0);
	run_cdb(&a, 0, CDB(0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0), IN(256));
	assert_int_equal(run_result(), 0x02052400);
	adapter_close(&a);
	disk_close(other);
	adapter_with(&a, 0, disk);
}

/* --- REPORT SUPPORTED OPERATION CODES ------------------------------------------------ */

/* All commands that are listed are known one by one as well, with a usage that names them. */
static void operations_are_reported(void **unused)
{
	static uint8_t all[8192];
	uint32_t length;

	(void)unused;
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0), NULL, 0, all, sizeof all);
	length = get32(all);
	assert_true(length > 40 * 8 && length % 8 == 0);
	assert_int_equal(last_run.command.moved, length + 4);
	for (uint32_t at = 4; at < length + 4; at += 8) {
		uint8_t action = all[at + 5] & 1;

		run_cdb(&a, 0,
			CDB(0xa3, 0x0c, 0x80 | (1 + action), all[at], 0, all[at + 3], 0, 0, 0, 64,
			    0, 0),
			IN(64));
		assert_int_equal(run_result(), 0);
		assert_int_equal(back[1], 0x83);
		assert_int_equal(get16(back + 2), get16(all + at + 6));
		assert_int_equal(back[4], all[at]);
		if (action)
			assert_int_equal(back[5] & 0x1f, all[at + 3]);
		assert_int_equal(last_run.command.moved, 4 + get16(back + 2) + 12);
	}
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0x20, 0, 0, 0), NULL, 0, all,
		sizeof all);
	assert_int_equal(get32(all), length / 8 * 20);
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 1, 0xc0, 0, 0, 0, 0, 0, 64, 0, 0), IN(64));
	assert_int_equal(back[1], 1);
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0, 64, 0, 0), IN(64));
	assert_int_equal(run_result(), 0x02052400); /* it has service actions */
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), IN(64));
	assert_int_equal(run_result(), 0x02052400); /* it has none */
	run_cdb(&a, 0, CDB(0xa3, 0x0c, 7, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), IN(64));
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0), IN(4));
	assert_memory_equal(back, "\xde\x01\0\0", 4);
	run_cdb(&a, 0, CDB(0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0), IN(4));
	assert_int_equal(run_result(), 0x02052400);
}

/* --- mode pages --------------------------------------------------------------------- */

static void mode_pages(void **unused)
{
	(void)unused;
	run_cdb(&a, 0, CDB(0x1a, 0, 0x3f, 0, 255, 0), IN(255));
	assert_int_equal(run_result(), 0);
	assert_int_equal(back[0] + 1, last_run.command.moved);
	assert_int_equal(back[2], 0x10);
	assert_int_equal(back[3], 8);
	assert_int_equal(get32(back + 4), 512);
	assert_int_equal(get24(back + 9), 512);
	run_cdb(&a, 0, CDB(0x1a, 8, 0x08, 0, 255, 0), IN(255));
	assert_memory_equal(back, "\x17\0\x10\0\x08\x12\x04", 7);
	run_cdb(&a, 0, CDB(0x1a, 8, 0x48, 0, 255, 0), IN(255)); /* what may be changed */
	assert_memory_equal(back + 4, "\x08\x12\x04\0", 4);
	run_cdb(&a, 0, CDB(0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255, 0), IN(255)); /* a long LBA */
	assert_int_equal(get16(back), 8 + 16 + 12 - 2);
	assert_int_equal(back[4], 1);
	assert_int_equal(get16(back + 6), 16);
	assert_int_equal(get64(back + 8), 512);
	assert_memory_equal(back + 24, "\x0a\x0a\0\x10", 4);
	run_cdb(&a, 0, CDB(0x1a, 0, 0xc8, 0, 255, 0), IN(255));
	assert_int_equal(run_result(), 0x02053900); /* none is saved */
	run_cdb(&a, 0, CDB(0x1a, 0, 0x2a, 0, 255, 0), IN(255));
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0x1a, 0, 0x08, 1, 255, 0), IN(255));
	assert_int_equal(run_result(), 0x02052400);
	assert_int_equal(run_field(), 3);
}

static uint32_t select_mode(const void *list, uint8_t length)
{
	run_cdb(&a, 0, CDB(0x15, 0x10, 0, 0, length, 0), list, length, NULL, 0);
	return run_result();
}

static void mode_select(void **unused)
{
	uint8_t list[4 + 8 + 12] = { 0, 0, 0, 8, 0, 0, 2, 0, 0, 0, 2, 0, 0x0a, 0x0a, 0x04, 0x10 };
	uint8_t cache[4 + 20] = { 0, 0, 0, 0, 0x08, 0x12, 0x05 };

	(void)unused;
	assert_int_equal(select_mode(list, sizeof list), 0);
	run_cdb(&a, 0, CDB(0xc0, 0, 0, 0, 0, 0), NO_DATA); /* now in descriptor format */
	assert_int_equal(last_run.command.sense[0], 0x72);
	assert_int_equal(run_result(), 0x02052000);
	run_cdb(&a, 0, CDB(0x28, 0, 0, 0, 9, 0, 0, 0, 1, 0), NO_DATA);
	assert_memory_equal(last_run.command.sense + 8, "\0\x0a\x80\0", 4);
	assert_int_equal(get64(last_run.command.sense + 12), 0x900);
	list[14] = 0;
	list[16] = 0x08; /* SWP */
	assert_int_equal(select_mode(list, sizeof list), 0);
	run_cdb(&a, 0, CDB(0x0a, 0, 0, 0, 1, 0), back, 512, NULL, 0);
	assert_int_equal(run_result(), 0x02072702);
	run_cdb(&a, 0, CDB(0x1a, 8, 0x08, 0, 255, 0), IN(255));
	assert_int_equal(back[2], 0x90);
	/* What may not be changed is named by its byte and bit. */
	assert_int_equal(select_mode(cache, sizeof cache), 0x02052600);
	assert_int_equal(run_field(), 6);
	assert_int_equal(last_run.command.sense[15], 0x88);
	list[11] = 1; /* another block size */
	assert_int_equal(select_mode(list, sizeof list), 0x02052600);
	assert_int_equal(run_field(), 4 + 5);
	list[11] = 0;
	assert_int_equal(select_mode(list, 20), 0x02051a00);
	assert_int_equal(select_mode(list, 3), 0x02051a00);
	cache[4] = 0x3e;
	assert_int_equal(select_mode(cache, sizeof cache), 0x02052600);
	run_cdb(&a, 0, CDB(0x15, 0x11, 0, 0, 4, 0), list, 4, NULL, 0); /* save pages */
	assert_int_equal(run_result(), 0x02052400);
	assert_int_equal(select_mode(list, 0), 0);
}

/* --- unit attentions ---------------------------------------------------------------- */

static void attentions(void **unused)
{
	struct error err = { 0 };
	struct disk *grows = adapter_disk("grows", "1M", NULL);

	(void)unused;
	adapter_close(&a);
	adapter_open(&a, "vm");
	adapter_add(&a, 0, 0, grows);
	adapter_start(&a);
	/* Power on: not for INQUIRY and REPORT LUNS; the first other command hears of it, once. */
	assert_int_equal(inquiry(0, false, 0, 36), 0);
	run_cdb(&a, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_int_equal(run_result(), 0);
	run_cdb(&a, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), IN(512));
	assert_int_equal(run_result(), 0x02062900);
	run_cdb(&a, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), IN(512));
	assert_int_equal(run_result(), 0);
	assert_int_equal(disk_resize(grows, 2 << 20, &err), 0);
	assert_int_equal(a.told.asc, 0x2a);
	run_cdb(&a, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02062a09);
	run_cdb(&a, 0, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN(8));
	assert_int_equal(get32(back), 4095);
	/* REQUEST SENSE returns it as data, and takes it away. */
	scsi_attention(&a.target->units[0], ATTENTION_RESET);
	run_cdb(&a, 0, CDB(3, 0, 0, 0, 18, 0), IN(18));
	assert_int_equal(run_result(), 0);
	assert_memory_equal(back + 12, "\x29\x03", 2);
	run_cdb(&a, 0, CDB(3, 1, 0, 0, 18, 0), IN(18));
	assert_memory_equal(back, "\x72\0\0\0", 4);
	adapter_close(&a);
	disk_close(grows);
	adapter_with(&a, 0, disk);
}

/* --- hot plug ----------------------------------------------------------------------- */

static void stop_loop(void *with)
{
	adapter_stop(with);
}

static void units_come_and_go(void **unused)
{
	struct disk *other = adapter_disk("other", "1M", NULL);
	struct scsi_unit_settings settings = { .lun = 1 };
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(adapter_change(&a, 1, NULL, true, false), -ENODEV);
	for (unsigned i = 0; i < 3; i++) {
		adapter_hot_add(&a, 1, other);
		assert_true(a.told.added);
		run_cdb(&a, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
		assert_int_equal(run_result(), 0x02063f0e); /* the list of units is another */
		run_cdb(&a, 1, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
		assert_int_equal(run_result(), 0x02062900);
		run_cdb(&a, 1, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
		assert_int_equal(run_result(), 0);
		assert_int_not_equal(scsi_unit_add(a.target, 1, &settings, other, &err), 0);
		assert_int_not_equal(scsi_unit_add(a.target, 2, &settings, other, &err), 0);
		assert_int_equal(adapter_change(&a, 1, NULL, true, false), 0);
		assert_false(a.told.added);
		run_cdb(&a, 1, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
		assert_int_equal(run_result(), 0x02052500);
		run_settle(&a, 0);
	}
	adapter_turn(&a, stop_loop, &a);
	disk_close(other);
}

static void bad_units(void **unused)
{
	struct scsi_unit_settings settings = { .lun = 1, .type = 1 };
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(scsi_unit_add(a.target, 1, &settings, NULL, &err), -EINVAL);
	settings.serial = (char *)"0123456789012345678901234567890123456";
	assert_int_equal(scsi_unit_add(a.target, 1, &settings, disk, &err), -EINVAL);
	assert_non_null(strstr(err.text, "serial"));
	settings.serial = NULL;
	settings.vendor = (char *)"\x7f";
	assert_int_equal(scsi_unit_add(a.target, 1, &settings, disk, &err), -EINVAL);
	settings.vendor = NULL;
	settings.lun = 0;
	assert_int_equal(scsi_unit_add(a.target, 1, &settings, disk, &err), -EEXIST);
}

/* --- task management ---------------------------------------------------------------- */

static struct run runs[4];
static struct {
	struct scsi_task_request request;
	bool done;
	unsigned back_before; /* commands that were back when it was done */
} task;

static void task_done(struct scsi_task_request *request)
{
	(void)request;
	task.done = true;
	for (unsigned i = 0; i < 4; i++)
		task.back_before += runs[i].finished;
	adapter_stop(&a);
}

static void held_done(struct scsi_command *command)
{
	((struct run *)command->owner)->finished = true;
}

/* Four writes that the storage keeps. */
static void start_held(void *unused)
{
	(void)unused;
	seen.hold = true;
	for (unsigned i = 0; i < 4; i++) {
		run_prepare(&runs[i], &a, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), back, 512, NULL,
			    0);
		runs[i].command.tag = 100 + i;
		runs[i].command.done = held_done;
		scsi_execute(a.queue, &runs[i].command);
	}
	adapter_stop(&a);
}

static void start_task(void *unused)
{
	(void)unused;
	task.request.done = task_done;
	scsi_task_manage(a.queue, &task.request);
	if (seen.hold)
		adapter_stop(&a);
}

static void release(void *unused)
{
	(void)unused;
	seen_release();
	if (task.done)
		adapter_stop(&a);
}

static enum scsi_task_response manage(enum scsi_task_function function, uint64_t tag, uint64_t lun,
				      uint16_t target)
{
	memset(&task, 0, sizeof task);
	task.request.function = function;
	task.request.tag = tag;
	task.request.lun = lun << 48;
	task.request.target = target;
	adapter_turn(&a, start_task, NULL);
	if (!task.done)
		adapter_turn(&a, release, NULL);
	assert_true(task.done);
	return task.request.response;
}

static void drain(void)
{
	adapter_turn(&a, release, NULL);
	while (scsi_queue_outstanding(a.queue))
		adapter_turn(&a, stop_loop, &a);
}

static void aborts(void **unused)
{
	static const struct {
		enum scsi_task_function function;
		unsigned aborted; /* of the four */
		uint32_t then;
	} rows[] = {
		{ SCSI_ABORT_TASK, 1, 0 },
		{ SCSI_ABORT_TASK_SET, 4, 0 },
		{ SCSI_CLEAR_TASK_SET, 4, 0 },
		{ SCSI_LOGICAL_UNIT_RESET, 4, 0x02062903 },
		{ SCSI_TARGET_RESET, 4, 0x02062903 },
		{ SCSI_BUS_RESET, 4, 0x02062902 },
	};

	(void)unused;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		unsigned aborted = 0;

		adapter_turn(&a, start_held, NULL);
		assert_int_equal(manage(rows[i].function, 102, 0, 0), SCSI_FUNCTION_COMPLETE);
		for (unsigned k = 0; k < 4; k++)
			aborted += runs[k].command.aborted;
		assert_int_equal(aborted, rows[i].aborted);
		assert_true(runs[2].command.aborted);
		assert_true(task.back_before >= rows[i].aborted);
		task.done = true;
		drain();
		run_cdb(&a, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
		assert_int_equal(run_result(), rows[i].then);
		run_settle(&a, 0);
	}
}

static void queries_and_refusals(void **unused)
{
	(void)unused;
	assert_int_equal(manage(SCSI_QUERY_TASK, 100, 0, 0), SCSI_FUNCTION_COMPLETE);
	adapter_turn(&a, start_held, NULL);
	task.done = true;
	adapter_turn(&a, start_task, NULL); /* nothing is lost by a request that is done */
	drain();
	adapter_turn(&a, start_held, NULL);
	assert_int_equal(manage(SCSI_QUERY_TASK, 103, 0, 0), SCSI_FUNCTION_SUCCEEDED);
	task.done = true;
	drain();
	adapter_turn(&a, start_held, NULL);
	assert_int_equal(manage(SCSI_QUERY_TASK_SET, 0, 0, 0), SCSI_FUNCTION_SUCCEEDED);
	task.done = true;
	drain();
	assert_int_equal(manage(SCSI_ABORT_TASK, 1, 9, 0), SCSI_INCORRECT_LUN);
	assert_int_equal(manage(SCSI_TARGET_RESET, 0, 0, 9), SCSI_NO_TARGET);
	assert_int_equal(manage(SCSI_CLEAR_ACA, 0, 0, 0), SCSI_FUNCTION_REJECTED);
}

/* A reset puts back what MODE SELECT has set. */
static void resets_modes(void **unused)
{
	uint8_t list[4 + 20] = { 0, 0, 0, 0, 0x08, 0x12, 0 };

	(void)unused;
	assert_int_equal(select_mode(list, sizeof list), 0);
	assert_false(atomic_load(&a.target->units[0].write_cache));
	assert_int_equal(manage(SCSI_LOGICAL_UNIT_RESET, 0, 0, 0), SCSI_FUNCTION_COMPLETE);
	assert_true(atomic_load(&a.target->units[0].write_cache));
}

/* A batch of commands that end at once is shown to the guest once. */
static unsigned batch_left;

static void batch_done(struct scsi_command *command)
{
	(void)command;
	if (!--batch_left)
		adapter_stop(&a);
}

static void start_batch(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		run_prepare(&runs[i], &a, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, i < 2, 0), IN(512));
		runs[i].command.done = batch_done;
		scsi_execute(a.queue, &runs[i].command);
	}
}

static void one_settled_for_a_batch(void **unused)
{
	(void)unused;
	a.settled = 0;
	batch_left = 4;
	adapter_turn(&a, start_batch, NULL);
	assert_int_equal(a.settled, 1);
}

static void data_lengths(void **unused)
{
	static const struct {
		uint8_t cdb[16];
		enum scsi_direction direction;
		uint64_t length;
	} rows[] = {
		{ { 0x00 }, SCSI_NO_DATA, 0 },
		{ { 0x12, 0, 0, 0, 96 }, SCSI_DATA_IN, 96 },
		{ { 0x08, 0, 0, 0, 0 }, SCSI_DATA_IN, 256 * 512 },
		{ { 0x2a, 0, 0, 0, 0, 0, 0, 1, 2 }, SCSI_DATA_OUT, 258 * 512 },
		{ { 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3 }, SCSI_DATA_OUT, 6 * 512 },
		{ { 0x41, 0, 0, 0, 0, 0, 0, 1, 0 }, SCSI_DATA_OUT, 512 },
		{ { 0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3 }, SCSI_DATA_OUT, 0 },
		{ { 0x2f, 0, 0, 0, 0, 0, 0, 0, 9 }, SCSI_DATA_OUT, 0 },
		{ { 0x2f, 6, 0, 0, 0, 0, 0, 0, 9 }, SCSI_DATA_OUT, 512 },
		{ { 0x25 }, SCSI_DATA_IN, 8 },
		{ { 0xc0 }, SCSI_NO_DATA, 0 },
	};

	(void)unused;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct scsi_command command = { .lun = 0 };
		uint64_t length;

		memcpy(command.cdb, rows[i].cdb, 16);
		assert_int_equal(scsi_data_length(a.queue, &command, &length), rows[i].direction);
		assert_int_equal(length, rows[i].length);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(standard_data),
		TEST(vital_product_data),
		TEST(units_that_are_not_there),
		TEST(luns_are_reported),
		TEST(operations_are_reported),
		TEST(mode_pages),
		TEST(mode_select),
		TEST(attentions),
		TEST(units_come_and_go),
		TEST(bad_units),
		TEST(aborts),
		TEST(queries_and_refusals),
		TEST(resets_modes),
		TEST(one_settled_for_a_batch),
		TEST(data_lengths),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("scsi/unit", tests, NULL, NULL);
}
