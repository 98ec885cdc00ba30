/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet.c - bursts, heads, and the pool of a loop; see packet.h
 *
 * The pool hands out buffers of a few sizes, each with a burst and a packet in front, from lists of
 * free ones. What has been allocated stays with the pool, and counts against its limit; when the
 * limit is reached and the list of the wanted size is empty, free ones of other sizes make room,
 * and when there are none either the pool is full. A part of it is kept for views and crossings, so
 * that layers that hold packets do not take from the switch what it forwards with.
 */
#include "packet/packet.h"

#include <stdlib.h>

#include "packet/packet_private.h"

/* --- bursts ------------------------------------------------------------------------- */

struct burst *burst_create(void (*release)(struct burst *burst), void *owner)
{
	struct burst *burst = calloc(1, sizeof *burst);

	if (!burst)
		return NULL;
	burst->release = release;
	burst->owner = owner;
	burst->packets = calloc(PACKET_BURST, sizeof *burst->packets);
	burst->vec = calloc(BURST_IOVECS, sizeof *burst->vec);
	burst->heads = aligned_alloc(64, PACKET_BURST * sizeof *burst->heads);
	if (!burst->packets || !burst->vec || !burst->heads) {
		burst_free(burst);
		return NULL;
	}
	return burst;
}

void burst_free(struct burst *burst)
{
	if (!burst)
		return;
	free(burst->packets);
	free(burst->vec);
	free(burst->heads);
	free(burst);
}

/* Takes @length bytes off the front of @vec, to @to if it is not NULL. What is left begins at the
 * iovec that is returned. They must be there. */
static struct iovec *take(struct iovec *vec, uint8_t *to, size_t length)
{
	while (length) {
		size_t n = vec->iov_len < length ? vec->iov_len : length;

		if (to) {
			memcpy(to, vec->iov_base, n);
			to += n;
		}
		length -= n;
		if (n < vec->iov_len) {
			vec->iov_base = (char *)vec->iov_base + n;
			vec->iov_len -= n;
			break;
		}
		vec++;
	}
	return vec;
}

struct packet *burst_add(struct burst *burst, unsigned count, uint32_t skip, uint32_t length)
{
	struct iovec *vec = burst_vec(burst), *end = vec + count, *last;
	struct packet *packet = &burst->packets[burst->count];
	uint8_t *head = burst->heads[burst->count] + PACKET_ROOM;
	uint32_t first = length < PACKET_FIRST ? length : PACKET_FIRST;
	uint64_t held = 0;

	for (last = vec; last < end && held < (uint64_t)skip + length; last++)
		held += last->iov_len;
	if (length < ETHERNET_HEADER || length > PACKET_MAX || held < (uint64_t)skip + length)
		return NULL;
	if (last > vec) /* what is behind the frame is not of it */
		last[-1].iov_len -= (size_t)(held - skip - length);
	vec = take(vec, NULL, skip);
	vec = take(vec, head, first);
	*packet = (struct packet){
		.head = head,
		.head_length = (uint16_t)first,
		.length = length,
		.body = vec,
		.body_count = (uint16_t)(last - vec),
		.burst = burst,
	};
	burst->iovecs += count;
	burst->count++;
	return packet;
}

bool packet_pull(struct packet *packet, unsigned length)
{
	struct iovec *vec;
	unsigned wanted;

	if (length <= packet->head_length)
		return true;
	if (length > packet->length || length > PACKET_HEAD)
		return false;
	wanted = length - packet->head_length;
	vec = take((struct iovec *)(uintptr_t)packet->body, packet->head + packet->head_length,
		   wanted);
	packet->body_count -= (uint16_t)(vec - packet->body);
	packet->body = vec;
	packet->head_length = (uint16_t)length;
	return true;
}

void packet_copy_out(const struct packet *packet, uint32_t offset, void *to, uint32_t length)
{
	const struct iovec *vec = packet->body;
	uint8_t *at = to;

	if (offset < packet->head_length) {
		uint32_t n = packet->head_length - offset;

		if (n > length)
			n = length;
		memcpy(at, packet->head + offset, n);
		at += n;
		length -= n;
		offset = 0;
	} else {
		offset -= packet->head_length;
	}
	while (length) {
		size_t n = vec->iov_len;

		if (offset >= n) {
			offset -= (uint32_t)n;
			vec++;
			continue;
		}
		n -= offset;
		if (n > length)
			n = length;
		memcpy(at, (const char *)vec->iov_base + offset, n);
		at += n;
		length -= (uint32_t)n;
		offset = 0;
		vec++;
	}
}

/* --- the pool ----------------------------------------------------------------------- */

static const uint32_t class_bytes[POOL_CLASSES] = { 512, 2048, 10240, PACKET_MAX };

struct packet_pool *packet_pool_create(size_t bytes)
{
	struct packet_pool *pool = calloc(1, sizeof *pool);

	if (pool) {
		pool->left = bytes;
		pool->reserve = bytes / 8;
	}
	return pool;
}

static void free_list(struct kept *kept)
{
	while (kept) {
		struct kept *next = kept->next;

		free(kept);
		kept = next;
	}
}

void packet_pool_free(struct packet_pool *pool)
{
	if (!pool)
		return;
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		free_list(pool->free[i]);
	while (pool->views) {
		struct twin *next = pool->views->next;

		free(pool->views);
		pool->views = next;
	}
	while (pool->crossings) {
		struct crossing *next = pool->crossings->next;

		free(pool->crossings);
		pool->crossings = next;
	}
	free(pool);
}

static size_t kept_size(unsigned index)
{
	return sizeof(struct kept) + PACKET_ROOM + class_bytes[index];
}

/* Frees free packets, large ones first, until @bytes may be allocated; false: there are too few. */
static bool make_room(struct packet_pool *pool, size_t bytes)
{
	for (unsigned i = POOL_CLASSES; i-- > 0;) {
		while (pool->free[i] && pool->left < bytes) {
			struct kept *kept = pool->free[i];

			pool->free[i] = kept->next;
			pool->left += kept_size(i);
			free(kept);
		}
	}
	return pool->left >= bytes;
}

void *pool_allocate(struct packet_pool *pool, size_t bytes)
{
	void *memory;

	if (!make_room(pool, bytes))
		return NULL;
	memory = malloc(bytes);
	if (memory)
		pool->left -= bytes;
	return memory;
}

static void kept_release(struct burst *burst)
{
	struct kept *kept = burst->owner;
	struct packet_pool *pool = kept->pool;

	kept->next = pool->free[kept->index];
	pool->free[kept->index] = kept;
}

static struct kept *get(struct packet_pool *pool, uint32_t length)
{
	struct kept *kept;
	unsigned index = 0;

	while (index < POOL_CLASSES && class_bytes[index] < length)
		index++;
	if (index == POOL_CLASSES)
		return NULL;
	kept = pool->free[index];
	if (kept)
		pool->free[index] = kept->next;
	else if (make_room(pool, pool->reserve + kept_size(index)))
		kept = pool_allocate(pool, kept_size(index));
	if (!kept)
		return NULL;
	memset(kept, 0, sizeof *kept);
	kept->pool = pool;
	kept->index = (uint8_t)index;
	kept->burst = (struct burst){ .refs = 1, .release = kept_release, .owner = kept };
	return kept;
}

/* Says where the @length bytes of @kept are. */
static void lay_out(struct kept *kept, uint32_t length)
{
	struct packet *packet = &kept->packet;

	packet->head = kept->data + PACKET_ROOM;
	packet->head_length = (uint16_t)(length < PACKET_HEAD ? length : PACKET_HEAD);
	packet->length = length;
	packet->burst = &kept->burst;
	packet->view = false;
	kept->body.iov_base = packet->head + packet->head_length;
	kept->body.iov_len = length - packet->head_length;
	packet->body = &kept->body;
	packet->body_count = kept->body.iov_len != 0;
}

struct packet *packet_keep(struct packet_pool *pool, const struct packet *packet)
{
	struct kept *kept = get(pool, packet->length);

	if (!kept)
		return NULL;
	kept->packet = *packet;
	kept->packet.given = kept->packet.passing = false;
	lay_out(kept, packet->length);
	packet_copy_out(packet, 0, kept->packet.head, packet->length);
	return &kept->packet;
}

struct packet *packet_make(struct packet_pool *pool, uint32_t length)
{
	struct kept *kept = length < ETHERNET_HEADER ? NULL : get(pool, length);

	if (!kept)
		return NULL;
	lay_out(kept, length);
	return &kept->packet;
}

/* --- views -------------------------------------------------------------------------- */

void packet_own(struct packet *packet)
{
	struct twin *twin;

	if (!packet->view)
		return;
	twin = container_of(packet, struct twin, packet);
	if (twin->owned)
		return;
	twin->owned = true;
	memcpy(twin->head + PACKET_ROOM, packet->head, packet->head_length);
	packet->head = twin->head + PACKET_ROOM;
}

struct packet *packet_view(struct packet_pool *pool, struct packet *packet)
{
	struct twin *twin = pool->views;

	packet_pull(packet, packet->length < PACKET_HEAD ? packet->length : PACKET_HEAD);
	if (twin)
		pool->views = twin->next;
	else
		twin = pool_allocate(pool, sizeof *twin);
	if (!twin)
		return NULL;
	twin->pool = pool;
	twin->owned = false;
	twin->packet = *packet;
	twin->packet.view = true;
	twin->packet.given = false;
	burst_hold(packet->burst);
	if (packet->view) /* its head may be its own */
		packet_own(&twin->packet);
	return &twin->packet;
}

void packet_view_put(struct packet *packet)
{
	struct twin *twin = container_of(packet, struct twin, packet);
	struct packet_pool *pool = twin->pool;

	burst_put(packet->burst);
	twin->next = pool->views;
	pool->views = twin;
}

/* --- for later ---------------------------------------------------------------------- */

struct packet *packet_retain(struct packet_pool *pool, struct packet *packet)
{
	struct packet *copy;

	if (packet->burst->patient == pool && !packet->passing)
		return packet_view(pool, packet);
	copy = packet_keep(pool, packet);
	if (copy)
		copy->given = true;
	return copy;
}

void packet_release(struct packet *packet)
{
	if (packet->view)
		packet_view_put(packet);
	else if (packet->given)
		burst_put(packet->burst);
}
