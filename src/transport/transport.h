/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport.h - how a VMM reaches a device: vhost-user, vfio-user
 *
 * A front-end's row names its transport; the daemon knows no other difference between devices.
 */
#pragma once

struct device;
struct error;
struct loop;

/** Where a server may put its work. */
struct transport_loops {
	struct loop *control;
	struct loop *const *loops;
	unsigned count;
	unsigned first; /**< the one to begin with */
};

struct transport {
	const char *name;   /**< "vhost-user" */
	const char *caveat; /**< what its VMMs cannot do with a device of it, or NULL */
	/**
	 * Serves @device at the UNIX socket @device->socket (an abandoned one is replaced, a live
	 * one refused), to one VMM at a time. Control thread. NULL with @err.
	 */
	void *(*listen)(struct device *device, const struct transport_loops *loops,
			struct error *err);
	/**
	 * Ends it: takes nothing more, waits for what is in flight, disconnects, removes the
	 * socket, then calls @done(@data) on the control loop, from when on the device may be
	 * destroyed.
	 */
	void (*close)(void *server, void (*done)(void *data), void *data);
};

extern const struct transport vhost_user_transport, vfio_user_transport;
