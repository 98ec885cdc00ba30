/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide_test.c - an IDE function over vfio-user, by a driver of the test's own: DMA with interrupts,
 * DMA by message, PIO, packet commands; storage that hangs; a VMM that goes, or takes its memory
 * away
 */
#include "check.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vfio_user_client.h"

enum { MEMORY = 1 << 20, TABLE = 0x1000, DATA = 0x10000, SECTOR = 512 };
enum { COMMANDS = 0, CONTROL = 1, BUS_MASTER = 4 }; /* BARs, of the primary channel */
enum { FEATURES = 1, COUNT, LOW, MID, HIGH, DEVICE, STATUS };
enum { ERR = 1, DRQ = 8, READY = 0x50, BSY = 0x80 };

static struct daemon daemon_;
static struct vfu_client vmm;
static char *memory;
static int memory_fd = -1, irq = -1;

static int prepare(void **state)
{
	(void)state;
	daemon_prepare(&daemon_);
	daemon_make_image(&daemon_, "disk.img", 4 << 20);
	daemon_make_image(&daemon_, "cd.img", 1 << 20);
	daemon_deadline(90);
	vmm.fd = -1;
	return 0;
}

static void let_go(void)
{
	vfu_disconnect(&vmm);
	if (irq >= 0)
		close(irq);
	if (memory)
		munmap(memory, MEMORY);
	if (memory_fd >= 0)
		close(memory_fd);
	irq = memory_fd = -1;
	memory = NULL;
}

static int clean(void **state)
{
	(void)state;
	let_go();
	daemon_clean(&daemon_);
	return 0;
}

#define good(call) assert_int_equal(call, 0)

/* A VMM with a mebibyte at 0, which it shares, or only announces. */
static void attach(bool shared)
{
	uint16_t command = 7;

	good(vfu_open(&vmm, daemon_path(&daemon_, "ide.sock")));
	memory = vfu_memory(MEMORY, &memory_fd);
	assert_non_null(memory);
	good(vfu_map(&vmm, 0, MEMORY, memory, shared ? memory_fd : -1, 0, 3));
	irq = vfu_eventfd(&vmm, VFU_INTX, 0);
	assert_true(irq >= 0);
	good(vfu_write(&vmm, VFU_CONFIG, 4, &command, 2));
}

/* A disk with @layer above it (may be ""), and a CD-ROM on the other channel. */
static void serve(const char *layer)
{
	static const char *args[] = { "run", NULL, NULL };

	daemon_write_file(&daemon_, "c.yaml",
			  "disks:\n"
			  "  disk: {stack: [%s {file: {path: %s}}]}\n"
			  "  cd: {stack: [{file: {path: %s}}]}\n"
			  "vms:\n"
			  "  vm:\n"
			  "    - ide: [disk, {disk: cd, type: cdrom, position: secondary-master}]\n"
			  "      socket: %s\n",
			  layer, daemon_path(&daemon_, "disk.img"), daemon_path(&daemon_, "cd.img"),
			  daemon_path(&daemon_, "ide.sock"));
	args[1] = daemon_path(&daemon_, "c.yaml");
	daemon_start(&daemon_, args);
}

/* --- the driver --------------------------------------------------------------------- */

static void put(unsigned bar, unsigned at, unsigned value)
{
	good(vfu_put(&vmm, bar, at, 1, value));
}

static unsigned get(unsigned bar, unsigned at)
{
	uint64_t value = vfu_get(&vmm, bar, at, 1);

	assert_in_range(value, 0, 255);
	return (unsigned)value;
}

static void wait_ready(unsigned channel)
{
	int64_t end = clock_ms() + 10000;

	while (get(2 * channel + CONTROL, 2) & BSY) {
		if (clock_ms() > end)
			fail_msg("busy for 10 s");
		good(vfu_serve(&vmm, 1));
	}
}

static void command(unsigned channel, unsigned code, unsigned count, uint32_t lba)
{
	unsigned bar = 2 * channel;

	put(bar, DEVICE, 0x40 | lba >> 24);
	put(bar, COUNT, count);
	put(bar, LOW, lba & 255);
	put(bar, MID, lba >> 8 & 255);
	put(bar, HIGH, lba >> 16 & 255);
	put(bar, STATUS, code);
}

static void begin_dma(unsigned code, unsigned sectors, uint32_t lba)
{
	uint32_t table[4] = { htole32(DATA), htole32(SECTOR), htole32(DATA + SECTOR),
			      htole32((sectors - 1) * SECTOR | 1u << 31) };

	memcpy(memory + TABLE, table, sizeof table);
	good(vfu_put(&vmm, BUS_MASTER, 4, 4, TABLE));
	put(BUS_MASTER, 2, 6);
	command(0, code, sectors, lba);
	put(BUS_MASTER, 0, code == 0xc8 ? 9 : 1);
}

/* Its interrupt, and what libata does with it. */
static void end_dma(void)
{
	assert_int_equal(vfu_wait_event(&vmm, irq, 10000), 1);
	assert_int_equal(get(BUS_MASTER, 2), 4);
	put(BUS_MASTER, 0, 0);
	assert_int_equal(get(COMMANDS, STATUS), READY);
	put(BUS_MASTER, 2, 4);
	good(vfu_set_irqs(&vmm, VFU_NONE | VFU_UNMASK, VFU_INTX, 0, 1, NULL, 0, NULL, 0));
	assert_int_equal(vfu_wait_event(&vmm, irq, 0), 0);
}

static void dma(unsigned code, unsigned sectors, uint32_t lba)
{
	begin_dma(code, sectors, lba);
	end_dma();
}

/* --- tests -------------------------------------------------------------------------- */

static void test_identity(void **state)
{
	static const unsigned sizes[] = { 8, 4, 8, 4, 16, 0 };
	struct vfu_region_info region;
	struct vfu_irq_info interrupts;
	uint8_t config[64];

	(void)state;
	serve("");
	attach(true);
	for (unsigned i = 0; i < 6; i++) {
		good(vfu_region_info(&vmm, i, &region));
		assert_int_equal(region.size, sizes[i]);
	}
	good(vfu_read(&vmm, VFU_CONFIG, 0, config, sizeof config));
	assert_memory_equal(config, "\x86\x80\xc0\x27", 4);
	assert_memory_equal(config + 9, "\x8f\x01\x01", 3);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(config[0x10 + 4 * i] & 3, 1); /* I/O */
	assert_int_equal(config[0x3d], 1);
	good(vfu_irq_info(&vmm, VFU_INTX, &interrupts));
	assert_int_equal(interrupts.count, 1);
	good(vfu_irq_info(&vmm, VFU_MSIX, &interrupts));
	assert_int_equal(interrupts.count, 0);
}

static void test_dma(void **state)
{
	uint8_t image[64 * SECTOR];
	int fd;

	(void)state;
	serve("");
	for (unsigned pass = 0; pass < 2; pass++) { /* shared memory, then by message */
		attach(pass == 0);
		for (unsigned i = 0; i < 64 * SECTOR; i++)
			memory[DATA + i] = (char)(i * 31 + i / SECTOR + pass);
		dma(0xca, 64, 100);
		command(0, 0xe7, 0, 0);
		wait_ready(0);
		assert_int_equal(get(COMMANDS, STATUS), READY);
		fd = open(daemon_path(&daemon_, "disk.img"), O_RDONLY | O_CLOEXEC);
		assert_int_equal(pread(fd, image, sizeof image, 100 * SECTOR), sizeof image);
		close(fd);
		assert_memory_equal(image, memory + DATA, sizeof image);
		memset(memory + DATA, 0, sizeof image);
		good(vfu_set_irqs(&vmm, VFU_NONE | VFU_UNMASK, VFU_INTX, 0, 1, NULL, 0, NULL, 0));
		vfu_wait_event(&vmm, irq, 0); /* of the flush */
		dma(0xc8, 64, 100);
		assert_memory_equal(image, memory + DATA, sizeof image);
		assert_int_equal(vmm.dma_writes != 0, pass);
		let_go();
	}
}

static void test_pio(void **state)
{
	uint16_t given[SECTOR / 2], taken[SECTOR / 2];

	(void)state;
	serve("");
	attach(true);
	for (unsigned i = 0; i < SECTOR / 2; i++)
		given[i] = (uint16_t)(i * 0x101 + 7);
	command(0, 0x30, 1, 5);
	for (unsigned i = 0; i < SECTOR / 2; i++)
		good(vfu_put(&vmm, COMMANDS, 0, 2, given[i]));
	wait_ready(0);
	assert_int_equal(get(COMMANDS, STATUS), READY);
	command(0, 0x20, 1, 5);
	wait_ready(0);
	assert_int_equal(get(COMMANDS, STATUS), READY | DRQ);
	for (unsigned i = 0; i < SECTOR / 2; i++)
		taken[i] = (uint16_t)vfu_get(&vmm, COMMANDS, 0, 2);
	assert_int_equal(get(COMMANDS, STATUS), READY);
	assert_memory_equal(given, taken, sizeof given);
}

/* INQUIRY by PIO, on the secondary channel. */
static void test_packet(void **state)
{
	static const uint16_t cdb[6] = { 0x12, 0, 36 };
	uint16_t taken[18];

	(void)state;
	serve("");
	attach(true);
	put(2, DEVICE, 0);
	put(2, FEATURES, 0);
	put(2, MID, 36);
	put(2, HIGH, 0);
	put(2, STATUS, 0xa0);
	for (unsigned i = 0; i < 6; i++)
		good(vfu_put(&vmm, 2, 0, 2, cdb[i]));
	wait_ready(1);
	assert_int_equal(get(2, STATUS), READY | DRQ);
	assert_int_equal(get(2, MID), 36);
	for (unsigned i = 0; i < 18; i++)
		taken[i] = (uint16_t)vfu_get(&vmm, 2, 0, 2);
	assert_int_equal(taken[0] & 0xff, 5);
	assert_memory_equal(taken + 4, "PENSTOCK", 8);
	assert_int_equal(get(2, COUNT) & 3, 3);
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* While the storage hangs a register answers as soon as at other times. */
static void test_stalled(void **state)
{
	enum { PROBES = 500 };
	static int64_t took[PROBES];

	(void)state;
	serve("{flaky: {delay: 2s, ops: read}},");
	attach(true);
	memset(memory + DATA, 0x55, 8 * SECTOR);
	begin_dma(0xc8, 8, 0);
	for (unsigned i = 0; i < PROBES; i++) {
		took[i] = now_us();
		assert_int_equal(get(CONTROL, 2) & BSY, BSY);
		took[i] = now_us() - took[i];
	}
	qsort(took, PROBES, sizeof *took, compare);
	print_message(
		"# an access takes %lld us (median), %lld us (99%%), with the client's part\n",
		(long long)took[PROBES / 2], (long long)took[PROBES * 99 / 100]);
	assert_in_range(took[PROBES / 2], 0, 5000);
	/* A reset ends it for the guest, at once; nothing of it shows afterwards. */
	put(BUS_MASTER, 0, 0);
	put(CONTROL, 2, 4);
	put(CONTROL, 2, 0);
	assert_int_equal(get(CONTROL, 2), READY);
	assert_int_equal(vfu_wait_event(&vmm, irq, 2500), 0);
	assert_int_equal(get(CONTROL, 2), READY);
	begin_dma(0xc8, 8, 0);
	end_dma();
	assert_int_equal(memory[DATA + 8 * SECTOR - 1], 0);
}

/* Memory goes away under a transfer, by a VMM in good order and by one that vanishes. */
static void test_gone(void **state)
{
	(void)state;
	serve("{flaky: {delay: 300ms}},");
	attach(true);
	begin_dma(0xc8, 8, 0);
	good(vfu_unmap(&vmm, 0, MEMORY));
	assert_int_equal(vfu_wait_event(&vmm, irq, 5000), 1);
	put(BUS_MASTER, 0, 0);
	get(COMMANDS, STATUS);
	/* The next one finds nothing to read its table from. */
	good(vfu_put(&vmm, BUS_MASTER, 4, 4, TABLE));
	put(BUS_MASTER, 2, 6);
	command(0, 0xc8, 8, 0);
	put(BUS_MASTER, 0, 9);
	wait_ready(0);
	assert_int_equal(get(BUS_MASTER, 2), 6);
	assert_int_equal(get(COMMANDS, STATUS), READY | ERR);
	let_go();
	/* In the middle of a transfer, of a PIO block, of a message. */
	for (unsigned i = 0; i < 3; i++) {
		attach(i != 2);
		if (i == 1)
			command(0, 0x30, 1, 0);
		else
			begin_dma(0xca, 8, 0);
		let_go();
	}
	attach(true);
	dma(0xc8, 8, 0);
	assert_true(daemon_alive(&daemon_));
	let_go();
	assert_int_equal(daemon_stop(&daemon_), 0);
}

/* The daemon ends while a transfer hangs: it waits for it, and ends in good order. */
static void test_end(void **state)
{
	(void)state;
	serve("{flaky: {delay: 500ms}},");
	attach(true);
	begin_dma(0xca, 8, 0);
	assert_int_equal(daemon_stop(&daemon_), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_identity, prepare, clean),
		cmocka_unit_test_setup_teardown(test_dma, prepare, clean),
		cmocka_unit_test_setup_teardown(test_pio, prepare, clean),
		cmocka_unit_test_setup_teardown(test_packet, prepare, clean),
		cmocka_unit_test_setup_teardown(test_stalled, prepare, clean),
		cmocka_unit_test_setup_teardown(test_gone, prepare, clean),
		cmocka_unit_test_setup_teardown(test_end, prepare, clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
