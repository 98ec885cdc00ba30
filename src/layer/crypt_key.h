/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_key.h - the passphrase of a volume, from where its user keeps it
 *
 * As in cryptsetup(8) with --key-file: all bytes count, a newline at the end too.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/option.h"

struct error;

/** Where it is: exactly one of the texts is given. */
struct crypt_key_source {
	char *file, *command, *keyring;
	uint64_t file_offset, file_size; /**< bytes of the file; size 0: up to its end */
};

/** The rows of an options table for the member @key of @object, a struct crypt_key_source. */
#define CRYPT_KEY_OPTIONS(object, key)                                                                    \
	{ .name = "key-file",                                                                             \
	  .type = OPTION_STRING,                                                                          \
	  .offset = offsetof(object, key.file),                                                           \
	  .help = "File with the passphrase, as cryptsetup's --key-file: all its bytes count, a "         \
		  "newline at the end too." },                                                            \
		{ .name = "keyfile-offset",                                                               \
		  .type = OPTION_SIZE,                                                                    \
		  .offset = offsetof(object, key.file_offset),                                            \
		  .help = "Leave out so many bytes at the start of key-file." },                          \
		{ .name = "keyfile-size",                                                                 \
		  .type = OPTION_SIZE,                                                                    \
		  .offset = offsetof(object, key.file_size),                                              \
		  .max = CRYPT_KEY_MOST,                                                                  \
		  .help = "Take only so many bytes of key-file. Default: up to its end, at most 8M." },   \
		{ .name = "key-command",                                                                  \
		  .type = OPTION_STRING,                                                                  \
		  .offset = offsetof(object, key.command),                                                \
		  .help = "Command, run by /bin/sh, whose whole output is the passphrase, as with "       \
			  "COMMAND | cryptsetup --key-file=-. It has a minute. The command itself is no " \
			  "secret: process lists and the API show it." },                                 \
	{                                                                                                 \
		.name = "key-keyring", .type = OPTION_STRING,                                             \
		.offset = offsetof(object, key.keyring),                                                  \
		.help = "Description of a key of type user in the kernel's keyrings, which is the "       \
			"passphrase: it is looked for in those of the process and its session, then "     \
			"in the user's (keyctl padd user DESCRIPTION @u)."                                \
	}

#define CRYPT_KEY_MOST (8ull << 20) /* bytes, as in cryptsetup */

/**
 * Reads the passphrase. Who has it frees it with crypt_safe_free(). It may wait. 0, or -errno with
 * @err, which names the source and never what it holds.
 */
int crypt_key_read(const struct crypt_key_source *source, char **key, size_t *length,
		   struct error *err);

/** "key-file PATH" and the like, for messages; into @text. Returns @text. */
char *crypt_key_describe(const struct crypt_key_source *source, char *text, size_t size);
