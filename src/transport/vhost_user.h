/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost_user.h - serves a virtio device to a VMM on a UNIX socket; see vhost_user.c */
#pragma once

struct error;
struct loop;
struct vhost_user;
struct virtio_device;

/**
 * Listens on @path (an abandoned socket there is replaced, a live one refused), for one VMM at a
 * time, on the control loop. Queues go to the @count loops in turn, beginning with loops[@first].
 */
struct vhost_user *vhost_user_listen(const char *path, struct virtio_device *device,
				     struct loop *control, struct loop *const *loops,
				     unsigned count, unsigned first, struct error *err);

/**
 * Ends it: takes nothing more from the rings, waits for what is in flight, disconnects, removes the
 * socket, then calls @done(@data) on the control loop, from when on the device may be destroyed.
 * The VMM may reconnect to a new server.
 */
void vhost_user_close(struct vhost_user *vu, void (*done)(void *data), void *data);
