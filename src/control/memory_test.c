/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory_test.c - a lack of memory while the API reads what a disk or a port is to be refuses that,
 * and ends nothing
 *
 * The linker puts the functions below in place of those of the C library for our own code. Each
 * allocation in turn fails, until all goes well; and nothing is lost on the way.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/config.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/stack_tree.h"
#include "control/yaml.h"

static unsigned left; /* allocations that still succeed */
static bool counting, failed;

static bool may(void)
{
	if (!counting || left--)
		return true;
	left = 0; /* from now on there is none at all */
	failed = true;
	return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t size)
{
	return may() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
	return may() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
	return may() ? __real_realloc(old, size) : NULL;
}

char *__wrap_strdup(const char *text)
{
	return may() ? __real_strdup(text) : NULL;
}

/* Reads a disk, as a request to the API has it, with @enough allocations; whether that was enough.
 */
static bool read_disk(json_t *json, unsigned enough, bool good)
{
	struct mistakes mistakes = { .file = "request" };
	struct config_disk config = { 0 };
	struct node *tree, *disks;
	char text[500];
	bool read = false;

	left = enough;
	failed = false;
	counting = true;
	tree = json_tree_read(json, &mistakes);
	disks = tree ? node_make(NODE_MAPPING, NULL, 0) : NULL;
	if (tree && !disks)
		node_free(tree);
	if (disks && node_put(disks, "db", tree))
		read = config_read_disk(&config, tree, &mistakes);
	counting = false;
	node_free(disks);
	config_release_disk(&config);
	if (failed) {
		assert_false(read);
		if (mistakes.no_memory)
			assert_string_equal(mistakes_text(&mistakes, text, sizeof text),
					    "out of memory");
	} else {
		assert_int_equal(read, good);
		assert_int_equal(mistakes.count > 0, !good);
		assert_false(mistakes.no_memory);
	}
	mistakes_release(&mistakes);
	return !failed;
}

static void each_allocation_may_fail(void **state)
{
	static const struct {
		const char *body;
		bool good;
	} disk[] = {
		{ "{\"size\": \"1G\", \"cache\": \"unsafe\", \"reservations\": \"/r\", \"stack\": [\"pass\", "
		  "{\"flaky\": {\"delay\": \"1ms\"}}, {\"file\": {\"path\": \"/a\", \"create\": true}}]}",
		  true },
		{ "{\"sise\": 1, \"stack\": [{\"flaky\": {\"dely\": 1}}, \"nul\", {\"null\": {\"size\": "
		  "0}}]}",
		  false },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof disk / sizeof *disk; i++) {
		json_t *json = json_loads(disk[i].body, 0, NULL);
		unsigned enough = 0;

		assert_non_null(json);
		while (!read_disk(json, enough, disk[i].good))
			enough++;
		assert_true(enough > 10);
		json_decref(json);
	}
}

/* The same of the layers of a port. */
static bool read_layers(json_t *json, unsigned enough, bool good)
{
	static const struct port_facts facts = {
		.name = "web0", .kind = "virtio-net", .mac = { 2 }, .has_mac = true, .mtu = 1500
	};
	struct mistakes mistakes = { .file = "request" };
	struct packet_layer_config *layers = NULL;
	struct node *tree;
	unsigned count = 0;
	bool read = false;

	left = enough;
	failed = false;
	counting = true;
	tree = json_tree_read(json, &mistakes);
	if (tree)
		read = config_read_packet_layers(&layers, &count, tree, &facts, &mistakes);
	counting = false;
	node_free(tree);
	config_release_packet_layers(layers, count);
	assert_int_equal(read, good && !failed);
	mistakes_release(&mistakes);
	return !failed;
}

static void each_allocation_for_a_port_may_fail(void **state)
{
	static const struct {
		const char *body;
		bool good;
	} port[] = {
		{ "[\"count\", {\"antispoof\": {\"ipv4\": \"10.0.0.1,10.1.0.0/16\", \"mac\": "
		  "\"52:54:00:00:00:01\"}}, {\"impair\": {\"loss\": \"1%\", \"delay\": \"5ms\"}}]",
		  true },
		{ "[\"cuont\", {\"count\": {\"direktion\": \"in\"}}, {\"antispoof\": {\"ipv4\": \"x\"}}]",
		  false },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof port / sizeof *port; i++) {
		json_t *json = json_loads(port[i].body, 0, NULL);
		unsigned enough = 0;

		assert_non_null(json);
		while (!read_layers(json, enough, port[i].good))
			enough++;
		assert_true(enough > 5);
		json_decref(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_allocation_may_fail),
					    cmocka_unit_test(each_allocation_for_a_port_may_fail) };

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
