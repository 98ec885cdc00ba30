/* SPDX-License-Identifier: BSD-3-Clause */
/* file_test.c - the file back-end: what it opens and refuses, its lock, its data on both engines */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "testing.h"
#include "util/log.h"

#define IMAGE (1u << 20)

static char directory[200], image[220];
static unsigned char bytes[65536 + 64] __attribute__((aligned(4096)));

static int set_up(void **unused)
{
	(void)unused;
	snprintf(image, sizeof image, "%s/disk.img", testing_directory(directory));
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	unlink(image);
	return rmdir(directory);
}

/* Options are "NAME=VALUE", at most 5, ended by NULL; path is always the image. */
static struct disk *try_open(bool read_only, struct error *err, const char *const *options)
{
	static char text[6][300];
	struct layer_setting settings[6];
	struct layer_config stack = { layer_find("file"), settings, 0, NULL, 0 };
	struct disk_config config = { .read_only = read_only };

	snprintf(text[0], sizeof text[0], "path=%s", image);
	for (unsigned i = 0; i == 0 || options[i - 1]; i++) {
		if (i)
			snprintf(text[i], sizeof text[i], "%s", options[i - 1]);
		settings[i] = (struct layer_setting){ text[i], strchr(text[i], '=') + 1, 0 };
		strchr(text[i], '=')[0] = 0;
		stack.count++;
	}
	return testing_open("test", &config, &stack, 1, NULL, err);
}

#define OPEN(...)         must_open((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })
#define REFUSED(why, ...) refused(why, (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })

static struct disk *must_open(const char *const *options)
{
	struct error err = { 0 };
	struct disk *disk = try_open(false, &err, options);

	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static void refused(const char *why, const char *const *options)
{
	struct error err = { 0 };
	struct disk *disk = try_open(false, &err, options);

	assert_null(disk);
	if (!strstr(err.text, why))
		fail_msg("refused with '%s', which does not say '%s'", err.text, why);
}

static void make_image(uint64_t size)
{
	int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static uint64_t image_size(void)
{
	struct stat st;

	assert_int_equal(stat(image, &st), 0);
	return (uint64_t)st.st_size;
}

static uint64_t allocated(void)
{
	struct stat st;

	assert_int_equal(stat(image, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* --- opening -------------------------------------------------------------------------- */

static void creates_and_grows(void **unused)
{
	struct disk *disk;
	struct error err = { 0 };

	(void)unused;
	REFUSED("does not exist");
	REFUSED("'size'", "create=true");
	disk = OPEN("create=true", "size=1M");
	assert_int_equal(atomic_load(&disk->size), IMAGE);
	assert_int_equal(image_size(), IMAGE);
	assert_true(allocated() < IMAGE); /* sparse */
	disk_close(disk);
	REFUSED("would lose data", "size=512K");
	assert_int_equal(image_size(), IMAGE);
	disk = OPEN("size=2M");
	assert_int_equal(image_size(), 2 * IMAGE);
	assert_int_equal(disk_resize(disk, 4 * IMAGE, &err), 0);
	assert_int_equal(image_size(), 4 * IMAGE);
	assert_int_equal(atomic_load(&disk->size), 4 * IMAGE);
	disk_close(disk);
}

static void refuses_what_is_no_image(void **unused)
{
	(void)unused;
	assert_int_equal(symlink("/dev/null", image), 0);
	REFUSED("neither a file nor a disk");
	unlink(image);
	assert_int_equal(symlink(directory, image), 0);
	REFUSED("irectory");
	unlink(image);
	make_image(100);
	REFUSED("no room");
}

static void lock_keeps_others_out(void **unused)
{
	struct error err = { 0 };
	struct disk *disk, *other;

	(void)unused;
	make_image(IMAGE);
	disk = OPEN();
	REFUSED("in use by another process");
	disk_close(disk);
	disk = try_open(true, &err, (const char *const[]){ NULL });
	other = try_open(true, &err, (const char *const[]){ NULL });
	assert_non_null(disk);
	assert_non_null(other); /* readers together */
	REFUSED("in use by another process");
	disk_close(disk);
	disk_close(other);
	disk_close(OPEN());
}

static void read_only_changes_nothing(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	assert_null(try_open(true, &err, (const char *const[]){ "create=true", "size=1M", NULL }));
	assert_int_equal(access(image, F_OK), -1);
	make_image(IMAGE);
	chmod(image, 0400);
	disk = try_open(true, &err, (const char *const[]){ NULL });
	assert_non_null(disk);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 0, 4096, bytes), 0);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, 0, 4096, bytes), -EROFS);
	disk_close(disk);
}

/* --- data ----------------------------------------------------------------------------- */

static const enum loop_engine engines[] = { LOOP_AUTO, LOOP_THREADS };

static void fill(unsigned char *at, size_t length, unsigned from)
{
	for (size_t i = 0; i < length; i++)
		at[i] = (unsigned char)(from + i * 7 + i / 512);
}

static void data_survive(void **unused)
{
	static const char *const direct[] = { "direct=auto", "direct=off" };

	(void)unused;
	make_image(IMAGE);
	for (unsigned i = 0; i < 16; i++) {
		struct disk *disk = OPEN(direct[i / 8]);
		enum loop_engine engine = engines[i & 1];
		/* Memory that O_DIRECT takes, and memory that it does not. */
		unsigned char *at = bytes + (i & 2 ? 1 : 0);
		uint8_t flags = i & 4 ? IO_FUA : 0;
		unsigned char expected[65536];
		int fd;

		fill(expected, sizeof expected, i);
		memcpy(at, expected, sizeof expected);
		assert_int_equal(testing_io(disk, engine, IO_WRITE, flags, 4096, 65536, at), 0);
		assert_int_equal(testing_io(disk, engine, IO_FLUSH, 0, 0, 0, NULL), 0);
		memset(at, 0, sizeof expected);
		assert_int_equal(testing_io(disk, engine, IO_READ, 0, 4096, 65536, at), 0);
		assert_memory_equal(at, expected, sizeof expected);
		/* One block of it, and as others see it. */
		assert_int_equal(testing_io(disk, engine, IO_READ, 0, 4096 + 512, 512, at), 0);
		assert_memory_equal(at, expected + 512, 512);
		fd = open(image, O_RDONLY | O_CLOEXEC);
		assert_int_equal(pread(fd, at, 65536, 4096), 65536);
		assert_memory_equal(at, expected, sizeof expected);
		close(fd);
		disk_close(disk);
	}
}

static void a_shortened_image_reads_as_zeroes(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		struct disk *disk;

		make_image(IMAGE);
		disk = OPEN(i / 2 ? "direct=off" : "direct=auto");
		memset(bytes, 'x', 8192);
		assert_int_equal(testing_io(disk, engines[i & 1], IO_WRITE, 0, 0, 8192, bytes), 0);
		assert_int_equal(truncate(image, 4096), 0);
		assert_int_equal(testing_io(disk, engines[i & 1], IO_READ, 0, 0, 8192, bytes), 0);
		assert_int_equal(bytes[4095], 'x');
		assert_int_equal(bytes[4096], 0);
		assert_int_equal(bytes[8191], 0);
		disk_close(disk);
	}
}

static void check_zeroes(struct disk *disk, enum loop_engine engine, enum io_op op, uint8_t flags)
{
	memset(bytes, 'x', 65536);
	assert_int_equal(testing_io(disk, engine, IO_WRITE, 0, 65536, 65536, bytes), 0);
	assert_int_equal(testing_io(disk, engine, op, flags, 65536 + 4096, 32768, NULL), 0);
	assert_int_equal(testing_io(disk, engine, IO_READ, 0, 65536, 65536, bytes), 0);
	assert_int_equal(bytes[4095], 'x');
	assert_int_equal(bytes[4096], 0);
	assert_int_equal(bytes[4096 + 32767], 0);
	assert_int_equal(bytes[4096 + 32768], 'x');
}

static void zeroes_and_holes(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < 2; i++) {
		struct disk *disk;

		make_image(IMAGE);
		disk = OPEN();
		check_zeroes(disk, engines[i], IO_ZEROES, 0);
		check_zeroes(disk, engines[i], IO_ZEROES, IO_UNMAP | IO_FUA);
		check_zeroes(disk, engines[i], IO_DISCARD, 0);
		if (allocated() >= 65536)
			fail_msg("a hole takes no space, but %llu bytes are allocated",
				 (unsigned long long)allocated());
		disk_close(disk);
	}
}

static void discard_can_be_turned_off(void **unused)
{
	struct disk *disk;
	uint64_t before;

	(void)unused;
	make_image(IMAGE);
	disk = OPEN("discard=false");
	assert_false(disk->limits.discard);
	memset(bytes, 'x', 65536);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, IO_FUA, 0, 65536, bytes), 0);
	before = allocated();
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_ZEROES, IO_UNMAP, 0, 65536, NULL), 0);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_DISCARD, 0, 0, 65536, NULL), 0);
	assert_true(allocated() >= before);
	disk_close(disk);
}

/* fallocate() fails with EOPNOTSUPP from here on, in this process. */
static void forbid_fallocate(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(77);
}

/* Zeroes as good as they can be made; 0 if all went well. */
static int use_without_fallocate(void)
{
	struct disk *disk = OPEN();
	int bad = 0;

	forbid_fallocate();
	memset(bytes, 'x', 65536);
	bad += testing_io(disk, LOOP_THREADS, IO_WRITE, 0, 0, 65536, bytes) != 0;
	/* Nobody can take this advice; it is no error. */
	bad += testing_io(disk, LOOP_THREADS, IO_DISCARD, 0, 0, 65536, NULL) != 0;
	/* Longer than the zeroes that are written at a time, and not a multiple of them. */
	bad += testing_io(disk, LOOP_THREADS, IO_ZEROES, IO_UNMAP, 512, 200 * 1024, NULL) != 0;
	bad += testing_io(disk, LOOP_THREADS, IO_ZEROES, IO_FUA, 300 * 1024, 512, NULL) != 0;
	bad += testing_io(disk, LOOP_THREADS, IO_READ, 0, 0, 65536, bytes) != 0;
	bad += bytes[0] != 'x' || bytes[511] != 'x' || bytes[512] || bytes[65535];
	disk_close(disk);
	return bad;
}

static void does_without_fallocate(void **unused)
{
	int status;
	pid_t child;

	(void)unused;
	make_image(IMAGE);
	child = fork();
	if (!child) {
		alarm(30);
		_exit(use_without_fallocate());
	}
	waitpid(child, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(creates_and_grows),      TEST(refuses_what_is_no_image),
		TEST(lock_keeps_others_out),  TEST(read_only_changes_nothing),
		TEST(data_survive),           TEST(a_shortened_image_reads_as_zeroes),
		TEST(zeroes_and_holes),       TEST(discard_can_be_turned_off),
		TEST(does_without_fallocate),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
