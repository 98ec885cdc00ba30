/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_filter.h - which packets are captured: an expression in the language of pcap-filter(7)
 *
 * libpcap compiles it to a program of the classic BPF machine, which is run here on packets as
 * they are: a head, a body that is elsewhere, a tag that has been taken out. A program sees them as
 * they look on a wire, with the tag. What it reads is nearly always in the head.
 */
#pragma once

#include <stdbool.h>

#include "packet/packet.h"

struct bpf_insn;
struct error;

struct capture_filter {
	struct bpf_insn *code; /**< checked; NULL: all packets match */
	unsigned count;
};

/**
 * Compiles @text; NULL or "" matches all. 0, or -EINVAL with @err. Names of hosts are looked up,
 * which may take a while.
 */
int capture_filter_compile(struct capture_filter *filter, const char *text, struct error *err);
void capture_filter_release(struct capture_filter *filter);

/** True if @packet matches @filter, which has code. Its loop's thread. */
bool capture_filter_run(const struct capture_filter *filter, const struct packet *packet);

static inline bool capture_filter_matches(const struct capture_filter *filter,
					  const struct packet *packet)
{
	return !filter->code || capture_filter_run(filter, packet);
}
