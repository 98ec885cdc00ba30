/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pcap_sink.c - a file where all is written that goes out to a port: the loop puts frames into a
 * pipe, and a thread writes them
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "packet/uplink/pcap_private.h"
#include "packet/uplink/vnet.h"
#include "util/error.h"
#include "util/log.h"

#define FLUSH       FILES_SECOND /* ns; what was written is in the file by then */
#define LENGTH      262144       /* of a frame, at most: what readers of such files expect */
#define NANOSECONDS 0xa1b23c4d

static uint64_t now_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * FILES_SECOND + (uint64_t)t.tv_nsec;
}

void files_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct files *files = lane->endpoint;
	struct sink *sink = &files->sink;
	struct sink_writer *writer = sink->writer;
	int failed = writer ? atomic_load_explicit(&writer->failed, memory_order_relaxed) : 0;
	uint64_t now = writer ? now_of(CLOCK_REALTIME) : 0, packets = 0, bytes = 0;
	unsigned i;

	if (failed && !sink->told) {
		sink->told = true;
		snprintf(sink->text, sizeof sink->text, "sink: %s", strerror(failed));
		uplink_plugged(&files->uplink, false, sink->text);
	}
	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];
		struct frame_record *record;

		if (!writer || failed) {
			lane_drop(lane, PACKET_OUT, failed ? DROP_ERROR : DROP_FILTER, batch, i);
			continue;
		}
		record = frame_pipe_reserve(&writer->pipe, vnet_length(packet));
		if (!record) {
			lane_drop(lane, PACKET_OUT, DROP_NO_BUFFER, batch, i);
			continue;
		}
		record->time = now;
		vnet_copy(packet, record->data);
		frame_pipe_put(&writer->pipe);
		packets++;
		bytes += packet->length;
	}
	lane_sent(lane, packets, bytes);
}

/* Writes the buffer. The first failure counts: what comes after it would have no place in the file.
 */
static void flush(struct sink_writer *writer)
{
	const uint8_t *at = writer->buffer;

	while (writer->length && !atomic_load_explicit(&writer->failed, memory_order_relaxed)) {
		ssize_t n = write(writer->fd, at, writer->length);

		if (n > 0) {
			at += n;
			writer->length -= (size_t)n;
		} else if (n == 0 || errno != EINTR) {
			atomic_store(&writer->failed, n ? errno : EIO);
		}
	}
	writer->length = 0;
}

static void put(struct sink_writer *writer, const void *bytes, size_t length)
{
	memcpy(writer->buffer + writer->length, bytes, length);
	writer->length += length;
}

static void write_record(struct sink_writer *writer, const struct frame_record *record)
{
	const uint32_t header[] = { (uint32_t)(record->time / FILES_SECOND),
				    (uint32_t)(record->time % FILES_SECOND), record->length,
				    record->length };

	if (sizeof header + record->length > sizeof writer->buffer - writer->length)
		flush(writer);
	put(writer, header, sizeof header);
	put(writer, record->data, record->length);
}

static void write_behind(struct file_thread *thread)
{
	struct sink_writer *writer = container_of(thread, struct sink_writer, thread);
	uint64_t since = 0; /* when the first frame that is not flushed was written; 0: none */

	for (;;) {
		/* Asked first: no frame is put after that was said. */
		bool ending = atomic_load(&writer->ending);
		struct frame_record *record = frame_pipe_first(&writer->pipe);

		if (!record) {
			if (ending)
				break;
			frame_pipe_taker_waits(&writer->pipe);
			record = frame_pipe_first(&writer->pipe);
		}
		if (!record) {
			files_sleep(writer->pipe.to_taker, since ? (int)(FLUSH / 1000000) : -1);
		} else {
			write_record(writer, record);
			frame_pipe_drop(&writer->pipe, record);
			if (!since)
				since = now_of(CLOCK_MONOTONIC);
		}
		if (since && now_of(CLOCK_MONOTONIC) - since >= FLUSH) {
			flush(writer);
			since = 0;
		}
	}
	flush(writer);
	close(writer->fd); /* which may take as long as a write */
	writer->fd = -1;
}

static void release(struct file_thread *thread)
{
	struct sink_writer *writer = container_of(thread, struct sink_writer, thread);

	if (writer->pipe.memory)
		frame_pipe_release(&writer->pipe);
	if (writer->fd >= 0)
		close(writer->fd);
	free(writer);
}

/* --- the ends ------------------------------------------------------------------------- */

/* The file of the sink, empty; not that of the replay. A descriptor, or -errno with @err. */
static int open_sink(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct stat sink;
	int fd = open(settings->sink, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);

	if (fd < 0 || fstat(fd, &sink))
		error_set(err, errno, "sink: %s: %s", settings->sink, strerror(errno));
	else if (settings->replay && sink.st_dev == files->replay.device &&
		 sink.st_ino == files->replay.inode)
		error_set(err, EINVAL, "sink: %s is the file that is replayed", settings->sink);
	else if (!S_ISREG(sink.st_mode))
		error_set(err, EINVAL, "sink: %s is not a regular file", settings->sink);
	else if (ftruncate(fd, 0))
		error_set(err, errno, "sink: %s: %s", settings->sink, strerror(errno));
	else
		return fd;
	if (fd >= 0)
		close(fd);
	return -err->code;
}

/* The file begins with that: of pcap, with times in ns, in our byte order (pcap-savefile(5)). */
static void write_head(struct sink_writer *writer)
{
	const struct pcap_file_header head = { .magic = NANOSECONDS,
					       .version_major = PCAP_VERSION_MAJOR,
					       .version_minor = PCAP_VERSION_MINOR,
					       .snaplen = LENGTH,
					       .linktype = DLT_EN10MB };

	put(writer, &head, sizeof head);
	flush(writer);
}

int files_sink_open(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct sink_writer *writer;

	if (!settings->sink)
		return 0;
	writer = files->sink.writer = calloc(1, sizeof *writer);
	if (!writer)
		return error_set(err, ENOMEM, "out of memory");
	file_thread_init(&writer->thread, write_behind, release);
	writer->fd = open_sink(files, err);
	if (writer->fd < 0)
		return writer->fd;
	/* Its header is there at once: a reader may begin. */
	write_head(writer);
	if (writer->failed)
		return error_set(err, writer->failed, "sink: %s: %s", settings->sink,
				 strerror(writer->failed));
	if (frame_pipe_init(&writer->pipe, FILES_PIPE))
		return error_set(err, ENOMEM, "out of memory");
	return file_thread_start(&writer->thread, "sink", err);
}

void files_sink_close(struct files *files)
{
	const struct files_settings *settings = files->uplink.settings;
	struct sink_writer *writer = files->sink.writer;

	if (!writer)
		return;
	atomic_store(&writer->ending, true);
	if (writer->pipe.memory)
		frame_pipe_wake(writer->pipe.to_taker);
	if (!file_thread_wait(&writer->thread, FILE_THREAD_PATIENCE))
		log_warn("uplink %s: sink: what is left is written to %s more slowly than the "
			 "uplink ends",
			 files->uplink.name, settings->sink);
	file_thread_put(&writer->thread);
}
