/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_rules.c - commands of a NIC's control queue, and the filter that they make; see net_rules.h
 *
 * A command is believed as far as it fits: what it says of lengths is held against what it has. The
 * bytes are copied before they are judged, since the driver may go on writing them.
 *
 * Before its first command about addresses a driver gets everything, as it does of other devices:
 * one that has no use for filters never sends any.
 */
#include "frontend/virtio/net_rules.h"

#include <endian.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "frontend/virtio/net_private.h"
#include "packet/frame.h"
#include "packet/offload.h"

/* --- what holds at first ------------------------------------------------------------- */

static unsigned accepts_of(uint64_t features)
{
	unsigned accepts = 0;

	if (!(features >> VIRTIO_NET_F_GUEST_CSUM & 1))
		return 0;
	accepts |= OFFLOAD_CSUM;
	if (features >> VIRTIO_NET_F_GUEST_TSO4 & 1)
		accepts |= OFFLOAD_TSO4;
	if (features >> VIRTIO_NET_F_GUEST_TSO6 & 1)
		accepts |= OFFLOAD_TSO6;
	if (features >> VIRTIO_NET_F_GUEST_ECN & 1)
		accepts |= OFFLOAD_ECN;
	if (features >> NET_F_GUEST_USO4 & 1)
		accepts |= OFFLOAD_USO4;
	if (features >> NET_F_GUEST_USO6 & 1)
		accepts |= OFFLOAD_USO6;
	return accepts;
}

static bool has(uint64_t features, unsigned feature)
{
	return features >> feature & 1;
}

void net_rules_init(struct net_rules *rules, uint64_t features, unsigned pairs,
		    const uint8_t mac[6])
{
	*rules = (struct net_rules){
		.accepts = accepts_of(features),
		.data_valid = has(features, VIRTIO_NET_F_GUEST_CSUM),
		.pairs = (uint16_t)pairs,
	};
	/* Who has a control queue says how many it uses; until then it is one (5.1.6.5.6). */
	if (!has(features, VIRTIO_NET_F_MQ) || has(features, VIRTIO_NET_F_CTRL_VQ))
		rules->pairs = 1;
	rules->filter_vlans = has(features, VIRTIO_NET_F_CTRL_VQ) &&
			      has(features, VIRTIO_NET_F_CTRL_VLAN);
	memcpy(rules->mac, mac, sizeof rules->mac);
}

/* --- commands ------------------------------------------------------------------------ */

/* A command, and how far it has been read. */
struct command {
	struct net_rules *rules;
	uint64_t features;
	unsigned pairs;
	struct io_data in;
	uint64_t bytes, at;
};

/* The next @length bytes of it; false if it has fewer. */
static bool take(struct command *c, void *to, uint64_t length)
{
	if (length > c->bytes - c->at)
		return false;
	io_data_copy_out(io_data_slice(c->in, c->at), to, length);
	c->at += length;
	return true;
}

static bool receive_mode(struct command *c, uint8_t what)
{
	struct net_rules *rules = c->rules;
	bool *const modes[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &rules->promiscuous,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &rules->all_multicast,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &rules->all_unicast,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &rules->no_multicast,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &rules->no_unicast,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &rules->no_broadcast,
	};
	unsigned feature = what > VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX_EXTRA
							      : VIRTIO_NET_F_CTRL_RX;
	uint8_t on;

	if (what >= sizeof modes / sizeof *modes || !has(c->features, feature) || !take(c, &on, 1))
		return false;
	*modes[what] = on;
	rules->filter = true;
	return true;
}

static bool take_macs(struct command *c, struct net_macs *macs)
{
	uint32_t entries;

	if (!take(c, &entries, sizeof entries))
		return false;
	entries = le32toh(entries);
	*macs = (struct net_macs){ .all = entries > NET_MACS };
	if (macs->all) {
		if (entries > (c->bytes - c->at) / sizeof macs->mac[0])
			return false;
		c->at += (uint64_t)entries * sizeof macs->mac[0];
		return true;
	}
	macs->count = (uint16_t)entries;
	return take(c, macs->mac, entries * sizeof macs->mac[0]);
}

static bool set_macs(struct command *c, uint8_t what)
{
	struct net_rules *rules = c->rules;

	if (what == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		uint8_t mac[6];

		if (!has(c->features, VIRTIO_NET_F_CTRL_MAC_ADDR) || !take(c, mac, sizeof mac) ||
		    mac_is_multicast(mac))
			return false;
		memcpy(rules->mac, mac, sizeof mac);
		return true;
	}
	if (what != VIRTIO_NET_CTRL_MAC_TABLE_SET || !has(c->features, VIRTIO_NET_F_CTRL_RX) ||
	    !take_macs(c, &rules->unicast) || !take_macs(c, &rules->multicast))
		return false;
	rules->filter = true;
	return true;
}

static bool set_vlan(struct command *c, uint8_t what)
{
	uint64_t *vlans = c->rules->vlans;
	uint16_t vlan;

	if (!has(c->features, VIRTIO_NET_F_CTRL_VLAN) || what > VIRTIO_NET_CTRL_VLAN_DEL ||
	    !take(c, &vlan, sizeof vlan))
		return false;
	vlan = le16toh(vlan);
	if (vlan > 4095)
		return false;
	if (what == VIRTIO_NET_CTRL_VLAN_ADD)
		vlans[vlan / 64] |= 1ull << vlan % 64;
	else
		vlans[vlan / 64] &= ~(1ull << vlan % 64);
	return true;
}

static bool set_pairs(struct command *c, uint8_t what)
{
	uint16_t pairs;

	if (!has(c->features, VIRTIO_NET_F_MQ) || what != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
	    !take(c, &pairs, sizeof pairs))
		return false;
	pairs = le16toh(pairs);
	if (!pairs || pairs > c->pairs)
		return false;
	c->rules->pairs = pairs;
	return true;
}

/* The driver may switch off what it has negotiated, and on again. */
static bool set_offloads(struct command *c, uint8_t what)
{
	uint64_t offloads;

	if (!has(c->features, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    what != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || !take(c, &offloads, sizeof offloads))
		return false;
	offloads = le64toh(offloads);
	if (offloads & ~(c->features & NET_GUEST_OFFLOADS))
		return false;
	c->rules->accepts = accepts_of(offloads);
	c->rules->data_valid = has(offloads, VIRTIO_NET_F_GUEST_CSUM);
	return true;
}

static bool carry_out(struct command *c, const struct virtio_net_ctrl_hdr *header)
{
	switch (header->class) {
	case VIRTIO_NET_CTRL_RX:
		return receive_mode(c, header->cmd);
	case VIRTIO_NET_CTRL_MAC:
		return set_macs(c, header->cmd);
	case VIRTIO_NET_CTRL_VLAN:
		return set_vlan(c, header->cmd);
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(c, header->cmd);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return set_offloads(c, header->cmd);
	default:
		return false;
	}
}

enum net_command net_rules_command(struct net_rules *rules, uint64_t features, unsigned pairs,
				   struct io_data in, uint64_t bytes)
{
	struct net_rules changed = *rules;
	struct command c = {
		.rules = &changed, .features = features, .pairs = pairs, .in = in, .bytes = bytes
	};
	struct virtio_net_ctrl_hdr header;

	if (!take(&c, &header, sizeof header))
		return NET_REFUSED;
	if (header.class == VIRTIO_NET_CTRL_ANNOUNCE)
		return header.cmd == VIRTIO_NET_CTRL_ANNOUNCE_ACK &&
				       has(features, VIRTIO_NET_F_GUEST_ANNOUNCE)
			       ? NET_ANNOUNCED
			       : NET_REFUSED;
	if (!carry_out(&c, &header))
		return NET_REFUSED;
	*rules = changed;
	return NET_RULES_CHANGED;
}

/* --- the filter ---------------------------------------------------------------------- */

static bool in_table(const struct net_macs *macs, const uint8_t *mac)
{
	for (unsigned i = 0; i < macs->count; i++)
		if (!memcmp(macs->mac[i], mac, sizeof macs->mac[i]))
			return true;
	return macs->all;
}

static bool wants_address(const struct net_rules *rules, const uint8_t *mac)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (rules->promiscuous)
		return true;
	if (!memcmp(mac, broadcast, sizeof broadcast))
		return !rules->no_broadcast;
	if (mac_is_multicast(mac))
		return !rules->no_multicast &&
		       (rules->all_multicast || in_table(&rules->multicast, mac));
	return !rules->no_unicast &&
	       (rules->all_unicast || !memcmp(mac, rules->mac, sizeof rules->mac) ||
		in_table(&rules->unicast, mac));
}

bool net_rules_wants_slow(const struct net_rules *rules, const uint8_t *head, bool tagged,
			  uint16_t tag)
{
	unsigned vlan = tag & 0xfff;

	if (tagged && rules->filter_vlans && !(rules->vlans[vlan / 64] >> vlan % 64 & 1))
		return false;
	return !rules->filter || wants_address(rules, head);
}
