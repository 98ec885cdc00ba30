/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_test.c - a PVSCSI adapter of the daemon, driven over vfio-user: data is where it was
 * written, a guest that lies breaks its own device only, memory may go at any time, and registers
 * are answered while storage stalls
 */
#include "check.h"
#include "pvscsi_scene.h"

#include <stdio.h>
#include <unistd.h>

enum { BLOCK = 512, SLOTS = 64, BLOCKS = 32768 /* of disk a */, DEADLINE_S = 110 };

static const uint8_t test_unit_ready[6];
static struct daemon penstock;
static struct pvscsi_scene scene, other;

static const char config[] = "disks:\n"
			     "  a: {stack: [{memory: {size: 16M}}]}\n"
			     "  slow: {stack: [{flaky: {delay: 300ms}}, {memory: {size: 16M}}]}\n"
			     "  b: {stack: [{memory: {size: 16M}}]}\n"
			     "vms:\n"
			     "  one: [{pvscsi: [a, slow], socket: %s}]\n"
			     "  two: [{pvscsi: [b], socket: %s}]\n";

static void open_scene(struct pvscsi_scene *s, const char *socket)
{
	*s = (struct pvscsi_scene){ .hba = { .pages = 8,
					     .msg_pages = 1,
					     .slots = SLOTS,
					     .slot_bytes = 16384,
					     .threshold = true } };
	if (pvscsi_scene_open(s, daemon_path(&penstock, socket)))
		fail_msg("%s", s->error);
}

/* The unit attentions of power-on and reset. */
static void settle(struct pvscsi_scene *s)
{
	for (uint8_t target = 0; target < 2; target++)
		for (int i = 0; i < 3; i++)
			if (hba_do(&s->hba, target, test_unit_ready, 6, HBA_NO_DATA, 0) < 0)
				fail_msg("%s", s->hba.error);
}

static void good(struct pvscsi_scene *s, int slot)
{
	if (hba_wait(&s->hba, slot, 10000))
		fail_msg("%s", s->hba.error);
	assert_int_equal(s->hba.slot[slot].cmp.host_status, HBA_SUCCESS);
	assert_int_equal(s->hba.slot[slot].cmp.scsi_status, 0);
}

static void do_rw(struct pvscsi_scene *s, uint8_t target, bool write, uint32_t lba, uint16_t blocks)
{
	hba_format_rw(&s->hba, 0, target, write, lba, blocks, BLOCK);
	hba_push(&s->hba, 0);
	hba_kick(&s->hba);
	good(s, 0);
}

static int set_up(void **state)
{
	const char *args[] = { "run", daemon_path(&penstock, "config.yaml"), "--api",
			       daemon_path(&penstock, "api.sock"), NULL };

	(void)state;
	daemon_write_file(&penstock, "config.yaml", config, daemon_path(&penstock, "one.sock"),
			  daemon_path(&penstock, "two.sock"));
	daemon_start(&penstock, args);
	daemon_mark_log(&penstock);
	open_scene(&scene, "one.sock");
	settle(&scene);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pvscsi_scene_close(&scene);
	assert_int_equal(daemon_stop(&penstock), 0);
	return 0;
}

/* --- honest -------------------------------------------------------------------------- */

/* Every block knows its address; slots own the blocks that are their number modulo SLOTS. */
static void fill(struct hba_slot *slot, uint32_t lba, uint32_t round)
{
	uint32_t *words = (void *)slot->data;

	for (unsigned i = 0; i < BLOCK / 4; i++)
		words[i] = lba * 2654435761u + round * 40503u + i;
}

static void data(void **state)
{
	static uint32_t version[BLOCKS];
	uint64_t seed = choose_seed();
	struct load random = { .seed = seed };
	unsigned issued = 0;
	uint32_t at[SLOTS];
	int done[SLOTS];

	(void)state;
	memset(version, 0, sizeof(version));
	for (int i = 0; i < SLOTS; i++)
		done[i] = i;
	for (int n = SLOTS; issued < 50000 || n; n = hba_reap(&scene.hba, done, SLOTS)) {
		if (n < 0)
			fail_msg("%s", scene.hba.error);
		if (!n && !vfu_wait_event(&scene.vmm, scene.event_fd, 5000))
			fail_msg("no interrupt came");
		for (int i = 0; i < n; i++) {
			struct hba_slot *slot = &scene.hba.slot[done[i]], want;
			uint32_t bytes[BLOCK / 4];

			if (issued >= SLOTS && slot->cmp.context) {
				assert_int_equal(slot->cmp.host_status, 0);
				assert_int_equal(slot->cmp.scsi_status, 0);
			}
			if (slot->cmp.context && slot->req.cdb[0] == 0x28 && version[at[done[i]]]) {
				want.data = (void *)bytes;
				fill(&want, at[done[i]], version[at[done[i]]]);
				assert_memory_equal(slot->data, bytes, BLOCK);
			}
			if (issued >= 50000)
				continue;
			at[done[i]] = (uint32_t)load_random(&random, BLOCKS / SLOTS) * SLOTS +
				      (uint32_t)done[i];
			hba_format_rw(&scene.hba, done[i], 0, issued & 1, at[done[i]], 1, BLOCK);
			if (issued & 1)
				fill(slot, at[done[i]], ++version[at[done[i]]]);
			else
				memset(slot->data, 0xcc, BLOCK);
			hba_push(&scene.hba, done[i]);
			issued++;
		}
		if (n)
			hba_kick(&scene.hba);
		bool busy = false;
		for (int i = 0; i < SLOTS; i++)
			busy |= scene.hba.slot[i].busy;
		if (!busy)
			break;
	}
	print_message("# %u requests, %llu kicks\n", issued, (unsigned long long)scene.hba.kicks);
	assert_true(scene.hba.kicks < issued);
}

/* Registers are answered while all that the storage has is stuck. */
static void stalled(void **state)
{
	int64_t start;

	(void)state;
	for (int i = 0; i < SLOTS; i++) {
		hba_format_rw(&scene.hba, i, 1, false, (uint32_t)i, 1, BLOCK);
		hba_push(&scene.hba, i);
	}
	hba_kick(&scene.hba);
	start = clock_ms();
	for (int i = 0; i < 500; i++)
		assert_int_not_equal(vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4), UINT64_MAX);
	assert_true(clock_ms() - start < 250);
	for (int i = 0; i < SLOTS; i++)
		good(&scene, i);
}

/* The VMM resets the function, or goes away, under way; the next one finds it as new. */
static void resets(void **state)
{
	(void)state;
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < SLOTS; i++) {
			hba_format_rw(&scene.hba, i, i & 1, true, (uint32_t)i, 1, BLOCK);
			hba_push(&scene.hba, i);
		}
		hba_kick(&scene.hba);
		if (round & 1) {
			pvscsi_scene_close(&scene);
			open_scene(&scene, "one.sock");
		} else if (pvscsi_scene_start(&scene)) {
			fail_msg("%s", scene.error);
		}
		settle(&scene);
		do_rw(&scene, 1, false, 0, 1);
	}
}

/* --- hostile ------------------------------------------------------------------------- */

/* It is broken, says so, and is as new after a reset; the other VM's adapter never noticed. */
static void broke(const char *word)
{
	for (int i = 0; i < 1000 && vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4) != UINT32_MAX;
	     i++)
		sleep_ms(5);
	assert_int_equal(vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4), UINT32_MAX);
	assert_true(daemon_logged(&penstock, word, 5000));
	daemon_mark_log(&penstock);
	do_rw(&other, 0, false, 1, 1);
	if (pvscsi_scene_start(&scene))
		fail_msg("%s", scene.error);
	settle(&scene);
	do_rw(&scene, 0, false, 1, 1);
}

static void lies(void **state)
{
	struct hba_slot *slot;
	struct hba_setup_rings setup;

	(void)state;
	open_scene(&other, "two.sock");
	settle(&other);
	slot = hba_format_rw(&scene.hba, 0, 0, false, 0, 1, BLOCK);
	slot->req.data_address = 1ull << 40;
	hba_push(&scene.hba, 0);
	hba_kick(&scene.hba);
	broke("outside");
	slot = hba_format_rw(&scene.hba, 0, 0, false, 0, 1, BLOCK);
	slot->req.flags |= HBA_SG_LIST;
	slot->req.data_address = slot->list_at;
	slot->list[0] = (struct hba_sg){ slot->list_at, 0, HBA_SG_CHAIN };
	hba_push(&scene.hba, 0);
	hba_kick(&scene.hba);
	broke("does not end");
	__atomic_store_n(&scene.hba.state->req_prod, scene.hba.req_prod + 5000, __ATOMIC_RELEASE);
	vfu_put(&scene.vmm, VFU_BAR0, HBA_KICK_NON_RW, 4, 0);
	broke("entries ahead");
	setup = scene.hba.setup;
	setup.cmp[3] = 1ull << 50;
	hba_command(&scene.hba, HBA_CMD_SETUP_RINGS, &setup, sizeof(setup));
	broke("outside");
	pvscsi_scene_close(&other);
}

/* A list that changes while it is looked at, again and again. */
static void changing_list(void **state)
{
	struct hba_slot *slot = &scene.hba.slot[0];
	int64_t end = clock_ms() + 1000;

	(void)state;
	open_scene(&other, "two.sock");
	settle(&other);
	while (clock_ms() < end) {
		hba_format_rw(&scene.hba, 0, 0, false, 0, 8, BLOCK);
		slot->req.flags |= HBA_SG_LIST;
		slot->req.data_address = slot->list_at;
		for (int i = 0; i < 8; i++)
			slot->list[i] = (struct hba_sg){ slot->data_at, BLOCK, 0 };
		hba_push(&scene.hba, 0);
		hba_kick(&scene.hba);
		for (int i = 0; i < 200; i++) {
			slot->list[i % 8].address = i & 1 ? slot->data_at : 1ull << 50;
			slot->list[i % 8].flags = i % 3 == 0;
			slot->list[i % 8].length = i % 5 ? BLOCK : 0xffffffff;
		}
		if (vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4) == UINT32_MAX)
			if (pvscsi_scene_start(&scene))
				fail_msg("%s", scene.error);
		for (int i = 0; i < SLOTS; i++)
			scene.hba.slot[i].busy = false;
		if (pvscsi_scene_start(&scene))
			fail_msg("%s", scene.error);
	}
	settle(&scene);
	do_rw(&scene, 0, false, 1, 1);
	do_rw(&other, 0, false, 1, 1);
	pvscsi_scene_close(&other);
	daemon_mark_log(&penstock);
}

/* All memory goes in mid-flight, and comes back. */
static void unmapped(void **state)
{
	(void)state;
	open_scene(&other, "two.sock");
	settle(&other);
	for (int i = 0; i < SLOTS; i++) {
		hba_format_rw(&scene.hba, i, 1, false, (uint32_t)i, 8, BLOCK);
		hba_push(&scene.hba, i);
	}
	hba_kick(&scene.hba);
	assert_int_not_equal(vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4), UINT64_MAX);
	assert_int_equal(vfu_unmap(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes), 0);
	sleep_ms(400);
	assert_int_equal(vfu_map(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes, scene.memory,
				 scene.memory_fd, 0, 3),
			 0);
	broke("outside");
	pvscsi_scene_close(&other);
}

/* Announced only: the adapter says what it needs. */
static void not_shared(void **state)
{
	(void)state;
	open_scene(&other, "two.sock");
	settle(&other);
	assert_int_equal(vfu_unmap(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes), 0);
	assert_int_equal(
		vfu_map(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes, scene.memory, -1, 0, 3), 0);
	hba_command(&scene.hba, HBA_CMD_SETUP_RINGS, &scene.hba.setup, sizeof(scene.hba.setup));
	assert_int_equal(vfu_get(&scene.vmm, VFU_BAR0, HBA_INTR_STATUS, 4), UINT32_MAX);
	assert_true(daemon_logged(&penstock, "share=on", 5000));
	assert_int_equal(vfu_unmap(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes), 0);
	assert_int_equal(vfu_map(&scene.vmm, PVSCSI_SCENE_GUEST, scene.bytes, scene.memory,
				 scene.memory_fd, 0, 3),
			 0);
	broke("share=on");
	pvscsi_scene_close(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(data, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stalled, set_up, tear_down),
		cmocka_unit_test_setup_teardown(resets, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lies, set_up, tear_down),
		cmocka_unit_test_setup_teardown(changing_list, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unmapped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(not_shared, set_up, tear_down),
	};
	int failed;

	cmocka_set_message_output(CM_OUTPUT_TAP);
	daemon_deadline(DEADLINE_S);
	daemon_prepare(&penstock);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	daemon_clean(&penstock);
	return failed;
}
