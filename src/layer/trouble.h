/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trouble.h - what layers that make trouble on purpose have in common: which requests are
 * concerned, and some of their options
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "io/io.h"
#include "util/option.h"

/** Which requests are concerned: values of the option ops. */
enum trouble_ops { TROUBLE_ALL, TROUBLE_READ, TROUBLE_WRITE, TROUBLE_FLUSH };

static const char *const trouble_choices[] = { "all", "read", "write", "flush", NULL };

/** Whether @io is concerned. */
static inline bool trouble_concerns(enum trouble_ops ops, const struct io *io)
{
	switch (ops) {
	case TROUBLE_READ:
		return io->op == IO_READ;
	case TROUBLE_WRITE:
		return io->op != IO_READ && io->op != IO_FLUSH;
	case TROUBLE_FLUSH:
		return io->op == IO_FLUSH;
	default:
		return true;
	}
}

/** Rows for members of @object with the option's name: uint64_t jitter, int ops, uint64_t seed. */
#define TROUBLE_JITTER(object)                                                                     \
	{                                                                                          \
		.name = "jitter", .type = OPTION_DURATION, .offset = offsetof(object, jitter),     \
		.max = 3600000000000,                                                              \
		.help = "A random time up to this on top, so that requests overtake one another."  \
	}
#define TROUBLE_OPS(object)                                                                        \
	{                                                                                          \
		.name = "ops", .type = OPTION_CHOICE, .offset = offsetof(object, ops),             \
		.choices = trouble_choices, .fallback = "all",                                     \
		.help = "Which requests are concerned; write includes discard and write-zeroes."   \
	}
#define TROUBLE_SEED(object)                                                                       \
	{                                                                                          \
		.name = "seed", .type = OPTION_UINT, .offset = offsetof(object, seed),             \
		.fallback = "1",                                                                   \
		.help = "Of the random numbers; the same seed repeats a run on one queue."         \
	}
