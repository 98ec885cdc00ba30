/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * broken.h - layers that lose data when the power goes, each in a way of its own: so that the check
 * is seen to fail; and one that does not, so that it is seen to pass
 *
 * shadow keeps two places for each sector and a map that says which one counts. It writes to the
 * other place, then the map. {order: ...} says how well.
 */
#pragma once

#include "layer/layer.h"

extern const struct layer_ops liar_ops;   /* says that it flushed */
extern const struct layer_ops no_fua_ops; /* sends writes on without their FUA */
extern const struct layer_ops shadow_ops;
extern const struct layer_ops twins_ops; /* a mirror that never compares its legs */

/** Sectors that a shadow shows over a device of @sectors. */
uint32_t shadow_sectors(uint32_t sectors);
