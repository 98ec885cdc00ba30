/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_rules.h - what a driver wants of its NIC: which frames it is given, at how many queues, with
 * what left undone
 *
 * A driver says it by its features, and by commands in the control queue (virtio 1.2, 5.1.6.5) if
 * its VMM gives us that queue. Most keep it for themselves; then all frames are delivered, as the
 * switch has chosen them by their address already.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"

#define NET_MACS 64u /**< addresses of a table; a longer one lets through all of its kind */

/** A table of addresses, as the driver has set it. */
struct net_macs {
	bool all; /**< it was longer */
	uint16_t count;
	uint8_t mac[NET_MACS][6];
};

struct net_rules {
	unsigned accepts; /**< OFFLOAD_ that the driver takes */
	bool data_valid;  /**< it takes VIRTIO_NET_HDR_F_DATA_VALID */
	uint16_t pairs;   /**< of queues that it uses, from the first on */
	bool filter;      /**< it has said which addresses it wants; else all */
	bool promiscuous, all_multicast, all_unicast;
	bool no_multicast, no_unicast, no_broadcast;
	uint8_t mac[6];
	struct net_macs unicast, multicast;
	bool filter_vlans;
	uint64_t vlans[4096 / 64]; /**< with @filter_vlans: those whose tagged frames it wants */
};

/** What holds after the driver has chosen @features, before any command; @pairs are there. */
void net_rules_init(struct net_rules *rules, uint64_t features, unsigned pairs,
		    const uint8_t mac[6]);

/** What a command was about, beyond the rules. */
enum net_command { NET_REFUSED, NET_RULES_CHANGED, NET_ANNOUNCED };

/**
 * Carries out the command of @bytes bytes in @in: class, command, data. Of a driver with @features,
 * and a device with @pairs pairs of queues. @rules have changed only if it says so.
 */
enum net_command net_rules_command(struct net_rules *rules, uint64_t features, unsigned pairs,
				   struct io_data in, uint64_t bytes);

/** Whether the driver wants the frame that begins with @head (14 bytes). */
bool net_rules_wants_slow(const struct net_rules *rules, const uint8_t *head, bool tagged,
			  uint16_t tag);

static inline bool net_rules_filter(const struct net_rules *rules)
{
	return rules->filter | rules->filter_vlans;
}
