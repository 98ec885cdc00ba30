/* SPDX-License-Identifier: BSD-3-Clause */
/* disk.c - a named disk over a stack: its size, its write cache, its queues; see disk.h */
#include "layer/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/log.h"

static const char *const block_sizes[] = { "auto", "512", "2048", "4096", NULL };
static const char *const caches[] = { "writeback", "writethrough", "unsafe", NULL };

const struct option disk_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct disk_config, size),
	  .min = 4096,
	  .max = 1ull << 60,
	  .help = "Size of the disk. Default: that of its back-end. A smaller disk shows the first "
		  "part of it; a larger one reads as zeroes beyond the end of the back-end, and a "
		  "write there fails." },
	{ .name = "block-size",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct disk_config, block_size),
	  .choices = block_sizes,
	  .fallback = "auto",
	  .help = "Logical block size that the guest sees, in bytes. auto: the natural one of the back-end "
		  "(2048 of iso), else 512." },
	{ .name = "cache",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct disk_config, cache),
	  .choices = caches,
	  .fallback = "writeback",
	  .help = "writeback: the guest sees a write cache, and its flushes are honoured. "
		  "writethrough: each write is on stable storage before it completes. unsafe: flushes "
		  "do nothing, so that a crash of the host loses data." },
	{ .name = "read-only",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct disk_config, read_only),
	  .fallback = "false",
	  .help = "Refuse every change; the back-end is opened for reading only." },
	{ .name = "shared",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct disk_config, shared),
	  .fallback = "false",
	  .help = "Several VMs may have the disk and write to it: for guests that know of one another, "
		  "with a cluster file system or SCSI reservations. Others soon destroy it." },
	{ .name = "reservations",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct disk_config, reservations),
	  .help = "Path of a file in which SCSI persistent reservations are kept over restarts, for guests "
		  "that ask for it (APTPL). Default: they end with the daemon, and guests are told so." },
	{ 0 },
};

uint32_t disk_block_size(const struct disk_config *config, const struct layer_ops *backend)
{
	if (config->block_size != DISK_BLOCK_AUTO)
		return (uint32_t)atoi(block_sizes[config->block_size]);
	return backend->natural_block_size ? backend->natural_block_size : 512;
}

/* A layer on top that makes the stack as large as the disk. */
static int push_extent(struct disk *disk, struct error *err)
{
	char size[32];
	struct layer_setting setting = { (char *)"size", size, 0 };
	struct layer_config config = { layer_find("extent"), 1, &setting };

	format_size(disk->config.size, size, sizeof size);
	return stack_push(disk->stack, &config, NULL, err);
}

static int settle_limits(struct disk *disk, struct error *err)
{
	char blocks[32];
	uint64_t size = disk->config.size ? disk->config.size : disk->stack->limits.size;

	disk->limits = disk->stack->limits;
	disk->config.read_only |= disk->limits.read_only;
	if (disk->limits.block_size > disk->block_size)
		return error_set(err, EINVAL,
				 "block-size: %u is smaller than the back-end's block of %u bytes; "
				 "expected %u",
				 disk->block_size, disk->limits.block_size,
				 disk->limits.block_size);
	if (disk->limits.physical_block_size < disk->block_size)
		disk->limits.physical_block_size = disk->block_size;
	if (disk->config.size && size % disk->block_size)
		return error_set(err, EINVAL, "size: %s is not a multiple of the block size %u",
				 format_size(size, blocks, sizeof blocks), disk->block_size);
	size -= size % disk->block_size;
	if (!size)
		return error_set(err, EINVAL, "the back-end has no room for one block of %u bytes",
				 disk->block_size);
	atomic_store(&disk->size, size);
	return 0;
}

struct disk *disk_open(const char *name, const struct disk_config *config,
		       const struct layer_config *layers, unsigned count, unsigned *line_of_error,
		       struct error *err)
{
	struct disk *disk = calloc(1, sizeof *disk);

	if (!disk || !(disk->name = strdup(name))) {
		error_set(err, ENOMEM, "out of memory");
		free(disk);
		return NULL;
	}
	disk->config = *config;
	if (config->reservations && !(disk->config.reservations = strdup(config->reservations))) {
		error_set(err, ENOMEM, "out of memory");
		disk_close(disk);
		return NULL;
	}
	disk->block_size = disk_block_size(config, layers[count - 1].ops);
	list_init(&disk->listeners);
	disk->stack = stack_open(disk->name, config->read_only, disk->block_size, layers, count,
				 line_of_error, err);
	if (!disk->stack || (config->size > disk->stack->limits.size && push_extent(disk, err)) ||
	    settle_limits(disk, err)) {
		disk_close(disk);
		return NULL;
	}
	return disk;
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	stack_close(disk->stack);
	free(disk->config.reservations);
	free(disk->name);
	free(disk);
}

int disk_resize(struct disk *disk, uint64_t size, struct error *err)
{
	uint64_t now = atomic_load(&disk->size);
	char a[32], b[32];
	int ret;

	if (size % disk->block_size)
		return error_set(err, EINVAL, "%s is not a multiple of the block size %u",
				 format_size(size, a, sizeof a), disk->block_size);
	if (size < now)
		return error_set(
			err, EINVAL, "disk %s is %s now and cannot shrink to %s while it is in use",
			disk->name, format_size(now, a, sizeof a), format_size(size, b, sizeof b));
	if (size > disk->stack->limits.size) {
		if (disk->config.read_only)
			return error_set(err, EROFS,
					 "disk %s is read-only: its back-end cannot grow",
					 disk->name);
		ret = stack_resize(disk->stack, size, err);
		if (ret)
			return ret;
		if (size > disk->stack->limits.size)
			return error_set(err, ENOTSUP,
					 "the back-end of disk %s holds %s and cannot grow to %s",
					 disk->name,
					 format_size(disk->stack->limits.size, a, sizeof a),
					 format_size(size, b, sizeof b));
	}
	if (size == now)
		return 0;
	atomic_store(&disk->size, size);
	log_info("disk %s: grown from %s to %s", disk->name, format_size(now, a, sizeof a),
		 format_size(size, b, sizeof b));
	list_for_each (link, &disk->listeners) {
		struct disk_listener *l = container_of(link, struct disk_listener, link);

		l->resized(l);
	}
	return 0;
}

void disk_listen(struct disk *disk, struct disk_listener *listener)
{
	list_add(&disk->listeners, &listener->link);
}

void disk_unlisten(struct disk_listener *listener)
{
	list_remove(&listener->link);
}

int disk_queue_open(struct disk *disk, struct io_queue *queue, struct loop *loop, unsigned depth,
		    unsigned vectors)
{
	/* One frame more than the layers need: the front-end's. */
	int ret = io_queue_init(queue, loop, depth, depth * disk->stack->parts,
				disk->stack->frames + 1, vectors);

	if (ret)
		return ret;
	ret = stack_queue_open(disk->stack, queue);
	if (ret)
		io_queue_release(queue);
	return ret;
}

void disk_queue_close(struct disk *disk, struct io_queue *queue)
{
	stack_queue_close(disk->stack, queue);
	io_queue_release(queue);
}

static int refusal(const struct disk *disk, const struct io *io)
{
	uint64_t size = atomic_load_explicit(&disk->size, memory_order_relaxed);

	if (io->op == IO_FLUSH)
		return 0;
	if (io->op != IO_READ && disk->config.read_only)
		return -EROFS;
	if (io->offset > size || io->length > size - io->offset)
		return -ERANGE;
	if ((io->offset | io->length) & (disk->block_size - 1))
		return -EINVAL;
	return 0;
}

struct io_frame *disk_submit(struct disk *disk, struct io *io, io_done_fn *done)
{
	struct io_frame *frame = io_push(NULL, io, done);
	int ret = refusal(disk, io);

	if (ret || !(io->length || io->op == IO_FLUSH) ||
	    (io->op == IO_FLUSH && disk->config.cache == DISK_UNSAFE)) {
		io_finish(io, ret);
		return frame;
	}
	if (disk->config.cache == DISK_WRITETHROUGH)
		io->flags |= IO_FUA;
	else if (disk->config.cache == DISK_UNSAFE)
		io->flags &= (uint8_t)~IO_FUA;
	io_send(disk->stack->layers[0], io);
	return frame;
}
