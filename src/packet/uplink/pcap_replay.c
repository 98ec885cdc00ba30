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

#define BURSTS 4u
#define AREA   (512u << 10)

/* Notes in records of the pipe. */
enum { NOTE_FRAME, NOTE_END };

/* --- reading ahead, on a thread of its own -------------------------------------------- */

/* Room in the pipe, waiting for it; NULL: the uplink ends. */
static struct frame_record *reserve(struct files *files, uint32_t length)
{
	struct frame_pipe *pipe = &files->replay.pipe;

	while (!atomic_load(&files->ending)) {
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
 * @text says why if there is a reason. */
static bool read_file(struct files *files, uint64_t *base)
{
	const struct files_settings *settings = files->uplink.settings;
	struct replay *replay = &files->replay;
	uint64_t begin = *base, first = 0, before = replay->count;
	struct pcap_pkthdr *header;
	const u_char *data;
	int status;

	while ((status = pcap_next_ex(replay->pcap, &header, &data)) == 1) {
		uint64_t stamp =
			(uint64_t)header->ts.tv_sec * FILES_SECOND + (uint64_t)header->ts.tv_usec;
		/* What is longer than any frame is counted as malformed: see add_frame(). */
		uint32_t length = header->caplen <= PACKET_MAX ? header->caplen : 0;
		struct frame_record *record = reserve(files, length);

		if (!record)
			return false;
		if (replay->count == before)
			first = stamp;
		if (settings->rate)
			*base = (uint64_t)((unsigned __int128)replay->count * FILES_SECOND /
					   settings->rate);
		else if (stamp > first && begin + (stamp - first) > *base)
			*base = begin + (stamp - first);
		record->time = *base;
		record->note = NOTE_FRAME;
		memcpy(record->data, data, length);
		frame_pipe_put(&replay->pipe);
		replay->count++;
	}
	if (status != PCAP_ERROR_BREAK) {
		snprintf(replay->text, sizeof replay->text, "%s: packet %llu, before byte %lld: %s",
			 settings->replay, (unsigned long long)(replay->count - before + 1),
			 (long long)ftello(pcap_file(replay->pcap)), pcap_geterr(replay->pcap));
		return false;
	}
	if (replay->count == before) {
		snprintf(replay->text, sizeof replay->text, "%s has no packets", settings->replay);
		return false;
	}
	return true;
}

static void *read_ahead(void *data)
{
	struct files *files = data;
	const struct files_settings *settings = files->uplink.settings;
	struct replay *replay = &files->replay;
	struct frame_record *record;
	struct error err = { 0 };
	uint64_t base = 0, round = 0;

	while (read_file(files, &base)) {
		pcap_t *again;

		if (++round == settings->loop) {
			snprintf(replay->text, sizeof replay->text, "all of %s has been sent",
				 settings->replay);
			break;
		}
		again = open_replay(settings->replay, &err);
		if (!again) {
			snprintf(replay->text, sizeof replay->text, "%.*s",
				 (int)sizeof replay->text - 1, err.text);
			break;
		}
		pcap_close(replay->pcap);
		replay->pcap = again;
	}
	record = reserve(files, 0);
	if (record) {
		record->time = base;
		record->note = NOTE_END;
		frame_pipe_put(&replay->pipe);
	}
	return NULL;
}

/* --- replaying, on the loop ----------------------------------------------------------- */

/* The first frame if it is due; else NULL, and @next is when it is. */
static struct frame_record *due_frame(struct replay *replay, uint64_t now, uint64_t *next)
{
	struct frame_record *record = frame_pipe_first(&replay->pipe);

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
	uplink_plugged(&files->uplink, files->sink.running, replay->text);
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
	frame_pipe_drop(&files->replay.pipe, record);
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
	frame_pipe_taker_waits(&replay->pipe);
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

	frame_pipe_awake(files->replay.pipe.to_taker);
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

int files_replay_open(struct files *files, struct error *err)
{
	const struct files_settings *settings = files->uplink.settings;
	struct replay *replay = &files->replay;
	struct stat st;

	loop_poller_init(&replay->poller, replay_poll, replay_arm);
	loop_timer_init(&replay->timer, replay_due);
	files->there.run = went_there;
	files->back.run = came_back;
	if (!settings->replay)
		return 0;
	replay->pcap = open_replay(settings->replay, err);
	if (!replay->pcap)
		return -err->code;
	if (!fstat(fileno(pcap_file(replay->pcap)), &st)) {
		replay->device = st.st_dev;
		replay->inode = st.st_ino;
	}
	if (frame_pipe_init(&replay->pipe, FILES_PIPE) ||
	    intake_init(&replay->intake, BURSTS, AREA, returned))
		return error_set(err, ENOMEM, "out of memory");
	return files_thread(files, read_ahead, &replay->thread, &replay->running, "replay", err);
}

bool files_replay_start(struct files *files)
{
	struct uplink *uplink = &files->uplink;
	struct replay *replay = &files->replay;

	if (!replay->running)
		return true;
	replay->watch = loop_watch_add(uplink->loop, replay->pipe.to_taker, replay_filled, files);
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
	struct replay *replay = &files->replay;

	if (replay->running) {
		frame_pipe_wake(replay->pipe.to_putter);
		pthread_join(replay->thread, NULL);
	}
	if (replay->pipe.memory)
		frame_pipe_release(&replay->pipe);
	intake_release(&replay->intake);
	if (replay->pcap)
		pcap_close(replay->pcap);
}
