/* SPDX-License-Identifier: BSD-3-Clause */
/* stack_edit.c - places in a stack that is JSON, and changes of one thing in it; see stack_tree.h
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/stack_tree_private.h"
#include "packet/packet_layer.h"
#include "util/error.h"
#include "util/suggest.h"

#define PATH_LENGTH 200

/* True if @layer is a kind that ends a stack; a kind of packets' layers does not. */
static bool ends_stack(const json_t *layer)
{
	const struct layer_ops *ops = layer_find(stack_tree_kind(layer));

	return ops && ops->backend;
}

/* --- places --------------------------------------------------------------------------------- */

/* Where something is: a layer in its list or, with a leg's path, a leg in its layer's list of legs.
 */
struct place {
	json_t *list;
	size_t index;
	json_t *layer; /* that the list of legs belongs to; NULL: the place is a layer's */
};

static int wrong(struct error *err, int code, const json_t *stack, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* What is wrong, and what the stack is. */
static int wrong(struct error *err, int code, const json_t *stack, const char *format, ...)
{
	char text[300], words[160];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return error_set(err, code, "%s (its stack is now: %s)", text,
			 stack_tree_words(stack, words, sizeof words));
}

/* How many layers of @kind there are from @list on, legs included; the last one into @place. */
static unsigned count_kind(json_t *list, const char *kind, struct place *place)
{
	unsigned count = 0;
	json_t *layer, *leg;
	size_t i, l;

	json_array_foreach(list, i, layer)
	{
		if (!strcmp(stack_tree_kind(layer), kind)) {
			*place = (struct place){ list, i, NULL };
			count++;
		}
		json_array_foreach(stack_tree_legs(layer), l, leg)
			count += count_kind(leg, kind, place);
	}
	return count;
}

static void offer_kinds(struct suggestion *nearest, const json_t *list)
{
	json_t *layer, *leg;
	size_t i, l;

	json_array_foreach(list, i, layer)
	{
		suggest_offer(nearest, stack_tree_kind(layer));
		json_array_foreach(stack_tree_legs(layer), l, leg) offer_kinds(nearest, leg);
	}
}

static bool is_number(const char *word)
{
	return *word && strspn(word, "0123456789") == strlen(word) && strlen(word) < 9;
}

/* One step of a path: the layer that @word names in @list, which may be what a leg holds. */
static int find_layer(json_t *stack, json_t *list, const char *word, struct place *place,
		      struct error *err)
{
	struct suggestion nearest = suggest_for(word);
	unsigned count;

	if (is_number(word)) {
		*place = (struct place){ list, strtoul(word, NULL, 10), NULL };
		if (place->index < json_array_size(list))
			return 0;
		return wrong(err, ENOENT, stack, "there is no layer %s", word);
	}
	count = count_kind(list, word, place);
	if (count == 1)
		return 0;
	if (count)
		return wrong(
			err, EINVAL, stack,
			"there are %u layers '%s': say which by its number, or by its path such "
			"as mirror/0/file",
			count, word);
	offer_kinds(&nearest, list);
	return wrong(err, ENOENT, stack, "there is no layer '%s'%s%s%s", word,
		     nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		     nearest.best ? "'?" : "");
}

/* True if @path is the place behind the last layer of @stack, which is one of a port's. */
static bool is_end(const json_t *stack, const char *path, struct place *place)
{
	size_t count = json_array_size(stack);

	if (!is_number(path) || strtoul(path, NULL, 10) != count ||
	    (count && ends_stack(json_array_get(stack, count - 1))))
		return false;
	*place = (struct place){ (json_t *)stack, count, NULL };
	return true;
}

/* What @path names: a layer if @layer, else a leg. */
static int find(json_t *stack, const char *path, bool layer, struct place *place, struct error *err)
{
	char copy[PATH_LENGTH], *rest = copy, *word;
	json_t *list = stack, *legs;

	if (strlen(path) >= sizeof copy)
		return wrong(err, EINVAL, stack, "the path is too long");
	strcpy(copy, path);
	while ((word = strsep(&rest, "/"))) {
		if (find_layer(stack, list, word, place, err))
			return -err->code;
		if (!rest)
			return layer ? 0
				     : wrong(err, EINVAL, stack,
					     "'%s' names a layer; expected a leg, such as mirror/1",
					     path);
		place->layer = json_array_get(place->list, place->index);
		legs = stack_tree_legs(place->layer);
		if (!legs)
			return wrong(err, EINVAL, stack, "%s has no legs",
				     stack_tree_kind(place->layer));
		word = strsep(&rest, "/");
		place->list = legs;
		place->index = is_number(word) ? strtoul(word, NULL, 10) : SIZE_MAX;
		if (place->index >= json_array_size(legs))
			return wrong(err, ENOENT, stack, "%s has no leg '%s'",
				     stack_tree_kind(place->layer), word);
		if (!rest)
			return layer ? wrong(err, EINVAL, stack,
					     "'%s' names a leg; expected a layer, such as %s/0",
					     path, path)
				     : 0;
		list = json_array_get(legs, place->index);
	}
	return wrong(err, EINVAL, stack, "'%s' is not understood", path);
}

/* --- changes -------------------------------------------------------------------------------- */

/* Takes what is from @index on in @list out, and returns it as a list. */
static json_t *cut(json_t *list, size_t index)
{
	json_t *rest = json_array();

	for (size_t i = index; i < json_array_size(list); i++)
		json_array_append(rest, json_array_get(list, i));
	while (json_array_size(list) > index)
		json_array_remove(list, index);
	return rest;
}

int stack_tree_insert(json_t *stack, const char *path, const json_t *layer, struct error *err)
{
	const struct layer_ops *ops = layer_find(stack_tree_kind(layer));
	json_t *copy, *legs;
	struct place place;

	if (!is_end(stack, path, &place) && find(stack, path, true, &place, err))
		return -err->code;
	if (!ops && !packet_layer_find(stack_tree_kind(layer)))
		return wrong(err, EINVAL, stack,
			     "there is no kind of layer '%s'; penstock help "
			     "lists them",
			     stack_tree_kind(layer));
	copy = json_deep_copy(layer);
	if (ops && ops->backend && ops->legs_option) {
		legs = stack_tree_legs(copy);
		if (!legs) {
			legs = json_array();
			json_object_set_new(stack_tree_options(copy), ops->legs_option, legs);
		}
		json_array_insert_new(legs, 0, cut(place.list, place.index));
	} else if (ops && ops->backend) {
		json_decref(copy);
		return wrong(
			err, EINVAL, stack,
			"%s is a back-end, and cannot be put above another; penstock move puts "
			"a disk on another back-end",
			ops->name);
	}
	json_array_insert_new(place.list, place.index, copy);
	return 0;
}

int stack_tree_remove(json_t *stack, const char *path, int keep, struct error *err)
{
	struct place place;
	json_t *layer, *legs, *left;

	if (find(stack, path, true, &place, err))
		return -err->code;
	layer = json_array_get(place.list, place.index);
	legs = stack_tree_legs(layer);
	if (keep >= 0 && (!legs || !ends_stack(layer)))
		return wrong(err, EINVAL, stack, "%s has no legs of which one could be kept",
			     stack_tree_kind(layer));
	if (!ends_stack(layer)) {
		json_array_remove(place.list, place.index);
		return 0;
	}
	if (!legs)
		return wrong(err, EINVAL, stack,
			     "%s is the back-end, which keeps the bytes; penstock move puts a disk "
			     "on another one",
			     stack_tree_kind(layer));
	if (keep < 0 && json_array_size(legs) > 1)
		return wrong(err, EINVAL, stack, "%s has %zu legs: say which one stays",
			     stack_tree_kind(layer), json_array_size(legs));
	if (keep >= (int)json_array_size(legs))
		return wrong(err, ENOENT, stack, "%s has no leg %d", stack_tree_kind(layer), keep);
	left = json_incref(json_array_get(legs, keep < 0 ? 0 : (size_t)keep));
	json_array_remove(place.list, place.index);
	json_array_extend(place.list, left);
	json_decref(left);
	return 0;
}

/* True if @list is what a leg of @layer holds, or of a layer in a leg. */
static bool contains(const json_t *layer, const json_t *list)
{
	json_t *leg, *inner;
	size_t l, i;

	json_array_foreach(stack_tree_legs(layer), l, leg)
	{
		if (leg == list)
			return true;
		json_array_foreach(leg, i, inner) if (contains(inner, list)) return true;
	}
	return false;
}

int stack_tree_reorder(json_t *stack, const char *from, const char *to, struct error *err)
{
	struct place there, here;
	json_t *layer, *mark;

	if (find(stack, from, true, &here, err) || find(stack, to, true, &there, err))
		return -err->code;
	layer = json_array_get(here.list, here.index);
	if (ends_stack(layer))
		return wrong(err, EINVAL, stack, "%s ends a stack, and stays there",
			     stack_tree_kind(layer));
	if (here.list == there.list && here.index == there.index)
		return wrong(err, EINVAL, stack, "%s is there already", stack_tree_kind(layer));
	if (contains(layer, there.list))
		return wrong(err, EINVAL, stack, "'%s' is in a leg of %s itself", to,
			     stack_tree_kind(layer));
	/* In its own list what is after it moves up as it goes. */
	mark = json_incref(layer);
	json_array_remove(here.list, here.index);
	json_array_insert_new(there.list, there.index, mark);
	return 0;
}

int stack_tree_set(json_t *stack, const char *path, const json_t *options, struct error *err)
{
	struct place place;
	const char *name;
	json_t *value, *layer;

	if (find(stack, path, true, &place, err))
		return -err->code;
	layer = json_array_get(place.list, place.index);
	json_object_foreach((json_t *)options, name, value)
	{
		if (stack_tree_legs(layer) &&
		    json_object_get(stack_tree_options(layer), name) == stack_tree_legs(layer))
			return wrong(err, EINVAL, stack, "%s: legs are added and removed, not set",
				     stack_tree_kind(layer));
		if (json_is_null(value))
			json_object_del(stack_tree_options(layer), name);
		else
			json_object_set(stack_tree_options(layer), name, value);
	}
	return 0;
}

int stack_tree_add_leg(json_t *stack, const char *path, const json_t *leg, struct error *err)
{
	const struct layer_ops *ops;
	struct place place;
	json_t *layer, *legs;

	if (find(stack, path, true, &place, err))
		return -err->code;
	layer = json_array_get(place.list, place.index);
	ops = layer_find(stack_tree_kind(layer));
	if (!ops || !ops->legs_option)
		return wrong(
			err, EINVAL, stack,
			"%s has no legs; to make a back-end the first leg of a mirror, insert a "
			"mirror there",
			stack_tree_kind(layer));
	legs = stack_tree_legs(layer);
	if (json_array_size(legs) >= ops->legs_max)
		return wrong(err, EINVAL, stack, "%s can have no more than %u",
			     stack_tree_kind(layer), ops->legs_max);
	json_array_append_new(legs, json_deep_copy(leg));
	return 0;
}

int stack_tree_remove_leg(json_t *stack, const char *path, struct error *err)
{
	const struct layer_ops *ops;
	struct place place;

	if (find(stack, path, false, &place, err))
		return -err->code;
	ops = layer_find(stack_tree_kind(place.layer));
	if (json_array_size(place.list) <= ops->legs_min)
		return wrong(err, EINVAL, stack, "%s needs %u at least%s", ops->name, ops->legs_min,
			     ops->backend ? "; penstock remove-layer --keep leaves one leg alone"
					  : "");
	json_array_remove(place.list, place.index);
	return 0;
}

int stack_tree_replace(json_t *stack, const char *path, const json_t *layers, struct error *err)
{
	struct place place;

	if (find(stack, path, true, &place, err))
		return -err->code;
	json_decref(cut(place.list, place.index));
	for (size_t i = 0; i < json_array_size(layers); i++)
		json_array_append_new(place.list, json_deep_copy(json_array_get(layers, i)));
	return 0;
}

/* Adds the numbers that lead from @list to @place; false if it is not in there. */
static bool locate(const json_t *list, const struct place *place, unsigned *numbers,
		   unsigned *count)
{
	unsigned before = *count;
	json_t *layer, *leg;
	size_t i, l;

	if (list == place->list) {
		numbers[(*count)++] = (unsigned)place->index;
		return true;
	}
	json_array_foreach(list, i, layer){ json_array_foreach(stack_tree_legs(layer), l, leg){
		if (before + 3 > STACK_TREE_DEPTH) return false;
	numbers[before] = (unsigned)i;
	numbers[before + 1] = (unsigned)l;
	*count = before + 2;
	if (locate(leg, place, numbers, count))
		return true;
}
}
*count = before;
return false;
}

int stack_tree_numbers(json_t *stack, const char *path, unsigned numbers[STACK_TREE_DEPTH],
		       unsigned *count, struct error *err)
{
	struct place place;

	*count = 0;
	if (find(stack, path, true, &place, err))
		return -err->code;
	return locate(stack, &place, numbers, count)
		       ? 0
		       : wrong(err, EINVAL, stack, "'%s' is too deep in it", path);
}
