/* SPDX-License-Identifier: BSD-3-Clause */
/* io_test.c - views of data, pools, the order of completion, parts, errands, wake-ups, contract
 * checks */
#include "io/io.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/layer.h"

#define ROOTS   4u
#define PARTS   3u
#define FRAMES  3u
#define VECTORS 2u

static struct loop *loop;
static struct io_queue queue;

static int open_queue(void **unused)
{
	(void)unused;
	loop = loop_create(&(struct loop_config){ .name = "io", .cpu = -1 }, NULL);
	return !loop || io_queue_init(&queue, loop, ROOTS, ROOTS * PARTS, FRAMES, VECTORS);
}

static int close_queue(void **unused)
{
	(void)unused;
	io_queue_release(&queue);
	loop_destroy(loop);
	return 0;
}

/* --- data ------------------------------------------------------------------------------ */

static void slices(void **unused)
{
	char bytes[] = "0123456789", out[8] = "";
	struct iovec vec[] = { { bytes, 3 }, { bytes + 3, 0 }, { bytes + 3, 1 }, { bytes + 4, 6 } };
	struct io_data all = { .vec = vec, .count = 4 };

	(void)unused;
	assert_int_equal(io_data_length(all), 10);
	for (unsigned start = 0; start < 10; start++) {
		struct io_data slice = io_data_slice(all, start);

		assert_int_equal(io_data_length(slice), 10 - start);
		assert_true(slice.skip < slice.vec->iov_len);
		io_data_copy_out(slice, out, 1);
		assert_int_equal(out[0], bytes[start]);
		/* A slice of a slice. */
		assert_memory_equal(&(struct io_data[]){ io_data_slice(
					    io_data_slice(all, start / 2), start - start / 2) }[0],
				    &slice, sizeof slice);
	}
	assert_int_equal(io_data_length(io_data_slice(all, 10)), 0);
}

static void copies(void **unused)
{
	char a[4], b[5], out[8] = "";
	struct iovec vec[] = { { a, 4 }, { b, 5 } };
	struct io_data data = { .vec = vec, .count = 2, .skip = 2 };

	(void)unused;
	memset(a, '-', sizeof a);
	memset(b, '-', sizeof b);
	io_data_copy_in(data, "wxyz", 4);
	assert_memory_equal(a, "--wx", 4);
	assert_memory_equal(b, "yz---", 5);
	io_data_copy_out(data, out, 5);
	assert_memory_equal(out, "wxyz-", 6);
	io_data_zero(io_data_slice(data, 1), 2);
	assert_memory_equal(a, "--w\0", 4);
	assert_memory_equal(b, "\0z---", 5);
}

/* --- pools ----------------------------------------------------------------------------- */

static void pools_end_and_begin_again(void **unused)
{
	struct io *io[ROOTS];

	(void)unused;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ROOTS; i++) {
			io[i] = io_get(&queue);
			assert_non_null(io[i]);
			assert_ptr_equal(io[i]->queue, &queue);
			assert_int_equal(io[i]->depth, 0);
			assert_int_equal(io[i]->flags, 0);
			assert_int_equal(queue.out, i + 1);
			for (unsigned k = 0; k < i; k++) {
				assert_ptr_not_equal(io[i], io[k]);
				assert_ptr_not_equal(io_vector(io[i]), io_vector(io[k]));
			}
			/* All of it is ours to write. */
			memset(io_vector(io[i]), 0xff, VECTORS * sizeof(struct iovec));
			memset(io[i]->frame, 0xff, FRAMES * sizeof *io[i]->frame);
			io[i]->flags = IO_FUA;
		}
		assert_null(io_get(&queue));
		for (unsigned i = 0; i < ROOTS; i++)
			io_put(io[(i + round) % ROOTS]);
		assert_int_equal(queue.out, 0);
	}
}

/* --- the way up ------------------------------------------------------------------------ */

static struct io *back[8];
static unsigned backs;

static void comes_back(struct layer *layer, struct io *io)
{
	(void)layer;
	back[backs++] = io;
}

static struct io *make_io(enum io_op op)
{
	struct io *io = io_get(&queue);
	struct iovec *vec = io_vector(io);
	static char bytes[1024];

	vec[0] = (struct iovec){ bytes, 400 };
	vec[1] = (struct iovec){ bytes + 400, 624 };
	io->op = (uint8_t)op;
	io->offset = 4096;
	io->length = 1024;
	io->data = (struct io_data){ .vec = vec, .count = 2 };
	backs = 0;
	return io;
}

static void completions_come_in_order_and_later(void **unused)
{
	struct io *io[3];

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		io[i] = make_io(IO_READ);
		io_push(NULL, io[i], comes_back);
	}
	io_finish(io[1], 0);
	io_finish(io[2], -EIO);
	io_finish(io[0], 0);
	assert_int_equal(backs, 0); /* a done never runs inside */
	io_queue_run(&queue);
	assert_int_equal(backs, 3);
	assert_ptr_equal(back[0], io[1]);
	assert_ptr_equal(back[1], io[2]);
	assert_ptr_equal(back[2], io[0]);
	assert_int_equal(io[2]->status, -EIO);
	for (unsigned i = 0; i < 3; i++)
		io_put(io[i]);
}

static void frame_restores(struct layer *layer, struct io *io)
{
	assert_ptr_equal(layer, &queue);
	assert_int_equal(io->offset, 4096);
	assert_int_equal(io->length, 1024);
	assert_ptr_equal(io->data.vec, io_vector(io));
	assert_int_equal(io->data.count, 2);
	assert_int_equal(io_frame(io)->note[0], 17);
	assert_int_equal(io_frame(io)->note[1], 23);
	io_finish(io, io->status);
}

static void frames_restore_what_they_saw(void **unused)
{
	struct io *io = make_io(IO_WRITE);
	struct io_frame *frame;

	(void)unused;
	io_push(NULL, io, comes_back);
	frame = io_push((struct layer *)&queue, io, frame_restores);
	frame->note[0] = 17;
	frame->note[1] = 23;
	io->offset = io->length = 1;
	io->data = (struct io_data){ 0 };
	io_finish(io, 0);
	io_queue_run(&queue);
	assert_int_equal(backs, 1);
	io_put(io);
}

/* --- parts ----------------------------------------------------------------------------- */

/* Keeps what it is sent. */
static struct io *kept[PARTS];
static unsigned keeps;

static void keep(struct layer *layer, struct io *io)
{
	(void)layer;
	kept[keeps++] = io;
}

static const struct layer_ops keeper_ops = { .name = "keeper", .submit = keep };
static struct layer keeper = { .ops = &keeper_ops };

static void split(struct io *io, unsigned parts)
{
	keeps = 0;
	io_parts_begin(NULL, io, comes_back);
	for (unsigned i = 0; i < parts; i++)
		io_send_part(io, &keeper, i * 300, 300, 9000 + i);
	io_parts_end(io);
}

static void parts_come_back_as_one(void **unused)
{
	struct io *io = make_io(IO_WRITE);

	(void)unused;
	io->flags = IO_FUA;
	split(io, 3);
	assert_int_equal(keeps, 3);
	assert_int_equal(kept[1]->op, IO_WRITE);
	assert_int_equal(kept[1]->flags, IO_FUA);
	assert_int_equal(kept[1]->offset, 9001);
	assert_int_equal(kept[1]->length, 300);
	assert_int_equal(kept[1]->data.skip, 300);
	assert_ptr_equal(kept[2]->data.vec, io_vector(io) + 1);
	assert_int_equal(kept[2]->data.skip, 200);
	io_finish(kept[2], 0);
	io_finish(kept[0], -ENOSPC);
	io_queue_run(&queue);
	assert_int_equal(backs, 0);
	io_finish(kept[1], -EIO);
	io_queue_run(&queue);
	assert_int_equal(backs, 1);
	assert_int_equal(io->status, -ENOSPC); /* the first error */
	assert_int_equal(io->offset, 4096);
	io_put(io);
}

static void no_parts_are_a_success(void **unused)
{
	struct io *io = make_io(IO_WRITE);

	(void)unused;
	split(io, 0);
	assert_int_equal(backs, 0);
	io_queue_run(&queue);
	assert_int_equal(backs, 1);
	assert_int_equal(io->status, 0);
	io_put(io);
}

static int part_status[PARTS];

static void part_back(struct layer *layer, struct io *part)
{
	assert_ptr_equal(layer, &keeper);
	part_status[io_frame(part)->note[0]] = part->status;
	/* An error that the layer makes good does not count. */
	io_part_end(part, part->status == -EIO ? 0 : part->status);
}

static void a_layer_sees_each_of_its_parts_come_back(void **unused)
{
	struct io *io = make_io(IO_READ);

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		keeps = backs = 0;
		io_parts_begin(NULL, io, comes_back);
		for (unsigned i = 0; i < PARTS; i++) {
			struct io *part = io_part(io, i * 100, 100, 7000);

			assert_ptr_equal(part->whole, io);
			assert_int_equal(part->op, IO_READ);
			assert_int_equal(part->depth, 0);
			io_push(&keeper, part, part_back)->note[0] = i;
			io_send(&keeper, part);
		}
		io_parts_end(io);
		assert_int_equal(queue.inside, 1 + PARTS);
		io_finish(kept[0], -EIO);
		io_finish(kept[1], round ? -ENOSPC : 0);
		io_finish(kept[2], 0);
		io_queue_run(&queue);
		assert_int_equal(backs, 1);
		assert_int_equal(io->status, round ? -ENOSPC : 0);
		assert_int_equal(part_status[0], -EIO);
		assert_int_equal(part_status[1], round ? -ENOSPC : 0);
		assert_int_equal(queue.inside, 0);
	}
	io_put(io);
}

/* --- errands ----------------------------------------------------------------------------- */

static void errand_back(struct layer *layer, struct io *errand)
{
	(void)layer;
	backs++;
	io_errand_end(errand);
}

static void emptied(struct io_queue *q)
{
	*(unsigned *)q->owner += 1;
}

static void errands_keep_a_queue_from_being_empty(void **unused)
{
	struct io *io = make_io(IO_WRITE), *errand;
	unsigned empty = 0;

	(void)unused;
	queue.owner = &empty;
	queue.empty = emptied;
	keeps = 0;
	io_push(NULL, io, comes_back);
	assert_null(io_errand(&queue)); /* none were declared; the parts are not theirs */
	queue.errands_max = 1;
	errand = io_errand(&queue);
	assert_non_null(errand);
	assert_null(io_errand(&queue));
	assert_null(errand->whole);
	errand->op = IO_FLUSH;
	errand->offset = errand->length = 0;
	io_push(&keeper, errand, errand_back);
	io_send(&keeper, errand);
	io_finish(io, 0);
	io_queue_run(&queue);
	assert_int_equal(backs, 1);
	assert_int_equal(queue.inside, 1);
	assert_int_equal(empty, 0);
	io_put(io);
	assert_int_equal(queue.out, 0);
	io_finish(kept[0], 0);
	io_queue_run(&queue);
	assert_int_equal(backs, 2);
	assert_int_equal(empty, 1);
	assert_int_equal(queue.errands, 0);
}

/* --- other threads --------------------------------------------------------------------------- */

#define WAKES 20000u

static _Atomic(struct io *) handed[ROOTS];
static unsigned woken, bounced[ROOTS];

/* Gives back what it is handed, as a worker or a library does. */
static void *waker(void *stop)
{
	while (!atomic_load((atomic_bool *)stop))
		for (unsigned i = 0; i < ROOTS; i++) {
			struct io *io = atomic_exchange(&handed[i], NULL);

			if (io)
				io_wake(io, &keeper, io->wake);
		}
	return NULL;
}

static void bounce(struct layer *layer, struct io *io)
{
	unsigned i = (unsigned)io->frame[0].note[0];

	assert_ptr_equal(layer, &keeper);
	assert_ptr_equal(loop_self(), io->queue->loop);
	bounced[i]++;
	woken++;
	if (bounced[i] == WAKES) {
		io_finish(io, 0);
		return;
	}
	io->wake = bounce;
	atomic_store(&handed[i], io);
}

static void bounced_enough(struct layer *layer, struct io *io)
{
	comes_back(layer, io);
	if (backs == ROOTS)
		loop_stop(loop);
}

static void begin_bouncing(struct loop_message *message)
{
	struct io *io[ROOTS];

	(void)message;
	for (unsigned i = 0; i < ROOTS; i++)
		io[i] = make_io(IO_READ);
	for (unsigned i = 0; i < ROOTS; i++) {
		io_push(NULL, io[i], bounced_enough)->note[0] = i;
		/* From the queue's own thread as well. */
		io_wake(io[i], &keeper, bounce);
	}
}

static void each_wake_arrives_once_on_the_queue_s_thread(void **unused)
{
	struct loop_message begin = { .run = begin_bouncing };
	pthread_t thread[2];
	atomic_bool stop = false;

	(void)unused;
	woken = 0;
	memset(bounced, 0, sizeof bounced);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, waker, &stop), 0);
	loop_send(loop, &begin);
	alarm(60);
	assert_int_equal(loop_run(loop, NULL), 0);
	alarm(0);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(woken, ROOTS * WAKES);
	for (unsigned i = 0; i < ROOTS; i++)
		io_put(back[i]);
}

/* --- another size ---------------------------------------------------------------------------- */

static void requests_move_with_their_queue(void **unused)
{
	static const struct {
		unsigned parts, frames;
	} sizes[] = { { 40, FRAMES }, { 0, 9 }, { 0, 9 }, { 7, 1 }, { ROOTS * PARTS, FRAMES } };
	struct io *list = NULL, *io;

	(void)unused;
	for (unsigned i = 0; i + 1 < ROOTS; i++) {
		io = make_io(IO_WRITE);
		io->started = 70 + i;
		io->data.skip = i;
		io_push(NULL, io, comes_back)->note[1] = 90 + i;
		io->data = io_data_slice(io->data, 400); /* in its second vector */
		io->next = list;
		list = io;
	}
	queue.inside = 0; /* as at the gate */
	for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
		unsigned i = ROOTS - 1;

		assert_int_equal(io_queue_refit(&queue, sizes[n].parts, sizes[n].frames, &list), 0);
		assert_int_equal(queue.frames, sizes[n].frames);
		assert_int_equal(queue.parts.total, sizes[n].parts);
		for (io = list; io; io = io->next) {
			i--;
			assert_int_equal(io->started, 70 + i);
			assert_int_equal(io->frame[0].note[1], 90 + i);
			assert_int_equal(io->frame[0].data.skip, i);
			assert_ptr_equal(io->frame[0].data.vec, io_vector(io));
			assert_ptr_equal(io->data.vec, io_vector(io) + 1);
			assert_int_equal(io->data.vec->iov_len, 624);
			assert_int_equal(io->data.skip, i);
		}
		assert_int_equal(i, 0);
	}
	/* The pools know what is out. */
	assert_int_equal(queue.out, ROOTS - 1);
	io = io_get(&queue);
	assert_non_null(io);
	assert_null(io_get(&queue));
	io_put(io);
	backs = 0;
	queue.inside = ROOTS - 1;
	while ((io = list)) {
		list = io->next;
		io_finish(io, 0);
	}
	io_queue_run(&queue);
	assert_int_equal(backs, ROOTS - 1);
	for (unsigned i = 0; i < backs; i++) {
		assert_ptr_equal(back[i]->data.vec, io_vector(back[i]));
		io_put(back[i]);
	}
}

/* --- the contract ---------------------------------------------------------------------- */

#ifdef IO_CHECKS
static struct io *sent(enum io_op op)
{
	struct io *io = make_io(op);

	io_push(NULL, io, comes_back);
	return io;
}

static void finish_twice(void)
{
	struct io *io = sent(IO_READ);

	io_finish(io, 0);
	io_finish(io, 0);
}

static void send_after_finish(void)
{
	struct io *io = sent(IO_READ);

	io_finish(io, 0);
	io_send(&keeper, io);
}

static void use_after_put(void)
{
	struct io *io = make_io(IO_READ);

	io_put(io);
	io_push(NULL, io, comes_back);
}

static void put_twice(void)
{
	struct io *io = make_io(IO_READ);

	io_put(io);
	io_put(io);
}

static void too_many_frames(void)
{
	struct io *io = make_io(IO_READ);

	for (unsigned i = 0; i <= FRAMES; i++)
		io_push(NULL, io, comes_back);
}

static void send_without_frame(void)
{
	io_send(&keeper, make_io(IO_READ));
}

static void finish_without_frame(void)
{
	io_finish(make_io(IO_READ), 0);
}

static void positive_status(void)
{
	io_finish(sent(IO_READ), EIO);
}

static void short_data(void)
{
	struct io *io = sent(IO_WRITE);

	io->length++;
	io_send(&keeper, io);
}

static void wrapping_range(void)
{
	struct io *io = sent(IO_DISCARD);

	io->offset = UINT64_MAX - 100;
	io_send(&keeper, io);
}

static void unknown_op(void)
{
	io_send(&keeper, sent(IO_OPS));
}

static void too_many_parts(void)
{
	struct io *io = make_io(IO_WRITE);

	io_parts_begin(NULL, io, comes_back);
	for (unsigned i = 0; i <= ROOTS * PARTS; i++) {
		keeps = 0;
		io_send_part(io, &keeper, 0, 1, 0);
	}
}

static void use_elsewhere(struct loop_message *message)
{
	(void)message;
	make_io(IO_READ);
	io_push(NULL, make_io(IO_READ), comes_back);
}

static void another_thread(void)
{
	struct loop *other = loop_create(
		&(struct loop_config){ .name = "other", .engine = LOOP_THREADS, .cpu = -1 }, NULL);
	struct loop_message message = { .run = use_elsewhere };

	loop_send(other, &message);
	loop_run(other, NULL);
}

static const struct breach {
	void (*commit)(void);
	const char *rule;
} breaches[] = {
	{ finish_twice, "used after io_finish" },
	{ send_after_finish, "used after io_finish" },
	{ use_after_put, "used after io_put" },
	{ put_twice, "used after io_put" },
	{ too_many_frames, "more frames than the stack declared" },
	{ send_without_frame, "sent without a frame to come back to" },
	{ finish_without_frame, "finished with no frame to come back to" },
	{ positive_status, "finished with a positive status" },
	{ short_data, "data is shorter than length" },
	{ wrapping_range, "range wraps" },
	{ unknown_op, "unknown op" },
	{ too_many_parts, "more parts than the layers declared as fan_out" },
	{ another_thread, "used on another thread" },
};

/* In a child, which must abort and say which rule. */
static void check_breach(const struct breach *b)
{
	char text[500] = "";
	int said[2], status;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe(said), 0);
	child = fork();
	if (!child) {
		signal(SIGABRT, SIG_DFL);
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		alarm(10);
		dup2(said[1], 2);
		b->commit();
		_exit(0);
	}
	close(said[1]);
	for (size_t at = 0; (n = read(said[0], text + at, sizeof text - 1 - at)) > 0;)
		at += (size_t)n;
	close(said[0]);
	waitpid(child, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(text, b->rule))
		fail_msg("'%s' was not caught: status %#x, said: %s", b->rule, (unsigned)status,
			 text);
}

static void breaches_abort(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < sizeof breaches / sizeof *breaches; i++)
		check_breach(&breaches[i]);
}
#else
static void breaches_abort(void **unused)
{
	(void)unused;
	skip(); /* takes -Dchecks=true */
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slices),
		cmocka_unit_test(copies),
		cmocka_unit_test_setup_teardown(pools_end_and_begin_again, open_queue, close_queue),
		cmocka_unit_test_setup_teardown(completions_come_in_order_and_later, open_queue,
						close_queue),
		cmocka_unit_test_setup_teardown(frames_restore_what_they_saw, open_queue,
						close_queue),
		cmocka_unit_test_setup_teardown(parts_come_back_as_one, open_queue, close_queue),
		cmocka_unit_test_setup_teardown(no_parts_are_a_success, open_queue, close_queue),
		cmocka_unit_test_setup_teardown(a_layer_sees_each_of_its_parts_come_back,
						open_queue, close_queue),
		cmocka_unit_test_setup_teardown(errands_keep_a_queue_from_being_empty, open_queue,
						close_queue),
		cmocka_unit_test_setup_teardown(each_wake_arrives_once_on_the_queue_s_thread,
						open_queue, close_queue),
		cmocka_unit_test_setup_teardown(requests_move_with_their_queue, open_queue,
						close_queue),
		cmocka_unit_test_setup_teardown(breaches_abort, open_queue, close_queue),
	};

	return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
