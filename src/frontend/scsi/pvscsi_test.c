/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_test.c - the adapter as its driver sees it: rings, lists, sense data, interrupts, the
 * threshold, commands, messages, aborts and resets in mid-flight
 */
#include "pvscsi_testing.h"

/* --- rings, data, sense -------------------------------------------------------------- */

static void write_and_read(void **state)
{
	struct hba_slot *s;
	uint8_t want[8 * BLOCK];

	(void)state;
	rig_open(0);
	drive();
	assert_int_equal(rig.hba.state->req_log2, 8);
	assert_int_equal(rig.hba.state->cmp_log2, 10);
	pattern(want, sizeof want, 3);
	s = rw(1, true, 100, 8);
	memcpy(s->data, want, sizeof want);
	good(s, sizeof want);
	s = rw(1, false, 100, 8);
	memset(s->data, 0, sizeof want);
	good(s, sizeof want);
	assert_memory_equal(s->data, want, sizeof want);
	/* the other disk has nothing of it */
	s = rw(0, false, 100, 8);
	good(s, sizeof want);
	assert_int_equal(s->data[1], 0);
	rig_close();
}

/* Both rings go round many times, with as many at once as there are. */
static void many(void **state)
{
	uint64_t issued = 0;
	int done[64], n;

	(void)state;
	rig_open(0);
	drive();
	while (issued < 20000) {
		int index;

		while ((index = hba_take(&rig.hba)) >= 0) {
			hba_format_rw(&rig.hba, index, 1, issued & 1, (uint32_t)issued % 1000, 4,
				      BLOCK);
			hba_push(&rig.hba, index);
			issued++;
		}
		hba_kick(&rig.hba);
		while (!(n = hba_reap(&rig.hba, done, 64)))
			sched_yield();
		assert_true(n > 0);
		for (int i = 0; i < n; i++) {
			assert_int_equal(rig.hba.slot[done[i]].cmp.host_status, 0);
			assert_int_equal(rig.hba.slot[done[i]].cmp.scsi_status, 0);
		}
	}
	for (int i = 0; i < 64; i++)
		assert_int_equal(hba_wait(&rig.hba, i, 5000), 0);
	/* At most one interrupt a batch, and the threshold saves kicks. */
	assert_true(atomic_load(&rig.signals) <= rig.hba.completions);
	rig_close();
}

static void lists(void **state)
{
	struct hba_slot *s, *spare;
	uint8_t want[16 * BLOCK];
	unsigned at = 0;

	(void)state;
	rig_open(0);
	drive();
	pattern(want, sizeof want, 9);
	/* written in pieces of odd sizes, from a list in two segments with empty elements */
	s = rw(1, true, 0, 16);
	spare = &rig.hba.slot[63];
	memcpy(s->data, want, sizeof want);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = s->list_at;
	s->list[0] = (struct hba_sg){ s->data_at, 100, 0 };
	s->list[1] = (struct hba_sg){ HOLE, 0, 0 };
	s->list[2] = (struct hba_sg){ s->data_at + 100, 412, 0 };
	s->list[3] = (struct hba_sg){ spare->list_at + 4096 - 32, 0, HBA_SG_CHAIN };
	spare->list[254] = (struct hba_sg){ s->data_at + 512, 4097, 0 };
	/* and longer than the request */
	spare->list[255] = (struct hba_sg){ s->data_at + 4609, 60000, 0 };
	good(s, sizeof want);
	/* read back in 128 pieces, backwards in memory, across the border of two regions */
	s = rw(1, false, 0, 16);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = s->list_at;
	for (unsigned i = 0; i < 128; i++)
		s->list[i] = (struct hba_sg){ s->data_at + (127 - i) * 64, 64, 0 };
	good(s, sizeof want);
	for (unsigned i = 0; i < 128; i++, at += 64)
		assert_memory_equal(s->data + (127 - i) * 64, want + at, 64);
	s = rw(1, false, 0, 16);
	s->req.data_address = GUEST + BYTES / 2 - 777;
	good(s, sizeof want);
	assert_memory_equal(rig.memory + BYTES / 2 - 777, want, sizeof want);
	rig_close();
}

/* Behind a virtual IOMMU each page is a region of its own. */
static void map_pages(void *data)
{
	struct error err = { 0 };

	(void)data;
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(memory_add(&rig.pci->dma.memory, (1ull << 40) + i * HBA_PAGE,
					    HBA_PAGE, (1ull << 41) + i * HBA_PAGE, rig.fd,
					    (4ull << 20) + (15 - i) * HBA_PAGE, &err),
				 0);
}

static void pages(void **state)
{
	struct hba_slot *s;
	uint8_t want[16 * HBA_PAGE];

	(void)state;
	rig_open(0);
	drive();
	on_loop(map_pages, NULL);
	pattern(want, sizeof want, 5);
	for (unsigned i = 0; i < 16; i++)
		memcpy(rig.memory + (4 << 20) + (15 - i) * HBA_PAGE, want + i * HBA_PAGE, HBA_PAGE);
	s = rw(1, true, 0, 128);
	s->req.data_address = 1ull << 40;
	good(s, sizeof want);
	s = rw(1, false, 0, 128);
	good(s, sizeof want);
	assert_memory_equal(s->data, want, sizeof want);
	rig_close();
}

static void sense(void **state)
{
	struct hba_slot *s;

	(void)state;
	rig_open(0);
	drive();
	/* beyond the end: ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE */
	s = rw(1, false, 0x7fffffff, 1);
	memset(s->sense, 0xee, 256);
	assert_int_equal(run(s), HBA_SUCCESS);
	assert_int_equal(s->cmp.scsi_status, 2);
	assert_int_equal(s->cmp.data_length, 0);
	assert_int_equal(s->cmp.sense_length, 18);
	assert_int_equal(s->sense[0] & 0x7f, 0x70);
	assert_int_equal(s->sense[2] & 15, 5);
	assert_int_equal(s->sense[12], 0x21);
	assert_int_equal(s->sense[18], 0xee);
	/* cut to the room there is */
	s = rw(1, false, 0x7fffffff, 1);
	s->req.sense_length = 8;
	memset(s->sense, 0xee, 256);
	run(s);
	assert_int_equal(s->cmp.sense_length, 8);
	assert_int_equal(s->sense[8], 0xee);
	/* none: the driver must not take it for success */
	s = rw(1, false, 0x7fffffff, 1);
	s->req.sense_length = 0;
	assert_int_equal(run(s), PVSCSI_HOST_SENSE_FAILED);
	assert_int_equal(s->cmp.sense_length, 0);
	rig_close();
}

static void addressing(void **state)
{
	static const uint8_t inquiry[6] = { 0x12, 0, 0, 0, 36, 0 };
	struct hba_slot *s;

	(void)state;
	rig_open(0);
	drive();
	s = slot(hba_do(&rig.hba, 1, inquiry, 6, HBA_TO_HOST, 36));
	assert_int_equal(s->cmp.host_status, HBA_SUCCESS);
	assert_memory_equal(s->data + 8, "PENSTOCK", 8);
	/* shorter than there is room for is no error: Linux would make one of it */
	s = slot(hba_do(&rig.hba, 1, inquiry, 6, HBA_TO_HOST, 255));
	assert_int_equal(s->cmp.host_status, HBA_SUCCESS);
	assert_int_equal(s->cmp.data_length, 36);
	s = slot(hba_do(&rig.hba, 2, inquiry, 6, HBA_TO_HOST, 36));
	assert_int_equal(s->cmp.host_status, HBA_NOBODY);
	s = slot(hba_do(&rig.hba, 255, inquiry, 6, HBA_TO_HOST, 36));
	assert_int_equal(s->cmp.host_status, HBA_NOBODY);
	s = rw(1, false, 0, 1);
	s->req.bus = 1;
	assert_int_equal(run(s), HBA_NOBODY);
	s = rw(1, false, 0, 1);
	s->req.lun[1] = 5;
	run(s);
	assert_int_equal(s->cmp.scsi_status, 2);
	assert_int_equal(s->sense[12], 0x25); /* LOGICAL UNIT NOT SUPPORTED */
	for (uint8_t tag = 0x1f; tag < 0x24; tag++) {
		s = rw(1, false, 0, 1);
		s->req.tag = tag;
		good(s, BLOCK);
	}
	s = rw(1, false, 0, 1);
	s->req.cdb_length = 17;
	assert_int_equal(run(s), HBA_INVALID);
	s = rw(1, false, 0, 1);
	s->req.data_length = 1ull << 40;
	assert_int_equal(run(s), HBA_INVALID);
	rig_close();
}

/* --- interrupts ---------------------------------------------------------------------- */

static void intx(void **state)
{
	(void)state;
	rig_open(0);
	hba_start(&rig.hba, 0);
	/* polled, as SeaBIOS does: the status tells, and no interrupt comes */
	slot(hba_do(&rig.hba, 1, tur, 6, HBA_NO_DATA, 0));
	assert_int_equal(bus_read(NULL, HBA_INTR_STATUS), 1);
	assert_false(atomic_load(&rig.high));
	/* enabled while it is pending */
	bus_write(NULL, HBA_INTR_MASK, HBA_INTR_CMPL);
	assert_true(atomic_load(&rig.high));
	bus_write(NULL, HBA_INTR_STATUS, 2); /* another bit */
	assert_true(atomic_load(&rig.high));
	bus_write(NULL, HBA_INTR_STATUS, 1);
	assert_false(atomic_load(&rig.high));
	assert_int_equal(bus_read(NULL, HBA_INTR_STATUS), 0);
	slot(hba_do(&rig.hba, 1, tur, 6, HBA_NO_DATA, 0));
	bus_read(NULL, HBA_INTR_STATUS);
	assert_true(atomic_load(&rig.high));
	assert_int_equal(atomic_load(&rig.lines), 2);
	bus_write(NULL, HBA_INTR_MASK, 0);
	assert_false(atomic_load(&rig.high));
	assert_int_equal(atomic_load(&rig.signals), 0);
	rig_close();
}

static void messages_signalled(void **state)
{
	(void)state;
	rig_open(0);
	for (enum pci_interrupt_mode mode = PCI_MSI; mode <= PCI_MSIX; mode++) {
		unsigned before;

		interrupts(mode);
		hba_start(&rig.hba, HBA_INTR_CMPL);
		before = atomic_load(&rig.signals);
		/* nobody acknowledges, and each is signalled */
		for (unsigned i = 1; i <= 5; i++) {
			slot(hba_do(&rig.hba, 1, tur, 6, HBA_NO_DATA, 0));
			bus_read(NULL, HBA_INTR_STATUS);
			assert_int_equal(atomic_load(&rig.signals) - before, i);
		}
	}
	assert_int_equal(atomic_load(&rig.lines), 0);
	rig_close();
}

/* --- the threshold ------------------------------------------------------------------- */

static void threshold(void **state)
{
	struct hba_slot *s;
	unsigned misses = 0;

	(void)state;
	rig_open(0);
	drive();
	assert_true(rig.hba.threshold_on);
	/* with nothing to do the loop sleeps, and wants a kick for a single request */
	for (unsigned i = 0; i < 50; i++) {
		sleep_us(500);
		assert_int_equal(rig.hba.state->threshold, 1);
		rig.hba.kicks = 0;
		good(rw(1, false, i, 1), BLOCK);
		misses += !rig.hba.kicks;
	}
	assert_int_equal(misses, 0);
	/* a driver that looked at the threshold too early is seen all the same */
	for (unsigned i = 0; i < 50; i++) {
		good(rw(1, false, i, 1), BLOCK); /* the loop polls now, or has just stopped */
		s = rw(1, false, i, 1);
		if (rig.hba.state->threshold > 1) {
			hba_push(&rig.hba, index_of(s));
			assert_int_equal(hba_wait(&rig.hba, index_of(s), 1000), 0);
		} else {
			good(s, BLOCK);
		}
	}
	rig_close();
}

/* --- commands ------------------------------------------------------------------------ */

static void commands(void **state)
{
	struct {
		uint64_t address, page_address;
		uint32_t page, padding;
	} config = { 0, 0x2120ull << 32, 0x1958, 0 };
	const struct pvscsi_config_page *page;
	const uint32_t unplug[6] = { (uint32_t)GUEST, 0, 0, 1, 0, 0 };

	(void)state;
	rig_open(0);
	/* how drivers find out what there is */
	hba_command(&rig.hba, HBA_CMD_SETUP_MSG_RING, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), 34);
	hba_command(&rig.hba, HBA_CMD_SETUP_REQCALLTHRESHOLD, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), 1);
	hba_command(&rig.hba, HBA_CMD_DEVICE_UNPLUG, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), 6);
	hba_command(&rig.hba, HBA_CMD_ISSUE_SCSI, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	hba_command(&rig.hba, 12, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	hba_command(&rig.hba, HBA_CMD_GET_MAX_TARGETS, NULL, 0);
	assert_int_equal(hba_command_status(&rig.hba), 64);
	/* the controller's page, without rings */
	config.address = GUEST + 0x3000;
	page = (const void *)(rig.memory + 0x3000);
	hba_command(&rig.hba, HBA_CMD_CONFIG, &config, sizeof config);
	assert_int_equal(hba_command_status(&rig.hba), 0);
	assert_int_equal(page->host_status, 0);
	assert_int_equal(page->phys, 64);
	/* no answer for which nobody waits: that memory may be something else by now */
	memset(rig.memory + 0x3000, 0x5a, sizeof *page);
	atomic_store(&rig.posted, true);
	hba_command(&rig.hba, HBA_CMD_CONFIG, &config, sizeof config);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	assert_int_equal(page->page, 0x5a5a5a5a);
	atomic_store(&rig.posted, false);
	config.page = 0x1959;
	hba_command(&rig.hba, HBA_CMD_CONFIG, &config, sizeof config);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	config.page = 0x1958;
	config.address = HOLE;
	hba_command(&rig.hba, HBA_CMD_CONFIG, &config, sizeof config);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	/* a guest cannot take its disks away */
	hba_command(&rig.hba, HBA_CMD_DEVICE_UNPLUG, unplug, sizeof unplug);
	assert_int_equal(hba_command_status(&rig.hba), UINT32_MAX);
	assert_int_equal(*(uint16_t *)(void *)rig.memory, PVSCSI_HOST_BAD_MESSAGE);
	/* a message ring before the rings is a nop */
	hba_command(&rig.hba, HBA_CMD_SETUP_MSG_RING, &rig.hba.msg_setup, sizeof rig.hba.msg_setup);
	assert_int_equal(hba_command_status(&rig.hba), 34);
	/* words without a command, and kicks without rings */
	bus_write(NULL, HBA_COMMAND_DATA, 1);
	bus_write(NULL, HBA_KICK_RW, 0);
	assert_false(atomic_load(&rig.broken));
	rig_close();
}

/* --- aborts and resets --------------------------------------------------------------- */

struct abort_cmd {
	uint64_t context;
	uint32_t target, padding;
};

static void aborts(void **state)
{
	struct abort_cmd abort_cmd = { 0 };
	struct hba_slot *s, *other;

	(void)state;
	rig_open(100000);
	drive();
	s = rw(0, false, 0, 1);
	other = rw(0, false, 8, 1);
	if (s == other)
		other = (hba_format_rw(&rig.hba, index_of(s) + 1, 0, false, 8, 1, BLOCK));
	hba_push(&rig.hba, index_of(s));
	hba_push(&rig.hba, index_of(other));
	/* not kicked: it is still on the ring when the abort comes */
	abort_cmd.context = s->req.context;
	hba_command(&rig.hba, HBA_CMD_ABORT_CMD, &abort_cmd, sizeof abort_cmd);
	assert_int_equal(hba_wait(&rig.hba, index_of(s), 5000), 0);
	assert_int_equal(s->cmp.host_status, HBA_ABORTED);
	assert_int_equal(hba_wait(&rig.hba, index_of(other), 5000), 0);
	assert_int_equal(other->cmp.host_status, HBA_SUCCESS);
	/* one that nobody knows, and a target that is not */
	abort_cmd.context = 777;
	hba_command(&rig.hba, HBA_CMD_ABORT_CMD, &abort_cmd, sizeof abort_cmd);
	assert_int_equal(hba_command_status(&rig.hba), 0);
	abort_cmd.target = 0xffffffff;
	hba_command(&rig.hba, HBA_CMD_ABORT_CMD, &abort_cmd, sizeof abort_cmd);
	assert_int_equal(hba_command_status(&rig.hba), 0);
	good(rw(0, false, 0, 1), BLOCK);
	rig_close();
}

/* What comes after a reset is answered after what was before it. */
static void bus_and_device_reset(void **state)
{
	const uint32_t device[3] = { 0, 0, 0 };

	(void)state;
	rig_open(50000);
	drive();
	for (unsigned round = 0; round < 2; round++) {
		struct hba_slot *old, *next;

		old = rw(0, false, 0, 1);
		hba_push(&rig.hba, index_of(old));
		if (round)
			hba_command(&rig.hba, HBA_CMD_RESET_BUS, NULL, 0);
		else
			hba_command(&rig.hba, HBA_CMD_RESET_DEVICE, device, sizeof device);
		next = slot(hba_do(&rig.hba, 0, tur, 6, HBA_NO_DATA, 0));
		assert_false(old->busy);
		assert_int_equal(old->cmp.host_status, HBA_RESET);
		assert_int_equal(next->cmp.host_status, HBA_SUCCESS);
		assert_int_equal(next->cmp.scsi_status, 2); /* unit attention: it was reset */
		assert_int_equal(next->sense[12], 0x29);
		slot(hba_do(&rig.hba, 1, tur, 6, HBA_NO_DATA, 0));
		good(rw(0, false, 0, 1), BLOCK);
	}
	rig_close();
}

/* Nothing of before shows, neither on the old rings nor on the new. */
static void adapter_reset(void **state)
{
	uint8_t before[HBA_PAGE];

	(void)state;
	rig_open(100000);
	drive();
	for (unsigned i = 0; i < 32; i++)
		hba_push(&rig.hba, index_of(rw(0, true, i, 1)));
	hba_kick(&rig.hba);
	sleep_us(10000); /* they are with the storage */
	hba_command(&rig.hba, HBA_CMD_ADAPTER_RESET, NULL, 0);
	hba_command_status(&rig.hba);
	memcpy(before, rig.hba.state, sizeof before);
	sleep_us(150000);
	assert_memory_equal(before, rig.hba.state, sizeof before);
	assert_int_equal(bus_read(NULL, HBA_INTR_STATUS), 0);
	drive();
	good(rw(0, false, 0, 1), BLOCK);
	/* again, with new rings at once: storage is still at work for the old */
	for (unsigned i = 0; i < 32; i++)
		hba_push(&rig.hba, index_of(rw(0, true, i, 1)));
	hba_kick(&rig.hba);
	sleep_us(10000);
	drive();
	for (unsigned i = 0; i < 32; i++)
		good(rw(1, false, i, 1), BLOCK);
	good(rw(0, false, 0, 1), BLOCK);
	rig_close();
}

/* The VMM resets the function, and goes away, while requests are under way. */
static void function_reset(void **state)
{
	(void)state;
	rig_open(50000);
	drive();
	for (unsigned i = 0; i < 32; i++)
		hba_push(&rig.hba, index_of(rw(0, false, i, 1)));
	hba_kick(&rig.hba);
	sleep_us(5000);
	rig_close();
}

/* --- hot plug ------------------------------------------------------------------------ */

static void changed(struct device_change *change)
{
	(void)change;
	sem_post(&rig.done);
}

static void attach_third(void *data)
{
	struct error err = { 0 };

	(void)data;
	if (rig.device->ops->attach(rig.device, 2, rig.disk[2], &err))
		fail_msg("%s", err.text);
}

static void detach_third(void *data)
{
	struct error err = { 0 };

	assert_int_equal(rig.device->ops->detach(rig.device, 2, data, &err), 0);
}

static struct hba_msg await_message(void)
{
	struct hba_msg message;

	for (unsigned i = 0; i < 2000; i++) {
		if (hba_message(&rig.hba, &message))
			return message;
		sleep_us(1000);
	}
	fail_msg("no message came");
	return message;
}

static void hot_plug(void **state)
{
	struct device_change change = { .done = changed };
	struct hba_msg message;
	unsigned signals;

	(void)state;
	rig_open(0);
	drive();
	for (unsigned round = 0; round < 3; round++) {
		signals = atomic_load(&rig.signals);
		on_loop(attach_third, NULL);
		message = await_message();
		assert_int_equal(message.type, 0);
		assert_int_equal(message.bus, 0);
		assert_int_equal(message.target, 2);
		assert_int_equal(message.lun[1], 0);
		assert_int_equal(bus_read(NULL, HBA_INTR_STATUS) & HBA_INTR_MSG, 4);
		assert_int_equal(atomic_load(&rig.signals), signals + 1);
		slot(hba_do(&rig.hba, 2, tur, 6, HBA_NO_DATA, 0)); /* power on */
		good(rw(2, false, 0, 1), BLOCK);
		on_loop(detach_third, &change);
		while (sem_wait(&rig.done))
			;
		assert_int_equal(change.status, 0);
		message = await_message();
		assert_int_equal(message.type, 1);
		assert_int_equal(message.target, 2);
		assert_int_equal(run(rw(2, false, 0, 1)), HBA_NOBODY);
	}
	/* a guest that does not read its messages loses them, and nothing else */
	for (unsigned round = 0; round < 20; round++) {
		on_loop(attach_third, NULL);
		do {
			on_loop(detach_third, &change);
			while (sem_wait(&rig.done))
				;
		} while (change.status == -EBUSY); /* it is still on its way in */
		assert_int_equal(change.status, 0);
	}
	bus_read(NULL, HBA_INTR_STATUS);
	assert_true(rig.hba.state->msg_prod - rig.hba.state->msg_cons <= 32);
	good(rw(1, false, 0, 1), BLOCK);
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write_and_read), cmocka_unit_test(many),
		cmocka_unit_test(lists),          cmocka_unit_test(pages),
		cmocka_unit_test(sense),          cmocka_unit_test(addressing),
		cmocka_unit_test(intx),           cmocka_unit_test(messages_signalled),
		cmocka_unit_test(threshold),      cmocka_unit_test(commands),
		cmocka_unit_test(aborts),         cmocka_unit_test(bus_and_device_reset),
		cmocka_unit_test(adapter_reset),  cmocka_unit_test(function_reset),
		cmocka_unit_test(hot_plug),
	};

	memory_guard_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
