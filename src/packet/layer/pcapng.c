/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pcapng.c - writes the blocks of a capture file; see pcapng.h
 *
 * A block is type, length, body, options, length again. An option is code, length, value, filled up
 * to 32 bits; the list ends with code 0. An empty list has no end (4.: "options are optional").
 */
#include "packet/layer/pcapng.h"

#include <string.h>

enum {
	BLOCK_INTERFACE = 1,
	BLOCK_STATISTICS = 5,
	BLOCK_PACKET = 6,
};

enum {
	OPTION_END = 0,
	OPTION_COMMENT = 1,
	SECTION_APPLICATION = 4,
	INTERFACE_NAME = 2,
	INTERFACE_DESCRIPTION = 3,
	INTERFACE_RESOLUTION = 9,
	INTERFACE_FILTER = 11,
	PACKET_FLAGS = 2,
	PACKET_MISSED = 4,
	STATISTICS_BEGAN = 2,
	STATISTICS_ENDED = 3,
	STATISTICS_RECEIVED = 4,
	STATISTICS_MISSED = 5,
	STATISTICS_ACCEPTED = 6,
};

#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define LINK_ETHERNET    1u
/* Most bytes of a packet, of all interfaces: libpcap reads no file in which these differ. */
#define SNAP_LENGTH 262144u

static const char application[] = "penstock " PENSTOCK_VERSION;
/* What all versions begin with. */
static const char application_mark[8] = "penstock";

/* --- pieces ------------------------------------------------------------------------- */

/* Where the next piece goes. */
struct cursor {
	uint8_t *begin, *at;
};

static void put(struct cursor *cursor, const void *bytes, size_t length)
{
	memcpy(cursor->at, bytes, length);
	cursor->at += length;
}

static void put16(struct cursor *cursor, uint16_t value)
{
	put(cursor, &value, sizeof value);
}

static void put32(struct cursor *cursor, uint32_t value)
{
	put(cursor, &value, sizeof value);
}

/* Zeroes up to the next 32 bits. */
static void fill(struct cursor *cursor)
{
	while ((cursor->at - cursor->begin) & 3)
		*cursor->at++ = 0;
}

static struct cursor begin(uint8_t *to, uint32_t type)
{
	struct cursor cursor = { to, to };

	put32(&cursor, type);
	put32(&cursor, 0);
	return cursor;
}

static size_t end(struct cursor *cursor)
{
	uint32_t length = (uint32_t)(cursor->at - cursor->begin) + 4;

	put32(cursor, length);
	memcpy(cursor->begin + 4, &length, 4);
	return length;
}

static void option(struct cursor *cursor, uint16_t code, const void *value, size_t length)
{
	put16(cursor, code);
	put16(cursor, (uint16_t)length);
	put(cursor, value, length);
	fill(cursor);
}

static void option_end(struct cursor *cursor)
{
	put32(cursor, OPTION_END);
}

static void option_text(struct cursor *cursor, uint16_t code, const char *text)
{
	if (text && *text)
		option(cursor, code, text, strnlen(text, PCAPNG_TEXT));
}

/* Times are two words, the upper one first. */
static void option_time(struct cursor *cursor, uint16_t code, uint64_t time)
{
	uint32_t words[2] = { (uint32_t)(time >> 32), (uint32_t)time };

	option(cursor, code, words, sizeof words);
}

static void option_number(struct cursor *cursor, uint16_t code, uint64_t number)
{
	option(cursor, code, &number, sizeof number);
}

/* --- blocks ------------------------------------------------------------------------- */

size_t pcapng_section(uint8_t *to)
{
	struct cursor cursor = begin(to, PCAPNG_SECTION_TYPE);
	uint64_t unknown = UINT64_MAX;

	put32(&cursor, BYTE_ORDER_MAGIC);
	put16(&cursor, 1);
	put16(&cursor, 0);
	put(&cursor, &unknown, sizeof unknown); /* the length of the section */
	option_text(&cursor, SECTION_APPLICATION, application);
	option_end(&cursor);
	return end(&cursor);
}

bool pcapng_is_ours(const uint8_t *bytes)
{
	uint32_t type, magic;
	uint16_t code;

	memcpy(&type, bytes, 4);
	memcpy(&magic, bytes + 8, 4);
	memcpy(&code, bytes + 24, 2);
	return type == PCAPNG_SECTION_TYPE && magic == BYTE_ORDER_MAGIC &&
	       code == SECTION_APPLICATION &&
	       !memcmp(bytes + 28, application_mark, sizeof application_mark);
}

size_t pcapng_interface(uint8_t *to, const struct pcapng_interface *interface)
{
	struct cursor cursor = begin(to, BLOCK_INTERFACE);
	const uint8_t nanoseconds = 9; /* a power of ten */
	uint8_t filter[1 + PCAPNG_TEXT];

	put16(&cursor, LINK_ETHERNET);
	put16(&cursor, 0);
	put32(&cursor, SNAP_LENGTH);
	option_text(&cursor, INTERFACE_NAME, interface->name);
	option_text(&cursor, INTERFACE_DESCRIPTION, interface->description);
	option_text(&cursor, OPTION_COMMENT, interface->comment);
	option(&cursor, INTERFACE_RESOLUTION, &nanoseconds, 1);
	if (interface->filter && *interface->filter) {
		size_t length = strnlen(interface->filter, PCAPNG_TEXT);

		filter[0] = 0; /* a text in libpcap's language */
		memcpy(filter + 1, interface->filter, length);
		option(&cursor, INTERFACE_FILTER, filter, 1 + length);
	}
	option_end(&cursor);
	return end(&cursor);
}

size_t pcapng_statistics(uint8_t *to, const struct pcapng_statistics *statistics)
{
	struct cursor cursor = begin(to, BLOCK_STATISTICS);

	put32(&cursor, statistics->interface);
	put32(&cursor, (uint32_t)(statistics->now >> 32));
	put32(&cursor, (uint32_t)statistics->now);
	option_time(&cursor, STATISTICS_BEGAN, statistics->began);
	option_time(&cursor, STATISTICS_ENDED, statistics->now);
	option_number(&cursor, STATISTICS_RECEIVED, statistics->received);
	/* What tools show as dropped packets is this one. */
	option_number(&cursor, STATISTICS_MISSED, statistics->missed);
	option_number(&cursor, STATISTICS_ACCEPTED, statistics->accepted);
	option_end(&cursor);
	return end(&cursor);
}

/* Bits 0 and 1: the direction; 2 to 4: whom it is for (4.3.1). */
static uint32_t flags_of(const struct pcapng_packet *packet, const uint8_t *frame)
{
	static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint32_t kind = 1; /* unicast */

	if (packet->captured < sizeof everybody)
		kind = 0;
	else if (!memcmp(frame, everybody, sizeof everybody))
		kind = 3;
	else if (frame[0] & 1)
		kind = 2;
	return (uint32_t)packet->direction | kind << 2;
}

size_t pcapng_packet(uint8_t *to, const struct pcapng_packet *packet)
{
	struct cursor cursor = begin(to, BLOCK_PACKET);
	uint32_t flags = flags_of(packet, to + PCAPNG_DATA);

	put32(&cursor, packet->interface);
	put32(&cursor, (uint32_t)(packet->time >> 32));
	put32(&cursor, (uint32_t)packet->time);
	put32(&cursor, packet->captured);
	put32(&cursor, packet->length);
	cursor.at += packet->captured;
	fill(&cursor);
	if (packet->comment && *packet->comment)
		option(&cursor, OPTION_COMMENT, packet->comment,
		       strnlen(packet->comment, PCAPNG_COMMENT));
	option(&cursor, PACKET_FLAGS, &flags, sizeof flags);
	if (packet->missed)
		option_number(&cursor, PACKET_MISSED, packet->missed);
	option_end(&cursor);
	return end(&cursor);
}
