/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_layers.c - commands that change the layers of a disk or of a port that a running penstock
 * serves
 *
 * Layers are typed as in a configuration file, in YAML: pass, 'crypt: {key-file: KEY}'. Each
 * command ends with the stack as it is then, and how long the guest's requests had to wait for the
 * change.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/client_private.h"
#include "control/invocation.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/yaml.h"
#include "control/yaml_write.h"
#include "util/must.h"

json_t *client_yaml(const struct invocation *in, const char *text, const char *what)
{
	struct mistakes mistakes = { .file = what };
	struct node *tree = yaml_parse(text, strlen(text), &mistakes);
	json_t *json = tree ? must(json_tree_write(tree)) : NULL;

	for (unsigned i = 0; i < mistakes.count; i++)
		fprintf(stderr, "penstock %s: %s\n", client_command(in), mistakes.texts[i]);
	mistakes_release(&mistakes);
	node_free(tree);
	return json;
}

json_t *client_yaml_list(const struct invocation *in, unsigned first, const char *what)
{
	json_t *list = must(json_array());

	for (unsigned i = first; i < in->count; i++) {
		json_t *json = client_yaml(in, in->arguments[i], what);

		if (!json) {
			json_decref(list);
			return NULL;
		}
		/* A list is as good as its items one after another. */
		if (json_is_array(json)) {
			json_array_extend(list, json);
			json_decref(json);
		} else {
			json_array_append_new(list, json);
		}
	}
	return list;
}

/* True if @place can be part of a path. */
static bool is_place(const char *place)
{
	if (*place && !place[strcspn(place, " \t\r\n?#%")])
		return true;
	fprintf(stderr,
		"penstock: '%s' is no place in a stack; expected the number of a layer, its kind, or a "
		"path such as mirror/0/crypt\n",
		place);
	return false;
}

/* The beginning of all paths about the stack of @name, a disk or a port; NULL after a complaint. */
static char *stack_path(const struct invocation *in, const char *name, const char *what)
{
	json_t *ports = client_ask(in, "GET", "/v1/ports", ""), *port;
	const char *kind = "disks";
	size_t i;

	if (!ports)
		return NULL;
	json_array_foreach(ports, i, port)
	{
		if (!strcmp(client_text(port, "name"), name))
			kind = "ports";
	}
	json_decref(ports);
	return client_path("/v1/%s/%s%s", kind, name, what);
}

static bool is_port(const char *path)
{
	return !strncmp(path, "/v1/ports/", strlen("/v1/ports/"));
}

/* Says what the stack of @name is. False after a complaint. */
static bool print_stack(const struct invocation *in, const char *name, const char *before)
{
	char *path = stack_path(in, name, "/stack");
	json_t *answer = path ? client_ask(in, "GET", path, "") : NULL;

	if (answer)
		printf("%s %s: %s%s\n", is_port(path) ? "port" : "disk", name,
		       client_text(answer, "layers"), before);
	free(path);
	json_decref(answer);
	return answer;
}

/* Sends the wish @body, which is its own, and says what became of it. */
static int change(const struct invocation *in, const char *method, char *path, json_t *body)
{
	char *text = body ? must(json_dumps(body, JSON_COMPACT)) : must(strdup(""));
	json_t *disk = path ? client_ask(in, method, path, text) : NULL;
	char pause[80] = "";
	bool good = disk;

	if (disk) {
		if (!is_port(path))
			snprintf(pause, sizeof pause, "; requests waited %.3f ms at most",
				 json_number_value(json_object_get(json_object_get(disk, "changes"),
								   "pause-us")) /
					 1000);
		good = print_stack(in, in->arguments[0], pause);
	}
	json_decref(disk);
	json_decref(body);
	free(text);
	free(path);
	return good ? 0 : 1;
}

int client_stack(const struct invocation *in)
{
	const char *name = in->arguments[0];
	json_t *stack, *answer;
	char *path, *text;

	if (!client_name(name))
		return 2;
	path = stack_path(in, name, "/stack");
	if (!path)
		return 1;
	if (in->count > 1) {
		stack = client_yaml_list(in, 1, "STACK");
		if (stack)
			return change(in, "PUT", path, must(json_pack("{s:o}", "stack", stack)));
		free(path);
		return 2;
	}
	answer = client_ask(in, "GET", path, "");
	free(path);
	if (!answer)
		return 1;
	text = must(yaml_write(json_object_get(answer, "stack")));
	printf("%s", text);
	free(text);
	json_decref(answer);
	return 0;
}

/* The path of the layer that the arguments name; @keep: see client_remove_layer(). */
static char *layer_path(const struct invocation *in, const char *keep)
{
	char *what = client_path("/layers/%s%s%s", in->arguments[1], keep ? "?keep=" : "",
				 keep ? keep : "");
	char *path = stack_path(in, in->arguments[0], what);

	free(what);
	return path;
}

json_t *client_assignments(const struct invocation *in, unsigned first)
{
	json_t *options = must(json_object());

	for (unsigned i = first; i < in->count; i++) {
		char *name = must(strdup(in->arguments[i])), *value = strchr(name, '=');

		if (!value || value == name) {
			fprintf(stderr,
				"penstock %s: '%s' is not understood; expected option=value\n",
				client_command(in), name);
			free(name);
			json_decref(options);
			return NULL;
		}
		*value++ = 0;
		json_object_set_new(options, name, *value ? json_string(value) : json_null());
		free(name);
	}
	return options;
}

int client_insert_layer(const struct invocation *in)
{
	json_t *layer;

	if (!client_name(in->arguments[0]) || !is_place(in->arguments[1]))
		return 2;
	layer = client_yaml(in, in->arguments[2], "LAYER");
	if (!layer)
		return 2;
	return change(in, "POST", layer_path(in, NULL), must(json_pack("{s:o}", "layer", layer)));
}

int client_remove_layer(const struct invocation *in)
{
	if (!client_name(in->arguments[0]) || !is_place(in->arguments[1]) ||
	    (in->keep && !client_name(in->keep)))
		return 2;
	return change(in, "DELETE", layer_path(in, in->keep), NULL);
}

int client_move_layer(const struct invocation *in)
{
	if (!client_name(in->arguments[0]))
		return 2;
	return change(
		in, "POST", stack_path(in, in->arguments[0], "/order"),
		must(json_pack("{s:s, s:s}", "from", in->arguments[1], "to", in->arguments[2])));
}

int client_set_layer(const struct invocation *in)
{
	json_t *options;

	if (!client_name(in->arguments[0]) || !is_place(in->arguments[1]))
		return 2;
	options = client_assignments(in, 2);
	if (!options)
		return 2;
	return change(in, "PATCH", layer_path(in, NULL),
		      must(json_pack("{s:o}", "options", options)));
}

int client_add_leg(const struct invocation *in)
{
	json_t *leg;

	if (!client_name(in->arguments[0]) || !is_place(in->arguments[1]))
		return 2;
	leg = client_yaml_list(in, 2, "LAYER");
	if (!leg)
		return 2;
	return change(in, "POST",
		      client_path("/v1/disks/%s/legs/%s", in->arguments[0], in->arguments[1]),
		      must(json_pack("{s:o}", "leg", leg)));
}

int client_remove_leg(const struct invocation *in)
{
	if (!client_name(in->arguments[0]) || !is_place(in->arguments[1]))
		return 2;
	return change(in, "DELETE",
		      client_path("/v1/disks/%s/legs/%s", in->arguments[0], in->arguments[1]),
		      NULL);
}

int client_undo(const struct invocation *in)
{
	const char *name = in->arguments[0];
	char *path;
	json_t *disk;

	if (!client_name(name))
		return 2;
	path = client_path("/v1/disks/%s/undo", name);
	disk = client_ask(in, "POST", path, "");
	free(path);
	if (!disk)
		return 1;
	printf("disk %s: what was changed is thrown away; reset its guest\n", name);
	json_decref(disk);
	return 0;
}

int client_config(const struct invocation *in)
{
	json_t *config = client_ask(in, "GET", "/v1/config", "");
	char *text;

	if (!config)
		return 1;
	text = in->json ? must(json_dumps(config, JSON_INDENT(2))) : must(yaml_write(config));
	printf("%s%s", text, in->json ? "\n" : "");
	free(text);
	json_decref(config);
	return 0;
}
