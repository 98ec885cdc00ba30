/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_test.c - a mirror over files: legs that fail and return, what is copied, what is refused,
 * growing, and other legs while it works
 *
 * Which leg has the data after what is mirror_history_test.c's, power cuts are crash_test.c's.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/mirror_format.h"
#include "layer/testing_stack.h"
#include "testing.h"
#include "util/log.h"

#define MIB  (1u << 20)
#define SIZE (16u * MIB)

static char directory[200];
static unsigned char out[4 * MIB], in[4 * MIB];

/* --- legs ----------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
	static char paths[4][300];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof paths[0], "%s/%s", directory, name);
	return path;
}

/* A sparse file of @bytes. */
static void make(const char *name, uint64_t bytes)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static void read_file(const char *name, uint64_t offset, void *to, size_t length)
{
	int fd = open(path_of(name), O_RDONLY);

	assert_int_equal(pread(fd, to, length, (off_t)offset), length);
	close(fd);
}

static void write_file(const char *name, uint64_t offset, const void *from, size_t length)
{
	int fd = open(path_of(name), O_WRONLY);

	assert_int_equal(pwrite(fd, from, length, (off_t)offset), length);
	close(fd);
}

static uint64_t size_of(const char *name)
{
	struct stat status;

	assert_int_equal(stat(path_of(name), &status), 0);
	return (uint64_t)status.st_size;
}

/* The first @length bytes of two legs are the same. */
static bool same(const char *a, const char *b, uint64_t length)
{
	static unsigned char x[MIB], y[MIB];

	for (uint64_t at = 0; at < length; at += MIB) {
		read_file(a, at, x, MIB);
		read_file(b, at, y, MIB);
		if (memcmp(x, y, MIB) != 0)
			return false;
	}
	return true;
}

/* The text of a mirror with @options over legs that are files, or lists of layers with %s for a
 * path. */
static const char *mirror_of(const char *options, const char *a, const char *b, const char *c)
{
	static char text[2000];
	const char *legs[] = { a, b, c };
	int n = snprintf(text, sizeof text, "mirror %s", options);

	for (unsigned i = 0; i < 3 && legs[i]; i++) {
		const char *name = strrchr(legs[i], '|') ? strrchr(legs[i], '|') + 2 : legs[i];

		n += snprintf(text + n, sizeof text - (size_t)n, " [%.*sfile direct=off path=%s]",
			      (int)(name - legs[i]), legs[i], path_of(name));
	}
	return text;
}

static struct disk *open_disk(const char *text, struct error *err)
{
	*err = (struct error){ 0 };
	return testing_disk_of("test", text, 512, false, err);
}

static struct disk *must_open(const char *text)
{
	struct error err;
	struct disk *disk = open_disk(text, &err);

	if (!disk)
		fail_msg("%s: %s", text, err.text);
	return disk;
}

/* --- what it says of itself ---------------------------------------------------------------- */

static bool state_is(struct disk *disk, const char *state)
{
	json_t *report = disk->top->ops->report(disk->top);
	bool is = !strcmp(json_string_value(json_object_get(report, "state")), state);

	json_decref(report);
	return is;
}

static json_t *leg_report(json_t *report, unsigned leg)
{
	return json_array_get(json_object_get(report, "legs"), leg);
}

static bool leg_is(struct disk *disk, unsigned leg, const char *state)
{
	json_t *report = disk->top->ops->report(disk->top);
	bool is = !strcmp(json_string_value(json_object_get(leg_report(report, leg), "state")),
			  state);

	json_decref(report);
	return is;
}

static uint64_t to_copy(struct disk *disk, unsigned leg)
{
	json_t *report = disk->top->ops->report(disk->top);
	json_int_t bytes =
		json_integer_value(json_object_get(leg_report(report, leg), "bytes-to-copy"));

	json_decref(report);
	return (uint64_t)bytes;
}

/* --- its own work ------------------------------------------------------------------------ */

struct working {
	struct loop *home, *control;
	struct disk *disk;
	struct loop_message begin;
	struct layer_stop stop;
	struct loop_timer timer;
	unsigned left; /* looks until it must be in sync */
	bool good;
};

static void look(struct loop_timer *timer)
{
	struct working *w = container_of(timer, struct working, timer);

	w->good = state_is(w->disk, "in-sync");
	if (w->good || !--w->left)
		assert_int_equal(disk_stop(w->disk, &w->stop), 0);
	else
		loop_timer_set(w->control, timer, loop_now(w->control) + 5000000);
}

static void stopped(struct loop_message *message)
{
	loop_stop(container_of(message, struct working, stop.done)->control);
}

static void begin(struct loop_message *message)
{
	struct working *w = container_of(message, struct working, begin);

	disk_start(w->disk, w->home);
	loop_timer_set(w->control, &w->timer, loop_now(w->control) + 1000000);
}

/* Lets it copy until all legs are in sync; false: they are not after 20 s. */
static bool sync_legs(struct disk *disk)
{
	struct loop_config config = { .name = "home", .cpu = -1 };
	struct working w = {
		.disk = disk, .begin.run = begin, .stop.done.run = stopped, .left = 4000
	};

	w.home = loop_create(&config, NULL);
	w.control = loop_create(&config, NULL);
	assert_int_equal(loop_start(w.home, NULL), 0);
	w.stop.loop = w.control;
	loop_timer_init(&w.timer, look);
	loop_send(w.control, &w.begin);
	assert_int_equal(loop_run(w.control, NULL), 0);
	loop_stop(w.home);
	loop_destroy(w.home);
	loop_destroy(w.control);
	return w.good;
}

/* Two legs, in sync, with something in them. */
static void make_two(void)
{
	struct disk *disk;

	make("a", SIZE);
	make("b", SIZE);
	memset(out, 'o', sizeof out);
	write_file("a", 0, out, sizeof out);
	disk = must_open(mirror_of("create=true", "a", "b", NULL));
	assert_true(leg_is(disk, 1, "resyncing"));
	assert_int_equal(to_copy(disk, 1), SIZE);
	assert_true(sync_legs(disk));
	disk_close(disk);
	assert_true(same("a", "b", SIZE));
}

/* --- tests -------------------------------------------------------------------------------- */

static void a_new_mirror_has_the_data_of_its_first_leg(void **unused)
{
	struct disk *disk;

	(void)unused;
	make_two();
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_int_equal(disk->size, SIZE);
	assert_true(state_is(disk, "in-sync"));
	assert_int_equal(testing_read(disk->top, 0, in, sizeof in), 0);
	assert_memory_equal(in, out, sizeof in);
	disk_close(disk);
	assert_true(size_of("a") > SIZE);
}

static void a_leg_that_fails_is_dropped_and_gets_only_what_differs(void **unused)
{
	struct disk *disk;

	(void)unused;
	make_two();
	disk = must_open(mirror_of("", "a", "flaky errors=100% ops=write | b", NULL));
	memset(out, 'p', MIB);
	assert_int_equal(testing_write(disk->top, 5 * MIB + 512, out, 4096), 0);
	assert_true(state_is(disk, "degraded"));
	assert_true(leg_is(disk, 1, "failed"));
	assert_int_equal(testing_read(disk->top, 5 * MIB + 512, in, 4096), 0);
	assert_memory_equal(in, out, 4096);
	disk_close(disk);

	/* Nothing more is needed, for the table says that it goes on without the leg. */
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_true(leg_is(disk, 1, "resyncing"));
	assert_int_equal(to_copy(disk, 1), MIB);
	assert_true(sync_legs(disk));
	disk_close(disk);
	assert_true(same("a", "b", SIZE));
}

static void a_read_that_fails_is_done_by_another_leg(void **unused)
{
	struct disk *disk = NULL;
	struct session *session;
	char leg[80];

	(void)unused;
	make_two();
	/* Its records can be read when it opens, and soon after something cannot. */
	for (unsigned seed = 1; !disk && seed < 50; seed++) {
		struct error err;

		snprintf(leg, sizeof leg, "flaky errors=30%% ops=read seed=%u | a", seed);
		disk = open_disk(mirror_of("", leg, "b", NULL), &err);
	}
	assert_non_null(disk);
	session = session_open(disk->top, NULL);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(session_read(session, i % 64 * 4096, in, 4096), 0);
		assert_memory_equal(in, out, 4096);
	}
	session_close(session);
	assert_true(leg_is(disk, 0, "failed") && state_is(disk, "degraded"));
	disk_close(disk);
}

static void without_permission_nothing_is_taken_in(void **unused)
{
	struct error err;
	unsigned char before[MIB];

	(void)unused;
	make("a", SIZE);
	make("b", SIZE);
	assert_null(open_disk(mirror_of("", "a", "b", NULL), &err));
	assert_non_null(strstr(err.text, "create: true"));
	make_two();
	make("c", SIZE);
	memset(before, 'c', sizeof before);
	write_file("c", 0, before, sizeof before);
	assert_null(open_disk(mirror_of("", "a", "b", "c"), &err));
	assert_non_null(strstr(err.text, "leg 2"));
	read_file("c", 0, in, sizeof before);
	assert_memory_equal(in, before, sizeof before);
	assert_int_equal(size_of("c"), SIZE);
}

static void damaged_records_are_named_and_left_alone(void **unused)
{
	uint64_t end;
	struct error err;
	struct disk *disk;
	char options[40];
	const char *number;

	(void)unused;
	make_two();
	end = size_of("b");
	memset(out, 'x', 64);
	write_file("b", end - MIRROR_BLOCK + 200, out, 64);
	disk = must_open(mirror_of("", "a", "b", NULL)); /* there are two */
	assert_true(state_is(disk, "in-sync"));
	disk_close(disk);
	write_file("b", end - 2 * MIRROR_BLOCK + 200, out, 64);
	assert_null(open_disk(mirror_of("create=true", "a", "b", NULL), &err));
	assert_non_null(strstr(err.text, "checksum"));
	number = strstr(err.text, "degraded: ");
	assert_non_null(number);
	snprintf(options, sizeof options, "create=true degraded=%d", atoi(number + 10));
	disk = must_open(mirror_of(options, "a", "b", NULL));
	assert_true(leg_is(disk, 1, "failed"));
	assert_int_equal(testing_write(disk->top, 0, out, 512), 0);
	disk_close(disk);
	read_file("b", end - 2 * MIRROR_BLOCK + 200, in, 64);
	assert_memory_equal(in, out, 64);
	read_file("b", 0, in, 1);
	assert_int_equal(in[0], 'o');
	/* The bitmap. */
	make_two();
	write_file("b", size_of("b") - 2 * MIRROR_BLOCK - 4096 + 100, out, 8);
	assert_null(open_disk(mirror_of("", "a", "b", NULL), &err));
	assert_non_null(strstr(err.text, "bitmap is damaged"));
}

static void a_first_leg_without_room_is_refused_if_it_has_data_there(void **unused)
{
	struct error err;
	struct disk *disk;

	(void)unused;
	/* A slice cannot grow. */
	make("a", SIZE + MIB);
	make("b", SIZE);
	memset(out, 'd', 512);
	write_file("a", SIZE - 512, out, 512);
	assert_null(open_disk(mirror_of("create=true", "slice size=16M | a", "b", NULL), &err));
	assert_non_null(strstr(err.text, "make room"));
	memset(out, 0, 512);
	write_file("a", SIZE - 512, out, 512);
	disk = must_open(mirror_of("create=true", "slice size=16M | a", "b", NULL));
	assert_true(disk->size < SIZE && disk->size > SIZE - 64 * 1024);
	disk_close(disk);
}

static void a_missing_leg_must_be_permitted_by_the_generation(void **unused)
{
	struct error err;
	struct disk *disk;
	char options[40];

	(void)unused;
	make_two();
	assert_null(open_disk(mirror_of("", "a", NULL, NULL), &err));
	assert_null(open_disk(mirror_of("degraded=1", "a", NULL, NULL), &err));
	snprintf(options, sizeof options, "degraded=%d", atoi(strstr(err.text, "degraded: ") + 10));
	disk = must_open(mirror_of(options, "a", NULL, NULL));
	disk_close(disk);
	disk = must_open(mirror_of("", "a", NULL, NULL)); /* once is enough */
	disk_close(disk);
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_true(leg_is(disk, 0, "in-sync") && leg_is(disk, 1, "resyncing"));
	disk_close(disk);
}

static void split_brain_is_refused_until_one_is_wiped(void **unused)
{
	struct error err;
	struct disk *disk;
	char options[40];

	(void)unused;
	make_two();
	assert_null(open_disk(mirror_of("", "a", NULL, NULL), &err));
	snprintf(options, sizeof options, "degraded=%d", atoi(strstr(err.text, "degraded: ") + 10));
	for (unsigned i = 0; i < 2; i++) {
		disk = must_open(mirror_of(options, i ? "b" : "a", NULL, NULL));
		memset(out, i ? 'B' : 'A', MIB);
		assert_int_equal(testing_write(disk->top, 0, out, MIB), 0);
		disk_close(disk);
	}
	assert_null(open_disk(mirror_of("", "a", "b", NULL), &err));
	assert_non_null(strstr(err.text, "split brain"));
	assert_false(same("a", "b", MIB));
	memset(in, 0, 2 * MIRROR_BLOCK);
	write_file("b", size_of("b") - 2 * MIRROR_BLOCK, in, 2 * MIRROR_BLOCK);
	disk = must_open(mirror_of("create=true", "a", "b", NULL));
	assert_true(sync_legs(disk));
	disk_close(disk);
	assert_true(same("a", "b", SIZE));
	read_file("b", 0, in, 1);
	assert_int_equal(in[0], 'A');
}

static void it_grows_with_its_legs(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	make_two();
	disk = must_open(mirror_of("", "a", "b", NULL));
	if (disk_resize(disk, 3 * SIZE, &err))
		fail_msg("%s", err.text);
	assert_int_equal(disk->size, 3 * SIZE);
	memset(in, 'i', sizeof in);
	assert_int_equal(testing_read(disk->top, SIZE, in, sizeof in), 0);
	for (unsigned i = 0; i < sizeof in; i++)
		assert_int_equal(in[i], 0); /* where the records were, too */
	memset(out, 'g', MIB);
	assert_int_equal(testing_write(disk->top, 3 * SIZE - MIB, out, MIB), 0);
	disk_close(disk);
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_int_equal(disk->size, 3 * SIZE);
	assert_true(state_is(disk, "in-sync"));
	disk_close(disk);
	assert_true(same("a", "b", 3 * SIZE));
	/* One that grew by other means, and did not receive its records yet. */
	assert_int_equal(truncate(path_of("b"), (off_t)size_of("b") + 4 * MIB), 0);
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_true(state_is(disk, "in-sync"));
	disk_close(disk);
	disk = must_open(mirror_of("", "a", "b", NULL));
	disk_close(disk);
}

static void legs_come_and_go_while_it_is_in_use(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	make_two();
	make("c", SIZE);
	disk = must_open(mirror_of("", "a", "b", NULL));
	if (testing_change(disk, mirror_of("", "a", "b", "c"), &err) != -ENODATA)
		fail_msg("%s", err.text);
	if (testing_change(disk, mirror_of("create=true", "a", "b", "c"), &err))
		fail_msg("%s", err.text);
	assert_true(leg_is(disk, 2, "resyncing"));
	/* The only leg that has all may not go. */
	assert_int_not_equal(testing_change(disk, mirror_of("", "c", NULL, NULL), &err), 0);
	assert_true(sync_legs(disk));
	if (testing_change(disk, mirror_of("", "c", "b", NULL), &err))
		fail_msg("%s", err.text);
	memset(out, 'n', MIB);
	assert_int_equal(testing_write(disk->top, 2 * MIB, out, MIB), 0);
	assert_true(state_is(disk, "in-sync"));
	disk_close(disk);
	assert_true(same("c", "b", SIZE));
	assert_false(same("a", "b", SIZE));
	/* It went before, and is no member: it lacks all. */
	disk = must_open(mirror_of("", "c", "b", "a"));
	assert_int_equal(to_copy(disk, 2), SIZE);
	assert_true(sync_legs(disk));
	disk_close(disk);
	assert_true(same("a", "b", SIZE));
}

/* --- legs that are left behind ---------------------------------------------------------------- */

static const char *file_of(const char *name)
{
	static char text[400];

	snprintf(text, sizeof text, "file direct=off path=%s", path_of(name));
	return text;
}

static void copy(const char *from, const char *to)
{
	uint64_t size = size_of(from);

	make(to, size);
	for (uint64_t at = 0; at < size; at += 4096) {
		read_file(from, at, in, 4096);
		write_file(to, at, in, 4096);
	}
}

static void must_change(struct disk *disk, const char *text)
{
	struct error err;

	if (testing_change(disk, text, &err))
		fail_msg("%s: %s", text, err.text);
}

/* No mirror over the two opens, nor is one made of a disk that has the first one alone. */
static void nothing_opens(const char *a, const char *b)
{
	struct error err;
	struct disk *disk;

	for (unsigned turn = 0; turn < 4; turn++) {
		const char *text = mirror_of(turn & 1 ? "create=true" : "", turn & 2 ? b : a,
					     turn & 2 ? a : b, NULL);

		assert_null(open_disk(text, &err));
		/* Nor is there a way to force it. */
		assert_null(strstr(err.text, "degraded: "));
		disk = must_open(file_of(a));
		assert_int_not_equal(testing_change(disk, text, &err), 0);
		disk_close(disk);
	}
}

static void a_leg_that_goes_on_alone_leaves_the_others_behind(void **unused)
{
	uint64_t tail;

	(void)unused;
	for (unsigned turn = 0; turn < 2; turn++) {
		const char *stays = turn ? "b" : "a", *left = turn ? "a" : "b";
		struct disk *disk;

		make_two();
		disk = must_open(mirror_of("", "a", "b", NULL));
		must_change(disk, file_of(stays));
		memset(out, 'n', MIB);
		assert_int_equal(testing_write(disk->top, 0, out, MIB), 0);
		/* Nothing of the mirror's is left where its guest may read some day. */
		tail = size_of(stays) - SIZE;
		assert_true(tail > 0 && tail <= sizeof in);
		read_file(stays, SIZE, in, tail);
		for (uint64_t i = 0; i < tail; i++)
			assert_int_equal(in[i], 0);
		disk_close(disk);
		nothing_opens(stays, left);
		read_file(stays, 0, in, 1);
		assert_int_equal(in[0], 'n');
		read_file(left, 0, in, 1);
		assert_int_equal(in[0], 'o');
		/* What to do. */
		memset(in, 0, 2 * MIRROR_BLOCK);
		write_file(left, size_of(left) - 2 * MIRROR_BLOCK, in, 2 * MIRROR_BLOCK);
		disk = must_open(file_of(stays));
		must_change(disk, mirror_of("create=true", stays, left, NULL));
		assert_true(sync_legs(disk));
		disk_close(disk);
		assert_true(same(stays, left, SIZE));
		read_file(left, 0, in, 1);
		assert_int_equal(in[0], 'n');
	}
}

static void a_disk_that_moves_away_leaves_all_legs_behind(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	make_two();
	make("c", SIZE);
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_int_equal(disk->top->ops->retire(disk->top, 0, &err), 0);
	disk_close(disk);
	nothing_opens("a", "b");
	assert_null(open_disk(mirror_of("create=true", "a", "b", "c"), &err));
	assert_null(open_disk(mirror_of("create=true", "c", "a", "b"), &err));
}

static void a_leg_that_lacks_data_does_not_stay_alone(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	make_two();
	make("c", SIZE);
	disk = must_open(mirror_of("create=true", "a", "b", "c"));
	assert_int_equal(disk->top->ops->retire(disk->top, 4, &err), -ENODATA);
	assert_non_null(strstr(err.text, "leg 2"));
	assert_int_equal(disk->top->ops->retire(disk->top, 5, &err), -ENODATA);
	assert_true(sync_legs(disk));
	disk_close(disk);
	disk = must_open(mirror_of("", "a", "b", "c"));
	assert_true(state_is(disk, "in-sync"));
	disk_close(disk);
}

static void a_leg_that_cannot_be_told_keeps_the_mirror(void **unused)
{
	struct error err;
	struct disk *disk;
	struct layer *top;
	char alone[500];

	(void)unused;
	make_two();
	disk = must_open(mirror_of("", "flaky errors=100% ops=write | a", "b", NULL));
	top = disk->top;
	snprintf(alone, sizeof alone, "flaky errors=100%% ops=write | %s", file_of("a"));
	assert_int_equal(testing_change(disk, alone, &err), -EIO);
	assert_non_null(strstr(err.text, "nothing is changed"));
	assert_ptr_equal(disk->top, top);
	/* The other one has the mirror's next table before anything is acknowledged. */
	memset(out, 'q', MIB);
	assert_int_equal(testing_write(disk->top, 0, out, MIB), 0);
	assert_true(leg_is(disk, 0, "failed") && leg_is(disk, 1, "in-sync"));
	disk_close(disk);
	disk = must_open(mirror_of("", "a", "b", NULL));
	assert_true(leg_is(disk, 0, "resyncing"));
	assert_true(sync_legs(disk));
	disk_close(disk);
	assert_true(same("a", "b", SIZE));
	read_file("a", 0, in, 1);
	assert_int_equal(in[0], 'q');
}

static void a_leg_that_is_removed_is_out_before_the_change_is_done(void **unused)
{
	struct disk *disk;

	(void)unused;
	for (unsigned turn = 0; turn < 2; turn++) {
		make_two();
		disk = must_open(mirror_of("", "a", "b", NULL));
		must_change(disk, mirror_of("", turn ? "b" : "a", NULL, NULL));
		/* What a power cut leaves; nothing of the mirror's has run since. */
		copy("a", "a2");
		copy("b", "b2");
		disk_close(disk);
		disk = must_open(mirror_of("", turn ? "b2" : "a2", NULL, NULL));
		disk_close(disk);
		disk = must_open(mirror_of("", "a2", "b2", NULL));
		assert_true(leg_is(disk, turn, "in-sync"));
		assert_true(leg_is(disk, !turn, "resyncing"));
		assert_int_equal(to_copy(disk, !turn), SIZE);
		disk_close(disk);
	}
}

static void formats_are_read_as_written(void **unused)
{
	struct mirror_super super = { .stamp = { 7, 70 },
				      .data_size = SIZE,
				      .region = MIB,
				      .end = SIZE + 12288,
				      .bitmap_offset = SIZE,
				      .count = 2 },
			    again;
	uint8_t block[MIRROR_BLOCK], bits[MIRROR_SECTOR_BITS / 8] = { 5 }, sector[MIRROR_SECTOR];
	uint8_t got[MIRROR_SECTOR_BITS / 8] = { 0 };
	struct error err = { 0 };

	(void)unused;
	super.member[1].uuid.byte[0] = 1;
	super.member[1].in_sync = true;
	super.member[1].confirmed = (struct mirror_stamp){ 6, 60 };
	mirror_super_encode(&super, block);
	assert_int_equal(mirror_super_decode(block, super.end, &again, &err), MIRROR_GOOD);
	assert_memory_equal(&again.member[1].confirmed, &super.member[1].confirmed, 16);
	assert_true(again.member[1].in_sync && !again.member[0].in_sync);
	assert_int_equal(mirror_super_decode(block, super.end + 4096, &again, &err),
			 MIRROR_DAMAGED);
	for (unsigned i = 16; i < MIRROR_BLOCK; i += 37) {
		block[i] ^= 0x10;
		assert_int_equal(mirror_super_decode(block, super.end, &again, &err),
				 MIRROR_DAMAGED);
		block[i] ^= 0x10;
	}
	mirror_sector_encode(&super.set, 3, bits, sector);
	assert_true(mirror_sector_decode(sector, &super.set, 3, got));
	assert_memory_equal(bits, got, sizeof bits);
	assert_false(mirror_sector_decode(sector, &super.set, 2, got));
	sector[100] ^= 1;
	assert_false(mirror_sector_decode(sector, &super.set, 3, got));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_are_read_as_written),
		cmocka_unit_test(a_new_mirror_has_the_data_of_its_first_leg),
		cmocka_unit_test(a_leg_that_fails_is_dropped_and_gets_only_what_differs),
		cmocka_unit_test(a_read_that_fails_is_done_by_another_leg),
		cmocka_unit_test(without_permission_nothing_is_taken_in),
		cmocka_unit_test(damaged_records_are_named_and_left_alone),
		cmocka_unit_test(a_first_leg_without_room_is_refused_if_it_has_data_there),
		cmocka_unit_test(a_missing_leg_must_be_permitted_by_the_generation),
		cmocka_unit_test(split_brain_is_refused_until_one_is_wiped),
		cmocka_unit_test(it_grows_with_its_legs),
		cmocka_unit_test(legs_come_and_go_while_it_is_in_use),
		cmocka_unit_test(a_leg_that_goes_on_alone_leaves_the_others_behind),
		cmocka_unit_test(a_disk_that_moves_away_leaves_all_legs_behind),
		cmocka_unit_test(a_leg_that_lacks_data_does_not_stay_alone),
		cmocka_unit_test(a_leg_that_cannot_be_told_keeps_the_mirror),
		cmocka_unit_test(a_leg_that_is_removed_is_out_before_the_change_is_done),
	};
	int failed;
	char command[250];

	testing_directory(directory);
	failed = cmocka_run_group_tests_name("mirror", tests, NULL, NULL);
	snprintf(command, sizeof command, "rm -rf '%s'", directory);
	return system(command) ? 1 : failed;
}
