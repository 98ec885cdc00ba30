/* SPDX-License-Identifier: BSD-3-Clause */
/* virtqueue.c - a virtqueue's life, its polling, its interrupts; see virtqueue.h */
#include "frontend/virtio/virtqueue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/virtio/device.h"
#include "layer/disk.h"
#include "memory/memory.h"
#include "util/log.h"

static bool poll_ring(struct loop_poller *poller);
static bool arm_ring(struct loop_poller *poller);
static void end(struct loop_task *task);
static void start_received(struct loop_message *message);
static void stop_received(struct loop_message *message);
static void stopped_received(struct loop_message *message);
static void broke_received(struct loop_message *message);

/* --- made and started --------------------------------------------------------------- */

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void release_setup(const struct virtqueue_setup *setup)
{
	memory_release(setup->memory);
	close_fd(setup->kick_fd);
	close_fd(setup->call_fd);
	close_fd(setup->err_fd);
}

static void free_arrays(struct virtqueue *vq)
{
	free(vq->batch);
	free(vq->again);
	free(vq->links);
}

struct virtqueue *virtqueue_create(struct virtio_device *dev, unsigned index,
				   const struct virtqueue_setup *setup, struct loop *loop,
				   struct loop *control, struct queue_stats *stats)
{
	struct virtqueue *vq = calloc(1, sizeof *vq);

	if (!vq || !(vq->batch = calloc(setup->size, sizeof *vq->batch)) ||
	    !(vq->again = calloc(setup->size, sizeof *vq->again)) ||
	    !(vq->links = calloc(setup->size, sizeof *vq->links))) {
		release_setup(setup);
		if (vq)
			free_arrays(vq);
		free(vq);
		return NULL;
	}
	vq->dev = dev;
	vq->index = index;
	vq->loop = loop;
	vq->control = control;
	vq->stats = stats;
	vq->setup = *setup;
	vq->memory = setup->memory;
	vq->size = setup->size;
	vq->ring = setup->features & (1ull << VIRTIO_F_RING_PACKED) ? &packed_ring_ops
								    : &split_ring_ops;
	vq->event_idx = setup->features & (1ull << VIRTIO_RING_F_EVENT_IDX);
	vq->indirect = setup->features & (1ull << VIRTIO_RING_F_INDIRECT_DESC);
	vq->in_order = dev->in_order;
	vq->final_base = setup->base;
	vq->faults_seen = atomic_load(&memory_faults);
	vq->start_message.run = start_received;
	vq->stop_message.run = stop_received;
	vq->stopped_message.run = stopped_received;
	vq->broke_message.run = broke_received;
	vq->end_task.run = end;
	loop_poller_init(&vq->poller, poll_ring, arm_ring);
	return vq;
}

void virtqueue_start(struct virtqueue *vq)
{
	loop_send(vq->loop, &vq->start_message);
}

static void kicked(void *data)
{
	struct virtqueue *vq = data;

	stats_add(&vq->stats->accesses, 1);
	loop_poller_wake(vq->loop, &vq->poller);
}

static void interrupt(struct virtqueue *vq)
{
	uint64_t one = 1;

	stats_add(&vq->stats->interrupts, 1);
	/* EAGAIN: the counter is full, so an interrupt is pending already. */
	if (vq->setup.call_fd >= 0 && write(vq->setup.call_fd, &one, sizeof one) < 0 &&
	    errno != EAGAIN)
		virtqueue_break(vq, "cannot signal its call descriptor: %s", strerror(errno));
}

static void pin(struct virtqueue *vq)
{
	int ret = memory_pin(vq->memory, vq->loop);

	vq->pinned = !ret;
	if (ret)
		log_warn("vm %s: %s: queue %u: its memory cannot be pinned: %s%s; going on without",
			 vq->dev->device.vm, vq->dev->device.label, vq->index, strerror(-ret),
			 ret == -ENOMEM ? " (is RLIMIT_MEMLOCK large enough?)" : "");
}

static void start_received(struct loop_message *message)
{
	struct virtqueue *vq = container_of(message, struct virtqueue, start_message);
	int ret = vq->ring->start(vq);

	if (!ret) {
		ret = vq->dev->ops->queue_start(vq->dev, vq);
		if (ret)
			virtqueue_break(vq, "cannot start: %s", strerror(-ret));
	}
	if (ret)
		return;
	if (vq->setup.kick_fd >= 0) {
		vq->kick = loop_watch_add(vq->loop, vq->setup.kick_fd, kicked, vq);
		if (!vq->kick)
			virtqueue_break(vq, "cannot watch its kick descriptor: out of memory");
	}
	if (vq->dev->pin)
		pin(vq);
	vq->running = true;
	/* What a predecessor completed and did not announce, or what was kicked to it, is lost
	 * otherwise; to a driver that expects neither, both are harmless. */
	interrupt(vq);
	if (!vq->broken)
		loop_poller_wake(vq->loop, &vq->poller);
}

/* --- service ------------------------------------------------------------------------ */

/* What was read of memory that is gone were zeroes; what was written went nowhere. */
static bool memory_lost(struct virtqueue *vq)
{
	unsigned faults = atomic_load_explicit(&memory_faults, memory_order_relaxed);

	if (faults == vq->faults_seen)
		return false;
	vq->faults_seen = faults;
	if (memory_broken(vq->memory))
		virtqueue_break(vq, "its memory was truncated by the VMM");
	else if (vq->setup.inflight && atomic_load(vq->setup.inflight_broken))
		virtqueue_break(vq, "its inflight buffer was truncated by the VMM");
	return vq->broken;
}

static void disarm(struct virtqueue *vq)
{
	if (!vq->armed)
		return;
	vq->armed = false;
	vq->ring->disarm(vq);
}

/*
 * More will follow at once if the driver has fewer in flight than it uses to: it is in the middle
 * of submitting. The level rises at once and falls slowly.
 */
static void expect(struct virtqueue *vq)
{
	unsigned out = vq->broken ? 0 : vq->outstanding(vq);

	vq->poller.deep = out < vq->level;
	if (out >= vq->level)
		vq->level = out;
	else
		vq->level -= (vq->level - out + 15) / 16;
}

static bool poll_ring(struct loop_poller *poller)
{
	struct virtqueue *vq = container_of(poller, struct virtqueue, poller);

	if (memory_lost(vq))
		return false;
	disarm(vq);
	if (!vq->dev->ops->queue_poll(vq)) {
		if (vq->stopping)
			loop_task_queue(vq->loop, &vq->end_task);
		return false;
	}
	expect(vq);
	return true;
}

static bool arm_ring(struct loop_poller *poller)
{
	struct virtqueue *vq = container_of(poller, struct virtqueue, poller);
	bool more;

	if (vq->broken || vq->stopping || vq->on_demand)
		return false;
	if (vq->setup.kick_fd < 0)
		return true; /* a driver that cannot notify must be polled */
	vq->armed = true;
	more = vq->ring->arm(vq);
	return !memory_lost(vq) && more;
}

static void show(struct virtqueue *vq)
{
	vq->interrupted = vq->ring->publish(vq);
	if (vq->interrupted)
		interrupt(vq);
	else
		stats_add(&vq->stats->interrupts_suppressed, 1);
}

void virtqueue_push(struct virtqueue *vq, const struct chain *chain, uint32_t written)
{
	if (vq->broken)
		return;
	/* More than a ring of them only if the driver makes a chain available twice. */
	if (vq->pending == vq->size)
		show(vq);
	vq->ring->push(vq, chain, written);
}

void virtqueue_flush(struct virtqueue *vq)
{
	if (!vq->broken && vq->pending && !memory_lost(vq)) {
		/* Before the driver sees the batch: it may react within nanoseconds. */
		if (vq->running && loop_poller_settled(vq->loop, &vq->poller))
			disarm(vq);
		show(vq);
	}
	if (vq->stopping)
		loop_task_queue(vq->loop, &vq->end_task);
}

int virtqueue_break(struct virtqueue *vq, const char *format, ...)
{
	const struct device *device = &vq->dev->device;
	va_list args;

	if (vq->broken)
		return -EINVAL;
	vq->broken = true;
	va_start(args, format);
	vsnprintf(vq->reason, sizeof vq->reason, format, args);
	va_end(args);
	log_error("vm %s: %s: queue %u: %s; the device is stopped until the guest resets it",
		  device->vm, device->label, vq->index, vq->reason);
	loop_poller_stop(vq->loop, &vq->poller);
	if (vq->setup.err_fd >= 0) {
		uint64_t one = 1;

		if (write(vq->setup.err_fd, &one, sizeof one) < 0)
			log_debug("err descriptor: %s", strerror(errno));
	}
	loop_send(vq->control, &vq->broke_message);
	return -EINVAL;
}

static void broke_received(struct loop_message *message)
{
	struct virtqueue *vq = container_of(message, struct virtqueue, broke_message);

	vq->broke(vq);
}

/* --- changed and stopped ------------------------------------------------------------ */

struct call_change {
	struct loop_message message;
	struct virtqueue *vq;
	int fd;
};

static void call_received(struct loop_message *message)
{
	struct call_change *change = container_of(message, struct call_change, message);
	struct virtqueue *vq = change->vq;

	close_fd(vq->setup.call_fd);
	vq->setup.call_fd = change->fd;
	free(change);
	/* An interrupt sent to the old one may have gone nowhere. */
	if (vq->running && !vq->broken)
		interrupt(vq);
}

void virtqueue_set_call(struct virtqueue *vq, int fd)
{
	struct call_change *change = malloc(sizeof *change);

	if (!change) {
		close_fd(fd);
		log_error("out of memory: an interrupt's descriptor was not changed");
		return;
	}
	*change = (struct call_change){ .message.run = call_received, .vq = vq, .fd = fd };
	loop_send(vq->loop, &change->message);
}

void virtqueue_stop(struct virtqueue *vq)
{
	loop_send(vq->loop, &vq->stop_message);
}

static void stop_received(struct loop_message *message)
{
	struct virtqueue *vq = container_of(message, struct virtqueue, stop_message);

	loop_poller_stop(vq->loop, &vq->poller);
	if (vq->kick)
		loop_watch_remove(vq->loop, vq->kick);
	vq->kick = NULL;
	if (!vq->running) { /* it never started */
		loop_send(vq->control, &vq->stopped_message);
		return;
	}
	vq->running = false;
	vq->stopping = true;
	/* What a predecessor left must be taken and given back first: the VMM counts it as taken.
	 */
	if (vq->again_next < vq->again_count && !vq->broken)
		loop_poller_wake(vq->loop, &vq->poller);
	else
		loop_task_queue(vq->loop, &vq->end_task);
}

/* Ends service if everything that was popped has been pushed. From there on @vq is the control
 * side's. */
static void end(struct loop_task *task)
{
	struct virtqueue *vq = container_of(task, struct virtqueue, end_task);

	if (vq->outstanding(vq) || (vq->again_next < vq->again_count && !vq->broken))
		return;
	loop_poller_stop(vq->loop, &vq->poller);
	vq->final_base = vq->ring->base(vq);
	vq->dev->ops->queue_stop(vq);
	if (vq->pinned)
		memory_unpin(vq->memory, vq->loop);
	loop_send(vq->control, &vq->stopped_message);
}

static void stopped_received(struct loop_message *message)
{
	struct virtqueue *vq = container_of(message, struct virtqueue, stopped_message);

	vq->stopped(vq);
}

void virtqueue_destroy(struct virtqueue *vq)
{
	release_setup(&vq->setup);
	free_arrays(vq);
	free(vq);
}

/* --- chains ------------------------------------------------------------------------- */

int chain_add(struct virtqueue *vq, struct chain *chain, const struct descriptor *d,
	      struct iovec *vec, unsigned room)
{
	unsigned used = chain->readable + chain->writable;
	int n;

	if (!d->writable && chain->writable)
		return virtqueue_break(vq, "a readable descriptor stands behind a writable one");
	n = memory_gather(vq->memory, d->address, d->length, vec + used, room - used);
	if (n == -EFAULT)
		return virtqueue_break(vq,
				       "descriptor of %u bytes at guest address %#llx is outside "
				       "its memory",
				       d->length, (unsigned long long)d->address);
	if (n < 0)
		return virtqueue_break(vq, "a chain of more than %u segments", room);
	if (d->writable) {
		chain->writable += (uint16_t)n;
		chain->write_bytes += d->length;
	} else {
		chain->readable += (uint16_t)n;
		chain->read_bytes += d->length;
	}
	return 0;
}

const void *chain_table(struct virtqueue *vq, uint64_t address, uint32_t length, unsigned *entries)
{
	struct iovec table;

	if (!vq->indirect) {
		virtqueue_break(vq, "an indirect descriptor, which was not negotiated");
		return NULL;
	}
	if (!length || length % sizeof(struct vring_desc) ||
	    length / sizeof(struct vring_desc) > UINT16_MAX) {
		virtqueue_break(vq, "an indirect table of %u bytes", length);
		return NULL;
	}
	if (memory_gather(vq->memory, address, length, &table, 1) != 1) {
		virtqueue_break(
			vq,
			"an indirect table of %u bytes at guest address %#llx is outside its "
			"memory",
			length, (unsigned long long)address);
		return NULL;
	}
	*entries = length / sizeof(struct vring_desc);
	return table.iov_base;
}
