/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz.h - what the fuzz targets share: an input read from its front, a disk, a loop of its
 * own thread, and a log that goes nowhere
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct device;
struct disk;
struct loop;

/** What is left of an input. */
struct input {
	const uint8_t *data;
	size_t size;
};

/** The next byte; 0 at the end. */
uint8_t input_byte(struct input *in);

/** The next @size bytes, in the machine's order; zeroes beyond the end. */
void input_bytes(struct input *in, void *to, size_t size);

/** A disk over the back-end @kind of 1M. Ends the program on failure. */
struct disk *fuzz_disk(const char *kind, int read_only);

/**
 * A device of @kind with @disk, and @options: names and values in turn, ended by NULL. Ends the
 * program on failure.
 */
struct device *fuzz_device(const char *kind, const char *socket, struct disk *disk,
			   const char *const *options);

/** A loop that runs on a thread of its own. Ends the program on failure. */
struct loop *fuzz_loop(const char *name);

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
