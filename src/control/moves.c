/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * moves.c - disks that move to another back-end while guests use them
 *
 * Three stacks: the source, as it is; the way, in which the internal layer `move` stands above what
 * is to be replaced, with the target as its leg; and the target alone. Two changes of layers lead
 * from one to the next, and one back:
 *
 *     OPENING    the target is opened, the way is put in service
 *     COPYING    one pass; what the guest writes goes to both sides (layer/move.c)
 *     KEEPING    the target is complete and durable; the state file is told that it counts
 *     SWITCHING  the target alone is put in service
 *     LEAVING    or, after a failure or a cancel, the source alone
 *
 * Until the state file is on stable storage the source is complete, and from the end of the copying
 * on so is the target: whenever we crash, a start finds a complete disk. A change that does not
 * succeed, because requests do not come back in time, is tried again: both sides are good
 * meanwhile.
 */
#include "control/moves.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/background.h"
#include "control/config.h"
#include "control/daemon.h"
#include "control/layering.h"
#include "control/records.h"
#include "control/stack_tree.h"
#include "control/stack_tree_private.h"
#include "control/state.h"
#include "control/waiter.h"
#include "layer/change.h"
#include "layer/disk.h"
#include "layer/move.h"
#include "util/error.h"
#include "util/log.h"

#define AGAIN 5000000000ull /* ns until a change that did not succeed is tried again */

enum step { OPENING, COPYING, KEEPING, SWITCHING, LEAVING, DONE, FAILED, CANCELED };

struct move_job {
	struct background background;
	struct daemon *daemon;
	struct disk *disk;
	struct disk_record *record;
	enum step state;
	struct stack_config source, way, target;
	json_t *to;    /* the layers of the target, full form */
	json_t *whole; /* the stack with it, full form */
	struct change *change;
	struct change_end change_end;
	struct loop_message copied; /* of the move layer */
	struct loop_timer again;
	bool reached; /* the change that is under way has put its layers in service */
	bool cancel;
	struct error err;               /* why it failed */
	struct waiter *waiter;          /* for COPYING */
	struct waiter *canceler;        /* for the end */
	struct waiter kept, *kept_held; /* its own, for the state file */
	uint64_t limit;                 /* bytes a second, 0: none */
	uint64_t began, ended;          /* ns */
	struct move_progress progress;  /* as it was last */
};

static const char *const names[] = { "opening",   "copying", "switching", "switching",
				     "switching", "done",    "failed",    "canceled" };

static bool is_over(const struct move_job *job)
{
	return job->state >= DONE;
}

/* --- what it is made of ------------------------------------------------------------------ */

/* The list in @stack that @numbers lead to, and the place in it: layer, leg, layer, ... */
static struct stack_config *find_place(struct stack_config *stack, const unsigned *numbers,
				       unsigned count, unsigned *index)
{
	for (unsigned i = 0; i + 2 < count; i += 2)
		stack = &stack->layers[numbers[i]].legs[numbers[i + 1]];
	*index = numbers[count - 1];
	return stack;
}

static int add_limit(struct layer_config *layer, uint64_t limit)
{
	char text[32];

	layer->settings = calloc(1, sizeof *layer->settings);
	if (!layer->settings)
		return -ENOMEM;
	layer->settings[0].name = strdup("limit");
	layer->settings[0].value = strdup(format_size(limit, text, sizeof text));
	layer->count = 1;
	return layer->settings[0].name && layer->settings[0].value ? 0 : -ENOMEM;
}

/* Makes @way of @source and @target, which differ from @numbers on. */
static int make_way(struct move_job *job, const unsigned *numbers, unsigned count)
{
	struct stack_config *list, *other, leg = { 0 }, whole = { 0 };
	struct layer_config *layers;
	unsigned index, there;
	int ret;

	if (stack_config_copy(&job->way, &job->source) || stack_config_copy(&whole, &job->target))
		return -ENOMEM;
	list = find_place(&job->way, numbers, count, &index);
	other = find_place(&whole, numbers, count, &there);
	/* What follows there in the target's list becomes the leg, the rest of the copy goes. */
	leg.layers = calloc(other->count - there, sizeof *leg.layers);
	layers = calloc(list->count + 1, sizeof *layers);
	if (!leg.layers || !layers || !(layers[index].legs = calloc(1, sizeof leg))) {
		free(leg.layers);
		free(layers);
		stack_config_release(&whole);
		return -ENOMEM;
	}
	leg.count = other->count - there;
	memcpy(leg.layers, other->layers + there, leg.count * sizeof *leg.layers);
	other->count = there;
	memcpy(layers, list->layers, index * sizeof *layers);
	memcpy(layers + index + 1, list->layers + index, (list->count - index) * sizeof *layers);
	layers[index].ops = &move_ops;
	ret = job->limit ? add_limit(&layers[index], job->limit) : 0;
	layers[index].legs[0] = leg;
	layers[index].leg_count = 1;
	free(list->layers);
	list->layers = layers;
	list->count++;
	stack_config_release(&whole);
	return ret;
}

/* An image that is to be made is made as large as the disk is. */
static int set_size(json_t *to, const struct disk *disk)
{
	json_t *last = json_array_get(to, json_array_size(to) - 1);
	json_t *options = json_object_iter_value(json_object_iter(last));
	const json_t *create = json_object_get(options, "create");
	char size[32];

	if (!json_is_object(options) || !create || json_object_get(options, "size"))
		return 0;
	format_size(disk->top->limits.size, size, sizeof size);
	return json_object_set_new(options, "size", json_string(size));
}

/*
 * Where the bytes are: the last layer or, if that is only read (the base of an overlay), the one
 * which does not write to it.
 */
static size_t default_place(const json_t *source)
{
	const json_t *layer;
	size_t i;

	json_array_foreach(source, i, layer)
	{
		const struct layer_ops *ops = layer_find(stack_tree_kind(layer));

		if (ops && ops->below_read_only)
			return i;
	}
	return json_array_size(source) - 1;
}

static int plan(struct move_job *job, const json_t *to, const char *place, struct error *err)
{
	json_t *source = stack_tree_of(job->disk);
	unsigned numbers[STACK_TREE_DEPTH], count = 0;
	char last[16];
	int ret;

	job->to = json_deep_copy(to);
	job->whole = source ? json_deep_copy(source) : NULL;
	if (!job->whole || !job->to || set_size(job->to, job->disk)) {
		json_decref(source);
		return error_set(err, ENOMEM, "out of memory");
	}
	snprintf(last, sizeof last, "%zu", default_place(source));
	if (!place)
		place = last;
	ret = stack_tree_numbers(source, place, numbers, &count, err);
	if (!ret)
		ret = stack_tree_replace(job->whole, place, job->to, err);
	if (!ret)
		ret = layering_read(job->disk, source, &job->source, err);
	if (!ret)
		ret = layering_read(job->disk, job->whole, &job->target, err);
	if (!ret && make_way(job, numbers, count))
		ret = error_set(err, ENOMEM, "out of memory");
	json_decref(source);
	return ret;
}

static void free_job(struct move_job *job)
{
	stack_config_release(&job->source);
	stack_config_release(&job->way);
	stack_config_release(&job->target);
	json_decref(job->to);
	json_decref(job->whole);
	free(job);
}

/* --- one change of layers ------------------------------------------------------------------ */

static void advance(struct move_job *job);

static const struct stack_config *wanted(const struct move_job *job)
{
	return job->state == OPENING     ? &job->way
	       : job->state == SWITCHING ? &job->target
					 : &job->source;
}

static void finished(struct background *background)
{
	struct move_job *job = container_of(background, struct move_job, background);

	job->change = NULL;
	advance(job);
}

static void finish(struct background *background)
{
	change_finish(container_of(background, struct move_job, background)->change);
}

/* In a thread if there is one to be had, for this must be done. */
static void in_background(struct move_job *job, void (*work)(struct background *),
			  void (*done)(struct background *))
{
	struct error err = { 0 };

	if (!background_start(&job->background, job->daemon->control, work, done, &err))
		return;
	log_warn("disk %s: its move holds up the control thread: %s", job->disk->name, err.text);
	work(&job->background);
	done(&job->background);
}

static void committed(struct change_end *end, struct error *err)
{
	struct move_job *job = container_of(end, struct move_job, change_end);

	job->reached = !err->code;
	if (job->reached)
		record_change(job->daemon, job->disk, change_pause(job->change));
	else if (job->state == OPENING)
		job->err = *err;
	else
		log_warn("disk %s: its move is not at its end yet: %s", job->disk->name, err->text);
	in_background(job, finish, finished);
}

static void prepared(struct background *background)
{
	struct move_job *job = container_of(background, struct move_job, background);

	if (!job->change)
		advance(job);
	else if (job->state == OPENING && job->cancel)
		in_background(job, finish, finished);
	else
		change_commit(job->change, job->daemon->control, &job->change_end);
}

static void prepare(struct background *background)
{
	struct move_job *job = container_of(background, struct move_job, background);
	struct error err = { 0 };

	job->change = change_prepare(job->disk, wanted(job), &err);
	if (job->change)
		return;
	if (job->state == OPENING)
		job->err = err;
	else
		log_warn("disk %s: its move is not at its end yet: %s", job->disk->name, err.text);
}

/* Brings the disk to the stack that the state asks for. */
static void go(struct move_job *job)
{
	job->reached = false;
	in_background(job, prepare, prepared);
}

static void try_again(struct loop_timer *timer)
{
	go(container_of(timer, struct move_job, again));
}

/* --- in the order of events ------------------------------------------------------------------ */

static void over(struct move_job *job)
{
	struct daemon *daemon = job->daemon;
	struct error none = { 0 };

	job->ended = loop_now(daemon->control);
	record_done(daemon, job->disk);
	if (job->state == DONE) {
		log_info("disk %s: moved", job->disk->name);
		if (!daemon->config->state)
			log_warn(
				"disk %s: the configuration file does not know of its new place: "
				"penstock config prints what it must be; a restart without that finds "
				"old data",
				job->disk->name);
	} else {
		log_warn("disk %s: not moved: %s; it is where it was", job->disk->name,
			 job->state == CANCELED ? "canceled" : job->err.text);
	}
	if (job->state == FAILED)
		waiter_tell(&job->waiter, &job->err);
	else
		waiter_tell(&job->waiter, &none);
	waiter_tell(&job->canceler, &none);
	stack_config_release(&job->source);
	stack_config_release(&job->way);
	stack_config_release(&job->target);
	daemon_let_go(daemon);
}

static void leave(struct move_job *job)
{
	job->state = LEAVING;
	go(job);
}

static struct layer *move_of(const struct move_job *job)
{
	return move_find(job->disk->top);
}

static void note_progress(struct move_job *job)
{
	const struct layer *layer = move_of(job);

	if (layer)
		move_progress(layer, &job->progress);
}

/* The state file says that the target counts, or could not be told. */
static void kept(struct waiter *waiter, const struct error *err)
{
	struct move_job *job = container_of(waiter, struct move_job, kept);

	if (job->state == KEEPING && err->code) {
		job->err = *err;
		job->record->becoming = NULL;
		move_unsettle(move_of(job));
		leave(job);
	} else if (job->state == KEEPING) {
		job->state = SWITCHING;
		go(job);
	}
}

static void keep(struct move_job *job)
{
	job->state = KEEPING;
	job->record->becoming = job->whole;
	job->kept = (struct waiter){ .done = kept };
	waiter_hold(&job->kept_held, &job->kept);
	state_keep(job->daemon, &job->kept_held);
}

/* The move layer is no longer copying. */
static void copied(struct loop_message *message)
{
	struct move_job *job = container_of(message, struct move_job, copied);

	note_progress(job);
	if (move_settle(move_of(job))) {
		keep(job);
		return;
	}
	note_progress(job);
	if (job->progress.status != -ECANCELED)
		error_set(&job->err, -job->progress.status, "%s failed: %s",
			  job->progress.source ? "a request to the source" : "the target",
			  strerror(-job->progress.status));
	leave(job);
}

static void copy(struct move_job *job)
{
	struct layer *layer = move_of(job);
	struct error none = { 0 };

	job->state = COPYING;
	job->began = loop_now(job->daemon->control);
	job->copied.run = copied;
	move_limit(layer, job->limit);
	move_watch(layer, job->daemon->control, &job->copied);
	if (job->cancel)
		move_cancel(layer);
	log_info("disk %s: it is being moved", job->disk->name);
	note_progress(job);
	waiter_tell(&job->waiter, &none);
}

/* The layers that the state asked for are in service, or are not. */
static void advance(struct move_job *job)
{
	struct loop *control = job->daemon->control;

	if (!job->reached && job->state == OPENING) {
		job->state = job->cancel ? CANCELED : FAILED;
		error_prefix(&job->err, "disk '%s'", job->disk->name);
		over(job);
	} else if (!job->reached) {
		loop_timer_set(control, &job->again, loop_now(control) + AGAIN);
	} else if (job->state == OPENING) {
		copy(job);
	} else if (job->state == SWITCHING) {
		job->state = DONE;
		job->record->becoming = NULL;
		over(job);
	} else {
		job->state = job->cancel ? CANCELED : FAILED;
		over(job);
	}
}

/* --- from outside ---------------------------------------------------------------------------- */

int moves_begin(struct daemon *daemon, struct disk *disk, const json_t *to, const char *place,
		uint64_t limit, struct waiter *waiter, struct error *err)
{
	struct disk_record *record = record_of(daemon, disk);
	struct move_job *job;
	int ret = record_take(daemon, disk, "it is being moved to another back-end", err);

	if (ret)
		return ret;
	job = calloc(1, sizeof *job);
	if (!job) {
		record_done(daemon, disk);
		return error_set(err, ENOMEM, "out of memory");
	}
	job->daemon = daemon;
	job->disk = disk;
	job->record = record;
	job->limit = limit;
	job->change_end.done = committed;
	job->began = loop_now(daemon->control);
	loop_timer_init(&job->again, try_again);
	ret = plan(job, to, place, err);
	if (ret) {
		free_job(job);
		record_done(daemon, disk);
		return ret;
	}
	moves_forget(record->move);
	record->move = job;
	waiter_hold(&job->waiter, waiter);
	daemon_hold(daemon);
	go(job);
	return 0;
}

/* The one that is under way, or NULL with @err. */
static struct move_job *under_way(struct daemon *daemon, struct disk *disk, struct error *err)
{
	struct move_job *job = record_of(daemon, disk)->move;

	if (job && !is_over(job))
		return job;
	error_set(err, ENOENT, "disk '%s' is not being moved", disk->name);
	return NULL;
}

int moves_limit(struct daemon *daemon, struct disk *disk, uint64_t limit, struct error *err)
{
	struct move_job *job = under_way(daemon, disk, err);

	if (!job)
		return -err->code;
	job->limit = limit;
	if (job->state == COPYING)
		move_limit(move_of(job), limit);
	return 0;
}

static void cancel(struct move_job *job)
{
	job->cancel = true;
	if (job->state == COPYING)
		move_cancel(move_of(job));
}

int moves_cancel(struct daemon *daemon, struct disk *disk, struct waiter *waiter, struct error *err)
{
	struct move_job *job = under_way(daemon, disk, err);

	if (!job)
		return -err->code;
	if (job->canceler)
		return error_set(err, EBUSY, "disk '%s': its move is being canceled already",
				 disk->name);
	if (job->state == OPENING || job->state == COPYING)
		cancel(job);
	waiter_hold(&job->canceler, waiter);
	return 0;
}

void moves_end(struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		struct move_job *job = container_of(link, struct disk_record, link)->move;

		if (job && (job->state == OPENING || job->state == COPYING))
			cancel(job);
	}
}

void moves_forget(struct move_job *job)
{
	if (job)
		free_job(job);
}

/* --- how far it is ------------------------------------------------------------------------------
 */

bool moves_numbers(const struct disk_record *record, struct move_numbers *numbers)
{
	if (!record->move || is_over(record->move))
		return false;
	if (record->move->state == COPYING)
		note_progress(record->move);
	*numbers =
		(struct move_numbers){ record->move->progress.done, record->move->progress.total };
	return true;
}

json_t *moves_report(const struct disk_record *record)
{
	struct move_job *job = record->move;
	uint64_t now = job->ended ? job->ended : loop_now(job->daemon->control);
	double seconds = (double)(now - job->began) / 1e9;
	uint64_t rate;
	json_t *json;

	if (job->state == COPYING)
		note_progress(job);
	rate = seconds > 0 ? (uint64_t)((double)job->progress.done / seconds) : 0;
	json = json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:f}", "disk", job->disk->name, "to",
			 stack_tree_short(job->to), "state", names[job->state], "bytes",
			 (json_int_t)job->progress.done, "size", (json_int_t)job->progress.total,
			 "rate", (json_int_t)rate, "seconds", seconds);
	if (job->limit)
		json_object_set_new(json, "limit", json_integer((json_int_t)job->limit));
	if (rate && !is_over(job))
		json_object_set_new(
			json, "seconds-left",
			json_integer(
				(json_int_t)((job->progress.total - job->progress.done) / rate)));
	if (job->state == FAILED || job->state == LEAVING)
		json_object_set_new(json, "error", json_string(job->err.text));
	if (job->state == DONE && !job->daemon->config->state)
		json_object_set_new(
			json, "note",
			json_string("The configuration file does not know of it: penstock "
				    "config prints what it must be now."));
	return json;
}
