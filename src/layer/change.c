/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * change.c - the difference between the layers there are and those that are wanted; see change.h
 *
 * Which layers are kept, opened and dropped is change_plan.c. The new links stay in the wishes
 * until the gate is shut, for requests still go by the old ones.
 *
 * The gate: a message to each loop that has queues of the disk shuts these, and is answered when
 * nothing is inside them any more; then the links are changed, here, while no other thread looks at
 * them; a second message fits the queues to the new layers and lets go what waited. Messages
 * between two threads keep their order, so whoever has the answers to the second has those to the
 * first.
 */
#include "layer/change_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layer/stack.h"
#include "util/error.h"
#include "util/log.h"

#define PATIENCE (10ull * 1000000000) /* ns for what is inside to come back */

struct change *change_prepare(struct disk *disk, const struct stack_config *to, struct error *err)
{
	struct change *c = calloc(1, sizeof *c);

	if (!c) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	c->disk = disk;
	if (change_plan(c, to, err)) {
		change_finish(c);
		return NULL;
	}
	return c;
}

/* The first one from @top on, those of its legs before those below. */
static struct layer *find_undo(struct layer *top)
{
	struct layer *found = NULL;

	if (!top || top->ops->undo)
		return top;
	for (unsigned i = 0; i < top->leg_count && !found; i++)
		found = find_undo(top->legs[i]);
	return found ? found : find_undo(top->below);
}

struct change *change_prepare_undo(struct disk *disk, struct error *err)
{
	struct layer *layer = find_undo(disk->top);
	struct change *c;

	if (!layer) {
		error_set(err, ENOTSUP,
			  "it has no layer that keeps changes apart; an overlay does");
		return NULL;
	}
	if (layer->read_only) {
		error_set(err, EROFS, "it is read-only");
		return NULL;
	}
	c = calloc(1, sizeof *c);
	if (!c) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	c->disk = disk;
	c->undo = layer;
	return c;
}

/* --- commit: the links ---------------------------------------------------------------------- */

static struct layer *wanted_top(const struct change *c)
{
	return c->wishes[c->count - 1].layer;
}

/* The layers are linked as the wishes say; the other way round, as they were. */
static void relink(struct change *c)
{
	for (unsigned i = 0; i < c->count; i++) {
		struct wish *w = &c->wishes[i];
		struct layer *layer = w->layer;
		struct links had;

		if (w->fresh)
			continue;
		had = (struct links){ layer->below, layer->legs, layer->leg_count };
		layer->below = w->links.below;
		layer->legs = w->links.legs;
		layer->leg_count = w->links.leg_count;
		w->links = had;
	}
}

static void own(struct layer *layer, void *disk)
{
	layer->owner = disk;
}

static int check(const struct change *c, struct error *err)
{
	const struct disk *disk = c->disk;
	const struct limits *limits = &wanted_top(c)->limits;
	char a[32], b[32];

	if (stack_check_parts(wanted_top(c), err))
		return -err->code;
	if (!disk->extent && limits->size < disk->size)
		return error_set(err, ENOSPC,
				 "the new stack holds %s, and disk %s is %s for its guest: nothing "
				 "is changed",
				 format_size(limits->size, a, sizeof a), disk->name,
				 format_size(disk->size, b, sizeof b));
	if (limits->block_size > disk->block_size)
		return error_set(err, EINVAL,
				 "the new stack has blocks of %u bytes, and disk %s has %u for its "
				 "guest: nothing is changed",
				 limits->block_size, disk->name, disk->block_size);
	if (limits->read_only && !disk->config.read_only)
		return error_set(err, EROFS,
				 "the new stack is read-only, and disk %s is not: nothing is "
				 "changed",
				 disk->name);
	return 0;
}

static void put_in_place(struct wish *w)
{
	struct layer *layer = w->layer;

	if (!w->prepared)
		return;
	options_move(layer->ops->options, layer, w->plan.options);
	layer->part = w->part;
	layer_config_release(layer->config);
	*layer->config = w->settings;
	w->settings = (struct layer_config){ 0 };
	if (layer->ops->commit)
		layer->ops->commit(layer);
}

static void set_top(struct disk *disk, struct layer *top)
{
	if (disk->extent)
		disk->extent->below = top;
	else
		disk->top = top;
}

static struct layer *top_there(const struct change *c)
{
	return c->disk->extent ? c->disk->extent->below : c->disk->top;
}

/* Whether it may be done, before anything is: nothing is inside. */
static bool fits(struct change *c)
{
	relink(c);
	stack_limits(wanted_top(c));
	check(c, &c->err);
	relink(c);
	stack_limits(top_there(c));
	return !c->err.code;
}

/* Nothing is inside, and no queue has states of layers. */
static void exchange(struct change *c)
{
	struct disk *disk = c->disk;

	relink(c);
	stack_limits(wanted_top(c));
	for (unsigned i = 0; i < c->count; i++)
		put_in_place(&c->wishes[i]);
	set_top(disk, wanted_top(c));
	stack_plan(disk->top);
	stack_visit(disk->top, own, disk);
	atomic_store(&disk->discards, disk->top->limits.discard);
}

/* --- commit: those that go -------------------------------------------------------------------- */

static bool is_dropped(const struct change *c, const struct layer *layer)
{
	for (unsigned i = 0; i < c->there_count; i++)
		if (c->there[i] == layer)
			return true;
	return false;
}

static struct wish *prepared_wish(struct change *c, const struct layer *layer)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->wishes[i].layer == layer && c->wishes[i].prepared)
			return &c->wishes[i];
	return NULL;
}

/* Something of what begins at @top stays in the disk. */
static bool any_stays(const struct change *c, const struct layer *top)
{
	if (!top || !is_dropped(c, top))
		return top != NULL;
	for (unsigned i = 0; i < top->leg_count; i++)
		if (any_stays(c, top->legs[i]))
			return true;
	return any_stays(c, top->below);
}

static uint32_t kept_legs(const struct change *c, const struct layer *layer)
{
	uint32_t kept = 0;

	for (unsigned i = 0; i < layer->leg_count && i < 32; i++)
		kept |= (uint32_t)any_stays(c, layer->legs[i]) << i;
	return kept;
}

/* Which layers are to be told: of those that the disk has its data from. */
static void find_retiring(struct change *c, struct layer *layer)
{
	const struct layer_ops *ops;

	if (!layer)
		return;
	ops = layer->ops;
	if (ops->retire && (is_dropped(c, layer) || prepared_wish(c, layer)))
		c->retiring[c->retiring_count++] = layer;
	for (unsigned i = 0; i < layer->leg_count; i++)
		if (!ops->holds || ops->holds(layer, i))
			find_retiring(c, layer->legs[i]);
	find_retiring(c, layer->below);
}

/* On a thread that may wait. If one cannot, those before it go on as they were. */
static void retire(struct change *c)
{
	unsigned done = 0;

	while (done < c->retiring_count && !c->err.code) {
		struct layer *layer = c->retiring[done];

		if (layer->ops->retire(layer, kept_legs(c, layer), &c->err))
			error_prefix(&c->err, "%s", layer->ops->name);
		else
			done++;
	}
	while (c->err.code && done-- > 0) {
		struct wish *w = prepared_wish(c, c->retiring[done]);

		c->retiring[done]->ops->abandon(c->retiring[done]);
		if (w)
			w->prepared = false;
	}
}

/* --- commit: the gate ----------------------------------------------------------------------- */

static struct visit *visit_of(struct change *c, const struct loop *loop)
{
	for (unsigned i = 0; i < c->visit_count; i++)
		if (c->visits[i].loop == loop)
			return &c->visits[i];
	return NULL;
}

/* Each queue of the disk that is on @loop; with the gate locked. */
#define for_each_queue_on(q, on_loop, disk)                                                        \
	list_for_each (link, &(disk)->gate.queues)                                                 \
		for (struct disk_queue *q = container_of(link, struct disk_queue, link); q;        \
		     q = NULL)                                                                     \
			if (q->ios.loop == (on_loop))

static void queue_emptied(struct disk_queue *queue);

/* On the loop's thread; the gate is locked. */
static void look_whether_empty(struct visit *visit)
{
	struct disk *disk = visit->change->disk;
	bool empty = true;

	for_each_queue_on(q, visit->loop, disk)
	{
		bool is = !disk_queue_shut(q);

		q->emptied = is ? NULL : queue_emptied;
		empty &= is;
	}
	visit->waits = !empty;
	if (!empty)
		return;
	for_each_queue_on(q, visit->loop, disk) disk_queue_detach(q);
	loop_send(visit->change->control, &visit->drained);
}

static void queue_emptied(struct disk_queue *queue)
{
	struct disk *disk = queue->disk;
	struct visit *visit;

	pthread_mutex_lock(&disk->gate.lock);
	visit = visit_of(disk->gate.change, queue->ios.loop);
	queue->emptied = NULL;
	if (visit->waits)
		look_whether_empty(visit);
	pthread_mutex_unlock(&disk->gate.lock);
}

static void shut_queues(struct loop_message *message)
{
	struct visit *visit = container_of(message, struct visit, shut);
	struct disk *disk = visit->change->disk;

	pthread_mutex_lock(&disk->gate.lock);
	look_whether_empty(visit);
	pthread_mutex_unlock(&disk->gate.lock);
}

static void note_pause(struct change *c, uint64_t pause)
{
	uint64_t longest = atomic_load(&c->pause);

	while (pause > longest && !atomic_compare_exchange_weak(&c->pause, &longest, pause))
		;
}

static void pass_queues(struct loop_message *message)
{
	struct visit *visit = container_of(message, struct visit, pass);
	struct change *c = visit->change;

	visit->waits = false;
	pthread_mutex_lock(&c->disk->gate.lock);
	for_each_queue_on(q, visit->loop, c->disk)
	{
		q->emptied = NULL;
		note_pause(c, loop_now(visit->loop) - q->since);
		if (disk_queue_pass(q))
			log_error("disk %s: out of memory: a queue has no layers now, and its "
				  "requests fail",
				  c->disk->name);
	}
	pthread_mutex_unlock(&c->disk->gate.lock);
	loop_send(c->control, &visit->passed);
}

static void drained(struct loop_message *message);
static void passed(struct loop_message *message);

/* A visit for each loop that has a queue now; the gate is locked. */
static void plan_visits(struct change *c)
{
	list_for_each (link, &c->disk->gate.queues) {
		struct loop *loop = container_of(link, struct disk_queue, link)->ios.loop;

		if (visit_of(c, loop) || c->visit_count == LOOPS_MAX)
			continue;
		c->visits[c->visit_count++] = (struct visit){
			.change = c,
			.loop = loop,
			.shut.run = shut_queues,
			.drained.run = drained,
			.pass.run = pass_queues,
			.passed.run = passed,
		};
	}
}

static void all_passed(struct change *c)
{
	struct disk *disk = c->disk;

	disk->gate.change = NULL;
	if (c->home)
		disk_start(disk, c->home);
	if (c->done)
		log_info("disk %s: %s; requests waited %.3f ms at most", disk->name,
			 c->undo ? "what was changed is thrown away" : "its layers are changed",
			 (double)atomic_load(&c->pause) / 1e6);
	c->end->done(c->end, &c->err);
}

static void passed(struct loop_message *message)
{
	struct change *c = container_of(message, struct visit, passed)->change;

	if (!--c->answers)
		all_passed(c);
}

static void open_gate(struct change *c)
{
	c->phase = PASSING;
	pthread_mutex_lock(&c->disk->gate.lock);
	c->disk->gate.shut = false;
	plan_visits(c);
	pthread_mutex_unlock(&c->disk->gate.lock);
	c->answers = c->visit_count;
	for (unsigned i = 0; i < c->visit_count; i++)
		loop_send(c->visits[i].loop, &c->visits[i].pass);
	if (!c->answers)
		all_passed(c);
}

/* What may wait is done, or there is nothing. */
static void go_through(struct change *c)
{
	c->done = !c->err.code;
	if (c->done && !c->undo)
		exchange(c);
	open_gate(c);
}

static void *work(void *data)
{
	struct change *c = data;

	if (!c->undo)
		retire(c);
	else if (c->undo->ops->undo(c->undo, &c->err))
		error_prefix(&c->err, "%s", c->undo->ops->name);
	loop_send(c->control, &c->worked);
	return NULL;
}

static void worked(struct loop_message *message)
{
	struct change *c = container_of(message, struct change, worked);

	pthread_join(c->thread, NULL);
	go_through(c);
}

static void all_drained(struct change *c)
{
	loop_timer_cancel(&c->timer);
	if (!c->undo && fits(c))
		find_retiring(c, top_there(c));
	if (c->undo || c->retiring_count) {
		c->worked.run = worked;
		if (!pthread_create(&c->thread, NULL, work, c))
			return;
		error_set(&c->err, EAGAIN, "cannot start a thread: nothing is changed");
	}
	go_through(c);
}

static void drained(struct loop_message *message)
{
	struct change *c = container_of(message, struct visit, drained)->change;

	if (c->phase == SHUTTING && !--c->answers)
		all_drained(c);
}

static void out_of_patience(struct loop_timer *timer)
{
	struct change *c = container_of(timer, struct change, timer);

	error_set(
		&c->err, ETIMEDOUT,
		"requests to what is below disk %s do not come back after %u s: nothing is changed",
		c->disk->name, (unsigned)(PATIENCE / 1000000000));
	open_gate(c);
}

static void shut_gate(struct change *c)
{
	c->phase = SHUTTING;
	pthread_mutex_lock(&c->disk->gate.lock);
	c->disk->gate.shut = true;
	c->disk->gate.change = c;
	plan_visits(c);
	pthread_mutex_unlock(&c->disk->gate.lock);
	c->answers = c->visit_count;
	loop_timer_set(c->control, &c->timer, loop_now(c->control) + PATIENCE);
	for (unsigned i = 0; i < c->visit_count; i++)
		loop_send(c->visits[i].loop, &c->visits[i].shut);
	if (!c->answers)
		all_drained(c);
}

static void stopped(struct loop_message *message)
{
	shut_gate(container_of(message, struct change, stop.done));
}

void change_commit(struct change *change, struct loop *control, struct change_end *end)
{
	change->control = control;
	change->end = end;
	change->home = change->disk->home;
	change->phase = STOPPING;
	change->stop = (struct layer_stop){ .loop = control, .done.run = stopped };
	loop_timer_init(&change->timer, out_of_patience);
	if (disk_stop(change->disk, &change->stop)) {
		error_set(&change->err, ENOMEM, "out of memory");
		end->done(end, &change->err);
	}
}

/* --- the end ---------------------------------------------------------------------------------- */

static void abandon(struct wish *w)
{
	if (w->prepared && w->layer->ops->abandon)
		w->layer->ops->abandon(w->layer);
}

void change_finish(struct change *change)
{
	/* Those above first, for they may still write to those below. */
	for (unsigned i = change->count; i-- > 0;) {
		struct wish *w = &change->wishes[i];

		if (!change->done)
			abandon(w);
		if (!change->done && w->fresh)
			stack_close_layer(w->layer);
		if (w->plan.options)
			stack_options_free(w->plan.options);
		layer_config_release(&w->settings);
		free(w->links.legs);
		free(w->legs);
	}
	for (unsigned i = change->there_count; change->done && i-- > 0;)
		if (change->there[i])
			stack_close_layer(change->there[i]);
	stack_config_release(&change->to);
	free(change->there);
	free((void *)change->retiring);
	free(change->wishes);
	free(change);
}

uint64_t change_pause(const struct change *change)
{
	return atomic_load(&change->pause);
}
