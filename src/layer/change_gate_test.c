/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_gate_test.c - requests that are under way when a change shuts the gate, and those that
 * come meanwhile; see change_testing.h
 *
 * The layer stall keeps requests until it is told to let them go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer/change_testing.h"
#include "util/log.h"

/* --- stall ------------------------------------------------------------------------------- */

static void passed(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static atomic_bool stalling;
static atomic_uint holding; /* queues that keep a request */

struct stall_queue {
	struct layer *layer;
	struct io *held;
	struct loop_timer timer;
	struct loop *loop;
};

static void stall_look(struct loop_timer *timer)
{
	struct stall_queue *q = container_of(timer, struct stall_queue, timer);

	while (q->held && !atomic_load(&stalling)) {
		struct io *io = q->held;

		q->held = io->next;
		if (!q->held)
			atomic_fetch_sub(&holding, 1);
		io_send(q->layer->below, io);
	}
	if (q->held)
		loop_timer_set(q->loop, timer, loop_now(q->loop) + 2000000);
}

static void stall_submit(struct layer *layer, struct io *io)
{
	struct stall_queue *q = layer_queue_state(layer, io->queue);

	io_push(layer, io, passed);
	if (!q->held)
		atomic_fetch_add(&holding, 1);
	io->next = q->held;
	q->held = io;
	stall_look(&q->timer);
}

static int stall_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct stall_queue *q = layer_queue_state(layer, queue);

	q->layer = layer;
	q->loop = queue->loop;
	loop_timer_init(&q->timer, stall_look);
	return 0;
}

static const struct layer_ops stall_ops = {
	.name = "stall",
	.size = sizeof(struct layer),
	.queue_state = sizeof(struct stall_queue),
	.queue_open = stall_queue_open,
	.submit = stall_submit,
};

/* Until it has requests of so many loops. */
static void begin_to_stall(unsigned loops)
{
	atomic_store(&stalling, true);
	while (atomic_load(&holding) < loops)
		usleep(1000);
}

/* --- the gate ---------------------------------------------------------------------------- */

static struct stack_config stalled(bool probe)
{
	struct stack_config stack = { 0 };

	if (probe)
		testing_layer(&stack, &probe_ops);
	testing_layer(&stack, &stall_ops);
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

static void open_stalled(void)
{
	atomic_store(&stalling, false);
	open_disk(stalled(false));
}

static void what_does_not_come_back_ends_the_change(void **unused)
{
	struct layer *top;
	struct stack_config wanted = stalled(true);
	struct change *change;

	(void)unused;
	open_stalled();
	load_goes_on();
	top = disk->top;
	begin_to_stall(LOOPS);
	begin_change();
	change = change_prepare(disk, &wanted, &outcome.err);
	assert_non_null(change);
	change_commit(change, control, &outcome.end);
	run_control();
	assert_int_equal(outcome.err.code, ETIMEDOUT);
	assert_non_null(strstr(outcome.err.text, "nothing is changed"));
	change_finish(change);
	assert_ptr_equal(disk->top, top);
	assert_int_equal(counts.opened, 1);
	assert_int_equal(counts.closed, 1);
	atomic_store(&stalling, false);
	load_goes_on();
	assert_int_equal(change_to(wanted), 0);
	assert_ptr_equal(disk->top->below, top);
	close_disk();
}

/* Holds up a loop while messages gather for it. */
static sem_t held_up, go_on;

static void hold_up(struct loop_message *message)
{
	(void)message;
	sem_post(&held_up);
	sem_wait(&go_on);
}

static struct disk_queue *idle;
static int refused[3];
static unsigned refusals;

static void is_refused(struct layer *layer, struct io *io)
{
	(void)layer;
	refused[refusals++] = io->status;
	io_put(io);
}

static void open_idle(struct loop_message *message)
{
	(void)message;
	idle = disk_queue_open(disk, load[0].loop, 4, 1);
	if (!idle)
		abort();
	sem_post(&held_up);
}

static void close_idle(struct loop_message *message)
{
	(void)message;
	disk_queue_close(idle);
	sem_post(&held_up);
}

/* Requests that end at the disk itself: beyond its end, and of no length. */
static void submit_refused(struct loop_message *message)
{
	(void)message;
	for (unsigned i = 0; i < 3; i++) {
		struct io *io = io_get(&idle->ios);

		io->op = IO_DISCARD;
		io->offset = i == 0 ? disk->size : 0;
		io->length = i == 1 ? 1 : i == 0 ? BLOCK : 0;
		disk_submit(idle, io, is_refused);
	}
}

static struct loop_message hold = { .run = hold_up }, refuse = { .run = submit_refused };

/* What happens while the gate is shut, 100 ms after one another. */
static void next_step(struct loop_timer *timer)
{
	static unsigned step;

	switch (step++) {
	case 0: /* the first loop has been told to shut its queues, and has answered */
		loop_send(load[0].loop, &hold);
		break;
	case 1: /* the requests, for when it goes on; the second loop can answer: the gate opens */
		loop_send(load[0].loop, &refuse);
		atomic_store(&stalling, false);
		break;
	case 2:
		sem_post(&go_on);
		return;
	}
	loop_timer_set(control, timer, loop_now(control) + 100000000);
}

/*
 * A queue is empty and shut; another one is not empty yet. Now a request comes that needs no layer,
 * and in the same turn the gate opens.
 */
static void requests_that_need_no_layer_wait_at_the_gate_too(void **unused)
{
	struct loop_message message = { .run = open_idle };
	struct stack_config wanted = stalled(true);
	struct loop_timer steps;
	struct change *change;

	(void)unused;
	sem_init(&held_up, 0, 0);
	sem_init(&go_on, 0, 0);
	refusals = 0;
	open_stalled();
	load_goes_on();
	/* The first loop has only the idle queue to be emptied. */
	loop_send(load[0].loop, &load[0].end);
	sem_wait(&load[0].ended);
	loop_send(load[0].loop, &message);
	sem_wait(&held_up);
	begin_to_stall(LOOPS - 1);
	begin_change();
	change = change_prepare(disk, &wanted, &outcome.err);
	assert_non_null(change);
	stack_config_release(&wanted);
	change_commit(change, control, &outcome.end);
	loop_timer_init(&steps, next_step);
	loop_timer_set(control, &steps, loop_now(control) + 100000000);
	run_control();
	assert_int_equal(outcome.err.code, 0);
	change_finish(change);
	message.run = close_idle;
	while (atomic_load(&counts.queues) < (int)LOOPS + 1)
		usleep(100);
	loop_send(load[0].loop, &message);
	sem_wait(&held_up);
	sem_wait(&held_up);
	assert_int_equal(refusals, 3);
	assert_int_equal(refused[0], -ERANGE);
	assert_int_equal(refused[1], -EINVAL);
	assert_int_equal(refused[2], 0);
	load[0].begin.run = load_again;
	loop_send(load[0].loop, &load[0].begin);
	close_disk();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_does_not_come_back_ends_the_change),
		cmocka_unit_test(requests_that_need_no_layer_wait_at_the_gate_too),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("change gate", tests, NULL, NULL);
}
