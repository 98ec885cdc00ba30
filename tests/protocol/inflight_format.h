/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inflight_format.h - the inflight region's two formats, version 1
 *
 * As the vhost-user specification gives them in "Inflight I/O tracking"; one such per queue, one
 * after the other. Written anew here, apart from the daemon's own, so that the tests check it
 * against the text.
 */
#pragma once

#include <stdint.h>

struct split_region {
	uint64_t features;
	uint16_t version, desc_num, last_batch_head, used_idx;
	struct {
		uint8_t inflight, padding[5];
		uint16_t next;
		uint64_t counter;
	} desc[];
};

struct packed_region {
	uint64_t features;
	uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
	uint8_t used_wrap, old_used_wrap, padding[7];
	struct {
		uint8_t inflight, padding;
		uint16_t next, last, num;
		uint64_t counter;
		uint16_t id, flags;
		uint32_t len;
		uint64_t addr;
	} desc[];
};
