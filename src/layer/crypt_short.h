/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt_short.h - AES-XTS on many sectors of 512 bytes at once; see crypt_short.c */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>

#include <openssl/evp.h>

/** True where this can be used. */
#define CRYPT_SHORT (__BYTE_ORDER == __LITTLE_ENDIAN)

/**
 * Sectors of 512 bytes that lie one after another, from @from to @to (which may be the same).
 * @data: AES in ECB mode with the first half of the key, for the way that is wanted; @tweaks: the
 * same with the second half, encrypting. Each byte of @from is read once; nothing but the result is
 * written to
 * @to.
 */
bool crypt_short_sectors(EVP_CIPHER_CTX *data, EVP_CIPHER_CTX *tweaks, uint64_t tweak,
			 const unsigned char *from, unsigned char *to, uint64_t length);

/** What is used of a processor. */
enum crypt_short_way { CRYPT_SHORT_ANY, CRYPT_SHORT_AVX2, CRYPT_SHORT_AVX512 };

/** Uses @way from now on, not the best there is; for tests. False: this processor has not got it.
 */
bool crypt_short_use(enum crypt_short_way way);
