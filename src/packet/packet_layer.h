/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet_layer.h - an interposition step on the packets of a port: one file, one ops struct
 *
 * What a user says of a layer (settings, by its table of options) is compiled, on the control
 * thread, into rules that are only read from then on. Other settings while packets flow mean other
 * rules: each loop goes over to them between two batches, and the old ones are discarded when all
 * have. What a layer remembers beyond that is in the layer (all loops: its own business to share)
 * or in its place on a loop (struct layer_place: one thread, no locks).
 *
 * process() gets batches. A packet that it leaves alone passes. It drops one with layer_drop();
 * holds one with layer_hold(), which is a copy, and later sends it on with layer_pass();
 * makes new ones (packet_make) and sends them either way with layer_pass(). It may change a packet
 * after packet_own(), and then sets frame.parsed and hash to zero.
 */
#pragma once

#include "packet/port.h"

struct layer_place;
struct packet_layer;

/** Most causes of drops that a layer has names for. */
#define LAYER_CAUSES 16

/** What its option `direction` says; every layer has it. */
enum layer_direction { LAYER_IN, LAYER_OUT, LAYER_BOTH };
extern const char *const layer_directions[]; /**< "in", "out", "both", NULL: for OPTION_CHOICE */

struct packet_layer_ops {
	const char *name;             /**< as in the configuration */
	const char *summary;          /**< one line for lists */
	const char *description;      /**< paragraphs for the man page */
	const char *example;          /**< YAML of a whole configuration that uses it */
	size_t settings_size;         /**< struct layer_settings is its first member */
	const struct option *options; /**< into the settings; LAYER_OPTIONS() among them */
	const char *place_option;     /**< another value of it makes another layer, with nothing
					 remembered; or NULL */
	const char *const
		*causes;   /**< of drops, NULL-terminated; an index is what layer_drop() takes */
	size_t size;       /**< of the object; struct packet_layer is its first member */
	size_t place_size; /**< of its place on a loop; struct layer_place is its first member */

	/** Settings to rules, for a port with @facts. It may wait shortly (read a file). 0, or
	 * -errno with @err. */
	int (*compile)(const void *settings, const struct port_facts *facts, void **rules,
		       struct error *err);
	/** Frees them; no loop uses them any more. */
	void (*discard)(void *rules);
	/** The layer comes into being, before it sees any packet. May be absent. Control thread. */
	int (*open)(struct packet_layer *layer, const void *settings, struct error *err);
	/** It goes: no loop knows it any more. May be absent. */
	void (*close)(struct packet_layer *layer);
	/** On each loop, before the first packet; @place is zeroed but for its head. May be absent.
	 * It cannot fail. */
	void (*arrive)(struct layer_place *place);
	/** On each loop, after the last packet: sends on, or drops, what it holds; cancels its
	 * timers. May be absent. */
	void (*leave)(struct layer_place *place);
	/** Its loop now has @place->rules in place of @old. Packets held stay. May be absent. */
	void (*changed)(struct layer_place *place, const void *old);
	/** Judges the live packets of @batch. */
	void (*process)(struct layer_place *place, enum packet_direction direction,
			struct packet_batch *batch);
	/** What there is to say of its state, for status and the API; a new object, or NULL.
	 * Control thread. May be absent. */
	struct json_t *(*report)(struct packet_layer *layer);
};

/** The settings that all layers have. */
struct layer_settings {
	int direction; /**< enum layer_direction */
};

/** The row that all tables of options have, @fallback is "in", "out" or "both". */
#define LAYER_DIRECTION(fallback_)                                                                 \
	{                                                                                          \
		.name = "direction", .type = OPTION_CHOICE,                                        \
		.offset = offsetof(struct layer_settings, direction), .choices = layer_directions, \
		.fallback = fallback_,                                                             \
		.help = "Which packets it sees: those that come in from what is plugged into the " \
			"port (the guest), those that go out to it, or both."                      \
	}

/** Counters of a layer on one loop; its thread writes, anybody reads. */
struct layer_stats {
	struct {
		stats_counter seen; /**< packets that came to it */
		stats_counter drops[LAYER_CAUSES];
		stats_counter held, made; /**< layer_hold(); layer_pass() of others */
	} direction[PACKET_DIRECTIONS];
};

/** A layer on one loop. */
struct layer_place {
	struct packet_layer *layer;
	struct lane *lane; /**< the port's on this loop: its loop, its pool */
	unsigned step;     /**< its position in lane->chain, kept right when layers change */
	const void *rules; /**< as of now on this loop */
	bool left;         /**< leave() was called: it sees no packets any more */
	struct layer_stats stats;
};

/** One layer of one port. */
struct packet_layer {
	const struct packet_layer_ops *ops;
	const char *port; /**< its port's name, for messages */
	struct port_facts facts;
	void *settings;                 /**< as its user wrote them; control thread */
	void *rules;                    /**< of @settings; control thread */
	enum layer_direction direction; /**< control thread */
	struct layer_place **places;    /**< one for each loop */
	unsigned place_count;
};

/** What a user wants at one place of a port's list of layers. */
struct packet_layer_config {
	const struct packet_layer_ops *ops;
	void *settings; /**< of settings_size, owned */
};

/** Drops packet @i of @batch, for cause @cause (an index into ops->causes). */
static inline void layer_drop(struct layer_place *place, enum packet_direction direction,
			      unsigned cause, struct packet_batch *batch, unsigned i)
{
	stats_add(&place->stats.direction[direction].drops[cause], 1);
	batch_take(batch, i);
}

/**
 * Takes packet @i out of @batch to hold it: a copy in the pool, which the caller owns until it
 * gives it to layer_pass() or burst_put(copy->burst)s it. NULL if the pool is full: the packet
 * stays in the batch.
 */
struct packet *layer_hold(struct layer_place *place, enum packet_direction direction,
			  struct packet_batch *batch, unsigned i);

/**
 * Sends a packet on from behind the layer in @direction, as if it had passed: one that was held, or
 * that the layer made (for the sender: the other direction). Takes over the caller's reference.
 * From process(), a timer or a watch of the loop, on its thread. Sent at the latest at the end of
 * this turn of the loop.
 */
void layer_pass(struct layer_place *place, enum packet_direction direction, struct packet *packet);

/** All kinds, ended by NULL. */
extern const struct packet_layer_ops *const packet_layer_registry[];

/** The kind called @name, or NULL. */
const struct packet_layer_ops *packet_layer_find(const char *name);

/**
 * Gives @port the layers of @configs, first next to the device; takes their settings over, frees
 * them on failure. Layers that stay the same (kind, place_option; in order) stay, with other rules
 * if their settings differ. 0 or -errno with @err and nothing changed; else in force on all loops,
 * and the old ones gone, when @done(@data, 0) is called on the control loop. Before the port's
 * loops run it is done at once. One change at a time: -EBUSY.
 */
int port_set_layers(struct port *port, struct packet_layer_config *configs, unsigned count,
		    void (*done)(void *data, int status), void *data, struct error *err);
