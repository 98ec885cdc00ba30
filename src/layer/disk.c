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

uint32_t disk_block_size(const struct disk_config *config, const struct stack_config *stack)
{
	uint32_t natural = stack_natural_block_size(stack);

	if (config->block_size != DISK_BLOCK_AUTO)
		return (uint32_t)atoi(block_sizes[config->block_size]);
	return natural ? natural : 512;
}

/* --- opening -------------------------------------------------------------------------- */

/* A layer on top that makes the stack as large as the disk. */
static int push_extent(struct disk *disk, const struct stack_setting *setting, struct error *err)
{
	char size[32];
	struct layer_setting option = { (char *)"size", size, 0 };
	struct layer_config config = { .ops = layer_find("extent"),
				       .settings = &option,
				       .count = 1 };

	format_size(disk->config.size, size, sizeof size);
	disk->extent = stack_open_layer(setting, &config, disk->top, NULL, 0, NULL, err);
	if (!disk->extent)
		return -err->code;
	disk->top = disk->extent;
	return 0;
}

static int settle_limits(struct disk *disk, struct error *err)
{
	char blocks[32];
	uint64_t size = disk->config.size ? disk->config.size : disk->top->limits.size;

	disk->limits = disk->top->limits;
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
	atomic_store(&disk->discards, disk->limits.discard);
	if (!size)
		return error_set(err, EINVAL,
				 "the back-end has no room for one block of %u bytes; its option "
				 "'size' makes it larger",
				 disk->block_size);
	atomic_store(&disk->size, size);
	return 0;
}

static void own(struct layer *layer, void *disk)
{
	layer->owner = disk;
}

struct disk *disk_open(const char *name, const struct disk_config *config,
		       const struct stack_config *stack, unsigned *line_of_error, struct error *err)
{
	struct disk *disk = calloc(1, sizeof *disk);
	struct stack_setting setting = { .read_only = config->read_only };

	if (!disk || !(disk->name = strdup(name))) {
		error_set(err, ENOMEM, "out of memory");
		free(disk);
		return NULL;
	}
	pthread_mutex_init(&disk->gate.lock, NULL);
	list_init(&disk->gate.queues);
	list_init(&disk->listeners);
	disk->config = *config;
	if (config->reservations && !(disk->config.reservations = strdup(config->reservations))) {
		error_set(err, ENOMEM, "out of memory");
		disk_close(disk);
		return NULL;
	}
	disk->block_size = disk_block_size(config, stack);
	setting.disk = disk->name;
	setting.block_size = disk->block_size;
	disk->top = stack_open(&setting, stack, line_of_error, err);
	if (!disk->top ||
	    (config->size > disk->top->limits.size && push_extent(disk, &setting, err)) ||
	    settle_limits(disk, err) || stack_check_parts(disk->top, err)) {
		disk_close(disk);
		return NULL;
	}
	stack_plan(disk->top);
	stack_visit(disk->top, own, disk);
	return disk;
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	stack_close(disk->top);
	pthread_mutex_destroy(&disk->gate.lock);
	free(disk->config.reservations);
	free(disk->name);
	free(disk);
}

/* --- in service ------------------------------------------------------------------------ */

static void start_layer(struct layer *layer, void *home)
{
	if (layer->ops->start)
		layer->ops->start(layer, home);
}

void disk_start(struct disk *disk, struct loop *home)
{
	disk->home = home;
	stack_visit(disk->top, start_layer, home);
}

static bool any_closed(struct disk *disk)
{
	list_for_each (link, &disk->gate.queues)
		if (container_of(link, struct disk_queue, link)->closed)
			return true;
	return false;
}

/* The last thing to wait for. */
static void stop_queues(struct disk *disk, struct layer_stop *stop)
{
	bool wait;

	pthread_mutex_lock(&disk->gate.lock);
	wait = any_closed(disk);
	disk->gate.stop = wait ? stop : NULL;
	pthread_mutex_unlock(&disk->gate.lock);
	if (!wait)
		loop_send(stop->loop, &stop->done);
}

/* The work of several layers that is to end. */
struct stopping {
	struct disk *disk;
	struct layer_stop *then;
	unsigned left;
	struct one_stop {
		struct layer_stop stop;
		struct stopping *all;
	} each[];
};

static void one_stopped(struct loop_message *message)
{
	struct one_stop *one = container_of(message, struct one_stop, stop.done);
	struct stopping *all = one->all;

	if (--all->left)
		return;
	stop_queues(all->disk, all->then);
	free(all);
}

static void count_layer(struct layer *layer, void *count)
{
	*(unsigned *)count += layer->ops->stop != NULL;
}

static void stop_layer(struct layer *layer, void *data)
{
	struct stopping *all = data;
	struct one_stop *one = &all->each[all->left];

	if (!layer->ops->stop)
		return;
	one->all = all;
	one->stop = (struct layer_stop){ .loop = all->then->loop, .done.run = one_stopped };
	all->left++;
	layer->ops->stop(layer, &one->stop);
}

int disk_stop(struct disk *disk, struct layer_stop *stop)
{
	struct stopping *all;
	unsigned count = 0;

	if (disk->home)
		stack_visit(disk->top, count_layer, &count);
	if (!count) {
		disk->home = NULL;
		stop_queues(disk, stop);
		return 0;
	}
	all = calloc(1, sizeof *all + count * sizeof *all->each);
	if (!all)
		return -ENOMEM;
	disk->home = NULL;
	all->disk = disk;
	all->then = stop;
	stack_visit(disk->top, stop_layer, all);
	return 0;
}

/* --- size ------------------------------------------------------------------------------ */

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
	if (size > disk->top->limits.size) {
		if (disk->config.read_only)
			return error_set(err, EROFS,
					 "disk %s is read-only: its back-end cannot grow",
					 disk->name);
		ret = layer_resize(disk->top, size, err);
		stack_limits(disk->top);
		if (ret)
			return ret;
		if (size > disk->top->limits.size)
			return error_set(err, ENOTSUP,
					 "the back-end of disk %s holds %s and cannot grow to %s",
					 disk->name,
					 format_size(disk->top->limits.size, a, sizeof a),
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

/* --- queues, and the gate they pass ------------------------------------------------------ */

static void release(struct disk_queue *queue)
{
	struct disk *disk = queue->disk;
	struct layer_stop *stop = NULL;

	pthread_mutex_lock(&disk->gate.lock);
	list_remove(&queue->link);
	if (queue->attached)
		stack_queue_detach(disk->top, &queue->ios);
	if (disk->gate.stop && !any_closed(disk)) {
		stop = disk->gate.stop;
		disk->gate.stop = NULL;
	}
	pthread_mutex_unlock(&disk->gate.lock);
	io_queue_release(&queue->ios);
	free(queue);
	if (stop)
		loop_send(stop->loop, &stop->done);
}

static void emptied(struct io_queue *ios)
{
	struct disk_queue *queue = container_of(ios, struct disk_queue, ios);

	if (queue->emptied)
		queue->emptied(queue);
	if (queue->closed)
		release(queue);
}

struct disk_queue *disk_queue_open(struct disk *disk, struct loop *loop, unsigned depth,
				   unsigned vectors)
{
	struct disk_queue *queue = calloc(1, sizeof *queue);
	int ret;

	if (!queue)
		return NULL;
	pthread_mutex_lock(&disk->gate.lock);
	queue->disk = disk;
	queue->depth = depth;
	queue->waiting_last = &queue->waiting;
	/* While the layers are being changed it is fitted like all others, when they are there. */
	queue->shut = disk->gate.shut;
	queue->since = loop_now(loop);
	queue->attached = !queue->shut;
	if (queue->shut)
		ret = io_queue_init(&queue->ios, loop, depth, 0, 1, vectors);
	else
		ret = stack_queue_open(disk->top, &queue->ios, loop, depth, vectors);
	if (!ret) {
		queue->ios.empty = emptied;
		list_add(&disk->gate.queues, &queue->link);
	}
	pthread_mutex_unlock(&disk->gate.lock);
	if (!ret)
		return queue;
	free(queue);
	return NULL;
}

void disk_queue_close(struct disk_queue *queue)
{
	queue->ios.settled = NULL;
	if (!queue->ios.inside) {
		release(queue);
		return;
	}
	pthread_mutex_lock(&queue->disk->gate.lock);
	queue->closed = true;
	pthread_mutex_unlock(&queue->disk->gate.lock);
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

static void stop_at_gate(struct disk_queue *queue, struct io *io)
{
	if (queue->failed) {
		io_finish(io, queue->failed);
		return;
	}
	io->next = NULL;
	*queue->waiting_last = io;
	queue->waiting_last = &io->next;
	queue->ios.inside--;
}

static void enter(struct disk_queue *queue, struct io *io)
{
	struct disk *disk = queue->disk;
	int ret = refusal(disk, io);

	if (ret || !(io->length || io->op == IO_FLUSH) ||
	    (io->op == IO_FLUSH && disk->config.cache == DISK_UNSAFE)) {
		io_finish(io, ret);
		return;
	}
	/* What the guest was offered may not be what the layers of today can do. */
	if (io->op == IO_DISCARD && !atomic_load_explicit(&disk->discards, memory_order_relaxed)) {
		io_finish(io, 0);
		return;
	}
	if (disk->config.cache == DISK_WRITETHROUGH)
		io->flags |= IO_FUA;
	else if (disk->config.cache == DISK_UNSAFE)
		io->flags &= (uint8_t)~IO_FUA;
	io_send(disk->top, io);
}

struct io_frame *disk_submit(struct disk_queue *queue, struct io *io, io_done_fn *done)
{
	struct io_frame *frame = io_push(NULL, io, done);

	/* Whatever becomes of it: while the gate is shut nothing but what waits there may be out.
	 */
	if (queue->shut)
		stop_at_gate(queue, io);
	else
		enter(queue, io);
	return frame;
}

int disk_queue_shut(struct disk_queue *queue)
{
	if (!queue->shut) {
		queue->shut = true;
		queue->since = loop_now(queue->ios.loop);
	}
	return queue->ios.inside ? -EBUSY : 0;
}

void disk_queue_detach(struct disk_queue *queue)
{
	if (queue->attached)
		stack_queue_detach(queue->disk->top, &queue->ios);
	queue->attached = false;
}

int disk_queue_pass(struct disk_queue *queue)
{
	struct layer *top = queue->disk->top;
	struct io *io;
	int ret = 0;

	if (!queue->attached) {
		ret = io_queue_refit(&queue->ios, stack_queue_parts(top, queue->depth),
				     stack_queue_frames(top), &queue->waiting);
		if (!ret)
			ret = stack_queue_attach(top, &queue->ios);
		queue->attached = !ret;
	}
	/* Without memory for it the gate stays shut, and requests fail there. */
	queue->shut = ret != 0;
	queue->failed = ret;
	while ((io = queue->waiting)) {
		queue->waiting = io->next;
		queue->ios.inside++;
		if (ret)
			io_finish(io, ret);
		else
			enter(queue, io);
	}
	queue->waiting_last = &queue->waiting;
	return ret;
}
