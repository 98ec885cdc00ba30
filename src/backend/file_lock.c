/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_lock.c - who may use which part of an image
 *
 * The lock is an open file description (OFD) lock: against another penstock, and against QEMU,
 * whose tools lock bytes of the same file. It ends with the last operation of a killed process,
 * because those keep the file open: so whoever gets the lock after a crash knows that no write of
 * the dead one is still to come.
 *
 * A disk that uses the whole image locks all of it, to the end and beyond. One that uses a part,
 * because a slice is above, locks that part; slices that do not overlap get on. But where QEMU
 * looks for locks there are no parts. It takes read locks on a byte for each permission that it
 * uses (100: it reads, 101: it writes, 102, 103) and for each that it denies others (200 to 203),
 * and then looks whether somebody has a byte of the other kind (block/file-posix.c). All slices of
 * an image have read locks on 101, 200 and 201 together: "I write; nobody else may read or write".
 * These are no part of what a slice locks for itself, nor are QEMU's other bytes, even if its
 * range covers them. Of those, somebody who is no slice has one, as a rule 100. Like QEMU a slice
 * locks first and looks then; so of two who come at the same time one may see the other in vain,
 * but never neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "backend/file_private.h"
#include "util/error.h"

#define LOCK_PATIENCE_MS 10000 /* a killed process may still be letting go */

/* QEMU's bytes: a range for what is used, one for what is denied. */
static const struct layer_part qemu_bytes[] = { { 100, 8 }, { 200, 8 } };
/* Those of them that slices have, and the others. */
static const struct layer_part slices_have[] = { { 101, 1 }, { 200, 2 } };
static const struct layer_part others_have[] = { { 100, 1 }, { 102, 6 }, { 202, 6 } };

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* 0, -EAGAIN if somebody has it, or -errno. @length 0: to the end of all files. */
static int set(const struct file *f, short type, uint64_t offset, uint64_t length)
{
	struct flock lock = { .l_type = type,
			      .l_whence = SEEK_SET,
			      .l_start = (off_t)offset,
			      .l_len = (off_t)length };

	if (!fcntl(f->fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

static bool somebody_has(const struct file *f, uint64_t offset, uint64_t length)
{
	struct flock lock = { .l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = (off_t)offset,
			      .l_len = (off_t)length };

	return !fcntl(f->fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

static bool is_whole(struct layer_part part)
{
	return !part.offset && !part.length;
}

/* The part, without QEMU's bytes. */
static int set_part(const struct file *f, short type, struct layer_part part)
{
	uint64_t at = part.offset, end = part.length ? part.offset + part.length : UINT64_MAX;
	int ret = 0;

	for (unsigned i = 0; i < COUNT(qemu_bytes) && !ret; i++) {
		uint64_t first = qemu_bytes[i].offset, after = first + qemu_bytes[i].length;

		if (at < first)
			ret = set(f, type, at, (end < first ? end : first) - at);
		if (at < after)
			at = after;
	}
	if (!ret && at < end)
		ret = set(f, type, at, end == UINT64_MAX ? 0 : end - at);
	return ret;
}

/* What all slices have. */
static int join_slices(const struct file *f)
{
	int ret = 0;

	for (unsigned i = 0; i < COUNT(slices_have) && !ret; i++)
		ret = set(f, F_RDLCK, slices_have[i].offset, slices_have[i].length);
	for (unsigned i = 0; i < COUNT(others_have) && !ret; i++)
		if (somebody_has(f, others_have[i].offset, others_have[i].length))
			ret = -EAGAIN;
	return ret;
}

static int try_lock(const struct file *f, struct layer_part part)
{
	short type = f->layer.read_only ? F_RDLCK : F_WRLCK;
	int ret;

	if (is_whole(part))
		return set(f, type, 0, 0);
	ret = join_slices(f);
	return ret ? ret : set_part(f, type, part);
}

static int refused(const struct file *f, struct layer_part part, int ret, struct error *err)
{
	char a[32], b[32];

	if (ret != -EAGAIN)
		return error_set(err, -ret, "cannot lock %s: %s", f->path, strerror(-ret));
	if (is_whole(part))
		return error_set(
			err, EBUSY,
			"%s is in use by another process (penstock or QEMU), or by another "
			"disk: it is locked, for two writers would destroy it",
			f->path);
	return error_set(
		err, EBUSY,
		"%s from %s on, %s: this is in use by another disk, or the image by another "
		"process (penstock or QEMU): it is locked, for two writers would destroy it",
		f->path, format_size(part.offset, a, sizeof a),
		part.length ? format_size(part.length, b, sizeof b) : "to its end");
}

int file_lock(struct file *f, struct error *err)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	unsigned waited = 0;
	int ret;

	while ((ret = try_lock(f, f->layer.part)) == -EAGAIN && waited < LOCK_PATIENCE_MS) {
		nanosleep(&pause, NULL);
		waited += 20;
	}
	return ret ? refused(f, f->layer.part, ret, err) : 0;
}

int file_lock_also(struct file *f, struct layer_part part, struct error *err)
{
	int ret = 0;

	/* Who has the whole image has every part of it. */
	if (!is_whole(f->layer.part))
		ret = is_whole(part) ? set(f, f->layer.read_only ? F_RDLCK : F_WRLCK, 0, 0)
				     : set_part(f, f->layer.read_only ? F_RDLCK : F_WRLCK, part);
	if (!ret)
		return 0;
	file_lock_only(f, f->layer.part);
	return refused(f, part, ret, err);
}

void file_lock_only(struct file *f, struct layer_part part)
{
	if (is_whole(part))
		return;
	for (unsigned i = 0; i < COUNT(slices_have); i++)
		set(f, F_RDLCK, slices_have[i].offset, slices_have[i].length);
	for (unsigned i = 0; i < COUNT(others_have); i++)
		set(f, F_UNLCK, others_have[i].offset, others_have[i].length);
	if (part.offset)
		set_part(f, F_UNLCK, (struct layer_part){ 0, part.offset });
	if (part.length)
		set_part(f, F_UNLCK, (struct layer_part){ part.offset + part.length, 0 });
}
