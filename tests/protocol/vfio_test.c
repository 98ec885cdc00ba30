/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_test.c - the daemon's PCI functions over vfio-user, whichever there are
 *
 * What holds for every kind: it describes itself soundly, survives any access to any register,
 * serves one VMM at a time and the next one after it, refuses what is no message, and ends in
 * order. What the registers of a kind do is for that kind's own tests; the protocol in all its
 * corners is in src/transport/vfio_user_test.c and its neighbours.
 */
#include "check.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "vfio_user_client.h"

enum { KINDS = 2, RAM = 1 << 20 };

static const char *const kinds[KINDS] = { "ide", "pvscsi" };

static struct daemon penstock;
static const char *kind; /* the one at hand */
static char path[DAEMON_PATH];
static struct vfu_client client;

static int prepare(void **state)
{
	(void)state;
	daemon_prepare(&penstock);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	daemon_clean(&penstock);
	return 0;
}

static void start_daemon(void)
{
	static char config[DAEMON_PATH];

	snprintf(config, sizeof(config), "%s", daemon_path(&penstock, "penstock.yaml"));
	snprintf(path, sizeof(path), "%s", daemon_path(&penstock, "device.sock"));
	daemon_write_file(&penstock, "penstock.yaml",
			  "disks:\n"
			  "  disk:\n"
			  "    stack:\n"
			  "      - memory: {size: 16M}\n"
			  "vms:\n"
			  "  vm:\n"
			  "    - {%s: disk, socket: %s}\n",
			  kind, path);
	daemon_start(&penstock, (const char *const[]){ "run", config, NULL });
}

/* Runs `test` for each kind that this penstock has, with a client connected. */
static void for_each_kind(void (*test)(void))
{
	unsigned ran = 0;

	for (unsigned i = 0; i < KINDS; i++) {
		kind = kinds[i];
		if (daemon_command(&penstock, (const char *const[]){ "help", kind, NULL }))
			continue;
		start_daemon();
		assert_int_equal(vfu_open(&client, path), 0);
		test();
		vfu_disconnect(&client);
		assert_true(daemon_alive(&penstock));
		assert_int_equal(daemon_stop(&penstock), 0);
		ran++;
	}
	if (!ran)
		skip();
}

/* ---- what it says of itself ---- */

static uint32_t config(uint32_t offset, uint32_t width)
{
	return (uint32_t)vfu_get(&client, VFU_CONFIG, offset, width);
}

static void check_bars(void)
{
	unsigned bars = 0;

	for (uint32_t i = 0; i < 6; i++) {
		struct vfu_region_info info;
		uint32_t at = 0x10 + 4 * i, mask;

		assert_int_equal(vfu_region_info(&client, i, &info), 0);
		assert_int_equal(vfu_put(&client, VFU_CONFIG, at, 4, 0xffffffff), 0);
		mask = config(at, 4);
		bars += info.size > 0;
		if (!info.size) {
			assert_int_equal(mask, 0);
			continue;
		}
		/* Its size is in the bits that cannot be written, and they say what kind it is. */
		mask &= mask & 1 ? ~3u : ~15u;
		assert_int_equal(info.size & (info.size - 1), 0);
		assert_int_equal(~mask + 1, info.size);
		assert_int_equal(vfu_put(&client, VFU_CONFIG, at, 4, 0), 0);
	}
	assert_true(bars > 0);
}

static void check_capabilities(void)
{
	unsigned count = 0;

	if (!(config(6, 2) & 0x10))
		return;
	for (uint32_t at = config(0x34, 1); at; at = config(at + 1, 1)) {
		assert_in_range(at, 0x40, 0xfc);
		assert_true(++count < 48);
	}
	assert_true(count > 0);
}

static void check_description(void)
{
	struct vfu_irq_info irq;

	assert_int_not_equal(config(0, 2), 0xffff);
	assert_int_equal(config(0x0e, 1) & 0x7f, 0);
	assert_int_equal(vfu_put(&client, VFU_CONFIG, 0x30, 4, 0xffffffff), 0);
	assert_int_equal(config(0x30, 4), 0); /* no ROM */
	check_bars();
	check_capabilities();
	assert_int_equal(vfu_irq_info(&client, VFU_INTX, &irq), 0);
	assert_int_equal(irq.count, config(0x3d, 1) ? 1 : 0);
	/* The identity cannot be written; the bus master bit can. */
	uint32_t id = config(0, 4), class = config(8, 4);
	for (uint32_t at = 0; at < 256; at += 4)
		assert_int_equal(vfu_put(&client, VFU_CONFIG, at, 4, 0xffffffff), 0);
	assert_int_equal(config(0, 4), id);
	assert_int_equal(config(8, 4), class);
	assert_int_equal(config(4, 2) & 4, 4);
	assert_int_equal(vfu_reset(&client), 0);
	assert_int_equal(config(4, 2), 0);
}

static void describes_itself(void **state)
{
	(void)state;
	for_each_kind(check_description);
}

/* ---- any access ---- */

static uint64_t seed;

static uint64_t random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void storm(void)
{
	struct vfu_region_info info[6];
	int fd;
	char *ram = vfu_memory(RAM, &fd);

	assert_non_null(ram);
	for (uint32_t i = 0; i < RAM; i++)
		ram[i] = (char)random_number();
	assert_int_equal(vfu_map(&client, 0, RAM, ram, fd, 0, 3), 0);
	for (uint32_t i = 0; i < 6; i++)
		assert_int_equal(vfu_region_info(&client, i, &info[i]), 0);
	for (unsigned round = 0; round < 20; round++) {
		assert_int_equal(vfu_put(&client, VFU_CONFIG, 4, 2, 7), 0);
		for (unsigned i = 0; i < 1000; i++) {
			uint32_t bar = (uint32_t)random_number() % 6;
			uint32_t width = 1u << random_number() % 4;
			/* Addresses in memory, and anything else. */
			uint64_t value = random_number() % 2 ? random_number() % RAM
							     : random_number();
			uint64_t offset;

			if (info[bar].size < 8)
				continue;
			offset = random_number() % (info[bar].size > 4096 ? 4096 : info[bar].size);
			if (offset + width > info[bar].size)
				continue;
			if (random_number() % 2)
				vfu_read(&client, bar, offset, &value, width);
			else if (random_number() % 2)
				vfu_write(&client, bar, offset, &value, width);
			else
				vfu_post(&client, bar, offset, &value, width);
		}
		if (round % 4 == 3) {
			assert_int_equal(vfu_unmap(&client, 0, RAM), 0);
			assert_int_equal(vfu_map(&client, 0, RAM, ram, fd, 0, 3), 0);
		}
		assert_int_equal(vfu_reset(&client), 0);
	}
	assert_int_not_equal(config(0, 2), 0xffff);
	close(fd);
}

static void survives_any_access(void **state)
{
	(void)state;
	seed = choose_seed();
	for_each_kind(storm);
}

/* ---- connections ---- */

static void one_at_a_time(void)
{
	struct vfu_client second;

	daemon_mark_log(&penstock);
	assert_int_equal(vfu_connect(&second, path), 0);
	assert_int_equal(vfu_wait_closed(&second, 5000), 0);
	vfu_disconnect(&second);
	assert_true(daemon_logged(&penstock, "second VMM", 5000));
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(vfu_put(&client, VFU_CONFIG, 4, 2, 7), 0);
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, path), 0);
		assert_int_equal(config(4, 2), 0);
	}
}

static void serves_one_vmm_at_a_time(void **state)
{
	(void)state;
	for_each_kind(one_at_a_time);
}

static void lie(void)
{
	static const struct vfu_header lies[] = {
		{ 1, VFU_REGION_READ, 3, 0, 0 },
		{ 1, VFU_REGION_READ, UINT32_MAX, 0, 0 },
		{ 1, VFU_REGION_READ, 16, 9, 0 },
		{ 1, VFU_DMA_READ, 16, VFU_REPLY, 0 },
	};

	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		daemon_mark_log(&penstock);
		assert_int_equal(vfu_send_raw(&client, &lies[i], sizeof(lies[i]), NULL, 0), 0);
		assert_int_equal(vfu_wait_closed(&client, 5000), 0);
		assert_true(daemon_logged(&penstock, "the connection is closed", 5000));
		vfu_disconnect(&client);
		assert_int_equal(vfu_open(&client, path), 0);
		assert_int_not_equal(config(0, 2), 0xffff);
	}
}

static void closes_on_broken_frames(void **state)
{
	(void)state;
	for_each_kind(lie);
}

static void rest(void)
{
	int64_t before;

	for (unsigned i = 0; i < 1000; i++)
		assert_int_not_equal(config(0, 2), 0xffff);
	sleep_ms(20);
	before = daemon_cpu_ms(&penstock);
	sleep_ms(500);
	assert_in_range(daemon_cpu_ms(&penstock) - before, 0, 10);
}

static void is_idle_when_nothing_is_asked(void **state)
{
	(void)state;
	for_each_kind(rest);
}

/* The VMM is still there. */
static void stop_it(void)
{
	assert_int_equal(daemon_stop(&penstock), 0);
	assert_int_equal(vfu_wait_closed(&client, 5000), 0);
	assert_int_not_equal(access(path, F_OK), 0);
	daemon_restart(&penstock);
}

static void ends_in_order(void **state)
{
	(void)state;
	for_each_kind(stop_it);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(describes_itself),
		TEST(survives_any_access),
		TEST(serves_one_vmm_at_a_time),
		TEST(closes_on_broken_frames),
		TEST(is_idle_when_nothing_is_asked),
		TEST(ends_in_order),
	};

	return cmocka_run_group_tests_name("vfio", tests, NULL, NULL);
}
