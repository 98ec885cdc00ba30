/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_volume.c - reads and unlocks a LUKS volume
 *
 * Both headers of LUKS2 and their metadata end at 8 MiB at the latest; with the first of them
 * damaged, libcryptsetup looks for the other one, and mends its copy, which is all it ever sees.
 * What the header says of where the data begin tells how much more there is to read: the key slots.
 *
 * What this program could not read and write as dm-crypt would is refused, by name.
 */
#include "layer/crypt_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/crypt_header.h"
#include "layer/session.h"
#include "util/error.h"
#include "util/log.h"

#define HEADERS_END  (8ull << 20)   /* two of at most 4 MiB */
#define KEYSLOTS_MAX (128ull << 20) /* bytes of key slots at most, behind the headers */
#define SECTOR       512

/* --- the copy ----------------------------------------------------------------------------- */

static bool zeroes(const char *bytes, size_t length)
{
	return !*bytes && !memcmp(bytes, bytes + 1, length - 1);
}

/* [@from, @to) of @below into the copy, as far as it goes; whole blocks. */
static int copy(struct crypt_header *header, struct session *session, const struct layer *below,
		uint64_t from, uint64_t to, struct error *err)
{
	uint64_t end = below->limits.size - below->limits.size % below->limits.block_size;
	char *chunk = malloc(CRYPT_HEADER_CHUNK);
	int ret = chunk ? 0 : error_set(err, ENOMEM, "out of memory");

	for (to = to < end ? to : end; !ret && from < to; from += CRYPT_HEADER_CHUNK) {
		size_t length = to - from < CRYPT_HEADER_CHUNK ? to - from : CRYPT_HEADER_CHUNK;

		ret = session_read(session, from, chunk, length);
		if (ret)
			error_set(err, -ret, "cannot read the header at byte %" PRIu64 ": %s", from,
				  strerror(-ret));
		else if (!zeroes(chunk, length) &&
			 pwrite(header->fd, chunk, length, (off_t)from) != (ssize_t)length)
			ret = error_set(err, ENOMEM, "no memory for a copy of the header");
	}
	free(chunk);
	return ret;
}

/* --- what it says -------------------------------------------------------------------------- */

/* Something at the start calls itself LUKS: then it is one, if a damaged one. */
static bool has_magic(const struct crypt_header *header)
{
	char magic[6] = { 0 };

	return pread(header->fd, magic, sizeof magic, 0) == sizeof magic &&
	       !memcmp(magic, "LUKS\xba\xbe", sizeof magic);
}

static int load(struct crypt_header *header, struct error *err)
{
	const struct timespec never[2] = { { 0 }, { 0 } };
	struct stat st;
	int ret;

	futimens(header->fd, never);
	ret = crypt_load(header->device, CRYPT_LUKS, NULL);
	if (!ret) {
		/* It has mended its copy, if it was written to. */
		if (!fstat(header->fd, &st) && st.st_mtim.tv_sec)
			log_warn("one of the two LUKS2 headers is damaged, and the other one is "
				 "used; cryptsetup repair mends it while the disk is not in use");
		return 0;
	}
	if (!has_magic(header))
		return error_set(err, EINVAL,
				 "no LUKS header at the start of what is below; penstock create "
				 "crypt and cryptsetup luksFormat make one");
	return error_set(err, EINVAL,
			 "the LUKS header is damaged: %s. Nothing was written to it; cryptsetup "
			 "luksHeaderRestore brings back one from a backup",
			 crypt_header_reason(header, ret));
}

/* The one segment of a LUKS2 volume: libcryptsetup tells neither its length nor its tweak. */
static int read_segment(struct crypt_volume *v, struct crypt_header *header, struct error *err)
{
	const char *text, *type, *size, *tweak;
	json_t *metadata = NULL, *segments, *segment;
	int ret = 0;

	if (!crypt_dump_json(header->device, &text, 0))
		metadata = json_loads(text, 0, NULL);
	segments = json_object_get(metadata, "segments");
	segment = json_object_get(segments, "0");
	type = json_string_value(json_object_get(segment, "type"));
	size = json_string_value(json_object_get(segment, "size"));
	tweak = json_string_value(json_object_get(segment, "iv_tweak"));
	if (json_object_size(segments) != 1 || !type || strcmp(type, "crypt") || !size)
		ret = error_set(
			err, ENOTSUP,
			"the volume has %zu segments, the first of type %s; expected one of "
			"type crypt (a reencryption under way must be ended with cryptsetup)",
			json_object_size(segments), type ? type : "unknown");
	if (!ret && strcmp(size, "dynamic"))
		v->size = strtoull(size, NULL, 10);
	if (!ret && tweak)
		v->tweak = strtoull(tweak, NULL, 10);
	if (!ret && json_object_get(segment, "integrity"))
		ret = error_set(
			err, ENOTSUP,
			"the volume has data integrity (authenticated encryption), which is "
			"not supported");
	json_decref(metadata);
	return ret;
}

static int check_requirements(struct crypt_header *header, struct error *err)
{
	uint32_t requirements = 0;

	if (crypt_persistent_flags_get(header->device, CRYPT_FLAGS_REQUIREMENTS, &requirements) ||
	    requirements)
		return error_set(err, ENOTSUP, "%s; end that with cryptsetup first",
				 requirements & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT |
						 CRYPT_REQUIREMENT_ONLINE_REENCRYPT)
					 ? "a reencryption of the volume is under way"
					 : "the volume requires something that is not known here");
	return 0;
}

static int check_cipher(struct crypt_volume *v, struct crypt_header *header, struct error *err)
{
	const char *cipher = crypt_get_cipher(header->device);
	const char *mode = crypt_get_cipher_mode(header->device);
	int key = crypt_get_volume_key_size(header->device);

	if (!cipher || !mode || strcmp(cipher, "aes") || strcmp(mode, "xts-plain64") ||
	    (key != 64 && key != 32))
		return error_set(err, ENOTSUP,
				 "the volume's cipher is %s-%s with a key of %d bits; only "
				 "aes-xts-plain64 with 512 or 256 bits is supported",
				 cipher ? cipher : "unknown", mode ? mode : "unknown", key * 8);
	v->key_size = (size_t)key;
	return 0;
}

static int check_places(struct crypt_volume *v, struct crypt_header *header,
			const struct layer *below, struct error *err)
{
	int sector = crypt_get_sector_size(header->device);
	uint64_t offset = crypt_get_data_offset(header->device);

	if (sector < SECTOR || sector > 4096 || (sector & (sector - 1)))
		return error_set(err, EINVAL,
				 "the header says that a sector has %d bytes; expected 512, 1024, "
				 "2048 or 4096",
				 sector);
	v->sector_size = (uint32_t)sector;
	if (!offset || offset >= below->limits.size / SECTOR)
		return error_set(err, EINVAL,
				 "the header says that the data begin at byte %" PRIu64
				 "; what is below has %" PRIu64 " bytes (detached headers are not "
				 "supported)",
				 offset * SECTOR, below->limits.size);
	v->data_offset = offset * SECTOR;
	if (v->data_offset % below->limits.block_size || v->data_offset % v->sector_size)
		return error_set(err, EINVAL,
				 "the data begin at byte %" PRIu64
				 ", which is not a multiple of the sector (%u) and of the block "
				 "below (%u)",
				 v->data_offset, v->sector_size, below->limits.block_size);
	if (v->size % v->sector_size || (v->size && v->size > below->limits.size - v->data_offset))
		return error_set(err, EINVAL,
				 "the header says that there are %" PRIu64
				 " bytes of data; what is below has room for %" PRIu64
				 " in sectors of %u",
				 v->size, below->limits.size - v->data_offset, v->sector_size);
	return 0;
}

static int read_header(struct crypt_volume *v, struct crypt_header *header, struct error *err)
{
	const char *type = crypt_get_type(header->device);
	const char *uuid = crypt_get_uuid(header->device);
	int ret = 0;

	v->version = type && !strcmp(type, CRYPT_LUKS1) ? 1 : 2;
	snprintf(v->uuid, sizeof v->uuid, "%s", uuid ? uuid : "");
	if (v->version == 2) {
		ret = check_requirements(header, err);
		if (!ret)
			ret = read_segment(v, header, err);
	}
	return ret ? ret : check_cipher(v, header, err);
}

/* --- its key ------------------------------------------------------------------------------- */

static int unlock(struct crypt_volume *v, struct crypt_header *header, const char *key,
		  size_t length, const struct crypt_key_source *source, struct error *err)
{
	char described[200];
	int ret;

	v->key = crypt_safe_alloc(v->key_size);
	if (!v->key)
		return error_set(err, ENOMEM, "out of memory");
	*header->said = 0;
	ret = crypt_volume_key_get(header->device, CRYPT_ANY_SLOT, v->key, &v->key_size, key,
				   length);
	if (ret >= 0)
		return 0;
	crypt_volume_forget_key(v);
	crypt_key_describe(source, described, sizeof described);
	if (ret == -EPERM)
		return error_set(
			err, EPERM,
			"the passphrase from %s opens none of the volume's key slots (all its "
			"bytes count, a newline at its end too)",
			described);
	if (ret == -ENOENT)
		return error_set(err, ENOENT,
				 "the volume has no key slot left that could be opened");
	return error_set(err, -ret, "cannot open a key slot with %s: %s", described,
			 crypt_header_reason(header, ret));
}

void crypt_volume_forget_key(struct crypt_volume *volume)
{
	crypt_safe_free(volume->key); /* wipes it */
	volume->key = NULL;
}

static int open_header(struct crypt_volume *v, struct session *session, struct layer *below,
		       const char *key, size_t length, const struct crypt_key_source *source,
		       struct error *err)
{
	struct crypt_header header;
	int ret = crypt_header_open(&header, below->limits.size, err);

	if (ret)
		return ret;
	ret = copy(&header, session, below, 0, HEADERS_END, err);
	if (!ret)
		ret = load(&header, err);
	if (!ret)
		ret = read_header(v, &header, err);
	if (!ret)
		ret = check_places(v, &header, below, err);
	if (!ret && v->data_offset > HEADERS_END)
		ret = copy(&header, session, below, HEADERS_END,
			   v->data_offset < HEADERS_END + KEYSLOTS_MAX ? v->data_offset
								       : HEADERS_END + KEYSLOTS_MAX,
			   err);
	if (!ret)
		ret = unlock(v, &header, key, length, source, err);
	crypt_header_close(&header);
	return ret;
}

int crypt_volume_open(struct crypt_volume *volume, struct layer *below,
		      const struct crypt_key_source *source, struct error *err)
{
	struct session *session;
	size_t length;
	char *key;
	int ret = crypt_key_read(source, &key, &length, err);

	if (ret)
		return ret;
	session = session_open(below, err);
	ret = session ? open_header(volume, session, below, key, length, source, err) : -err->code;
	if (session)
		session_close(session);
	crypt_safe_free(key);
	return ret;
}
