/* SPDX-License-Identifier: BSD-3-Clause */
/* volume.c - small volumes; see volume.h */
#include "layer/model/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer/crypt_header.h"
#include "layer/session.h"
#include "layer/testing_build.h"
#include "testing.h"
#include "util/error.h"

#define PASSPHRASE "correct horse"
#define METADATA   (16u << 10) /* bytes of each of the two headers */
#define VOLUME_KEY 32          /* bytes */

static char directory[200], key[220];

const char *volume_key(void)
{
	FILE *file;

	if (*key)
		return key;
	snprintf(key, sizeof key, "%s/key", testing_directory(directory));
	file = fopen(key, "w");
	if (!file || fputs(PASSPHRASE, file) < 0 || fclose(file))
		abort();
	return key;
}

void volume_end(void)
{
	if (!*key)
		return;
	unlink(key);
	rmdir(directory);
	*key = 0;
}

struct layer_config *volume_layer(struct stack_config *stack)
{
	struct layer_config *crypt = testing_layer(stack, layer_find("crypt"));

	testing_set(crypt, "key-file", "%s", volume_key());
	return crypt;
}

static void __attribute__((noreturn)) cannot(const char *what, int ret, const char *why)
{
	fprintf(stderr, "cannot %s: %d %s\n", what, ret, why);
	abort();
}

/* --- the header ------------------------------------------------------------------------------ */

static void format(struct crypt_header *header, uint32_t sector)
{
	const struct crypt_pbkdf_type pbkdf = { .type = CRYPT_KDF_PBKDF2,
						.hash = "sha256",
						.iterations = 1000,
						.flags = CRYPT_PBKDF_NO_BENCHMARK };
	struct crypt_params_luks2 params = { .sector_size = sector, .pbkdf = &pbkdf };
	int ret = crypt_set_metadata_size(header->device, METADATA, VOLUME_OFFSET - 2 * METADATA);

	if (!ret)
		ret = crypt_set_data_offset(header->device, VOLUME_OFFSET / 512);
	if (!ret)
		ret = crypt_format(header->device, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL,
				   VOLUME_KEY, &params);
	if (ret >= 0)
		ret = crypt_keyslot_add_by_volume_key(header->device, CRYPT_ANY_SLOT, NULL, 0,
						      PASSPHRASE, strlen(PASSPHRASE));
	if (ret < 0)
		cannot("make a volume", ret, crypt_header_reason(header, ret));
}

static void write_header(struct layer *below, uint32_t sector)
{
	char *bytes = malloc(VOLUME_OFFSET);
	struct crypt_header header;
	struct error err = { 0 };
	struct session *session;
	int ret;

	/* Of a size that suits any sector. */
	if (crypt_header_open(&header, below->limits.size / 4096 * 4096, &err))
		cannot("make a volume", err.code, err.text);
	format(&header, sector);
	if (!bytes || pread(header.fd, bytes, VOLUME_OFFSET, 0) != VOLUME_OFFSET)
		abort();
	crypt_header_close(&header);
	session = session_open(below, &err);
	if (!session)
		cannot("write a header", err.code, err.text);
	ret = session_write(session, 0, bytes, VOLUME_OFFSET, IO_FUA);
	if (ret)
		cannot("write a header", ret, "");
	session_close(session);
	free(bytes);
}

/* --- volumes --------------------------------------------------------------------------------- */

static struct layer *open_from(const struct stack_config *stack, unsigned at, uint32_t block_size)
{
	const struct stack_setting setting = { .disk = "volume", .block_size = block_size };
	const struct stack_config rest = { stack->layers + at, stack->count - at };
	struct error err = { 0 };
	struct layer *top = stack_open(&setting, &rest, NULL, &err);

	if (!top)
		cannot("open what is to be a volume", err.code, err.text);
	return top;
}

static void write_zeroes(struct layer *crypt)
{
	struct session *session = session_open(crypt, NULL);
	int ret;

	if (!session)
		abort();
	ret = session_do(session, IO_ZEROES, 0, crypt->limits.size, 0);
	if (!ret)
		ret = session_do(session, IO_FLUSH, 0, 0, 0);
	if (ret)
		cannot("write zeroes", ret, "");
	session_close(session);
}

static void make_volume(const struct stack_config *stack, unsigned at, uint32_t block_size,
			uint32_t sector)
{
	struct layer *layer = open_from(stack, at + 1, block_size);

	write_header(layer, sector);
	stack_close(layer);
	layer = open_from(stack, at, block_size);
	write_zeroes(layer);
	stack_close(layer);
}

void volume_format(const struct stack_config *stack, uint32_t block_size, struct chance *chance)
{
	for (unsigned i = stack->count; i-- > 0;) {
		const struct layer_config *layer = &stack->layers[i];

		for (unsigned k = 0; k < layer->leg_count; k++)
			volume_format(&layer->legs[k], block_size, chance);
		if (layer->ops == layer_find("crypt"))
			make_volume(stack, i, block_size, chance_of(chance, 3) ? block_size : 512);
	}
}
