/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet.h - a packet on its way through a switch, and the burst that it came in
 *
 * A packet is a frame in two parts. The head, its first bytes, is a private copy: it is what is
 * parsed, judged and changed, and no guest can change it after it was judged. The body, all that
 * follows, stays where its sender has it (a guest's memory, a socket's buffer) and is copied once,
 * by whoever receives it.
 *
 * A burst is up to PACKET_BURST packets that a receiver (a NIC's transmit queue, an uplink) took in
 * one go, with their heads and the iovecs of their bodies. It belongs to one loop. It is counted:
 * when nobody needs its packets any more it is released, and its receiver gives the memory back
 * to the sender. Counting is not atomic: whatever another loop borrows comes back by message
 * (crossing.h).
 *
 * A batch is what is passed on: pointers to packets, and a bit for each that is still alive. A
 * layer drops a packet by clearing its bit (packet_layer.h).
 *
 * Who wants a packet for longer than a call keeps it (packet_keep): that is a copy in a buffer of
 * the pool of the loop, so that no sender ever waits for a layer that holds packets.
 *
 * Everything here runs on one loop's thread, the one that the burst belongs to, or borrows it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

struct burst;
struct loop;

#define PACKET_BURST    64u  /**< most packets of a burst, and of a batch: bits of a word */
#define PACKET_HEAD     256u /**< most bytes of a head */
#define PACKET_FIRST    128u /**< bytes that are copied into the head at once; see packet_pull() */
#define PACKET_ROOM     32u  /**< bytes in front of the head, for tags */
#define PACKET_MAX      65562u /**< longest frame: 64 KiB of IP in Ethernet with two VLAN tags */
#define BURST_IOVECS    1024u  /**< of all bodies of a burst */
#define ETHERNET_HEADER 14u

/** What is left to be done to a packet: virtio 1.2, 5.1.6 (struct virtio_net_hdr), in host order.
 */
struct packet_offload {
	uint8_t flags;          /**< VIRTIO_NET_HDR_F_NEEDS_CSUM, _DATA_VALID */
	uint8_t gso_type;       /**< VIRTIO_NET_HDR_GSO_NONE, _TCPV4, _TCPV6, _UDP_L4, | _ECN */
	uint16_t gso_size;      /**< payload bytes of a segment */
	uint16_t header_length; /**< headers in front of the payload; offload_check() sets it right
				 */
	uint16_t csum_start;    /**< where to begin summing, from the start of the frame */
	uint16_t csum_offset;   /**< from there, where to put the sum */
};

/** Where things are in a frame; frame_parse() fills it in. Offsets are from packet.head. */
struct frame {
	bool parsed;
	uint8_t version;  /**< 4 or 6; 0: no (good) IP header */
	uint8_t protocol; /**< IPPROTO_ of what follows the IP header and extension headers */
	bool fragment;    /**< it is a fragment of an IP packet */
	bool first;       /**< and the first one, or no fragment: it has the layer 4 header */
	uint16_t type;    /**< EtherType behind all VLAN tags, host order; < 0x600: 802.3 length */
	uint16_t l3;      /**< offset of what @type says */
	uint16_t l4;      /**< offset of layer 4; 0: not (wholly) in the head, or none */
	uint16_t payload; /**< offset behind a TCP or UDP header; 0: not known */
	uint32_t end;     /**< offset behind the IP packet, by its own length field */
};

/** One packet. */
struct packet {
	uint8_t *head;        /**< the first bytes; of a frame without its outermost 802.1Q tag */
	uint16_t head_length; /**< bytes of it; at least ETHERNET_HEADER */
	uint16_t body_count;  /**< iovecs of the body */
	uint32_t length;      /**< bytes of the whole */
	const struct iovec *body; /**< the rest; where it points may change at any time */
	struct packet_offload offload;
	uint16_t tag;  /**< 802.1Q TCI (priority, VLAN id) that was in the frame, or that goes in */
	bool tagged;   /**< it came with, or shall go out with, a tag; it is not in the frame */
	bool view;     /**< others see the same frame: see packet_view(), packet_own() */
	bool given;    /**< the batch that it is in has a reference of its own to it */
	bool passing;  /**< its head and iovecs last as long as the call only: packet_keep() it */
	uint16_t port; /**< index of the port it came from */
	uint16_t vlan; /**< 1..4094: that it is switched in; 0: not classified yet */
	uint32_t hash; /**< of its flow; 0: not computed yet, see frame_hash() */
	struct frame frame;
	struct burst *burst; /**< that it lies in */
};

/** Packets that are passed on together. */
struct packet_batch {
	unsigned count;
	uint64_t live; /**< bit i: packet[i] has not been dropped or taken */
	struct packet *packet[PACKET_BURST];
};

/** Goes through the live ones: i is the index; dropping i inside is allowed. */
#define for_each_packet(batch, i)                                                                  \
	for (uint64_t live_ = (batch)->live; live_ && ((i) = (unsigned)__builtin_ctzll(live_), 1); \
	     live_ &= live_ - 1)

static inline void batch_init(struct packet_batch *batch)
{
	batch->count = 0;
	batch->live = 0;
}

/** Appends @packet; the batch must not be full (count == PACKET_BURST). */
static inline void batch_add(struct packet_batch *batch, struct packet *packet)
{
	batch->live |= 1ull << batch->count;
	batch->packet[batch->count++] = packet;
}

/** Takes packet @i out of the batch, whatever becomes of it. */
static inline void batch_take(struct packet_batch *batch, unsigned i)
{
	batch->live &= ~(1ull << i);
}

/** The heads of a burst's packets; a head moves on by up to PACKET_ROOM bytes when a tag is taken
 * off. */
typedef uint8_t packet_head[PACKET_ROOM + PACKET_HEAD + PACKET_ROOM];

/** Packets received together. Made by burst_create(); its receiver keeps a few and uses them again.
 */
struct burst {
	unsigned refs;   /**< users, on its own loop; 1 while it is being received */
	unsigned count;  /**< packets */
	unsigned iovecs; /**< of @vec, used */
	void (*release)(struct burst *burst); /**< nobody uses it any more */
	void *owner;                          /**< the receiver's */
	/**
	 * The pool of its loop, if the receiver does not mind that its packets are held for some
	 * milliseconds (it reads no further then, which holds back whoever sends); else NULL. See
	 * packet_retain().
	 */
	struct packet_pool *patient;
	struct burst *next;     /**< the receiver's: lists of them */
	struct packet *packets; /**< PACKET_BURST of them */
	struct iovec *vec;      /**< BURST_IOVECS of them */
	packet_head *heads;
};

/** A burst, empty, refs 0. NULL if memory is short. Any thread. */
struct burst *burst_create(void (*release)(struct burst *burst), void *owner);
void burst_free(struct burst *burst);

/** Begins to receive into @burst, which nobody uses: refs becomes 1. */
static inline void burst_begin(struct burst *burst)
{
	burst->refs = 1;
	burst->count = burst->iovecs = 0;
}

/** iovecs that are free at burst_vec(); a receiver fills them and then calls burst_add(). */
static inline unsigned burst_room(const struct burst *burst)
{
	return BURST_IOVECS - burst->iovecs;
}

static inline struct iovec *burst_vec(struct burst *burst)
{
	return &burst->vec[burst->iovecs];
}

/**
 * Adds the frame of @length bytes that lies in @count iovecs at burst_vec(), from byte @skip on
 * (a virtio_net_hdr stands in front of it). Its first bytes are copied into its head; the iovecs
 * become its body. NULL, and nothing added, if the frame is shorter than an Ethernet header, or
 * longer than PACKET_MAX, or the iovecs hold less. The burst must have room (count < PACKET_BURST).
 * The packet's offload is zero.
 */
struct packet *burst_add(struct burst *burst, unsigned count, uint32_t skip, uint32_t length);

static inline void burst_hold(struct burst *burst)
{
	burst->refs++;
}

static inline void burst_put(struct burst *burst)
{
	if (!--burst->refs)
		burst->release(burst);
}

/**
 * Makes at least @length bytes (at most PACKET_HEAD) of the frame stand in the head. False if the
 * frame is shorter. Offsets stay what they are.
 */
bool packet_pull(struct packet *packet, unsigned length);

/** Copies @length bytes from @offset of the frame to @to. They must be there. */
void packet_copy_out(const struct packet *packet, uint32_t offset, void *to, uint32_t length);

/* --- the pool of a loop --------------------------------------------------------------- */

/** Where packets that are kept, made or changed have their memory. One a loop. */
struct packet_pool;

/** A pool of at most @bytes, allocated as they are used and then used again. NULL if memory is
 * short. */
struct packet_pool *packet_pool_create(size_t bytes);
/** All that was taken from it must have been put back. */
void packet_pool_free(struct packet_pool *pool);

/**
 * A copy of @packet, all of it in the pool's memory, with a burst of its own that holds one
 * reference, the caller's (burst_put(copy->burst) when done). Its head can be written. NULL if the
 * pool is full.
 */
struct packet *packet_keep(struct packet_pool *pool, const struct packet *packet);

/** The same, empty: @length bytes, contiguous from copy->head on (head_length covers at most
 * PACKET_HEAD; the body, if any, follows in memory). The offload and frame are zero. For packets
 * that a layer makes. */
struct packet *packet_make(struct packet_pool *pool, uint32_t length);

/**
 * Another struct packet for the same frame: it shares head and body with @packet and holds its
 * burst. For one frame that goes to several ports. The head is pulled as far as it goes, so that
 * nobody changes the iovecs any more. NULL if the pool is full.
 */
struct packet *packet_view(struct packet_pool *pool, struct packet *packet);
/** Ends it, on the loop of its pool. */
void packet_view_put(struct packet *view);

/** Makes the head one that may be written: a view gets a copy, once. */
void packet_own(struct packet *packet);

/**
 * @packet for later, for whoever is to send it and cannot now: a view if its burst is patient and
 * of this loop, else a copy. The caller's, until packet_release(). NULL if the pool is full.
 */
struct packet *packet_retain(struct packet_pool *pool, struct packet *packet);

/** Lets go of a view, or of a packet with a reference of its own (given); of others nothing. On its
 * loop. */
void packet_release(struct packet *packet);
