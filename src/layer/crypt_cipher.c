/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_cipher.c - AES-XTS by OpenSSL, wherever the bytes of a sector are
 *
 * The key is expanded once for each way; for a sector only the tweak is set. Sectors of 512 bytes
 * are too short for even that, and have a file of their own, crypt_short.c. Sectors that lie in one
 * piece of memory are worked on there; one that is spread over several iovecs is gathered first.
 *
 * Decrypting in place leaves ciphertext in a guest's buffer until it is done, and that guest could
 * change it meanwhile, or have one page in a request twice. It would get other garbage than
 * otherwise, in its own memory, and learn nothing: XTS is made for an opponent who may choose
 * ciphertexts.
 */
#include "layer/crypt_cipher.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "layer/crypt_memory.h"
#include "layer/crypt_short.h"
#include "util/error.h"

#define SECTOR_MOST 4096

struct crypt_cipher {
	uint32_t sector_size;
	EVP_CIPHER_CTX *encrypt, *decrypt;
	EVP_CIPHER_CTX *tweaks; /* of short sectors: all three are in ECB mode then; else NULL */
};

/* --- keys ------------------------------------------------------------------------------- */

static EVP_CIPHER_CTX *expand(const EVP_CIPHER *algorithm, const char *key, int encrypt)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (context && EVP_CipherInit_ex2(context, algorithm, (const unsigned char *)key, NULL,
					  encrypt, NULL) == 1) {
		/* Not where it means nothing: there it would only cost, each time a tweak is set.
		 */
		if (EVP_CIPHER_get_mode(algorithm) == EVP_CIPH_ECB_MODE)
			EVP_CIPHER_CTX_set_padding(context, 0);
		return context;
	}
	EVP_CIPHER_CTX_free(context);
	return NULL;
}

/* Key schedules are made in locked memory. */
static bool expand_all(struct crypt_cipher *c, const char *key, unsigned key_size)
{
	bool small = c->sector_size == 512 && CRYPT_SHORT;
	const char *name = key_size == 64 ? (small ? "AES-256-ECB" : "AES-256-XTS")
					  : (small ? "AES-128-ECB" : "AES-128-XTS");
	EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, name, NULL);

	if (!algorithm)
		return false;
	crypt_memory_enter();
	c->encrypt = expand(algorithm, key, 1);
	c->decrypt = expand(algorithm, key, 0);
	c->tweaks = small ? expand(algorithm, key + key_size / 2, 1) : NULL;
	crypt_memory_leave();
	EVP_CIPHER_free(algorithm);
	return c->encrypt && c->decrypt && (c->tweaks || !small);
}

struct crypt_cipher *crypt_cipher_create(const char *key, unsigned key_size, uint32_t sector_size,
					 struct error *err)
{
	struct crypt_cipher *c;

	/* With equal halves XTS is weak; see NIST SP 800-38E and FIPS 140 IG A.9. */
	if (!CRYPTO_memcmp(key, key + key_size / 2, key_size / 2)) {
		error_set(err, EINVAL, "the two halves of the volume key are equal");
		return NULL;
	}
	c = calloc(1, sizeof *c);
	if (!c) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	c->sector_size = sector_size;
	if (expand_all(c, key, key_size))
		return c;
	error_set(err, EINVAL, "OpenSSL does not take the volume key: %s",
		  ERR_reason_error_string(ERR_peek_last_error()));
	ERR_clear_error();
	crypt_cipher_free(c);
	return NULL;
}

static EVP_CIPHER_CTX *copy(const EVP_CIPHER_CTX *context)
{
	EVP_CIPHER_CTX *to = EVP_CIPHER_CTX_new();

	if (to && EVP_CIPHER_CTX_copy(to, context) == 1)
		return to;
	EVP_CIPHER_CTX_free(to);
	return NULL;
}

struct crypt_cipher *crypt_cipher_copy(const struct crypt_cipher *cipher)
{
	struct crypt_cipher *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->sector_size = cipher->sector_size;
	crypt_memory_enter();
	c->encrypt = copy(cipher->encrypt);
	c->decrypt = copy(cipher->decrypt);
	c->tweaks = cipher->tweaks ? copy(cipher->tweaks) : NULL;
	crypt_memory_leave();
	if (c->encrypt && c->decrypt && !c->tweaks == !cipher->tweaks)
		return c;
	ERR_clear_error();
	crypt_cipher_free(c);
	return NULL;
}

void crypt_cipher_free(struct crypt_cipher *cipher)
{
	if (!cipher)
		return;
	EVP_CIPHER_CTX_free(cipher->encrypt); /* wipes the key schedule */
	EVP_CIPHER_CTX_free(cipher->decrypt);
	EVP_CIPHER_CTX_free(cipher->tweaks);
	free(cipher);
}

/* --- sectors ---------------------------------------------------------------------------- */

/* Sectors that lie one after another, from @from to @to, which may be the same. */
static bool sectors(const struct crypt_cipher *c, EVP_CIPHER_CTX *context, uint64_t tweak,
		    const unsigned char *from, unsigned char *to, uint64_t length)
{
	const uint32_t size = c->sector_size;
	int written;

	if (c->tweaks)
		return crypt_short_sectors(context, c->tweaks, tweak, from, to, length);
	for (; length; length -= size, from += size, to += size, tweak += size / 512) {
		uint64_t iv[2] = { htole64(tweak), 0 };

		if (EVP_CipherInit_ex2(context, NULL, NULL, (unsigned char *)iv, -1, NULL) != 1 ||
		    EVP_CipherUpdate(context, to, &written, from, (int)size) != 1)
			return false;
	}
	return true;
}

/* All of @data into @to, or where it is (@to NULL). */
static int run(const struct crypt_cipher *c, EVP_CIPHER_CTX *context, uint64_t tweak,
	       struct io_data data, unsigned char *to, uint64_t length)
{
	unsigned char spread[SECTOR_MOST];
	uint32_t size = c->sector_size;

	while (length) {
		uint64_t here = data.vec->iov_len - data.skip;
		unsigned char *at = (unsigned char *)data.vec->iov_base + data.skip;
		bool done;

		if (here >= size) {
			here = (here < length ? here : length) / size * size;
			done = sectors(c, context, tweak, at, to ? to : at, here);
		} else {
			here = size;
			io_data_copy_out(data, spread, size);
			done = sectors(c, context, tweak, spread, to ? to : spread, size);
			if (!to)
				io_data_copy_in(data, spread, size);
		}
		if (!done) {
			ERR_clear_error();
			return -EIO;
		}
		to = to ? to + here : NULL;
		tweak += here / 512;
		length -= here;
		data = io_data_slice(data, here);
	}
	return 0;
}

int crypt_encrypt(struct crypt_cipher *cipher, uint64_t tweak, struct io_data from, void *to,
		  uint64_t length)
{
	return run(cipher, cipher->encrypt, tweak, from, to, length);
}

int crypt_encrypt_zeroes(struct crypt_cipher *cipher, uint64_t tweak, void *to, uint64_t length)
{
	memset(to, 0, length);
	return sectors(cipher, cipher->encrypt, tweak, to, to, length) ? 0 : -EIO;
}

int crypt_decrypt(struct crypt_cipher *cipher, uint64_t tweak, struct io_data data, uint64_t length)
{
	return run(cipher, cipher->decrypt, tweak, data, NULL, length);
}
