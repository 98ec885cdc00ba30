/* SPDX-License-Identifier: BSD-3-Clause */
/* stacks.c - random stacks; see stacks.h */
#include "layer/model/stacks.h"

#include <fcntl.h>
#include <unistd.h>

#include "layer/model/layers.h"
#include "layer/model/volume.h"
#include "layer/testing_build.h"

#define LAYERS 5u

/* What is being drawn. */
struct drawing {
	struct stack_config stack;
	struct chance *chance;
	bool overlay, crypt; /* there is one: what follows is below it */
};

static unsigned draw(struct drawing *d, unsigned n)
{
	return (unsigned)chance_of(d->chance, n);
}

static struct layer_config *add(struct drawing *d, const char *name)
{
	return testing_layer(&d->stack, layer_find(name));
}

static void add_flaky(struct drawing *d)
{
	struct layer_config *flaky = add(d, "flaky");

	testing_set(flaky, "errors", "2%%");
	testing_set(flaky, "torn", "3%%");
	testing_set(flaky, "delay", "20us");
	testing_set(flaky, "jitter", "200us");
	testing_set(flaky, "seed", "%u", draw(d, 1u << 30));
}

/* Over an extent it would make the disk larger than the back-end for good; and what it stores in
 * memory, a volume that is made before the disk is opened would not find again. */
static void add_overlay(struct drawing *d)
{
	struct layer_config *overlay = add(d, "overlay");
	struct stack_config *store = testing_leg(overlay);

	testing_set(overlay, "block", "%u", 4096u << draw(d, 4));
	if (draw(d, 2))
		testing_set(overlay, "copy-on-read", "true");
	if (draw(d, 2))
		testing_layer(store, draw(d, 2) ? &split_ops : &hold_ops);
	testing_set(testing_layer(store, layer_find("memory")), "size", "4M");
	d->overlay = true;
}

static void add_crypt(struct drawing *d)
{
	struct layer_config *crypt = volume_layer(&d->stack);

	testing_set(crypt, "workers", "%u", draw(d, 3));
	testing_set(crypt, "workers-from", "128K");
	d->crypt = true;
}

static void add_layer(struct drawing *d)
{
	switch (draw(d, 9)) {
	case 0:
		add(d, "pass");
		break;
	case 1:
		add_flaky(d);
		break;
	case 2:
		if (!d->overlay && !d->crypt)
			testing_set(add(d, "extent"), "size", "900K");
		break;
	case 3:
		testing_layer(&d->stack, &split_ops);
		break;
	case 4:
		testing_layer(&d->stack, &twist_ops);
		break;
	case 5:
		testing_layer(&d->stack, &hold_ops);
		break;
	case 6:
		testing_set(add(d, "cache"), "size", "1M");
		break;
	case 7:
		if (!d->overlay && !d->crypt)
			add_overlay(d);
		break;
	default:
		if (!d->crypt)
			add_crypt(d);
		break;
	}
}

/* An overlay's base must be there. */
static void make_file(const char *path, off_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, size) || close(fd))
		abort();
}

static void add_backend(struct drawing *d, const char *directory)
{
	unsigned size = STACK_END + (d->crypt ? VOLUME_OFFSET : 0);
	struct layer_config *backend;
	char path[300];

	/* A volume is made before the disk is opened. */
	if (!d->crypt && draw(d, 3)) {
		testing_set(add(d, "memory"), "size", "%u", size);
		return;
	}
	snprintf(path, sizeof path, "%s/disk.img", directory);
	make_file(path, size);
	backend = add(d, "file");
	testing_set(backend, "path", "%s", path);
	testing_set(backend, "direct", "%s", draw(d, 3) ? "auto" : "off");
	testing_set(backend, "discard", "%s", draw(d, 4) ? "true" : "false");
}

/* From the crypt on, but for what would fail. */
static void make_volume(struct drawing *d, uint32_t block_size)
{
	struct stack_config sound = { 0 };
	bool below = false;

	for (unsigned i = 0; i < d->stack.count; i++) {
		const struct layer_config *layer = &d->stack.layers[i];

		below |= layer->ops == layer_find("crypt");
		if (below && layer->ops != layer_find("flaky"))
			*testing_layer(&sound, layer->ops) = *layer;
	}
	volume_format(&sound, block_size, d->chance);
	free(sound.layers);
}

struct stack_config stack_draw(struct chance *chance, uint32_t block_size, const char *directory)
{
	struct drawing d = { .chance = chance };

	for (unsigned layers = draw(&d, LAYERS); layers; layers--)
		add_layer(&d);
	add_backend(&d, directory);
	make_volume(&d, block_size);
	return d.stack;
}
