/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_format.c - makes a LUKS2 volume
 *
 * libcryptsetup formats a copy in memory, which is then written out: first nothing is there, then
 * all but the first block, then, when that is on stable storage, the first block, which makes it a
 * volume. (Until then cryptsetup would find the second header only, and that is whole, too.)
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer/crypt_header.h"
#include "layer/crypt_volume.h"
#include "layer/session.h"
#include "util/error.h"

static const char *const ciphers[] = { "aes-256", "aes-128", NULL };
static const char *const sectors[] = { "512", "4096", NULL };
static const char *const pbkdfs[] = { "argon2id", "argon2i", "pbkdf2", NULL };

const struct option crypt_format_options[] = {
	CRYPT_KEY_OPTIONS(struct crypt_format, source),
	{ .name = "cipher",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct crypt_format, cipher),
	  .choices = ciphers,
	  .fallback = "aes-256",
	  .help = "Both in XTS mode (aes-xts-plain64), with a volume key of 512 or 256 bits." },
	{ .name = "sector-size",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct crypt_format, sector_size),
	  .choices = sectors,
	  .fallback = "512",
	  .help = "Bytes that are encrypted together. 4096 takes less CPU, and a disk with "
		  "block-size 4096." },
	{ .name = "pbkdf",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct crypt_format, pbkdf),
	  .choices = pbkdfs,
	  .fallback = "argon2id",
	  .help = "How the key slot's key is derived from the passphrase." },
	{ .name = "pbkdf-memory",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct crypt_format, memory),
	  .min = 32 << 10,
	  .max = 4ull << 30,
	  .help = "Memory that deriving takes at most (argon2). Default: that of libcryptsetup, as a "
		  "rule 1G, which whoever opens the volume must have." },
	{ .name = "iter-time",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct crypt_format, iter_time),
	  .min = 1000000,
	  .max = 600000000000,
	  .help = "How long deriving shall take on this machine. Default: that of libcryptsetup, 2s. "
		  "A short time is enough for a random key of 32 bytes or more." },
	{ .name = "pbkdf-iterations",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct crypt_format, iterations),
	  .min = 4,
	  .max = UINT32_MAX,
	  .help = "Exactly so many iterations, in place of as many as fit iter-time: at least 1000 of "
		  "pbkdf2, 4 of argon2. Nothing is measured then." },
	{ .name = "label",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct crypt_format, label),
	  .help = "Label in the header, at most 47 bytes." },
	{ 0 },
};

static int format(const struct crypt_format *f, struct crypt_header *header, const char *key,
		  size_t length, struct error *err)
{
	const struct crypt_pbkdf_type *fallback = crypt_get_pbkdf_default(CRYPT_LUKS2);
	struct crypt_pbkdf_type pbkdf = { .type = pbkdfs[f->pbkdf],
					  .hash = fallback->hash,
					  .time_ms = fallback->time_ms };
	struct crypt_params_luks2 params = { .sector_size = f->sector_size ? 4096 : 512,
					     .label = f->label,
					     .pbkdf = &pbkdf };
	int ret;

	if (f->iter_time)
		pbkdf.time_ms = (uint32_t)(f->iter_time / 1000000);
	if (f->iterations) {
		pbkdf.time_ms = 0;
		pbkdf.iterations = (uint32_t)f->iterations;
		pbkdf.flags = CRYPT_PBKDF_NO_BENCHMARK;
	}
	if (strcmp(pbkdf.type, CRYPT_KDF_PBKDF2)) {
		pbkdf.max_memory_kb = f->memory ? (uint32_t)(f->memory >> 10)
						: fallback->max_memory_kb;
		pbkdf.parallel_threads = fallback->parallel_threads;
	}
	ret = crypt_set_data_offset(header->device, CRYPT_VOLUME_DATA_OFFSET / 512);
	if (!ret)
		ret = crypt_format(header->device, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL,
				   f->cipher ? 32 : 64, &params);
	if (ret >= 0)
		ret = crypt_keyslot_add_by_volume_key(header->device, CRYPT_ANY_SLOT, NULL, 0, key,
						      length);
	if (ret < 0)
		return error_set(err, -ret, "libcryptsetup: %s", crypt_header_reason(header, ret));
	return 0;
}

/* [@from, @to) of the copy. */
static int write_out(const struct crypt_header *header, struct session *session, uint64_t from,
		     uint64_t to, struct error *err)
{
	char *chunk = malloc(CRYPT_HEADER_CHUNK);
	int ret = chunk ? 0 : error_set(err, ENOMEM, "out of memory");

	while (!ret && from < to) {
		size_t length = to - from < CRYPT_HEADER_CHUNK ? to - from : CRYPT_HEADER_CHUNK;

		if (pread(header->fd, chunk, length, (off_t)from) != (ssize_t)length)
			ret = error_set(err, EIO, "cannot read the copy of the header");
		else if ((ret = session_write(session, from, chunk, length, 0)))
			error_set(err, -ret, "cannot write the header at byte %" PRIu64 ": %s",
				  from, strerror(-ret));
		from += length;
	}
	free(chunk);
	return ret;
}

static int flush(struct session *session, struct error *err)
{
	int ret = session_do(session, IO_FLUSH, 0, 0, 0);

	return ret ? error_set(err, -ret, "cannot flush the header: %s", strerror(-ret)) : 0;
}

static int store(const struct crypt_header *header, struct session *session, uint64_t first,
		 struct error *err)
{
	int ret = session_do(session, IO_ZEROES, 0, first, 0);

	if (ret)
		return error_set(err, -ret, "cannot write the header: %s", strerror(-ret));
	ret = flush(session, err);
	if (!ret)
		ret = write_out(header, session, first, CRYPT_VOLUME_DATA_OFFSET, err);
	if (!ret)
		ret = flush(session, err);
	if (!ret)
		ret = write_out(header, session, 0, first, err);
	return ret ? ret : flush(session, err);
}

int crypt_volume_create(const struct crypt_format *f, struct layer *below, struct error *err)
{
	uint64_t least = CRYPT_VOLUME_DATA_OFFSET + (f->sector_size ? 4096 : 512);
	struct crypt_header header;
	struct session *session;
	size_t length;
	char *key;
	int ret;

	if (below->limits.size < least)
		return error_set(err, ENOSPC,
				 "there is room for %" PRIu64 " bytes; a volume takes %" PRIu64
				 " at least",
				 below->limits.size, least);
	ret = crypt_key_read(&f->source, &key, &length, err);
	if (ret)
		return ret;
	ret = crypt_header_open(&header, below->limits.size, err);
	if (!ret) {
		ret = format(f, &header, key, length, err);
		session = ret ? NULL : session_open(below, err);
		if (session) {
			ret = store(&header, session,
				    below->limits.block_size > 4096 ? below->limits.block_size
								    : 4096,
				    err);
			session_close(session);
		} else if (!ret) {
			ret = -err->code;
		}
		crypt_header_close(&header);
	}
	crypt_safe_free(key);
	return ret;
}
