/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_test.c - what is kept, asked, opened and closed when the layers of a disk in use change
 *
 * Two loops load the disk while this thread, the control thread, changes it. Each loop has blocks
 * of its own and knows what it wrote there. The layer probe counts what is done to it; stall keeps
 * requests until it is told to let them go.
 */
#include "layer/change.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/crash/chance.h"
#include "layer/testing_build.h"
#include "util/error.h"
#include "util/log.h"

#define BLOCK  512u
#define BLOCKS 64u /* of each loop */
#define LOOPS  2u
#define DEPTH  8u

/* --- probe ------------------------------------------------------------------------------- */

struct probe {
	struct layer layer;
	uint64_t value, seen; /* option; what it was when last opened or committed */
	char *fail;           /* "open", "prepare", "retire", or nothing */
	bool asked, retired;
};

static struct counts {
	int opened, closed, prepared, committed, abandoned, started, stopped, retired, stayed;
	_Atomic int queues, inside;
} counts;

static int probe_open(struct layer *layer, struct error *err)
{
	struct probe *p = (struct probe *)layer;

	if (p->fail && !strcmp(p->fail, "open"))
		return error_set(err, EPERM, "it was told to fail");
	p->seen = p->value;
	counts.opened++;
	return 0;
}

static void probe_close(struct layer *layer)
{
	(void)layer;
	counts.closed++;
}

static int probe_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	const struct probe *options = (const struct probe *)plan->options;

	(void)layer;
	if (options->fail && !strcmp(options->fail, "prepare"))
		return error_set(err, EPERM, "it was told to fail");
	counts.prepared++;
	((struct probe *)layer)->asked = true;
	return 0;
}

static void probe_commit(struct layer *layer)
{
	struct probe *p = (struct probe *)layer;

	p->seen = p->value;
	p->asked = p->retired = false;
	counts.committed++;
}

static void probe_abandon(struct layer *layer)
{
	struct probe *p = (struct probe *)layer;

	counts.abandoned += p->asked;
	counts.stayed += p->retired;
	p->asked = p->retired = false;
}

/* Nothing is inside, for as long as it takes. */
static int probe_retire(struct layer *layer, uint32_t kept, struct error *err)
{
	struct probe *p = (struct probe *)layer;

	if (kept)
		abort();
	for (unsigned i = 0; i < 20; i++) {
		if (atomic_load(&counts.inside))
			abort();
		usleep(1000);
	}
	if (p->fail && !strcmp(p->fail, "retire"))
		return error_set(err, EPERM, "it was told to fail");
	p->retired = true;
	counts.retired++;
	return 0;
}

static int probe_queue_open(struct layer *layer, struct io_queue *queue)
{
	*(uint64_t *)layer_queue_state(layer, queue) += 0x123456789;
	counts.queues++;
	return 0;
}

static void probe_queue_close(struct layer *layer, struct io_queue *queue)
{
	/* Its state is its own, and was not kept from before. */
	if (*(uint64_t *)layer_queue_state(layer, queue) != 0x123456789)
		abort();
	counts.queues--;
}

static void probe_start(struct layer *layer, struct loop *home)
{
	(void)layer;
	if (!home)
		abort();
	counts.started++;
}

static void probe_stop(struct layer *layer, struct layer_stop *stop)
{
	(void)layer;
	counts.stopped++;
	loop_send(stop->loop, &stop->done);
}

static void passed(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void probe_passed(struct layer *layer, struct io *io)
{
	(void)layer;
	counts.inside--;
	io_finish(io, io->status);
}

static void probe_submit(struct layer *layer, struct io *io)
{
	counts.inside++;
	io_send_then(layer, layer->below, io, probe_passed);
}

static const struct option probe_options[] = {
	{ .name = "value", .type = OPTION_UINT, .offset = offsetof(struct probe, value) },
	{ .name = "fail", .type = OPTION_STRING, .offset = offsetof(struct probe, fail) },
	{ 0 },
};

static const struct layer_ops probe_ops = {
	.name = "probe",
	.size = sizeof(struct probe),
	.options = probe_options,
	.queue_state = 8,
	.open = probe_open,
	.close = probe_close,
	.prepare = probe_prepare,
	.commit = probe_commit,
	.abandon = probe_abandon,
	.retire = probe_retire,
	.start = probe_start,
	.stop = probe_stop,
	.queue_open = probe_queue_open,
	.queue_close = probe_queue_close,
	.submit = probe_submit,
};

/* --- stall, twins ------------------------------------------------------------------------ */

static atomic_bool stalling;

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
		io_send(q->layer->below, io);
	}
	if (q->held)
		loop_timer_set(q->loop, timer, loop_now(q->loop) + 2000000);
}

static void stall_submit(struct layer *layer, struct io *io)
{
	struct stall_queue *q = layer_queue_state(layer, io->queue);

	io_push(layer, io, passed);
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

static void begin_to_stall(void)
{
	atomic_store(&stalling, true);
	/* The requests that are on their way now are in its hands soon. */
	usleep(50000);
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

/* --- the load ---------------------------------------------------------------------------- */

static struct disk *disk;
static struct loop *control;

static struct load {
	struct loop *loop;
	struct loop_message begin, turn, end;
	bool turning;
	struct disk_queue *queue;
	struct chance chance;
	uint64_t first; /* block */
	uint8_t content[BLOCKS];
	bool busy[BLOCKS];
	unsigned char bytes[DEPTH][BLOCK];
	bool slot[DEPTH];
	unsigned out;
	bool ending, over;
	sem_t ended;
	_Atomic unsigned done, wrong;
} load[LOOPS];

static void completed(struct layer *layer, struct io *io)
{
	struct load *l = io->queue->owner;
	uint64_t slot = io_frame(io)->note[0], block = io->offset / BLOCK - l->first;

	(void)layer;
	if (io->status)
		atomic_fetch_add(&l->wrong, 1);
	if (io->op == IO_READ)
		for (unsigned i = 0; i < BLOCK; i++)
			if (l->bytes[slot][i] != l->content[block]) {
				atomic_fetch_add(&l->wrong, 1);
				break;
			}
	if (io->op == IO_WRITE)
		l->content[block] = l->bytes[slot][0];
	l->busy[block] = false;
	l->slot[slot] = false;
	l->out--;
	atomic_fetch_add(&l->done, 1);
	io_put(io);
}

static void go_on_loading(struct loop_message *message)
{
	struct load *l = container_of(message, struct load, turn);
	struct io_queue *queue = &l->queue->ios;

	l->turning = false;
	for (unsigned slot = 0; slot < DEPTH && !l->ending; slot++) {
		uint64_t block = chance_of(&l->chance, BLOCKS);
		struct io *io;

		if (l->slot[slot] || l->busy[block])
			continue;
		io = io_get(queue);
		l->slot[slot] = l->busy[block] = true;
		l->out++;
		io->op = chance_of(&l->chance, 2) ? IO_READ : IO_WRITE;
		io->offset = (l->first + block) * BLOCK;
		io->length = BLOCK;
		memset(l->bytes[slot], 1 + (int)chance_of(&l->chance, 200), BLOCK);
		io_vector(io)[0] = (struct iovec){ l->bytes[slot], BLOCK };
		io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
		disk_submit(l->queue, io, completed)->note[0] = slot;
	}
	if (l->ending && !l->out && !l->over) {
		l->over = true;
		sem_post(&l->ended);
	}
}

/* More in the next turn: memory answers at once, and messages would never have theirs. */
static void settle(struct io_queue *queue)
{
	struct load *l = queue->owner;

	if (!l->turning)
		loop_send(l->loop, &l->turn);
	l->turning = true;
}

static void load_begin(struct loop_message *message)
{
	struct load *l = container_of(message, struct load, begin);

	l->queue = disk_queue_open(disk, l->loop, DEPTH, 1);
	if (!l->queue)
		abort();
	l->queue->ios.owner = l;
	l->queue->ios.settled = settle;
	settle(&l->queue->ios);
}

static void load_again(struct loop_message *message)
{
	struct load *l = container_of(message, struct load, begin);

	l->ending = l->over = false;
	settle(&l->queue->ios);
}

static void load_end(struct loop_message *message)
{
	struct load *l = container_of(message, struct load, end);

	l->ending = true;
	settle(&l->queue->ios);
}

static void load_close(struct loop_message *message)
{
	struct load *l = container_of(message, struct load, end);

	disk_queue_close(l->queue);
	loop_stop(l->loop);
}

/* --- the rig ----------------------------------------------------------------------------- */

static struct stack_config memory_stack(void)
{
	struct stack_config stack = { 0 };

	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

static void open_disk(struct stack_config stack)
{
	struct disk_config config = { 0 };
	struct error err = { 0 };

	counts = (struct counts){ 0 };
	atomic_store(&stalling, false);
	options_init(disk_options, &config);
	disk = disk_open("test", &config, &stack, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	stack_config_release(&stack);
	control = loop_create(&(struct loop_config){ .name = "control", .cpu = -1 }, NULL);
	assert_non_null(control);
	alarm(50);
	disk_start(disk, control);
	for (unsigned i = 0; i < LOOPS; i++) {
		struct loop_config of = { .name = "load", .engine = LOOP_THREADS, .cpu = -1 };

		load[i] = (struct load){ .loop = loop_create(&of, NULL),
					 .begin.run = load_begin,
					 .turn.run = go_on_loading,
					 .end.run = load_end,
					 .chance = chance_seed(5 + i),
					 .first = i * BLOCKS };
		sem_init(&load[i].ended, 0, 0);
		assert_int_equal(loop_start(load[i].loop, NULL), 0);
		loop_send(load[i].loop, &load[i].begin);
	}
}

/* The load has gone on since it was told. */
static void load_goes_on(void)
{
	for (unsigned i = 0; i < LOOPS; i++) {
		unsigned was = atomic_load(&load[i].done);

		while (atomic_load(&load[i].done) < was + 3 * DEPTH)
			usleep(100);
		assert_int_equal(atomic_load(&load[i].wrong), 0);
	}
}

static void run_control(void)
{
	assert_int_equal(loop_run(control, NULL), 0);
}

static void is_stopped(struct loop_message *message)
{
	(void)message;
	loop_stop(control);
}

static void close_disk(void)
{
	struct layer_stop stop = { .loop = control, .done.run = is_stopped };

	load_goes_on();
	for (unsigned i = 0; i < LOOPS; i++)
		loop_send(load[i].loop, &load[i].end);
	for (unsigned i = 0; i < LOOPS; i++) {
		sem_wait(&load[i].ended);
		load[i].end.run = load_close;
		loop_send(load[i].loop, &load[i].end);
		loop_destroy(load[i].loop);
		sem_destroy(&load[i].ended);
		assert_int_equal(atomic_load(&load[i].wrong), 0);
	}
	assert_int_equal(disk_stop(disk, &stop), 0);
	run_control();
	disk_close(disk);
	loop_destroy(control);
	alarm(0);
	/* Whatever happened, nothing stays behind. */
	assert_int_equal(counts.opened, counts.closed);
	assert_int_equal(counts.prepared, counts.committed + counts.abandoned);
	assert_int_equal(counts.started, counts.stopped);
	assert_int_equal(counts.queues, 0);
}

static struct outcome {
	struct change_end end;
	struct error err;
} outcome;

static void ended(struct change_end *end, struct error *err)
{
	(void)end;
	outcome.err = *err;
	loop_stop(control);
}

/* Changes the disk to @stack, which is released. 0 or an errno, with outcome.err. */
static int change_to(struct stack_config stack)
{
	struct change *change;

	outcome = (struct outcome){ .end.done = ended };
	change = change_prepare(disk, &stack, &outcome.err);
	stack_config_release(&stack);
	if (change) {
		change_commit(change, control, &outcome.end);
		run_control();
		assert_true(change_pause(change) < 15000000000);
		change_finish(change);
	}
	load_goes_on();
	return outcome.err.code;
}

static struct stack_config probe_stack(const char *value, const char *fail)
{
	struct stack_config stack = { 0 };
	struct layer_config *probe = testing_layer(&stack, &probe_ops);

	if (value)
		testing_set(probe, "value", "%s", value);
	if (fail)
		testing_set(probe, "fail", "%s", fail);
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

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

/* --- the gate ------------------------------------------------------------------------------- */

static struct stack_config stalled(bool probe)
{
	struct stack_config stack = { 0 };

	if (probe)
		testing_layer(&stack, &probe_ops);
	testing_layer(&stack, &stall_ops);
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

static void what_does_not_come_back_ends_the_change(void **unused)
{
	struct layer *top;
	struct stack_config wanted = stalled(true);
	struct change *change;

	(void)unused;
	open_disk(stalled(false));
	load_goes_on();
	top = disk->top;
	begin_to_stall();
	outcome = (struct outcome){ .end.done = ended };
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
	open_disk(stalled(false));
	load_goes_on();
	/* The first loop has only the idle queue to be emptied. */
	loop_send(load[0].loop, &load[0].end);
	sem_wait(&load[0].ended);
	loop_send(load[0].loop, &message);
	sem_wait(&held_up);
	begin_to_stall();
	outcome = (struct outcome){ .end.done = ended };
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
		cmocka_unit_test(layers_come_and_go_over_the_same_bytes),
		cmocka_unit_test(layers_change_places),
		cmocka_unit_test(options_change_in_place),
		cmocka_unit_test(a_refusal_changes_nothing),
		cmocka_unit_test(the_guest_s_data_stay),
		cmocka_unit_test(a_back_end_becomes_a_leg_and_a_back_end_again),
		cmocka_unit_test(who_goes_is_told_while_nothing_is_inside),
		cmocka_unit_test(who_cannot_go_keeps_all_the_others),
		cmocka_unit_test(what_does_not_come_back_ends_the_change),
		cmocka_unit_test(requests_that_need_no_layer_wait_at_the_gate_too),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
