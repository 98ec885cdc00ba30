/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide_test.c - an IDE function through its registers: identity, settings, selection, interrupts,
 * storage that hangs, resets in the middle, a storm of accesses
 */
#include "frontend/ata/ide_testing.h"

static const struct host_unit one_disk[] = { { .size = "8M" } };

/* --- identity and settings ----------------------------------------------------------------- */

static void test_identify(void **state)
{
	uint16_t page[256];
	struct host h;
	uint8_t sum = 0;

	(void)state;
	host_open(&h, one_disk, 1);
	identify(&h, 0, page);
	for (unsigned i = 0; i < 512; i++)
		sum = (uint8_t)(sum + ((uint8_t *)page)[i]);
	assert_int_equal(sum, 0);
	assert_int_equal(word(page, 60) | word(page, 61) << 16, 16384);
	assert_int_equal(word(page, 100), 16384);
	assert_int_equal(word(page, 10), 'd' << 8 | 'i');
	assert_int_equal(word(page, 27), 'P' << 8 | 'E');
	assert_int_equal(word(page, 83) & 0xc000, 0x4000);
	assert_int_equal(word(page, 85) & 0x60, 0x60);
	assert_int_equal(word(page, 88) >> 8, 0x20);
	assert_int_equal(word(page, 169), 1);
	/* A packet command's twin is not for a disk. */
	assert_int_equal(talk(&h, 0, 0xa1, 0, 0, 0), ATA_ABRT);
	host_close(&h);
}

static void test_settings(void **state)
{
	uint16_t page[256];
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	assert_int_equal(talk(&h, 0, 0xef, 0x03, 0x42, 0), 0); /* ultra DMA 2 */
	assert_int_equal(talk(&h, 0, 0xef, 0x03, 0x0c, 0), 0);
	assert_int_equal(talk(&h, 0, 0xef, 0x03, 0x47, 0), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xef, 0x01, 0, 0), ATA_ABRT); /* 8-bit transfers */
	assert_int_equal(talk(&h, 0, 0xef, 0x82, 0, 0), 0);        /* write cache off */
	assert_int_equal(talk(&h, 0, 0xef, 0x55, 0, 0), 0);        /* look-ahead off */
	assert_int_equal(talk(&h, 0, 0xc6, 0, 4, 0), 0);
	assert_int_equal(talk(&h, 0, 0xc6, 0, 3, 0), ATA_ABRT);
	identify(&h, 0, page);
	assert_int_equal(word(page, 88) >> 8, 0x04);
	assert_int_equal(word(page, 85) & 0x60, 0);
	assert_int_equal(word(page, 59), 0x104);
	/* A software reset: look-ahead and blocks are as before, the write cache stays off. */
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	out(&h, CONTROL(0), 2, 1, 0);
	identify(&h, 0, page);
	assert_int_equal(word(page, 85) & 0x60, 0x40);
	assert_int_equal(word(page, 59), 0x100 | IDE_MULTIPLE);
	/* Unless the host wants to keep them. */
	assert_int_equal(talk(&h, 0, 0xef, 0x66, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0xc6, 0, 2, 0), 0);
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	out(&h, CONTROL(0), 2, 1, 0);
	identify(&h, 0, page);
	assert_int_equal(word(page, 59), 0x102);
	assert_int_equal(talk(&h, 0, 0xef, 0x02, 0, 0), 0);
	host_reset(&h);
	identify(&h, 0, page);
	assert_int_equal(word(page, 85) & 0x60, 0x60);
	host_close(&h);
}

static void test_talk(void **state)
{
	uint8_t page[512];
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	assert_int_equal(talk(&h, 0, 0x00, 0, 0, 0), ATA_ABRT); /* NOP */
	assert_int_equal(talk(&h, 0, 0x08, 0, 0, 0),
			 ATA_ABRT); /* DEVICE RESET is a packet drive's */
	assert_int_equal(talk(&h, 0, 0x10, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0x70, 0, 0, 5), 0);
	assert_int_equal(talk(&h, 0, 0xe7, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0xea, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0x91, 0, 63, 15u << 24), 0);
	assert_int_equal(talk(&h, 0, 0x91, 0, 0, 0), ATA_ABRT);
	/* READ NATIVE MAX ADDRESS, and EXT */
	assert_int_equal(talk(&h, 0, 0xf8, 0, 0, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_LOW) | reg(&h, 0, ATA_MID) << 8, 16383);
	assert_int_equal(talk(&h, 0, 0x27, 0, 0, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_LOW) | reg(&h, 0, ATA_MID) << 8, 16383);
	/* Power */
	assert_int_equal(talk(&h, 0, 0xe5, 0, 0, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_COUNT), 0xff);
	assert_int_equal(talk(&h, 0, 0xe2, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0xe5, 0, 0, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_COUNT), 0);
	assert_int_equal(talk(&h, 0, 0xe1, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0x98, 0, 0, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_COUNT), 0x80);
	/* SMART: the status is good, its data sums up to 0 */
	assert_int_equal(talk(&h, 0, 0xb0, 0xda, 0, 0xc24f00), 0);
	assert_int_equal(reg(&h, 0, ATA_MID), 0x4f);
	assert_int_equal(reg(&h, 0, ATA_HIGH), 0xc2);
	assert_int_equal(talk(&h, 0, 0xb0, 0xda, 0, 0), ATA_ABRT);
	for (unsigned i = 0; i < 4; i++) {
		static const uint32_t ask[] = { 0xd0c24f00, 0xd1c24f00, 0xd5c24f01, 0xd5c24f06 };
		uint8_t sum = 0;

		begin_28(&h, 0, 0xb0, ask[i] >> 24, 1, ask[i] & 0xffffff);
		assert_int_equal(ready(&h, 0), ATA_READY | ATA_DRQ);
		pio_in(&h, 0, page, 512, 2);
		for (unsigned j = 0; j < 512; j++)
			sum = (uint8_t)(sum + page[j]);
		assert_int_equal(sum, 0);
		assert_true(page[0] != 0);
	}
	assert_int_equal(talk(&h, 0, 0xb0, 0xd5, 1, 0xc24f02), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xb0, 0xd4, 0, 0xc24f01), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xb0, 0xd9, 0, 0xc24f00), 0);
	assert_int_equal(talk(&h, 0, 0xb0, 0xda, 0, 0xc24f00), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xb0, 0xd8, 0, 0xc24f00), 0);
	/* Asleep it takes no command; a reset wakes it. */
	assert_int_equal(talk(&h, 0, 0xe6, 0, 0, 0), 0);
	begin_28(&h, 0, 0xec, 0, 0, 0);
	assert_int_equal(status(&h, 0), ATA_READY);
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	out(&h, CONTROL(0), 2, 1, 0);
	assert_int_equal(talk(&h, 0, 0x10, 0, 0, 0), 0);
	host_close(&h);
}

/* --- selection, signatures, interrupts ------------------------------------------------------ */

static void test_drives(void **state)
{
	static const struct host_unit units[] = {
		{ .size = "1M", .position = "primary-master" },
		{ .size = "2M", .position = "primary-slave" },
		{ .type = "cdrom", .position = "secondary-slave" },
	};
	uint16_t page[256];
	struct host h;

	(void)state;
	host_open(&h, units, 3);
	identify(&h, 0, page);
	assert_int_equal(word(page, 60), 2048);
	h.drive = 1;
	identify(&h, 0, page);
	assert_int_equal(word(page, 60), 4096);
	/* Signatures after a reset, which selects device 0. */
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	assert_int_equal(alternate(&h, 0), ATA_BSY);
	out(&h, CONTROL(0), 2, 1, 0);
	assert_int_equal(reg(&h, 0, ATA_DEVICE) & ATA_DEV, 0);
	assert_int_equal(reg(&h, 0, ATA_FEATURES), 1);
	assert_int_equal(reg(&h, 0, ATA_COUNT), 1);
	assert_int_equal(reg(&h, 0, ATA_HIGH), 0);
	/* Device 1 is alone on the other channel: a packet drive, not ready before a command. */
	set(&h, 1, ATA_DEVICE, ATA_DEV);
	out(&h, CONTROL(1), 2, 1, ATA_SRST);
	out(&h, CONTROL(1), 2, 1, 0);
	assert_int_equal(status(&h, 1), 0); /* device 0: nobody */
	set(&h, 1, ATA_DEVICE, ATA_DEV);
	assert_int_equal(status(&h, 1), 0);
	assert_int_equal(reg(&h, 1, ATA_MID), 0x14);
	assert_int_equal(reg(&h, 1, ATA_HIGH), 0xeb);
	assert_int_equal(talk(&h, 1, 0xec, 0, 0, 0), ATA_ABRT);
	assert_int_equal(reg(&h, 1, ATA_HIGH), 0xeb);
	begin_28(&h, 1, 0xa1, 0, 0, 0);
	assert_int_equal(ready(&h, 1), ATA_READY | ATA_DRQ);
	pio_in(&h, 1, page, 512, 4);
	assert_int_equal(word(page, 0), 0x85c0);
	assert_int_equal(status(&h, 1), ATA_READY);
	/* EXECUTE DEVICE DIAGNOSTIC: both, device 0 reports. */
	h.drive = 1;
	begin_28(&h, 0, 0x90, 0, 0, 0);
	assert_true(atomic_load(&h.line));
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_int_equal(reg(&h, 0, ATA_DEVICE) & ATA_DEV, 0);
	assert_int_equal(reg(&h, 0, ATA_FEATURES), 1);
	host_close(&h);
}

static void test_nobody(void **state)
{
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	/* No device 1: device 0 answers for it, but there is no status, and no command is taken. */
	set(&h, 0, ATA_DEVICE, ATA_DEV);
	set(&h, 0, ATA_COUNT, 0x55);
	assert_int_equal(reg(&h, 0, ATA_COUNT), 0x55);
	assert_int_equal(status(&h, 0), 0);
	assert_int_equal(alternate(&h, 0), 0);
	set(&h, 0, ATA_COMMAND, 0xec);
	assert_int_equal(status(&h, 0), 0);
	/* A channel without drives floats. */
	set(&h, 1, ATA_COUNT, 0x55);
	assert_int_equal(reg(&h, 1, ATA_COUNT), 0x7f);
	assert_int_equal(status(&h, 1), 0x7f);
	set(&h, 1, ATA_COMMAND, 0x90);
	assert_false(atomic_load(&h.line));
	host_close(&h);
}

static void test_interrupts(void **state)
{
	static const struct host_unit units[] = { { .size = "1M", .position = "primary-master" },
						  { .size = "1M", .position = "primary-slave" } };
	struct host h;

	(void)state;
	host_open(&h, units, 2);
	begin_28(&h, 0, 0x10, 0, 0, 0);
	assert_true(atomic_load(&h.line));
	assert_int_equal(bm_status(&h, 0), BM_INTR);
	/* Not by alternate status, nor by the other drive's status. */
	alternate(&h, 0);
	assert_true(atomic_load(&h.line));
	set(&h, 0, ATA_DEVICE, ATA_DEV);
	assert_false(atomic_load(&h.line));
	status(&h, 0);
	set(&h, 0, ATA_DEVICE, 0);
	assert_true(atomic_load(&h.line));
	/* The bus master's bit is a latch of its own. */
	out(&h, BM, 2, 1, BM_INTR);
	assert_int_equal(bm_status(&h, 0), 0);
	assert_true(atomic_load(&h.line));
	/* nIEN hides it, and shows it again. */
	out(&h, CONTROL(0), 2, 1, ATA_NIEN);
	assert_false(atomic_load(&h.line));
	out(&h, CONTROL(0), 2, 1, 0);
	assert_true(atomic_load(&h.line));
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_false(atomic_load(&h.line));
	/* A new command ends it too. */
	begin_28(&h, 0, 0x10, 0, 0, 0);
	begin_28(&h, 0, 0xe5, 0, 0, 0);
	assert_int_equal(atomic_load(&h.rises), 5);
	/* With nIEN a host polls. */
	status(&h, 0);
	out(&h, CONTROL(0), 2, 1, ATA_NIEN);
	begin_28(&h, 0, 0x10, 0, 0, 0);
	assert_false(atomic_load(&h.line));
	assert_int_equal(status(&h, 0), ATA_READY);
	out(&h, CONTROL(0), 2, 1, 0);
	assert_false(atomic_load(&h.line));
	host_close(&h);
}

/* The previous content of a register, and a result of 48 bits. */
static void test_hob(void **state)
{
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	begin_48(&h, 0, 0x24, 0, 1, 0x123456789abc);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_ERR);
	assert_int_equal(reg(&h, 0, ATA_FEATURES), ATA_IDNF);
	assert_int_equal(reg(&h, 0, ATA_LOW), 0xbc);
	out(&h, CONTROL(0), 2, 1, ATA_HOB);
	assert_int_equal(reg(&h, 0, ATA_LOW), 0x56);
	assert_int_equal(reg(&h, 0, ATA_MID), 0x34);
	assert_int_equal(reg(&h, 0, ATA_HIGH), 0x12);
	set(&h, 0, ATA_COUNT, 1);
	assert_int_equal(reg(&h, 0, ATA_HIGH), 0x78);
	host_close(&h);
}

/* --- storage that hangs ----------------------------------------------------------------------- */

static const struct host_unit slow_disk[] = { { .size = "1M", .delay = "150ms" } };

/* Registers answer at once; SRST in the middle; what comes home late does not show. */
static void test_stalled(void **state)
{
	uint64_t began;
	uint16_t page[256];
	struct host h;
	unsigned polled = 0;

	(void)state;
	host_open(&h, slow_disk, 1);
	prd(&h, 0, DATA_AT, 4096, true);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 8, 0);
	bm_start(&h, 0, true);
	h.slowest = 0;
	for (began = testing_now(); testing_now() - began < 50000000; polled++) {
		assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
		assert_int_equal(bm_status(&h, 0), BM_ACTIVE);
	}
	assert_in_range(polled, 20, 1000000);
	assert_in_range(h.slowest, 0, 20000000); /* a preempted thread's slice, not the storage's */
	/* A write to the command block is not heard. */
	set(&h, 0, ATA_COUNT, 0x77);
	set(&h, 0, ATA_COMMAND, 0x10);
	assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
	out(&h, BM, 0, 1, 0);
	assert_int_equal(bm_status(&h, 0), 0);
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	out(&h, CONTROL(0), 2, 1, 0);
	assert_int_equal(alternate(&h, 0), ATA_READY);
	identify(&h, 0, page); /* needs no storage */
	assert_in_range(testing_now() - began, 0, 140000000);
	/* One that does waits until the old one is back, and gets its own answer. */
	begin_28(&h, 0, 0x20, 0, 1, 0);
	assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_DRQ);
	assert_in_range(testing_now() - began, 290000000, 10000000000);
	assert_int_equal(bm_status(&h, 0), BM_INTR); /* of the PIO */
	host_close(&h);
}

/* Reset with a command that is held; stop with a request under way. */
static void test_reset_under_way(void **state)
{
	struct host h;
	unsigned rises;

	(void)state;
	host_open(&h, slow_disk, 1);
	begin_28(&h, 0, 0x20, 0, 1, 0);
	host_reset(&h);
	assert_int_equal(alternate(&h, 0), ATA_READY);
	begin_28(&h, 0, 0x20, 0, 1, 0); /* held */
	host_reset(&h);
	rises = atomic_load(&h.rises);
	assert_int_equal(alternate(&h, 0), ATA_READY);
	usleep(200000);
	assert_int_equal(alternate(&h, 0), ATA_READY);
	assert_int_equal(atomic_load(&h.rises), rises);
	begin_28(&h, 0, 0x20, 0, 1, 0);
	host_close(&h);
}

/* Both channels at once: one hangs, the other does not care. */
static void test_channels(void **state)
{
	static const struct host_unit units[] = {
		{ .size = "1M", .delay = "100ms" },
		{ .size = "1M", .position = "secondary-master" },
	};
	static char bytes[512];
	struct host h;

	(void)state;
	host_open(&h, units, 2);
	begin_28(&h, 0, 0x20, 0, 1, 0);
	for (unsigned i = 0; i < 20; i++) {
		begin_28(&h, 1, 0x20, 0, 1, i);
		assert_int_equal(ready(&h, 1), ATA_READY | ATA_DRQ);
		pio_in(&h, 1, bytes, 512, 2);
	}
	assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_DRQ);
	host_close(&h);
}

/* A disk's transfer comes home while the other drive of the cable, of another kind, is at work. */
static void test_other_drive(void **state)
{
	static const struct host_unit units[] = { { .size = "1M", .delay = "50ms" },
						  { .type = "cdrom" } };
	struct host h;

	(void)state;
	host_open(&h, units, 2);
	for (unsigned i = 0; i < 3; i++) {
		prd(&h, 0, DATA_AT, 4096, true);
		bm_setup(&h, 0, PRD_AT);
		h.drive = 0;
		if (i < 2)
			begin_28(&h, 0, i ? 0xca : 0xc8, 0, 8, 0);
		else
			begin_28(&h, 0, 0x20, 0, 8, 0);
		bm_start(&h, 0, !i);
		out(&h, BM, 0, 1, 0);
		out(&h, CONTROL(0), 2, 1, ATA_SRST);
		out(&h, CONTROL(0), 2, 1, 0);
		set(&h, 0, ATA_DEVICE, ATA_DEV);
		/* Its identity needs nobody; a packet waits for the job. */
		set(&h, 0, ATA_COMMAND, 0xa1);
		assert_int_equal(status(&h, 0), ATA_READY | ATA_DRQ);
		usleep(70000);
		pio_in(&h, 0, h.memory + DATA_AT, 512, 2);
		assert_int_equal(status(&h, 0), ATA_READY);
	}
	host_close(&h);
}

/* What the control side does, on a loop of its own. */

/* --- a storm -------------------------------------------------------------------------------- */

static unsigned draw(uint64_t *random)
{
	*random ^= *random >> 12;
	*random ^= *random << 25;
	*random ^= *random >> 27;
	return (unsigned)(*random * 0x2545f4914f6cdd1dull >> 33);
}

static void test_storm(void **state)
{
	static const struct host_unit units[] = {
		{ .size = "1M", .position = "primary-master" },
		{ .size = "1M", .position = "primary-slave", .delay = "1ms" },
		{ .size = "1M", .type = "cdrom", .position = "secondary-master" },
		{ .position = "secondary-slave" },
	};
	static const uint8_t sizes[] = { 8, 4, 8, 4, 16 };
	uint64_t random = 7;
	struct host h;

	(void)state;
	host_open(&h, units, 4);
	for (unsigned i = 0; i < 60000; i++) {
		unsigned bar = draw(&random) % 5, width = 1u << draw(&random) % 3;
		unsigned offset = draw(&random) % (sizes[bar] - width + 1);

		if (draw(&random) % 3)
			out(&h, bar, offset, width, draw(&random));
		else
			in(&h, bar, offset, width);
		if (i % 5000 == 0)
			host_reset(&h);
	}
	/* And it works. */
	host_reset(&h);
	h.drive = 1;
	begin_28(&h, 0, 0x20, 0, 1, 0);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_DRQ);
	host_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identify),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_talk),
		cmocka_unit_test(test_drives),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_hob),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_reset_under_way),
		cmocka_unit_test(test_channels),
		cmocka_unit_test(test_other_drive),
		cmocka_unit_test(test_storm),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
