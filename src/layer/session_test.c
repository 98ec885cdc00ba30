/* SPDX-License-Identifier: BSD-3-Clause */
/* session_test.c - requests that are waited for: what they carry, what they return, when */
#include "layer/session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/stack.h"
#include "layer/testing_build.h"
#include "layer/testing_stack.h"

#define MIB (1u << 20)

static struct layer *open_stack(struct stack_config *stack)
{
	const struct stack_setting setting = { .disk = "session", .block_size = 512 };
	struct error err = { 0 };
	struct layer *top = stack_open(&setting, stack, NULL, &err);

	if (!top)
		fail_msg("%s", err.text);
	stack_config_release(stack);
	return top;
}

static struct layer *open_text(const char *text)
{
	struct stack_config stack = testing_stack(text);

	return open_stack(&stack);
}

static struct session *begin(struct layer *top)
{
	struct error err = { 0 };
	struct session *session = session_open(top, &err);

	if (!session)
		fail_msg("%s", err.text);
	return session;
}

/* Bytes that differ all along. */
static unsigned char *pattern(size_t length, unsigned seed)
{
	unsigned char *bytes = malloc(length);

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)(seed + i * 7 + i / 251);
	return bytes;
}

static bool all(const unsigned char *bytes, size_t length, unsigned char value)
{
	return bytes[0] == value && !memcmp(bytes, bytes + 1, length - 1);
}

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- what they carry ------------------------------------------------------------------------- */

static void what_is_written_is_read(void **unused)
{
	/* Longer than one request may be, from memory at an odd place. */
	const size_t length = 2 * MIB + MIB / 2 + 512;
	struct layer *top = open_text("memory size=8M");
	struct session *session = begin(top), *another;
	unsigned char *sent = pattern(length + 1, 1), *found = malloc(length + 1024);

	(void)unused;
	assert_int_equal(session_write(session, 1024, sent + 1, length, 0), 0);
	assert_int_equal(session_read(session, 512, found, length + 1024), 0);
	assert_true(all(found, 512, 0));
	assert_memory_equal(found + 512, sent + 1, length);
	assert_true(all(found + 512 + length, 512, 0));
	/* Another one beside it sees the same. */
	another = begin(top);
	assert_int_equal(session_write(another, 1024, sent, 512, IO_FUA), 0);
	assert_int_equal(session_read(session, 1024, found, 1024), 0);
	assert_memory_equal(found, sent, 512);
	assert_memory_equal(found + 512, sent + 1 + 512, 512);
	session_close(another);
	session_close(session);
	session_close(NULL);
	stack_close(top);
	free(sent);
	free(found);
}

static void nothing_is_no_request(void **unused)
{
	struct layer *top = open_text("flaky errors=100% | memory size=1M");
	struct session *session = begin(top);

	(void)unused;
	assert_int_equal(session_read(session, 0, NULL, 0), 0);
	assert_int_equal(session_write(session, 0, NULL, 0, 0), 0);
	session_close(session);
	stack_close(top);
}

static void requests_without_data(void **unused)
{
	struct layer *top = open_text("memory size=4M");
	struct session *session = begin(top);
	unsigned char *bytes = pattern(3 * MIB, 5), *found = malloc(3 * MIB);

	(void)unused;
	assert_int_equal(session_write(session, 0, bytes, 3 * MIB, 0), 0);
	assert_int_equal(session_do(session, IO_ZEROES, 512, 2 * MIB, IO_UNMAP), 0);
	assert_int_equal(session_do(session, IO_DISCARD, 2 * MIB + 512, 512, 0), 0);
	assert_int_equal(session_do(session, IO_FLUSH, 0, 0, 0), 0);
	memset(bytes + 512, 0, 2 * MIB);
	assert_int_equal(session_read(session, 0, found, 3 * MIB), 0);
	assert_memory_equal(found, bytes, 2 * MIB + 512);
	/* A discard may do nothing. */
	assert_true(all(found + 2 * MIB + 512, 512, 0) ||
		    !memcmp(found + 2 * MIB + 512, bytes + 2 * MIB + 512, 512));
	assert_memory_equal(found + 2 * MIB + 1024, bytes + 2 * MIB + 1024, MIB - 1024);
	session_close(session);
	stack_close(top);
	free(found);
	free(bytes);
}

/* --- what they return ------------------------------------------------------------------------ */

static void an_error_is_returned_and_the_next_one_goes_on(void **unused)
{
	struct layer *top = open_text("flaky errors=100% ops=write | memory size=1M");
	struct session *session = begin(top);
	unsigned char bytes[512];

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(session_write(session, 0, bytes, sizeof bytes, 0), -EIO);
		assert_int_equal(session_do(session, IO_ZEROES, 0, 512, 0), -EIO);
		memset(bytes, 'x', sizeof bytes);
		assert_int_equal(session_read(session, 0, bytes, sizeof bytes), 0);
		assert_true(all(bytes, sizeof bytes, 0));
		assert_int_equal(session_do(session, IO_FLUSH, 0, 0, 0), 0);
	}
	session_close(session);
	stack_close(top);
	top = open_text("flaky errors=100% ops=read | memory size=1M");
	assert_int_equal(testing_write(top, 0, bytes, sizeof bytes), 0);
	assert_int_equal(testing_read(top, 0, bytes, sizeof bytes), -EIO);
	stack_close(top);
	top = open_text("flaky errors=100% ops=flush | memory size=1M");
	assert_int_equal(testing_do(top, IO_FLUSH, 0, 0), -EIO);
	stack_close(top);
}

static void a_transfer_ends_at_its_first_error(void **unused)
{
	struct layer *top = open_text("extent size=8M | memory size=2M");
	struct session *session = begin(top);
	unsigned char *sent = pattern(4 * MIB, 9), *found = malloc(4 * MIB);

	(void)unused;
	/* What is behind the end of the memory reads as zeroes, and cannot be written. */
	assert_true(session_write(session, MIB, sent, 4 * MIB, 0) < 0);
	assert_int_equal(session_read(session, MIB, found, 4 * MIB), 0);
	assert_memory_equal(found, sent, MIB);
	assert_true(all(found + MIB, 3 * MIB, 0));
	session_close(session);
	stack_close(top);
	free(sent);
	free(found);
}

/* --- when ------------------------------------------------------------------------------------ */

static void a_request_is_waited_for(void **unused)
{
	struct layer *top = open_text("delay delay=40ms ops=read | memory size=1M");
	struct session *session = begin(top);
	uint64_t began = milliseconds();
	unsigned char bytes[512];

	(void)unused;
	assert_int_equal(session_read(session, 0, bytes, sizeof bytes), 0);
	assert_true(milliseconds() - began >= 40);
	session_close(session);
	stack_close(top);
}

/* A layer that has something of its own to do when it is read. */
static unsigned errands_begun, errands_ended;

static void errand_done(struct layer *layer, struct io *io)
{
	(void)layer;
	errands_ended++;
	io_errand_end(io);
}

static void busy_submit(struct layer *layer, struct io *io)
{
	struct io *errand = io->op == IO_READ ? io_errand(io->queue) : NULL;

	if (errand) {
		errands_begun++;
		errand->op = IO_FLUSH;
		errand->offset = errand->length = 0;
		io_push(layer, errand, errand_done);
		io_send(layer->below, errand);
	}
	io_send(layer->below, io);
}

static const struct layer_ops busy_ops = {
	.name = "busy",
	.size = sizeof(struct layer),
	.errands = 1,
	.submit = busy_submit,
};

static void it_does_not_close_over_errands(void **unused)
{
	struct stack_config stack = { 0 };
	struct session *session;
	unsigned char bytes[512];
	struct layer *top;

	(void)unused;
	testing_layer(&stack, &busy_ops);
	testing_set(testing_layer(&stack, layer_find("delay")), "delay", "30ms");
	testing_set(&stack.layers[1], "ops", "flush");
	testing_set(testing_layer(&stack, layer_find("memory")), "size", "1M");
	top = open_stack(&stack);
	session = begin(top);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(session_read(session, 0, bytes, sizeof bytes), 0);
		assert_int_equal(errands_begun, i);
		assert_int_equal(errands_ended, i);
	}
	session_close(session);
	stack_close(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(nothing_is_no_request),
		cmocka_unit_test(requests_without_data),
		cmocka_unit_test(an_error_is_returned_and_the_next_one_goes_on),
		cmocka_unit_test(a_transfer_ends_at_its_first_error),
		cmocka_unit_test(a_request_is_waited_for),
		cmocka_unit_test(it_does_not_close_over_errands),
	};

	alarm(50);
	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
