/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vswitch.h - a switch: which port a frame goes to
 *
 * IEEE 802.1Q in short: a frame belongs to a VLAN, by its tag or by the port it came in at; its
 * source address is learned (addresses.h); it goes where its destination was learned, or to all
 * ports of its VLAN. All loops switch at once: each has a view of the ports, an immutable copy of
 * their settings, which the control thread replaces as a whole and frees when all loops have gone
 * over to the new one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"
#include "packet/port.h"

struct error;
struct vswitch;

/** Most ports of a switch. */
#define VSWITCH_PORTS 1024u

/** What a user says of a switch. */
struct vswitch_config {
	uint64_t ageing;    /**< ns; an address that was not seen for that long is forgotten */
	uint64_t addresses; /**< most addresses that are learned, of all ports */
};
extern const struct option vswitch_options[]; /**< into struct vswitch_config */

/** The loops that packets are handled on, and the control loop: the same for all switches of a
 * process. */
struct packet_loops {
	struct loop *control;
	struct loop *const *loops;
	unsigned count;
	struct packet_pool **pools; /**< one for each loop */
};

/** Fills @loops, and makes the pools. 0 or -ENOMEM with @err. */
int packet_loops_init(struct packet_loops *loops, struct loop *control, struct loop *const *all,
		      unsigned count, struct error *err);
void packet_loops_release(struct packet_loops *loops);

/** NULL with @err. Control thread. @loops stays the caller's, and must outlive the switch. */
struct vswitch *vswitch_create(const char *name, const struct vswitch_config *config,
			       struct packet_loops *loops, struct error *err);
/** Its ports have been destroyed. */
void vswitch_free(struct vswitch *vswitch);

const char *vswitch_name(const struct vswitch *vswitch);
struct packet_loops *vswitch_loops(const struct vswitch *vswitch);
const struct vswitch_config *vswitch_settings(const struct vswitch *vswitch);

/** The port called @name, or NULL; all of them in turn: NULL after the last. Control thread. */
struct port *vswitch_port(const struct vswitch *vswitch, const char *name);
struct port *vswitch_port_at(const struct vswitch *vswitch, unsigned *cursor);

/** True if it has no ports, and no loop knows one that it had. Control thread. */
bool vswitch_empty(const struct vswitch *vswitch);

/** One learned or static address, for status. */
struct vswitch_address {
	uint8_t mac[6];
	uint16_t vlan;
	const struct port *port;
	bool is_static;
	uint64_t age; /**< ns since it was last seen */
};
/** Calls @each for all addresses that are known now. Control thread. */
void vswitch_each_address(const struct vswitch *vswitch,
			  void (*each)(void *data, const struct vswitch_address *address),
			  void *data);
/** Forgets what was learned, at @port or (NULL) anywhere. Returns how many. Control thread. */
unsigned vswitch_forget(struct vswitch *vswitch, const struct port *port);
/** How many addresses are known at @port, or (NULL) in all. Any thread. */
unsigned vswitch_address_count(const struct vswitch *vswitch, const struct port *port);
