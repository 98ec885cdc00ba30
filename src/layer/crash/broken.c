/* SPDX-License-Identifier: BSD-3-Clause */
/* broken.c - layers with a known defect; see broken.h */
#include "layer/crash/broken.h"

#include <stdlib.h>
#include <string.h>

#include "layer/crash/device.h"
#include "layer/session.h"
#include "util/error.h"

static void plain_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

/* --- liar, no-fua --------------------------------------------------------------------------- */

static void liar_submit(struct layer *layer, struct io *io)
{
	if (io->op != IO_FLUSH) {
		io_send(layer->below, io);
		return;
	}
	io_push(layer, io, plain_done);
	io_finish(io, 0);
}

const struct layer_ops liar_ops = {
	.name = "liar",
	.size = sizeof(struct layer),
	.submit = liar_submit,
};

static void no_fua_submit(struct layer *layer, struct io *io)
{
	io->flags &= (uint8_t)~IO_FUA;
	io_send(layer->below, io);
}

const struct layer_ops no_fua_ops = {
	.name = "no-fua",
	.size = sizeof(struct layer),
	.submit = no_fua_submit,
};

/* --- shadow ----------------------------------------------------------------------------------- */

enum order {
	ORDER_RIGHT,     /* data, flush, map with FUA */
	ORDER_NO_FLUSH,  /* data, map with FUA */
	ORDER_MAP_FIRST, /* map with FUA, data */
	ORDER_LAZY,      /* data; the map at the next flush: power may go, the program may not */
};

#define SHADOW_MAX  4096u
#define SHADOW_PART 128u /* parts of a request at most */

struct shadow {
	struct layer layer;
	int order; /* enum order */
	uint32_t sectors, map_sectors;
	unsigned char map[SHADOW_MAX];
	unsigned char
		fresh[SHADOW_MAX]; /* lazy: the map on the device does not know of the data yet */
	struct iovec vec;
	struct io *busy, *waiting; /* one request at a time */
};

/* of the frame of a request, which takes several steps */
enum { NOTE_OP, NOTE_FLAGS };

static void shadow_run(struct shadow *s, struct io *io);

static void shadow_end(struct shadow *s, struct io *io, int status)
{
	struct io *next = s->waiting;

	s->busy = NULL;
	io_finish(io, status);
	if (next) {
		s->waiting = next->next;
		shadow_run(s, next);
	}
}

static uint64_t place(const struct shadow *s, uint32_t sector, unsigned which)
{
	return (uint64_t)(s->map_sectors + which * s->sectors + sector) * SECTOR;
}

static unsigned which_place(const struct shadow *s, uint32_t sector, bool other)
{
	return other && !s->fresh[sector] ? !s->map[sector] : s->map[sector];
}

/* Sends @io in runs of sectors that have the same place. */
static void to_places(struct shadow *s, struct io *io, bool other, io_done_fn *done)
{
	uint32_t first = (uint32_t)(io->offset / SECTOR), count = (uint32_t)(io->length / SECTOR);

	io_parts_begin(&s->layer, io, done);
	for (uint32_t at = 0, n; at < count; at += n) {
		unsigned which = which_place(s, first + at, other);

		for (n = 1; at + n < count && which_place(s, first + at + n, other) == which; n++)
			;
		io_send_part(io, s->layer.below, (uint64_t)at * SECTOR, (uint64_t)n * SECTOR,
			     place(s, first + at, which));
	}
	io_parts_end(io);
}

/* The way of a write: shadow_done is at the end of each step, and begins the next. */
static void shadow_done(struct layer *layer, struct io *io)
{
	struct shadow *s = (struct shadow *)layer;
	const struct io_frame *frame = io_frame(io);

	io->op = (uint8_t)frame->note[NOTE_OP];
	io->flags = (uint8_t)frame->note[NOTE_FLAGS];
	shadow_end(s, io, io->status);
}

static void send_map(struct shadow *s, struct io *io, uint32_t first, uint32_t count,
		     io_done_fn *done)
{
	uint32_t from = first / SECTOR, to = (first + count - 1) / SECTOR;
	struct io_frame *frame = io_push(&s->layer, io, done);

	frame->note[NOTE_OP] = io->op;
	frame->note[NOTE_FLAGS] = io->flags;
	s->vec = (struct iovec){ s->map + from * SECTOR, (to - from + 1) * SECTOR };
	io->op = IO_WRITE;
	io->flags = IO_FUA;
	io->offset = (uint64_t)from * SECTOR;
	io->length = s->vec.iov_len;
	io->data = (struct io_data){ .vec = &s->vec, .count = 1 };
	io_send(s->layer.below, io);
}

static void turn_map(struct shadow *s, const struct io *io)
{
	uint32_t first = (uint32_t)(io->offset / SECTOR);

	for (uint32_t i = 0; i < io->length / SECTOR; i++) {
		if (s->fresh[first + i])
			continue;
		s->map[first + i] ^= 1;
		s->fresh[first + i] = s->order == ORDER_LAZY;
	}
}

static void send_whole_map(struct shadow *s, struct io *io)
{
	memset(s->fresh, 0, sizeof s->fresh);
	send_map(s, io, 0, s->sectors, shadow_done);
}

static void map_next(struct shadow *s, struct io *io)
{
	turn_map(s, io);
	if (s->order == ORDER_LAZY)
		send_whole_map(s, io);
	else
		send_map(s, io, (uint32_t)(io->offset / SECTOR), (uint32_t)(io->length / SECTOR),
			 shadow_done);
}

static void data_flushed(struct layer *layer, struct io *io)
{
	io->op = (uint8_t)io_frame(io)->note[NOTE_OP];
	io->flags = (uint8_t)io_frame(io)->note[NOTE_FLAGS];
	map_next((struct shadow *)layer, io);
}

static void data_written(struct layer *layer, struct io *io)
{
	struct shadow *s = (struct shadow *)layer;
	struct io_frame *frame;

	if (s->order == ORDER_NO_FLUSH) {
		map_next(s, io);
		return;
	}
	if (s->order == ORDER_LAZY && !(io->flags & IO_FUA)) {
		turn_map(s, io);
		shadow_end(s, io, io->status);
		return;
	}
	frame = io_push(layer, io, data_flushed);
	frame->note[NOTE_OP] = io->op;
	frame->note[NOTE_FLAGS] = io->flags;
	io->op = IO_FLUSH;
	io->flags = 0;
	io_send(layer->below, io);
}

static void simple_done(struct layer *layer, struct io *io)
{
	shadow_end((struct shadow *)layer, io, io->status);
}

static void map_first_done(struct layer *layer, struct io *io)
{
	struct shadow *s = (struct shadow *)layer;

	io->op = (uint8_t)io_frame(io)->note[NOTE_OP];
	io->flags = (uint8_t)io_frame(io)->note[NOTE_FLAGS];
	to_places(s, io, false, simple_done);
}

static void lazy_flush_done(struct layer *layer, struct io *io)
{
	struct shadow *s = (struct shadow *)layer;

	io->op = IO_FLUSH;
	io->flags = 0;
	send_whole_map(s, io);
}

static void shadow_run(struct shadow *s, struct io *io)
{
	s->busy = io;
	switch (io->op) {
	case IO_READ:
		to_places(s, io, false, simple_done);
		break;
	case IO_WRITE:
	case IO_ZEROES:
		if (s->order == ORDER_MAP_FIRST) {
			turn_map(s, io);
			send_map(s, io, (uint32_t)(io->offset / SECTOR),
				 (uint32_t)(io->length / SECTOR), map_first_done);
		} else {
			to_places(s, io, true, data_written);
		}
		break;
	case IO_FLUSH:
		io_send_then(&s->layer, s->layer.below, io,
			     s->order == ORDER_LAZY ? lazy_flush_done : simple_done);
		break;
	default:
		io_push(&s->layer, io, simple_done);
		io_finish(io, 0);
		break;
	}
}

static void shadow_submit(struct layer *layer, struct io *io)
{
	struct shadow *s = (struct shadow *)layer;
	struct io **at = &s->waiting;

	if (!s->busy) {
		shadow_run(s, io);
		return;
	}
	while (*at)
		at = &(*at)->next;
	io->next = NULL;
	*at = io;
}

uint32_t shadow_sectors(uint32_t sectors)
{
	uint32_t map = (sectors / 2 + SECTOR - 1) / SECTOR;

	return (sectors - map) / 2;
}

static int shadow_open(struct layer *layer, struct error *err)
{
	struct shadow *s = (struct shadow *)layer;
	uint32_t below = (uint32_t)(layer->below->limits.size / SECTOR);
	struct session *session = session_open(layer->below, err);
	int ret;

	if (!session)
		return -err->code;
	s->sectors = shadow_sectors(below);
	s->map_sectors = (s->sectors + SECTOR - 1) / SECTOR;
	ret = session_read(session, 0, s->map, (size_t)s->map_sectors * SECTOR);
	session_close(session);
	return ret ? error_set(err, -ret, "cannot read the map") : 0;
}

static void shadow_limits(struct layer *layer, struct limits *limits)
{
	limits->size = (uint64_t)((struct shadow *)layer)->sectors * SECTOR;
}

static const char *const orders[] = { "right", "no-flush", "map-first", "lazy", NULL };

static const struct option shadow_options[] = {
	{ .name = "order",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct shadow, order),
	  .choices = orders,
	  .fallback = "right" },
	{ 0 },
};

const struct layer_ops shadow_ops = {
	.name = "shadow",
	.size = sizeof(struct shadow),
	.options = shadow_options,
	.single_loop = true,
	.fan_out = SHADOW_PART,
	.open = shadow_open,
	.limits = shadow_limits,
	.submit = shadow_submit,
};

/* --- twins ------------------------------------------------------------------------------------ */

struct twins {
	struct layer layer;
	unsigned turn;
};

static void twins_submit(struct layer *layer, struct io *io)
{
	struct twins *t = (struct twins *)layer;

	if (io->op == IO_READ) {
		io_send(layer->legs[t->turn++ % layer->leg_count], io);
		return;
	}
	io_parts_begin(layer, io, plain_done);
	for (unsigned i = 0; i < layer->leg_count; i++)
		io_send_part(io, layer->legs[i], 0, io->length, io->offset);
	io_parts_end(io);
}

static void twins_limits(struct layer *layer, struct limits *limits)
{
	*limits = layer->legs[0]->limits;
}

const struct layer_ops twins_ops = {
	.name = "twins",
	.size = sizeof(struct twins),
	.backend = true,
	.legs_option = "legs",
	.legs_min = 2,
	.legs_max = 2,
	.fan_out = 2,
	.limits = twins_limits,
	.submit = twins_submit,
};
