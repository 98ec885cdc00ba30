/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c - what all devices have in common, made and gone; see device.h */
#include "frontend/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/disk.h"
#include "util/error.h"

/* What messages call it: the one disk of a device that has but one says more than a number. */
static char *label_of(const struct device *device, const struct device_plan *plan)
{
	char *label;

	if (device->unit_count != 1 || !plan->count || !plan->units[0].disk)
		return strdup(plan->name);
	return asprintf(&label, "%s %s", device->kind, plan->units[0].disk->name) < 0 ? NULL
										      : label;
}

int device_init(struct device *device, const struct device_plan *plan, unsigned units,
		unsigned queues, struct error *err)
{
	bool good;

	device->unit_count = units;
	device->queues = queues;
	device->ring = "";
	device->vm = strdup(plan->vm);
	device->name = strdup(plan->name);
	device->label = label_of(device, plan);
	device->socket = strdup(plan->socket);
	device->stats = calloc(queues, sizeof *device->stats);
	device->units = calloc(units, sizeof *device->units);
	good = device->vm && device->name && device->label && device->socket && device->stats &&
	       device->units;
	for (unsigned i = 0; good && i < units; i++) {
		device->units[i].stats = calloc(queues, sizeof *device->units[i].stats);
		good = device->units[i].stats;
	}
	if (good)
		return 0;
	device_release(device);
	return error_set(err, ENOMEM, "out of memory");
}

void device_release(struct device *device)
{
	for (unsigned i = 0; device->units && i < device->unit_count; i++)
		free(device->units[i].stats);
	free(device->units);
	free(device->stats);
	free(device->socket);
	free(device->label);
	free(device->name);
	free(device->vm);
}
