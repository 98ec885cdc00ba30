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

#define FLUSH  FILES_SECOND /* ns; what was written is in the file by then */
#define LENGTH 262144       /* of a frame, at most: what readers of such files expect */

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
	int failed = atomic_load_explicit(&sink->failed, memory_order_relaxed);
	uint64_t now = sink->running ? now_of(CLOCK_REALTIME) : 0, packets = 0, bytes = 0;
	unsigned i;

	if (failed && !sink->told) {
		sink->told = true;
		snprintf(sink->text, sizeof sink->text, "sink: %s", strerror(failed));
		uplink_plugged(&files->uplink, false, sink->text);
	}
	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];
		struct frame_record *record;

		if (!sink->running || failed) {
			lane_drop(lane, PACKET_OUT, failed ? DROP_ERROR : DROP_FILTER, batch, i);
			continue;
		}
		record = frame_pipe_reserve(&sink->pipe, vnet_length(packet));
		if (!record) {
			lane_drop(lane, PACKET_OUT, DROP_NO_BUFFER, batch, i);
			continue;
		}
		record->time = now;
		vnet_copy(packet, record->data);
		frame_pipe_put(&sink->pipe);
		packets++;
		bytes += packet->length;
	}
	lane_sent(lane, packets, bytes);
}

/* The first failure counts: what comes after it would have no place in the file. */
static void look_for_failure(struct sink *sink)
{
	if (ferror(pcap_dump_file(sink->dumper)) && !atomic_load(&sink->failed))
		atomic_store(&sink->failed, errno ? errno : EIO);
}

static void flush(struct sink *sink)
{
	errno = 0;
	pcap_dump_flush(sink->dumper);
	look_for_failure(sink);
}

static void write_record(struct sink *sink, const struct pcap_pkthdr *header, const uint8_t *data)
{
	if (atomic_load_explicit(&sink->failed, memory_order_relaxed))
		return;
	errno = 0;
	pcap_dump((u_char *)sink->dumper, header, data);
	look_for_failure(sink);
}

/* On a thread of its own. */
static void *write_behind(void *data)
{
	struct files *files = data;
	struct sink *sink = &files->sink;
	uint64_t since = 0; /* when the first frame that is not flushed was written; 0: none */

	for (;;) {
		struct frame_record *record = frame_pipe_first(&sink->pipe);

		if (!record) {
			if (atomic_load(&files->ending))
				break;
			frame_pipe_taker_waits(&sink->pipe);
			record = frame_pipe_first(&sink->pipe);
		}
		if (!record) {
			files_sleep(sink->pipe.to_taker, since ? (int)(FLUSH / 1000000) : -1);
		} else {
			struct pcap_pkthdr header = {
				.ts = { .tv_sec = (time_t)(record->time / FILES_SECOND),
					.tv_usec = (suseconds_t)(record->time % FILES_SECOND) },
				.caplen = record->length,
				.len = record->length,
			};

			write_record(sink, &header, record->data);
			frame_pipe_drop(&sink->pipe, record);
			if (!since)
				since = now_of(CLOCK_MONOTONIC);
		}
		if (since && now_of(CLOCK_MONOTONIC) - since >= FLUSH) {
			flush(sink);
			since = 0;
		}
	}
	flush(sink);
	return NULL;
}

/* --- the ends ------------------------------------------------------------------------- */

/* The file of the sink, empty; not that of the replay. */
static FILE *open_sink(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct stat sink;
	int fd = open(settings->sink, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	FILE *file = NULL;

	if (fd < 0 || fstat(fd, &sink))
		error_set(err, errno, "sink: %s: %s", settings->sink, strerror(errno));
	else if (settings->replay && sink.st_dev == files->replay.device &&
		 sink.st_ino == files->replay.inode)
		error_set(err, EINVAL, "sink: %s is the file that is replayed", settings->sink);
	else if (!S_ISREG(sink.st_mode))
		error_set(err, EINVAL, "sink: %s is not a regular file", settings->sink);
	else if (ftruncate(fd, 0) || !(file = fdopen(fd, "w")))
		error_set(err, errno, "sink: %s: %s", settings->sink, strerror(errno));
	if (!file && fd >= 0)
		close(fd);
	return file;
}

int files_sink_open(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct sink *sink = &files->sink;
	FILE *file;

	if (!settings->sink)
		return 0;
	file = open_sink(files, err);
	if (!file)
		return -err->code;
	sink->pcap = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, LENGTH,
							  PCAP_TSTAMP_PRECISION_NANO);
	sink->dumper = sink->pcap ? pcap_dump_fopen(sink->pcap, file) : NULL;
	if (!sink->dumper) {
		fclose(file);
		return error_set(err, ENOMEM, "sink: out of memory");
	}
	/* Its header is there at once: a reader may begin. */
	flush(sink);
	if (sink->failed)
		return error_set(err, sink->failed, "sink: %s", strerror(sink->failed));
	if (frame_pipe_init(&sink->pipe, FILES_PIPE))
		return error_set(err, ENOMEM, "out of memory");
	return files_thread(files, write_behind, &sink->thread, &sink->running, "sink", err);
}

void files_sink_close(struct files *files)
{
	struct sink *sink = &files->sink;

	if (sink->running) {
		frame_pipe_wake(sink->pipe.to_taker);
		pthread_join(sink->thread, NULL);
	}
	if (sink->pipe.memory)
		frame_pipe_release(&sink->pipe);
	if (sink->dumper)
		pcap_dump_close(sink->dumper);
	if (sink->pcap)
		pcap_close(sink->pcap);
}
