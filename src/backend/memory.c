/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.c - a back-end in this process's memory, gone when it ends
 *
 * One sparse anonymous mapping: pages come when they are written and go when they are
 * discarded. Queues on several loops may copy at once; requests that overlap have no order,
 * as on any disk.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "layer/layer.h"
#include "util/error.h"

struct memory_backend {
	struct layer layer;
	uint64_t size; /* bytes */
	char *bytes;
	uint64_t reserved; /* bytes of address space at @bytes, so that it can grow in place */
};

/* Address space is free; what resize may grow into is reserved from the start. */
static int memory_open(struct layer *layer, struct error *err)
{
	struct memory_backend *m = (struct memory_backend *)layer;
	char size[32];

	for (m->reserved = m->size > UINT64_MAX / 16 ? m->size : m->size * 16;
	     m->reserved >= m->size; m->reserved /= 2) {
		m->bytes = mmap(NULL, m->reserved, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (m->bytes != MAP_FAILED) {
			madvise(m->bytes, m->reserved, MADV_DONTDUMP);
			return 0;
		}
	}
	return error_set(err, ENOMEM, "cannot get %s of memory: %s",
			 format_size(m->size, size, sizeof size), strerror(errno));
}

static void memory_close(struct layer *layer)
{
	struct memory_backend *m = (struct memory_backend *)layer;

	munmap(m->bytes, m->reserved);
}

static void memory_limits(struct layer *layer, struct limits *limits)
{
	limits->size = ((struct memory_backend *)layer)->size;
	limits->block_size = 512;
	limits->physical_block_size = 512;
	limits->discard = true;
}

static int memory_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct memory_backend *m = (struct memory_backend *)layer;
	char a[32];

	if (size > m->reserved)
		return error_set(err, ENOSPC,
				 "memory: it can grow to %s at most while it is in use",
				 format_size(m->reserved, a, sizeof a));
	m->size = size;
	return 0;
}

/* Whole pages go back to the kernel, which brings them back as zeroes; the rest is written. */
static void clear(char *at, uint64_t length)
{
	const uintptr_t page = 4096;
	uintptr_t start = (uintptr_t)at, end = start + length;
	uintptr_t first = (start + page - 1) & ~(page - 1), last = end & ~(page - 1);

	if (first < last && !madvise((void *)first, last - first, MADV_DONTNEED)) {
		memset(at, 0, first - start);
		memset((void *)last, 0, end - last);
	} else {
		memset(at, 0, length);
	}
}

static void memory_submit(struct layer *layer, struct io *io)
{
	struct memory_backend *m = (struct memory_backend *)layer;
	char *at = m->bytes + io->offset;

	switch (io->op) {
	case IO_READ:
		io_data_copy_in(io->data, at, io->length);
		break;
	case IO_WRITE:
		io_data_copy_out(io->data, at, io->length);
		break;
	case IO_DISCARD:
	case IO_ZEROES:
		clear(at, io->length);
		break;
	default:
		break;
	}
	io_finish(io, 0);
}

static const struct option memory_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct memory_backend, size),
	  .fallback = "1G",
	  .min = 4096,
	  .max = 1ull << 44,
	  .help = "Size of the device. Memory is used only for what was written." },
	{ 0 },
};

const struct layer_ops memory_ops = {
	.name = "memory",
	.summary = "keeps the bytes in this process's memory, until it ends",
	.description =
		"A RAM disk: for scratch space, tests and benchmarks. Pages that were never written, "
		"or were discarded, take no memory. Nothing survives the end of the daemon.",
	.example = "disks:\n"
		   "  scratch:\n"
		   "    stack:\n"
		   "      - memory: {size: 4G}\n",
	.size = sizeof(struct memory_backend),
	.options = memory_options,
	.backend = true,
	.open = memory_open,
	.close = memory_close,
	.limits = memory_limits,
	.resize = memory_resize,
	.submit = memory_submit,
};
