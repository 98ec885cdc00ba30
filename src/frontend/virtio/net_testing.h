/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_testing.h - a guest with a NIC, for unit tests: the driver's side of its rings, split or
 * packed, each in memory of its own
 *
 * The guest's memory is one region; a queue has its rings and buffers in a part of it. Buffers are
 * given and taken back in order, one descriptor each or several.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "frontend/virtio/device.h"
#include "frontend/virtio/virtqueue.h"
#include "memory/memory.h"
#include "packet/nic.h"
#include "packet/testing.h"

#define GUEST_BASE   0x100000ull
#define QUEUE_BYTES  (1u << 20) /* of memory, for each queue */
#define QUEUE_RINGS  32768u     /* of those, for rings; the rest is buffers */
#define GUEST_QUEUES 9u
#define RING_SIZE    64u

/** One queue, as its driver sees it. */
struct guest_queue {
	struct guest *guest;
	struct virtqueue *vq;
	unsigned index;
	bool packed;
	char *memory;  /* QUEUE_BYTES */
	uint64_t at;   /* its guest address */
	unsigned next; /* descriptor that the next chain begins with */
	bool wrap;
	uint16_t available, used; /* split: our indexes */
	unsigned used_slot;       /* packed */
	bool used_wrap;
	uint16_t slots[RING_SIZE]; /* by first descriptor: of its chain */
	uint32_t final_base;
	atomic_bool stopped;
	char reason[160]; /* it broke */
};

struct guest {
	struct rig *rig;
	struct device *device;
	struct virtio_device *dev;
	struct memory *memory;
	char *base;
	int fd;
	uint64_t features;
	struct guest_queue queue[GUEST_QUEUES];
};

struct guest_plan {
	const char *name, *pairs, *config_space;
	const char *const *options; /* of its port */
	uint8_t mac;                /* last byte */
};

struct guest_making {
	struct guest *guest;
	const struct guest_plan *plan;
};

extern const struct frontend virtio_net_frontend;

static inline void guest_make_now(void *data)
{
	struct guest_making *making = data;
	const struct guest_plan *plan = making->plan;
	struct guest *guest = making->guest;
	const struct frontend *frontend = &virtio_net_frontend;
	struct port_config config;
	struct nic_plan nic = { .name = plan->name,
				.vswitch = guest->rig->vswitch,
				.config = &config,
				.mac = { 2, 0, 0, 0, 0, plan->mac } };
	struct unit_plan unit = { .nic = &nic };
	void *settings = calloc(1, frontend->settings_size);
	struct device_plan device = { .vm = "vm",
				      .name = plan->name,
				      .socket = "none",
				      .settings = settings,
				      .units = &unit,
				      .count = 1 };
	struct error err = { 0 };

	rig_config(&config, plan->options);
	options_init(frontend->options, settings);
	if ((plan->pairs &&
	     options_set(frontend->options, settings, "queue-pairs", plan->pairs, &err)) ||
	    (plan->config_space &&
	     options_set(frontend->options, settings, "config-space", plan->config_space, &err)))
		abort();
	guest->device = frontend->create(&device, &err);
	if (!guest->device) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	guest->dev = container_of(guest->device, struct virtio_device, device);
	options_release(port_options, &config);
	free(settings);
}

static inline struct guest *guest_make(struct rig *rig, const struct guest_plan *plan)
{
	struct guest *guest = calloc(1, sizeof *guest);
	size_t bytes = (size_t)GUEST_QUEUES * QUEUE_BYTES;
	struct guest_making making = { guest, plan };

	guest->rig = rig;
	guest->fd = memfd_create("guest", MFD_CLOEXEC);
	guest->memory = memory_empty();
	if (guest->fd < 0 || ftruncate(guest->fd, (off_t)bytes) ||
	    memory_add(&guest->memory, GUEST_BASE, bytes, GUEST_BASE, guest->fd, 0, NULL))
		abort();
	guest->base = memory_user(guest->memory, GUEST_BASE, bytes);
	rig_do(rig->control, guest_make_now, &making);
	rig_settle(rig);
	return guest;
}

static inline void guest_negotiate_now(void *data)
{
	struct guest *guest = data;

	guest->dev->features = guest->features;
	guest->dev->ops->negotiated(guest->dev, guest->features);
}

static inline void guest_negotiate(struct guest *guest, uint64_t features)
{
	guest->features = features;
	rig_do(guest->rig->control, guest_negotiate_now, guest);
}

/* --- a queue in service --------------------------------------------------------------- */

static inline void guest_stopped(struct virtqueue *vq)
{
	struct guest_queue *q = vq->transport;

	q->final_base = vq->final_base;
	virtqueue_destroy(vq);
	q->vq = NULL;
	q->stopped = true;
}

static inline void guest_broke(struct virtqueue *vq)
{
	struct guest_queue *q = vq->transport;

	memcpy(q->reason, vq->reason, sizeof q->reason);
}

static inline void guest_start_now(void *data)
{
	struct guest_queue *q = data;
	struct guest *guest = q->guest;
	struct rig *rig = guest->rig;
	struct virtqueue_setup setup = {
		.size = RING_SIZE,
		.features = guest->features,
		.descriptors = q->memory,
		.driver = q->memory + 4096,
		.device = q->memory + 8192,
		.base = q->final_base,
		.memory = memory_hold(guest->memory),
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = -1,
		.err_fd = -1,
	};

	q->vq = virtqueue_create(guest->dev, q->index, &setup,
				 rig->loops[q->index / 2 % rig->count], rig->control,
				 &guest->device->stats[q->index]);
	q->vq->transport = q;
	q->vq->stopped = guest_stopped;
	q->vq->broke = guest_broke;
	virtqueue_start(q->vq);
}

/** Queue @index in service, fresh, or going on where it was stopped. */
static inline struct guest_queue *guest_start(struct guest *guest, unsigned index)
{
	struct guest_queue *q = &guest->queue[index];

	if (!q->guest) {
		q->guest = guest;
		q->index = index;
		q->packed = guest->features >> VIRTIO_F_RING_PACKED & 1;
		q->memory = guest->base + (size_t)index * QUEUE_BYTES;
		q->at = GUEST_BASE + (uint64_t)index * QUEUE_BYTES;
		q->wrap = q->used_wrap = true;
		q->final_base = q->packed ? 0x80008000 : 0;
	}
	q->stopped = false;
	rig_do(guest->rig->control, guest_start_now, q);
	rig_settle(guest->rig);
	return q;
}

static inline void guest_stop_now(void *data)
{
	struct guest_queue *q = data;

	if (q->vq)
		virtqueue_stop(q->vq);
}

static inline void guest_stop(struct guest_queue *q)
{
	rig_do(q->guest->rig->control, guest_stop_now, q);
	for (unsigned i = 0; i < 100 && !q->stopped; i++)
		rig_settle(q->guest->rig);
	if (!q->stopped)
		abort();
}

static inline void guest_destroy_now(void *data)
{
	struct device *device = data;

	device->ops->destroy(device);
}

static inline void guest_end(struct guest *guest)
{
	struct rig *rig = guest->rig;

	for (unsigned i = 0; i < GUEST_QUEUES; i++)
		if (guest->queue[i].vq)
			guest_stop(&guest->queue[i]);
	rig_do(rig->control, guest_destroy_now, guest->device);
	rig_settle(rig);
	memory_release(guest->memory);
	close(guest->fd);
	free(guest);
}

/* --- the driver ----------------------------------------------------------------------- */

/** Where byte @offset of the queue's buffers is. */
static inline char *guest_at(struct guest_queue *q, uint32_t offset)
{
	return q->memory + QUEUE_RINGS + offset;
}

struct guest_piece {
	uint32_t offset, length; /* of the queue's buffers */
	bool writable;
};

/** Makes a chain of @pieces available; nobody is notified. Returns its first descriptor. */
static inline unsigned guest_give(struct guest_queue *q, const struct guest_piece *pieces,
				  unsigned count)
{
	unsigned first = q->next;

	q->slots[first] = (uint16_t)count;
	if (q->packed) {
		struct vring_packed_desc *ring = (void *)q->memory;
		uint16_t flags_of_first = 0;

		for (unsigned i = 0; i < count; i++) {
			struct vring_packed_desc *d = &ring[q->next];
			uint16_t flags = (uint16_t)((q->wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
							     : 1u << VRING_PACKED_DESC_F_USED) |
						    (pieces[i].writable ? VRING_DESC_F_WRITE : 0) |
						    (i + 1 < count ? VRING_DESC_F_NEXT : 0));

			d->addr = q->at + QUEUE_RINGS + pieces[i].offset;
			d->len = pieces[i].length;
			d->id = (uint16_t)first;
			if (i)
				ring_store(&d->flags, flags);
			else
				flags_of_first = flags;
			if (++q->next == RING_SIZE) {
				q->next = 0;
				q->wrap = !q->wrap;
			}
		}
		ring_store(&ring[first].flags, flags_of_first);
	} else {
		struct vring_desc *table = (void *)q->memory;
		struct vring_avail *avail = (void *)(q->memory + 4096);

		for (unsigned i = 0; i < count; i++) {
			unsigned at = q->next, after = (q->next + 1) % RING_SIZE;

			table[at] = (struct vring_desc){
				.addr = q->at + QUEUE_RINGS + pieces[i].offset,
				.len = pieces[i].length,
				.flags = (uint16_t)((pieces[i].writable ? VRING_DESC_F_WRITE : 0) |
						    (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
				.next = (uint16_t)after,
			};
			q->next = after;
		}
		avail->ring[q->available % RING_SIZE] = (uint16_t)first;
		ring_store(&avail->idx, ++q->available);
	}
	return first;
}

/** The next chain that was used: its first descriptor, or -1; *@written bytes of it. */
static inline int guest_take(struct guest_queue *q, uint32_t *written)
{
	int first;

	if (q->packed) {
		struct vring_packed_desc *d =
			&((struct vring_packed_desc *)(void *)q->memory)[q->used_slot];
		uint16_t flags = ring_load(&d->flags);

		if (!!(flags & 1u << VRING_PACKED_DESC_F_AVAIL) != q->used_wrap ||
		    !!(flags & 1u << VRING_PACKED_DESC_F_USED) != q->used_wrap)
			return -1;
		first = d->id;
		*written = d->len;
		q->used_slot += q->slots[first];
		if (q->used_slot >= RING_SIZE) {
			q->used_slot -= RING_SIZE;
			q->used_wrap = !q->used_wrap;
		}
	} else {
		struct vring_used *used = (void *)(q->memory + 8192);

		if (ring_load(&used->idx) == q->used)
			return -1;
		first = (int)used->ring[q->used % RING_SIZE].id;
		*written = used->ring[q->used++ % RING_SIZE].len;
	}
	return first;
}

static inline void guest_wake_now(void *data)
{
	struct guest_queue *q = data;

	loop_poller_wake(q->vq->loop, &q->vq->poller);
}

/** Notifies, and waits until what comes of it has come. */
static inline void guest_kick(struct guest_queue *q)
{
	rig_do(q->vq->loop, guest_wake_now, q);
	rig_settle(q->guest->rig);
}
