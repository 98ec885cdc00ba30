/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * target.c - logical units: they come, get another medium, and go; on the control thread
 *
 * Each queue has a port to each unit, which only the queue's thread touches. So a change visits the
 * queues one after another (task.c): first each holds what comes, lets what is under way end, and
 * closes its port; then, with nobody at the disk any more, the control thread changes the unit;
 * then each opens its port again, and what was parked goes on. A queue that is opened in between
 * sees the unit as it is at that moment: the target's lock is held while it looks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/scsi_private.h"
#include "frontend/scsi/shared.h"
#include "layer/stack.h"
#include "util/error.h"
#include "util/log.h"
#include "util/option.h"

#define LUN_MAX 16383u /* of the flat space addressing method */

enum { TYPE_AUTO, TYPE_DISK, TYPE_CDROM };
static const char *const types[] = { "auto", "disk", "cdrom", NULL };

const struct option scsi_unit_options[] = {
	{ .name = "type",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct scsi_unit_settings, type),
	  .choices = types,
	  .fallback = "auto",
	  .help = "What the guest sees: disk, or cdrom (read-only, with a medium that may change). auto: "
		  "cdrom for a disk whose blocks have 2,048 bytes, as those of an ISO image do, and for "
		  "an empty drive; else disk." },
	{ .name = "target",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct scsi_unit_settings, target),
	  .automatic = true,
	  .fallback = "auto",
	  .max = SCSI_TARGETS - 1,
	  .help = "Number of the SCSI target that the unit belongs to. auto: the next one that is free; 0 "
		  "if lun is given." },
	{ .name = "lun",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct scsi_unit_settings, lun),
	  .fallback = "0",
	  .max = LUN_MAX,
	  .help = "The logical unit's number within its target. Guests expect that there is a 0." },
	{ .name = "removable",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct scsi_unit_settings, removable),
	  .fallback = "false",
	  .help = "Tell the guest that the medium may be removed. A cdrom always says so." },
	{ .name = "serial",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct scsi_unit_settings, serial),
	  .help = "Serial number that the guest sees, at most 36 characters; its names for the disk, such "
		  "as those in /dev/disk/by-id, are made of it. Default: the name of the disk." },
	{ .name = "vendor",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct scsi_unit_settings, vendor),
	  .help = "Vendor that the guest sees, at most 8 characters. Default: PENSTOCK." },
	{ .name = "product",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct scsi_unit_settings, product),
	  .help = "Product that the guest sees, at most 16 characters. Default: VIRTUAL-DISK or CD-ROM." },
	{ .name = "rotation-rate",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct scsi_unit_settings, rotation_rate),
	  .fallback = "1",
	  .max = 65534,
	  .help = "How fast the guest thinks that the disk rotates: 1 is not at all (an SSD), 0 does not "
		  "say, else revolutions a minute." },
	{ 0 },
};

uint64_t scsi_lun_address(uint16_t lun)
{
	return (uint64_t)(lun < 256 ? lun : lun | 0x4000) << 48;
}

/* --- the target --------------------------------------------------------------------- */

struct scsi_target *scsi_target_create(struct device *device, unsigned queues,
				       const struct scsi_target_events *events, void *owner,
				       struct error *err)
{
	struct scsi_target *target = calloc(1, sizeof *target);

	if (target) {
		target->queues = calloc(queues, sizeof(struct scsi_queue *));
		target->units = calloc(device->unit_count, sizeof *target->units);
	}
	if (!target || !target->queues || !target->units) {
		if (target) {
			free(target->queues);
			free(target->units);
		}
		free(target);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&target->lock, NULL);
	target->device = device;
	target->events = events;
	target->owner = owner;
	target->queue_count = queues;
	target->unit_count = device->unit_count;
	target->users = 1;
	for (unsigned i = 0; i < target->unit_count; i++) {
		target->units[i].target = target;
		target->units[i].index = i;
	}
	return target;
}

static void detach_disk(struct scsi_unit *unit)
{
	if (!unit->disk)
		return;
	disk_unlisten(&unit->listener);
	scsi_shared_leave(unit);
	unit->disk = NULL;
}

void scsi_target_hold(struct scsi_target *target)
{
	atomic_fetch_add(&target->users, 1);
}

void scsi_target_release(struct scsi_target *target)
{
	if (atomic_fetch_sub(&target->users, 1) > 1)
		return;
	pthread_mutex_destroy(&target->lock);
	free(target->queues);
	free(target->units);
	free(target);
}

void scsi_target_destroy(struct scsi_target *target)
{
	for (unsigned i = 0; i < target->unit_count; i++)
		detach_disk(&target->units[i]);
	target->events = NULL;
	target->device = NULL;
	scsi_target_release(target);
}

bool scsi_target_single_loop(const struct scsi_target *target)
{
	for (unsigned i = 0; i < target->unit_count; i++)
		if (target->units[i].disk && stack_single_loop(target->units[i].disk->top))
			return true;
	return false;
}

/* --- ports -------------------------------------------------------------------------- */

static uint16_t *bucket_of(struct scsi_port *port)
{
	return &port->queue->bucket[(port->unit->number * 8u + port->unit->lun) % PORT_BUCKETS];
}

/* On the queue's thread. What cannot be opened answers BUSY. */
void scsi_port_open(struct scsi_port *port, bool held)
{
	struct scsi_unit *unit = port->unit;
	struct scsi_queue *queue = port->queue;

	if (!port->present) {
		uint16_t *bucket = bucket_of(port);

		port->present = true;
		port->next = *bucket;
		*bucket = (uint16_t)(port - queue->ports);
	}
	port->held = held;
	port->block = unit->cdrom ? CD_BLOCK : unit->disk ? unit->disk->block_size : 512;
	port->shift = (unsigned)__builtin_ctz(port->block);
	port->kind = unit->cdrom ? FOR_CDROM : FOR_DISK;
	if (!unit->cdrom && unit->disk && unit->disk->limits.discard)
		port->kind |= FOR_THIN;
	if (port->held || !unit->disk)
		return;
	port->onto = disk_queue_open(unit->disk, queue->loop, queue->depth, 0);
	port->failed = !port->onto;
	if (port->failed) {
		log_error("vm %s: %s unit %s: no memory for a queue", unit->target->device->vm,
			  unit->target->device->label,
			  unit->target->device->units[unit->index].name);
		return;
	}
	port->onto->ios.owner = port;
	port->disk = unit->disk;
}

void scsi_port_close(struct scsi_port *port)
{
	if (port->disk)
		disk_queue_close(port->onto);
	port->disk = NULL;
	port->failed = false;
}

static void port_remove(struct scsi_port *port)
{
	uint16_t *at = bucket_of(port);

	if (!port->present)
		return;
	while (&port->queue->ports[*at] != port)
		at = &port->queue->ports[*at].next;
	*at = port->next;
	port->present = false;
}

/* --- changes ------------------------------------------------------------------------ */

enum kind { UNIT_ADDED, UNIT_REMOVED, UNIT_CHANGED };

struct unit_change {
	struct scsi_visit visit;
	struct scsi_unit *unit;
	enum kind kind;
	struct disk *disk;
	struct device_change *change; /* NULL for one that is added */
	int status;
};

static struct device_unit *device_unit(struct scsi_unit *unit)
{
	return &unit->target->device->units[unit->index];
}

static bool open_port(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct unit_change *c = container_of(visit, struct unit_change, visit);
	struct scsi_port *port = &queue->ports[c->unit->index];

	(void)again;
	if (port->present && !port->held)
		return true; /* the queue is newer than the change */
	scsi_port_open(port, false);
	scsi_port_resume(port);
	return true;
}

static bool close_port(struct scsi_visit *visit, struct scsi_queue *queue, bool again)
{
	struct unit_change *c = container_of(visit, struct unit_change, visit);
	struct scsi_port *port = &queue->ports[c->unit->index];

	if (!again) {
		port->held = true;
		if (c->kind == UNIT_REMOVED) {
			port_remove(port);
			scsi_port_drop_parked(port);
		}
	}
	if (!list_empty(&port->commands))
		return false;
	scsi_port_close(port);
	return true;
}

static void finish_change(struct unit_change *c)
{
	struct scsi_target *target = c->unit->target;

	if (c->change) {
		c->change->status = c->status;
		c->change->done(c->change);
	}
	free(c);
	scsi_target_release(target);
}

/* The other units of the same target report that the list of units is another. */
static void tell_neighbours(struct scsi_unit *unit)
{
	for (unsigned i = 0; i < unit->target->unit_count; i++) {
		struct scsi_unit *other = &unit->target->units[i];

		if (other != unit && other->present && other->number == unit->number)
			scsi_attention(other, ATTENTION_UNITS);
	}
}

static void opened(struct scsi_visit *visit)
{
	struct unit_change *c = container_of(visit, struct unit_change, visit);
	struct scsi_unit *unit = c->unit;
	const struct scsi_target_events *events = unit->target->events;

	unit->changing = false;
	if (events && c->kind == UNIT_ADDED) {
		tell_neighbours(unit);
		if (events->units_changed)
			events->units_changed(unit->target->owner, unit->number, unit->lun, true);
	} else if (events && events->unit_parameters_changed) {
		events->unit_parameters_changed(unit->target->owner, unit->number, unit->lun, 0x28,
						0x00);
	}
	finish_change(c);
}

static void resized(struct disk_listener *listener)
{
	struct scsi_unit *unit = container_of(listener, struct scsi_unit, listener);
	const struct scsi_target_events *events = unit->target->events;

	scsi_attention(unit, ATTENTION_CAPACITY);
	if (events->unit_parameters_changed)
		events->unit_parameters_changed(unit->target->owner, unit->number, unit->lun, 0x2a,
						0x09);
}

static void attach_disk(struct scsi_unit *unit, struct disk *disk)
{
	unit->disk = disk;
	device_unit(unit)->disk = disk;
	if (!disk)
		return;
	unit->listener.resized = resized;
	disk_listen(disk, &unit->listener);
	atomic_store(&unit->write_cache,
		     disk->config.cache != DISK_WRITETHROUGH && !disk->config.read_only);
}

/* Nobody uses the old disk any more. */
static void closed(struct scsi_visit *visit)
{
	struct unit_change *c = container_of(visit, struct unit_change, visit);
	struct scsi_unit *unit = c->unit;
	struct scsi_target *target = unit->target;
	struct error err = { 0 };

	if (!target->device) { /* destroyed meanwhile */
		c->status = -ECANCELED;
		finish_change(c);
		return;
	}
	pthread_mutex_lock(&target->lock);
	detach_disk(unit);
	unit->closing = false;
	if (c->disk && scsi_shared_join(unit, c->disk, &err)) {
		log_error("vm %s: %s: %s", target->device->vm, target->device->label, err.text);
		c->status = -err.code;
		c->disk = NULL;
	}
	attach_disk(unit, c->disk);
	pthread_mutex_unlock(&target->lock);
	if (c->kind == UNIT_REMOVED) {
		unit->changing = false;
		tell_neighbours(unit);
		if (target->events->units_changed)
			target->events->units_changed(target->owner, unit->number, unit->lun,
						      false);
		finish_change(c);
		return;
	}
	scsi_medium_changed(unit, c->disk);
	visit->visit = open_port;
	visit->finished = opened;
	scsi_visit_start(visit);
}

static struct unit_change *begin_change(struct scsi_unit *unit, enum kind kind, struct disk *disk,
					struct device_change *change)
{
	struct unit_change *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->unit = unit;
	c->kind = kind;
	c->disk = disk;
	c->change = change;
	c->visit.target = unit->target;
	c->visit.home = loop_self();
	list_init(&c->visit.link);
	c->visit.visit = kind == UNIT_ADDED ? open_port : close_port;
	c->visit.finished = kind == UNIT_ADDED ? opened : closed;
	scsi_target_hold(unit->target);
	return c;
}

static void refused(struct loop_message *message)
{
	struct device_change *change = container_of(message, struct device_change, message);

	change->done(change);
}

static void refuse(struct device_change *change, int status)
{
	change->status = status;
	change->message.run = refused;
	loop_send(loop_self(), &change->message);
}

static void change_unit(struct scsi_unit *unit, enum kind kind, struct disk *disk,
			struct device_change *change)
{
	struct unit_change *c;

	if (!unit->present || unit->changing) {
		refuse(change, unit->present ? -EBUSY : -ENODEV);
		return;
	}
	c = begin_change(unit, kind, disk, change);
	if (!c) {
		refuse(change, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&unit->target->lock);
	unit->changing = unit->closing = true;
	unit->present = device_unit(unit)->present = kind != UNIT_REMOVED;
	pthread_mutex_unlock(&unit->target->lock);
	scsi_visit_start(&c->visit);
}

void scsi_unit_remove(struct scsi_target *target, unsigned index, struct device_change *change)
{
	change_unit(&target->units[index], UNIT_REMOVED, NULL, change);
}

/* Whether all queues that are open may serve @disk. */
static bool loops_allow(struct scsi_target *target, const struct disk *disk)
{
	struct loop *loop = NULL;
	bool good = true;

	if (!disk || !stack_single_loop(disk->top))
		return true;
	pthread_mutex_lock(&target->lock);
	for (unsigned i = 0; i < target->queue_count; i++) {
		if (!target->queues[i])
			continue;
		good = good && (!loop || loop == target->queues[i]->loop);
		loop = target->queues[i]->loop;
	}
	pthread_mutex_unlock(&target->lock);
	return good;
}

void scsi_unit_set_disk(struct scsi_target *target, unsigned index, struct disk *disk,
			struct device_change *change)
{
	struct scsi_unit *unit = &target->units[index];

	if ((!disk && !unit->removable) || (disk && unit->cdrom && disk->block_size > CD_BLOCK) ||
	    !loops_allow(target, disk)) {
		refuse(change, -EINVAL);
		return;
	}
	if (unit->disk && atomic_load(&unit->prevented) && !change->force) {
		scsi_eject_requested(unit);
		refuse(change, -EBUSY);
		return;
	}
	change_unit(unit, UNIT_CHANGED, disk, change);
}

/* --- a new unit --------------------------------------------------------------------- */

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

static uint16_t number_of(const struct scsi_unit_settings *s)
{
	return s->target == SCSI_TARGET_ANY ? 0 : (uint16_t)s->target;
}

static int check_unit(struct scsi_target *target, unsigned index, bool cdrom,
		      const struct scsi_unit_settings *s, const struct disk *disk,
		      struct error *err)
{
	if (target->units[index].present || target->units[index].changing)
		return error_set(err, EBUSY, "unit %u is in use", index);
	if (check_text("serial", s->serial, 36, err) || check_text("vendor", s->vendor, 8, err) ||
	    check_text("product", s->product, 16, err))
		return -err->code;
	if (!disk && !cdrom)
		return error_set(err, EINVAL, "a unit of type disk needs a disk");
	if (cdrom && disk && disk->block_size > CD_BLOCK)
		return error_set(err, EINVAL,
				 "disk %s has blocks of %u bytes; a CD-ROM's have %u, so it takes "
				 "block-size: 512",
				 disk->name, disk->block_size, CD_BLOCK);
	for (unsigned i = 0; i < target->unit_count; i++) {
		const struct scsi_unit *other = &target->units[i];

		if (other->present && other->number == number_of(s) && other->lun == s->lun)
			return error_set(
				err, EEXIST, "target %llu has a unit with lun %llu already",
				(unsigned long long)number_of(s), (unsigned long long)s->lun);
	}
	if (disk && !loops_allow(target, disk))
		return error_set(err, EINVAL,
				 "disk %s has a layer that must have all queues on one loop",
				 disk->name);
	return 0;
}

static void describe(struct scsi_unit *unit, const struct scsi_unit_settings *s,
		     const struct disk *disk)
{
	struct device *device = unit->target->device;
	struct device_unit *of = device_unit(unit);

	unit->number = number_of(s);
	unit->lun = (uint16_t)s->lun;
	unit->removable = unit->cdrom || s->removable;
	unit->rotation = unit->cdrom ? 0 : (uint16_t)s->rotation_rate;
	if (!*of->name)
		snprintf(of->name, sizeof of->name, "%u:%u", unit->number, unit->lun);
	snprintf(unit->serial, sizeof unit->serial, "%.36s",
		 s->serial              ? s->serial
		 : disk && !unit->cdrom ? disk->name
					: of->name);
	snprintf(unit->vendor, sizeof unit->vendor, "%s", s->vendor ? s->vendor : "PENSTOCK");
	snprintf(unit->product, sizeof unit->product, "%s",
		 s->product    ? s->product
		 : unit->cdrom ? "CD-ROM"
			       : "VIRTUAL-DISK");
	snprintf(unit->nexus, sizeof unit->nexus, "%s/%s:%u", device->vm, device->name,
		 unit->number);
	of->type = unit->cdrom ? UNIT_CDROM : UNIT_DISK;
}

int scsi_unit_add(struct scsi_target *target, unsigned index,
		  const struct scsi_unit_settings *settings, struct disk *disk, struct error *err)
{
	struct scsi_unit *unit = &target->units[index];
	bool cdrom = settings->type == TYPE_CDROM ||
		     (settings->type == TYPE_AUTO &&
		      (!disk || disk->limits.natural_block_size == CD_BLOCK));
	struct unit_change *change;
	bool running = false;
	int ret = check_unit(target, index, cdrom, settings, disk, err);

	if (ret)
		return ret;
	change = begin_change(unit, UNIT_ADDED, disk, NULL);
	if (!change)
		return error_set(err, ENOMEM, "out of memory");
	memset(&unit->cdrom, 0, sizeof *unit - offsetof(struct scsi_unit, cdrom));
	unit->cdrom = cdrom;
	describe(unit, settings, disk);
	list_init(&unit->member);
	ret = disk ? scsi_shared_join(unit, disk, err) : 0;
	if (ret) {
		free(change);
		scsi_target_release(target);
		return ret;
	}
	scsi_attention(unit, ATTENTION_POWER_ON);
	pthread_mutex_lock(&target->lock);
	attach_disk(unit, disk);
	unit->present = device_unit(unit)->present = true;
	for (unsigned i = 0; i < target->queue_count; i++)
		running |= target->queues[i] != NULL;
	unit->changing = running;
	pthread_mutex_unlock(&target->lock);
	if (running) {
		scsi_visit_start(&change->visit);
	} else {
		free(change);
		scsi_target_release(target);
	}
	return 0;
}
