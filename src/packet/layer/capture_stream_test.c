/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_stream_test.c - readers that are slow, do not read at all, go, or have enough: the
 * packets do not wait for them, and what was missed is counted
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "packet/layer/capture_testing.h"

struct stream {
	char name[CAPTURE_STREAM_NAME];
	uint64_t limit;
	int fd;
};

static void stream_now(void *data)
{
	struct stream *stream = data;

	assert_int_equal(capture_stream_create(stream->name, stream->limit, &stream->fd, NULL), 0);
}

/* Reads all there is into the file @path, to its end. */
static void save(int from, const char *path)
{
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	static char bytes[65536];
	ssize_t n;

	fcntl(from, F_SETFL, 0);
	while ((n = read(from, bytes, sizeof bytes)) > 0)
		assert_int_equal(write(to, bytes, (size_t)n), n);
	assert_int_equal(n, 0);
	close(to);
	close(from);
}

struct reader {
	pthread_t thread;
	int fd;
	const char *path;
};

static void *reader_run(void *data)
{
	const struct reader *reader = data;

	save(reader->fd, reader->path);
	return NULL;
}

static void reader_begin(struct reader *reader, int fd, const char *path)
{
	*reader = (struct reader){ .fd = fd, .path = path };
	assert_int_equal(pthread_create(&reader->thread, NULL, reader_run, reader), 0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A reader that does not read: the flow does not wait, and what was missed is counted. */
static void test_slow_reader(void **state)
{
	const char *path = path_of("slow");
	struct stream stream = { 0 };
	struct reader reader;
	struct asked missed;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	send_many(2000, 9000);
	missed = ask("missed");
	assert_true(missed.number > 500);
	assert_int_equal(stats_read(&b->lane->stats.direction[PACKET_OUT].packets), 2000);
	reader_begin(&reader, stream.fd, path);
	layers_are(a, LAYERS("count", NULL));
	pthread_join(reader.thread, NULL);
	assert_int_equal(read_file(path) + missed.number, 2000);
}

/* One that never reads does not keep a layer from going. */
static void test_no_reader(void **state)
{
	struct stream stream = { 0 };
	uint64_t began;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	send_many(2000, 9000);
	began = now_ms();
	layers_are(a, LAYERS("count", NULL));
	assert_true(now_ms() - began < 5000);
	close(stream.fd);
}

static void test_reader_goes(void **state)
{
	uint64_t took = UINT64_MAX;

	(void)state;
	signal(SIGPIPE, SIG_DFL); /* it must not come */
	/* A busy machine may be as slow as our patience (1 s) once. */
	for (unsigned attempt = 0; attempt < 3 && took >= 1000; attempt++) {
		struct stream stream = { 0 };

		rig_do(rig.control, stream_now, &stream);
		layers_are(a, LAYERS("capture", "file", stream.name, NULL));
		send_many(100, 9000);
		close(stream.fd);
		send_many(2000, 9000);
		took = now_ms();
		layers_are(a, LAYERS("count", NULL));
		took = now_ms() - took;
	}
	assert_in_range(took, 0, 999);
}

static void test_limit(void **state)
{
	const char *path = path_of("limit");
	struct stream stream = { .limit = 5 };
	struct reader reader;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	reader_begin(&reader, stream.fd, path);
	send_many(100, 200);
	pthread_join(reader.thread, NULL); /* it ends although the layer is there */
	assert_int_equal(read_file(path), 5);
	layers_are(a, LAYERS("count", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURE_TEST(test_slow_reader),
		CAPTURE_TEST(test_no_reader),
		CAPTURE_TEST(test_reader_goes),
		CAPTURE_TEST(test_limit),
	};

	return cmocka_run_group_tests_name("capture stream", tests, NULL, NULL);
}
