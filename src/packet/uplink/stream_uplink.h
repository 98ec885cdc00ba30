/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream_uplink.h - an uplink that has one other side, which it reaches by a stream socket, and
 * which comes and goes: passt, another daemon
 *
 * The control thread makes connections (it may fork, listen, look up paths) and the home loop uses
 * them:
 *
 *     home     control
 *       --wanting-->          there is no connection, and why the last one ended
 *                             dial(); if that fails again later, with back-off
 *       <--fresh--            a socket; the stream begins, the lane is up
 *          ...
 *       --leaving-->          the uplink was stopped, all bursts are released
 *       <--left--             nothing fresh will come any more
 */
#pragma once

#include "packet/uplink.h"
#include "packet/uplink/stream.h"

struct stream_uplink;

/** What a kind adds. */
struct stream_uplink_ops {
	/** A connected non-blocking socket; or -EAGAIN: stream_uplink_connected() will come; or
	 * -errno with @err: try again later. Control thread. */
	int (*dial)(struct stream_uplink *u, struct error *err);
	/** The connection is over; @why can be made better. May be absent. Control thread. */
	void (*over)(struct stream_uplink *u, char *why, size_t size);
	/** What to say first, into @to of STREAM_GREETING bytes: how many. May be absent. Home. */
	size_t (*greeting)(struct stream_uplink *u, void *to);
	/** OFFLOAD_ that the other side takes, once it is there. Home. */
	unsigned (*accepts)(struct stream_uplink *u);
	const struct stream_framing *framing;
};

struct stream_uplink {
	struct uplink uplink; /* first */
	struct stream stream;
	const struct stream_uplink_ops *ops;

	/* The control thread's. */
	struct loop_timer retry;
	unsigned failures;
	uint64_t since; /* ns; when home was given a connection */
	bool wanted;    /* home has none */
	bool given;     /* home has one */
	bool ended;     /* home wants none any more */
	int fd;         /* made, and not yet given; or -1 */
	char why[480];  /* there is none; for status */

	/* Home's. */
	bool up, stopping;
	struct loop_timer patience; /* for the greeting */

	/* Each travels in one direction; written before it is sent. */
	struct loop_message wanting, fresh, leaving, left;
	char lost[480]; /* with wanting */
	int fresh_fd;
	_Atomic uint64_t connections;
};

/** Prepares @u, of which struct uplink is filled in. From ops->open. */
void stream_uplink_init(struct stream_uplink *u, const struct stream_uplink_ops *ops);

/** From dial's owner: here is a connection (@fd), or, if there cannot be one (<0) @why. Control
 * thread. */
void stream_uplink_connected(struct stream_uplink *u, int fd, const char *why);

/** True if home has asked for a connection before; until then there is none to be had. Control
 * thread. */
static inline bool stream_uplink_began(const struct stream_uplink *u)
{
	return u->wanted || u->given;
}

/** True if a connection would be used now. Control thread. */
bool stream_uplink_wants(const struct stream_uplink *u);

/** For ops->close. */
void stream_uplink_close(struct stream_uplink *u);

/* uplink_ops.start, .stop, port_ops.transmit, .report */
void stream_uplink_start(struct uplink *uplink);
void stream_uplink_stop(struct uplink *uplink);
void stream_uplink_transmit(struct lane *lane, struct packet_batch *batch);
struct json_t *stream_uplink_report(struct port *port);
