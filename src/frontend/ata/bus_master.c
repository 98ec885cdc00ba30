/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bus_master.c - the DMA engine of each channel: its registers, its start and its end
 *
 * A transfer runs while three sides want it: the drive has a command that moves data (@go), the
 * host has set Start, and PCI lets the function be a bus master. Whichever comes last sets it off.
 *
 * Status after it (SFF-8038i, 3.1): Interrupt without Active: the table and the drive ended
 * together. Both: the drive ended first; the host stops the engine. Neither: the table was too
 * short, and a disk waits, busy, until it is reset. Error: the table, or what it points to, is
 * not memory; here the drive ends its command in an error too, so that nobody need wait.
 *
 * Clearing Start stops it in the middle: what is with the storage comes home to nobody, and the
 * drive stays busy until it is reset. The direction bit is kept, but the command knows better.
 */
#include "frontend/ata/ide.h"

void ide_dma(struct ide_channel *c, ide_fn *go)
{
	c->phase = IDE_DMA;
	c->active->status = ATA_READY | ATA_BSY;
	c->go = go;
	ide_dma_go(c);
}

void ide_dma_go(struct ide_channel *c)
{
	if (c->phase == IDE_DMA && c->go && !c->busy && c->bm_command & BM_START &&
	    c->bm_status & BM_ACTIVE && pci_bus_master(&c->ide->pci))
		c->go(c);
}

void ide_dma_done(struct ide_channel *c)
{
	c->go = NULL;
	if (c->walker.ended)
		c->bm_status &= (uint8_t)~BM_ACTIVE;
}

void ide_dma_short(struct ide_channel *c)
{
	c->go = NULL;
	c->bm_status &= (uint8_t)~BM_ACTIVE;
}

void ide_dma_failed(struct ide_channel *c)
{
	c->go = NULL;
	c->bm_status &= (uint8_t)~BM_ACTIVE;
	c->bm_status |= BM_ERROR;
	ide_complete(c, ATA_ABRT);
}

/* --- registers ---------------------------------------------------------------------- */

enum { COMMAND = 0, STATUS = 2, TABLE = 4, CHANNEL = 8 };

static struct ide_channel *channel_of(struct pci_device *dev, uint32_t offset)
{
	return &((struct ide *)dev)->channel[offset / CHANNEL];
}

static void stop_in_the_middle(struct ide_channel *c)
{
	c->bm_status &= (uint8_t)~BM_ACTIVE;
	if (c->phase != IDE_DMA || !c->busy)
		return;
	c->abandoned = true;
	c->go = NULL;
}

static uint64_t read_command(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)width;
	return channel_of(dev, offset)->bm_command;
}

static void write_command(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct ide_channel *c = channel_of(dev, offset);
	uint8_t changed = c->bm_command ^ (uint8_t)value;

	(void)width;
	c->bm_command = value & (BM_START | BM_READ);
	if (!(changed & BM_START))
		return;
	if (!(value & BM_START)) {
		stop_in_the_middle(c);
		return;
	}
	c->bm_status |= BM_ACTIVE;
	c->walker = (struct prd_walker){ .entry = c->bm_table };
	ide_dma_go(c);
}

static uint64_t read_status(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)width;
	return channel_of(dev, offset)->bm_status;
}

static void write_status(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct ide_channel *c = channel_of(dev, offset);

	(void)width;
	c->bm_status = (uint8_t)((c->bm_status & ~BM_CAPABLE & ~(value & (BM_ERROR | BM_INTR))) |
				 (value & BM_CAPABLE));
}

static uint64_t read_table(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)width;
	return channel_of(dev, offset)->bm_table >> 8 * (offset % 4);
}

static void write_table(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct ide_channel *c = channel_of(dev, offset);
	unsigned shift = 8 * (offset % 4);
	uint32_t mask = (uint32_t)((1ull << 8 * width) - 1) << shift;

	c->bm_table = ((c->bm_table & ~mask) | ((uint32_t)value << shift & mask)) & ~3u;
}

#define CHANNEL_ROWS(at)                                                                           \
	{ "Bus Master Command", at + COMMAND, 1, 1, read_command, write_command },                 \
		{ "Bus Master Status", at + STATUS, 1, 1, read_status, write_status },             \
	{                                                                                          \
		"PRD Table", at + TABLE, 4, 1 | 2 | 4, read_table, write_table                     \
	}

const struct pci_register ide_bus_master_registers[] = {
	CHANNEL_ROWS(0),
	CHANNEL_ROWS(CHANNEL),
	{ 0 },
};
