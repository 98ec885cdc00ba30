/* SPDX-License-Identifier: BSD-3-Clause */
/* stacks.h - random stacks for the model check: any layer over one back-end */
#pragma once

#include "layer/crash/chance.h"
#include "layer/stack_config.h"

#define STACK_END (700u << 10) /* bytes that its back-end shows */

/**
 * Draws a stack for a disk with blocks of @block_size bytes, which shows zeroes at first. Its file
 * is @directory/disk.img, made anew. Where a layer has to read what is below when it is opened, and
 * there is a flaky one, it may not open.
 */
struct stack_config stack_draw(struct chance *chance, uint32_t block_size, const char *directory);
