/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.c - by the instruction of SSE 4.2 where there is one, else by a table; see crc32c.h */
#include "util/crc32c.h"

#include <string.h>

static uint32_t table[256];

__attribute__((constructor)) static void fill_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		table[i] = crc;
	}
}

static uint32_t by_table(uint32_t crc, const unsigned char *at, size_t length)
{
	while (length--)
		crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t
by_instruction(uint32_t crc, const unsigned char *at, size_t length)
{
	uint64_t long_crc = crc, eight;

	for (; length >= 8; length -= 8, at += 8) {
		memcpy(&eight, at, 8);
		long_crc = __builtin_ia32_crc32di(long_crc, eight);
	}
	crc = (uint32_t)long_crc;
	while (length--)
		crc = __builtin_ia32_crc32qi(crc, *at++);
	return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~by_instruction(~crc, bytes, length);
#endif
	return ~by_table(~crc, bytes, length);
}
