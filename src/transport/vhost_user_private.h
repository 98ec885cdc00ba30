/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_private.h - what the files of the vhost-user transport share
 *
 *   vhost_user.c         the server: connections, dispatch of messages, negotiation
 *   vhost_user_message.c a message on a socket, with its descriptors
 *   vhost_user_vring.c   rings: what the VMM says of them, their start and stop
 *   vhost_user_memory.c  the table of guest memory, and the inflight regions
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "frontend/virtio/device.h"
#include "frontend/virtio/virtqueue.h"
#include "loop/loop.h"
#include "transport/descriptors.h"
#include "transport/vhost_user_protocol.h"
#include "util/error.h"
#include "util/log.h"

/** A message as it comes in, and the reply to it. */
struct message {
	struct vhost_user_header header;
	union vhost_user_payload payload;
	unsigned got; /**< bytes of header and payload so far */
	struct descriptors fds;
	uint32_t reply_size; /**< bytes of the payload to reply with */
	int reply_fd;        /**< goes with the reply; -1: none */
};

/** Reads on: 1 if @m is whole, 0 if there is no more now, negative at the end or an error. */
int message_receive(int socket, struct message *m, struct error *err);

/** Sends @m back as a reply, with reply_size and reply_fd. 0 or -errno. */
int message_reply(int socket, struct message *m);

/** Sends a request without payload that wants no reply. 0 or -errno. */
int message_request(int socket, uint32_t request);

/** Closes what was not taken, and makes @m ready for the next one. */
void message_clear(struct message *m);

/** One ring, as the VMM has described it so far. */
struct vu_ring {
	uint32_t size;
	bool addressed;                       /**< SET_VRING_ADDR came */
	uint64_t descriptors, driver, device; /**< addresses in the VMM */
	uint32_t base;
	int kick_fd, call_fd, err_fd; /**< -1: none */
	bool kicked;                  /**< SET_VRING_KICK came: the ring is started */
	bool enabled;
	struct virtqueue *vq; /**< in service, or stopping; else NULL */
	bool stopping;
};

struct vhost_user {
	struct virtio_device *dev;
	struct loop *control;
	struct loop *const *loops;
	unsigned loop_count, first_loop;
	int listen_fd;
	struct loop_watch *listen_watch;
	struct log_limit refusals;

	/* the connection */
	int fd; /**< -1: none */
	struct loop_watch *watch;
	struct message message;
	bool waiting;      /**< for rings to stop, before the message is handled */
	bool leaving;      /**< for rings to stop, before the connection is forgotten */
	unsigned stopping; /**< rings that are */
	uint64_t features, protocol_features;
	uint8_t status;
	int backend_fd; /**< for our own requests; -1: none */
	struct memory *memory;
	struct vu_ring ring[DEVICE_QUEUES];
	struct inflight_map {
		char *base; /**< NULL: none */
		uint64_t size, stride;
		unsigned queues, queue_size;
		atomic_bool broken;
		int guard;
	} inflight;

	void (*closed)(void *data);
	void *closed_data;
};

/* --- vhost_user.c ------------------------------------------------------------------- */

/** A ring has stopped: goes on with whatever waited for that. */
void vhost_user_ring_stopped(struct vhost_user *vu);

/** The device is out of service, for @reason; until it is reset. */
void vhost_user_break(struct vhost_user *vu, const char *reason);

/** Bit @feature of the protocol features was negotiated. */
static inline bool vhost_user_has(const struct vhost_user *vu, unsigned feature)
{
	return vu->protocol_features >> feature & 1;
}

/* --- vhost_user_vring.c ------------------------------------------------------------- */

void vu_ring_init(struct vu_ring *ring);

/** Forgets all that the VMM said; it must not be in service. */
void vu_ring_reset(struct vu_ring *ring);

/** Forgets it for a reset of the device: all but where interrupts and errors go. */
void vu_ring_forget(struct vu_ring *ring);

/** Starts every ring that is ready and not in service. */
void vrings_start(struct vhost_user *vu);

/** Stops ring @index, or all (-1), if in service; vhost_user_ring_stopped() tells of each. */
void vrings_stop(struct vhost_user *vu, int index);

int vring_set_num(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_addr(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_base(struct vhost_user *vu, struct message *m, struct error *err);
int vring_get_base(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_kick(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_call(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_err(struct vhost_user *vu, struct message *m, struct error *err);
int vring_set_enable(struct vhost_user *vu, struct message *m, struct error *err);

/* --- vhost_user_memory.c ------------------------------------------------------------ */

int memory_set_table(struct vhost_user *vu, struct message *m, struct error *err);
int memory_get_max_slots(struct vhost_user *vu, struct message *m, struct error *err);
int memory_add_slot(struct vhost_user *vu, struct message *m, struct error *err);
int memory_remove_slot(struct vhost_user *vu, struct message *m, struct error *err);

int inflight_get(struct vhost_user *vu, struct message *m, struct error *err);
int inflight_set(struct vhost_user *vu, struct message *m, struct error *err);

/** The region of queue @index of @size entries, or NULL. */
void *inflight_region(struct vhost_user *vu, unsigned index, unsigned size);

/** Nothing that is recorded holds any more: for one queue, or all (-1). */
void inflight_forget(struct vhost_user *vu, int index);

/** Records what the driver set in config space. */
void inflight_save_state(struct vhost_user *vu);

void inflight_release(struct vhost_user *vu);
