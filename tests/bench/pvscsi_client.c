/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_client.c - one measured run of a load on a PVSCSI adapter over vfio-user, without a guest
 *
 * A fixed number of READ(10) or WRITE(10) is kept in flight on target 0, as bench-client does with
 * virtio-blk: each entry of the request ring is formatted once, with a buffer of its own; a request
 * then costs the client a new address in the CDB there, the index, and a look at the completions. A
 * polling client makes no system call unless the adapter asks for a kick; a sleeping one waits for
 * its interrupt each time nothing is there. One line of JSON on stdout, with the names that
 * bench-client uses.
 */
#include "client.h"
#include "pvscsi_scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 64 };

struct bench {
	const char *socket;
	bool write, sleeping;
	uint32_t block;
	unsigned depth;
	double seconds, warmup;
	pid_t server;
	int cpu;
};

/* Blocks of 512 bytes, from the front of the disk: all disks have so many. */
static uint32_t next_lba(const struct bench *bench)
{
	static uint64_t state = 0x9e3779b97f4a7c15ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 40) % (8192 / (bench->block / 512)) * (bench->block / 512);
}

/* The ring's next entry, with a new address. False if its last request is not back yet. */
static bool push(const struct bench *bench, struct hba *hba, uint64_t now)
{
	uint32_t at = hba->req_prod & (hba->req_entries - 1), lba = next_lba(bench);
	uint8_t *cdb = hba->req[at].cdb;

	if (hba->slot[at].busy)
		return false;
	cdb[2] = (uint8_t)(lba >> 24);
	cdb[3] = (uint8_t)(lba >> 16);
	cdb[4] = (uint8_t)(lba >> 8);
	cdb[5] = (uint8_t)lba;
	hba->slot[at].busy = true;
	hba->slot[at].time = now;
	hba->req_prod++;
	return true;
}

static void publish(struct hba *hba)
{
	__atomic_store_n(&hba->state->req_prod, hba->req_prod, __ATOMIC_RELEASE);
	hba_kick(hba);
}

static void take(const struct hba_slot *slot, uint64_t now, struct result *result)
{
	result->requests++;
	result->errors += slot->cmp.host_status || slot->cmp.scsi_status;
	histogram_add(&result->latency, now - slot->time);
}

static int turn(const struct bench *bench, struct pvscsi_scene *scene, struct result *result)
{
	static unsigned missing; /* completed, and not sent again yet */
	int done[BATCH], count = hba_reap(&scene->hba, done, BATCH);

	if (count < 0)
		die("protocol error", scene->hba.error);
	if (count) {
		uint64_t now = ticks();

		for (int i = 0; i < count; i++)
			take(&scene->hba.slot[done[i]], now, result);
		missing += (unsigned)count;
		while (missing && push(bench, &scene->hba, now))
			missing--;
		publish(&scene->hba);
	} else if (bench->sleeping) {
		if (!vfu_wait_event(&scene->vmm, scene->event_fd, STALL_S * 1000))
			die("waiting for completions", "no interrupt came");
		result->sleeps++;
	}
	return count;
}

static void run_for(const struct bench *bench, struct pvscsi_scene *scene, double seconds,
		    struct result *result)
{
	struct interval interval;
	uint64_t now, moved, end, kicks = scene->hba.kicks;

	memset(result, 0, sizeof(*result));
	interval_begin(&interval, bench->server);
	now = moved = interval.start;
	end = now + (uint64_t)(seconds * 1e9);
	while (now < end) {
		int progress = 0;

		for (int i = 0; i < 64; i++)
			progress |= turn(bench, scene, result);
		now = now_ns(CLOCK_MONOTONIC);
		if (progress)
			moved = now;
		else if (now - moved > STALL_S * 1000000000ull)
			die("waiting for completions", "the server stalls");
		if (*scene->error)
			die(bench->socket, scene->error);
	}
	interval_end(&interval, now, result);
	result->kicks = scene->hba.kicks - kicks;
}

static void measure(const struct bench *bench)
{
	static struct result result;
	static const uint8_t test_unit_ready[6];
	struct pvscsi_scene scene = { .hba = { .pages = 8,
					       .slots = 256, /* one for each entry */
					       .slot_bytes = bench->block,
					       .threshold = true } };

	double ns = tick_ns();

	if (pvscsi_scene_open(&scene, bench->socket))
		die(bench->socket, scene.error);
	/* the unit attentions of power-on and reset */
	for (int i = 0; i < 4; i++)
		if (hba_do(&scene.hba, 0, test_unit_ready, 6, HBA_NO_DATA, 0) < 0)
			die("TEST UNIT READY", scene.hba.error);
	for (unsigned i = 0; i < scene.hba.slots; i++)
		scene.hba.req[i] = hba_format_rw(&scene.hba, (int)i, 0, bench->write, 0,
						 (uint16_t)(bench->block / 512), 512)
					   ->req;
	for (unsigned i = 0; i < bench->depth; i++)
		push(bench, &scene.hba, ticks());
	publish(&scene.hba);
	run_for(bench, &scene, bench->warmup, &result);
	run_for(bench, &scene, bench->seconds, &result);
	print_result(&result, ns);
	pvscsi_scene_close(&scene);
	if (result.errors)
		die(bench->socket, "requests failed");
}

static const char usage[] =
	"usage: pvscsi-client --socket SOCK [--op read|write] [--block BYTES] [--depth N]\n"
	"         [--seconds S] [--warmup S] [--sleep] [--server PID] [--cpu N]\n";

/* What was asked for can be done. */
static bool makes_sense(const struct bench *bench)
{
	return bench->socket && bench->block && bench->block % 512 == 0 && bench->block <= 65536 &&
	       bench->depth && bench->depth <= 256;
}

int main(int argc, char **argv)
{
	struct bench bench = { .block = 4096, .depth = 32, .seconds = 1, .warmup = 0.1, .cpu = -1 };
	const struct flag flags[] = {
		{ "socket", FLAG_TEXT, &bench.socket },   { "op", FLAG_IS, &bench.write, "write" },
		{ "block", FLAG_UNSIGNED, &bench.block }, { "depth", FLAG_UNSIGNED, &bench.depth },
		{ "seconds", FLAG_REAL, &bench.seconds }, { "warmup", FLAG_REAL, &bench.warmup },
		{ "sleep", FLAG_GIVEN, &bench.sleeping }, { "server", FLAG_INT, &bench.server },
		{ "cpu", FLAG_INT, &bench.cpu },          { 0 },
	};

	read_flags(argc, argv, flags, usage);
	if (!makes_sense(&bench))
		misused(usage);
	pin(bench.cpu);
	measure(&bench);
	return 0;
}
