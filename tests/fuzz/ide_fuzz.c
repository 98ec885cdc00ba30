/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide_fuzz.c - an IDE function whose guest does anything to its registers
 *
 * On the primary channel a disk and an empty CD-ROM drive, on the secondary one a CD-ROM and a
 * disk: on each cable two kinds, so that what comes home late meets the other. Guest memory is two
 * pages that are mapped, and one that is only announced, so that DMA to it goes by message; there
 * is nothing behind. Each page is an allocation of its own.
 *
 *     byte 0     16-byte units of what follows that go to guest address 0
 *     then       operations, to the end. The first byte's low 3 bits say which:
 *         0-4    BAR: bit 3 read, bits 4-5 width (1, 2, 4, 4), bit 6: 256 times; offset; value
 *         5      command register of config space; value
 *         6      the loop turns, DMA messages are served (bit 3: they fail)
 *         7      16 bytes to a guest address: address / 16; the bytes; with bit 3: reset
 */
#include <endian.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/pci/pci.h"
#include "fuzz.h"
#include "layer/disk.h"
#include "loop/loop.h"
#include "memory/memory.h"
#include "util/error.h"
#include "util/list.h"
#include "util/option.h"

#define PAGE   4096u
#define PAGES  3u /* the last one is announced */
#define TURNS  64u
#define MAPPED (PAGES - 1)

static struct pci_device *dev;
static struct loop *loop;
static sem_t finished;
static char *page[PAGES];

/* One input under way; on the loop's thread from first_turn() on. */
static struct run {
	struct loop_message turn;
	struct input in;
	struct list sent;
	unsigned turns;
	bool stopped;
} run;

/* --- the function's VMM ------------------------------------------------------------- */

static void send_message(struct dma_space *space, struct dma_message *message)
{
	(void)space;
	list_add(&run.sent, &message->link);
}

static void serve(int status)
{
	while (!list_empty(&run.sent)) {
		struct dma_message *m = container_of(run.sent.next, struct dma_message, link);
		char *at;

		/* Mapped pages too: dma.c looks whether they are the guest's. */
		if (m->address + m->length > PAGES * PAGE || m->address % PAGE + m->length > PAGE)
			abort();
		at = page[m->address / PAGE] + m->address % PAGE;
		list_remove(&m->link);
		if (status)
			memset(m->bytes, 0, m->direction == DMA_FROM_GUEST ? m->length : 0);
		else if (m->direction == DMA_FROM_GUEST)
			memcpy(m->bytes, at, m->length);
		else
			memcpy(at, m->bytes, m->length);
		m->done(m, status);
	}
}

static void unshared(struct dma_space *space, uint64_t address)
{
	(void)space;
	(void)address;
}

static void signal_vector(struct pci_device *function, unsigned vector)
{
	(void)function;
	(void)vector;
	abort(); /* it has none */
}

static void line(struct pci_device *function, bool high)
{
	(void)function;
	(void)high;
}

static void broken(struct pci_device *function)
{
	(void)function;
}

static const struct pci_transport_ops transport = { signal_vector, line, broken };

static struct memory *make_memory(void)
{
	struct memory *memory = calloc(1, sizeof *memory + PAGES * sizeof *memory->region);
	struct mapping *map = calloc(PAGES, sizeof *map);

	/* Held twice: it never goes by itself, since its mappings are none of memory.c's. */
	atomic_init(&memory->users, 2);
	memory->count = PAGES;
	for (unsigned i = 0; i < PAGES; i++) {
		page[i] = map[i].base = malloc(PAGE);
		memory->region[i] = (struct region){ .guest = i * PAGE, .size = PAGE };
		if (i < MAPPED) {
			memory->region[i].host = page[i];
			memory->region[i].map = &map[i];
		}
	}
	return memory;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	static const char *const kind[] = { "memory", NULL, "memory", "null" };
	static const char *const type[] = { "disk", "cdrom", "cdrom", "disk" };
	static const char *const position[] = { "primary-master", "primary-slave",
						"secondary-master", "secondary-slave" };
	const struct frontend *frontend = frontend_find("ide");
	struct unit_plan units[4] = { 0 };
	struct device_plan plan = {
		.vm = "fuzz", .name = "ide0", .socket = "", .units = units, .count = 4
	};
	struct error err = { 0 };

	(void)count;
	(void)arguments;
	sem_init(&finished, 0, 0);
	loop = fuzz_loop("fuzz");
	for (unsigned i = 0; i < 4; i++) {
		void *settings = calloc(1, frontend->unit_settings_size);

		options_init(frontend->unit_options, settings);
		if (options_set(frontend->unit_options, settings, "position", position[i], &err) ||
		    options_set(frontend->unit_options, settings, "type", type[i], &err))
			abort();
		units[i] = (struct unit_plan){ settings, kind[i] ? fuzz_disk(kind[i], 0) : NULL };
	}
	dev = (struct pci_device *)frontend->create(&plan, &err);
	for (unsigned i = 0; i < 4; i++)
		free((void *)units[i].settings);
	if (!dev)
		abort();
	dev->transport_ops = &transport;
	dev->dma.memory = make_memory();
	dev->dma.send = send_message;
	dev->dma.unshared = unshared;
	dev->dma.message_max = 1000;
	return 0;
}

/* --- an input ----------------------------------------------------------------------- */

static void access_bar(uint8_t op)
{
	unsigned width = 1u << (op >> 4 & 3), times = op & 0x40 ? 256 : 1, bar = op & 7;
	uint8_t offset = input_byte(&run.in);
	uint32_t value = 0;

	if (width > 4)
		width = 4;
	if (!(op & 8))
		input_bytes(&run.in, &value, width);
	while (times--) {
		if (op & 8)
			pci_bar_read(dev, bar, offset, &value, width);
		else
			pci_bar_write(dev, bar, offset, &value, width);
	}
}

static void write_memory(void)
{
	unsigned at = input_byte(&run.in) * 16u * 3 % (PAGES * PAGE);

	input_bytes(&run.in, page[at / PAGE] + at % PAGE, 16);
}

static void stopped(struct pci_device *function)
{
	(void)function;
	run.stopped = true;
}

/* After the end of the input: messages are still answered, until all has ended. */
static void last_turns(struct loop_message *message)
{
	serve(0);
	if (run.stopped)
		sem_post(&finished);
	else
		loop_send(loop, message);
}

static void next_turn(struct loop_message *message)
{
	while (run.in.size && run.turns < TURNS) {
		uint8_t op = input_byte(&run.in);
		uint16_t command;

		if ((op & 7) < 5) {
			access_bar(op);
		} else if ((op & 7) == 5) {
			command = input_byte(&run.in);
			pci_config_write(dev, 4, &command, 2);
		} else if ((op & 7) == 7) {
			if (op & 8)
				pci_reset(dev);
			else
				write_memory();
		} else {
			run.turns++;
			serve(op & 8 ? -5 : 0);
			loop_send(loop, message);
			return;
		}
	}
	run.turn.run = last_turns;
	pci_stop(dev, stopped);
	loop_send(loop, message);
}

static void first_turn(struct loop_message *message)
{
	uint16_t command = 7;

	if (pci_start(dev, loop))
		abort();
	pci_config_write(dev, 4, &command, 2);
	message->run = next_turn;
	next_turn(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned prefix = input_byte(&in) * 16u;

	for (unsigned i = 0; i < PAGES; i++)
		memset(page[i], 0, PAGE);
	input_bytes(&in, page[0], prefix < PAGE ? prefix : PAGE);
	run = (struct run){ .turn.run = first_turn, .in = in };
	list_init(&run.sent);
	loop_send(loop, &run.turn);
	while (sem_wait(&finished)) /* libFuzzer's timer interrupts it */
		;
	if (atomic_load(&dev->dma.memory->users) != 2 || dev->dma.bounced)
		abort(); /* somebody forgot to let go */
	return 0;
}
