/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.c - a cable: the registers of its two drives, who is selected, PIO, reset
 *
 * Both drives hear what is written to the command block, and keep it; who answers is whoever is
 * selected. If there is only device 0, it answers for device 1 too, but with status 0 (ATA/ATAPI-7
 * volume 1, 9.16.1). On a channel without drives nobody pulls at the bus: it reads as 7Fh.
 *
 * While BSY or DRQ is set the command block takes no writes, save DEVICE RESET; the host has its
 * parameters from before, and a reset ends whatever it is. Every register answers at once: storage
 * is never waited for, BSY says so.
 *
 * INTRQ is the selected drive's wish, and not nIEN. In native mode it is INTA# as it is; its rising
 * edge is latched in the bus master's status. Reading Status ends the wish, alternate status does
 * not.
 */
#include <string.h>

#include "frontend/ata/ide.h"

#define FLOATING 0x7fu

/* --- interrupts --------------------------------------------------------------------- */

static void update_line(struct ide_channel *c)
{
	bool line = ide_selected(c)->interrupt && !(c->control & ATA_NIEN);

	if (line == c->line)
		return;
	c->line = line;
	if (!line) {
		pci_deassert(&c->ide->pci, c->index);
		return;
	}
	c->bm_status |= BM_INTR;
	pci_assert(&c->ide->pci, c->index);
}

void ide_interrupt(struct ide_channel *c)
{
	c->active->interrupt = true;
	update_line(c);
}

/* --- the way of a command ------------------------------------------------------------- */

void ide_pio(struct ide_channel *c, enum ide_phase phase, void *bytes, uint32_t length,
	     ide_fn *then)
{
	c->phase = phase;
	c->at = bytes;
	c->left = length;
	c->then = then;
	c->active->status = ATA_READY | ATA_DRQ;
}

static void end_pio(struct ide_channel *c)
{
	c->phase = IDE_BUSY;
	c->active->status = ATA_READY | ATA_BSY;
	c->then(c);
}

void ide_complete_quietly(struct ide_channel *c)
{
	c->phase = IDE_IDLE;
	c->active->status = ATA_READY;
	c->active->error = 0;
}

void ide_complete(struct ide_channel *c, uint8_t error)
{
	ide_complete_quietly(c);
	if (error) {
		c->active->status |= ATA_ERR;
		c->active->error = error;
	}
	ide_interrupt(c);
}

void ide_job_begin(struct ide_channel *c, ide_fn *start)
{
	if (c->busy)
		c->held = start;
	else
		start(c);
}

bool ide_job_over(struct ide_channel *c)
{
	ide_fn *held = c->held;
	bool abandoned = c->abandoned;

	c->busy = c->abandoned = false;
	if (!abandoned)
		return false;
	c->held = NULL;
	if (held)
		held(c);
	ide_settle(c->ide);
	return true;
}

void ide_abandon(struct ide_channel *c)
{
	c->abandoned = c->busy;
	c->held = NULL;
	c->go = NULL;
	c->phase = IDE_IDLE;
}

/* --- reset -------------------------------------------------------------------------- */

void ide_signature(struct ide_drive *d)
{
	bool packet = d->kind == IDE_CDROM;

	d->current[ATA_COUNT] = d->current[ATA_LOW] = 1;
	d->current[ATA_MID] = packet ? 0x14 : 0;
	d->current[ATA_HIGH] = packet ? 0xeb : 0;
	memset(d->previous, 0, sizeof d->previous);
}

/* Diagnostics are passed at once (error 01h). A packet drive is not ready until a command. */
static void reset_drive(struct ide_drive *d)
{
	d->status = d->kind == IDE_CDROM ? 0 : ATA_READY;
	d->error = 1;
	d->interrupt = d->asleep = false;
	d->power = 0xff;
	d->sense_length = 0;
	ide_signature(d);
	if (d->kind == IDE_DISK && !d->keep) {
		d->multiple = IDE_MULTIPLE;
		d->look_ahead = true;
	}
}

static void reset_drives(struct ide_channel *c)
{
	ide_abandon(c);
	c->device = 0;
	reset_drive(&c->drive[0]);
	reset_drive(&c->drive[1]);
	update_line(c);
}

void ide_channel_reset(struct ide_channel *c)
{
	c->control = 0;
	for (unsigned i = 0; i < 2; i++) {
		struct ide_drive *d = &c->drive[i];

		memset(d->current, 0, sizeof d->current);
		if (d->kind != IDE_NONE)
			ata_power_on(d);
	}
	reset_drives(c);
	c->bm_command = 0;
	c->bm_status = 0;
	c->bm_table = 0;
}

/* --- registers ---------------------------------------------------------------------- */

static bool nobody(const struct ide_channel *c)
{
	return c->drive[0].kind == IDE_NONE && c->drive[1].kind == IDE_NONE;
}

static uint8_t read_status(struct ide_channel *c)
{
	if (nobody(c))
		return FLOATING;
	if (c->control & ATA_SRST)
		return ATA_BSY;
	return ide_selected(c)->kind == IDE_NONE ? 0 : ide_selected(c)->status;
}

static uint8_t read_register(struct ide_channel *c, unsigned offset)
{
	struct ide_drive *d = ide_selected(c);

	if (nobody(c))
		return FLOATING;
	if (offset == ATA_DEVICE)
		return c->device | 0xa0; /* obsolete bits, always set */
	if (d->kind == IDE_NONE)
		d = &c->drive[d == &c->drive[0]];
	if (offset == ATA_FEATURES)
		return d->error;
	return c->control & ATA_HOB ? d->previous[offset] : d->current[offset];
}

static void write_register(struct ide_channel *c, unsigned offset, uint8_t value)
{
	if (c->phase != IDE_IDLE || c->control & ATA_SRST)
		return;
	c->control &= (uint8_t)~ATA_HOB;
	if (offset == ATA_DEVICE) {
		c->device = value;
		update_line(c);
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		c->drive[i].previous[offset] = c->drive[i].current[offset];
		c->drive[i].current[offset] = value;
	}
}

/* EXECUTE DEVICE DIAGNOSTIC: both do it, whoever is selected; device 0 reports. */
static void diagnose(struct ide_channel *c)
{
	bool keep[2] = { c->drive[0].keep, c->drive[1].keep };

	c->drive[0].keep = c->drive[1].keep = true;
	reset_drives(c);
	c->drive[0].keep = keep[0];
	c->drive[1].keep = keep[1];
	c->active = &c->drive[0];
	if (c->active->kind != IDE_NONE)
		ide_interrupt(c);
}

static void device_reset(struct ide_channel *c)
{
	uint8_t device = c->device & ATA_DEV;

	ide_abandon(c);
	c->device = device;
	reset_drive(ide_selected(c));
	update_line(c);
}

static void write_command(struct ide_channel *c, uint8_t value)
{
	struct ide_drive *d = ide_selected(c);

	if (c->control & ATA_SRST)
		return;
	if (value == 0x08 && d->kind == IDE_CDROM) {
		device_reset(c);
		return;
	}
	if (c->phase != IDE_IDLE)
		return;
	c->control &= (uint8_t)~ATA_HOB;
	if (value == 0x90) {
		diagnose(c);
		return;
	}
	if (d->kind == IDE_NONE || d->asleep)
		return;
	d->interrupt = false;
	update_line(c);
	c->active = d;
	c->opcode = value;
	c->phase = IDE_BUSY;
	d->status = ATA_READY | ATA_BSY;
	if (d->kind == IDE_CDROM)
		atapi_command(c);
	else
		ata_command(c);
}

static void write_control(struct ide_channel *c, uint8_t value)
{
	uint8_t before = c->control;

	c->control = value;
	if (value & ATA_SRST && !(before & ATA_SRST))
		reset_drives(c);
	update_line(c);
}

/* A host that takes more than there is of a block gets zeroes; what is not asked for is dropped. */
static inline uint64_t read_data(struct ide_channel *c, unsigned width)
{
	uint32_t value = 0;

	if (c->phase != IDE_IN)
		return 0;
	if (width > c->left)
		width = c->left;
	memcpy(&value, c->at, width);
	c->at += width;
	c->left -= width;
	if (!c->left)
		end_pio(c);
	return value;
}

static inline void write_data(struct ide_channel *c, unsigned width, uint32_t value)
{
	if (c->phase != IDE_OUT)
		return;
	if (width > c->left)
		width = c->left;
	memcpy(c->at, &value, width);
	c->at += width;
	c->left -= width;
	if (!c->left)
		end_pio(c);
}

static inline uint64_t read_block(struct ide_channel *c, uint32_t offset, unsigned width)
{
	uint8_t status;

	if (offset == ATA_DATA)
		return read_data(c, width);
	if (offset != ATA_COMMAND)
		return read_register(c, offset);
	status = read_status(c);
	ide_selected(c)->interrupt = false;
	update_line(c);
	return status;
}

static inline void write_block(struct ide_channel *c, uint32_t offset, unsigned width,
			       uint64_t value)
{
	if (offset == ATA_DATA)
		write_data(c, width, (uint32_t)value);
	else if (offset == ATA_COMMAND)
		write_command(c, (uint8_t)value);
	else
		write_register(c, offset, (uint8_t)value);
}

/* --- rows of the BARs --------------------------------------------------------------- */

static struct ide_channel *channel_of(struct pci_device *dev, unsigned index)
{
	return &((struct ide *)dev)->channel[index];
}

#define HANDLERS(which, index)                                                                     \
	static uint64_t which##_read(struct pci_device *dev, uint32_t offset, unsigned width)      \
	{                                                                                          \
		return read_block(channel_of(dev, index), offset, width);                          \
	}                                                                                          \
	static void which##_write(struct pci_device *dev, uint32_t offset, unsigned width,         \
				  uint64_t value)                                                  \
	{                                                                                          \
		write_block(channel_of(dev, index), offset, width, value);                         \
	}                                                                                          \
	static uint64_t which##_alternate(struct pci_device *dev, uint32_t offset, unsigned width) \
	{                                                                                          \
		(void)offset;                                                                      \
		(void)width;                                                                       \
		return read_status(channel_of(dev, index));                                        \
	}                                                                                          \
	static void which##_control(struct pci_device *dev, uint32_t offset, unsigned width,       \
				    uint64_t value)                                                \
	{                                                                                          \
		(void)offset;                                                                      \
		(void)width;                                                                       \
		write_control(channel_of(dev, index), (uint8_t)value);                             \
	}

HANDLERS(primary, 0)
HANDLERS(secondary, 1)

#define ROW(label, at, width, which)                                                               \
	{                                                                                          \
		label, at, 1, width, which##_read, which##_write                                   \
	}

/* The data port is wider than its place. */
#define COMMAND_BLOCK(which)                                                                       \
	{                                                                                          \
		ROW("Data", ATA_DATA, 2 | 4, which),                                               \
			ROW("Error/Features", ATA_FEATURES, 1, which),                             \
			ROW("Sector Count", ATA_COUNT, 1, which),                                  \
			ROW("LBA Low", ATA_LOW, 1, which), ROW("LBA Mid", ATA_MID, 1, which),      \
			ROW("LBA High", ATA_HIGH, 1, which), ROW("Device", ATA_DEVICE, 1, which),  \
			ROW("Status/Command", ATA_COMMAND, 1, which), { 0 },                       \
	}

const struct pci_register ide_command_block[IDE_CHANNELS][ATA_REGISTERS + 1] = {
	COMMAND_BLOCK(primary), COMMAND_BLOCK(secondary)
};

const struct pci_register ide_control_block[IDE_CHANNELS][2] = {
	{ { "Alternate Status/Control", 2, 1, 1, primary_alternate, primary_control }, { 0 } },
	{ { "Alternate Status/Control", 2, 1, 1, secondary_alternate, secondary_control }, { 0 } },
};
