/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change_plan.c - from the stack that is wanted to the layers that make it; see change.c
 *
 * The wanted stack is a list of wishes, those below before the one above. A wish takes a layer that
 * is there, of its kind and with its options; what is left over takes one of its kind that can be
 * prepared for other options; the rest is opened.
 *
 * A guest must go on seeing its data. So each layer has an origin: what its bytes come from. That
 * is itself, for a back-end and for a layer that presents other bytes than those below (crypt,
 * slice); that of what is below, for all others; and those of its legs that hold all it presents,
 * for a layer that keeps copies. A layer of the second kind is kept only over the origin that it
 * had, for it knows that one's header or map. And the wanted stack must have an origin in common
 * with the one there is.
 */
#include "layer/change_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ORIGINS_MAX 64

struct origins {
	const struct layer *of[ORIGINS_MAX];
	unsigned count;
};

/* --- the wishes ------------------------------------------------------------------------------ */

static void count_one(struct layer *layer, void *data)
{
	struct change *c = data;

	if (layer != c->disk->extent)
		c->there[c->there_count++] = layer;
}

static void count_all(struct layer *layer, void *count)
{
	(void)layer;
	++*(unsigned *)count;
}

static unsigned count_wishes(const struct stack_config *config)
{
	unsigned count = config->count;

	for (unsigned i = 0; i < config->count; i++)
		for (unsigned k = 0; k < config->layers[i].leg_count; k++)
			count += count_wishes(&config->layers[i].legs[k]);
	return count;
}

/* Adds the wishes of a list, and returns the index of its first + 1; 0: no memory. */
static unsigned add_wishes(struct change *c, const struct stack_config *config, bool read_only)
{
	unsigned below = 0;

	for (unsigned i = config->count; i-- > 0;) {
		const struct layer_config *layer = &config->layers[i];
		bool here = stack_read_only_at(config, i, read_only);
		unsigned *legs = calloc(layer->leg_count + 1, sizeof *legs);

		for (unsigned k = 0; legs && k < layer->leg_count; k++)
			if (!(legs[k] = add_wishes(c, &layer->legs[k], here))) {
				free(legs);
				legs = NULL;
			}
		if (!legs)
			return 0;
		c->wishes[c->count] = (struct wish){ .config = layer,
						     .read_only = here,
						     .part = stack_part_at(config, i),
						     .below = below,
						     .legs = legs };
		below = ++c->count;
	}
	return below;
}

/* --- where bytes come from ------------------------------------------------------------------- */

static void add_origin(struct origins *o, const struct layer *layer)
{
	if (o->count < ORIGINS_MAX)
		o->of[o->count++] = layer;
}

static bool in_common(const struct origins *a, const struct origins *b)
{
	for (unsigned i = 0; i < a->count; i++)
		for (unsigned k = 0; k < b->count; k++)
			if (a->of[i] == b->of[k])
				return true;
	return false;
}

static bool is_origin(const struct layer_ops *ops)
{
	return ops->alters || (ops->backend && !ops->holds);
}

static void origins_of(struct layer *layer, struct origins *o)
{
	if (is_origin(layer->ops)) {
		add_origin(o, layer);
		return;
	}
	if (layer->below)
		origins_of(layer->below, o);
	for (unsigned i = 0; layer->ops->holds && i < layer->leg_count; i++)
		if (layer->legs[i] && layer->ops->holds(layer, i))
			origins_of(layer->legs[i], o);
}

/* Those below are matched. What is opened anew has none, or begins as what is below, or its first
 * leg. */
static void origins_wanted(const struct change *c, const struct wish *w, struct origins *o)
{
	const struct layer_ops *ops = w->config->ops;
	bool kept = w->layer != NULL;

	if (kept && is_origin(ops)) {
		add_origin(o, w->layer);
		return;
	}
	if (w->below && (!ops->alters || ops->begins_as_below))
		origins_wanted(c, &c->wishes[w->below - 1], o);
	for (unsigned i = 0; ops->holds && i < w->config->leg_count; i++)
		if (kept || (!w->below && !i))
			origins_wanted(c, &c->wishes[w->legs[i] - 1], o);
}

/* A layer that knows what is below it would find the same there. */
static bool finds_its_own(const struct change *c, const struct layer *layer, const struct wish *w)
{
	struct origins was = { 0 }, is = { 0 };

	if (layer->below) {
		origins_of(layer->below, &was);
		origins_wanted(c, &c->wishes[w->below - 1], &is);
		if (!in_common(&was, &is))
			return false;
	}
	for (unsigned i = 0; i < layer->leg_count && i < w->config->leg_count; i++) {
		was.count = is.count = 0;
		origins_of(layer->legs[i], &was);
		origins_wanted(c, &c->wishes[w->legs[i] - 1], &is);
		if (!in_common(&was, &is))
			return false;
	}
	return layer->leg_count == w->config->leg_count || layer->ops->prepare;
}

/* --- which layer for which wish ------------------------------------------------------------- */

static bool same_part(struct layer_part a, struct layer_part b)
{
	return a.offset == b.offset && a.length == b.length;
}

static bool equal(const struct layer *layer, const struct wish *wish)
{
	return layer_config_equal(layer->config, wish->config) &&
	       (same_part(layer->part, wish->part) || !layer->ops->place_option);
}

static bool can_become(const struct layer *layer, const struct wish *wish)
{
	const char *place = layer->ops->place_option, *is, *shall;

	if (!layer->ops->prepare || !place)
		return layer->ops->prepare != NULL;
	is = layer_config_get(layer->config, place);
	shall = layer_config_get(wish->config, place);
	return is && shall && !strcmp(is, shall);
}

/* Above what is below it now. Two layers of one kind may be there, which must not change places. */
static bool stays(const struct change *c, const struct layer *layer, const struct wish *w)
{
	return (w->below ? c->wishes[w->below - 1].layer : NULL) == layer->below;
}

enum likeness { AS_IT_IS, ELSEWHERE, WITH_OTHER_OPTIONS };

/* A layer that is there and not taken, for @wish. */
static struct layer *take(struct change *c, const struct wish *wish, enum likeness likeness)
{
	const struct layer_ops *ops = wish->config->ops;

	for (unsigned i = 0; i < c->there_count; i++) {
		struct layer *layer = c->there[i];

		if (!layer || layer->ops != ops || (layer->read_only && !wish->read_only))
			continue;
		if (likeness == WITH_OTHER_OPTIONS ? !can_become(layer, wish) : !equal(layer, wish))
			continue;
		if (likeness == AS_IT_IS && !stays(c, layer, wish))
			continue;
		if ((ops->alters || ops->remembers) && !finds_its_own(c, layer, wish))
			continue;
		c->there[i] = NULL;
		return layer;
	}
	return NULL;
}

/* Those below first, for whether a layer can be kept may depend on them. */
static void match(struct change *c)
{
	for (enum likeness likeness = AS_IT_IS; likeness <= WITH_OTHER_OPTIONS; likeness++)
		for (unsigned i = 0; i < c->count; i++)
			if (!c->wishes[i].layer)
				c->wishes[i].layer = take(c, &c->wishes[i], likeness);
}

static int check_origins(const struct change *c, struct error *err)
{
	const struct disk *disk = c->disk;
	struct origins was = { 0 }, is = { 0 };

	origins_of(disk->extent ? disk->extent->below : disk->top, &was);
	origins_wanted(c, &c->wishes[c->count - 1], &is);
	if (in_common(&was, &is))
		return 0;
	return error_set(
		err, EINVAL,
		"with this stack the guest of disk %s would find other data there; its data "
		"can be moved to another back-end (penstock move)",
		disk->name);
}

/* --- opening -------------------------------------------------------------------------------- */

static int find_links(struct change *c, struct wish *w, struct error *err)
{
	struct layer_plan *plan = &w->plan;

	plan->leg_count = w->config->leg_count;
	plan->part = w->part;
	plan->below = w->below ? c->wishes[w->below - 1].layer : NULL;
	plan->legs = calloc(plan->leg_count + 1, sizeof *plan->legs);
	if (!plan->legs)
		return error_set(err, ENOMEM, "out of memory");
	for (unsigned k = 0; k < plan->leg_count; k++)
		plan->legs[k] = c->wishes[w->legs[k] - 1].layer;
	w->links = (struct links){ plan->below, plan->legs, plan->leg_count };
	return 0;
}

static bool links_differ(const struct wish *w)
{
	const struct layer *layer = w->layer;

	return layer->below != w->plan.below || layer->leg_count != w->plan.leg_count ||
	       (layer->leg_count &&
		memcmp(layer->legs, w->plan.legs, layer->leg_count * sizeof *layer->legs) != 0);
}

static int prepare_kept(struct wish *w, struct error *err)
{
	bool options_differ = !equal(w->layer, w);

	if (stack_check_place(w->config, w->plan.below, w->plan.leg_count, err))
		return -err->code;
	if (!w->layer->ops->prepare || !(options_differ || links_differ(w)))
		return 0;
	if (layer_config_copy(&w->settings, w->config))
		return error_set(err, ENOMEM, "out of memory");
	w->plan.options = stack_options(w->config, NULL, err);
	if (!w->plan.options)
		return -err->code;
	if (w->layer->ops->prepare(w->layer, &w->plan, err))
		return error_prefix(err, "%s", w->config->ops->name);
	w->prepared = true;
	return 0;
}

static int open_fresh(struct change *c, struct wish *w, struct error *err)
{
	struct stack_setting setting = { .disk = c->disk->name,
					 .read_only = w->read_only,
					 .block_size = c->disk->block_size,
					 .part = w->part,
					 .states = &c->states };

	w->layer = stack_open_layer(&setting, w->config, w->plan.below, w->plan.legs,
				    w->plan.leg_count, NULL, err);
	if (!w->layer)
		return -err->code;
	w->links.legs = NULL;
	w->fresh = true;
	return 0;
}

static int fulfil(struct change *c, struct error *err)
{
	for (unsigned i = 0; i < c->count; i++) {
		struct wish *w = &c->wishes[i];

		if (find_links(c, w, err))
			return -err->code;
		if (w->layer ? prepare_kept(w, err) : open_fresh(c, w, err))
			return -err->code;
	}
	return 0;
}

int change_plan(struct change *c, const struct stack_config *to, struct error *err)
{
	unsigned there = 0;

	c->states = c->disk->top->queue_state;
	stack_visit(c->disk->top, count_all, &there);
	c->there = calloc(there + 1, sizeof *c->there);
	c->retiring = calloc(there + 1, sizeof(struct layer *));
	c->wishes = calloc(count_wishes(to) + 1, sizeof *c->wishes);
	if (!c->there || !c->retiring || !c->wishes || stack_config_copy(&c->to, to) ||
	    !add_wishes(c, &c->to, c->disk->config.read_only))
		return error_set(err, ENOMEM, "out of memory");
	stack_visit(c->disk->top, count_one, c);
	match(c);
	if (check_origins(c, err))
		return -err->code;
	return fulfil(c, err);
}
