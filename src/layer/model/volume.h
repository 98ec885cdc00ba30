/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.h - small LUKS volumes for the model checks, on whatever a stack has below its crypt
 *
 * A header of 256 KiB in place of 16 MiB, and a key that is derived at once. Each volume has a key
 * of its own. A new volume would show noise; these are written over with zeroes, through crypt, so
 * that a check begins with the same contents whether there is a crypt or not.
 */
#pragma once

#include "layer/crash/chance.h"
#include "layer/stack.h"

#define VOLUME_OFFSET (256u << 10) /* bytes before the data */

/** The file with the passphrase, made at the first call; removed by volume_end(). */
const char *volume_key(void);
void volume_end(void);

/** Adds the layer crypt to @stack, which opens such volumes. Good as testing_layer() is. */
struct layer_config *volume_layer(struct stack_config *stack);

/**
 * Makes a volume below each crypt in @stack, which must keep its bytes when it is closed, for disks
 * with blocks of @block_size bytes. It waits. Ends the program if it fails.
 */
void volume_format(const struct stack_config *stack, uint32_t block_size, struct chance *chance);
