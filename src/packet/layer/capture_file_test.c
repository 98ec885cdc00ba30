/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_file_test.c - files that are bounded, continued, and never others'; storage that is full
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "packet/layer/capture_testing.h"

/* Files of the directory that have numbers: how many, and the highest. */
static unsigned numbered(unsigned *highest)
{
	DIR *entries = opendir(directory);
	const struct dirent *entry;
	unsigned count = 0, number;

	*highest = 0;
	while ((entry = readdir(entries))) {
		if (sscanf(entry->d_name, "ring-%u.pcapng", &number) != 1)
			continue;
		count++;
		if (number > *highest)
			*highest = number;
	}
	closedir(entries);
	return count;
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_ring_of_files(void **state)
{
	const char *file = path_of("ring.pcapng");
	char name[400];
	struct error err = { 0 };
	unsigned highest, before;
	struct stat info;

	(void)state;
	write_text(path_of("ring-00003.pcapng"), "not ours");
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	assert_int_equal(
		rig_set_layers(b, LAYERS("capture", "file", file, "file-size", "1M", NULL), &err),
		-EBUSY);
	assert_non_null(strstr(err.text, "another capture writes to ring-00004.pcapng"));
	send_many(640, 1000);
	await("packets", 640);
	assert_int_equal(numbered(&highest), 4); /* and the one that is not ours */
	assert_true(highest > 8);
	snprintf(name, sizeof name, "ring-%05u.pcapng", highest);
	assert_string_equal(ask("file").text, path_of(name));
	layers_are(a, LAYERS("count", NULL));
	for (unsigned i = highest - 2; i <= highest; i++) {
		snprintf(name, sizeof name, "%s/ring-%05u.pcapng", directory, i);
		assert_int_equal(stat(name, &info), 0);
		assert_true(info.st_size <= 65536 + 4096);
		assert_in_range(read_file(name), i < highest ? 50 : 1, 64);
	}
	/* another run goes on behind, and its bound counts these too */
	before = highest;
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	send_many(5, 1000);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(numbered(&highest), 4);
	assert_int_equal(highest, before + 1);
	/* fewer while it runs; then no bound at all */
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "1", NULL));
	send_many(128, 1000);
	await("packets", 128);
	assert_int_equal(numbered(&highest), 2);
	before = highest;
	layers_are(a, LAYERS("capture", "file", file, "file-size", "0", "files", "1", NULL));
	send_many(640, 1000);
	await("packets", 768);
	assert_int_equal(numbered(&highest), 2);
	assert_int_equal(highest, before);
	layers_are(a, LAYERS("count", NULL));
	snprintf(name, sizeof name, "%s/ring-00003.pcapng", directory);
	assert_int_equal(stat(name, &info), 0);
	assert_int_equal(info.st_size, strlen("not ours"));
}

/* A capture that has made its file and written nothing yet is one that writes there, too. */
static void test_just_made(void **state)
{
	int fd = open(path_of("ring-00001.pcapng"), O_WRONLY | O_CREAT, 0600);
	struct error err = { 0 };

	(void)state;
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(rig_set_layers(a,
					LAYERS("capture", "file", path_of("ring.pcapng"),
					       "file-size", "1M", NULL),
					&err),
			 -EBUSY);
	assert_non_null(strstr(err.text, "another capture writes to ring-00001.pcapng"));
	close(fd);
}

static void test_continued(void **state)
{
	const char *file = path_of("c.pcapng");
	struct error err = { 0 };
	struct stat info;
	int fd;

	(void)state;
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(3, 100);
	/* nobody else may write to it meanwhile */
	assert_int_equal(rig_set_layers(b, LAYERS("capture", "file", file, NULL), &err), -EBUSY);
	assert_non_null(strstr(err.text, "file: "));
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), 3);
	/* cut off in the middle of a block, as a crash leaves it */
	for (unsigned cut = 1; cut < 300; cut += 7) {
		assert_int_equal(stat(file, &info), 0);
		assert_int_equal(truncate(file, info.st_size - cut), 0);
		layers_are(a, LAYERS("capture", "file", file, NULL));
		send_many(2, 100);
		layers_are(a, LAYERS("count", NULL));
		assert_true(read_file(file) >= 2);
	}
	/* garbage behind a whole file */
	fd = open(file, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "\0\0\0\0", 4), 4);
	close(fd);
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(2, 100);
	layers_are(a, LAYERS("count", NULL));
	assert_true(read_file(file) > 40);
}

static void test_not_ours(void **state)
{
	const char *file = path_of("letter");
	struct error err = { 0 };
	struct stat info;

	(void)state;
	write_text(file, "a letter that is longer than the mark of a capture file is, by far");
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", file, NULL), &err), -EEXIST);
	assert_non_null(strstr(err.text, "no capture of penstock"));
	assert_int_equal(stat(file, &info), 0);
	assert_int_equal(info.st_size, 66);
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", "/dev/full", NULL), &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "no regular file"));
	assert_int_equal(
		rig_set_layers(a, LAYERS("capture", "file", path_of("no/where"), NULL), &err),
		-ENOENT);
	assert_non_null(strstr(err.text, "file: "));
	assert_int_equal(rig_set_layers(a,
					LAYERS("capture", "file", path_of("no/where"), "file-size",
					       "1M", NULL),
					&err),
			 -ENOENT);
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", "stream:4711", NULL), &err),
			 -ENOENT);
	assert_int_equal(
		rig_set_layers(a, LAYERS("capture", "file", path_of("s"), "file-size", "1K", NULL),
			       &err),
		-EINVAL);
	assert_non_null(strstr(err.text, "file-size: "));
}

/* No room for files, then room again. */
static void test_disk_full(void **state)
{
	const char *file = path_of("full");
	struct rlimit limit, before;
	json_int_t written, missed;
	unsigned sent = 640;

	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 100000;
	setrlimit(RLIMIT_FSIZE, &limit);
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(sent, 1000);
	for (unsigned i = 0; i < 5000 && !*ask("error").text; i++)
		usleep(1000);
	assert_non_null(strstr(ask("error").text, strerror(EFBIG)));
	setrlimit(RLIMIT_FSIZE, &before);
	for (unsigned i = 0; i < 500 && *ask("error").text; i++) {
		send_many(1, 1000);
		sent++;
		usleep(20000);
	}
	assert_string_equal(ask("error").text, "");
	for (unsigned i = 0; i < 5000; i++) {
		written = ask("packets").number;
		missed = ask("missed").number;
		if (written + missed == sent)
			break;
		usleep(1000);
	}
	assert_true(missed > 0);
	assert_int_equal(written + missed, sent);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), written);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURE_TEST(test_ring_of_files), CAPTURE_TEST(test_just_made),
		CAPTURE_TEST(test_continued),     CAPTURE_TEST(test_not_ours),
		CAPTURE_TEST(test_disk_full),
	};

	return cmocka_run_group_tests_name("capture file", tests, NULL, NULL);
}
