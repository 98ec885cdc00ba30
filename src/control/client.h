/* SPDX-License-Identifier: BSD-3-Clause */
/* client.h - commands that ask a running penstock; each returns the exit status */
#pragma once

struct invocation;

int client_status(const struct invocation *in);
int client_resize(const struct invocation *in);
int client_qemu_args(const struct invocation *in);
