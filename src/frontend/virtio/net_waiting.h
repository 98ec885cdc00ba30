/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_waiting.h - packets that wait until a guest has buffers for them
 *
 * A burst of large packets is longer than a guest's ring, and whoever sent it may have no better
 * way to be slowed down than that his packets are not taken: so they wait for a moment. What is
 * held of a patient sender (packet_retain()) is a reference, which slows him down; of others it
 * is a copy, and soon too many. One loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

#define NET_WAITING        256u                /**< packets */
#define NET_WAITING_COPIES ((uint64_t)1 << 20) /**< bytes of packets that are copied */
#define NET_WAITING_BYTES  ((uint64_t)4 << 20) /**< bytes of all */
#define NET_WAITING_TIME   (20 * 1000000ull)   /**< ns without any buffer until they are dropped */

struct net_waiting {
	unsigned first, count;
	uint64_t bytes;
	struct packet *packet[NET_WAITING];
};

/** Keeps @packet as the last; false, and nothing was done, if there are enough. */
bool net_waiting_add(struct net_waiting *waiting, struct packet_pool *pool, struct packet *packet);

/** The first, or NULL. */
static inline struct packet *net_waiting_first(const struct net_waiting *waiting)
{
	return waiting->count ? waiting->packet[waiting->first] : NULL;
}

/** Lets go of the first. */
void net_waiting_remove(struct net_waiting *waiting);
