/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_change.c - commands that change what a running penstock serves
 *
 * A unit is typed as DEVICE/UNIT, or as DEVICE alone where a device has but one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/client_private.h"
#include "control/invocation.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/yaml.h"
#include "util/must.h"
#include "util/option.h"

#define NAME_LENGTH 64 /* the most that the name of a disk may have */

/* --- disks ----------------------------------------------------------------------------- */

/* Asks for a change of the disk @name, and says how large it is now. */
static int change_disk(const struct invocation *in, const char *name, const char *what,
		       const char *body)
{
	char *path = client_path("/v1/disks/%s%s", name, what), size[32];
	json_t *disk = client_ask(in, "POST", path, body);

	free(path);
	if (!disk)
		return 1;
	printf("disk %s: %s\n", name, format_size(client_number(disk, "size"), size, sizeof size));
	json_decref(disk);
	return 0;
}

int client_resize(const struct invocation *in)
{
	const char *name = in->arguments[0], *size = in->arguments[1];
	uint64_t bytes;
	char body[64];

	if (parse_size(size, &bytes) || !bytes) {
		fprintf(stderr,
			"penstock resize: '%s' is not understood; expected a size such as 40G\n",
			size);
		return 2;
	}
	if (!client_name(name))
		return 2;
	snprintf(body, sizeof body, "{\"size\": %" PRIu64 "}", bytes);
	return change_disk(in, name, "/resize", body);
}

int client_add_disk(const struct invocation *in)
{
	const char *name = in->arguments[0], *options = in->arguments[1];
	struct mistakes mistakes = { .file = "OPTIONS" };
	struct node *tree;
	json_t *json;
	char *body;
	int status;

	if (!client_name(name))
		return 2;
	tree = yaml_parse(options, strlen(options), &mistakes);
	for (unsigned i = 0; i < mistakes.count; i++)
		fprintf(stderr, "penstock add-disk: %s\n", mistakes.texts[i]);
	mistakes_release(&mistakes);
	if (tree && tree->type != NODE_MAPPING)
		fprintf(stderr,
			"penstock add-disk: '%s' is not understood; expected options such as "
			"'{stack: [iso: {path: PATH}]}'\n",
			options);
	if (!tree || tree->type != NODE_MAPPING) {
		node_free(tree);
		return 2;
	}
	json = must(json_tree_write(tree));
	body = must(json_dumps(json, JSON_COMPACT));
	status = change_disk(in, name, "", body);
	free(body);
	json_decref(json);
	node_free(tree);
	return status;
}

static json_t *remove_disk(const struct invocation *in, const char *name)
{
	char *path = client_path("/v1/disks/%s", name);
	json_t *answer = client_ask(in, "DELETE", path, "");

	free(path);
	return answer;
}

int client_remove_disk(const struct invocation *in)
{
	const char *name = in->arguments[0];
	json_t *answer;

	if (!client_name(name))
		return 2;
	answer = remove_disk(in, name);
	if (!answer)
		return 1;
	printf("disk %s: removed\n", name);
	json_decref(answer);
	return 0;
}

/* --- units ----------------------------------------------------------------------------- */

/* The path of the unit that the arguments name, and @what; NULL after a complaint. */
static char *unit_path(const struct invocation *in, const char *what)
{
	const char *vm = in->arguments[0], *unit = strchr(in->arguments[1], '/');
	char *device = must(strdup(in->arguments[1])), *path = NULL;

	device[strcspn(device, "/")] = 0;
	unit = unit ? unit + 1 : "-";
	if (client_name(vm) && client_name(device) && client_name(unit))
		path = client_path("/v1/vms/%s/devices/%s/units/%s%s", vm, device, unit, what);
	free(device);
	return path;
}

/* {"disk": NAME or null}, and force beside it if it is wanted; the caller's. */
static char *wish(const char *disk, bool force)
{
	json_t *json = must(json_pack("{s:s?}", "disk", disk));
	char *body;

	if (force)
		json_object_set_new(json, "force", json_true());
	body = must(json_dumps(json, JSON_COMPACT));
	json_decref(json);
	return body;
}

/* Asks for a change of a unit, and says what is in it now. */
static int change_unit(const struct invocation *in, const char *method, const char *what,
		       const char *body)
{
	char *path = unit_path(in, what);
	json_t *unit = path ? client_ask(in, method, path, body) : NULL;
	const char *disk = client_text(unit, "disk");
	int status = !path ? 2 : unit ? 0 : 1;

	if (unit)
		printf("%s: %s%s\n", in->arguments[1],
		       !json_is_true(json_object_get(unit, "present")) ? "detached"
		       : *disk                                         ? "disk "
								       : "empty",
		       disk);
	json_decref(unit);
	free(path);
	return status;
}

static int set_disk(const struct invocation *in, const char *disk)
{
	char *body = wish(disk, in->force);
	int status = change_unit(in, "PUT", "", body);

	free(body);
	return status;
}

/* The disk that is this image and nothing else, or NULL; or one that has its name: then not @same.
 */
static const json_t *find_iso(const json_t *disks, const char *name, const json_t *stack,
			      bool *same)
{
	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i);

		*same = json_equal(json_object_get(disk, "stack"), stack);
		if (*same || !strcmp(client_text(disk, "name"), name))
			return disk;
	}
	return NULL;
}

/*
 * Makes a disk of the image @path, if it is none yet: then it was @added. Its name, the caller's;
 * NULL after a complaint.
 */
static char *add_iso(const struct invocation *in, const char *path, bool *added)
{
	char *real = realpath(path, NULL), *name, *body, *to;
	json_t *options, *disks, *answer = NULL;
	const json_t *there;
	bool same = false;

	if (!real) {
		fprintf(stderr, "penstock insert: %s: %m\n", path);
		return NULL;
	}
	name = must(strndup(strrchr(real, '/') + 1, NAME_LENGTH));
	for (char *c = name; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
			    *c))
			*c = '-';
	options = must(json_pack("{s:[{s:{s:s}}]}", "stack", "iso", "path", real));
	disks = client_ask(in, "GET", "/v1/disks", "");
	there = find_iso(disks, name, json_object_get(options, "stack"), &same);
	if (there && same) {
		free(name);
		name = must(strdup(client_text(there, "name")));
		answer = json_true();
	} else if (there) {
		fprintf(stderr,
			"penstock insert: there is a disk '%s' already, and it is not %s; open the "
			"image under another name with penstock add-disk\n",
			name, real);
	} else if (disks) {
		to = client_path("/v1/disks/%s", name);
		body = must(json_dumps(options, JSON_COMPACT));
		answer = client_ask(in, "POST", to, body);
		*added = answer;
		free(body);
		free(to);
	}
	if (!answer) {
		free(name);
		name = NULL;
	}
	json_decref(answer);
	json_decref(disks);
	json_decref(options);
	free(real);
	return name;
}

int client_insert(const struct invocation *in)
{
	bool added = false;
	char *name;
	int status;

	if ((in->count == 3) == (in->iso != NULL)) {
		fprintf(stderr,
			in->iso ? "penstock insert: DISK and --iso are both given; expected one\n"
				: "penstock insert: DISK is missing; expected the name of one, or "
				  "--iso PATH\n");
		return 2;
	}
	if (!in->iso)
		return set_disk(in, in->arguments[2]);
	name = add_iso(in, in->iso, &added);
	if (!name)
		return 1;
	status = set_disk(in, name);
	if (status && added)
		json_decref(remove_disk(in, name));
	free(name);
	return status;
}

int client_eject(const struct invocation *in)
{
	return set_disk(in, NULL);
}

int client_attach(const struct invocation *in)
{
	char *body = wish(in->count == 3 ? in->arguments[2] : NULL, false);
	int status = change_unit(in, "POST", "/attach", body);

	free(body);
	return status;
}

int client_detach(const struct invocation *in)
{
	return change_unit(in, "POST", "/detach", "");
}
