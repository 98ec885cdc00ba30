/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay_testing.c - files and disks for the tests of overlays; see overlay_testing.h */
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/overlay_testing.h"

char directory[200], base_path[256], store_path[256];

/* --- files ------------------------------------------------------------------------------ */

void put(const char *path, uint64_t offset, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

void get(const char *path, uint64_t offset, void *bytes, size_t length)
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

unsigned char base_byte(uint64_t offset)
{
	return (unsigned char)(offset / 512 * 7 + offset % 251 + 1);
}

int make_files(void **unused)
{
	unsigned char *bytes = malloc(BASE_BYTES);

	(void)unused;
	testing_directory(directory);
	snprintf(base_path, sizeof base_path, "%s/base.img", directory);
	snprintf(store_path, sizeof store_path, "%s/store.ovl", directory);
	for (uint64_t i = 0; i < BASE_BYTES; i++)
		bytes[i] = base_byte(i);
	put(base_path, 0, bytes, BASE_BYTES);
	free(bytes);
	return 0;
}

int remove_files(void **unused)
{
	struct stat st;

	(void)unused;
	/* Nobody ever writes to it. */
	assert_int_equal(stat(base_path, &st), 0);
	for (uint64_t at = 0; at < (uint64_t)st.st_size && st.st_size == BASE_BYTES; at += 65536) {
		unsigned char bytes[65536];

		get(base_path, at, bytes, sizeof bytes);
		for (unsigned i = 0; i < sizeof bytes; i += 113)
			assert_int_equal(bytes[i], base_byte(at + i));
	}
	unlink(base_path);
	unlink(store_path);
	rmdir(directory);
	return 0;
}

/* --- disks ------------------------------------------------------------------------------ */

struct disk *try_over(const char *store, const char *base, bool read_only, struct error *err,
		      const char *const *options)
{
	struct layer_setting in_store[] = { { (char *)"path", (char *)store, 0 },
					    { (char *)"create", (char *)"true", 0 } };
	struct layer_setting in_base[] = { { (char *)"path", (char *)base, 0 } };
	struct layer_setting settings[3];
	struct layer_config leg = { .ops = layer_find("file"), .settings = in_store, .count = 2 };
	struct stack_config legs = { &leg, 1 };
	struct layer_config list[] = {
		{ .ops = layer_find("overlay"),
		  .settings = settings,
		  .legs = &legs,
		  .leg_count = 1 },
		{ .ops = layer_find("file"), .settings = in_base, .count = 1 },
	};

	for (; options && options[2 * list[0].count]; list[0].count++)
		settings[list[0].count] =
			(struct layer_setting){ (char *)options[2 * list[0].count],
						(char *)options[2 * list[0].count + 1], 0 };
	return testing_open("test", &(struct disk_config){ .read_only = read_only }, list, 2, NULL,
			    err);
}

struct disk *open_with(const char *const *options)
{
	struct error err = { 0 };
	struct disk *disk = try_over(store_path, base_path, false, &err, options);

	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

struct disk *open_disk(void)
{
	return open_with(NULL);
}

int change(struct disk *disk, enum io_op op, uint8_t flags, uint64_t offset, uint64_t length,
	   int value)
{
	unsigned char *bytes = malloc(length + 1);
	int ret;

	memset(bytes, value, length);
	ret = testing_io(disk, LOOP_AUTO, op, flags, offset, length, bytes);
	free(bytes);
	return ret;
}

void write_at(struct disk *disk, uint64_t offset, uint64_t length, int value)
{
	assert_int_equal(change(disk, IO_WRITE, 0, offset, length, value), 0);
}

void flush(struct disk *disk)
{
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_FLUSH, 0, 0, 0, NULL), 0);
}

void expect(struct disk *disk, uint64_t offset, uint64_t length, int value)
{
	unsigned char *bytes = malloc(length);

	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, offset, length, bytes), 0);
	for (uint64_t i = 0; i < length; i++) {
		unsigned char wanted = value == BASE ? base_byte(offset + i) : (unsigned char)value;

		if (bytes[i] != wanted)
			fail_msg("byte %llu is %02x, expected %02x", (unsigned long long)offset + i,
				 bytes[i], wanted);
	}
	free(bytes);
}

uint64_t stored(struct disk *disk)
{
	json_t *report = disk->top->ops->report(disk->top);
	uint64_t bytes = (uint64_t)json_integer_value(json_object_get(report, "stored"));

	json_decref(report);
	return bytes;
}
