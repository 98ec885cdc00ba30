/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap_private.h - what the files of the uplink pcap share */
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include <pcap/pcap.h>

#include "loop/loop.h"
#include "packet/uplink.h"
#include "packet/uplink/frame_pipe.h"
#include "packet/uplink/intake.h"
#include "util/file_thread.h"

struct error;

#define FILES_PIPE   (8u << 20) /**< bytes of frames between a file's thread and the loop */
#define FILES_BUFFER (1u << 18) /**< bytes that are written at once */
#define FILES_SECOND 1000000000ull

/** What a user says. */
struct files_settings {
	char *replay, *sink;
	uint64_t rate; /**< packets a second; 0: as recorded */
	uint64_t loop; /**< times; 0: without end */
};

/** Reads a capture ahead: a thread that storage may hold up, see file_thread.h. */
struct replay_reader {
	struct file_thread thread;
	atomic_bool ending;
	char *path;
	uint64_t rate, loop; /**< of the settings */
	pcap_t *pcap;
	struct frame_pipe pipe;
	uint64_t count; /**< frames read */
	char text[256]; /**< why it ended, set before NOTE_END is put */
};

/** The capture that is replayed. */
struct replay {
	struct replay_reader *reader; /**< NULL: none */
	dev_t device;                 /**< of the file */
	ino_t inode;
	/* The loop's. */
	struct intake intake;
	struct loop_watch *watch;
	struct loop_poller poller;
	struct loop_timer timer;
	uint64_t began; /**< ns; 0: not yet */
	bool over;
	char text[256]; /**< the reader's */
};

/** Writes a capture behind, likewise. */
struct sink_writer {
	struct file_thread thread;
	atomic_bool ending;
	int fd;
	struct frame_pipe pipe;
	_Atomic int failed; /**< errno of what the file could not take */
	size_t length;      /**< bytes in @buffer, not yet in the file */
	uint8_t buffer[FILES_BUFFER];
};

/** The file that is written. */
struct sink {
	struct sink_writer *writer; /**< NULL: none */
	bool told;                  /**< of its failure */
	char text[256];
};

/** The uplink. */
struct files {
	struct uplink uplink;
	struct replay replay;
	struct sink sink;
	/* Of the replay: to the control loop and back, so that what was started together with it is
	 * there before its first frame. */
	struct loop_message there, back;
	bool on_its_way;
	bool stopping;
};

/** Sleeps until @fd, one side's of a pipe, is written, or for @ms (-1: no limit). */
void files_sleep(int fd, int ms);

/* --- pcap_replay.c ---------------------------------------------------------------------- */

/** Opens the capture, if there is to be one, and begins to read ahead. 0, or -errno with @err. */
int files_replay_open(struct files *files, struct error *err);
/** On the loop: begins to send. False: memory is short. */
bool files_replay_start(struct files *files);
/** On the loop: sends no more. */
void files_replay_stop(struct files *files);
/** On the loop: all that was sent has come back. */
bool files_replay_is_over(const struct files *files);
/** Control thread: ends it; a reader that storage holds up goes by itself when it can. */
void files_replay_close(struct files *files);

/* --- pcap_sink.c ------------------------------------------------------------------------ */

/** Makes the file, if there is to be one, and begins to write behind. 0, or -errno with @err. */
int files_sink_open(struct files *files, struct error *err);
/** Control thread: has all that was sent written; where storage is slower than that deserves, the
 * rest is written when it can be, while penstock runs. */
void files_sink_close(struct files *files);
/** For struct port_ops. */
void files_transmit(struct lane *lane, struct packet_batch *batch);
