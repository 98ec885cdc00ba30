/* SPDX-License-Identifier: BSD-3-Clause */
/* config_private.h - what the files that read a configuration share */
#pragma once

#include "control/config.h"

/** Reads the mapping under `disks`, from names to options. */
void config_read_disks(struct config *config, const struct node *disks, struct mistakes *mistakes);
void config_release_disks(struct config *config);

/** The index of the disk that @node names; CONFIG_NO_DISK, after a mistake about @kind, if none. */
unsigned config_read_disk_name(struct mistakes *mistakes, const struct node *node,
			       const char *where, const char *kind, const struct config *config);

/** Checks that the key of @node, in @where, can be a name. */
void config_check_name(struct mistakes *mistakes, const struct node *node, const char *where);

/** Reads `switches`, `nics` and `uplinks`, those that are there; before VMs, which have NICs. */
void config_read_net(struct config *config, const struct node *tree, struct mistakes *mistakes);
/** What can only be checked when VMs have been read, too. */
void config_check_net(const struct config *config, const struct node *tree,
		      struct mistakes *mistakes);
void config_release_net(struct config *config);

/** The index of the NIC that @node names; CONFIG_NO_NIC, after a mistake about @kind, if none. */
unsigned config_read_nic_name(struct mistakes *mistakes, const struct node *node, const char *where,
			      const char *kind, const struct config *config);

/** Reads the mapping under `vms`, from names to lists of devices, when disks and NICs are read. */
void config_read_vms(struct config *config, const struct node *vms, struct mistakes *mistakes);
void config_release_vms(struct config *config);

/** Reads the list under `nbd`, when disks and VMs are read. */
void config_read_nbd(struct config *config, const struct node *list, struct mistakes *mistakes);
void config_release_nbd(struct config *config);
