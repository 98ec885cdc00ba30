/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blk.c - the virtio block device (virtio 1.2, section 5.2) over any disk
 *
 * A request is a chain: a 16-byte header that the device reads, data, and one status byte
 * that it writes. How the driver cuts that into descriptors is its own affair, so the
 * header is copied from wherever it lies, and the status byte is the last writable one.
 *
 * The way of a request: blk_poll() pops a batch and prefetches the headers, start() turns
 * each into an io on the disk, completed() writes the status and gives the chain back,
 * settled() shows the batch to the driver. What is needed on the way back, the chain's
 * identity and the status byte's address, is in the two notes of the io's first frame.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/virtio/device.h"
#include "frontend/virtio/settings.h"
#include "frontend/virtio/virtqueue.h"
#include "layer/disk.h"
#include "layer/stack.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/log.h"

#define SECTOR      512u
#define SEG_MAX     126u           /* data segments of a request; what Linux uses by default */
#define VECTORS     (SEG_MAX + 6u) /* and header, status, segments that cross memory regions */
#define SEG_BYTES   (4u << 20)     /* bytes of a segment */
#define LENGTH_MAX  (1ull << 30)   /* bytes of a request */
#define DISCARD_MAX (1ull << 30)   /* bytes of a discard or write-zeroes */
#define BATCH       32             /* chains popped before the first is started, at most */
#define BATCH_FIRST 8              /* the same after the ring was empty: see blk_poll() */

extern const struct frontend virtio_blk_frontend;

struct blk {
	struct virtio_device dev;
	struct disk_listener listener;
	char serial[VIRTIO_BLK_ID_BYTES];
	atomic_bool writeback; /* what the driver set, or its default */
	bool flush;            /* negotiated */
};

/* One queue of it. */
struct blk_queue {
	struct virtqueue *vq;
	struct blk *blk;
	struct disk *disk;
	struct queue_stats *stats;
	unsigned batch; /* chains to pop next time */
	struct disk_queue *queue;
};

static struct blk *blk_of(struct virtio_device *dev)
{
	return container_of(dev, struct blk, dev);
}

static struct disk *blk_disk(const struct virtio_device *dev)
{
	return dev->device.units[0].disk;
}

/* --- features and config space ------------------------------------------------------ */

static uint64_t blk_features(struct virtio_device *dev)
{
	const struct disk *disk = blk_disk(dev);
	uint64_t features = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
			    1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
			    1ull << VIRTIO_BLK_F_MQ;

	if (disk->config.read_only)
		return features | 1ull << VIRTIO_BLK_F_RO;
	features |= 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE;
	if (disk->limits.discard)
		features |= 1ull << VIRTIO_BLK_F_DISCARD;
	return features | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void blk_negotiated(struct virtio_device *dev, uint64_t features)
{
	struct blk *blk = blk_of(dev);

	blk->flush = features & (1ull << VIRTIO_BLK_F_FLUSH);
	/* A driver that cannot flush expects writes to be stable (5.2.6.2). */
	if (!(features & (1ull << VIRTIO_BLK_F_CONFIG_WCE)))
		atomic_store(&blk->writeback,
			     blk->flush && blk_disk(dev)->config.cache != DISK_WRITETHROUGH);
}

static void blk_reset(struct virtio_device *dev)
{
	atomic_store(&blk_of(dev)->writeback, blk_disk(dev)->config.cache != DISK_WRITETHROUGH);
}

static uint64_t blk_state(struct virtio_device *dev)
{
	return atomic_load(&blk_of(dev)->writeback);
}

static void blk_set_state(struct virtio_device *dev, uint64_t state)
{
	atomic_store(&blk_of(dev)->writeback, state & 1);
}

/* A chain has at most as many descriptors as the ring (2.6.5.3.1), header and status included. */
static uint32_t seg_max(const struct virtio_device *dev)
{
	return dev->device.queue_size - 2 < SEG_MAX ? dev->device.queue_size - 2 : SEG_MAX;
}

static void blk_config_read(struct virtio_device *dev, void *space)
{
	const struct blk *blk = blk_of(dev);
	const struct disk *disk = blk_disk(dev);
	struct virtio_blk_config *config = space;
	uint32_t block = disk->block_size, physical = disk->limits.physical_block_size;

	*config = (struct virtio_blk_config){
		.capacity = htole64(atomic_load(&disk->size) / SECTOR),
		.size_max = htole32(SEG_BYTES),
		.seg_max = htole32(seg_max(dev)),
		.blk_size = htole32(block),
		.physical_block_exp = (uint8_t)__builtin_ctz(physical / block),
		.min_io_size = htole16((uint16_t)(physical / block)),
		.opt_io_size = htole32(disk->limits.optimal_io / block),
		.wce = atomic_load(&blk->writeback),
		.num_queues = htole16((uint16_t)dev->device.queues),
		.max_discard_sectors = htole32(DISCARD_MAX / SECTOR),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32(physical / SECTOR),
		.max_write_zeroes_sectors = htole32(DISCARD_MAX / SECTOR),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = disk->limits.discard,
	};
}

/* Only the write cache's mode is the driver's to set (5.2.5.1). */
static int blk_config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			    uint32_t length)
{
	struct blk *blk = blk_of(dev);

	if (offset != offsetof(struct virtio_blk_config, wce) || length != 1 ||
	    *(const uint8_t *)data > 1 || blk_disk(dev)->config.read_only)
		return -EINVAL;
	atomic_store(&blk->writeback, *(const uint8_t *)data == 1);
	log_info("vm %s: virtio-blk %s: the guest turned its write cache %s", dev->device.vm,
		 blk_disk(dev)->name, *(const uint8_t *)data ? "on" : "off");
	return 0;
}

static void blk_resized(struct disk_listener *listener)
{
	struct virtio_device *dev = &container_of(listener, struct blk, listener)->dev;

	if (dev->config_changed)
		dev->config_changed(dev);
}

/* --- queues ------------------------------------------------------------------------- */

static void settled(struct io_queue *ios)
{
	struct blk_queue *q = ios->owner;

	atomic_store_explicit(&q->stats->in_flight, ios->out, memory_order_relaxed);
	virtqueue_flush(q->vq);
}

static unsigned blk_outstanding(struct virtqueue *vq)
{
	return ((struct blk_queue *)vq->type)->queue->ios.out;
}

static int blk_queue_start(struct virtio_device *dev, struct virtqueue *vq)
{
	struct blk_queue *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->vq = vq;
	q->blk = blk_of(dev);
	q->disk = blk_disk(dev);
	q->stats = &dev->device.units[0].stats[vq->index];
	q->batch = BATCH_FIRST;
	/* One more than the ring has places: a guest that has too many under way is found out. */
	q->queue = disk_queue_open(q->disk, vq->loop, vq->size + 1u, VECTORS);
	if (!q->queue) {
		free(q);
		return -ENOMEM;
	}
	q->queue->ios.owner = q;
	q->queue->ios.settled = settled;
	vq->type = q;
	vq->outstanding = blk_outstanding;
	return 0;
}

static void blk_queue_stop(struct virtqueue *vq)
{
	struct blk_queue *q = vq->type;

	disk_queue_close(q->queue);
	atomic_store_explicit(&q->stats->in_flight, 0, memory_order_relaxed);
	vq->type = NULL;
	free(q);
}

/* --- the end of a request ----------------------------------------------------------- */

enum { NOTE_STATUS, NOTE_CHAIN };

static uint64_t pack_chain(const struct chain *chain)
{
	return chain->id | (uint64_t)chain->slots << 16 | (uint64_t)chain->record << 32;
}

static void give_back(struct blk_queue *q, const struct io_frame *frame, uint8_t status,
		      uint32_t written)
{
	uint64_t c = frame->note[NOTE_CHAIN];
	struct chain chain = { .id = (uint16_t)c,
			       .slots = (uint16_t)(c >> 16),
			       .record = (uint16_t)(c >> 32) };

	*(volatile uint8_t *)(uintptr_t)frame->note[NOTE_STATUS] = status;
	virtqueue_push(q->vq, &chain, written);
}

static uint8_t status_of(int error)
{
	return error == 0             ? VIRTIO_BLK_S_OK
	       : error == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
				      : VIRTIO_BLK_S_IOERR;
}

static void completed(struct layer *layer, struct io *io)
{
	struct blk_queue *q = io->queue->owner;
	uint64_t bytes = io->op == IO_FLUSH ? 0 : io->length;

	(void)layer;
	stats_count(q->stats, io->op, io->status ? 0 : bytes, io->status,
		    loop_now(q->vq->loop) - io->started);
	give_back(q, io_frame(io), status_of(io->status),
		  1 + (io->op == IO_READ ? (uint32_t)io->length : 0));
	io_put(io);
}

/* Ends a request that never became one of the disk's. The rest of its turn shows it. */
static void end(struct blk_queue *q, struct io *io, uint8_t status, uint32_t written)
{
	give_back(q, &io->frame[0], status, written);
	io_put(io);
	loop_task_queue(q->vq->loop, &q->queue->ios.task);
}

/* --- the start of a request --------------------------------------------------------- */

/* The writable bytes of a chain but the last one, which is returned; NULL if there is none. */
static uint8_t *take_status(struct chain *chain, struct iovec *writable)
{
	struct iovec *last = chain->writable ? &writable[chain->writable - 1] : NULL;

	if (!last)
		return NULL;
	last->iov_len--;
	chain->write_bytes--;
	if (!last->iov_len)
		chain->writable--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

static struct io_data readable_from(const struct chain *chain, struct iovec *vec, uint64_t start)
{
	struct io_data all = { .vec = vec, .count = chain->readable };

	return io_data_slice(all, start);
}

static void start_get_id(struct blk_queue *q, struct io *io, const struct chain *chain,
			 struct iovec *vec)
{
	struct io_data all = { .vec = vec + chain->readable, .count = chain->writable };
	uint32_t n = VIRTIO_BLK_ID_BYTES;

	if (n > chain->write_bytes)
		n = (uint32_t)chain->write_bytes;
	io_data_copy_in(all, q->blk->serial, n);
	end(q, io, VIRTIO_BLK_S_OK, n + 1);
}

/* One segment: that is what we offer, in max_discard_seg and max_write_zeroes_seg. */
static void start_discard(struct blk_queue *q, struct io *io, uint32_t type,
			  const struct chain *chain, struct iovec *vec)
{
	struct virtio_blk_discard_write_zeroes seg;
	uint32_t flags, allowed = type == VIRTIO_BLK_T_WRITE_ZEROES
					  ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
					  : 0;
	uint64_t length;

	uint64_t feature = type == VIRTIO_BLK_T_DISCARD ? VIRTIO_BLK_F_DISCARD
							: VIRTIO_BLK_F_WRITE_ZEROES;

	if (!(q->blk->dev.features >> feature & 1) ||
	    chain->read_bytes != sizeof(struct virtio_blk_outhdr) + sizeof seg) {
		end(q, io, VIRTIO_BLK_S_UNSUPP, 1);
		return;
	}
	io_data_copy_out(readable_from(chain, vec, sizeof(struct virtio_blk_outhdr)), &seg,
			 sizeof seg);
	flags = le32toh(seg.flags);
	length = (uint64_t)le32toh(seg.num_sectors) * SECTOR;
	if (flags & ~allowed) {
		end(q, io, VIRTIO_BLK_S_UNSUPP, 1);
		return;
	}
	if (length > DISCARD_MAX || le64toh(seg.sector) > UINT64_MAX / SECTOR) {
		end(q, io, VIRTIO_BLK_S_IOERR, 1);
		return;
	}
	io->op = type == VIRTIO_BLK_T_DISCARD ? IO_DISCARD : IO_ZEROES;
	if (flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
		io->flags |= IO_UNMAP;
	io->offset = le64toh(seg.sector) * SECTOR;
	io->length = length;
	if (!(q->blk->flush && atomic_load_explicit(&q->blk->writeback, memory_order_relaxed)))
		io->flags |= IO_FUA;
	disk_submit(q->queue, io, completed);
}

static void start_read_write(struct blk_queue *q, struct io *io, bool write, uint64_t sector,
			     const struct chain *chain, struct iovec *vec)
{
	if (write) {
		io->op = IO_WRITE;
		io->data = readable_from(chain, vec, sizeof(struct virtio_blk_outhdr));
		io->length = chain->read_bytes - sizeof(struct virtio_blk_outhdr);
		if (!(q->blk->flush &&
		      atomic_load_explicit(&q->blk->writeback, memory_order_relaxed)))
			io->flags |= IO_FUA;
	} else {
		io->op = IO_READ;
		io->data =
			(struct io_data){ .vec = vec + chain->readable, .count = chain->writable };
		io->length = chain->write_bytes;
	}
	if (!io->length || io->length > LENGTH_MAX || sector > UINT64_MAX / SECTOR) {
		end(q, io, VIRTIO_BLK_S_IOERR, 1);
		return;
	}
	io->offset = sector * SECTOR;
	disk_submit(q->queue, io, completed);
}

/* False if the chain is no request at all. */
static bool start(struct blk_queue *q, struct io *io, struct chain *chain)
{
	struct iovec *vec = io_vector(io);
	struct virtio_blk_outhdr header;
	uint8_t *status;

	if (chain->read_bytes < sizeof header) {
		virtqueue_break(q->vq, "a request with %llu readable bytes has no header",
				(unsigned long long)chain->read_bytes);
		return false;
	}
	status = take_status(chain, vec + chain->readable);
	if (!status) {
		virtqueue_break(q->vq, "a request without a byte for its status");
		return false;
	}
	if (vec->iov_len >= sizeof header)
		memcpy(&header, vec->iov_base, sizeof header);
	else
		io_data_copy_out(readable_from(chain, vec, 0), &header, sizeof header);
	/* The first frame will be ours: disk_submit() pushes it, and leaves the notes alone. */
	io->frame[0].note[NOTE_STATUS] = (uintptr_t)status;
	io->frame[0].note[NOTE_CHAIN] = pack_chain(chain);
	io->started = loop_now(q->vq->loop);
	switch (le32toh(header.type)) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		start_read_write(q, io, le32toh(header.type) == VIRTIO_BLK_T_OUT,
				 le64toh(header.sector), chain, vec);
		break;
	case VIRTIO_BLK_T_FLUSH:
		io->op = IO_FLUSH;
		io->offset = io->length = 0;
		disk_submit(q->queue, io, completed);
		break;
	case VIRTIO_BLK_T_GET_ID:
		start_get_id(q, io, chain, vec);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		start_discard(q, io, le32toh(header.type), chain, vec);
		break;
	default:
		end(q, io, VIRTIO_BLK_S_UNSUPP, 1);
		break;
	}
	return true;
}

/*
 * A guest that wants interrupts and has just filled the ring is on its way to sleep: the first few
 * are taken alone, so that it hears of them sooner, and the rest comes while it wakes up.
 */
static bool blk_poll(struct virtqueue *vq)
{
	struct blk_queue *q = vq->type;
	struct chain chain[BATCH];
	struct io *batch[BATCH];
	unsigned n = 0, i;

	while (n < q->batch) {
		struct io *io = io_get(&q->queue->ios);

		if (!io)
			break;
		if (virtqueue_pop(vq, &chain[n], io_vector(io), VECTORS) <= 0) {
			io_put(io);
			break;
		}
		if (q->queue->ios.out > vq->size) {
			virtqueue_break(vq, "more than %u requests in a ring of %u", vq->size,
					vq->size);
			io_put(io);
			break;
		}
		__builtin_prefetch(io_vector(io)->iov_base);
		batch[n++] = io;
	}
	q->batch = n < q->batch && vq->interrupted ? BATCH_FIRST : BATCH;
	for (i = 0; i < n && !vq->broken; i++)
		if (!start(q, batch[i], &chain[i]))
			break;
	for (; i < n; i++)
		io_put(batch[i]);
	return n > 0;
}

/* --- made and gone ------------------------------------------------------------------ */

/** What a user says about it. */
struct blk_settings {
	uint64_t queues;     /* 1..32 */
	uint64_t queue_size; /* entries, a power of two, 16..1024 */
	bool pin;            /* register guest memory with the kernel */
	char *serial;        /* at most 20 bytes; NULL: the disk's name */
};

static void blk_destroy(struct device *device)
{
	struct blk *blk = container_of(device, struct blk, dev.device);

	disk_unlisten(&blk->listener);
	device_release(device);
	free(blk);
}

static const struct device_ops device_ops = { .destroy = blk_destroy };

static const struct virtio_device_ops blk_ops = {
	.config_size = sizeof(struct virtio_blk_config),
	.features = blk_features,
	.negotiated = blk_negotiated,
	.reset = blk_reset,
	.state = blk_state,
	.set_state = blk_set_state,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.queue_start = blk_queue_start,
	.queue_stop = blk_queue_stop,
	.queue_poll = blk_poll,
};

static int blk_check(const void *settings, const void *const *units, unsigned count,
		     struct error *err)
{
	const struct blk_settings *blk = settings;

	(void)units;
	(void)count;
	if (blk->serial && strlen(blk->serial) > VIRTIO_BLK_ID_BYTES)
		return error_set(err, EINVAL, "serial: '%s' is too long; expected at most %d bytes",
				 blk->serial, VIRTIO_BLK_ID_BYTES);
	return virtio_check_queue_size(blk->queue_size, err);
}

static struct device *blk_create(const struct device_plan *plan, struct error *err)
{
	const struct blk_settings *settings = plan->settings;
	struct disk *disk = plan->units[0].disk;
	const char *serial = settings->serial ? settings->serial : disk->name;
	struct blk *blk = calloc(1, sizeof *blk);
	struct device *device;

	if (!blk) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	device = &blk->dev.device;
	device->kind = virtio_blk_frontend.name;
	device->transport = virtio_blk_frontend.transport->name;
	device->ops = &device_ops;
	if (device_init(device, plan, 1, (unsigned)settings->queues, err)) {
		free(blk);
		return NULL;
	}
	device->queue_size = (unsigned)settings->queue_size;
	device->units[0].present = true;
	device->units[0].disk = disk;
	memcpy(blk->serial, serial, strnlen(serial, sizeof blk->serial));
	blk->dev.ops = &blk_ops;
	blk->dev.pin = settings->pin;
	blk->dev.single_loop = stack_single_loop(disk->top);
	blk->listener.resized = blk_resized;
	disk_listen(disk, &blk->listener);
	blk_reset(&blk->dev);
	return device;
}

static const struct option options[] = {
	VIRTIO_OPTIONS(struct blk_settings, DEVICE_QUEUES),
	{ .name = "serial",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct blk_settings, serial),
	  .help = "What the guest sees as the disk's serial number, at most 20 bytes. Default: the name of "
		  "the disk." },
	{ 0 },
};

const struct frontend virtio_blk_frontend = {
	.name = "virtio-blk",
	.summary = "the virtio block device: one disk, as fast as it gets",
	.description =
		"The block device of virtio 1.2 (section 5.2): read, write, flush, discard, write-zeroes, "
		"several queues. Linux, the BSDs and current firmware have a driver; Windows takes one "
		"from the virtio-win collection. The guest notices at once when the disk grows.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - memory: {size: 1G}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-blk: db, socket: ./web-db.sock, queues: 2}\n",
	.transport = &vhost_user_transport,
	.qemu_device = "vhost-user-blk-pci,chardev={chardev},num-queues={queues},"
		       "queue-size={queue-size}",
	.reconnects = true,
	.settings_size = sizeof(struct blk_settings),
	.options = options,
	.units = 1,
	.check = blk_check,
	.create = blk_create,
};
