/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_vring.c - rings: what the VMM says of them, their start and stop
 *
 * A ring is ready when its size and addresses are known, its kick descriptor came, and
 * it is enabled; then it is in service, as a virtqueue on one of the loops. Whatever the VMM
 * changes of it is changed while it is out of service: vhost_user.c stops it first, and
 * calls vrings_start() after, so nothing here cares what is running. The one exception is the
 * call descriptor, which guests change under load.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memory/memory.h"
#include "transport/vhost_user_private.h"
#include "util/log.h"

void vu_ring_init(struct vu_ring *ring)
{
	*ring = (struct vu_ring){ .kick_fd = -1, .call_fd = -1, .err_fd = -1 };
}

static void replace_fd(int *fd, int with)
{
	if (*fd >= 0)
		close(*fd);
	*fd = with;
}

void vu_ring_reset(struct vu_ring *ring)
{
	replace_fd(&ring->kick_fd, -1);
	replace_fd(&ring->call_fd, -1);
	replace_fd(&ring->err_fd, -1);
	vu_ring_init(ring);
}

void vu_ring_forget(struct vu_ring *ring)
{
	int call_fd = ring->call_fd, err_fd = ring->err_fd;

	replace_fd(&ring->kick_fd, -1);
	vu_ring_init(ring);
	ring->call_fd = call_fd;
	ring->err_fd = err_fd;
}

/* --- start -------------------------------------------------------------------------- */

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

/*
 * Our address of an area of the ring, which must be in the guest's memory, and aligned: the VMM's
 * address, and ours, which lies otherwise in a page if the region begins at an odd place in its
 * file.
 */
static void *area(const struct vhost_user *vu, uint64_t user, uint64_t bytes, unsigned alignment)
{
	void *at = memory_user(vu->memory, user, bytes);

	return (user | (uintptr_t)at) % alignment ? NULL : at;
}

static int describe(struct vhost_user *vu, unsigned index, struct virtqueue_setup *setup,
		    struct error *err)
{
	const struct vu_ring *ring = &vu->ring[index];
	bool packed = vu->features >> VIRTIO_F_RING_PACKED & 1;
	struct ring_areas bytes = packed ? packed_ring_areas((uint16_t)ring->size)
					 : split_ring_areas((uint16_t)ring->size);

	if (!packed && !power_of_two(ring->size))
		return error_set(err, EINVAL, "its size %u is not a power of two", ring->size);
	*setup = (struct virtqueue_setup){
		.size = (uint16_t)ring->size,
		.features = vu->features,
		.descriptors = area(vu, ring->descriptors, bytes.descriptors, 16),
		.driver = area(vu, ring->driver, bytes.driver, packed ? 4 : 2),
		.device = area(vu, ring->device, bytes.device, 4),
		.base = ring->base,
		.inflight = inflight_region(vu, index, ring->size),
		.inflight_broken = &vu->inflight.broken,
	};
	if (!setup->descriptors || !setup->driver || !setup->device)
		return error_set(
			err, EFAULT,
			"its rings at %#llx, %#llx, %#llx are outside the guest's memory, or "
			"not aligned",
			(unsigned long long)ring->descriptors, (unsigned long long)ring->driver,
			(unsigned long long)ring->device);
	return 0;
}

static void queue_stopped(struct virtqueue *vq)
{
	struct vhost_user *vu = vq->transport;
	struct vu_ring *ring = &vu->ring[vq->index];

	ring->base = vq->final_base;
	ring->vq = NULL;
	ring->stopping = false;
	vu->dev->device.running--;
	vu->stopping--;
	virtqueue_destroy(vq);
	vhost_user_ring_stopped(vu);
}

static void queue_broke(struct virtqueue *vq)
{
	vhost_user_break(vq->transport, vq->reason);
}

static int duplicate(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void start(struct vhost_user *vu, unsigned index)
{
	struct vu_ring *ring = &vu->ring[index];
	unsigned together = vu->dev->together ? vu->dev->together : 1;
	unsigned turn = vu->dev->single_loop ? 0 : index / together;
	struct virtqueue_setup setup;
	struct error err = { 0 };
	char reason[sizeof err.text + 32];

	if (describe(vu, index, &setup, &err)) {
		snprintf(reason, sizeof reason, "queue %u: %s", index, err.text);
		log_error("vm %s: %s: %s; the device is stopped until the guest resets it",
			  vu->dev->device.vm, vu->dev->device.label, reason);
		vhost_user_break(vu, reason);
		return;
	}
	setup.memory = memory_hold(vu->memory);
	setup.kick_fd = duplicate(ring->kick_fd);
	setup.call_fd = duplicate(ring->call_fd);
	setup.err_fd = duplicate(ring->err_fd);
	ring->vq = virtqueue_create(vu->dev, index, &setup,
				    vu->loops[(vu->first_loop + turn) % vu->loop_count],
				    vu->control, &vu->dev->device.stats[index]);
	if (!ring->vq) {
		log_error("vm %s: out of memory for a queue", vu->dev->device.vm);
		vhost_user_break(vu, "out of memory");
		return;
	}
	ring->vq->transport = vu;
	ring->vq->stopped = queue_stopped;
	ring->vq->broke = queue_broke;
	vu->dev->device.running++;
	vu->dev->device.ring = vu->features >> VIRTIO_F_RING_PACKED & 1 ? "packed" : "split";
	virtqueue_start(ring->vq);
}

void vrings_start(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->dev->device.queues; i++) {
		const struct vu_ring *ring = &vu->ring[i];

		if (ring->size && ring->addressed && ring->kicked && ring->enabled && !ring->vq &&
		    !vu->dev->device.broken)
			start(vu, i);
	}
}

void vrings_stop(struct vhost_user *vu, int index)
{
	for (unsigned i = 0; i < vu->dev->device.queues; i++) {
		struct vu_ring *ring = &vu->ring[i];

		if ((index >= 0 && i != (unsigned)index) || !ring->vq || ring->stopping)
			continue;
		ring->stopping = true;
		vu->stopping++;
		virtqueue_stop(ring->vq);
	}
}

/* --- what the VMM says -------------------------------------------------------------- */

static struct vu_ring *ring_of(struct vhost_user *vu, uint64_t index, struct error *err)
{
	if (index < vu->dev->device.queues)
		return &vu->ring[index];
	error_set(err, EINVAL, "queue %llu of %u", (unsigned long long)index,
		  vu->dev->device.queues);
	return NULL;
}

int vring_set_num(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.state.index, err);

	if (!ring)
		return -EINVAL;
	if (!m->payload.state.num || m->payload.state.num > VIRTQUEUE_SIZE)
		return error_set(err, EINVAL, "queue %u of %u entries; expected 1 to %u",
				 m->payload.state.index, m->payload.state.num, VIRTQUEUE_SIZE);
	ring->size = m->payload.state.num;
	return 0;
}

int vring_set_addr(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.address.index, err);

	if (!ring)
		return -EINVAL;
	/* They are looked up when the ring starts: until then the memory table may change. */
	ring->descriptors = m->payload.address.descriptors;
	ring->driver = m->payload.address.available;
	ring->device = m->payload.address.used;
	ring->addressed = true;
	return 0;
}

int vring_set_base(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.state.index, err);

	if (!ring)
		return -EINVAL;
	ring->base = m->payload.state.num;
	return 0;
}

int vring_get_base(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.state.index, err);

	if (!ring)
		return -EINVAL;
	/* The VMM knows from here on where to begin, and may reset the ring. */
	inflight_forget(vu, (int)m->payload.state.index);
	m->payload.state.num = ring->base;
	m->reply_size = sizeof m->payload.state;
	replace_fd(&ring->kick_fd, -1);
	ring->kicked = false;
	return 0;
}

/* The descriptor of SET_VRING_KICK, CALL or ERR, -1 if there shall be none; -EINVAL if it is odd.
 */
static int take_event_fd(struct message *m, struct error *err)
{
	int fd;

	if (m->payload.u64 & VHOST_USER_VRING_NOFD)
		return -1;
	fd = descriptors_take_eventfd(&m->fds, 0, err);
	return fd == -1 ? error_set(err, EINVAL, "no descriptor came with it") : fd;
}

int vring_set_kick(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.u64 & VHOST_USER_VRING_INDEX, err);
	int fd = ring ? take_event_fd(m, err) : -EINVAL;

	if (fd < -1)
		return fd;
	replace_fd(&ring->kick_fd, fd);
	ring->kicked = true;
	/* Without protocol features there is no SET_VRING_ENABLE: rings are born enabled. */
	if (!(vu->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1))
		ring->enabled = true;
	return 0;
}

int vring_set_call(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.u64 & VHOST_USER_VRING_INDEX, err);
	int fd = ring ? take_event_fd(m, err) : -EINVAL;

	if (fd < -1)
		return fd;
	replace_fd(&ring->call_fd, fd);
	if (ring->vq && !ring->stopping)
		virtqueue_set_call(ring->vq, duplicate(fd));
	return 0;
}

int vring_set_err(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.u64 & VHOST_USER_VRING_INDEX, err);
	int fd = ring ? take_event_fd(m, err) : -EINVAL;

	if (fd < -1)
		return fd;
	replace_fd(&ring->err_fd, fd);
	return 0;
}

int vring_set_enable(struct vhost_user *vu, struct message *m, struct error *err)
{
	struct vu_ring *ring = ring_of(vu, m->payload.state.index, err);

	if (!ring)
		return -EINVAL;
	if (m->payload.state.num > 1)
		return error_set(err, EINVAL, "queue %u: %u; expected 0 or 1",
				 m->payload.state.index, m->payload.state.num);
	ring->enabled = m->payload.state.num;
	return 0;
}
