/* SPDX-License-Identifier: BSD-3-Clause */
/* changes.h - routes of the control API that change something; see changes.c, and routes.h */
#pragma once

#include "control/routes.h"

unsigned change_resize_disk(struct call *call);
unsigned change_add_disk(struct call *call);
unsigned change_remove_disk(struct call *call);
unsigned change_set_disk(struct call *call);
unsigned change_attach(struct call *call);
unsigned change_detach(struct call *call);

/* changes_layers.c */
unsigned change_get_stack(struct call *call);
unsigned change_set_stack(struct call *call);
unsigned change_insert_layer(struct call *call);
unsigned change_remove_layer(struct call *call);
unsigned change_set_layer(struct call *call);
unsigned change_reorder(struct call *call);
unsigned change_add_leg(struct call *call);
unsigned change_remove_leg(struct call *call);
unsigned change_undo(struct call *call);
unsigned change_get_move(struct call *call);
unsigned change_begin_move(struct call *call);
unsigned change_limit_move(struct call *call);
unsigned change_cancel_move(struct call *call);

/* changes_net.c */
unsigned route_ports(struct call *call);
unsigned route_switches(struct call *call);
unsigned route_switch(struct call *call);
unsigned route_addresses(struct call *call);
unsigned change_set_port(struct call *call);
unsigned change_forget(struct call *call);

/** Answers that there is no port @name. */
unsigned route_no_port(struct call *call, const char *name);

/** Answers with the port that the path names. */
unsigned route_port(struct call *call);

/* --- what all routes have in common: routes.c ---------------------------------------- */

/** Answers with {"error": TEXT}; returns @status. */
unsigned route_fail(struct call *call, unsigned status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** Answers with @json, which it takes over; NULL: memory is short. */
unsigned route_answer(struct call *call, json_t *json);

/** Answers that there is no disk @name. */
unsigned route_no_disk(struct call *call, const char *name);

/** Answers with the disk that the path names. */
unsigned route_disk(struct call *call);

/** Answers with the unit that the path names. */
unsigned route_unit(struct call *call);
