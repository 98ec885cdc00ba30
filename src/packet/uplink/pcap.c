/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pcap.c - an uplink to files: a capture whose frames come into the switch as if somebody sent them
 * (replay), and one where all is written that goes out to the port (sink)
 *
 * Files may have to be waited for, and a loop waits for nothing. So each file has a thread that
 * reads ahead (through libpcap), or writes behind, and a pipe of frames between it and the loop.
 * Where the sink's disk is too slow and its pipe full, frames are dropped and counted.
 */
#include <errno.h>
#include <poll.h>

#include <jansson.h>

#include "packet/uplink/pcap_private.h"
#include "util/error.h"

void files_sleep(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, ms) > 0)
		frame_pipe_awake(fd);
}

static void files_close(struct uplink *uplink)
{
	struct files *files = (struct files *)uplink;

	files_replay_close(files);
	files_sink_close(files);
}

static int files_open(struct uplink *uplink, struct port_facts *facts, struct error *err)
{
	struct files *files = (struct files *)uplink;

	(void)facts;
	if (!files_replay_open(files, err) && !files_sink_open(files, err))
		return 0;
	files_close(uplink);
	return -err->code;
}

static void files_start(struct uplink *uplink)
{
	if (!files_replay_start((struct files *)uplink)) {
		uplink_plugged(uplink, false, "out of memory");
		return;
	}
	uplink->lane->accepts = 0;
	lane_up(uplink->lane, uplink);
	uplink_plugged(uplink, true, NULL);
}

static void files_stop(struct uplink *uplink)
{
	struct files *files = (struct files *)uplink;

	files->stopping = true;
	files_replay_stop(files);
	lane_down(uplink->lane);
	if (files_replay_is_over(files))
		uplink_stopped(uplink);
}

static int files_check(const void *settings_, struct error *err)
{
	const struct files_settings *settings = settings_;

	if (!settings->replay && !settings->sink)
		return error_set(err, EINVAL, "replay: either it or sink is needed, or both");
	return 0;
}

static json_t *files_report(struct port *port)
{
	const struct files *files = port->owner;
	const struct files_settings *settings = files->uplink.settings;

	return json_pack("{s:s*, s:s*}", "replay", settings->replay, "sink", settings->sink);
}

static const struct option options[] = {
	{ .name = "replay",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct files_settings, replay),
	  .help = "A file, pcap or pcapng, whose Ethernet frames come into the switch." },
	{ .name = "rate",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct files_settings, rate),
	  .max = 100000000,
	  .fallback = "0",
	  .help = "Frames a second; 0: as they were recorded." },
	{ .name = "loop",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct files_settings, loop),
	  .max = UINT32_MAX,
	  .fallback = "1",
	  .help = "How many times the file is replayed; 0: without end." },
	{ .name = "sink",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct files_settings, sink),
	  .help = "A file where all is written that goes out to the port: pcap, with nanoseconds. "
		  "What it had is overwritten." },
	{ 0 },
};

const struct uplink_ops pcap_uplink = {
	.name = "pcap",
	.summary = "files: a capture that is replayed, one that is written",
	.description =
		"Puts the frames of a capture into a switch, with the gaps that they were recorded with, "
		"or at a rate; and writes what the switch sends to this port into another, with all "
		"checksums computed and large packets cut. Where the disk cannot follow frames are "
		"dropped, and counted as no-buffer. For a capture beside the traffic of "
		"another port there are mirror ports and the layer capture.",
	.example =
		"switches:\n"
		"  lan: {}\n"
		"uplinks:\n"
		"  history: {switch: lan, pcap: {replay: ./attack.pcapng, rate: 10000, loop: 0}}\n"
		"  answers: {switch: lan, mirror: all, pcap: {sink: ./answers.pcap}}\n"
		"nics:\n"
		"  web0: {switch: lan}\n"
		"vms:\n"
		"  web:\n"
		"    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct files_settings),
	.options = options,
	.file_option = "replay",
	.check = files_check,
	.size = sizeof(struct files),
	.open = files_open,
	.start = files_start,
	.stop = files_stop,
	.close = files_close,
	.port = { .kind = "pcap", .transmit = files_transmit, .report = files_report },
};
