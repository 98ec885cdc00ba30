/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * identity.h - what a layer and those below it show, as a text that is the same for all disks on
 * which it is the same
 *
 * So that disks over one golden image can share what they cache of it. That takes layers whose
 * bytes follow from their options and what is below (layer_ops.shows_below), over back-ends that
 * can say which thing it is that they read (layer_ops.identity), opened for reading only.
 */
#pragma once

#include <stdbool.h>

struct layer;

/**
 * The text for what begins at @top, to be freed; NULL: no memory. @shared is set to whether another
 * disk may have the same text; if not, it is the same only while none of the layers is another one.
 */
char *layer_identity(const struct layer *top, bool *shared);
