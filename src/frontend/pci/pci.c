/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pci.c - config space, BARs and interrupts of a PCI function; see pci.h
 *
 * Config space is three arrays of bytes: as it is, as it was after power-on, and which of its bits
 * the guest may write. A write changes those bits; then the few that mean something are looked
 * at: bus master, and the switch that holds INTA# back. A BAR's size needs no code: the bits
 * below it cannot be written.
 *
 * What a VMM keeps for itself (QEMU: BARs, MSI and MSI-X) is here all the same: whoever asks for it
 * gets what hardware would say. The message tables of MSI-X are the VMM's; their place in the BAR
 * reads as zeroes.
 */
#include "frontend/pci/pci.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/log.h"

#define MSI_AT  0x60 /* 14 bytes: with a 64-bit address, without masks */
#define MSIX_AT 0x70 /* 12 bytes */

/* --- config space ------------------------------------------------------------------- */

static uint16_t config_16(const struct pci_device *dev, unsigned offset)
{
	uint16_t value;

	memcpy(&value, dev->config + offset, sizeof value);
	return le16toh(value);
}

void pci_config_register(struct pci_device *dev, unsigned offset, unsigned width, uint32_t value,
			 uint32_t writable)
{
	for (unsigned i = 0; i < width; i++) {
		dev->config[offset + i] = dev->initial[offset + i] = (uint8_t)(value >> 8 * i);
		dev->writable[offset + i] = (uint8_t)(writable >> 8 * i);
	}
}

/* In front of the capabilities that are there already. */
static void link_capability(struct pci_device *dev, uint8_t at, uint8_t id)
{
	pci_config_register(dev, at, 1, id, 0);
	pci_config_register(dev, at + 1, 1, dev->config[PCI_CAPABILITY_LIST], 0);
	pci_config_register(dev, PCI_CAPABILITY_LIST, 1, at, 0);
	pci_config_register(dev, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
}

static void add_msi(struct pci_device *dev, unsigned vectors)
{
	uint16_t control = PCI_MSI_FLAGS_64BIT;

	control |= (uint16_t)(__builtin_ctz(vectors) << 1);
	dev->msi_at = MSI_AT;
	link_capability(dev, MSI_AT, PCI_CAP_ID_MSI);
	pci_config_register(dev, MSI_AT + PCI_MSI_FLAGS, 2, control,
			    PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	pci_config_register(dev, MSI_AT + PCI_MSI_ADDRESS_LO, 4, 0, 0xfffffffc);
	pci_config_register(dev, MSI_AT + PCI_MSI_ADDRESS_HI, 4, 0, 0xffffffff);
	pci_config_register(dev, MSI_AT + PCI_MSI_DATA_64, 2, 0, 0xffff);
}

static void add_msix(struct pci_device *dev, const struct pci_type *type)
{
	dev->msix_at = MSIX_AT;
	link_capability(dev, MSIX_AT, PCI_CAP_ID_MSIX);
	pci_config_register(dev, MSIX_AT + PCI_MSIX_FLAGS, 2, type->msix_vectors - 1,
			    PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	pci_config_register(dev, MSIX_AT + PCI_MSIX_TABLE, 4, type->msix_table | type->msix_bar, 0);
	pci_config_register(dev, MSIX_AT + PCI_MSIX_PBA, 4, type->msix_pending | type->msix_bar, 0);
}

/* The command bits that switch this BAR's kind on. */
static uint16_t add_bar(struct pci_device *dev, unsigned i, const struct pci_bar *bar)
{
	bool io = bar->kind == PCI_BAR_IO;

	if (bar->kind == PCI_BAR_NONE)
		return 0;
	pci_config_register(dev, PCI_BASE_ADDRESS_0 + 4 * i, 4,
			    io ? PCI_BASE_ADDRESS_SPACE_IO : PCI_BASE_ADDRESS_SPACE_MEMORY,
			    ~(bar->size - 1) & ~(io ? 3u : 15u));
	return io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
}

void pci_init(struct pci_device *dev, const struct pci_type *type)
{
	uint16_t command = PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR;

	dev->type = type;
	pci_config_register(dev, PCI_VENDOR_ID, 2, type->vendor, 0);
	pci_config_register(dev, PCI_DEVICE_ID, 2, type->device, 0);
	pci_config_register(dev, PCI_CLASS_REVISION, 4, type->class_code << 8 | type->revision, 0);
	pci_config_register(dev, PCI_CACHE_LINE_SIZE, 1, 0, 0xff);
	pci_config_register(dev, PCI_LATENCY_TIMER, 1, 0, 0xf8);
	pci_config_register(dev, PCI_SUBSYSTEM_VENDOR_ID, 2, type->subsystem_vendor, 0);
	pci_config_register(dev, PCI_SUBSYSTEM_ID, 2, type->subsystem, 0);
	for (unsigned i = 0; i < PCI_BARS; i++)
		command |= add_bar(dev, i, &type->bar[i]);
	if (type->intx) {
		command |= PCI_COMMAND_INTX_DISABLE;
		pci_config_register(dev, PCI_INTERRUPT_LINE, 1, 0, 0xff);
		pci_config_register(dev, PCI_INTERRUPT_PIN, 1, 1, 0);
	}
	pci_config_register(dev, PCI_COMMAND, 2, 0, command);
	if (type->msi_vectors)
		add_msi(dev, type->msi_vectors);
	if (type->msix_vectors)
		add_msix(dev, type);
}

bool pci_bus_master(const struct pci_device *dev)
{
	return config_16(dev, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

int pci_config_read(struct pci_device *dev, uint64_t offset, void *to, uint32_t length)
{
	if (offset > PCI_CONFIG_SIZE || length > PCI_CONFIG_SIZE - offset)
		return -EINVAL;
	memcpy(to, dev->config + offset, length);
	return 0;
}

static void update_line(struct pci_device *dev);

int pci_config_write(struct pci_device *dev, uint64_t offset, const void *from, uint32_t length)
{
	const uint8_t *value = from;
	bool master = pci_bus_master(dev);

	if (offset > PCI_CONFIG_SIZE || length > PCI_CONFIG_SIZE - offset)
		return -EINVAL;
	for (uint32_t i = 0; i < length; i++) {
		uint8_t writable = dev->writable[offset + i], *byte = &dev->config[offset + i];

		*byte = (uint8_t)((*byte & ~writable) | (value[i] & writable));
	}
	if (master != pci_bus_master(dev) && dev->type->bus_master && !dev->broken)
		dev->type->bus_master(dev, !master);
	update_line(dev);
	return 0;
}

/* --- interrupts --------------------------------------------------------------------- */

static void count_interrupt(struct pci_device *dev)
{
	stats_add(&dev->device.stats[0].interrupts, 1);
}

/* INTA#, and the bit of the status register that says why it is high (6.2.3). */
static void update_line(struct pci_device *dev)
{
	bool pending = dev->type->intx && dev->mode == PCI_INTX && dev->asserted;
	bool high = pending && !(config_16(dev, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);

	if (pending)
		dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	if (high == dev->line)
		return;
	dev->line = high;
	if (high)
		count_interrupt(dev);
	dev->transport_ops->line(dev, high);
}

void pci_assert(struct pci_device *dev, unsigned vector)
{
	if (dev->broken)
		return;
	dev->asserted |= 1u << vector;
	if (dev->mode == PCI_INTX) {
		update_line(dev);
		return;
	}
	count_interrupt(dev);
	dev->transport_ops->signal(dev, vector);
}

void pci_deassert(struct pci_device *dev, unsigned vector)
{
	dev->asserted &= ~(1u << vector);
	update_line(dev);
}

void pci_interrupts_changed(struct pci_device *dev, enum pci_interrupt_mode mode)
{
	dev->mode = mode;
	update_line(dev);
	for (unsigned vector = 0; mode != PCI_INTX && vector < PCI_VECTORS; vector++)
		if (dev->asserted >> vector & 1)
			dev->transport_ops->signal(dev, vector);
}

/* --- pages that the VMM may map ----------------------------------------------------- */

static int share(struct pci_device *dev, unsigned i)
{
	const struct pci_bar *bar = &dev->type->bar[i];
	int fd = memfd_create("penstock-bar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *memory;

	if (fd < 0)
		return -errno;
	memory = ftruncate(fd, bar->size) ||
				 fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
			 ? MAP_FAILED
			 : mmap(NULL, bar->shared_length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				bar->shared_offset);
	if (memory == MAP_FAILED) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	dev->shared[i].fd = fd;
	dev->shared[i].memory = memory;
	return 0;
}

static void unshare(struct pci_device *dev)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (!dev->shared[i].memory)
			continue;
		munmap(dev->shared[i].memory, dev->type->bar[i].shared_length);
		close(dev->shared[i].fd);
		dev->shared[i].memory = NULL;
	}
}

void *pci_shared(const struct pci_device *dev, unsigned bar)
{
	return dev->shared[bar].memory;
}

/* Our address of byte @offset of the BAR, and how many of the next @left bytes are shared as well.
 */
static char *shared_at(const struct pci_device *dev, unsigned i, uint32_t offset, uint32_t left,
		       uint32_t *count)
{
	const struct pci_bar *bar = &dev->type->bar[i];
	uint32_t within = offset - bar->shared_offset;

	if (!dev->shared[i].memory || within >= bar->shared_length)
		return NULL;
	*count = bar->shared_length - within < left ? bar->shared_length - within : left;
	return dev->shared[i].memory + within;
}

/* --- registers ---------------------------------------------------------------------- */

static const struct pci_register *find_register(const struct pci_bar *bar, uint32_t offset)
{
	for (const struct pci_register *r = bar->registers; r && r->length; r++)
		if (offset - r->offset < r->length)
			return r;
	return NULL;
}

/* The widest access that @r takes at @offset of at most @left bytes; 0: none. */
static unsigned width_at(const struct pci_register *r, uint32_t offset, uint32_t left)
{
	for (unsigned width = 8; width; width /= 2)
		if (r->widths & width && width <= left && !((offset - r->offset) % width))
			return width;
	return 0;
}

static bool outside(const struct pci_device *dev, unsigned bar, uint64_t offset, uint32_t length)
{
	uint32_t size;

	if (bar >= PCI_BARS || dev->type->bar[bar].kind == PCI_BAR_NONE)
		return true;
	size = dev->type->bar[bar].size;
	return offset > size || length > size - offset;
}

int pci_bar_read(struct pci_device *dev, unsigned bar, uint64_t offset, void *to, uint32_t length)
{
	uint32_t at = (uint32_t)offset, step;

	if (outside(dev, bar, offset, length))
		return -EINVAL;
	stats_add(&dev->device.stats[0].accesses, 1);
	memset(to, 0, length);
	for (uint32_t done = 0; done < length; done += step) {
		const struct pci_register *r = find_register(&dev->type->bar[bar], at + done);
		unsigned width = r ? width_at(r, at + done, length - done) : 0;
		char *shared = shared_at(dev, bar, at + done, length - done, &step);

		/* Looked at each time: the register before may have broken it. */
		if (dev->broken) {
			memset(to, 0xff, length);
			return 0;
		}
		if (shared) {
			memcpy((char *)to + done, shared, step);
			continue;
		}
		if (width && r->read) {
			uint64_t value = htole64(r->read(dev, at + done, width));

			memcpy((char *)to + done, &value, width);
		}
		step = width ? width : 1;
	}
	return 0;
}

int pci_bar_write(struct pci_device *dev, unsigned bar, uint64_t offset, const void *from,
		  uint32_t length)
{
	uint32_t at = (uint32_t)offset, step;

	if (outside(dev, bar, offset, length))
		return -EINVAL;
	stats_add(&dev->device.stats[0].accesses, 1);
	for (uint32_t done = 0; done < length && !dev->broken; done += step) {
		const struct pci_register *r = find_register(&dev->type->bar[bar], at + done);
		unsigned width = r ? width_at(r, at + done, length - done) : 0;
		char *shared = shared_at(dev, bar, at + done, length - done, &step);

		if (shared) {
			memcpy(shared, (const char *)from + done, step);
			continue;
		}
		if (width && r->write) {
			uint64_t value = 0;

			memcpy(&value, (const char *)from + done, width);
			r->write(dev, at + done, width, le64toh(value));
		}
		step = width ? width : 1;
	}
	return 0;
}

/* --- broken, reset, start and stop -------------------------------------------------- */

int pci_break(struct pci_device *dev, const char *format, ...)
{
	va_list args;

	if (dev->broken)
		return -EINVAL;
	va_start(args, format);
	vsnprintf(dev->reason, sizeof dev->reason, format, args);
	va_end(args);
	log_warn("vm %s: %s: stopped until it is reset: %s", dev->device.vm, dev->device.label,
		 dev->reason);
	dev->broken = true;
	dev->asserted = 0;
	update_line(dev);
	dev->transport_ops->broken(dev);
	return -EINVAL;
}

void pci_reset(struct pci_device *dev)
{
	bool broken = dev->broken;

	memcpy(dev->config, dev->initial, sizeof dev->config);
	dev->asserted = 0;
	dev->broken = false;
	for (unsigned i = 0; i < PCI_BARS; i++)
		if (dev->shared[i].memory)
			memset(dev->shared[i].memory, 0, dev->type->bar[i].shared_length);
	dev->type->reset(dev);
	update_line(dev);
	if (broken)
		dev->transport_ops->broken(dev);
}

int pci_start(struct pci_device *dev, struct loop *loop)
{
	int ret = 0;

	dev->loop = loop;
	dev->mode = PCI_INTX;
	for (unsigned i = 0; i < PCI_BARS && !ret; i++)
		if (dev->type->bar[i].shared_length)
			ret = share(dev, i);
	if (!ret)
		ret = dev->type->start(dev);
	if (ret)
		unshare(dev);
	return ret;
}

void pci_stop(struct pci_device *dev, void (*stopped)(struct pci_device *dev))
{
	pci_reset(dev);
	dev->stopped = stopped;
	dev->type->stop(dev);
}

void pci_stopped(struct pci_device *dev)
{
	unshare(dev);
	dev->stopped(dev);
}
