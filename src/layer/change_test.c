/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_test.c - what is kept, asked, opened and closed when the layers of a disk in use change;
 * see change_testing.h
 */
#include <errno.h>
#include <string.h>

#include "layer/change_testing.h"
#include "util/log.h"

/* --- what is kept ------------------------------------------------------------------------ */

static void layers_come_and_go_over_the_same_bytes(void **unused)
{
	struct layer *memory;
	struct stack_config stack = { 0 };

	(void)unused;
	open_disk(memory_stack());
	memory = disk->top;
	load_goes_on();
	assert_int_equal(change_to(probe_stack("1", NULL)), 0);
	assert_ptr_equal(disk->top->ops, &probe_ops);
	assert_ptr_equal(disk->top->below, memory);
	assert_int_equal(counts.opened, 1);
	assert_int_equal(counts.started, 1);
	assert_int_equal(counts.queues, LOOPS);

	testing_layer(&stack, layer_find("pass"));
	testing_set(testing_layer(&stack, &probe_ops), "value", "1");
	testing_layer(&stack, layer_find("pass"));
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	assert_int_equal(change_to(stack), 0);
	assert_ptr_equal(disk->top->below->ops, &probe_ops);
	assert_ptr_equal(disk->top->below->below->below, memory);
	assert_int_equal(counts.opened, 1);
	assert_int_equal(counts.closed, 0);

	assert_int_equal(change_to(memory_stack()), 0);
	assert_ptr_equal(disk->top, memory);
	assert_int_equal(counts.closed, 1);
	assert_int_equal(counts.queues, 0);
	/* Nothing is to be done. */
	assert_int_equal(change_to(memory_stack()), 0);
	assert_ptr_equal(disk->top, memory);
	close_disk();
}

static void layers_change_places(void **unused)
{
	struct stack_config stack = { 0 };
	struct layer *first, *second;

	(void)unused;
	testing_set(testing_layer(&stack, &probe_ops), "value", "1");
	testing_set(testing_layer(&stack, &probe_ops), "value", "2");
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	open_disk(stack);
	first = disk->top;
	second = first->below;
	stack = (struct stack_config){ 0 };
	testing_set(testing_layer(&stack, &probe_ops), "value", "2");
	testing_set(testing_layer(&stack, &probe_ops), "value", "1");
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	assert_int_equal(change_to(stack), 0);
	assert_ptr_equal(disk->top, second);
	assert_ptr_equal(disk->top->below, first);
	assert_int_equal(((struct probe *)first)->value, 1);
	assert_int_equal(counts.opened, 2);
	assert_int_equal(counts.started, 4);
	assert_int_equal(counts.stopped, 2);
	close_disk();
}

/* --- what is asked ----------------------------------------------------------------------- */

static void options_change_in_place(void **unused)
{
	struct probe *probe;

	(void)unused;
	open_disk(probe_stack("1", NULL));
	probe = (struct probe *)disk->top;
	assert_int_equal(change_to(probe_stack("2", "never")), 0);
	assert_ptr_equal(disk->top, &probe->layer);
	assert_int_equal(probe->value, 2);
	assert_int_equal(probe->seen, 2);
	assert_string_equal(probe->fail, "never");
	assert_string_equal(layer_config_get(disk->top->config, "value"), "2");
	assert_int_equal(counts.opened, 1);
	assert_int_equal(counts.committed, 1);
	/* An option that is not given has its default. */
	assert_int_equal(change_to(probe_stack(NULL, NULL)), 0);
	assert_int_equal(probe->value, 0);
	assert_null(probe->fail);
	close_disk();
}

static void a_refusal_changes_nothing(void **unused)
{
	struct stack_config stack = { 0 };
	struct layer *top;

	(void)unused;
	open_disk(probe_stack("1", NULL));
	top = disk->top;
	assert_int_equal(change_to(probe_stack("2", "prepare")), EPERM);
	assert_non_null(strstr(outcome.err.text, "probe: it was told to fail"));
	assert_int_equal(((struct probe *)top)->value, 1);
	assert_int_equal(counts.abandoned, 0);

	/* One was asked and agreed; then another one does not open. */
	testing_set(testing_layer(&stack, &probe_ops), "fail", "open");
	testing_set(testing_layer(&stack, &probe_ops), "value", "1");
	testing_layer(&stack, layer_find("pass"));
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	assert_int_equal(change_to(stack), EPERM);
	assert_non_null(strstr(outcome.err.text, "probe: it was told to fail"));
	assert_ptr_equal(disk->top, top);
	assert_ptr_equal(top->below->ops, layer_find("memory"));
	assert_int_equal(counts.opened, 1);
	assert_int_equal(counts.prepared, 1);
	assert_int_equal(counts.abandoned, 1);
	assert_int_equal(counts.committed, 0);

	/* An option that is none. */
	stack = probe_stack("many", NULL);
	assert_int_equal(change_to(stack), EINVAL);
	assert_non_null(strstr(outcome.err.text, "value"));
	assert_string_equal(layer_config_get(disk->top->config, "value"), "1");
	close_disk();
}

/* --- what is not done ----------------------------------------------------------------- */

static struct stack_config sized(const char *size)
{
	struct stack_config stack = { 0 };

	testing_layer(&stack, &probe_ops);
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "%s", size);
	return stack;
}

static void the_guest_s_data_stay(void **unused)
{
	struct layer *memory;

	(void)unused;
	open_disk(sized("1M"));
	memory = disk->top->below;
	/* Another back-end would show other data. */
	assert_int_equal(change_to(sized("2M")), EINVAL);
	assert_non_null(strstr(outcome.err.text, "other data"));
	assert_ptr_equal(disk->top->below, memory);
	assert_int_equal(counts.committed, 0);
	assert_int_equal(counts.opened, 1);
	close_disk();
}

/* --- legs ------------------------------------------------------------------------------- */

static void passed(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void twins_submit(struct layer *layer, struct io *io)
{
	if (io->op == IO_READ) {
		io_send(layer->legs[0], io);
		return;
	}
	io_parts_begin(layer, io, passed);
	for (unsigned i = 0; i < layer->leg_count; i++)
		io_send_part(io, layer->legs[i], 0, io->length, io->offset);
	io_parts_end(io);
}

static void twins_limits(struct layer *layer, struct limits *limits)
{
	*limits = layer->legs[0]->limits;
}

static int twins_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	(void)layer;
	(void)plan;
	(void)err;
	return 0;
}

static uint32_t twins_kept;

static int twins_retire(struct layer *layer, uint32_t kept, struct error *err)
{
	(void)layer;
	(void)err;
	twins_kept = kept;
	return 0;
}

static void twins_abandon(struct layer *layer)
{
	(void)layer;
}

static bool twins_holds(const struct layer *layer, unsigned leg)
{
	(void)layer;
	(void)leg;
	return true;
}

static const struct layer_ops twins_ops = {
	.name = "twins",
	.size = sizeof(struct layer),
	.backend = true,
	.legs_option = "legs",
	.legs_min = 1,
	.legs_max = 3,
	.fan_out = 3,
	.limits = twins_limits,
	.prepare = twins_prepare,
	.abandon = twins_abandon,
	.retire = twins_retire,
	.holds = twins_holds,
	.submit = twins_submit,
};

static struct stack_config legs(unsigned count)
{
	struct stack_config stack = { 0 };
	struct layer_config *twins;

	testing_layer(&stack, &probe_ops);
	twins = testing_layer(&stack, &twins_ops);
	for (unsigned i = 0; i < count; i++) {
		struct stack_config *leg = testing_leg(twins);

		if (i == 1)
			testing_layer(leg, layer_find("pass"));
		testing_set(testing_layer(leg, layer_find("memory")), "size", "%uM", i + 1);
	}
	return stack;
}

static void a_back_end_becomes_a_leg_and_a_back_end_again(void **unused)
{
	struct layer *memory, *twins, *leg;

	(void)unused;
	open_disk(memory_stack());
	memory = disk->top;
	assert_int_equal(change_to(legs(2)), 0);
	twins = disk->top->below;
	assert_ptr_equal(twins->ops, &twins_ops);
	assert_int_equal(twins->leg_count, 2);
	assert_ptr_equal(twins->legs[0], memory);
	leg = twins->legs[1];
	assert_int_equal(change_to(legs(3)), 0);
	assert_int_equal(twins_kept, 3);
	assert_ptr_equal(disk->top->below, twins);
	assert_int_equal(twins->leg_count, 3);
	assert_ptr_equal(twins->legs[0], memory);
	assert_ptr_equal(twins->legs[1], leg);
	assert_int_equal(change_to(legs(1)), 0);
	assert_int_equal(twins_kept, 1);
	assert_ptr_equal(disk->top->below, twins);
	assert_int_equal(twins->leg_count, 1);
	assert_int_equal(change_to(legs(4)), EINVAL);
	assert_int_equal(change_to(legs(2)), 0);
	assert_int_equal(twins_kept, 1);
	twins_kept = 0;
	assert_int_equal(change_to(memory_stack()), 0);
	assert_int_equal(twins_kept, 1);
	assert_ptr_equal(disk->top, memory);
	close_disk();
}

/* --- who goes --------------------------------------------------------------------------- */

/* Three of them, of which the one in the middle may fail to. */
static struct stack_config three_probes(const char *first, const char *fail)
{
	struct stack_config stack = { 0 };

	testing_set(testing_layer(&stack, &probe_ops), "value", "%s", first);
	testing_set(testing_layer(&stack, &probe_ops), "fail", "%s", fail);
	testing_set(testing_layer(&stack, &probe_ops), "value", "3");
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

static void who_goes_is_told_while_nothing_is_inside(void **unused)
{
	(void)unused;
	open_disk(three_probes("1", "never"));
	load_goes_on();
	assert_int_equal(change_to(probe_stack("3", NULL)), 0);
	assert_int_equal(counts.retired, 2);
	assert_int_equal(counts.closed, 2);
	assert_int_equal(change_to(memory_stack()), 0);
	assert_int_equal(counts.retired, 3);
	assert_int_equal(counts.closed, 3);
	assert_int_equal(counts.stayed, 0);
	close_disk();
}

static void who_cannot_go_keeps_all_the_others(void **unused)
{
	struct layer *top;
	struct stack_config stack = { 0 };

	(void)unused;
	open_disk(three_probes("1", "retire"));
	load_goes_on();
	top = disk->top;
	assert_int_equal(change_to(memory_stack()), EPERM);
	assert_non_null(strstr(outcome.err.text, "probe: it was told to fail"));
	assert_ptr_equal(disk->top, top);
	assert_int_equal(counts.retired, 1);
	assert_int_equal(counts.stayed, 1);
	assert_int_equal(counts.closed, 0);
	/* The first one is asked for another option, and abandoned. */
	testing_set(testing_layer(&stack, &probe_ops), "value", "2");
	testing_set(testing_layer(&stack, &probe_ops), "value", "3");
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	assert_int_equal(change_to(stack), EPERM);
	assert_int_equal(counts.prepared, 1);
	assert_int_equal(counts.abandoned, 1);
	assert_int_equal(counts.stayed, 2);
	assert_int_equal(((struct probe *)top)->value, 1);
	close_disk();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers_come_and_go_over_the_same_bytes),
		cmocka_unit_test(layers_change_places),
		cmocka_unit_test(options_change_in_place),
		cmocka_unit_test(a_refusal_changes_nothing),
		cmocka_unit_test(the_guest_s_data_stay),
		cmocka_unit_test(a_back_end_becomes_a_leg_and_a_back_end_again),
		cmocka_unit_test(who_goes_is_told_while_nothing_is_inside),
		cmocka_unit_test(who_cannot_go_keeps_all_the_others),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
