/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_client.c - one measured run of frames from one virtio-net card to another, over vhost-user
 *
 * One thread drives both sides, as two guests' drivers that poll. Its rings are used as in-order
 * rings can be: buffer i is always at place i, so a frame costs its 16 bytes of number and time,
 * and, at the other end, a look at the used element and at those 16 bytes. That leaves nearly all
 * of the time to the server. A server that completes out of order is found out and given up.
 *
 * As many frames are under way as the receiver has buffers, so that a server at its limit loses
 * none; with `--rate` frames are sent at that rate, whatever becomes of them. A frame is UDP in
 * IPv4 from 02:50:00:00:00:01, 10.9.0.1 to 02:50:00:00:00:02, 10.9.0.2, without a UDP checksum.
 *
 * `--flood KIND` adds a third card that sends 64-byte frames as fast as they are taken:
 * `broadcast`; `macs`, from and to an address that nobody has seen, each another; `blast`, to
 * one address, that of the card at `--flood-to`.
 *
 * Two other uses: `--memcpy` copies the same frames between two arrays of buffers, which is the
 * limit of one core; `--attach` connects to many sockets and holds them until stdin closes.
 */
#include "client.h"
#include "net_frames.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	BATCH = 32,
	BUFFER = 2048, /* bytes, header and all */
	STAMP_AT = 42, /* where number and time are in a frame: behind the UDP header */
	LOST_NS = 20000000,
};

enum flood { NONE, BROADCAST, MACS, BLAST };

struct bench {
	const char *from, *to, *flood_from, *flood_to;
	enum flood flood;
	bool packed, copy, attach;
	uint32_t frame;
	unsigned queue_size;
	double seconds, warmup, rate;
	pid_t server;
	int cpu;
};

struct stamp {
	uint64_t number, time;
} __attribute__((packed));

/* A ring whose buffer i is at place i. */
struct lane {
	struct virtq *queue;
	uint8_t *buffers;
	uint64_t put, done; /* frames, or buffers, ever */
};

struct card {
	struct driver *driver;
	struct lane rx, tx;
};

struct counts {
	uint64_t sent, received, lost, flooded, seen; /* flooded: sent, seen: of them received */
	struct histogram latency;
};

static struct counts counts;
static uint64_t next_expected; /* the number that the receiver has not seen yet */

/* ---- rings ---- */

static inline unsigned place_of(const struct lane *lane, uint64_t number)
{
	return (unsigned)(number & (lane->queue->size - 1u));
}

static inline uint8_t *buffer_of(const struct lane *lane, uint64_t number)
{
	return lane->buffers + (size_t)place_of(lane, number) * BUFFER;
}

/* Writes descriptor `place` of a packed ring. */
static inline void packed_put(struct lane *lane, unsigned place, uint32_t length, bool writes)
{
	struct virtq *queue = lane->queue;
	struct vring_packed_desc *entry = &queue->ring[place];
	uint16_t wrap = queue->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
					  : 1u << VRING_PACKED_DESC_F_USED;

	entry->len = length;
	entry->id = (uint16_t)place;
	__atomic_store_n(&entry->flags, (uint16_t)(wrap | (writes ? VRING_DESC_F_WRITE : 0)),
			 __ATOMIC_RELEASE);
	queue->added++;
	if (++queue->avail_next == queue->size) {
		queue->avail_next = 0;
		queue->avail_wrap = !queue->avail_wrap;
	}
}

/* Puts `count` buffers, and tells the device. */
static void lane_put(struct lane *lane, unsigned count, uint32_t length, bool writes)
{
	struct virtq *queue = lane->queue;

	if (queue->packed)
		for (unsigned i = 0; i < count; i++)
			packed_put(lane, place_of(lane, lane->put + i), length, writes);
	else
		queue->avail_next = (uint16_t)(queue->avail_next + count);
	lane->put += count;
	virtq_publish(queue);
}

/* How many buffers are done, and the length of each; at most `max`. */
static unsigned lane_done(struct lane *lane, uint32_t *lengths, unsigned max)
{
	struct virtq *queue = lane->queue;
	unsigned count = 0;

	if (!queue->packed) {
		uint16_t ready = __atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE);
		count = (uint16_t)(ready - (uint16_t)lane->done);
		count = count < max ? count : max;
		for (unsigned i = 0; i < count; i++) {
			unsigned place = place_of(lane, lane->done + i);
			if (queue->used->ring[place].id != place)
				die("the server", "completes out of order");
			lengths[i] = queue->used->ring[place].len;
		}
	}
	while (queue->packed && count < max && packed_pending(queue)) {
		if (queue->ring[queue->last_used].id != queue->last_used)
			die("the server", "completes out of order");
		lengths[count++] = queue->ring[queue->last_used].len;
		if (++queue->last_used == queue->size) {
			queue->last_used = 0;
			queue->used_wrap = !queue->used_wrap;
		}
	}
	lane->done += count;
	return count;
}

static void lane_open(struct lane *lane, struct virtq *queue, uint32_t length, bool writes)
{
	struct slot *slot = &queue->slot[0];

	*lane = (struct lane){ .queue = queue, .buffers = slot->data };
	for (unsigned i = 0; i < queue->size; i++) {
		uint64_t address = slot->data_guest + (uint64_t)i * BUFFER;
		memset(buffer_of(lane, i), 0, BUFFER);
		if (queue->packed) {
			queue->ring[i].addr = address;
			continue;
		}
		queue->desc[i] = (struct vring_desc){ .addr = address,
						      .len = length,
						      .flags = writes ? VRING_DESC_F_WRITE : 0 };
		queue->avail->ring[i] = (uint16_t)i;
	}
}

static void card_open(struct card *card, const struct bench *bench, const char *socket,
		      uint32_t frame)
{
	struct driver_options options = {
		.socket = socket,
		.features = FEATURE(VIRTIO_RING_F_EVENT_IDX) |
			    (bench->packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0),
		.decline = FEATURE(VIRTIO_NET_F_CTRL_VQ) | FEATURE(VIRTIO_NET_F_MQ),
		.queues = 2,
		.queue_size = bench->queue_size,
		.slots = 1,
		.slot_bytes = bench->queue_size * BUFFER,
		.net = true,
	};

	card->driver = driver_new(&options);
	if (!card->driver)
		die("driver", "out of memory");
	lane_open(&card->rx, &card->driver->queue[0], BUFFER, true);
	lane_open(&card->tx, &card->driver->queue[1], NET_HEADER + frame, false);
	if (driver_connect(card->driver) || driver_start(card->driver))
		die(socket, card->driver->error);
	lane_put(&card->rx, card->rx.queue->size, BUFFER, true);
}

static void card_close(struct card *card)
{
	if (card->driver && driver_stop(card->driver))
		die("stopping", card->driver->error);
	driver_close(card->driver);
}

/* ---- frames ---- */

/* The same frame into all buffers of a transmit ring. */
static void fill_frames(struct lane *tx, unsigned from, unsigned to, uint32_t frame)
{
	struct ip_packet packet = { .version = 4, .payload = frame - STAMP_AT };

	mac_make(packet.from, from);
	mac_make(packet.to, to);
	for (unsigned i = 0; i < tx->queue->size; i++) {
		uint8_t *bytes = buffer_of(tx, i) + NET_HEADER;
		ip_make(bytes, &packet, NULL);
		memset(bytes + STAMP_AT - 2, 0, 2); /* its bytes change: no sum */
		if (from == 2) {                    /* back from the second card's address */
			bytes[29] = 2;
			bytes[33] = 1;
		}
	}
}

static void fill_flood(struct lane *tx, const struct bench *bench)
{
	uint8_t from[6], to[6];

	mac_make(from, 3);
	mac_make(to, 4);
	for (unsigned i = 0; i < tx->queue->size; i++)
		frame_make(buffer_of(tx, i) + NET_HEADER,
			   bench->flood == BROADCAST ? mac_broadcast : to, from, 64, i);
}

/* Takes what a card has received. `counted`: frames of the measured flow are looked at. */
static unsigned receive(struct card *card, uint32_t frame, bool counted)
{
	uint32_t lengths[BATCH * 2];
	uint64_t first = card->rx.done;
	unsigned count = lane_done(&card->rx, lengths, BATCH * 2);

	if (!count)
		return 0;
	uint64_t now = ticks();
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *bytes = buffer_of(&card->rx, first + i) + NET_HEADER;
		struct stamp stamp;
		if (!counted || lengths[i] != NET_HEADER + frame || bytes[12] != 8) {
			counts.seen++;
			continue;
		}
		memcpy(&stamp, bytes + STAMP_AT, sizeof(stamp));
		if (stamp.number < next_expected)
			continue; /* given up before */
		counts.lost += stamp.number - next_expected;
		next_expected = stamp.number + 1;
		counts.received++;
		histogram_add(&counts.latency, now - stamp.time);
	}
	lane_put(&card->rx, count, BUFFER, true);
	return count;
}

/* Room in a transmit ring. */
static unsigned transmit_room(struct lane *tx)
{
	uint32_t lengths[BATCH * 2];

	lane_done(tx, lengths, BATCH * 2);
	return tx->queue->size - (unsigned)(tx->put - tx->done);
}

static void transmit(struct card *card, uint32_t frame, unsigned count)
{
	uint64_t now = ticks();

	for (unsigned i = 0; i < count; i++) {
		struct stamp stamp = { counts.sent++, now };
		memcpy(buffer_of(&card->tx, card->tx.put + i) + NET_HEADER + STAMP_AT, &stamp,
		       sizeof(stamp));
	}
	lane_put(&card->tx, count, NET_HEADER + frame, false);
}

static void transmit_flood(struct card *card, enum flood kind)
{
	unsigned room = transmit_room(&card->tx);

	if (room < BATCH)
		return;
	for (unsigned i = 0; kind == MACS && i < BATCH; i++) {
		uint8_t *bytes = buffer_of(&card->tx, card->tx.put + i) + NET_HEADER;
		mac_make(bytes, 0x80000000u | (unsigned)(card->tx.put + i));
		mac_make(bytes + 6, 0x40000000u | ((unsigned)(card->tx.put + i) & 0x3fffffff));
	}
	lane_put(&card->tx, BATCH, NET_HEADER + 64, false);
	counts.flooded += BATCH;
}

/* ---- a run ---- */

struct run {
	struct card a, b, flood, sink;
	const struct bench *bench;
	double ns; /* a tick */
	uint64_t moved;
};

/* How many frames may be sent now. */
static unsigned allowed(const struct run *run, uint64_t start)
{
	const struct bench *bench = run->bench;
	uint64_t under_way = counts.sent - next_expected;

	if (bench->rate > 0) {
		double due = (double)(ticks() - start) * run->ns * bench->rate / 1e9;
		uint64_t target = (uint64_t)due;
		return target > counts.sent ? (unsigned)(target - counts.sent) : 0;
	}
	return under_way < bench->queue_size ? bench->queue_size - (unsigned)under_way : 0;
}

static void turn(struct run *run, uint64_t start)
{
	const struct bench *bench = run->bench;
	unsigned count = allowed(run, start);
	unsigned room = count ? transmit_room(&run->a.tx) : 0;

	count = count < room ? count : room;
	count = count < BATCH ? count : BATCH;
	/* Small batches cost the server, and no driver under load sends them. */
	if (count == BATCH || (count && bench->rate > 0))
		transmit(&run->a, bench->frame, count);
	unsigned got = receive(&run->b, bench->frame, true);
	receive(&run->a, bench->frame, false);
	if (run->flood.driver) {
		transmit_flood(&run->flood, bench->flood);
		receive(&run->flood, bench->frame, false);
	}
	if (run->sink.driver)
		receive(&run->sink, bench->frame, false);
	uint64_t now = ticks();
	if (got)
		run->moved = now;
	else if (bench->rate <= 0 && (double)(now - run->moved) * run->ns > LOST_NS) {
		counts.lost += counts.sent - next_expected;
		next_expected = counts.sent;
		run->moved = now;
	}
	if (!got)
		relax();
}

static void run_for(struct run *run, double seconds, bool print)
{
	const struct bench *bench = run->bench;
	static struct result result;
	struct interval interval;

	memset(&counts, 0, sizeof(counts));
	next_expected = 0;
	interval_begin(&interval, bench->server);
	uint64_t now = interval.start, end = now + (uint64_t)(seconds * 1e9), first = ticks();
	run->moved = first;
	while (now < end) {
		for (int i = 0; i < 64; i++)
			turn(run, first);
		now = now_ns(CLOCK_MONOTONIC);
	}
	uint64_t received = counts.received, flooded = counts.flooded, sent = counts.sent;
	interval_end(&interval, now, &result);
	/* What is still under way is not lost. */
	for (end = now + 20000000; now < end; now = now_ns(CLOCK_MONOTONIC)) {
		receive(&run->b, bench->frame, true);
		receive(&run->a, bench->frame, false);
	}
	uint64_t lost = sent - counts.received;
	if (!print)
		return;
	printf("{\"seconds\": %.6f, \"sent\": %llu, \"received\": %llu, \"lost\": %llu, "
	       "\"packets\": %.1f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"server_cpu\": %.6f, "
	       "\"cpu_ns\": %.2f, \"flooded\": %.1f, \"waited\": %.6f}\n",
	       result.seconds, (unsigned long long)sent, (unsigned long long)received,
	       (unsigned long long)lost, (double)received / result.seconds,
	       histogram_percentile(&counts.latency, 0.5) * run->ns / 1e3,
	       histogram_percentile(&counts.latency, 0.99) * run->ns / 1e3, result.server_cpu,
	       received ? result.server_cpu * 1e9 / (double)received : 0,
	       (double)flooded / result.seconds, result.waited);
}

/* Sends one frame from `from` to `to` again and again until it comes: then the server knows where
 * `from` is, and has its rings going. */
static void greet(struct card *from, struct card *to, uint32_t frame)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + STALL_S * 1000000000ull;
	struct timespec pause = { .tv_nsec = 5000000 };

	while (now_ns(CLOCK_MONOTONIC) < end) {
		if (transmit_room(&from->tx))
			lane_put(&from->tx, 1, NET_HEADER + frame, false);
		nanosleep(&pause, NULL);
		if (receive(to, frame, false))
			return;
	}
	die("the server", "passes no frame from one card to the other");
}

static void measure(const struct bench *bench)
{
	static struct run run;

	run.bench = bench;
	run.ns = tick_ns();
	card_open(&run.a, bench, bench->from, bench->frame);
	card_open(&run.b, bench, bench->to, bench->frame);
	fill_frames(&run.a.tx, 1, 2, bench->frame);
	fill_frames(&run.b.tx, 2, 1, bench->frame);
	if (bench->flood) {
		card_open(&run.flood, bench, bench->flood_from, 64);
		fill_flood(&run.flood.tx, bench);
	}
	if (bench->flood_to) {
		card_open(&run.sink, bench, bench->flood_to, 64);
		fill_frames(&run.sink.tx, 4, 1, 64);
		greet(&run.sink, &run.a, 64);
	}
	greet(&run.b, &run.a, bench->frame);
	greet(&run.a, &run.b, bench->frame);
	run_for(&run, bench->warmup, false);
	run_for(&run, bench->seconds, true);
	card_close(&run.a);
	card_close(&run.b);
	card_close(&run.flood);
	card_close(&run.sink);
}

/* ---- the limit ---- */

static void copy_frames(const struct bench *bench)
{
	size_t bytes = (size_t)bench->queue_size * BUFFER;
	uint8_t *from = aligned_alloc(4096, bytes), *to = aligned_alloc(4096, bytes);
	uint32_t frame = NET_HEADER + bench->frame;
	uint64_t count = 0;

	if (!from || !to)
		die("buffers", "out of memory");
	memset(from, 1, bytes);
	memset(to, 2, bytes);
	uint64_t start = now_ns(CLOCK_PROCESS_CPUTIME_ID), now = start;
	while (now < start + (uint64_t)(bench->seconds * 1e9)) {
		for (unsigned round = 0; round < 64; round++)
			for (size_t at = 0; at < bytes; at += BUFFER) {
				memcpy(to + at, from + at, frame);
				__asm__ volatile("" : : "r"(to + at) : "memory");
			}
		count += 64ull * bench->queue_size;
		now = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	}
	double took = (double)(now - start) / 1e9;
	printf("{\"seconds\": %.6f, \"packets\": %.1f, \"cpu_ns\": %.3f, \"waited\": 0}\n", took,
	       (double)count / took, took * 1e9 / (double)count);
	free(from);
	free(to);
}

static void attach(const struct bench *bench, char *const *sockets, int count)
{
	struct card card;

	for (int i = 0; i < count; i++) {
		card_open(&card, bench, sockets[i], 64);
		fill_frames(&card.tx, 100 + (unsigned)i, 1, 64);
		lane_put(&card.tx, 1, NET_HEADER + 64, false);
	}
	puts("attached");
	fflush(stdout);
	while (getchar() != EOF)
		;
}

/* ---- the command line ---- */

static const char usage[] =
	"usage: net-client --from SOCK --to SOCK [--frame BYTES] [--rate FRAMES] [--packed]\n"
	"         [--flood broadcast|macs|blast --flood-from SOCK [--flood-to SOCK]]\n"
	"         [--seconds S] [--warmup S] [--queue-size N] [--server PID] [--cpu N]\n"
	"       net-client --memcpy [--frame BYTES]   the limit: one core that copies\n"
	"       net-client --attach SOCK...           connect to all and hold until stdin closes\n";

static enum flood flood_of(const char *text)
{
	static const char *const names[] = { "none", "broadcast", "macs", "blast" };

	if (!text)
		return NONE;
	for (unsigned i = BROADCAST; i <= BLAST; i++)
		if (!strcmp(text, names[i]))
			return (enum flood)i;
	die("--flood", "broadcast, macs or blast");
}

/* What was asked for can be done. `sockets` are those to attach to. */
static bool makes_sense(const struct bench *bench, int sockets)
{
	/* A power of two: places are numbers modulo the size. */
	if (bench->queue_size < 2 * BATCH || bench->queue_size & (bench->queue_size - 1) ||
	    bench->frame < STAMP_AT + sizeof(struct stamp) || bench->frame > BUFFER - NET_HEADER)
		return false;
	if (bench->attach)
		return sockets > 0;
	return bench->copy || (bench->from && bench->to && (!bench->flood || bench->flood_from));
}

int main(int argc, char **argv)
{
	struct bench bench = {
		.frame = 64, .queue_size = 256, .seconds = 1, .warmup = 0.1, .cpu = -1
	};
	const char *flood = NULL;
	const struct flag flags[] = {
		{ "from", FLAG_TEXT, &bench.from },
		{ "to", FLAG_TEXT, &bench.to },
		{ "frame", FLAG_UNSIGNED, &bench.frame },
		{ "rate", FLAG_REAL, &bench.rate },
		{ "packed", FLAG_GIVEN, &bench.packed },
		{ "flood", FLAG_TEXT, &flood },
		{ "flood-from", FLAG_TEXT, &bench.flood_from },
		{ "flood-to", FLAG_TEXT, &bench.flood_to },
		{ "seconds", FLAG_REAL, &bench.seconds },
		{ "warmup", FLAG_REAL, &bench.warmup },
		{ "queue-size", FLAG_UNSIGNED, &bench.queue_size },
		{ "server", FLAG_INT, &bench.server },
		{ "cpu", FLAG_INT, &bench.cpu },
		{ "memcpy", FLAG_GIVEN, &bench.copy },
		{ "attach", FLAG_GIVEN, &bench.attach },
		{ "socket", FLAG_TEXT, NULL }, /* what tests/bench/run calls all clients with */
		{ 0 },
	};

	read_flags(argc, argv, flags, usage);
	bench.flood = flood_of(flood);
	if (!makes_sense(&bench, argc - optind))
		misused(usage);
	pin(bench.cpu);
	if (bench.attach)
		attach(&bench, argv + optind, argc - optind);
	else if (bench.copy)
		copy_frames(&bench);
	else
		measure(&bench);
	return 0;
}
