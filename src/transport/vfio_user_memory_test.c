/* SPDX-License-Identifier: BSD-3-Clause */
/* vfio_user_memory_test.c - the guest's memory: mapped, announced, unmapped, not shared, truncated
 */
#include "transport/vfio_user_testing.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "memory/memory.h"

/* --- memory ------------------------------------------------------------------------- */

static uint32_t sum(const char *bytes, uint32_t count)
{
	uint32_t n = 0;

	while (count--)
		n += (uint8_t)*bytes++;
	return n;
}

static void fill(uint8_t byte)
{
	assert_int_equal(vfu_put(&client, 0, TESTING_FILL, 4, byte), 0);
}

/* Guest memory both ways: @address in the guest is @bytes here. */
static void check_transfers(uint64_t address, char *bytes)
{
	fill(0);
	assert_int_equal(transfer(address, 3 * PAGE, false), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_SUM, 4), sum(bytes, 3 * PAGE));
	fill('x');
	assert_int_equal(transfer(address + 100, 2 * PAGE, true), 0);
	assert_int_equal(bytes[100], 'x');
	assert_int_equal(bytes[99 + 2 * PAGE], 'x');
	assert_int_not_equal(bytes[99], 'x');
	assert_int_not_equal(bytes[100 + 2 * PAGE], 'x');
}

static void reaches_mapped_memory(void **state)
{
	(void)state;
	assert_int_equal(vfu_map(&client, 0x100000, 2 * PAGE, ram + PAGE, ram_fd, PAGE, 3), 0);
	assert_int_equal(vfu_map(&client, 0x102000, 8 * PAGE, ram + 3 * PAGE, ram_fd, 3 * PAGE, 3),
			 0);
	check_transfers(0x100000, ram + PAGE);
	/* It asked once whether this is the guest's memory. */
	assert_int_equal(client.dma_reads, 1);
	assert_int_equal(client.dma_writes, 0);
	assert_int_equal(transfer(0xff000, PAGE, false), -EFAULT);
	assert_int_equal(transfer(0x109000, 2 * PAGE, true), -EFAULT);
	assert_int_equal(vfu_unmap(&client, 0x100000, 2 * PAGE), 0);
	assert_int_equal(transfer(0x100000, PAGE, false), -EFAULT);
	assert_int_equal(transfer(0x102000, PAGE, false), 0);
}

static void reaches_announced_memory(void **state)
{
	(void)state;
	assert_int_equal(vfu_map(&client, 0x100000, 60 * PAGE, ram, -1, 0, 3), 0);
	check_transfers(0x100000, ram);
	assert_true(client.dma_reads > 0 && client.dma_writes > 0);
	/* A long one takes several messages; and one with a descriptor that may not be written. */
	assert_int_equal(transfer(0x100000, 60 * PAGE, false), 0);
	assert_int_equal(vfu_map(&client, 0x200000, PAGE, ram + 60 * PAGE, ram_fd, 60 * PAGE, 1),
			 0);
	fill('r');
	assert_int_equal(transfer(0x200000, 10, true), 0);
	assert_int_equal(ram[60 * PAGE], 'r');
	/* The client says no. */
	client.spaces = 0;
	assert_int_equal(transfer(0x100000, PAGE, false), -EFAULT);
	assert_int_equal(transfer(0x100000, PAGE, true), -EFAULT);
}

static void refuses_odd_memory(void **state)
{
	struct {
		uint32_t argsz, flags;
		uint64_t offset, address, size;
	} map = { 32, 3, 0, 0, PAGE };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[2] = { ram_fd, ram_fd };

	(void)state;
	assert_int_equal(vfu_map(&client, 0, PAGE, NULL, ram_fd, 0, 3), 0);
	assert_int_equal(vfu_map(&client, 0, PAGE, NULL, ram_fd, 0, 3), -EEXIST);
	assert_int_equal(vfu_map(&client, PAGE, 0, NULL, ram_fd, 0, 3), -EINVAL);
	assert_int_equal(vfu_map(&client, PAGE, PAGE, NULL, ram_fd, RAM, 3), -EINVAL);
	assert_int_equal(vfu_map(&client, PAGE, PAGE, NULL, ram_fd, UINT64_MAX, 3), -EINVAL);
	assert_int_equal(vfu_map(&client, UINT64_MAX - 10, PAGE, NULL, -1, 0, 3), -EINVAL);
	assert_int_equal(vfu_map(&client, PAGE, PAGE, NULL, ram_fd, 0, 0), -EINVAL);
	assert_int_equal(vfu_map(&client, PAGE, PAGE, NULL, ram_fd, 0, 7), -EINVAL);
	assert_true(vfu_map(&client, PAGE, PAGE, NULL, null, 0, 3) < 0);
	assert_int_equal(vfu_call(&client, VFU_DMA_MAP, &map, 32, fds, 2, NULL, 0, NULL), -EINVAL);
	assert_int_equal(vfu_call(&client, VFU_DMA_MAP, &map, 31, fds, 1, NULL, 0, NULL), -EINVAL);
	assert_int_equal(vfu_map(&client, PAGE, 4 * PAGE, NULL, ram_fd, 0, 3), 0);
	assert_int_equal(vfu_unmap(&client, PAGE, PAGE), -EINVAL);
	assert_int_equal(vfu_unmap(&client, 2 * PAGE, PAGE), -EINVAL);
	assert_int_equal(vfu_unmap(&client, 0, 2 * PAGE), -EINVAL);
	assert_int_equal(vfu_unmap(&client, 0, UINT64_MAX), 0);
	assert_int_equal(vfu_unmap(&client, 0, PAGE), -EINVAL);
	close(null);
}

/* As behind a virtual IOMMU: one descriptor a page. */
static void takes_thousands_of_maps(void **state)
{
	uint32_t all[6] = { 24, 2 };

	(void)state;
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(
			vfu_map(&client, i * 2 * PAGE, PAGE, NULL, ram_fd, i % 64 * PAGE, 3), 0);
	for (uint64_t i = 0; i < 5000; i += 2)
		assert_int_equal(vfu_unmap(&client, i * 2 * PAGE, PAGE), 0);
	client.space[client.spaces++] = (struct vfu_space){ 999 * 2 * PAGE, PAGE, ram + 39 * PAGE };
	fill(0);
	assert_int_equal(transfer(999 * 2 * PAGE, PAGE, false), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_SUM, 4), sum(ram + 39 * PAGE, PAGE));
	assert_int_equal(vfu_call(&client, VFU_DMA_UNMAP, all, 24, NULL, 0, NULL, 0, NULL), 24);
	assert_int_equal(transfer(999 * 2 * PAGE, PAGE, false), -EFAULT);
}

/* The reply to an unmap waits for the transfer; accesses do not. */
static void unmaps_when_transfers_have_ended(void **state)
{
	struct {
		struct vfu_header header;
		uint32_t argsz, flags;
		uint64_t address, size;
	} unmap = { { 999, VFU_DMA_UNMAP, 40, 0, 0 }, 24, 0, 0x100000, PAGE }, reply = { 0 };
	uint64_t address = 0x100000 + 100;
	struct {
		struct vfu_header header;
		uint64_t offset;
		uint32_t region, count, value;
	} post = { { 1, VFU_REGION_WRITE, 36, VFU_NO_REPLY, 0 }, TESTING_HOLD, 0, 4, 0 };
	struct pollfd p = { .fd = client.fd, .events = POLLIN };

	(void)state;
	assert_int_equal(vfu_map(&client, 0x100000, PAGE, ram, ram_fd, 0, 3), 0);
	assert_int_equal(vfu_map(&client, 0x101000, PAGE, ram, ram_fd, PAGE, 3), 0);
	assert_int_equal(transfer(0x100000, 10, false), 0);
	assert_int_equal(vfu_put(&client, 0, TESTING_HOLD, 4, 1), 0);
	fill('h');
	start_transfer(address, 10, true);
	/* Other memory is not concerned. */
	assert_int_equal(vfu_unmap(&client, 0x101000, PAGE), 0);
	assert_int_equal(vfu_send_raw(&client, &unmap, sizeof unmap, NULL, 0), 0);
	assert_int_equal(vfu_get(&client, 0, TESTING_STATUS, 4), TESTING_BUSY);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	assert_int_equal(poll(&p, 1, 20), 0);
	assert_int_not_equal(ram[100], 'h');
	assert_int_equal(vfu_send_raw(&client, &post, 36, NULL, 0), 0);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(recv(client.fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
	assert_int_equal(reply.header.id, 999);
	assert_int_equal(reply.header.flags, VFU_REPLY);
	assert_int_equal(reply.address, 0x100000);
	assert_int_equal(ram[100], 'h');
	assert_int_equal(vfu_get(&client, 0, TESTING_STATUS, 4), 0);
}

/* Another file behind the descriptor than the guest's memory, as with share=off. */
static void refuses_memory_that_is_not_shared(void **state)
{
	int other;
	char *not_ours = vfu_memory(RAM, &other);

	(void)state;
	assert_non_null(not_ours);
	assert_int_equal(vfu_map(&client, 0, RAM, ram, other, 0, 3), 0);
	start_transfer(PAGE, PAGE, false);
	for (unsigned i = 0; i < 500 && (see(), !seen.broken); i++)
		assert_int_equal(vfu_serve(&client, 10), 0);
	assert_true(seen.broken);
	assert_non_null(strstr(seen.reason, "share=on"));
	/* For good: all else goes on, but the function is of no use. */
	assert_int_equal(vfu_reset(&client), -EIO);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), 0xffffffff);
	assert_int_equal(vfu_map(&client, RAM, RAM, NULL, other, 0, 3), 0);
	munmap(not_ours, RAM);
	close(other);
	vfu_disconnect(&client);
	assert_int_equal(vfu_open(&client, served[0].path), 0);
	see();
	assert_false(seen.broken);
}

static void survives_truncated_memory(void **state)
{
	(void)state;
	memory_guard_install(); /* cmocka has a handler of its own */
	assert_int_equal(vfu_map(&client, 0, RAM, NULL, ram_fd, 0, 3), 0);
	client.space[client.spaces++] = (struct vfu_space){ 0, PAGE, ram };
	assert_int_equal(transfer(0, 10, false), 0);
	assert_int_equal(ftruncate(ram_fd, PAGE), 0);
	transfer(8 * PAGE, 4 * PAGE, false);
	transfer(8 * PAGE, 4 * PAGE, true);
	assert_int_equal(vfu_get(&client, 0, TESTING_ID, 4), TESTING_MAGIC);
	assert_int_equal(ftruncate(ram_fd, RAM), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MEMORY(reaches_mapped_memory),
		MEMORY(reaches_announced_memory),
		MEMORY(refuses_odd_memory),
		MEMORY(takes_thousands_of_maps),
		MEMORY(unmaps_when_transfers_have_ended),
		MEMORY(refuses_memory_that_is_not_shared),
		MEMORY(survives_truncated_memory),
	};

	return cmocka_run_group_tests_name("vfio-user memory", tests, start_all, stop_all);
}
