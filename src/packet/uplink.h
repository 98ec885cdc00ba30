/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uplink.h - what connects a switch to the world: one row for each kind
 *
 * In a configuration an uplink is a name with the options of a port and one key, its kind:
 *
 *     uplinks:
 *       inet: {switch: lan, user: {forward: "8080:80"}}
 *
 * An uplink lives on one loop, its home: it reads its descriptor there (loop_watch, loop_poller: a
 * burst a turn, so that a flood starves nobody) and sends there.
 */
#pragma once

#include "packet/port.h"

struct uplink;

struct uplink_ops {
	const char *name;        /**< "tap" */
	const char *summary;     /**< one line for lists */
	const char *description; /**< paragraphs for the man page */
	const char *example;     /**< YAML of a whole configuration */
	size_t settings_size;
	const struct option *options; /**< into the settings */
	const char *file_option;      /**< the one that names a file which must be there, or NULL */
	/** What the table cannot say. 0 or -EINVAL with @err, whose text begins with the option's
	 * name. May be absent. */
	int (*check)(const void *settings, struct error *err);
	size_t size; /**< of the object; struct uplink is its first member */
	/**
	 * Opens descriptors, starts helpers; @uplink->settings are set, uplink->port is not there
	 * yet. Control thread; it may wait shortly. 0, or -errno with @err and nothing to close.
	 * May set facts.mac, facts.mtu.
	 */
	int (*open)(struct uplink *uplink, struct port_facts *facts, struct error *err);
	/** On its home: begins; calls lane_up(uplink->lane, uplink). */
	void (*start)(struct uplink *uplink);
	/** On its home: ends; calls lane_down(), takes nothing more; when all its bursts are
	 * released, it calls uplink_stopped(). */
	void (*stop)(struct uplink *uplink);
	/** Control thread, after that, or after open: closes what open opened. */
	void (*close)(struct uplink *uplink);
	struct port_ops port; /**< transmit, report; kind is @name */
};

struct uplink {
	const struct uplink_ops *ops;
	char *name;
	void *settings; /**< of settings_size, owned */
	struct port *port;
	struct lane *lane; /**< of its home loop */
	struct loop *loop; /**< its home */
	struct loop *control;
	/* uplink.c's: */
	struct loop_message start_message, stop_message, stopped_message, plugged_message;
	atomic_bool telling, is_plugged;
	_Atomic(const char *) why;
	void (*destroyed)(void *data);
	void *owner;
};

extern const struct uplink_ops *const uplink_registry[]; /**< ended by NULL */
const struct uplink_ops *uplink_find(const char *name);

/**
 * Opens one and plugs it into @vswitch; takes @config's texts and @settings over, also on failure.
 * It starts on loop @home when uplink_start() is called. Control thread. NULL with @err.
 */
struct uplink *uplink_create(const struct uplink_ops *ops, const char *name,
			     struct vswitch *vswitch, struct port_config *config, void *settings,
			     unsigned home, struct error *err);
void uplink_start(struct uplink *uplink);
/** Stops and frees it and its port; then @done(@data) on the control loop. */
void uplink_destroy(struct uplink *uplink, void (*done)(void *data), void *data);

/** For the kinds: on the home loop, when stopping is over. */
void uplink_stopped(struct uplink *uplink);
/** For the kinds, any loop: somebody is there now, or not and why (a text that stays, or NULL); for
 * status. Logged. */
void uplink_plugged(struct uplink *uplink, bool plugged, const char *why);
