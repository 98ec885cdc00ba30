/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_history_test.c - a model of a server with a volatile cache, crashed at random points
 *
 * Blocks hold numbers. Writes never overlap one that has no answer, as a guest's do not. At a crash
 * each block of the server falls back to any of its contents since it was last stable. Then all
 * that the history wants is sent again; each block must hold what was written last. SEED repeats a
 * run.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "backend/nbd_history.h"
#include "io/io.h"
#include "util/error.h"

#define BLOCKS   24u
#define VERSIONS 64u
#define FLIGHT   6u
#define STEPS    400000u
#define RING     16384u

static uint64_t random_state;

static uint64_t chance(uint64_t n)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1dull >> 20) % n;
}

/* Of a block: version 0 is stable; those after it may be what is left after a crash. */
static struct block {
	uint64_t version[VERSIONS];
	unsigned count;
	uint64_t wanted; /* what was written last */
} blocks[BLOCKS];

static struct flight {
	struct past *past; /* NULL: free */
	bool done_there;   /* the server has executed it */
} flights[FLIGHT];

static struct history history;
static uint64_t numbers, crashes, resent;

static void execute(const struct past *past)
{
	uint64_t number;

	for (uint64_t i = 0; i < past->length; i++) {
		struct block *b = &blocks[past->offset + i];

		memcpy(&number, past->data, sizeof number);
		number = past->op == IO_WRITE ? number : 0;
		assert_true(b->count < VERSIONS);
		b->version[b->count++] = number;
		if (past->flags & IO_FUA) {
			b->version[0] = number;
			b->count = 1;
		}
	}
}

static bool is_busy(uint64_t offset, uint64_t length)
{
	for (unsigned i = 0; i < FLIGHT; i++) {
		const struct past *p = flights[i].past;

		if (p && p->offset < offset + length && offset < p->offset + p->length)
			return true;
	}
	return false;
}

static bool has_room(uint64_t offset, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (blocks[offset + i].count + 4 > VERSIONS)
			return false;
	return true;
}

static void send_one(void)
{
	uint64_t offset = chance(BLOCKS), length = 1 + chance(4), number = ++numbers;
	bool data = chance(4);
	struct flight *f = NULL;

	for (unsigned i = 0; i < FLIGHT; i++)
		if (!flights[i].past)
			f = &flights[i];
	if (!f || offset + length > BLOCKS || is_busy(offset, length) || !has_room(offset, length))
		return;
	/* The entry's data are larger than they need be, so that the ring fills and wraps. */
	f->past = history_add(&history, data ? IO_WRITE : IO_ZEROES, chance(5) ? 0 : IO_FUA, offset,
			      data ? 8 + chance(900) : length, data);
	if (!f->past)
		return;
	f->past->length = length;
	f->past->command = (struct nbd_command *)f;
	if (data)
		memcpy(f->past->data, &number, sizeof number);
	f->done_there = false;
	for (uint64_t i = 0; i < length; i++)
		blocks[offset + i].wanted = data ? number : 0;
}

static void server_works(void)
{
	struct flight *f = &flights[chance(FLIGHT)];

	if (f->past && !f->done_there) {
		execute(f->past);
		f->done_there = true;
	}
}

static void answer_comes(void)
{
	struct flight *f = &flights[chance(FLIGHT)];

	if (!f->past || !f->done_there)
		return;
	history_done(&history, f->past, f->past->flags & IO_FUA);
	f->past = NULL;
}

/* What was acknowledged when the flush came is stable when it is answered; more may be. */
static void flush(void)
{
	uint64_t number = history_flush(&history);

	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i].version[0] = blocks[i].version[blocks[i].count - 1];
		blocks[i].count = 1;
	}
	for (unsigned i = chance(4); i; i--) {
		server_works();
		answer_comes();
		send_one();
	}
	history_flushed(&history, number);
}

static void crash(void)
{
	crashes++;
	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i].version[0] = blocks[i].version[chance(blocks[i].count)];
		blocks[i].count = 1;
	}
	for (struct past *p = history_first(&history); p; p = history_next(&history, p)) {
		if (!history_wanted(&history, p))
			continue;
		resent++;
		assert_true(has_room(p->offset, p->length));
		execute(p);
		if (p->state == PAST_SENT) {
			((struct flight *)p->command)->past = NULL;
			history_done(&history, p, p->flags & IO_FUA);
		}
		/* It may die again at any point of it; then all begins anew. */
		if (!chance(40)) {
			for (unsigned i = 0; i < BLOCKS; i++) {
				blocks[i].version[0] = blocks[i].version[chance(blocks[i].count)];
				blocks[i].count = 1;
			}
			p = history_first(&history);
			if (history_wanted(&history, p))
				execute(p);
		}
	}
	history_walked(&history);
	for (unsigned i = 0; i < BLOCKS; i++)
		if (blocks[i].version[blocks[i].count - 1] != blocks[i].wanted)
			fail_msg("block %u holds %" PRIu64 ", not %" PRIu64
				 ", after crash %" PRIu64,
				 i, blocks[i].version[blocks[i].count - 1], blocks[i].wanted,
				 crashes);
}

static void nothing_acknowledged_is_lost(void **unused)
{
	struct error err = { 0 };

	(void)unused;
	assert_int_equal(history_open(&history, RING, &err), 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		blocks[i] = (struct block){ .count = 1 };
	for (unsigned step = 0; step < STEPS; step++) {
		switch (chance(40)) {
		case 0:
			flush();
			break;
		case 1:
			if (!chance(6))
				crash();
			break;
		default:
			if (chance(3))
				send_one();
			server_works();
			if (chance(2))
				answer_comes();
		}
	}
	crash();
	print_message("# %" PRIu64 " writes, %" PRIu64 " crashes, %" PRIu64 " sent again\n",
		      numbers, crashes, resent);
	assert_true(crashes > 1000 && resent > 10 * crashes);
	history_close(&history);
}

static void it_is_full_until_a_flush(void **unused)
{
	struct error err = { 0 };
	struct history h;
	struct past *past, *first = NULL;
	unsigned count = 0;

	(void)unused;
	assert_int_equal(history_open(&h, RING, &err), 0);
	while ((past = history_add(&h, IO_WRITE, 0, count, history_longest(&h), true))) {
		memset(past->data, (int)count++, history_longest(&h)); /* also over the edge */
		if (first)
			history_done(&h, past, false);
		else
			first = past;
	}
	assert_true(count >= 8);
	/* What was acknowledged is stable now, but the oldest has no answer yet. */
	history_flushed(&h, history_flush(&h));
	assert_null(history_add(&h, IO_WRITE, 0, 0, history_longest(&h), true));
	history_failed(&h, first);
	assert_int_equal(history_used(&h), 0);
	assert_non_null(history_add(&h, IO_WRITE, 0, 0, history_longest(&h), true));
	history_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_full_until_a_flush),
		cmocka_unit_test(nothing_acknowledged_is_lost),
	};
	const char *text = getenv("SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

	random_state = seed * 0x9e3779b97f4a7c15ull | 1;
	print_message("# SEED=%" PRIu64 "\n", seed);
	return cmocka_run_group_tests_name("nbd_history", tests, NULL, NULL);
}
