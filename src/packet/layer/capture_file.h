/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_file.h - the files of a capture: one, or a bounded number of numbered ones
 *
 * One file, PATH, if there is no bound: a later capture into it is appended, as a section of its
 * own. With a bound they are numbered, web.pcapng is web-00001.pcapng and so on, and the oldest go.
 * Nothing is ever written to, or removed, that does not begin as our captures do.
 *
 * Opened on the control thread; then it belongs to one writer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct error;

/** Most numbered files. */
#define CAPTURE_FILES 10000u

struct capture_file {
	char *path;      /**< as its user wrote it */
	char *name;      /**< of the one that is open, or was last */
	int fd;          /**< -1: none is open */
	uint64_t size;   /**< bytes in it: all of them whole blocks */
	bool numbered;   /**< they have numbers */
	bool unchecked;  /**< it was there before, and may end in the middle of a block */
	uint32_t number; /**< of the one that is open */
	uint32_t *kept;  /**< numbers of ours that are there, oldest first */
	unsigned kept_count;
};

/**
 * Opens the first file of @path: numbered ones if @numbered, at most @files. 0, or -errno with @err
 * and nothing to close.
 */
int capture_file_open(struct capture_file *file, const char *path, bool numbered, unsigned files,
		      struct error *err);

/** Closes what is open. It may be used again after capture_file_open() only. */
void capture_file_close(struct capture_file *file);

/** What a writer does first, since it may take long: cuts off a block that a crash has left
 * incomplete. */
void capture_file_repair(struct capture_file *file);

/** Goes over to another, numbered file, and removes the oldest beyond @files. 0, or -errno with
 * @err: then none is open, and it may be tried again. */
int capture_file_next(struct capture_file *file, unsigned files, struct error *err);

/** Appends whole blocks. 0, or -errno and the file as it was. */
int capture_file_write(struct capture_file *file, const void *blocks, size_t length);
