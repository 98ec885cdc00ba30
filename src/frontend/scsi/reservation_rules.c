/* SPDX-License-Identifier: BSD-3-Clause */
/* reservation_rules.c - what PERSISTENT RESERVE OUT does to the state (SPC-4, 5.13 and 6.16) */
#include <string.h>

#include "frontend/scsi/reservation.h"

bool reservation_type_valid(uint8_t type)
{
	return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

bool reservation_for_all(uint8_t type)
{
	return type == WRITE_EXCLUSIVE_ALL_REGISTRANTS || type == EXCLUSIVE_ACCESS_ALL_REGISTRANTS;
}

static bool for_registrants(uint8_t type)
{
	return type >= WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
}

int reservation_find(const struct reservations *state, const char *nexus)
{
	for (unsigned i = 0; i < state->count; i++)
		if (!strcmp(state->registrants[i].nexus, nexus))
			return (int)i;
	return -1;
}

unsigned reservation_conflicts(const struct reservations *state, const char *nexus)
{
	int who = state->type ? reservation_find(state, nexus) : -1;

	if (!state->type || (who >= 0 && (who == state->holder || for_registrants(state->type))))
		return 0;
	return state->type == WRITE_EXCLUSIVE || state->type == WRITE_EXCLUSIVE_REGISTRANTS_ONLY ||
			       state->type == WRITE_EXCLUSIVE_ALL_REGISTRANTS
		       ? CONFLICT_WRITE
		       : CONFLICT_READ | CONFLICT_WRITE;
}

static bool holds(const struct reservations *state, int who)
{
	return state->type && (who == state->holder || reservation_for_all(state->type));
}

static void end_reservation(struct reservations *state)
{
	state->type = RESERVATION_NONE;
	state->holder = -1;
}

/* Removes those registrants that @gone marks; the holder's index moves with it. */
static void remove_marked(struct reservations *state, const bool *gone)
{
	unsigned kept = 0;
	int holder = -1;

	for (unsigned i = 0; i < state->count; i++) {
		if (gone[i])
			continue;
		if ((int)i == state->holder)
			holder = (int)kept;
		if (kept != i)
			state->registrants[kept] = state->registrants[i];
		kept++;
	}
	memset(&state->registrants[kept], 0, (state->count - kept) * sizeof *state->registrants);
	state->count = kept;
	state->holder = holder;
}

static void tell_others(const struct reservations *state, int who, enum attention what,
			struct reserve_effects *effects)
{
	for (unsigned i = 0; i < state->count; i++)
		if ((int)i != who)
			effects->tell[i] = (int8_t)what;
}

/* --- registering -------------------------------------------------------------------- */

static void unregister(struct reservations *state, int who, struct reserve_effects *effects)
{
	bool gone[RESERVATION_REGISTRANTS] = { false };
	bool ends = state->type && (who == state->holder ||
				    (reservation_for_all(state->type) && state->count == 1));

	if (ends && for_registrants(state->type))
		tell_others(state, who, ATTENTION_RESERVATION_RELEASED, effects);
	gone[who] = true;
	remove_marked(state, gone);
	if (ends)
		end_reservation(state);
}

static enum reserve_result do_register(struct reservations *state, const struct reserve_request *r,
				       int who, struct reserve_effects *effects)
{
	uint64_t now = who < 0 ? 0 : state->registrants[who].key;

	if (r->action == PR_REGISTER && r->key != now)
		return RESERVE_CONFLICT;
	if (who < 0 && r->action_key) {
		struct registrant *new = &state->registrants[state->count];

		if (state->count == RESERVATION_REGISTRANTS)
			return RESERVE_NO_ROOM;
		state->count++;
		strcpy(new->nexus, r->nexus);
		new->key = r->action_key;
	} else if (who < 0) {
		return RESERVE_GOOD; /* unregistered, and stays so */
	} else if (r->action_key) {
		state->registrants[who].key = r->action_key;
	} else {
		unregister(state, who, effects);
	}
	state->persist = r->persist;
	state->generation++;
	return RESERVE_GOOD;
}

/* --- the reservation ------------------------------------------------------------------ */

static enum reserve_result do_reserve(struct reservations *state, const struct reserve_request *r,
				      int who)
{
	if (state->type)
		return holds(state, who) && state->type == r->type ? RESERVE_GOOD
								   : RESERVE_CONFLICT;
	state->type = r->type;
	state->holder = reservation_for_all(r->type) ? -1 : who;
	return RESERVE_GOOD;
}

static enum reserve_result do_release(struct reservations *state, const struct reserve_request *r,
				      int who, struct reserve_effects *effects)
{
	if (!holds(state, who))
		return RESERVE_GOOD;
	if (state->type != r->type)
		return RESERVE_BAD_RELEASE;
	if (for_registrants(state->type))
		tell_others(state, who, ATTENTION_RESERVATION_RELEASED, effects);
	end_reservation(state);
	return RESERVE_GOOD;
}

static enum reserve_result do_clear(struct reservations *state, int who,
				    struct reserve_effects *effects)
{
	bool gone[RESERVATION_REGISTRANTS];

	tell_others(state, who, ATTENTION_RESERVATION_PREEMPTED, effects);
	memset(gone, true, sizeof gone);
	remove_marked(state, gone);
	end_reservation(state);
	state->generation++;
	return RESERVE_GOOD;
}

/*
 * Takes away the registrations with the service action key; and the reservation too, if its holder
 * has that key, or if it is everybody's and the key is 0: then the one who asks has it (5.13.11.4).
 */
static enum reserve_result do_preempt(struct reservations *state, const struct reserve_request *r,
				      int who, struct reserve_effects *effects)
{
	bool all = reservation_for_all(state->type), any = false;
	bool takes = state->type && (all ? !r->action_key
					 : state->registrants[state->holder].key == r->action_key);
	bool gone[RESERVATION_REGISTRANTS] = { false };
	uint8_t type = state->type;

	if (!r->action_key && !(all && takes))
		return RESERVE_BAD_ACTION_KEY;
	for (unsigned i = 0; i < state->count; i++) {
		bool matches = !r->action_key || state->registrants[i].key == r->action_key;

		any |= matches;
		gone[i] = matches && !((int)i == who && takes);
		if (gone[i] && (int)i != who)
			effects->tell[i] = ATTENTION_REGISTRATION_PREEMPTED;
		else if (takes && (int)i != who && type != r->type)
			effects->tell[i] = ATTENTION_RESERVATION_RELEASED;
	}
	if (!any)
		return RESERVE_CONFLICT;
	remove_marked(state, gone);
	if (takes) {
		state->type = r->type;
		state->holder = reservation_for_all(r->type) ? -1
							     : reservation_find(state, r->nexus);
	} else if (all && !state->count) {
		end_reservation(state);
	}
	state->generation++;
	return RESERVE_GOOD;
}

enum reserve_result reservation_apply(struct reservations *state,
				      const struct reserve_request *request,
				      struct reserve_effects *effects)
{
	int who = reservation_find(state, request->nexus);

	memset(effects->tell, -1, sizeof effects->tell);
	if (request->action == PR_REGISTER || request->action == PR_REGISTER_AND_IGNORE)
		return do_register(state, request, who, effects);
	if (who < 0 || state->registrants[who].key != request->key)
		return RESERVE_CONFLICT;
	switch (request->action) {
	case PR_RESERVE:
		return do_reserve(state, request, who);
	case PR_RELEASE:
		return do_release(state, request, who, effects);
	case PR_CLEAR:
		return do_clear(state, who, effects);
	default:
		return do_preempt(state, request, who, effects);
	}
}
