/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * latency_client.c - how soon a register is answered, by vfio-user, while storage is stalled
 *
 * A register without side effects (IDE: alternate status; PVSCSI: interrupt status) is read again
 * and again, one read at a time, by a client that spins, in three situations that take turns:
 *
 *   floor    the peer is a process of our own that sleeps until asked, and sends as many bytes
 *   quiet    the device has nothing to do
 *   stalled  a DMA read is under way, which the disk below delays; it must still be under way after
 *
 * What a machine that others use does to an answer it does in all three. An answer later than
 * LATE_NS is `explained` where the kernel says that client or server waited for a core meanwhile;
 * what a hypervisor takes away nobody tells. One line of JSON on stdout.
 */
#include "client.h"
#include "pvscsi_scene.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	LATE_NS = 50000,
	LOOK_EACH = 64, /* reads between two looks at what was waited */
	ANSWER_BYTES = VFU_HEADER_BYTES + 16 + 4,
	SECTORS = 8,
};

struct latency {
	const char *name;
	struct histogram ns;
	uint64_t late, explained;
};

/* A device with one DMA read that can be begun. */
struct device {
	const char *name;
	uint32_t bar, offset, width; /* of the register to read */
	void (*open)(const char *socket);
	void (*begin)(void);
	bool (*under_way)(void);
	void (*end)(void); /* after it is under way no more */
};

static struct pvscsi_scene scene = {
	.hba = { .pages = 1, .slots = 1, .slot_bytes = SECTORS * 512 }
};
static struct vfu_client *vmm = &scene.vmm;

/* --- PVSCSI --- */

static void pvscsi_open(const char *socket)
{
	static const uint8_t test_unit_ready[6];

	if (pvscsi_scene_open(&scene, socket))
		die(socket, scene.error);
	/* the unit attentions of power-on and reset */
	for (int i = 0; i < 4; i++)
		if (hba_do(&scene.hba, 0, test_unit_ready, 6, HBA_NO_DATA, 0) < 0)
			die("TEST UNIT READY", scene.hba.error);
}

static void pvscsi_begin(void)
{
	hba_format_rw(&scene.hba, 0, 0, false, 0, SECTORS, 512);
	hba_push(&scene.hba, 0);
	hba_kick(&scene.hba);
}

static bool pvscsi_under_way(void)
{
	int done, count = hba_reap(&scene.hba, &done, 1);

	if (count < 0)
		die("protocol error", scene.hba.error);
	return scene.hba.slot[0].busy;
}

static void pvscsi_end(void)
{
	if (scene.hba.slot[0].cmp.host_status || scene.hba.slot[0].cmp.scsi_status)
		die("READ(10)", "failed");
}

/* --- IDE: the master of the primary channel, interrupts off --- */

enum { COMMANDS = 0, CONTROL = 1, BUS_MASTER = 4 }; /* BARs */
enum { COUNT = 2, LOW, MID, HIGH, DEVICE, STATUS };
enum { ALTERNATE = 2, ERR = 1, BSY = 0x80, READ_DMA = 0xc8 };
enum { TABLE = 0x1000, DATA = 0x10000, MEMORY = 1 << 20 };

static void put(uint32_t bar, uint64_t at, uint32_t width, uint64_t value)
{
	int ret = vfu_put(vmm, bar, at, width, value);

	if (ret)
		die("writing a register", strerror(-ret));
}

static unsigned get(uint32_t bar, uint64_t at)
{
	uint64_t value = vfu_get(vmm, bar, at, 1);

	if (value == UINT64_MAX)
		die("reading a register", "failed");
	return (unsigned)value;
}

static void ide_open(const char *socket)
{
	int fd, ret = vfu_open(vmm, socket);
	char *memory = vfu_memory(MEMORY, &fd);
	uint32_t prd[2] = { htole32(DATA), htole32(SECTORS * 512 | 1u << 31) };

	if (!memory)
		die("memory", strerror(errno));
	memcpy(memory + TABLE, prd, sizeof(prd));
	if (!ret)
		ret = vfu_map(vmm, 0, MEMORY, memory, fd, 0, 3);
	if (ret)
		die(socket, strerror(-ret));
	put(VFU_CONFIG, 4, 2, 7);
	put(CONTROL, ALTERNATE, 1, 2); /* nIEN */
}

static void ide_begin(void)
{
	put(BUS_MASTER, 4, 4, TABLE);
	put(BUS_MASTER, 2, 1, 6);
	put(COMMANDS, DEVICE, 1, 0x40);
	put(COMMANDS, COUNT, 1, SECTORS);
	for (unsigned at = LOW; at <= HIGH; at++)
		put(COMMANDS, at, 1, 0);
	put(COMMANDS, STATUS, 1, READ_DMA);
	put(BUS_MASTER, 0, 1, 9);
}

static bool ide_under_way(void)
{
	return get(CONTROL, ALTERNATE) & BSY;
}

static void ide_end(void)
{
	put(BUS_MASTER, 0, 1, 0);
	if (get(COMMANDS, STATUS) & ERR)
		die("READ DMA", "failed");
}

static const struct device devices[] = {
	{ "ide", CONTROL, ALTERNATE, 1, ide_open, ide_begin, ide_under_way, ide_end },
	{ "pvscsi", VFU_BAR0, HBA_INTR_STATUS, 4, pvscsi_open, pvscsi_begin, pvscsi_under_way,
	  pvscsi_end },
};

/* --- the floor --- */

/* Answers region reads as cheaply as can be until the peer goes. */
_Noreturn static void answer(int fd, int cpu)
{
	char message[ANSWER_BYTES] = { 0 };
	const ssize_t asked = VFU_HEADER_BYTES + 16;

	pin(cpu);
	while (recv(fd, message, (size_t)asked, MSG_WAITALL) == asked) {
		struct vfu_header *header = (struct vfu_header *)message;

		header->flags = VFU_REPLY;
		header->size = ANSWER_BYTES;
		if (send(fd, message, sizeof(message), MSG_NOSIGNAL) != sizeof(message))
			break;
	}
	_exit(0);
}

static pid_t floor_open(struct vfu_client *client, int cpu)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair", strerror(errno));
	pid = fork();
	if (pid < 0)
		die("fork", strerror(errno));
	if (!pid) {
		close(pair[0]);
		answer(pair[1], cpu);
	}
	close(pair[1]);
	*client = (struct vfu_client){ .fd = pair[0], .spins = true };
	return pid;
}

/* --- measuring --- */

static uint64_t waited_by_both(pid_t server)
{
	return waited_ns(getpid()) + waited_ns(server);
}

static void measure(struct latency *latency, struct vfu_client *client, uint32_t bar,
		    uint32_t offset, uint32_t width, pid_t server, double seconds)
{
	uint64_t start = now_ns(CLOCK_MONOTONIC), end = start + (uint64_t)(seconds * 1e9), after;
	uint64_t waited = waited_by_both(server), value;

	for (unsigned count = 1; start < end; count++) {
		start = now_ns(CLOCK_MONOTONIC);
		int ret = vfu_read(client, bar, offset, &value, width);

		after = now_ns(CLOCK_MONOTONIC);
		if (ret)
			die(latency->name, strerror(-ret));
		histogram_add(&latency->ns, after - start);
		if (after - start > LATE_NS) {
			latency->late++;
			latency->explained += waited_by_both(server) - waited >
					      (after - start - LATE_NS) / 2;
		}
		if (after - start > LATE_NS || count % LOOK_EACH == 0)
			waited = waited_by_both(server);
	}
}

static void print_latency(const struct latency *latency, const char *after)
{
	printf("\"%s\": {\"count\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
	       "\"max_us\": %.2f, \"late\": %llu, \"explained\": %llu}%s",
	       latency->name, (unsigned long long)latency->ns.total,
	       histogram_percentile(&latency->ns, 0.5) / 1e3,
	       histogram_percentile(&latency->ns, 0.99) / 1e3,
	       histogram_percentile(&latency->ns, 0.999) / 1e3, (double)latency->ns.max / 1e3,
	       (unsigned long long)latency->late, (unsigned long long)latency->explained, after);
}

static void wait_for_end(const struct device *device)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + STALL_S * 1000000000ull;

	while (device->under_way()) {
		struct timespec pause = { .tv_nsec = 1000000 };

		if (now_ns(CLOCK_MONOTONIC) > end)
			die(device->name, "the read does not come back");
		nanosleep(&pause, NULL);
	}
	device->end();
}

struct options {
	const struct device *device;
	const char *socket;
	unsigned rounds;
	double seconds;
	pid_t server;
	int cpu, server_cpu;
};

static void run(const struct options *options)
{
	static struct latency floor_ = { .name = "floor" }, quiet = { .name = "quiet" },
			      stalled = { .name = "stalled" };
	const struct device *device = options->device;
	struct vfu_client peer;
	pid_t child = floor_open(&peer, options->server_cpu);

	device->open(options->socket);
	vmm->spins = true;
	for (unsigned i = 0; i < options->rounds; i++) {
		measure(&floor_, &peer, 0, 0, 4, child, options->seconds);
		measure(&quiet, vmm, device->bar, device->offset, device->width, options->server,
			options->seconds);
		device->begin();
		measure(&stalled, vmm, device->bar, device->offset, device->width, options->server,
			options->seconds);
		if (!device->under_way())
			die(device->name,
			    "the read was back before the measurement was over; delay "
			    "it for longer");
		wait_for_end(device);
	}
	vfu_disconnect(&peer);
	waitpid(child, NULL, 0);
	vfu_disconnect(vmm);
	printf("{");
	print_latency(&floor_, ", ");
	print_latency(&quiet, ", ");
	print_latency(&stalled, "}\n");
}

static const char usage[] =
	"usage: latency-client --device ide|pvscsi --socket SOCK --server PID [--rounds N]\n"
	"         [--seconds S] [--cpu N] [--server-cpu N]\n";

static const struct device *device_of(const char *name)
{
	for (unsigned i = 0; name && i < sizeof(devices) / sizeof(*devices); i++)
		if (!strcmp(devices[i].name, name))
			return &devices[i];
	return NULL;
}

int main(int argc, char **argv)
{
	struct options options = { .rounds = 3, .seconds = 0.5, .cpu = -1, .server_cpu = -1 };
	const char *device = NULL;
	const struct flag flags[] = {
		{ "device", FLAG_TEXT, &device },
		{ "socket", FLAG_TEXT, &options.socket },
		{ "server", FLAG_INT, &options.server },
		{ "rounds", FLAG_UNSIGNED, &options.rounds },
		{ "seconds", FLAG_REAL, &options.seconds },
		{ "cpu", FLAG_INT, &options.cpu },
		{ "server-cpu", FLAG_INT, &options.server_cpu },
		{ 0 },
	};

	read_flags(argc, argv, flags, usage);
	options.device = device_of(device);
	if (!options.device || !options.socket || options.server <= 0)
		misused(usage);
	pin(options.cpu);
	run(&options);
	return 0;
}
