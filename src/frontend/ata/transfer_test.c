/* SPDX-License-Identifier: BSD-3-Clause */
/* transfer_test.c - a disk's data: by PIO, by DMA, with tables that lie; write cache, TRIM,
 * failures */
#include "frontend/ata/ide_testing.h"

static const struct host_unit one_disk[] = { { .size = "8M" } };

/* --- data by PIO ---------------------------------------------------------------------------- */

struct pio_case {
	unsigned write, read, block; /* commands; sectors of a block */
	bool ext;
};

static void pio_case(struct host *h, const struct pio_case *c, unsigned sectors, uint32_t lba)
{
	static char given[200 * 512], taken[200 * 512];
	unsigned at, rises;

	fill(given, sectors * 512, lba);
	memset(taken, 0, sizeof taken);
	(c->ext ? begin_48(h, 0, c->write, 0, sectors, lba)
		: begin_28(h, 0, c->write, 0, sectors, lba));
	rises = atomic_load(&h->rises);
	for (at = 0; at < sectors;) {
		unsigned n = sectors - at < c->block ? sectors - at : c->block;

		/* The first block is asked for without an interrupt. */
		assert_int_equal(ready(h, 0), ATA_READY | ATA_DRQ);
		assert_int_equal(atomic_load(&h->line), at != 0);
		status(h, 0);
		pio_out(h, 0, given + (size_t)at * 512, n * 512, at % 2 ? 2 : 4);
		at += n;
	}
	assert_int_equal(ready(h, 0), ATA_READY);
	assert_true(atomic_load(&h->line));
	status(h, 0);
	assert_int_equal(atomic_load(&h->rises) - rises, (sectors + c->block - 1) / c->block);

	rises = atomic_load(&h->rises);
	(c->ext ? begin_48(h, 0, c->read, 0, sectors, lba)
		: begin_28(h, 0, c->read, 0, sectors, lba));
	for (at = 0; at < sectors;) {
		unsigned n = sectors - at < c->block ? sectors - at : c->block;

		assert_int_equal(ready(h, 0), ATA_READY | ATA_DRQ);
		assert_true(atomic_load(&h->line));
		status(h, 0);
		assert_false(atomic_load(&h->line));
		pio_in(h, 0, taken + (size_t)at * 512, n * 512, 2);
		at += n;
	}
	assert_int_equal(ready(h, 0), ATA_READY);
	assert_false(atomic_load(&h->line)); /* the last block is its own end */
	assert_int_equal(atomic_load(&h->rises) - rises, (sectors + c->block - 1) / c->block);
	assert_memory_equal(given, taken, (size_t)sectors * 512);
}

static void test_pio(void **state)
{
	static const struct pio_case cases[] = {
		{ 0x30, 0x20, 1, false }, { 0x31, 0x21, 1, false }, { 0x34, 0x24, 1, true },
		{ 0xc5, 0xc4, 8, false }, { 0x39, 0x29, 8, true },  { 0xce, 0x29, 8, true },
	};
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	assert_int_equal(talk(&h, 0, 0xc6, 0, 8, 0), 0);
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		pio_case(&h, &cases[i], 1, 5 + i);
		pio_case(&h, &cases[i], 19, 100 * i);
		pio_case(&h, &cases[i], 200, 16384 - 200); /* more than the buffer; to the end */
	}
	assert_int_equal(talk(&h, 0, 0xc6, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0xc4, 0, 1, 0), ATA_ABRT);
	host_close(&h);
}

/* By cylinder, head and sector; with the translation that the host wants. */
static void test_chs(void **state)
{
	static char given[512], taken[512];
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	assert_int_equal(talk(&h, 0, 0x91, 0, 17, 3u << 24), 0); /* 4 heads, 17 sectors */
	fill(given, 512, 3);
	begin_28(&h, 0, 0x30, 0, 1, (2 * 4 + 1) * 17 + 4);
	pio_out(&h, 0, given, 512, 2);
	assert_int_equal(ready(&h, 0), ATA_READY);
	set(&h, 0, ATA_DEVICE, 1);
	set(&h, 0, ATA_COUNT, 1);
	set(&h, 0, ATA_LOW, 5);
	set(&h, 0, ATA_MID, 2);
	set(&h, 0, ATA_HIGH, 0);
	set(&h, 0, ATA_COMMAND, 0x20);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_DRQ);
	pio_in(&h, 0, taken, 512, 2);
	assert_memory_equal(given, taken, 512);
	for (unsigned i = 0; i < 3; i++) { /* sector 0, sector 18, head 4 */
		static const uint8_t low[] = { 0, 18, 1 }, head[] = { 0, 0, 4 };

		set(&h, 0, ATA_DEVICE, head[i]);
		set(&h, 0, ATA_LOW, low[i]);
		set(&h, 0, ATA_COMMAND, 0x20);
		assert_int_equal(ready(&h, 0), ATA_READY | ATA_ERR);
		assert_int_equal(reg(&h, 0, ATA_FEATURES), ATA_IDNF);
	}
	host_close(&h);
}

static void test_outside(void **state)
{
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	assert_int_equal(talk(&h, 0, 0x20, 0, 1, 16384), ATA_IDNF);
	assert_int_equal(talk(&h, 0, 0x20, 0, 2, 16383), ATA_IDNF);
	assert_int_equal(talk(&h, 0, 0xc8, 0, 0, 16384 - 255), ATA_IDNF);
	assert_int_equal(talk(&h, 0, 0x40, 0, 0, 16384 - 256), 0); /* READ VERIFY of 256 */
	assert_int_equal(talk(&h, 0, 0x40, 0, 2, 16383), ATA_IDNF);
	begin_48(&h, 0, 0x42, 0, 0x3000, 0x1000);
	assert_int_equal(ready(&h, 0), ATA_READY);
	begin_48(&h, 0, 0x25, 0, 0, 0); /* 65,536 sectors of a disk of 16,384 */
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_ERR);
	host_close(&h);
}

static void test_read_only(void **state)
{
	static const struct host_unit units[] = {
		{ .size = "1M", .config.read_only = true },
	};
	struct host h;

	(void)state;
	host_open(&h, units, 1);
	assert_int_equal(talk(&h, 0, 0x30, 0, 1, 0), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xca, 0, 1, 0), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xef, 0x02, 0, 0), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0x06, 1, 1, 0), ATA_ABRT);
	assert_int_equal(talk(&h, 0, 0xe7, 0, 0, 0), 0);
	host_close(&h);
}

static void test_big_sectors(void **state)
{
	static const struct host_unit units[] = { { .size = "1M",
						    .config.block_size = DISK_BLOCK_4096 } };
	static char given[9 * 4096], taken[9 * 4096];
	uint16_t page[256];
	struct host h;

	(void)state;
	host_open(&h, units, 1);
	identify(&h, 0, page);
	assert_int_equal(word(page, 60), 256);
	assert_int_equal(word(page, 106) & 0xd000, 0x5000);
	assert_int_equal(word(page, 117), 2048);
	fill(given, sizeof given, 1);
	begin_28(&h, 0, 0xc5, 0, 9, 247);
	pio_out(&h, 0, given, sizeof given, 4);
	assert_int_equal(ready(&h, 0), ATA_READY);
	for (unsigned i = 0; i < 3; i++)
		prd(&h, i, DATA_AT + i * 12288, 12288, i == 2);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 9, 247);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	memcpy(taken, h.memory + DATA_AT, sizeof taken);
	assert_memory_equal(given, taken, sizeof given);
	host_close(&h);
}

/* --- data by DMA ---------------------------------------------------------------------------- */

static void test_dma(void **state)
{
	static const unsigned entries[] = { 65536, 4096, 512, 510, 20, 2 };
	static char given[256 * 512];
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	for (unsigned i = 0; i < sizeof entries / sizeof *entries; i++) {
		/* The table has room for 7,680 entries. */
		unsigned most = entries[i] * 7680 / 512, sectors = most < 256 ? most : 256;
		uint64_t lba = i * 300ull;

		fill(given, sizeof given, i);
		memcpy(h.memory + DATA_AT, given, sizeof given);
		assert_int_equal(dma(&h, 0, i % 2 ? 0x35 : 0x3d, sectors, lba, entries[i], false),
				 BM_INTR);
		memset(h.memory + DATA_AT, 0, sizeof given);
		assert_int_equal(dma(&h, 0, 0x25, sectors, lba, entries[i], true), BM_INTR);
		assert_memory_equal(h.memory + DATA_AT, given, (size_t)sectors * 512);
	}
	/* The table may be longer than the command: the engine is still active then. */
	prd(&h, 0, DATA_AT, 8192, true);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 8, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR | BM_ACTIVE);
	assert_int_equal(bm_status(&h, 0), BM_INTR);
	assert_int_equal(status(&h, 0), ATA_READY);
	/* Started before the command. */
	bm_setup(&h, 0, PRD_AT);
	bm_start(&h, 0, true);
	assert_int_equal(bm_status(&h, 0), BM_ACTIVE);
	begin_28(&h, 0, 0xc8, 0, 16, 0);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	/* Bus mastering off: it waits. */
	bus_master_on(&h, false);
	status(&h, 0);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 16, 0);
	bm_start(&h, 0, true);
	usleep(5000);
	assert_int_equal(bm_status(&h, 0), BM_ACTIVE);
	assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
	bus_master_on(&h, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	host_close(&h);
}

static void test_table_register(void **state)
{
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	out(&h, BM, 4, 4, 0x12345677);
	assert_int_equal(in(&h, BM, 4, 4), 0x12345674);
	out(&h, BM, 6, 1, 0xab);
	assert_int_equal(in(&h, BM, 4, 4), 0x12ab5674);
	out(&h, BM, 12, 2, 0xffff);
	assert_int_equal(in(&h, BM, 12, 4), 0xfffc);
	out(&h, BM, 2, 1, 0x60);
	assert_int_equal(in(&h, BM, 2, 1), 0x60);
	out(&h, BM, 2, 1, 0x06);
	assert_int_equal(in(&h, BM, 2, 1), 0);
	host_close(&h);
}

/* Tables that lie. */
static void test_hostile_tables(void **state)
{
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	/* Too short: the drive waits until a reset; what came before was moved. */
	prd(&h, 0, DATA_AT, 512, true);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 2, 0);
	bm_start(&h, 0, true);
	usleep(10000);
	assert_int_equal(bm_status(&h, 0), 0);
	assert_int_equal(alternate(&h, 0) & ATA_BSY, ATA_BSY);
	out(&h, BM, 0, 1, 0);
	out(&h, CONTROL(0), 2, 1, ATA_SRST);
	out(&h, CONTROL(0), 2, 1, 0);
	assert_int_equal(alternate(&h, 0), ATA_READY);
	/* Data outside memory; an entry that reaches out of it; a table outside; half a sector */
	for (unsigned i = 0; i < 5; i++) {
		static const struct {
			uint32_t table, address, count;
		} lie[] = {
			{ PRD_AT, 0x80000000, 512 },  { PRD_AT, GUEST_BYTES - 256, 512 },
			{ 0xfffffffc, DATA_AT, 512 }, { GUEST_BYTES, DATA_AT, 512 },
			{ PRD_AT, 0xfffffffe, 0 },
		};

		prd(&h, 0, lie[i].address, lie[i].count, true);
		bm_setup(&h, 0, lie[i].table);
		begin_28(&h, 0, 0xc8, 0, 1, 0);
		bm_start(&h, 0, true);
		assert_int_equal(bm_wait(&h, 0), BM_INTR | BM_ERROR);
		assert_int_equal(status(&h, 0), ATA_READY | ATA_ERR);
		assert_int_equal(reg(&h, 0, ATA_FEATURES), ATA_ABRT);
	}
	/* A good entry before the bad one is moved; then it fails. */
	memset(h.memory + DATA_AT, 1, 512);
	prd(&h, 0, DATA_AT, 512, false);
	prd(&h, 1, 0x80000000, 512, true);
	bm_setup(&h, 0, PRD_AT);
	begin_28(&h, 0, 0xc8, 0, 2, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR | BM_ERROR);
	assert_int_equal(h.memory[DATA_AT + 511], 0);
	status(&h, 0);
	/* Odd addresses and counts lose their lowest bit; the last entry of memory's last page. */
	prd(&h, 0, DATA_AT + 1, 513, true);
	memcpy(h.memory + GUEST_BYTES - 8, h.memory + PRD_AT, 8);
	bm_setup(&h, 0, GUEST_BYTES - 8);
	begin_28(&h, 0, 0xc8, 0, 1, 0);
	bm_start(&h, 0, true);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	host_close(&h);
}

static void test_trim(void **state)
{
	uint64_t *range;
	struct host h;

	(void)state;
	host_open(&h, one_disk, 1);
	memset(h.memory + DATA_AT, 0x5a, 32768);
	assert_int_equal(dma(&h, 0, 0x35, 64, 0, 4096, false), BM_INTR);
	memset(h.memory + DATA_AT, 0, 512);
	range = (uint64_t *)(h.memory + DATA_AT);
	range[0] = htole64(8ull << 48 | 8);
	range[1] = htole64(16ull << 48 | 32);
	prd(&h, 0, DATA_AT, 512, true);
	bm_setup(&h, 0, PRD_AT);
	begin_48(&h, 0, 0x06, 1, 1, 0);
	bm_start(&h, 0, false);
	assert_int_equal(bm_wait(&h, 0), BM_INTR);
	assert_int_equal(status(&h, 0), ATA_READY);
	assert_int_equal(dma(&h, 0, 0x25, 64, 0, 4096, true), BM_INTR);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(h.memory[DATA_AT + i * 512],
				 (i >= 8 && i < 16) || (i >= 32 && i < 48) ? 0 : 0x5a);
	/* Outside */
	range[0] = htole64(8ull << 48 | 16383);
	bm_setup(&h, 0, PRD_AT);
	begin_48(&h, 0, 0x06, 1, 1, 0);
	bm_start(&h, 0, false);
	assert_int_equal(bm_wait(&h, 0) & BM_ERROR, 0);
	assert_int_equal(status(&h, 0), ATA_READY | ATA_ERR);
	assert_int_equal(reg(&h, 0, ATA_FEATURES), ATA_IDNF);
	host_close(&h);
}

/* How many of @command's writes were to be stable. */
static unsigned stable_writes(struct host *h, unsigned command)
{
	unsigned before = passed.stable, writes = passed.count[IO_WRITE];

	assert_int_equal(dma(h, 0, command, 8, 0, 4096, false), BM_INTR);
	assert_int_equal(passed.count[IO_WRITE] - writes, 1);
	return passed.stable - before;
}

static void test_write_cache(void **state)
{
	static const struct host_unit units[] = { { .size = "1M", .record = true } };
	struct host h;
	unsigned flushes;

	(void)state;
	host_open(&h, units, 1);
	assert_int_equal(stable_writes(&h, 0x35), 0);
	assert_int_equal(stable_writes(&h, 0x3d), 1); /* WRITE DMA FUA EXT */
	flushes = passed.count[IO_FLUSH];
	assert_int_equal(talk(&h, 0, 0xea, 0, 0, 0), 0);
	assert_int_equal(passed.count[IO_FLUSH] - flushes, 1);
	/* Turned off, what is in it is written first; twice makes no difference. */
	assert_int_equal(talk(&h, 0, 0xef, 0x82, 0, 0), 0);
	assert_int_equal(passed.count[IO_FLUSH] - flushes, 2);
	assert_int_equal(talk(&h, 0, 0xef, 0x82, 0, 0), 0);
	assert_int_equal(passed.count[IO_FLUSH] - flushes, 2);
	assert_int_equal(stable_writes(&h, 0x35), 1);
	assert_int_equal(talk(&h, 0, 0xef, 0x02, 0, 0), 0);
	assert_int_equal(stable_writes(&h, 0x35), 0);
	/* STANDBY and SLEEP */
	assert_int_equal(talk(&h, 0, 0xe0, 0, 0, 0), 0);
	assert_int_equal(talk(&h, 0, 0xe6, 0, 0, 0), 0);
	assert_int_equal(passed.count[IO_FLUSH] - flushes, 4);
	host_close(&h);
}

static void test_storage_fails(void **state)
{
	static const struct host_unit units[] = { { .size = "1M", .errors = "100%" } };
	static char given[512];
	struct host h;

	(void)state;
	host_open(&h, units, 1);
	assert_int_equal(talk(&h, 0, 0x20, 0, 1, 77), ATA_UNC);
	assert_int_equal(reg(&h, 0, ATA_LOW), 77);
	begin_28(&h, 0, 0x30, 0, 1, 0);
	pio_out(&h, 0, given, 512, 2);
	assert_int_equal(ready(&h, 0), ATA_READY | ATA_ERR | ATA_DF);
	assert_int_equal(dma(&h, 0, 0x25, 8, 0, 4096, true), BM_INTR);
	assert_int_equal(status(&h, 0), ATA_READY | ATA_ERR);
	assert_int_equal(talk(&h, 0, 0xe7, 0, 0, 0), ATA_ABRT);
	assert_int_equal(stats_read(&h.ide->pci.device.units[0].stats->op[IO_READ].errors), 2);
	host_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pio),
		cmocka_unit_test(test_chs),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_big_sectors),
		cmocka_unit_test(test_dma),
		cmocka_unit_test(test_table_register),
		cmocka_unit_test(test_hostile_tables),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_write_cache),
		cmocka_unit_test(test_storage_fails),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
