/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_cipher.h - AES-XTS on sectors, as dm-crypt and LUKS number them
 *
 * A tweak is the number of a sector in units of 512 bytes, whatever the size of a sector
 * ("plain64"), as 64 bits, the least significant first (IEEE 1619-2007 for the mode).
 */
#pragma once

#include "io/io.h"

struct error;

/** Key schedules for both ways and what OpenSSL keeps beside; for one thread at a time. */
struct crypt_cipher;

/**
 * For a volume key of @key_size bytes: 64 for AES-256, 32 for AES-128. The key is not needed
 * afterwards. NULL with @err.
 */
struct crypt_cipher *crypt_cipher_create(const char *key, unsigned key_size, uint32_t sector_size,
					 struct error *err);

/** Another one of the same key. NULL: no memory. */
struct crypt_cipher *crypt_cipher_copy(const struct crypt_cipher *cipher);

/** Wipes and frees it. NULL is allowed. */
void crypt_cipher_free(struct crypt_cipher *cipher);

/**
 * Encrypts @length bytes of @from, whole sectors, into @to. @tweak is that of the first. Each byte
 * of
 * @from is read once, since a guest may change it meanwhile. 0 or -EIO.
 */
int crypt_encrypt(struct crypt_cipher *cipher, uint64_t tweak, struct io_data from, void *to,
		  uint64_t length);

/** The same of zeroes. */
int crypt_encrypt_zeroes(struct crypt_cipher *cipher, uint64_t tweak, void *to, uint64_t length);

/** Decrypts @length bytes, whole sectors, where they are. 0 or -EIO. */
int crypt_decrypt(struct crypt_cipher *cipher, uint64_t tweak, struct io_data data,
		  uint64_t length);
