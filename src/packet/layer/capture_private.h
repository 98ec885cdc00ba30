/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_private.h - the thread that writes captures, in three parts: capture_writer.c is its
 * life, and takes records out of rings; capture_blocks.c makes blocks of them; capture_sink.c
 * writes those
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "packet/layer/capture_file.h"
#include "packet/layer/capture_writer.h"
#include "util/file_thread.h"

#define CAPTURE_BUFFER   (1ul << 20)   /**< bytes of blocks that are written at a time */
#define CAPTURE_PATIENCE 1000000000ull /**< ns until it is tried again, or a reader is given up */

/* A ring, and where what is in it was captured. */
struct capture_source {
	struct capture_ring *ring;
	char *filter;
	uint32_t snap_length, step;
	uint32_t interface;
	uint64_t section; /* in which @interface is that */
};

struct capture_writer {
	struct file_thread thread; /* its owner is the layer */
	atomic_bool asleep, ending;
	int wake_fd;
	char *port, *kind;
	bool streams; /* it writes to a descriptor */
	_Atomic uint64_t file_size;
	atomic_uint files;
	uint64_t limit;
	uint64_t began; /* ns since 1970 */
	_Atomic(struct capture_ring *) rings[PORT_LOOPS];

	/* the thread's */
	struct capture_source sources[PORT_LOOPS];
	unsigned source_count;
	struct capture_file file;
	int stream; /* a descriptor; -1: there is none, or not any more */
	bool over;  /* a stream has ended: all else is thrown away */
	uint8_t *buffer;
	size_t length;
	unsigned buffered; /* packets in it */
	uint64_t section;  /* counts them; 0: none yet */
	bool in_section;
	uint32_t interfaces; /* of this section */
	uint64_t section_packets;
	uint64_t told_missed;
	uint64_t try_again; /* ns; failing until then */
	bool failing;
	uint64_t taken; /* packets that were written or are about to be */

	_Atomic uint64_t packets, bytes, lost;
	pthread_mutex_t lock; /* for those that follow */
	char *name;
	char error[160];
};

static inline uint64_t capture_clock(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- capture_blocks.c ------------------------------------------------------------------ */

/** Puts a packet into the buffer, if that can be; else counts it as lost. */
void capture_put_packet(struct capture_writer *w, struct capture_source *source,
			const struct capture_packet *from);
/** The packets that follow in @source are captured there. */
void capture_change_place(struct capture_writer *w, struct capture_source *source,
			  const struct capture_place *place);
/** Puts in how many packets were missed, if that is more than was told. */
void capture_tell_missed(struct capture_writer *w);
/** True if it is. */
bool capture_untold(struct capture_writer *w);
/** Ends what is being written with statistics, and writes it. */
void capture_end_section(struct capture_writer *w);

/* --- capture_sink.c -------------------------------------------------------------------- */

/** Writes the buffer. */
void capture_flush(struct capture_writer *w);
/** What is in the buffer cannot be written, nor will be what comes for a while. */
void capture_give_up(struct capture_writer *w, const char *why);
/** True if nothing is to be tried now. */
bool capture_waits(const struct capture_writer *w);
/** Ends the stream, if there is one; all else is thrown away. */
void capture_end_stream(struct capture_writer *w);
/** Another file is being written: for reports. */
void capture_tell_name(struct capture_writer *w);
