/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream.h - frames on a stream socket: each behind a header that says how long it is
 *
 * Received is into large pieces of memory (chunks), many frames with one system call; they are
 * parsed where they lie, and the bodies of packets point there. A chunk is used again when all
 * bursts that point into it have been released; if none is free the socket is not read, which
 * holds back the peer.
 *
 * Sent is straight from the packets, many frames with one system call. What the socket does not
 * take is kept in a queue (stream_queue.h), and what does not fit there is dropped.
 *
 * A frame, or some small ones together, is a message of its own to the kernel, which then stores
 * them in one piece (in two, if it is longer than some 36 KiB). passt of 2023 needs that: when it
 * finds the begin of a frame it reads once more, and takes it that this read brings the rest.
 *
 * All of it on one loop's thread, except where it says otherwise.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"
#include "packet/packet.h"
#include "packet/port.h"
#include "packet/uplink/stream_queue.h"
#include "util/error.h"

#define STREAM_HEADER   16u          /**< most bytes of a header */
#define STREAM_GREETING 64u          /**< most bytes of a greeting */
#define STREAM_CHUNK    (384u << 10) /**< bytes that are read at most at once */
#define STREAM_CHUNKS   12u          /**< most of them, for packets that somebody still needs */
#define STREAM_BURSTS   32u

struct stream;

/** What stands between the frames. All functions are pure, or touch the stream's owner only. */
struct stream_framing {
	unsigned header;   /**< bytes in front of each frame, 1..STREAM_HEADER */
	unsigned greeting; /**< bytes that the peer says first, once; 0: none */
	/** Reads the greeting. 0, or -errno with @err: the stream ends. */
	int (*greeted)(struct stream *stream, const uint8_t *greeting, struct error *err);
	/** Reads a header: bytes of the frame into @length. 0, or -errno with @err: the stream
	 * ends. */
	int (*read)(const uint8_t *header, uint32_t *length, struct error *err);
	/** The frame at @frame becomes part of the last packet of @burst, if it can: true. That has
	 * room for an iovec. May be absent. */
	bool (*merge)(struct burst *burst, uint8_t *frame, uint32_t length);
	/** No more is merged into the packets of @burst. May be absent. */
	void (*merged)(struct burst *burst);
	/** What else the header says of @packet. May be absent. */
	void (*received)(const uint8_t *header, struct packet *packet);
	/** Writes the header of @packet, of which @length bytes are sent. */
	void (*write)(const struct packet *packet, uint32_t length, uint8_t *header);
	/** How many bytes of @packet to send (the first ones); 0: none, it is not for this peer.
	 * May be absent: all. */
	uint32_t (*admit)(struct stream *stream, struct packet *packet);
};

struct stream_chunk {
	struct stream_chunk *next; /**< of those that are free */
	unsigned refs;             /**< bursts that point into it */
	bool current;              /**< it is received into */
	uint8_t bytes[STREAM_CHUNK];
};

/** A burst of a stream. */
struct stream_burst {
	struct stream *stream;
	struct stream_chunk *chunk;
	struct burst *burst;
	struct stream_burst *next; /**< of those that are free */
};

struct stream {
	/* Its user's, before stream_init(). */
	const struct stream_framing *framing;
	bool patient; /**< all that comes is for one guest, which may hold up the rest: see struct
			 burst */
	/** The greeting is there and good. May be absent. */
	void (*greeted)(struct stream *stream);
	/** It has ended by itself: stream_close() is done; @why says why. Not called from
	 * stream_send(), but after it. */
	void (*ended)(struct stream *stream, const struct error *why);
	/** After stream_release(): all bursts have been released. */
	void (*drained)(struct stream *stream);

	/* Its own. */
	struct loop *loop;
	struct lane *lane;
	int fd; /**< -1: not open */
	int writable_fd;
	struct loop_watch *readable, *writable;
	struct loop_poller poller;
	struct loop_task ending;
	struct error why;
	bool greeting;  /**< it is still to come */
	bool may_read;  /**< there may be something to read */
	bool starved;   /**< not reading until a burst or chunk is free */
	bool blocked;   /**< the socket is full: writable() goes on */
	bool releasing; /**< stream_release() was called */
	unsigned unblocked;
	struct stream_chunk *chunk; /**< received into, or NULL */
	uint32_t begin, end;        /**< what is in it and not yet parsed */
	uint32_t wanted;            /**< bytes of the record at @begin, as far as known */
	struct stream_chunk *free_chunks, *chunks[STREAM_CHUNKS];
	unsigned chunk_count;
	struct stream_burst *free_bursts, *bursts[STREAM_BURSTS];
	unsigned burst_count, bursts_out;
	struct stream_queue queue;
	uint8_t headers[PACKET_BURST][STREAM_HEADER];
	_Atomic uint64_t queued; /**< bytes in the queue; any thread reads */
};

/** Prepares @stream, closed. Any thread. */
void stream_init(struct stream *stream);

/**
 * Begins on @fd, a connected non-blocking stream socket, which it takes over, also on failure;
 * @greeting (may be NULL), @bytes long, is sent first. 0 or -errno with @err.
 */
int stream_open(struct stream *stream, struct loop *loop, struct lane *lane, int fd,
		const void *greeting, size_t bytes, struct error *err);

static inline bool stream_is_open(const struct stream *stream)
{
	return stream->fd >= 0;
}

/** Ends it; what is queued is lost, bursts that are out stay good. Without effect if not open. */
void stream_close(struct stream *stream);

/** Ends it as if the peer had done so, with @why; ended() will be called. */
void stream_fail(struct stream *stream, const struct error *why);

/** port_ops.transmit for the stream's lane. */
void stream_send(struct stream *stream, struct packet_batch *batch);

/** It is closed, and will not be opened again: drained() when all bursts have come back, perhaps at
 * once. */
void stream_release(struct stream *stream);

/** Frees its memory, after drained(), or if it was never opened. Any thread. */
void stream_free(struct stream *stream);

/**
 * Adds the complete frames in @bytes, as far as @burst has room, to it: bodies point there. How
 * many bytes were taken, or -errno with @err at a bad header (the frames before it are in the
 * burst).
 * @wanted: if it stopped at the begin of a record, how many bytes that needs in all, or, if it is
 * not known, those of a header.
 */
int64_t stream_parse(const struct stream_framing *framing, uint8_t *bytes, size_t count,
		     struct burst *burst, uint32_t *wanted, struct error *err);
