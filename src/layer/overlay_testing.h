/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_testing.h - for the tests of overlays: a base with known bytes, a store beside it, and
 * disks of both
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "testing.h"

#define BASE_BYTES (8u << 20)

extern char directory[200], base_path[256], store_path[256];

/** A test with a base; when it ends nobody may have written to that. */
#define OVERLAY_TEST(name) cmocka_unit_test_setup_teardown(name, make_files, remove_files)
int make_files(void **unused);
int remove_files(void **unused);

/** What the base has at @offset. */
unsigned char base_byte(uint64_t offset);

/** Writes to a file, and reads from it. */
void put(const char *path, uint64_t offset, const void *bytes, size_t length);
void get(const char *path, uint64_t offset, void *bytes, size_t length);

/** An overlay with @options: up to three, names and values in turn, ended by NULL. NULL with @err.
 */
struct disk *try_over(const char *store, const char *base, bool read_only, struct error *err,
		      const char *const *options);

/** The same with the store and the base, which must succeed; with options, and without. */
struct disk *open_with(const char *const *options);
struct disk *open_disk(void);

/** One request; its status. Every byte of what is written is @value. */
int change(struct disk *disk, enum io_op op, uint8_t flags, uint64_t offset, uint64_t length,
	   int value);

/** Requests that must succeed. */
void write_at(struct disk *disk, uint64_t offset, uint64_t length, int value);
void flush(struct disk *disk);

/** What is there must be @value, in every byte. */
void expect(struct disk *disk, uint64_t offset, uint64_t length, int value);
#define BASE -1 /* the value of what the base has */

/** Bytes of blocks that the store has, by its own report. */
uint64_t stored(struct disk *disk);
