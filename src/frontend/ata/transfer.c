/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transfer.c - the commands of a disk that move data, or name sectors: READ, WRITE, READ VERIFY,
 * TRIM
 *
 * By PIO data goes through the channel's buffer: the storage fills it in pieces of up to 64 KiB,
 * and the host takes blocks of it (one sector; with READ MULTIPLE several), each announced by an
 * interrupt; or the host fills it in blocks, and the storage takes what has come when it is full.
 * The first block of a write is asked for without an interrupt, the last one's end is told by one.
 *
 * By DMA the storage works on the guest's own pages: a piece is what prd.c could gather.
 *
 * The write cache: off means that each write is on stable storage when its command ends (IO_FUA).
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "frontend/ata/ide.h"
#include "layer/disk.h"

#define DMA_PIECE (4u << 20) /* bytes, at most */
#define TRIM_MAX  8u         /* blocks of 512 bytes with ranges; what IDENTIFY says */

uint32_t ata_sector_size(const struct ide_drive *d)
{
	return d->disk->block_size;
}

uint64_t ata_sectors(const struct ide_drive *d)
{
	return atomic_load_explicit(&d->disk->size, memory_order_relaxed) / d->disk->block_size;
}

/* --- storage ------------------------------------------------------------------------ */

static void storage_done(struct layer *layer, struct io *io)
{
	struct ide_drive *d = io->queue->owner;
	struct ide_channel *c = d->channel;
	int status = io->status;

	(void)layer;
	stats_count(d->stats, io->op, status || io->op == IO_FLUSH ? 0 : io->length, status,
		    loop_now(c->ide->pci.loop) - io->started);
	io_put(io);
	atomic_store_explicit(&d->stats->in_flight, d->queue->ios.out, memory_order_relaxed);
	if (status && status != -EROFS && d->failures < UINT16_MAX)
		d->failures++;
	c->stored(c, status);
}

void ata_submit(struct ide_channel *c, enum io_op op, uint64_t sector, uint64_t sectors,
		struct iovec *vec, unsigned count, ide_status_fn *stored)
{
	struct ide_drive *d = c->active;
	struct io *io = io_get(&d->queue->ios); /* there is one, and one job */

	c->busy = true;
	c->stored = stored;
	io->op = (uint8_t)op;
	if ((op == IO_WRITE || op == IO_DISCARD) && (c->fua || !d->write_cache))
		io->flags |= IO_FUA;
	io->offset = sector * ata_sector_size(d);
	io->length = sectors * ata_sector_size(d);
	io->data = (struct io_data){ .vec = vec, .count = count };
	io->started = loop_now(c->ide->pci.loop);
	atomic_store_explicit(&d->stats->in_flight, d->queue->ios.out, memory_order_relaxed);
	disk_submit(d->queue, io, storage_done);
}

/* On the buffer. */
static void submit_buffer(struct ide_channel *c, enum io_op op, uint32_t sectors,
			  ide_status_fn *stored)
{
	c->piece = sectors;
	c->vec[0] = (struct iovec){ c->buffer, (size_t)sectors * ata_sector_size(c->active) };
	ata_submit(c, op, c->sector, sectors, c->vec, 1, stored);
}

static void advance(struct ide_channel *c)
{
	c->sector += c->piece;
	c->sectors -= c->piece;
}

static void fail(struct ide_channel *c, int status)
{
	if (status == -EROFS) {
		ata_fail_at(c, ATA_ABRT, c->sector);
	} else if (status == -ERANGE) {
		ata_fail_at(c, ATA_IDNF, c->sector);
	} else if (c->write) {
		ata_fail_at(c, ATA_ABRT, c->sector);
		c->active->status |= ATA_DF;
	} else {
		ata_fail_at(c, ATA_UNC, c->sector);
	}
}

static uint32_t buffer_sectors(const struct ide_channel *c)
{
	uint32_t most = IDE_BUFFER / ata_sector_size(c->active);

	return c->sectors < most ? c->sectors : most;
}

/* --- PIO, in ------------------------------------------------------------------------ */

static void read_filled(struct ide_channel *c, int status);

static void read_more(struct ide_channel *c)
{
	c->phase = IDE_BUSY;
	submit_buffer(c, IO_READ, buffer_sectors(c), read_filled);
}

static void read_taken(struct ide_channel *c);

static void read_give(struct ide_channel *c)
{
	uint32_t length = c->filled - c->taken;

	if (length > c->block)
		length = c->block;
	ide_pio(c, IDE_IN, c->buffer + c->taken, length, read_taken);
	c->taken += length;
	ide_interrupt(c);
}

static void read_taken(struct ide_channel *c)
{
	if (c->taken < c->filled) {
		read_give(c);
		return;
	}
	advance(c);
	if (c->sectors)
		read_more(c);
	else
		ide_complete_quietly(c);
}

static void read_filled(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	if (status) {
		fail(c, status);
		return;
	}
	c->filled = c->piece * ata_sector_size(c->active);
	c->taken = 0;
	read_give(c);
}

/* --- PIO, out ----------------------------------------------------------------------- */

static void write_given(struct ide_channel *c);

static void write_ask(struct ide_channel *c)
{
	uint32_t length = c->sectors * ata_sector_size(c->active) - c->filled;

	if (length > c->block)
		length = c->block;
	ide_pio(c, IDE_OUT, c->buffer + c->filled, length, write_given);
	c->filled += length;
}

static void written(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	if (status) {
		fail(c, status);
		return;
	}
	advance(c);
	c->filled = 0;
	if (!c->sectors) {
		ide_complete(c, 0);
		return;
	}
	write_ask(c);
	ide_interrupt(c);
}

static void write_given(struct ide_channel *c)
{
	uint32_t have = c->filled / ata_sector_size(c->active);

	if (have == c->sectors || c->filled + c->block > IDE_BUFFER) {
		submit_buffer(c, IO_WRITE, have, written);
		return;
	}
	write_ask(c);
	ide_interrupt(c);
}

static void write_first(struct ide_channel *c)
{
	c->filled = 0;
	write_ask(c);
}

/* --- DMA ---------------------------------------------------------------------------- */

static void dma_piece(struct ide_channel *c);

static void dma_moved(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	if (status) {
		ide_dma_failed(c);
		return;
	}
	advance(c);
	if (c->sectors) {
		ide_dma_go(c);
		return;
	}
	ide_dma_done(c);
	ide_complete(c, 0);
}

static void dma_stored(struct ide_channel *c, int status)
{
	/* Abandoned, the active drive may be another by now. */
	if (c->abandoned || status) {
		prd_finish(c, 0, NULL);
		if (!ide_job_over(c)) {
			ide_dma_done(c);
			fail(c, status);
		}
		return;
	}
	prd_finish(c, c->write ? 0 : c->piece * ata_sector_size(c->active), dma_moved);
}

static void dma_gathered(struct ide_channel *c, int bytes)
{
	if (c->abandoned || bytes <= 0) {
		if (ide_job_over(c))
			return;
		if (bytes)
			ide_dma_failed(c);
		else
			ide_dma_short(c);
		return;
	}
	c->piece = (uint32_t)bytes / ata_sector_size(c->active);
	ata_submit(c, c->write ? IO_WRITE : IO_READ, c->sector, c->piece, c->vec, c->dma.count,
		   dma_stored);
}

static void dma_piece(struct ide_channel *c)
{
	uint64_t want = (uint64_t)c->sectors * ata_sector_size(c->active);

	c->busy = true;
	prd_gather(c, c->write ? DMA_FROM_GUEST : DMA_TO_GUEST, want < DMA_PIECE ? want : DMA_PIECE,
		   ata_sector_size(c->active), dma_gathered);
}

static void dma_first(struct ide_channel *c)
{
	ide_dma(c, dma_piece);
}

/* --- READ VERIFY -------------------------------------------------------------------- */

static void verified(struct ide_channel *c, int status);

static void verify_more(struct ide_channel *c)
{
	submit_buffer(c, IO_READ, buffer_sectors(c), verified);
}

static void verified(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	if (status) {
		fail(c, status);
		return;
	}
	advance(c);
	if (c->sectors)
		verify_more(c);
	else
		ide_complete(c, 0);
}

/* --- where, and how much -------------------------------------------------------------- */

static uint64_t lba_48(const struct ide_drive *d)
{
	const uint8_t *p = d->previous, *r = d->current;

	return (uint64_t)p[ATA_HIGH] << 40 | (uint64_t)p[ATA_MID] << 32 |
	       (uint64_t)p[ATA_LOW] << 24 | (uint64_t)r[ATA_HIGH] << 16 |
	       (uint64_t)r[ATA_MID] << 8 | r[ATA_LOW];
}

/* UINT64_MAX: there is no such place. */
static uint64_t lba_28(const struct ide_channel *c)
{
	const struct ide_drive *d = c->active;
	const uint8_t *r = d->current;
	uint32_t head = c->device & 15u;
	uint32_t cylinder = (uint32_t)r[ATA_HIGH] << 8 | r[ATA_MID];

	if (c->device & ATA_LBA)
		return head << 24 | (uint32_t)r[ATA_HIGH] << 16 | (uint32_t)r[ATA_MID] << 8 |
		       r[ATA_LOW];
	if (head >= d->heads || !r[ATA_LOW] || r[ATA_LOW] > d->sectors)
		return UINT64_MAX;
	return ((uint64_t)cylinder * d->heads + head) * d->sectors + r[ATA_LOW] - 1;
}

/* False: that is outside; the command has ended. */
static bool locate(struct ide_channel *c, bool ext)
{
	struct ide_drive *d = c->active;
	uint64_t size = ata_sectors(d);
	uint32_t count = d->current[ATA_COUNT];

	if (ext) {
		count |= (uint32_t)d->previous[ATA_COUNT] << 8;
		c->sector = lba_48(d);
		c->sectors = count ? count : 65536;
	} else {
		c->sector = lba_28(c);
		c->sectors = count ? count : 256;
	}
	if (c->sector < size && c->sectors <= size - c->sector)
		return true;
	ata_fail_at(c, ATA_IDNF, c->sector < size ? size : c->sector);
	return false;
}

void ata_transfer(struct ide_channel *c, unsigned flags)
{
	struct ide_drive *d = c->active;
	uint32_t blocks = flags & ATA_BLOCKS ? d->multiple : 1;

	c->write = flags & ATA_WRITES;
	c->fua = flags & ATA_FUA;
	c->ext = flags & ATA_EXT;
	if (!blocks || (c->write && d->disk->config.read_only)) {
		ide_complete(c, ATA_ABRT);
		return;
	}
	if (!locate(c, flags & ATA_EXT))
		return;
	c->block = blocks * ata_sector_size(d);
	if (flags & ATA_BY_DMA)
		ide_job_begin(c, dma_first);
	else if (flags & ATA_VERIFY)
		ide_job_begin(c, verify_more);
	else
		ide_job_begin(c, c->write ? write_first : read_more);
}

/* --- DATA SET MANAGEMENT -------------------------------------------------------------- */

/* The ranges are in the buffer: 48 bits of address, 16 of length; 0 is none (ACS-2, 7.10). */
static void trim_next(struct ide_channel *c, int status)
{
	uint64_t size, range, sector, count;

	if (ide_job_over(c))
		return;
	size = ata_sectors(c->active);
	while (!status && c->taken < c->filled) {
		memcpy(&range, c->buffer + c->taken, sizeof range);
		range = le64toh(range);
		c->taken += (uint32_t)sizeof range;
		sector = range & 0xffffffffffff;
		count = range >> 48;
		if (!count)
			continue;
		c->sector = sector;
		if (sector >= size || count > size - sector) {
			status = -ERANGE;
			break;
		}
		ata_submit(c, IO_DISCARD, sector, count, NULL, 0, trim_next);
		return;
	}
	if (status)
		fail(c, status);
	else
		ide_complete(c, 0);
}

static void trim_gathered(struct ide_channel *c, int bytes)
{
	if (!c->abandoned && bytes > 0) {
		io_data_copy_out((struct io_data){ .vec = c->vec, .count = c->dma.count },
				 c->buffer + c->filled, (uint32_t)bytes);
		prd_finish(c, 0, NULL);
		c->filled += (uint32_t)bytes;
	}
	if (ide_job_over(c))
		return;
	if (bytes < 0)
		ide_dma_failed(c);
	else if (!bytes)
		ide_dma_short(c);
	else if (c->filled < c->piece)
		ide_dma_go(c);
	else {
		ide_dma_done(c);
		trim_next(c, 0);
	}
}

static void trim_piece(struct ide_channel *c)
{
	c->busy = true;
	prd_gather(c, DMA_FROM_GUEST, c->piece - c->filled, 1, trim_gathered);
}

static void trim_first(struct ide_channel *c)
{
	c->filled = c->taken = 0;
	ide_dma(c, trim_piece);
}

void ata_data_set_management(struct ide_channel *c)
{
	const struct ide_drive *d = c->active;
	uint32_t blocks = (uint32_t)d->previous[ATA_COUNT] << 8 | d->current[ATA_COUNT];

	if (d->current[ATA_FEATURES] != 1 || !blocks || blocks > TRIM_MAX ||
	    !d->disk->limits.discard || d->disk->config.read_only) {
		ide_complete(c, ATA_ABRT);
		return;
	}
	c->write = c->ext = true;
	c->fua = false;
	c->piece = blocks * 512;
	ide_job_begin(c, trim_first);
}
