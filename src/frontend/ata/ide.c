/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide.c - the IDE function: what PCI sees, its life, and what users say about it
 *
 * The identity is an 82801GB's, which every system has a driver for, in native mode: its registers
 * are where its BARs say, both channels share INTA#, and no legacy ports are needed. Its vendor's
 * own registers (timings, enabled ports) take what is written and mean nothing here.
 *
 * A function runs on one loop. Each disk has an io_queue there for one request, since a channel has
 * one command at a time; the CD-ROM drives are units of one SCSI target: target number, and index,
 * are the drive's number.
 */
#include "frontend/ata/ide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "layer/disk.h"
#include "transport/transport.h"
#include "util/error.h"

#define SERIAL_MAX 20
#define MODEL_MAX  40
#define CD_BLOCK   2048u

extern const struct frontend ide_frontend;

static const char *const positions[] = { "primary-master", "primary-slave", "secondary-master",
					 "secondary-slave", NULL };

static struct ide *ide_of(struct pci_device *dev)
{
	return (struct ide *)dev;
}

static struct ide_drive *drive_of(struct ide *ide, unsigned number)
{
	return &ide->channel[number / 2].drive[number % 2];
}

/* --- start and stop ------------------------------------------------------------------- */

static void close_queues(struct ide *ide)
{
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_drive *d = drive_of(ide, i);

		if (d->open)
			disk_queue_close(d->queue);
		d->open = false;
	}
	if (ide->queue)
		scsi_queue_close(ide->queue);
	ide->queue = NULL;
}

static int open_queues(struct ide *ide)
{
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_drive *d = drive_of(ide, i);

		if (d->kind != IDE_DISK)
			continue;
		d->queue = disk_queue_open(d->disk, ide->pci.loop, 1, 1);
		if (!d->queue)
			return -ENOMEM;
		d->queue->ios.owner = d;
		d->open = true;
	}
	if (!ide->target)
		return 0;
	ide->queue = scsi_queue_open(ide->target, 0, ide->pci.loop, IDE_DRIVES);
	return ide->queue ? 0 : -ENOMEM;
}

static int start(struct pci_device *dev)
{
	struct ide *ide = ide_of(dev);
	int ret = open_queues(ide);

	ide->stopping = false;
	if (ret)
		close_queues(ide);
	return ret;
}

/* Not where a job came home: its queue is still at work there. */
static void settle(struct loop_task *task)
{
	struct ide *ide = container_of(task, struct ide, settle);

	if (!ide->stopping || ide->channel[0].busy || ide->channel[1].busy || ide->resetting)
		return;
	ide->stopping = false;
	close_queues(ide);
	pci_stopped(&ide->pci);
}

void ide_settle(struct ide *ide)
{
	if (ide->stopping)
		loop_task_queue(ide->pci.loop, &ide->settle);
}

static void stop(struct pci_device *dev)
{
	struct ide *ide = ide_of(dev);

	ide->stopping = true;
	ide_settle(ide);
}

/* --- reset -------------------------------------------------------------------------- */

static void reset_bus(struct ide *ide);

static void bus_is_reset(struct scsi_task_request *request)
{
	struct ide *ide = request->owner;

	ide->resetting = false;
	if (ide->reset_again)
		reset_bus(ide);
	ide_settle(ide);
}

/* The drives forget what the guest has told them, as that it must not lose its medium. */
static void reset_bus(struct ide *ide)
{
	ide->reset_again = ide->resetting;
	if (!ide->queue || ide->resetting)
		return;
	ide->resetting = true;
	ide->bus_reset = (struct scsi_task_request){ .function = SCSI_BUS_RESET,
						     .done = bus_is_reset,
						     .owner = ide };
	scsi_task_manage(ide->queue, &ide->bus_reset);
}

static void reset(struct pci_device *dev)
{
	struct ide *ide = ide_of(dev);

	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_reset(&ide->channel[i]);
	reset_bus(ide);
}

static void bus_master(struct pci_device *dev, bool on)
{
	for (unsigned i = 0; on && i < IDE_CHANNELS; i++)
		ide_dma_go(&ide_of(dev)->channel[i]);
}

static const struct pci_type type = {
	.vendor = 0x8086,
	.device = 0x27c0,
	.subsystem_vendor = 0x8086,
	.subsystem = 0x27c0,
	.revision = 1,
	.class_code = 0x01018f, /* IDE, both channels native, a bus master */
	.bar = { { PCI_BAR_IO, 8, ide_command_block[0] },
		 { PCI_BAR_IO, 4, ide_control_block[0] },
		 { PCI_BAR_IO, 8, ide_command_block[1] },
		 { PCI_BAR_IO, 4, ide_control_block[1] },
		 { PCI_BAR_IO, 16, ide_bus_master_registers } },
	.intx = true,
	.start = start,
	.stop = stop,
	.reset = reset,
	.bus_master = bus_master,
};

/* 82801GB: timings (40h to 4bh), I/O configuration (54h), ports enabled (92h). */
static void add_vendor_registers(struct pci_device *dev)
{
	pci_config_register(dev, 0x40, 4, 0x80008000, 0xffffffff);
	pci_config_register(dev, 0x44, 1, 0, 0xff);
	pci_config_register(dev, 0x48, 1, 0, 0x0f);
	pci_config_register(dev, 0x4a, 2, 0, 0x3333);
	pci_config_register(dev, 0x54, 4, 0, 0x000ff0ff);
	pci_config_register(dev, 0x92, 2, 0x000f, 0x000f);
}

/* --- what users say ------------------------------------------------------------------- */

enum { TYPE_AUTO, TYPE_DISK, TYPE_CDROM };

struct settings {
	char nothing; /* as yet */
};

/** What a user says about a drive. */
struct unit_settings {
	int type;
	int position; /* index: 0 is auto, then the drive's number + 1 */
	char *serial, *model;
};

static int check_text(const char *name, const char *text, size_t most, struct error *err)
{
	if (text && strlen(text) > most)
		return error_set(err, EINVAL, "%s: '%s' is longer than %zu characters", name, text,
				 most);
	for (const char *p = text; p && *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return error_set(err, EINVAL, "%s: '%s' has other than ASCII characters",
					 name, text);
	return 0;
}

static int check(const void *settings, const void *const *units, unsigned count, struct error *err)
{
	unsigned taken = 0;

	(void)settings;
	for (unsigned i = 0; i < count; i++) {
		const struct unit_settings *unit = units[i];
		unsigned bit = unit->position ? 1u << unit->position : 0;

		if (check_text("serial", unit->serial, SERIAL_MAX, err) ||
		    check_text("model", unit->model, MODEL_MAX, err))
			return -err->code;
		if (taken & bit)
			return error_set(err, EINVAL, "position: two units are %s",
					 positions[unit->position - 1]);
		taken |= bit;
	}
	return 0;
}

/* Where each unit goes: where users want it, the others in order into what is left. */
static void place(const struct device_plan *plan, unsigned *where)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < plan->count; i++) {
		const struct unit_settings *unit = plan->units[i].settings;

		where[i] = IDE_DRIVES;
		if (!unit->position)
			continue;
		where[i] = (unsigned)unit->position - 1;
		taken |= 1u << where[i];
	}
	for (unsigned i = 0; i < plan->count; i++)
		for (unsigned j = 0; j < IDE_DRIVES && where[i] == IDE_DRIVES; j++)
			if (!(taken >> j & 1)) {
				where[i] = j;
				taken |= 1u << j;
			}
}

static bool is_cdrom(const struct unit_settings *settings, const struct disk *disk)
{
	return settings->type == TYPE_CDROM ||
	       (settings->type == TYPE_AUTO &&
		(!disk || disk->limits.physical_block_size == CD_BLOCK));
}

static void put_text(char *to, size_t most, const char *text)
{
	memcpy(to, text, strnlen(text, most));
}

static int add_cdrom(struct ide *ide, unsigned number, const struct unit_settings *settings,
		     struct disk *disk, struct error *err)
{
	static const struct scsi_target_events events;               /* a cable has none */
	const struct scsi_unit_settings unit = { .type = TYPE_CDROM, /* the same there */
						 .target = number,
						 .serial = settings->serial };

	if (!ide->target)
		ide->target = scsi_target_create(&ide->pci.device, 1, &events, ide, err);
	if (!ide->target)
		return -err->code;
	return scsi_unit_add(ide->target, number, &unit, disk, err);
}

static int add_drive(struct ide *ide, unsigned number, const struct unit_plan *plan,
		     struct error *err)
{
	const struct unit_settings *settings = plan->settings;
	struct device_unit *unit = &ide->pci.device.units[number];
	struct ide_drive *d = drive_of(ide, number);
	bool cdrom = is_cdrom(settings, plan->disk);

	unit->settings = settings;
	if (!cdrom && !plan->disk)
		return error_set(err, EINVAL, "%s: a drive of type disk needs a disk",
				 positions[number]);
	d->kind = cdrom ? IDE_CDROM : IDE_DISK;
	put_text(d->serial, SERIAL_MAX,
		 settings->serial ? settings->serial
		 : cdrom          ? positions[number]
				  : plan->disk->name);
	put_text(d->model, MODEL_MAX,
		 settings->model ? settings->model
		 : cdrom         ? "PENSTOCK CD-ROM"
				 : "PENSTOCK VIRTUAL DISK");
	if (cdrom)
		return add_cdrom(ide, number, settings, plan->disk, err);
	d->disk = plan->disk;
	unit->present = true;
	unit->disk = plan->disk;
	unit->type = UNIT_DISK;
	return 0;
}

/* --- made and gone ------------------------------------------------------------------ */

static void destroy(struct device *device)
{
	struct ide *ide = container_of(device, struct ide, pci.device);

	if (ide->target)
		scsi_target_destroy(ide->target);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		free(ide->channel[i].buffer);
	device_release(device);
	free(ide);
}

/* Another medium, or none, for a CD-ROM drive. */
static int set_disk(struct device *device, unsigned unit, struct disk *disk,
		    struct device_change *change, struct error *err)
{
	struct ide *ide = container_of(device, struct ide, pci.device);

	if (drive_of(ide, unit)->kind != IDE_CDROM)
		return error_set(err, ENOTSUP, "%s is not a CD-ROM drive: its disk cannot change",
				 device->units[unit].name);
	scsi_unit_set_disk(ide->target, unit, disk, change);
	return 0;
}

static const struct device_ops device_ops = { .destroy = destroy, .set_disk = set_disk };

static int build(struct ide *ide, const struct device_plan *plan, struct error *err)
{
	unsigned where[IDE_DRIVES];

	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_drive *d = drive_of(ide, i);

		d->channel = &ide->channel[i / 2];
		d->number = i;
		d->stats = &ide->pci.device.units[i].stats[0];
		put_text(ide->pci.device.units[i].name, sizeof ide->pci.device.units[i].name,
			 positions[i]);
	}
	for (unsigned i = 0; i < IDE_CHANNELS; i++) {
		ide->channel[i].ide = ide;
		ide->channel[i].index = i;
		ide->channel[i].buffer = malloc(IDE_BUFFER);
		if (!ide->channel[i].buffer)
			return error_set(err, ENOMEM, "out of memory");
	}
	place(plan, where);
	for (unsigned i = 0; i < plan->count; i++)
		if (add_drive(ide, where[i], &plan->units[i], err))
			return -err->code;
	return 0;
}

static struct device *create(const struct device_plan *plan, struct error *err)
{
	struct ide *ide = calloc(1, sizeof *ide);
	struct device *device;

	if (!ide) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	device = &ide->pci.device;
	device->kind = ide_frontend.name;
	device->transport = ide_frontend.transport->name;
	device->ops = &device_ops;
	if (device_init(device, plan, IDE_DRIVES, 1, err)) {
		free(ide);
		return NULL;
	}
	ide->settle.run = settle;
	if (build(ide, plan, err)) {
		destroy(device);
		return NULL;
	}
	pci_init(&ide->pci, &type);
	add_vendor_registers(&ide->pci);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_reset(&ide->channel[i]);
	return device;
}

static const char *const types[] = { "auto", "disk", "cdrom", NULL };
static const char *const places[] = {
	"auto", "primary-master", "primary-slave", "secondary-master", "secondary-slave", NULL
};

static const struct option options[] = { { 0 } };

static const struct option unit_options[] = {
	{ .name = "type",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct unit_settings, type),
	  .choices = types,
	  .fallback = "auto",
	  .help = "What the guest sees: disk, or cdrom (read-only, with a medium that may change). auto: "
		  "cdrom for a disk whose blocks have 2,048 bytes, as those of an ISO image do, and for "
		  "an empty drive; else disk." },
	{ .name = "position",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct unit_settings, position),
	  .choices = places,
	  .fallback = "auto",
	  .help = "Where on the two cables the drive is; auto takes the first that is free. The drives of "
		  "one cable take turns: two that are busy at once are better off on two." },
	{ .name = "serial",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct unit_settings, serial),
	  .help = "Serial number that the guest sees, at most 20 characters. Default: the name of the "
		  "disk; of a CD-ROM drive, its position." },
	{ .name = "model",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct unit_settings, model),
	  .help = "Model name that the guest sees, at most 40 characters." },
	{ 0 },
};

const struct frontend ide_frontend = {
	.name = "ide",
	.summary = "an IDE controller with up to four disks and CD-ROM drives",
	.description =
		"A PCI IDE controller in native mode (82801GB) with two channels, on each a master and a "
		"slave: ATA disks and ATAPI CD-ROM drives, by PIO and by DMA. Systems of the last thirty "
		"years have a driver for it, and firmware boots from it. It is slow: a driver needs some "
		"twenty accesses to registers for a request, and each is a round trip to this process; "
		"and there is one request at a time on a channel. A disk cannot change its size while the "
		"guest runs; a CD-ROM drive can change its medium.",
	.example = "disks:\n"
		   "  system:\n"
		   "    stack:\n"
		   "      - memory: {size: 1G}\n"
		   "vms:\n"
		   "  old:\n"
		   "    - ide: [system, {type: cdrom, position: secondary-slave}]\n"
		   "      socket: ./old-ide.sock\n",
	.transport = &vfio_user_transport,
	.settings_size = sizeof(struct settings),
	.options = options,
	.unit_settings_size = sizeof(struct unit_settings),
	.unit_options = unit_options,
	.units = IDE_DRIVES,
	.empty_units = true,
	.check = check,
	.create = create,
};
