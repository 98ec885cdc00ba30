/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtqueue.h - the device's side of one virtqueue (virtio 1.2, sections 2.6 to 2.8)
 *
 * A device type pops chains of descriptors, checked and gathered into iovecs, and pushes
 * them back in any order; a batch of pushes becomes visible, with at most one interrupt, by
 * virtqueue_flush(). The formats, split and packed, are behind struct ring_ops.
 *
 * Life. The transport makes a virtqueue on the control thread from what the VMM said
 * (struct virtqueue_setup), and starts and stops it by messages to its loop. Stopping waits
 * until everything popped has been pushed back.
 *
 * A guest that lies breaks its device: virtqueue_break() logs the reason, takes nothing
 * more from the ring, and tells the transport.
 *
 * Crash safety: with an inflight region (vhost-user, "Inflight I/O tracking") each pop and
 * push is recorded in memory that outlives this process. After a restart what had been popped
 * and not pushed is popped again, in the old order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "frontend/virtio/inflight.h"
#include "io/stats.h"
#include "loop/loop.h"

struct memory;
struct virtio_device;
struct virtqueue;

#define VIRTQUEUE_SIZE 1024 /**< most entries */

/** A chain of descriptors: one request of the driver. */
struct chain {
	uint16_t id;       /**< split: head descriptor; packed: buffer id */
	uint16_t slots;    /**< packed: ring entries it takes */
	uint16_t record;   /**< packed: first entry in the inflight region */
	uint16_t readable; /**< iovecs that the device reads: the first ones */
	uint16_t writable; /**< iovecs that the device writes: those after them */
	bool more;         /**< when pushed: the driver sees it and the next one at one instant */
	uint64_t read_bytes, write_bytes;
};

/** Where a ring is and how it is to be treated; from the transport. */
struct virtqueue_setup {
	uint16_t size;     /**< entries; split: a power of two */
	uint64_t features; /**< negotiated */
	void *descriptors; /**< split: descriptor table; packed: ring */
	void *driver;      /**< split: available ring; packed: driver event suppression */
	void *device;      /**< split: used ring; packed: device event suppression */
	uint32_t base;     /**< split: next available index; packed: both, with wrap bits */
	void *inflight;    /**< region of this queue, or NULL */
	const atomic_bool *inflight_broken; /**< the region was truncated; NULL with it */
	struct memory *memory;              /**< the virtqueue takes over this hold */
	int kick_fd, call_fd, err_fd;       /**< taken over; -1: none */
};

struct ring_ops {
	/** Reads where the driver is; recovers from the inflight region. 0, or -EINVAL after
	 * virtqueue_break(). */
	int (*start)(struct virtqueue *vq);
	int (*pop)(struct virtqueue *vq, struct chain *chain, struct iovec *vec, unsigned room);
	/** Takes the last pop back; it gave @chain. Never with an inflight region. */
	void (*unpop)(struct virtqueue *vq, const struct chain *chain);
	void (*push)(struct virtqueue *vq, const struct chain *chain, uint32_t written);
	/** Makes what was pushed visible; true if the driver wants an interrupt for it. */
	bool (*publish)(struct virtqueue *vq);
	/** Asks for a notification; true if something is available now. */
	bool (*arm)(struct virtqueue *vq);
	void (*disarm)(struct virtqueue *vq);
	/** The base to start from next time, as in struct virtqueue_setup. */
	uint32_t (*base)(const struct virtqueue *vq);
};

struct virtqueue {
	struct loop_poller poller;
	const struct ring_ops *ring;
	struct virtio_device *dev;
	struct loop *loop;
	struct loop *control;
	struct queue_stats *stats;
	void *type; /**< the device type's part */
	struct virtqueue_setup setup;
	struct memory *memory;
	unsigned index; /**< of the queue in its device */
	uint16_t size;
	bool event_idx, indirect;
	bool running, broken, armed;
	bool pinned;      /**< its memory is registered with the loop */
	unsigned level;   /**< how many requests the driver keeps in flight, lately at most */
	bool interrupted; /**< the driver wanted an interrupt for the last batch */
	/** The type's: what the driver makes available is taken when there is a use for it, so it
	 * need not notify. */
	bool on_demand;
	bool in_order; /**< the type gives chains back in the order in which it popped them */

	uint16_t next_avail;        /**< split: free-running; packed: slot */
	uint16_t seen_avail;        /**< split: the driver's index as last read */
	uint16_t next_used;         /**< split: free-running; packed: slot */
	bool avail_wrap, used_wrap; /**< packed */
	unsigned slots_out;         /**< packed: ring entries popped and not pushed */
	unsigned pending;           /**< pushed and not yet published */
	struct pushed {
		uint16_t id, slots, record;
		bool more; /* as in struct chain */
		uint32_t written;
	} * batch; /**< @size of them: the pending */

	struct again *again; /**< to be popped once more after a crash, in order */
	unsigned again_count, again_next;
	struct {
		uint16_t next, last, num;
	} * links;            /**< packed: our copy of those in the inflight region */
	uint16_t free_head;   /**< packed: first entry of its free list */
	uint64_t counter;     /**< order of popping, for the inflight region */
	unsigned faults_seen; /**< see memory_faults */

	bool stopping;             /**< takes nothing new; ends when all is given back */
	struct loop_task end_task; /**< ends it, if so */
	unsigned (*outstanding)(struct virtqueue *vq); /**< popped and not pushed; the type's */
	struct loop_watch *kick;
	struct loop_message start_message, stop_message, stopped_message, broke_message;
	/** On the control loop: it stopped, @final_base is known. The transport frees it. */
	void (*stopped)(struct virtqueue *vq);
	/** On the control loop: the guest broke it, see @reason. */
	void (*broke)(struct virtqueue *vq);
	void *transport;
	uint32_t final_base;
	char reason[160];
};

/* --- control thread ----------------------------------------------------------------- */

/** Makes a virtqueue, which takes over what @setup owns, also on failure (NULL). */
struct virtqueue *virtqueue_create(struct virtio_device *dev, unsigned index,
				   const struct virtqueue_setup *setup, struct loop *loop,
				   struct loop *control, struct queue_stats *stats);

/** Begins service, on its loop. */
void virtqueue_start(struct virtqueue *vq);

/** Ends service: when all that was popped is pushed, @stopped is called on the control loop. */
void virtqueue_stop(struct virtqueue *vq);

/** Replaces the descriptor that interrupts are sent to; takes it over. */
void virtqueue_set_call(struct virtqueue *vq, int fd);

/** Frees a stopped one. */
void virtqueue_destroy(struct virtqueue *vq);

/* --- its loop: for device types ----------------------------------------------------- */

/** Next chain: 1, or 0 if there is none, or negative if the ring is broken. */
static inline int virtqueue_pop(struct virtqueue *vq, struct chain *chain, struct iovec *vec,
				unsigned room)
{
	return vq->ring->pop(vq, chain, vec, room);
}

/** Puts @chain back, the last one that was popped and not put back, to be popped again. Not with an
 * inflight region, where it is on record. */
static inline void virtqueue_unpop(struct virtqueue *vq, const struct chain *chain)
{
	vq->ring->unpop(vq, chain);
}

/** Gives a chain back, @written bytes of it filled by the device. */
void virtqueue_push(struct virtqueue *vq, const struct chain *chain, uint32_t written);

/** Shows the driver what was pushed, and interrupts it if it wants that. */
void virtqueue_flush(struct virtqueue *vq);

/** The guest did what it must not. Returns -EINVAL. */
int virtqueue_break(struct virtqueue *vq, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* --- for the ring formats ----------------------------------------------------------- */

/** One descriptor, copied from the guest and put in one form. */
struct descriptor {
	uint64_t address;
	uint32_t length;
	bool writable;
};

/** Adds @d to @chain; 0, or negative after virtqueue_break(). */
int chain_add(struct virtqueue *vq, struct chain *chain, const struct descriptor *d,
	      struct iovec *vec, unsigned room);

/** The table of an indirect descriptor: its entries, or NULL after virtqueue_break(). */
const void *chain_table(struct virtqueue *vq, uint64_t address, uint32_t length, unsigned *entries);

extern const struct ring_ops split_ring_ops, packed_ring_ops;

/** Bytes of the inflight region of one queue of @size entries. */
uint64_t split_inflight_bytes(uint16_t size);
uint64_t packed_inflight_bytes(uint16_t size);

/** Bytes of the three areas of a ring of @size entries: virtio 1.2, 2.7 and 2.8. */
struct ring_areas {
	uint64_t descriptors, driver, device;
};
struct ring_areas split_ring_areas(uint16_t size);
struct ring_areas packed_ring_areas(uint16_t size);

/** A word that the driver, too, reads or writes. */
static inline uint16_t ring_load(const uint16_t *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static inline void ring_store(uint16_t *to, uint16_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}
