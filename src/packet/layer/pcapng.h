/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pcapng.h - blocks of a capture file (draft-ietf-opsawg-pcapng-02)
 *
 * Each function writes one block, in this machine's byte order, at @to, where there is room for it,
 * and returns its length: a multiple of 4.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Most bytes of a text; what is longer is cut. */
#define PCAPNG_TEXT 8192u
/** Most bytes of any block but a packet's. */
#define PCAPNG_BLOCK (5u * PCAPNG_TEXT)
/** Most bytes of a packet's block beyond those of the packet. */
#define PCAPNG_PACKET 256u
/** Most bytes of a comment on a packet. */
#define PCAPNG_COMMENT 160u

#define PCAPNG_SECTION_TYPE 0x0a0d0d0au
/** Bytes from the beginning of a file that pcapng_is_ours() looks at. */
#define PCAPNG_MARK 36u

/** An interface: one for each place, filter and length at which packets are captured. */
struct pcapng_interface {
	const char *name, *description, *comment;
	const char *filter; /**< NULL: none */
};

/** What has become of the packets of an interface. */
struct pcapng_statistics {
	uint32_t interface;
	uint64_t now, began; /**< ns since 1970 */
	uint64_t received;   /**< packets that came by */
	uint64_t accepted;   /**< of those, what the filter let pass */
	uint64_t missed;     /**< of those, what was not captured for want of room */
};

enum pcapng_direction { PCAPNG_INBOUND = 1, PCAPNG_OUTBOUND = 2 };

/** One packet. */
struct pcapng_packet {
	uint32_t interface;
	uint64_t time;     /**< ns since 1970 */
	uint32_t captured; /**< bytes of it that are in the block */
	uint32_t length;   /**< bytes that it has */
	uint32_t missed;   /**< packets that were missed just before it */
	enum pcapng_direction direction;
	const char *comment; /**< NULL or "": none */
};

/** A section of a file begins. */
size_t pcapng_section(uint8_t *to);
size_t pcapng_interface(uint8_t *to, const struct pcapng_interface *interface);
size_t pcapng_statistics(uint8_t *to, const struct pcapng_statistics *statistics);

/**
 * Where the bytes of a packet go in a block at @to; they are written there before
 * pcapng_packet() is called.
 */
#define PCAPNG_DATA 28u
size_t pcapng_packet(uint8_t *to, const struct pcapng_packet *packet);

/** True if the first bytes of a file, PCAPNG_MARK of them, are those of a section of ours. */
bool pcapng_is_ours(const uint8_t *bytes);
