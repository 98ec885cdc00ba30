/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_writer.h - the thread that writes what a capture layer has copied, to files or to a
 * descriptor
 *
 * Each loop has a ring to it. It takes what is there in the order of time, makes blocks of it and
 * writes them; and sleeps while there is nothing. Disks and readers are as slow as they like: what
 * finds no room meanwhile is counted as missed.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "packet/layer/capture_ring.h"
#include "packet/port.h"

struct capture_writer;
struct error;

/** A record of one packet; its bytes follow, without its tag. */
struct capture_packet {
	struct capture_record record;
	uint64_t time;     /**< ns since 1970 */
	uint32_t length;   /**< of the frame as it was here, bytes */
	uint32_t captured; /**< bytes that follow */
	uint32_t missed;   /**< packets that found no room, just before it */
	uint16_t tag;      /**< that it came with */
	uint16_t csum_start, csum_offset, gso_size;
	uint8_t direction; /**< enum packet_direction */
	bool tagged;
	bool unsummed; /**< its sum has been left to us, at csum_start and csum_offset */
	bool complete; /**< and shall be completed in the copy */
	bool large;    /**< it is to be cut into segments of gso_size */
};

/** A record of where the packets of its ring that follow are captured, and which. */
struct capture_place {
	struct capture_record record;
	uint32_t snap_length; /**< most bytes of a frame */
	uint32_t step;        /**< the layer's position in its port's layers */
	char filter[];        /**< ended by 0 */
};

/** How a writer is made. */
struct capture_writer_config {
	const char *port, *kind; /**< the port's name, and of what is plugged in */
	const char *path;        /**< of files; NULL: there is a descriptor */
	uint64_t file_size;      /**< bytes of a numbered file; 0: one file, without bound */
	unsigned files;          /**< numbered ones */
	int stream;              /**< a descriptor that does not block, taken over; with @path -1 */
	uint64_t limit;          /**< packets, after which it ends a stream; 0: none */
};

/** How it does. */
struct capture_report {
	char *name;      /**< of the file that is being written, the caller's; NULL: a stream */
	char error[160]; /**< why nothing is being written; "" */
	uint64_t packets, bytes; /**< written */
	uint64_t missed;         /**< not captured for want of room, or not written */
};

/** Opens the file and starts the thread. NULL with @err; then the stream is closed. */
struct capture_writer *capture_writer_create(const struct capture_writer_config *config,
					     struct error *err);

/**
 * No loop puts anything into its rings any more. Waits until all is in the file, but not longer
 * than storage deserves; what a slow disk takes even then, and what a reader has not read, is
 * written while others go on.
 */
void capture_writer_end(struct capture_writer *writer);

/** Other bounds of files. Any thread. */
void capture_writer_bound(struct capture_writer *writer, uint64_t file_size, unsigned files);

/** The ring of loop @index, made if there is none yet; NULL if memory is short. On that loop. */
struct capture_ring *capture_writer_ring(struct capture_writer *writer, unsigned index);

/** After capture_ring_publish(): it has work. */
void capture_writer_wake(struct capture_writer *writer);

void capture_writer_report(struct capture_writer *writer, struct capture_report *report);
