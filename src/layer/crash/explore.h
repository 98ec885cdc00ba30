/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * explore.h - lets a disk crash at many points of its life, and looks at what comes up again
 *
 * A round is one life from new devices on, cut off at several points. At each the power is lost (or
 * only the program ends), some image is drawn that could have been left, and the disk lives on from
 * there: it is opened by the same code, which recovers; all of it is read; it works on. Some of
 * these lives are cut off as well, so that crashes during recovery are seen, and crashes after
 * those.
 *
 * Legs of a mirror may be absent in a life, or die in it. An absent leg may make the disk refuse to
 * open, and then all legs come back; but if it opens, it must show what it has promised.
 */
#pragma once

#include "layer/crash/epoch.h"

struct explorer {
	uint64_t seed;
	struct chance chance;
	bool power_only;            /**< the program alone does not end */
	uint64_t points;            /**< images that were looked at */
	uint64_t nested;            /**< of these: after more than one crash */
	uint64_t killed;            /**< the program ended, no power was lost */
	uint64_t lost, kept, torn;  /**< uncertain writes, over all points */
	uint64_t refused, degraded; /**< lives with a leg absent: not opened; opened */
	char failure[4000];
};

/** One round: about @points crashes. False: @explorer->failure says what happened. */
bool explore(struct explorer *explorer, struct scene *scene, unsigned points);
