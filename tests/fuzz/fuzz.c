/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz.c - what the fuzz targets share; see fuzz.h */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/device.h"
#include "frontend/frontend.h"
#include "layer/disk.h"
#include "loop/loop.h"
#include "util/error.h"
#include "util/log.h"

/* Linked in the place of log_write(): the text is made, for what its arguments may do, and dropped.
 */
void __wrap_log_write(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void __wrap_log_write(enum log_level level, const char *format, ...)
{
	char text[1000];
	va_list args;

	(void)level;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
}

uint8_t input_byte(struct input *in)
{
	uint8_t byte = 0;

	input_bytes(in, &byte, 1);
	return byte;
}

void input_bytes(struct input *in, void *to, size_t size)
{
	size_t n = size < in->size ? size : in->size;

	memset(to, 0, size);
	if (!n)
		return;
	memcpy(to, in->data, n);
	in->data += n;
	in->size -= n;
}

static void fail(const struct error *err)
{
	fprintf(stderr, "%s\n", err->text);
	exit(1);
}

struct disk *fuzz_disk(const char *kind, int read_only)
{
	struct layer_setting size = { (char *)"size", (char *)"1M", 0 };
	struct layer_config layer = { .ops = layer_find(kind), .settings = &size, .count = 1 };
	struct stack_config stack = { &layer, 1 };
	struct disk_config config = { 0 };
	struct error err = { 0 };
	struct disk *disk;

	options_init(disk_options, &config);
	config.read_only = read_only;
	disk = disk_open(kind, &config, &stack, NULL, &err);
	if (!disk)
		fail(&err);
	return disk;
}

struct device *fuzz_device(const char *kind, const char *socket, struct disk *disk,
			   const char *const *options)
{
	const struct frontend *frontend = frontend_find(kind);
	struct unit_plan unit = { .disk = disk };
	struct device_plan plan = {
		.vm = "fuzz", .name = "fuzz", .socket = socket, .units = &unit, .count = 1
	};
	struct error err = { 0 };
	struct device *device;
	void *settings;

	plan.settings = settings = calloc(1, frontend->settings_size);
	options_init(frontend->options, settings);
	for (; *options; options += 2)
		if (options_set(frontend->options, settings, options[0], options[1], &err))
			fail(&err);
	if (frontend->unit_settings_size) {
		unit.settings = calloc(1, frontend->unit_settings_size);
		options_init(frontend->unit_options, (void *)unit.settings);
	}
	device = frontend->create(&plan, &err);
	if (!device)
		fail(&err);
	options_release(frontend->options, settings);
	free(settings);
	if (unit.settings)
		options_release(frontend->unit_options, (void *)unit.settings);
	free((void *)unit.settings);
	return device;
}

struct loop *fuzz_loop(const char *name)
{
	struct loop_config config = { .name = name, .engine = LOOP_AUTO, .cpu = -1 };
	struct error err = { 0 };
	struct loop *loop = loop_create(&config, &err);

	if (!loop || loop_start(loop, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	return loop;
}
