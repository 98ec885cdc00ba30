/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_shadow.c - the map outlives a daemon that is killed
 *
 * A guest goes on when the daemon is killed and started anew, and must find all that was completed,
 * flushed or not. Data that was completed is with the kernel; the map is in memory. So that memory
 * is a file in /dev/shm, which ends with the host's power, exactly when what was not flushed may be
 * lost. It costs nothing on the way of a request.
 *
 * The file is named after the store's id, and says which header it belongs to: whoever opens a
 * store for writing writes its header anew, with the next sequence. So a file that is found counts
 * only if nobody had the store since, here or on another host. While a header is being written the
 * file may belong to the one before or after it (now, next).
 *
 * A proper end makes the map durable, and removes the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/overlay_private.h"
#include "util/log.h"

#define MAGIC "PENSTSHD"

const char *overlay_shadows = "/dev/shm";

struct overlay_shadow {
	char magic[8];
	unsigned char id[16];
	uint64_t pages;             /* of the map, there is room for */
	_Atomic uint64_t now, next; /* sequences of the header; 0: none */
};
_Static_assert(sizeof(struct overlay_shadow) <= OVERLAY_MAP_HEAD, "there is room for it");

static void name_of(const struct overlay *o, char path[static 300])
{
	int n = snprintf(path, 200, "%s/penstock-overlay-", overlay_shadows);

	for (unsigned i = 0; i < sizeof o->header.id; i++)
		n += snprintf(path + n, 3, "%02x", o->header.id[i]);
}

/* What a daemon that was killed left of this store, or not. */
static bool belongs(const struct overlay *o, const struct overlay_shadow *s)
{
	uint64_t sequence = o->header.sequence;

	return !memcmp(s->magic, MAGIC, sizeof s->magic) &&
	       !memcmp(s->id, o->header.id, sizeof s->id) && s->pages == o->header.pages &&
	       (atomic_load(&s->now) == sequence || atomic_load(&s->next) == sequence) &&
	       overlay_map_good(&o->map, overlay_header_pages(&o->header));
}

static int open_file(const char *path, bool read_only)
{
	int flags = read_only ? O_RDONLY : O_RDWR | O_CREAT;
	int fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid())) {
		close(fd);
		errno = EPERM;
		return -1;
	}
	return fd;
}

/* Room for @pages of the map, so that there is no SIGBUS later. */
static bool make_room(int fd, uint64_t pages)
{
	int ret =
		posix_fallocate(fd, 0, (off_t)(OVERLAY_MAP_HEAD + pages * OVERLAY_PAGE_WORDS * 8));

	errno = ret;
	return !ret;
}

/* The file's size is that of a map with all its pages; most of it is a hole. */
static bool open_shadow(struct overlay *o, const char *path, bool *left)
{
	const uint64_t size = OVERLAY_MAP_HEAD + o->header.pages * OVERLAY_PAGE_WORDS * 8;
	uint64_t pages = overlay_header_pages(&o->header);
	int fd = open_file(path, o->layer.read_only);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return false;
	if ((uint64_t)st.st_size == size &&
	    !overlay_map_init(&o->map, o->header.pages, fd, o->layer.read_only)) {
		*left = belongs(o, (struct overlay_shadow *)o->map.head);
		if (*left && (o->layer.read_only || make_room(fd, pages))) {
			o->map.fd = fd;
			return true;
		}
		overlay_map_release(&o->map);
	}
	*left = false;
	if (!o->layer.read_only && !ftruncate(fd, 0) && !ftruncate(fd, (off_t)size) &&
	    make_room(fd, pages) && !overlay_map_init(&o->map, o->header.pages, fd, false)) {
		o->map.fd = fd;
		return true;
	}
	close(fd);
	if (!o->layer.read_only)
		unlink(path);
	return false;
}

int overlay_shadow_open(struct overlay *o, bool *left)
{
	char path[300];

	name_of(o, path);
	*left = false;
	if (open_shadow(o, path, left))
		return 0;
	if (!o->layer.read_only)
		log_warn(
			"disk %s: overlay: %s cannot be had (%s): if penstock is killed, what was not "
			"flushed is lost to a guest that goes on",
			o->layer.disk, path, strerror(errno));
	return overlay_map_init(&o->map, o->header.pages, -1, false);
}

bool overlay_shadow_grow(struct overlay *o, uint64_t pages)
{
	return o->map.fd < 0 || make_room(o->map.fd, pages);
}

void overlay_shadow_expect(struct overlay *o, uint64_t sequence)
{
	if (o->map.fd >= 0)
		atomic_store(&((struct overlay_shadow *)o->map.head)->next, sequence);
}

void overlay_shadow_void(struct overlay *o)
{
	if (o->map.fd >= 0)
		atomic_store(&((struct overlay_shadow *)o->map.head)->now, 0);
}

void overlay_shadow_set(struct overlay *o)
{
	struct overlay_shadow *s = (struct overlay_shadow *)o->map.head;

	if (o->map.fd < 0)
		return;
	memcpy(s->id, o->header.id, sizeof s->id);
	s->pages = o->header.pages;
	memcpy(s->magic, MAGIC, sizeof s->magic);
	atomic_store(&s->now, o->header.sequence);
	atomic_store(&s->next, 0);
}

void overlay_shadow_close(struct overlay *o, bool remove)
{
	char path[300];

	if (o->map.fd >= 0 && remove) {
		name_of(o, path);
		unlink(path);
	}
	overlay_map_release(&o->map);
}
