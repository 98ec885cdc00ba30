/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_volume.h - a LUKS volume: what its header says, its volume key, and making one
 *
 * libcryptsetup reads and writes headers, and only ever a copy of one in memory: so whatever is
 * below may be the disk's place, nothing is written to what is damaged, and cryptsetup's own locks
 * and device-mapper have no part in it. LUKS2 On-Disk Format Specification 1.1; LUKS1 is read, too.
 */
#pragma once

#include "layer/crypt_key.h"
#include "layer/layer.h"

struct session;

/** What an open volume is. Zero-initialise. */
struct crypt_volume {
	uint64_t data_offset; /**< bytes, in what is below */
	uint64_t size;        /**< bytes; 0: up to the end of what is below */
	uint64_t tweak;       /**< of the first sector, in units of 512 bytes */
	uint32_t sector_size; /**< bytes */
	unsigned version;     /**< of LUKS */
	char uuid[40];
	char *key; /**< the volume key, from crypt_safe_alloc(); see crypt_volume_forget_key() */
	size_t key_size;
};

/** Reads the header at the start of @below and unlocks it. It waits. 0, or -errno with @err. */
int crypt_volume_open(struct crypt_volume *volume, struct layer *below,
		      const struct crypt_key_source *source, struct error *err);

/** Wipes the key. */
void crypt_volume_forget_key(struct crypt_volume *volume);

/** How a volume is to be made; the rows are crypt_format_options. */
struct crypt_format {
	struct crypt_key_source source;
	int cipher;          /**< index: AES-256, AES-128 */
	int sector_size;     /**< index: 512, 4096 */
	int pbkdf;           /**< index: argon2id, argon2i, pbkdf2 */
	uint64_t memory;     /**< bytes, of argon2; 0: libcryptsetup's default */
	uint64_t iter_time;  /**< ns; 0: libcryptsetup's default */
	uint64_t iterations; /**< exactly; 0: as many as fit @iter_time */
	char *label;
};

extern const struct option crypt_format_options[];

/** Bytes before the data of a volume that crypt_volume_create() makes. */
#define CRYPT_VOLUME_DATA_OFFSET (16ull << 20)

/**
 * Makes a volume on @below: its header and one key slot. What was there is gone. The first block is
 * written last, so that a volume is there whole or not at all. It waits. 0, or -errno with @err.
 */
int crypt_volume_create(const struct crypt_format *format, struct layer *below, struct error *err);
