/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.h - a guest's memory: the table of its regions, and the only way in
 *
 * A table that more than one holds is immutable: a change makes a new one, and the old one goes
 * when the last queue or transfer has let go of it. While nobody else holds it, it is changed in
 * place, so that thousands of regions (a virtual IOMMU has one a page) come and go cheaply.
 *
 * Regions of one file share one mapping, of the whole file. A region may also be without: the VMM
 * has announced it, but sent no descriptor, or does not let us write there. Such memory is reached
 * by messages (dma.h).
 *
 * The only way to guest memory is a checked gather: (guest address, length) becomes
 * iovecs inside mapped regions, or an error. Ring addresses, which vhost-user gives in
 * the VMM's own address space, go through memory_user().
 *
 * The other side may truncate the file behind a mapping; touching what is gone raises
 * SIGBUS. guard.c turns that into zero pages and a mark on the mapping: the device
 * breaks, the process lives.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct error;
struct loop;

/** Most regions of a table. */
#define MEMORY_REGIONS 65535

/** In mapping.checked: it needs no more of that. */
#define MAPPING_CHECKED UINT16_MAX

/** Memory of the VMM, mapped here. Counted; shared between tables. */
struct mapping {
	atomic_uint users;
	char *base;         /**< where the mapping begins */
	size_t length;      /**< bytes of it */
	uint64_t offset;    /**< in the file, of @base */
	dev_t device;       /**< the file's */
	ino_t inode;        /**< the file's; 0: no other region may share it */
	atomic_bool broken; /**< some of it was gone when it was touched */
	uint16_t checked;   /**< dma.c's: how often it was compared with what the guest uses */
	int guard;          /**< its slot in guard.c */
};

struct region {
	uint64_t guest;      /**< first guest physical address */
	uint64_t size;       /**< bytes */
	uint64_t user;       /**< the same byte in the VMM's address space */
	char *host;          /**< the same byte here; NULL: announced only */
	struct mapping *map; /**< NULL: announced only */
};

struct memory {
	atomic_uint users;
	unsigned count, room;
	struct region region[]; /**< in the order of guest addresses, none overlapping */
};

/** A table without regions. NULL if memory is short. */
struct memory *memory_empty(void);

/**
 * One more region: @size bytes of the file @fd from @offset, at @guest. -1 as @fd: it is announced
 * only. The caller keeps @fd. The caller's hold on *@memory becomes one on the changed table. 0, or
 * -errno with @err and *@memory as it was, if it does not fit in, overlaps, or cannot be mapped.
 */
int memory_add(struct memory **memory, uint64_t guest, uint64_t size, uint64_t user, int fd,
	       uint64_t offset, struct error *err);

/** Without the region that is exactly this; as above. -EINVAL if there is none. */
int memory_remove(struct memory **memory, uint64_t guest, uint64_t size, uint64_t user,
		  struct error *err);

/** The region that holds @guest, or NULL. */
const struct region *memory_find(const struct memory *memory, uint64_t guest);

struct memory *memory_hold(struct memory *memory);

/** Lets go; the last one unmaps. NULL is allowed. Any thread. */
void memory_release(struct memory *memory);

/**
 * Adds [@guest, @guest+@length) to @vec, at most @room iovecs. How many it took, or
 * -EFAULT if some of it is outside, -E2BIG if it needs more than @room, -EREMOTE if all of it up to
 * @room is known, but some is announced only.
 */
int memory_gather(const struct memory *memory, uint64_t guest, uint64_t length, struct iovec *vec,
		  unsigned room);

/**
 * Registers all of it with @loop, see loop_memory_add(). 0, or -errno with nothing registered. On
 * the loop's own thread.
 */
int memory_pin(const struct memory *memory, struct loop *loop);
void memory_unpin(const struct memory *memory, struct loop *loop);

/** Our address of @length bytes at the VMM's own address @user; NULL unless inside one region. */
void *memory_user(const struct memory *memory, uint64_t user, uint64_t length);

/** Some of it was truncated under us. */
bool memory_broken(const struct memory *memory);

/* --- guard.c ------------------------------------------------------------------------ */

/** Counts how often a mapping was found broken, in the whole process: a cheap first look. */
extern atomic_uint memory_faults;

/** Catches SIGBUS; once, before any mapping. */
void memory_guard_install(void);

/** Protects [@base, @base+@length); @broken is set when it is hit. A slot, or -ENOSPC. */
int memory_guard_add(char *base, size_t length, atomic_bool *broken);
void memory_guard_remove(int slot);
