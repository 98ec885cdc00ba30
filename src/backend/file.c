/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.c - a raw image file or a block device: opening it, its limits; file_lock.c keeps others
 * out, file_io.c serves
 *
 * With direct I/O (the default where the alignment allows it) all data go past the page
 * cache, through a second descriptor. The first one holds the lock, and does what needs no
 * memory: flush, discard, zeroing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/file_private.h"
#include "util/error.h"

/* --- open --------------------------------------------------------------------------- */

static int check_type(struct file *f, const struct stat *st, struct error *err)
{
	f->block_device = S_ISBLK(st->st_mode);
	if (!S_ISREG(st->st_mode) && !f->block_device)
		return error_set(
			err, EINVAL, "%s is %s; expected an image file or a block device", f->path,
			S_ISDIR(st->st_mode) ? "a directory" : "neither a file nor a disk");
	return 0;
}

static int open_path(struct file *f, struct error *err)
{
	int flags = O_CLOEXEC | (f->layer.read_only ? O_RDONLY : O_RDWR);
	struct stat st;

	f->fd = -1;
	/* Before it is opened, because that would wait for the other end of a pipe. */
	if (!stat(f->path, &st) && check_type(f, &st, err))
		return -err->code;
	/* O_EXCL on a block device refuses one that is mounted or otherwise in use. */
	if (!f->layer.read_only && f->block_device)
		flags |= O_EXCL;
	f->fd = open(f->path, flags);
	/* Slices of a device: it must not be in use for anything else, but each opens it. */
	if (f->fd >= 0 && (flags & O_EXCL) && (f->layer.part.offset || f->layer.part.length)) {
		close(f->fd);
		f->fd = open(f->path, flags & ~O_EXCL);
	}
	if (f->fd < 0 && errno == ENOENT && f->create && !f->layer.read_only)
		f->fd = open(f->path, flags | O_CREAT | O_EXCL, 0600);
	if (f->fd >= 0)
		return 0;
	if (errno == ENOENT)
		return error_set(
			err, ENOENT, "%s does not exist%s", f->path,
			f->layer.read_only ? "" : " (options create=true and size=... make it)");
	if (errno == EBUSY)
		return error_set(err, EBUSY, "%s is in use: mounted, or part of something that is",
				 f->path);
	if (errno == EACCES || errno == EROFS)
		return error_set(err, errno, "%s: %s%s", f->path, strerror(errno),
				 f->layer.read_only ? ""
						    : " (read-only=true opens it for reading)");
	return error_set(err, errno, "%s: %s", f->path, strerror(errno));
}

static int read_size(struct file *f, struct error *err)
{
	struct stat st;
	uint64_t bytes;

	if (f->block_device ? ioctl(f->fd, BLKGETSIZE64, &bytes) : fstat(f->fd, &st))
		return error_set(err, errno, "cannot tell the size of %s: %s", f->path,
				 strerror(errno));
	atomic_store(&f->bytes, f->block_device ? bytes : (uint64_t)st.st_size);
	return 0;
}

static int grow(struct file *f, uint64_t size, struct error *err)
{
	char a[32], b[32];
	int ret = read_size(f, err);

	if (ret || size <= atomic_load(&f->bytes))
		return ret;
	if (f->block_device || f->layer.read_only)
		return error_set(err, ENOSPC, "%s has %s, and cannot be made %s", f->path,
				 format_size(atomic_load(&f->bytes), a, sizeof a),
				 format_size(size, b, sizeof b));
	if (ftruncate(f->fd, (off_t)size))
		return error_set(err, errno, "cannot grow %s to %s: %s", f->path,
				 format_size(size, b, sizeof b), strerror(errno));
	atomic_store(&f->bytes, size);
	return 0;
}

/* What direct I/O demands; statx tells since Linux 6.1. */
static void find_alignment(struct file *f, uint32_t *memory, uint32_t *offset)
{
	struct statx sx;
	void *page = NULL;

	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
	    (sx.stx_mask & STATX_DIOALIGN)) {
		*memory = sx.stx_dio_mem_align;
		*offset = sx.stx_dio_offset_align;
		return;
	}
	*memory = *offset = 4096;
	if (!posix_memalign(&page, 4096, 8192)) {
		if (pread(f->direct_fd, (char *)page + 512, 512, 0) >= 0)
			*memory = *offset = 512;
		free(page);
	}
}

static int open_direct(struct file *f, struct error *err)
{
	char self[64];
	uint32_t memory = 0, offset = 0;

	f->direct_fd = -1;
	if (f->direct == DIRECT_OFF)
		return 0;
	snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
	f->direct_fd = open(self, O_CLOEXEC | O_DIRECT | (f->layer.read_only ? O_RDONLY : O_RDWR));
	if (f->direct_fd >= 0)
		find_alignment(f, &memory, &offset);
	if (f->direct_fd >= 0 && offset && offset <= f->layer.block_size) {
		f->memory_mask = memory - 1;
		f->offset_mask = offset - 1;
		return 0;
	}
	if (f->direct == DIRECT_ON)
		return error_set(
			err, EINVAL,
			offset ? "direct: %s wants I/O in blocks of %u bytes; set block-size to that"
			       : "direct: the file system of %s has no direct I/O",
			f->path, offset);
	if (offset)
		log_info(
			"disk %s: %s through the page cache: direct I/O wants blocks of %u bytes, the "
			"disk's are %u",
			f->layer.disk, f->path, offset, f->layer.block_size);
	else
		log_info("disk %s: %s through the page cache: its file system has no direct I/O",
			 f->layer.disk, f->path);
	if (f->direct_fd >= 0)
		close(f->direct_fd);
	f->direct_fd = -1;
	return 0;
}

int file_open(struct layer *layer, struct error *err)
{
	struct file *f = (struct file *)layer;
	struct stat st;
	char a[32], b[32];
	int ret = open_path(f, err), block;

	if (ret)
		return ret;
	ret = fstat(f->fd, &st) ? error_set(err, errno, "%s: %s", f->path, strerror(errno))
				: check_type(f, &st, err);
	if (!ret)
		ret = f->unlocked ? 0 : file_lock(f, err);
	if (!ret)
		ret = read_size(f, err);
	if (!ret && f->size && !f->block_device && f->size < atomic_load(&f->bytes))
		ret = error_set(
			err, EINVAL,
			"size: %s has %s; making it %s would lose data (a disk may be smaller "
			"than its image: set the disk's size)",
			f->path, format_size(atomic_load(&f->bytes), a, sizeof a),
			format_size(f->size, b, sizeof b));
	if (!ret && f->size)
		ret = grow(f, f->size, err);
	if (!ret)
		ret = open_direct(f, err);
	if (ret) {
		close(f->fd);
		return ret;
	}
	f->block_size = 512;
	if (f->block_device && !ioctl(f->fd, BLKSSZGET, &block) && block > 0)
		f->block_size = (uint32_t)block;
	log_info("disk %s: %s, %s, %s I/O%s", layer->disk, f->path,
		 format_size(atomic_load(&f->bytes), a, sizeof a),
		 f->direct_fd >= 0 ? "direct" : "page cache",
		 layer->read_only ? ", read-only" : "");
	return 0;
}

void file_close(struct layer *layer)
{
	struct file *f = (struct file *)layer;

	if (f->direct_fd >= 0)
		close(f->direct_fd);
	close(f->fd);
}

static void file_limits(struct layer *layer, struct limits *limits)
{
	struct file *f = (struct file *)layer;
	unsigned physical = 0;

	limits->size = atomic_load(&f->bytes);
	limits->block_size = f->block_size;
	/* A file's blocks are those of its file system, as a rule pages. */
	limits->physical_block_size = 4096;
	if (f->block_device && !ioctl(f->fd, BLKPBSZGET, &physical) && physical)
		limits->physical_block_size = physical;
	limits->read_only = layer->read_only;
	limits->discard = f->discard;
}

bool file_identity(const struct layer *layer, char *text, size_t size)
{
	const struct file *f = (const struct file *)layer;
	struct stat st;

	if (fstat(f->fd, &st))
		return false;
	snprintf(text, size, "%llx:%llx", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	return true;
}

static int file_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct file *f = (struct file *)layer;
	int ret = grow(f, size, err);

	/* One that was told its size was told this one from now on. */
	if (!ret && f->size && f->size < size)
		f->size = size;
	return ret;
}

/* --- a change ----------------------------------------------------------------------- */

static int file_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct file *f = (struct file *)layer;
	const struct file *to = (const struct file *)plan->options;

	if (to->direct != f->direct)
		return error_set(err, EBUSY, "direct: it cannot change while %s is in use",
				 f->path);
	if (to->size && (f->layer.read_only || to->size < atomic_load(&f->bytes)))
		return error_set(err, EINVAL, "size: %s cannot become smaller, nor grow read-only",
				 f->path);
	if (file_lock_also(f, plan->part, err))
		return -err->code;
	return to->size ? grow(f, to->size, err) : 0;
}

/* Committed or abandoned: layer.part is what is used from now on. */
static void file_changed(struct layer *layer)
{
	struct file *f = (struct file *)layer;

	if (!f->unlocked)
		file_lock_only(f, layer->part);
}

static const char *const directs[] = { "auto", "on", "off", NULL };

static const struct option file_options[] = {
	{ .name = "path",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct file, path),
	  .required = true,
	  .help = "The raw image or block device." },
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct file, size),
	  .min = 4096,
	  .max = 1ull << 60,
	  .help = "Size of a new image; an existing one that is smaller grows to it. Never shrinks. Not "
		  "needed for the store of an overlay, which makes it as large as it has to be." },
	{ .name = "create",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct file, create),
	  .fallback = "false",
	  .help = "Make the image, sparse, if it does not exist." },
	{ .name = "direct",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct file, direct),
	  .choices = directs,
	  .fallback = "auto",
	  .help = "Past the host's page cache (O_DIRECT). auto: where the file system and the disk's "
		  "block size allow it." },
	{ .name = "discard",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct file, discard),
	  .fallback = "true",
	  .help = "Give space that the guest discards back to the file system (punch holes). Turn it off "
		  "for images that shall stay allocated." },
	{ 0 },
};

const struct layer_ops file_ops = {
	.name = "file",
	.summary = "a raw image file or a block device",
	.description =
		"The image is locked (an open file description lock) against a second writer: another "
		"penstock, or QEMU and its tools. Directly below a slice only that range is locked, so "
		"that other disks can have other slices of it. A block device that is mounted is "
		"refused.\n\n"
		"I/O goes past the page cache where it can, so that the guest's memory is the only "
		"copy and host memory stays free. A request whose memory is not aligned for that "
		"(firmware makes such) is copied.",
	.example = "disks:\n"
		   "  db:\n"
		   "    cache: writethrough\n"
		   "    stack:\n"
		   "      - file: {path: /var/lib/penstock/db.img, create: true, size: 20G}\n",
	.size = sizeof(struct file),
	.options = file_options,
	.backend = true,
	.place_option = "path",
	.queue_state = sizeof(struct file_queue),
	.queue_open = file_queue_open,
	.queue_close = file_queue_close,
	.open = file_open,
	.close = file_close,
	.limits = file_limits,
	.resize = file_resize,
	.prepare = file_prepare,
	.commit = file_changed,
	.abandon = file_changed,
	.submit = file_submit,
	.identity = file_identity,
};
