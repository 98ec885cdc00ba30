/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vswitch.c - a switch on the control thread: its ports, and the views that loops have of them
 *
 * Whatever changes of a port, all of the switch's view is made anew, and a round takes it to the
 * loops. Rounds end in the order in which they began, so each frees the view before its own.
 */
#include "packet/vswitch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/vswitch_private.h"
#include "util/error.h"

/* Of one loop: packets that are kept, made, shown to several ports, or lent. */
#define POOL_BYTES ((size_t)64 << 20)

const struct option vswitch_options[] = {
	{ .name = "ageing",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct vswitch_config, ageing),
	  .min = 1000000000,
	  .max = 1000000ull * 1000000000,
	  .fallback = "300s",
	  .help = "A MAC address that was not seen for so long is forgotten." },
	{ .name = "addresses",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct vswitch_config, addresses),
	  .min = 16,
	  .max = 1 << 20,
	  .fallback = "16384",
	  .help = "How many MAC addresses are learned at most, at all ports together." },
	{ 0 },
};

/* --- loops -------------------------------------------------------------------------- */

int packet_loops_init(struct packet_loops *loops, struct loop *control, struct loop *const *all,
		      unsigned count, struct error *err)
{
	*loops = (struct packet_loops){ .control = control, .loops = all, .count = count };
	loops->pools = calloc(count, sizeof *loops->pools);
	for (unsigned i = 0; loops->pools && i < count; i++) {
		loops->pools[i] = packet_pool_create(POOL_BYTES);
		if (!loops->pools[i]) {
			packet_loops_release(loops);
			break;
		}
	}
	return loops->pools ? 0 : error_set(err, ENOMEM, "out of memory");
}

void packet_loops_release(struct packet_loops *loops)
{
	for (unsigned i = 0; loops->pools && i < loops->count; i++)
		packet_pool_free(loops->pools[i]);
	free(loops->pools);
	*loops = (struct packet_loops){ 0 };
}

/* --- a switch ----------------------------------------------------------------------- */

struct vswitch *vswitch_create(const char *name, const struct vswitch_config *config,
			       struct packet_loops *loops, struct error *err)
{
	struct vswitch *vswitch = calloc(1, sizeof *vswitch + loops->count * sizeof *vswitch->loop);

	if (!vswitch)
		goto failed;
	vswitch->config = *config;
	vswitch->loops = loops;
	vswitch->name = strdup(name);
	vswitch->addresses = addresses_create((unsigned)config->addresses,
					      (uint32_t)(config->ageing / 1000000000),
					      VSWITCH_PORTS);
	vswitch->view = calloc(1, sizeof *vswitch->view);
	if (!vswitch->name || !vswitch->addresses || !vswitch->view)
		goto failed;
	for (unsigned i = 0; i < loops->count; i++)
		vswitch->loop[i].view = vswitch->view;
	return vswitch;
failed:
	error_set(err, ENOMEM, "out of memory");
	vswitch_free(vswitch);
	return NULL;
}

static void view_free(struct view *view)
{
	for (unsigned i = 0; view && i < view->count; i++) {
		if (view->port[i])
			free(view->port[i]->mirrors);
		free(view->port[i]);
	}
	free(view);
}

void vswitch_free(struct vswitch *vswitch)
{
	if (!vswitch)
		return;
	view_free(vswitch->view);
	addresses_free(vswitch->addresses);
	free(vswitch->name);
	free(vswitch);
}

const char *vswitch_name(const struct vswitch *vswitch)
{
	return vswitch->name;
}

struct packet_loops *vswitch_loops(const struct vswitch *vswitch)
{
	return vswitch->loops;
}

const struct vswitch_config *vswitch_settings(const struct vswitch *vswitch)
{
	return &vswitch->config;
}

struct port *vswitch_port_at(const struct vswitch *vswitch, unsigned *cursor)
{
	while (*cursor < vswitch->count) {
		struct port *port = vswitch->port[(*cursor)++];

		if (port)
			return port;
	}
	return NULL;
}

struct port *vswitch_port(const struct vswitch *vswitch, const char *name)
{
	unsigned cursor = 0;
	struct port *port;

	while ((port = vswitch_port_at(vswitch, &cursor)))
		if (!strcmp(port->name, name))
			return port;
	return NULL;
}

bool vswitch_empty(const struct vswitch *vswitch)
{
	for (unsigned i = 0; i < vswitch->count; i++)
		if (vswitch->port[i] || vswitch->leaving[i])
			return false;
	return true;
}

/* --- views -------------------------------------------------------------------------- */

static struct view_port *see(const struct port *port)
{
	const struct port_config *config = &port->config;
	struct view_port *seen = calloc(1, sizeof *seen);

	if (!seen)
		return NULL;
	*seen = (struct view_port){
		.port = (struct port *)(uintptr_t)port,
		.vlan = (uint16_t)config->vlan,
		.tagged = config->trunk,
		.isolated = config->isolated,
		.learning = config->learning,
		.unknown = config->unknown,
		.up = config->up,
		.sink = config->mirror,
		.addresses = (uint32_t)config->addresses,
		.flood_limit = (uint32_t)config->flood_limit,
	};
	if (config->trunk)
		vlans_parse(config->trunk, &seen->vlans);
	return seen;
}

static bool named(const char *list, const char *name)
{
	struct item item;

	if (!strcmp(list, "all"))
		return true;
	while (item_next(&list, &item))
		if (strlen(name) == item.length && !strncmp(item.text, name, item.length))
			return true;
	return false;
}

/* Which ports are copied to which. 0 or -ENOMEM. */
static int see_mirrors(struct view *view)
{
	for (unsigned m = 0; m < view->count; m++) {
		const struct view_port *mirror = view->port[m];

		for (unsigned p = 0; mirror && mirror->sink && p < view->count; p++) {
			struct view_port *port = view->port[p];

			if (!port || port->sink ||
			    !named(mirror->port->config.mirror, port->port->name))
				continue;
			if (!port->mirrors)
				port->mirrors = calloc(VSWITCH_PORTS, sizeof *port->mirrors);
			if (!port->mirrors)
				return -ENOMEM;
			port->mirrors[port->mirror_count++] = (uint16_t)m;
		}
	}
	return 0;
}

static struct view *view_create(const struct vswitch *vswitch)
{
	struct view *view = calloc(1, sizeof *view + vswitch->count * sizeof view->port[0]);

	if (!view)
		return NULL;
	view->count = vswitch->count;
	for (unsigned i = 0; i < view->count; i++) {
		if (!vswitch->port[i])
			continue;
		view->port[i] = see(vswitch->port[i]);
		if (!view->port[i])
			goto failed;
	}
	if (!see_mirrors(view))
		return view;
failed:
	view_free(view);
	return NULL;
}

static void adopt(struct round *round, unsigned index)
{
	struct view_round *change = container_of(round, struct view_round, round);
	const struct view *view = change->view;

	change->vswitch->loop[index].view = view;
	for (unsigned i = 0; i < view->count; i++)
		if (view->port[i]) {
			struct lane *lane = view->port[i]->port->lanes[index];

			lane->up = view->port[i]->up;
			lane->mtu = change->mtu[i];
		}
	if (change->on_loop)
		change->on_loop(change->data, index);
}

static void adopted(struct round *round)
{
	struct view_round *change = container_of(round, struct view_round, round);
	void (*done)(void *data) = change->done;
	void *data = change->data;

	view_round_free(change, false);
	if (done)
		done(data);
}

struct view_round *view_round_create(struct vswitch *vswitch)
{
	struct view_round *change = calloc(1, sizeof *change);

	if (!change)
		return NULL;
	change->vswitch = vswitch;
	change->view = view_create(vswitch);
	change->mtu = calloc(vswitch->count + 1, sizeof *change->mtu);
	if (!change->view || !change->mtu ||
	    round_init(&change->round, vswitch->loops, adopt, adopted)) {
		view_round_free(change, true);
		return NULL;
	}
	for (unsigned i = 0; i < vswitch->count; i++)
		if (vswitch->port[i])
			change->mtu[i] = (uint32_t)vswitch->port[i]->config.mtu;
	return change;
}

void view_round_start(struct view_round *change, void (*on_loop)(void *data, unsigned index),
		      void (*done)(void *data), void *data)
{
	struct vswitch *vswitch = change->vswitch;

	change->on_loop = on_loop;
	change->done = done;
	change->data = data;
	change->old = vswitch->view;
	vswitch->view = change->view;
	round_start(&change->round);
}

void view_round_free(struct view_round *change, bool unused)
{
	view_free(unused ? change->view : change->old);
	round_release(&change->round);
	free(change->mtu);
	free(change);
}

/* --- addresses ---------------------------------------------------------------------- */

struct each {
	const struct vswitch *vswitch;
	void (*each)(void *data, const struct vswitch_address *address);
	void *data;
};

static void one(void *data, uint64_t key, unsigned port, bool is_static, uint32_t age)
{
	const struct each *each = data;
	struct vswitch_address address = {
		.vlan = key >> 48 & 0xfff,
		.port = each->vswitch->port[port],
		.is_static = is_static,
		.age = is_static ? 0 : age * 1000000000ull,
	};

	for (unsigned i = 0; i < 6; i++)
		address.mac[i] = (uint8_t)(key >> (40 - 8 * i));
	if (address.port)
		each->each(each->data, &address);
}

void vswitch_each_address(const struct vswitch *vswitch,
			  void (*each)(void *data, const struct vswitch_address *address),
			  void *data)
{
	struct each context = { vswitch, each, data };

	addresses_each(vswitch->addresses,
		       (uint32_t)(loop_now(vswitch->loops->control) / 1000000000), one, &context);
}

unsigned vswitch_forget(struct vswitch *vswitch, const struct port *port)
{
	return addresses_forget(vswitch->addresses, port ? (int)port->index : -1, false);
}

unsigned vswitch_address_count(const struct vswitch *vswitch, const struct port *port)
{
	return addresses_count(vswitch->addresses, port ? (int)port->index : -1);
}
