/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.h - a guest's memory: the table of its regions, and the only way in
 *
 * A table is immutable; a change makes a new one, and an old one goes when the last
 * queue has let go of it. Mappings are shared by tables that both have the region.
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

/** Most regions of a table: what a VMM's GET_MAX_MEM_SLOTS learns. */
#define MEMORY_REGIONS 256

/** Memory of the VMM, mapped here. Counted; shared between tables. */
struct mapping {
	atomic_uint users;
	char *base;         /**< where the mapping begins */
	size_t length;      /**< bytes of it */
	atomic_bool broken; /**< some of it was gone when it was touched */
	int guard;          /**< its slot in guard.c */
};

struct region {
	uint64_t guest; /**< first guest physical address */
	uint64_t size;  /**< bytes */
	uint64_t user;  /**< the same byte in the VMM's address space */
	char *host;     /**< the same byte here */
	struct mapping *map;
};

struct memory {
	atomic_uint users;
	unsigned count;
	struct region region[]; /**< in the order of guest addresses, none overlapping */
};

/** A table without regions. NULL if memory is short. */
struct memory *memory_empty(void);

/**
 * @old and one more region: @size bytes of the file @fd from @offset, at @guest. The caller
 * keeps @fd. NULL, with @err, if it does not fit in, overlaps, or cannot be mapped.
 */
struct memory *memory_add(const struct memory *old, uint64_t guest, uint64_t size, uint64_t user,
			  int fd, uint64_t offset, struct error *err);

/** @old without the region that is exactly this. NULL, with @err, if there is none. */
struct memory *memory_remove(const struct memory *old, uint64_t guest, uint64_t size, uint64_t user,
			     struct error *err);

struct memory *memory_hold(struct memory *memory);

/** Lets go; the last one unmaps. NULL is allowed. Any thread. */
void memory_release(struct memory *memory);

/**
 * Adds [@guest, @guest+@length) to @vec, at most @room iovecs. How many it took, or
 * -EFAULT if some of it is outside, -E2BIG if it needs more than @room.
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
