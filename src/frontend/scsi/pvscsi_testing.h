/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_testing.h - for unit tests: a PVSCSI adapter, the guest's driver, and what stands in for
 * the VMM
 *
 * The function runs on a loop of its own; the test's thread is the guest, with the driver of
 * tests/protocol, and the VMM. A register access is a message to the loop that is waited for.
 */
#pragma once

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/frontend.h"
#include "frontend/scsi/pvscsi_private.h"
#include "layer/disk.h"
#include "layer/layer.h"
#include "memory/memory.h"
#include "pvscsi_driver.h"
#include "testing.h"
#include "util/error.h"
#include "util/log.h"
#include "util/option.h"

#define GUEST  0x100000ull /* guest address of its memory */
#define BYTES  (32ull << 20)
#define BLOCK  512u
#define HOLE   (GUEST + BYTES) /* nothing is here */
#define SECOND 1000000000ull

extern const struct frontend pvscsi_frontend;

/* --- the rig ------------------------------------------------------------------------- */

static struct {
	struct loop *loop;
	struct disk *disk[3];
	struct device *device;
	struct pci_device *pci;
	struct hba hba;
	uint8_t *memory;
	int fd;
	sem_t done;
	atomic_uint signals, lines;
	atomic_bool high, broken;
	atomic_bool posted; /* the VMM does not wait for writes */
} rig;

/* Runs @call on the loop, and waits. */
struct call {
	struct loop_message message;
	void (*run)(void *data);
	void *data;
};

static inline void call_received(struct loop_message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->run(call->data);
	sem_post(&rig.done);
}

static inline void on_loop(void (*run)(void *data), void *data)
{
	struct call call = { .message.run = call_received, .run = run, .data = data };

	loop_send(rig.loop, &call.message);
	while (sem_wait(&rig.done))
		;
}

static inline void test_signal(struct pci_device *pci, unsigned vector)
{
	(void)pci;
	if (!vector)
		atomic_fetch_add(&rig.signals, 1);
}

static inline void test_line(struct pci_device *pci, bool high)
{
	(void)pci;
	atomic_store(&rig.high, high);
	atomic_fetch_add(&rig.lines, high);
}

static inline void test_broken(struct pci_device *pci)
{
	atomic_store(&rig.broken, pci->broken);
}

static const struct pci_transport_ops transport_ops = { .signal = test_signal,
							.line = test_line,
							.broken = test_broken };

struct access {
	uint32_t offset, value;
	bool write;
};

static inline void do_access(void *data)
{
	struct access *a = data;

	rig.pci->waited_for = !atomic_load(&rig.posted);
	if (a->write)
		assert_int_equal(pci_bar_write(rig.pci, 0, a->offset, &a->value, 4), 0);
	else
		assert_int_equal(pci_bar_read(rig.pci, 0, a->offset, &a->value, 4), 0);
}

static inline uint32_t bus_read(void *owner, uint32_t offset)
{
	struct access a = { .offset = offset };

	(void)owner;
	on_loop(do_access, &a);
	return a.value;
}

static inline void bus_write(void *owner, uint32_t offset, uint32_t value)
{
	struct access a = { .offset = offset, .value = value, .write = true };

	(void)owner;
	on_loop(do_access, &a);
}

static inline void start_function(void *data)
{
	const uint16_t command = 6; /* memory, bus master */

	(void)data;
	assert_int_equal(pci_start(rig.pci, rig.loop), 0);
	pci_reset(rig.pci);
	assert_int_equal(pci_config_write(rig.pci, 4, &command, 2), 0);
}

static inline void function_stopped(struct pci_device *pci)
{
	(void)pci;
	sem_post(&rig.done);
}

static inline void stop_function(void *data)
{
	(void)data;
	pci_stop(rig.pci, function_stopped);
}

static inline void set_mode(void *data)
{
	pci_interrupts_changed(rig.pci, *(enum pci_interrupt_mode *)data);
}

static inline void interrupts(enum pci_interrupt_mode mode)
{
	on_loop(set_mode, &mode);
}

static inline struct disk *make_disk(const char *name, uint64_t delay, uint64_t size)
{
	struct layer_setting flaky[2] = { { .name = "delay" }, { .name = "ops", .value = "all" } };
	struct layer_setting memory[1] = { { .name = "size", .value = "16M" } };
	struct layer_config layers[2] = { { layer_find("flaky"), flaky, 2, NULL, 0 },
					  { layer_find("memory"), memory, 1, NULL, 0 } };
	struct disk_config config = { 0 };
	struct error err = { 0 };
	char text[32];
	struct disk *disk;

	snprintf(text, sizeof text, "%lluus", (unsigned long long)delay);
	flaky[0].value = text;
	options_init(disk_options, &config);
	config.size = size;
	disk = testing_open(name, &config, delay ? layers : layers + 1, delay ? 2 : 1, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

/* Two disks at targets 0 and 1; the first takes @delay us for everything. */
static inline void rig_open(uint64_t delay)
{
	struct loop_config config = { .name = "pvscsi", .cpu = -1, .poll_limit = 50000 };
	struct unit_plan units[2];
	struct scsi_unit_settings settings[2] = { 0 };
	struct device_plan plan = { .vm = "vm",
				    .name = "pvscsi0",
				    .socket = "none",
				    .settings = &(const bool){ true }, /* msix */
				    .units = units,
				    .count = 2 };
	struct memory *memory = memory_empty();
	struct error err = { 0 };

	memset(&rig, 0, sizeof rig);
	sem_init(&rig.done, 0, 0);
	rig.disk[0] = make_disk("slow", delay, 0);
	rig.disk[1] = make_disk("fast", 0, 0);
	rig.disk[2] = make_disk("late", 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		options_init(scsi_unit_options, &settings[i]);
		units[i] = (struct unit_plan){ &settings[i], rig.disk[i] };
	}
	rig.device = pvscsi_frontend.create(&plan, &err);
	if (!rig.device)
		fail_msg("%s", err.text);
	rig.pci = container_of(rig.device, struct pci_device, device);
	rig.pci->transport_ops = &transport_ops;
	rig.fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(rig.fd, (off_t)BYTES), 0);
	rig.memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, rig.fd, 0);
	assert_true(rig.memory != MAP_FAILED);
	/* In two regions, so that pieces cross from one into the other. */
	assert_int_equal(memory_add(&memory, GUEST, BYTES / 2, 0, rig.fd, 0, &err), 0);
	assert_int_equal(memory_add(&memory, GUEST + BYTES / 2, BYTES / 2, 1ull << 40, rig.fd,
				    BYTES / 2, &err),
			 0);
	rig.pci->dma.memory = memory;
	rig.loop = loop_create(&config, &err);
	assert_non_null(rig.loop);
	assert_int_equal(loop_start(rig.loop, &err), 0);
	on_loop(start_function, NULL);
	rig.hba = (struct hba){ .bus = { NULL, bus_read, bus_write },
				.memory = rig.memory,
				.guest = GUEST,
				.bytes = BYTES,
				.pages = 8,
				.msg_pages = 1,
				.slots = 64,
				.slot_bytes = 64 << 10,
				.threshold = true };
	assert_int_equal(hba_init(&rig.hba), 0);
	log_set_level(LOG_ERROR);
}

static inline void rig_close(void)
{
	on_loop(stop_function, NULL); /* posts twice: when called, and when it has stopped */
	while (sem_wait(&rig.done))
		;
	loop_stop(rig.loop);
	loop_destroy(rig.loop);
	memory_release(rig.pci->dma.memory);
	rig.device->ops->destroy(rig.device);
	for (unsigned i = 0; i < 3; i++)
		disk_close(rig.disk[i]);
	munmap(rig.memory, BYTES);
	close(rig.fd);
	hba_free(&rig.hba);
	sem_destroy(&rig.done);
}

/* --- what a driver does -------------------------------------------------------------- */

static const uint8_t tur[6] = { 0 };

static inline struct hba_slot *slot(int index)
{
	if (index < 0)
		fail_msg("%s: %s", strerror(-index), rig.hba.error);
	return &rig.hba.slot[index];
}

/* Rings, MSI-X; the unit attentions of power-on are over. */
static inline void drive(void)
{
	interrupts(PCI_MSIX);
	hba_start(&rig.hba, HBA_INTR_CMPL | HBA_INTR_MSG);
	for (uint8_t target = 0; target < 2; target++)
		for (unsigned i = 0; i < 3; i++)
			slot(hba_do(&rig.hba, target, tur, 6, HBA_NO_DATA, 0));
}

static inline struct hba_slot *rw(uint8_t target, bool write, uint32_t lba, uint16_t blocks)
{
	int index = hba_take(&rig.hba);

	hba_format_rw(&rig.hba, index, target, write, lba, blocks, BLOCK);
	return slot(index);
}

static inline int index_of(const struct hba_slot *s)
{
	return (int)(s - rig.hba.slot);
}

/* Sends @s and waits for it; its host status. */
static inline unsigned run(struct hba_slot *s)
{
	hba_push(&rig.hba, index_of(s));
	hba_kick(&rig.hba);
	if (hba_wait(&rig.hba, index_of(s), 10000))
		fail_msg("%s%s", rig.hba.error, rig.pci->broken ? rig.pci->reason : "");
	return s->cmp.host_status;
}

static inline void good(struct hba_slot *s, uint64_t bytes)
{
	assert_int_equal(run(s), HBA_SUCCESS);
	assert_int_equal(s->cmp.scsi_status, 0);
	assert_int_equal(s->cmp.data_length, bytes);
}

static inline void pattern(uint8_t *bytes, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256 + seed);
}

static inline void sleep_us(unsigned us)
{
	usleep(us);
}
