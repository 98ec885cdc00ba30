/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_place.c - the virtio network device on one loop: which receive queue a packet goes to
 *
 * The port is present on a loop while a receive queue that the driver uses is in service there; so
 * a packet from a queue of another VM on this loop is written to its destination on the spot. If
 * there are several such queues here the packet's flow chooses one, always the same: packets of a
 * flow stay in order.
 */
#include <string.h>

#include "frontend/virtio/net_private.h"
#include "packet/frame.h"

struct net_place *net_place_of(struct net *net, const struct virtqueue *vq)
{
	return &net->places[port_lane_of(net->port, vq->loop)->index];
}

/* --- present or not ------------------------------------------------------------------ */

static void refresh(struct net_place *place)
{
	unsigned was = place->active;

	place->active = 0;
	while (place->active < place->count &&
	       net_receive_pair(place->receive[place->active]) < place->rules.pairs)
		place->active++;
	place->lane->accepts = place->rules.accepts;
	if (place->active && !was)
		lane_up(place->lane, place);
	else if (!place->active && was)
		lane_down(place->lane);
}

void net_place_add(struct net_place *place, struct net_receive *receive)
{
	unsigned at = place->count++;

	for (; at && net_receive_pair(place->receive[at - 1]) > net_receive_pair(receive); at--)
		place->receive[at] = place->receive[at - 1];
	place->receive[at] = receive;
	refresh(place);
}

void net_place_remove(struct net_place *place, struct net_receive *receive)
{
	unsigned at = 0;

	while (place->receive[at] != receive)
		at++;
	place->count--;
	for (; at < place->count; at++)
		place->receive[at] = place->receive[at + 1];
	refresh(place);
}

void net_place_set_rules(struct net_place *place, const struct net_rules *rules)
{
	place->rules = *rules;
	refresh(place);
}

/* --- packets ------------------------------------------------------------------------- */

static void filter(const struct net_place *place, struct packet_batch *batch)
{
	unsigned i;

	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];

		if (!net_rules_wants_slow(&place->rules, packet->head, packet->tagged, packet->tag))
			lane_drop(place->lane, PACKET_OUT, DROP_FILTER, batch, i);
	}
}

static void distribute(struct net_place *place, struct packet_batch *batch)
{
	uint64_t mask[NET_PAIRS] = { 0 }, left = 0;
	unsigned i;

	for_each_packet (batch, i) {
		uint64_t hash = frame_hash(batch->packet[i]);

		mask[hash * place->active >> 32] |= 1ull << i;
	}
	for (i = 0; i < place->active; i++) {
		batch->live = mask[i];
		if (mask[i])
			net_receive_batch(place->receive[i], place->lane, batch);
		left |= batch->live;
	}
	batch->live = left;
}

void net_place_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct net_place *place = lane->endpoint;

	if (net_rules_filter(&place->rules))
		filter(place, batch);
	if (place->active == 1)
		net_receive_batch(place->receive[0], lane, batch);
	else
		distribute(place, batch);
}
