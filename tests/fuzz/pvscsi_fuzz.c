/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_fuzz.c - a PVSCSI adapter whose guest writes anything to its registers, rings and lists
 *
 * The input is what the guest and its VMM do, step by step. A function is started as the transport
 * would, the steps are done in turns of its loop, and it is stopped. The guest's memory, zeroed at
 * first, has adjacent regions, a hole, one near the top of the address space, and one that is
 * reached by messages; each is an allocation of its own, so that the sanitizer sees a step outside.
 *
 *     byte 0     1 MSI-X, 2 without bus mastering, 4 messages fail, 8 disk read-only
 *     then       steps, at most STEPS: a kind (modulo STEP_KINDS) and its operands
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/pci/pci.h"
#include "frontend/scsi/pvscsi_regs.h"
#include "fuzz.h"
#include "layer/disk.h"
#include "loop/loop.h"
#include "memory/memory.h"

#define STEPS 128
#define MANY  4 /* turns of the loop after the last step */

enum step_kind {
	STEP_WRITE,   /* register (1 byte), value (4) */
	STEP_READ,    /* register */
	STEP_RINGS,   /* log2 of the pages of requests, of completions; first page (1 byte each) */
	STEP_COMMAND, /* command (1), words (1), and so many words */
	STEP_TURN,    /* whatever is ready is done */
	STEP_MEMORY,  /* 1: region 0 is gone, 0: all is there */
	STEP_RESET,
	STEP_ACCESS, /* offset (2), length (1), 8 bytes: any access */
	STEP_POKE,   /* address (2), length (1), bytes: the guest writes to its memory */
	STEP_KINDS
};

static const struct {
	uint64_t guest, size;
	bool announced; /* no bytes of its own */
} regions[] = {
	{ 0, 0x4000, false },      /* ring state, requests, completions, messages: of one page */
	{ 0x4000, 0x1800, false }, /* lists, data */
	{ 0x8000, 0x1000, true },
	{ UINT64_MAX - 0xfff, 0xf00, false },
};
#define REGIONS (sizeof regions / sizeof *regions)

static const uint32_t offsets[] = { PVSCSI_COMMAND,     PVSCSI_COMMAND_DATA, PVSCSI_COMMAND_STATUS,
				    PVSCSI_INTR_STATUS, PVSCSI_INTR_MASK,    PVSCSI_KICK_NON_RW,
				    PVSCSI_KICK_RW,     PVSCSI_DEBUG };

static struct pci_device *device[2];
static struct loop *loop;
static sem_t finished;

/* One input under way; on the loop's thread. */
static struct run {
	struct loop_message message;
	struct input in;
	struct pci_device *pci;
	struct memory *memory[2]; /* all, and without region 0 */
	unsigned steps, turns, last;
	uint8_t flags;
	struct list sent; /* messages to the VMM */
	struct loop_message answer;
} run;

/* --- the VMM ------------------------------------------------------------------------- */

static void signalled(struct pci_device *pci, unsigned vector)
{
	(void)pci;
	(void)vector;
}

static void line(struct pci_device *pci, bool high)
{
	(void)pci;
	(void)high;
}

static void broken(struct pci_device *pci)
{
	(void)pci;
}

static const struct pci_transport_ops transport_ops = { .signal = signalled,
							.line = line,
							.broken = broken };

static void answer(struct loop_message *message)
{
	struct list now;

	(void)message;
	list_init(&now);
	while (!list_empty(&run.sent)) {
		struct list *link = run.sent.next;

		list_remove(link);
		list_add(&now, link);
	}
	while (!list_empty(&now)) {
		struct dma_message *m = container_of(now.next, struct dma_message, link);

		list_remove(&m->link);
		if (m->direction == DMA_FROM_GUEST)
			memset(m->bytes, 0x12, m->length);
		m->done(m, run.flags & 4 ? -EIO : 0);
	}
}

static void send_message(struct dma_space *space, struct dma_message *message)
{
	(void)space;
	if (list_empty(&run.sent))
		loop_send(loop, &run.answer);
	list_init(&message->link);
	list_add(&run.sent, &message->link);
}

/* --- memory -------------------------------------------------------------------------- */

static struct memory *make_table(struct mapping *map, unsigned first)
{
	struct memory *memory = calloc(1, sizeof *memory + REGIONS * sizeof *memory->region);

	/* Held twice: it never goes by itself, since its mappings are none of memory.c's. */
	atomic_init(&memory->users, 2);
	memory->room = REGIONS;
	for (unsigned i = first; i < REGIONS; i++)
		memory->region[memory->count++] = (struct region){
			.guest = regions[i].guest,
			.size = regions[i].size,
			.user = regions[i].guest,
			.host = regions[i].announced ? NULL : map[i].base,
			.map = regions[i].announced ? NULL : &map[i],
		};
	return memory;
}

static void free_table(struct memory *memory)
{
	if (atomic_load(&memory->users) != 2)
		abort(); /* somebody forgot to let go, or did so twice */
	free(memory);
}

/* --- the guest ----------------------------------------------------------------------- */

static void reg_write(uint32_t offset, uint32_t value)
{
	pci_bar_write(run.pci, 0, offset, &value, sizeof value);
}

static void command(uint32_t number, const void *words, unsigned count)
{
	reg_write(PVSCSI_COMMAND, number);
	for (unsigned i = 0; i < count; i++)
		reg_write(PVSCSI_COMMAND_DATA, ((const uint32_t *)words)[i]);
}

static void rings(void)
{
	struct pvscsi_setup_rings setup = { 0 };
	uint8_t first;

	setup.req_pages = 1u << input_byte(&run.in) % 7;
	setup.cmp_pages = 1u << input_byte(&run.in) % 7;
	first = input_byte(&run.in) % 8;
	setup.state_page = first;
	for (unsigned i = 0; i < PVSCSI_RING_PAGES; i++) {
		setup.req_page[i] = (first + 1u) % 8;
		setup.cmp_page[i] = (first + 2u) % 8;
	}
	command(PVSCSI_CMD_SETUP_RINGS, &setup, sizeof setup / 4);
}

static void poke(void)
{
	uint8_t bytes[256], count;
	uint16_t where;

	input_bytes(&run.in, &where, 2);
	count = input_byte(&run.in);
	input_bytes(&run.in, bytes, count);
	for (unsigned i = 0; i < count; i++) {
		const struct region *r = memory_find(run.memory[0], where + i);

		if (r && r->map)
			r->host[where + i - r->guest] = (char)bytes[i];
	}
}

/* False if it is one that lets the loop do its work first. */
static bool step(void)
{
	uint8_t offset, count;
	uint32_t value[64];
	uint16_t where;

	switch (input_byte(&run.in) % STEP_KINDS) {
	case STEP_WRITE:
		offset = input_byte(&run.in);
		input_bytes(&run.in, value, 4);
		reg_write(offsets[offset % (sizeof offsets / sizeof *offsets)], value[0]);
		break;
	case STEP_READ:
		offset = input_byte(&run.in);
		pci_bar_read(run.pci, 0, offsets[offset % (sizeof offsets / sizeof *offsets)],
			     value, 4);
		break;
	case STEP_RINGS:
		rings();
		break;
	case STEP_COMMAND:
		offset = input_byte(&run.in);
		count = input_byte(&run.in) % 64;
		input_bytes(&run.in, value, count * 4u);
		command(offset, value, count);
		break;
	case STEP_TURN:
		return false;
	case STEP_MEMORY:
		run.pci->dma.memory = run.memory[input_byte(&run.in) & 1];
		break;
	case STEP_RESET:
		pci_reset(run.pci);
		break;
	case STEP_POKE:
		poke();
		break;
	case STEP_ACCESS:
		input_bytes(&run.in, &where, 2);
		count = input_byte(&run.in) % 9;
		input_bytes(&run.in, value, 8);
		if (pci_bar_write(run.pci, 0, where, value, count))
			pci_bar_read(run.pci, 0, where % PVSCSI_BAR_SIZE, value, 1);
		break;
	}
	return true;
}

/* --- one input ----------------------------------------------------------------------- */

static void stopped(struct pci_device *pci)
{
	(void)pci;
	sem_post(&finished);
}

static void next_turn(struct loop_message *message)
{
	const uint16_t config = run.flags & 2 ? 2 : 6;

	if (!run.turns++) {
		run.last = MANY;
		if (pci_start(run.pci, loop))
			abort();
		pci_interrupts_changed(run.pci, run.flags & 1 ? PCI_MSIX : PCI_INTX);
		pci_config_write(run.pci, 4, &config, sizeof config);
	}
	while (run.in.size && run.steps < STEPS) {
		run.steps++;
		if (!step())
			break;
	}
	if (run.in.size && run.steps < STEPS)
		run.last = run.turns + MANY;
	if (run.turns >= run.last)
		pci_stop(run.pci, stopped);
	else
		loop_send(loop, message);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	static const char *const options[] = { NULL };

	(void)count;
	(void)arguments;
	sem_init(&finished, 0, 0);
	loop = fuzz_loop("fuzz");
	for (unsigned i = 0; i < 2; i++) {
		device[i] = container_of(
			fuzz_device("pvscsi", "none", fuzz_disk("memory", (int)i), options),
			struct pci_device, device);
		device[i]->transport_ops = &transport_ops;
		device[i]->dma.send = send_message;
		device[i]->dma.message_max = 1024;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mapping map[REGIONS] = { 0 };

	run = (struct run){ .message.run = next_turn, .in = { data, size }, .answer.run = answer };
	list_init(&run.sent);
	run.flags = input_byte(&run.in);
	run.pci = device[run.flags >> 3 & 1];
	for (unsigned i = 0; i < REGIONS; i++) {
		map[i].checked = MAPPING_CHECKED; /* messages are for transfers */
		if (!regions[i].announced)
			map[i].base = calloc(1, regions[i].size);
	}
	run.memory[0] = make_table(map, 0);
	run.memory[1] = make_table(map, 1);
	run.pci->dma.memory = run.memory[0];
	loop_send(loop, &run.message);
	while (sem_wait(&finished)) /* libFuzzer's timer interrupts it */
		;
	free_table(run.memory[0]);
	free_table(run.memory[1]);
	for (unsigned i = 0; i < REGIONS; i++)
		free(map[i].base);
	return 0;
}
