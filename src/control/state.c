/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state.c - changes made at run time that a restart comes back to
 *
 * The file of the option `state` holds what differs from the configuration: disks that came, went,
 * or are other than it says, devices with other units, and ports with other options or layers. It
 * is YAML, in the words of the configuration:
 *
 *     version: 1
 *     disks:
 *       db:
 *         configured: 5f0c...      hash of what the configuration said; absent: it said nothing
 *         now: {stack: [...]}      in place of that; removed: true if the disk went
 *     vms:
 *       web:
 *         ide0: {configured: 77..., units: [...]}
 *     ports:
 *       web0:
 *         configured: 0a31...
 *         now: {switch: lan, vlan: 20, layers: [...]}
 *
 * Each change writes it anew: a new file, synchronised, renamed over the old one, the directory
 * synchronised. Only then is the change answered, so what was answered is there after a crash.
 * Changes that come up while it is being written are kept together by the next writing.
 *
 * When penstock starts, an entry counts as long as the configuration says what it said when
 * penstock started before. If that was edited since, there are two opinions on where a disk's bytes
 * are, and with the wrong one a guest would see old data: so we refuse to start, unless the two are
 * the same (state_read.c). A disk that was taken out of the configuration goes; a device or a port
 * that was edited counts as edited.
 */
#include "control/state_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"
#include "control/config_write.h"
#include "control/daemon.h"
#include "control/stack_tree.h"
#include "control/waiter.h"
#include "control/yaml_write.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "packet/port.h"
#include "util/log.h"
#include "util/must.h"

/* Who waits until something is kept. */
struct keeping {
	struct list link;
	struct waiter *waiter;
};

static const char head[] =
	"# What was changed while penstock ran; see the option state in penstock.yaml(5).\n"
	"# Written anew at each change. An entry may be taken out while penstock does not run: then what\n"
	"# the configuration says counts again.\n";

/* --- what differs -------------------------------------------------------------------------- */

/* What @origin is about, as it is now; NULL if it is not there. */
static json_t *what_is(const struct daemon *daemon, const struct origin *origin)
{
	const struct disk *disk = daemon_disk(daemon, origin->name);
	const struct port *port = daemon_port(daemon, origin->name);

	if (origin->kind == ORIGIN_DISK)
		return disk ? must(config_write_disk(daemon, disk)) : NULL;
	if (origin->kind == ORIGIN_PORT)
		return port ? must(config_write_port(port))
			    : config_write_unplugged(daemon, origin->name);
	for (unsigned d = 0; d < daemon->device_count; d++)
		if (!strcmp(daemon->devices[d].vm->name, origin->vm) &&
		    !strcmp(daemon->devices[d].device->name, origin->name))
			return must(config_write_units(&daemon->devices[d]));
	return NULL;
}

int state_begin(struct daemon *daemon, struct error *err)
{
	struct state *state = daemon->config->kept;
	char path[4096], *directory;

	if (!state)
		return 0;
	state->daemon = daemon;
	snprintf(path, sizeof path, "%s", state->path);
	directory = dirname(path);
	if (access(directory, W_OK | X_OK))
		return error_set(err, errno, "state: no file can be written in '%s': %s", directory,
				 strerror(errno));
	for (unsigned i = 0; i < state->count; i++) {
		json_t *now = what_is(daemon, &state->origins[i]);

		state->origins[i].begun = now ? stack_tree_hash(now) : 0;
		if (state->origins[i].kind == ORIGIN_PORT)
			state->origins[i].last = now; /* uplinks may have gone when it is written */
		else
			json_decref(now);
	}
	return 0;
}

/* Adds to @entry what the configuration said. */
static int set_configured(json_t *entry, const struct origin *origin)
{
	char text[17];

	if (!origin)
		return 0;
	snprintf(text, sizeof text, "%016" PRIx64, origin->hash);
	return json_object_set_new(entry, "configured", json_string(text));
}

/* True if @now, of what @origin is about, has to be kept. */
static bool differs(const struct origin *origin, const json_t *now)
{
	return !origin || origin->replaced || origin->begun != stack_tree_hash(now);
}

static int add_disks(const struct state *state, json_t *json)
{
	const struct daemon *daemon = state->daemon;
	int ret = 0;

	for (unsigned i = 0; i < daemon->disk_count && !ret; i++) {
		const struct disk *disk = daemon->disks[i];
		const struct origin *origin = state_origin(state, NULL, disk->name);
		json_t *now = config_write_disk(daemon, disk), *entry = json_object();

		ret = now && entry ? 0 : -1;
		if (!ret && differs(origin, now))
			ret = set_configured(entry, origin) || json_object_set(entry, "now", now) ||
			      json_object_set(json, disk->name, entry);
		json_decref(now);
		json_decref(entry);
	}
	for (unsigned i = 0; i < state->count && !ret; i++) {
		const struct origin *origin = &state->origins[i];
		json_t *entry;

		if (origin->kind != ORIGIN_DISK || daemon_disk(daemon, origin->name))
			continue;
		entry = json_pack("{s:b}", "removed", 1);
		ret = !entry || set_configured(entry, origin) ||
		      json_object_set(json, origin->name, entry);
		json_decref(entry);
	}
	return ret;
}

static int add_units(const struct state *state, json_t *json)
{
	const struct daemon *daemon = state->daemon;
	int ret = 0;

	for (unsigned i = 0; i < daemon->device_count && !ret; i++) {
		const struct daemon_device *slot = &daemon->devices[i];
		const struct origin *origin =
			state_origin(state, slot->vm->name, slot->device->name);
		json_t *now = config_write_units(slot), *entry = json_object();

		ret = now && entry ? 0 : -1;
		if (!ret && origin && differs(origin, now)) {
			if (!json_object_get(json, slot->vm->name))
				ret = json_object_set_new(json, slot->vm->name, json_object());
			ret = ret || set_configured(entry, origin) ||
			      json_object_set(entry, "units", now) ||
			      json_object_set(json_object_get(json, slot->vm->name),
					      slot->device->name, entry);
		}
		json_decref(now);
		json_decref(entry);
	}
	return ret;
}

/*
 * What ports are, for add_ports(). At once when something has changed: when penstock ends, uplinks
 * go while the file may still have to be written.
 */
static void note_ports(struct state *state)
{
	for (unsigned i = 0; i < state->count; i++) {
		struct origin *origin = &state->origins[i];
		const struct port *port = origin->kind == ORIGIN_PORT
						  ? daemon_port(state->daemon, origin->name)
						  : NULL;

		if (!port) /* it has gone, or it is a NIC that no device uses */
			continue;
		json_decref(origin->last);
		origin->last = config_write_port(port);
	}
}

static int add_ports(const struct state *state, json_t *json)
{
	int ret = 0;

	for (unsigned i = 0; i < state->count && !ret; i++) {
		const struct origin *origin = &state->origins[i];
		json_t *entry;

		if (!origin->last && origin->kind == ORIGIN_PORT &&
		    daemon_port(state->daemon, origin->name))
			return -1; /* memory was short */
		if (!origin->last || !differs(origin, origin->last))
			continue;
		entry = json_object();
		ret = !entry || set_configured(entry, origin) ||
		      json_object_set(entry, "now", origin->last) ||
		      json_object_set(json, origin->name, entry);
		json_decref(entry);
	}
	return ret;
}

/* The text of the file, the caller's; NULL: no memory. */
static char *compose(const struct state *state)
{
	json_t *disks = json_object(), *vms = json_object(), *ports = json_object(), *json;
	char *text = NULL, *whole = NULL;
	bool good = disks && vms && ports && !add_disks(state, disks) && !add_units(state, vms) &&
		    !add_ports(state, ports);

	json = good ? json_pack("{s:i, s:O, s:O}", "version", 1, "disks", disks, "vms", vms) : NULL;
	if (json && json_object_size(ports) && json_object_set(json, "ports", ports)) {
		json_decref(json);
		json = NULL;
	}
	if (json)
		text = yaml_write(json);
	if (text && asprintf(&whole, "%s%s", head, text) < 0)
		whole = NULL;
	free(text);
	json_decref(json);
	json_decref(disks);
	json_decref(vms);
	json_decref(ports);
	return whole;
}

/* --- writing ------------------------------------------------------------------------------- */

static int write_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t n = write(fd, text, length);

		if (n < 0)
			return -1;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int ret = fd < 0 ? -1 : fsync(fd);

	if (fd >= 0)
		close(fd);
	free(copy);
	return ret;
}

static void write_file(struct background *background)
{
	struct state *state = container_of(background, struct state, background);
	char *fresh = NULL;
	int fd, ret = -1;

	if (asprintf(&fresh, "%s.new", state->path) < 0) {
		error_set(&state->err, ENOMEM, "out of memory");
		return;
	}
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		ret = write_all(fd, state->text, strlen(state->text)) || fsync(fd);
		ret |= close(fd);
	}
	if (ret || rename(fresh, state->path) || sync_directory(state->path))
		error_set(&state->err, errno ? errno : EIO, "%s: %s", state->path, strerror(errno));
	free(fresh);
}

static void begin(struct state *state);

static void written(struct background *background)
{
	struct state *state = container_of(background, struct state, background);
	struct daemon *daemon = state->daemon;
	struct error err = state->err;

	free(state->text);
	state->text = NULL;
	state->writing = false;
	if (err.code) {
		error_prefix(&err, "it is changed, but a restart will not know of it");
		err.code = EIO;
		log_error("state: %s", err.text);
	}
	list_for_each (link, &state->now) {
		struct keeping *keeping = container_of(link, struct keeping, link);

		list_remove(link);
		waiter_tell(&keeping->waiter, &err);
		free(keeping);
	}
	if (state->again)
		begin(state);
	daemon_let_go(daemon);
}

/* Writes what is so now. */
static void begin(struct state *state)
{
	list_for_each (link, &state->next) {
		list_remove(link);
		list_add(&state->now, link);
	}
	state->again = false;
	state->writing = true;
	state->err = (struct error){ 0 };
	daemon_hold(state->daemon);
	state->text = compose(state);
	if (!state->text)
		error_set(&state->err, ENOMEM, "%s: out of memory", state->path);
	if (!state->text || background_start(&state->background, state->daemon->control, write_file,
					     written, &state->err))
		written(&state->background);
}

void state_keep(struct daemon *daemon, struct waiter **waiter)
{
	struct state *state = daemon->config->kept;
	struct keeping *keeping = state ? calloc(1, sizeof *keeping) : NULL;
	struct error err = { 0 };

	if (!keeping) {
		if (state)
			error_set(&err, ENOMEM, "out of memory");
		waiter_tell(waiter, &err);
		return;
	}
	waiter_move(&keeping->waiter, waiter);
	list_add(&state->next, &keeping->link);
	note_ports(state);
	state->again = true;
	if (!state->writing)
		begin(state);
}
