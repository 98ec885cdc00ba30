/* SPDX-License-Identifier: BSD-3-Clause */
/* host.c - a file in the host's memory; see host.h */
#include "layer/crash/host.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

static char directory[200];
/* The file there is, mapped, so that looking at it is cheap. */
static struct {
	char name[120];
	unsigned char *bytes;
	size_t size;
} now;

const char *host_begin(void)
{
	return testing_directory(directory);
}

static void let_go(void)
{
	if (now.bytes)
		munmap(now.bytes, now.size);
	now.bytes = NULL;
}

static const char *path_of(const char *name)
{
	static char path[400];

	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

/* The first file in the directory; false if there is none. */
static bool find(char name[static 120])
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	*name = 0;
	while (dir && (entry = readdir(dir)))
		if (*entry->d_name != '.')
			snprintf(name, 120, "%.119s", entry->d_name);
	if (dir)
		closedir(dir);
	return *name;
}

static void empty(void)
{
	char name[120];

	let_go();
	while (find(name) && !unlink(path_of(name)))
		;
}

void host_end(void)
{
	empty();
	rmdir(directory);
}

void host_put(const struct host_file *file)
{
	int fd;

	empty();
	if (!file)
		return;
	fd = open(path_of(file->name), O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || write(fd, file->bytes, file->size) != (ssize_t)file->size)
		abort();
	close(fd);
}

static bool map(void)
{
	struct stat st;
	int fd;

	if (!find(now.name))
		return false;
	fd = open(path_of(now.name), O_RDONLY);
	if (fd >= 0 && !fstat(fd, &st) && st.st_size) {
		now.size = (size_t)st.st_size;
		now.bytes = mmap(NULL, now.size, PROT_READ, MAP_SHARED, fd, 0);
		if (now.bytes == MAP_FAILED)
			abort();
	}
	if (fd >= 0)
		close(fd);
	return now.bytes;
}

struct host_file *host_look(struct host_file *last)
{
	struct host_file *file;

	if (!now.bytes && !map())
		return NULL;
	if (last && last->size == now.size && !memcmp(last->bytes, now.bytes, now.size))
		return last;
	file = malloc(sizeof *file + now.size);
	if (!file)
		abort();
	*file = (struct host_file){ .size = now.size };
	memcpy(file->name, now.name, sizeof file->name);
	memcpy(file->bytes, now.bytes, now.size);
	return file;
}
