/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_commands.c - the table of commands, and what each does
 *
 * Payloads are not aligned, and the VMM's: each handler copies what it uses, then checks the copy.
 * What is wrong is answered with an errno; the connection goes on, for both sides still agree on
 * where messages begin.
 *
 * DMA_UNMAP is answered when no transfer uses that memory any more: until then a guest must not
 * put it to another use. Since a VMM gives up on us some seconds later, it is answered after
 * UNMAP_NS at the latest. Nothing else waits for that.
 */
#include <errno.h>
#include <jansson.h>
#include <linux/vfio.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "memory/memory.h"
#include "transport/vfio_user_private.h"

#define UNMAP_NS 2000000000ull
#define MOST_FDS 16 /* with one message: QEMU gives up on servers that say more */

/* --- VERSION ------------------------------------------------------------------------ */

/* Of the "capabilities" of @root, a number from 1 to @most; @standard if it does not say. */
static json_int_t capability(json_t *root, const char *name, json_int_t standard, json_int_t most)
{
	json_t *value = json_object_get(json_object_get(root, "capabilities"), name);
	json_int_t n = json_is_integer(value) ? json_integer_value(value) : standard;

	return n < 1 ? 0 : n > most ? most : n;
}

static int version(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_version v;
	const char *text = call->payload + sizeof v;
	size_t length = call->size - sizeof v;
	json_t *root = NULL;
	bool multiple;
	json_int_t data;

	memcpy(&v, call->payload, sizeof v);
	if (v.major != 0)
		return error_set(err, EOPNOTSUPP, "version %u.%u; expected 0", v.major, v.minor);
	if (vu->negotiated)
		return error_set(err, EINVAL, "a second one");
	if (length) {
		if (!(root = json_loadb(text, strnlen(text, length), 0, NULL)))
			return error_set(err, EINVAL, "its capabilities are no JSON");
	}
	data = capability(root, "max_data_xfer_size", VFIO_USER_MAX_DATA, VFIO_USER_DATA);
	multiple = json_is_true(
		json_object_get(json_object_get(root, "capabilities"), "write_multiple"));
	json_decref(root);
	if (!data)
		return error_set(err, EINVAL, "its max_data_xfer_size is not positive");
	vu->dev->dma.message_max = (uint32_t)data;
	vu->negotiated = true;
	v.minor = v.minor ? 1 : 0;
	memcpy(call->reply, &v, sizeof v);
	call->reply_size = (uint32_t)sizeof v + 1 +
			   (uint32_t)sprintf(call->reply + sizeof v,
					     "{\"capabilities\":{\"max_msg_fds\":%d,"
					     "\"max_data_xfer_size\":%d,\"max_dma_maps\":%d,"
					     "\"pgsizes\":4096%s}}",
					     MOST_FDS, VFIO_USER_DATA, MEMORY_REGIONS,
					     multiple ? ",\"write_multiple\":true" : "");
	return 0;
}

/* --- memory ------------------------------------------------------------------------- */

static int dma_map_region(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	const uint32_t both = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	struct vfio_user_dma_map map;
	int fd;

	memcpy(&map, call->payload, sizeof map);
	if (map.argsz < sizeof map || !map.flags || map.flags & ~both)
		return error_set(err, EINVAL, "argsz %u, flags %#x", map.argsz, map.flags);
	/* What we may not write we do not map: the VMM then sees to it. */
	fd = map.flags == both && call->fds->count ? call->fds->fd[0] : -1;
	return memory_add(&vu->dev->dma.memory, map.address, map.size, map.address, fd, map.offset,
			  err);
}

static int unmap_region(struct vfio_user *vu, unsigned i, bool *in_use, struct error *err)
{
	const struct region r = vu->dev->dma.memory->region[i];

	if (r.map && dma_drain(&vu->dev->dma, r.host, r.size))
		*in_use = true;
	return memory_remove(&vu->dev->dma.memory, r.guest, r.size, r.user, err);
}

/* Takes out the regions inside the @size bytes at @from: a VMM may have mapped them in pieces. */
static int unmap_range(struct vfio_user *vu, uint64_t from, uint64_t size, bool *in_use,
		       struct error *err)
{
	const struct region *r = memory_find(vu->dev->dma.memory, from);
	uint64_t end = from + size;
	unsigned i, count;

	if (!r || r->guest != from || end < from)
		return error_set(err, EINVAL, "no region begins at %#llx",
				 (unsigned long long)from);
	i = (unsigned)(r - vu->dev->dma.memory->region);
	for (count = 0; i + count < vu->dev->dma.memory->count; count++) {
		const struct region *next = r + count;

		if (next->guest >= end)
			break;
		if (next->guest + next->size > end)
			return error_set(err, EINVAL, "it would cut the region at %#llx",
					 (unsigned long long)next->guest);
	}
	while (count--)
		if (unmap_region(vu, i, in_use, err))
			return -err->code;
	return 0;
}

static int unmap_all(struct vfio_user *vu, bool *in_use, struct error *err)
{
	while (vu->dev->dma.memory->count)
		if (unmap_region(vu, vu->dev->dma.memory->count - 1, in_use, err))
			return -err->code;
	return 0;
}

static int dma_unmap_region(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_dma_unmap unmap;
	bool in_use = false;
	int ret;

	memcpy(&unmap, call->payload, sizeof unmap);
	if (unmap.argsz < sizeof unmap || unmap.flags & ~VFIO_DMA_UNMAP_FLAG_ALL ||
	    (unmap.flags && (unmap.address || unmap.size)))
		return error_set(err, EINVAL, "argsz %u, flags %#x", unmap.argsz, unmap.flags);
	ret = unmap.flags ? unmap_all(vu, &in_use, err)
			  : unmap_range(vu, unmap.address, unmap.size, &in_use, err);
	if (ret)
		return ret;
	if (!in_use || call->header.flags & VFIO_USER_NO_REPLY) {
		memcpy(call->reply, &unmap, sizeof unmap);
		call->reply_size = sizeof unmap;
		return 0;
	}
	vu->unmap[vu->unmap_count].id = call->header.id;
	vu->unmap[vu->unmap_count].payload = unmap;
	if (!vu->unmap_count++)
		loop_timer_set(vu->loop, &vu->unmap_timer, loop_now(vu->loop) + UNMAP_NS);
	vu->unmap_due = false;
	call->later = true;
	return 0;
}

static void answer_unmaps(struct vfio_user *vu)
{
	loop_timer_cancel(&vu->unmap_timer);
	vu->unmap_due = true;
	vfio_user_output(vu);
	loop_poller_wake(vu->loop, &vu->poller); /* it may have had to wait for room */
}

static void drained(struct dma_space *space)
{
	struct vfio_user *vu = space->transport;

	if (vu->unmap_count)
		answer_unmaps(vu);
}

static void unmap_is_late(struct loop_timer *timer)
{
	struct vfio_user *vu = container_of(timer, struct vfio_user, unmap_timer);

	if (log_limited(&vu->limit))
		log_warn("vm %s: %s: memory is unmapped under transfers that do not end",
			 vu->dev->device.vm, vu->dev->device.label);
	answer_unmaps(vu);
}

bool vfio_user_unmap_reply(struct vfio_user *vu, struct vfio_call *call)
{
	if (!vu->unmap_due)
		return false;
	call->header.id = vu->unmap[0].id;
	call->header.command = VFIO_USER_DMA_UNMAP;
	call->reply_size = sizeof vu->unmap[0].payload;
	memcpy(call->reply, &vu->unmap[0].payload, call->reply_size);
	memmove(vu->unmap, vu->unmap + 1, --vu->unmap_count * sizeof *vu->unmap);
	return true;
}

/*
 * A VMM whose memory is not shared sends descriptors all the same; see dma.h. The connection stays:
 * QEMU ends itself if it cannot map memory, and the guest may have other disks.
 */
static void unshared(struct dma_space *space, uint64_t address)
{
	struct vfio_user *vu = space->transport;

	vu->refused = true;
	pci_break(
		vu->dev,
		"the memory at %#llx that the VMM has sent is not its guest's: the VMM's memory must be "
		"shared (share=on)",
		(unsigned long long)address);
}

void vfio_user_memory_init(struct vfio_user *vu)
{
	struct dma_space *space = &vu->dev->dma;

	space->send = vfio_user_dma_send;
	space->message_max = VFIO_USER_DATA;
	space->unshared = unshared;
	space->drained = drained;
	space->transport = vu;
	space->uncertain_count = 0;
	vu->unmap_count = 0;
	loop_timer_init(&vu->unmap_timer, unmap_is_late);
}

void vfio_user_memory_reset(struct vfio_user *vu)
{
	struct memory *none = memory_empty();

	loop_timer_cancel(&vu->unmap_timer);
	vu->unmap_count = 0;
	if (none) {
		memory_release(vu->dev->dma.memory);
		vu->dev->dma.memory = none;
	} else {
		while (vu->dev->dma.memory->count)
			unmap_region(vu, 0, &(bool){ false }, NULL);
	}
}

/* --- the device and its regions ----------------------------------------------------- */

static int get_info(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_device_info info;

	(void)vu;
	memcpy(&info, call->payload, sizeof info);
	if (info.argsz < sizeof info)
		return error_set(err, EINVAL, "argsz %u", info.argsz);
	info = (struct vfio_user_device_info){
		.argsz = sizeof info,
		.flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
		.regions = VFIO_PCI_NUM_REGIONS,
		.irqs = VFIO_PCI_NUM_IRQS,
	};
	memcpy(call->reply, &info, sizeof info);
	call->reply_size = sizeof info;
	return 0;
}

static uint32_t region_size(const struct vfio_user *vu, uint32_t index)
{
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return PCI_CONFIG_SIZE;
	return index < PCI_BARS && vu->dev->type->bar[index].kind != PCI_BAR_NONE
		       ? vu->dev->type->bar[index].size
		       : 0;
}

/* What of a region the VMM may map: behind the plain information, with the descriptor to map. */
struct region_with_area {
	struct vfio_user_region_info info;
	struct {
		struct vfio_info_cap_header header;
		uint32_t areas, reserved;
		struct vfio_region_sparse_mmap_area area[1];
	} cap; /* struct vfio_region_info_cap_sparse_mmap */
};

static int get_region_info(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	const struct pci_bar *bar;
	struct region_with_area r = { 0 };
	uint32_t index, room;

	memcpy(&r.info, call->payload, sizeof r.info);
	index = r.info.index;
	room = r.info.argsz;
	if (room < sizeof r.info || index >= VFIO_PCI_NUM_REGIONS)
		return error_set(err, EINVAL, "region %u, argsz %u", index, room);
	r.info = (struct vfio_user_region_info){
		.argsz = sizeof r.info,
		.index = index,
		.size = region_size(vu, index),
	};
	if (r.info.size)
		r.info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	call->reply_size = sizeof r.info;
	bar = index < PCI_BARS ? &vu->dev->type->bar[index] : NULL;
	if (bar && bar->shared_length) {
		r.info.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
		r.info.argsz = sizeof r;
		r.info.cap_offset = offsetof(struct region_with_area, cap);
		r.cap.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		r.cap.header.version = 1;
		r.cap.areas = 1;
		r.cap.area[0].offset = bar->shared_offset;
		r.cap.area[0].size = bar->shared_length;
		/* One that has no room for it asks again. */
		if (room >= sizeof r) {
			call->reply_size = sizeof r;
			call->reply_fd = vu->dev->shared[index].fd;
		}
	}
	memcpy(call->reply, &r, call->reply_size);
	return 0;
}

/* --- accesses ----------------------------------------------------------------------- */

static int outside(const struct vfio_user_region_access *access, struct error *err)
{
	return error_set(err, EINVAL, "%u bytes at %#llx of region %u", access->count,
			 (unsigned long long)access->offset, access->region);
}

static int region_read(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_region_access access;
	char *data = call->reply + sizeof access;
	int ret;

	memcpy(&access, call->payload, sizeof access);
	if (access.count > VFIO_USER_DATA)
		return outside(&access, err);
	ret = access.region == VFIO_PCI_CONFIG_REGION_INDEX
		      ? pci_config_read(vu->dev, access.offset, data, access.count)
		      : pci_bar_read(vu->dev, access.region, access.offset, data, access.count);
	if (ret)
		return outside(&access, err);
	memcpy(call->reply, &access, sizeof access);
	call->reply_size = (uint32_t)sizeof access + access.count;
	return 0;
}

static int write_to(struct vfio_user *vu, const struct vfio_user_region_access *access,
		    const char *data, struct error *err)
{
	int ret = access->region == VFIO_PCI_CONFIG_REGION_INDEX
			  ? pci_config_write(vu->dev, access->offset, data, access->count)
			  : pci_bar_write(vu->dev, access->region, access->offset, data,
					  access->count);

	return ret ? outside(access, err) : 0;
}

static int region_write(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_region_access access;

	memcpy(&access, call->payload, sizeof access);
	if (call->size - sizeof access != access.count)
		return error_set(err, EINVAL, "%u bytes in a message of %u", access.count,
				 call->size);
	vu->dev->waited_for = !(call->header.flags & VFIO_USER_NO_REPLY);
	if (write_to(vu, &access, call->payload + sizeof access, err))
		return -err->code;
	memcpy(call->reply, &access, sizeof access);
	call->reply_size = sizeof access;
	return 0;
}

static int region_write_multi(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_write_multi multi;
	struct vfio_user_write write;
	const char *at = call->payload + sizeof multi;

	memcpy(&multi, call->payload, sizeof multi);
	if (multi.count != (call->size - sizeof multi) / sizeof write ||
	    (call->size - sizeof multi) % sizeof write)
		return error_set(err, EINVAL, "%llu writes in a message of %u",
				 (unsigned long long)multi.count, call->size);
	vu->dev->waited_for = false; /* they were collected: the guest has gone on */
	for (uint64_t i = 0; i < multi.count; i++, at += sizeof write) {
		memcpy(&write, at, sizeof write);
		if (write.access.count > sizeof write.data)
			return outside(&write.access, err);
		if (write_to(vu, &write.access, (const char *)write.data, err))
			return -err->code;
	}
	memcpy(call->reply, &multi, sizeof multi);
	call->reply_size = sizeof multi;
	return 0;
}

static int device_reset(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	(void)call;
	if (vu->refused)
		return error_set(err, EIO, "that would not make its memory shared");
	pci_reset(vu->dev);
	return 0;
}

/* --- the table ---------------------------------------------------------------------- */

struct command {
	const char *name;
	uint32_t min_size, max_size; /* of the payload, bytes */
	unsigned max_fds;
	int (*handle)(struct vfio_user *vu, struct vfio_call *call, struct error *err);
};

#define EXACTLY(type)   sizeof(struct type), sizeof(struct type)
#define BEGINNING(type) sizeof(struct type), VFIO_USER_MESSAGE

static const struct command commands[VFIO_USER_COMMANDS] = {
	[VFIO_USER_VERSION] = { "VERSION", BEGINNING(vfio_user_version), 0, version },
	[VFIO_USER_DMA_MAP] = { "DMA_MAP", EXACTLY(vfio_user_dma_map), 1, dma_map_region },
	[VFIO_USER_DMA_UNMAP] = { "DMA_UNMAP", EXACTLY(vfio_user_dma_unmap), 0, dma_unmap_region },
	[VFIO_USER_DEVICE_GET_INFO] = { "DEVICE_GET_INFO", EXACTLY(vfio_user_device_info), 0,
					get_info },
	[VFIO_USER_DEVICE_GET_REGION_INFO] = { "DEVICE_GET_REGION_INFO",
					       EXACTLY(vfio_user_region_info), 0, get_region_info },
	[VFIO_USER_DEVICE_GET_IRQ_INFO] = { "DEVICE_GET_IRQ_INFO", EXACTLY(vfio_user_irq_info), 0,
					    vfio_user_get_irq_info },
	[VFIO_USER_DEVICE_SET_IRQS] = { "DEVICE_SET_IRQS", BEGINNING(vfio_user_irq_set),
					PCI_VECTORS, vfio_user_set_irqs },
	[VFIO_USER_REGION_READ] = { "REGION_READ", EXACTLY(vfio_user_region_access), 0,
				    region_read },
	[VFIO_USER_REGION_WRITE] = { "REGION_WRITE", BEGINNING(vfio_user_region_access), 0,
				     region_write },
	[VFIO_USER_DEVICE_RESET] = { "DEVICE_RESET", 0, 0, 0, device_reset },
	[VFIO_USER_REGION_WRITE_MULTI] = { "REGION_WRITE_MULTI", BEGINNING(vfio_user_write_multi),
					   0, region_write_multi },
};

int vfio_user_command(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	uint16_t id = call->header.command;
	const struct command *c = id < VFIO_USER_COMMANDS ? &commands[id] : NULL;
	int ret;

	if (!c || !c->handle)
		return error_set(err, EOPNOTSUPP, "command %u is not known", id);
	if (!vu->negotiated && c->handle != version) {
		vfio_user_fail(vu, "%s before VERSION", c->name);
		return 0;
	}
	if (call->size < c->min_size || call->size > c->max_size)
		return error_set(err, EINVAL, "%s: a payload of %u bytes; expected %u to %u",
				 c->name, call->size, c->min_size, c->max_size);
	if (call->fds->count > c->max_fds)
		return error_set(err, EINVAL, "%s: %u descriptors; expected %u at most", c->name,
				 call->fds->count, c->max_fds);
	ret = c->handle(vu, call, err);
	dma_recheck(&vu->dev->dma);
	return ret ? error_prefix(err, "%s", c->name) : 0;
}
