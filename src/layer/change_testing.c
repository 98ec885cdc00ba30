/* SPDX-License-Identifier: BSD-3-Clause */
/* change_testing.c - the disk, its load, and changes of it; see change_testing.h */
#include "layer/change_testing.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the load ---------------------------------------------------------------------------- */

struct disk *disk;
struct loop *control;

struct load load[LOOPS];

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

void load_again(struct loop_message *message)
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

struct stack_config memory_stack(void)
{
	struct stack_config stack = { 0 };

	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	return stack;
}

void open_disk(struct stack_config stack)
{
	struct disk_config config = { 0 };
	struct error err = { 0 };

	counts = (struct counts){ 0 };
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

void load_goes_on(void)
{
	for (unsigned i = 0; i < LOOPS; i++) {
		unsigned was = atomic_load(&load[i].done);

		while (atomic_load(&load[i].done) < was + 3 * DEPTH)
			usleep(100);
		assert_int_equal(atomic_load(&load[i].wrong), 0);
	}
}

void run_control(void)
{
	assert_int_equal(loop_run(control, NULL), 0);
}

static void is_stopped(struct loop_message *message)
{
	(void)message;
	loop_stop(control);
}

void close_disk(void)
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

struct outcome outcome;

static void ended(struct change_end *end, struct error *err)
{
	(void)end;
	outcome.err = *err;
	loop_stop(control);
}

void begin_change(void)
{
	outcome = (struct outcome){ .end.done = ended };
}

int change_to(struct stack_config stack)
{
	struct change *change;

	begin_change();
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

struct stack_config probe_stack(const char *value, const char *fail)
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
