/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt_testing.h - for unit tests: volumes in image files, and disks on them */
#pragma once

#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#include "layer/crypt_volume.h"
#include "testing.h"

#define CRYPT_TESTING_DATA CRYPT_VOLUME_DATA_OFFSET

/** Writes @length bytes to the file @path, which is made. */
static inline void crypt_testing_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, bytes, length) != (ssize_t)length || close(fd))
		abort();
}

/** The file back-end over @path, grown to @size bytes. */
static inline struct layer *crypt_testing_image(const char *path, uint64_t size, uint32_t block,
						struct error *err)
{
	char text[32];
	struct layer_setting settings[] = { { (char *)"path", (char *)path, 0 },
					    { (char *)"direct", (char *)"off", 0 },
					    { (char *)"create", (char *)"true", 0 },
					    { (char *)"size", text, 0 } };
	struct layer_config file = { .ops = layer_find("file"), .settings = settings, .count = 4 };
	const struct stack_setting setting = { .disk = "testing", .block_size = block };
	const struct stack_config stack = { .layers = &file, .count = 1 };

	snprintf(text, sizeof text, "%llu", (unsigned long long)size);
	return stack_open(&setting, &stack, NULL, err);
}

/** Makes a volume with @size bytes of data at @path; cheap to open. 0 or -errno. */
static inline int crypt_testing_make(const char *path, uint64_t size, bool large_sectors,
				     const char *key_file, struct error *err)
{
	struct crypt_format format = { .source.file = (char *)key_file,
				       .pbkdf = 2,
				       .iterations = 1000,
				       .sector_size = large_sectors };
	struct layer *image = crypt_testing_image(path, size + CRYPT_TESTING_DATA, 4096, err);
	int ret = image ? crypt_volume_create(&format, image, err) : -err->code;

	stack_close(image);
	return ret;
}

/**
 * A disk of crypt over the image @path, with blocks of 4096 bytes if @large, and what stands
 * between (NULL: nothing). What follows are names and values of options of crypt, ended by NULL.
 */
static inline struct disk *crypt_testing_disk(const char *path, bool large,
					      const struct layer_config *between, struct error *err,
					      ...)
{
	struct layer_setting settings[8], file[] = { { (char *)"path", (char *)path, 0 },
						     { (char *)"direct", (char *)"off", 0 } };
	struct layer_config list[3] = { { .ops = layer_find("crypt"), .settings = settings } };
	struct disk_config config = { 0 };
	unsigned count = 1;
	va_list args;
	char *name;

	va_start(args, err);
	while ((name = va_arg(args, char *)))
		settings[list[0].count++] = (struct layer_setting){ name, va_arg(args, char *), 0 };
	va_end(args);
	if (between)
		list[count++] = *between;
	list[count++] =
		(struct layer_config){ .ops = layer_find("file"), .settings = file, .count = 2 };
	options_init(disk_options, &config);
	config.block_size = large ? DISK_BLOCK_4096 : DISK_BLOCK_512;
	return testing_open("testing", &config, list, count, NULL, err);
}
