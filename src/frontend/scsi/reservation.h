/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reservation.h - persistent reservations of one disk: the state, its rules, its file
 *
 * The state is a value. A command makes a copy, changes it by the rules (reservation_rules.c), has
 * it stored if it is to outlive us (reservation_file.c), and only then puts it in the place of the
 * old one (reservation.c): what fails has changed nothing.
 *
 * An I_T nexus is known by the VM, the device and the target, as text ("web/scsi0:2"): that is what
 * stays the same over restarts.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "frontend/scsi/scsi_private.h"

struct error;

/* Most registrations of a disk. */
#define RESERVATION_REGISTRANTS 64

/* SPC-4, table 176 */
enum reservation_type {
	RESERVATION_NONE = 0,
	WRITE_EXCLUSIVE = 1,
	EXCLUSIVE_ACCESS = 3,
	WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5,
	EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6,
	WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7,
	EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8,
};

struct registrant {
	uint64_t key; /* not 0 */
	char nexus[SCSI_NEXUS_MAX];
};

struct reservations {
	uint32_t generation; /* PRGENERATION: of this run of the program, as of one power on */
	uint8_t type;        /* enum reservation_type */
	bool persist;        /* APTPL */
	unsigned count;
	int holder; /* of @registrants; -1: nobody, or all of them */
	struct registrant registrants[RESERVATION_REGISTRANTS];
};

/* --- reservation_rules.c: SPC-4, 5.13 ----------------------------------------------- */

enum reserve_action {
	PR_REGISTER,
	PR_RESERVE,
	PR_RELEASE,
	PR_CLEAR,
	PR_PREEMPT,
	PR_PREEMPT_AND_ABORT,
	PR_REGISTER_AND_IGNORE,
};

/* What a PERSISTENT RESERVE OUT asks for. */
struct reserve_request {
	enum reserve_action action;
	const char *nexus; /* who asks */
	uint64_t key, action_key;
	uint8_t type;
	bool persist;
};

enum reserve_result {
	RESERVE_GOOD,
	RESERVE_CONFLICT,      /* status RESERVATION CONFLICT */
	RESERVE_NO_ROOM,       /* INSUFFICIENT REGISTRATION RESOURCES */
	RESERVE_BAD_RELEASE,   /* INVALID RELEASE OF PERSISTENT RESERVATION */
	RESERVE_BAD_ACTION_KEY /* INVALID FIELD IN PARAMETER LIST: the service action key */
};

/* What the registrants from before have to be told: enum attention, or -1, for each of them. */
struct reserve_effects {
	int8_t tell[RESERVATION_REGISTRANTS];
};

bool reservation_type_valid(uint8_t type);
bool reservation_for_all(uint8_t type);
/* Index of @nexus among the registrants, or -1. */
int reservation_find(const struct reservations *state, const char *nexus);
/* Does as @request says; @effects is by the registrants as they were. */
enum reserve_result reservation_apply(struct reservations *state,
				      const struct reserve_request *request,
				      struct reserve_effects *effects);
/* CONFLICT_* bits: what @state forbids @nexus. */
unsigned reservation_conflicts(const struct reservations *state, const char *nexus);

/* --- reservation_file.c: docs/reservations-format.md ---------------------------------- */

/* Reads what was stored for the disk @disk. No file: no reservations. 0, or -errno with @err. */
int reservation_load(const char *path, const char *disk, struct reservations *state,
		     struct error *err);
/*
 * Stores what of @state is to outlive us: all of it, or nothing if it is not to persist. On success
 * it is on stable storage; on failure what was stored before is still there. Blocks.
 */
int reservation_store(const char *path, const char *disk, const struct reservations *state,
		      struct error *err);
