/* SPDX-License-Identifier: BSD-3-Clause */
/* stream_queue.c - frames that wait for a socket; see stream_queue.h */
#include "packet/uplink/stream_queue.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MESSAGES 64u

/* In front of each frame; a length of 0 means that the next one is at the begin of the ring. */
struct record {
	uint32_t length; /* bytes that follow: the header and the frame */
	uint32_t room;   /* that it takes in the ring, with this */
};

static struct record *record_at(const struct stream_queue *queue, uint32_t offset)
{
	return (struct record *)(void *)(queue->bytes + offset);
}

int stream_queue_open(struct stream_queue *queue)
{
	void *memory;

	if (queue->bytes)
		return 0;
	memory = mmap(NULL, STREAM_QUEUE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	queue->bytes = memory;
	return 0;
}

bool stream_queue_keep(struct stream_queue *queue, const void *header, unsigned header_bytes,
		       const struct packet *packet, uint32_t length, uint32_t sent)
{
	uint32_t bytes = header_bytes + length;
	uint32_t room = (uint32_t)((sizeof(struct record) + bytes + 7) & ~7u);
	uint32_t skipped = 0;
	struct record *record;

	if (!queue->used)
		queue->head = queue->tail = 0;
	if (STREAM_QUEUE - queue->tail < room)
		skipped = STREAM_QUEUE - queue->tail;
	if (queue->used + skipped + room > STREAM_QUEUE)
		return false;
	if (skipped) {
		*record_at(queue, queue->tail) = (struct record){ .room = skipped };
		queue->tail = 0;
	}
	record = record_at(queue, queue->tail);
	*record = (struct record){ .length = bytes, .room = room };
	memcpy(record + 1, header, header_bytes);
	packet_copy_out(packet, 0, (uint8_t *)(record + 1) + header_bytes, length);
	if (!queue->used)
		queue->sent = sent;
	queue->tail = (queue->tail + room) % STREAM_QUEUE;
	queue->used += skipped + room;
	return true;
}

/* Messages of whole frames from the oldest on. How many; @lengths says how long each is. */
static unsigned gather(const struct stream_queue *queue, struct mmsghdr *messages,
		       struct iovec *vec, uint32_t *lengths)
{
	uint32_t offset = queue->head, left = queue->used, sent = queue->sent;
	unsigned count = 0, vecs = 0;

	while (left && vecs < MESSAGES) {
		struct record *record = record_at(queue, offset);

		if (record->length) {
			uint32_t bytes = record->length - sent;

			if (!count || lengths[count - 1] + bytes > STREAM_MESSAGE) {
				messages[count].msg_hdr = (struct msghdr){ .msg_iov = &vec[vecs] };
				lengths[count++] = 0;
			}
			vec[vecs++] = (struct iovec){ (uint8_t *)(record + 1) + sent, bytes };
			messages[count - 1].msg_hdr.msg_iovlen++;
			lengths[count - 1] += bytes;
			sent = 0;
		}
		left -= record->room;
		offset = (offset + record->room) % STREAM_QUEUE;
	}
	return count;
}

/* @bytes were sent. */
static void advance(struct stream_queue *queue, uint32_t bytes)
{
	while (queue->used) {
		struct record *record = record_at(queue, queue->head);

		if (record->length && bytes < record->length - queue->sent) {
			queue->sent += bytes;
			return;
		}
		if (record->length)
			bytes -= record->length - queue->sent;
		queue->sent = 0;
		queue->used -= record->room;
		queue->head = (queue->head + record->room) % STREAM_QUEUE;
	}
}

int stream_queue_send(struct stream_queue *queue, int fd)
{
	struct mmsghdr messages[MESSAGES];
	struct iovec vec[MESSAGES];
	uint32_t lengths[MESSAGES];

	while (queue->used) {
		unsigned count = gather(queue, messages, vec, lengths);
		int done = sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
		bool all = done == (int)count;

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		for (int i = 0; i < done; i++) {
			all &= messages[i].msg_len == lengths[i];
			advance(queue, messages[i].msg_len);
		}
		if (!all)
			return -EAGAIN;
	}
	return 0;
}

void stream_queue_clear(struct stream_queue *queue)
{
	if (queue->bytes)
		munmap(queue->bytes, STREAM_QUEUE);
	*queue = (struct stream_queue){ 0 };
}
