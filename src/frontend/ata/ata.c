/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ata.c - the commands of a disk: a table, and those that only talk
 *
 * ATA/ATAPI-7 volume 1, chapter 6; DATA SET MANAGEMENT is ACS-2's. What is not in the table is
 * aborted, which is also how a host finds out. There is no service area (SET MAX), no password, no
 * acoustics: IDENTIFY says so.
 *
 * Settings survive a reset as the host asked for by SET FEATURES 66h and CCh, save the write cache:
 * a host that has turned it off relies on that, and does not hear of resets that its driver makes.
 * Turning it off, or putting the disk to sleep, writes what is in it to stable storage first.
 */
#include <errno.h>

#include "frontend/ata/ide.h"
#include "layer/disk.h"

enum { ACTIVE = 0xff, IDLE = 0x80, STANDBY = 0x00 }; /* of CHECK POWER MODE */

void ata_power_on(struct ide_drive *d)
{
	d->keep = false;
	d->smart = true;
	d->mode = 0x45;
	if (d->kind != IDE_DISK)
		return;
	d->write_cache = d->disk->config.cache != DISK_WRITETHROUGH && !d->disk->config.read_only;
	d->heads = 16;
	d->sectors = 63;
}

/* --- results ------------------------------------------------------------------------ */

static void report_48(struct ide_drive *d, uint64_t lba)
{
	for (unsigned i = 0; i < 3; i++) {
		d->current[ATA_LOW + i] = (uint8_t)(lba >> 8 * i);
		d->previous[ATA_LOW + i] = (uint8_t)(lba >> (24 + 8 * i));
	}
}

static void report_28(struct ide_channel *c, uint64_t lba)
{
	struct ide_drive *d = c->active;

	for (unsigned i = 0; i < 3; i++)
		d->current[ATA_LOW + i] = (uint8_t)(lba >> 8 * i);
	c->device = (uint8_t)((c->device & 0xf0) | (lba >> 24 & 15));
}

void ata_fail_at(struct ide_channel *c, uint8_t error, uint64_t sector)
{
	if (c->ext)
		report_48(c->active, sector);
	else if (c->device & ATA_LBA)
		report_28(c, sector);
	ide_complete(c, error);
}

/* --- commands that need the storage ----------------------------------------------------- */

static void flushed(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	ide_complete(c, status ? ATA_ABRT : 0);
	if (status)
		c->active->status |= ATA_DF;
}

static void start_flush(struct ide_channel *c)
{
	ata_submit(c, IO_FLUSH, 0, 0, NULL, 0, flushed);
}

static void flush(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ide_job_begin(c, start_flush);
}

/* --- commands that do not ------------------------------------------------------------- */

static void done(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ide_complete(c, 0);
}

static void abort_command(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ide_complete(c, ATA_ABRT);
}

static void identify(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ata_identify(c->active, c->page);
	ide_pio(c, IDE_IN, c->page, IDE_PAGE, ide_complete_quietly);
	ide_interrupt(c);
}

static void native_max(struct ide_channel *c, unsigned flags)
{
	uint64_t last = ata_sectors(c->active) - 1;

	if (flags & ATA_EXT)
		report_48(c->active, last);
	else if (c->device & ATA_LBA)
		report_28(c, last < 0x0fffffff ? last : 0x0fffffff);
	else {
		ide_complete(c, ATA_ABRT);
		return;
	}
	ide_complete(c, 0);
}

static void set_multiple(struct ide_channel *c, unsigned flags)
{
	uint8_t count = c->active->current[ATA_COUNT];

	(void)flags;
	if (count > IDE_MULTIPLE || (count & (count - 1))) {
		ide_complete(c, ATA_ABRT);
		return;
	}
	c->active->multiple = count;
	ide_complete(c, 0);
}

static void set_parameters(struct ide_channel *c, unsigned flags)
{
	struct ide_drive *d = c->active;

	(void)flags;
	if (!d->current[ATA_COUNT]) {
		ide_complete(c, ATA_ABRT);
		return;
	}
	d->heads = (uint16_t)((c->device & 15) + 1);
	d->sectors = d->current[ATA_COUNT];
	ide_complete(c, 0);
}

static void check_power(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	c->active->current[ATA_COUNT] = c->active->power;
	ide_complete(c, 0);
}

static void idle(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	c->active->power = IDLE;
	ide_complete(c, 0);
}

static void standby(struct ide_channel *c, unsigned flags)
{
	c->active->power = STANDBY;
	flush(c, flags);
}

static void sleep_now(struct ide_channel *c, int status)
{
	if (ide_job_over(c))
		return;
	c->active->asleep = !status;
	ide_complete(c, status ? ATA_ABRT : 0);
}

static void start_sleep(struct ide_channel *c)
{
	ata_submit(c, IO_FLUSH, 0, 0, NULL, 0, sleep_now);
}

static void sleep_command(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ide_job_begin(c, start_sleep);
}

/* --- SET FEATURES --------------------------------------------------------------------- */

static void say_cache(const struct ide_drive *d)
{
	struct ide *ide = d->channel->ide;
	const struct device *device = &ide->pci.device;

	if (!log_limited(&ide->limit))
		return;
	log_info("vm %s: %s: the guest turned the write cache of disk %s %s", device->vm,
		 device->label, d->disk->name, d->write_cache ? "on" : "off");
}

static void cache_off(struct ide_channel *c, int status)
{
	if (!c->abandoned && !status) {
		c->active->write_cache = false;
		say_cache(c->active);
	}
	flushed(c, status);
}

static void start_cache_off(struct ide_channel *c)
{
	ata_submit(c, IO_FLUSH, 0, 0, NULL, 0, cache_off);
}

/* What libraries call transfer modes: PIO is all the same to us, DMA is told by IDENTIFY. */
bool ata_set_mode(struct ide_drive *d, uint8_t mode)
{
	if (mode <= 0x01 || (mode >= 0x08 && mode <= 0x0c))
		return true;
	if ((mode < 0x20 || mode > 0x22) && (mode < 0x40 || mode > 0x46))
		return false;
	d->mode = mode;
	return true;
}

static void set_features(struct ide_channel *c, unsigned flags)
{
	struct ide_drive *d = c->active;
	bool good = true;

	(void)flags;
	switch (d->current[ATA_FEATURES]) {
	case 0x02:
		good = !d->disk->config.read_only;
		if (good && !d->write_cache) {
			d->write_cache = true;
			say_cache(d);
		}
		break;
	case 0x82:
		if (!d->write_cache)
			break;
		ide_job_begin(c, start_cache_off);
		return;
	case 0x03:
		good = ata_set_mode(d, d->current[ATA_COUNT]);
		break;
	case 0x55:
	case 0xaa:
		d->look_ahead = d->current[ATA_FEATURES] == 0xaa;
		break;
	case 0x66:
	case 0xcc:
		d->keep = d->current[ATA_FEATURES] == 0x66;
		break;
	default: /* 8-bit transfers, power and acoustic management among them */
		good = false;
	}
	ide_complete(c, good ? 0 : ATA_ABRT);
}

/* --- the table ---------------------------------------------------------------------- */

static void smart(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ata_smart(c);
}

static void data_set_management(struct ide_channel *c, unsigned flags)
{
	(void)flags;
	ata_data_set_management(c);
}

struct command {
	void (*execute)(struct ide_channel *c, unsigned flags);
	uint8_t flags;
};

#define READS(flags)                                                                               \
	{                                                                                          \
		ata_transfer, flags                                                                \
	}
#define WRITES(flags)                                                                              \
	{                                                                                          \
		ata_transfer, ATA_WRITES | (flags)                                                 \
	}

static const struct command commands[256] = {
	[0x06] = { data_set_management },
	[0x10 ... 0x1f] = { done }, /* RECALIBRATE */
	[0x20] = READS(0),          /* READ SECTORS */
	[0x21] = READS(0),
	[0x24] = READS(ATA_EXT),
	[0x25] = READS(ATA_EXT | ATA_BY_DMA),
	[0x27] = { native_max, ATA_EXT },
	[0x29] = READS(ATA_EXT | ATA_BLOCKS), /* READ MULTIPLE EXT */
	[0x30] = WRITES(0),                   /* WRITE SECTORS */
	[0x31] = WRITES(0),
	[0x34] = WRITES(ATA_EXT),
	[0x35] = WRITES(ATA_EXT | ATA_BY_DMA),
	[0x39] = WRITES(ATA_EXT | ATA_BLOCKS),
	[0x3d] = WRITES(ATA_EXT | ATA_BY_DMA | ATA_FUA),
	[0x40] = READS(ATA_VERIFY),
	[0x41] = READS(ATA_VERIFY),
	[0x42] = READS(ATA_VERIFY | ATA_EXT),
	[0x70] = { done }, /* SEEK */
	[0x91] = { set_parameters },
	[0x94] = { standby }, /* the old codes of the power commands */
	[0x95] = { idle },
	[0x96] = { standby },
	[0x97] = { idle },
	[0x98] = { check_power },
	[0x99] = { sleep_command },
	[0xb0] = { smart },
	[0xc4] = READS(ATA_BLOCKS),
	[0xc5] = WRITES(ATA_BLOCKS),
	[0xc6] = { set_multiple },
	[0xc8] = READS(ATA_BY_DMA),
	[0xc9] = READS(ATA_BY_DMA),
	[0xca] = WRITES(ATA_BY_DMA),
	[0xcb] = WRITES(ATA_BY_DMA),
	[0xce] = WRITES(ATA_EXT | ATA_BLOCKS | ATA_FUA),
	[0xe0] = { standby }, /* IMMEDIATE, as is 0xe1 */
	[0xe1] = { idle },
	[0xe2] = { standby },
	[0xe3] = { idle },
	[0xe5] = { check_power },
	[0xe6] = { sleep_command },
	[0xe7] = { flush },
	[0xea] = { flush },
	[0xec] = { identify },
	[0xef] = { set_features },
	[0xf8] = { native_max },
};

void ata_command(struct ide_channel *c)
{
	const struct command *command = &commands[c->opcode];

	if (command->execute == ata_transfer)
		c->active->power = ACTIVE;
	if (command->execute)
		command->execute(c, command->flags);
	else
		abort_command(c, 0);
}
