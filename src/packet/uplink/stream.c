/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - frames on a stream socket; see stream.h */
#include "packet/uplink/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM      (PACKET_MAX + STREAM_HEADER) /* that a chunk has left when it is read into */
#define UNBLOCKED 64                           /* batches until nobody waits for room any more */
#define VECS      1024u                        /* of one message at most: IOV_MAX */
#define SEND_BUFFER                                                                                \
	(2 << 20) /* bytes in the kernel, which counts them double; passt reads 8 MiB at once */

/* --- life --------------------------------------------------------------------------- */

static bool poll_stream(struct loop_poller *poller);
static bool arm(struct loop_poller *poller);
static void tell_end(struct loop_task *task);

void stream_init(struct stream *s)
{
	s->fd = s->writable_fd = -1;
	s->ending.run = tell_end;
	loop_poller_init(&s->poller, poll_stream, arm);
}

static void readable(void *data)
{
	struct stream *s = data;

	s->may_read = true;
	loop_poller_wake(s->loop, &s->poller);
}

static void leave_chunk(struct stream *s);

int stream_open(struct stream *s, struct loop *loop, struct lane *lane, int fd,
		const void *greeting, size_t bytes, struct error *err)
{
	int room = SEND_BUFFER;

	s->loop = loop;
	s->lane = lane;
	s->greeting = s->framing->greeting;
	s->wanted = s->greeting ? s->framing->greeting : s->framing->header;
	s->may_read = s->starved = s->blocked = false;
	if (s->chunk)
		leave_chunk(s);
	s->begin = s->end = 0;
	/* As much as is permitted; less is slower. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	if (bytes && send(fd, greeting, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)bytes) {
		int ret = error_set(err, EPIPE, "the other side does not listen");

		close(fd);
		return ret;
	}
	s->fd = fd;
	s->readable = stream_queue_open(&s->queue) ? NULL : loop_watch_add(loop, fd, readable, s);
	if (!s->readable) {
		s->fd = -1;
		close(fd);
		return error_set(err, ENOMEM, "out of memory");
	}
	readable(s);
	return 0;
}

static void stop_waiting(struct stream *s)
{
	if (!s->writable)
		return;
	loop_watch_remove(s->loop, s->writable);
	close(s->writable_fd);
	s->writable = NULL;
	s->writable_fd = -1;
}

void stream_close(struct stream *s)
{
	if (!stream_is_open(s))
		return;
	loop_poller_stop(s->loop, &s->poller);
	stop_waiting(s);
	loop_watch_remove(s->loop, s->readable);
	close(s->fd);
	s->fd = -1;
	s->blocked = false;
	stream_queue_clear(&s->queue);
	atomic_store_explicit(&s->queued, 0, memory_order_relaxed);
}

void stream_fail(struct stream *s, const struct error *why)
{
	if (!stream_is_open(s))
		return;
	s->why = *why;
	stream_close(s);
	loop_task_queue(s->loop, &s->ending);
}

static void tell_end(struct loop_task *task)
{
	struct stream *s = container_of(task, struct stream, ending);

	s->ended(s, &s->why);
}

static void fail(struct stream *s, int code, const char *text)
{
	struct error why;

	error_set(&why, code, "%s", text);
	stream_fail(s, &why);
}

void stream_release(struct stream *s)
{
	s->releasing = true;
	if (!s->bursts_out)
		s->drained(s);
}

void stream_free(struct stream *s)
{
	for (unsigned i = 0; i < s->burst_count; i++) {
		burst_free(s->bursts[i]->burst);
		free(s->bursts[i]);
	}
	for (unsigned i = 0; i < s->chunk_count; i++)
		free(s->chunks[i]);
	stream_queue_clear(&s->queue);
	s->burst_count = s->chunk_count = 0;
	s->free_bursts = NULL;
	s->free_chunks = s->chunk = NULL;
}

/* --- memory that is received into ------------------------------------------------------- */

static void chunk_unused(struct stream *s, struct stream_chunk *chunk)
{
	chunk->next = s->free_chunks;
	s->free_chunks = chunk;
}

/* Nothing more is received into the current chunk. */
static void leave_chunk(struct stream *s)
{
	struct stream_chunk *chunk = s->chunk;

	s->chunk = NULL;
	chunk->current = false;
	if (!chunk->refs)
		chunk_unused(s, chunk);
}

static struct stream_chunk *take_chunk(struct stream *s)
{
	struct stream_chunk *chunk = s->free_chunks;

	if (chunk) {
		s->free_chunks = chunk->next;
	} else {
		chunk = s->chunk_count < STREAM_CHUNKS ? malloc(sizeof *chunk) : NULL;
		if (!chunk)
			return NULL;
		s->chunks[s->chunk_count++] = chunk;
	}
	chunk->refs = 0;
	chunk->current = true;
	return chunk;
}

static void burst_released(struct burst *burst)
{
	struct stream_burst *b = burst->owner;
	struct stream *s = b->stream;

	if (!--b->chunk->refs && !b->chunk->current)
		chunk_unused(s, b->chunk);
	b->next = s->free_bursts;
	s->free_bursts = b;
	s->bursts_out--;
	if (s->starved && stream_is_open(s)) {
		s->starved = false;
		loop_poller_wake(s->loop, &s->poller);
	}
	if (s->releasing && !s->bursts_out)
		s->drained(s);
}

static struct stream_burst *take_burst(struct stream *s)
{
	struct stream_burst *b = s->free_bursts;

	if (b) {
		s->free_bursts = b->next;
		return b;
	}
	b = s->burst_count < STREAM_BURSTS ? calloc(1, sizeof *b) : NULL;
	if (!b)
		return NULL;
	b->stream = s;
	b->burst = burst_create(burst_released, b);
	if (!b->burst) {
		free(b);
		return NULL;
	}
	s->bursts[s->burst_count++] = b;
	return b;
}

/* --- receiving -------------------------------------------------------------------------- */

/* Makes room in the current chunk, or in another. False if there is none now. */
static bool make_room(struct stream *s)
{
	uint32_t left = s->end - s->begin;
	struct stream_chunk *chunk;

	if (s->chunk && !left && !s->chunk->refs)
		s->begin = s->end = 0; /* the same memory again: it is in the cache */
	if (s->chunk && STREAM_CHUNK - s->end >= ROOM)
		return true;
	if (s->chunk && !s->chunk->refs) {
		memmove(s->chunk->bytes, s->chunk->bytes + s->begin, left);
	} else {
		chunk = take_chunk(s);
		if (!chunk) {
			s->starved = true;
			return false;
		}
		if (s->chunk) {
			memcpy(chunk->bytes, s->chunk->bytes + s->begin, left);
			leave_chunk(s);
		}
		s->chunk = chunk;
	}
	s->begin = 0;
	s->end = left;
	return true;
}

/* Reads what there is. False if that is nothing. */
static bool fill(struct stream *s)
{
	ssize_t n;

	if (!s->may_read || !make_room(s))
		return false;
	do
		n = recv(s->fd, s->chunk->bytes + s->end, STREAM_CHUNK - s->end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		s->end += (uint32_t)n;
		return true;
	}
	/* Only this says that all was read: an end that came with the last bytes is not told twice.
	 */
	if (n < 0 && errno == EAGAIN)
		s->may_read = false;
	else if (n < 0)
		fail(s, errno, strerror(errno));
	else
		fail(s, EPIPE, "the other side has closed the connection");
	return false;
}

static bool greet(struct stream *s)
{
	struct error why;
	const uint8_t *greeting = s->chunk->bytes + s->begin;

	s->greeting = false;
	s->begin += s->framing->greeting;
	s->wanted = s->framing->header;
	if (s->framing->greeted(s, greeting, &why))
		stream_fail(s, &why);
	else if (s->greeted)
		s->greeted(s);
	return true;
}

int64_t stream_parse(const struct stream_framing *framing, uint8_t *bytes, size_t count,
		     struct burst *burst, uint32_t *wanted, struct error *err)
{
	size_t at = 0;

	*wanted = framing->header;
	while (burst->count < PACKET_BURST && burst_room(burst)) {
		uint8_t *header = bytes + at;
		struct packet *packet;
		uint32_t length;
		int ret;

		*wanted = framing->header;
		if (count - at < framing->header)
			break;
		ret = framing->read(header, &length, err);
		if (ret)
			return ret;
		if (count - at < framing->header + length) {
			*wanted += length;
			break;
		}
		at += framing->header + length;
		if (framing->merge && burst->count &&
		    framing->merge(burst, header + framing->header, length))
			continue;
		*burst_vec(burst) = (struct iovec){ header + framing->header, length };
		packet = burst_add(burst, 1, 0, length);
		if (packet && framing->received)
			framing->received(header, packet);
	}
	return (int64_t)at;
}

/* A burst goes on its way. */
static bool deliver(struct stream *s)
{
	struct stream_burst *b = take_burst(s);
	struct error why;
	int64_t used;

	if (!b) {
		s->starved = true;
		return false;
	}
	s->bursts_out++;
	b->chunk = s->chunk;
	b->chunk->refs++;
	burst_begin(b->burst);
	b->burst->patient = s->patient ? s->lane->pool : NULL;
	used = stream_parse(s->framing, s->chunk->bytes + s->begin, s->end - s->begin, b->burst,
			    &s->wanted, &why);
	if (used < 0)
		stream_fail(s, &why);
	else
		s->begin += (uint32_t)used;
	if (s->framing->merged)
		s->framing->merged(b->burst);
	if (b->burst->count)
		lane_receive(s->lane, b->burst);
	burst_put(b->burst);
	return true;
}

static bool poll_stream(struct loop_poller *poller)
{
	struct stream *s = container_of(poller, struct stream, poller);

	if (!stream_is_open(s))
		return false;
	if (s->end - s->begin < s->wanted) {
		if (!fill(s))
			return false;
		if (s->end - s->begin < s->wanted)
			return true;
	}
	return s->greeting ? greet(s) : deliver(s);
}

/* The watch says when more comes, a burst that is released when there is room. */
static bool arm(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

/* --- sending ---------------------------------------------------------------------------- */

static void writable(void *data)
{
	struct stream *s = data;
	int ret;

	if (!s->blocked)
		return;
	ret = stream_queue_send(&s->queue, s->fd);
	atomic_store_explicit(&s->queued, s->queue.used, memory_order_relaxed);
	if (!ret)
		s->blocked = false;
	else if (ret != -EAGAIN)
		fail(s, -ret, strerror(-ret));
}

/* The socket is full. */
static void block(struct stream *s)
{
	s->blocked = true;
	s->unblocked = 0;
	if (s->writable)
		return;
	s->writable_fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (s->writable_fd >= 0)
		s->writable = loop_watch_add_writable(s->loop, s->writable_fd, writable, s);
	if (s->writable)
		return;
	if (s->writable_fd >= 0)
		close(s->writable_fd);
	s->writable_fd = -1;
	fail(s, ENOMEM, "there is no memory or descriptor to wait for it");
}

/* Messages that are about to be sent. */
struct outgoing {
	struct packet_batch *batch;
	unsigned messages, frames, vecs;
	struct frame_out {
		unsigned index;   /* in the batch */
		unsigned message; /* that it is in */
		uint32_t length;  /* without its header */
	} frame[PACKET_BURST];
	uint32_t lengths[PACKET_BURST]; /* of the messages */
	struct mmsghdr message[PACKET_BURST];
	struct iovec vec[VECS];
};

/* Copies packet @i into the queue; @sent bytes of it are gone. */
static void keep(struct stream *s, struct packet_batch *batch, unsigned i, uint32_t length,
		 uint32_t sent)
{
	const struct packet *packet = batch->packet[i];
	uint8_t header[STREAM_HEADER];

	s->framing->write(packet, length, header);
	if (stream_queue_keep(&s->queue, header, s->framing->header, packet, length, sent))
		lane_sent(s->lane, 1, length);
	else
		lane_drop(s->lane, PACKET_OUT, DROP_NO_BUFFER, batch, i);
}

/* Sends what was gathered; keeps what the socket does not take. */
static void flush(struct stream *s, struct outgoing *out)
{
	uint32_t gone = 0; /* bytes of the message that is looked at, beyond the frames before */
	unsigned message = 0;
	int done = 0;

	if (!out->frames)
		return;
	do
		done = sendmmsg(s->fd, out->message, out->messages, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (done < 0 && errno == EINTR);
	if (done < 0 && errno != EAGAIN) {
		fail(s, errno, strerror(errno));
		for (unsigned k = 0; k < out->frames; k++)
			lane_drop(s->lane, PACKET_OUT, DROP_DOWN, out->batch, out->frame[k].index);
		out->messages = out->frames = out->vecs = 0;
		return;
	}
	for (unsigned k = 0; k < out->frames; k++) {
		struct frame_out *frame = &out->frame[k];
		uint32_t bytes = s->framing->header + frame->length;

		if (!k || frame->message != message) {
			message = frame->message;
			gone = (int)message < done ? out->message[message].msg_len : 0;
		}
		if (gone >= bytes) {
			gone -= bytes;
			lane_sent(s->lane, 1, frame->length);
			continue;
		}
		keep(s, out->batch, frame->index, frame->length, gone);
		gone = 0;
	}
	out->messages = out->frames = out->vecs = 0;
	atomic_store_explicit(&s->queued, s->queue.used, memory_order_relaxed);
	if (!stream_queue_empty(&s->queue))
		block(s);
}

/* Adds packet @i to what is gathered. */
static void gather(struct stream *s, struct outgoing *out, unsigned i, uint32_t length)
{
	const struct packet *packet = out->batch->packet[i];
	uint32_t bytes = s->framing->header + length, left = length;
	uint8_t *header = s->headers[out->frames];
	struct iovec *vec = &out->vec[out->vecs];
	unsigned n = 0;

	s->framing->write(packet, length, header);
	vec[n++] = (struct iovec){ header, s->framing->header };
	vec[n++] = (struct iovec){ packet->head,
				   packet->head_length < left ? packet->head_length : left };
	left -= (uint32_t)vec[1].iov_len;
	for (unsigned b = 0; left && b < packet->body_count; b++) {
		vec[n] = packet->body[b];
		if (vec[n].iov_len > left)
			vec[n].iov_len = left;
		left -= (uint32_t)vec[n++].iov_len;
	}
	if (!out->messages || out->lengths[out->messages - 1] + bytes > STREAM_MESSAGE) {
		out->message[out->messages].msg_hdr = (struct msghdr){ .msg_iov = vec };
		out->lengths[out->messages++] = 0;
	}
	out->message[out->messages - 1].msg_hdr.msg_iovlen += n;
	out->lengths[out->messages - 1] += bytes;
	out->vecs += n;
	out->frame[out->frames++] = (struct frame_out){ i, out->messages - 1, length };
}

void stream_send(struct stream *s, struct packet_batch *batch)
{
	struct outgoing out;
	unsigned i;

	out.batch = batch;
	out.messages = out.frames = out.vecs = 0;
	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];
		uint32_t length = packet->length;

		if (!stream_is_open(s)) {
			lane_drop(s->lane, PACKET_OUT, DROP_DOWN, batch, i);
			continue;
		}
		if (s->framing->admit && !(length = s->framing->admit(s, packet))) {
			lane_drop(s->lane, PACKET_OUT, DROP_FILTER, batch, i);
			continue;
		}
		if (out.vecs + 2 + packet->body_count > VECS)
			flush(s, &out);
		if (!stream_is_open(s))
			lane_drop(s->lane, PACKET_OUT, DROP_DOWN, batch, i);
		else if (s->blocked)
			keep(s, batch, i, length, 0);
		else if (packet->body_count + 2u > VECS) {
			keep(s, batch, i, length, 0);
			if (!stream_queue_empty(&s->queue)) {
				block(s);
				writable(s);
			}
		} else
			gather(s, &out, i, length);
	}
	flush(s, &out);
	if (s->blocked)
		atomic_store_explicit(&s->queued, s->queue.used, memory_order_relaxed);
	else if (s->writable && ++s->unblocked > UNBLOCKED)
		stop_waiting(s);
}
