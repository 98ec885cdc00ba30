/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reservation_file.c - persistent reservations in a file (docs/reservations-format.md)
 *
 * Lines of text, the last of which is a checksum of all before. It is replaced whole: written
 * beside itself, synced, renamed, and the directory synced; so at any moment the old or the new one
 * is there. What cannot be read as exactly that is refused, in words: to guess would give away what
 * one guest relies on to keep the others out.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/scsi/reservation.h"
#include "util/error.h"

#define MAGIC "penstock-reservations"
enum { VERSION = 1, FILE_MAX = 256 + RESERVATION_REGISTRANTS * (SCSI_NEXUS_MAX + 64) + 512 };

/* CRC-32C (Castagnoli), as in iSCSI. */
static uint32_t checksum(const char *text, size_t length)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < length; i++) {
		crc ^= (uint8_t)text[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/* --- writing ------------------------------------------------------------------------ */

/* Adds to @text of FILE_MAX bytes, which @n of are used; how many are now. */
static size_t append(char *text, size_t n, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static size_t append(char *text, size_t n, const char *format, ...)
{
	va_list args;
	int added;

	va_start(args, format);
	added = vsnprintf(text + n, FILE_MAX - n, format, args);
	va_end(args);
	return added < 0 ? n : n + min64((uint64_t)added, FILE_MAX - 1 - n);
}

static size_t format_state(const char *disk, const struct reservations *state, char *text)
{
	unsigned count = state->persist ? state->count : 0;
	size_t n = append(text, 0, MAGIC " %d\ndisk %.255s\n", VERSION, disk);

	n = append(text, n, "type %u\nholder %d\nregistrants %u\n",
		   state->persist ? state->type : 0u, state->persist ? state->holder : -1, count);
	for (unsigned i = 0; i < count; i++)
		n = append(text, n, "%016" PRIx64 " %s\n", state->registrants[i].key,
			   state->registrants[i].nexus);
	return append(text, n, "crc32c %08" PRIx32 "\n", checksum(text, n));
}

static int write_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t n = write(fd, text, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

static int write_synced(const char *path, const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write_all(fd, text, length);
	if (!ret && fsync(fd))
		ret = -errno;
	close(fd);
	return ret;
}

static int sync_directory_of(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int ret = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return ret;
}

int reservation_store(const char *path, const char *disk, const struct reservations *state,
		      struct error *err)
{
	char text[FILE_MAX] = "", *beside;
	int ret;

	if (asprintf(&beside, "%s.new", path) < 0)
		return error_set(err, ENOMEM, "out of memory");
	ret = write_synced(beside, text, format_state(disk, state, text));
	if (!ret && rename(beside, path))
		ret = -errno;
	if (!ret)
		ret = sync_directory_of(path);
	else
		unlink(beside);
	free(beside);
	return ret ? error_set(err, -ret, "cannot write the reservations of disk %s to %s: %s",
			       disk, path, strerror(-ret))
		   : 0;
}

/* --- reading ------------------------------------------------------------------------ */

/* What is left of the text, and which line is next. */
struct reading {
	char *at;
	unsigned line;
};

/* The next line, without its end; NULL if there is none. */
static char *next_line(struct reading *r)
{
	char *line = r->at, *end = strchr(line, '\n');

	if (!end)
		return NULL;
	*end = 0;
	r->at = end + 1;
	r->line++;
	return line;
}

/* "NAME NUMBER" with a number in [min, max]. */
static bool read_number(struct reading *r, const char *name, long min, long max, long *number)
{
	char *line = next_line(r), *end;
	size_t n = strlen(name);

	if (!line || strncmp(line, name, n) || line[n] != ' ')
		return false;
	errno = 0;
	*number = strtol(line + n + 1, &end, 10);
	return end != line + n + 1 && !*end && !errno && *number >= min && *number <= max;
}

static bool read_registrant(struct reading *r, struct reservations *state)
{
	struct registrant *new = &state->registrants[state->count];
	char *line = next_line(r);

	if (!line || strlen(line) < 18 || line[16] != ' ' ||
	    strspn(line, "0123456789abcdef") != 16 || strlen(line + 17) >= sizeof new->nexus ||
	    reservation_find(state, line + 17) >= 0)
		return false;
	new->key = strtoull(line, NULL, 16);
	strcpy(new->nexus, line + 17);
	state->count++;
	return new->key != 0;
}

static int damaged(const struct reading *r, const char *path, struct error *err)
{
	return error_set(
		err, EBADMSG,
		"%s is damaged at line %u. It holds the persistent reservations of a disk; "
		"remove it if no guest relies on them any more",
		path, r->line);
}

/* The checksum's line is the last; @text ends before it then. */
static bool check_sum(char *text)
{
	char *last = strstr(text, "\ncrc32c ");
	unsigned long value;

	if (!last || strlen(last) != 17 || strspn(last + 8, "0123456789abcdef") != 8 ||
	    last[16] != '\n')
		return false;
	value = strtoul(last + 8, NULL, 16);
	last[1] = 0;
	return value == checksum(text, strlen(text));
}

static int parse(char *text, const char *path, const char *disk, struct reservations *state,
		 struct error *err)
{
	struct reading r = { .at = text };
	long version, type, holder, count;
	char *name;

	if (strncmp(text, MAGIC " ", sizeof MAGIC))
		return error_set(err, EBADMSG, "%s is no file of reservations", path);
	version = strtol(text + sizeof MAGIC, NULL, 10);
	if (version != VERSION)
		return error_set(err, EBADMSG,
				 "%s has version %ld of the format; this program knows %d", path,
				 version, VERSION);
	if (!check_sum(text))
		return error_set(
			err, EBADMSG,
			"%s is damaged: its checksum is wrong. It holds the persistent "
			"reservations of a disk; remove it if no guest relies on them any more",
			path);
	next_line(&r);
	name = next_line(&r);
	if (!name || strncmp(name, "disk ", 5))
		return damaged(&r, path, err);
	if (strncmp(name + 5, disk, 255))
		return error_set(err, EINVAL, "%s holds the reservations of disk %s", path,
				 name + 5);
	if (!read_number(&r, "type", 0, 8, &type) ||
	    !read_number(&r, "holder", -1, RESERVATION_REGISTRANTS - 1, &holder) ||
	    !read_number(&r, "registrants", 0, RESERVATION_REGISTRANTS, &count))
		return damaged(&r, path, err);
	while (state->count < (unsigned)count)
		if (!read_registrant(&r, state))
			return damaged(&r, path, err);
	/* A holder is one of them, and there is one if and only if the type needs one. */
	if (*r.at || (type && (!reservation_type_valid((uint8_t)type) || !count)) ||
	    holder >= count || (holder >= 0) != (type && !reservation_for_all((uint8_t)type)))
		return damaged(&r, path, err);
	state->type = (uint8_t)type;
	state->holder = (int)holder;
	state->persist = count > 0;
	return 0;
}

int reservation_load(const char *path, const char *disk, struct reservations *state,
		     struct error *err)
{
	char text[FILE_MAX + 1] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret = 0;
	ssize_t n;

	*state = (struct reservations){ .holder = -1 };
	if (fd < 0 && errno == ENOENT)
		return 0;
	n = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (n < 0)
		ret = error_set(err, errno, "cannot read %s: %s", path, strerror(errno));
	else if (n == sizeof text || memchr(text, 0, (size_t)n))
		ret = error_set(err, EBADMSG, "%s is no file of reservations", path);
	if (fd >= 0)
		close(fd);
	if (ret)
		return ret;
	text[n] = 0;
	ret = parse(text, path, disk, state, err);
	if (ret)
		*state = (struct reservations){ .holder = -1 };
	return ret;
}
