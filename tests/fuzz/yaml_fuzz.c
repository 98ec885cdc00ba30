/* SPDX-License-Identifier: BSD-3-Clause */
/* yaml_fuzz.c - configuration files of any bytes: read, checked, freed */
#include <stdint.h>

#include "control/config.h"
#include "control/mistakes.h"
#include "control/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mistakes mistakes = { .file = "fuzz" };
	struct config config = { 0 };
	struct node *tree = yaml_parse((const char *)data, size, &mistakes);

	config_init(&config);
	if (tree && config_read(&config, tree, &mistakes))
		config_check_files(tree, &mistakes);
	config_release(&config);
	node_free(tree);
	mistakes_release(&mistakes);
	return 0;
}
