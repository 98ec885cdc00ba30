/* SPDX-License-Identifier: BSD-3-Clause */
/* cdrom_test.c - a CD-ROM drive: its commands, its tray, another medium */
#include <errno.h>

#include "frontend/scsi/scsi_testing.h"

static uint8_t back[65536];

static struct adapter a;
static struct disk *disk;

static int start(void **unused)
{
	(void)unused;
	disk = seen_disk(&(struct disk_config){ .read_only = true });
	for (unsigned i = 0; i < sizeof seen.bytes; i++)
		seen.bytes[i] = (uint8_t)(i / 2048 + i);
	adapter_with(&a, 2, disk);
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

static uint32_t cdb(const void *bytes, size_t length, size_t in)
{
	memset(back, 0xee, 512);
	run_cdb(&a, 0, bytes, length, NULL, 0, back, in);
	return run_result();
}

/* --- reading ------------------------------------------------------------------------ */

static void reads(void **unused)
{
	(void)unused;
	assert_int_equal(cdb(CDB(0x12, 0, 0, 0, 96, 0), 96), 0);
	assert_int_equal(back[0], 5);
	assert_int_equal(back[1], 0x80);
	assert_memory_equal(back + 16, "CD-ROM          ", 16);
	assert_int_equal(cdb(CDB(0x12, 1, 0, 0, 96, 0), 96), 0);
	assert_memory_equal(back, "\x05\0\0\x03\0\x80\x83", 7);
	assert_int_equal(cdb(CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 8), 0);
	assert_int_equal(get32(back), 127);
	assert_int_equal(get32(back + 4), 2048);
	assert_int_equal(cdb(CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0), 4096), 0);
	assert_memory_equal(back, seen.bytes + 3 * 2048, 4096);
	/* As a packet of 12 bytes with what was there before behind its end. */
	assert_int_equal(cdb(CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0xff, 0xff), 4096), 0);
	assert_int_equal(cdb(CDB(0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0), 2048), 0);
	assert_memory_equal(back, seen.bytes + 5 * 2048, 2048);
	assert_int_equal(cdb(CDB(0x28, 0, 0, 0, 0, 127, 0, 0, 2, 0), 4096), 0x02052100);
	assert_int_equal(cdb(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0x10, 0, 0), 2048), 0);
	assert_memory_equal(back, seen.bytes + 7 * 2048, 2048);
	assert_int_equal(cdb(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0), 2048), 0);
	assert_int_equal(last_run.command.moved, 0);
	assert_int_equal(cdb(CDB(0xbe, 4, 0, 0, 0, 7, 0, 0, 1, 0x10, 0, 0), 2048), 0x02056400);
	assert_int_equal(cdb(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0xf8, 0, 0), 2352), 0x02052400);
	assert_int_equal(cdb(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0x10, 1, 0), 2048), 0x02052400);
	/* Nothing that writes is known. */
	assert_int_equal(cdb(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), 0), 0x02052000);
	assert_int_equal(cdb(CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0), 0), 0x02052000);
}

static void toc(void **unused)
{
	(void)unused;
	assert_int_equal(cdb(CDB(0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(last_run.command.moved, 20);
	assert_memory_equal(back, "\0\x12\x01\x01\0\x14\x01\0\0\0\0\0\0\x14\xaa\0\0\0\0\x80", 20);
	assert_int_equal(cdb(CDB(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 12, 0), 256), 0);
	assert_memory_equal(back, "\0\x0a\x01\x01\0\x14\xaa\0\0\0\x03\x35", 12); /* 278 frames */
	assert_int_equal(cdb(CDB(0x43, 0, 0, 0, 0, 0, 2, 0, 12, 0), 256), 0x02052400);
	assert_int_equal(cdb(CDB(0x43, 0, 1, 0, 0, 0, 0, 0, 12, 0), 256), 0);
	assert_memory_equal(back, "\0\x0a\x01\x01\0\x14\x01\0\0\0\0\0", 12);
	assert_int_equal(cdb(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40), 256), 0); /* the old way */
	assert_memory_equal(back, "\0\x0a\x01\x01\0\x14\x01\0\0\0\0\0", 12);
	assert_int_equal(cdb(CDB(0x43, 2, 2, 0, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(get16(back), 2 + 4 * 11);
	assert_memory_equal(back + 4 + 2 * 11, "\x01\x14\0\xa2\0\0\0\0\0\x03\x35", 11);
	assert_int_equal(cdb(CDB(0x43, 0, 5, 0, 0, 0, 0, 1, 0, 0), 256), 0x02052400);
	assert_int_equal(cdb(CDB(0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0), 256), 0);
	assert_memory_equal(back, "\0\x20\x0e\x01\x01\x01\x01\x20", 8);
	assert_int_equal(cdb(CDB(0x51, 1, 0, 0, 0, 0, 0, 0, 34, 0), 256), 0x02052400);
}

static void configuration(void **unused)
{
	unsigned features = 0;

	(void)unused;
	assert_int_equal(cdb(CDB(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(get16(back + 6), 0x08);
	assert_int_equal(get32(back) + 4, last_run.command.moved);
	for (uint64_t at = 8; at < last_run.command.moved; at += 4u + back[at + 3])
		features++;
	assert_int_equal(features, 8);
	assert_int_equal(cdb(CDB(0x46, 2, 0, 0x10, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_memory_equal(back + 8, "\0\x10\x01\x08\0\0\x08\0\0\x01\0\0", 12);
	assert_int_equal(cdb(CDB(0x46, 2, 0, 0x77, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(last_run.command.moved, 8);
	assert_int_equal(cdb(CDB(0x46, 1, 0, 0x1f, 0, 0, 0, 1, 0, 0), 256), 0); /* DVD: not now */
	assert_int_equal(last_run.command.moved, 8);
	assert_int_equal(cdb(CDB(0x46, 3, 0, 0, 0, 0, 0, 1, 0, 0), 256), 0x02052400);
	assert_int_equal(cdb(CDB(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), 8), 0);
	assert_int_equal(cdb(CDB(0xbb, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0), 0), 0);
	assert_int_equal(cdb(CDB(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255, 0), 256), 0);
	assert_memory_equal(back, "\0\x1c\0\x80\0\0\0\0\x2a\x14\x3b", 11);
	assert_int_equal(cdb(CDB(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0), 256), 0);
	assert_int_equal(last_run.command.moved, 8 + 12 + 12 + 16 + 12 + 22);
	assert_int_equal(cdb(CDB(0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255, 0), 256), 0x02052400);
}

/* --- the tray ----------------------------------------------------------------------- */

/* The media event that is told, and the state: 0xEESS. */
static unsigned media_event(void)
{
	assert_int_equal(cdb(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 8), 0);
	assert_memory_equal(back, "\0\x06\x04\x12", 4);
	return (unsigned)back[4] << 8 | back[5];
}

static void the_guest_ejects(void **unused)
{
	(void)unused;
	assert_int_equal(media_event(), 0x0002);
	assert_int_equal(cdb(CDB(0x1e, 0, 0, 0, 1, 0), 0), 0); /* prevented */
	assert_int_equal(cdb(CDB(0x1b, 0, 0, 0, 2, 0), 0), 0x02055302);
	assert_int_equal(cdb(CDB(0x1e, 0, 0, 0, 2, 0), 0), 0x02052400);
	assert_int_equal(cdb(CDB(0x1e, 0, 0, 0, 0, 0), 0), 0);
	assert_int_equal(cdb(CDB(0x1b, 0, 0, 0, 2, 0), 0), 0);
	assert_int_equal(cdb(CDB(0, 0, 0, 0, 0, 0), 0), 0x02023a02);
	assert_int_equal(cdb(CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0), 4096), 0x02023a02);
	assert_int_equal(cdb(CDB(3, 0, 0, 0, 18, 0), 18), 0);
	assert_memory_equal(back + 12, "\x3a\x02", 2);
	assert_int_equal(media_event(), 0x0301);
	assert_int_equal(media_event(), 0x0001);
	assert_int_equal(cdb(CDB(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(get16(back + 6), 0);                  /* no current profile */
	assert_int_equal(cdb(CDB(0x1b, 0, 0, 0, 3, 0), 0), 0); /* loaded again */
	assert_int_equal(media_event(), 0x0202);
	assert_int_equal(cdb(CDB(0, 0, 0, 0, 0, 0), 0), 0);
	assert_int_equal(cdb(CDB(0x1b, 0, 0, 0, 1, 0), 0), 0);
}

static void the_user_changes_the_medium(void **unused)
{
	struct disk *large = adapter_disk("large", "900M", NULL), *big = NULL;

	(void)unused;
	assert_int_equal(adapter_change(&a, 0, NULL, false, false), 0);
	assert_int_equal(a.told.asc, 0x28);
	assert_null(a.device.units[0].disk);
	assert_int_equal(cdb(CDB(0, 0, 0, 0, 0, 0), 0), 0x02023a01);
	assert_int_equal(media_event(), 0x0300);
	assert_int_equal(adapter_change(&a, 0, large, false, false), 0);
	assert_ptr_equal(a.device.units[0].disk, large);
	assert_int_equal(cdb(CDB(0x4a, 1, 0, 0, 2, 0, 0, 0, 8, 0), 8), 0); /* another profile */
	assert_memory_equal(back, "\0\x06\x01\x12\x02\0\0\x01", 8);
	assert_int_equal(media_event(), 0x0202);
	assert_int_equal(cdb(CDB(0, 0, 0, 0, 0, 0), 0), 0x02062800);
	assert_int_equal(cdb(CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 8), 0);
	assert_int_equal(get32(back), 900 * 512 - 1);
	assert_int_equal(cdb(CDB(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), 256), 0);
	assert_int_equal(get16(back + 6), 0x10); /* a DVD */
	/* Prevented: the guest is asked, and may let go; or it is forced. */
	assert_int_equal(cdb(CDB(0x1e, 0, 0, 0, 1, 0), 0), 0);
	assert_int_equal(adapter_change(&a, 0, NULL, false, false), -EBUSY);
	assert_int_equal(media_event(), 0x0102);
	assert_int_equal(adapter_change(&a, 0, NULL, false, true), 0);
	assert_int_equal(cdb(CDB(0, 0, 0, 0, 0, 0), 0), 0x02023a01);
	/* Blocks of 4,096 bytes are no CD's. */
	big = seen_disk(&(struct disk_config){ .block_size = DISK_BLOCK_4096 });
	assert_int_equal(adapter_change(&a, 0, big, false, false), -EINVAL);
	disk_close(big);
	disk_close(large);
}

static void events_that_are_not_there(void **unused)
{
	(void)unused;
	assert_int_equal(cdb(CDB(0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0), 8), 0x02052400);
	assert_int_equal(cdb(CDB(0x4a, 1, 0, 0, 0x40, 0, 0, 0, 8, 0), 8), 0);
	assert_int_equal(last_run.command.moved, 4);
	assert_memory_equal(back, "\0\x02\x80\x12", 4);
}

/* What was sent while the old medium was in use comes to its end before the change does. */
static struct run slow, later;
static unsigned order;
static unsigned slow_at, later_at, change_at;

static void count_done(struct scsi_command *command)
{
	struct run *run = command->owner;

	run->finished = true;
	if (run == &slow)
		slow_at = ++order;
	else
		later_at = ++order;
	if (later_at && change_at)
		adapter_stop(&a);
}

static void count_change(struct device_change *change)
{
	(void)change;
	change_at = ++order;
	if (later_at)
		adapter_stop(&a);
}

static struct loop_timer release_timer;

static void release(struct loop_timer *timer)
{
	(void)timer;
	assert_int_equal(order, 0);
	seen_release();
}

static struct device_change change = { .done = count_change };
static struct disk *next_disk;

static void change_under_way(void *unused)
{
	(void)unused;
	seen.hold = true;
	run_prepare(&slow, &a, 0, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0), IN(4096));
	slow.command.done = count_done;
	scsi_execute(a.queue, &slow.command);
	scsi_unit_set_disk(a.target, 0, next_disk, &change);
	loop_timer_init(&release_timer, release);
	loop_timer_set(a.loop, &release_timer, loop_now(a.loop) + 5000000);
}

static struct loop_timer later_timer;

static void send_later(struct loop_timer *timer)
{
	(void)timer;
	run_prepare(&later, &a, 0, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN(8));
	later.command.done = count_done;
	scsi_execute(a.queue, &later.command);
}

static void change_and_later(void *unused)
{
	change_under_way(unused);
	loop_timer_init(&later_timer, send_later);
	loop_timer_set(a.loop, &later_timer, loop_now(a.loop) + 2000000);
}

static void a_change_waits_for_what_is_under_way(void **unused)
{
	(void)unused;
	next_disk = adapter_disk("next", "1M", NULL);
	order = slow_at = later_at = change_at = 0;
	adapter_turn(&a, change_and_later, NULL);
	assert_int_equal(slow_at, 1);
	assert_int_equal(slow.command.status, SCSI_GOOD);
	/* The one that was parked met the new medium. */
	assert_int_equal(later.command.status, SCSI_CHECK_CONDITION);
	assert_int_equal(later.command.sense[12], 0x28);
	assert_int_equal(change.status, 0);
	assert_int_equal(adapter_change(&a, 0, disk, false, false), 0);
	disk_close(next_disk);
}

static void an_empty_drive(void **unused)
{
	struct adapter empty;

	(void)unused;
	adapter_open(&empty, "vm");
	adapter_add(&empty, 0, 0, NULL); /* auto: a CD-ROM */
	adapter_start(&empty);
	run_cdb(&empty, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02062900);
	run_cdb(&empty, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02023a01);
	run_cdb(&empty, 0, CDB(0x1b, 0, 0, 0, 2, 0), NO_DATA);
	assert_int_equal(run_result(), 0);
	run_cdb(&empty, 0, CDB(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0), IN(255));
	assert_int_equal(run_result(), 0);
	run_cdb(&empty, 0, CDB(0x16, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0);
	adapter_close(&empty);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads),
		TEST(toc),
		TEST(configuration),
		TEST(the_guest_ejects),
		TEST(the_user_changes_the_medium),
		TEST(events_that_are_not_there),
		TEST(a_change_waits_for_what_is_under_way),
		TEST(an_empty_drive),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("scsi/cdrom", tests, NULL, NULL);
}
