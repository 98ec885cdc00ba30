/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crash_test.c - power cuts at thousands of moments, over random stacks; and layers that must fail
 * it
 *
 * See crash/explore.h for what is done and crash/device.h for what a power cut may leave. The
 * stacks are drawn in crash/scenes.c. SEED repeats a run; POINTS says how many crashes there are to
 * be; SCENE=name takes only stacks with that layer.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "layer/crash/broken.h"
#include "layer/crash/explore.h"
#include "layer/crash/scenes.h"
#include "layer/model/volume.h"
#include "layer/overlay_private.h"
#include "loop/workers.h"
#include "util/log.h"

/* A sanitizer makes all of it several times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define POINTS 2000u
#else
#define POINTS 12000u
#endif
#define A_ROUND 24u   /* points of one life */
#define BROKEN  3000u /* points within which a broken layer must be found out */

static uint64_t seed;

static struct explorer explorer_for(uint64_t number)
{
	return (struct explorer){ .seed = seed, .chance = chance_seed(seed + number) };
}

/* --- the simulator ----------------------------------------------------------------------- */

/* Explores @scene up to @points; true if nothing was found. */
static bool holds(struct explorer *e, struct scene *scene, uint64_t points)
{
	while (e->points < points)
		if (!explore(e, scene, A_ROUND))
			return false;
	return true;
}

static void plain_devices_hold(void **unused)
{
	struct scene scene = scene_of("device", 1, 128);
	struct explorer e = explorer_for(1);

	(void)unused;
	scene_add(&scene, 0, NULL, NULL);
	if (!holds(&e, &scene, 500))
		fail_msg("%s", e.failure);
	/* Everything that a power cut may do was done. */
	assert_true(e.lost > 100 && e.kept > 100 && e.torn > 30);
	assert_true(e.nested > 30 && e.killed > 50);
	scene_free(&scene);
}

/* --- what must be found out --------------------------------------------------------------- */

static void found_out(const struct layer_ops *ops, const char *order, bool right)
{
	uint32_t sectors = ops == &shadow_ops ? shadow_sectors(256) : 256;
	struct scene scene = scene_of(order ? order : ops->name, ops->legs_max ? 2 : 1, 256);
	struct explorer e = explorer_for(2);
	bool good;

	if (ops->legs_max) {
		struct layer_config *layer = testing_layer(&scene.stack, ops);

		for (unsigned i = 0; i < 2; i++)
			testing_set(testing_layer(testing_leg(layer), &device_ops), "device", "%u",
				    i);
	} else {
		scene_add(&scene, 0, ops, order);
	}
	scene.sectors = sectors;
	good = holds(&e, &scene, right ? BROKEN / 4 : BROKEN);
	if (good != right)
		fail_msg("%s %s: %s", ops->name, order ? order : "",
			 right ? e.failure : "was not found out");
	if (!right) {
		/* Of a line that is too long for it print_message() leaves out the end, "\n". */
		printf("# after %" PRIu64 " crashes: %s\n", e.points, e.failure);
		fflush(stdout);
	}
	scene_free(&scene);
}

static void a_flush_not_passed_on_is_found_out(void **unused)
{
	(void)unused;
	found_out(&liar_ops, NULL, false);
}

static void a_write_without_its_fua_is_found_out(void **unused)
{
	(void)unused;
	found_out(&no_fua_ops, NULL, false);
}

static void data_before_metadata_holds(void **unused)
{
	(void)unused;
	found_out(&shadow_ops, "right", true);
}

static void metadata_before_data_is_found_out(void **unused)
{
	(void)unused;
	found_out(&shadow_ops, "map-first", false);
}

static void metadata_without_a_flush_between_is_found_out(void **unused)
{
	(void)unused;
	found_out(&shadow_ops, "no-flush", false);
}

static void metadata_that_the_program_keeps_is_found_out(void **unused)
{
	(void)unused;
	found_out(&shadow_ops, "lazy", false);
}

static void legs_that_are_never_compared_are_found_out(void **unused)
{
	(void)unused;
	found_out(&twins_ops, NULL, false);
}

/* --- the layers ------------------------------------------------------------------------------ */

static void random_stacks(void **unused)
{
	const char *text = getenv("POINTS");
	uint64_t points = text ? strtoull(text, NULL, 0) : POINTS, rounds = 0;
	struct explorer e = explorer_for(3);

	(void)unused;
	e.power_only = getenv("KILL") && !strcmp(getenv("KILL"), "0");
	while (e.points < points) {
		struct scene scene;

		/* Each round begins with a seed of its own, so that it can be repeated alone. */
		e.seed = seed + rounds;
		e.chance = chance_seed(e.seed + 1000);
		scene = scene_draw(&e.chance, getenv("SCENE"));
		if (!explore(&e, &scene, A_ROUND))
			fail_msg("%s", e.failure);
		scene_free(&scene);
		rounds++;
	}
	print_message("# %" PRIu64 " crashes in %" PRIu64 " lives: %" PRIu64
		      " after another crash, %" PRIu64 " of the program alone\n",
		      e.points, rounds, e.nested, e.killed);
	print_message("# uncertain writes: %" PRIu64 " kept, %" PRIu64 " lost, %" PRIu64 " torn\n",
		      e.kept, e.lost, e.torn);
	print_message("# with a leg absent: %" PRIu64 " went on, %" PRIu64 " refused\n", e.degraded,
		      e.refused);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_devices_hold),
		cmocka_unit_test(data_before_metadata_holds),
		cmocka_unit_test(a_flush_not_passed_on_is_found_out),
		cmocka_unit_test(a_write_without_its_fua_is_found_out),
		cmocka_unit_test(metadata_before_data_is_found_out),
		cmocka_unit_test(metadata_without_a_flush_between_is_found_out),
		cmocka_unit_test(metadata_that_the_program_keeps_is_found_out),
		cmocka_unit_test(legs_that_are_never_compared_are_found_out),
		cmocka_unit_test(random_stacks),
	};
	const char *text = getenv("SEED");
	int ret;

	overlay_shadows = host_begin();
	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	print_message("# SEED=%" PRIu64 "\n", seed);
	log_set_level(getenv("VERBOSE") ? LOG_DEBUG : LOG_ERROR);
	ret = cmocka_run_group_tests_name("crash", tests, NULL, NULL);
	host_end();
	volume_end();
	workers_end();
	return ret;
}
