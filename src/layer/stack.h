/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack.h - the layers of one disk, from the one that the guest's requests meet
 * first down to the back-end
 */
#pragma once

#include "layer/layer.h"

/** One layer as configured: which kind, and its options as text. */
struct layer_config {
	const struct layer_ops *ops;
	unsigned count;
	struct layer_setting {
		char *name, *value;
		unsigned line; /**< in the configuration file; 0: none */
	} * settings;
};

/** Layers in the order of a request's way down. */
struct stack {
	const char *disk; /**< its name; the caller's */
	bool read_only;
	uint32_t block_size;   /**< bytes */
	struct layer **layers; /**< layers[count-1] is the back-end */
	unsigned count;
	struct limits limits; /**< of the whole */
	unsigned frames;      /**< an io needs below the front-end */
	unsigned parts;       /**< ios that one request can turn into, at most */
	size_t queue_state;   /**< bytes */
	bool single_loop;
};

/**
 * Makes and opens @count layers for the disk @disk, whose size of a block is @block_size. On
 * failure nothing stays open, and @err names the layer and, where there is one, @line_of_error
 * receives the line of the option.
 */
struct stack *stack_open(const char *disk, bool read_only, uint32_t block_size,
			 const struct layer_config *config, unsigned count, unsigned *line_of_error,
			 struct error *err);

/** Opens one more layer on top, before any queue is open. 0 or -errno, as stack_open(). */
int stack_push(struct stack *stack, const struct layer_config *config, unsigned *line_of_error,
	       struct error *err);

void stack_close(struct stack *stack);

/** Asks each layer, from the back-end up, what it can take now. */
void stack_limits(struct stack *stack);

/** Grows the back-end so that the stack's size becomes at least @size. */
int stack_resize(struct stack *stack, uint64_t size, struct error *err);

/** Gives @queue the layers' states; on the queue's thread. 0 or -ENOMEM. */
int stack_queue_open(struct stack *stack, struct io_queue *queue);
void stack_queue_close(struct stack *stack, struct io_queue *queue);
