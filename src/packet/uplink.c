/* SPDX-License-Identifier: BSD-3-Clause */
/* uplink.c - an uplink's life, whatever its kind; see uplink.h */
#include "packet/uplink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/vswitch.h"
#include "util/error.h"
#include "util/log.h"

static void start_received(struct loop_message *message)
{
	struct uplink *uplink = container_of(message, struct uplink, start_message);

	uplink->ops->start(uplink);
}

static void stop_received(struct loop_message *message)
{
	struct uplink *uplink = container_of(message, struct uplink, stop_message);

	uplink->ops->stop(uplink);
}

static void uplink_free(struct uplink *uplink)
{
	options_release(uplink->ops->options, uplink->settings);
	free(uplink->settings);
	free(uplink->name);
	free(uplink);
}

static void destroyed(void *data)
{
	struct uplink *uplink = data;
	void (*done)(void *data) = uplink->destroyed;
	void *owner = uplink->owner;

	uplink_free(uplink);
	done(owner);
}

/* On the control loop: it takes and sends nothing any more. */
static void stopped_received(struct loop_message *message)
{
	struct uplink *uplink = container_of(message, struct uplink, stopped_message);

	uplink->ops->close(uplink);
	port_destroy(uplink->port, destroyed, uplink);
}

static void say(struct loop_message *message)
{
	struct uplink *uplink = container_of(message, struct uplink, plugged_message);
	const char *why;
	bool plugged;

	atomic_store(&uplink->telling, false); /* what is said from here on is told again */
	plugged = atomic_load(&uplink->is_plugged);
	why = atomic_load(&uplink->why);
	snprintf(uplink->port->reason, sizeof uplink->port->reason, "%.150s", why ? why : "");
	if (uplink->port->plugged == plugged)
		return;
	uplink->port->plugged = plugged;
	log_info("uplink %s: %s%s%s", uplink->name, plugged ? "connected" : "not connected",
		 why ? ": " : "", why ? why : "");
}

void uplink_plugged(struct uplink *uplink, bool plugged, const char *why)
{
	atomic_store(&uplink->is_plugged, plugged);
	atomic_store(&uplink->why, why);
	if (!atomic_exchange(&uplink->telling, true))
		loop_send(uplink->control, &uplink->plugged_message);
}

struct uplink *uplink_create(const struct uplink_ops *ops, const char *name,
			     struct vswitch *vswitch, struct port_config *config, void *settings,
			     unsigned home, struct error *err)
{
	struct packet_loops *loops = vswitch_loops(vswitch);
	struct uplink *uplink = calloc(1, ops->size);
	struct port_facts facts = { .kind = ops->name, .mtu = (uint32_t)config->mtu };

	if (!uplink || !(uplink->name = strdup(name))) {
		error_set(err, ENOMEM, "out of memory");
		goto failed;
	}
	uplink->ops = ops;
	uplink->settings = settings;
	uplink->loop = loops->loops[home];
	uplink->control = loops->control;
	uplink->start_message.run = start_received;
	uplink->stop_message.run = stop_received;
	uplink->stopped_message.run = stopped_received;
	uplink->plugged_message.run = say;
	facts.name = uplink->name;
	if (ops->open(uplink, &facts, err))
		goto failed;
	uplink->port = port_create(vswitch, name, config, &facts, &ops->port, uplink, err);
	if (!uplink->port) {
		ops->close(uplink);
		uplink_free(uplink);
		return NULL;
	}
	uplink->lane = port_lane(uplink->port, home);
	return uplink;
failed:
	options_release(port_options, config);
	options_release(ops->options, settings);
	free(settings);
	if (uplink)
		free(uplink->name);
	free(uplink);
	return NULL;
}

void uplink_start(struct uplink *uplink)
{
	loop_send(uplink->loop, &uplink->start_message);
}

void uplink_destroy(struct uplink *uplink, void (*done)(void *data), void *data)
{
	uplink->destroyed = done;
	uplink->owner = data;
	loop_send(uplink->loop, &uplink->stop_message);
}

void uplink_stopped(struct uplink *uplink)
{
	loop_send(uplink->control, &uplink->stopped_message);
}
