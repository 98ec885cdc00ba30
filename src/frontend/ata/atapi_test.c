/* SPDX-License-Identifier: BSD-3-Clause */
/* atapi_test.c - CD-ROM drives: packets by PIO and by DMA, sense, an empty drive, media that change
 */
#include "frontend/ata/ide_testing.h"

/* PACKET with @cdb, up to the data or the end; what the interrupt reason is then. */
static unsigned packet(struct host *h, const uint8_t *cdb, unsigned features, unsigned limit)
{
	set(h, 0, ATA_DEVICE, 0);
	set(h, 0, ATA_FEATURES, features);
	set(h, 0, ATA_MID, limit & 0xff);
	set(h, 0, ATA_HIGH, limit >> 8);
	set(h, 0, ATA_COMMAND, 0xa0);
	assert_int_equal(ready(h, 0) & (ATA_DRQ | ATA_ERR), ATA_DRQ);
	assert_int_equal(reg(h, 0, ATA_COUNT) & 3, 1);
	assert_false(atomic_load(&h->line));
	pio_out(h, 0, cdb, 12, 2);
	if (features & 1)
		return 0;
	ready(h, 0);
	return reg(h, 0, ATA_COUNT) & 3;
}

#define CDB(...) ((const uint8_t[12]){ __VA_ARGS__ })

/* Takes blocks until the end. Bytes taken. */
static unsigned packet_in(struct host *h, char *to, unsigned limit)
{
	unsigned total = 0;

	while (ready(h, 0) & ATA_DRQ) {
		unsigned n = reg(h, 0, ATA_MID) | (unsigned)reg(h, 0, ATA_HIGH) << 8;

		assert_int_equal(reg(h, 0, ATA_COUNT) & 3, 2);
		assert_in_range(n, 1, limit);
		assert_true(atomic_load(&h->line));
		status(h, 0);
		pio_in(h, 0, to + total, (n + 1) & ~1u, 2);
		total += n;
	}
	assert_int_equal(reg(h, 0, ATA_COUNT) & 3, 3);
	assert_true(atomic_load(&h->line));
	assert_int_equal(status(h, 0) & ATA_ERR, 0);
	return total;
}

/* REQUEST SENSE: key, code and qualifier in one number. */
static unsigned sense(struct host *h)
{
	uint8_t bytes[64] = { 0 };

	assert_int_equal(packet(h, CDB(0x03, 0, 0, 0, 18), 0, 18), 2);
	assert_int_equal(packet_in(h, (char *)bytes, 18), 18);
	return (unsigned)(bytes[2] & 15) << 16 | (unsigned)bytes[12] << 8 | bytes[13];
}

static void test_cdrom(void **state)
{
	static const struct host_unit units[] = { { .size = "1M", .type = "cdrom" } };
	static char bytes[160 * 2048];
	struct host h;

	(void)state;
	host_open(&h, units, 1);
	/* INQUIRY does not care for the attention of a new unit; what comes next does. */
	assert_int_equal(packet(&h, CDB(0x12, 0, 0, 0, 36), 0, 36), 2);
	assert_int_equal(packet_in(&h, bytes, 36), 36);
	assert_int_equal(bytes[0], 5);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(status(&h, 0) & ATA_ERR, ATA_ERR);
	assert_int_equal(reg(&h, 0, ATA_FEATURES) >> 4, 6);
	assert_int_equal(sense(&h) >> 8, 0x0629);
	assert_int_equal(sense(&h), 0);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(status(&h, 0), ATA_READY);
	/* READ CAPACITY: 512 blocks */
	assert_int_equal(packet(&h, CDB(0x25), 0, 8), 2);
	assert_int_equal(packet_in(&h, bytes, 8), 8);
	assert_memory_equal(bytes, "\0\0\1\377\0\0\10\0", 8);
	/* READ (10) and (12), longer than the buffer, in odd blocks */
	memset(bytes, 1, sizeof bytes);
	assert_int_equal(packet(&h, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 160), 0, 3001), 2);
	assert_int_equal(packet_in(&h, bytes, 3000), 160 * 2048);
	assert_int_equal(bytes[160 * 2048 - 1], 0);
	assert_int_equal(packet(&h, CDB(0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 160), 0, 0), 2);
	assert_int_equal(packet_in(&h, bytes, 65535), 160 * 2048);
	/* Outside */
	assert_int_equal(packet(&h, CDB(0x28, 0, 0, 0, 2, 0, 0, 0, 1), 0, 2048), 3);
	assert_int_equal(sense(&h), 0x052100);
	/* By DMA: the same, and what is no read */
	memset(h.memory + DATA_AT, 1, sizeof bytes);
	for (unsigned i = 0; i < 10; i++)
		prd(&h, i, DATA_AT + i * 32768, 32768, i == 9);
	bm_setup(&h, 0, PRD_AT);
	packet(&h, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 160), 1, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_int_equal(h.memory[DATA_AT], 0);
	assert_int_equal(h.memory[DATA_AT + 160 * 2048 - 1], 0);
	prd(&h, 0, DATA_AT, 36, true);
	bm_setup(&h, 0, PRD_AT);
	packet(&h, CDB(0x12, 0, 0, 0, 36), 1, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	assert_int_equal(h.memory[DATA_AT], 5);
	/* A table that is shorter than the answer */
	memset(h.memory + DATA_AT, 1, 36);
	prd(&h, 0, DATA_AT, 16, true);
	bm_setup(&h, 0, PRD_AT);
	packet(&h, CDB(0x12, 0, 0, 0, 36), 1, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_int_equal(h.memory[DATA_AT + 15], 'K');
	assert_int_equal(h.memory[DATA_AT + 16], 1);
	/* DEVICE RESET, with the packet half given */
	status(&h, 0);
	set(&h, 0, ATA_FEATURES, 0);
	set(&h, 0, ATA_COMMAND, 0xa0);
	pio_out(&h, 0, "\0\0\0", 4, 2);
	set(&h, 0, ATA_COMMAND, 0x08);
	assert_int_equal(status(&h, 0), 0);
	assert_int_equal(reg(&h, 0, ATA_HIGH), 0xeb);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(status(&h, 0), ATA_READY);
	host_close(&h);
}

static void test_empty_drive(void **state)
{
	static const struct host_unit units[] = { { .type = "auto" } };
	char bytes[64];
	struct host h;

	(void)state;
	host_open(&h, units, 1);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(sense(&h) >> 8, 0x0629);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(sense(&h) >> 8, 0x023a);
	/* GET EVENT STATUS, media */
	assert_int_equal(packet(&h, CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0, 8), 2);
	assert_int_equal(packet_in(&h, bytes, 8), 8);
	assert_int_equal(bytes[5] & 2, 0);
	host_close(&h);
}

/* A disk's transfer comes home while the other drive of the cable, of another kind, is at work. */

/* What the control side does, on a loop of its own. */
struct change {
	struct loop_message message;
	struct device_change change;
	struct host *host;
	unsigned unit;
	struct disk *disk;
	struct error err;
	int status;
	sem_t done;
};

static void changed(struct device_change *change)
{
	struct change *c = change->owner;

	c->status = change->status;
	sem_post(&c->done);
}

static void change_run(struct loop_message *message)
{
	struct change *c = container_of(message, struct change, message);
	struct device *device = &c->host->ide->pci.device;

	c->status = device->ops->set_disk(device, c->unit, c->disk, &c->change, &c->err);
	if (c->status)
		sem_post(&c->done);
}

static int change_disk(struct host *h, struct loop *control, unsigned unit, struct disk *disk,
		       bool force)
{
	struct change c = { .message.run = change_run,
			    .change = { .force = force, .done = changed },
			    .host = h,
			    .unit = unit,
			    .disk = disk };

	c.change.owner = &c;
	sem_init(&c.done, 0, 0);
	loop_send(control, &c.message);
	while (sem_wait(&c.done))
		;
	sem_destroy(&c.done);
	return c.status;
}

static void test_medium_change(void **state)
{
	static const struct host_unit units[] = {
		{ .size = "1M", .type = "cdrom", .position = "primary-master" },
		{ .size = "2M", .position = "secondary-master" },
	};
	struct loop_config config = { .name = "control", .engine = LOOP_THREADS, .cpu = -1 };
	static char bytes[2048];
	struct loop *control;
	struct disk *disk;
	struct host h;

	(void)state;
	host_open(&h, units, 2);
	control = loop_create(&config, NULL);
	assert_int_equal(loop_start(control, NULL), 0);
	disk = h.disk[0];
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(sense(&h) >> 8, 0x0629);
	/* PREVENT MEDIUM REMOVAL, until the function is reset */
	assert_int_equal(packet(&h, CDB(0x1e, 0, 0, 0, 1), 0, 0), 3);
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_int_equal(change_disk(&h, control, 0, NULL, false), -EBUSY);
	host_reset(&h);
	while (packet(&h, CDB(0), 0, 0) == 3 && status(&h, 0) & ATA_ERR)
		;
	assert_int_equal(change_disk(&h, control, 0, NULL, false), 0);
	assert_int_equal(packet(&h, CDB(0), 0, 0), 3);
	assert_int_equal(sense(&h) >> 8, 0x023a);
	assert_int_equal(change_disk(&h, control, 0, disk, false), 0);
	assert_int_equal(packet(&h, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048), 3);
	assert_int_equal(sense(&h) >> 8, 0x0628);
	assert_int_equal(packet(&h, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048), 2);
	assert_int_equal(packet_in(&h, bytes, 2048), 2048);
	/* A hard disk keeps its disk. */
	assert_int_equal(change_disk(&h, control, 2, NULL, true), -ENOTSUP);
	loop_stop(control);
	loop_destroy(control);
	host_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cdrom),
		cmocka_unit_test(test_empty_drive),
		cmocka_unit_test(test_medium_change),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
