/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * testing_stack.h - for unit tests: a stack from one line, and plain reads and writes of a layer
 *
 *     "slice offset=1M | stripe chunk=4K [memory size=1M] [flaky errors=1% | memory size=1M]"
 */
#pragma once

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/change.h"
#include "layer/disk.h"
#include "layer/session.h"
#include "util/error.h"

static inline char *testing_word(const char **text, const char *ends)
{
	size_t length;
	char *word;

	*text += strspn(*text, " ");
	length = strcspn(*text, ends);
	word = strndup(*text, length);
	*text += length;
	return word;
}

static inline struct stack_config testing_list(const char **text)
{
	struct stack_config list = { 0 };

	for (;;) {
		struct layer_config *layer;
		char *name = testing_word(text, " |]");

		list.layers = realloc(list.layers, (list.count + 1) * sizeof *list.layers);
		layer = &list.layers[list.count++];
		*layer = (struct layer_config){ .ops = layer_find(name) };
		if (!layer->ops) {
			fprintf(stderr, "no layer is called %s\n", name);
			abort();
		}
		free(name);
		while (*(*text += strspn(*text, " ")) && **text != '|' && **text != ']') {
			if (**text == '[') {
				++*text;
				layer->legs = realloc(layer->legs,
						      (layer->leg_count + 1) * sizeof *layer->legs);
				layer->legs[layer->leg_count++] = testing_list(text);
				++*text; /* ] */
				continue;
			}
			layer->settings = realloc(layer->settings,
						  (layer->count + 1) * sizeof *layer->settings);
			name = testing_word(text, "=");
			++*text;
			layer->settings[layer->count++] =
				(struct layer_setting){ name, testing_word(text, " |]"), 0 };
		}
		if (**text != '|')
			return list;
		++*text;
	}
}

/** The stack that @text describes; stack_config_release() frees it. */
static inline struct stack_config testing_stack(const char *text)
{
	return testing_list(&text);
}

/** A disk of that stack, with blocks of @block bytes (512 or 4096). NULL with @err. */
static inline struct disk *testing_disk_of(const char *name, const char *text, uint32_t block,
					   bool read_only, struct error *err)
{
	struct stack_config stack = testing_stack(text);
	struct disk_config config = { .block_size = block == 4096 ? DISK_BLOCK_4096
								  : DISK_BLOCK_512,
				      .read_only = read_only };
	struct disk *disk = disk_open(name, &config, &stack, NULL, err);

	stack_config_release(&stack);
	return disk;
}

/** The same, and it must succeed. */
static inline struct disk *testing_disk(const char *text)
{
	struct error err = { 0 };
	struct disk *disk = testing_disk_of("test", text, 512, false, &err);

	if (!disk) {
		fprintf(stderr, "%s: %s\n", text, err.text);
		abort();
	}
	return disk;
}

/** One request to @layer, waited for; 0 or -errno. */
static inline int testing_read(struct layer *layer, uint64_t offset, void *to, size_t length)
{
	struct session *session = session_open(layer, NULL);
	int ret = session ? session_read(session, offset, to, length) : -ENOMEM;

	session_close(session);
	return ret;
}

static inline int testing_write(struct layer *layer, uint64_t offset, const void *from,
				size_t length)
{
	struct session *session = session_open(layer, NULL);
	int ret = session ? session_write(session, offset, from, length, 0) : -ENOMEM;

	session_close(session);
	return ret;
}

static inline int testing_do(struct layer *layer, enum io_op op, uint64_t offset, uint64_t length)
{
	struct session *session = session_open(layer, NULL);
	int ret = session ? session_do(session, op, offset, length, 0) : -ENOMEM;

	session_close(session);
	return ret;
}

struct testing_change {
	struct loop *loop;
	struct loop_message begin;
	struct change *change;
	struct change_end end;
	struct error *err;
};

static inline void testing_change_begin(struct loop_message *message)
{
	struct testing_change *t = container_of(message, struct testing_change, begin);

	change_commit(t->change, t->loop, &t->end);
}

static inline void testing_change_ended(struct change_end *end, struct error *err)
{
	struct testing_change *t = container_of(end, struct testing_change, end);

	*t->err = *err;
	loop_stop(t->loop);
}

/** Changes the layers of @disk, which has no queues on this thread, to those of @text. 0 or -errno.
 */
static inline int testing_change(struct disk *disk, const char *text, struct error *err)
{
	struct loop_config config = { .name = "change", .engine = LOOP_THREADS, .cpu = -1 };
	struct stack_config stack = testing_stack(text);
	struct testing_change t = { .begin.run = testing_change_begin,
				    .end.done = testing_change_ended,
				    .err = err };

	*err = (struct error){ 0 };
	t.change = change_prepare(disk, &stack, err);
	stack_config_release(&stack);
	if (!t.change)
		return -err->code;
	t.loop = loop_create(&config, NULL);
	if (!t.loop)
		abort();
	loop_send(t.loop, &t.begin);
	if (loop_run(t.loop, NULL))
		abort();
	loop_destroy(t.loop);
	change_finish(t.change);
	return -err->code;
}
