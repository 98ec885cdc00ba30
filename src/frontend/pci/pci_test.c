/* SPDX-License-Identifier: BSD-3-Clause */
/* pci_test.c - config space, registers and interrupts of a function, with a transport of the test's
 */
#include "frontend/pci/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What happened, in words. */
static char trace[512];

static void tell(const char *format, ...)
{
	size_t at = strlen(trace);
	va_list args;

	va_start(args, format);
	vsnprintf(trace + at, sizeof trace - at, format, args);
	va_end(args);
}

static void told(const char *expected)
{
	assert_string_equal(trace, expected);
	*trace = 0;
}

/* --- a device type, and a transport ------------------------------------------------- */

static uint64_t any_read(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)dev;
	tell("r%x/%u ", offset, width);
	return 0x1122334455667788;
}

static void any_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	(void)dev;
	tell("w%x/%u=%llx ", offset, width, (unsigned long long)value);
}

static uint64_t break_read(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)offset;
	(void)width;
	pci_break(dev, "reason %d", 1);
	return pci_break(dev, "reason 2") ? 5 : 0;
}

static const struct pci_register registers[] = {
	{ "data", 0, 1, 2 | 4, any_read, any_write },
	{ "byte", 1, 3, 1, any_read, any_write },
	{ "word", 4, 4, 4, any_read, any_write },
	{ "read-only", 8, 4, 4, any_read, NULL },
	{ "write-only", 12, 4, 4, NULL, any_write },
	{ "rows", 16, 16, 1 | 2 | 4 | 8, any_read, any_write },
	{ "trap", 48, 4, 4, break_read, any_write },
	{ 0 },
};

static int start(struct pci_device *dev)
{
	(void)dev;
	tell("start ");
	return 0;
}

static void stop(struct pci_device *dev)
{
	tell("stop ");
	pci_stopped(dev);
}

static void reset(struct pci_device *dev)
{
	(void)dev;
	tell("reset ");
}

static void bus_master(struct pci_device *dev, bool on)
{
	assert_int_equal(pci_bus_master(dev), on);
	tell("master=%d ", on);
}

static void signal_vector(struct pci_device *dev, unsigned vector)
{
	(void)dev;
	tell("signal%u ", vector);
}

static void line(struct pci_device *dev, bool high)
{
	(void)dev;
	tell(high ? "high " : "low ");
}

static void broke(struct pci_device *dev)
{
	tell(dev->broken ? "broken " : "whole ");
}

static const struct pci_transport_ops transport = { signal_vector, line, broke };

static const struct pci_type type = {
	.vendor = 0x1234,
	.device = 0x5678,
	.subsystem_vendor = 0x9abc,
	.subsystem = 0xdef0,
	.revision = 7,
	.class_code = 0x010601,
	.bar = { { PCI_BAR_IO, 64, registers },
		 { PCI_BAR_MEMORY, 4096, registers },
		 [5] = { PCI_BAR_MEMORY, 8192, NULL } },
	.intx = true,
	.msi_vectors = 4,
	.msix_vectors = 5,
	.msix_bar = 5,
	.msix_table = 0,
	.msix_pending = 0x1000,
	.start = start,
	.stop = stop,
	.reset = reset,
	.bus_master = bus_master,
};

struct fixture {
	struct pci_device dev;
	struct queue_stats stats;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	f->dev.device.stats = &f->stats;
	f->dev.device.vm = "vm";
	f->dev.device.label = "test0";
	f->dev.transport_ops = &transport;
	pci_init(&f->dev, &type);
	*trace = 0;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint32_t config(struct pci_device *dev, unsigned offset, unsigned width)
{
	uint32_t value = 0;

	assert_int_equal(pci_config_read(dev, offset, &value, width), 0);
	return value;
}

static void set_config(struct pci_device *dev, unsigned offset, unsigned width, uint32_t value)
{
	assert_int_equal(pci_config_write(dev, offset, &value, width), 0);
}

/* --- config space ------------------------------------------------------------------- */

static void says_what_it_is(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;
	uint8_t all[PCI_CONFIG_SIZE];

	assert_int_equal(config(dev, 0, 4), 0x56781234);
	assert_int_equal(config(dev, 8, 4), 0x01060107);
	assert_int_equal(config(dev, 0x2c, 4), 0xdef09abc);
	assert_int_equal(config(dev, PCI_INTERRUPT_PIN, 1), 1);
	assert_int_equal(config(dev, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(pci_config_read(dev, 0, all, sizeof all), 0);
	assert_int_equal(all[0], 0x34);
	assert_int_equal(pci_config_read(dev, 1, all, sizeof all), -EINVAL);
	assert_int_equal(pci_config_read(dev, UINT64_MAX, all, 4), -EINVAL);
	assert_int_equal(pci_config_write(dev, 256, all, 1), -EINVAL);
	assert_int_equal(pci_config_write(dev, 256, all, 0), 0);
}

static void bars_tell_their_size(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	for (unsigned at = PCI_BASE_ADDRESS_0; at <= PCI_BASE_ADDRESS_5; at += 4)
		set_config(dev, at, 4, 0xffffffff);
	set_config(dev, PCI_ROM_ADDRESS, 4, 0xffffffff);
	assert_int_equal(config(dev, PCI_BASE_ADDRESS_0, 4), 0xffffffc1);
	assert_int_equal(config(dev, PCI_BASE_ADDRESS_1, 4), 0xfffff000);
	assert_int_equal(config(dev, PCI_BASE_ADDRESS_2, 4), 0);
	assert_int_equal(config(dev, PCI_BASE_ADDRESS_5, 4), 0xffffe000);
	assert_int_equal(config(dev, PCI_ROM_ADDRESS, 4), 0);
}

static void only_some_bits_can_be_written(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	pci_config_register(dev, 0x40, 2, 0x8000, 0x00ff);
	for (unsigned at = 0; at < PCI_CONFIG_SIZE; at += 4)
		set_config(dev, at, 4, 0xffffffff);
	told("master=1 ");
	assert_int_equal(config(dev, 0, 4), 0x56781234);
	assert_int_equal(config(dev, PCI_COMMAND, 2), 0x0547);
	assert_int_equal(config(dev, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	assert_int_equal(config(dev, PCI_INTERRUPT_LINE, 2), 0x1ff);
	assert_int_equal(config(dev, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(config(dev, 0x40, 4), 0x80ff);
	pci_reset(dev);
	told("reset ");
	assert_int_equal(config(dev, PCI_COMMAND, 2), 0);
	assert_int_equal(config(dev, 0x40, 4), 0x8000);
	assert_int_equal(config(dev, PCI_BASE_ADDRESS_0, 4), 1);
}

static void lists_its_capabilities(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;
	unsigned msi, msix;

	assert_true(config(dev, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
	msix = config(dev, PCI_CAPABILITY_LIST, 1);
	assert_int_equal(config(dev, msix, 1), PCI_CAP_ID_MSIX);
	assert_int_equal(config(dev, msix + 2, 2), 4);
	assert_int_equal(config(dev, msix + 4, 4), 5);
	assert_int_equal(config(dev, msix + 8, 4), 0x1005);
	msi = config(dev, msix + 1, 1);
	assert_int_equal(config(dev, msi, 1), PCI_CAP_ID_MSI);
	assert_int_equal(config(dev, msi + 1, 1), 0);
	assert_int_equal(config(dev, msi + 2, 2), 0x84);
	assert_int_equal(dev->msi_at, msi);
	assert_int_equal(dev->msix_at, msix);
}

/* --- registers ---------------------------------------------------------------------- */

static uint64_t read_bar(struct pci_device *dev, uint64_t offset, uint32_t length)
{
	uint64_t value[4] = { 0 };

	assert_int_equal(pci_bar_read(dev, 1, offset, value, length), 0);
	return value[0];
}

static void write_bar(struct pci_device *dev, uint64_t offset, uint32_t length)
{
	static const char bytes[32] = "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17";

	assert_int_equal(pci_bar_write(dev, 1, offset, bytes, length), 0);
}

static void finds_registers(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	/* A data port wider than its place; a byte is none of its widths. */
	assert_int_equal(read_bar(dev, 0, 2), 0x7788);
	assert_int_equal(read_bar(dev, 0, 4), 0x55667788);
	assert_int_equal(read_bar(dev, 0, 1), 0);
	told("r0/2 r0/4 ");
	assert_int_equal(read_bar(dev, 1, 1), 0x88);
	assert_int_equal(read_bar(dev, 2, 2), 0x8888);
	told("r1/1 r2/1 r3/1 ");
	/* Narrower or not aligned: dropped, but for the rest. */
	assert_int_equal(read_bar(dev, 4, 2), 0);
	assert_int_equal(read_bar(dev, 5, 7), 0x556677880000 << 8);
	told("r8/4 ");
	write_bar(dev, 8, 8);
	told("wc/4=8070605 ");
	assert_int_equal(read_bar(dev, 12, 4), 0);
	told("");
	/* As wide as it goes. */
	assert_int_equal(read_bar(dev, 16, 8), 0x1122334455667788);
	told("r10/8 ");
	write_bar(dev, 17, 8);
	told("w11/1=1 w12/2=302 w14/4=7060504 w18/1=8 ");
	/* Nobody there. */
	assert_int_equal(read_bar(dev, 100, 8), 0);
	write_bar(dev, 100, 8);
	told("");
}

static void stays_within_the_bar(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;
	char byte[4096] = "";

	assert_int_equal(pci_bar_read(dev, 0, 63, byte, 1), 0);
	assert_int_equal(pci_bar_read(dev, 0, 63, byte, 2), -EINVAL);
	assert_int_equal(pci_bar_read(dev, 0, UINT64_MAX, byte, 2), -EINVAL);
	assert_int_equal(pci_bar_write(dev, 0, 65, byte, 0), -EINVAL);
	assert_int_equal(pci_bar_write(dev, 2, 0, byte, 1), -EINVAL);
	assert_int_equal(pci_bar_read(dev, 6, 0, byte, 1), -EINVAL);
	assert_int_equal(pci_bar_read(dev, 5, 0, byte, 4096), 0);
	assert_int_equal(stats_read(&dev->device.stats[0].accesses), 2);
}

static void breaks_until_reset(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	pci_assert(dev, 0);
	told("high ");
	assert_int_equal(read_bar(dev, 48, 8), UINT64_MAX);
	told("low broken ");
	assert_string_equal(dev->reason, "reason 1");
	assert_int_equal(read_bar(dev, 4, 4), 0xffffffff);
	write_bar(dev, 4, 4);
	pci_assert(dev, 0);
	told("");
	pci_reset(dev);
	told("reset whole ");
	assert_int_equal(read_bar(dev, 4, 4), 0x55667788);
}

/* --- interrupts --------------------------------------------------------------------- */

static void drives_a_line(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	pci_assert(dev, 0);
	pci_assert(dev, 3);
	told("high ");
	assert_true(config(dev, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	pci_deassert(dev, 0);
	told("");
	set_config(dev, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	told("low ");
	assert_true(config(dev, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	set_config(dev, PCI_COMMAND, 2, 0);
	told("high ");
	pci_deassert(dev, 3);
	told("low ");
	assert_false(config(dev, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	assert_int_equal(stats_read(&dev->device.stats[0].interrupts), 2);
}

static void sends_messages(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	pci_assert(dev, 1);
	told("high ");
	pci_interrupts_changed(dev, PCI_MSIX);
	told("low signal1 ");
	pci_assert(dev, 1);
	pci_assert(dev, 4);
	told("signal1 signal4 ");
	pci_deassert(dev, 1);
	pci_interrupts_changed(dev, PCI_MSI);
	told("signal4 ");
	pci_interrupts_changed(dev, PCI_INTX);
	told("high ");
	pci_reset(dev);
	told("reset low ");
}

static void stopped(struct pci_device *dev)
{
	(void)dev;
	tell("stopped ");
}

static void starts_and_stops(void **state)
{
	struct pci_device *dev = &((struct fixture *)*state)->dev;

	assert_int_equal(pci_start(dev, NULL), 0);
	pci_assert(dev, 0);
	pci_stop(dev, stopped);
	told("start high reset low stop stopped ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(says_what_it_is),
		TEST(bars_tell_their_size),
		TEST(only_some_bits_can_be_written),
		TEST(lists_its_capabilities),
		TEST(finds_registers),
		TEST(stays_within_the_bar),
		TEST(breaks_until_reset),
		TEST(drives_a_line),
		TEST(sends_messages),
		TEST(starts_and_stops),
	};

	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
