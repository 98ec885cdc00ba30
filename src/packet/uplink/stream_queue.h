/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream_queue.h - copies of frames that a stream socket did not take yet
 *
 * A ring of bytes; a frame is stored in one piece with its header, as it goes to the socket. One
 * thread.
 *
 * Its address space is there from the start, so that the rest of a frame that the socket took in
 * part finds room whatever happens: without it the peer would lose its place. Pages come as they
 * are used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

#define STREAM_QUEUE   (4u << 20)  /**< bytes that are kept at most */
#define STREAM_MESSAGE (32u << 10) /**< several frames go together up to this; see stream.h */

/** Zero-initialised is empty. */
struct stream_queue {
	uint8_t *bytes;      /**< NULL: it is not open */
	uint32_t head, tail; /**< offsets of the oldest frame, and behind the latest */
	uint32_t used;       /**< bytes between them, records and what is left out at the end */
	uint32_t sent;       /**< of the oldest frame, bytes that are gone */
};

static inline bool stream_queue_empty(const struct stream_queue *queue)
{
	return !queue->used;
}

/** Makes room, if there is none yet. 0 or -ENOMEM. */
int stream_queue_open(struct stream_queue *queue);

/** Keeps @header and the first @length bytes of @packet, of which, together, @sent bytes are gone
 * (0 unless the queue is empty). False if there is no room; an empty queue, which is open, has it.
 */
bool stream_queue_keep(struct stream_queue *queue, const void *header, unsigned header_bytes,
		       const struct packet *packet, uint32_t length, uint32_t sent);

/** Sends what @fd takes. 0: the queue is empty now; -EAGAIN: it took not all; or -errno. */
int stream_queue_send(struct stream_queue *queue, int fd);

/** Forgets all, and frees the memory: it is not open. */
void stream_queue_clear(struct stream_queue *queue);
