/* SPDX-License-Identifier: BSD-3-Clause */
/* block_test.c - the commands on a disk's blocks: each good and bad, and all against a flat array
 */
#include <errno.h>

#include "frontend/scsi/scsi_testing.h"

#define BLOCKS_1M 2048u

static uint8_t bytes[ADAPTER_DATA], back[ADAPTER_DATA];

static struct adapter a;
static struct disk *disk;

static int start(void **unused)
{
	(void)unused;
	disk = adapter_disk("d", "1M", NULL);
	adapter_with(&a, 0, disk);
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 512);
	return 0;
}

static int stop(void **unused)
{
	(void)unused;
	adapter_close(&a);
	disk_close(disk);
	return 0;
}

#define OUT(n) bytes, n, NULL, 0
#define IN(n)  NULL, 0, back, n

/* A CDB of the READ/WRITE family, of any length. */
static size_t make_cdb(uint8_t *cdb, uint8_t opcode, uint64_t lba, uint32_t count)
{
	memset(cdb, 0, 16);
	cdb[0] = opcode;
	switch (opcode >> 5) {
	case 0:
		put24(cdb + 1, lba);
		cdb[4] = (uint8_t)count;
		return 6;
	case 4:
		put64(cdb + 2, lba);
		put32(cdb + 10, count);
		return 16;
	case 5:
		put32(cdb + 2, lba);
		put32(cdb + 6, count);
		return 12;
	default:
		put32(cdb + 2, lba);
		put16(cdb + 7, count);
		return 10;
	}
}

static uint32_t transfer(uint8_t opcode, uint8_t flags, uint64_t lba, uint32_t count, size_t out,
			 size_t in)
{
	uint8_t cdb[16];
	size_t n = make_cdb(cdb, opcode, lba, count);

	if (n > 6)
		cdb[1] = flags;
	if (opcode == 0x89) {
		cdb[10] = cdb[11] = cdb[12] = 0;
		cdb[13] = (uint8_t)count;
	}
	run_cdb(&a, 0, cdb, n, out ? bytes : NULL, out, in ? back : NULL, in);
	return run_result();
}

/* --- each command ------------------------------------------------------------------- */

static void reads_what_was_written(void **unused)
{
	static const uint8_t pairs[][2] = {
		{ 0x0a, 0x08 }, { 0x2a, 0x28 }, { 0xaa, 0xa8 }, { 0x8a, 0x88 }
	};

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(transfer(pairs[i][0], 0, 8 + i * 16, 4, 2048, 0), 0);
		assert_int_equal(last_run.command.moved, 2048);
		memset(back, 0, 2048);
		assert_int_equal(transfer(pairs[i][1], 0, 8 + i * 16, 4, 0, 2048), 0);
		assert_int_equal(last_run.command.moved, 2048);
		assert_memory_equal(bytes, back, 2048);
		bytes[0]++;
	}
	/* A count of 0 is 256 in READ (6), and nothing elsewhere. */
	assert_int_equal(transfer(0x08, 0, 0, 0, 0, 256 * 512), 0);
	assert_int_equal(last_run.command.moved, 256 * 512);
	assert_int_equal(transfer(0x28, 0, 0, 0, 0, 0), 0);
	assert_int_equal(last_run.command.moved, 0);
}

static void ranges_are_checked(void **unused)
{
	static const uint8_t opcodes[] = { 0x08, 0x0a, 0x28, 0x2a, 0x2e, 0x2f, 0x34,
					   0x35, 0x41, 0x88, 0x8a, 0x8e, 0x8f, 0x90,
					   0x91, 0x93, 0xa8, 0xaa, 0xae, 0xaf, 0x89 };

	(void)unused;
	for (unsigned i = 0; i < sizeof opcodes; i++) {
		if (transfer(opcodes[i], 0, BLOCKS_1M - 1, 2, 2048, 1024) != 0x02052100)
			fail_msg("opcode %02x across the end: %08x", opcodes[i], run_result());
		assert_int_equal(run_information(), BLOCKS_1M);
		assert_int_equal(last_run.command.moved, 0);
		if (transfer(opcodes[i], 0, BLOCKS_1M + 5, 1, 2048, 1024) != 0x02052100)
			fail_msg("opcode %02x behind the end: %08x", opcodes[i], run_result());
		assert_int_equal(run_information(), BLOCKS_1M + 5);
	}
	assert_int_equal(transfer(0x88, 0, UINT64_MAX, 2, 0, 1024), 0x02052100);
	assert_int_equal(transfer(0x28, 0, BLOCKS_1M, 0, 0, 0), 0);
}

static void fields_are_checked(void **unused)
{
	(void)unused;
	assert_int_equal(transfer(0x28, 0x20, 0, 1, 0, 512), 0x02052400); /* RDPROTECT */
	assert_int_equal(run_field(), 1);
	assert_int_equal(transfer(0x2a, 0xe0, 0, 1, 512, 0), 0x02052400);
	assert_int_equal(transfer(0x41, 0x10, 0, 1, 512, 0), 0x02052400); /* ANCHOR */
	assert_int_equal(transfer(0x41, 0, 0, 0, 512, 0), 0x02052400);    /* WSNZ */
	assert_int_equal(run_field(), 7);
	assert_int_equal(transfer(0x2f, 0x04, 0, 1, 512, 0), 0x02052400); /* BYTCHK 2 */
	assert_int_equal(transfer(0x2e, 0x06, 0, 1, 512, 0), 0x02052400); /* BYTCHK 3 */
	assert_int_equal(transfer(0x89, 0, 0, 255, 4096, 0) >> 16, 0x0205);
	/* NACA, a CDB that is too short, no such command, no such service action */
	run_cdb(&a, 0, CDB(0, 0, 0, 0, 0, 4), NO_DATA);
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0x28, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0xc0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0x02052000);
	run_cdb(&a, 0, CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0), IN(12)); /* of a CD-ROM only */
	assert_int_equal(run_result(), 0x02052000);
	run_cdb(&a, 0, CDB(0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN(32));
	assert_int_equal(run_result(), 0x02052400);
	assert_int_equal(run_field(), 1);
}

static void buffers_of_another_length(void **unused)
{
	(void)unused;
	/* The buffer is larger: a residual. Smaller: what fits in whole blocks, or nothing written.
	 */
	assert_int_equal(transfer(0x28, 0, 0, 2, 0, 4096), 0);
	assert_int_equal(last_run.command.moved, 1024);
	assert_false(last_run.command.overrun);
	assert_int_equal(transfer(0x28, 0, 0, 4, 0, 1500), 0);
	assert_int_equal(last_run.command.moved, 1024);
	assert_true(last_run.command.overrun);
	assert_int_equal(transfer(0x2a, 0, 0, 4, 1024, 0), 0x02050e03);
	assert_true(last_run.command.overrun);
	assert_int_equal(transfer(0x41, 0, 0, 4, 100, 0), 0x02050e03);
	assert_int_equal(transfer(0x89, 0, 0, 1, 512, 0), 0x02050e03);
	assert_int_equal(transfer(0x2f, 0x02, 0, 2, 512, 0), 0x02050e03);
}

static void capacity(void **unused)
{
	(void)unused;
	run_cdb(&a, 0, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN(8));
	assert_int_equal(get32(back), BLOCKS_1M - 1);
	assert_int_equal(get32(back + 4), 512);
	run_cdb(&a, 0, CDB(0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0), IN(8));
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN(32));
	assert_int_equal(get64(back), BLOCKS_1M - 1);
	assert_int_equal(get32(back + 8), 512);
	assert_int_equal(back[14] & 0xc0, 0xc0);
	run_cdb(&a, 0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0), IN(32));
	assert_int_equal(last_run.command.moved, 12); /* the allocation length */
	run_cdb(&a, 0, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 24, 0, 0), IN(24));
	assert_int_equal(get64(back + 8), 9);
	assert_int_equal(get32(back + 16), BLOCKS_1M - 9);
	assert_int_equal(back[20], 0); /* mapped */
	run_cdb(&a, 0, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 24, 0, 0), IN(24));
	assert_int_equal(run_result(), 0x02052100);
}

static void verifies(void **unused)
{
	static const uint8_t opcodes[] = { 0x2f, 0xaf, 0x8f };

	(void)unused;
	for (unsigned i = 0; i < sizeof opcodes; i++) {
		assert_int_equal(transfer(0x2a, 0, 100, 1024, 1024 * 512, 0), 0);
		/* Nothing compared; all; and all with a difference in the second piece. */
		assert_int_equal(transfer(opcodes[i], 0, 0, BLOCKS_1M, 0, 0), 0);
		assert_int_equal(transfer(opcodes[i], 0x02, 100, 1024, 1024 * 512, 0), 0);
		assert_int_equal(last_run.command.moved, 1024 * 512);
		bytes[300001]++;
		assert_int_equal(transfer(opcodes[i], 0x02, 100, 1024, 1024 * 512, 0), 0x020e1d00);
		assert_int_equal(run_information(), 300001);
		bytes[300001]--;
		/* One block against many. */
		assert_int_equal(transfer(opcodes[i], 0x06, 100, 1, 512, 0), 0);
		assert_int_equal(transfer(0x41, 0, 100, 700, 512, 0), 0);
		assert_int_equal(transfer(opcodes[i], 0x06, 100, 700, 512, 0), 0);
		assert_int_equal(last_run.command.moved, 512);
		assert_int_equal(transfer(opcodes[i], 0x06, 100, 701, 512, 0), 0x020e1d00);
	}
	assert_int_equal(transfer(0x2e, 0x02, 7, 3, 1536, 0), 0);
	assert_int_equal(transfer(0x8e, 0, 9, 3, 1536, 0), 0);
	assert_int_equal(transfer(0xae, 0, 9, 3, 1536, 0), 0);
	assert_int_equal(transfer(0x28, 0, 9, 3, 0, 1536), 0);
	assert_memory_equal(back, bytes, 1536);
}

static void compares_and_writes(void **unused)
{
	(void)unused;
	assert_int_equal(transfer(0x2a, 0, 5, 4, 2048, 0), 0);
	memset(bytes + 2048, 0x5a, 2048);
	assert_int_equal(transfer(0x89, 0, 5, 4, 4096, 0), 0);
	assert_int_equal(last_run.command.moved, 4096);
	assert_int_equal(transfer(0x28, 0, 5, 4, 0, 2048), 0);
	assert_memory_equal(back, bytes + 2048, 2048);
	/* Once more: what is there now differs from the first byte on. */
	assert_int_equal(transfer(0x89, 0, 5, 4, 4096, 0), 0x020e1d00);
	memset(bytes, 0x5a, 2048);
	bytes[1027] = 1;
	assert_int_equal(transfer(0x89, 0x08, 5, 4, 4096, 0), 0x020e1d00);
	assert_int_equal(run_information(), 1027);
	assert_int_equal(transfer(0x89, 0, 5, 0, 0, 0), 0);
}

static void unmaps(void **unused)
{
	uint8_t list[8 + 2 * 16] = { 0, 38, 0, 32 };

	(void)unused;
	assert_int_equal(transfer(0x2a, 0, 0, 64, 64 * 512, 0), 0);
	put64(list + 8, 2);
	put32(list + 16, 3);
	put64(list + 24, 10);
	put32(list + 32, 1);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, NULL, 0);
	assert_int_equal(run_result(), 0);
	assert_int_equal(transfer(0x28, 0, 0, 64, 0, 64 * 512), 0);
	memset(bytes + 2 * 512, 0, 3 * 512);
	memset(bytes + 10 * 512, 0, 512);
	assert_memory_equal(bytes, back, 64 * 512);
	/* One of two is outside: none is unmapped. */
	put64(list + 8, 20);
	put64(list + 24, BLOCKS_1M);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, NULL, 0);
	assert_int_equal(run_result(), 0x02052100);
	assert_int_equal(transfer(0x28, 0, 20, 1, 0, 512), 0);
	assert_memory_equal(bytes + 20 * 512, back, 512);
	/* Nothing; too little; an anchor; more than there is; too many blocks */
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), list, 7, NULL, 0);
	assert_int_equal(run_result(), 0x02051a00);
	run_cdb(&a, 0, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, NULL, 0);
	assert_int_equal(run_result(), 0x02052400);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 24, NULL, 0);
	assert_int_equal(run_result(), 0x02051a00);
	put32(list + 16, 0x80000000);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, NULL, 0);
	assert_int_equal(run_result(), 0x02052600);
	assert_int_equal(run_field(), 16);
}

static void writes_the_same(void **unused)
{
	(void)unused;
	assert_int_equal(transfer(0x41, 0, 3, 1500, 512, 0), 0);
	assert_int_equal(last_run.command.moved, 512);
	assert_int_equal(transfer(0x28, 0, 3, 1500, 0, 1500 * 512), 0);
	for (unsigned i = 0; i < 1500; i++)
		assert_memory_equal(back + i * 512, bytes, 512);
	assert_int_equal(transfer(0x93, 0x01, 4, 2, 0, 0), 0); /* NDOB */
	assert_int_equal(transfer(0x93, 0x09, 5, 2, 0, 0), 0); /* and UNMAP */
	assert_int_equal(transfer(0x28, 0, 4, 4, 0, 2048), 0);
	memset(bytes + 4096, 0, 3 * 512);
	assert_memory_equal(back, bytes + 4096, 3 * 512);
	assert_memory_equal(back + 3 * 512, bytes, 512);
}

/* --- what reaches the disk ---------------------------------------------------------- */

static void with_seen(const struct disk_config *config)
{
	stop(NULL);
	disk = seen_disk(config);
	adapter_with(&a, 0, disk);
	memset(seen.count, 0, sizeof seen.count);
}

static void cache_on_and_off(void **unused)
{
	static const uint8_t off[] = { 0, 0, 0, 0, 0x08, 0x12, 0 };
	uint8_t list[24] = { 0 };

	(void)unused;
	with_seen(&(struct disk_config){ 0 });
	transfer(0x2a, 0, 0, 1, 512, 0);
	assert_int_equal(seen.flags, 0);
	transfer(0x2a, 0x08, 0, 1, 512, 0);
	assert_int_equal(seen.flags, IO_FUA);
	assert_int_equal(seen.count[IO_FLUSH], 0);
	transfer(0x28, 0x08, 0, 1, 0, 512); /* FUA: what is in the cache first */
	assert_int_equal(seen.count[IO_FLUSH], 1);
	assert_int_equal(seen.count[IO_READ], 1);
	transfer(0x35, 0, 0, 0, 0, 0);
	assert_int_equal(seen.count[IO_FLUSH], 2);
	memcpy(list, off, sizeof off);
	run_cdb(&a, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, NULL, 0);
	assert_int_equal(run_result(), 0);
	assert_int_equal(seen.count[IO_FLUSH], 3);
	transfer(0x2a, 0, 0, 1, 512, 0);
	assert_int_equal(seen.flags, IO_FUA);
	transfer(0x93, 0x09, 0, 8, 0, 0);
	assert_int_equal(seen.flags, IO_FUA | IO_UNMAP);
	assert_int_equal(seen.count[IO_ZEROES], 1);
	transfer(0x28, 0x08, 0, 1, 0, 512); /* no cache, nothing to flush */
	assert_int_equal(seen.count[IO_FLUSH], 3);
	assert_int_equal(stats_read(&a.device.units[0].stats[0].op[IO_READ].requests), 2);
	assert_int_equal(stats_read(&a.device.units[0].stats[0].op[IO_READ].bytes), 1024);
}

static void errors_as_sense_data(void **unused)
{
	static const struct {
		int error;
		uint32_t read, write;
	} rows[] = {
		{ -EIO, 0x02031100, 0x02030c00 },        { -ENOSPC, 0x02072707, 0x02072707 },
		{ -EROFS, 0x02072700, 0x02072700 },      { -ENOMEM, 0x28000000, 0x28000000 },
		{ -EBADE, 0x18000000, 0x18000000 },      { -EILSEQ, 0x02031001, 0x02031001 },
		{ -ETIMEDOUT, 0x02040800, 0x02040800 },  { -ENOMEDIUM, 0x02023a00, 0x02023a00 },
		{ -EOPNOTSUPP, 0x02052000, 0x02052000 },
	};

	(void)unused;
	with_seen(&(struct disk_config){ 0 });
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		seen.error = rows[i].error;
		assert_int_equal(transfer(0x28, 0, 77, 1, 0, 512), rows[i].read);
		assert_int_equal(last_run.command.moved, 0);
		if (rows[i].error == -EIO)
			assert_int_equal(run_information(), 77);
		assert_int_equal(transfer(0x2a, 0, 77, 1, 512, 0), rows[i].write);
		assert_int_equal(transfer(0x93, 1, 77, 1, 0, 0), rows[i].write);
		assert_int_equal(transfer(0x89, 0, 77, 1, 1024, 0), rows[i].read);
		assert_int_equal(transfer(0x2f, 0, 77, 1, 0, 0), rows[i].read);
		transfer(0x35, 0, 0, 0, 0, 0);
		assert_int_not_equal(run_result(), 0);
		assert_int_equal(run_information(), UINT32_MAX);
	}
	seen.error = 0;
	assert_int_equal(transfer(0x2a, 0, 77, 1, 512, 0), 0); /* the writes' gate is open again */
	assert_int_equal(stats_read(&a.device.units[0].stats[0].op[IO_READ].errors), 27);
}

static void what_a_disk_cannot(void **unused)
{
	uint8_t list[24] = { 0, 22, 0, 16 };

	(void)unused;
	with_seen(&(struct disk_config){ .read_only = true });
	assert_int_equal(transfer(0x2a, 0, 0, 1, 512, 0), 0x02072700);
	assert_int_equal(transfer(0x93, 1, 0, 1, 0, 0), 0x02072700);
	assert_int_equal(transfer(0x89, 0, 0, 1, 1024, 0), 0x02072700);
	assert_int_equal(transfer(0x28, 0, 0, 1, 0, 512), 0);
	stop(NULL);
	disk = seen_disk(&(struct disk_config){ .block_size = DISK_BLOCK_4096 });
	disk->limits.discard = false; /* as a disk whose back-end has none */
	adapter_with(&a, 0, disk);
	run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24, NULL, 0);
	assert_int_equal(run_result(), 0x02052000);
	assert_int_equal(transfer(0x93, 9, 0, 1, 0, 0), 0x02052400);
	assert_int_equal(transfer(0x93, 1, 0, 1, 0, 0), 0);
	assert_int_equal(seen.length, 4096); /* blocks of 4,096 bytes */
}

/* --- against a flat array ----------------------------------------------------------- */

static void model(void **unused)
{
	static uint8_t flat[1u << 20];
	unsigned seed = 1;

	(void)unused;
	for (unsigned step = 0; step < 3000; step++) {
		uint32_t lba = (uint32_t)rand_r(&seed) % BLOCKS_1M;
		uint32_t count = 1 + (uint32_t)rand_r(&seed) % 40;
		uint8_t list[24] = { 0, 22, 0, 16 };

		if (count > BLOCKS_1M - lba)
			count = BLOCKS_1M - lba;
		for (unsigned i = 0; i < count * 2; i++)
			memset(bytes + i * 512, rand_r(&seed), 512);
		switch (rand_r(&seed) % 6) {
		case 0:
		case 1:
			assert_int_equal(transfer(0x8a, 0, lba, count, count * 512, 0), 0);
			memcpy(flat + lba * 512, bytes, count * 512);
			break;
		case 2:
			put64(list + 8, lba);
			put32(list + 16, count);
			run_cdb(&a, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24, NULL, 0);
			assert_int_equal(run_result(), 0);
			memset(flat + lba * 512, 0, count * 512);
			break;
		case 3:
			assert_int_equal(transfer(0x93, 0, lba, count, 512, 0), 0);
			for (unsigned i = 0; i < count; i++)
				memcpy(flat + (lba + i) * 512, bytes, 512);
			break;
		case 4:
			if (step % 3) {
				memcpy(bytes, flat + lba * 512, count * 512);
				assert_int_equal(transfer(0x89, 0, lba, count, count * 1024, 0), 0);
				memcpy(flat + lba * 512, bytes + count * 512, count * 512);
			} else if (memcmp(bytes, flat + lba * 512, count * 512)) {
				assert_int_equal(transfer(0x89, 0, lba, count, count * 1024, 0),
						 0x020e1d00);
			}
			break;
		default:
			assert_int_equal(transfer(0xa8, 0, lba, count, 0, count * 512), 0);
			assert_memory_equal(back, flat + lba * 512, count * 512);
			break;
		}
	}
	assert_int_equal(transfer(0x88, 0, 0, BLOCKS_1M, 0, sizeof back), 0);
	assert_memory_equal(back, flat, sizeof flat);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads_what_was_written),
		TEST(ranges_are_checked),
		TEST(fields_are_checked),
		TEST(buffers_of_another_length),
		TEST(capacity),
		TEST(verifies),
		TEST(compares_and_writes),
		TEST(unmaps),
		TEST(writes_the_same),
		TEST(cache_on_and_off),
		TEST(errors_as_sense_data),
		TEST(what_a_disk_cannot),
		TEST(model),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("scsi/block", tests, NULL, NULL);
}
