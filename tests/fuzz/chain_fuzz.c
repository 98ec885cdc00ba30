/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chain_fuzz.c - rings and descriptor chains of a guest that writes anything
 *
 * The input is a ring's setup, then the guest's memory, then the inflight region. A queue of
 * virtio-blk or virtio-scsi is started on it as the transport would, serves for some turns of its
 * loop and is stopped; an event queue has something to tell in each. The guest's memory has holes,
 * adjacent regions, and one that ends near the top of the address space; each region is an
 * allocation of its own, so that the sanitizer sees a step outside.
 *
 *     byte 0     1 packed, 2 indirect, 4 event index, 8 inflight region, 16 flush negotiated
 *     byte 1     queue (modulo 6): 0-2 virtio-blk on memory, null, memory read-only;
 *                3-5 virtio-scsi's for control, events, requests
 *     byte 2     ring: 1..32 entries (split: a power of two)
 *     bytes 3-6  base
 *     from 7     guest memory: REGIONS, one after another, as far as the input goes; then
 *                the inflight region
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_scsi.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/virtio/device.h"
#include "frontend/virtio/scsi_private.h"
#include "frontend/virtio/virtqueue.h"
#include "fuzz.h"
#include "layer/disk.h"
#include "memory/memory.h"
#include "util/error.h"

#define ENTRIES 32 /* of the largest ring */
#define TURNS   4  /* of the loop, for each input */

/* Of region 0, where the ring is. */
enum { DRIVER_AREA = 16 * ENTRIES, DEVICE_AREA = DRIVER_AREA + 80 };

static const struct {
	uint64_t guest, size;
} regions[] = {
	{ 0, 0x800 },
	{ 0x800, 0x400 }, /* adjacent */
	{ 0x1000, 0x200 },
	{ UINT64_MAX - 0x3ff, 0x300 },
};
#define REGIONS (sizeof regions / sizeof *regions)

static struct virtio_device *device[4];
static struct loop *loop;
static sem_t finished;

/* One input under way; on the loop's thread from first_turn() on. */
static struct run {
	struct loop_message turn;
	struct virtqueue_setup setup;
	struct virtio_device *device;
	unsigned queue, turns;
	struct virtqueue *vq;
} run;

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	static const char *const kind[] = { "memory", "null", "memory" };
	static const char *const options[] = { "queue-size", "32", NULL };

	(void)count;
	(void)arguments;
	sem_init(&finished, 0, 0);
	loop = fuzz_loop("fuzz");
	for (unsigned i = 0; i < 3; i++)
		device[i] = container_of(
			fuzz_device("virtio-blk", "none", fuzz_disk(kind[i], i == 2), options),
			struct virtio_device, device);
	device[3] = container_of(
		fuzz_device("virtio-scsi", "none", fuzz_disk("memory", false), options),
		struct virtio_device, device);
	return 0;
}

static struct memory *make_memory(struct input *in)
{
	struct memory *memory = calloc(1, sizeof *memory + REGIONS * sizeof *memory->region);
	struct mapping *map = calloc(REGIONS, sizeof *map);

	/* Held twice: it never goes by itself, since its mappings are none of memory.c's. */
	atomic_init(&memory->users, 2);
	memory->count = REGIONS;
	for (unsigned i = 0; i < REGIONS; i++) {
		map[i].base = malloc(regions[i].size);
		input_bytes(in, map[i].base, regions[i].size);
		memory->region[i] = (struct region){ .guest = regions[i].guest,
						     .size = regions[i].size,
						     .user = regions[i].guest,
						     .host = map[i].base,
						     .map = &map[i] };
	}
	return memory;
}

static void free_memory(struct memory *memory)
{
	if (atomic_load(&memory->users) != 1)
		abort(); /* somebody forgot to let go, or did so twice */
	for (unsigned i = 0; i < memory->count; i++)
		free(memory->region[i].host);
	free(memory->region[0].map);
	free(memory);
}

static void stopped(struct virtqueue *vq)
{
	virtqueue_destroy(vq);
	sem_post(&finished);
}

static void broke(struct virtqueue *vq)
{
	(void)vq;
}

static void next_turn(struct loop_message *message)
{
	if (!run.turns) {
		run.vq = virtqueue_create(run.device, run.queue, &run.setup, loop, loop,
					  run.device->device.stats);
		run.vq->stopped = stopped;
		run.vq->broke = broke;
		virtqueue_start(run.vq);
	}
	if (run.device == device[3])
		scsi_target_events.units_changed(scsi_of(run.device), 1, 300, true);
	if (++run.turns < TURNS)
		loop_send(loop, message);
	else
		virtqueue_stop(run.vq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t flags = input_byte(&in), queue = input_byte(&in) % 6, entries = input_byte(&in);
	bool packed = flags & 1;
	struct memory *memory;
	uint64_t bytes;

	run = (struct run){ .turn.run = next_turn,
			    .device = device[queue < 3 ? queue : 3],
			    .queue = queue < 3 ? 0 : queue - 3u };
	run.setup = (struct virtqueue_setup){
		.size = packed ? (uint16_t)(1 + entries % ENTRIES) : (uint16_t)(1u << entries % 6),
		.features = (packed ? 1ull << VIRTIO_F_RING_PACKED : 0) |
			    (flags & 2 ? 1ull << VIRTIO_RING_F_INDIRECT_DESC : 0) |
			    (flags & 4 ? 1ull << VIRTIO_RING_F_EVENT_IDX : 0),
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	input_bytes(&in, &run.setup.base, sizeof run.setup.base);
	memory = make_memory(&in);
	run.setup.memory = memory;
	run.setup.descriptors = memory->region[0].host;
	run.setup.driver = memory->region[0].host + DRIVER_AREA;
	run.setup.device = memory->region[0].host + DEVICE_AREA;
	if (flags & 8) {
		bytes = packed ? packed_inflight_bytes(run.setup.size)
			       : split_inflight_bytes(run.setup.size);
		run.setup.inflight = malloc(bytes);
		input_bytes(&in, run.setup.inflight, bytes);
	}
	if (run.device == device[3])
		run.device->features = 1ull << VIRTIO_SCSI_F_HOTPLUG;
	else
		run.device->ops->negotiated(run.device,
					    flags & 16 ? 1ull << VIRTIO_BLK_F_FLUSH : 0);
	loop_send(loop, &run.turn);
	while (sem_wait(&finished)) /* libFuzzer's timer interrupts it */
		;
	free(run.setup.inflight);
	free_memory(memory);
	return 0;
}
