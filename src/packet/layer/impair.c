/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * impair.c - a bad network: packets that are lost, late, out of order, double, damaged
 *
 * For each packet the same questions in the same order, in each direction with random numbers of
 * its own, so that a seed repeats a run on one loop: is it lost, damaged, doubled, overtaken, and
 * how late is it?
 *
 * What is late is held: a copy, in a heap by when it is due. Unless reordering is asked for packets
 * keep their order whatever the jitter: none is due before the one that came before it. While one
 * is held those behind it are held as well, also when the delay has been set to nothing meanwhile.
 *
 * A bit that is flipped must be found by the receiver. So a sum that is still to be computed is
 * computed before, and a packet that is still to be cut is cut, and one of the pieces is damaged;
 * they go the way of what is held, without delay if none is asked for. A duplicate does the same.
 */
#include <errno.h>
#include <stdlib.h>

#include <jansson.h>
#include <linux/virtio_net.h>

#include "layer/chance.h"
#include "loop/loop.h"
#include "packet/offload.h"
#include "packet/packet_layer.h"
#include "util/error.h"

enum cause { CAUSE_LOSS, CAUSE_FULL, CAUSE_MEMORY, CAUSE_MALFORMED };
static const char *const causes[] = { "loss", "full", "memory", "malformed", NULL };

struct settings {
	struct layer_settings layer;
	double loss, duplicate, corrupt, reorder;
	uint64_t delay, jitter, late; /* ns */
	uint64_t limit;               /* packets */
	uint64_t seed;
};

/* A packet that is held. */
struct held {
	uint64_t due, order; /* ns; among those due at once, the one that came first */
	struct packet *packet;
	uint8_t direction;
	bool overtaken; /* it does not hold up those behind it */
};

struct impair_place {
	struct layer_place place;
	uint64_t random[PACKET_DIRECTIONS];
	uint64_t last[PACKET_DIRECTIONS];    /* when the last one that keeps order is due */
	unsigned waiting[PACKET_DIRECTIONS]; /* held ones that keep order */
	uint64_t order;
	struct held *heap; /* the one due next is the first */
	unsigned count, room;
	struct loop_timer timer;
	stats_counter held; /* count, for status */
};

/* --- the heap ------------------------------------------------------------------------- */

static bool sooner(const struct held *a, const struct held *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void sift_down(struct impair_place *p, unsigned i)
{
	struct held moved = p->heap[i];

	for (;;) {
		unsigned child = 2 * i + 1;

		if (child + 1 < p->count && sooner(&p->heap[child + 1], &p->heap[child]))
			child++;
		if (child >= p->count || !sooner(&p->heap[child], &moved))
			break;
		p->heap[i] = p->heap[child];
		i = child;
	}
	p->heap[i] = moved;
}

static void heap_add(struct impair_place *p, struct held added)
{
	unsigned i = p->count++;

	while (i && sooner(&added, &p->heap[(i - 1) / 2])) {
		p->heap[i] = p->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	p->heap[i] = added;
}

static struct held heap_take(struct impair_place *p)
{
	struct held first = p->heap[0];

	p->heap[0] = p->heap[--p->count];
	if (p->count)
		sift_down(p, 0);
	return first;
}

/* Room for one more; false: there are as many as there may be, or memory is short. */
static bool heap_room(struct impair_place *p, uint64_t limit, enum cause *cause)
{
	unsigned room = p->room ? 2 * p->room : 64;
	struct held *heap;

	*cause = CAUSE_FULL;
	if (p->count >= limit)
		return false;
	if (p->count < p->room)
		return true;
	*cause = CAUSE_MEMORY;
	heap = realloc(p->heap, room * sizeof *heap);
	if (!heap)
		return false;
	p->heap = heap;
	p->room = room;
	return true;
}

/* --- what is held --------------------------------------------------------------------- */

static void send_first(struct impair_place *p)
{
	struct held first = heap_take(p);

	if (!first.overtaken)
		p->waiting[first.direction]--;
	layer_pass(&p->place, (enum packet_direction)first.direction, first.packet);
}

static void wait_for_first(struct impair_place *p)
{
	struct loop *loop = p->place.lane->loop;

	atomic_store_explicit(&p->held, p->count, memory_order_relaxed);
	if (p->count)
		loop_timer_set(loop, &p->timer, p->heap[0].due);
	else
		loop_timer_cancel(&p->timer);
}

static void due(struct loop_timer *timer)
{
	struct impair_place *p = container_of(timer, struct impair_place, timer);
	uint64_t now = loop_now(p->place.lane->loop);

	while (p->count && p->heap[0].due <= now)
		send_first(p);
	wait_for_first(p);
}

/* When and how a packet goes on. */
struct fate {
	uint64_t due;
	bool overtaken;
	bool waits; /* it cannot pass at once */
};

static uint64_t lateness(struct impair_place *p, const struct settings *rules,
			 enum packet_direction direction)
{
	return rules->delay +
	       (rules->jitter ? chance_draw(&p->random[direction]) % (rules->jitter + 1) : 0);
}

static struct fate draw_fate(struct impair_place *p, const struct settings *rules,
			     enum packet_direction direction)
{
	uint64_t now = loop_now(p->place.lane->loop);
	struct fate fate = { .overtaken = chance_happens(&p->random[direction], rules->reorder) };

	fate.due = now + lateness(p, rules, direction);
	if (fate.overtaken) {
		fate.due += rules->late;
	} else {
		if (fate.due < p->last[direction])
			fate.due = p->last[direction];
		p->last[direction] = fate.due;
	}
	fate.waits = fate.due > now || (!fate.overtaken && p->waiting[direction]);
	return fate;
}

/* Holds @packet, the pool's, which becomes the heap's; there is room. */
static void hold(struct impair_place *p, enum packet_direction direction, const struct fate *fate,
		 struct packet *packet)
{
	heap_add(p, (struct held){ .due = fate->due,
				   .order = p->order++,
				   .packet = packet,
				   .direction = (uint8_t)direction,
				   .overtaken = fate->overtaken });
	if (!fate->overtaken)
		p->waiting[direction]++;
}

/* --- a packet ------------------------------------------------------------------------- */

/* Flips a bit behind the Ethernet header of @packet, which is the pool's alone. */
static void damage(struct impair_place *p, enum packet_direction direction, struct packet *packet)
{
	uint64_t drawn = chance_draw(&p->random[direction]);
	uint32_t at, n = packet->length - ETHERNET_HEADER;

	if (!n)
		return;
	at = ETHERNET_HEADER + (uint32_t)((drawn >> 3) % n);
	packet->offload.flags &= (uint8_t)~VIRTIO_NET_HDR_F_DATA_VALID;
	packet->frame.parsed = false;
	packet->hash = 0;
	if (at < packet->head_length) {
		packet->head[at] ^= (uint8_t)(1u << (drawn & 7));
		return;
	}
	at -= packet->head_length;
	for (unsigned i = 0; i < packet->body_count; i++) {
		if (at < packet->body[i].iov_len) {
			((uint8_t *)packet->body[i].iov_base)[at] ^= (uint8_t)(1u << (drawn & 7));
			return;
		}
		at -= (uint32_t)packet->body[i].iov_len;
	}
}

/* A packet that is made ready to be damaged: the pieces come in batches. */
struct pieces {
	struct impair_place *p;
	const struct settings *rules;
	enum packet_direction direction;
	struct fate fate;
	uint64_t damaged, seen; /* the number of the piece that is damaged */
};

static void hold_pieces(void *data, struct packet_batch *batch)
{
	struct pieces *pieces = data;
	struct impair_place *p = pieces->p;
	unsigned i;

	for_each_packet (batch, i) {
		enum cause cause = CAUSE_FULL;
		struct packet *copy = NULL;

		if (heap_room(p, pieces->rules->limit, &cause))
			copy = packet_keep(p->place.lane->pool, batch->packet[i]);
		if (!copy) {
			layer_drop(&p->place, pieces->direction, cause, batch, i);
			continue;
		}
		if (pieces->seen++ == pieces->damaged)
			damage(p, pieces->direction, copy);
		hold(p, pieces->direction, &pieces->fate, copy);
	}
}

/* Takes packet @i out of the batch and holds it, damaged. */
static void corrupt(struct impair_place *p, const struct settings *rules,
		    enum packet_direction direction, struct packet_batch *batch, unsigned i,
		    const struct fate *fate)
{
	struct packet *packet = batch->packet[i];
	struct pieces pieces = { p, rules, direction, *fate, 0, 0 };
	struct packet_batch alone;
	uint16_t size = packet->offload.gso_size;
	uint32_t count = 1;

	if (offload_fits(packet, 0)) {
		batch_init(&alone);
		batch_add(&alone, packet);
		hold_pieces(&pieces, &alone);
		batch_take(batch, i);
		return;
	}
	if (packet->offload.gso_type && size)
		count = (packet->length - packet->offload.header_length + size - 1u) / size;
	if (count > 1)
		pieces.damaged = chance_draw(&p->random[direction]) % count;
	if (offload_resolve(packet, 0, hold_pieces, &pieces))
		batch_take(batch, i);
	else
		layer_drop(&p->place, direction, CAUSE_MALFORMED, batch, i);
}

static void double_it(struct impair_place *p, const struct settings *rules,
		      enum packet_direction direction, const struct packet *packet,
		      const struct fate *fate)
{
	/* It holds up nobody: where it has no room it is not made. */
	struct fate copys = { .due = fate->due, .overtaken = true };
	enum cause cause;
	struct packet *copy = heap_room(p, rules->limit, &cause)
				      ? packet_keep(p->place.lane->pool, packet)
				      : NULL;

	if (copy)
		hold(p, direction, &copys, copy);
}

static void impair(struct impair_place *p, const struct settings *rules,
		   enum packet_direction direction, struct packet_batch *batch, unsigned i)
{
	uint64_t *random = &p->random[direction];
	bool damaged, doubled;
	enum cause cause;
	struct packet *copy;
	struct fate fate;

	if (chance_happens(random, rules->loss)) {
		layer_drop(&p->place, direction, CAUSE_LOSS, batch, i);
		return;
	}
	damaged = chance_happens(random, rules->corrupt);
	doubled = chance_happens(random, rules->duplicate);
	fate = draw_fate(p, rules, direction);
	if (damaged) {
		/* Of the two one is good. */
		if (doubled)
			double_it(p, rules, direction, batch->packet[i], &fate);
		corrupt(p, rules, direction, batch, i, &fate);
		return;
	}
	if (fate.waits) {
		struct packet *packet = batch->packet[i];

		if (!heap_room(p, rules->limit, &cause) ||
		    !(copy = layer_hold(&p->place, direction, batch, i))) {
			layer_drop(&p->place, direction, cause, batch, i);
			return;
		}
		hold(p, direction, &fate, copy);
		if (doubled)
			double_it(p, rules, direction, packet, &fate);
		return;
	}
	if (doubled)
		double_it(p, rules, direction, batch->packet[i], &fate);
}

static void impair_process(struct layer_place *place, enum packet_direction direction,
			   struct packet_batch *batch)
{
	struct impair_place *p = (struct impair_place *)place;
	const struct settings *rules = place->rules;
	unsigned i;

	for_each_packet (batch, i)
		impair(p, rules, direction, batch, i);
	if (p->count)
		wait_for_first(p);
}

/* --- settings and places -------------------------------------------------------------- */

static int impair_compile(const void *settings, const struct port_facts *facts, void **rules,
			  struct error *err)
{
	struct settings *copy = malloc(sizeof *copy);

	(void)facts;
	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	memcpy(copy, settings, sizeof *copy);
	*rules = copy;
	return 0;
}

static void sow(struct impair_place *p, uint64_t seed)
{
	p->random[PACKET_IN] = chance_seed(2 * seed + 1);
	p->random[PACKET_OUT] = chance_seed(2 * seed + 2);
}

static void impair_arrive(struct layer_place *place)
{
	struct impair_place *p = (struct impair_place *)place;

	sow(p, ((const struct settings *)place->rules)->seed);
	loop_timer_init(&p->timer, due);
}

/* What is held waits no longer than the new rules would have it wait. */
static void impair_changed(struct layer_place *place, const void *old)
{
	struct impair_place *p = (struct impair_place *)place;
	const struct settings *rules = place->rules;
	uint64_t latest = loop_now(place->lane->loop) + rules->delay + rules->jitter;

	if (rules->seed != ((const struct settings *)old)->seed)
		sow(p, rules->seed);
	for (unsigned i = 0; i < p->count; i++) {
		uint64_t most = latest + (p->heap[i].overtaken ? rules->late : 0);

		if (p->heap[i].due > most)
			p->heap[i].due = most;
	}
	for (unsigned i = p->count / 2; i--;)
		sift_down(p, i);
	for (unsigned d = 0; d < PACKET_DIRECTIONS; d++)
		if (p->last[d] > latest)
			p->last[d] = latest;
	wait_for_first(p);
}

static void impair_leave(struct layer_place *place)
{
	struct impair_place *p = (struct impair_place *)place;

	while (p->count)
		send_first(p);
	wait_for_first(p);
	free(p->heap);
	p->heap = NULL;
	p->room = 0;
}

static json_t *impair_report(struct packet_layer *layer)
{
	uint64_t held = 0;

	for (unsigned i = 0; i < layer->place_count; i++)
		held += stats_read(&((struct impair_place *)layer->places[i])->held);
	return json_pack("{s:I}", "waiting", (json_int_t)held);
}

#define HOUR 3600000000000

static const struct option options[] = {
	LAYER_DIRECTION("both"),
	{ .name = "loss",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct settings, loss),
	  .help = "Share of packets that are lost." },
	{ .name = "delay",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct settings, delay),
	  .max = HOUR,
	  .help = "Holds each packet for so long." },
	{ .name = "jitter",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct settings, jitter),
	  .max = HOUR,
	  .help = "A random time up to this on top. Packets keep their order." },
	{ .name = "reorder",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct settings, reorder),
	  .help = "Share of packets that are overtaken: they wait longer than others, by the time of "
		  "reorder-delay." },
	{ .name = "reorder-delay",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct settings, late),
	  .fallback = "5ms",
	  .max = HOUR,
	  .help = "How much longer those wait." },
	{ .name = "duplicate",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct settings, duplicate),
	  .help = "Share of packets that arrive twice." },
	{ .name = "corrupt",
	  .type = OPTION_FRACTION,
	  .offset = offsetof(struct settings, corrupt),
	  .help = "Share of packets in which one bit is flipped, behind the Ethernet header." },
	{ .name = "limit",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct settings, limit),
	  .min = 1,
	  .max = 1 << 20,
	  .fallback = "16384",
	  .help = "Most packets that are held at once, on each loop; more are dropped (full)." },
	{ .name = "seed",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct settings, seed),
	  .fallback = "1",
	  .help = "Of the random numbers; the same seed does the same to the same packets." },
	{ 0 },
};

const struct packet_layer_ops impair_layer = {
	.name = "impair",
	.summary = "a bad network: loss, delay, jitter, reordering, duplicates, damage",
	.description =
		"Makes of a good network a bad one, to see how guests bear it. What is held is a copy, so "
		"that no sender waits. A large packet that a guest has left to be cut counts as one; "
		"only if it is to be damaged it is cut before, so that the receiver's checksum finds "
		"the damage.\n\n"
		"Two of these, one for each direction, make a network whose ways differ. All options "
		"can be changed while packets flow; what is held stays, and waits no longer than "
		"the new options say. Packets dropped are counted by cause: loss; full, for want of "
		"limit or of the pool of the loop; memory; malformed, headers that make no sense.",
	.example =
		"switches:\n"
		"  lan: {}\n"
		"nics:\n"
		"  web0:\n"
		"    switch: lan\n"
		"    layers:\n"
		"      - impair: {loss: 1%, delay: 20ms, jitter: 5ms, reorder: 0.5%, direction: out}\n"
		"vms:\n"
		"  web:\n"
		"    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct settings),
	.options = options,
	.causes = causes,
	.size = sizeof(struct packet_layer),
	.place_size = sizeof(struct impair_place),
	.compile = impair_compile,
	.discard = free,
	.arrive = impair_arrive,
	.leave = impair_leave,
	.changed = impair_changed,
	.process = impair_process,
	.report = impair_report,
};
