/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_private.h - what the files of the virtio network device share
 *
 *   net.c          the device: features, config space, its row, its port; what the VMM asks of it
 *   net_rules.c    what the driver wants to receive: commands, and the filter
 *   net_place.c    the device on one loop: which receive queue a packet goes to
 *   net_transmit.c transmit queues: from a guest's ring into the switch
 *   net_receive.c  receive queues: from the switch into a guest's ring
 *   net_control.c  the control queue
 *
 * Queues 2i (receive) and 2i + 1 (transmit) are pair i, on one loop. The control queue comes behind
 * the last pair that the driver knows of: behind the first, if it has not negotiated MQ.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "frontend/virtio/device.h"
#include "frontend/virtio/net_rules.h"
#include "frontend/virtio/virtqueue.h"
#include "packet/port.h"

/** Most pairs: with the control queue they are DEVICE_QUEUES at most. */
#define NET_PAIRS 15u

/* virtio 1.2, 5.1.3; this system's headers are older. */
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO   56

/** What CTRL_GUEST_OFFLOADS can switch (5.1.6.5.7): features of these bits. */
#define NET_GUEST_OFFLOADS                                                                         \
	(1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 |                       \
	 1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN |                        \
	 1ull << NET_F_GUEST_USO4 | 1ull << NET_F_GUEST_USO6)

struct net;
struct net_control;
struct net_receive;

/** The device on one loop; that loop's thread only, but while no queue is in service. */
struct net_place {
	_Alignas(64) struct net *net;
	struct lane *lane; /**< of its port */
	struct net_rules rules;
	unsigned count;                         /**< receive queues in service here */
	unsigned active;                        /**< so many of them, the first ones, are used */
	struct net_receive *receive[NET_PAIRS]; /**< in the order of pairs */
	struct loop_message message;            /**< net_control.c's: other rules, and back */
	struct net_control *control;            /**< who sent it */
};

/** The device. */
struct net {
	struct virtio_device dev;
	struct port *port;
	unsigned pairs;
	uint8_t factory_mac[6]; /**< what the user says */
	_Atomic uint64_t mac;   /**< what the driver has set, for config space */
	atomic_bool announce;   /**< the driver is asked to tell the network where it is */
	uint64_t features;      /**< negotiated; control thread */
	struct net_rules rules; /**< the control queue's, while it is in service */
	struct loop *control;   /**< where the control side runs */
	_Atomic unsigned home;  /**< index of the loop of the first pair */
	atomic_bool went_on;    /**< a ring went on where another process left it */
	struct loop_message went_on_message;
	unsigned errands; /**< frames of ours under way; control thread */
	bool leaving;     /**< destroyed, once those are back */
	unsigned place_count;
	struct net_place places[]; /**< one for each loop */
};

static inline struct net *net_of(struct virtio_device *dev)
{
	return (struct net *)((char *)dev - offsetof(struct net, dev));
}

/** Bytes of struct virtio_net_hdr as this driver knows it (5.1.6.1). */
static inline unsigned net_header_size(uint64_t features)
{
	return features & (1ull << 32 /* VIRTIO_F_VERSION_1 */ | 1ull << 15 /* MRG_RXBUF */) ? 12
											     : 10;
}

/* --- net_place.c -------------------------------------------------------------------- */

/** The place on the loop of @vq. */
struct net_place *net_place_of(struct net *net, const struct virtqueue *vq);

/** A receive queue comes into service, or goes out of it. */
void net_place_add(struct net_place *place, struct net_receive *receive);
void net_place_remove(struct net_place *place, struct net_receive *receive);

/** Other rules from now on. */
void net_place_set_rules(struct net_place *place, const struct net_rules *rules);

/** The port's: sends @batch into the receive queues of this loop. */
void net_place_transmit(struct lane *lane, struct packet_batch *batch);

/* --- queues ------------------------------------------------------------------------- */

int net_transmit_start(struct net *net, struct virtqueue *vq);
void net_transmit_stop(struct virtqueue *vq);
bool net_transmit_poll(struct virtqueue *vq);

int net_receive_start(struct net *net, struct virtqueue *vq);
void net_receive_stop(struct virtqueue *vq);
bool net_receive_poll(struct virtqueue *vq);
/** The pair that it belongs to. */
unsigned net_receive_pair(const struct net_receive *receive);
/** Writes the live packets of @batch into its ring; those that do not fit are dropped. */
void net_receive_batch(struct net_receive *receive, struct lane *lane, struct packet_batch *batch);

int net_control_start(struct net *net, struct virtqueue *vq);
void net_control_stop(struct virtqueue *vq);
bool net_control_poll(struct virtqueue *vq);
