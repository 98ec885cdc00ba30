/* SPDX-License-Identifier: BSD-3-Clause */
/* client.h - commands that ask a running penstock; each returns the exit status */
#pragma once

struct invocation;

/* client_status.c */
int client_status(const struct invocation *in);

/* client_change.c */
int client_resize(const struct invocation *in);
int client_add_disk(const struct invocation *in);
int client_remove_disk(const struct invocation *in);
int client_insert(const struct invocation *in);
int client_eject(const struct invocation *in);
int client_attach(const struct invocation *in);
int client_detach(const struct invocation *in);

/* client_layers.c */
int client_stack(const struct invocation *in);
int client_insert_layer(const struct invocation *in);
int client_remove_layer(const struct invocation *in);
int client_move_layer(const struct invocation *in);
int client_set_layer(const struct invocation *in);
int client_add_leg(const struct invocation *in);
int client_remove_leg(const struct invocation *in);
int client_undo(const struct invocation *in);
int client_config(const struct invocation *in);

/* client_net.c */
int client_set_port(const struct invocation *in);
int client_addresses(const struct invocation *in);
int client_forget(const struct invocation *in);

/* client_move.c */
int client_move(const struct invocation *in);

/* client_capture.c */
int client_capture(const struct invocation *in);

/* qemu.c */
int client_qemu_args(const struct invocation *in);
