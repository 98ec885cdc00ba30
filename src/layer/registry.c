/* SPDX-License-Identifier: BSD-3-Clause */
/* registry.c - all kinds of layers and back-ends; one row each */
#include <string.h>

#include "layer/layer.h"

extern const struct layer_ops cache_ops;
extern const struct layer_ops concat_ops;
extern const struct layer_ops crypt_ops;
extern const struct layer_ops delay_ops;
extern const struct layer_ops extent_ops;
extern const struct layer_ops flaky_ops;
extern const struct layer_ops mirror_ops;
extern const struct layer_ops overlay_ops;
extern const struct layer_ops pass_ops;
extern const struct layer_ops slice_ops;
extern const struct layer_ops stripe_ops;
extern const struct layer_ops file_ops, iso_ops, memory_ops, nbd_ops, null_ops;

const struct layer_ops *const layer_registry[] = {
	/* layers */
	&cache_ops,
	&concat_ops,
	&crypt_ops,
	&delay_ops,
	&extent_ops,
	&flaky_ops,
	&mirror_ops,
	&overlay_ops,
	&pass_ops,
	&slice_ops,
	&stripe_ops,
	/* back-ends */
	&file_ops,
	&iso_ops,
	&memory_ops,
	&nbd_ops,
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
