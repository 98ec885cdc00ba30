/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * forward.c - a switch at work, on one loop
 *
 * The packets of a batch are sorted to the lanes of the ports they go to, on this loop; then each
 * lane that got some is flushed: sent, if the port is present here, or lent to a loop where it is.
 * A frame for one port goes there as it is; one for several goes as views, which share its head and
 * body.
 *
 * Neighbours in a batch mostly have the same addresses, so the last lookups are remembered for as
 * long as a batch lasts.
 */
#include <endian.h>

#include "packet/chain.h"
#include "packet/crossing.h"
#include "packet/frame.h"
#include "packet/vswitch_private.h"

/* New addresses that one port may bring a second on one loop: beyond that it is a flood of them. */
#define LEARN_LIMIT 2000u

/* 01-80-C2-00-00-00 to 0F: 802.1Q-2018, table 8-1. */
#define RESERVED_FIRST 0x0180c2000000ull

/* What one batch needs. */
struct forwarding {
	struct lane *lane; /* where it came in */
	struct vswitch *vswitch;
	struct vswitch_loop *here;
	const struct view_port *from;
	uint32_t now;                 /* seconds */
	uint64_t source, destination; /* keys as last looked up; 0: none */
	int to;                       /* port of @destination */
};

/* --- sorting ------------------------------------------------------------------------ */

static struct vswitch_loop *here(const struct lane *lane)
{
	return &lane->port->vswitch->loop[lane->index];
}

/* As this loop sees the port; NULL: it is not on the switch (yet, or any more). */
static const struct view_port *view_of(const struct view *view, unsigned index)
{
	return index < view->count ? view->port[index] : NULL;
}

static void flush_lane(struct lane *lane);

static void append(struct vswitch_loop *loop, struct lane *lane, struct packet *packet)
{
	if (lane->out.count == PACKET_BURST)
		flush_lane(lane);
	batch_add(&lane->out, packet);
	if (!lane->touched) {
		lane->touched = true;
		lane->next_touched = loop->touched;
		loop->touched = lane;
	}
}

/* One more tag stands behind the one that was taken off. */
static bool has_inner_tag(const struct packet *packet)
{
	return packet_ethernet(packet)->type == htobe16(0x8100);
}

static void set_tag(struct packet *packet, const struct view_port *to)
{
	/* Without its own tag the next one would count. */
	packet->tagged = to->tagged && (packet->vlan != to->vlan || has_inner_tag(packet));
	packet->tag = (uint16_t)((packet->tag & 0xe000) | packet->vlan);
}

static bool is_member(const struct view_port *port, uint16_t vlan)
{
	return vlan == port->vlan || (port->tagged && vlan_has(&port->vlans, vlan));
}

static struct lane *lane_here(const struct forwarding *f, const struct view_port *to)
{
	return to->port->lanes[f->lane->index];
}

/* --- mirrors ------------------------------------------------------------------------ */

/* A copy in memory of its own: the burst may be another loop's. */
static void copy_to(struct lane *lane, const struct view_port *mirror, const struct packet *packet)
{
	struct lane *to = mirror->port->lanes[lane->index];
	struct packet *copy = packet_keep(lane->pool, packet);

	if (!copy) {
		stats_add(&to->stats.direction[PACKET_OUT].drops[DROP_NO_MEMORY], 1);
		return;
	}
	copy->given = true;
	append(here(lane), to, copy);
}

static void mirror(struct lane *lane, const struct view *view, const struct view_port *port,
		   const struct packet_batch *batch)
{
	unsigned i;

	for (unsigned m = 0; m < port->mirror_count; m++)
		for_each_packet (batch, i)
			if (view->port[port->mirrors[m]])
				copy_to(lane, view->port[port->mirrors[m]], batch->packet[i]);
}

static bool mirrors_to(const struct view_port *port, unsigned index)
{
	for (unsigned m = 0; port && m < port->mirror_count; m++)
		if (port->mirrors[m] == index)
			return true;
	return false;
}

static void flush_all(struct vswitch_loop *loop)
{
	while (loop->touched) {
		struct lane *lane = loop->touched;

		loop->touched = lane->next_touched;
		lane->touched = false;
		flush_lane(lane);
	}
}

void vswitch_mirror_out(struct lane *lane, const struct packet_batch *batch)
{
	struct vswitch_loop *loop = here(lane);
	const struct view *view = loop->view;
	const struct view_port *port = view_of(view, lane->port->index);
	bool outermost = !loop->touched;
	unsigned i;

	if (!port || !port->mirror_count)
		return;
	for (unsigned m = 0; m < port->mirror_count; m++) {
		const struct view_port *to = view->port[port->mirrors[m]];

		if (!to)
			continue;
		for_each_packet (batch, i) {
			const struct packet *packet = batch->packet[i];

			/* Once is enough if it was copied where it came in. */
			if (!mirrors_to(view_of(view, packet->port), port->mirrors[m]))
				copy_to(lane, to, packet);
		}
	}
	if (outermost)
		flush_all(loop);
}

/* --- one frame ---------------------------------------------------------------------- */

static void new_second(struct forwarding *f)
{
	if (f->lane->flood_second == f->now)
		return;
	f->lane->flood_second = f->now;
	f->lane->flooded_now = f->lane->learned_now = 0;
}

/* False if it may not come from here. */
static bool learn(struct forwarding *f, const struct packet *packet, uint64_t key)
{
	enum address_learned learned;

	learned = addresses_learn(f->vswitch->addresses, key, packet->port, f->now,
				  f->from->addresses,
				  f->from->learning && f->lane->learned_now < LEARN_LIMIT);
	if (learned == ADDRESS_NEW || learned == ADDRESS_REFUSED)
		f->lane->learned_now++; /* an attempt may have taken the lock */
	if (learned == ADDRESS_REFUSED && f->from->learning)
		stats_add(&f->lane->stats.refused, 1);
	return learned != ADDRESS_STATIC;
}

/* Whether @to gets what came from @from, for whatever address. */
static bool may_reach(const struct view_port *from, const struct view_port *to)
{
	return !to->sink && !(from->isolated && to->isolated);
}

static void flood(struct forwarding *f, struct packet_batch *batch, unsigned i, bool unknown)
{
	const struct view *view = f->here->view;
	struct packet *packet = batch->packet[i];
	const struct view_port *first = NULL;
	unsigned targets = 0;

	if (f->from->flood_limit && f->lane->flooded_now >= f->from->flood_limit) {
		lane_drop(f->lane, PACKET_IN, DROP_FLOOD_LIMIT, batch, i);
		return;
	}
	f->lane->flooded_now++;
	for (unsigned p = 0; p < view->count; p++) {
		const struct view_port *to = view->port[p];
		struct packet *twin;

		if (!to || to == f->from || !to->up || (unknown && !to->unknown) ||
		    !is_member(to, packet->vlan) || !may_reach(f->from, to))
			continue;
		if (!targets++) {
			first = to;
			continue;
		}
		twin = packet_view(f->lane->pool, packet);
		if (!twin) {
			stats_add(&f->lane->stats.direction[PACKET_IN].drops[DROP_NO_MEMORY], 1);
			continue;
		}
		set_tag(twin, to);
		append(f->here, lane_here(f, to), twin);
	}
	if (!targets) {
		lane_drop(f->lane, PACKET_IN, DROP_NOWHERE, batch, i);
		return;
	}
	if (targets > 1) {
		stats_add(&f->lane->stats.flooded, 1);
		packet = packet_view(f->lane->pool, packet); /* its head is others' as well */
		if (!packet) {
			stats_add(&f->lane->stats.direction[PACKET_IN].drops[DROP_NO_MEMORY], 1);
			return;
		}
	}
	set_tag(packet, first);
	append(f->here, lane_here(f, first), packet);
}

static void send_to(struct forwarding *f, const struct view_port *to, struct packet_batch *batch,
		    unsigned i)
{
	struct packet *packet = batch->packet[i];
	enum port_drop cause;

	if (to == f->from)
		cause = DROP_SELF;
	else if (!may_reach(f->from, to))
		cause = DROP_ISOLATED;
	else if (!is_member(to, packet->vlan))
		cause = DROP_NOWHERE;
	else {
		set_tag(packet, to);
		append(f->here, lane_here(f, to), packet);
		return;
	}
	lane_drop(f->lane, PACKET_IN, cause, batch, i);
}

/* The VLAN it belongs to; 0: to none that this port has. */
static uint16_t classify(const struct view_port *from, const struct packet *packet)
{
	uint16_t vlan = packet->tag & 0xfff;

	if (!packet->tagged || !vlan)
		return has_inner_tag(packet) ? 0 : from->vlan;
	return from->tagged && vlan < 4095 && vlan_has(&from->vlans, vlan) ? vlan : 0;
}

static void forward(struct forwarding *f, struct packet_batch *batch, unsigned i)
{
	struct packet *packet = batch->packet[i];
	const struct ethernet *ethernet = packet_ethernet(packet);
	const struct view_port *to;
	uint64_t key;

	packet->vlan = classify(f->from, packet);
	if (!packet->vlan) {
		lane_drop(f->lane, PACKET_IN, DROP_VLAN, batch, i);
		return;
	}
	if (!packet->tagged)
		packet->tag = 0;
	key = address_key(packet->vlan, mac_number(ethernet->source));
	if (key != f->source) {
		if (mac_is_multicast(ethernet->source) || !learn(f, packet, key)) {
			lane_drop(f->lane, PACKET_IN, DROP_SOURCE, batch, i);
			return;
		}
		f->source = key;
	}
	key = address_key(packet->vlan, mac_number(ethernet->destination));
	if (mac_is_multicast(ethernet->destination)) {
		if (mac_number(ethernet->destination) >> 4 == RESERVED_FIRST >> 4)
			lane_drop(f->lane, PACKET_IN, DROP_RESERVED, batch, i);
		else
			flood(f, batch, i, false);
		return;
	}
	if (key != f->destination) {
		f->to = addresses_find(f->vswitch->addresses, key, f->now);
		f->destination = key;
	}
	to = f->to < 0 ? NULL : view_of(f->here->view, (unsigned)f->to);
	if (to)
		send_to(f, to, batch, i);
	else
		flood(f, batch, i, true);
}

void vswitch_forward(struct lane *lane, struct packet_batch *batch)
{
	struct vswitch_loop *loop = here(lane);
	const struct view *view = loop->view;
	struct forwarding f = {
		.lane = lane,
		.vswitch = lane->port->vswitch,
		.here = loop,
		.now = (uint32_t)(loop_now(lane->loop) / 1000000000),
	};
	bool outermost = !loop->touched;
	unsigned i;

	f.from = view_of(view, lane->port->index);
	if (!f.from || f.from->sink) {
		for_each_packet (batch, i)
			lane_drop(lane, PACKET_IN, DROP_NOWHERE, batch, i);
		return;
	}
	new_second(&f);
	if (f.from->mirror_count)
		mirror(lane, view, f.from, batch);
	for_each_packet (batch, i)
		forward(&f, batch, i);
	if (outermost)
		flush_all(loop);
}

/* --- flushing ----------------------------------------------------------------------- */

static unsigned present_count(const struct port *port, uint64_t mask[PORT_LOOPS / 64])
{
	unsigned count = 0;

	for (unsigned w = 0; w < PORT_LOOPS / 64; w++) {
		mask[w] = atomic_load_explicit(&port->present[w], memory_order_relaxed);
		count += (unsigned)__builtin_popcountll(mask[w]);
	}
	return count;
}

/* The @n-th loop of @mask. */
static unsigned nth(const uint64_t mask[PORT_LOOPS / 64], unsigned n)
{
	for (unsigned w = 0;; w++) {
		unsigned here = (unsigned)__builtin_popcountll(mask[w]);
		uint64_t bits = mask[w];

		if (n >= here) {
			n -= here;
			continue;
		}
		while (n--)
			bits &= bits - 1;
		return w * 64 + (unsigned)__builtin_ctzll(bits);
	}
}

static void drop_out(struct lane *lane, enum port_drop cause, struct packet *packet)
{
	stats_add(&lane->stats.direction[PACKET_OUT].drops[cause], 1);
	packet_release(packet);
}

/* Lends what is for the @turn-th of @count loops in @mask. A flow always goes to the same one. */
static void cross(struct lane *lane, const struct packet_batch *batch,
		  const uint64_t mask[PORT_LOOPS / 64], unsigned turn, unsigned count)
{
	struct lane *to = lane->port->lanes[nth(mask, turn)];
	struct crossing *crossing = NULL;
	unsigned crossed = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		struct packet *packet = batch->packet[i];

		if (count > 1 && frame_hash(packet) % count != turn)
			continue;
		if (!crossing)
			crossing = crossing_begin(lane->pool, lane->loop, to);
		if (!crossing) {
			drop_out(lane, DROP_NO_MEMORY, packet);
			continue;
		}
		crossing_add(crossing, packet);
		crossed++;
	}
	if (crossing)
		crossing_send(crossing);
	stats_add(&lane->stats.crossed, crossed);
}

static void flush_lane(struct lane *lane)
{
	struct packet_batch batch = lane->out;
	uint64_t mask[PORT_LOOPS / 64];
	unsigned count;

	batch_init(&lane->out);
	if (lane->endpoint) {
		chain_out(lane, &batch);
		for (unsigned i = 0; i < batch.count; i++)
			packet_release(batch.packet[i]);
		return;
	}
	count = present_count(lane->port, mask);
	for (unsigned turn = 0; turn < count; turn++)
		cross(lane, &batch, mask, turn, count);
	if (!count)
		for (unsigned i = 0; i < batch.count; i++)
			drop_out(lane, DROP_DOWN, batch.packet[i]);
}
