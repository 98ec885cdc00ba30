/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.c - see chain.h */
#include "packet/chain.h"

#include <stdlib.h>

#include "packet/offload.h"
#include "packet/packet_private.h"
#include "packet/vswitch_private.h"

/* Of a frame besides the IP packet: the Ethernet header, and one tag that was not taken off. */
#define OVERHEAD (ETHERNET_HEADER + 4u)

struct chain_of_layers *chain_create(unsigned count)
{
	struct chain_of_layers *chain = calloc(1, sizeof *chain + count * sizeof chain->step[0]);

	if (chain)
		chain->count = count;
	return chain;
}

static void judge(struct layer_place *place, enum packet_direction direction,
		  struct packet_batch *batch)
{
	if (place->left) /* what one that leaves with it has passed on goes by */
		return;
	stats_add(&place->stats.direction[direction].seen,
		  (unsigned)__builtin_popcountll(batch->live));
	place->layer->ops->process(place, direction, batch);
}

/* --- in ----------------------------------------------------------------------------- */

static void in_from(struct lane *lane, unsigned step, struct packet_batch *batch)
{
	const struct chain_of_layers *chain = lane->chain;

	for (; chain && step < chain->count && batch->live; step++)
		if (chain->step[step].sees[PACKET_IN])
			judge(chain->step[step].place, PACKET_IN, batch);
	if (batch->live)
		vswitch_forward(lane, batch);
}

void chain_in(struct lane *lane, struct packet_batch *batch)
{
	in_from(lane, 0, batch);
}

/* --- out ---------------------------------------------------------------------------- */

/* Bytes of the longest frame that @packet will be on the wire. */
static uint32_t wire_length(const struct lane *lane, const struct packet *packet)
{
	const struct packet_offload *offload = &packet->offload;

	if (!offload->gso_type)
		return packet->length;
	if (lane->accepts & OFFLOAD_ANY_TCP && offload_fits(packet, lane->accepts))
		return 0;
	return (uint32_t)offload->header_length + offload->gso_size;
}

/* Cut packets come here in batches. */
static void send_cut(void *data, struct packet_batch *batch)
{
	struct lane *lane = data;

	lane->port->ops->transmit(lane, batch);
}

/* Those that do not fit are sent one by one, in their places among the others. */
static void send_unfit(struct lane *lane, struct packet_batch *batch)
{
	struct packet_batch fit;
	unsigned i, n;

	batch_init(&fit);
	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];

		if (offload_fits(packet, lane->accepts)) {
			batch_add(&fit, packet);
			continue;
		}
		if (fit.count)
			lane->port->ops->transmit(lane, &fit);
		batch_init(&fit);
		n = offload_resolve(packet, lane->accepts, send_cut, lane);
		if (!n)
			lane_drop(lane, PACKET_OUT, DROP_OFFLOAD, batch, i);
		else if (n == 1)
			stats_add(&lane->stats.summed, 1);
		else
			stats_add(&lane->stats.cut, n);
	}
	if (fit.count)
		lane->port->ops->transmit(lane, &fit);
}

static void deliver(struct lane *lane, struct packet_batch *batch)
{
	uint32_t limit = lane->mtu + OVERHEAD;
	bool fit = true;
	unsigned i;

	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];

		if (wire_length(lane, packet) > limit)
			lane_drop(lane, PACKET_OUT, DROP_TOO_LONG, batch, i);
		else
			fit &= offload_fits(packet, lane->accepts);
	}
	if (!batch->live)
		return;
	if (fit)
		lane->port->ops->transmit(lane, batch);
	else
		send_unfit(lane, batch);
}

static void drop_all(struct lane *lane, struct packet_batch *batch)
{
	stats_add(&lane->stats.direction[PACKET_OUT].drops[DROP_DOWN],
		  (unsigned)__builtin_popcountll(batch->live));
	batch->live = 0;
}

/* Through the layers in front of @step. */
static void out_from(struct lane *lane, unsigned step, struct packet_batch *batch)
{
	const struct chain_of_layers *chain = lane->chain;

	while (step-- && batch->live)
		if (chain->step[step].sees[PACKET_OUT])
			judge(chain->step[step].place, PACKET_OUT, batch);
	if (!batch->live)
		return;
	if (lane->endpoint && lane->up)
		deliver(lane, batch);
	else
		drop_all(lane, batch);
}

void chain_out(struct lane *lane, struct packet_batch *batch)
{
	vswitch_mirror_out(lane, batch);
	out_from(lane, lane->chain ? lane->chain->count : 0, batch);
}

/* --- held, made, and passed on ------------------------------------------------------- */

struct packet *layer_hold(struct layer_place *place, enum packet_direction direction,
			  struct packet_batch *batch, unsigned i)
{
	struct packet *copy = packet_keep(place->lane->pool, batch->packet[i]);

	if (!copy)
		return NULL;
	batch_take(batch, i);
	stats_add(&place->stats.direction[direction].held, 1);
	return copy;
}

void layer_pass(struct layer_place *place, enum packet_direction direction, struct packet *packet)
{
	struct lane *lane = place->lane;
	struct kept *kept = packet->burst->owner;

	stats_add(&place->stats.direction[direction].made, 1);
	kept->direction = direction;
	kept->step = (uint16_t)(direction == PACKET_IN ? place->step + 1 : place->step);
	kept->next = NULL;
	packet->port = lane->port->index;
	if (!lane->going_on)
		lane->going_on_last = &lane->going_on;
	*lane->going_on_last = kept;
	lane->going_on_last = &kept->next;
	loop_task_queue(lane->loop, &lane->go_on);
}

/* Takes those off the list that go on at the same place as the first one. */
static void next_batch(struct lane *lane, struct packet_batch *batch)
{
	const struct kept *first = lane->going_on;

	batch_init(batch);
	while (lane->going_on && batch->count < PACKET_BURST &&
	       lane->going_on->direction == first->direction &&
	       lane->going_on->step == first->step) {
		batch_add(batch, &lane->going_on->packet);
		lane->going_on = lane->going_on->next;
	}
}

void chain_go_on(struct lane *lane)
{
	struct packet_batch batch;

	while (lane->going_on) {
		const struct kept *first = lane->going_on;
		unsigned step = first->step;
		bool in = first->direction == PACKET_IN;

		next_batch(lane, &batch);
		if (in)
			in_from(lane, step, &batch);
		else
			out_from(lane, step, &batch);
		for (unsigned i = 0; i < batch.count; i++)
			burst_put(batch.packet[i]->burst);
	}
}

/* --- changed ------------------------------------------------------------------------ */

static bool has(const struct chain_of_layers *chain, const struct layer_place *place)
{
	for (unsigned i = 0; chain && i < chain->count; i++)
		if (chain->step[i].place == place)
			return true;
	return false;
}

void chain_replace(struct lane *lane, struct chain_of_layers *chain)
{
	struct chain_of_layers *old = lane->chain;

	for (unsigned i = 0; old && i < old->count; i++) {
		struct layer_place *place = old->step[i].place;

		if (has(chain, place))
			continue;
		place->left = true;
		if (place->layer->ops->leave)
			place->layer->ops->leave(place);
	}
	chain_go_on(lane); /* by the old chain, whose steps they name */
	lane->chain = chain;
	for (unsigned i = 0; chain && i < chain->count; i++) {
		struct layer_place *place = chain->step[i].place;

		place->step = i;
		if (!has(old, place) && place->layer->ops->arrive)
			place->layer->ops->arrive(place);
	}
}
