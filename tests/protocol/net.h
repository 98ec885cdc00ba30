/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.h - our own driver side of a virtio-net card (virtio 1.2, section 5.1)
 *
 * Queue 2n receives and queue 2n + 1 transmits for pair n; the control queue, where there is one,
 * is behind all pairs that the device has. All receive slots are in the ring all the time; a frame
 * that was received is copied out, and its slots go back.
 *
 * A device must complete a transmit ring in the order in which it was filled, since that is what
 * makes a restart possible without a crash record; and it must show all buffers of a merged frame
 * at once. Both are looked at all the time, and what breaks them makes every later call fail with
 * -EPROTO and net->driver->error.
 *
 * Single-threaded, like the driver below it.
 */
#pragma once

#include "driver.h"

/* Not in the headers of Linux 6.1. */
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO   56
#define NET_GSO_UDP_L4   5

enum {
	NET_HEADER = sizeof(struct virtio_net_hdr_v1),
	NET_FRAME_MAX = 65562, /* 64 KiB of IP in Ethernet with two tags, less than that */
	NET_PAIRS_MAX = 8,
	NET_BATCH = 64,
	NET_WAIT_MS = 5000,
};

struct net_options {
	const char *socket;
	unsigned pairs;      /* that are used; default 1 */
	unsigned pairs_max;  /* that the device has; default `pairs` */
	unsigned queue_size; /* default 256 */
	unsigned slots;      /* of a queue; 0: as many as fit */
	bool packed, indirect, event_idx;
	uint64_t decline;  /* features of the device not to take */
	uint64_t protocol; /* as in struct driver_options */
	uint32_t rx_bytes; /* of a receive buffer, header and all; 0: 2,048 if they are merged,
			      else what the longest frame takes */
	bool header_apart; /* the header is in a descriptor of its own */
	unsigned segments; /* descriptors of a frame; default 1 */
	bool odd;          /* cut at odd bytes */
	bool control;      /* use the control queue; must be offered */
	bool sleeping;     /* wait on the call event, not in a loop */
	bool add_regions;
};

/* A frame as it was received. */
struct net_frame {
	struct virtio_net_hdr_v1 header;
	uint32_t length;
	uint8_t bytes[NET_FRAME_MAX + 1];
};

/* One pair of queues. */
struct net_pair {
	struct virtq *rx, *tx;
	uint16_t ready[NET_BATCH]; /* received slots not looked at yet */
	unsigned ready_first, ready_count;
	uint16_t *sent; /* slots in the order of sending: a ring of tx->size */
	unsigned sent_first, sent_last;
};

struct net {
	struct net_options options;
	struct driver *driver; /* NULL: not open; else its error says what went wrong */
	bool merged;           /* MRG_RXBUF is negotiated */
	unsigned pairs;
	struct net_pair pair[NET_PAIRS_MAX];
	struct virtq *control; /* NULL: none */
	uint64_t sent, received;
	unsigned may_miss; /* so many frames may lack buffers: their device died showing them */
};

/* The driver is made, connected and started, and all receive buffers are in their rings; with more
 * than one pair and a control queue, the device is told how many are in use. 0 or -errno;
 * net_close() in any case. */
int net_open(struct net *net, const struct net_options *options);
void net_close(struct net *net);
/* Its parts: without a connection; with one; started. */
int net_new(struct net *net, const struct net_options *options);
int net_start(struct net *net);
/* After the daemon died and came back: connects again, with the rings as they are. */
int net_reconnect(struct net *net);

/* Whether a feature was negotiated. */
bool net_has(const struct net *net, unsigned bit);
/* The card's address, by its configuration space. */
const uint8_t *net_mac(const struct net *net);

/*
 * Puts a frame into a transmit ring; `header` NULL: nothing to be done to it. Waits at most
 * NET_WAIT_MS for room. The device is told by net_publish().
 */
int net_put(struct net *net, unsigned pair, const struct virtio_net_hdr_v1 *header,
	    const void *bytes, uint32_t length);
void net_publish(struct net *net, unsigned pair);
/* Both. */
int net_send(struct net *net, unsigned pair, const struct virtio_net_hdr_v1 *header,
	     const void *bytes, uint32_t length);
/* Takes back what was transmitted: how many, or -EPROTO. Never waits. */
int net_reap(struct net *net, unsigned pair);
/* Waits until all that was put has been transmitted. */
int net_drain(struct net *net, unsigned pair);

/* The next frame of a pair: 0, -ETIMEDOUT after `timeout_ms` (0: does not wait), -EPROTO. */
int net_receive(struct net *net, unsigned pair, struct net_frame *frame, int timeout_ms);
/* The next of any pair, whose number is stored. */
int net_receive_any(struct net *net, unsigned *pair, struct net_frame *frame, int timeout_ms);

/* One control command, waited for: VIRTIO_NET_OK, VIRTIO_NET_ERR, or -errno. */
int net_control(struct net *net, uint8_t class, uint8_t command, const void *data, uint32_t bytes);

/* Describes `bytes` of a slot's buffer, with `flags`, as the options say, from its header on. */
void net_format(struct net *net, struct virtq *queue, uint16_t slot, uint32_t bytes,
		uint16_t flags);
