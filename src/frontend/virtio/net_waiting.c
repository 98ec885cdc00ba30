/* SPDX-License-Identifier: BSD-3-Clause */
/* net_waiting.c - see net_waiting.h */
#include "frontend/virtio/net_waiting.h"

bool net_waiting_add(struct net_waiting *waiting, struct packet_pool *pool, struct packet *packet)
{
	uint64_t limit = packet->burst->patient == pool ? NET_WAITING_BYTES : NET_WAITING_COPIES;
	struct packet *kept;

	if (waiting->count == NET_WAITING || waiting->bytes + packet->length > limit)
		return false;
	kept = packet_retain(pool, packet);
	if (!kept)
		return false;
	waiting->packet[(waiting->first + waiting->count++) % NET_WAITING] = kept;
	waiting->bytes += kept->length;
	return true;
}

void net_waiting_remove(struct net_waiting *waiting)
{
	struct packet *packet = waiting->packet[waiting->first];

	waiting->first = (waiting->first + 1) % NET_WAITING;
	waiting->count--;
	waiting->bytes -= packet->length;
	packet_release(packet);
}
