/* SPDX-License-Identifier: BSD-3-Clause */
/* crossing.c - see crossing.h */
#include "packet/crossing.h"

#include "packet/chain.h"
#include "packet/packet_private.h"
#include "packet/port.h"

static void arrived(struct loop_message *message);
static void returned(struct loop_message *message);

struct crossing *crossing_begin(struct packet_pool *pool, struct loop *home, struct lane *lane)
{
	struct crossing *crossing = pool->crossings;

	if (crossing) {
		pool->crossings = crossing->next;
	} else {
		if (pool->crossings_made == CROSSINGS)
			return NULL;
		crossing = pool_allocate(pool, sizeof *crossing);
		if (!crossing)
			return NULL;
		pool->crossings_made++;
	}
	crossing->message.run = arrived;
	crossing->pool = pool;
	crossing->home = home;
	crossing->lane = lane;
	batch_init(&crossing->batch);
	return crossing;
}

void crossing_add(struct crossing *crossing, struct packet *packet)
{
	if (!packet->view && !packet->given)
		burst_hold(packet->burst);
	batch_add(&crossing->batch, packet);
}

void crossing_send(struct crossing *crossing)
{
	loop_send(crossing->lane->loop, &crossing->message);
}

/* On the loop that borrows. */
static void arrived(struct loop_message *message)
{
	struct crossing *crossing = container_of(message, struct crossing, message);

	chain_out(crossing->lane, &crossing->batch);
	crossing->message.run = returned;
	loop_send(crossing->home, &crossing->message);
}

/* On the loop that lent. */
static void returned(struct loop_message *message)
{
	struct crossing *crossing = container_of(message, struct crossing, message);
	struct packet_pool *pool = crossing->pool;

	for (unsigned i = 0; i < crossing->batch.count; i++) {
		struct packet *packet = crossing->batch.packet[i];

		if (packet->view)
			packet_view_put(packet);
		else
			burst_put(packet->burst);
	}
	crossing->next = pool->crossings;
	pool->crossings = crossing;
}
