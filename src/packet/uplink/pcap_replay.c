/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pcap_replay.c - a capture whose frames come into the switch: a thread reads ahead, and the loop
 * sends each when it is due
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "packet/uplink/pcap_private.h"
#include "util/error.h"
#include "util/log.h"

#define BURSTS 4u
#define AREA   (512u << 10)

/* Notes in records of the pipe. */
enum { NOTE_FRAME, NOTE_END };

/* --- reading ahead, on a thread of its own -------------------------------------------- */

/* Room in the pipe, waiting for it; NULL: the uplink ends. */
static struct frame_record *reserve(struct replay_reader *reader, uint32_t length)
{
	struct frame_pipe *pipe = &reader->pipe;

	while (!atomic_load(&reader->ending)) {
		struct frame_record *record = frame_pipe_reserve(pipe, length);

		if (record)
			return record;
		frame_pipe_putter_waits(pipe);
		record = frame_pipe_reserve(pipe, length);
		if (record)
			return record;
		files_sleep(pipe->to_putter, -1);
	}
	return NULL;
}

static pcap_t *open_replay(const char *path, struct error *err)
{
	char said[PCAP_ERRBUF_SIZE];
	struct stat st;
	/* Whatever it is, opening it does not wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	FILE *file;
	pcap_t *pcap;

	if (fd < 0 || fstat(fd, &st)) {
		error_set(err, errno, "replay: %s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		error_set(err, EINVAL, "replay: %s is not a regular file", path);
	} else if (!(file = fdopen(fd, "r"))) {
		error_set(err, ENOMEM, "out of memory");
	} else {
		pcap = pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO,
								said);
		if (!pcap) {
			error_set(err, EINVAL, "replay: %s: in its first %lld bytes: %s", path,
				  (long long)ftello(file), said);
			fclose(file);
			return NULL;
		}
		if (pcap_datalink(pcap) == DLT_EN10MB)
			return pcap;
		error_set(err, EINVAL, "replay: %s: frames are of link type %s, not Ethernet", path,
			  pcap_datalink_val_to_name(pcap_datalink(pcap)) ?: "unknown to libpcap");
		pcap_close(pcap);
		return NULL;
	}
	if (fd >= 0)
		close(fd);
	return NULL;
}

/* One time through the file; times go on from @base, which moves on. False: it is to end, and
 * the reader's text says why if there is a reason. */
static bool read_file(struct replay_reader *reader, uint64_t *base)
{
	uint64_t begin = *base, first = 0, before = reader->count;
	struct pcap_pkthdr *header;
	const u_char *data;
	int status;

	while ((status = pcap_next_ex(reader->pcap, &header, &data)) == 1) {
		uint64_t stamp =
			(uint64_t)header->ts.tv_sec * FILES_SECOND + (uint64_t)header->ts.tv_usec;
		/* What is longer than any frame is counted as malformed: see add_frame(). */
		uint32_t length = header->caplen <= PACKET_MAX ? header->caplen : 0;
		struct frame_record *record = reserve(reader, length);

		if (!record)
			return false;
		if (reader->count == before)
			first = stamp;
		if (reader->rate)
			*base = (uint64_t)((unsigned __int128)reader->count * FILES_SECOND /
					   reader->rate);
		else if (stamp > first && begin + (stamp - first) > *base)
			*base = begin + (stamp - first);
		record->time = *base;
		record->note = NOTE_FRAME;
		memcpy(record->data, data, length);
		frame_pipe_put(&reader->pipe);
		reader->count++;
	}
	if (status != PCAP_ERROR_BREAK) {
		snprintf(reader->text, sizeof reader->text, "%s: packet %llu, before byte %lld: %s",
			 reader->path, (unsigned long long)(reader->count - before + 1),
			 (long long)ftello(pcap_file(reader->pcap)), pcap_geterr(reader->pcap));
		return false;
	}
	if (reader->count == before) {
		snprintf(reader->text, sizeof reader->text, "%s has no packets", reader->path);
		return false;
	}
	return true;
}

static void read_ahead(struct file_thread *thread)
{
	struct replay_reader *reader = container_of(thread, struct replay_reader, thread);
	struct frame_record *record;
	struct error err = { 0 };
	uint64_t base = 0, round = 0;

	while (read_file(reader, &base)) {
		pcap_t *again;

		if (++round == reader->loop) {
			snprintf(reader->text, sizeof reader->text, "all of %s has been sent",
				 reader->path);
			break;
		}
		again = open_replay(reader->path, &err);
		if (!again) {
			snprintf(reader->text, sizeof reader->text, "%.*s",
				 (int)sizeof reader->text - 1, err.text);
			break;
		}
		pcap_close(reader->pcap);
		reader->pcap = again;
	}
	record = reserve(reader, 0);
	if (record) {
		record->time = base;
		record->note = NOTE_END;
		frame_pipe_put(&reader->pipe);
	}
	pcap_close(reader->pcap); /* which may take as long as a read */
	reader->pcap = NULL;
}

static void release(struct file_thread *thread)
{
	struct replay_reader *reader = container_of(thread, struct replay_reader, thread);

	if (reader->pipe.memory)
		frame_pipe_release(&reader->pipe);
	if (reader->pcap)
		pcap_close(reader->pcap);
	free(reader->path);
	free(reader);
}

/* --- replaying, on the loop ----------------------------------------------------------- */

/* The first frame if it is due; else NULL, and @next is when it is. */
static struct frame_record *due_frame(struct replay *replay, uint64_t now, uint64_t *next)
{
	struct frame_record *record = frame_pipe_first(&replay->reader->pipe);

	*next = UINT64_MAX;
	if (!record)
		return NULL;
	if (!replay->began)
		replay->began = now;
	if (replay->began + record->time <= now)
		return record;
	*next = replay->began + record->time;
	return NULL;
}

static void end_replay(struct files *files)
{
	struct replay *replay = &files->replay;

	replay->over = true;
	loop_watch_remove(files->uplink.loop, replay->watch);
	replay->watch = NULL;
	memcpy(replay->text, replay->reader->text, sizeof replay->text);
	uplink_plugged(&files->uplink, files->sink.writer, replay->text);
}

/* Copies @record into @one; it is the reader's again. */
static void add_frame(struct files *files, struct intake_burst *one, struct frame_record *record)
{
	struct packet *packet = NULL;
	uint8_t *at = one->area + one->used;

	if (record->length <= PACKET_MAX) {
		memcpy(at, record->data, record->length);
		*burst_vec(one->burst) = (struct iovec){ at, record->length };
		packet = burst_add(one->burst, 1, 0, record->length);
	}
	if (packet)
		one->used += (record->length + 63) & ~63u;
	else
		stats_add(&files->uplink.lane->stats.direction[PACKET_IN].drops[DROP_MALFORMED], 1);
	frame_pipe_drop(&files->replay.reader->pipe, record);
}

static bool replay_poll(struct loop_poller *poller)
{
	struct files *files = container_of(poller, struct files, replay.poller);
	struct replay *replay = &files->replay;
	uint64_t now = loop_now(files->uplink.loop), next;
	struct frame_record *record = replay->over ? NULL : due_frame(replay, now, &next);
	struct intake_burst *one = record ? intake_begin(&replay->intake) : NULL;

	/* Without one: it goes on when one comes back. */
	if (!one)
		return false;
	while (one->burst->count < PACKET_BURST && one->used + PACKET_MAX <= AREA &&
	       (record = due_frame(replay, now, &next))) {
		if (record->note == NOTE_END) {
			end_replay(files);
			break;
		}
		add_frame(files, one, record);
	}
	if (one->burst->count)
		lane_receive(files->uplink.lane, one->burst);
	burst_put(one->burst);
	return true;
}

static bool replay_arm(struct loop_poller *poller)
{
	struct files *files = container_of(poller, struct files, replay.poller);
	struct replay *replay = &files->replay;
	uint64_t next;

	if (replay->over || !replay->intake.free)
		return false;
	frame_pipe_taker_waits(&replay->reader->pipe);
	if (due_frame(replay, loop_now(files->uplink.loop), &next))
		return true;
	if (next != UINT64_MAX)
		loop_timer_set(files->uplink.loop, &replay->timer, next);
	return false;
}

static void replay_due(struct loop_timer *timer)
{
	struct files *files = container_of(timer, struct files, replay.timer);

	loop_poller_wake(files->uplink.loop, &files->replay.poller);
}

static void replay_filled(void *data)
{
	struct files *files = data;

	frame_pipe_awake(files->replay.reader->pipe.to_taker);
	if (!files->on_its_way)
		loop_poller_wake(files->uplink.loop, &files->replay.poller);
}

bool files_replay_is_over(const struct files *files)
{
	return !files->replay.intake.busy && !files->on_its_way;
}

static void returned(struct intake *intake, struct intake_burst *one)
{
	struct files *files = container_of(intake, struct files, replay.intake);

	(void)one;
	if (files->stopping) {
		if (files_replay_is_over(files))
			uplink_stopped(&files->uplink);
	} else if (intake->busy == BURSTS - 1) {
		loop_poller_wake(files->uplink.loop, &files->replay.poller);
	}
}

/* --- the ends ------------------------------------------------------------------------- */

static void went_there(struct loop_message *message)
{
	struct files *files = container_of(message, struct files, there);

	loop_send(files->uplink.loop, &files->back);
}

static void came_back(struct loop_message *message)
{
	struct files *files = container_of(message, struct files, back);

	files->on_its_way = false;
	if (!files->stopping)
		loop_poller_wake(files->uplink.loop, &files->replay.poller);
	else if (files_replay_is_over(files))
		uplink_stopped(&files->uplink);
}

static struct replay_reader *make_reader(const struct files_settings *settings)
{
	struct replay_reader *reader = calloc(1, sizeof *reader);

	if (!reader)
		return NULL;
	file_thread_init(&reader->thread, read_ahead, release);
	reader->rate = settings->rate;
	reader->loop = settings->loop;
	reader->path = strdup(settings->replay);
	if (reader->path && !frame_pipe_init(&reader->pipe, FILES_PIPE))
		return reader;
	file_thread_put(&reader->thread);
	return NULL;
}

int files_replay_open(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct replay *replay = &files->replay;
	struct replay_reader *reader;
	struct stat st;

	loop_poller_init(&replay->poller, replay_poll, replay_arm);
	loop_timer_init(&replay->timer, replay_due);
	files->there.run = went_there;
	files->back.run = came_back;
	if (!settings->replay)
		return 0;
	reader = replay->reader = make_reader(settings);
	if (!reader || intake_init(&replay->intake, BURSTS, AREA, returned))
		return error_set(err, ENOMEM, "out of memory");
	reader->pcap = open_replay(settings->replay, err);
	if (!reader->pcap)
		return -err->code;
	if (!fstat(fileno(pcap_file(reader->pcap)), &st)) {
		replay->device = st.st_dev;
		replay->inode = st.st_ino;
	}
	return file_thread_start(&reader->thread, "replay", err);
}

bool files_replay_start(struct files *files)
{
	struct uplink *uplink = &files->uplink;
	struct replay *replay = &files->replay;

	if (!replay->reader)
		return true;
	replay->watch =
		loop_watch_add(uplink->loop, replay->reader->pipe.to_taker, replay_filled, files);
	if (!replay->watch)
		return false;
	files->on_its_way = true;
	loop_send(uplink->control, &files->there);
	return true;
}

void files_replay_stop(struct files *files)
{
	struct replay *replay = &files->replay;

	if (replay->watch)
		loop_watch_remove(files->uplink.loop, replay->watch);
	loop_timer_cancel(&replay->timer);
	loop_poller_stop(files->uplink.loop, &replay->poller);
}

void files_replay_close(struct files *files)
{
	struct replay_reader *reader = files->replay.reader;

	intake_release(&files->replay.intake);
	if (!reader)
		return;
	atomic_store(&reader->ending, true);
	frame_pipe_wake(reader->pipe.to_putter);
	if (!file_thread_wait(&reader->thread, FILE_THREAD_PATIENCE))
		log_warn("uplink %s: replay: %s is still being read when the uplink ends",
			 files->uplink.name, reader->path);
	file_thread_put(&reader->thread);
}
