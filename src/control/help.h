/* SPDX-License-Identifier: BSD-3-Clause */
/* help.h - `penstock help` */
#pragma once

struct invocation;

/**
 * Of a command, a device, a layer, a back-end or an uplink, or of the whole; or names, for the
 * completion of shells. Returns the exit status.
 */
int command_help(const struct invocation *in);
