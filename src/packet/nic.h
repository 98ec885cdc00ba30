/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nic.h - a virtual network card as its user describes it ("nics" in a configuration)
 *
 *     nics:
 *       lan0: {switch: lan, mac: "52:54:00:12:34:56", vlan: 10, layers: [antispoof, ...]}
 *
 * A front-end's device (virtio-net) is given a plan with its settings and the switch; the device
 * makes the port itself (port_create(), with its own ops), and destroys it.
 */
#pragma once

#include "packet/port.h"
#include "packet/vswitch.h"

/** What a NIC has beyond the options of a port. */
struct nic_config {
	char *mac; /**< "52:54:00:12:34:56"; NULL: made from the NIC's name, the same each time */
};
extern const struct option nic_options[]; /**< into struct nic_config */

/** What a device is made from. */
struct nic_plan {
	const char *name;
	struct vswitch *vswitch;
	const struct port_config
		*config; /**< the plan's: port_create() wants a copy, see port_config_copy() */
	uint8_t mac[6];
};

/** The address of the NIC called @name: what its configuration says, or a local one made from its
 * name and the VM's. */
void nic_mac(const struct nic_config *config, const char *name, uint8_t mac[6]);

/** A copy with texts of its own. 0 or -ENOMEM. */
int port_config_copy(struct port_config *to, const struct port_config *from);
