/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet_layer.c - the layers of a port, and changing them while packets flow
 *
 * A change is prepared as a whole on the control thread: new layers, new rules of those that stay,
 * and for each loop the chain that it will have. Then a round takes them there: a loop swaps its
 * chain and rules between two batches. When all have, what is no longer used is freed.
 */
#include "packet/packet_layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/chain.h"
#include "packet/vswitch_private.h"
#include "util/error.h"

const char *const layer_directions[] = { "in", "out", "both", NULL };

/* What becomes of one layer in a change. */
struct fate {
	struct packet_layer *layer;
	void *settings; /* it is to have, or NULL: those it has */
	void *rules;    /* of @settings; after the change, the old ones */
	enum layer_direction direction;
	bool fresh;
};

struct layers_change {
	struct round round;
	struct port *port;
	struct fate *fates; /* in the new order */
	unsigned count;
	struct packet_layer **gone; /* after the start */
	unsigned gone_count;
	struct chain_of_layers **chains; /* of each loop: the new, then the old one */
	void (*done)(void *data, int status);
	void *data;
};

/* --- a layer ------------------------------------------------------------------------ */

static void layer_free(struct packet_layer *layer)
{
	if (!layer)
		return;
	for (unsigned i = 0; layer->places && i < layer->place_count; i++)
		free(layer->places[i]);
	free(layer->places);
	if (layer->settings) {
		options_release(layer->ops->options, layer->settings);
		free(layer->settings);
	}
	free(layer);
}

void packet_layer_end(struct packet_layer *layer)
{
	if (layer->ops->close)
		layer->ops->close(layer);
	layer->ops->discard(layer->rules);
	layer_free(layer);
}

static struct layer_place *place_create(struct packet_layer *layer, struct lane *lane)
{
	size_t size = (layer->ops->place_size + 63) / 64 * 64;
	struct layer_place *place = aligned_alloc(64, size);

	if (!place)
		return NULL;
	memset(place, 0, size);
	place->layer = layer;
	place->lane = lane;
	place->rules = layer->rules;
	return place;
}

/* A layer of kind @ops with @settings, which become its own, and @rules, likewise. NULL with @err
 * and nothing taken. */
static struct packet_layer *layer_create(struct port *port, const struct packet_layer_ops *ops,
					 void *settings, void *rules, struct error *err)
{
	struct packet_layer *layer = calloc(1, ops->size);
	bool good = layer;

	if (layer) {
		layer->ops = ops;
		layer->port = port->name;
		layer->facts = port->facts;
		layer->rules = rules;
		layer->place_count = port->lane_count;
		layer->places = calloc(port->lane_count, sizeof *layer->places);
		good = layer->places;
		for (unsigned i = 0; good && i < port->lane_count; i++) {
			layer->places[i] = place_create(layer, port->lanes[i]);
			good = layer->places[i];
		}
	}
	if (!good)
		error_set(err, ENOMEM, "out of memory");
	if (!good || (ops->open && ops->open(layer, settings, err))) {
		layer_free(layer);
		return NULL;
	}
	layer->settings = settings;
	return layer;
}

/* --- what is the same --------------------------------------------------------------- */

static bool same_option(const struct option *row, const void *a, const void *b)
{
	const char *const *text_a = (const void *)((const char *)a + row->offset);
	const char *const *text_b = (const void *)((const char *)b + row->offset);
	char value_a[64], value_b[64];

	if (row->type == OPTION_STRING)
		return *text_a == *text_b || (*text_a && *text_b && !strcmp(*text_a, *text_b));
	options_get(row, a, value_a, sizeof value_a);
	options_get(row, b, value_b, sizeof value_b);
	return !strcmp(value_a, value_b);
}

static bool same_settings(const struct packet_layer_ops *ops, const void *a, const void *b)
{
	for (const struct option *row = ops->options; row && row->name; row++)
		if (!same_option(row, a, b))
			return false;
	return true;
}

static bool same_place(const struct packet_layer_ops *ops, const void *a, const void *b)
{
	const struct option *row = ops->place_option ? options_find(ops->options, ops->place_option)
						     : NULL;

	return !row || same_option(row, a, b);
}

static bool is_used(const struct layers_change *change, const struct packet_layer *layer)
{
	for (unsigned i = 0; i < change->count; i++)
		if (change->fates[i].layer == layer)
			return true;
	return false;
}

static bool is_same(const struct packet_layer *layer, const struct packet_layer_config *config)
{
	return layer->ops == config->ops &&
	       same_settings(layer->ops, layer->settings, config->settings);
}

/* True if @layer can become what @config says, and stay. */
static bool can_become(const struct packet_layer *layer, const struct packet_layer_config *config)
{
	return layer->ops == config->ops &&
	       same_place(layer->ops, layer->settings, config->settings);
}

static bool is_among(struct packet_layer *const *layers, unsigned count,
		     const struct packet_layer *layer)
{
	while (count--)
		if (layers[count] == layer)
			return true;
	return false;
}

/* Gives each of @configs that has none in @stay a layer of @port that @fits it. */
static void match(const struct port *port, const struct packet_layer_config *configs,
		  unsigned count, struct packet_layer **stay,
		  bool (*fits)(const struct packet_layer *layer,
			       const struct packet_layer_config *config))
{
	for (unsigned i = 0; i < count; i++)
		for (unsigned l = 0; l < port->layer_count && !stay[i]; l++)
			if (!is_among(stay, count, port->layers[l]) &&
			    fits(port->layers[l], &configs[i]))
				stay[i] = port->layers[l];
}

/*
 * Which layers stay, and as what: into @stay, by the new order. Of one change, in the midst of a
 * list with several layers of a kind, all others are to stay where they are: so first those that
 * are the same from either end on, then those that are the same anywhere, then others of the kind.
 */
static void find_stay(const struct port *port, const struct packet_layer_config *configs,
		      unsigned count, struct packet_layer **stay)
{
	unsigned least = count < port->layer_count ? count : port->layer_count, front = 0;

	while (front < least && is_same(port->layers[front], &configs[front])) {
		stay[front] = port->layers[front];
		front++;
	}
	for (unsigned n = 1; n <= least - front; n++) {
		struct packet_layer *layer = port->layers[port->layer_count - n];

		if (!is_same(layer, &configs[count - n]))
			break;
		stay[count - n] = layer;
	}
	match(port, configs, count, stay, is_same);
	match(port, configs, count, stay, can_become);
}

/* --- prepared ----------------------------------------------------------------------- */

static void settings_free(const struct packet_layer_ops *ops, void *settings)
{
	if (!settings)
		return;
	options_release(ops->options, settings);
	free(settings);
}

/* @config's settings go to the layer, or are freed. @layer: the one that stays, or NULL. */
static int prepare(struct layers_change *change, struct packet_layer_config *config,
		   struct packet_layer *layer, struct error *err)
{
	struct fate *fate = &change->fates[change->count];
	const struct layer_settings *common = config->settings;

	*fate = (struct fate){ .direction = (enum layer_direction)common->direction };
	if (layer && same_settings(layer->ops, layer->settings, config->settings)) {
		settings_free(config->ops, config->settings);
	} else {
		if (config->ops->compile(config->settings, &change->port->facts, &fate->rules,
					 err)) {
			settings_free(config->ops, config->settings);
			config->settings = NULL;
			return -err->code;
		}
		fate->settings = config->settings;
		if (!layer) {
			fate->fresh = true;
			layer = layer_create(change->port, config->ops, fate->settings, fate->rules,
					     err);
			if (!layer) {
				config->ops->discard(fate->rules);
				settings_free(config->ops, fate->settings);
				config->settings = NULL;
				return -err->code;
			}
		}
	}
	config->settings = NULL;
	fate->layer = layer;
	change->count++;
	return 0;
}

static int make_chains(struct layers_change *change)
{
	const struct port *port = change->port;

	change->chains = calloc(port->lane_count, sizeof *change->chains);
	for (unsigned l = 0; change->chains && l < port->lane_count; l++) {
		struct chain_of_layers *chain = chain_create(change->count);

		if (!chain)
			return -ENOMEM;
		change->chains[l] = chain;
		for (unsigned i = 0; i < change->count; i++) {
			enum layer_direction direction = change->fates[i].direction;

			chain->step[i].place = change->fates[i].layer->places[l];
			chain->step[i].sees[PACKET_IN] = direction != LAYER_OUT;
			chain->step[i].sees[PACKET_OUT] = direction != LAYER_IN;
		}
	}
	return change->chains ? 0 : -ENOMEM;
}

static void change_free(struct layers_change *change)
{
	for (unsigned i = 0; change->chains && i < change->port->lane_count; i++)
		free(change->chains[i]);
	free(change->chains);
	free(change->fates);
	free(change->gone);
	round_release(&change->round);
	free(change);
}

static void abandon(struct layers_change *change)
{
	for (unsigned i = 0; i < change->count; i++) {
		struct fate *fate = &change->fates[i];

		if (fate->fresh) {
			packet_layer_end(fate->layer);
		} else if (fate->settings) {
			fate->layer->ops->discard(fate->rules);
			settings_free(fate->layer->ops, fate->settings);
		}
	}
	change_free(change);
}

/* --- done --------------------------------------------------------------------------- */

static void on_loop(struct round *round, unsigned index)
{
	struct layers_change *change = container_of(round, struct layers_change, round);
	struct lane *lane = change->port->lanes[index];
	struct chain_of_layers *old = lane->chain;

	chain_replace(lane, change->chains[index]);
	change->chains[index] = old;
	for (unsigned i = 0; i < change->count; i++) {
		const struct fate *fate = &change->fates[i];
		struct layer_place *place = fate->layer->places[index];
		const void *before = place->rules;

		if (fate->fresh || !fate->settings)
			continue;
		place->rules = fate->layer->rules;
		if (fate->layer->ops->changed)
			fate->layer->ops->changed(place, before);
	}
}

static void finished(struct round *round)
{
	struct layers_change *change = container_of(round, struct layers_change, round);
	void (*done)(void *data, int status) = change->done;
	void *data = change->data;

	change->port->layers_changing = false;
	for (unsigned i = 0; i < change->count; i++)
		if (!change->fates[i].fresh && change->fates[i].settings)
			change->fates[i].layer->ops->discard(change->fates[i].rules);
	for (unsigned i = 0; i < change->gone_count; i++)
		packet_layer_end(change->gone[i]);
	change_free(change);
	if (done)
		done(data, 0);
}

/* The control side has the new layers from here on; nothing can fail any more. */
static void commit(struct layers_change *change, struct packet_layer **layers)
{
	struct port *port = change->port;

	for (unsigned i = 0; i < port->layer_count; i++)
		if (!is_used(change, port->layers[i]))
			change->gone[change->gone_count++] = port->layers[i];
	for (unsigned i = 0; i < change->count; i++) {
		struct fate *fate = &change->fates[i];
		struct packet_layer *layer = fate->layer;
		void *old = layer->rules;

		layers[i] = layer;
		layer->direction = fate->direction;
		if (fate->fresh || !fate->settings)
			continue;
		settings_free(layer->ops, layer->settings);
		layer->settings = fate->settings;
		layer->rules = fate->rules;
		fate->rules = old;
	}
	free(port->layers);
	port->layers = layers;
	port->layer_count = change->count;
}

int port_set_layers(struct port *port, struct packet_layer_config *configs, unsigned count,
		    void (*done)(void *data, int status), void *data, struct error *err)
{
	struct layers_change *change = calloc(1, sizeof *change);
	struct packet_layer **layers = calloc(count + 1, sizeof *layers);
	struct packet_layer **stay = calloc(count + 1, sizeof *stay);
	int ret = change && layers && stay ? 0 : error_set(err, ENOMEM, "out of memory");

	if (!ret) {
		change->port = port;
		change->done = done;
		change->data = data;
		change->fates = calloc(count + 1, sizeof *change->fates);
		change->gone = calloc(port->layer_count + 1, sizeof *change->gone);
		if (!change->fates || !change->gone ||
		    round_init(&change->round, port->vswitch->loops, on_loop, finished))
			ret = error_set(err, ENOMEM, "out of memory");
		else if (port->layers_changing)
			ret = error_set(err, EBUSY, "its layers are being changed");
	}
	if (!ret)
		find_stay(port, configs, count, stay);
	for (unsigned i = 0; !ret && i < count; i++)
		ret = prepare(change, &configs[i], stay[i], err);
	free(stay);
	if (!ret && make_chains(change))
		ret = error_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < count; i++)
		settings_free(configs[i].ops, configs[i].settings);
	if (ret) {
		if (change)
			abandon(change);
		free(layers);
		return ret;
	}
	commit(change, layers);
	port->layers_changing = true;
	round_start(&change->round);
	return 0;
}
