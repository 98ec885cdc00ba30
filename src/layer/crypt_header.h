/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_header.h - the copy of a volume's header that libcryptsetup works on
 *
 * It is a file in memory, of the size that the real device has, and sparse. For crypt_volume.c,
 * which reads volumes, and crypt_format.c, which makes them.
 */
#pragma once

#include <libcryptsetup.h>
#include <stdint.h>

struct error;
struct layer;

#define CRYPT_HEADER_CHUNK (1u << 20) /* bytes that are read or written at once */

struct crypt_header {
	struct crypt_device *device;
	int fd;         /**< the copy */
	char said[200]; /**< the last error message of libcryptsetup; empty: none */
};

/**
 * An empty copy of @size bytes. One at a time in this process, since libcryptsetup is not made for
 * more: the next one waits until this one is closed. 0, or -errno with @err.
 */
int crypt_header_open(struct crypt_header *header, uint64_t size, struct error *err);
void crypt_header_close(struct crypt_header *header);

/** What went wrong: what libcryptsetup said, or the name of @code (negative errno). */
const char *crypt_header_reason(const struct crypt_header *header, int code);
