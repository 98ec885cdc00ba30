/* SPDX-License-Identifier: BSD-3-Clause */
/* delay_test.c - requests that wait, and what lets them go; options of flaky that change */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/testing_stack.h"
#include "testing.h"
#include "util/log.h"

static unsigned char bytes[4096];

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How long a request takes, ms; it must succeed. */
static uint64_t time_of(struct disk *disk, enum io_op op)
{
	uint64_t began = milliseconds();

	assert_int_equal(testing_io(disk, LOOP_THREADS, op, 0, 0, op == IO_FLUSH ? 0 : 512, bytes),
			 0);
	return milliseconds() - began;
}

static void how_long(void **unused)
{
	struct disk *disk = testing_disk("delay delay=40ms ops=write | memory");
	struct error err;

	(void)unused;
	assert_true(time_of(disk, IO_WRITE) >= 40);
	assert_true(time_of(disk, IO_READ) < 40);
	assert_int_equal(
		testing_change(disk, "delay stalls=100% stall=60ms ops=read | memory", &err), 0);
	assert_true(time_of(disk, IO_WRITE) < 60);
	assert_true(time_of(disk, IO_READ) >= 60);
	assert_int_equal(testing_change(disk, "delay | memory", &err), 0);
	assert_true(time_of(disk, IO_READ) < 60);
	disk_close(disk);
}

/* --- a request that is held, on a loop of its own ---------------------------------------- */

static struct scene {
	struct disk *disk;
	struct loop *loop;
	struct loop_message start, end, probe;
	struct disk_queue *queue;
	_Atomic int back, closed, probed; /* status + 1000; flags */
} scene;

static void came_back(struct layer *layer, struct io *io)
{
	(void)layer;
	scene.back = io->status + 1000;
	io_put(io);
}

static void start(struct loop_message *message)
{
	struct io *io;

	(void)message;
	scene.queue = disk_queue_open(scene.disk, scene.loop, 4, 1);
	assert_non_null(scene.queue);
	io = io_get(&scene.queue->ios);
	io->op = IO_WRITE;
	io->offset = 0;
	io->length = 512;
	io_vector(io)[0] = (struct iovec){ bytes, 512 };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	disk_submit(scene.queue, io, came_back);
}

static void end(struct loop_message *message)
{
	(void)message;
	disk_queue_close(scene.queue);
	scene.closed = 1;
}

static void probe(struct loop_message *message)
{
	(void)message;
	scene.probed = 1;
}

/* The first block of what is below all; the loop has done what it can for now. */
static unsigned char first_byte(struct layer *memory)
{
	scene.probed = 0;
	loop_send(scene.loop, &scene.probe);
	while (!scene.probed)
		usleep(1000);
	assert_int_equal(testing_read(memory, 0, bytes + 512, 512), 0);
	return bytes[512];
}

/* A write to a disk of @stack that is in service; it is held. */
static void begin(const char *stack)
{
	struct loop_config config = { .name = "scene", .engine = LOOP_THREADS, .cpu = -1 };

	memset(bytes, 'h', sizeof bytes);
	scene = (struct scene){ .disk = testing_disk(stack),
				.loop = loop_create(&config, NULL),
				.start.run = start,
				.end.run = end,
				.probe.run = probe };
	assert_non_null(scene.loop);
	assert_int_equal(loop_start(scene.loop, NULL), 0);
	disk_start(scene.disk, scene.loop);
	loop_send(scene.loop, &scene.start);
	usleep(50000);
	assert_int_equal(scene.back, 0);
}

static bool is_back(void)
{
	for (unsigned waited = 0; waited < 5000 && !scene.back; waited++)
		usleep(1000);
	return scene.back == 1000;
}

static void finish(void)
{
	loop_send(scene.loop, &scene.end);
	while (!scene.closed)
		usleep(1000);
	loop_stop(scene.loop);
	loop_destroy(scene.loop);
	disk_close(scene.disk);
}

static void a_change_lets_go(void **unused)
{
	struct error err;

	(void)unused;
	begin("delay hold=true | memory");
	assert_int_equal(first_byte(scene.disk->top->below), 0);
	assert_int_equal(testing_change(scene.disk, "delay | memory", &err), 0);
	assert_true(is_back());
	assert_int_equal(first_byte(scene.disk->top->below), 'h');
	finish();
	/* So does another change, though the next requests are held again. */
	begin("delay delay=1h | memory");
	assert_int_equal(testing_change(scene.disk, "pass | delay delay=1h | memory", &err), 0);
	assert_true(is_back());
	finish();
}

static void after_it_is_done(void **unused)
{
	struct error err;

	(void)unused;
	begin("delay hold=true side=after | memory");
	/* It is on the disk, though the guest does not know. */
	assert_int_equal(first_byte(scene.disk->top->below), 'h');
	assert_int_equal(testing_change(scene.disk, "delay | memory", &err), 0);
	assert_true(is_back());
	finish();
}

static void flaky_changes_its_mind(void **unused)
{
	struct disk *disk = testing_disk("flaky errors=100% | memory");
	struct layer *flaky = disk->top;
	struct error err;

	(void)unused;
	assert_int_equal(testing_read(disk->top, 0, bytes, 512), -EIO);
	assert_int_equal(testing_change(disk, "flaky errors=100% ops=flush | memory", &err), 0);
	assert_ptr_equal(disk->top, flaky);
	assert_int_equal(testing_read(disk->top, 0, bytes, 512), 0);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), -EIO);
	assert_int_equal(testing_change(disk, "flaky | memory", &err), 0);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), 0);
	disk_close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(how_long),
		cmocka_unit_test(a_change_lets_go),
		cmocka_unit_test(after_it_is_done),
		cmocka_unit_test(flaky_changes_its_mind),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("delay", tests, NULL, NULL);
}
