/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_move.c - `penstock move`: begins, follows, slows down and cancels the move of a disk
 *
 * The move is the running penstock's work; this process only watches. So it may be interrupted, and
 * called again to watch on.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/client_private.h"
#include "control/invocation.h"
#include "util/must.h"
#include "util/option.h"

#define BAR   30  /* columns of the bar */
#define PAUSE 250 /* ms between two looks */

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	interrupted = number;
}

static bool is(const json_t *move, const char *state)
{
	return !strcmp(client_text(move, "state"), state);
}

static bool is_over(const json_t *move)
{
	return is(move, "done") || is(move, "failed") || is(move, "canceled");
}

/* One line, over the one before. */
static void print_bar(const char *name, const json_t *move)
{
	uint64_t bytes = client_number(move, "bytes"), size = client_number(move, "size");
	uint64_t rate = client_number(move, "rate"), left = client_number(move, "seconds-left");
	double share = size ? (double)bytes / (double)size : 0;
	char a[32], b[32], c[32], bar[BAR + 1];
	unsigned full = (unsigned)(share * BAR);

	memset(bar, ' ', BAR);
	memset(bar, '=', full > BAR ? BAR : full);
	bar[BAR] = 0;
	if (full < BAR)
		bar[full] = '>';
	printf("\r%s [%s] %5.1f%%  %s of %s  %s/s", name, bar, share * 100,
	       client_short_size(bytes, a, sizeof a), client_short_size(size, b, sizeof b),
	       client_short_size(rate, c, sizeof c));
	if (rate)
		printf("  %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " left", left / 3600,
		       left / 60 % 60, left % 60);
	printf("  %s\033[K", is(move, "copying") ? "" : client_text(move, "state"));
	fflush(stdout);
}

static int print_end(const char *name, const json_t *move)
{
	char size[32];

	if (is(move, "done")) {
		printf("disk %s: moved, %s in %.1f s\n", name,
		       client_short_size(client_number(move, "size"), size, sizeof size),
		       json_number_value(json_object_get(move, "seconds")));
		if (*client_text(move, "note"))
			printf("%s\n", client_text(move, "note"));
		return 0;
	}
	fflush(stdout);
	fprintf(stderr, "penstock move: disk %s: %s%s%s; it is where it was\n", name,
		is(move, "failed") ? "the move failed" : "the move was canceled",
		*client_text(move, "error") ? ": " : "", client_text(move, "error"));
	return 1;
}

/* Until it is over, or somebody interrupts. @move is its own. */
static int follow(const struct invocation *in, const char *name, const char *path, json_t *move)
{
	const struct timespec pause = { .tv_nsec = PAUSE * 1000000 };
	struct sigaction action = { .sa_handler = interrupt };
	bool terminal = isatty(STDOUT_FILENO);
	int status = 1;

	sigaction(SIGINT, &action, NULL);
	while (move && !is_over(move) && !interrupted) {
		if (terminal)
			print_bar(name, move);
		nanosleep(&pause, NULL);
		json_decref(move);
		move = client_ask(in, "GET", path, "");
	}
	if (terminal)
		printf("\r\033[K");
	if (move && is_over(move))
		status = print_end(name, move);
	else if (interrupted)
		printf("disk %s: the move goes on; penstock move %s follows it again, with --cancel "
		       "it ends\n",
		       name, name);
	json_decref(move);
	fflush(stdout);
	if (interrupted) {
		signal(SIGINT, SIG_DFL);
		raise(SIGINT);
	}
	return status;
}

/* What --limit says, as JSON; NULL: there is none, or after a complaint not *@good. */
static json_t *limit_of(const struct invocation *in, bool *good)
{
	uint64_t bytes;

	*good = true;
	if (!in->limit)
		return NULL;
	*good = !parse_size(in->limit, &bytes);
	if (!*good)
		fprintf(stderr,
			"penstock move: --limit: '%s' is not understood; expected bytes a second such as "
			"100M, or 0 for no limit\n",
			in->limit);
	return *good && bytes ? must(json_integer((json_int_t)bytes)) : must(json_null());
}

static json_t *ask_with(const struct invocation *in, const char *method, const char *path,
			json_t *body)
{
	char *text = must(json_dumps(body, JSON_COMPACT));
	json_t *answer = client_ask(in, method, path, text);

	free(text);
	json_decref(body);
	return answer;
}

/* The others are its own. */
static json_t *begin(const struct invocation *in, const char *path, json_t *to, json_t *limit)
{
	json_t *body = must(json_pack("{s:o}", "to", to));

	if (limit)
		json_object_set_new(body, "limit", limit);
	if (in->at)
		json_object_set_new(body, "at", json_string(in->at));
	return ask_with(in, "POST", path, body);
}

static int cancel(const struct invocation *in, const char *name, const char *path)
{
	json_t *move = client_ask(in, "DELETE", path, "");

	if (!move)
		return 1;
	if (is(move, "done"))
		printf("disk %s: it had moved already\n", name);
	else
		printf("disk %s: the move is canceled; it is where it was\n", name);
	json_decref(move);
	return 0;
}

int client_move(const struct invocation *in)
{
	const char *name = in->arguments[0];
	json_t *limit = NULL, *to = NULL, *move;
	char *path;
	bool good;
	int status;

	if (in->cancel && (in->count > 1 || in->limit || in->at || in->detach)) {
		fprintf(stderr, "penstock move: --cancel stands alone\n");
		return 2;
	}
	if (in->at && in->count == 1) {
		fprintf(stderr,
			"penstock move: LAYER is missing; expected where the disk is to be, "
			"such as 'file: {path: PATH}'\n");
		return 2;
	}
	if (!client_name(name))
		return 2;
	limit = limit_of(in, &good);
	if (good && in->count > 1)
		to = client_yaml_list(in, 1, "LAYER");
	if (!good || (in->count > 1 && !to)) {
		json_decref(limit);
		return 2;
	}
	path = client_path("/v1/disks/%s/move", name);
	if (in->cancel) {
		status = cancel(in, name, path);
		free(path);
		return status;
	}
	if (to)
		move = begin(in, path, to, limit);
	else if (limit)
		move = ask_with(in, "PATCH", path, must(json_pack("{s:o}", "limit", limit)));
	else
		move = client_ask(in, "GET", path, "");
	/* With a new limit alone nobody asked to watch. */
	if (move && (in->detach || (in->limit && in->count == 1))) {
		printf("disk %s: it is being moved; penstock move %s shows how far it is\n", name,
		       name);
		json_decref(move);
		free(path);
		return 0;
	}
	status = move ? follow(in, name, path, move) : 1;
	free(path);
	return status;
}
