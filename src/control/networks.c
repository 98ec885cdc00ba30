/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * networks.c - switches and what is plugged into them: how they come, change and go
 *
 * Switches are there before all ports. The port of a NIC is made by its device, that of an uplink
 * with it; both get their layers here, before anybody can be connected, so that not one packet
 * passes without them: devices listen, and uplinks start, when the layers of all ports are in
 * force.
 *
 * The end is the reverse. Uplinks stop while devices drain, since a packet may be on its way from
 * one to the other; a port goes when the loops have let go of it, which takes messages to all of
 * them; then switches can be freed.
 */
#include "control/networks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/state.h"
#include "control/waiter.h"
#include "control/yaml.h"
#include "frontend/device.h"
#include "util/error.h"
#include "util/log.h"
#include "util/must.h"
#include "util/suggest.h"

/* How often it is looked whether ports have gone, at the end. */
#define LOOK_AGAIN 1000000ull /* ns */

struct networks {
	struct daemon *daemon;
	struct packet_loops loops;
	struct vswitch **switches; /* as in the configuration */
	unsigned switch_count;
	struct uplink **uplinks;
	unsigned uplink_count;
	unsigned pending; /* lists of layers that are not in force yet; and one while beginning */
	void (*then)(struct daemon *daemon);
	struct loop_timer timer;
};

/* --- start-up ---------------------------------------------------------------------------- */

static void look_again(struct loop_timer *timer);

int networks_open(struct daemon *d, struct error *err)
{
	const struct config *config = d->config;
	struct networks *n;

	if (!config->switch_count)
		return 0;
	n = must(calloc(1, sizeof *n));
	n->daemon = d;
	n->switches = must(calloc(config->switch_count + 1, sizeof(struct vswitch *)));
	n->uplinks = must(calloc(config->uplink_count + 1, sizeof(struct uplink *)));
	loop_timer_init(&n->timer, look_again);
	if (packet_loops_init(&n->loops, d->control, d->loops, d->loop_count, err)) {
		free(n->switches);
		free(n->uplinks);
		free(n);
		return -err->code;
	}
	d->networks = n;
	for (unsigned i = 0; i < config->switch_count; i++) {
		const struct config_switch *of = &config->switches[i];

		n->switches[i] = vswitch_create(of->name, &of->config, &n->loops, err);
		if (!n->switches[i])
			return error_prefix(err, "switch '%s'", of->name);
		n->switch_count++;
	}
	return 0;
}

struct nic_plan networks_plan(const struct daemon *d, unsigned nic)
{
	const struct config_port *config = &d->config->nics[nic];
	struct nic_plan plan = { .name = config->name,
				 .vswitch = networks_switch(d, config->config.switch_name),
				 .config = &config->config };

	nic_mac(&config->nic, config->name, plan.mac);
	return plan;
}

/* One list of layers less that is not in force. */
static void settle(struct networks *n)
{
	if (--n->pending || n->daemon->ending)
		return;
	n->then(n->daemon);
}

static void layers_in_force(void *data, int status)
{
	struct networks *n = data;
	struct daemon *d = n->daemon;

	/* Nothing that can fail is left once it was begun, but for memory. */
	if (status) {
		log_error("layers of a port: %s", strerror(-status));
		d->status = 1;
	}
	settle(n);
	daemon_let_go(d);
}

/* Gives @port the layers of @config, of which it has copies. */
static int set_first_layers(struct networks *n, struct port *port, const struct config_port *config,
			    struct error *err)
{
	struct packet_layer_config *layers;
	int ret;

	if (!config->layer_count)
		return 0;
	layers = must(calloc(config->layer_count, sizeof *layers));
	for (unsigned i = 0; i < config->layer_count; i++) {
		const struct packet_layer_ops *ops = config->layers[i].ops;

		layers[i].ops = ops;
		layers[i].settings = must(config_copy_settings(ops->options, ops->settings_size,
							       config->layers[i].settings));
	}
	n->pending++;
	daemon_hold(n->daemon);
	ret = port_set_layers(port, layers, config->layer_count, layers_in_force, n, err);
	free(layers);
	if (!ret)
		return 0;
	n->pending--;
	daemon_let_go(n->daemon);
	return error_prefix(err, "%s '%s': layers", config->ops ? "uplink" : "nic", config->name);
}

static int connect_nics(struct networks *n, struct error *err)
{
	struct daemon *d = n->daemon;

	for (unsigned i = 0; i < d->device_count; i++) {
		const struct daemon_device *slot = &d->devices[i];
		const struct config_device *config = slot->config;

		if (config->frontend->nic &&
		    set_first_layers(n, slot->device->units[0].port,
				     &d->config->nics[config->units[0].nic], err))
			return -err->code;
	}
	return 0;
}

/* Homes are spread over the loops from the last one down; devices begin with the first. */
static int open_uplink(struct networks *n, const struct config_port *config, struct error *err)
{
	unsigned home = n->loops.count - 1 - n->uplink_count % n->loops.count;
	struct vswitch *vswitch = networks_switch(n->daemon, config->config.switch_name);
	struct port_config port;
	struct uplink *uplink;
	void *settings;

	if (port_config_copy(&port, &config->config))
		must(NULL);
	settings = must(config_copy_settings(config->ops->options, config->ops->settings_size,
					     config->settings));
	uplink = uplink_create(config->ops, config->name, vswitch, &port, settings, home, err);
	if (!uplink)
		return error_prefix(err, "uplink '%s'", config->name);
	n->uplinks[n->uplink_count++] = uplink;
	log_info("uplink %s: %s on switch %s", config->name, config->ops->name,
		 vswitch_name(vswitch));
	return set_first_layers(n, uplink->port, config, err);
}

int networks_connect(struct daemon *d, void (*then)(struct daemon *daemon), struct error *err)
{
	struct networks *n = d->networks;

	if (!n) {
		then(d);
		return 0;
	}
	n->then = then;
	n->pending = 1;
	if (connect_nics(n, err))
		return -err->code;
	for (unsigned i = 0; i < d->config->uplink_count; i++)
		if (open_uplink(n, &d->config->uplinks[i], err))
			return -err->code;
	settle(n);
	return 0;
}

void networks_start(struct daemon *d)
{
	for (unsigned i = 0; d->networks && i < d->networks->uplink_count; i++)
		uplink_start(d->networks->uplinks[i]);
}

/* --- shutdown ----------------------------------------------------------------------------- */

static void uplink_gone(void *data)
{
	daemon_let_go(data);
}

void networks_stop(struct daemon *d)
{
	struct networks *n = d->networks;

	for (unsigned i = 0; n && i < n->uplink_count; i++) {
		daemon_hold(d);
		uplink_destroy(n->uplinks[i], uplink_gone, d);
	}
	if (n)
		n->uplink_count = 0;
}

static bool all_empty(const struct networks *n)
{
	for (unsigned i = 0; i < n->switch_count; i++)
		if (!vswitch_empty(n->switches[i]))
			return false;
	return true;
}

static void look_again(struct loop_timer *timer)
{
	struct networks *n = container_of(timer, struct networks, timer);
	struct loop *loop = n->daemon->control;

	if (all_empty(n))
		daemon_let_go(n->daemon);
	else
		loop_timer_set(loop, &n->timer, loop_now(loop) + LOOK_AGAIN);
}

void networks_wait(struct daemon *d)
{
	daemon_hold(d);
	if (d->networks)
		look_again(&d->networks->timer);
	else
		daemon_let_go(d);
}

void networks_close(struct daemon *d)
{
	struct networks *n = d->networks;

	if (!n)
		return;
	while (n->switch_count)
		vswitch_free(n->switches[--n->switch_count]);
	packet_loops_release(&n->loops);
	free(n->switches);
	free(n->uplinks);
	free(n);
	d->networks = NULL;
}

/* --- what there is -------------------------------------------------------------------------- */

struct vswitch *networks_switch(const struct daemon *d, const char *name)
{
	for (unsigned i = 0; d->networks && i < d->networks->switch_count; i++)
		if (!strcmp(vswitch_name(d->networks->switches[i]), name))
			return d->networks->switches[i];
	return NULL;
}

struct vswitch *networks_switch_at(const struct daemon *d, unsigned index)
{
	return d->networks && index < d->networks->switch_count ? d->networks->switches[index]
								: NULL;
}

struct port *daemon_port(const struct daemon *d, const char *name)
{
	struct vswitch *vswitch;
	struct port *port;

	for (unsigned i = 0; (vswitch = networks_switch_at(d, i)); i++)
		if ((port = vswitch_port(vswitch, name)))
			return port;
	return NULL;
}

void networks_each_port(const struct daemon *d, void (*each)(void *data, struct port *port),
			void *data)
{
	struct vswitch *vswitch;
	struct port *port;

	for (unsigned i = 0; (vswitch = networks_switch_at(d, i)); i++)
		for (unsigned cursor = 0; (port = vswitch_port_at(vswitch, &cursor));)
			each(data, port);
}

const struct daemon_device *networks_device(const struct daemon *d, const struct port *port)
{
	for (unsigned i = 0; i < d->device_count; i++)
		if (d->devices[i].device->units[0].port == port)
			return &d->devices[i];
	return NULL;
}

/* --- changes while packets flow --------------------------------------------------------------- */

/* One that is under way. */
struct changing {
	struct daemon *daemon;
	char *name; /* of the port */
	struct waiter *waiter;
};

static void changed(void *data, int status)
{
	struct changing *c = data;
	struct daemon *daemon = c->daemon;
	struct error err = { 0 };

	if (status) {
		error_set(&err, -status, "port '%s': %s", c->name, strerror(-status));
		waiter_tell(&c->waiter, &err);
	} else {
		state_keep(daemon, &c->waiter);
	}
	free(c->name);
	free(c);
	daemon_let_go(daemon);
}

static struct changing *begin(struct daemon *daemon, const struct port *port, struct waiter *waiter)
{
	struct changing *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->daemon = daemon;
	c->name = strdup(port->name);
	if (!c->name) {
		free(c);
		return NULL;
	}
	waiter_hold(&c->waiter, waiter);
	daemon_hold(daemon);
	return c;
}

/* Nothing has begun. */
static void give_up(struct changing *c)
{
	if (c->waiter)
		waiter_leave(c->waiter);
	daemon_let_go(c->daemon);
	free(c->name);
	free(c);
}

static int read_layers(const struct port *port, const json_t *json,
		       struct packet_layer_config **layers, unsigned *count, struct error *err)
{
	struct mistakes mistakes = { .file = "request" };
	struct node *tree = json_tree_read(json, &mistakes);
	char text[sizeof err->text];

	if (tree)
		/* Those that change are compiled by port_set_layers(), which says what is wrong. */
		config_read_packet_layers(layers, count, tree, NULL, &mistakes);
	node_free(tree);
	if (mistakes.fatal) {
		config_release_packet_layers(*layers, *count);
		*layers = NULL;
		error_set(err, mistakes.no_memory ? ENOMEM : EINVAL, "port '%s': %s", port->name,
			  mistakes_text(&mistakes, text, sizeof text));
	}
	mistakes_release(&mistakes);
	return mistakes.fatal ? -err->code : 0;
}

int networks_set_layers(struct daemon *daemon, struct port *port, const json_t *json,
			struct waiter *waiter, struct error *err)
{
	struct packet_layer_config *layers = NULL;
	struct changing *c;
	unsigned count = 0;
	int ret = read_layers(port, json, &layers, &count, err);

	if (ret)
		return ret;
	c = begin(daemon, port, waiter);
	if (!c) {
		config_release_packet_layers(layers, count);
		return error_set(err, ENOMEM, "out of memory");
	}
	ret = port_set_layers(port, layers, count, changed, c, err);
	free(layers);
	if (!ret)
		return 0;
	give_up(c);
	return error_prefix(err, "port '%s'", port->name);
}

/* Makes one option of a port what the user wants; null is the default. */
static int set_option(struct port_config *config, const char *name, const json_t *value,
		      struct error *err)
{
	const struct option *row = options_find(port_options, name);
	struct suggestion nearest = suggest_for(name);
	const char *text = json_string_value(value);
	char number[32];

	for (const struct option *other = port_options; other->name; other++)
		suggest_offer(&nearest, other->name);
	if (!row)
		return error_set(err, EINVAL, "no option '%s' of a port%s%s%s", name,
				 nearest.best ? "; did you mean '" : "",
				 nearest.best ? nearest.best : "", nearest.best ? "'?" : "");
	if (!strcmp(name, "switch"))
		return error_set(err, EINVAL, "switch: a port stays on its switch");
	if (json_is_null(value) && row->type == OPTION_STRING && !row->fallback) {
		free(*(char **)((char *)config + row->offset));
		*(char **)((char *)config + row->offset) = NULL;
		return 0;
	}
	if (json_is_null(value)) {
		text = row->fallback ? row->fallback : "0";
	} else if (json_is_boolean(value)) {
		text = json_is_true(value) ? "true" : "false";
	} else if (json_is_integer(value)) {
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		text = number;
	}
	if (!text)
		return error_set(err, EINVAL, "%s: expected a text, a number or a truth value",
				 name);
	return options_set(port_options, config, name, text, err);
}

static int set_options(const struct daemon *daemon, const struct port *port, const json_t *options,
		       struct port_config *config, struct error *err)
{
	const char *name;
	json_t *value;
	int ret = 0;

	if (port_config_copy(config, &port->config))
		return error_set(err, ENOMEM, "out of memory");
	json_object_foreach((json_t *)options, name, value)
	{
		if (!ret)
			ret = set_option(config, name, value, err);
	}
	if (!ret)
		ret = port_config_check(config, err);
	/* A restart with these options must not fail. */
	if (!ret)
		ret = config_check_port(daemon->config, port->name, config, err);
	if (ret)
		options_release(port_options, config);
	return ret;
}

int networks_set_options(struct daemon *daemon, struct port *port, const json_t *options,
			 struct waiter *waiter, struct error *err)
{
	struct port_config config;
	struct changing *c;
	int ret = set_options(daemon, port, options, &config, err);

	if (ret)
		return error_prefix(err, "port '%s'", port->name);
	c = begin(daemon, port, waiter);
	if (!c) {
		options_release(port_options, &config);
		return error_set(err, ENOMEM, "out of memory");
	}
	ret = port_change(port, &config, changed, c, err);
	if (!ret)
		return 0;
	give_up(c);
	return error_prefix(err, "port '%s'", port->name);
}
