/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link_fuzz.c - the bytes of a link's other side
 *
 *     byte 0   1: no hello first; the rest are records
 *              2: as from passt: no offloads, and segments that follow one another are merged
 *     the rest raw bytes, as they come from the socket
 *
 * What was taken of them must be the same however they are cut into reads; and every packet whose
 * offloads are found good can be cut and summed, and written as a record that reads the same.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "packet/frame.h"
#include "packet/offload.h"
#include "packet/uplink/link_format.h"
#include "packet/uplink/stream.h"
#include "packet/uplink/user.h"
#include "util/error.h"

static struct burst *burst;
static const struct stream_framing *framing;

static void released(struct burst *of)
{
	(void)of;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	burst = burst_create(released, NULL);
	if (!burst)
		abort();
	return 0;
}

static const struct stream_framing plain = {
	.header = LINK_HEADER,
	.read = link_header_read,
	.received = link_header_apply,
	.write = link_header_write,
};

static const struct stream_framing merging = {
	.header = LINK_HEADER,
	.read = link_header_read,
	.merge = user_merge,
	.merged = user_merged,
	.write = link_header_write,
};

static void sent(void *data, struct packet_batch *batch)
{
	unsigned i;

	(void)data;
	for_each_packet (batch, i)
		if (batch->packet[i]->offload.gso_type || batch->packet[i]->length > PACKET_MAX)
			abort();
}

static void write_again(const struct packet *packet)
{
	uint8_t header[LINK_HEADER];
	struct packet again = { 0 };
	struct error err = { 0 };
	uint32_t length;

	link_header_write(packet, packet->length, header);
	if (link_header_read(header, &length, &err) || length != packet->length)
		abort();
	link_header_apply(header, &again);
	if (memcmp(&again.offload, &packet->offload, sizeof again.offload) ||
	    again.tagged != packet->tagged || (again.tagged && again.tag != packet->tag))
		abort();
}

static void use(struct packet *packet)
{
	bool merged = framing == &merging && packet->offload.gso_type;

	frame_parse(packet);
	if (offload_check(packet) != OFFLOAD_GOOD) {
		if (merged)
			abort(); /* we made it */
		return;
	}
	write_again(packet);
	if (!offload_fits(packet, 0))
		offload_resolve(packet, 0, sent, NULL);
}

/* Takes records of the @size bytes, of which the first @first come in one read. How many bytes;
 * @end: how the parser ended. */
static size_t parse(uint8_t *bytes, size_t first, size_t size, bool use_them, int *end)
{
	size_t at = 0, there = first;
	struct error err = { 0 };
	uint32_t wanted;

	for (*end = 0;;) {
		int64_t used;

		burst_begin(burst);
		used = stream_parse(framing, bytes + at, there - at, burst, &wanted, &err);
		if (framing->merged)
			framing->merged(burst);
		for (unsigned i = 0; use_them && i < burst->count; i++)
			use(&burst->packets[i]);
		if (used < 0) {
			*end = (int)used;
			return at;
		}
		if (wanted < LINK_HEADER || wanted > LINK_HEADER + PACKET_MAX)
			abort();
		at += (size_t)used;
		if (used)
			continue;
		if (there == size)
			return at;
		there = size;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t how = input_byte(&in);
	uint8_t greeting[LINK_HELLO], *bytes;
	struct link_hello theirs;
	struct error err = { 0 };
	int end, again;
	size_t taken, cut;

	framing = how & 2 ? &merging : &plain;
	if (!(how & 1)) {
		input_bytes(&in, greeting, sizeof greeting);
		if (link_hello_read(greeting, &theirs, &err))
			return 0;
	}
	bytes = malloc(in.size + 1);
	if (!bytes)
		abort();
	memcpy(bytes, in.data, in.size);
	taken = parse(bytes, in.size, in.size, true, &end);
	cut = parse(bytes, in.size / 2, in.size, false, &again);
	/* What was good in the call that found an error is in the burst, but does not count. */
	if (again != end || (!end && cut != taken))
		abort();
	free(bytes);
	return 0;
}
