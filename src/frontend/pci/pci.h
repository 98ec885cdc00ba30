/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pci.h - a PCI function, as its guest sees it: config space, BARs, interrupts, DMA
 *
 * A device type (IDE, PVSCSI, ...) is a table, struct pci_type: its identity, its BARs with the
 * registers in them, how it can interrupt. Its own file holds nothing else of PCI. pci.c keeps
 * config space (what may be written, what a BAR's size looks like, capabilities), finds the
 * register that an access means, and turns pci_assert() into MSI-X, MSI or a level on INTx,
 * whichever the guest has enabled. A transport (vfio-user) carries accesses in, and interrupts and
 * DMA out; it is behind struct pci_transport_ops, so that a unit test can stand in its place.
 *
 * Threads. All of a function runs on one loop, its own: accesses, interrupts, the requests that it
 * has on disks. So a device type needs no locks. What the control side wants comes as a message.
 *
 * An access must never wait: not for storage, not for DMA by message (the VMM serves that under the
 * same lock under which it waits for us). A handler starts things, and returns.
 *
 * Sources: PCI Local Bus Specification 3.0 (chapter 6, config space; 6.8, MSI and MSI-X); PCI Power
 * Management 1.2.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frontend/device.h"
#include "memory/dma.h"

struct loop;
struct pci_device;

#define PCI_BARS        6
#define PCI_CONFIG_SIZE 256 /**< bytes of config space */
#define PCI_VECTORS     32  /**< most interrupt vectors of a function */

/**
 * One register, or a row of equal ones. An access belongs to the register that holds its first
 * byte, and is made by the widest of @widths that is not longer than what is left of it, and is
 * aligned within the register; what is left then goes on at the next byte. So a data port that is
 * wider than its place in the map is @length 1 with @widths 2 and 4. Accesses that no register
 * covers read as zeroes and are dropped; so are those of a width that @widths does not name.
 */
struct pci_register {
	const char *name; /**< for traces: the specification's */
	uint32_t offset;  /**< in the BAR */
	uint32_t length;  /**< bytes; 0 ends the table */
	uint8_t widths;   /**< those allowed, or'ed: 1, 2, 4, 8 */
	/** @offset: in the BAR. NULL: reads as zero. */
	uint64_t (*read)(struct pci_device *dev, uint32_t offset, unsigned width);
	/** NULL: dropped. */
	void (*write)(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value);
};

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEMORY };

struct pci_bar {
	enum pci_bar_kind kind;
	uint32_t size;                        /**< bytes, a power of two */
	const struct pci_register *registers; /**< in any order, none overlapping */
	/**
	 * Pages that are plain memory, which the VMM may map, so that the guest's accesses cost
	 * nothing and tell nobody: see pci_shared(). Multiples of 4096; 0: none.
	 */
	uint32_t shared_offset, shared_length;
};

/** One kind of function. */
struct pci_type {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /**< base class, subclass, programming interface: 0xbbsspp */
	struct pci_bar bar[PCI_BARS];
	bool intx;             /**< it has INTA# */
	unsigned msi_vectors;  /**< 0: no MSI capability; a power of two */
	unsigned msix_vectors; /**< 0: no MSI-X capability */
	uint8_t msix_bar;      /**< where its table and its pending bits are: nothing else there */
	uint32_t msix_table, msix_pending; /**< offsets in that BAR */

	/** The VMM connected: prepare for service on @dev->loop (queues onto disks). 0 or -errno.
	 */
	int (*start)(struct pci_device *dev);
	/** Take nothing more; call pci_stopped() when all that was begun has ended. May be at once.
	 */
	void (*stop)(struct pci_device *dev);
	/**
	 * The function was reset (by the VMM, or at its disconnection): registers are as after
	 * power-on. What is under way in storage goes on, but must no longer show: neither in guest
	 * memory (as far as that can be held back) nor in registers nor by an interrupt.
	 */
	void (*reset)(struct pci_device *dev);
	/** Bus mastering was turned on or off; may be NULL. */
	void (*bus_master)(struct pci_device *dev, bool on);
};

/** How a function reaches its guest. Called on the function's loop; none of them waits. */
struct pci_transport_ops {
	/** Sends the message of @vector (MSI, MSI-X). */
	void (*signal)(struct pci_device *dev, unsigned vector);
	/** The level of INTA#, when it changes. */
	void (*line)(struct pci_device *dev, bool high);
	/** @dev->broken has changed, and with it @dev->reason. */
	void (*broken)(struct pci_device *dev);
};

enum pci_interrupt_mode { PCI_INTX, PCI_MSI, PCI_MSIX };

/** A function. A device type embeds it, as the first member of its own object. */
struct pci_device {
	struct device device; /**< first, for the control side */
	const struct pci_type *type;
	const struct pci_transport_ops *transport_ops;
	void *transport;   /**< of whoever set @transport_ops */
	struct loop *loop; /**< the only thread that touches it */
	struct dma_space dma;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t initial[PCI_CONFIG_SIZE];  /**< @config after power-on */
	uint8_t writable[PCI_CONFIG_SIZE]; /**< bits of @config that the guest may write */
	enum pci_interrupt_mode mode; /**< set by the transport, when the VMM enables vectors */
	/** The guest's processor waits for the write under way; else it may have gone on, and put
	 * its memory to another use. Set by the transport. */
	bool waited_for;
	uint32_t asserted;       /**< vectors, as the device type has them */
	bool line;               /**< INTA# is high */
	uint8_t msi_at, msix_at; /**< offsets of the capabilities in @config; 0: none */
	bool broken;             /**< see pci_break() */
	char reason[200];        /**< of @broken */
	void (*stopped)(struct pci_device *dev); /**< of pci_stop(), while that waits */
	/** See pci_shared(); while in service. */
	struct {
		int fd;       /**< a file as large as the BAR, at the same offsets */
		char *memory; /**< of the shared pages; NULL: none */
	} shared[PCI_BARS];
};

/* --- for device types --------------------------------------------------------------- */

/**
 * Fills @dev from @type. @dev->device has been through device_init(), or will be before
 * pci_start(); the rest of the object must be zero.
 */
void pci_init(struct pci_device *dev, const struct pci_type *type);

/**
 * A register of the type's own in config space, of @width (1, 2, 4) bytes: what it is after
 * power-on, and the bits of it that the guest may write. 0x40 to 0x5f and 0x80 to 0xff are free for
 * them. After pci_init().
 */
void pci_config_register(struct pci_device *dev, unsigned offset, unsigned width, uint32_t value,
			 uint32_t writable);

/**
 * The device has a reason to interrupt by @vector, until pci_deassert(). With MSI and MSI-X each
 * call sends a message; on INTx the line is high while any vector is asserted, which the guest must
 * end by an acknowledgement that the device type turns into pci_deassert(). Counts into the
 * device's stats.
 */
void pci_assert(struct pci_device *dev, unsigned vector);
void pci_deassert(struct pci_device *dev, unsigned vector);

/** True if the guest lets the function reach memory (command register, bus master). */
bool pci_bus_master(const struct pci_device *dev);

/**
 * The shared pages of BAR @bar, while the function is in service; zeroes after a reset. The guest,
 * and the VMM, change them at any time: what matters is read once, then checked.
 */
void *pci_shared(const struct pci_device *dev, unsigned bar);

/**
 * The guest did what it must not: logs the reason, once; from here on every access reads as ones
 * and is dropped, until a reset. Returns -EINVAL.
 */
int pci_break(struct pci_device *dev, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** From a type's @stop: everything that was begun has ended. */
void pci_stopped(struct pci_device *dev);

/* --- for transports ----------------------------------------------------------------- */

/**
 * Reads or writes @length bytes of BAR @bar or of config space. Whatever the length, the device
 * type sees accesses of 1, 2, 4 or 8 bytes (see struct pci_register). 0, or -EINVAL if it is
 * outside the region. Those of BARs are counted in the device's stats.
 */
int pci_bar_read(struct pci_device *dev, unsigned bar, uint64_t offset, void *to, uint32_t length);
int pci_bar_write(struct pci_device *dev, unsigned bar, uint64_t offset, const void *from,
		  uint32_t length);
int pci_config_read(struct pci_device *dev, uint64_t offset, void *to, uint32_t length);
int pci_config_write(struct pci_device *dev, uint64_t offset, const void *from, uint32_t length);

/** Resets the function: config space, interrupts, and the device type. */
void pci_reset(struct pci_device *dev);

/** The VMM chose another way to interrupt, or has new descriptors: what is pending is sent again.
 */
void pci_interrupts_changed(struct pci_device *dev, enum pci_interrupt_mode mode);

/**
 * Begins service on @loop, with INTx and nothing asserted; @dev->dma and @dev->transport are ready.
 * 0 or -errno of the type's start.
 */
int pci_start(struct pci_device *dev, struct loop *loop);

/**
 * Resets the function, ends service, and calls @stopped when all that was begun has ended: may be
 * at once.
 */
void pci_stop(struct pci_device *dev, void (*stopped)(struct pci_device *dev));
