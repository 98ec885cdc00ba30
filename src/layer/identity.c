/* SPDX-License-Identifier: BSD-3-Clause */
/* identity.c - the text of a stack that shows the same; see identity.h */
#include "layer/identity.h"

#include <stdio.h>
#include <stdlib.h>

#include "layer/layer.h"

static void describe(FILE *out, const struct layer *top, bool *shared)
{
	char text[600];

	for (const struct layer *layer = top; layer; layer = layer->below) {
		const struct layer_ops *ops = layer->ops;

		fprintf(out, "/%s", ops->name);
		if (ops->identity && layer->read_only && ops->identity(layer, text, sizeof text)) {
			fprintf(out, "(%s)", text);
		} else if (ops->shows_below) {
			for (const struct option *row = ops->options; row && row->name; row++) {
				options_get(row, layer, text, sizeof text);
				fprintf(out, ",%s=%s", row->name, text);
			}
		} else {
			*shared = false;
			fprintf(out, "@%p", (const void *)layer);
		}
		for (unsigned i = 0; i < layer->leg_count; i++) {
			fputc('[', out);
			describe(out, layer->legs[i], shared);
			fputc(']', out);
		}
	}
}

char *layer_identity(const struct layer *top, bool *shared)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool failed;

	if (!out)
		return NULL;
	*shared = true;
	describe(out, top, shared);
	failed = ferror(out);
	if (!fclose(out) && !failed)
		return text;
	free(text);
	return NULL;
}
