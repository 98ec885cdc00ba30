/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide_testing.h - a host of the test's own for an IDE function: accesses on the function's loop,
 * guest memory, and what a driver does to run a command
 *
 * The loop has a thread of its own; each access is sent there and waited for, as a transport would.
 */
#pragma once

#include <endian.h>
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/ata/ide.h"
#include "frontend/frontend.h"
#include "layer/disk.h"
#include "memory/memory.h"
#include "testing.h"
#include "util/log.h"

#define GUEST_BYTES (1u << 20)
#define PRD_AT      0x1000u /* guest addresses */
#define DATA_AT     0x10000u

/* BARs of a channel. */
#define BLOCK(ch)   (2u * (ch))
#define CONTROL(ch) (2u * (ch) + 1)
#define BM          4u
#define BM_AT(ch)   (8u * (ch))

struct host {
	struct loop *loop;
	struct ide *ide;
	struct disk *disk[IDE_DRIVES];
	int fd;
	char *memory; /* GUEST_BYTES at 0 */
	atomic_uint rises;
	atomic_bool line, stopped;
	uint64_t slowest; /* ns, of an access */
	unsigned drive;   /* 0 or 1, for the device register */
};

/* --- on the loop -------------------------------------------------------------------- */

struct access {
	struct loop_message message;
	struct host *host;
	void (*act)(struct access *a);
	unsigned bar, width, count;
	uint64_t offset;
	void *data;
	int result;
	sem_t done;
};

static inline uint64_t testing_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline void access_run(struct loop_message *message)
{
	struct access *a = container_of(message, struct access, message);
	uint64_t start = testing_now(), took;

	a->act(a);
	took = testing_now() - start;
	if (took > a->host->slowest)
		a->host->slowest = took;
	sem_post(&a->done);
}

static inline int host_call(struct host *h, struct access *a, void (*act)(struct access *a))
{
	a->message.run = access_run;
	a->host = h;
	a->act = act;
	sem_init(&a->done, 0, 0);
	loop_send(h->loop, &a->message);
	while (sem_wait(&a->done))
		;
	sem_destroy(&a->done);
	return a->result;
}

static inline void act_read(struct access *a)
{
	for (unsigned i = 0; i < a->count; i++)
		a->result |= pci_bar_read(&a->host->ide->pci, a->bar, a->offset,
					  (char *)a->data + i * a->width, a->width);
}

static inline void act_write(struct access *a)
{
	for (unsigned i = 0; i < a->count; i++)
		a->result |= pci_bar_write(&a->host->ide->pci, a->bar, a->offset,
					   (char *)a->data + i * a->width, a->width);
}

static inline void act_config(struct access *a)
{
	a->result = pci_config_write(&a->host->ide->pci, a->offset, a->data, a->width);
}

static inline void act_reset(struct access *a)
{
	pci_reset(&a->host->ide->pci);
}

static inline void act_start(struct access *a)
{
	a->result = pci_start(&a->host->ide->pci, a->host->loop);
}

static inline void host_stopped(struct pci_device *dev)
{
	struct host *h = dev->transport;

	atomic_store(&h->stopped, true);
}

static inline void act_stop(struct access *a)
{
	pci_stop(&a->host->ide->pci, host_stopped);
}

static inline uint32_t in(struct host *h, unsigned bar, uint64_t offset, unsigned width)
{
	uint32_t value = 0;
	struct access a = {
		.bar = bar, .offset = offset, .width = width, .count = 1, .data = &value
	};

	assert_int_equal(host_call(h, &a, act_read), 0);
	return value;
}

static inline void out(struct host *h, unsigned bar, uint64_t offset, unsigned width,
		       uint32_t value)
{
	struct access a = {
		.bar = bar, .offset = offset, .width = width, .count = 1, .data = &value
	};

	assert_int_equal(host_call(h, &a, act_write), 0);
}

static inline void host_reset(struct host *h)
{
	struct access a = { 0 };

	host_call(h, &a, act_reset);
}

static inline void bus_master_on(struct host *h, bool on)
{
	uint16_t command = on ? 7 : 3;
	struct access a = { .offset = 4, .width = 2, .data = &command };

	assert_int_equal(host_call(h, &a, act_config), 0);
}

/* --- what a driver does ----------------------------------------------------------------- */

static inline uint8_t alternate(struct host *h, unsigned ch)
{
	return (uint8_t)in(h, CONTROL(ch), 2, 1);
}

static inline uint8_t status(struct host *h, unsigned ch)
{
	return (uint8_t)in(h, BLOCK(ch), ATA_COMMAND, 1);
}

static inline uint8_t reg(struct host *h, unsigned ch, unsigned offset)
{
	return (uint8_t)in(h, BLOCK(ch), offset, 1);
}

static inline void set(struct host *h, unsigned ch, unsigned offset, unsigned value)
{
	out(h, BLOCK(ch), offset, 1, value);
}

/* Until BSY is clear; at most 10 s. What alternate status says then. */
static inline uint8_t ready(struct host *h, unsigned ch)
{
	uint64_t limit = testing_now() + 10000000000;
	uint8_t value = alternate(h, ch);

	while (value & ATA_BSY) {
		if (testing_now() > limit)
			fail_msg("busy for 10 s");
		value = alternate(h, ch);
	}
	return value;
}

static inline void begin_28(struct host *h, unsigned ch, unsigned command, unsigned features,
			    unsigned count, uint32_t lba)
{
	set(h, ch, ATA_DEVICE, ATA_LBA | h->drive << 4 | lba >> 24);
	set(h, ch, ATA_FEATURES, features);
	set(h, ch, ATA_COUNT, count);
	set(h, ch, ATA_LOW, lba & 0xff);
	set(h, ch, ATA_MID, lba >> 8 & 0xff);
	set(h, ch, ATA_HIGH, lba >> 16 & 0xff);
	set(h, ch, ATA_COMMAND, command);
}

static inline void begin_48(struct host *h, unsigned ch, unsigned command, unsigned features,
			    unsigned count, uint64_t lba)
{
	set(h, ch, ATA_DEVICE, ATA_LBA | h->drive << 4);
	set(h, ch, ATA_FEATURES, features >> 8);
	set(h, ch, ATA_FEATURES, features & 0xff);
	set(h, ch, ATA_COUNT, count >> 8);
	set(h, ch, ATA_COUNT, count & 0xff);
	for (unsigned i = 0; i < 3; i++) {
		set(h, ch, ATA_LOW + i, (unsigned)(lba >> (24 + 8 * i)) & 0xff);
		set(h, ch, ATA_LOW + i, (unsigned)(lba >> 8 * i) & 0xff);
	}
	set(h, ch, ATA_COMMAND, command);
}

/* Takes or gives @length bytes at the data port, @width at a time. */
static inline void pio_in(struct host *h, unsigned ch, void *to, unsigned length, unsigned width)
{
	struct access a = { .bar = BLOCK(ch), .width = width, .count = length / width, .data = to };

	assert_int_equal(host_call(h, &a, act_read), 0);
}

static inline void pio_out(struct host *h, unsigned ch, const void *from, unsigned length,
			   unsigned width)
{
	struct access a = { .bar = BLOCK(ch),
			    .width = width,
			    .count = length / width,
			    .data = (void *)(uintptr_t)from };

	assert_int_equal(host_call(h, &a, act_write), 0);
}

/* Entry @i of the table at PRD_AT. */
static inline void prd(struct host *h, unsigned i, uint32_t address, uint32_t count, bool last)
{
	struct prd entry = { htole32(address), htole32((count & 0xffff) | (uint32_t)last << 31) };

	memcpy(h->memory + PRD_AT + i * sizeof entry, &entry, sizeof entry);
}

static inline void bm_setup(struct host *h, unsigned ch, uint32_t table)
{
	out(h, BM, BM_AT(ch) + 4, 4, table);
	out(h, BM, BM_AT(ch) + 2, 1, BM_ERROR | BM_INTR);
}

static inline void bm_start(struct host *h, unsigned ch, bool read)
{
	out(h, BM, BM_AT(ch), 1, (read ? BM_READ : 0) | BM_START);
}

static inline uint8_t bm_status(struct host *h, unsigned ch)
{
	return (uint8_t)in(h, BM, BM_AT(ch) + 2, 1) & (BM_ACTIVE | BM_ERROR | BM_INTR);
}

/* Until the bus master has an interrupt; its status. Stops it. */
static inline uint8_t bm_wait(struct host *h, unsigned ch)
{
	uint64_t limit = testing_now() + 10000000000;
	uint8_t value;

	while (!((value = bm_status(h, ch)) & BM_INTR))
		if (testing_now() > limit)
			fail_msg("no interrupt in 10 s");
	out(h, BM, BM_AT(ch), 1, 0);
	return value;
}

/* --- the function ------------------------------------------------------------------- */

static inline void host_signal(struct pci_device *dev, unsigned vector)
{
	(void)dev;
	fail_msg("vector %u of a function that has none", vector);
}

static inline void host_line(struct pci_device *dev, bool high)
{
	struct host *h = dev->transport;

	atomic_store(&h->line, high);
	if (high)
		atomic_fetch_add(&h->rises, 1);
}

static inline void host_broken(struct pci_device *dev)
{
	fail_msg("broken: %s", dev->reason);
}

static const struct pci_transport_ops host_ops = { host_signal, host_line, host_broken };

/* A layer that notes what passes. */
static struct {
	_Atomic unsigned count[IO_OPS];
	_Atomic unsigned stable; /* of those, with IO_FUA */
} passed;

static inline void recorder_submit(struct layer *layer, struct io *io)
{
	passed.count[io->op]++;
	if (io->flags & IO_FUA)
		passed.stable++;
	io_send(layer->below, io);
}

static const struct layer_ops recorder_ops = {
	.name = "recorder",
	.size = sizeof(struct layer),
	.submit = recorder_submit,
};

struct host_unit {
	const char *type, *position;
	const char *size; /* NULL: an empty drive */
	const char *delay, *errors, *ops;
	bool record;
	struct disk_config config;
};

static inline struct disk *host_disk(unsigned i, const struct host_unit *unit)
{
	struct layer_setting size = { (char *)"size", (char *)(uintptr_t)unit->size, 0 };
	struct layer_setting bad[] = {
		{ (char *)"delay", (char *)(uintptr_t)(unit->delay ? unit->delay : "0us"), 0 },
		{ (char *)"errors", (char *)(uintptr_t)(unit->errors ? unit->errors : "0%"), 0 },
		{ (char *)"ops", (char *)(uintptr_t)(unit->ops ? unit->ops : "all"), 0 },
	};
	struct layer_config stack[] = { { layer_find("flaky"), bad, 3, NULL, 0 },
					{ layer_find("memory"), &size, 1, NULL, 0 } };
	bool flaky = unit->delay || unit->errors || unit->record;
	struct error err = { 0 };
	char name[16];
	struct disk *disk;

	if (!unit->size)
		return NULL;
	if (unit->record)
		stack[0] = (struct layer_config){ &recorder_ops, NULL, 0, NULL, 0 };
	snprintf(name, sizeof name, "disk%u", i);
	disk = testing_open(name, &unit->config, stack + !flaky, flaky ? 2 : 1, NULL, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static inline void host_open(struct host *h, const struct host_unit *units, unsigned count)
{
	struct loop_config config = { .name = "ide", .engine = LOOP_THREADS, .cpu = -1 };
	const struct frontend *frontend = frontend_find("ide");
	struct unit_plan plans[IDE_DRIVES] = { 0 };
	struct device_plan plan = {
		.vm = "vm", .name = "ide0", .socket = "", .units = plans, .count = count
	};
	char settings[IDE_DRIVES][64] __attribute__((aligned(16))) = { 0 };
	struct error err = { 0 };
	struct device *device;
	struct access a = { 0 };

	*h = (struct host){ .loop = loop_create(&config, &err) };
	assert_non_null(h->loop);
	assert_true(frontend->unit_settings_size <= sizeof settings[0]);
	for (unsigned i = 0; i < count; i++) {
		plans[i].disk = h->disk[i] = host_disk(i, &units[i]);
		plans[i].settings = settings[i];
		options_init(frontend->unit_options, settings[i]);
		if (units[i].type &&
		    options_set(frontend->unit_options, settings[i], "type", units[i].type, &err))
			fail_msg("%s", err.text);
		if (units[i].position && options_set(frontend->unit_options, settings[i],
						     "position", units[i].position, &err))
			fail_msg("%s", err.text);
	}
	device = frontend->create(&plan, &err);
	if (!device)
		fail_msg("%s", err.text);
	h->ide = container_of(device, struct ide, pci.device);
	h->ide->pci.transport = h;
	h->ide->pci.transport_ops = &host_ops;
	h->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(h->fd, GUEST_BYTES), 0);
	h->memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
	h->ide->pci.dma.memory = memory_empty();
	if (memory_add(&h->ide->pci.dma.memory, 0, GUEST_BYTES, 0, h->fd, 0, &err))
		fail_msg("%s", err.text);
	if (loop_start(h->loop, &err))
		fail_msg("%s", err.text);
	assert_int_equal(host_call(h, &a, act_start), 0);
	bus_master_on(h, true);
}

static inline void host_stop(struct host *h)
{
	uint64_t limit = testing_now() + 10000000000;
	struct access a = { 0 };

	host_call(h, &a, act_stop);
	while (!atomic_load(&h->stopped)) {
		if (testing_now() > limit)
			fail_msg("not stopped in 10 s");
		usleep(200);
	}
}

static inline void host_close(struct host *h)
{
	host_stop(h);
	loop_stop(h->loop);
	loop_destroy(h->loop);
	assert_int_equal(h->ide->pci.dma.memory->users, 1);
	memory_release(h->ide->pci.dma.memory);
	h->ide->pci.device.ops->destroy(&h->ide->pci.device);
	for (unsigned i = 0; i < IDE_DRIVES; i++)
		disk_close(h->disk[i]);
	munmap(h->memory, GUEST_BYTES);
	close(h->fd);
}

/* --- what tests have in common ------------------------------------------------------------- */

static inline void fill(char *bytes, unsigned length, unsigned seed)
{
	for (unsigned i = 0; i < length; i++)
		bytes[i] = (char)((i * 7 + i / 512 * 13 + seed) & 0xff);
}

static inline unsigned word(const uint16_t *page, unsigned at)
{
	return le16toh(page[at]);
}

/* A command without data; its error register, 0 if all is well. */
static inline unsigned talk(struct host *h, unsigned ch, unsigned command, unsigned features,
			    unsigned count, uint32_t lba)
{
	uint8_t value;

	begin_28(h, ch, command, features, count, lba);
	value = ready(h, ch);
	assert_int_equal(value & ATA_DRQ, 0);
	assert_int_equal(status(h, ch), value);
	return value & ATA_ERR ? reg(h, ch, ATA_FEATURES) : 0;
}

static inline void identify(struct host *h, unsigned ch, uint16_t *page)
{
	begin_28(h, ch, 0xec, 0, 0, 0);
	assert_int_equal(ready(h, ch), ATA_READY | ATA_DRQ);
	pio_in(h, ch, page, 512, 2);
	assert_int_equal(status(h, ch), ATA_READY);
}

/* DMA of @sectors at @lba over entries of @entry bytes from DATA_AT on; bus master status. */
static inline unsigned dma(struct host *h, unsigned ch, unsigned command, unsigned sectors,
			   uint64_t lba, unsigned entry, bool read)
{
	unsigned left = sectors * 512, i = 0;
	uint32_t at = DATA_AT;
	uint8_t bm;

	for (; left; i++) {
		unsigned n = left < entry ? left : entry;

		prd(h, i, at, n, n == left);
		at += n;
		left -= n;
	}
	bm_setup(h, ch, PRD_AT);
	begin_48(h, ch, command, 0, sectors, lba);
	bm_start(h, ch, read);
	bm = bm_wait(h, ch);
	assert_int_equal(status(h, ch) & (ATA_BSY | ATA_DRQ), 0);
	assert_false(atomic_load(&h->line));
	return bm;
}
