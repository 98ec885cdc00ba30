/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user_memory.c - the guest's memory and the inflight regions, as the VMM sends them
 *
 * Handlers here run when no ring is in service (see the table in vhost_user.c), so a table
 * is replaced and the old one let go at once; mappings that both have are kept.
 *
 * The inflight buffer holds a region for each queue, and behind the regions a trailer of
 * our own with what the driver has set in config space: the VMM gives the buffer back to a
 * successor of this process, but would not tell it that.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include "memory/memory.h"
#include "transport/vhost_user_private.h"

/* --- the memory table --------------------------------------------------------------- */

/** What a VMM learns from GET_MAX_MEM_SLOTS. */
#define SLOTS 256

static int add_region(struct memory **memory, const struct vhost_user_region *r, struct message *m,
		      unsigned fd_index, struct error *err)
{
	int fd = descriptors_take(&m->fds, fd_index), ret;

	if (fd < 0)
		return error_set(err, EINVAL,
				 "region at guest address %#llx came without a descriptor",
				 (unsigned long long)r->guest);
	ret = memory_add(memory, r->guest, r->size, r->user, fd, r->offset, err);
	close(fd);
	return ret;
}

int memory_set_table(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint32_t count = m->payload.table.count;
	struct memory *memory = memory_empty();

	if (!memory)
		return error_set(err, ENOMEM, "out of memory");
	if (count > VHOST_USER_REGIONS || m->fds.count != count ||
	    m->header.size != 8 + count * sizeof(struct vhost_user_region)) {
		memory_release(memory);
		return error_set(err, EINVAL, "%u regions in %u bytes with %u descriptors", count,
				 m->header.size, m->fds.count);
	}
	for (uint32_t i = 0; i < count; i++) {
		if (!add_region(&memory, &m->payload.table.region[i], m, i, err))
			continue;
		memory_release(memory);
		return -err->code;
	}
	memory_release(vu->memory);
	vu->memory = memory;
	return 0;
}

int memory_get_max_slots(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)vu;
	(void)err;
	m->payload.u64 = SLOTS;
	m->reply_size = sizeof m->payload.u64;
	return 0;
}

/* To QEMU before 8.0 each pair of a NIC's queues is a device of its own: each says the same
 * regions. */
static bool says_twice(const struct vhost_user *vu)
{
	return vu->dev->together > 1;
}

static bool has_region(const struct memory *memory, const struct vhost_user_region *wanted)
{
	const struct region *r = memory_find(memory, wanted->guest);

	return r && r->guest == wanted->guest && r->size == wanted->size && r->user == wanted->user;
}

int memory_add_slot(struct vhost_user *vu, struct message *m, struct error *err)
{
	if (says_twice(vu) && has_region(vu->memory, &m->payload.slot.region))
		return 0;
	if (vu->memory->count >= SLOTS)
		return error_set(err, ENOSPC, "more than %d memory regions", SLOTS);
	return add_region(&vu->memory, &m->payload.slot.region, m, 0, err);
}

int memory_remove_slot(struct vhost_user *vu, struct message *m, struct error *err)
{
	const struct vhost_user_region *r = &m->payload.slot.region;

	if (says_twice(vu) && !memory_find(vu->memory, r->guest))
		return 0;
	return memory_remove(&vu->memory, r->guest, r->size, r->user, err);
}

/* --- inflight regions --------------------------------------------------------------- */

/* Behind the regions. */
struct trailer {
	uint64_t magic; /* written last */
	uint64_t state; /* see virtio_device_ops.state */
};

#define TRAILER_MAGIC 0x31747370636e6570ull /* "pencpst1" */
#define ALIGNMENT     64u

static uint64_t stride_of(unsigned queue_size, bool packed)
{
	uint64_t bytes = packed ? packed_inflight_bytes((uint16_t)queue_size)
				: split_inflight_bytes((uint16_t)queue_size);

	return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct trailer *trailer(const struct inflight_map *map)
{
	return (struct trailer *)(map->base + map->stride * map->queues);
}

static int check_numbers(const struct vhost_user *vu, const struct message *m, struct error *err)
{
	unsigned queues = m->payload.inflight.queues, size = m->payload.inflight.queue_size;

	if (!queues || queues > vu->dev->device.queues || !size || size > VIRTQUEUE_SIZE)
		return error_set(err, EINVAL, "%u queues of %u entries; expected at most %u of %u",
				 queues, size, vu->dev->device.queues, VIRTQUEUE_SIZE);
	return 0;
}

/* Maps the file, of which @size bytes at @offset are the buffer. */
static int map_inflight(struct vhost_user *vu, int fd, uint64_t offset, uint64_t size,
			unsigned queues, unsigned queue_size, struct error *err)
{
	struct inflight_map *map = &vu->inflight;
	char *base;

	inflight_release(vu);
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (base == MAP_FAILED)
		return error_set(err, errno, "cannot map the inflight buffer: %s", strerror(errno));
	map->guard = memory_guard_add(base, size, &map->broken);
	if (map->guard < 0) {
		munmap(base, size);
		return error_set(err, ENOSPC, "too many mappings in this process");
	}
	atomic_store(&map->broken, false);
	map->base = base;
	map->size = size;
	map->queues = queues;
	map->queue_size = queue_size;
	map->stride = stride_of(queue_size, vu->features >> VIRTIO_F_RING_PACKED & 1);
	return 0;
}

int inflight_get(struct vhost_user *vu, struct message *m, struct error *err)
{
	unsigned queues = m->payload.inflight.queues, queue_size = m->payload.inflight.queue_size;
	uint64_t size;
	int fd, ret = check_numbers(vu, m, err);

	if (ret)
		return ret;
	/* Room for either format: which one it will be may not be negotiated yet. */
	size = stride_of(queue_size, true) * queues + sizeof(struct trailer);
	fd = memfd_create("penstock-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		ret = error_set(err, errno, "cannot make the inflight buffer: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	ret = map_inflight(vu, fd, 0, size, queues, queue_size, err);
	if (ret) {
		close(fd);
		return ret;
	}
	m->payload.inflight.size = size;
	m->payload.inflight.offset = 0;
	m->reply_size = m->header.size;
	m->reply_fd = fd;
	return 0;
}

int inflight_set(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint64_t size = m->payload.inflight.size, offset = m->payload.inflight.offset, end, least;
	unsigned queues = m->payload.inflight.queues, queue_size = m->payload.inflight.queue_size;
	struct stat st;
	int ret = check_numbers(vu, m, err);

	if (ret)
		return ret;
	if (m->fds.count != 1)
		return error_set(err, EINVAL, "it came with %u descriptors; expected 1",
				 m->fds.count);
	least = stride_of(queue_size, vu->features >> VIRTIO_F_RING_PACKED & 1) * queues +
		sizeof(struct trailer);
	if (fstat(m->fds.fd[0], &st) || __builtin_add_overflow(offset, size, &end) ||
	    end > (uint64_t)st.st_size || size < least)
		return error_set(err, EINVAL,
				 "%llu bytes at %llu of a file of %lld; expected at least %llu",
				 (unsigned long long)size, (unsigned long long)offset,
				 (long long)st.st_size, (unsigned long long)least);
	ret = map_inflight(vu, m->fds.fd[0], offset, size, queues, queue_size, err);
	if (ret)
		return ret;
	if (!vu->dev->ops->config_size)
		return 0;
	if (trailer(&vu->inflight)->magic == TRAILER_MAGIC)
		vu->dev->ops->set_state(vu->dev, trailer(&vu->inflight)->state);
	else
		inflight_save_state(vu);
	return 0;
}

void *inflight_region(struct vhost_user *vu, unsigned index, unsigned size)
{
	struct inflight_map *map = &vu->inflight;

	if (!map->base || index >= map->queues || size > map->queue_size)
		return NULL;
	return map->base + map->stride * index;
}

void inflight_forget(struct vhost_user *vu, int index)
{
	for (unsigned i = 0; i < vu->inflight.queues && vu->inflight.base; i++)
		if (index < 0 || i == (unsigned)index)
			((struct inflight_header *)(vu->inflight.base + vu->inflight.stride * i))
				->version = 0;
}

void inflight_save_state(struct vhost_user *vu)
{
	struct trailer *t;

	if (!vu->inflight.base || !vu->dev->ops->config_size)
		return;
	t = trailer(&vu->inflight);
	t->state = vu->dev->ops->state(vu->dev);
	store_in_order();
	t->magic = TRAILER_MAGIC;
}

void inflight_release(struct vhost_user *vu)
{
	struct inflight_map *map = &vu->inflight;

	if (!map->base)
		return;
	memory_guard_remove(map->guard);
	munmap(map->base, map->size);
	map->base = NULL;
	map->queues = 0;
}
