/* SPDX-License-Identifier: BSD-3-Clause */
/* registry.c - all kinds of layers for packets, and of uplinks; one row each */
#include <string.h>

#include "packet/packet_layer.h"
#include "packet/uplink.h"

extern const struct packet_layer_ops antispoof_layer;
extern const struct packet_layer_ops capture_layer;
extern const struct packet_layer_ops count_layer;
extern const struct packet_layer_ops impair_layer;

extern const struct uplink_ops link_uplink;
extern const struct uplink_ops packet_uplink;
extern const struct uplink_ops pcap_uplink;
extern const struct uplink_ops tap_uplink;
extern const struct uplink_ops user_uplink;

const struct packet_layer_ops *const packet_layer_registry[] = {
	&antispoof_layer, &capture_layer, &count_layer, &impair_layer, NULL,
};

const struct uplink_ops *const uplink_registry[] = {
	&link_uplink, &packet_uplink, &pcap_uplink, &tap_uplink, &user_uplink, NULL,
};

const struct packet_layer_ops *packet_layer_find(const char *name)
{
	for (unsigned i = 0; packet_layer_registry[i]; i++)
		if (!strcmp(packet_layer_registry[i]->name, name))
			return packet_layer_registry[i];
	return NULL;
}

const struct uplink_ops *uplink_find(const char *name)
{
	for (unsigned i = 0; uplink_registry[i]; i++)
		if (!strcmp(uplink_registry[i]->name, name))
			return uplink_registry[i];
	return NULL;
}
