/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_client.c - one measured run of a virtio-blk or virtio-scsi load over vhost-user
 *
 * The load is a fixed number of requests kept in flight on one queue. Descriptors are formatted
 * once; a request then costs the client a new sector, a store into the ring and a look at the used
 * ring. A polling client makes no system call unless the server asks for a kick; a sleeping one
 * waits on the call event each time nothing is there.
 *
 * It connects, warms up, then measures: requests, latencies from a request's publication to its
 * collection, and the CPU time the server process used in the same interval. One line of JSON on
 * stdout.
 *
 * Two other uses: `--self` measures the client alone, against a device that completes everything in
 * this very thread; `--attach` connects to many sockets, does one read on each and holds them until
 * stdin closes.
 */
#include "client.h"
#include "scsi_driver.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 64 };

struct bench {
	const char *socket;
	bool scsi, write, sleeping, packed, indirect, self, attach;
	bool sequential, skewed; /* neither: anywhere */
	uint32_t block;
	unsigned depth, queue_size;
	double seconds, warmup;
	uint64_t span; /* bytes of the disk to touch; 0: all of it */
	pid_t server;
	int cpu;
};

/* Where the next request goes, in sectors. */
static inline uint64_t next_sector(const struct bench *bench, uint64_t blocks)
{
	static uint64_t state = 0x9e3779b97f4a7c15ull, position;

	if (bench->sequential)
		return (position++ % blocks) * (bench->block / 512);
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	uint64_t where = state >> 32;
	/* The third power: half of all requests go to an eighth of the blocks. */
	if (bench->skewed)
		where = (where * where >> 32) * where >> 32;
	return ((where * blocks) >> 32) * (bench->block / 512);
}

static inline void set_place(const struct bench *bench, struct slot *slot, uint64_t sector)
{
	if (bench->scsi) {
		uint32_t lba = htobe32((uint32_t)sector);
		memcpy(slot->command->cdb + 2, &lba, sizeof(lba));
	} else {
		slot->header->sector = sector;
	}
}

/* `--self`: the device's part of a split ring, done at once and in the same thread. */
static void complete_all(struct virtq *queue)
{
	uint16_t used = queue->used->idx;

	while (used != queue->avail->idx) {
		uint16_t head = queue->avail->ring[used & (queue->size - 1)];
		*queue->slot[head / queue->chain].status = VIRTIO_BLK_S_OK;
		queue->used->ring[used++ & (queue->size - 1)] =
			(struct vring_used_elem){ .id = head, .len = 1 };
	}
	__atomic_store_n(&queue->used->idx, used, __ATOMIC_RELEASE);
}

/* Takes back what is finished and sends it out again; how many it was. */
static int turn(const struct bench *bench, struct virtq *queue, uint64_t blocks,
		struct result *result, bool refill)
{
	uint16_t done[BATCH];
	int count = virtq_reap(queue, done, BATCH);

	if (count < 0)
		die("protocol error", queue->driver->error);
	if (!count)
		return 0;
	uint64_t now = ticks();
	for (int i = 0; i < count; i++) {
		struct slot *slot = &queue->slot[done[i]];
		histogram_add(&result->latency, now - slot->time);
		result->errors += *slot->status != VIRTIO_BLK_S_OK ||
				  (bench->scsi && slot->response->status);
		if (!refill) {
			virtq_release(queue, done[i]);
			continue;
		}
		set_place(bench, slot, next_sector(bench, blocks));
		slot->time = now;
		virtq_push(queue, done[i]);
	}
	result->requests += (uint64_t)count;
	if (refill)
		virtq_publish(queue);
	if (bench->self)
		complete_all(queue);
	return count;
}

static void wait_turn(const struct bench *bench, struct virtq *queue, struct result *result)
{
	if (!bench->sleeping) {
		relax();
		return;
	}
	result->sleeps++;
	int ret = virtq_wait(queue, STALL_S * 1000);
	if (ret)
		die("waiting for completions",
		    ret == -ENOMSG ? "no interrupt came" : "the server stalls");
}

static void run_for(const struct bench *bench, struct virtq *queue, uint64_t blocks, double seconds,
		    struct result *result)
{
	struct interval interval;

	memset(result, 0, sizeof(*result));
	interval_begin(&interval, bench->server);
	uint64_t now = interval.start, moved = now, end = now + (uint64_t)(seconds * 1e9);
	uint64_t kicks = queue->kicks;
	while (now < end) {
		/* The clock is looked at once in so many turns; it costs as much as a request. */
		int progress = 0;
		for (int i = 0; i < 64; i++) {
			int count = turn(bench, queue, blocks, result, true);
			if (!count)
				wait_turn(bench, queue, result);
			progress |= count;
		}
		now = now_ns(CLOCK_MONOTONIC);
		if (progress)
			moved = now;
		else if (now - moved > STALL_S * 1000000000ull)
			die("waiting for completions", "the server stalls");
	}
	interval_end(&interval, now, result);
	result->kicks = queue->kicks - kicks;
}

static void fill(uint8_t *bytes, size_t count)
{
	uint64_t state = 88172645463325252ull;

	for (size_t i = 0; i + 8 <= count; i += 8) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(bytes + i, &state, 8);
	}
}

static uint64_t disk_bytes(const struct bench *bench, struct virtq *queue)
{
	uint64_t bytes;

	if (bench->self)
		return 1ull << 30;
	if (!bench->scsi)
		return queue->driver->config.capacity * 512;
	if (scsi_settle(queue, 0, 0) || scsi_capacity(queue, &bytes))
		die(bench->socket, queue->driver->error);
	return bytes;
}

static void format(const struct bench *bench, struct virtq *queue, uint16_t slot)
{
	uint8_t cdb[10];

	if (!bench->scsi) {
		virtq_format(queue, slot, bench->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 0,
			     bench->block, 1, false);
		return;
	}
	scsi_cdb_rw(cdb, bench->write, 0, (uint16_t)(bench->block / 512));
	scsi_format(queue, slot, 0, 0, cdb, sizeof(cdb), bench->write ? SCSI_OUT : SCSI_IN,
		    bench->block, 1);
}

static void measure(const struct bench *bench)
{
	static struct result result;
	struct driver_options options = {
		.socket = bench->socket,
		.features = FEATURE(VIRTIO_RING_F_EVENT_IDX) |
			    (bench->packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
			    (bench->indirect ? FEATURE(VIRTIO_RING_F_INDIRECT_DESC) : 0),
		.queue_size = bench->queue_size,
		.slots = bench->depth,
		.slot_bytes = bench->block,
		.queues = bench->scsi ? SCSI_REQUESTS + 1 : 1,
		.scsi = bench->scsi,
	};
	struct driver *driver = driver_new(&options);

	if (!driver)
		die("driver", "out of memory");
	if (driver->options.slots < bench->depth)
		die("--depth", "more than the queue has room for");
	if (!bench->self && (driver_connect(driver) || driver_start(driver)))
		die(bench->socket, driver->error);
	struct virtq *queue = &driver->queue[driver->queues - 1];
	uint64_t disk = disk_bytes(bench, queue);
	uint64_t blocks = (bench->span && bench->span < disk ? bench->span : disk) / bench->block;
	if (!blocks)
		die(bench->socket, "the disk is smaller than one request");

	double ns = tick_ns();
	for (unsigned i = 0; i < bench->depth; i++) {
		uint16_t slot = (uint16_t)virtq_take(queue);
		fill(queue->slot[slot].data, bench->block);
		format(bench, queue, slot);
		set_place(bench, &queue->slot[slot], next_sector(bench, blocks));
		queue->slot[slot].time = ticks();
		virtq_push(queue, slot);
	}
	virtq_publish(queue);
	if (bench->self)
		complete_all(queue);

	run_for(bench, queue, blocks, bench->warmup, &result);
	run_for(bench, queue, blocks, bench->seconds, &result);
	print_result(&result, ns);
	while (queue->free_count < queue->slots)
		if (!turn(bench, queue, blocks, &result, false))
			wait_turn(bench, queue, &result);
	if (!bench->self && driver_stop(driver))
		die(bench->socket, driver->error);
	driver_close(driver);
	if (result.errors)
		die(bench->socket, "requests failed");
}

static void attach(char *const *sockets, int count)
{
	uint8_t bytes[4096];

	for (int i = 0; i < count; i++) {
		struct driver_options options = { .socket = sockets[i],
						  .slots = 4,
						  .slot_bytes = sizeof(bytes) };
		struct driver *driver;
		if (driver_open(&driver, &options))
			die(sockets[i], driver ? driver->error : "out of memory");
		if (blk_read(&driver->queue[0], 0, bytes, sizeof(bytes)) != VIRTIO_BLK_S_OK)
			die(sockets[i], "the first read failed");
	}
	puts("attached");
	fflush(stdout);
	while (getchar() != EOF)
		;
}

static const char usage[] =
	"usage: bench-client --socket SOCK [--device blk|scsi] [--op read|write]\n"
	"         [--sequential | --skewed]\n"
	"         [--block BYTES] [--depth N]\n"
	"         [--seconds S] [--warmup S] [--sleep] [--packed] [--indirect] [--queue-size N]\n"
	"         [--span BYTES] [--server PID] [--cpu N]\n"
	"       bench-client --self [--depth N]         the client's own cost, no server\n"
	"       bench-client --attach SOCK...           connect to all and hold until stdin "
	"closes\n";

/* What was asked for can be done. `sockets` are those to attach to. */
static bool makes_sense(const struct bench *bench, int sockets)
{
	if (bench->attach)
		return sockets > 0;
	return (bench->socket || bench->self) && bench->block && bench->block % 512 == 0 &&
	       bench->depth && bench->depth <= 1024 && bench->queue_size <= 1024 &&
	       !(bench->self &&
		 (bench->packed || bench->indirect || bench->sleeping || bench->scsi));
}

int main(int argc, char **argv)
{
	struct bench bench = { .block = 4096,
			       .depth = 32,
			       .queue_size = 512,
			       .seconds = 1,
			       .warmup = 0.1,
			       .cpu = -1 };
	const struct flag flags[] = {
		{ "socket", FLAG_TEXT, &bench.socket },
		{ "device", FLAG_IS, &bench.scsi, "scsi" },
		{ "op", FLAG_IS, &bench.write, "write" },
		{ "sequential", FLAG_GIVEN, &bench.sequential },
		{ "skewed", FLAG_GIVEN, &bench.skewed },
		{ "block", FLAG_UNSIGNED, &bench.block },
		{ "depth", FLAG_UNSIGNED, &bench.depth },
		{ "seconds", FLAG_REAL, &bench.seconds },
		{ "warmup", FLAG_REAL, &bench.warmup },
		{ "sleep", FLAG_GIVEN, &bench.sleeping },
		{ "packed", FLAG_GIVEN, &bench.packed },
		{ "indirect", FLAG_GIVEN, &bench.indirect },
		{ "queue-size", FLAG_UNSIGNED, &bench.queue_size },
		{ "span", FLAG_UINT64, &bench.span },
		{ "server", FLAG_INT, &bench.server },
		{ "cpu", FLAG_INT, &bench.cpu },
		{ "self", FLAG_GIVEN, &bench.self },
		{ "attach", FLAG_GIVEN, &bench.attach },
		{ 0 },
	};

	read_flags(argc, argv, flags, usage);
	if (!makes_sense(&bench, argc - optind))
		misused(usage);
	pin(bench.cpu);
	if (bench.attach)
		attach(argv + optind, argc - optind);
	else
		measure(&bench);
	return 0;
}
