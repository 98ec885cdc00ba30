/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack.h - the layers of one disk, from the one that the guest's requests meet first down to
 * what keeps the bytes: a tree, because some layers have legs
 *
 *     crypt - mirror -+- file                 a list; mirror ends it, with two legs
 *                     `- flaky - file         of which each is a list again
 *
 * Each layer knows what a queue that begins at it needs (frames, parts, errands, bytes of state),
 * so that a layer can have a queue onto what is below it alone.
 */
#pragma once

#include "layer/layer.h"
#include "layer/stack_config.h"

/** What all layers of a stack are told when they are opened. */
struct stack_setting {
	const char *disk; /**< name of the disk; the caller's, for as long as the layers live */
	bool read_only;
	uint32_t block_size;    /**< bytes */
	struct layer_part part; /**< what is used of a layer that is opened alone */
	/**
	 * Where the states on a queue of the layers opened so far end, bytes: a new layer has its
	 * own behind them, so that a session with any of them finds each state in a place of its
	 * own. NULL: it begins with this stack.
	 */
	size_t *states;
};

/**
 * Makes and opens the layers of @config, and returns the first. On failure nothing stays open, and
 * @err names the layer and, where there is one, @line_of_error (may be NULL) receives the line of
 * the option. It may wait; any thread.
 */
struct layer *stack_open(const struct stack_setting *setting, const struct stack_config *config,
			 unsigned *line_of_error, struct error *err);

/**
 * An object with the options of @config set and nothing open, for layer_plan.options; NULL with
 * @err. Freed by stack_options_free().
 */
struct layer *stack_options(const struct layer_config *config, unsigned *line_of_error,
			    struct error *err);
void stack_options_free(struct layer *options);

/**
 * Makes and opens one layer above @below (NULL: none) and @legs. That array becomes its own if it
 * opens; on failure it stays the caller's, and the layers in it stay open.
 */
struct layer *stack_open_layer(const struct stack_setting *setting,
			       const struct layer_config *config, struct layer *below,
			       struct layer **legs, unsigned leg_count, unsigned *line_of_error,
			       struct error *err);

/** 0 if a layer of @config may stand over @below (NULL: nothing) with so many legs; else -EINVAL.
 */
int stack_check_place(const struct layer_config *config, const struct layer *below,
		      unsigned leg_count, struct error *err);

/** Closes all layers from @top on. NULL is allowed. */
void stack_close(struct layer *top);

/** Closes @layer alone. */
void stack_close_layer(struct layer *layer);

/** Works out again what each layer from @top on can take, after something grew. */
void stack_limits(struct layer *top);
/** The same of @layer alone. */
void stack_limits_of(struct layer *layer);

/**
 * Works out again what each layer from @top on can take, and what a queue needs; after layers were
 * linked anew.
 */
void stack_plan(struct layer *top);

/** Most ios of one request, and of the layers themselves: what a queue must have memory for. */
#define STACK_PARTS   (1u << 15)
#define STACK_ERRANDS (1u << 20)

/** 0, or -E2BIG with @err: so many layers that split stand one above another that a queue of @top
 * would take more. */
int stack_check_parts(const struct layer *top, struct error *err);

/** Calls @visit for every layer from @top on, those below before the one above. */
void stack_visit(struct layer *top, void (*visit)(struct layer *layer, void *data), void *data);

/** True if a layer from @top on may not run on several loops. */
bool stack_single_loop(struct layer *top);

/** The natural block size of what keeps the bytes, 0: any. Of a stack that is not open. */
uint32_t stack_natural_block_size(const struct stack_config *config);

/** True if it can be read only: what keeps the bytes cannot be written, whoever asks. */
bool stack_read_only(const struct stack_config *config);

/** Whether layer @index of @config is read-only, in a disk that is or is not. */
bool stack_read_only_at(const struct stack_config *config, unsigned index, bool read_only);

/** What the layer above the one at @index uses of that; all of it if its options are wrong. */
struct layer_part stack_part_at(const struct stack_config *config, unsigned index);

/**
 * A queue that begins at @top, for @depth requests at once with @vectors iovecs each; on the
 * queue's thread. 0 or -ENOMEM.
 */
int stack_queue_open(struct layer *top, struct io_queue *queue, struct loop *loop, unsigned depth,
		     unsigned vectors);
void stack_queue_close(struct layer *top, struct io_queue *queue);

/** What such a queue needs: for io_queue_init() and io_queue_refit(). */
unsigned stack_queue_parts(const struct layer *top, unsigned depth);
unsigned stack_queue_frames(const struct layer *top);

/** The states only, of a queue that exists; for a change of layers under it. */
int stack_queue_attach(struct layer *top, struct io_queue *queue);
void stack_queue_detach(struct layer *top, struct io_queue *queue);
