/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.h - the checksum of our formats on disk: CRC-32C (Castagnoli; RFC 3720, appendix B.4) */
#pragma once

#include <stddef.h>
#include <stdint.h>

/** The checksum of @length bytes, going on from @crc: that of what is before them, 0 at the start.
 */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t length);
