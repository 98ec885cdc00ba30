/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crossing.h - packets that are lent to another loop
 *
 * When a port is not present on the loop where a packet for it came in, the packet is sent by a
 * loop where it is: that loop is lent the batch by a message, copies straight out of the sender's
 * memory, and gives the batch back by the same message. So there is one copy and no lock, and two
 * messages a batch. Each packet's burst is held meanwhile, by the loop that it belongs to.
 */
#pragma once

#include "loop/loop.h"
#include "packet/packet.h"

struct lane;
struct packet_pool;

/** Most batches that one loop has lent at a time; more packets are dropped (DROP_NO_MEMORY). */
#define CROSSINGS 512

/** A batch on its way to another loop, or back. The first loop's. */
struct crossing {
	struct loop_message message;
	struct crossing *next; /**< in the pool */
	struct packet_pool *pool;
	struct loop *home; /**< the loop that lends */
	struct lane *lane; /**< the port's on the loop that borrows */
	struct packet_batch batch;
};

/** An empty one to @lane, from the loop @home with @pool. NULL if too many are under way. */
struct crossing *crossing_begin(struct packet_pool *pool, struct loop *home, struct lane *lane);

/** Adds @packet: holds it, or, a view, takes it over. There is room. */
void crossing_add(struct crossing *crossing, struct packet *packet);

/** Sends it. */
void crossing_send(struct crossing *crossing);
