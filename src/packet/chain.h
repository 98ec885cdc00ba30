/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chain.h - the layers of a port on one loop, and packets on their way through them
 *
 * In: the first layer to the last, then the switch. Out: the last to the first, then what is
 * plugged in, cut and summed as that needs it. What a layer passes on later goes on behind it, at
 * the end of the loop's turn.
 */
#pragma once

#include "packet/packet_layer.h"

/** Immutable; a change of layers puts another one in its place. */
struct chain_of_layers {
	unsigned count;
	struct {
		struct layer_place *place;
		bool sees[PACKET_DIRECTIONS];
	} step[];
};

/** An empty one of @count steps. NULL if memory is short. */
struct chain_of_layers *chain_create(unsigned count);

/** A batch that has just come in; its packets are borrowed. */
void chain_in(struct lane *lane, struct packet_batch *batch);
/** A batch that is to go out of @lane; its packets are borrowed, or views. */
void chain_out(struct lane *lane, struct packet_batch *batch);

/** Sends on what layers have passed on, now. */
void chain_go_on(struct lane *lane);

/** Puts @chain (NULL: none) in the place of the one that @lane has, which the caller frees later:
 * tells the layers that leave and arrive. On the lane's loop. */
void chain_replace(struct lane *lane, struct chain_of_layers *chain);
