/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi.c - the virtio SCSI host bus adapter (virtio 1.2, section 5.6): up to 64 units, disks and
 * CD-ROM drives, that may come and go; what they understand is the affair of frontend/scsi
 *
 * Queue 0 is for control, 1 for events, the rest for requests; scsi_private.h tells the rooms.
 *
 * Config space is not ours: vhost-user does not carry it for this type, and QEMU makes it up from
 * the properties of its own device (hw/scsi/vhost-user-scsi.c), of which we hear nothing.
 */
#include <errno.h>
#include <linux/virtio_scsi.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontend/frontend.h"
#include "frontend/virtio/scsi_private.h"
#include "frontend/virtio/settings.h"
#include "layer/disk.h"
#include "transport/transport.h"
#include "util/must.h"

extern const struct frontend virtio_scsi_frontend;

/** What a user says about it. */
struct scsi_settings {
	uint64_t queues;     /* request queues, 1..30 */
	uint64_t queue_size; /* entries, a power of two, 16..1024 */
	uint64_t units;      /* most of them, 1..64 */
	bool pin;            /* register guest memory with the kernel */
};

static struct scsi *scsi_of_device(struct device *device)
{
	return container_of(device, struct scsi, dev.device);
}

/* --- the virtio device -------------------------------------------------------------- */

static uint64_t scsi_features(struct virtio_device *dev)
{
	(void)dev;
	return 1ull << VIRTIO_SCSI_F_INOUT | 1ull << VIRTIO_SCSI_F_HOTPLUG |
	       1ull << VIRTIO_SCSI_F_CHANGE;
}

static void scsi_negotiated(struct virtio_device *dev, uint64_t features)
{
	(void)dev;
	(void)features;
}

static void scsi_reset(struct virtio_device *dev)
{
	struct scsi *scsi = scsi_of(dev);

	scsi_events_forget(&scsi->events);
	scsi_target_reset(scsi->target);
}

static int scsi_queue_start(struct virtio_device *dev, struct virtqueue *vq)
{
	struct scsi *scsi = scsi_of(dev);

	return vq->index == QUEUE_CONTROL ? scsi_control_start(scsi, vq)
	       : vq->index == QUEUE_EVENT ? scsi_event_start(scsi, vq)
					  : scsi_requests_start(scsi, vq);
}

static void scsi_queue_stop(struct virtqueue *vq)
{
	if (vq->index == QUEUE_CONTROL)
		scsi_control_stop(vq);
	else if (vq->index == QUEUE_EVENT)
		scsi_event_stop(vq);
	else
		scsi_requests_stop(vq);
}

static bool scsi_poll(struct virtqueue *vq)
{
	return vq->index >= QUEUE_REQUEST   ? scsi_requests_poll(vq)
	       : vq->index == QUEUE_CONTROL ? scsi_control_poll(vq)
					    : scsi_event_poll(vq);
}

static const struct virtio_device_ops scsi_ops = {
	.features = scsi_features,
	.negotiated = scsi_negotiated,
	.reset = scsi_reset,
	.queue_start = scsi_queue_start,
	.queue_stop = scsi_queue_stop,
	.queue_poll = scsi_poll,
};

/* --- units that come, go, and change ------------------------------------------------- */

static int scsi_attach(struct device *device, unsigned unit, struct disk *disk, struct error *err)
{
	struct scsi *scsi = scsi_of_device(device);
	int ret = scsi_unit_add(scsi->target, unit, &scsi->settings[unit], disk, err);

	scsi->dev.single_loop = scsi_target_single_loop(scsi->target);
	return ret;
}

static int scsi_detach(struct device *device, unsigned unit, struct device_change *change,
		       struct error *err)
{
	(void)err;
	scsi_unit_remove(scsi_of_device(device)->target, unit, change);
	return 0;
}

static int scsi_set_disk(struct device *device, unsigned unit, struct disk *disk,
			 struct device_change *change, struct error *err)
{
	(void)err;
	scsi_unit_set_disk(scsi_of_device(device)->target, unit, disk, change);
	return 0;
}

/* --- made and gone ------------------------------------------------------------------ */

static void scsi_destroy(struct device *device)
{
	struct scsi *scsi = scsi_of_device(device);

	if (scsi->target)
		scsi_target_destroy(scsi->target);
	scsi_places_release(scsi->settings, SCSI_UNITS);
	scsi_events_release(&scsi->events);
	device_release(device);
	free(scsi);
}

static const struct device_ops device_ops = {
	.destroy = scsi_destroy,
	.set_disk = scsi_set_disk,
	.attach = scsi_attach,
	.detach = scsi_detach,
};

static int scsi_check(const void *data, const void *const *units, unsigned count, struct error *err)
{
	const struct scsi_settings *settings = data;

	if (count > settings->units)
		return error_set(err, EINVAL, "units: there are %u; expected at most %llu", count,
				 (unsigned long long)settings->units);
	if (scsi_places_check(units, count, SCSI_TARGETS, UINT16_MAX, err))
		return -err->code;
	return virtio_check_queue_size(settings->queue_size, err);
}

static struct device *scsi_create(const struct device_plan *plan, struct error *err)
{
	const struct scsi_settings *settings = plan->settings;
	unsigned queues = (unsigned)settings->queues + QUEUE_REQUEST;
	struct scsi *scsi = calloc(1, sizeof *scsi);
	struct device *device;

	if (!scsi) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	device = &scsi->dev.device;
	device->kind = virtio_scsi_frontend.name;
	device->transport = virtio_scsi_frontend.transport->name;
	device->ops = &device_ops;
	device->caveat =
		"QEMU before 8.2 does not connect again: after a restart of penstock the VM "
		"must be restarted too";
	if (device_init(device, plan, (unsigned)settings->units, queues, err)) {
		free(scsi);
		return NULL;
	}
	device->queue_size = (unsigned)settings->queue_size;
	scsi->dev.ops = &scsi_ops;
	scsi->dev.pin = settings->pin;
	scsi_events_init(&scsi->events);
	if (scsi_places_make(scsi->settings, device, plan, SCSI_TARGETS, SCSI_TARGETS, err)) {
		scsi_destroy(device);
		return NULL;
	}
	scsi->target = scsi_target_create(device, queues, &scsi_target_events, scsi, err);
	for (unsigned i = 0; scsi->target && i < plan->count; i++)
		if (scsi_unit_add(scsi->target, i, &scsi->settings[i], plan->units[i].disk, err)) {
			scsi_destroy(device);
			return NULL;
		}
	if (!scsi->target) {
		scsi_destroy(device);
		return NULL;
	}
	scsi->dev.single_loop = scsi_target_single_loop(scsi->target);
	return device;
}

static const struct option options[] = {
	VIRTIO_OPTIONS(struct scsi_settings, DEVICE_QUEUES - QUEUE_REQUEST),
	{ .name = "units",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct scsi_settings, units),
	  .fallback = "16",
	  .min = 1,
	  .max = SCSI_UNITS,
	  .help = "How many units there may be at once, those that are attached later among them." },
	{ 0 },
};

const struct frontend virtio_scsi_frontend = {
	.name = "virtio-scsi",
	.summary = "the virtio SCSI adapter: many disks and CD-ROM drives, which may come and go",
	.description =
		"The SCSI host bus adapter of virtio 1.2 (section 5.6): several queues, up to 64 units "
		"at targets 0 to 255 and LUNs 0 to 16383, hot plug, task management. The units are SCSI "
		"disks or CD-ROM drives with thin provisioning (UNMAP, WRITE SAME), persistent "
		"reservations and whatever else SCSI has that virtio-blk has not; the guest notices at "
		"once when a disk grows or a unit comes or goes. Linux and the BSDs have a driver; "
		"Windows takes one from the virtio-win collection.\n\n"
		"A unit is called TARGET:LUN, such as 0:0. One that does not say where it is becomes LUN 0 "
		"of the next target that is free. Further targets, up to the option 'units', are free for "
		"attaching.\n\n"
		"QEMU before 8.2 does not connect its vhost-user-scsi again: after a restart of penstock "
		"the VM must be restarted too. It does not migrate the device either.",
	.example = "disks:\n"
		   "  system:\n"
		   "    stack:\n"
		   "      - memory: {size: 1G}\n"
		   "  data:\n"
		   "    stack:\n"
		   "      - memory: {size: 4G}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - virtio-scsi:\n"
		   "        - system\n"
		   "        - {disk: data, serial: data-0001}\n"
		   "      socket: ./web-scsi.sock\n"
		   "      queues: 2\n",
	.transport = &vhost_user_transport,
	.qemu_device = "vhost-user-scsi-pci,chardev={chardev},num_queues={queues},"
		       "virtqueue_size={queue-size}",
	.settings_size = sizeof(struct scsi_settings),
	.options = options,
	.unit_settings_size = sizeof(struct scsi_unit_settings),
	.unit_options = scsi_unit_options,
	.units = SCSI_UNITS,
	.empty_units = true,
	.hot_plug = true,
	.check = scsi_check,
	.create = scsi_create,
};
