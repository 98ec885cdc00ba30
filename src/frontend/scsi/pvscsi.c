/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi.c - VMware's paravirtual SCSI adapter as a PCI function, over any disks
 *
 * The guest sees 15ad:07c0 with one BAR of 32 KiB, as on VMware, in revision 2 (messages, unplug).
 * A request costs the driver one register write (the kick) at most, and none while we poll; see
 * pvscsi_ring.c. What a SCSI command means is the target's affair: scsi.h.
 *
 * MSI-X has one vector, although VMware's has more: whatever the driver asks for, all interrupts
 * come by the first, and a driver that was given more might wait at the others.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/scsi/pvscsi_private.h"
#include "layer/disk.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/option.h"

#define ADAPTER_ID 7u /* of the adapter itself on VMware's bus */

extern const struct frontend pvscsi_frontend;

/* --- the PCI function --------------------------------------------------------------- */

static void free_pool(struct pvscsi *p)
{
	free(p->pool);
	free(p->vectors);
	p->pool = NULL;
	p->vectors = NULL;
}

static int start(struct pci_device *pci)
{
	struct pvscsi *p = pvscsi_of(pci);

	/* touched as they are used */
	p->pool = calloc(PVSCSI_REQUESTS, sizeof *p->pool);
	p->vectors = calloc((size_t)PVSCSI_REQUESTS * PVSCSI_VECTORS, sizeof *p->vectors);
	if (p->pool && p->vectors)
		p->queue = scsi_queue_open(p->target, 0, pci->loop, PVSCSI_REQUESTS);
	if (!p->queue) {
		free_pool(p);
		return -ENOMEM;
	}
	p->free = NULL;
	p->fresh = 0;
	p->stopping = false;
	atomic_store(&p->running, pci->loop);
	return 0;
}

void pvscsi_maybe_stopped(struct pvscsi *p)
{
	if (!p->stopping || p->out || p->tasks_out)
		return;
	p->stopping = false;
	scsi_queue_close(p->queue);
	p->queue = NULL;
	free_pool(p);
	pci_stopped(&p->pci);
}

static void stop(struct pci_device *pci)
{
	struct pvscsi *p = pvscsi_of(pci);

	atomic_store(&p->running, NULL);
	pvscsi_requests_drop(p);
	pvscsi_rings_release(p);
	p->stopping = true;
	pvscsi_maybe_stopped(p);
}

static void reset(struct pci_device *pci)
{
	struct pvscsi *p = pvscsi_of(pci);

	pvscsi_adapter_reset(p);
	p->intr_mask = 0;
	p->bus_master = false;
}

static void bus_master(struct pci_device *pci, bool on)
{
	struct pvscsi *p = pvscsi_of(pci);

	p->bus_master = on;
	if (on)
		pvscsi_rings_kick(p);
}

static const struct pci_type pvscsi_type = {
	.vendor = 0x15ad,
	.device = 0x07c0,
	.subsystem_vendor = 0x15ad,
	.subsystem = 0x07c0,
	.revision = 2,
	.class_code = 0x010000,
	.bar[0] = { PCI_BAR_MEMORY, PVSCSI_BAR_SIZE, pvscsi_registers },
	.intx = true,
	.msi_vectors = 1,
	.msix_vectors = 1,
	.msix_bar = 0,
	.msix_table = PVSCSI_MSIX_TABLE,
	.msix_pending = PVSCSI_MSIX_PENDING,
	.start = start,
	.stop = stop,
	.reset = reset,
	.bus_master = bus_master,
};

/* --- units come and go -------------------------------------------------------------- */

/* On its way from the control thread to the loop. */
struct announcement {
	struct loop_message message;
	struct pvscsi *p;
	struct loop *loop;
	enum pvscsi_msg_type type;
	uint16_t target;
	uint64_t lun;
};

static void announce(struct loop_message *message)
{
	struct announcement *a = container_of(message, struct announcement, message);

	if (atomic_load(&a->p->running) == a->loop)
		pvscsi_rings_message(a->p, a->type, a->target, a->lun);
	free(a);
}

static void units_changed(void *owner, uint16_t target, uint64_t lun, bool added)
{
	struct pvscsi *p = owner;
	struct loop *loop = atomic_load(&p->running);
	struct announcement *a;

	if (!loop)
		return; /* the guest looks for units when it starts */
	a = malloc(sizeof *a);
	if (!a) {
		log_error("vm %s: %s: out of memory: the guest is not told of unit %u:%llu",
			  p->pci.device.vm, p->pci.device.label, target, (unsigned long long)lun);
		return;
	}
	*a = (struct announcement){ .message.run = announce,
				    .p = p,
				    .loop = loop,
				    .type = added ? PVSCSI_MSG_ADDED : PVSCSI_MSG_REMOVED,
				    .target = target,
				    .lun = lun << 48 };
	loop_send(loop, &a->message);
}

/* What else changes of a unit the guest learns as unit attention. */
static const struct scsi_target_events events = { .units_changed = units_changed };

static struct pvscsi *of_device(struct device *device)
{
	return container_of(device, struct pvscsi, pci.device);
}

static int attach(struct device *device, unsigned unit, struct disk *disk, struct error *err)
{
	struct pvscsi *p = of_device(device);

	return scsi_unit_add(p->target, unit, &p->settings[unit], disk, err);
}

static int detach(struct device *device, unsigned unit, struct device_change *change,
		  struct error *err)
{
	(void)err;
	scsi_unit_remove(of_device(device)->target, unit, change);
	return 0;
}

static int set_disk(struct device *device, unsigned unit, struct disk *disk,
		    struct device_change *change, struct error *err)
{
	if (device->units[unit].type != UNIT_CDROM)
		return error_set(err, EINVAL, "unit %s of %s is no CD-ROM",
				 device->units[unit].name, device->name);
	scsi_unit_set_disk(of_device(device)->target, unit, disk, change);
	return 0;
}

/* --- made and gone ------------------------------------------------------------------ */

static void destroy(struct device *device)
{
	struct pvscsi *p = of_device(device);

	if (p->target)
		scsi_target_destroy(p->target);
	scsi_places_release(p->settings, PVSCSI_TARGETS);
	device_release(device);
	free(p);
}

static const struct device_ops device_ops = {
	.destroy = destroy,
	.set_disk = set_disk,
	.attach = attach,
	.detach = detach,
};

/** What a user says about it. */
struct settings {
	bool msix;
};

static int check(const void *settings, const void *const *units, unsigned count, struct error *err)
{
	(void)settings;
	return scsi_places_check(units, count, PVSCSI_TARGETS, PVSCSI_LUNS, err);
}

static struct device *create(const struct device_plan *plan, struct error *err)
{
	struct pvscsi *p = calloc(1, sizeof *p);
	struct device *device;

	if (!p) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	device = &p->pci.device;
	device->kind = pvscsi_frontend.name;
	device->transport = pvscsi_frontend.transport->name;
	device->ops = &device_ops;
	if (device_init(device, plan, PVSCSI_TARGETS, 1, err)) {
		free(p);
		return NULL;
	}
	device->queue_size = PVSCSI_REQUESTS;
	p->type = pvscsi_type;
	if (!((const struct settings *)plan->settings)->msix)
		p->type.msix_vectors = 0;
	pci_init(&p->pci, &p->type);
	pvscsi_rings_init(p);
	if (scsi_places_make(p->settings, device, plan, PVSCSI_TARGETS, ADAPTER_ID, err)) {
		destroy(device);
		return NULL;
	}
	p->target = scsi_target_create(device, 1, &events, p, err);
	for (unsigned i = 0; p->target && i < plan->count; i++) {
		if (scsi_unit_add(p->target, i, &p->settings[i], plan->units[i].disk, err)) {
			destroy(device);
			return NULL;
		}
	}
	if (!p->target) {
		destroy(device);
		return NULL;
	}
	return device;
}

static const struct option options[] = {
	{ .name = "msix",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct settings, msix),
	  .fallback = "true",
	  .help = "Offer MSI-X. Without it guests use MSI, as fast. QEMU 11.1 ends when a device with MSI-X "
		  "is unplugged while the guest runs, so say false where that is to be done." },
	{ 0 },
};

const struct frontend pvscsi_frontend = {
	.name = "pvscsi",
	.summary = "VMware's paravirtual SCSI adapter: up to 64 disks and CD-ROMs",
	.description =
		"The paravirtual SCSI adapter (PVSCSI) of VMware, served to QEMU's vfio-user-pci. Linux, "
		"FreeBSD and SeaBIOS have a driver, Windows gets one with VMware Tools; so a guest that "
		"was installed on VMware boots as it is. Units come and go while the guest runs, and it "
		"hears of it.\n\n"
		"Each unit is LUN 0 of a target: the first of target 0, the next of 1 and so on without "
		"7, which is the adapter's, unless it says else. Drivers look at LUN 0 only.\n\n"
		"The rings of this adapter must be in memory that the VMM shares, so QEMU needs "
		"-object memory-backend-memfd,id=m,size=...,share=on and -machine memory-backend=m.\n\n"
		"In QEMU a guest does not wait for its register writes. When Linux asks how many targets "
		"there are, the answer would come too late, into memory that it uses for something else: "
		"so it gets none, and looks at targets 0 to 15. For more of them give vfio-user-pci "
		"\"x-no-posted-writes\": true, which makes every request a little slower.",
	.example = "disks:\n"
		   "  system:\n"
		   "    stack:\n"
		   "      - memory: {size: 1G}\n"
		   "  data:\n"
		   "    stack:\n"
		   "      - memory: {size: 4G}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {pvscsi: [system, {disk: data, target: 2}], socket: ./web-scsi.sock}\n",
	.transport = &vfio_user_transport,
	.settings_size = sizeof(struct settings),
	.options = options,
	.unit_settings_size = sizeof(struct scsi_unit_settings),
	.unit_options = scsi_unit_options,
	.units = PVSCSI_TARGETS,
	.empty_units = true,
	.hot_plug = true,
	.check = check,
	.create = create,
};
