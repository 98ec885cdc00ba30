/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture.c - a layer that writes copies of packets to files, as pcapng
 *
 * What passes is looked at and not touched. Who matches the filter is copied into the ring of its
 * loop (capture_ring.h), from where a thread writes it (capture_writer.h). If the ring is full
 * because the thread waits for storage, or for a reader, the copy is what is missed: the packet
 * goes its way at its pace.
 *
 * The thread is told in the ring itself where the packets that follow are captured, and by which
 * filter, since these change at a different moment on each loop.
 */
#include "packet/layer/capture.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/virtio_net.h>

#include "packet/layer/capture_file.h"
#include "packet/layer/capture_filter.h"
#include "packet/layer/capture_writer.h"
#include "packet/layer/pcapng.h"
#include "util/error.h"

struct settings {
	struct layer_settings common;
	char *file, *filter;
	uint64_t snap_length, file_size, files;
	bool sums;
};

struct rules {
	struct capture_filter filter;
	char *text; /* of the filter; "" */
	uint32_t snap_length;
	uint64_t file_size;
	unsigned files;
	bool sums;
};

struct capture {
	struct packet_layer layer;
	struct capture_writer *writer;
};

/* On a loop. */
struct place {
	struct layer_place place;
	struct capture_ring *ring; /* NULL: memory is short */
	uint32_t missed;           /* since the last that was captured */
	unsigned step;             /* that the writer was told */
	bool told;                 /* of that and of the rules */
};

/* --- settings and rules ------------------------------------------------------------- */

static const struct option options[] = {
	LAYER_DIRECTION("both"),
	{ .name = "file",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct settings, file),
	  .required = true,
	  .help = "Path of the file. One that is there already is continued if it is a capture of "
		  "penstock, and refused if not. With file-size the files have numbers: of "
		  "web.pcapng the first is web-00001.pcapng." },
	{ .name = "filter",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct settings, filter),
	  .help = "Which packets are captured, in the language of tcpdump: see pcap-filter(7). "
		  "Without it all are. Better addresses than names of hosts, which are looked up "
		  "when it is set." },
	{ .name = "snap-length",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct settings, snap_length),
	  .min = 64,
	  .max = 256 << 10,
	  .fallback = "256K",
	  .help = "Most bytes of a packet that are captured." },
	{ .name = "file-size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct settings, file_size),
	  .max = 1ull << 50,
	  .fallback = "0",
	  .help = "Most bytes of a file, at least 64K; then comes the next. 0: one file without a "
		  "bound." },
	{ .name = "files",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct settings, files),
	  .min = 1,
	  .max = CAPTURE_FILES,
	  .fallback = "4",
	  .help = "How many files are kept, with file-size: before another begins the oldest is "
		  "removed." },
	{ .name = "sums",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct settings, sums),
	  .fallback = "true",
	  .help = "Complete, in the captured copy, the checksum of a packet whose sender has left "
		  "it to the receiver, unless it is cut by snap-length." },
	{ 0 },
};

bool capture_is_stream(const void *settings)
{
	return capture_stream_is(((const struct settings *)settings)->file);
}

bool capture_goes_to(const void *settings, const char *path)
{
	const char *file = ((const struct settings *)settings)->file;

	return file && !strcmp(file, path);
}

static void capture_discard(void *data)
{
	struct rules *rules = data;

	if (!rules)
		return;
	capture_filter_release(&rules->filter);
	free(rules->text);
	free(rules);
}

static int capture_compile(const void *data, const struct port_facts *facts, void **rules,
			   struct error *err)
{
	const struct settings *settings = data;
	struct rules *made = calloc(1, sizeof *made);

	(void)facts;
	if (!settings->file || !*settings->file) {
		free(made);
		return error_set(err, EINVAL, "file: it is missing; expected the path of a file");
	}
	if (settings->file_size && settings->file_size < 64 << 10) {
		free(made);
		return error_set(err, EINVAL, "file-size: expected 0, or 64K at least");
	}
	if (!made || !(made->text = strdup(settings->filter ? settings->filter : ""))) {
		free(made);
		return error_set(err, ENOMEM, "out of memory");
	}
	made->snap_length = (uint32_t)settings->snap_length;
	made->file_size = settings->file_size;
	made->files = (unsigned)settings->files;
	made->sums = settings->sums;
	if (capture_filter_compile(&made->filter, made->text, err)) {
		capture_discard(made);
		return -err->code;
	}
	*rules = made;
	return 0;
}

/* --- the layer ---------------------------------------------------------------------- */

static int capture_open(struct packet_layer *layer, const void *data, struct error *err)
{
	struct capture *capture = (struct capture *)layer;
	const struct settings *settings = data;
	struct capture_writer_config config = { .port = layer->port,
						.kind = layer->facts.kind ? layer->facts.kind : "",
						.path = settings->file,
						.file_size = settings->file_size,
						.files = (unsigned)settings->files,
						.stream = -1 };

	if (capture_is_stream(data)) {
		config.path = NULL;
		config.stream = capture_stream_take(settings->file, &config.limit);
		if (config.stream < 0)
			return error_set(
				err, ENOENT,
				"file: %s is not there: such names are made by penstock capture; "
				"a file of this name is ./%s",
				settings->file, settings->file);
	}
	capture->writer = capture_writer_create(&config, err);
	return capture->writer ? 0 : -err->code;
}

static void capture_close(struct packet_layer *layer)
{
	capture_writer_end(((struct capture *)layer)->writer);
}

static json_t *capture_report(struct packet_layer *layer)
{
	struct capture_report report;
	json_t *json;

	capture_writer_report(((struct capture *)layer)->writer, &report);
	json = json_pack("{s:I, s:I, s:I}", "packets", (json_int_t)report.packets, "bytes",
			 (json_int_t)report.bytes, "missed", (json_int_t)report.missed);
	if (json && report.name)
		json_object_set_new(json, "file", json_string(report.name));
	if (json && *report.error)
		json_object_set_new(json, "error", json_string(report.error));
	free(report.name);
	return json;
}

/* --- on a loop ---------------------------------------------------------------------- */

static struct capture_writer *writer_of(const struct place *place)
{
	return ((struct capture *)place->place.layer)->writer;
}

/* Puts where and what is captured from now on into the ring. False: there is no room. */
static bool tell(struct place *place)
{
	const struct rules *rules = place->place.rules;
	size_t length = strlen(rules->text) + 1;
	uint32_t size = (uint32_t)((sizeof(struct capture_place) + length + 7) & ~7ull);
	struct capture_place *record = capture_ring_reserve(place->ring, size);

	if (!record)
		return false;
	record->record = (struct capture_record){ size, CAPTURE_PLACE };
	record->snap_length = rules->snap_length;
	record->step = place->place.step;
	memcpy(record->filter, rules->text, length);
	place->step = place->place.step;
	place->told = true;
	return true;
}

static void capture_arrive(struct layer_place *head)
{
	struct place *place = (struct place *)head;

	place->ring = capture_writer_ring(writer_of(place), head->lane->index);
	if (place->ring && tell(place)) {
		capture_ring_publish(place->ring);
		capture_writer_wake(writer_of(place));
	}
}

static void capture_changed(struct layer_place *head, const void *old)
{
	struct place *place = (struct place *)head;
	const struct rules *rules = head->rules;

	(void)old;
	capture_writer_bound(writer_of(place), rules->file_size, rules->files);
	if (place->ring && (place->told = tell(place))) {
		capture_ring_publish(place->ring);
		capture_writer_wake(writer_of(place));
	}
}

/* The first @length bytes of a packet. */
static void copy(uint8_t *to, const struct packet *packet, uint32_t length)
{
	uint32_t n = length < packet->head_length ? length : packet->head_length;

	memcpy(to, packet->head, n);
	to += n;
	length -= n;
	for (unsigned i = 0; length && i < packet->body_count; i++) {
		n = packet->body[i].iov_len < length ? (uint32_t)packet->body[i].iov_len : length;
		memcpy(to, packet->body[i].iov_base, n);
		to += n;
		length -= n;
	}
}

static void capture_one(struct place *place, enum packet_direction direction,
			const struct packet *packet, uint64_t now)
{
	const struct rules *rules = place->place.rules;
	uint32_t length = packet->length < rules->snap_length ? packet->length : rules->snap_length;
	uint32_t size = (uint32_t)(sizeof(struct capture_packet) + length + 7) & ~7u;
	struct capture_packet *record = NULL;

	if (place->told)
		record = capture_ring_reserve(place->ring, size);
	if (!record) {
		stats_add(&place->ring->missed, 1);
		place->missed++;
		return;
	}
	*record = (struct capture_packet){
		.record = { size, CAPTURE_PACKET },
		.time = now,
		.length = packet->length,
		.captured = length,
		.missed = place->missed,
		.tag = packet->tag,
		.csum_start = packet->offload.csum_start,
		.csum_offset = packet->offload.csum_offset,
		.gso_size = packet->offload.gso_size,
		.direction = (uint8_t)direction,
		.tagged = packet->tagged,
		.unsummed = packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.complete = rules->sums && packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.large = packet->offload.gso_type != VIRTIO_NET_HDR_GSO_NONE,
	};
	place->missed = 0;
	copy((uint8_t *)(record + 1), packet, length);
}

static uint64_t time_of_day(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void capture_process(struct layer_place *head, enum packet_direction direction,
			    struct packet_batch *batch)
{
	struct place *place = (struct place *)head;
	const struct rules *rules = head->rules;
	unsigned i, accepted = 0;
	uint64_t now = 0;

	if (!place->ring) {
		capture_arrive(head);
		if (!place->ring)
			return;
	}
	if (!place->told || place->step != head->step)
		place->told = tell(place);
	for_each_packet (batch, i) {
		if (!capture_filter_matches(&rules->filter, batch->packet[i]))
			continue;
		if (!accepted++)
			now = time_of_day();
		capture_one(place, direction, batch->packet[i], now);
	}
	stats_add(&place->ring->seen, (unsigned)__builtin_popcountll(batch->live));
	if (!accepted)
		return;
	stats_add(&place->ring->accepted, accepted);
	capture_ring_publish(place->ring);
	capture_writer_wake(writer_of(place));
}

static const char *const causes[] = { NULL };

const struct packet_layer_ops capture_layer = {
	.name = "capture",
	.summary = "writes copies of packets to files, for Wireshark and the like",
	.description =
		"Writes the packets that come by, in either direction, into a file in the format "
		"pcapng, which tcpdump, Wireshark and tshark read. The place in the list of layers "
		"is where packets are captured: before another layer, or after it. Times are in "
		"nanoseconds; each packet has its direction, as seen by the switch: inbound is what "
		"the guest, or whatever is plugged into the port, sends. A VLAN tag is in the "
		"packet as it was.\n\n"
		"Packets are as they are on the switch: a large one that its sender has left to be "
		"cut is in the capture as one, and a comment says into what it will be cut. A "
		"checksum that its sender has left out is completed in the copy, with a comment.\n\n"
		"A capture never holds up what it captures. Copies wait in memory, 4 MiB for each "
		"loop, for a thread that writes them; if storage is too slow they are missed. How many were "
		"is in the status, in the statistics of the file, and with the packet that comes "
		"after them. When the disk is full nothing is written until there is room again.\n\n"
		"With file-size and files a capture can run for good in bounded space. Nothing is "
		"ever overwritten or removed that is not a capture of penstock. The filter can be "
		"changed while packets flow; another file is another capture.\n\n"
		"penstock capture PORT does the same for as long as it runs, without a file.",
	.example =
		"switches:\n"
		"  lan: {}\n"
		"nics:\n"
		"  web0:\n"
		"    switch: lan\n"
		"    layers:\n"
		"      - capture: {file: web.pcapng, filter: tcp port 80, file-size: 64M, files: 4}\n"
		"vms:\n"
		"  web:\n"
		"    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct settings),
	.options = options,
	.place_option = "file",
	.causes = causes,
	.size = sizeof(struct capture),
	.place_size = sizeof(struct place),
	.compile = capture_compile,
	.discard = capture_discard,
	.open = capture_open,
	.close = capture_close,
	.arrive = capture_arrive,
	.changed = capture_changed,
	.process = capture_process,
	.report = capture_report,
};
