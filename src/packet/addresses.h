/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * addresses.h - behind which port an address is: the table that all loops of a switch share
 *
 * Reading takes no lock and writes nothing. An entry is two words: the key (VLAN and address), and
 * the value (port, when it was last seen). A bucket of four is a cache line; an address may be in
 * one of two. A writer changes an entry by making its key zero, then setting the value, then the
 * key; a reader looks at the key again after the value. New addresses take a mutex, which is rare:
 * see LEARN_LIMIT in forward.c. There is no timer: an address that was not seen for the ageing time
 * counts as unknown, and gives its place to the next that needs it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct addresses;

/** What a lookup found. */
enum { ADDRESS_UNKNOWN = -1 };

enum address_learned {
	ADDRESS_KNOWN,   /**< it was there, at this port */
	ADDRESS_NEW,     /**< it is now; or it has moved here */
	ADDRESS_REFUSED, /**< the port has as many as it may, or the table is full */
	ADDRESS_STATIC,  /**< it is a static one of another port */
};

/** VLAN and address as one number. */
static inline uint64_t address_key(uint16_t vlan, uint64_t mac)
{
	return 1ull << 60 | (uint64_t)vlan << 48 | mac;
}

/** Room for @max addresses; @ageing in seconds; @ports: most port indexes. NULL if memory is short.
 */
struct addresses *addresses_create(unsigned max, uint32_t ageing, unsigned ports);
void addresses_free(struct addresses *addresses);

/** The port behind which @key is, or ADDRESS_UNKNOWN. @now in seconds. Any thread. */
int addresses_find(const struct addresses *addresses, uint64_t key, uint32_t now);

/**
 * @key was seen as a source at @port, which may have at most @cap addresses. Known ones take no
 * lock; for others @may_lock must be true, else they are refused. Any thread.
 */
enum address_learned addresses_learn(struct addresses *addresses, uint64_t key, unsigned port,
				     uint32_t now, unsigned cap, bool may_lock);

/** @key is behind @port for good; false if the table has no room for it. Any thread. */
bool addresses_set(struct addresses *addresses, uint64_t key, unsigned port);

/** Forgets the addresses of @port, or (-1) of all; static ones too if @statics. How many. Any
 * thread. */
unsigned addresses_forget(struct addresses *addresses, int port, bool statics);

/** Calls @each for all. Any thread. */
void addresses_each(const struct addresses *addresses, uint32_t now,
		    void (*each)(void *data, uint64_t key, unsigned port, bool is_static,
				 uint32_t age),
		    void *data);

/** How many are known (some may be too old by now); at @port, or (-1) at all. */
unsigned addresses_count(const struct addresses *addresses, int port);
