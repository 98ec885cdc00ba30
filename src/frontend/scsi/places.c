/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * places.c - the places of an adapter's units: target and LUN, where something may be
 *
 * Those of the configuration come first; the others are for units that are attached later. A unit
 * that does not say where it is gets LUN 0 of the next target that is free, since drivers look for
 * LUN 0 first, and some for nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/scsi/scsi.h"
#include "util/error.h"

static bool says_where(const struct scsi_unit_settings *unit)
{
	return unit->target != SCSI_TARGET_ANY || unit->lun;
}

static uint64_t target_of(const struct scsi_unit_settings *unit)
{
	return unit->target == SCSI_TARGET_ANY ? 0 : unit->target;
}

int scsi_places_check(const void *const *units, unsigned count, unsigned targets, unsigned luns,
		      struct error *err)
{
	const struct scsi_unit_settings *const *unit = (const void *)units;

	for (unsigned i = 0; i < count; i++) {
		if (target_of(unit[i]) >= targets)
			return error_set(err, EINVAL,
					 "target: %llu is too much; expected at most %u",
					 (unsigned long long)unit[i]->target, targets - 1);
		if (unit[i]->lun >= luns)
			return error_set(err, EINVAL, "lun: %llu is too much; expected at most %u",
					 (unsigned long long)unit[i]->lun, luns - 1);
		for (unsigned k = 0; k < i && says_where(unit[i]); k++)
			if (says_where(unit[k]) && target_of(unit[i]) == target_of(unit[k]) &&
			    unit[i]->lun == unit[k]->lun)
				return error_set(err, EINVAL,
						 "target: units %u and %u of the list are both at "
						 "target %llu, LUN %llu",
						 k + 1, i + 1,
						 (unsigned long long)target_of(unit[i]),
						 (unsigned long long)unit[i]->lun);
	}
	return 0;
}

/* False: no memory. */
static bool copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return *to || !from;
}

/* A copy, which outlives the plan: a unit may go and come again. False: no memory. */
static bool keep(struct scsi_unit_settings *to, const struct scsi_unit_settings *from)
{
	bool good;

	*to = *from;
	good = copy_text(&to->serial, from->serial);
	good = copy_text(&to->vendor, from->vendor) && good;
	return copy_text(&to->product, from->product) && good;
}

int scsi_places_make(struct scsi_unit_settings *settings, struct device *device,
		     const struct device_plan *plan, unsigned targets, unsigned own,
		     struct error *err)
{
	bool taken[SCSI_TARGETS] = { false }, good = true;
	unsigned next = 0;

	for (unsigned i = 0; i < device->unit_count; i++) {
		options_init(scsi_unit_options, &settings[i]);
		if (i < plan->count) {
			good &= keep(&settings[i], plan->units[i].settings);
			device->units[i].settings = plan->units[i].settings;
		}
		if (says_where(&settings[i]))
			taken[target_of(&settings[i])] = true;
	}
	for (unsigned i = 0; i < device->unit_count; i++) {
		struct scsi_unit_settings *unit = &settings[i];

		if (!says_where(unit)) {
			while (next < targets && (taken[next] || next == own))
				next++;
			unit->target = next < targets ? next++ : own;
		}
		unit->target = target_of(unit);
		snprintf(device->units[i].name, sizeof device->units[i].name, "%u:%u",
			 (unsigned)unit->target, (unsigned)unit->lun);
	}
	return good ? 0 : error_set(err, ENOMEM, "out of memory");
}

void scsi_places_release(struct scsi_unit_settings *settings, unsigned count)
{
	while (count--)
		options_release(scsi_unit_options, &settings[count]);
}
