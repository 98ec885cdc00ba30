/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_change_test.c - undo, and an overlay that comes, while the disk is in use
 */
#include <errno.h>

#include "layer/change.h"
#include "layer/overlay_testing.h"
#include "layer/testing_stack.h"
#include "util/log.h"

static struct in_use {
	struct disk *disk;
	struct disk_queue *queue;
	struct loop *serving, *control;
	struct loop_message begin, stop, close, over, commit;
	struct change *change;
	struct change_end end;
	struct error err;
	struct iovec vec;
	bool ending;
	uint64_t writes;
} in_use;

static void write_next(void);

static void written(struct layer *layer, struct io *io)
{
	(void)layer;
	if (io->status)
		in_use.err.code = -io->status;
	in_use.writes++;
	io_put(io);
	if (in_use.ending)
		loop_send(in_use.serving, &in_use.close);
	else
		write_next();
}

static void close_queue(struct loop_message *message)
{
	(void)message;
	disk_queue_close(in_use.queue);
	loop_send(in_use.control, &in_use.over);
}

static void write_next(void)
{
	struct io *io = io_get(&in_use.queue->ios);

	io->op = in_use.writes % 16 == 15 ? IO_FLUSH : IO_WRITE;
	io->flags = 0;
	io->offset = io->op == IO_FLUSH ? 0 : in_use.writes * 11 % 2000 * 4096;
	io->length = io->op == IO_FLUSH ? 0 : 4096;
	io->data = (struct io_data){ .vec = &in_use.vec, .count = 1 };
	disk_submit(in_use.queue, io, written);
}

static void begin_writing(struct loop_message *message)
{
	(void)message;
	in_use.queue = disk_queue_open(in_use.disk, in_use.serving, 4, 1);
	write_next();
	loop_send(in_use.control, &in_use.commit);
}

static void end_writing(struct loop_message *message)
{
	(void)message;
	in_use.ending = true;
}

static void all_over(struct loop_message *message)
{
	(void)message;
	loop_stop(in_use.control);
}

static void undo_ended(struct change_end *end, struct error *err)
{
	(void)end;
	if (err->code)
		in_use.err = *err;
	loop_send(in_use.serving, &in_use.stop);
}

static void commit_undo(struct loop_message *message)
{
	(void)message;
	change_commit(in_use.change, in_use.control, &in_use.end);
}

/* Requests that come meanwhile wait; none fails, and all that was written before is gone. */
static void undo_while_in_use(void **unused)
{
	const struct loop_config config = { .name = "undo", .cpu = -1 };
	unsigned char bytes[4096];
	struct error err = { 0 };
	uint64_t before;

	(void)unused;
	memset(bytes, 'x', sizeof bytes);
	in_use = (struct in_use){ .begin.run = begin_writing,
				  .stop.run = end_writing,
				  .close.run = close_queue,
				  .over.run = all_over,
				  .commit.run = commit_undo,
				  .end.done = undo_ended,
				  .vec = { bytes, sizeof bytes } };
	in_use.disk = open_disk();
	write_at(in_use.disk, 0, BASE_BYTES, 'a');
	flush(in_use.disk);
	before = stored(in_use.disk);
	in_use.change = change_prepare_undo(in_use.disk, &err);
	assert_non_null(in_use.change);
	in_use.serving = loop_create(&config, &err);
	in_use.control = loop_create(&config, &err);
	loop_send(in_use.serving, &in_use.begin);
	assert_int_equal(loop_start(in_use.serving, &err), 0);
	assert_int_equal(loop_run(in_use.control, &err), 0);
	loop_stop(in_use.serving);
	loop_destroy(in_use.serving);
	loop_destroy(in_use.control);
	change_finish(in_use.change);
	assert_int_equal(in_use.err.code, 0);
	assert_int_equal(before, BASE_BYTES);
	assert_true(stored(in_use.disk) < BASE_BYTES);
	/* Nobody wrote there since. */
	expect(in_use.disk, 2000 * 4096, BASE_BYTES - 2000 * 4096, BASE);
	disk_close(in_use.disk);
	in_use.disk = open_disk();
	expect(in_use.disk, 2000 * 4096, BASE_BYTES - 2000 * 4096, BASE);
	disk_close(in_use.disk);
}

/* An overlay that comes while the disk is in use. */
static void its_base_is_written_to_until_it_is_there(void **unused)
{
	const struct loop_config config = { .name = "change", .engine = LOOP_THREADS, .cpu = -1 };
	struct error err = { 0 };
	struct testing_change t = { .begin.run = testing_change_begin,
				    .end.done = testing_change_ended,
				    .err = &err };
	struct stack_config stack;
	unsigned char bytes[512];
	struct disk *disk;
	char text[700];

	(void)unused;
	snprintf(text, sizeof text, "file path=%s", base_path);
	disk = testing_disk(text);
	snprintf(text, sizeof text, "overlay [file path=%s create=true] | file path=%s", store_path,
		 base_path);
	stack = testing_stack(text);
	t.change = change_prepare(disk, &stack, &err);
	stack_config_release(&stack);
	if (!t.change)
		fail_msg("%s", err.text);
	write_at(disk, 0, sizeof bytes, 'b');
	t.loop = loop_create(&config, NULL);
	assert_non_null(t.loop);
	loop_send(t.loop, &t.begin);
	assert_int_equal(loop_run(t.loop, NULL), 0);
	loop_destroy(t.loop);
	change_finish(t.change);
	assert_int_equal(err.code, 0);
	write_at(disk, 65536, sizeof bytes, 'o');
	disk_close(disk);
	disk = open_disk();
	expect(disk, 0, sizeof bytes, 'b');
	expect(disk, 65536, sizeof bytes, 'o');
	disk_close(disk);
	get(base_path, 0, bytes, sizeof bytes);
	assert_int_equal(bytes[0], 'b');
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = base_byte(i);
	put(base_path, 0, bytes, sizeof bytes);
}

static void only_an_overlay_can_undo(void **unused)
{
	struct layer_config list[] = { { .ops = layer_find("memory") } };
	struct error err = { 0 };
	struct disk *disk = testing_open("test", &(struct disk_config){ 0 }, list, 1, NULL, &err);

	(void)unused;
	assert_null(change_prepare_undo(disk, &err));
	assert_int_equal(err.code, ENOTSUP);
	disk_close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVERLAY_TEST(undo_while_in_use),
		OVERLAY_TEST(its_base_is_written_to_until_it_is_there),
		OVERLAY_TEST(only_an_overlay_can_undo),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("overlay change", tests, NULL, NULL);
}
