/* SPDX-License-Identifier: BSD-3-Clause */
/* frame_pipe_test.c - frames from one thread to another, in order and whole, however they lie */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "packet/uplink/frame_pipe.h"

#define SIZE   (256u << 10)
#define FRAMES 200000u

/* Of all lengths, the same each time: none, and now and then a large one. */
static uint32_t length_of(uint32_t i)
{
	uint32_t x = i * 2654435761u;

	return x % 64 ? (x >> 8) % 300 : (x >> 8) % 65536;
}

static void wait_on(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, 10000) != 1)
		abort(); /* nobody woke us */
	frame_pipe_awake(fd);
}

static void *put_all(void *data)
{
	struct frame_pipe *pipe = data;

	for (uint32_t i = 0; i < FRAMES; i++) {
		uint32_t length = length_of(i);
		struct frame_record *record = frame_pipe_reserve(pipe, length);

		while (!record) {
			frame_pipe_putter_waits(pipe);
			record = frame_pipe_reserve(pipe, length);
			if (record)
				break;
			wait_on(pipe->to_putter);
			record = frame_pipe_reserve(pipe, length);
		}
		record->time = i;
		record->note = ~i;
		memset(record->data, (int)(i & 0xff), length);
		frame_pipe_put(pipe);
	}
	return NULL;
}

static void test_order(void **state)
{
	struct frame_pipe pipe;
	pthread_t thread;

	(void)state;
	assert_int_equal(frame_pipe_init(&pipe, SIZE), 0);
	assert_int_equal(pthread_create(&thread, NULL, put_all, &pipe), 0);
	for (uint32_t i = 0; i < FRAMES; i++) {
		struct frame_record *record = frame_pipe_first(&pipe);

		while (!record) {
			frame_pipe_taker_waits(&pipe);
			record = frame_pipe_first(&pipe);
			if (record)
				break;
			wait_on(pipe.to_taker);
			record = frame_pipe_first(&pipe);
		}
		assert_int_equal(record->time, i);
		assert_int_equal(record->note, ~i);
		assert_int_equal(record->length, length_of(i));
		for (uint32_t b = 0; b < record->length; b++)
			if (record->data[b] != (uint8_t)i)
				fail_msg("frame %u is damaged at %u", i, b);
		frame_pipe_drop(&pipe, record);
	}
	assert_null(frame_pipe_first(&pipe));
	pthread_join(thread, NULL);
	frame_pipe_release(&pipe);
}

static void test_full(void **state)
{
	struct frame_pipe pipe;
	struct frame_record *record;
	unsigned count = 0;

	(void)state;
	assert_int_equal(frame_pipe_init(&pipe, SIZE), 0);
	while ((record = frame_pipe_reserve(&pipe, 1000))) {
		record->time = count++;
		frame_pipe_put(&pipe);
	}
	assert_int_equal(count, SIZE / 1024); /* with its header, aligned */
	frame_pipe_drop(&pipe, frame_pipe_first(&pipe));
	assert_non_null(frame_pipe_reserve(&pipe, 1000));
	frame_pipe_put(&pipe);
	assert_null(frame_pipe_reserve(&pipe, 1000));
	assert_int_equal(frame_pipe_first(&pipe)->time, 1);
	frame_pipe_release(&pipe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
