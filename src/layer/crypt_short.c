/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_short.c - AES-XTS on many sectors of 512 bytes at once
 *
 * OpenSSL does one sector in a call, and what is around a call takes half as long as 512 bytes
 * themselves. So XTS is put together here from what it is made of (IEEE 1619-2007, 5.3):
 *
 *     T = AES(key 2, number of the sector), then times x in GF(2^128) from block to block
 *     out = T xor AES(key 1, T xor in)
 *
 * OpenSSL encrypts the numbers of up to 128 sectors in one call, and the blocks of 16 sectors in
 * another. What is between is vectors, in which T of four or eight sectors go side by side. It goes
 * through memory of our own, for a guest that saw T xor something would learn T. All words are
 * little-endian, as the standard has them: see CRYPT_SHORT.
 */
#include "layer/crypt_short.h"

#include <stdatomic.h>
#include <string.h>

#define SECTOR  512
#define BLOCKS  (SECTOR / 16)
#define SECTORS 8    /* whose T go side by side */
#define CHUNK   8192 /* bytes at once: fits a first-level cache some times over */
#define BATCH   128  /* sectors whose numbers are encrypted in one call */

/* Four words of 64 bits, at any address. */
typedef uint64_t words __attribute__((vector_size(32), aligned(1), may_alias));

/* One place in the code for what is compiled twice, for different processors. */
#define INLINE static inline __attribute__((always_inline))

/* T of all blocks of the sectors, whose first ones are @first. */
INLINE void expand(const uint64_t (*first)[2], unsigned char *tweaks)
{
	for (unsigned s = 0; s < SECTORS; s += 4) {
		words low = { first[s][0], first[s + 1][0], first[s + 2][0], first[s + 3][0] };
		words high = { first[s][1], first[s + 1][1], first[s + 2][1], first[s + 3][1] };
		unsigned char *to = tweaks + s * SECTOR;

		for (unsigned b = 0; b < BLOCKS; b++, to += 16) {
			words even = __builtin_shufflevector(low, high, 0, 4, 2, 6);
			words odd = __builtin_shufflevector(low, high, 1, 5, 3, 7);
			words carry = -(high >> 63) & 0x87;

			memcpy(to, &even, 16);
			memcpy(to + SECTOR, &odd, 16);
			memcpy(to + 2 * SECTOR, (char *)&even + 16, 16);
			memcpy(to + 3 * SECTOR, (char *)&odd + 16, 16);
			high = high << 1 | low >> 63;
			low = low << 1 ^ carry;
		}
	}
}

/* @length is a multiple of 128. */
INLINE void combine(unsigned char *to, const unsigned char *from, const unsigned char *tweaks,
		    size_t length)
{
	for (size_t i = 0; i < length; i += 128)
		for (size_t k = i; k < i + 128; k += 32)
			*(words *)(to + k) = *(const words *)(from + k) ^
					     *(const words *)(tweaks + k);
}

/* What differs from processor to processor. */
struct ways {
	void (*expand)(const uint64_t (*first)[2], unsigned char *tweaks);
	void (*combine)(unsigned char *to, const unsigned char *from, const unsigned char *tweaks,
			size_t length);
};

static void expand_any(const uint64_t (*first)[2], unsigned char *tweaks)
{
	expand(first, tweaks);
}

static void combine_any(unsigned char *to, const unsigned char *from, const unsigned char *tweaks,
			size_t length)
{
	combine(to, from, tweaks, length);
}

static const struct ways any = { expand_any, combine_any };

#ifdef __x86_64__
__attribute__((target("avx2"))) static void expand_avx2(const uint64_t (*first)[2],
							unsigned char *tweaks)
{
	expand(first, tweaks);
}

__attribute__((target("avx2"))) static void combine_avx2(unsigned char *to,
							 const unsigned char *from,
							 const unsigned char *tweaks, size_t length)
{
	combine(to, from, tweaks, length);
}

static const struct ways avx2 = { expand_avx2, combine_avx2 };

/* Eight words: T of all sectors at once, and four blocks of one sector in a store. */
typedef uint64_t wide __attribute__((vector_size(64), aligned(1), may_alias));

#define SHUFFLE __builtin_shufflevector
#define EVEN    0, 8, 2, 10, 4, 12, 6, 14
#define ODD     1, 9, 3, 11, 5, 13, 7, 15

__attribute__((target("avx512f"), always_inline)) static inline void times_x(wide *low, wide *high)
{
	wide carry = -(*high >> 63) & 0x87;

	*high = *high << 1 | *low >> 63;
	*low = *low << 1 ^ carry;
}

/* T of the sectors 0, 2, 4 and 6 (or those after them) for four blocks, turned round and stored. */
__attribute__((target("avx512f"), always_inline)) static inline void store_turned(const wide *t,
										  unsigned char *to)
{
	wide front01 = SHUFFLE(t[0], t[1], 0, 1, 2, 3, 8, 9, 10, 11);
	wide front23 = SHUFFLE(t[2], t[3], 0, 1, 2, 3, 8, 9, 10, 11);
	wide back01 = SHUFFLE(t[0], t[1], 4, 5, 6, 7, 12, 13, 14, 15);
	wide back23 = SHUFFLE(t[2], t[3], 4, 5, 6, 7, 12, 13, 14, 15);

	*(wide *)to = SHUFFLE(front01, front23, 0, 1, 4, 5, 8, 9, 12, 13);
	*(wide *)(to + 2 * SECTOR) = SHUFFLE(front01, front23, 2, 3, 6, 7, 10, 11, 14, 15);
	*(wide *)(to + 4 * SECTOR) = SHUFFLE(back01, back23, 0, 1, 4, 5, 8, 9, 12, 13);
	*(wide *)(to + 6 * SECTOR) = SHUFFLE(back01, back23, 2, 3, 6, 7, 10, 11, 14, 15);
}

__attribute__((target("avx512f"))) static void expand_avx512(const uint64_t (*first)[2],
							     unsigned char *tweaks)
{
	wide low, high;

	for (unsigned s = 0; s < SECTORS; s++) {
		low[s] = first[s][0];
		high[s] = first[s][1];
	}
	for (unsigned b = 0; b < BLOCKS; b += 4) {
		wide even[4], odd[4];

		/* Written out, or the compiler keeps them in memory. */
		even[0] = SHUFFLE(low, high, EVEN);
		odd[0] = SHUFFLE(low, high, ODD);
		times_x(&low, &high);
		even[1] = SHUFFLE(low, high, EVEN);
		odd[1] = SHUFFLE(low, high, ODD);
		times_x(&low, &high);
		even[2] = SHUFFLE(low, high, EVEN);
		odd[2] = SHUFFLE(low, high, ODD);
		times_x(&low, &high);
		even[3] = SHUFFLE(low, high, EVEN);
		odd[3] = SHUFFLE(low, high, ODD);
		times_x(&low, &high);
		store_turned(even, tweaks + b * 16);
		store_turned(odd, tweaks + SECTOR + b * 16);
	}
}

__attribute__((target("avx512f"))) static void combine_avx512(unsigned char *to,
							      const unsigned char *from,
							      const unsigned char *tweaks,
							      size_t length)
{
	for (const unsigned char *end = from + length; from < end;
	     from += 256, to += 256, tweaks += 256) {
		wide a = *(const wide *)from ^ *(const wide *)tweaks;
		wide b = *(const wide *)(from + 64) ^ *(const wide *)(tweaks + 64);
		wide c = *(const wide *)(from + 128) ^ *(const wide *)(tweaks + 128);
		wide d = *(const wide *)(from + 192) ^ *(const wide *)(tweaks + 192);

		*(wide *)to = a;
		*(wide *)(to + 64) = b;
		*(wide *)(to + 128) = c;
		*(wide *)(to + 192) = d;
	}
}

static const struct ways avx512 = { expand_avx512, combine_avx512 };
#endif

static const struct ways *way_of(enum crypt_short_way way)
{
#ifdef __x86_64__
	if (way == CRYPT_SHORT_AVX512)
		return __builtin_cpu_supports("avx512f") ? &avx512 : NULL;
	if (way == CRYPT_SHORT_AVX2)
		return __builtin_cpu_supports("avx2") ? &avx2 : NULL;
#endif
	return way == CRYPT_SHORT_ANY ? &any : NULL;
}

static _Atomic(const struct ways *) used;

bool crypt_short_use(enum crypt_short_way way)
{
	if (!way_of(way))
		return false;
	atomic_store_explicit(&used, way_of(way), memory_order_relaxed);
	return true;
}

static const struct ways *ways(void)
{
	const struct ways *way = atomic_load_explicit(&used, memory_order_relaxed);

	for (int best = CRYPT_SHORT_AVX512; !way; best--)
		if ((way = way_of((enum crypt_short_way)best)))
			atomic_store_explicit(&used, way, memory_order_relaxed);
	return way;
}

/* The first T of @count sectors, and nothing for those behind them up to a multiple of SECTORS. */
static bool begin(EVP_CIPHER_CTX *tweaks, uint64_t tweak, unsigned count, uint64_t (*first)[2])
{
	int written;

	for (unsigned s = 0; s < count; s++) {
		first[s][0] = tweak + s;
		first[s][1] = 0;
	}
	memset(first[count], 0, sizeof first[count] * (-count % SECTORS));
	return EVP_CipherUpdate(tweaks, (unsigned char *)first, &written, (unsigned char *)first,
				(int)count * 16) == 1;
}

bool crypt_short_sectors(EVP_CIPHER_CTX *data, EVP_CIPHER_CTX *tweaks, uint64_t tweak,
			 const unsigned char *from, unsigned char *to, uint64_t length)
{
	const struct ways *way = ways();
	unsigned char all[CHUNK] __attribute__((aligned(64)));
	unsigned char between[CHUNK] __attribute__((aligned(64)));
	uint64_t first[BATCH][2];
	bool done = true;

	for (unsigned s = 0; length && done; s = (s + CHUNK / SECTOR) % BATCH) {
		int now = length < CHUNK ? (int)length : CHUNK, written;

		if (s == 0) {
			uint64_t left = length / SECTOR;

			done = begin(tweaks, tweak, left < BATCH ? (unsigned)left : BATCH, first);
			tweak += BATCH;
		}
		for (int at = 0; at < now; at += SECTORS * SECTOR)
			way->expand(&first[s + (unsigned)at / SECTOR], all + at);
		way->combine(between, from, all, (size_t)now);
		done = done && EVP_CipherUpdate(data, between, &written, between, now) == 1;
		way->combine(to, between, all, (size_t)now);
		from += now;
		to += now;
		length -= (uint64_t)now;
	}
	return done;
}
