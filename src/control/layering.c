/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layering.c - other layers for a disk that is in use
 *
 * Whatever is wanted, a layer more or less or one with another option, is a stack, and the layer
 * engine finds the difference (layer/change.h). What may wait for storage, opening and closing, is
 * done by a thread of its own; the moment in which requests wait is the control loop's. Meanwhile
 * the disk is taken: nothing else changes it.
 */
#include "control/layering.h"

#include <errno.h>
#include <stdlib.h>

#include "control/background.h"
#include "control/config.h"
#include "control/daemon.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/records.h"
#include "control/stack_tree.h"
#include "control/state.h"
#include "control/waiter.h"
#include "control/yaml.h"
#include "layer/change.h"
#include "util/error.h"
#include "util/log.h"

/* One that is under way. */
struct layering {
	struct background background;
	struct daemon *daemon;
	struct disk *disk;
	struct stack_config to;
	bool undo; /* no other layers: what was changed is thrown away */
	struct change *change;
	struct change_end end;
	struct error err;
	struct waiter *waiter;
};

/* --- what is wanted ---------------------------------------------------------------------- */

int layering_read(const struct disk *disk, const json_t *stack, struct stack_config *config,
		  struct error *err)
{
	struct mistakes mistakes = { .file = "request" };
	json_t *as_written = stack_tree_short(stack);
	struct node *tree = as_written ? json_tree_read(as_written, &mistakes) : NULL;
	char text[sizeof err->text];

	json_decref(as_written);
	if (!as_written)
		return error_set(err, ENOMEM, "out of memory");
	if (tree)
		config_read_stack(config, tree, &mistakes);
	node_free(tree);
	if (mistakes.fatal) {
		stack_config_release(config);
		error_set(err, mistakes.no_memory ? ENOMEM : EINVAL, "disk '%s': %s", disk->name,
			  mistakes_text(&mistakes, text, sizeof text));
	}
	mistakes_release(&mistakes);
	return mistakes.fatal ? -err->code : 0;
}

/* --- in the order of events ---------------------------------------------------------------- */

static void finished(struct background *background)
{
	struct layering *l = container_of(background, struct layering, background);
	struct daemon *daemon = l->daemon;

	record_done(daemon, l->disk);
	if (l->err.code) {
		error_prefix(&l->err, "disk '%s'", l->disk->name);
		log_warn("%s", l->err.text);
		waiter_tell(&l->waiter, &l->err);
	} else {
		state_keep(daemon, &l->waiter);
	}
	stack_config_release(&l->to);
	free(l);
	daemon_let_go(daemon);
}

static void finish(struct background *background)
{
	struct layering *l = container_of(background, struct layering, background);

	change_finish(l->change);
}

/* The new layers are in service, or will not be. */
static void committed(struct change_end *end, struct error *err)
{
	struct layering *l = container_of(end, struct layering, end);
	struct error why = { 0 };

	l->err = *err;
	if (!err->code)
		record_change(l->daemon, l->disk, change_pause(l->change));
	if (!background_start(&l->background, l->daemon->control, finish, finished, &why))
		return;
	log_warn("disk %s: closing what is no longer used holds up the control thread: %s",
		 l->disk->name, why.text);
	finish(&l->background);
	finished(&l->background);
}

static void prepared(struct background *background)
{
	struct layering *l = container_of(background, struct layering, background);

	if (l->change)
		change_commit(l->change, l->daemon->control, &l->end);
	else
		finished(background);
}

static void prepare(struct background *background)
{
	struct layering *l = container_of(background, struct layering, background);

	l->change = l->undo ? change_prepare_undo(l->disk, &l->err)
			    : change_prepare(l->disk, &l->to, &l->err);
}

/* @config: NULL for an undo. */
static int begin(struct daemon *daemon, struct disk *disk, struct stack_config *config,
		 struct waiter *waiter, struct error *err)
{
	struct layering *l;
	int ret = record_take(
		daemon, disk,
		config ? "its layers are being changed" : "its changes are being thrown away", err);

	if (ret) {
		if (config)
			stack_config_release(config);
		return ret;
	}
	l = calloc(1, sizeof *l);
	if (!l) {
		ret = error_set(err, ENOMEM, "out of memory");
	} else {
		l->daemon = daemon;
		l->disk = disk;
		if (config)
			l->to = *config;
		l->undo = !config;
		l->end.done = committed;
		ret = background_start(&l->background, daemon->control, prepare, prepared, err);
	}
	if (ret) {
		if (config)
			stack_config_release(config);
		record_done(daemon, disk);
		free(l);
		return ret;
	}
	waiter_hold(&l->waiter, waiter);
	daemon_hold(daemon);
	return 0;
}

int layering_begin(struct daemon *daemon, struct disk *disk, struct stack_config *config,
		   struct waiter *waiter, struct error *err)
{
	return begin(daemon, disk, config, waiter, err);
}

int layering_undo(struct daemon *daemon, struct disk *disk, struct waiter *waiter,
		  struct error *err)
{
	return begin(daemon, disk, NULL, waiter, err);
}
