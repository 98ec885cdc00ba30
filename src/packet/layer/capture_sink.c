/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_sink.c - writes blocks to a file or a stream; see capture_private.h
 *
 * If a file cannot be written, the buffer is given up, and for a while all that comes; then it is
 * tried again with a new section: what is in the file stays readable throughout. A stream whose
 * reader has gone is over.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packet/layer/capture_private.h"
#include "util/log.h"

#define LOOK 20 /* ms, between looks at a reader that is to end */

static void tell_error(struct capture_writer *w, const char *text)
{
	pthread_mutex_lock(&w->lock);
	snprintf(w->error, sizeof w->error, "%s", text);
	pthread_mutex_unlock(&w->lock);
}

void capture_tell_name(struct capture_writer *w)
{
	char *name = w->file.name ? strdup(w->file.name) : NULL;

	pthread_mutex_lock(&w->lock);
	free(w->name);
	w->name = name;
	pthread_mutex_unlock(&w->lock);
}

void capture_give_up(struct capture_writer *w, const char *why)
{
	if (!w->failing)
		log_warn("capture of %s: %s; packets are missed until that is better", w->port,
			 why);
	tell_error(w, why);
	atomic_fetch_add(&w->lost, w->buffered);
	w->failing = true;
	w->try_again = capture_clock(CLOCK_MONOTONIC) + CAPTURE_PATIENCE;
	w->in_section = false;
	w->length = w->buffered = 0;
}

void capture_end_stream(struct capture_writer *w)
{
	if (w->stream >= 0)
		close(w->stream);
	w->stream = -1;
	w->over = true;
	w->in_section = false;
	w->length = w->buffered = 0;
}

/* 0, or -errno if the reader is gone, or reads nothing when it is to end. */
static int write_stream(struct capture_writer *w)
{
	const uint8_t *at = w->buffer;
	size_t left = w->length;
	uint64_t patience = 0, count;

	while (left) {
		struct pollfd both[2] = { { .fd = w->stream, .events = POLLOUT },
					  { .fd = w->wake_fd, .events = POLLIN } };
		bool ending = atomic_load(&w->ending);
		ssize_t n = write(w->stream, at, left);

		if (n > 0) {
			at += n;
			left -= (size_t)n;
			patience = 0;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (ending && !patience)
			patience = capture_clock(CLOCK_MONOTONIC) + CAPTURE_PATIENCE;
		if (ending && capture_clock(CLOCK_MONOTONIC) > patience)
			return -ETIMEDOUT;
		/* What a loop had to say it will find when it looks; the end it sees above. */
		if (poll(both, ending ? 1 : 2, ending ? LOOK : -1) > 0 && both[1].revents &&
		    read(w->wake_fd, &count, sizeof count) < 0)
			log_debug("capture of %s: %s", w->port, strerror(errno));
	}
	return 0;
}

void capture_flush(struct capture_writer *w)
{
	char why[160];
	int ret;

	if (!w->length)
		return;
	if (w->stream >= 0) {
		ret = write_stream(w);
		if (ret) {
			atomic_fetch_add(&w->lost, w->buffered);
			capture_end_stream(w);
		}
	} else {
		ret = capture_file_write(&w->file, w->buffer, w->length);
		if (ret) {
			snprintf(why, sizeof why, "%.120s: %s", w->file.name ? w->file.name : "?",
				 strerror(-ret));
			capture_give_up(w, why);
		} else if (w->failing) {
			log_info("capture of %s: goes on in %s", w->port, w->file.name);
			tell_error(w, "");
			w->failing = false;
		}
	}
	if (!ret) {
		atomic_fetch_add(&w->packets, w->buffered);
		atomic_fetch_add(&w->bytes, w->length);
	}
	w->length = w->buffered = 0;
}

bool capture_waits(const struct capture_writer *w)
{
	return w->over || (w->failing && capture_clock(CLOCK_MONOTONIC) < w->try_again);
}
