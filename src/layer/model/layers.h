/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layers.h - layers of the model checks: they do what the rules of io.h allow, and no more
 *
 * split cuts requests into parts, which it sends in any order. twist changes the data on their way
 * down and back, in bounce buffers; zeroes stay zeroes. hold keeps requests on both ways, and lets
 * them go in any order.
 */
#pragma once

#include "layer/layer.h"

extern const struct layer_ops split_ops, twist_ops, hold_ops;

/** What their chance begins with, on threads that have not used it yet. */
void model_seed(uint64_t seed);
