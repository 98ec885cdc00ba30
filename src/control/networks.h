/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * networks.h - the switches of a running penstock, and what is plugged into them; see networks.c.
 * Control thread only.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct daemon;
struct daemon_device;
struct error;
struct nic_plan;
struct port;
struct vswitch;
struct waiter;

/** Makes the switches of the configuration. 0, or -errno with @err. */
int networks_open(struct daemon *daemon, struct error *err);

/** What the device of NIC number @nic of the configuration is made from; good as long as that is.
 */
struct nic_plan networks_plan(const struct daemon *daemon, unsigned nic);

/**
 * Gives the NICs of devices their layers, opens the uplinks, and calls @then(@daemon) when all
 * layers are in force; maybe before it returns. 0, or -errno with @err: then @then is not called.
 */
int networks_connect(struct daemon *daemon, void (*then)(struct daemon *daemon), struct error *err);

/** Uplinks begin to take packets. */
void networks_start(struct daemon *daemon);

/** Uplinks end; each holds the daemon until it has. */
void networks_stop(struct daemon *daemon);

/** Devices have been destroyed: holds the daemon until no loop knows a port of theirs any more. */
void networks_wait(struct daemon *daemon);

/** All ports are gone, and loops have stopped. */
void networks_close(struct daemon *daemon);

/** The switch called @name, or NULL; all of them: NULL after the last. */
struct vswitch *networks_switch(const struct daemon *daemon, const char *name);
struct vswitch *networks_switch_at(const struct daemon *daemon, unsigned index);

/** Calls @each for all ports, in the order of switches. */
void networks_each_port(const struct daemon *daemon, void (*each)(void *data, struct port *port),
			void *data);

/** The device whose port it is; NULL: it is an uplink's. */
const struct daemon_device *networks_device(const struct daemon *daemon, const struct port *port);

/**
 * Gives @port the list of layers @json, as a configuration has it, and tells @waiter when they are
 * in force, or why not; then nothing is changed. 0, or -errno with @err: then @waiter hears
 * nothing.
 */
int networks_set_layers(struct daemon *daemon, struct port *port, const json_t *json,
			struct waiter *waiter, struct error *err);

/** Gives @port other options: those in the object @options; null is the default. As above. */
int networks_set_options(struct daemon *daemon, struct port *port, const json_t *options,
			 struct waiter *waiter, struct error *err);
