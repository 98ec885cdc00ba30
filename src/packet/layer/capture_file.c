/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_file.c - opens, numbers, appends to and removes the files of a capture; see
 * capture_file.h
 *
 * A file that is being written is locked (flock), so that two captures into one are told at once.
 * The lock goes with the process, whatever ends it. What it leaves may end in the middle of a
 * block: the next capture into the file looks whether the last block is whole, by the length that
 * stands at both its ends, and if not goes through the file from its beginning.
 */
#include "packet/layer/capture_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "packet/layer/pcapng.h"
#include "util/error.h"
#include "util/log.h"

#define TRIES 100u /* names that are taken before it gives up */

/* --- one file ----------------------------------------------------------------------- */

static bool is_ours(int fd)
{
	uint8_t bytes[PCAPNG_MARK];

	return pread(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes && pcapng_is_ours(bytes);
}

/* Opens @name, new or, if @append, one of ours. Its descriptor, or -errno with @err. */
static int open_name(const char *name, bool append, uint64_t *size, struct error *err)
{
	int fd, flags = O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat info;

	fd = open(name, append ? flags : flags | O_EXCL, 0640);
	if (fd < 0)
		return error_set(err, errno, "file: %s: cannot be made: %s", name, strerror(errno));
	if (fstat(fd, &info))
		error_set(err, errno, "file: %s: %s", name, strerror(errno));
	else if (!S_ISREG(info.st_mode))
		error_set(err, EINVAL, "file: %s: it is no regular file", name);
	else if (flock(fd, LOCK_EX | LOCK_NB))
		error_set(err, EBUSY, "file: %s: another capture writes to it", name);
	else if (info.st_size && !is_ours(fd))
		error_set(err, EEXIST, "file: %s: it is there already, and no capture of penstock",
			  name);
	else {
		*size = (uint64_t)info.st_size;
		return fd;
	}
	close(fd);
	return -err->code;
}

void capture_file_close(struct capture_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->kept);
	free(file->name);
	free(file->path);
	*file = (struct capture_file){ .fd = -1 };
}

int capture_file_write(struct capture_file *file, const void *blocks, size_t length)
{
	const char *at = blocks;
	size_t left = length;

	if (file->fd < 0)
		return -EBADF;
	while (left) {
		ssize_t n = write(file->fd, at, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int code = n ? errno : EIO;

			/* Half a block would hide all that follows. */
			if (left < length && ftruncate(file->fd, (off_t)file->size))
				file->unchecked = true;
			return -code;
		}
		at += n;
		left -= (size_t)n;
	}
	file->size += length;
	return 0;
}

/* --- what a crash has left ------------------------------------------------------------ */

static bool read32(int fd, uint64_t at, uint32_t *value)
{
	return pread(fd, value, sizeof *value, (off_t)at) == (ssize_t)sizeof *value;
}

/* The length of the block at @at, or 0 if it is not whole. */
static uint32_t block_at(int fd, uint64_t at, uint64_t size)
{
	uint32_t length, again;

	if (size - at < 12 || !read32(fd, at + 4, &length) || length < 12 || length & 3 ||
	    length > size - at || !read32(fd, at + length - 4, &again) || again != length)
		return 0;
	return length;
}

void capture_file_repair(struct capture_file *file)
{
	uint64_t at = 0, size;
	uint32_t length;
	struct stat info;

	if (file->fd < 0 || !file->unchecked || fstat(file->fd, &info))
		return;
	size = (uint64_t)info.st_size;
	file->unchecked = false;
	file->size = size;
	if (!size || (size >= 12 && read32(file->fd, size - 4, &length) && length >= 12 &&
		      length <= size && block_at(file->fd, size - length, size) == length))
		return;
	while (at < size && (length = block_at(file->fd, at, size)))
		at += length;
	if (ftruncate(file->fd, (off_t)at)) {
		log_warn("capture: %s ends in the middle of a block, and cannot be cut: %s",
			 file->name, strerror(errno));
		return;
	}
	log_info("capture: %s ended in the middle of a block, of which %llu bytes were there",
		 file->name, (unsigned long long)(size - at));
	file->size = at;
}

/* --- numbered files ------------------------------------------------------------------- */

/* Where the number goes into the path: before the suffix of its last part, if it has one. */
static size_t stem_length(const char *path)
{
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
	const char *dot = strrchr(last, '.');

	return dot && dot != last ? (size_t)(dot - path) : strlen(path);
}

static char *numbered_name(const struct capture_file *file, uint32_t number)
{
	size_t stem = stem_length(file->path);
	char *name;

	if (asprintf(&name, "%.*s-%05u%s", (int)stem, file->path, number, file->path + stem) < 0)
		return NULL;
	return name;
}

/* The number in @entry, the name of a file in the directory of the path; 0: it is none of them. */
static uint32_t number_of(const struct capture_file *file, const char *entry)
{
	const char *slash = strrchr(file->path, '/'), *last = slash ? slash + 1 : file->path;
	size_t stem = stem_length(file->path) - (size_t)(last - file->path);
	unsigned long number;
	char *end;

	if (strncmp(entry, last, stem) || entry[stem] != '-' || entry[stem + 1] < '0' ||
	    entry[stem + 1] > '9')
		return 0;
	number = strtoul(entry + stem + 1, &end, 10);
	return end - (entry + stem + 1) >= 5 && !strcmp(end, last + stem) && number < UINT32_MAX / 2
		       ? (uint32_t)number
		       : 0;
}

/* Removes the file called @name if it is one of ours. */
static void remove_ours(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	bool ours = fd >= 0 && is_ours(fd);

	if (fd >= 0)
		close(fd);
	if (ours && unlink(name))
		log_warn("capture: %s cannot be removed: %s", name, strerror(errno));
}

/* Removes the oldest, so that there is room for one more within @files. */
static void make_room(struct capture_file *file, unsigned files)
{
	unsigned excess = file->kept_count >= files ? file->kept_count - files + 1 : 0;

	for (unsigned i = 0; i < excess; i++) {
		char *name = numbered_name(file, file->kept[i]);

		if (name)
			remove_ours(name);
		free(name);
	}
	if (!excess)
		return;
	file->kept_count -= excess;
	memmove(file->kept, file->kept + excess, file->kept_count * sizeof *file->kept);
}

static int keep(struct capture_file *file, uint32_t number)
{
	uint32_t *kept = realloc(file->kept, (file->kept_count + 1) * sizeof *kept);

	if (!kept)
		return -ENOMEM;
	file->kept = kept;
	kept[file->kept_count++] = number;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;

	return (first > second) - (first < second);
}

/* Whether somebody else has it: a capture, which may not have written anything yet. */
static bool is_others(int fd)
{
	struct stat info;

	return (is_ours(fd) || (!fstat(fd, &info) && !info.st_size)) &&
	       flock(fd, LOCK_SH | LOCK_NB);
}

/*
 * Finds what earlier captures have left: those of ours count, and all numbers are taken. What is
 * being written belongs to a capture that would remove our files, and we those of it.
 */
static int find_earlier(struct capture_file *file, struct error *err)
{
	const char *slash = strrchr(file->path, '/');
	char *directory = slash ? strndup(file->path, (size_t)(slash - file->path) + 1)
				: strdup(".");
	DIR *entries = directory ? opendir(directory) : NULL;
	const struct dirent *entry;
	int ret = 0;

	if (!directory) {
		ret = error_set(err, ENOMEM, "out of memory");
	} else if (!entries) {
		ret = error_set(err, errno, "file: %s: %s", directory, strerror(errno));
	}
	while (!ret && (entry = readdir(entries))) {
		uint32_t number = number_of(file, entry->d_name);
		int fd;

		if (!number)
			continue;
		if (number > file->number)
			file->number = number;
		fd = openat(dirfd(entries), entry->d_name,
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			continue;
		if (is_others(fd))
			ret = error_set(err, EBUSY, "file: %s: another capture writes to %s",
					file->path, entry->d_name);
		else if (is_ours(fd) && keep(file, number))
			ret = error_set(err, ENOMEM, "out of memory");
		close(fd);
	}
	if (file->kept)
		qsort(file->kept, file->kept_count, sizeof *file->kept, by_number);
	if (entries)
		closedir(entries);
	free(directory);
	return ret;
}

int capture_file_next(struct capture_file *file, unsigned files, struct error *err)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
	file->size = 0;
	if (!file->numbered && find_earlier(file, err))
		return -err->code;
	file->numbered = true;
	make_room(file, files);
	for (unsigned i = 0; i < TRIES; i++) {
		char *name = numbered_name(file, file->number + 1);

		if (!name)
			return error_set(err, ENOMEM, "out of memory");
		file->number++;
		file->fd = open_name(name, false, &file->size, err);
		if (file->fd == -EEXIST) {
			free(name);
			continue;
		}
		free(file->name);
		file->name = name;
		if (file->fd >= 0 && keep(file, file->number)) {
			close(file->fd);
			file->fd = -ENOMEM;
			error_set(err, ENOMEM, "out of memory");
		}
		if (file->fd >= 0)
			return 0;
		break;
	}
	file->fd = -1;
	return -err->code;
}

/* --- the first ------------------------------------------------------------------------ */

int capture_file_open(struct capture_file *file, const char *path, bool numbered, unsigned files,
		      struct error *err)
{
	struct error failed = { 0 };
	int ret;

	*file = (struct capture_file){ .fd = -1, .path = strdup(path) };
	if (!file->path) {
		ret = error_set(&failed, ENOMEM, "out of memory");
	} else if (numbered) {
		ret = capture_file_next(file, files, &failed);
	} else {
		file->fd = open_name(path, true, &file->size, &failed);
		file->unchecked = file->size;
		file->name = strdup(path);
		ret = file->fd < 0 ? file->fd : 0;
		if (ret)
			file->fd = -1;
		else if (!file->name)
			ret = error_set(&failed, ENOMEM, "out of memory");
	}
	if (ret) {
		capture_file_close(file);
		return error_set(err, failed.code, "%s", failed.text);
	}
	return 0;
}
