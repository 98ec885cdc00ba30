/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_blocks.c - makes pcapng of the records of captures; see capture_private.h
 *
 * A file begins with a section; each section has interfaces, one for each place in a port's layers,
 * filter and length that packets in it were captured with, and ends with statistics. A numbered
 * file that would grow over its bound ends its section, and the next one begins another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/layer/capture_private.h"
#include "packet/layer/capture_sum.h"
#include "packet/layer/pcapng.h"
#include "util/error.h"

#define TAG    4u /* bytes of a VLAN tag, and where it goes */
#define TAG_AT 12u

static uint64_t missed(struct capture_writer *w)
{
	uint64_t sum = atomic_load(&w->lost);

	for (unsigned i = 0; i < w->source_count; i++)
		sum += stats_read(&w->sources[i].ring->missed);
	return sum;
}

static void put_statistics(struct capture_writer *w)
{
	struct pcapng_statistics statistics = { .interface = w->interfaces - 1,
						.now = capture_clock(CLOCK_REALTIME),
						.began = w->began,
						.missed = missed(w) };

	if (!w->in_section || !w->interfaces)
		return;
	for (unsigned i = 0; i < w->source_count; i++) {
		statistics.received += stats_read(&w->sources[i].ring->seen);
		statistics.accepted += stats_read(&w->sources[i].ring->accepted);
	}
	w->told_missed = statistics.missed;
	w->length += pcapng_statistics(w->buffer + w->length, &statistics);
}

static void begin_section(struct capture_writer *w)
{
	w->section++;
	w->in_section = true;
	w->interfaces = 0;
	w->section_packets = 0;
	w->length += pcapng_section(w->buffer + w->length);
}

void capture_end_section(struct capture_writer *w)
{
	put_statistics(w);
	capture_flush(w);
	w->in_section = false;
}

/* Gives @source an interface of this section: that of another source, if it is the same. */
static void put_interface(struct capture_writer *w, struct capture_source *source)
{
	char description[200], comment[120];
	struct pcapng_interface interface = { .name = w->port,
					      .description = description,
					      .comment = comment,
					      .filter = source->filter };

	for (unsigned i = 0; i < w->source_count; i++) {
		const struct capture_source *other = &w->sources[i];

		if (other->section != w->section || other->step != source->step ||
		    other->snap_length != source->snap_length ||
		    strcmp(other->filter, source->filter) != 0)
			continue;
		source->interface = other->interface;
		source->section = w->section;
		return;
	}
	snprintf(description, sizeof description, "port %.80s (%.60s) of penstock", w->port,
		 w->kind);
	snprintf(comment, sizeof comment,
		 "layer %u of the port, counted from 0 next to the device; at most %u bytes of a "
		 "packet",
		 source->step, source->snap_length);
	source->interface = w->interfaces++;
	source->section = w->section;
	w->length += pcapng_interface(w->buffer + w->length, &interface);
}

/* Makes ready for a block of at most @size bytes. False: nothing can be written now. */
static bool make_ready(struct capture_writer *w, size_t size)
{
	uint64_t bound = atomic_load(&w->file_size);
	struct error err = { 0 };

	if (capture_waits(w))
		return false;
	if (w->stream < 0) {
		if (w->in_section && w->section_packets && bound &&
		    w->file.size + w->length + size > bound) {
			capture_end_section(w);
			if (w->failing)
				return false;
		}
		if (!w->in_section &&
		    (w->file.fd < 0 || (bound && w->file.size + size > bound && w->file.size))) {
			if (capture_file_next(&w->file, atomic_load(&w->files), &err)) {
				capture_tell_name(w);
				capture_give_up(w, err.text);
				return false;
			}
			capture_tell_name(w);
		}
	}
	if (w->length + size + 2 * PCAPNG_BLOCK > CAPTURE_BUFFER)
		capture_flush(w);
	if (capture_waits(w))
		return false;
	if (!w->in_section) {
		capture_file_repair(&w->file);
		begin_section(w);
	}
	return true;
}

/* What is to be said of a packet that is not as it will be on a wire. */
static void describe(const struct capture_packet *packet, bool summed, char *text, size_t size)
{
	const char *sum = "";

	if (summed)
		sum = "the sum was left out by the sender, and is filled in here";
	else if (packet->unsummed)
		sum = "the sum has been left out by the sender";
	if (packet->large)
		snprintf(text, size, "a large packet, to be cut into segments of %u bytes%s%s",
			 packet->gso_size, *sum ? "; " : "", sum);
	else
		snprintf(text, size, "%s", sum);
}

void capture_put_packet(struct capture_writer *w, struct capture_source *source,
			const struct capture_packet *from)
{
	const uint8_t *bytes = (const uint8_t *)(from + 1);
	uint32_t tag = from->tagged ? TAG : 0, length = from->length + tag;
	uint32_t captured = from->captured + tag;
	char comment[PCAPNG_COMMENT] = "";
	struct pcapng_packet packet = { .time = from->time,
					.missed = from->missed,
					.length = length,
					.direction = from->direction == PACKET_IN ? PCAPNG_INBOUND
										  : PCAPNG_OUTBOUND,
					.comment = comment };
	uint8_t *to;
	bool summed = false;

	if (captured > source->snap_length)
		captured = source->snap_length;
	if (!make_ready(w, captured + PCAPNG_PACKET)) {
		if (!w->over)
			atomic_fetch_add(&w->lost, 1);
		return;
	}
	if (source->section != w->section)
		put_interface(w, source);
	to = w->buffer + w->length + PCAPNG_DATA;
	if (tag) {
		const uint8_t header[TAG] = { 0x81, 0x00, (uint8_t)(from->tag >> 8),
					      (uint8_t)from->tag };

		memcpy(to, bytes, TAG_AT);
		memcpy(to + TAG_AT, header, TAG);
		memcpy(to + TAG_AT + TAG, bytes + TAG_AT, from->captured - TAG_AT);
	} else {
		memcpy(to, bytes, from->captured);
	}
	if (from->complete && captured == length)
		summed = capture_sum(to, length, from->csum_start + tag, from->csum_offset,
				     from->large);
	if (from->unsummed || from->large)
		describe(from, summed, comment, sizeof comment);
	packet.interface = source->interface;
	packet.captured = captured;
	w->length += pcapng_packet(w->buffer + w->length, &packet);
	w->buffered++;
	w->section_packets++;
	if (w->limit && ++w->taken == w->limit) {
		capture_end_section(w);
		capture_end_stream(w);
	}
}

void capture_change_place(struct capture_writer *w, struct capture_source *source,
			  const struct capture_place *place)
{
	char *filter = strdup(place->filter);

	/* Without memory the old text stays, which is wrong in the file only. */
	if (filter) {
		free(source->filter);
		source->filter = filter;
	}
	if (!source->filter)
		return;
	source->snap_length = place->snap_length;
	source->step = place->step;
	source->section = 0;
	/* Readers want to know the interface before there are packets. */
	if (make_ready(w, PCAPNG_BLOCK))
		put_interface(w, source);
}

bool capture_untold(struct capture_writer *w)
{
	return w->in_section && missed(w) != w->told_missed;
}

void capture_tell_missed(struct capture_writer *w)
{
	if (capture_untold(w) && make_ready(w, PCAPNG_BLOCK))
		put_statistics(w);
}
