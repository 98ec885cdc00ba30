/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_command.c - the registers of a PVSCSI adapter: commands, interrupts, kicks
 *
 * A command is a number in COMMAND, then its words one by one in COMMAND_DATA; the last one starts
 * it. COMMAND_STATUS then holds its result. Until then it holds the words that the command takes,
 * which is how drivers find out what an adapter knows.
 *
 * Register writes are posted in QEMU: the driver does not wait for us. So what a command means to
 * happen at once may be late, and we never write what is the driver's. Two commands have an answer
 * in the guest's memory, for which drivers do not wait: Linux looks at the page of CONFIG once, and
 * frees it. So these are refused if nobody waits for the write, as QEMU's own adapter always does.
 *
 * Resets. On VMware a reset is over when the register write returns, and drivers rely on that: they
 * look at the completion ring, and then use memory and commands again. Here storage may still be
 * at work, and a command must not be completed while it is, nor may an old write overtake a new
 * one. So after a reset no request is taken until the commands that it concerns are back: whatever
 * the driver sends next is answered after them. A reset of the adapter also drops them: it takes
 * effect at once, and nothing of what was before it shows any more.
 */
#include <string.h>

#include "frontend/scsi/pvscsi_private.h"

/* --- interrupts --------------------------------------------------------------------- */

/* All drivers want completions and messages by one vector. */
#define VECTOR 0u

/* A reason that is enabled is signalled each time: with MSI nobody acknowledges it. */
void pvscsi_interrupt(struct pvscsi *p, uint32_t reason)
{
	p->intr_status |= reason;
	if (p->intr_mask & reason)
		pci_assert(&p->pci, VECTOR);
	else
		stats_add(&p->pci.device.stats[0].interrupts_suppressed, 1);
}

static void interrupts_set(struct pvscsi *p, uint32_t status, uint32_t mask)
{
	uint32_t before = p->intr_status & p->intr_mask, now = status & mask;

	p->intr_status = status;
	p->intr_mask = mask;
	if (before && !now)
		pci_deassert(&p->pci, VECTOR);
	else if (now & ~before)
		pci_assert(&p->pci, VECTOR);
}

static uint64_t read_intr_status(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)offset;
	(void)width;
	return pvscsi_of(dev)->intr_status;
}

static void write_intr_status(struct pci_device *dev, uint32_t offset, unsigned width,
			      uint64_t value)
{
	struct pvscsi *p = pvscsi_of(dev);

	(void)offset;
	(void)width;
	interrupts_set(p, p->intr_status & ~(uint32_t)value, p->intr_mask);
}

static uint64_t read_intr_mask(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)offset;
	(void)width;
	return pvscsi_of(dev)->intr_mask;
}

static void write_intr_mask(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct pvscsi *p = pvscsi_of(dev);

	(void)offset;
	(void)width;
	interrupts_set(p, p->intr_status, (uint32_t)value & PVSCSI_INTR_ALL);
}

/* --- resets and aborts -------------------------------------------------------------- */

static void task_done(struct scsi_task_request *request)
{
	struct pvscsi_task *task = request->owner;
	struct pvscsi *p = task->adapter;

	task->used = false;
	p->tasks_out--;
	if (task->holds && !--p->holds)
		pvscsi_rings_kick(p);
	task->holds = false;
	pvscsi_maybe_stopped(p);
}

static void task_start(struct pvscsi *p, struct pvscsi_task *task, bool holds,
		       const struct scsi_task_request *request)
{
	task->used = true;
	task->adapter = p;
	task->holds = holds;
	task->request = *request;
	task->request.done = task_done;
	task->request.owner = task;
	p->tasks_out++;
	p->holds += holds;
	scsi_task_manage(p->queue, &task->request);
}

/* The first is for resets of everything; the others are for one unit or command. NULL: all used. */
static struct pvscsi_task *free_task(struct pvscsi *p)
{
	for (unsigned i = 1; i < PVSCSI_TASKS; i++)
		if (!p->tasks[i].used)
			return &p->tasks[i];
	return NULL;
}

/* While one is under way nothing is taken, so that a second one finds nothing more to end. */
static void reset_all(struct pvscsi *p)
{
	const struct scsi_task_request request = { .function = SCSI_BUS_RESET };

	if (p->queue && !p->stopping && !p->tasks[0].used)
		task_start(p, &p->tasks[0], true, &request);
}

void pvscsi_adapter_reset(struct pvscsi *p)
{
	pvscsi_requests_drop(p);
	pvscsi_rings_release(p);
	p->rings.heeded = false;
	p->command = PVSCSI_CMD_NONE;
	p->command_status = 0;
	interrupts_set(p, 0, p->intr_mask);
	reset_all(p);
}

static uint32_t command_adapter_reset(struct pvscsi *p)
{
	pvscsi_adapter_reset(p);
	return 0;
}

static uint32_t command_reset_bus(struct pvscsi *p)
{
	pvscsi_rings_drain(p);
	reset_all(p);
	return 0;
}

static uint32_t command_reset_device(struct pvscsi *p)
{
	const struct pvscsi_reset_device *reset = (const void *)p->words;
	const struct scsi_task_request request = {
		.function = SCSI_LOGICAL_UNIT_RESET,
		.target = (uint16_t)reset->target,
		.lun = pvscsi_lun(reset->lun),
	};

	struct pvscsi_task *task = free_task(p);

	if (reset->target >= PVSCSI_TARGETS || !task)
		return PVSCSI_FAILED;
	pvscsi_rings_drain(p);
	task_start(p, task, true, &request);
	return 0;
}

/* The command comes back as aborted when storage has let go of it, or as what became of it. */
static uint32_t command_abort(struct pvscsi *p)
{
	struct pvscsi_task *task = free_task(p);
	struct pvscsi_abort_cmd abort_cmd;
	struct pvscsi_request *r;
	struct scsi_task_request request = { .function = SCSI_ABORT_TASK };

	memcpy(&abort_cmd, p->words, sizeof abort_cmd);
	pvscsi_rings_drain(p);
	r = pvscsi_request_find(p, abort_cmd.context, abort_cmd.target);
	if (!r)
		return 0;
	if (!task)
		return PVSCSI_FAILED;
	request.target = r->command.target;
	request.lun = r->command.lun;
	request.tag = r->command.tag;
	r->abort_wanted = true;
	task_start(p, task, false, &request);
	return 0;
}

/* --- the other commands ------------------------------------------------------------- */

static uint32_t command_setup_rings(struct pvscsi *p)
{
	struct pvscsi_setup_rings setup;

	memcpy(&setup, p->words, sizeof setup);
	return pvscsi_rings_setup(p, &setup) ? PVSCSI_FAILED : 0;
}

/* Its result is what drivers expect, not 0. */
static uint32_t command_setup_msg_ring(struct pvscsi *p)
{
	struct pvscsi_setup_msg_ring setup;

	memcpy(&setup, p->words, sizeof setup);
	return pvscsi_msg_ring_setup(p, &setup) ? PVSCSI_FAILED : sizeof setup / 4;
}

/* Its result: whether it is on. */
static uint32_t command_setup_threshold(struct pvscsi *p)
{
	p->rings.heeded = p->words[0] != 0;
	return p->rings.heeded;
}

static uint32_t command_max_targets(struct pvscsi *p)
{
	(void)p;
	return PVSCSI_TARGETS;
}

static void put_text(uint16_t *to, unsigned room, const char *text)
{
	for (unsigned i = 0; i + 1 < room && text[i]; i++)
		to[i] = (uint8_t)text[i];
}

static bool may_answer(const struct pvscsi *p)
{
	return p->pci.waited_for && pci_bus_master(&p->pci);
}

static uint32_t command_config(struct pvscsi *p)
{
	struct pvscsi_config_page page = {
		.page = PVSCSI_PAGE_CONTROLLER,
		.words = sizeof page / 4,
		.host_status = PVSCSI_HOST_SUCCESS,
		.scsi_status = SCSI_GOOD,
		.phys = PVSCSI_TARGETS,
	};
	struct pvscsi_config_cmd config;
	bool known;
	void *to;

	memcpy(&config, p->words, sizeof config);
	known = config.page == PVSCSI_PAGE_CONTROLLER &&
		config.page_address == PVSCSI_PAGE_CONTROLLER_ADDRESS;
	to = dma_map(&p->pci.dma, config.address, sizeof page);
	if (!known || !to || !may_answer(p))
		return PVSCSI_FAILED; /* the driver has filled in that it failed */
	put_text(page.manufacturer, 64, "Penstock");
	put_text(page.serial_number, 64, p->pci.device.name);
	put_text(page.hardware, 32, "PVSCSI");
	put_text(page.firmware, 32, PENSTOCK_VERSION);
	memcpy(to, &page, sizeof page);
	return 0;
}

/* A guest that wants to give a unit back ("safely remove"): that is its owner's to say. */
static uint32_t command_unplug(struct pvscsi *p)
{
	struct pvscsi_device_unplug unplug;
	const uint16_t refused = PVSCSI_HOST_BAD_MESSAGE;
	void *to;

	memcpy(&unplug, p->words, sizeof unplug);
	to = dma_map(&p->pci.dma, unplug.host_status_address, sizeof refused);
	if (to && may_answer(p))
		memcpy(to, &refused, sizeof refused);
	return PVSCSI_FAILED;
}

static const struct {
	uint32_t bytes; /* that follow it */
	uint32_t (*run)(struct pvscsi *p);
} commands[PVSCSI_CMDS] = {
	[PVSCSI_CMD_ADAPTER_RESET] = { 0, command_adapter_reset },
	[PVSCSI_CMD_SETUP_RINGS] = { sizeof(struct pvscsi_setup_rings), command_setup_rings },
	[PVSCSI_CMD_RESET_BUS] = { 0, command_reset_bus },
	[PVSCSI_CMD_RESET_DEVICE] = { sizeof(struct pvscsi_reset_device), command_reset_device },
	[PVSCSI_CMD_ABORT_CMD] = { sizeof(struct pvscsi_abort_cmd), command_abort },
	[PVSCSI_CMD_CONFIG] = { sizeof(struct pvscsi_config_cmd), command_config },
	[PVSCSI_CMD_SETUP_MSG_RING] = { sizeof(struct pvscsi_setup_msg_ring),
					command_setup_msg_ring },
	[PVSCSI_CMD_DEVICE_UNPLUG] = { sizeof(struct pvscsi_device_unplug), command_unplug },
	[PVSCSI_CMD_SETUP_REQCALLTHRESHOLD] = { sizeof(struct pvscsi_setup_threshold),
						command_setup_threshold },
	[PVSCSI_CMD_GET_MAX_TARGETS] = { 0, command_max_targets },
};

static void run(struct pvscsi *p)
{
	uint32_t command = p->command;

	p->command = PVSCSI_CMD_NONE;
	p->command_status = commands[command].run(p);
}

static void write_command(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	struct pvscsi *p = pvscsi_of(dev);

	(void)offset;
	(void)width;
	p->command = PVSCSI_CMD_NONE;
	p->command_status = PVSCSI_FAILED;
	if (!p->queue || p->stopping || value >= PVSCSI_CMDS || !commands[value].run)
		return;
	p->command = (uint32_t)value;
	p->words_given = 0;
	p->words_wanted = p->command_status = commands[value].bytes / 4;
	if (!p->words_wanted)
		run(p);
}

static void write_command_data(struct pci_device *dev, uint32_t offset, unsigned width,
			       uint64_t value)
{
	struct pvscsi *p = pvscsi_of(dev);

	(void)offset;
	(void)width;
	if (p->command == PVSCSI_CMD_NONE || p->stopping)
		return;
	p->words[p->words_given++] = (uint32_t)value;
	if (p->words_given == p->words_wanted)
		run(p);
}

static uint64_t read_command_status(struct pci_device *dev, uint32_t offset, unsigned width)
{
	(void)offset;
	(void)width;
	return pvscsi_of(dev)->command_status;
}

static void write_kick(struct pci_device *dev, uint32_t offset, unsigned width, uint64_t value)
{
	(void)offset;
	(void)width;
	(void)value;
	pvscsi_rings_kick(pvscsi_of(dev));
}

const struct pci_register pvscsi_registers[] = {
	{ "COMMAND", PVSCSI_COMMAND, 4, 4, NULL, write_command },
	{ "COMMAND_DATA", PVSCSI_COMMAND_DATA, 4, 4, NULL, write_command_data },
	{ "COMMAND_STATUS", PVSCSI_COMMAND_STATUS, 4, 4, read_command_status, NULL },
	{ "LAST_STS", PVSCSI_LAST_STATUS, 16, 4, NULL, NULL },
	{ "INTR_STATUS", PVSCSI_INTR_STATUS, 4, 4, read_intr_status, write_intr_status },
	{ "INTR_MASK", PVSCSI_INTR_MASK, 4, 4, read_intr_mask, write_intr_mask },
	{ "KICK_NON_RW_IO", PVSCSI_KICK_NON_RW, 4, 4, NULL, write_kick },
	{ "DEBUG", PVSCSI_DEBUG, 4, 4, NULL, NULL },
	{ "KICK_RW_IO", PVSCSI_KICK_RW, 4, 4, NULL, write_kick },
	{ 0 },
};
