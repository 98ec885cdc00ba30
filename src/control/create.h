/* SPDX-License-Identifier: BSD-3-Clause */
/* create.h - `penstock create`: makes what a layer keeps on disk; see layer_ops.format */
#pragma once

#include "control/invocation.h"
#include "util/option.h"

/** The options that all kinds have. */
extern const struct option create_options[];

/** Does it; returns the exit status. */
int create_run(const struct invocation *in);
