/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_hostile_test.c - VMMs that come and go at any time, and those that lie
 *
 * A liar must be answered with an error or lose its connection, and the next client must be served
 * as if nothing had been.
 */
#include "transport/vfio_user_testing.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* --- connections -------------------------------------------------------------------- */

static void serves_one_vmm_at_a_time(void **state)
{
	struct vfu_client second;

	(void)state;
	assert_int_equal(vfu_put(&client, 0, TESTING_SCRATCH, 4, 77), 0);
	assert_int_equal(vfu_connect(&second, served[0].path), 0);
	assert_int_equal(vfu_wait_closed(&second, 5000), 0);
	vfu_disconnect(&second);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 77);
	/* Another device is another matter. */
	assert_int_equal(vfu_open(&second, served[1].path), 0);
	assert_int_equal(vfu_get(&second, 0, TESTING_SCRATCH, 4), 0);
	vfu_disconnect(&second);
	/* The next one finds it as new. */
	for (unsigned i = 0; i < 20; i++) {
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
		assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 0);
		assert_int_equal(vfu_get(&client, VFU_CONFIG, 4, 2), 0);
		assert_int_equal(vfu_put(&client, 0, TESTING_SCRATCH, 4, i + 1), 0);
		assert_int_equal(vfu_put(&client, VFU_CONFIG, 4, 2, 7), 0);
	}
}

/* It leaves while a transfer waits: for storage, and for its own reply. */
static void leaves_in_mid_transfer(void **state)
{
	(void)state;
	assert_int_equal(vfu_map(&client, 0, PAGE, ram, ram_fd, 0, 3), 0);
	assert_int_equal(vfu_put(&client, 0, TESTING_HOLD, 4, 1), 0);
	assert_int_equal(transfer(5 * PAGE, 1, false), -EFAULT);
	start_transfer(0, PAGE, true);
	vfu_disconnect(&client);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(vfu_open(&client, served[0].path), 0);
		assert_int_equal(vfu_get(&client, 0, TESTING_STATUS, 4), TESTING_IDLE);
		assert_int_equal(vfu_map(&client, 0, 32 * PAGE, ram, -1, 0, 3), 0);
		client.deaf = true;
		start_transfer(0, 32 * PAGE, false);
		if (i % 2)
			assert_int_equal(vfu_get(&client, 0, TESTING_STATUS, 4), TESTING_BUSY);
		vfu_disconnect(&client);
	}
	assert_int_equal(vfu_open(&client, served[0].path), 0);
}

static void closes_in_mid_transfer(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[1].path), 0);
		assert_int_equal(vfu_map(&client, 0, 32 * PAGE, ram, i ? ram_fd : -1, 0, 3), 0);
		assert_int_equal(vfu_put(&client, 0, TESTING_HOLD, 4, i == 1), 0);
		client.deaf = true;
		start_transfer(0, 32 * PAGE, i == 1);
		close_served(&served[1]);
		assert_int_equal(vfu_wait_closed(&client, 5000), 0);
		vfu_disconnect(&client);
		open_served(&served[1]);
	}
}

static int64_t cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void is_idle_when_nothing_is_asked(void **state)
{
	int64_t before;

	(void)state;
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	poll(NULL, 0, 20);
	before = cpu_us();
	poll(NULL, 0, 300);
	assert_in_range(cpu_us() - before, 0, 10000);
}

/* --- lies --------------------------------------------------------------------------- */

struct frame {
	struct vfu_header header;
	char payload[200];
};

static int throw(const struct frame *frame, size_t bytes, const int *fds, unsigned fd_count)
{
	return vfu_send_raw(&client, frame, bytes, fds, fd_count);
}

static void closes_on_broken_frames(void **state)
{
	static const struct {
		struct vfu_header header;
		size_t bytes;
	} lies[] = {
		{ { 1, VFU_GET_INFO, 0, 0, 0 }, 16 },
		{ { 1, VFU_GET_INFO, 15, 0, 0 }, 16 },
		{ { 1, VFU_GET_INFO, UINT32_MAX, 0, 0 }, 100 },
		{ { 1, VFU_REGION_WRITE, 65536 + 5000, 0, 0 }, 16 },
		{ { 1, VFU_GET_INFO, 32, 2, 0 }, 32 },
		{ { 1, VFU_GET_INFO, 32, 15, 0 }, 32 },
		{ { 1, VFU_DMA_READ, 32, VFU_REPLY, 0 }, 32 },
		{ { 7, VFU_DMA_WRITE, 16, VFU_REPLY, 0 }, 16 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
		struct frame frame = { .header = lies[i].header };

		assert_int_equal(throw(&frame, lies[i].bytes, NULL, 0), 0);
		if (vfu_wait_closed(&client, 5000))
			fail_msg("lie %u: the connection goes on", i);
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
		assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	}
	/* In the middle of a message. */
	for (size_t bytes = 1; bytes < 40; bytes++) {
		struct frame frame = { .header = { 1, VFU_REGION_WRITE, 44, 0, 0 } };

		assert_int_equal(throw(&frame, bytes, NULL, 0), 0);
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
	}
	/* Before VERSION. */
	vfu_disconnect(&client);
	assert_int_equal(vfu_connect(&client, served[0].path), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), UINT64_MAX);
	assert_int_equal(vfu_wait_closed(&client, 5000), 0);
}

static void answers_what_it_does_not_know(void **state)
{
	char bytes[300] = { 0 };

	(void)state;
	for (uint16_t command = 0; command < 300; command++)
		if (command > VFU_WRITE_MULTI || command == 0 || command == 6 || command == 14 ||
		    command == VFU_DMA_READ || command == VFU_DMA_WRITE)
			assert_int_equal(
				vfu_call(&client, command, bytes, 16, NULL, 0, NULL, 0, NULL),
				-EOPNOTSUPP);
	/* Payloads of all sizes that they cannot have. */
	for (uint16_t command = VFU_DMA_MAP; command <= VFU_WRITE_MULTI; command++)
		for (uint32_t size = 0; size < 8; size++)
			if (command != VFU_RESET || size)
				assert_true(vfu_call(&client, command, bytes, size, NULL, 0, NULL,
						     0, NULL) < 0);
	assert_int_equal(vfu_call(&client, VFU_VERSION, bytes, 3, NULL, 0, NULL, 0, NULL), -EINVAL);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
}

static int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void keeps_no_stray_descriptors(void **state)
{
	int fds[64], before;

	(void)state;
	for (unsigned i = 0; i < 64; i++)
		fds[i] = ram_fd;
	before = open_descriptors();
	for (unsigned i = 0; i < 20; i++) {
		struct frame info = { .header = { 1, VFU_GET_INFO, 32, 0, 0 }, .payload = "\20" };

		assert_int_equal(vfu_call(&client, VFU_RESET, NULL, 0, fds, 3, NULL, 0, NULL),
				 -EINVAL);
		/* With a message that is never whole, and more than there is room for. */
		assert_int_equal(throw(&info, i, fds, i ? 5 : 0), 0);
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
		assert_int_equal(throw(&info, 32, fds, 64), 0);
		assert_int_equal(vfu_wait_closed(&client, 5000), 0);
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
	}
	for (unsigned i = 0; i < 100 && open_descriptors() != before; i++)
		poll(NULL, 0, 10);
	assert_int_equal(open_descriptors(), before);
}

/* Pieces of a byte; and many messages in one piece. */
static void takes_messages_in_any_pieces(void **state)
{
	struct {
		struct vfu_header header;
		uint64_t offset;
		uint32_t region, count;
	} read[100];
	struct {
		struct vfu_header header;
		uint64_t offset;
		uint32_t region, count, value;
	} __attribute__((packed)) reply;

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		memset(&read[i], 0, sizeof read[i]);
		read[i].header = (struct vfu_header){ (uint16_t)i, VFU_REGION_READ, 32, 0, 0 };
		read[i].count = 4;
	}
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(vfu_send_raw(&client, (char *)read + i, 1, NULL, 0), 0);
	assert_int_equal(vfu_send_raw(&client, read + 1, sizeof read - sizeof *read, NULL, 0), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(recv(client.fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
		assert_int_equal(reply.header.id, i);
		assert_int_equal(reply.value, TESTING_MAGIC);
	}
}

/* A client that asks and asks and does not read: it waits, nobody else does, and nothing is lost.
 */
static void waits_for_a_client_that_does_not_read(void **state)
{
	struct {
		struct vfu_header header;
		uint64_t offset;
		uint32_t region, count;
	} read = { { 0, VFU_REGION_READ, 32, 0, 0 }, 0, 0, 4096 };
	static char reply[32 + 4096];
	struct vfu_client other;
	uint32_t asked = 0;

	(void)state;
	assert_int_equal(fcntl(client.fd, F_SETFL, O_NONBLOCK), 0);
	for (unsigned idle = 0; idle < 3;) {
		read.header.id = (uint16_t)asked;
		if (send(client.fd, &read, sizeof read, MSG_NOSIGNAL) == sizeof read) {
			asked++;
			idle = 0;
		} else {
			idle++;
			poll(NULL, 0, 20);
		}
	}
	assert_true(asked > 50);
	assert_int_equal(vfu_open(&other, served[1].path), 0);
	assert_int_equal(vfu_get(&other, 0, TESTING_ID, 4), TESTING_MAGIC);
	vfu_disconnect(&other);
	assert_int_equal(fcntl(client.fd, F_SETFL, 0), 0);
	for (uint32_t i = 0; i < asked; i++) {
		struct vfu_header header;

		assert_int_equal(recv(client.fd, reply, sizeof reply, MSG_WAITALL), sizeof reply);
		memcpy(&header, reply, sizeof header);
		assert_int_equal(header.id, (uint16_t)i);
	}
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
}

/* Replies to our commands that do not fit them. */
static void checks_replies(void **state)
{
	static const uint32_t sizes[] = { 16, 31, 32, 4096 + 31, 4096 + 33, 20000 };
	static const uint32_t guest_to_buffer = 0;
	static char bytes[20000];

	(void)state;
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct vfu_header header;

		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, served[0].path), 0);
		assert_int_equal(vfu_map(&client, 0, PAGE, NULL, -1, 0, 3), 0);
		assert_int_equal(vfu_put(&client, 0, TESTING_LENGTH, 4, PAGE), 0);
		assert_int_equal(vfu_post(&client, 0, TESTING_START, &guest_to_buffer, 4), 0);
		assert_int_equal(recv(client.fd, bytes, 32, MSG_WAITALL), 32);
		memcpy(&header, bytes, sizeof header);
		assert_int_equal(header.command, VFU_DMA_READ);
		header.flags = VFU_REPLY;
		header.size = sizes[i];
		memcpy(bytes, &header, sizeof header);
		assert_int_equal(vfu_send_raw(&client, bytes, sizes[i], NULL, 0), 0);
		assert_int_equal(vfu_get(&client, 0, TESTING_STATUS, 4), (uint32_t)-EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CLIENT(serves_one_vmm_at_a_time),
		MEMORY(leaves_in_mid_transfer),
		MEMORY(closes_in_mid_transfer),
		CLIENT(is_idle_when_nothing_is_asked),
		CLIENT(closes_on_broken_frames),
		CLIENT(answers_what_it_does_not_know),
		MEMORY(keeps_no_stray_descriptors),
		CLIENT(takes_messages_in_any_pieces),
		CLIENT(waits_for_a_client_that_does_not_read),
		MEMORY(checks_replies),
	};

	return cmocka_run_group_tests_name("vfio-user hostile", tests, start_all, stop_all);
}
