/* SPDX-License-Identifier: BSD-3-Clause */
/* port.c - ports come, change and go; what comes in at one. See port.h */
#include "packet/port.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/chain.h"
#include "packet/frame.h"
#include "packet/nic.h"
#include "packet/offload.h"
#include "packet/vswitch_private.h"
#include "util/error.h"
#include "util/must.h"

#define TAG_TYPE  0x8100
#define TAG_BYTES 4u

const char *const port_drop_names[PORT_DROPS] = {
	[DROP_MALFORMED] = "malformed",
	[DROP_OFFLOAD] = "offload",
	[DROP_VLAN] = "vlan",
	[DROP_SOURCE] = "source",
	[DROP_FLOOD_LIMIT] = "flood-limit",
	[DROP_SELF] = "self",
	[DROP_ISOLATED] = "isolated",
	[DROP_RESERVED] = "reserved",
	[DROP_NOWHERE] = "nowhere",
	[DROP_DOWN] = "down",
	[DROP_TOO_LONG] = "too-long",
	[DROP_NO_BUFFER] = "no-buffer",
	[DROP_FILTER] = "filter",
	[DROP_NO_MEMORY] = "no-memory",
	[DROP_ERROR] = "error",
};

const struct option port_options[] = {
	{ .name = "switch",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct port_config, switch_name),
	  .required = true,
	  .help = "The switch that it is plugged into." },
	{ .name = "mtu",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct port_config, mtu),
	  .min = 68,
	  .max = 65535,
	  .fallback = "65535",
	  .help = "Longest IP packet, in bytes, that is sent out here. A NIC tells its guest, if "
		  "it is less than 65535." },
	{ .name = "vlan",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct port_config, vlan),
	  .max = 4094,
	  .fallback = "1",
	  .help = "The VLAN that frames without a tag belong to, 1 to 4094. 0, of a port with trunk: they "
		  "are dropped." },
	{ .name = "trunk",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct port_config, trunk),
	  .help = "VLANs whose frames come and go with an 802.1Q tag, such as 10,20-29, or all. Without it a "
		  "frame with a tag is dropped." },
	{ .name = "isolated",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct port_config, isolated),
	  .help = "Isolated ports of a switch do not reach one another, only the others." },
	{ .name = "addresses",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct port_config, addresses),
	  .max = 1 << 20,
	  .fallback = "1024",
	  .help = "How many MAC addresses are learned here at most." },
	{ .name = "static",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct port_config, statics),
	  .help = "MAC addresses that are here for good, joined by commas, each with /VLAN if it is not in the "
		  "port's own. They are not learned elsewhere, and frames from them are dropped elsewhere." },
	{ .name = "learning",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct port_config, learning),
	  .fallback = "true",
	  .help = "Learn the MAC addresses of what comes in here." },
	{ .name = "unknown",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct port_config, unknown),
	  .fallback = "true",
	  .help = "Frames go out here whose destination is known at no port." },
	{ .name = "flood-limit",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct port_config, flood_limit),
	  .max = UINT32_MAX,
	  .fallback = "0",
	  .help = "How many frames a second from here may go to several ports: broadcasts, "
		  "multicasts, unknown destinations. Counted on each loop by itself. 0: as many as come; then "
		  "one guest that broadcasts at full speed can fill the receive rings of all others." },
	{ .name = "mirror",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct port_config, mirror),
	  .help = "Makes it a mirror: it is sent copies of all that goes in and out at these ports, joined "
		  "by commas, or all; and nothing else. What comes in here is dropped." },
	{ .name = "up",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct port_config, up),
	  .fallback = "true",
	  .help = "false: as if its cable were pulled out." },
	{ 0 },
};

/* --- settings ----------------------------------------------------------------------- */

/* "52:54:00:12:34:56" or, with a VLAN, ".../10". 0 or -EINVAL. */
static int parse_static(const struct item *item, uint8_t mac[6], uint16_t *vlan)
{
	char text[32], *slash, *end;
	unsigned long number;

	if (item->length >= sizeof text)
		return -EINVAL;
	memcpy(text, item->text, item->length);
	text[item->length] = '\0';
	slash = strchr(text, '/');
	if (slash) {
		*slash = '\0';
		number = strtoul(slash + 1, &end, 10);
		if (*end || end == slash + 1 || number < 1 || number > 4094)
			return -EINVAL;
		*vlan = (uint16_t)number;
	}
	return mac_parse(text, mac) || mac_is_multicast(mac) ? -EINVAL : 0;
}

int port_config_check(const struct port_config *config, struct error *err)
{
	const char *statics = config->statics;
	struct vlan_set set;
	struct item item;
	uint8_t mac[6];

	if (config->trunk && vlans_parse(config->trunk, &set))
		return error_set(err, EINVAL,
				 "trunk: '%s' is not understood; expected VLANs from 1 to 4094 "
				 "such as 10,20-29, or all",
				 config->trunk);
	if (!config->vlan && !config->trunk)
		return error_set(err, EINVAL, "vlan: 0 is for ports with 'trunk' only");
	while (item_next(&statics, &item)) {
		uint16_t vlan = 1;

		if (parse_static(&item, mac, &vlan))
			return error_set(err, EINVAL,
					 "static: '%.*s' is not understood; expected a MAC address "
					 "such as 52:54:00:12:34:56, with /VLAN if need be",
					 (int)item.length, item.text);
	}
	if (config->mirror && !*config->mirror)
		return error_set(err, EINVAL, "mirror: no ports are named");
	return 0;
}

static int copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

int port_config_copy(struct port_config *to, const struct port_config *from)
{
	*to = *from;
	to->switch_name = to->trunk = to->statics = to->mirror = NULL;
	if (copy_text(&to->switch_name, from->switch_name) || copy_text(&to->trunk, from->trunk) ||
	    copy_text(&to->statics, from->statics) || copy_text(&to->mirror, from->mirror)) {
		options_release(port_options, to);
		return -ENOMEM;
	}
	return 0;
}

/* --- static addresses --------------------------------------------------------------- */

static int set_statics(struct port *port, struct error *err)
{
	const char *rest = port->config.statics;
	struct item item;
	uint8_t mac[6];

	while (item_next(&rest, &item)) {
		uint16_t vlan = (uint16_t)(port->config.vlan ? port->config.vlan : 1);

		if (parse_static(&item, mac, &vlan))
			continue;
		if (!addresses_set(port->vswitch->addresses, address_key(vlan, mac_number(mac)),
				   port->index))
			return error_set(err, ENOSPC,
					 "static: the switch's table of addresses is full");
	}
	return 0;
}

/* --- made --------------------------------------------------------------------------- */

static void port_free(struct port *port)
{
	for (unsigned i = 0; port->lanes && i < port->lane_count; i++) {
		if (port->lanes[i])
			free(port->lanes[i]->chain);
		free(port->lanes[i]);
	}
	for (unsigned i = 0; i < port->layer_count; i++)
		packet_layer_end(port->layers[i]);
	options_release(port_options, &port->config);
	free(port->layers);
	free(port->lanes);
	free(port->name);
	free(port);
}

static void go_on(struct loop_task *task)
{
	chain_go_on(container_of(task, struct lane, go_on));
}

static struct lane *lane_create(struct port *port, unsigned index)
{
	struct packet_loops *loops = port->vswitch->loops;
	size_t size = (sizeof(struct lane) + 63) / 64 * 64;
	struct lane *lane = aligned_alloc(64, size);

	if (!lane)
		return NULL;
	memset(lane, 0, size);
	lane->port = port;
	lane->loop = loops->loops[index];
	lane->index = index;
	lane->pool = loops->pools[index];
	lane->go_on.run = go_on;
	return lane;
}

static int create_lanes(struct port *port)
{
	port->lane_count = port->vswitch->loops->count;
	port->lanes = calloc(port->lane_count, sizeof *port->lanes);
	if (!port->lanes)
		return -ENOMEM;
	for (unsigned i = 0; i < port->lane_count; i++) {
		port->lanes[i] = lane_create(port, i);
		if (!port->lanes[i])
			return -ENOMEM;
	}
	return 0;
}

/* A place on the switch; -1: it is full. */
static int find_place(struct vswitch *vswitch)
{
	for (unsigned i = 0; i < VSWITCH_PORTS; i++)
		if (!vswitch->port[i] && !vswitch->leaving[i]) {
			if (i == vswitch->count)
				vswitch->count++;
			return (int)i;
		}
	return -1;
}

struct port *port_create(struct vswitch *vswitch, const char *name, struct port_config *config,
			 const struct port_facts *facts, const struct port_ops *ops, void *owner,
			 struct error *err)
{
	struct port *port = calloc(1, sizeof *port);
	struct view_round *change;
	int place;

	if (!port) {
		options_release(port_options, config);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	options_move(port_options, &port->config, config);
	port->vswitch = vswitch;
	port->ops = ops;
	port->owner = owner;
	port->facts = *facts;
	port->up = port->config.up;
	port->name = strdup(name);
	port->facts.name = port->name;
	if (!port->name || create_lanes(port)) {
		error_set(err, ENOMEM, "out of memory");
		goto failed;
	}
	place = find_place(vswitch);
	if (place < 0) {
		error_set(err, ENOSPC, "switch '%s' has %u ports already", vswitch->name,
			  VSWITCH_PORTS);
		goto failed;
	}
	port->index = (unsigned)place;
	vswitch->port[place] = port;
	if (set_statics(port, err))
		goto unplug;
	change = view_round_create(vswitch);
	if (!change) {
		error_set(err, ENOMEM, "out of memory");
		goto unplug;
	}
	view_round_start(change, NULL, NULL, NULL);
	return port;
unplug:
	addresses_forget(vswitch->addresses, place, true);
	vswitch->port[place] = NULL;
failed:
	port_free(port);
	return NULL;
}

/* --- changed ------------------------------------------------------------------------ */

struct port_change {
	void (*done)(void *data, int status);
	void *data;
};

static void port_changed(void *data)
{
	struct port_change *change = data;

	if (change->done)
		change->done(change->data, 0);
	free(change);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

int port_change(struct port *port, struct port_config *config, void (*done)(void *data, int status),
		void *data, struct error *err)
{
	struct port_change *change = malloc(sizeof *change);
	struct port_config old = port->config;
	struct view_round *round;

	if (!change || port_config_check(config, err)) {
		if (!change)
			error_set(err, ENOMEM, "out of memory");
		goto refused;
	}
	if (!same_text(config->switch_name, old.switch_name)) {
		error_set(err, EINVAL, "switch: a port stays on its switch");
		goto refused;
	}
	*change = (struct port_change){ done, data };
	port->config = *config;
	round = view_round_create(port->vswitch);
	if (!round) {
		port->config = old;
		error_set(err, ENOMEM, "out of memory");
		goto refused;
	}
	port->facts.mtu = (uint32_t)config->mtu;
	port->up = config->up;
	*config = (struct port_config){ 0 };
	if (!same_text(old.statics, port->config.statics) || old.vlan != port->config.vlan) {
		struct error full = { 0 };

		addresses_forget(port->vswitch->addresses, (int)port->index, true);
		if (set_statics(port, &full))
			snprintf(port->reason, sizeof port->reason, "%.150s", full.text);
	}
	view_round_start(round, NULL, port_changed, change);
	if (old.up != port->up && port->ops->link_changed)
		port->ops->link_changed(port);
	options_release(port_options, &old);
	return 0;
refused:
	free(change);
	options_release(port_options, config);
	return -err->code;
}

/* --- gone --------------------------------------------------------------------------- */

/*
 * Three rounds: after the first no loop sends to the port any more; what was lent to it before is
 * in the inboxes of the loops by then, so that in the second they have dealt with it. What its
 * layers passed on as they left has gone on by then, but the task for that is still queued: by the
 * third it has run.
 */
struct leaving {
	struct port *port;
	struct round round;
	bool emptied; /* the second is over */
	void (*done)(void *data);
	void *data;
};

static void leave(struct round *round, unsigned index)
{
	struct leaving *leaving = container_of(round, struct leaving, round);
	struct lane *lane = leaving->port->lanes[index];
	struct chain_of_layers *chain = lane->chain;

	chain_replace(lane, NULL);
	free(chain);
}

static void left(struct round *round)
{
	struct leaving *leaving = container_of(round, struct leaving, round);
	struct port *port = leaving->port;

	if (!leaving->emptied) {
		leaving->emptied = true;
		round_start(round);
		return;
	}
	addresses_forget(port->vswitch->addresses, (int)port->index, true);
	port->vswitch->leaving[port->index] = false;
	port_free(port);
	round_release(round);
	if (leaving->done)
		leaving->done(leaving->data);
	free(leaving);
}

static void unseen(void *data)
{
	struct leaving *leaving = data;

	round_start(&leaving->round);
}

void port_destroy(struct port *port, void (*done)(void *data), void *data)
{
	struct leaving *leaving = must(calloc(1, sizeof *leaving));

	leaving->port = port;
	leaving->done = done;
	leaving->data = data;
	if (round_init(&leaving->round, port->vswitch->loops, leave, left))
		must(NULL);
	port->vswitch->port[port->index] = NULL;
	port->vswitch->leaving[port->index] = true;
	view_round_start(must(view_round_create(port->vswitch)), NULL, unseen, leaving);
}

/* --- its loop ----------------------------------------------------------------------- */

struct lane *port_lane_of(struct port *port, const struct loop *loop)
{
	unsigned i = 0;

	while (i + 1 < port->lane_count && port->lanes[i]->loop != loop)
		i++;
	return port->lanes[i];
}

void lane_up(struct lane *lane, void *endpoint)
{
	lane->endpoint = endpoint;
	atomic_fetch_or(&lane->port->present[lane->index / 64], 1ull << lane->index % 64);
}

void lane_down(struct lane *lane)
{
	lane->endpoint = NULL;
	atomic_fetch_and(&lane->port->present[lane->index / 64], ~(1ull << lane->index % 64));
}

/* Takes the outermost tag off the frame: what it said is in the packet. False if it is cut short.
 */
static bool take_tag(struct packet *packet)
{
	uint8_t *head = packet->head;

	if (packet->length < ETHERNET_HEADER + TAG_BYTES)
		return false;
	packet->tag = (uint16_t)(head[14] << 8 | head[15]);
	packet->tagged = true;
	memmove(head + TAG_BYTES, head, 12);
	packet->head += TAG_BYTES;
	packet->head_length -= TAG_BYTES;
	packet->length -= TAG_BYTES;
	if (packet->offload.csum_start >= TAG_BYTES)
		packet->offload.csum_start -= TAG_BYTES;
	return true;
}

static bool has_tag(const struct packet *packet)
{
	return packet_ethernet(packet)->type == htobe16(TAG_TYPE);
}

void lane_receive(struct lane *lane, struct burst *burst)
{
	struct packet_batch batch;
	uint64_t bytes = 0;

	batch.count = burst->count;
	batch.live = 0;
	for (unsigned i = 0; i < burst->count; i++) {
		struct packet *packet = &burst->packets[i];

		batch.packet[i] = packet;
		batch.live |= 1ull << i;
		bytes += packet->length;
		packet->port = (uint16_t)lane->port->index;
		if (!lane->up)
			lane_drop(lane, PACKET_IN, DROP_DOWN, &batch, i);
		else if (!packet->tagged && has_tag(packet) && !take_tag(packet))
			lane_drop(lane, PACKET_IN, DROP_MALFORMED, &batch, i);
		else if (offload_check(packet) != OFFLOAD_GOOD)
			lane_drop(lane, PACKET_IN, DROP_OFFLOAD, &batch, i);
	}
	stats_add(&lane->stats.direction[PACKET_IN].packets, burst->count);
	stats_add(&lane->stats.direction[PACKET_IN].bytes, bytes);
	if (batch.live)
		chain_in(lane, &batch);
}
