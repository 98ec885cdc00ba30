/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_hostile_test.c - a guest that lies to its PVSCSI adapter, and a VMM that takes its memory
 * away: the function breaks, says why, and is as new after a reset
 */
#include "pvscsi_testing.h"

/* Sends @s; the function must break for @why. Then it comes back to life by a reset. */
static void breaks(struct hba_slot *s, const char *why)
{
	if (s) {
		hba_push(&rig.hba, index_of(s));
		hba_kick(&rig.hba);
	}
	for (unsigned i = 0; i < 2000 && !atomic_load(&rig.broken); i++)
		sleep_us(1000);
	if (!atomic_load(&rig.broken))
		fail_msg("not broken: %s", why);
	if (!strstr(rig.pci->reason, why))
		fail_msg("broken for '%s', not '%s'", rig.pci->reason, why);
	assert_int_equal(bus_read(NULL, HBA_INTR_STATUS), UINT32_MAX);
	bus_write(NULL, HBA_KICK_RW, 0);
	on_loop(stop_function, NULL);
	while (sem_wait(&rig.done))
		;
	on_loop(start_function, NULL);
	assert_false(atomic_load(&rig.broken));
	drive();
}

static void hostile_lists(void **state)
{
	struct hba_slot *s;

	(void)state;
	rig_open(0);
	drive();
	s = rw(1, false, 0, 1);
	s->req.data_address = HOLE;
	breaks(s, "outside its memory");
	s = rw(1, false, 0, 8);
	s->req.data_address = HOLE - 100;
	breaks(s, "outside its memory");
	s = rw(1, false, 0, 1);
	s->req.data_address = UINT64_MAX - 10;
	breaks(s, "outside its memory");
	s = rw(1, false, 0x7fffffff, 1);
	s->req.sense_address = HOLE - 1;
	breaks(s, "sense data");
	s = rw(1, false, 0, 1);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = HOLE;
	breaks(s, "outside its memory");
	s = rw(1, false, 0, 1);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = s->list_at;
	s->list[0] = (struct hba_sg){ s->list_at, 0, HBA_SG_CHAIN };
	breaks(s, "does not end");
	s = rw(1, false, 0, 1);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = s->list_at + 4096 - 8;
	breaks(s, "not aligned");
	/* more than we take is no lie */
	s = rw(1, false, 0, 16);
	s->req.flags |= HBA_SG_LIST;
	s->req.data_address = s->list_at;
	memset(s->list, 0, HBA_PAGE);
	for (unsigned i = 0; i < 255; i++)
		s->list[i] = (struct hba_sg){ HOLE, 0, 0 };
	s->list[255] = (struct hba_sg){ s->list_at, 0, HBA_SG_CHAIN };
	assert_int_equal(run(s), HBA_INVALID);
	good(rw(1, false, 0, 1), BLOCK);
	rig_close();
}

static uint32_t load_index(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void hostile_rings(void **state)
{
	struct hba_setup_rings setup;

	(void)state;
	rig_open(0);
	drive();
	rig.hba.state->req_prod += 257;
	bus_write(NULL, HBA_KICK_RW, 0);
	breaks(NULL, "entries ahead");
	/* it never takes what is completed */
	rw(1, false, 0, 1);
	for (unsigned i = 0; i <= rig.hba.cmp_entries && !atomic_load(&rig.broken); i++) {
		hba_push(&rig.hba, 0);
		hba_kick(&rig.hba);
		while (rig.hba.req_prod - load_index(&rig.hba.state->req_cons) > 32 &&
		       !atomic_load(&rig.broken))
			sched_yield();
	}
	breaks(NULL, "completion ring is full");
	for (unsigned i = 0; i < 6; i++) {
		static const char *const why[] = { "powers of two", "powers of two", "outside",
						   "outside",       "page number",   "less room" };

		setup = rig.hba.setup;
		setup.req_pages = i == 0 ? 3 : i == 1 ? 64 : i == 5 ? 32 : setup.req_pages;
		setup.cmp_pages = i == 5 ? 4 : setup.cmp_pages;
		for (unsigned j = 8; j < 32; j++)
			setup.req[j] = setup.req[0];
		setup.state = i == 2 ? HOLE / HBA_PAGE : setup.state;
		setup.cmp[7] = i == 3 ? HOLE / HBA_PAGE : setup.cmp[7];
		setup.req[2] = i == 4 ? 1ull << 60 : setup.req[2];
		hba_command(&rig.hba, HBA_CMD_SETUP_RINGS, &setup, sizeof setup);
		breaks(NULL, why[i]);
	}
	good(rw(1, false, 0, 1), BLOCK);
	rig_close();
}

/* The rings are unmapped; then mapped again. */
static void unmap(void *data)
{
	struct error err = { 0 };

	(void)data;
	assert_int_equal(memory_remove(&rig.pci->dma.memory, GUEST, BYTES / 2, 0, &err), 0);
}

static void map(void *data)
{
	struct error err = { 0 };

	(void)data;
	assert_int_equal(memory_add(&rig.pci->dma.memory, GUEST, BYTES / 2, 0, rig.fd, 0, &err), 0);
}

static void announce_only(void *data)
{
	struct error err = { 0 };

	(void)data;
	assert_int_equal(memory_add(&rig.pci->dma.memory, GUEST, BYTES / 2, 0, -1, 0, &err), 0);
}

static void unmapped(void **state)
{
	struct hba_slot *s;

	(void)state;
	rig_open(50000);
	drive();
	/* remapped in mid-flight, as QEMU does when memory moves: nothing happens */
	s = rw(0, false, 0, 1);
	hba_push(&rig.hba, index_of(s));
	hba_kick(&rig.hba);
	sleep_us(5000);
	on_loop(unmap, NULL);
	on_loop(map, NULL);
	assert_int_equal(hba_wait(&rig.hba, index_of(s), 5000), 0);
	assert_int_equal(s->cmp.host_status, HBA_SUCCESS);
	/* gone in mid-flight */
	s = rw(0, false, 0, 1);
	hba_push(&rig.hba, index_of(s));
	hba_kick(&rig.hba);
	sleep_us(5000);
	on_loop(unmap, NULL);
	for (unsigned i = 0; i < 2000 && !atomic_load(&rig.broken); i++)
		sleep_us(1000);
	assert_true(atomic_load(&rig.broken));
	on_loop(map, NULL);
	breaks(NULL, "outside its memory");
	/* announced, and not shared */
	on_loop(unmap, NULL);
	on_loop(announce_only, NULL);
	hba_command(&rig.hba, HBA_CMD_SETUP_RINGS, &rig.hba.setup, sizeof rig.hba.setup);
	assert_true(atomic_load(&rig.broken));
	assert_non_null(strstr(rig.pci->reason, "share=on"));
	on_loop(unmap, NULL);
	on_loop(map, NULL);
	breaks(NULL, "share=on");
	rig_close();
}

/* Bus mastering off: nothing is touched. */
static void set_master(void *data)
{
	const uint16_t command = *(bool *)data ? 6 : 2;

	pci_config_write(rig.pci, 4, &command, 2);
}

static void no_bus_master(void **state)
{
	struct hba_slot *s;
	bool on = false;

	(void)state;
	rig_open(0);
	drive();
	on_loop(set_master, &on);
	s = rw(1, false, 0, 1);
	hba_push(&rig.hba, index_of(s));
	bus_write(NULL, HBA_KICK_RW, 0);
	sleep_us(5000);
	assert_int_equal(rig.hba.state->cmp_prod, rig.hba.cmp_cons);
	on = true;
	on_loop(set_master, &on);
	assert_int_equal(hba_wait(&rig.hba, index_of(s), 5000), 0);
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_lists),
		cmocka_unit_test(hostile_rings),
		cmocka_unit_test(unmapped),
		cmocka_unit_test(no_bus_master),
	};

	memory_guard_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
