/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream_queue.h - copies of frames that a stream socket did not take yet
 *
 * A ring of bytes; a frame is stored in one piece with its header, as it goes to the socket. One
 * thread.
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
	uint8_t *bytes;      /**< NULL until something is kept */
	uint32_t head, tail; /**< offsets of the oldest frame, and behind the latest */
	uint32_t used;       /**< bytes between them, records and what is left out at the end */
	uint32_t sent;       /**< of the oldest frame, bytes that are gone */
};

static inline bool stream_queue_empty(const struct stream_queue *queue)
{
	return !queue->used;
}

/** Keeps @header and the first @length bytes of @packet, of which, together, @sent bytes are gone
 * (0 unless the queue is empty). False if there is no room. */
bool stream_queue_keep(struct stream_queue *queue, const void *header, unsigned header_bytes,
		       const struct packet *packet, uint32_t length, uint32_t sent);

/** Sends what @fd takes. 0: the queue is empty now; -EAGAIN: it took not all; or -errno. */
int stream_queue_send(struct stream_queue *queue, int fd);

/** Forgets all, and frees the memory. */
void stream_queue_clear(struct stream_queue *queue);
