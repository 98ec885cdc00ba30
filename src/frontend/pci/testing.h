/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * testing.h - a PCI function for tests: registers that show what a transport does with it
 *
 * BAR 0 (memory, 4 KiB), all registers 4 bytes wide if nothing else is said:
 */
#pragma once

#include "frontend/pci/pci.h"

struct error;

enum {
	TESTING_ID = 0x00,      /**< reads as TESTING_MAGIC */
	TESTING_SCRATCH = 0x04, /**< 1, 2 or 4 bytes wide; cleared by a reset */
	TESTING_WRITES = 0x08,  /**< how often SCRATCH was written */
	TESTING_ASSERT = 0x0c,  /**< write a vector */
	TESTING_DEASSERT = 0x10,
	TESTING_BREAK = 0x14,   /**< write: the function breaks */
	TESTING_LENGTH = 0x18,  /**< of the transfer, bytes; at most TESTING_BYTES are kept */
	TESTING_FILL = 0x1c,    /**< write a byte: all of the function's buffer becomes it */
	TESTING_ADDRESS = 0x20, /**< of the transfer; 8 bytes wide */
	TESTING_START = 0x28,   /**< write 0: guest to buffer; 1: buffer to guest */
	TESTING_STATUS =
		0x2c,        /**< TESTING_IDLE, TESTING_BUSY, or 0 or -errno of the last transfer */
	TESTING_HOLD = 0x30, /**< 1: transfers wait half way, as for storage, until 0 is written */
	TESTING_SUM = 0x34,  /**< of the bytes in the buffer */
};

#define TESTING_MAGIC  0x54534554u
#define TESTING_BYTES  0x40000u
#define TESTING_SHARED 0x2000u
#define TESTING_IDLE   1u
#define TESTING_BUSY   2u

/**
 * BAR 1 has one port, 1 byte long and 2 or 4 wide, that reads as what was last written; BAR 2 holds
 * the table of MSI-X; BAR 3 (16 KiB) has TESTING_SHARED bytes of memory at TESTING_SHARED, and at 0
 * a register that reads as the first 4 bytes of that, and sets them.
 * Its kind is "testing"; it has no units. NULL with @err.
 */
struct device *testing_create(const char *name, const char *socket, struct error *err);
