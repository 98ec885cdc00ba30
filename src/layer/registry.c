/* SPDX-License-Identifier: BSD-3-Clause */
/* registry.c - all kinds of layers and back-ends; one row each */
#include <string.h>

#include "layer/layer.h"

extern const struct layer_ops pass_ops, flaky_ops, extent_ops;
extern const struct layer_ops file_ops, iso_ops, memory_ops, null_ops;

const struct layer_ops *const layer_registry[] = {
	/* layers */
	&extent_ops,
	&flaky_ops,
	&pass_ops,
	/* back-ends */
	&file_ops,
	&iso_ops,
	&memory_ops,
	&null_ops,
	NULL,
};

const struct layer_ops *layer_find(const char *name)
{
	for (unsigned i = 0; layer_registry[i]; i++)
		if (!strcmp(layer_registry[i]->name, name))
			return layer_registry[i];
	return NULL;
}
