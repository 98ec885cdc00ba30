/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * create.c - `penstock create LAYER PATH option=value ...`
 *
 * What is made, and with which options, is the layer's business (layer_ops.format). Here is what
 * all have in common: the image, which is made if it is absent and is as large as a disk of the
 * wanted size needs it, and care for what is there already.
 */
#include "control/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/stack.h"
#include "util/error.h"
#include "util/log.h"
#include "util/must.h"
#include "util/suggest.h"

#define LOOKED_AT (1u << 20) /* bytes at the start of an image that must be zeroes */

struct create {
	uint64_t size;
	bool force;
	const struct layer_ops *ops;
	const char *path;
	void *object; /* of the format */
};

const struct option create_options[] = {
	{ .name = "size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct create, size),
	  .min = 4096,
	  .max = 1ull << 60,
	  .help = "Size of the disk that the guest will see; PATH is larger by what the format needs. "
		  "Default: as much as there is room for in PATH." },
	{ .name = "force",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct create, force),
	  .fallback = "false",
	  .help = "Overwrite what PATH holds." },
	{ 0 },
};

/* --- the command line -------------------------------------------------------------------- */

static int unknown_kind(const char *name)
{
	struct suggestion nearest = suggest_for(name);

	for (unsigned i = 0; layer_registry[i]; i++)
		if (layer_registry[i]->format)
			suggest_offer(&nearest, layer_registry[i]->name);
	fprintf(stderr, "penstock create: '%s' is nothing that is created%s%s%s; expected", name,
		nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		nearest.best ? "'?" : "");
	for (unsigned i = 0; layer_registry[i]; i++)
		if (layer_registry[i]->format)
			fprintf(stderr, " %s", layer_registry[i]->name);
	fprintf(stderr, "\n");
	return -1;
}

static int unknown_option(const struct create *c, const char *name)
{
	const struct option *const tables[] = { create_options, c->ops->format->options };
	struct suggestion nearest = suggest_for(name);

	for (unsigned t = 0; t < 2; t++)
		for (const struct option *row = tables[t]; row && row->name; row++)
			suggest_offer(&nearest, row->name);
	fprintf(stderr, "penstock create: no option '%s'%s%s%s; see penstock create --help\n", name,
		nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		nearest.best ? "'?" : "");
	return -1;
}

static int take_option(struct create *c, const char *argument)
{
	char *name = must(strdup(argument)), *value = strchr(name, '=');
	struct error err = { 0 };
	int ret = -1;

	if (!value) {
		fprintf(stderr, "penstock create: '%s' is not understood; expected option=value\n",
			name);
		free(name);
		return -1;
	}
	*value++ = 0;
	if (options_find(create_options, name))
		ret = options_set(create_options, c, name, value, &err);
	else if (options_find(c->ops->format->options, name))
		ret = options_set(c->ops->format->options, c->object, name, value, &err);
	else
		unknown_option(c, name);
	if (err.code)
		fprintf(stderr, "penstock create: %s\n", err.text);
	free(name);
	return ret;
}

/* --- the image ---------------------------------------------------------------------------- */

/* True if it is there. Fails if it holds anything and that is not to be overwritten. */
static int look_at(const struct create *c, bool *exists, struct error *err)
{
	char *bytes;
	ssize_t length = 0;
	struct stat st;
	int fd;

	*exists = !stat(c->path, &st);
	if (!*exists)
		return errno == ENOENT ? 0
				       : error_set(err, errno, "%s: %s", c->path, strerror(errno));
	if (c->force || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return 0; /* what it is if it is neither, the back-end says */
	fd = open(c->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, errno, "%s: %s", c->path, strerror(errno));
	bytes = must(malloc(LOOKED_AT));
	length = pread(fd, bytes, LOOKED_AT, 0);
	close(fd);
	while (length > 0 && !bytes[length - 1])
		length--;
	free(bytes);
	if (length < 0)
		return error_set(err, EIO, "%s cannot be read", c->path);
	if (length)
		return error_set(err, EEXIST, "%s holds data already; force=true overwrites it",
				 c->path);
	return 0;
}

/* The file back-end below what is made. */
static struct layer *open_image(const struct create *c, bool exists, struct error *err)
{
	char size[32];
	struct layer_setting settings[] = { { (char *)"path", (char *)c->path, 0 },
					    { (char *)"direct", (char *)"off", 0 },
					    { (char *)"create", (char *)"true", 0 },
					    { (char *)"size", size, 0 } };
	struct layer_config file = { .ops = layer_find("file"),
				     .settings = settings,
				     .count = c->size ? 4 : 2 };
	const struct stack_setting setting = { .disk = c->path, .block_size = 4096 };
	const struct stack_config stack = { .layers = &file, .count = 1 };

	if (!c->size && !exists) {
		error_set(err, EINVAL,
			  "%s does not exist; the option size says how large to make it", c->path);
		return NULL;
	}
	if (c->size)
		format_size(c->ops->format->room(c->object, c->size), size, sizeof size);
	return stack_open(&setting, &stack, NULL, err);
}

static int make(const struct create *c, struct error *err)
{
	struct layer *image;
	bool exists;
	int ret = look_at(c, &exists, err);

	if (ret)
		return ret;
	image = open_image(c, exists, err);
	ret = image ? c->ops->format->create(c->object, image, err) : -err->code;
	if (image)
		stack_close(image);
	if (ret && !exists)
		unlink(c->path);
	return ret;
}

int create_run(const struct invocation *in)
{
	struct create c = { .ops = layer_find(in->arguments[0]), .path = in->arguments[1] };
	struct error err = { 0 };
	int status = 2;

	if (!c.ops || !c.ops->format) {
		unknown_kind(in->arguments[0]);
		return status;
	}
	log_set_level(LOG_WARN);
	c.object = must(calloc(1, c.ops->format->size));
	options_init(create_options, &c);
	options_init(c.ops->format->options, c.object);
	for (unsigned i = 2; i < in->count; i++)
		if (take_option(&c, in->arguments[i]))
			goto out;
	status = make(&c, &err) ? 1 : 0;
	if (status)
		fprintf(stderr, "penstock create: %s: %s\n", c.ops->name, err.text);
out:
	options_release(c.ops->format->options, c.object);
	free(c.object);
	return status;
}
