/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - what outlives a program that is killed, but not the power: a file in the host's memory
 *
 * Layers keep such files in /dev/shm; in the simulator in a directory of its own, which is looked
 * at with each event. One file at a time.
 */
#pragma once

#include <stddef.h>

/** A file as it was. */
struct host_file {
	struct host_file *next; /**< whoever has it may link it */
	char name[120];
	size_t size;
	unsigned char bytes[];
};

/** The directory, made anew; removed by host_end(). */
const char *host_begin(void);
void host_end(void);

/** The directory has this file and no other; NULL: none. */
void host_put(const struct host_file *file);

/** The file as it is now: @last if that is the same, else a new one, from malloc(); NULL: none. */
struct host_file *host_look(struct host_file *last);
