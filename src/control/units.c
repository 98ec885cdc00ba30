/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * units.c - media and units of devices that come, change and go while the guest runs
 *
 * What all devices have in common is checked here: whether the unit is there, whether the disk may
 * be in it beside where it is already, by the rule that configurations are held to, and that a unit
 * changes one thing at a time. How the change is made, and told to the guest, is the device's
 * business. It ends when no request is on the old disk any more, which may take as long as storage
 * does; until then both disks count as used.
 */
#include "control/units.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/exports.h"
#include "control/state.h"
#include "control/waiter.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "util/error.h"
#include "util/log.h"
#include "util/suggest.h"

/* One that is under way. */
struct change {
	struct device_change change;
	struct list link; /* of the daemon */
	struct daemon *daemon;
	struct unit_place place;
	struct disk *from, *to;
	bool detach;
	struct waiter *waiter;
};

static struct device_unit *unit_at(const struct unit_place *place)
{
	return &place->slot->device->units[place->unit];
}

/* --- finding a unit ------------------------------------------------------------------ */

static int not_found(struct error *err, const char *of, const char *what,
		     const struct suggestion *nearest)
{
	return error_set(err, ENOENT, "%sno %s '%s'%s%s%s", of, what, nearest->word,
			 nearest->best ? "; did you mean '" : "",
			 nearest->best ? nearest->best : "", nearest->best ? "'?" : "");
}

static int find_device(const struct daemon *daemon, const char *vm, const char *name,
		       struct daemon_device **slot, struct error *err)
{
	struct suggestion nearest_vm = suggest_for(vm), nearest = suggest_for(name);
	bool found = false;
	char of[100];

	for (unsigned i = 0; i < daemon->device_count; i++) {
		*slot = &daemon->devices[i];
		suggest_offer(&nearest_vm, (*slot)->vm->name);
		if (strcmp((*slot)->vm->name, vm))
			continue;
		found = true;
		suggest_offer(&nearest, (*slot)->device->name);
		if (!strcmp((*slot)->device->name, name))
			return 0;
	}
	snprintf(of, sizeof of, "VM '%s': ", vm);
	return found ? not_found(err, of, "device", &nearest)
		     : not_found(err, "", "VM", &nearest_vm);
}

int units_find(const struct daemon *daemon, const char *vm, const char *device, const char *unit,
	       struct unit_place *place, struct error *err)
{
	struct suggestion nearest = suggest_for(unit);
	const struct device *found;
	char of[200];

	if (find_device(daemon, vm, device, &place->slot, err))
		return -err->code;
	found = place->slot->device;
	for (place->unit = 0; place->unit < found->unit_count; place->unit++) {
		const char *name = found->units[place->unit].name;

		if (!strcmp(*name ? name : "-", unit))
			return 0;
		suggest_offer(&nearest, *name ? name : "-");
	}
	snprintf(of, sizeof of, "VM '%s': %s: ", vm, device);
	return not_found(err, of, "unit", &nearest);
}

/* --- what may be --------------------------------------------------------------------- */

/* Says about the unit what is wrong with what is wanted of it. */
static int wrong(struct error *err, int code, const struct unit_place *place, const char *text)
{
	const struct device *device = place->slot->device;
	const struct device_unit *unit = unit_at(place);

	return error_set(err, code, "VM '%s': %s%s%s: %s", place->slot->vm->name, device->name,
			 *unit->name ? "/" : "", unit->name, text);
}

static bool same(const struct unit_place *a, const struct unit_place *b)
{
	return a->slot == b->slot && a->unit == b->unit;
}

static bool changing(const struct daemon *daemon, const struct unit_place *place)
{
	list_for_each (link, &daemon->changes)
		if (same(&container_of(link, struct change, link)->place, place))
			return true;
	return false;
}

/*
 * Calls @each with every unit that has @disk, or still has it, or is about to, until that returns
 * other than 0.
 */
static int for_each_use(const struct daemon *daemon, const struct disk *disk,
			int (*each)(void *data, const struct unit_place *use, struct error *err),
			void *data, struct error *err)
{
	struct unit_place use;
	int ret = 0;

	for (unsigned i = 0; i < daemon->device_count && !ret; i++) {
		use.slot = &daemon->devices[i];
		for (use.unit = 0; use.unit < use.slot->device->unit_count && !ret; use.unit++)
			if (unit_at(&use)->disk == disk)
				ret = each(data, &use, err);
	}
	list_for_each (link, &daemon->changes) {
		const struct change *change = container_of(link, struct change, link);

		if (!ret && (change->from == disk || change->to == disk))
			ret = each(data, &change->place, err);
	}
	return ret;
}

/* A disk and where it is wanted. */
struct wish {
	const struct disk *disk;
	const struct unit_place *place;
};

static int check_use(void *data, const struct unit_place *use, struct error *err)
{
	const struct wish *wish = data;

	if (same(use, wish->place))
		return 0;
	return config_check_shared(wish->disk->name, &wish->disk->config,
				   wish->place->slot->vm->name, use->slot->vm->name, err);
}

static int check(struct daemon *daemon, const struct unit_place *place, struct disk *disk,
		 bool present, struct error *err)
{
	struct wish wish = { disk, place };
	int ret;

	if (changing(daemon, place))
		return wrong(err, EBUSY, place, "a change of it is under way");
	if (present && !unit_at(place)->present)
		return wrong(err, ENODEV, place, "nothing is attached there");
	if (!present && unit_at(place)->present)
		return wrong(err, EEXIST, place, "it is there already; its disk can be changed");
	if (!disk)
		return 0;
	ret = for_each_use(daemon, disk, check_use, &wish, err);
	return ret ? ret : exports_check_unit(daemon, disk, err);
}

/* --- changes that take a while -------------------------------------------------------- */

/* What a device's -errno means. */
static int explain(const struct change *change, struct error *err)
{
	const char *text = strerror(-change->change.status);

	switch (-change->change.status) {
	case EBUSY:
		text = change->detach || change->change.force
			       ? "it is still busy with an earlier change"
			       : "the guest has locked the drive, as it does while its medium is "
				 "mounted; force takes the medium out all the same";
		break;
	case EINVAL:
		text = change->to
			       ? "it cannot take this disk (blocks larger than a CD-ROM's, or a "
				 "layer that must have all queues on one loop)"
			       : "its medium cannot be taken out; the whole unit can be detached";
		break;
	case ENODEV:
		text = "nothing is attached there";
		break;
	case ECANCELED:
		text = "the device has ended meanwhile";
		break;
	}
	return wrong(err, -change->change.status, &change->place, text);
}

static void changed(struct device_change *base)
{
	struct change *change = container_of(base, struct change, change);
	const struct unit_place *place = &change->place;
	struct daemon *daemon = change->daemon;
	const char *name = unit_at(place)->name;
	struct error err = { 0 };

	list_remove(&change->link);
	if (base->status) {
		explain(change, &err);
		waiter_tell(&change->waiter, &err);
	} else {
		log_info("VM %s: %s%s%s: %s%s", place->slot->vm->name, place->slot->device->name,
			 *name ? "/" : "", name,
			 change->detach ? "detached"
			 : change->to   ? "disk "
					: "empty",
			 change->to ? change->to->name : "");
		state_keep(daemon, &change->waiter);
	}
	free(change);
	daemon_let_go(daemon);
}

static int begin(struct daemon *daemon, const struct unit_place *place, bool detach,
		 struct disk *disk, bool force, struct waiter *waiter, struct error *err)
{
	struct device *device = place->slot->device;
	struct change *change = calloc(1, sizeof *change);
	int ret;

	if (!change)
		return wrong(err, ENOMEM, place, "out of memory");
	change->change.force = force;
	change->change.done = changed;
	change->daemon = daemon;
	change->place = *place;
	change->from = unit_at(place)->disk;
	change->to = disk;
	change->detach = detach;
	waiter_hold(&change->waiter, waiter);
	list_add(&daemon->changes, &change->link);
	daemon_hold(daemon);
	ret = detach ? device->ops->detach(device, place->unit, &change->change, err)
		     : device->ops->set_disk(device, place->unit, disk, &change->change, err);
	if (!ret)
		return 0;
	waiter_leave(waiter);
	list_remove(&change->link);
	free(change);
	daemon_let_go(daemon);
	return wrong(err, -ret, place, strdupa(err->text));
}

int units_set_disk(struct daemon *daemon, const struct unit_place *place, struct disk *disk,
		   bool force, struct waiter *waiter, struct error *err)
{
	static const struct error none;

	if (!place->slot->device->ops->set_disk)
		return wrong(err, ENOTSUP, place, "a device of this kind keeps its disk");
	if (check(daemon, place, disk, true, err))
		return -err->code;
	if (unit_at(place)->disk == disk) {
		waiter->done(waiter, &none);
		return 0;
	}
	return begin(daemon, place, false, disk, force, waiter, err);
}

int units_detach(struct daemon *daemon, const struct unit_place *place, struct waiter *waiter,
		 struct error *err)
{
	if (!place->slot->device->ops->detach)
		return wrong(err, ENOTSUP, place, "a device of this kind keeps its units");
	if (check(daemon, place, NULL, true, err))
		return -err->code;
	return begin(daemon, place, true, NULL, false, waiter, err);
}

/* --- and those that do not ------------------------------------------------------------ */

int units_attach(struct daemon *daemon, const struct unit_place *place, struct disk *disk,
		 struct waiter *waiter, struct error *err)
{
	struct waiter *held;
	struct device *device = place->slot->device;
	int ret;

	if (!device->ops->attach)
		return wrong(err, ENOTSUP, place, "a device of this kind keeps its units");
	if (check(daemon, place, disk, false, err))
		return -err->code;
	ret = device->ops->attach(device, place->unit, disk, err);
	if (ret)
		return wrong(err, -ret, place, strdupa(err->text));
	log_info("VM %s: %s/%s: attached, %s%s", place->slot->vm->name, device->name,
		 unit_at(place)->name, disk ? "disk " : "empty", disk ? disk->name : "");
	waiter_hold(&held, waiter);
	state_keep(daemon, &held);
	return 0;
}

static int say_use(void *data, const struct unit_place *use, struct error *err)
{
	const struct disk *disk = data;
	const char *name = unit_at(use)->name;

	return error_set(err, EBUSY, "disk '%s' is in use: VM '%s': %s%s%s", disk->name,
			 use->slot->vm->name, use->slot->device->name, *name ? "/" : "", name);
}

bool units_use(const struct daemon *daemon, const struct disk *disk, struct error *err)
{
	return for_each_use(daemon, disk, say_use, (void *)disk, err) != 0;
}
