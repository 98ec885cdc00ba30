/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_test.c - the layers of a disk change, and it moves, under a guest's load
 *
 * Two queues are under a checked load all the time (load.h), while commands of penstock change the
 * disk below: layers come, go, change places and options, the disk grows, it moves to another
 * image, its move is canceled, its target fails. Each request must complete once, without error,
 * with the right data. Then the daemon is killed at random instants of a move, again and again, and
 * started again: wherever the state file says the disk is by then, all that was answered must be
 * there.
 */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_MIB = 16, SECTORS = (DISK_MIB << 20) / 512, QUEUES = 2, KILLS = 8, COMMANDS = 12 };

static struct daemon daemon_;
static struct driver *driver;
static struct load load[QUEUES];
static char config[DAEMON_PATH], api[DAEMON_PATH], guest_socket[DAEMON_PATH];

static int prepare(void **state)
{
	(void)state;
	daemon_prepare(&daemon_);
	daemon_make_image(&daemon_, "a.img", DISK_MIB << 20);
	daemon_deadline(150);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	for (unsigned i = 0; i < QUEUES; i++)
		load_close(&load[i]);
	memset(load, 0, sizeof(load));
	driver_close(driver);
	driver = NULL;
	daemon_clean(&daemon_);
	return 0;
}

/* ---- the daemon and its guest ---- */

static void start(const char *engine)
{
	daemon_write_file(&daemon_, "config.yaml",
			  "state: %s/state.yaml\n"
			  "disks:\n"
			  "  d:\n"
			  "    stack:\n"
			  "      - file: {path: %s/a.img}\n"
			  "vms:\n"
			  "  v:\n"
			  "    - {virtio-blk: d, socket: %s/s, queues: 2, queue-size: 256}\n",
			  daemon_.dir, daemon_.dir, daemon_.dir);
	/* They must last, and paths do not. */
	snprintf(config, sizeof(config), "%s/config.yaml", daemon_.dir);
	snprintf(api, sizeof(api), "%s/api", daemon_.dir);
	const char *args[] = {
		"run", config, "--api", api, "--engine", engine, "--loops", "2", NULL
	};
	daemon_start(&daemon_, args);
}

static void open_driver(void)
{
	snprintf(guest_socket, sizeof(guest_socket), "%s/s", daemon_.dir);
	struct driver_options options = {
		.socket = guest_socket,
		.features = FEATURE(VIRTIO_RING_F_EVENT_IDX),
		.queues = QUEUES,
		.queue_size = 128,
		.segments = 2,
		.slots = 32,
		.slot_bytes = 65536,
		.inflight = true,
	};
	int ret = driver_open(&driver, &options);

	must(driver, ret);
}

static void open_loads(uint64_t seed)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		load[i] = (struct load){
			.queue = &driver->queue[i],
			.first = i * (SECTORS / QUEUES),
			.sectors = SECTORS / QUEUES,
			.block = 512,
			.max_bytes = 65536,
			.max_segments = 2,
			.seed = seed + i,
		};
		assert_int_equal(load_open(&load[i]), 0);
	}
}

static void reconnect(void)
{
	driver_disconnect(driver);
	driver_restore_bases(driver);
	must(driver, driver_connect(driver));
	must(driver, driver_start(driver));
}

static void verify(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		must_load(&load[i], load_drain(&load[i]));
	for (unsigned i = 0; i < QUEUES; i++)
		assert_int_equal(virtq_wait(&driver->queue[i], 10), -ETIMEDOUT);
	for (unsigned i = 0; i < QUEUES; i++)
		must_load(&load[i], load_verify(&load[i]));
}

/* ---- commands beside the load ---- */

/* Words of penstock commands, run one after another by a thread of its own. */
struct script {
	const char *command[COMMANDS][8]; /* ended by NULL; the API is added */
	int status[COMMANDS];             /* that each is to end with */
	unsigned failed;                  /* the number of the first that did not, from 1 */
	atomic_bool over;
};

static void *run_script(void *argument)
{
	struct script *script = argument;

	for (unsigned i = 0; i < COMMANDS && script->command[i][0] && !script->failed; i++) {
		const char *args[DAEMON_ARGS] = { 0 };
		unsigned n = 0;

		for (; script->command[i][n]; n++)
			args[n] = script->command[i][n];
		args[n++] = "--api";
		args[n] = api;
		if (daemon_command(&daemon_, args) != script->status[i])
			script->failed = i + 1;
	}
	atomic_store(&script->over, true);
	return NULL;
}

static void load_some(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		load_issue(&load[i], 1 + (unsigned)load_random(&load[i], 16));
		int ret = load_collect(&load[i], 20000);
		if (ret < 0)
			must_load(&load[i], ret);
	}
}

/* Loads the disk until the commands are through, and verifies it all. */
static void run_under_load(struct script *script)
{
	uint64_t before = load[0].completed + load[1].completed;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, run_script, script), 0);
	while (!atomic_load(&script->over))
		load_some();
	pthread_join(thread, NULL);
	if (script->failed) {
		daemon_show_log(&daemon_);
		fail_msg("command %u (%s %s) did not end as it should", script->failed,
			 script->command[script->failed - 1][0],
			 script->command[script->failed - 1][2]);
	}
	verify();
	print_message("# %llu requests beside the commands\n",
		      (unsigned long long)(load[0].completed + load[1].completed - before));
}

static void begin(const char *engine)
{
	start(engine);
	open_driver();
	open_loads(choose_seed());
	/* So that there is data to move. */
	for (unsigned i = 0; i < 40; i++)
		load_some();
}

static void layers_change(const char *engine)
{
	struct script script = {
		.command = { { "insert-layer", "d", "0", "pass" },
			     { "insert-layer", "d", "file", "flaky: {delay: 1ms, jitter: 3ms}" },
			     { "move-layer", "d", "flaky", "0" },
			     { "set-layer", "d", "flaky", "delay=", "jitter=1ms" },
			     { "insert-layer", "d", "file", "extent: {size: 32M}" },
			     { "resize", "d", "20M" },
			     { "stack", "d", "pass", "pass", "flaky: {delay: 2ms}",
			       daemon_path(&daemon_, "none") },
			     { "remove-layer", "d", "extent" },
			     { "remove-layer", "d", "pass" },
			     { "remove-layer", "d", "0" } },
		.status = { [6] = 1, [7] = 1 }, /* no such layer; the disk would shrink */
	};

	begin(engine);
	run_under_load(&script);
	assert_int_equal(daemon_stop(&daemon_), 0);
	daemon_restart(&daemon_);
	reconnect();
	verify();
}

static void test_layers_uring(void **state)
{
	(void)state;
	layers_change("uring");
}

static void test_layers_threads(void **state)
{
	(void)state;
	layers_change("threads");
}

static char to_b[200], to_c[200], to_bad[300];

static void write_targets(void)
{
	snprintf(to_b, sizeof(to_b), "file: {path: %s/b.img, create: true}", daemon_.dir);
	snprintf(to_c, sizeof(to_c), "file: {path: %s/c.img, create: true}", daemon_.dir);
	snprintf(to_bad, sizeof(to_bad), "flaky: {errors: 20%%, ops: write}");
}

/* There, back, further with a layer above, canceled, and to a target that fails. */
static void test_moves(void **state)
{
	struct script script = {
		.command = { { "move", "d", to_b },
			     { "move", "d", to_c, "--limit", "20M" },
			     { "insert-layer", "d", "0", "flaky: {delay: 1ms, jitter: 2ms}" },
			     { "move", "d", "pass", to_b },
			     { "move", "d", to_c, "--limit", "1M", "--detach" },
			     { "move", "d", "--limit", "2M" },
			     { "insert-layer", "d", "0", "pass" },
			     { "resize", "d", "24M" },
			     { "move", "d", "--cancel" },
			     { "move", "d", to_bad, to_c, "--limit", "100M" },
			     { "remove-layer", "d", "flaky" },
			     { "move", "d", to_c } },
		.status = { [6] = 1, [7] = 1, [9] = 1 },
	};

	(void)state;
	write_targets();
	begin("auto");
	run_under_load(&script);
	/* A limit of none, and the end of the daemon in the midst of a move. */
	assert_int_equal(
		daemon_command(&daemon_, (const char *const[]){ "move", "d", to_b, "--limit", "1M",
								"--detach", "--api", api, NULL }),
		0);
	load_some();
	for (unsigned i = 0; i < QUEUES; i++)
		must_load(&load[i], load_drain(&load[i]));
	assert_int_equal(daemon_stop(&daemon_), 0);
	daemon_restart(&daemon_);
	reconnect();
	load_some();
	verify();
}

/* ---- kill -9 ---- */

static void collect_some(struct load *from)
{
	int ret = load_collect(from, 1);

	if (ret == -ETIMEDOUT || ret == -ENOMSG)
		from->error[0] = '\0';
	else if (ret < 0)
		must_load(from, ret);
}

/* Which image the state file says the disk is on. */
static bool is_on(const char *image)
{
	FILE *file = fopen(daemon_path(&daemon_, "state.yaml"), "r");
	char line[300];
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		found |= strstr(line, image) != NULL;
	if (file)
		fclose(file);
	return found;
}

/* Loads the disk for so long, or until a little after the state file says that it is on @image. */
static void load_until_killed(struct load *dice, const char *image)
{
	int64_t end = clock_ms() + (image ? 8000 : (int64_t)load_random(dice, 400));

	while (clock_ms() < end) {
		for (unsigned i = 0; i < QUEUES; i++) {
			load_issue(&load[i], 1 + (unsigned)load_random(&load[i], 16));
			collect_some(&load[i]);
		}
		if (image && is_on(image)) {
			usleep((useconds_t)load_random(dice, 3000));
			break;
		}
	}
	for (unsigned i = 0; i < QUEUES; i++)
		load_issue(&load[i], 4);
	daemon_kill(&daemon_);
	/* The guest knows nothing of it and goes on submitting. */
	for (unsigned i = 0; i < QUEUES; i++)
		load_issue(&load[i], 4);
}

static void killed_in_a_move(const char *engine)
{
	struct load dice = { .seed = choose_seed() };
	unsigned moved = 0, busy = 0;
	bool was_b = false;

	write_targets();
	begin(engine);
	for (unsigned i = 0; i < KILLS; i++) {
		/* The image that the disk is not on is made anew: nothing is right there by luck.
		 */
		unlink(daemon_path(&daemon_, was_b ? "c.img" : "b.img"));
		const char *args[] = { "move",    "d",   was_b ? to_c : to_b,
				       "--limit", "64M", "--detach",
				       "--api",   api,   NULL };
		assert_int_equal(daemon_command(&daemon_, args), 0);
		/* In the midst of it, and at the moment when it ends, in turns. */
		load_until_killed(&dice, i % 2 ? (was_b ? "c.img" : "b.img") : NULL);
		for (unsigned q = 0; q < QUEUES; q++)
			busy += (unsigned)(load[q].issued - load[q].completed);
		moved += is_on(was_b ? "c.img" : "b.img");
		was_b = is_on("b.img");
		daemon_restart(&daemon_);
		reconnect();
		verify();
	}
	print_message("# %u kills, %u requests in flight over them, %u moves had ended\n", KILLS,
		      busy, moved);
	assert_true(busy > 0 && moved > 0);
}

static void test_killed_in_a_move_uring(void **state)
{
	(void)state;
	killed_in_a_move("uring");
}

static void test_killed_in_a_move_threads(void **state)
{
	(void)state;
	killed_in_a_move("threads");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_layers_uring),
		TEST(test_layers_threads),
		TEST(test_moves),
		TEST(test_killed_in_a_move_uring),
		TEST(test_killed_in_a_move_threads),
	};

	return cmocka_run_group_tests_name("changes", tests, NULL, NULL);
}
