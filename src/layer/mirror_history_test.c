/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_history_test.c - every order of crashes and returns of two and three legs: no old leg is
 * ever read as new
 *
 * Legs are media of this test, which outlive the mirrors over them. A state is what is on the
 * media. From each state all steps are taken: the mirror is opened with each set of legs, with and
 * without the option degraded; then it writes, a leg fails under it, legs are synced, in all orders
 * of so many; then it is closed, or it crashes, also in the midst of the records that it writes
 * when it opens or drops a leg: only the first so many of its writes arrive. States that differ in
 * nothing but the names and numbers in them are one, so the search is exhaustive to its depth.
 *
 * The same from states in which the mirror was taken apart, and that may have been cut off after
 * any of its writes; the leg that went on alone has then been written without the mirror, or not.
 *
 * The model knows heads: data that were acknowledged and that no later acknowledged write has
 * followed. There is one, until somebody starts an old leg with the option degraded; that is a new
 * head. What a mirror that opens without it reads must be a head, and all heads must always be on
 * some leg: neither is an old leg read as new, nor are newer data overwritten by older ones.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/mirror.h"
#include "layer/session.h"
#include "layer/stack.h"
#include "util/crc32c.h"
#include "util/error.h"
#include "util/log.h"

#define LEGS  3u
#define DATA  (256u << 10) /* bytes of the mirror: four regions */
#define SIZE  (DATA + 4 * MIRROR_BLOCK)
#define HEADS 8u

/* --- media -------------------------------------------------------------------------- */

/* Sparse: only the first block of each region and the tail are ever written. */
struct medium {
	uint8_t data[DATA / MIRROR_REGION_MIN][512];
	uint8_t tail[SIZE - DATA];
};

static struct medium media[LEGS];
static bool failing[LEGS];
static int power = -1; /* writes that still arrive, of all media; -1: all */

struct medium_layer {
	struct layer layer;
	uint64_t index;
};

static uint8_t *place_of(struct medium *medium, uint64_t offset)
{
	if (offset >= DATA)
		return medium->tail + (offset - DATA);
	return offset % MIRROR_REGION_MIN ? NULL : medium->data[offset / MIRROR_REGION_MIN];
}

/* Blocks of 512 bytes; those that nobody writes are zeroes. */
static void transfer(struct medium *medium, struct io *io)
{
	uint8_t block[512];

	for (uint64_t at = 0; io->op <= IO_WRITE && at < io->length; at += 512) {
		uint8_t *place = place_of(medium, io->offset + at);
		struct io_data data = io_data_slice(io->data, at);

		memset(block, 0, sizeof block);
		if (io->op == IO_READ)
			io_data_copy_in(data, place ? place : block, 512);
		else
			io_data_copy_out(data, place ? place : block, 512);
	}
}

/* A write takes a while, so that what does not wait for it is ahead of it. */
static void medium_done(struct layer *layer, struct io *io)
{
	uint64_t index = ((struct medium_layer *)layer)->index, rounds = io_frame(io)->note[0];

	if (rounds) {
		io_push(layer, io, medium_done)->note[0] = rounds - 1;
		io_finish(io, 0);
		return;
	}
	/* When the power is gone nobody will see what comes now. */
	if (power)
		transfer(&media[index], io);
	if (power > 0)
		power--;
	io_finish(io, 0);
}

static void medium_submit(struct layer *layer, struct io *io)
{
	uint64_t index = ((struct medium_layer *)layer)->index;

	if (failing[index]) {
		io_finish(io, -EIO);
	} else if (io->op == IO_WRITE) {
		io_push(layer, io, medium_done)->note[0] = 5;
		io_finish(io, 0);
	} else {
		transfer(&media[index], io);
		io_finish(io, 0);
	}
}

static void medium_limits(struct layer *layer, struct limits *limits)
{
	(void)layer;
	*limits = (struct limits){ .size = SIZE, .block_size = 512, .physical_block_size = 512 };
}

static int medium_resize(struct layer *layer, uint64_t size, struct error *err)
{
	(void)layer;
	return size <= SIZE ? 0 : error_set(err, ENOSPC, "a medium does not grow");
}

static const struct option medium_options[] = {
	{ .name = "index", .type = OPTION_UINT, .offset = offsetof(struct medium_layer, index) },
	{ 0 },
};

static const struct layer_ops medium_ops = {
	.name = "medium",
	.size = sizeof(struct medium_layer),
	.options = medium_options,
	.backend = true,
	.limits = medium_limits,
	.resize = medium_resize,
	.submit = medium_submit,
};

/* --- mirrors over them ---------------------------------------------------------------- */

static const struct stack_setting setting = { .disk = "test", .block_size = 512 };

/* Over the media in @legs; NULL with @err. Legs of @count that are not in it cannot be opened. */
static struct mirror *open_mirror(unsigned legs, unsigned count, bool create, uint64_t degraded,
				  struct error *err)
{
	struct layer **leg = calloc(count + 1, sizeof *leg), *all[LEGS];
	char text[32];
	struct layer_setting settings[] = { { (char *)"create", (char *)(create ? "true" : "false"),
					      0 },
					    { (char *)"region-size", (char *)"64K", 0 },
					    { (char *)"degraded", text, 0 } };
	struct layer_config config = { .ops = layer_find("mirror"),
				       .settings = settings,
				       .count = 3 };
	struct layer *mirror;

	snprintf(text, sizeof text, "%" PRIu64, degraded);
	for (unsigned i = 0; i < count; i++) {
		char index[2] = { (char)('0' + i), 0 };
		struct layer_setting where = { (char *)"index", index, 0 };
		struct layer_config medium = { .ops = &medium_ops, .settings = &where, .count = 1 };

		all[i] = NULL;
		if (legs >> i & 1)
			all[i] = stack_open_layer(&setting, &medium, NULL, NULL, 0, NULL, err);
		leg[i] = all[i];
	}
	mirror = stack_open_layer(&setting, &config, NULL, leg, count, NULL, err);
	for (unsigned i = 0; i < count && !mirror; i++)
		if (all[i])
			stack_close(all[i]);
	if (!mirror)
		free(leg);
	return (struct mirror *)mirror;
}

static void close_mirror(struct mirror *m)
{
	stack_close(&m->layer);
}

/* What is on the media is all that stays. */
static void crash(struct mirror *m)
{
	power = 0;
	close_mirror(m);
	power = -1;
}

static uint64_t read_stamp(struct mirror *m)
{
	struct session *session = session_open(&m->layer, NULL);
	uint64_t block[64];

	assert_non_null(session);
	assert_int_equal(session_read(session, 0, block, sizeof block), 0);
	session_close(session);
	return block[0];
}

/* A layer above the mirror: at its acknowledgment the power goes, if it is armed. */
static bool cut_armed;

static void cut_done(struct layer *layer, struct io *io)
{
	(void)layer;
	if (cut_armed)
		power = 0;
	io_finish(io, io->status);
}

static void cut_submit(struct layer *layer, struct io *io)
{
	io_send_then(layer, layer->below, io, cut_done);
}

static const struct layer_ops cut_ops = {
	.name = "cut",
	.size = sizeof(struct layer),
	.submit = cut_submit,
};

/* If @cut, the power goes at the moment when it is acknowledged. */
static int write_stamp(struct mirror *m, uint64_t stamp, bool cut)
{
	struct layer_config config = { .ops = &cut_ops };
	struct layer *top = stack_open_layer(&setting, &config, &m->layer, NULL, 0, NULL, NULL);
	struct session *session = session_open(top, NULL);
	uint64_t block[64] = { stamp };
	int ret;

	assert_non_null(session);
	cut_armed = cut;
	ret = session_write(session, 0, block, sizeof block, 0);
	cut_armed = false;
	session_close(session);
	stack_close_layer(top);
	return ret;
}

/* A loop on which the mirror does its own work, until @until. */
static struct {
	struct loop *loop;
	struct mirror *mirror;
	struct loop_message begin;
	struct layer_stop stop;
	struct loop_timer timer;
	uint64_t deadline;
} home;

static void ended(struct loop_message *message)
{
	(void)message;
	loop_stop(home.loop);
}

static void look(struct loop_timer *timer)
{
	struct mirror *m = home.mirror;
	bool working;

	pthread_mutex_lock(&m->lock);
	working = atomic_load(&m->copying) || m->busy || m->sync.running;
	pthread_mutex_unlock(&m->lock);
	assert_true(loop_now(home.loop) < home.deadline);
	if (working) {
		loop_timer_set(home.loop, timer, loop_now(home.loop) + 50000);
		return;
	}
	m->layer.ops->stop(&m->layer, &home.stop);
}

static void begin(struct loop_message *message)
{
	(void)message;
	home.mirror->layer.ops->start(&home.mirror->layer, home.loop);
	home.deadline = loop_now(home.loop) + 10ull * 1000000000;
	loop_timer_set(home.loop, &home.timer, loop_now(home.loop));
}

static void sync_legs(struct mirror *m)
{
	home.mirror = m;
	home.begin.run = begin;
	home.stop = (struct layer_stop){ .loop = home.loop, .done.run = ended };
	loop_timer_init(&home.timer, look);
	loop_send(home.loop, &home.begin);
	assert_int_equal(loop_run(home.loop, NULL), 0);
}

/* --- states ----------------------------------------------------------------------------- */

struct state {
	struct medium media[LEGS];
	uint64_t head[HEADS];  /* acknowledged, and nothing after it */
	uint64_t maybe[HEADS]; /* written upon it, and not acknowledged; 0: nothing */
	uint32_t legs[HEADS];  /* that have it, by their tables */
	bool loose[HEADS];     /* may be there, and nobody was told so */
	unsigned heads, depth;
	char path[400]; /* the steps to it, for messages */
};

static struct search {
	unsigned legs;
	struct state *queue;
	unsigned queued, room;
	uint32_t *seen; /* a hash table of digests, 0: free */
	uint64_t (*digests)[2];
	unsigned seen_room;
	uint64_t stamp; /* the last that was written */
	unsigned steps, opened, refused;
	struct state now; /* of the step under way */
} search;

/* Numbers in the order in which they appear. */
static struct {
	uint64_t value[256];
	unsigned count;
} names;

static uint64_t name_of(uint64_t value)
{
	for (unsigned i = 0; i < names.count; i++)
		if (names.value[i] == value)
			return i + 1;
	assert_true(names.count < 256);
	names.value[names.count++] = value;
	return names.count;
}

static uint64_t mix(uint64_t digest, uint64_t value)
{
	digest = (digest ^ value) * 0x9e3779b97f4a7c15ull;
	return digest ^ digest >> 29;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Numbers of generations by their order. */
static struct {
	uint64_t value[128];
	unsigned count;
} order;

static uint64_t rank_of(uint64_t value)
{
	unsigned rank = 0;

	for (unsigned i = 0; i < order.count; i++)
		rank += order.value[i] < value && (!i || order.value[i] != order.value[i - 1]);
	return rank;
}

static void put_generations(const struct mirror_super *s)
{
	order.value[order.count++] = s->stamp.generation;
	for (unsigned i = 0; i < s->count; i++) {
		order.value[order.count++] = s->member[i].confirmed.generation;
		order.value[order.count++] = s->member[i].attempted.generation;
	}
}

static uint64_t digest_super(uint64_t digest, const struct mirror_super *s)
{
	uint64_t uuid;

	memcpy(&uuid, s->self.byte, 8);
	digest = mix(mix(digest, name_of(uuid)), rank_of(s->stamp.generation));
	digest = mix(digest, name_of(s->stamp.tag));
	for (unsigned i = 0; i < s->count; i++) {
		const struct mirror_member *m = &s->member[i];

		memcpy(&uuid, m->uuid.byte, 8);
		digest = mix(mix(digest, name_of(uuid)), m->in_sync);
		digest = mix(mix(digest, rank_of(m->confirmed.generation)),
			     name_of(m->confirmed.tag));
		digest = mix(mix(digest, rank_of(m->attempted.generation)),
			     name_of(m->attempted.tag));
	}
	return digest;
}

static uint64_t digest_of(const struct state *s, uint64_t seed)
{
	struct mirror_super supers[LEGS][MIRROR_COPIES];
	enum mirror_found found[LEGS][MIRROR_COPIES];
	uint64_t digest = seed, stamp;

	names.count = order.count = 0;
	for (unsigned i = 0; i < search.legs; i++)
		for (unsigned k = 0; k < MIRROR_COPIES; k++) {
			const uint8_t *block =
				s->media[i].tail + sizeof s->media[i].tail - (k + 1) * MIRROR_BLOCK;

			found[i][k] = mirror_super_decode(block, SIZE, &supers[i][k], NULL);
			if (found[i][k] == MIRROR_GOOD)
				put_generations(&supers[i][k]);
		}
	qsort(order.value, order.count, sizeof *order.value, by_size);
	for (unsigned i = 0; i < search.legs; i++) {
		memcpy(&stamp, s->media[i].data[0], 8);
		digest = mix(digest, name_of(stamp));
		digest = mix(digest, crc32c(0, s->media[i].data, sizeof s->media[i].data) != 0);
		for (unsigned k = 0; k < MIRROR_COPIES; k++) {
			digest = mix(digest, found[i][k]);
			if (found[i][k] == MIRROR_GOOD)
				digest = digest_super(digest, &supers[i][k]);
		}
		if (found[i][0] == MIRROR_GOOD)
			digest = mix(digest,
				     s->media[i].tail[supers[i][0].bitmap_offset - DATA + 16]);
	}
	for (unsigned h = 0; h < s->heads; h++)
		digest = mix(mix(mix(digest, name_of(s->head[h])), name_of(s->maybe[h])),
			     s->legs[h]);
	return digest;
}

/* A state to go on from, unless it was seen. */
static void add(struct state *s)
{
	uint64_t a = digest_of(s, 1), b = digest_of(s, 2);
	unsigned at = (unsigned)(a % search.seen_room);

	for (; search.seen[at]; at = (at + 1) % search.seen_room)
		if (search.digests[at][0] == a && search.digests[at][1] == b)
			return;
	if (search.queued == search.room)
		return; /* counted below: the test says how far it came */
	search.seen[at] = 1;
	search.digests[at][0] = a;
	search.digests[at][1] = b;
	search.queue[search.queued++] = *s;
}

/* Which head was read from @legs; it is from now on what it was read as. -1: none. */
static int find_head(struct state *s, uint64_t stamp, uint32_t legs)
{
	for (unsigned h = 0; h < s->heads; h++) {
		if (!(s->legs[h] & legs) ||
		    (s->head[h] != stamp && (!s->maybe[h] || s->maybe[h] != stamp)))
			continue;
		s->head[h] = stamp;
		s->maybe[h] = 0;
		return (int)h;
	}
	return -1;
}

/*
 * Legs of @legs are to start without the others of that head. If a leg was being dropped when the
 * power went, the others may have gone a way of their own already.
 */
static void split_head(struct state *s, unsigned h, uint32_t legs)
{
	if (!s->maybe[h] || s->heads == HEADS)
		return;
	s->head[s->heads] = s->head[h];
	s->maybe[s->heads] = s->maybe[h];
	s->legs[s->heads] = s->legs[h] & ~legs;
	s->loose[s->heads++] = true;
}

static void check_heads(const struct state *s, const char *when)
{
	for (unsigned h = 0; h < s->heads; h++) {
		bool there = s->loose[h];

		for (unsigned i = 0; i < search.legs; i++) {
			uint64_t stamp;

			memcpy(&stamp, media[i].data[0], 8);
			there |= stamp == s->head[h] || (s->maybe[h] && stamp == s->maybe[h]);
		}
		if (!there)
			fail_msg("%s: %s: data that were acknowledged are on no leg", s->path,
				 when);
	}
}

/* --- the steps ---------------------------------------------------------------------------- */

/* What a mirror does while it is open. */
enum { WRITE, SYNC, FAIL /* + leg: it fails, and then there is a write */ };

struct step {
	unsigned legs; /* that are there */
	bool forced;   /* with the option degraded, if it is refused without */
	unsigned action[2], actions;
	bool crash; /* at the end; else it is closed */
	int power;  /* writes that still arrive when it opens or, if it acts, when it begins to; -1:
		       all */
};

static void text_of(const struct step *step, char *text, size_t size)
{
	int n = snprintf(text, size, "legs %u%s", step->legs, step->forced ? " forced" : "");

	for (unsigned i = 0; i < step->actions; i++)
		n += snprintf(text + n, size - (size_t)n, " %c%u",
			      "WSF"[step->action[i] < FAIL ? step->action[i] : FAIL],
			      step -> action[i] < FAIL ? 0 : step -> action[i] - FAIL);
	snprintf(text + n, size - (size_t)n, " power %d%s; ", step->power,
		 step->crash ? " crash" : "");
}

/* All that call themselves in sync have the same. */
static void check_same(struct mirror *m, const struct state *s)
{
	uint64_t stamp = read_stamp(m);

	for_each_leg(i, atomic_load(&m->readable)) if (memcmp(media[i].data[0], &stamp,
							      sizeof stamp) != 0)
		fail_msg("%s: leg %u is in sync, and has other data", s->path, i);
}

static void act(struct mirror *m, struct state *s, unsigned h, const struct step *step)
{
	for (unsigned i = 0; i < step->actions; i++) {
		unsigned action = step->action[i];
		uint64_t stamp;

		if (action == SYNC) {
			sync_legs(m);
			check_same(m, s);
			continue;
		}
		if (action >= FAIL) {
			/* The last leg in sync cannot be dropped: that would be a broken disk. */
			if (atomic_load(&m->readable) == 1u << (action - FAIL))
				continue;
			failing[action - FAIL] = true;
		}
		stamp = ++search.stamp;
		power = step->power;
		assert_int_equal(write_stamp(m, stamp, step->crash && i + 1 == step->actions), 0);
		if (step->power < 0) {
			assert_int_equal(read_stamp(m), stamp);
			s->head[h] = stamp;
			s->loose[h] = false;
		} else {
			s->maybe[h] = stamp; /* nobody was there to be told */
		}
	}
}

static void leave(struct mirror *m, struct state *s, unsigned h, const struct step *step)
{
	uint32_t legs = atomic_load(&m->readable);

	s->legs[h] = step->power < 0 ? legs : s->legs[h] | legs;
	if (step->crash)
		crash(m);
	else
		close_mirror(m);
	power = -1;
	memset(failing, 0, sizeof failing);
	check_heads(s, "at the end");
	memcpy(s->media, media, sizeof media);
	s->depth++;
	add(s);
}

static void take(const struct state *from, const struct step *step)
{
	struct state *s = &search.now;
	struct error err = { 0 };
	struct mirror *m;
	uint64_t found;
	size_t path;
	int h;

	*s = *from;
	path = strlen(s->path);
	text_of(step, s->path + path, sizeof s->path - path);
	memcpy(media, s->media, sizeof media);
	memset(failing, 0, sizeof failing);
	search.steps++;
	power = step->actions ? -1 : step->power;
	m = open_mirror(step->legs, search.legs, false, 0, &err);
	if (!m) {
		const char *number = strstr(err.text, "degraded: ");

		search.refused++;
		check_heads(s, "refused");
		if (!step->forced || !number)
			return;
		m = open_mirror(step->legs, search.legs, false, strtoull(number + 10, NULL, 10),
				&err);
		if (!m)
			fail_msg("%s", err.text);
	} else if (step->forced) {
		crash(m); /* it need not be */
		return;
	}
	search.opened++;
	found = read_stamp(m);
	for (unsigned i = s->heads; step->forced && i-- > 0;)
		if (s->legs[i] & step->legs)
			split_head(s, i, step->legs);
	h = find_head(s, found, atomic_load(&m->readable));
	if (h < 0) {
		if (!step->forced)
			fail_msg("%s: old data are read as new", s->path);
		if (s->heads == HEADS) {
			crash(m);
			return;
		}
		h = (int)s->heads++;
		s->maybe[h] = 0;
		s->loose[h] = false;
		s->head[h] = found;
	}
	act(m, s, (unsigned)h, step);
	leave(m, s, (unsigned)h, step);
}

/* All that a mirror over @legs may do from here. */
static void explore_legs(const struct state *from, unsigned legs)
{
	for (unsigned forced = 0; forced < 2; forced++) {
		for (unsigned crashes = 0; crashes < 2; crashes++) {
			struct step step = {
				.legs = legs, .forced = forced, .crash = crashes, .power = -1
			};

			take(from, &step);
			for (unsigned first = 0; first < FAIL + search.legs; first++) {
				step.action[0] = first;
				step.actions = 1;
				take(from, &step);
				for (unsigned then = 0; first < FAIL && then < FAIL + search.legs;
				     then++) {
					step.action[1] = then;
					step.actions = 2;
					if (then != first)
						take(from, &step);
				}
			}
		}
	}
	/* The power goes while it opens, or while it drops a leg. */
	for (int left = 0; left < 6; left++) {
		struct step step = { .legs = legs, .crash = true, .power = left };

		take(from, &step);
		step.actions = 1;
		for (unsigned i = 0; i < search.legs; i++) {
			step.action[0] = FAIL + i;
			if (legs >> i & 1)
				take(from, &step);
		}
	}
}

/*
 * The mirror is taken apart, and @left of the writes for that arrive. @kept: a leg that goes on
 * alone; 0: none. @plain: and has new data since, of which no table tells.
 */
static void take_apart(const struct state *from, uint32_t kept, int left, bool plain)
{
	struct state *s = &search.now;
	struct error err = { 0 };
	struct mirror *m;

	*s = *from;
	memcpy(media, s->media, sizeof media);
	m = open_mirror((1u << search.legs) - 1, search.legs, false, 0, &err);
	if (!m)
		fail_msg("%s", err.text);
	power = left;
	assert_int_equal(m->layer.ops->retire(&m->layer, kept, &err), 0);
	crash(m);
	snprintf(s->path, sizeof s->path, "apart, keeps %u, power %d%s; ", kept, left,
		 plain ? ", then plain" : "");
	for_each_leg(i, plain ? kept : 0)
	{
		s->head[0] = ++search.stamp;
		s->legs[0] = kept;
		memcpy(media[i].data[0], &s->head[0], sizeof s->head[0]);
	}
	memcpy(s->media, media, sizeof media);
	add(s);
	/* As long as the last step is not there a start finds the mirror, and after it none. */
	m = open_mirror((1u << search.legs) - 1, search.legs, false, 0, &err);
	if (!m != (left < 0 || left > 2 * (int)search.legs + (kept != 0)))
		fail_msg("%s: %s", s->path, m ? "it opens" : err.text);
	if (!m)
		return;
	assert_int_equal(read_stamp(m), s->head[0]);
	crash(m);
}

/* With each leg, and with none. Before the first write arrived no leg can go on alone. */
static void take_apart_all(const struct state *from)
{
	for (unsigned k = 0; k <= search.legs; k++) {
		uint32_t kept = k < search.legs ? 1u << k : 0;

		for (int left = 0; left < 2 + 2 * (int)search.legs + 1; left++) {
			take_apart(from, kept, left, false);
			if (left && kept)
				take_apart(from, kept, left, true);
		}
		take_apart(from, kept, -1, kept != 0);
	}
}

static void search_all(unsigned legs, unsigned depth, unsigned room, bool apart)
{
	struct error err = { 0 };
	struct loop_config config = { .name = "home", .cpu = -1 };
	struct mirror *m;
	struct state *first = &search.now, synced;

	search = (struct search){ .legs = legs, .room = room, .seen_room = room * 4 };
	search.queue = calloc(room, sizeof *search.queue);
	search.seen = calloc(search.seen_room, sizeof *search.seen);
	search.digests = calloc(search.seen_room, sizeof *search.digests);
	home.loop = loop_create(&config, NULL);
	assert_non_null(home.loop);
	memset(media, 0, sizeof media);
	m = open_mirror((1u << legs) - 1, legs, true, 0, &err);
	if (!m)
		fail_msg("%s", err.text);
	assert_int_equal(write_stamp(m, search.stamp = 1, false), 0);
	sync_legs(m);
	close_mirror(m);
	*first = (struct state){ .head = { 1 }, .legs = { (1u << legs) - 1 }, .heads = 1 };
	memcpy(first->media, media, sizeof media);
	synced = *first;
	if (apart)
		take_apart_all(&synced);
	else
		add(first);
	for (unsigned at = 0; at < search.queued; at++) {
		if (search.queue[at].depth == depth)
			break;
		for (unsigned set = 1; set < 1u << legs; set++)
			explore_legs(&search.queue[at], set);
	}
	print_message("# %u states, %u steps, %u mirrors opened, %u refused\n", search.queued,
		      search.steps, search.opened, search.refused);
	assert_true(search.queued < search.room);
	assert_true(search.refused > 0);
	loop_destroy(home.loop);
	free(search.queue);
	free(search.seen);
	free(search.digests);
}

static unsigned depth_of(unsigned usual)
{
	const char *text = getenv("DEPTH");

	return text ? (unsigned)atoi(text) : usual;
}

static void two_legs(void **unused)
{
	(void)unused;
	search_all(2, depth_of(2), 4000, false);
}

static void two_legs_taken_apart(void **unused)
{
	(void)unused;
	search_all(2, depth_of(1), 8000, true);
}

static void three_legs(void **unused)
{
	(void)unused;
	search_all(3, depth_of(1), 8000, false);
}

int main(int count, char **arguments)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_legs),
		cmocka_unit_test(two_legs_taken_apart),
		cmocka_unit_test(three_legs),
	};

	if (count > 1)
		cmocka_set_test_filter(arguments[1]);
	/* Legs are dropped by the thousand, and that is told each time. */
	if (!getenv("VERBOSE"))
		stderr = fopen("/dev/null", "w");
	return cmocka_run_group_tests_name("mirror_history", tests, NULL, NULL);
}
