/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link_format.h - what two daemons say to each other on a link: docs/link-format.md
 *
 * A hello, then records: a header and a frame. All numbers are little-endian.
 */
#pragma once

#include <stdint.h>

struct error;
struct packet;

#define LINK_VERSION 1u
#define LINK_HELLO   32u /**< bytes */
#define LINK_HEADER  16u /**< bytes */

/** What a daemon says of itself. */
struct link_hello {
	uint32_t accepts; /**< OFFLOAD_ that its side takes; bits that the reader does not know are
			     0 */
	uint32_t mtu;     /**< longest IP packet of its port */
};

void link_hello_write(const struct link_hello *hello, uint8_t *to);
/** 0, or -EPROTO with @err. */
int link_hello_read(const uint8_t *bytes, struct link_hello *hello, struct error *err);

/** Bytes of the frame behind @header. 0, or -EPROTO with @err. */
int link_header_read(const uint8_t *header, uint32_t *length, struct error *err);
/** What @header says of @packet: offloads and tag. */
void link_header_apply(const uint8_t *header, struct packet *packet);
void link_header_write(const struct packet *packet, uint32_t length, uint8_t *header);
