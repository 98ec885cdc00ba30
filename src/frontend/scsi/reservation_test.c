/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reservation_test.c - persistent reservations: two VMs on one disk, by commands; and the file,
 * which a crash at any moment leaves old or new
 *
 * The file's source is built into this test with its system calls replaced: each is counted, and
 * the one that is chosen ends the process (a child), a write after half of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend/scsi/scsi_testing.h"
#include "frontend/scsi/shared.h"

static unsigned step, crash_at; /* 0: never */
static char trace[256];         /* what was called: w, s, r, d */
static bool fail_step;

static bool is_fatal(char what)
{
	size_t n = strlen(trace);

	if (n + 1 < sizeof trace)
		trace[n] = what;
	return ++step == crash_at;
}

static ssize_t test_write(int fd, const void *data, size_t n)
{
	if (is_fatal('w')) {
		if (fail_step) {
			errno = ENOSPC;
			return -1;
		}
		if (write(fd, data, n / 2) < 0)
			_exit(2);
		_exit(0);
	}
	return write(fd, data, n > 100 ? 100 : n); /* short, as writes may be */
}

static int test_fsync(int fd)
{
	if (is_fatal('s')) {
		if (!fail_step)
			_exit(0);
		errno = EIO;
		return -1;
	}
	return fsync(fd);
}

static int test_rename(const char *from, const char *to)
{
	if (is_fatal('r')) {
		if (!fail_step)
			_exit(0);
		errno = EACCES;
		return -1;
	}
	return rename(from, to);
}

#define write  test_write
#define fsync  test_fsync
#define rename test_rename
#include "frontend/scsi/reservation_file.c" /* NOLINT */
#undef write
#undef fsync
#undef rename

/* --- the file ----------------------------------------------------------------------- */

static char directory[200], path[256];

static int make_directory(void **unused)
{
	(void)unused;
	testing_directory(directory);
	snprintf(path, sizeof path, "%s/reservations", directory);
	step = crash_at = 0;
	fail_step = false;
	memset(trace, 0, sizeof trace);
	return 0;
}

static int remove_directory(void **unused)
{
	char beside[300];

	(void)unused;
	snprintf(beside, sizeof beside, "%s.new", path);
	unlink(beside);
	unlink(path);
	return rmdir(directory);
}

static struct reservations sample(unsigned count, uint8_t type, int holder)
{
	struct reservations state = {
		.count = count, .type = type, .holder = holder, .persist = true
	};

	for (unsigned i = 0; i < count; i++) {
		state.registrants[i].key = 0x1000 + i;
		snprintf(state.registrants[i].nexus, SCSI_NEXUS_MAX, "vm %u/scsi0:%u", i, i);
	}
	return state;
}

static void stored_and_loaded(void **unused)
{
	struct reservations in = sample(RESERVATION_REGISTRANTS, 5, 3), out;
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(reservation_load(path, "d", &out, &err), 0); /* no file */
	assert_int_equal(out.count, 0);
	memset(in.registrants[5].nexus, 'x', SCSI_NEXUS_MAX - 1);
	assert_int_equal(reservation_store(path, "d", &in, &err), 0);
	assert_int_equal(reservation_load(path, "d", &out, &err), 0);
	in.generation = out.generation;
	assert_memory_equal(&in, &out, sizeof in);
	/* Synced, renamed, and the directory synced; nothing before what it needs. */
	assert_non_null(strstr(trace, "wsrs"));
	assert_int_equal(trace[strlen(trace) - 1], 's');
	assert_int_equal(reservation_load(path, "other", &out, &err), -EINVAL);
	assert_non_null(strstr(err.text, "disk d"));
	in = sample(3, 7, -1);
	assert_int_equal(reservation_store(path, "d", &in, &err), 0);
	assert_int_equal(reservation_load(path, "d", &out, &err), 0);
	assert_int_equal(out.holder, -1);
	assert_int_equal(out.type, 7);
	in.persist = false;
	assert_int_equal(reservation_store(path, "d", &in, &err), 0);
	assert_int_equal(reservation_load(path, "d", &out, &err), 0);
	assert_int_equal(out.count + out.type, 0);
}

static void crash_at_each_step(void **unused)
{
	struct reservations old = sample(2, 1, 0), new = sample(9, 3, 8), out;
	struct error err = { 0 };
	bool new_seen = false;

	(void)unused;
	assert_int_equal(reservation_store(path, "d", &old, &err), 0);
	for (unsigned at = 1; at < 40; at++) {
		int status;
		pid_t child = fork();

		if (!child) {
			step = 0;
			crash_at = at;
			_exit(reservation_store(path, "d", &new, &err) ? 3 : 4);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(reservation_load(path, "d", &out, &err), 0);
		assert_true(out.count == 2 || out.count == 9);
		if (new_seen) /* once it is there it stays */
			assert_int_equal(out.count, 9);
		new_seen = out.count == 9;
		if (WEXITSTATUS(status) == 4)
			break; /* no such step: it got to its end */
		assert_int_equal(WEXITSTATUS(status), 0);
		assert_true(at < 39);
	}
	assert_true(new_seen);
	assert_int_equal(reservation_store(path, "d", &old, &err), 0); /* over what was left */
}

static void failure_at_each_step(void **unused)
{
	struct reservations old = sample(2, 1, 0), new = sample(9, 3, 8), out;
	struct error err = { 0 };
	unsigned failures = 0;

	(void)unused;
	fail_step = true;
	assert_int_equal(reservation_store(path, "d", &old, &err), 0);
	for (unsigned at = 1;; at++, failures++) {
		step = 0;
		crash_at = at;
		if (!reservation_store(path, "d", &new, &err))
			break;
		assert_non_null(strstr(err.text, path));
		assert_int_equal(reservation_load(path, "d", &out, &err), 0);
		crash_at = 0;
		assert_int_equal(reservation_store(path, "d", &old, &err), 0);
	}
	assert_true(failures >= 4);
}

static void damaged_files(void **unused)
{
	struct reservations state = sample(2, 5, 1), out;
	struct error err = { 0 };
	char text[FILE_MAX], broken[FILE_MAX];
	size_t n = format_state("d", &state, text);

	(void)unused;
	/* Each byte in turn is another; each length is shorter. */
	for (size_t i = 0; i < 2 * n; i++) {
		FILE *file = fopen(path, "w");
		size_t length = i < n ? n : i - n;

		memcpy(broken, text, n);
		if (i < n)
			broken[i] ^= 1;
		assert_int_equal(fwrite(broken, 1, length, file), length);
		fclose(file);
		if (!reservation_load(path, "d", &out, &err))
			fail_msg("byte %zu of %zu: not seen", i, n);
		assert_non_null(strstr(err.text, path));
		assert_int_equal(out.count, 0);
	}
}

/* Files whose checksum is right and whose sense is not. */
static void senseless_files(void **unused)
{
	static const char *const bodies[] = {
		"type 2\nholder 0\nregistrants 1\n0000000000000001 a\n",
		"type 5\nholder 1\nregistrants 1\n0000000000000001 a\n",
		"type 5\nholder -1\nregistrants 1\n0000000000000001 a\n",
		"type 7\nholder 0\nregistrants 1\n0000000000000001 a\n",
		"type 0\nholder 0\nregistrants 1\n0000000000000001 a\n",
		"type 7\nholder -1\nregistrants 0\n",
		"type 0\nholder -1\nregistrants 2\n0000000000000001 a\n",
		"type 0\nholder -1\nregistrants 1\n0000000000000001 a\n0000000000000001 b\n",
		"type 0\nholder -1\nregistrants 2\n0000000000000001 a\n0000000000000001 a\n",
		"type 0\nholder -1\nregistrants 1\n0000000000000000 a\n",
		"type 0\nholder -1\nregistrants 1\n000000000000001 a\n",
		"type 0\nholder -1\nregistrants 65\n",
		"type\nholder -1\nregistrants 0\n",
		"type 0x\nholder -1\nregistrants 0\n",
	};
	struct reservations out;
	struct error err = { 0 };

	(void)unused;
	for (unsigned i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		char text[FILE_MAX];
		int n = snprintf(text, sizeof text, MAGIC " 1\ndisk d\n%s", bodies[i]);
		FILE *file = fopen(path, "w");

		fprintf(file, "%scrc32c %08x\n", text, checksum(text, (size_t)n));
		fclose(file);
		if (reservation_load(path, "d", &out, &err) != -EBADMSG)
			fail_msg("taken: %s", bodies[i]);
	}
	assert_int_equal(checksum("123456789", 9), 0xe3069283); /* the check value of CRC-32C */
}

/* --- two initiators ----------------------------------------------------------------- */

static struct adapter a, b;
static struct disk *disk;
static uint8_t back[8192];

static int start(void **unused)
{
	struct disk_config config = { .reservations = path };

	make_directory(unused);
	disk = seen_disk(&config);
	adapter_open(&a, "vm1");
	adapter_open(&b, "vm2");
	adapter_add(&a, 0, 0, disk);
	adapter_add(&b, 0, 0, disk);
	adapter_start(&a);
	adapter_start(&b);
	run_settle(&a, 0);
	run_settle(&b, 0);
	return 0;
}

static int stop(void **unused)
{
	adapter_close(&a);
	adapter_close(&b);
	disk_close(disk);
	return remove_directory(unused);
}

static uint32_t reserve_out(struct adapter *who, uint8_t action, uint8_t type, uint64_t key,
			    uint64_t action_key, uint8_t flags)
{
	uint8_t list[24] = { 0 };

	put64(list, key);
	put64(list + 8, action_key);
	list[20] = flags;
	run_cdb(who, 0, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24, 0), list, 24, NULL, 0);
	return run_result();
}

static void reserve_in(struct adapter *who, uint8_t action)
{
	run_cdb(who, 0, CDB(0x5e, action, 0, 0, 0, 0, 0, 0x20, 0, 0), NULL, 0, back, sizeof back);
	assert_int_equal(run_result(), 0);
}

static uint32_t try_read(struct adapter *who)
{
	run_cdb(who, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 0, back, 512);
	return run_result();
}

static uint32_t try_write(struct adapter *who)
{
	run_cdb(who, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), back, 512, NULL, 0);
	return run_result();
}

static uint32_t ready(struct adapter *who)
{
	run_cdb(who, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	return run_result();
}

#define CONFLICT 0x18000000u
enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE };

static void registering(void **unused)
{
	(void)unused;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 5, 1, 0), CONFLICT); /* not registered */
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 2, 0), CONFLICT); /* another key */
	assert_int_equal(reserve_out(&a, REGISTER, 0, 1, 2, 0), 0);
	assert_int_equal(reserve_out(&b, IGNORE, 0, 77, 3, 0), 0);
	reserve_in(&a, 0);
	assert_int_equal(get32(back), 3); /* PRGENERATION */
	assert_int_equal(get32(back + 4), 16);
	assert_int_equal(get64(back + 8), 2);
	assert_int_equal(get64(back + 16), 3);
	reserve_in(&b, 3);
	assert_int_equal(get64(back + 8), 2);
	assert_int_equal(back[8 + 24], 5);
	assert_non_null(strstr((char *)back + 8 + 28, "vm1/scsi0:0"));
	assert_int_equal(reserve_out(&b, IGNORE, 0, 0, 0, 0), 0); /* unregistered */
	reserve_in(&a, 0);
	assert_int_equal(get32(back + 4), 8);
	assert_int_equal(reserve_out(&b, RESERVE, 1, 3, 0, 0), CONFLICT);
	/* Fields */
	assert_int_equal(reserve_out(&a, RESERVE, 2, 2, 0, 0), 0x02052400);
	assert_int_equal(reserve_out(&a, RESERVE, 0x11, 2, 0, 0), 0x02052400);
	assert_int_equal(reserve_out(&a, REGISTER, 0, 2, 2, 8), 0x02052600);
	assert_int_equal(run_field(), 20);
	run_cdb(&a, 0, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 23, 0), back, 23, NULL, 0);
	assert_int_equal(run_result(), 0x02051a00);
	run_cdb(&a, 0, CDB(0x5f, 7, 0, 0, 0, 0, 0, 0, 24, 0), back, 24, NULL, 0);
	assert_int_equal(run_result(), 0x02052400);
	reserve_in(&a, 2);
	assert_memory_equal(back, "\0\x08\x01\x80\xea\x01\0\0", 8);
}

/* Who may read and write under each type: the holder, one registered, one not. */
static void what_each_type_forbids(void **unused)
{
	static const struct {
		uint8_t type;
		bool registered_read, registered_write, other_read, other_write;
	} rows[] = {
		{ 1, true, false, true, false }, { 3, false, false, false, false },
		{ 5, true, true, true, false },  { 6, true, true, false, false },
		{ 7, true, true, true, false },  { 8, true, true, false, false },
	};

	(void)unused;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(reserve_out(&a, RESERVE, rows[i].type, 1, 0, 0), 0);
		assert_int_equal(reserve_out(&a, RESERVE, rows[i].type, 1, 0, 0), 0);
		reserve_in(&b, 1);
		assert_int_equal(back[8 + 13], rows[i].type);
		assert_int_equal(try_write(&a), 0);
		assert_int_equal(try_read(&b), rows[i].other_read ? 0 : CONFLICT);
		assert_int_equal(try_write(&b), rows[i].other_write ? 0 : CONFLICT);
		assert_int_equal(ready(&b), 0);
		assert_int_equal(reserve_out(&b, REGISTER, 0, 0, 2, 0), 0);
		assert_int_equal(try_read(&b), rows[i].registered_read ? 0 : CONFLICT);
		assert_int_equal(try_write(&b), rows[i].registered_write ? 0 : CONFLICT);
		assert_int_equal(reserve_out(&b, RESERVE, rows[i].type, 2, 0, 0),
				 rows[i].type >= 7 ? 0 : CONFLICT);
		assert_int_equal(reserve_out(&a, RELEASE, rows[i].type == 1 ? 3 : 1, 1, 0, 0),
				 0x02052604);
		assert_int_equal(reserve_out(&a, RELEASE, rows[i].type, 1, 0, 0), 0);
		assert_int_equal(ready(&b), rows[i].type >= 5 ? 0x02062a04 : 0);
		assert_int_equal(reserve_out(&b, REGISTER, 0, 2, 0, 0), 0);
		assert_int_equal(try_write(&b), 0);
	}
}

static void preempting(void **unused)
{
	(void)unused;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	assert_int_equal(reserve_out(&b, REGISTER, 0, 0, 2, 0), 0);
	assert_int_equal(reserve_out(&a, RESERVE, 5, 1, 0, 0), 0);
	/* The holder is preempted: the other has it, and it is out. */
	assert_int_equal(reserve_out(&b, PREEMPT, 5, 2, 9, 0), CONFLICT);
	assert_int_equal(reserve_out(&b, PREEMPT, 5, 2, 0, 0), 0x02052600);
	assert_int_equal(reserve_out(&b, PREEMPT, 5, 2, 1, 0), 0);
	assert_int_equal(ready(&a), 0x02062a05);
	assert_int_equal(try_write(&a), CONFLICT);
	assert_int_equal(try_write(&b), 0);
	/* One that does not hold it loses its registration; the reservation stays. */
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	assert_int_equal(reserve_out(&a, PREEMPT, 5, 1, 1, 0), 0); /* itself */
	assert_int_equal(try_write(&a), CONFLICT);
	reserve_in(&a, 1);
	assert_int_equal(get64(back + 8), 2);
	/* The holder preempts itself, to change the type. */
	assert_int_equal(reserve_out(&b, PREEMPT, 3, 2, 2, 0), 0);
	assert_int_equal(try_read(&a), CONFLICT);
	/* Unregistering ends it; CLEAR tells the others. */
	assert_int_equal(reserve_out(&b, REGISTER, 0, 2, 0, 0), 0);
	assert_int_equal(try_read(&a), 0);
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	assert_int_equal(reserve_out(&b, REGISTER, 0, 0, 2, 0), 0);
	assert_int_equal(reserve_out(&b, RESERVE, 8, 2, 0, 0), 0);
	assert_int_equal(reserve_out(&b, PREEMPT, 8, 2, 0, 0), 0); /* everybody else */
	assert_int_equal(ready(&a), 0x02062a05);
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 0), 0);
	assert_int_equal(reserve_out(&a, CLEAR, 0, 1, 0, 0), 0);
	assert_int_equal(ready(&b), 0x02062a03);
	reserve_in(&b, 0);
	assert_int_equal(get32(back + 4), 0);
	assert_int_equal(try_write(&b), 0);
}

/* A reset of the unit changes nothing; the end of the disk's last user and a new one neither, if
 * kept. */
static void kept_over_a_restart(void **unused)
{
	(void)unused;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 1), 0); /* APTPL */
	assert_int_equal(reserve_out(&a, RESERVE, 3, 1, 0, 0), 0);
	reserve_in(&a, 2);
	assert_int_equal(back[3], 0x81);
	for (unsigned i = 0; i < 2; i++) {
		struct disk_config config = { .reservations = path };

		adapter_close(&a);
		adapter_close(&b);
		disk_close(disk);
		disk = seen_disk(&config);
		adapter_open(&a, "vm1");
		adapter_open(&b, "vm2");
		adapter_add(&a, 0, 0, disk);
		adapter_add(&b, 0, 0, disk);
		adapter_start(&a);
		adapter_start(&b);
		run_settle(&a, 0);
		run_settle(&b, 0);
		assert_int_equal(try_read(&b), i ? 0 : CONFLICT);
		assert_int_equal(try_write(&a), 0);
		reserve_in(&b, 0);
		assert_int_equal(get32(back + 4), i ? 0 : 8);
		/* Registered without APTPL: not kept from now on. */
		if (!i)
			assert_int_equal(reserve_out(&a, IGNORE, 0, 0, 4, 0), 0);
	}
}

static void a_file_that_cannot_be_written(void **unused)
{
	(void)unused;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 1), 0);
	crash_at = step + 1;
	fail_step = true;
	assert_int_equal(reserve_out(&a, RESERVE, 3, 1, 0, 0), 0x02044400);
	crash_at = 0;
	assert_int_equal(try_read(&b), 0); /* it did not happen */
	assert_int_equal(reserve_out(&a, RESERVE, 3, 1, 0, 0), 0);
	assert_int_equal(try_read(&b), CONFLICT);
}

static void damage_stops_the_device(void **unused)
{
	struct scsi_unit_settings settings = { 0 };
	struct error err = { 0 };
	FILE *file = fopen(path, "w");

	(void)unused;
	fputs("penstock-reservations 1\n", file);
	fclose(file);
	adapter_close(&a);
	adapter_close(&b);
	adapter_open(&a, "vm1");
	adapter_open(&b, "vm2");
	assert_int_equal(scsi_unit_add(a.target, 0, &settings, disk, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "reservations: "));
	assert_null(a.target->units[0].disk);
}

static void without_a_file(void **unused)
{
	(void)unused;
	free(disk->config.reservations);
	disk->config.reservations = NULL;
	assert_int_equal(reserve_out(&a, REGISTER, 0, 0, 1, 1), 0x02052600);
	assert_int_equal(run_field(), 20);
	reserve_in(&a, 2);
	assert_int_equal(back[2] | (back[3] & 1), 0);
}

static void the_old_reserve(void **unused)
{
	struct scsi_task_request request = { .function = SCSI_LOGICAL_UNIT_RESET };

	(void)unused;
	(void)request;
	run_cdb(&a, 0, CDB(0x16, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), 0);
	assert_int_equal(try_read(&b), CONFLICT);
	run_cdb(&b, 0, CDB(0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), CONFLICT);
	assert_int_equal(reserve_out(&b, REGISTER, 0, 0, 1, 0), CONFLICT);
	run_cdb(&b, 0, CDB(0x17, 0, 0, 0, 0, 0), NO_DATA); /* not its own: nothing */
	assert_int_equal(run_result(), 0);
	assert_int_equal(try_read(&b), CONFLICT);
	run_cdb(&a, 0, CDB(0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(try_read(&b), 0);
	assert_int_equal(reserve_out(&b, REGISTER, 0, 0, 1, 0), 0);
	run_cdb(&a, 0, CDB(0x16, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(run_result(), CONFLICT);
}

/* More initiators than there is room for; by the rules alone. */
static void too_many(void **unused)
{
	static struct reservations state = { .holder = -1 };
	struct reserve_effects effects;
	char nexus[32];
	struct reserve_request r = { .action = PR_REGISTER, .nexus = nexus, .action_key = 7 };

	(void)unused;
	for (unsigned i = 0; i <= RESERVATION_REGISTRANTS; i++) {
		snprintf(nexus, sizeof nexus, "vm%u", i);
		assert_int_equal(reservation_apply(&state, &r, &effects),
				 i < RESERVATION_REGISTRANTS ? RESERVE_GOOD : RESERVE_NO_ROOM);
	}
	/* All types that are everybody's end with the last registration. */
	snprintf(nexus, sizeof nexus, "vm0");
	r = (struct reserve_request){ .action = PR_RESERVE, .nexus = nexus, .key = 7, .type = 7 };
	assert_int_equal(reservation_apply(&state, &r, &effects), RESERVE_GOOD);
	for (unsigned i = 0; i < RESERVATION_REGISTRANTS; i++) {
		assert_int_equal(state.type, 7);
		snprintf(nexus, sizeof nexus, "vm%u", i);
		r = (struct reserve_request){ .action = PR_REGISTER, .nexus = nexus, .key = 7 };
		assert_int_equal(reservation_apply(&state, &r, &effects), RESERVE_GOOD);
	}
	assert_int_equal(state.type + state.count, 0);
}

#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)
#define TEST(f)      cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FILE_TEST(stored_and_loaded),    FILE_TEST(crash_at_each_step),
		FILE_TEST(failure_at_each_step), FILE_TEST(damaged_files),
		FILE_TEST(senseless_files),      TEST(registering),
		TEST(what_each_type_forbids),    TEST(preempting),
		TEST(kept_over_a_restart),       TEST(a_file_that_cannot_be_written),
		TEST(damage_stops_the_device),   TEST(without_a_file),
		TEST(the_old_reserve),           cmocka_unit_test(too_many),
	};

	/* The one failure that is logged is wanted. */
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("scsi/reservation", tests, NULL, NULL);
}
