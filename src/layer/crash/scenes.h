/* SPDX-License-Identifier: BSD-3-Clause */
/* scenes.h - stacks for the crash simulator: built by hand, or drawn */
#pragma once

#include "layer/crash/epoch.h"
#include "layer/testing_build.h"

/** A scene of @devices with @sectors each, and as many in the disk; its stack is empty yet. */
struct scene scene_of(const char *what, unsigned devices, uint32_t sectors);

/** The layer @ops (or none) over device @number, with an option order if @order is not NULL. */
void scene_add(struct scene *scene, unsigned number, const struct layer_ops *ops,
	       const char *order);

/** A random one; with the layer @with in it (a crypt: likely), unless that is NULL. */
struct scene scene_draw(struct chance *chance, const char *with);

void scene_free(struct scene *scene);
