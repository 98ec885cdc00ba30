/* SPDX-License-Identifier: BSD-3-Clause */
/* testing.c - a PCI function for tests; see testing.h */
#include "frontend/pci/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "util/error.h"
#include "util/list.h"

#define VECTORS 64

struct testing {
	struct pci_device pci;
	uint32_t scratch, writes, length, status, port;
	uint64_t address;
	bool hold, held, stopping;
	struct loop_timer timer;
	struct dma_transfer transfer;
	struct iovec vec[VECTORS];
	char buffer[TESTING_BYTES];
};

static struct testing *testing_of(struct pci_device *dev)
{
	return container_of(dev, struct testing, pci);
}

/* --- a transfer --------------------------------------------------------------------- */

static void over(struct dma_transfer *transfer, int status)
{
	struct testing *t = transfer->owner;

	t->status = (uint32_t)status;
	if (t->stopping)
		pci_stopped(&t->pci);
}

static void copy(struct testing *t, bool out)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < t->transfer.count && at < sizeof t->buffer; i++) {
		struct iovec *v = &t->transfer.vec[i];
		size_t n = v->iov_len < sizeof t->buffer - at ? v->iov_len : sizeof t->buffer - at;

		if (out)
			memcpy(v->iov_base, t->buffer + at, n);
		else
			memcpy(t->buffer + at, v->iov_base, n);
		at += n;
	}
}

static void go_on(struct testing *t)
{
	copy(t, t->transfer.direction == DMA_TO_GUEST);
	dma_finish(&t->transfer, t->transfer.length, over);
}

static void ready(struct dma_transfer *transfer, int status)
{
	struct testing *t = transfer->owner;

	if (status)
		over(transfer, status);
	else if (t->hold && !t->stopping)
		t->held = true;
	else
		go_on(t);
}

static void start_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct testing *t = testing_of(dev);
	int ret;

	(void)offset;
	(void)width;
	if (t->status == TESTING_BUSY)
		return;
	t->status = TESTING_BUSY;
	t->transfer.owner = t;
	dma_begin(&t->transfer, &dev->dma, t->vec, VECTORS);
	ret = dma_add(&t->transfer, t->address, t->length);
	if (ret) {
		dma_cancel(&t->transfer);
		t->status = (uint32_t)ret;
		return;
	}
	dma_ready(&t->transfer, value & 1 ? DMA_TO_GUEST : DMA_FROM_GUEST, ready);
}

static void hold_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct testing *t = testing_of(dev);

	(void)offset;
	(void)width;
	t->hold = value & 1;
	if (!t->hold && t->held) {
		t->held = false;
		go_on(t);
	}
}

/* --- registers ---------------------------------------------------------------------- */

static uint64_t any_read(struct pci_device *dev, uint32_t offset, unsigned width)
{
	struct testing *t = testing_of(dev);
	uint32_t sum = 0;

	(void)width;
	switch (offset & ~3u) {
	case TESTING_ID:
		return TESTING_MAGIC;
	case TESTING_SCRATCH:
		return t->scratch >> offset % 4 * 8;
	case TESTING_WRITES:
		return t->writes;
	case TESTING_STATUS:
		return t->status;
	default:
		for (uint32_t i = 0; i < sizeof t->buffer; i++)
			sum += (uint8_t)t->buffer[i];
		return sum;
	}
}

static void scratch_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct testing *t = testing_of(dev);

	memcpy((char *)&t->scratch + offset % 4, &value, width);
	t->writes++;
}

static void any_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct testing *t = testing_of(dev);

	(void)width;
	switch (offset) {
	case TESTING_ASSERT:
		pci_assert(dev, value % PCI_VECTORS);
		break;
	case TESTING_DEASSERT:
		pci_deassert(dev, value % PCI_VECTORS);
		break;
	case TESTING_BREAK:
		pci_break(dev, "it was told to");
		break;
	case TESTING_LENGTH:
		t->length = (uint32_t)value;
		break;
	case TESTING_FILL:
		memset(t->buffer, (int)value, sizeof t->buffer);
		break;
	default:
		t->address = value;
		break;
	}
}

static uint64_t port_read(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)offset;
	(void)width;
	return testing_of(dev)->port;
}

static void port_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	(void)offset;
	(void)width;
	testing_of(dev)->port = (uint32_t)value;
}

static const struct pci_register registers[] = {
	{ "id", TESTING_ID, 4, 4, any_read, NULL },
	{ "scratch", TESTING_SCRATCH, 4, 1 | 2 | 4, any_read, scratch_write },
	{ "writes", TESTING_WRITES, 4, 4, any_read, NULL },
	{ "assert", TESTING_ASSERT, 4, 4, NULL, any_write },
	{ "deassert", TESTING_DEASSERT, 4, 4, NULL, any_write },
	{ "break", TESTING_BREAK, 4, 4, NULL, any_write },
	{ "length", TESTING_LENGTH, 4, 4, NULL, any_write },
	{ "fill", TESTING_FILL, 4, 4, NULL, any_write },
	{ "address", TESTING_ADDRESS, 8, 8, NULL, any_write },
	{ "start", TESTING_START, 4, 4, NULL, start_write },
	{ "status", TESTING_STATUS, 4, 4, any_read, NULL },
	{ "hold", TESTING_HOLD, 4, 4, NULL, hold_write },
	{ "sum", TESTING_SUM, 4, 4, any_read, NULL },
	{ 0 },
};

static uint64_t shared_read(struct pci_device *dev, uint32_t offset, unsigned width)
{
	uint32_t value;

	(void)offset;
	(void)width;
	memcpy(&value, pci_shared(dev, 3), sizeof value);
	return value;
}

static void shared_write(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	(void)offset;
	memcpy(pci_shared(dev, 3), &value, width);
}

static const struct pci_register shared[] = {
	{ "first", 0, 4, 4, shared_read, shared_write },
	{ 0 },
};

static const struct pci_register ports[] = { { "port", 0, 1, 2 | 4, port_read, port_write },
					     { 0 } };

/* --- life --------------------------------------------------------------------------- */

static void reset(struct pci_device *dev)
{
	struct testing *t = testing_of(dev);

	t->scratch = 0;
	t->port = 0;
}

/* Storage ends some time, whatever the guest does. */
static void storage_ended(struct loop_timer *timer)
{
	struct testing *t = container_of(timer, struct testing, timer);

	t->held = false;
	go_on(t);
}

static int start(struct pci_device *dev)
{
	struct testing *t = testing_of(dev);

	loop_timer_init(&t->timer, storage_ended);
	t->hold = t->held = t->stopping = false;
	t->writes = 0;
	t->status = TESTING_IDLE;
	return 0;
}

static void stop(struct pci_device *dev)
{
	struct testing *t = testing_of(dev);

	if (t->status != TESTING_BUSY) {
		pci_stopped(dev);
		return;
	}
	t->stopping = true;
	if (t->held)
		loop_timer_set(dev->loop, &t->timer, loop_now(dev->loop) + 20000000);
}

static const struct pci_type type = {
	.vendor = 0x1b36,
	.device = 0x0005,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x00ff00,
	.bar = { { PCI_BAR_MEMORY, 4096, registers },
		 { PCI_BAR_IO, 16, ports },
		 { PCI_BAR_MEMORY, 4096, NULL },
		 { PCI_BAR_MEMORY, 0x4000, shared, TESTING_SHARED, TESTING_SHARED } },
	.intx = true,
	.msi_vectors = 4,
	.msix_vectors = 4,
	.msix_bar = 2,
	.msix_table = 0,
	.msix_pending = 2048,
	.start = start,
	.stop = stop,
	.reset = reset,
};

static void destroy(struct device *device)
{
	device_release(device);
	free(container_of(device, struct testing, pci.device));
}

static const struct device_ops device_ops = { .destroy = destroy };

struct device *testing_create(const char *name, const char *socket, struct error *err)
{
	struct device_plan plan = { .vm = "test", .name = name, .socket = socket };
	struct testing *t = calloc(1, sizeof *t);

	if (!t) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	t->pci.device.kind = "testing";
	t->pci.device.transport = "vfio-user";
	t->pci.device.ops = &device_ops;
	if (device_init(&t->pci.device, &plan, 0, 1, err)) {
		free(t);
		return NULL;
	}
	pci_init(&t->pci, &type);
	return &t->pci.device;
}
