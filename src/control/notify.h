/* SPDX-License-Identifier: BSD-3-Clause */
/* notify.h - tells systemd how the service is, see sd_notify(3) */
#pragma once

/**
 * Sends @state, such as "READY=1", to $NOTIFY_SOCKET, if there is one. Our own few lines: all there
 * is to it is one datagram, and libsystemd would bring a dozen libraries along.
 */
void notify(const char *state);
