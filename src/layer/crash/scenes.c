/* SPDX-License-Identifier: BSD-3-Clause */
/* scenes.c - stacks for the crash simulator; see scenes.h */
#include "layer/crash/scenes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/model/volume.h"

struct scene scene_of(const char *what, unsigned devices, uint32_t sectors)
{
	struct scene scene = { .devices = devices, .sectors = sectors };

	for (unsigned i = 0; i < devices; i++)
		scene.size[i] = (uint64_t)sectors * SECTOR;
	options_init(disk_options, &scene.config);
	snprintf(scene.what, sizeof scene.what, "%s", what);
	return scene;
}

void scene_add(struct scene *scene, unsigned number, const struct layer_ops *ops, const char *order)
{
	struct layer_config *layer;

	if (ops) {
		layer = testing_layer(&scene->stack, ops);
		if (order)
			testing_set(layer, "order", "%s", order);
	}
	testing_set(testing_layer(&scene->stack, &device_ops), "device", "%u", number);
}

void scene_free(struct scene *scene)
{
	stack_config_release(&scene->stack);
	options_release(disk_options, &scene->config);
}

/* --- drawing one ---------------------------------------------------------------------------- */

static bool has(const char *name)
{
	return layer_find(name) != NULL;
}

/* What is being drawn. */
struct drawing {
	struct scene *scene;
	struct chance *c;
	uint32_t unit;   /* sectors of a block of the disk */
	bool pure;       /* one kind of layer only was asked for */
	unsigned crypts; /* there is a crypt in one of so many places */
};

/* A device more at the end of @stack, of @sectors. Returns its number. */
static unsigned add_device(struct drawing *d, struct stack_config *stack, uint32_t sectors)
{
	unsigned number = d->scene->devices++;

	if (number == DEVICES_MAX)
		abort();
	d->scene->size[number] = (uint64_t)sectors * SECTOR;
	testing_set(testing_layer(stack, &device_ops), "device", "%u", number);
	return number;
}

/* Layers that change nothing of what is promised. */
static void draw_passing(struct drawing *d, struct stack_config *stack)
{
	while (chance_of(d->c, 3) == 0)
		testing_layer(stack, layer_find("pass"));
	if (has("cache") && chance_of(d->c, 6) == 0)
		testing_set(testing_layer(stack, layer_find("cache")), "size", "256K");
}

static void format(const struct scene *scene, struct chance *chance)
{
	volume_format(&scene->stack, scene->config.block_size == DISK_BLOCK_4096 ? 4096 : 512,
		      chance);
}

/*
 * Perhaps a crypt. It writes in place: a write of the guest becomes one below, and what tears that
 * one tears the guest's. With sectors of 4096 bytes a device of 512 can tear within a crypto
 * sector. For most ciphers all of that sector would be garbage then, and a guest that counts on
 * 512 bytes would find it so; but XTS encrypts each 16 bytes by themselves, with a tweak that
 * follows from their place alone (and 4096 is a multiple of 16, so that no ciphertext is stolen).
 * So what is torn below at byte n is torn above at byte n, old and new on its sides, and neither
 * the devices nor the model are told of crypt: it is held to what a plain device promises.
 *
 * Returns how many sectors must be below to have @sectors here.
 */
static uint32_t draw_crypt(struct drawing *d, struct stack_config *stack, uint32_t sectors)
{
	if (!has("crypt") || d->pure || chance_of(d->c, d->crypts))
		return sectors;
	volume_layer(stack);
	d->scene->format = format;
	return sectors + VOLUME_OFFSET / SECTOR;
}

/* Devices joined to one of @sectors at least, or a part of one; or just a device. */
static void draw_bottom(struct drawing *d, struct stack_config *stack, uint32_t sectors)
{
	struct layer_config *layer;
	uint32_t share, before;

	draw_passing(d, stack);
	sectors = draw_crypt(d, stack, sectors);
	share = (sectors / 2 + 127) / 128 * 128;
	switch (chance_of(d->c, 6)) {
	case 0:
		if (!layer_find("stripe") || d->scene->devices + 2 > DEVICES_MAX - 3)
			break;
		layer = testing_layer(stack, layer_find("stripe"));
		testing_set(layer, "chunk", "%uK", 4u << chance_of(d->c, 4));
		add_device(d, testing_leg(layer), share);
		add_device(d, testing_leg(layer), share);
		return;
	case 1:
		if (!layer_find("concat") || d->scene->devices + 2 > DEVICES_MAX - 3)
			break;
		layer = testing_layer(stack, layer_find("concat"));
		add_device(d, testing_leg(layer), share);
		add_device(d, testing_leg(layer), share);
		return;
	case 2:
		if (!layer_find("slice"))
			break;
		before = 8 * (uint32_t)chance_of(d->c, 20);
		layer = testing_layer(stack, layer_find("slice"));
		testing_set(layer, "offset", "%u", before * SECTOR);
		testing_set(layer, "size", "%u", sectors * SECTOR);
		add_device(d, stack, before + sectors + 8 * (uint32_t)chance_of(d->c, 20));
		return;
	default:
		break;
	}
	add_device(d, stack, sectors);
}

/* Behind the data each leg has the mirror's own records. */
static void draw_mirror(struct drawing *d, struct stack_config *stack, uint32_t sectors)
{
	struct layer_config *mirror = testing_layer(stack, layer_find("mirror"));

	sectors =
		(sectors + 128 + 255) / 256 * 256; /* of which all legs can have exactly as many */
	testing_set(mirror, "create", "true");
	testing_set(mirror, "region-size", "64K");
	for (uint64_t legs = chance_of(d->c, 4) ? 2 : 3; legs; legs--)
		draw_bottom(d, testing_leg(mirror), sectors);
	d->scene->legs = d->scene->devices;
}

/* Room for its map and header, besides the data. */
static void draw_overlay(struct drawing *d, struct stack_config *stack, uint32_t sectors)
{
	struct layer_config *overlay = testing_layer(stack, layer_find("overlay"));
	uint32_t base = sectors - d->unit * (uint32_t)chance_of(d->c, 2 + sectors / d->unit / 4);

	testing_set(overlay, "size", "%u", sectors * SECTOR);
	testing_set(overlay, "block", "%u", 512u << chance_of(d->c, 6));
	if (chance_of(d->c, 3) == 0)
		testing_set(overlay, "copy-on-read", "true");
	if (has("mirror") && !d->pure && chance_of(d->c, 4) == 0)
		draw_mirror(d, testing_leg(overlay), sectors + 2048 + 128);
	else
		draw_bottom(d, testing_leg(overlay), sectors + 2048 + 128);
	d->scene->base = 1 + add_device(d, stack, base);
}

static void draw_stack(struct drawing *d, struct stack_config *stack, const char *with)
{
	static const char *const kinds[] = { "overlay", "overlay", "overlay", "mirror",
					     "mirror",  "mirror",  "device" };
	const char *kind = d->pure ? with : kinds[chance_of(d->c, sizeof kinds / sizeof *kinds)];
	uint32_t shown = d->scene->sectors, sectors;

	draw_passing(d, stack);
	sectors = draw_crypt(d, stack, shown);
	if (!strcmp(kind, "overlay") && has("overlay"))
		draw_overlay(d, stack, sectors);
	else if (!strcmp(kind, "mirror") && has("mirror"))
		draw_mirror(d, stack, sectors);
	else
		draw_bottom(d, stack, sectors);
	/* Of the base nothing is seen through a crypt. */
	if (sectors != shown)
		d->scene->base = 0;
}

struct scene scene_draw(struct chance *c, const char *with)
{
	struct scene scene = scene_of("", 0, 128 + 8 * (uint32_t)chance_of(c, 64));
	/* To open one takes as long as a whole life without. */
	bool crypt = with && !strcmp(with, "crypt");
	struct drawing d = {
		.scene = &scene, .c = c, .unit = 1, .pure = with && !crypt, .crypts = crypt ? 2 : 16
	};

	if (chance_of(c, 3) == 0) {
		scene.config.block_size = DISK_BLOCK_4096;
		d.unit = 8;
	}
	scene.config.size = (uint64_t)scene.sectors * SECTOR;
	draw_stack(&d, &scene.stack, with);
	testing_describe(&scene.stack, scene.what, sizeof scene.what);
	return scene;
}
