/* SPDX-License-Identifier: BSD-3-Clause */
/* places_test.c - where an adapter's units are: what they say, and what they are given */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/scsi/scsi.h"
#include "util/error.h"

#define UNITS 8u
#define ANY   SCSI_TARGET_ANY

/* The names that @count units get, of an adapter with 8 targets whose own number is 3. */
static void expect(const struct scsi_unit_settings *given, unsigned count, const char *names)
{
	struct device_unit units[UNITS] = { 0 };
	struct device device = { .units = units, .unit_count = UNITS };
	struct unit_plan plans[UNITS];
	struct device_plan plan = { .units = plans, .count = count };
	struct scsi_unit_settings settings[UNITS] = { 0 };
	char found[200] = "";
	struct error err = { 0 };

	for (unsigned i = 0; i < count; i++)
		plans[i] = (struct unit_plan){ .settings = &given[i] };
	assert_int_equal(scsi_places_make(settings, &device, &plan, UNITS, 3, &err), 0);
	for (unsigned i = 0; i < UNITS; i++) {
		strcat(found, units[i].name);
		strcat(found, i + 1 < UNITS ? " " : "");
	}
	assert_string_equal(found, names);
	for (unsigned i = 0; i < count; i++) {
		assert_true(!given[i].serial == !settings[i].serial);
		assert_true(!given[i].serial || settings[i].serial != given[i].serial);
	}
	scsi_places_release(settings, UNITS);
}

static void units_get_free_targets(void **unused)
{
	const struct scsi_unit_settings silent[] = { { .target = ANY }, { .target = ANY } };
	const struct scsi_unit_settings explicit_0[] = { { .target = ANY, .serial = (char *)"a" },
							 { .target = 0 },
							 { .target = ANY, .lun = 1 },
							 { .target = 5 },
							 { .target = ANY } };

	(void)unused;
	expect(silent, 0, "0:0 1:0 2:0 4:0 5:0 6:0 7:0 3:0");
	expect(silent, 2, "0:0 1:0 2:0 4:0 5:0 6:0 7:0 3:0");
	expect(explicit_0, 5, "1:0 0:0 0:1 5:0 2:0 4:0 6:0 7:0");
}

static void refused(struct scsi_unit_settings a, struct scsi_unit_settings b, const char *why)
{
	const void *units[] = { &a, &b };
	struct error err = { 0 };

	if (!why) {
		assert_int_equal(scsi_places_check(units, 2, 64, 256, &err), 0);
		return;
	}
	assert_int_not_equal(scsi_places_check(units, 2, 64, 256, &err), 0);
	if (!strstr(err.text, why))
		fail_msg("'%s' is not in: %s", why, err.text);
}

static void bad_places(void **unused)
{
	struct scsi_unit_settings any = { .target = ANY }, zero = { 0 },
				  lun_1 = { .target = ANY, .lun = 1 };

	(void)unused;
	refused(any, any, NULL);
	refused(any, zero, NULL);
	refused(zero, lun_1, NULL);
	refused(zero, zero, "target: units 1 and 2 of the list are both at target 0, LUN 0");
	refused(lun_1, (struct scsi_unit_settings){ .lun = 1 }, "both at target 0, LUN 1");
	refused(any, (struct scsi_unit_settings){ .target = 64 },
		"target: 64 is too much; expected at most 63");
	refused(any, (struct scsi_unit_settings){ .lun = 256 }, "lun: 256 is too much");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(units_get_free_targets),
		cmocka_unit_test(bad_places),
	};

	return cmocka_run_group_tests_name("scsi/places", tests, NULL, NULL);
}
