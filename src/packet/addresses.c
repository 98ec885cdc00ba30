/* SPDX-License-Identifier: BSD-3-Clause */
/* addresses.c - see addresses.h */
#include "packet/addresses.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#define WAYS 4u

/* value: seconds in the upper half, then the static bit, the port in the lowest 16 bits */
#define STATIC   (1ull << 16)
#define NO_SWEEP UINT32_MAX

struct entry {
	_Atomic uint64_t key; /* 0: free, or being changed */
	_Atomic uint64_t value;
};

struct bucket {
	struct entry entry[WAYS];
} __attribute__((aligned(64)));

struct addresses {
	struct bucket *buckets;
	uint64_t mask; /* of their number */
	uint64_t salt; /* so that nobody can choose addresses that share their buckets */
	unsigned max, ports;
	uint32_t ageing;
	atomic_uint total;
	atomic_uint *per_port;
	atomic_uint swept;     /* second in which old ones were last looked for */
	pthread_mutex_t mutex; /* of writers */
};

struct addresses *addresses_create(unsigned max, uint32_t ageing, unsigned ports)
{
	struct addresses *a = calloc(1, sizeof *a);
	uint64_t buckets = 16;

	if (!a)
		return NULL;
	/* Half full at most: then both buckets of an address are hardly ever. */
	while (buckets * WAYS < 2ull * max)
		buckets *= 2;
	a->mask = buckets - 1;
	if (getrandom(&a->salt, sizeof a->salt, 0) != sizeof a->salt)
		a->salt = (uintptr_t)a;
	a->max = max;
	a->ports = ports;
	a->ageing = ageing;
	atomic_init(&a->swept, NO_SWEEP);
	pthread_mutex_init(&a->mutex, NULL);
	a->buckets = aligned_alloc(64, buckets * sizeof *a->buckets);
	a->per_port = calloc(ports, sizeof *a->per_port);
	if (!a->buckets || !a->per_port) {
		addresses_free(a);
		return NULL;
	}
	for (uint64_t b = 0; b < buckets; b++)
		for (unsigned w = 0; w < WAYS; w++) {
			atomic_init(&a->buckets[b].entry[w].key, 0);
			atomic_init(&a->buckets[b].entry[w].value, 0);
		}
	return a;
}

void addresses_free(struct addresses *a)
{
	if (!a)
		return;
	pthread_mutex_destroy(&a->mutex);
	free(a->buckets);
	free(a->per_port);
	free(a);
}

/* --- entries ------------------------------------------------------------------------ */

/* All bits of the key, VLAN and address, reach all bits of this. */
static uint64_t mixed(const struct addresses *a, uint64_t key)
{
	unsigned __int128 p = (unsigned __int128)(key ^ a->salt) * 0x9e3779b97f4a7c15ull;
	uint64_t hash = ((uint64_t)p ^ (uint64_t)(p >> 64)) * 0xc2b2ae3d27d4eb4full;

	return hash ^ hash >> 32;
}

static struct bucket *bucket_of(const struct addresses *a, uint64_t key, unsigned which)
{
	uint64_t hash = mixed(a, key);

	return &a->buckets[(which ? hash >> 32 : hash) & a->mask];
}

static unsigned port_of(uint64_t value)
{
	return value & 0xffff;
}

static uint32_t seen_of(uint64_t value)
{
	return (uint32_t)(value >> 32);
}

static uint64_t value_of(unsigned port, uint32_t now)
{
	return (uint64_t)now << 32 | port;
}

/* Clocks of loops differ by a little: an age may seem negative. */
static bool expired(const struct addresses *a, uint64_t value, uint32_t now)
{
	int64_t age = (int64_t)now - seen_of(value);

	return !(value & STATIC) && age > (int64_t)a->ageing;
}

/* The entry of @key and its value, or NULL. */
static struct entry *look(const struct addresses *a, uint64_t key, uint64_t *value)
{
	for (unsigned which = 0; which < 2; which++) {
		struct bucket *b = bucket_of(a, key, which);

		for (unsigned w = 0; w < WAYS; w++) {
			struct entry *e = &b->entry[w];

			if (atomic_load_explicit(&e->key, memory_order_acquire) != key)
				continue;
			*value = atomic_load_explicit(&e->value, memory_order_acquire);
			if (atomic_load_explicit(&e->key, memory_order_relaxed) == key)
				return e;
		}
	}
	return NULL;
}

int addresses_find(const struct addresses *a, uint64_t key, uint32_t now)
{
	uint64_t value;

	if (!look(a, key, &value) || expired(a, value, now))
		return ADDRESS_UNKNOWN;
	return (int)port_of(value);
}

/* --- writers, with the mutex -------------------------------------------------------- */

static void clear(struct addresses *a, struct entry *e)
{
	unsigned port = port_of(atomic_load(&e->value));

	atomic_store(&e->key, 0);
	atomic_fetch_sub(&a->total, 1);
	atomic_fetch_sub(&a->per_port[port], 1);
}

static void fill(struct addresses *a, struct entry *e, uint64_t key, uint64_t value)
{
	atomic_store(&e->value, value);
	atomic_store(&e->key, key);
	atomic_fetch_add(&a->total, 1);
	atomic_fetch_add(&a->per_port[port_of(value)], 1);
}

/* Forgets what is too old, at most once a second. */
static void sweep(struct addresses *a, uint32_t now)
{
	if (atomic_load(&a->swept) == now)
		return;
	atomic_store(&a->swept, now);
	for (uint64_t b = 0; b <= a->mask; b++)
		for (unsigned w = 0; w < WAYS; w++) {
			struct entry *e = &a->buckets[b].entry[w];

			if (atomic_load(&e->key) && expired(a, atomic_load(&e->value), now))
				clear(a, e);
		}
}

/* A free entry for @key; one that is too old is freed. NULL if there is none. */
static struct entry *place(struct addresses *a, uint64_t key, uint32_t now)
{
	for (unsigned which = 0; which < 2; which++)
		for (unsigned w = 0; w < WAYS; w++) {
			struct entry *e = &bucket_of(a, key, which)->entry[w];

			if (!atomic_load(&e->key))
				return e;
			if (expired(a, atomic_load(&e->value), now)) {
				clear(a, e);
				return e;
			}
		}
	return NULL;
}

/* @moves: it needs no place of its own. */
static bool full(const struct addresses *a, unsigned port, unsigned cap, bool moves)
{
	return atomic_load_explicit(&a->per_port[port], memory_order_relaxed) >= cap ||
	       (!moves && atomic_load_explicit(&a->total, memory_order_relaxed) >= a->max);
}

static enum address_learned learn_locked(struct addresses *a, uint64_t key, unsigned port,
					 uint32_t now, unsigned cap)
{
	uint64_t value;
	struct entry *e = look(a, key, &value);

	if (e && value & STATIC)
		return port_of(value) == port ? ADDRESS_KNOWN : ADDRESS_STATIC;
	if (e && port_of(value) == port) {
		atomic_store(&e->value, value_of(port, now));
		return ADDRESS_KNOWN;
	}
	if (full(a, port, cap, e)) {
		sweep(a, now);
		e = look(a, key, &value); /* it may have been too old itself */
	}
	if (full(a, port, cap, e))
		return ADDRESS_REFUSED;
	if (e)
		clear(a, e);
	else
		e = place(a, key, now);
	if (!e)
		return ADDRESS_REFUSED;
	fill(a, e, key, value_of(port, now));
	return ADDRESS_NEW;
}

enum address_learned addresses_learn(struct addresses *a, uint64_t key, unsigned port, uint32_t now,
				     unsigned cap, bool may_lock)
{
	enum address_learned learned;
	uint64_t value;
	struct entry *e = look(a, key, &value);

	if (e && value & STATIC)
		return port_of(value) == port ? ADDRESS_KNOWN : ADDRESS_STATIC;
	if (e && port_of(value) == port) {
		/* Another loop may change it meanwhile: then it knows better. */
		if (seen_of(value) != now)
			atomic_compare_exchange_strong(&e->value, &value, value_of(port, now));
		return ADDRESS_KNOWN;
	}
	if (!may_lock || (full(a, port, cap, e) && atomic_load(&a->swept) == now))
		return ADDRESS_REFUSED;
	pthread_mutex_lock(&a->mutex);
	learned = learn_locked(a, key, port, now, cap);
	pthread_mutex_unlock(&a->mutex);
	return learned;
}

bool addresses_set(struct addresses *a, uint64_t key, unsigned port)
{
	uint64_t value;
	struct entry *e;

	pthread_mutex_lock(&a->mutex);
	e = look(a, key, &value);
	if (e)
		clear(a, e);
	else
		e = place(a, key, 0);
	if (e)
		fill(a, e, key, value_of(port, 0) | STATIC);
	pthread_mutex_unlock(&a->mutex);
	return e;
}

unsigned addresses_forget(struct addresses *a, int port, bool statics)
{
	unsigned count = 0;

	pthread_mutex_lock(&a->mutex);
	for (uint64_t b = 0; b <= a->mask; b++)
		for (unsigned w = 0; w < WAYS; w++) {
			struct entry *e = &a->buckets[b].entry[w];
			uint64_t value = atomic_load(&e->value);

			if (!atomic_load(&e->key) ||
			    (port >= 0 && port_of(value) != (unsigned)port) ||
			    (!statics && value & STATIC))
				continue;
			clear(a, e);
			count++;
		}
	pthread_mutex_unlock(&a->mutex);
	return count;
}

/* --- for status --------------------------------------------------------------------- */

void addresses_each(const struct addresses *a, uint32_t now,
		    void (*each)(void *data, uint64_t key, unsigned port, bool is_static,
				 uint32_t age),
		    void *data)
{
	for (uint64_t b = 0; b <= a->mask; b++)
		for (unsigned w = 0; w < WAYS; w++) {
			const struct entry *e = &a->buckets[b].entry[w];
			uint64_t key = atomic_load(&e->key), value = atomic_load(&e->value);

			if (!key || atomic_load(&e->key) != key || expired(a, value, now))
				continue;
			each(data, key, port_of(value), value & STATIC,
			     now > seen_of(value) ? now - seen_of(value) : 0);
		}
}

unsigned addresses_count(const struct addresses *a, int port)
{
	return atomic_load(port < 0 ? &a->total : &a->per_port[port]);
}
