/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_sum.c - completes checksums in copies of packets; see capture_sum.h
 *
 * A sender that leaves a sum to us has put the sum of the pseudo header there (virtio 1.2, 5.1.6.2)
 * so what is missing is that of the rest. Of a packet that is to be cut, drivers differ in which
 * length they count in, so its pseudo header is summed here.
 */
#include "packet/layer/capture_sum.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/frame.h"

#define TCP_SUM 16u /* where TCP and UDP have their sums */
#define UDP_SUM 6u

/* The sum of the pseudo header of what begins at @start and is @length long. False: no IP. */
static bool pseudo_sum(const uint8_t *frame, uint32_t start, uint32_t length, uint8_t protocol,
		       uint32_t *sum)
{
	uint32_t at = 12; /* behind the two addresses */
	uint8_t last[8] = { (uint8_t)(length >> 24), (uint8_t)(length >> 16),
			    (uint8_t)(length >> 8), (uint8_t)length, [7] = protocol };

	while (at + 4 < start && (frame[at] == 0x81 || frame[at] == 0x88) &&
	       (frame[at + 1] == 0x00 || frame[at + 1] == 0xa8))
		at += 4;
	at += 2;
	if (at + 20 <= start && frame[at] >> 4 == 4)
		*sum = sum_bytes(frame + at + 12, 8, 0);
	else if (at + 40 <= start && frame[at] >> 4 == 6)
		*sum = sum_bytes(frame + at + 8, 32, 0);
	else
		return false;
	*sum = sum_bytes(last, sizeof last, *sum);
	return true;
}

bool capture_sum(uint8_t *frame, uint32_t length, uint32_t start, uint32_t offset, bool large)
{
	uint32_t sum = 0;
	uint16_t result;

	if (start < 14 || start > length || offset + 2 > length - start)
		return false;
	if (large && (offset == TCP_SUM || offset == UDP_SUM) &&
	    pseudo_sum(frame, start, length - start, offset == TCP_SUM ? IPPROTO_TCP : IPPROTO_UDP,
		       &sum))
		memset(frame + start + offset, 0, 2);
	sum = sum_bytes(frame + start, length - start, sum);
	result = (uint16_t)~sum;
	/* Zero would mean that there is none; its other form is the same sum (RFC 768). */
	if (!result)
		result = 0xffff;
	memcpy(frame + start + offset, &result, sizeof result);
	return true;
}
