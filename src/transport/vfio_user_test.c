/* SPDX-License-Identifier: BSD-3-Clause */
/* vfio_user_test.c - an honest VMM: negotiation, registers, interrupts */
#include "transport/vfio_user_testing.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- what it says of itself --------------------------------------------------------- */

static void negotiates(void **state)
{
	char answer[512];

	(void)state;
	assert_int_equal(vfu_negotiate(&client, NULL, NULL), -EINVAL); /* once */
	vfu_disconnect(&client);
	assert_int_equal(vfu_connect(&client, served[0].path), 0);
	assert_int_equal(vfu_negotiate(&client, "{\"capabilities\":", NULL), -EINVAL);
	assert_int_equal(vfu_negotiate(&client, "[[[[", NULL), -EINVAL);
	assert_int_equal(
		vfu_negotiate(&client, "{\"capabilities\":{\"max_data_xfer_size\":-1}}", NULL),
		-EINVAL);
	assert_int_equal(vfu_negotiate(&client, NULL, answer), 0);
	assert_non_null(strstr(answer, "\"max_data_xfer_size\":65536"));
	assert_non_null(strstr(answer, "\"write_multiple\":true"));
	assert_null(strstr(answer, "twin_socket"));
	vfu_disconnect(&client);
	assert_int_equal(vfu_connect(&client, served[0].path), 0);
	assert_int_equal(vfu_negotiate(&client, "{}", answer), 0);
	assert_null(strstr(answer, "write_multiple"));
}

static void describes_itself(void **state)
{
	static const uint32_t sizes[9] = { 4096, 16, 4096, 16384, 0, 0, 0, 256, 0 };
	static const struct {
		uint32_t flags, count;
	} irqs[5] = { { 7, 1 }, { 3, 4 }, { 3, 4 }, { 1, 1 }, { 1, 1 } };
	uint32_t info[4] = { 16 };
	struct vfu_region_info region;
	struct vfu_irq_info irq;

	(void)state;
	assert_int_equal(
		vfu_call(&client, VFU_GET_INFO, info, 16, NULL, 0, info, sizeof info, NULL), 16);
	assert_int_equal(info[1], 3);
	assert_int_equal(info[2], 9);
	assert_int_equal(info[3], 5);
	for (uint32_t i = 0; i < 9; i++) {
		assert_int_equal(vfu_region_info(&client, i, &region), 0);
		assert_int_equal(region.size, sizes[i]);
		assert_int_equal(region.flags, i == 3 ? 15 : sizes[i] ? 3 : 0);
	}
	assert_int_equal(vfu_region_info(&client, 9, &region), -EINVAL);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(vfu_irq_info(&client, i, &irq), 0);
		assert_int_equal(irq.flags, irqs[i].flags);
		assert_int_equal(irq.count, irqs[i].count);
	}
	assert_int_equal(vfu_irq_info(&client, 5, &irq), -EINVAL);
}

/* --- accesses ----------------------------------------------------------------------- */

static void reads_and_writes(void **state)
{
	uint32_t bytes[64];
	uint64_t before;

	(void)state;
	see();
	before = seen.accesses;
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	assert_int_equal(vfu_put(&client, 0, TESTING_SCRATCH, 4, 0x11223344), 0);
	assert_int_equal(vfu_put(&client, 0, TESTING_SCRATCH + 1, 1, 0xaa), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 0x1122aa44);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH + 2, 2), 0x1122);
	assert_int_equal(vfu_put(&client, 1, 0, 4, 0x55667788), 0);
	assert_int_equal(vfu_get(&client, 1, 0, 2), 0x7788);
	see();
	assert_int_equal(seen.accesses, before + 7);
	assert_true(seen.connected);
	/* All of a BAR at once, and of config space. */
	assert_int_equal(vfu_read(&client, 0, 0, bytes, sizeof bytes), 0);
	assert_int_equal(bytes[0], TESTING_MAGIC);
	assert_int_equal(bytes[1], 0x1122aa44);
	assert_int_equal(vfu_read(&client, VFU_CONFIG, 0, bytes, sizeof bytes), 0);
	assert_int_equal(bytes[0], 0x00051b36);
	assert_int_equal(vfu_put(&client, VFU_CONFIG, 4, 2, 6), 0);
	assert_int_equal(vfu_get(&client, VFU_CONFIG, 4, 2), 6);
	assert_int_equal(vfu_reset(&client), 0);
	assert_int_equal(vfu_get(&client, VFU_CONFIG, 4, 2), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 0);
}

static void refuses_accesses_outside(void **state)
{
	static char bytes[VFU_DATA_MAX];

	(void)state;
	assert_int_equal(vfu_read(&client, 0, 4096, bytes, 1), -EINVAL);
	assert_int_equal(vfu_read(&client, 0, 4093, bytes, 4), -EINVAL);
	assert_int_equal(vfu_read(&client, 0, UINT64_MAX, bytes, 4), -EINVAL);
	assert_int_equal(vfu_read(&client, 0, 0, bytes, 4097), -EINVAL);
	assert_int_equal(vfu_write(&client, 0, 0, bytes, 65536), -EINVAL);
	for (uint32_t region = 4; region < 20; region++)
		if (region != VFU_CONFIG)
			assert_int_equal(vfu_read(&client, region, 0, bytes, 1), -EINVAL);
	assert_int_equal(vfu_read(&client, VFU_CONFIG, 256, bytes, 1), -EINVAL);
	assert_int_equal(vfu_read(&client, UINT32_MAX, 0, bytes, 1), -EINVAL);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
}

/* Memory in a BAR: what one side writes, the other has, however it looks. */
static void maps_memory_of_a_bar(void **state)
{
	struct {
		struct vfu_region_info info;
		uint16_t id, version;
		uint32_t next, areas, reserved;
		uint64_t offset, size;
	} r = { .info = { .argsz = sizeof r, .index = 3 } };
	char bytes[16], *map;
	uint32_t value;
	int fd;

	(void)state;
	assert_int_equal(vfu_call(&client, VFU_GET_REGION_INFO, &r.info, sizeof r.info, NULL, 0, &r,
				  sizeof r, &fd),
			 sizeof r);
	assert_int_equal(r.info.argsz, 64);
	assert_int_equal(r.info.cap_offset, 32);
	assert_int_equal(r.id, 1);
	assert_int_equal(r.next, 0);
	assert_int_equal(r.areas, 1);
	assert_int_equal(r.offset, TESTING_SHARED);
	assert_int_equal(r.size, TESTING_SHARED);
	assert_true(fd >= 0);
	assert_int_not_equal(ftruncate(fd, 0), 0);
	map = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   (off_t)(r.info.offset + r.offset));
	assert_ptr_not_equal(map, MAP_FAILED);
	memcpy(map, "abcdefgh", 8);
	assert_int_equal(vfu_get(&client, 3, 0, 4), 0x64636261);
	assert_int_equal(vfu_put(&client, 3, 0, 4, 0x7a7a7a7a), 0);
	assert_memory_equal(map, "zzzzefgh", 8);
	assert_int_equal(vfu_write(&client, 3, TESTING_SHARED + 4, "1234567", 7), 0);
	assert_memory_equal(map, "zzzz1234567", 11);
	assert_int_equal(vfu_read(&client, 3, TESTING_SHARED - 5, bytes, 16), 0);
	assert_memory_equal(bytes, "\0\0\0\0\0zzzz1234567", 16);
	assert_int_equal(vfu_reset(&client), 0);
	memcpy(&value, map, 4);
	assert_int_equal(value, 0);
	munmap(map, r.size);
	close(fd);
}

/* Posted, and several in one; their order holds. */
static void takes_posted_writes(void **state)
{
	struct {
		uint64_t count;
		struct {
			uint64_t offset;
			uint32_t region, count;
			uint64_t data;
		} write[3];
	} multi = { 3,
		    { { TESTING_SCRATCH, 0, 4, 1 },
		      { TESTING_SCRATCH, 0, 4, 2 },
		      { TESTING_SCRATCH, 0, 2, 0x33 } } };
	uint64_t count = 0;

	(void)state;
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(vfu_post(&client, 0, TESTING_SCRATCH, &i, 4), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_WRITES, 4), 20000);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 19999);
	assert_int_equal(
		vfu_call(&client, VFU_WRITE_MULTI, &multi, sizeof multi, NULL, 0, &count, 8, NULL),
		8);
	assert_int_equal(count, 3);
	assert_int_equal(vfu_get(&client, 0, TESTING_SCRATCH, 4), 0x33);
	assert_int_equal(vfu_get(&client, 0, TESTING_WRITES, 4), 20003);
	multi.write[1].count = 9;
	assert_int_equal(
		vfu_call(&client, VFU_WRITE_MULTI, &multi, sizeof multi, NULL, 0, NULL, 0, NULL),
		-EINVAL);
	multi.count = UINT64_MAX;
	assert_int_equal(
		vfu_call(&client, VFU_WRITE_MULTI, &multi, sizeof multi, NULL, 0, NULL, 0, NULL),
		-EINVAL);
	/* Nobody hears that this is refused. */
	assert_int_equal(vfu_post(&client, 0, 5000, &count, 4), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
}

static void breaks_until_reset(void **state)
{
	(void)state;
	assert_int_equal(vfu_put(&client, 0, TESTING_BREAK, 4, 1), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), 0xffffffff);
	see();
	assert_true(seen.broken);
	assert_string_equal(seen.reason, "it was told to");
	assert_int_equal(vfu_reset(&client), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	see();
	assert_false(seen.broken);
}

/* --- interrupts --------------------------------------------------------------------- */

static void raise_vector(uint32_t vector)
{
	assert_int_equal(vfu_put(&client, 0, TESTING_ASSERT, 4, vector), 0);
}

static void lower_vector(uint32_t vector)
{
	assert_int_equal(vfu_put(&client, 0, TESTING_DEASSERT, 4, vector), 0);
}

static int act(uint32_t flags, uint32_t index, uint32_t start, uint32_t count)
{
	return vfu_set_irqs(&client, flags, index, start, count, NULL, 0, NULL, 0);
}

static uint64_t events(int fd)
{
	return vfu_wait_event(&client, fd, 0);
}

static void sends_messages(void **state)
{
	int fd[4];

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		fd[i] = vfu_eventfd(&client, VFU_MSIX, i);
		assert_true(fd[i] >= 0);
	}
	raise_vector(2);
	raise_vector(2);
	assert_int_equal(events(fd[2]), 2);
	assert_int_equal(events(fd[0]) + events(fd[1]) + events(fd[3]), 0);
	lower_vector(2);
	/* Masked: later, and once. */
	assert_int_equal(act(VFU_NONE | VFU_MASK, VFU_MSIX, 1, 2), 0);
	raise_vector(1);
	raise_vector(1);
	raise_vector(3);
	assert_int_equal(events(fd[1]), 0);
	assert_int_equal(events(fd[3]), 1);
	assert_int_equal(
		vfu_set_irqs(&client, VFU_BOOL | VFU_UNMASK, VFU_MSIX, 0, 3, "\0\1\1", 3, NULL, 0),
		0);
	assert_int_equal(events(fd[1]), 1);
	assert_int_equal(events(fd[2]), 0);
	/* By the VMM itself. */
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, VFU_MSIX, 0, 4), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(events(fd[i]), 1);
	/* None any more. */
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, VFU_MSIX, 0, 0), 0);
	raise_vector(0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(events(fd[i]), 0);
		close(fd[i]);
	}
}

/* What was asserted when nobody listened comes when somebody does; MSI may give fewer vectors. */
static void sends_what_is_pending(void **state)
{
	int fd;

	(void)state;
	raise_vector(3);
	fd = vfu_eventfd(&client, VFU_MSI, 0);
	assert_true(fd >= 0);
	assert_int_equal(events(fd), 1);
	raise_vector(1);
	assert_int_equal(events(fd), 1);
	/* Without descriptors they are taken away. */
	assert_int_equal(act(VFU_EVENTFD | VFU_TRIGGER, VFU_MSI, 0, 1), 0);
	raise_vector(1);
	assert_int_equal(events(fd), 0);
	close(fd);
}

static void drives_a_line(void **state)
{
	int unmask = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd;
	uint64_t one = 1;

	(void)state;
	fd = vfu_eventfd(&client, VFU_INTX, 0);
	assert_true(fd >= 0);
	raise_vector(0);
	raise_vector(1);
	assert_int_equal(events(fd), 1);
	/* Acknowledged too early: it comes again, for the level is high still. */
	assert_int_equal(act(VFU_NONE | VFU_UNMASK, VFU_INTX, 0, 1), 0);
	assert_int_equal(events(fd), 1);
	lower_vector(0);
	lower_vector(1);
	assert_int_equal(act(VFU_NONE | VFU_UNMASK, VFU_INTX, 0, 1), 0);
	assert_int_equal(events(fd), 0);
	assert_int_equal(act(VFU_NONE | VFU_MASK, VFU_INTX, 0, 1), 0);
	raise_vector(0);
	assert_int_equal(events(fd), 0);
	/* As the kernel unmasks it for KVM. */
	assert_int_equal(vfu_set_irqs(&client, VFU_EVENTFD | VFU_UNMASK, VFU_INTX, 0, 1, NULL, 0,
				      &unmask, 1),
			 0);
	assert_int_equal(write(unmask, &one, 8), 8);
	assert_int_equal(vfu_wait_event(&client, fd, 5000), 1);
	see();
	assert_true(seen.interrupts >= 2);
	close(fd);
	close(unmask);
}

static void refuses_odd_interrupts(void **state)
{
	int file = open("/dev/null", O_RDWR | O_CLOEXEC), pair[2], event[2];

	(void)state;
	event[0] = eventfd(0, EFD_CLOEXEC);
	event[1] = file;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(
		vfu_set_irqs(&client, VFU_EVENTFD | VFU_TRIGGER, VFU_MSIX, 0, 1, NULL, 0, &file, 1),
		-EINVAL);
	assert_int_equal(
		vfu_set_irqs(&client, VFU_EVENTFD | VFU_TRIGGER, VFU_MSIX, 0, 2, NULL, 0, pair, 2),
		-EINVAL);
	assert_int_equal(
		vfu_set_irqs(&client, VFU_EVENTFD | VFU_TRIGGER, VFU_MSIX, 0, 2, NULL, 0, event, 2),
		-EINVAL);
	assert_int_equal(
		vfu_set_irqs(&client, VFU_EVENTFD | VFU_TRIGGER, VFU_MSIX, 0, 2, NULL, 0, event, 1),
		-EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, VFU_MSIX, 0, 5), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, VFU_MSIX, 4, 1), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, VFU_MSIX, 2, UINT32_MAX), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_TRIGGER, 5, 0, 1), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_BOOL | VFU_TRIGGER, VFU_MSIX, 0, 1), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_MASK | VFU_UNMASK, VFU_MSIX, 0, 1), -EINVAL);
	assert_int_equal(act(VFU_NONE, VFU_MSIX, 0, 1), -EINVAL);
	assert_int_equal(act(0x40 | VFU_NONE | VFU_TRIGGER, VFU_MSIX, 0, 1), -EINVAL);
	assert_int_equal(act(VFU_BOOL | VFU_TRIGGER, VFU_MSIX, 0, 4), -EINVAL);
	assert_int_equal(act(VFU_NONE | VFU_MASK, VFU_ERR, 0, 1), -EOPNOTSUPP);
	assert_int_equal(act(VFU_NONE | VFU_MASK, VFU_INTX, 0, 0), -EINVAL);
	close(file);
	close(pair[0]);
	close(pair[1]);
	close(event[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CLIENT(negotiates),
		CLIENT(describes_itself),
		CLIENT(reads_and_writes),
		CLIENT(refuses_accesses_outside),
		CLIENT(maps_memory_of_a_bar),
		CLIENT(takes_posted_writes),
		CLIENT(breaks_until_reset),
		CLIENT(sends_messages),
		CLIENT(sends_what_is_pending),
		CLIENT(drives_a_line),
		CLIENT(refuses_odd_interrupts),
	};

	return cmocka_run_group_tests_name("vfio-user", tests, start_all, stop_all);
}
