/* SPDX-License-Identifier: BSD-3-Clause */
/* capture_sum.h - the checksum that a sender has left to us, in the copy of a packet */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * Completes the sum of a frame of @length bytes, all of which are in @frame, with its tags. @start:
 * where summing begins; @offset: where the sum is, from there (struct packet_offload, but for
 * tags). @large: the packet is to be cut, and what stands in place of the sum may be of one of its
 * segments. False, and nothing changed, if these make no sense.
 */
bool capture_sum(uint8_t *frame, uint32_t length, uint32_t start, uint32_t offset, bool large);
