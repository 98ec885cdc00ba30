/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hostile_message_test.c - a VMM that lies in its messages
 *
 * One test for each lie. It must be refused, by an acknowledgement that says so or by the end of
 * the connection, with a reason in the log; the other VM goes on and the liar can connect again.
 */
#include "hostile.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Returns what the request got. */
typedef int lie_fn(void);

enum { GUARD_FDS = 16 };

static struct vu_client *vu(void)
{
	return &liar->vu;
}

/* Header and payload as given, whatever they say; then the answer, if any. */
static int send_and_hear(uint32_t request, uint32_t flags, uint32_t size, const void *payload,
			 uint32_t sent, const int *fds, unsigned fd_count)
{
	struct vu_message message = { .request = request, .flags = flags, .size = size };
	struct vu_message answer;

	memcpy(&message.payload, payload, sent);
	int ret = vu_send_raw(vu(), &message, VU_HEADER_BYTES + sent, fds, fd_count);
	if (!ret)
		ret = vu_receive(vu()->fd, &answer, NULL, 5000);
	if (ret)
		return ret;
	if (answer.size == sizeof(uint64_t) && answer.payload.u64)
		return -EREMOTEIO;
	return 0;
}

/* ---- the frame ---- */

static int giant_size(void)
{
	uint8_t bytes[64] = { 0 };

	return send_and_hear(VU_SET_FEATURES, VU_VERSION | VU_NEED_REPLY, 1u << 30, bytes,
			     sizeof(bytes), NULL, 0);
}

static int size_too_small(void)
{
	uint32_t index = 0;

	return send_and_hear(VU_SET_VRING_NUM, VU_VERSION | VU_NEED_REPLY, 4, &index, 4, NULL, 0);
}

static int size_too_large(void)
{
	uint8_t bytes[64] = { 0 };

	return send_and_hear(VU_SET_VRING_ENABLE, VU_VERSION | VU_NEED_REPLY, 64, bytes, 64, NULL,
			     0);
}

static int size_of_nothing(void)
{
	return send_and_hear(VU_SET_MEM_TABLE, VU_VERSION | VU_NEED_REPLY, 0, "", 0, NULL, 0);
}

static int unknown_request(void)
{
	return send_and_hear(9999, VU_VERSION | VU_NEED_REPLY, 0, "", 0, NULL, 0);
}

static int wrong_version(void)
{
	return send_and_hear(VU_GET_FEATURES, 2, 0, "", 0, NULL, 0);
}

static int reply_as_request(void)
{
	uint64_t value = 0;

	return send_and_hear(VU_SET_FEATURES, VU_VERSION | VU_REPLY | VU_NEED_REPLY, 8, &value, 8,
			     NULL, 0);
}

/* ---- file descriptors ---- */

static int fds_where_none_belong(void)
{
	int fds[2] = { eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC) };
	uint64_t features = liar->features;
	int ret = vu_request(vu(), VU_SET_FEATURES, &features, 8, fds, 2);

	close(fds[0]);
	close(fds[1]);
	return ret;
}

static int too_many_fds(void)
{
	struct vu_memory table = { .count = 1 };
	int fds[GUARD_FDS];

	table.region[0] = (struct vu_region){ .guest = 0, .size = 4096, .user = 0x10000 };
	for (unsigned i = 0; i < GUARD_FDS; i++)
		fds[i] = memfd_create("many", MFD_CLOEXEC);
	int ret = vu_request(vu(), VU_SET_MEM_TABLE, &table, 8 + 32, fds, GUARD_FDS);
	for (unsigned i = 0; i < GUARD_FDS; i++)
		close(fds[i]);
	return ret;
}

static int no_fd_where_one_belongs(void)
{
	uint64_t index = 0;

	return vu_request(vu(), VU_SET_VRING_KICK, &index, sizeof(index), NULL, 0);
}

static int fewer_fds_than_regions(void)
{
	struct vu_memory table = { .count = 2 };
	struct region *region = &liar->region[0];

	table.region[0] = (struct vu_region){ .guest = 0, .size = 4096, .user = 0x10000 };
	table.region[1] = (struct vu_region){ .guest = 8192, .size = 4096, .user = 0x20000 };
	return vu_request(vu(), VU_SET_MEM_TABLE, &table, 8 + 64, &region->fd, 1);
}

static int set_fd(uint32_t request, int fd)
{
	uint64_t index = 0;
	int ret = vu_request(vu(), request, &index, sizeof(index), &fd, 1);

	close(fd);
	return ret;
}

static int kick_fd_is_a_directory(void)
{
	return set_fd(VU_SET_VRING_KICK, open("/", O_RDONLY | O_CLOEXEC));
}

static int kick_fd_is_always_readable(void)
{
	return set_fd(VU_SET_VRING_KICK, open("/dev/zero", O_RDONLY | O_CLOEXEC));
}

static int call_fd_is_read_only(void)
{
	return set_fd(VU_SET_VRING_CALL, open("/dev/null", O_RDONLY | O_CLOEXEC));
}

/* ---- features ---- */

static int features_never_offered(void)
{
	return vu_request_u64(vu(), VU_SET_FEATURES,
			      liar->features | FEATURE(VIRTIO_F_ACCESS_PLATFORM));
}

static int protocol_features_never_offered(void)
{
	return vu_request_u64(vu(), VU_SET_PROTOCOL_FEATURES, liar->protocol | 1ull << 40);
}

/* ---- memory ---- */

static int one_region(struct vu_region region, int fd)
{
	struct vu_single_region message = { .region = region };

	return vu_request(vu(), VU_ADD_MEM_REG, &message, sizeof(message), &fd, 1);
}

static int table_of_too_many_regions(void)
{
	struct vu_memory table = { .count = 9 };

	return vu_request(vu(), VU_SET_MEM_TABLE, &table, sizeof(table), NULL, 0);
}

static int table_with_a_wild_count(void)
{
	struct vu_memory table = { .count = UINT32_MAX };

	return vu_request(vu(), VU_SET_MEM_TABLE, &table, 8 + 32, &liar->region[0].fd, 1);
}

static int regions_overlap(void)
{
	const struct region *have = &liar->region[2];

	return one_region((struct vu_region){ .guest = have->guest + 4096,
					      .size = 8192,
					      .user = 0x7000000000ull,
					      .offset = have->offset },
			  have->fd);
}

static int region_of_no_size(void)
{
	return one_region((struct vu_region){ .guest = 1ull << 41, .size = 0, .user = 1ull << 41 },
			  liar->region[0].fd);
}

static int region_wraps_around(void)
{
	return one_region(
		(struct vu_region){ .guest = UINT64_MAX - 4095, .size = 8192, .user = 1ull << 41 },
		liar->region[0].fd);
}

static int mmap_offset_overflows(void)
{
	return one_region((struct vu_region){ .guest = 1ull << 41,
					      .size = 8192,
					      .user = 1ull << 41,
					      .offset = UINT64_MAX - 4095 },
			  liar->region[0].fd);
}

static int region_larger_than_its_file(void)
{
	return one_region(
		(struct vu_region){ .guest = 1ull << 41, .size = 1ull << 40, .user = 1ull << 41 },
		liar->region[0].fd);
}

static int region_of_an_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	int ret = one_region(
		(struct vu_region){ .guest = 1ull << 41, .size = 4096, .user = 1ull << 41 }, fd);

	close(fd);
	return ret;
}

static int region_of_a_read_only_file(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int ret = one_region(
		(struct vu_region){ .guest = 1ull << 41, .size = 4096, .user = 1ull << 41 }, fd);

	close(fd);
	return ret;
}

static int remove_of_an_unknown_region(void)
{
	struct vu_single_region message = {
		.region = { .guest = 1ull << 42, .size = 4096, .user = 1ull << 42 }
	};

	return vu_request(vu(), VU_REM_MEM_REG, &message, sizeof(message), NULL, 0);
}

/* ---- rings ---- */

/* Starts queue 0 on what was said of it last; some of it may be looked at only now. */
static int start_again(void)
{
	uint64_t index = 0;
	int ret =
		vu_request(vu(), VU_SET_VRING_KICK, &index, sizeof(index), &liar->queue[0].kick, 1);

	return ret ? ret : vu_request_state(vu(), VU_SET_VRING_ENABLE, 0, 1);
}

static int queue_size(uint32_t size)
{
	must(liar, driver_stop(liar));
	int ret = vu_request_state(vu(), VU_SET_VRING_NUM, 0, size);
	return ret ? ret : start_again();
}

static int queue_size_zero(void)
{
	return queue_size(0);
}

static int queue_size_not_a_power_of_two(void)
{
	return queue_size(51);
}

static int queue_size_beyond_1024(void)
{
	return queue_size(2048);
}

static int queue_size_beyond_16_bits(void)
{
	return queue_size(0x10000 + 64);
}

static int queue_that_is_not(void)
{
	return vu_request_state(vu(), VU_SET_VRING_NUM, 77, 64);
}

static int queue_far_away(void)
{
	return vu_request_state(vu(), VU_SET_VRING_ENABLE, 0x80000000u, 1);
}

static int base_of_a_queue_that_is_not(void)
{
	struct vu_vring_state state = { .index = 500 };
	struct vu_message answer;

	return vu_query(vu(), VU_GET_VRING_BASE, &state, sizeof(state), &answer, NULL);
}

static int ring_address(uint64_t descriptor)
{
	struct virtq *queue = &liar->queue[0];
	struct vu_vring_addr addr = { .descriptor = descriptor,
				      .available = (uintptr_t)queue->avail,
				      .used = (uintptr_t)queue->used };

	must(liar, driver_stop(liar));
	int ret = vu_request(vu(), VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	return ret ? ret : start_again();
}

static int ring_outside_memory(void)
{
	return ring_address(0xdead0000);
}

static int ring_across_the_end_of_memory(void)
{
	const struct region *rings = &liar->region[liar->rings_region];

	return ring_address((uintptr_t)rings->host + rings->size - 64);
}

static int ring_misaligned(void)
{
	return ring_address((uintptr_t)liar->queue[0].desc + 1);
}

/* ---- inflight ---- */

static int inflight(struct vu_inflight region, int fd)
{
	int ret = vu_request(vu(), VU_SET_INFLIGHT_FD, &region, sizeof(region), &fd, 1);

	close(fd);
	return ret;
}

static int region_file(off_t bytes)
{
	int fd = memfd_create("inflight", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, bytes), 0);
	return fd;
}

static int inflight_too_small(void)
{
	return inflight((struct vu_inflight){ .mmap_size = 64, .queues = 2, .queue_size = 64 },
			region_file(4096));
}

static int inflight_larger_than_its_file(void)
{
	return inflight((struct vu_inflight){ .mmap_size = 1 << 20, .queues = 2, .queue_size = 64 },
			region_file(4096));
}

static int inflight_offset_overflows(void)
{
	return inflight((struct vu_inflight){ .mmap_size = 65536,
					      .mmap_offset = UINT64_MAX - 4095,
					      .queues = 2,
					      .queue_size = 64 },
			region_file(65536));
}

static int inflight_of_giant_size(void)
{
	return inflight(
		(struct vu_inflight){ .mmap_size = UINT64_MAX, .queues = 2, .queue_size = 64 },
		region_file(65536));
}

static int inflight_for_too_many_queues(void)
{
	struct vu_inflight wanted = { .queues = 65535, .queue_size = 65535 };
	struct vu_message answer;
	int fd = -1;
	int ret = vu_query(vu(), VU_GET_INFLIGHT_FD, &wanted, sizeof(wanted), &answer, &fd);

	if (fd >= 0)
		close(fd);
	if (!ret && fd < 0)
		return -EREMOTEIO; /* an answer without a region */
	return ret;
}

/* ---- configuration ---- */

static int config_beyond_its_end(void)
{
	uint8_t bytes[8] = { 0 };

	return driver_write_config(liar, 4000, bytes, sizeof(bytes));
}

static int config_of_wild_size(void)
{
	struct vu_config config = { .offset = 32, .size = 0xfffffff0u };

	return vu_request(vu(), VU_SET_CONFIG, &config, 12 + 1, NULL, 0);
}

static int config_offset_overflows(void)
{
	struct vu_config config = { .offset = 0xffffffffu, .size = 1 };

	return vu_request(vu(), VU_SET_CONFIG, &config, 12 + 1, NULL, 0);
}

static const struct lie {
	const char *name;
	lie_fn *tell;
} lies[] = {
	{ "giant message size", giant_size },
	{ "message too small for its request", size_too_small },
	{ "message too large for its request", size_too_large },
	{ "memory table of no bytes", size_of_nothing },
	{ "unknown request", unknown_request },
	{ "wrong version", wrong_version },
	{ "a reply in place of a request", reply_as_request },
	{ "descriptors where none belong", fds_where_none_belong },
	{ "too many descriptors", too_many_fds },
	{ "no descriptor where one belongs", no_fd_where_one_belongs },
	{ "fewer descriptors than regions", fewer_fds_than_regions },
	{ "kick descriptor is a directory", kick_fd_is_a_directory },
	{ "kick descriptor is always readable", kick_fd_is_always_readable },
	{ "call descriptor is read-only", call_fd_is_read_only },
	{ "features never offered", features_never_offered },
	{ "protocol features never offered", protocol_features_never_offered },
	{ "memory table of too many regions", table_of_too_many_regions },
	{ "memory table with a wild count", table_with_a_wild_count },
	{ "memory regions overlap", regions_overlap },
	{ "memory region of no size", region_of_no_size },
	{ "memory region wraps around", region_wraps_around },
	{ "mmap offset overflows", mmap_offset_overflows },
	{ "memory region larger than its file", region_larger_than_its_file },
	{ "memory region of an eventfd", region_of_an_eventfd },
	{ "memory region of a read-only file", region_of_a_read_only_file },
	{ "removal of an unknown region", remove_of_an_unknown_region },
	{ "queue size 0", queue_size_zero },
	{ "queue size not a power of two", queue_size_not_a_power_of_two },
	{ "queue size beyond 1024", queue_size_beyond_1024 },
	{ "queue size beyond 16 bits", queue_size_beyond_16_bits },
	{ "a queue that is not", queue_that_is_not },
	{ "a queue far away", queue_far_away },
	{ "base of a queue that is not", base_of_a_queue_that_is_not },
	{ "ring outside memory", ring_outside_memory },
	{ "ring across the end of memory", ring_across_the_end_of_memory },
	{ "ring misaligned", ring_misaligned },
	{ "inflight region too small", inflight_too_small },
	{ "inflight region larger than its file", inflight_larger_than_its_file },
	{ "inflight offset overflows", inflight_offset_overflows },
	{ "inflight region of giant size", inflight_of_giant_size },
	{ "inflight region for too many queues", inflight_for_too_many_queues },
	{ "configuration written beyond its end", config_beyond_its_end },
	{ "configuration of wild size", config_of_wild_size },
	{ "configuration offset overflows", config_offset_overflows },
};

enum { LIES = sizeof(lies) / sizeof(lies[0]) };

static void tell(void **state)
{
	const struct lie *lie = *state;

	liar_attach(0);
	int ret = lie->tell();
	/* What is only looked at when a ring starts, breaks the device. */
	if (!ret)
		expect_needs_reset();
	else if (ret != -EREMOTEIO && ret != -ECONNRESET)
		fail_msg("the lie was not refused: %s", strerror(-ret));
	expect_reason();
	expect_others_go_on();
	expect_recovery(true);
}

/* The socket closed after half a message, and kept open after half a message. */
static void test_half_a_message(void **state)
{
	struct vu_message message = { .request = VU_SET_FEATURES, .flags = VU_VERSION, .size = 8 };
	struct vu_client clients[4];

	(void)state;
	liar_attach(0);
	driver_disconnect(liar);
	for (unsigned i = 0; i < 4; i++) {
		/* In the header, at its end, in the payload, with nothing sent at all. */
		static const size_t sent[] = { 5, VU_HEADER_BYTES, VU_HEADER_BYTES + 3, 0 };
		assert_int_equal(vu_connect(&clients[i], daemon_path(&hostile_daemon, "liar")), 0);
		if (sent[i])
			assert_int_equal(vu_send_raw(&clients[i], &message, sent[i], NULL, 0), 0);
		expect_others_go_on();
		vu_disconnect(&clients[i]);
	}
	expect_reason();
	expect_recovery(true);
}

/* Connections made and dropped as fast as can be; with file descriptors in the air. */
static void test_connection_storm(void **state)
{
	int fd = memfd_create("gift", MFD_CLOEXEC);
	struct vu_message message = { .request = VU_SET_VRING_KICK,
				      .flags = VU_VERSION,
				      .size = 8 };

	(void)state;
	liar_attach(0);
	driver_disconnect(liar);
	for (unsigned i = 0; i < 500; i++) {
		struct vu_client client;
		assert_int_equal(vu_connect(&client, daemon_path(&hostile_daemon, "liar")), 0);
		vu_send_raw(&client, &message, VU_HEADER_BYTES, &fd, 1);
		vu_disconnect(&client);
	}
	close(fd);
	expect_others_go_on();
	expect_recovery(true);
	/* Nothing is left open: as many descriptors as a daemon at work needs. */
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/fd/200", hostile_daemon.pid);
	assert_int_equal(access(path, F_OK), -1);
}

/* Random bytes as messages, with good headers often enough to get further. */
static void test_random_messages(void **state)
{
	uint64_t seed = choose_seed();

	(void)state;
	liar_attach(0);
	for (unsigned i = 0; i < 300; i++) {
		struct load dice = { .seed = seed + i };
		struct vu_message message;
		uint8_t *bytes = (uint8_t *)&message;
		for (unsigned at = 0; at < sizeof(message); at++)
			bytes[at] = load_random(&dice, 4) ? 0 : (uint8_t)load_random(&dice, 256);
		message.request = (uint32_t)load_random(&dice, 42);
		message.flags = VU_VERSION | (load_random(&dice, 2) ? VU_NEED_REPLY : 0);
		message.size = (uint32_t)load_random(&dice, 100);
		struct vu_client client;
		assert_int_equal(vu_connect(&client, daemon_path(&hostile_daemon, "liar")), 0);
		int fds[2] = { eventfd(0, EFD_CLOEXEC), liar->region[0].fd };
		vu_send_raw(&client, &message, VU_HEADER_BYTES + message.size, fds,
			    (unsigned)load_random(&dice, 3));
		vu_disconnect(&client);
		close(fds[0]);
	}
	expect_others_go_on();
	expect_recovery(true);
}

int main(void)
{
	static struct CMUnitTest tests[LIES + 3];
	size_t count = 0;

	for (; count < LIES; count++)
		tests[count] = (struct CMUnitTest){ .name = lies[count].name,
						    .test_func = tell,
						    .setup_func = hostile_start,
						    .teardown_func = hostile_stop,
						    .initial_state = (void *)&lies[count] };
	tests[count++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(
		test_half_a_message, hostile_start, hostile_stop);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(
		test_connection_storm, hostile_start, hostile_stop);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(
		test_random_messages, hostile_start, hostile_stop);
	return _cmocka_run_group_tests("lies in messages", tests, count, NULL, NULL);
}
