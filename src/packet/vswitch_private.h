/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vswitch_private.h - what the files of the switch share
 *
 *   vswitch.c  the switch on the control thread: ports come, change and go; views
 *   forward.c  frames on the loops
 *   vlans.c    sets of VLANs, and other texts of a port's options
 *   round.c    something that all loops have to do
 */
#pragma once

#include <stdatomic.h>

#include "packet/addresses.h"
#include "packet/vswitch.h"

/** A set of VLANs: bit i of word i/64. */
struct vlan_set {
	uint64_t word[64];
};

static inline bool vlan_has(const struct vlan_set *set, uint16_t vlan)
{
	return set->word[vlan >> 6] >> (vlan & 63) & 1;
}

/** "all", "10,20-29" into @set. 0 or -EINVAL. */
int vlans_parse(const char *text, struct vlan_set *set);

/** One item of a list of texts joined by commas. */
struct item {
	const char *text;
	size_t length;
};
/** The item that begins at *@rest, which moves on; false at the end. Spaces around are left out. */
bool item_next(const char **rest, struct item *item);

/** A port as the loops see it. */
struct view_port {
	struct port *port;
	uint16_t vlan; /**< of untagged frames; 0: they are dropped */
	bool tagged;   /**< @vlans come and go with a tag */
	bool isolated, learning, unknown, up;
	bool sink;            /**< a mirror: sends nothing into the switch, is sent copies only */
	uint32_t addresses;   /**< most that are learned */
	uint32_t flood_limit; /**< frames a second; 0: none */
	unsigned mirror_count;
	uint16_t
		*mirrors; /**< indexes of ports that are sent a copy of what goes in and out here */
	struct vlan_set vlans;
};

/** Immutable: all ports of a switch. */
struct view {
	unsigned count; /**< places, by port index; NULL: nobody */
	struct view_port *port[];
};

/** A switch on one loop. */
struct vswitch_loop {
	const struct view *view;
	struct lane *touched; /**< lanes with packets in @out, last first */
};

struct vswitch {
	char *name;
	struct vswitch_config config;
	struct packet_loops *loops;
	struct addresses *addresses;
	struct port *port[VSWITCH_PORTS]; /**< control thread */
	bool leaving[VSWITCH_PORTS];      /**< some loop may still know the port that was there */
	unsigned count;                   /**< places ever used */
	struct view *view;                /**< the newest; control thread */
	struct vswitch_loop loop[];       /**< one for each loop */
};

/* --- packet_layer.c ------------------------------------------------------------------- */

/** Closes and frees a layer that no loop knows. */
void packet_layer_end(struct packet_layer *layer);

/* --- forward.c ------------------------------------------------------------------------ */

/** Where the packets of @batch go that came in at @lane; they are borrowed. */
void vswitch_forward(struct lane *lane, struct packet_batch *batch);

/** Copies of what goes out at @lane, for mirrors. */
void vswitch_mirror_out(struct lane *lane, const struct packet_batch *batch);

/* --- round.c -------------------------------------------------------------------------- */

/**
 * Something to be done on all loops: on_loop on each, then done on the control loop, which frees
 * it. In the order of starting: no loop does the second before the first.
 */
struct round {
	void (*on_loop)(struct round *round, unsigned index);
	void (*done)(struct round *round);
	struct packet_loops *loops;
	unsigned waiting;
	struct step {
		struct loop_message message;
		struct round *round;
		unsigned index;
		bool back;
	} * steps;
};

/** Prepares @round, zeroed. 0 or -ENOMEM. */
int round_init(struct round *round, struct packet_loops *loops,
	       void (*on_loop)(struct round *round, unsigned index),
	       void (*done)(struct round *round));
void round_start(struct round *round);
/** Frees what round_init() made. */
void round_release(struct round *round);

/* --- vswitch.c ------------------------------------------------------------------------ */

/** A new view on its way to all loops. */
struct view_round {
	struct round round;
	struct vswitch *vswitch;
	struct view *view, *old;
	uint32_t *mtu; /**< of each port */
	void (*on_loop)(void *data, unsigned index);
	void (*done)(void *data);
	void *data;
};

/** Prepares one of the ports as they are now configured. NULL if memory is short. */
struct view_round *view_round_create(struct vswitch *vswitch);
/** Sends it off: @on_loop(@data, index) on each loop when it has the view, then @done(@data) on the
 * control loop; either may be NULL. It frees itself. */
void view_round_start(struct view_round *change, void (*on_loop)(void *data, unsigned index),
		      void (*done)(void *data), void *data);
/** Frees one, and the view before it; or, if it was not started (@unused), its own. */
void view_round_free(struct view_round *change, bool unused);
