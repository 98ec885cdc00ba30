/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * checksum.c - one's complement sums (RFC 1071)
 *
 * A sum of 16-bit words may be taken of words of any width and in any byte order, and folded
 * afterwards (RFC 1071, 2). Here words are 64 bits, as the machine has them; four sums at a time do
 * not wait for one another's carries. A piece that begins at an odd offset of the whole counts with
 * its bytes swapped, sum and all.
 */
#include "packet/frame.h"

/* a + b, where a carry out of the top comes in again at the bottom. */
static inline uint64_t add(uint64_t a, uint64_t b)
{
	a += b;
	return a + (a < b);
}

static inline uint64_t word(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof value);
	return value;
}

static inline uint32_t fold(uint64_t sum)
{
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 16) + (uint16_t)sum;
	sum = (sum >> 16) + (uint16_t)sum;
	return (uint32_t)((sum >> 16) + (uint16_t)sum);
}

uint32_t sum_bytes(const void *data, size_t length, uint32_t sum)
{
	const uint8_t *at = data;
	uint64_t a = sum, b = 0, c = 0, d = 0;

	for (; length >= 32; length -= 32, at += 32) {
		a = add(a, word(at));
		b = add(b, word(at + 8));
		c = add(c, word(at + 16));
		d = add(d, word(at + 24));
	}
	for (; length >= 8; length -= 8, at += 8)
		a = add(a, word(at));
	if (length & 4) {
		uint32_t four;

		memcpy(&four, at, 4);
		b = add(b, four);
		at += 4;
	}
	if (length & 2) {
		uint16_t two;

		memcpy(&two, at, 2);
		c = add(c, two);
		at += 2;
	}
	if (length & 1) {
		uint16_t one = 0;

		memcpy(&one, at, 1);
		d = add(d, one);
	}
	return fold(add(add(a, b), add(c, d)));
}

/* Adds a piece that begins at @offset of the whole. */
static inline uint32_t sum_piece(const void *data, size_t length, uint32_t offset, uint32_t sum)
{
	uint32_t piece;

	if (!(offset & 1))
		return sum_bytes(data, length, sum);
	piece = sum_bytes(data, length, 0);
	return fold((uint64_t)sum + __builtin_bswap16((uint16_t)piece));
}

uint32_t frame_sum(const struct packet *packet, uint32_t offset, uint32_t length, uint32_t sum)
{
	uint32_t done = 0;

	sum = fold(sum);
	if (offset < packet->head_length) {
		done = packet->head_length - offset;
		if (done > length)
			done = length;
		sum = sum_bytes(packet->head + offset, done, sum);
		offset = 0;
	} else {
		offset -= packet->head_length;
	}
	for (unsigned i = 0; i < packet->body_count && done < length; i++) {
		const struct iovec *vec = &packet->body[i];
		size_t n = vec->iov_len;

		if (offset >= n) {
			offset -= (uint32_t)n;
			continue;
		}
		n -= offset;
		if (n > length - done)
			n = length - done;
		sum = sum_piece((const uint8_t *)vec->iov_base + offset, n, done, sum);
		done += (uint32_t)n;
		offset = 0;
	}
	return sum;
}
