/* SPDX-License-Identifier: BSD-3-Clause */
/* aggregate.c - requests to several legs: in pieces, in windows of pieces; see aggregate.h */
#include "layer/aggregate.h"

/* note of a frame: bytes of the request that have been sent, with the window under way */
enum { NOTE_SENT };

/* --- on the way down ---------------------------------------------------------------- */

void aggregate_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void send_window(struct layer *layer, struct io *io, uint64_t sent,
			aggregate_locate_fn *locate, io_done_fn *window_done)
{
	struct io_frame *frame = io_parts_begin(layer, io, window_done);

	for (unsigned n = 0; n < AGGREGATE_LEGS && sent < io->length; n++) {
		struct piece piece = locate(layer, io->offset + sent);
		uint64_t length = io->length - sent;

		if (length > piece.length)
			length = piece.length;
		io_send_part(io, layer->legs[piece.leg], sent, length, piece.offset);
		sent += length;
	}
	frame->note[NOTE_SENT] = sent;
	io_parts_end(io);
}

static void flush_all(struct layer *layer, struct io *io)
{
	io_parts_begin(layer, io, aggregate_done);
	for (unsigned i = 0; i < layer->leg_count; i++)
		io_send_part(io, layer->legs[i], 0, 0, 0);
	io_parts_end(io);
}

void aggregate_submit(struct layer *layer, struct io *io, aggregate_locate_fn *locate,
		      io_done_fn *window_done)
{
	struct piece piece;

	if (io->op == IO_FLUSH) {
		flush_all(layer, io);
		return;
	}
	piece = locate(layer, io->offset);
	if (io->length > piece.length) {
		send_window(layer, io, 0, locate, window_done);
		return;
	}
	io_push(layer, io, aggregate_done);
	io->offset = piece.offset;
	io_send(layer->legs[piece.leg], io);
}

/* --- on the way up ------------------------------------------------------------------ */

void aggregate_window_done(struct layer *layer, struct io *io, aggregate_locate_fn *locate,
			   io_done_fn *window_done)
{
	uint64_t sent = io_frame(io)->note[NOTE_SENT];

	if (io->status || sent == io->length)
		io_finish(io, io->status);
	else
		send_window(layer, io, sent, locate, window_done);
}

/* --- what all legs can take --------------------------------------------------------- */

uint32_t aggregate_block_size(const struct layer *layer, struct layer *const *legs, unsigned count)
{
	uint32_t block = layer->block_size;

	for (unsigned i = 0; i < count; i++)
		if (legs[i]->limits.block_size > block)
			block = legs[i]->limits.block_size;
	return block;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

void aggregate_limits(const struct layer *layer, struct limits *limits)
{
	*limits = (struct limits){ .discard = true };
	for (unsigned i = 0; i < layer->leg_count; i++) {
		const struct limits *leg = &layer->legs[i]->limits;

		limits->block_size = larger(limits->block_size, leg->block_size);
		limits->physical_block_size =
			larger(limits->physical_block_size, leg->physical_block_size);
		limits->natural_block_size =
			larger(limits->natural_block_size, leg->natural_block_size);
		limits->optimal_io = larger(limits->optimal_io, leg->optimal_io);
		limits->read_only |= leg->read_only;
		limits->discard &= leg->discard;
	}
}
