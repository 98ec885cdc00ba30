/* SPDX-License-Identifier: BSD-3-Clause */
/* iso_test.c - the iso back-end: its blocks, its odd end, whom it keeps out (nobody), its warning
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "testing.h"

#define BLOCK 2048

static char directory[200], image[220], said[2000];
static unsigned char bytes[4 * BLOCK];

static int set_up(void **unused)
{
	(void)unused;
	snprintf(image, sizeof image, "%s/cd.iso", testing_directory(directory));
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	unlink(image);
	return rmdir(directory);
}

/* An image of @size bytes, 0x5a each, with @letters where ISO 9660 and UDF have theirs. */
static void make_image(size_t size, const char *letters)
{
	FILE *file = fopen(image, "w");

	assert_non_null(file);
	for (size_t i = 0; i < size; i++)
		fputc(0x5a, file);
	if (letters) {
		fseek(file, 16 * BLOCK + 1, SEEK_SET);
		fwrite(letters, 1, 5, file);
	}
	fclose(file);
}

/* What is logged meanwhile goes to @said. */
static struct disk *open_block(int block_size, struct error *err)
{
	struct layer_setting setting = { (char *)"path", image, 0 };
	struct layer_config stack = { layer_find("iso"), &setting, 1, NULL, 0 };
	struct disk_config config = { .block_size = block_size };
	int old = dup(STDERR_FILENO);
	FILE *log = tmpfile();
	struct disk *disk;

	assert_non_null(log);
	dup2(fileno(log), STDERR_FILENO);
	disk = testing_open("cd", &config, &stack, 1, NULL, err);
	dup2(old, STDERR_FILENO);
	close(old);
	rewind(log);
	said[fread(said, 1, sizeof said - 1, log)] = 0;
	fclose(log);
	return disk;
}

static struct disk *must_open(int block_size)
{
	struct error err = { 0 };
	struct disk *disk = open_block(block_size, &err);

	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static void has_blocks_of_its_own(void **unused)
{
	struct disk *disk;

	(void)unused;
	make_image(20 * BLOCK, "CD001");
	disk = must_open(DISK_BLOCK_AUTO);
	assert_int_equal(disk->block_size, BLOCK);
	assert_int_equal(disk->limits.natural_block_size, BLOCK);
	assert_true(disk->config.read_only);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 512, 512, bytes), -EINVAL);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, 0, BLOCK, bytes), -EROFS);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_FLUSH, 0, 0, 0, NULL), 0);
	disk_close(disk);

	disk = must_open(DISK_BLOCK_512); /* for firmware that knows no other */
	assert_int_equal(disk->block_size, 512);
	assert_int_equal(disk->limits.natural_block_size, BLOCK);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 64 * 512 + 512, 512, bytes), 0);
	assert_int_equal(bytes[0], 0x5a);
	disk_close(disk);
}

static void fills_its_last_block(void **unused)
{
	static const enum loop_engine engines[] = { LOOP_AUTO, LOOP_THREADS };
	struct disk *disk;

	(void)unused;
	make_image(20 * BLOCK + 700, "CD001");
	disk = must_open(DISK_BLOCK_AUTO);
	assert_int_equal(atomic_load(&disk->size), 21 * BLOCK);
	for (unsigned e = 0; e < 2; e++) {
		memset(bytes, 0xff, sizeof bytes);
		assert_int_equal(
			testing_io(disk, engines[e], IO_READ, 0, 18 * BLOCK, 3 * BLOCK, bytes), 0);
		assert_int_equal(bytes[0], 0x5a);
		assert_int_equal(bytes[2 * BLOCK + 699], 0x5a);
		for (unsigned i = 2 * BLOCK + 700; i < 3 * BLOCK; i++)
			assert_int_equal(bytes[i], 0);
		assert_int_equal(bytes[3 * BLOCK], 0xff);
		assert_int_equal(testing_io(disk, engines[e], IO_READ, 0, 21 * BLOCK, BLOCK, bytes),
				 -ERANGE);
	}
	disk_close(disk);
}

static void keeps_nobody_out(void **unused)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct disk *one, *two;
	int fd;

	(void)unused;
	make_image(20 * BLOCK, "CD001");
	fd = open(image, O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	one = must_open(DISK_BLOCK_AUTO);
	two = must_open(DISK_BLOCK_512);
	close(fd);
	chmod(image, 0400);
	fd = open(image, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	assert_int_equal(lock.l_type, F_UNLCK);
	close(fd);
	disk_close(one);
	disk_close(two);
}

static void warns_of_what_is_no_iso(void **unused)
{
	static const char *const good[] = { "CD001", "BEA01", "NSR02", "NSR03" };

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		make_image(20 * BLOCK, good[i]);
		disk_close(must_open(DISK_BLOCK_AUTO));
		assert_null(strstr(said, "warn"));
	}
	make_image(20 * BLOCK, NULL);
	disk_close(must_open(DISK_BLOCK_AUTO));
	assert_non_null(strstr(said, "neither ISO 9660 nor UDF"));
	assert_non_null(strstr(said, image));
	make_image(100, NULL);
	disk_close(must_open(DISK_BLOCK_AUTO));
	assert_non_null(strstr(said, "neither ISO 9660 nor UDF"));
}

static void refuses(const char *why)
{
	struct error err = { 0 };

	assert_null(open_block(DISK_BLOCK_AUTO, &err));
	if (!strstr(err.text, why))
		fail_msg("refused with '%s', which does not say '%s'", err.text, why);
	assert_null(strstr(err.text, "create"));
}

static void refuses_what_is_no_image(void **unused)
{
	(void)unused;
	refuses("does not exist");
	assert_int_equal(symlink(directory, image), 0);
	refuses("is a directory");
	unlink(image);
	assert_int_equal(mkfifo(image, 0600), 0);
	refuses("neither a file nor a disk");
	unlink(image);
	make_image(0, NULL);
	refuses("no room");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(has_blocks_of_its_own, set_up, tear_down),
		cmocka_unit_test_setup_teardown(fills_its_last_block, set_up, tear_down),
		cmocka_unit_test_setup_teardown(keeps_nobody_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(warns_of_what_is_no_iso, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refuses_what_is_no_image, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
