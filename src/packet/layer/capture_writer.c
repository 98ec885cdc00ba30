/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_writer.c - the thread that writes captures; see capture_writer.h
 *
 * One turn: take records out of the rings, the oldest first, and put blocks into a buffer; write
 * the buffer. After a turn with few packets it naps, so that a flow of single packets costs few
 * system calls; after one with none it sleeps until a loop wakes it.
 */
#include "packet/layer/capture_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "packet/layer/capture_private.h"
#include "util/error.h"
#include "util/log.h"

#define BUSY (CAPTURE_RING / 8) /* bytes of a turn after which it does not nap */
#define NAP  1                  /* ms */

/* --- the rings ---------------------------------------------------------------------- */

struct capture_ring *capture_writer_ring(struct capture_writer *writer, unsigned index)
{
	struct capture_ring *ring = atomic_load(&writer->rings[index]);

	if (!ring) {
		ring = capture_ring_create();
		atomic_store(&writer->rings[index], ring);
	}
	return ring;
}

/* Rings that loops have made since. */
static void find_sources(struct capture_writer *w)
{
	for (unsigned i = 0; i < PORT_LOOPS; i++) {
		struct capture_ring *ring = atomic_load(&w->rings[i]);
		unsigned n = 0;

		while (ring && n < w->source_count && w->sources[n].ring != ring)
			n++;
		if (ring && n == w->source_count)
			w->sources[w->source_count++].ring = ring;
	}
}

/* --- the thread --------------------------------------------------------------------- */

/* The source with the oldest record, which goes to *@record; NULL: all are empty. */
static struct capture_source *oldest(struct capture_writer *w, struct capture_record **record)
{
	struct capture_source *found = NULL;
	uint64_t time = UINT64_MAX;

	for (unsigned i = 0; i < w->source_count; i++) {
		struct capture_source *source = &w->sources[i];
		struct capture_record *first = capture_ring_peek(source->ring);
		uint64_t now;

		if (!first)
			continue;
		now = first->kind == CAPTURE_PACKET ? ((struct capture_packet *)first)->time : 0;
		if (now < time) {
			time = now;
			found = source;
			*record = first;
		}
	}
	return found;
}

/* Takes what there is; how many bytes that were. */
static uint64_t drain(struct capture_writer *w)
{
	struct capture_record *record;
	struct capture_source *source;
	uint64_t moved = 0;

	find_sources(w);
	while (moved < CAPTURE_RING && (source = oldest(w, &record))) {
		if (record->kind == CAPTURE_PLACE)
			capture_change_place(w, source, (struct capture_place *)record);
		else if (!w->over && source->filter)
			capture_put_packet(w, source, (struct capture_packet *)record);
		moved += record->size;
		capture_ring_next(source->ring, record);
		capture_ring_release(source->ring);
	}
	return moved;
}

static bool anything(struct capture_writer *w)
{
	bool any = false;

	find_sources(w);
	for (unsigned i = 0; i < w->source_count; i++)
		any |= capture_ring_peek(w->sources[i].ring) != NULL;
	return any || atomic_load(&w->ending);
}

void capture_writer_wake(struct capture_writer *writer)
{
	const uint64_t one = 1;

	/* Either it sees what is in the ring, or we see that it sleeps. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&writer->asleep, memory_order_relaxed) ||
	    !atomic_exchange(&writer->asleep, false))
		return;
	if (write(writer->wake_fd, &one, sizeof one) < 0)
		log_debug("capture of %s: %s", writer->port, strerror(errno));
}

/* Until there is something, or for @milliseconds. */
static void rest(struct capture_writer *w, int milliseconds)
{
	struct pollfd wake = { .fd = w->wake_fd, .events = POLLIN };
	uint64_t count;

	if (poll(&wake, 1, milliseconds) > 0 && read(w->wake_fd, &count, sizeof count) < 0)
		log_debug("capture of %s: %s", w->port, strerror(errno));
}

static void sleep_well(struct capture_writer *w)
{
	/* Packets that were missed and not told of are told of in a second. */
	bool untold = capture_untold(w);

	atomic_store(&w->asleep, true);
	atomic_thread_fence(memory_order_seq_cst);
	if (!anything(w))
		rest(w, untold ? 1000 : -1);
	atomic_store(&w->asleep, false);
	if (untold)
		capture_tell_missed(w);
}

static void release(struct file_thread *thread)
{
	struct capture_writer *w = container_of(thread, struct capture_writer, thread);

	for (unsigned i = 0; i < PORT_LOOPS; i++) {
		capture_ring_free(atomic_load(&w->rings[i]));
		free(w->sources[i].filter);
	}
	if (w->stream >= 0)
		close(w->stream);
	capture_file_close(&w->file);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	pthread_mutex_destroy(&w->lock);
	free(w->buffer);
	free(w->name);
	free(w->port);
	free(w->kind);
	free(w);
}

static void run(struct file_thread *thread)
{
	struct capture_writer *w = container_of(thread, struct capture_writer, thread);

	for (bool ending = false; !ending;) {
		uint64_t moved;

		ending = atomic_load(&w->ending);
		while ((moved = drain(w)) >= BUSY)
			continue;
		capture_flush(w);
		if (ending)
			break;
		if (moved)
			rest(w, NAP);
		else
			sleep_well(w);
	}
	capture_end_section(w);
	capture_end_stream(w);
	capture_file_close(&w->file);
}

/* --- for the layer ------------------------------------------------------------------ */

struct capture_writer *capture_writer_create(const struct capture_writer_config *config,
					     struct error *err)
{
	struct capture_writer *w = calloc(1, sizeof *w);

	if (!w) {
		if (config->stream >= 0)
			close(config->stream);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&w->lock, NULL);
	file_thread_init(&w->thread, run, release);
	w->stream = config->stream;
	w->streams = config->stream >= 0;
	w->file.fd = -1;
	w->limit = config->limit;
	w->began = capture_clock(CLOCK_REALTIME);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->buffer = malloc(CAPTURE_BUFFER);
	w->port = strdup(config->port);
	w->kind = strdup(config->kind);
	capture_writer_bound(w, config->file_size, config->files);
	if (w->wake_fd < 0)
		error_set(err, errno, "eventfd: %s", strerror(errno));
	else if (!w->buffer || !w->port || !w->kind)
		error_set(err, ENOMEM, "out of memory");
	else if (!config->path || !capture_file_open(&w->file, config->path, config->file_size,
						     config->files, err)) {
		capture_tell_name(w);
		if (!file_thread_start(&w->thread, "capture", err))
			return w;
	}
	file_thread_put(&w->thread);
	return NULL;
}

void capture_writer_end(struct capture_writer *writer)
{
	const uint64_t one = 1;

	atomic_store(&writer->ending, true);
	if (write(writer->wake_fd, &one, sizeof one) < 0)
		log_debug("capture of %s: %s", writer->port, strerror(errno));
	/* Nobody waits for the reader of a stream, who may be who calls. */
	if (!writer->streams && !file_thread_wait(&writer->thread, FILE_THREAD_PATIENCE))
		log_warn("capture of %s: what is left is written more slowly than the capture "
			 "ends",
			 writer->port);
	file_thread_put(&writer->thread);
}

void capture_writer_bound(struct capture_writer *writer, uint64_t file_size, unsigned files)
{
	atomic_store(&writer->file_size, file_size);
	atomic_store(&writer->files, files);
}

void capture_writer_report(struct capture_writer *writer, struct capture_report *report)
{
	*report = (struct capture_report){ .packets = atomic_load(&writer->packets),
					   .bytes = atomic_load(&writer->bytes),
					   .missed = atomic_load(&writer->lost) };
	for (unsigned i = 0; i < PORT_LOOPS; i++) {
		struct capture_ring *ring = atomic_load(&writer->rings[i]);

		if (ring)
			report->missed += stats_read(&ring->missed);
	}
	pthread_mutex_lock(&writer->lock);
	report->name = writer->name ? strdup(writer->name) : NULL;
	memcpy(report->error, writer->error, sizeof report->error);
	pthread_mutex_unlock(&writer->lock);
}
