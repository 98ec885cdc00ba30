/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror_report.c - the state of a mirror, for status, metrics and the API */
#include <jansson.h>

#include "layer/mirror.h"

static const char *leg_state(const struct mirror *m, unsigned i)
{
	const struct mirror_leg *leg = &m->leg[i];

	if (leg->state == LEG_FAILED)
		return "failed";
	if (leg->state == LEG_STALE || atomic_load(&leg->need_count))
		return "resyncing";
	return "in-sync";
}

static json_t *leg_report(const struct mirror *m, unsigned i)
{
	const struct mirror_leg *leg = &m->leg[i];
	char text[MIRROR_UUID_TEXT];
	json_t *json = json_pack("{s:s, s:s, s:I}", "leg", leg->name, "state", leg_state(m, i),
				 "errors", (json_int_t)atomic_load(&leg->errors));

	if (leg->member)
		json_object_set_new(json, "member",
				    json_string(mirror_uuid_text(&leg->uuid, text)));
	if (leg->state == LEG_FAILED)
		json_object_set_new(json, "reason", json_string(leg->reason));
	else
		json_object_set_new(
			json, "bytes-to-copy",
			json_integer((json_int_t)(atomic_load(&leg->need_count) << m->shift)));
	return json;
}

static const char *state_of(const struct mirror *m)
{
	bool failed = false, resyncing = false;

	if (!atomic_load(&m->readable))
		return "failed";
	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		failed |= m->leg[i].state == LEG_FAILED;
		resyncing |= *leg_state(m, i) == 'r';
	}
	return failed ? "degraded" : *m->stalled ? "stalled" : resyncing ? "resyncing" : "in-sync";
}

/* How much of what was to copy when it began is copied, in percent. */
static double progress(const struct mirror *m)
{
	const struct mirror_sync *s = &m->sync;
	uint64_t left = atomic_load(&m->leg[s->target].need_count) << m->shift;

	return s->total > left ? 100.0 * (double)(s->total - left) / (double)s->total : 0;
}

json_t *mirror_report(struct layer *layer)
{
	struct mirror *m = (struct mirror *)layer;
	char text[MIRROR_UUID_TEXT];
	json_t *json, *legs = json_array();
	uint64_t to_copy = 0;
	unsigned failed = 0;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < layer->leg_count; i++) {
		json_array_append_new(legs, leg_report(m, i));
		failed += m->leg[i].state == LEG_FAILED;
		if (m->leg[i].state != LEG_FAILED)
			to_copy += atomic_load(&m->leg[i].need_count) << m->shift;
	}
	json = json_pack("{s:s, s:s, s:I, s:i, s:i, s:I, s:I, s:I, s:o}", "state", state_of(m),
			 "mirror", mirror_uuid_text(&m->table.set, text), "generation",
			 (json_int_t)m->table.stamp.generation, "in-sync",
			 __builtin_popcount(atomic_load(&m->readable)), "failed-legs", (int)failed,
			 "bytes-to-copy", (json_int_t)to_copy, "region-size",
			 (json_int_t)1 << m->shift, "dirty-regions",
			 (json_int_t)atomic_load(&m->dirty), "legs", legs);
	if (m->sync.running)
		json_object_set_new(json, "resync",
				    json_pack("{s:s, s:f, s:I}", "to", m->leg[m->sync.target].name,
					      "percent", progress(m), "bytes-copied",
					      (json_int_t)atomic_load(&m->sync.copier.bytes)));
	if (*m->stalled)
		json_object_set_new(json, "stalled", json_string(m->stalled));
	pthread_mutex_unlock(&m->lock);
	return json;
}
