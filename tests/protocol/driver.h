/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * driver.h - our own driver side: a vhost-user front-end with a virtio-blk, virtio-scsi or
 * virtio-net driver on it
 *
 * A driver is a guest without a VM: memory of its own (memfds, several regions), virtqueues in it,
 * and a connection to the daemon. Three layers, each usable alone:
 *
 *   driver_*   the device: connect and negotiate, start and stop its rings, configuration, memory
 *   virtq_*    one ring, split or packed: slots pushed, published, reaped; or raw descriptors
 *   blk_*      virtio-blk requests, one at a time and waited for
 *   scsi_*     virtio-scsi requests, likewise: scsi_driver.h
 *   net_*      a virtio-net card that sends and receives frames: net.h
 *
 * Every queue owns a fixed number of slots. A slot is room for one request: header, status byte,
 * data buffer and descriptors, all placed when the driver is made. So a request costs no
 * allocation, a slot's number is the request's name in the ring, and a completion for a slot that
 * is not in flight is seen at once (virtq_reap() then fails and says why in driver->error).
 *
 * Single-threaded: one thread at a time uses a driver. Errors are -errno, as vhost_user_client.h
 * says.
 */
#pragma once

#include "vhost_user_client.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_scsi.h>

#define FEATURE(bit) (1ull << (bit))

enum {
	DRIVER_REGIONS_MAX = 32,
	DRIVER_WAIT_MS = 10000, /* the longest wait for one request */
	SEGMENTS_MAX = 126,
};

/* Device status bits, virtio 1.2 section 2.1. */
enum {
	STATUS_ACKNOWLEDGE = 1,
	STATUS_DRIVER = 2,
	STATUS_DRIVER_OK = 4,
	STATUS_FEATURES_OK = 8,
	STATUS_NEEDS_RESET = 64,
};

/* One piece of guest memory, as the daemon is told of it. */
struct region {
	uint64_t guest;  /* guest address */
	uint64_t size;   /* bytes */
	uint64_t offset; /* where it begins in fd */
	int fd;          /* owned */
	uint8_t *host;   /* our mapping; its address is also the protocol's "user address" */
};

/* One part of a request's buffer list, as descriptors will describe it. */
struct piece {
	uint64_t address; /* guest address */
	uint32_t length;  /* bytes */
	uint16_t flags;   /* VRING_DESC_F_WRITE or 0; lies may set more */
	uint16_t next;    /* split rings, lies only: the index to put where not the natural one */
};

struct slot {
	union {
		struct virtio_blk_outhdr *header;
		struct virtio_scsi_cmd_req *command;
		struct virtio_scsi_ctrl_tmf_req *task;
		struct virtio_scsi_ctrl_an_req *notifications;
	};
	union {
		struct virtio_scsi_cmd_resp *response;
		struct virtio_scsi_ctrl_an_resp *actual;
		struct virtio_scsi_event *event;
	};
	volatile uint8_t *status;                        /* scsi: the response byte of @response */
	uint8_t *data;                                   /* slot_bytes */
	uint64_t header_guest, status_guest, data_guest; /* scsi: status_guest is @response's */
	void *table;                                     /* indirect table */
	uint64_t table_guest;
	struct piece *piece; /* what the request is made of */
	uint16_t pieces;
	bool busy;       /* pushed, not reaped */
	uint32_t length; /* data bytes of the request */
	uint32_t used;   /* bytes the device says it wrote */
	uint64_t time;   /* free for the caller */
	uint64_t sector; /* of the request */
	uint32_t type;
};

struct virtq {
	struct driver *driver;
	unsigned index;
	uint16_t size;
	bool packed, indirect, event_idx;
	int kick, call, err;

	struct slot *slot;
	uint16_t slots; /* requests the queue has room for */
	uint16_t chain; /* split, direct: descriptors a slot owns */
	uint16_t *free; /* stack of free slots */
	uint16_t free_count;
	uint16_t ring_free; /* packed: ring entries not in use */

	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_next; /* the next available index (packed: ring position) */
	uint16_t published;  /* as of the last virtq_publish() */
	uint16_t last_used;  /* the next used index (packed: ring position) to look at */

	struct vring_packed_desc *ring;
	struct vring_packed_desc_event *driver_event, *device_event;
	bool avail_wrap, used_wrap;
	uint16_t added; /* packed: entries since the last publish */

	uint32_t base;  /* what SET_VRING_BASE will say at the next start */
	uint64_t kicks; /* sent */
};

struct driver_options {
	const char *socket;
	uint64_t features;   /* ring features to take; must be offered: RING_PACKED, INDIRECT_DESC,
				EVENT_IDX */
	uint64_t decline;    /* features of the device not to take */
	uint64_t protocol;   /* protocol features to take where offered; 0: all */
	unsigned queues;     /* default 1 */
	unsigned queue_size; /* default 128 */
	unsigned slots;      /* requests a queue can hold; 0: as many as fit the ring */
	unsigned segments;   /* most data segments a request has; default 1 */
	uint32_t slot_bytes; /* data buffer of a slot; default 64 KiB */
	bool add_regions;    /* ADD_MEM_REG one by one in place of SET_MEM_TABLE */
	bool inflight;       /* use an inflight region; must be offered */
	bool scsi;           /* slots are for virtio-scsi; queues 0 and 1 are control and events */
	bool net;            /* the device is a virtio-net card; see net.h */
};

struct driver {
	struct driver_options options;
	struct vu_client vu;
	struct region region[DRIVER_REGIONS_MAX];
	unsigned regions;
	unsigned rings_region, slots_region; /* which regions hold those; the data is behind them */
	struct virtq *queue;
	unsigned queues;

	uint64_t offered;          /* the device's feature bits */
	uint64_t features;         /* negotiated */
	uint64_t protocol_offered; /* the same for the protocol */
	uint64_t protocol;
	uint64_t queues_max; /* of a virtio-net card: pairs of queues */
	uint64_t memory_slots;
	/* As of the last driver_read_config(). */
	union {
		struct virtio_blk_config config;
		struct virtio_net_config net_config;
	};
	int backend;     /* our end of the back-end's request channel, or -1 */
	int inflight_fd; /* kept over reconnects, or -1 */
	struct vu_inflight inflight;

	char error[200]; /* what went wrong, for people */
};

/* ---- the device (driver.c, guest_memory.c) ---- */

/* Makes a driver with its memory and rings; connects to nobody. NULL when out of memory. */
struct driver *driver_new(const struct driver_options *options);

/* Connects and negotiates features, protocol features, channel and configuration. */
int driver_connect(struct driver *driver);

/* Hands over inflight region, memory and rings and enables them; DRIVER_OK. */
int driver_start(struct driver *driver);

/* driver_new(), driver_connect(), driver_start(); *driver is NULL only when out of memory. */
int driver_open(struct driver **driver, const struct driver_options *options);

/* Stops every ring (GET_VRING_BASE) and keeps the bases for the next driver_start(). */
int driver_stop(struct driver *driver);

/* Drops the connection, keeps memory, rings and inflight region. */
void driver_disconnect(struct driver *driver);

/* Like a guest's reboot: empty rings, every slot free, base 0, no inflight region. Not connected.
 */
void driver_forget(struct driver *driver);

/* After the daemon died: rings stay as they are; their bases become what QEMU would send. */
void driver_restore_bases(struct driver *driver);

void driver_close(struct driver *driver);

/* Sets up and enables one ring at its base; part of driver_start(). */
int driver_start_queue(struct driver *driver, struct virtq *queue);
/* Stops one ring and notes its base. */
int driver_stop_queue(struct driver *driver, struct virtq *queue);

/* The memory table, as SET_MEM_TABLE or ADD_MEM_REG by the options; part of driver_start(). */
int driver_send_memory(struct driver *driver);
int driver_send_region(struct driver *driver, const struct region *region);
int driver_remove_region(struct driver *driver, const struct region *region);

/* Maps a new region of `size` bytes at guest address `guest`, locally: its number or -errno. */
int driver_add_region(struct driver *driver, uint64_t guest, uint64_t size);
/* Unmaps the region added last, locally. */
void driver_drop_region(struct driver *driver);
/* The guest address of a byte of the driver's memory; ~0 if it is not. */
uint64_t driver_guest_address(const struct driver *driver, const void *host);

/* GET_CONFIG into driver->config. */
int driver_read_config(struct driver *driver);
/* SET_CONFIG of `count` bytes. */
int driver_write_config(struct driver *driver, uint32_t offset, const void *bytes, uint32_t count);
/* Waits for a message on the back-end's channel and answers it if asked: its id or -errno. */
int driver_backend_message(struct driver *driver, int timeout_ms);

/* ---- one ring (virtq.c, ring_split.c, ring_packed.c) ---- */

/* Takes a free slot, or -EAGAIN. virtq_release() gives it back. */
int virtq_take(struct virtq *queue);
void virtq_release(struct virtq *queue, uint16_t slot);

/*
 * Describes a virtio-blk request in a slot: header, `segments` pieces of the slot's data buffer,
 * status. The descriptors are written here; a slot can then be pushed again and again. With `odd`,
 * the cuts between the segments fall on odd bytes.
 */
void virtq_format(struct virtq *queue, uint16_t slot, uint32_t type, uint64_t sector,
		  uint32_t length, unsigned segments, bool odd);
/* As above, from slot->piece[] as the caller filled it. */
void virtq_format_pieces(struct virtq *queue, uint16_t slot);

/* Puts a formatted slot in the ring. The device is told by virtq_publish(). */
void virtq_push(struct virtq *queue, uint16_t slot);
/* Makes what was pushed visible and kicks the device if it wants that. */
void virtq_publish(struct virtq *queue);
/* Kicks in any case. */
void virtq_kick(struct virtq *queue);

/* Collects finished slots, at most `max`; how many, or -EPROTO with driver->error set. Never waits.
 */
int virtq_reap(struct virtq *queue, uint16_t *slots, unsigned max);
/* Sleeps on the call event until something can be reaped: 0, or -ETIMEDOUT. */
int virtq_wait(struct virtq *queue, int timeout_ms);
/* Interrupts off (a polling client) or on at every completion. virtq_wait() turns them on itself.
 */
void virtq_interrupts(struct virtq *queue, bool on);

/* Writes `count` raw descriptors as one available buffer and kicks. Split: at table index 0 on. */
void virtq_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count);

/* How one kind of ring does it; chosen by virtq->packed. */
size_t split_ring_bytes(uint16_t size);
void split_place(struct virtq *queue, uint8_t *host);
void split_restart(struct virtq *queue);
void split_format(struct virtq *queue, uint16_t slot);
void split_push(struct virtq *queue, uint16_t slot);
bool split_publish(struct virtq *queue);
int split_reap(struct virtq *queue, uint16_t *slots, unsigned max);
void split_interrupts(struct virtq *queue, bool on);
bool split_pending(const struct virtq *queue);
void split_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count);

size_t packed_ring_bytes(uint16_t size);
void packed_place(struct virtq *queue, uint8_t *host);
void packed_restart(struct virtq *queue);
void packed_format(struct virtq *queue, uint16_t slot);
void packed_push(struct virtq *queue, uint16_t slot);
bool packed_publish(struct virtq *queue);
int packed_reap(struct virtq *queue, uint16_t *slots, unsigned max);
void packed_interrupts(struct virtq *queue, bool on);
bool packed_pending(const struct virtq *queue);
void packed_raw_chain(struct virtq *queue, const struct piece *pieces, unsigned count);

/* Marks a slot finished; false (and driver->error) if it was not in flight. */
bool virtq_finish(struct virtq *queue, unsigned slot, uint32_t used);
/* Full memory barrier between our store and our load, as notification suppression needs. */
static inline void full_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- virtio-blk, one request at a time (blk.c): the status byte, or -errno ---- */

int blk_read(struct virtq *queue, uint64_t sector, void *bytes, uint32_t count);
int blk_write(struct virtq *queue, uint64_t sector, const void *bytes, uint32_t count);
int blk_flush(struct virtq *queue);
int blk_discard(struct virtq *queue, uint64_t sector, uint32_t sectors);
int blk_write_zeroes(struct virtq *queue, uint64_t sector, uint32_t sectors, bool unmap);
/* `id` gets VIRTIO_BLK_ID_BYTES and a terminating zero. */
int blk_get_id(struct virtq *queue, char id[VIRTIO_BLK_ID_BYTES + 1]);
/* Any type; data goes out (`to_device`) or comes in. */
int blk_request(struct virtq *queue, uint32_t type, uint64_t sector, void *bytes, uint32_t count,
		bool to_device);
/* Waits until every slot of the queue is back: 0 or -errno. */
int blk_drain(struct virtq *queue);
